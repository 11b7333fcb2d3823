//! What was measured in the last minute, for people who look: of our own router the difference of two looks, of which one is
//! kept for each deployment; of the source that a policy names its answer, for a few seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemas::policy::JudgementPolicy;
use schemas::{DeploymentId, Timestamp};

use super::proxy::{self, CounterReading};
use super::registry::SUPPORTED;
use super::{Asked, Measured, Reading};
use crate::traffic::Router;

/// How old the look is at most that a difference is taken to, and at least the one before it.
const LOOK_AFTER: Duration = Duration::from_secs(30);

/// How long a span a source is asked for.
const SPAN: Duration = Duration::from_secs(60);

/// For how long its answer is told again.
const ANSWER_KEPT: Duration = Duration::from_secs(10);

/// How long an answer may take: who looks would rather know the rest.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// What is known of the last minute.
#[derive(Default)]
pub struct Recent {
    looks: Mutex<BTreeMap<DeploymentId, Looks>>,
    answers: Mutex<BTreeMap<DeploymentId, (Asked, Measured)>>,
}

/// The last two looks that were kept of a deployment, which are the same at first.
struct Looks {
    earlier: CounterReading,
    later: CounterReading,
}

impl Recent {
    /// Looks at the router for each of these deployments whose last look is 30 s old, and forgets the others. To be called
    /// every few seconds.
    pub async fn keep(&self, deployments: BTreeSet<DeploymentId>, router: &dyn Router, now: Timestamp) {
        lock(&self.looks).retain(|id, _| deployments.contains(id));
        lock(&self.answers).retain(|id, _| deployments.contains(id));
        for id in deployments {
            let is_due = |looks: &Looks| is_past(looks.later.at, LOOK_AFTER, now);
            if lock(&self.looks).get(&id).is_none_or(is_due)
                && let Ok(Some(measures)) = router.measures(&id).await
            {
                self.take(id, CounterReading { at: now, measures });
            }
        }
    }

    fn take(&self, id: DeploymentId, look: CounterReading) {
        let mut looks = lock(&self.looks);
        let earlier = looks.remove(&id).map_or_else(|| look.clone(), |before| before.later);
        looks.insert(id, Looks { earlier, later: look });
    }

    /// Returns what was measured of these stacks in the last minute, or since it is looked at; none if that is not known.
    pub async fn of(
        &self,
        asked: &Asked,
        policy: &JudgementPolicy,
        router: &dyn Router,
        now: Timestamp,
    ) -> Option<Measured> {
        let measured = async {
            match policy.source().is_router() {
                true => self.counted(asked, router, now).await,
                false => self.answered(asked, policy, now).await,
            }
        };
        tokio::time::timeout(ANSWER_MAX, measured).await.ok().flatten()
    }

    async fn counted(&self, asked: &Asked, router: &dyn Router, now: Timestamp) -> Option<Measured> {
        let measures = router.measures(&asked.deployment).await.ok()??;
        let looks = lock(&self.looks);
        let before = &looks.get(&asked.deployment)?.earlier;
        match proxy::reading_between(asked, Some(before), &CounterReading { at: now, measures }) {
            Reading::Complete(measured) => Some(measured),
            Reading::Partial { .. } | Reading::Empty { .. } | Reading::Stale { .. } => None,
        }
    }

    async fn answered(&self, asked: &Asked, policy: &JudgementPolicy, now: Timestamp) -> Option<Measured> {
        if let Some((of, known)) = lock(&self.answers).get(&asked.deployment)
            && of == asked
            && !is_past(known.span.to, ANSWER_KEPT, now)
        {
            return Some(known.clone());
        }
        let source = SUPPORTED.open(policy).ok()??;
        let measured = source.read(asked, source.limits().last(SPAN, now)).await.ok()?.measured()?.clone();
        lock(&self.answers).insert(asked.deployment.clone(), (asked.clone(), measured.clone()));
        Some(measured)
    }
}

fn is_past(then: Timestamp, after: Duration, now: Timestamp) -> bool {
    now.duration_since(then).unsigned_abs() >= after
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use schemas::StreamVersion;

    use super::super::proxy::tests::{asked, counters, stack};
    use super::*;
    use crate::traffic::{ApplyError, Entry, HeldRoutes, Measures, Routes};

    /// A router that has counted so much.
    struct Counter(Measures);

    #[async_trait::async_trait]
    impl Router for Counter {
        async fn apply(&self, _: &Routes) -> Result<HeldRoutes, ApplyError> {
            unreachable!("it is only asked")
        }

        async fn remove(&self, _: &DeploymentId, _: StreamVersion) -> Result<(), ApplyError> {
            unreachable!("it is only asked")
        }

        async fn entry(&self, _: &DeploymentId) -> Result<Option<Entry>, ApplyError> {
            Ok(None)
        }

        async fn measures(&self, _: &DeploymentId) -> Result<Option<Measures>, ApplyError> {
            Ok(Some(self.0.clone()))
        }
    }

    /// What is known of the last minute at a second at which the router has counted so many requests since its start.
    async fn known(recent: &Recent, epoch: u128, second: u64, requests: u64) -> Option<(u64, i64)> {
        let counters = counters(epoch, second * 1_000, requests, 0);
        let measured =
            recent.of(&asked(), &JudgementPolicy::default(), &Counter(counters.measures), counters.at).await?;
        let span = measured.span.to.duration_since(measured.span.from);
        Some((measured.of(stack()).requests, span.as_secs()))
    }

    async fn keep(recent: &Recent, second: u64, requests: u64) {
        let counters = counters(1, second * 1_000, requests, 0);
        recent.keep([asked().deployment].into(), &Counter(counters.measures), counters.at).await;
    }

    #[tokio::test]
    async fn the_last_minute_is_what_was_counted_since_the_look_before_the_last() {
        let recent = Recent::default();
        assert_eq!(known(&recent, 1, 1, 100).await, None, "nothing to count from");
        keep(&recent, 1, 100).await;
        assert_eq!(known(&recent, 1, 11, 120).await, Some((20, 10)));
        keep(&recent, 11, 120).await;
        assert_eq!(known(&recent, 1, 21, 140).await, Some((40, 20)), "a young look is kept");
        keep(&recent, 31, 160).await;
        keep(&recent, 61, 220).await;
        assert_eq!(known(&recent, 1, 71, 230).await, Some((70, 40)), "a minute at most");
        assert_eq!(known(&recent, 2, 72, 5).await, None, "a router that restarted has lost some");
        recent.keep(BTreeSet::new(), &Counter(counters(1, 1, 0, 0).measures), Timestamp::UNIX_EPOCH).await;
        assert_eq!(known(&recent, 1, 73, 230).await, None, "who serves nobody is forgotten");
    }
}
