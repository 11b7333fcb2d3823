//! What another source than the router counted: a tick a reading, whole versions side by side.

use std::time::Duration;

use ledger::deployment::{Deployment, Rollout};
use ledger::judgement::judge::RULE;
use ledger::judgement::plan::Plan;
use ledger::judgement::policy;
use schemas::judgement::{Begun, Tally, Tick};
use schemas::policy::JudgementPolicy;
use schemas::{RolloutId, StackId, Timestamp};

use crate::measures::ticks::{Ticker, seed};
use crate::measures::{Failure, Measured, Reading};

/// How far back a baseline's past is asked for. Source: "Judging a canary": at least ten minutes of it.
pub const PAST: Duration = Duration::from_secs(600);

/// What is known of a source's readings for one rollout.
#[derive(Clone, Debug)]
pub(super) struct Sourced {
    rollout: RolloutId,
    until: Option<Timestamp>,
    begun: Option<Begun>,
    ticker: Ticker,
    reason: Option<String>,
    read_at: Option<Duration>,
}

impl PartialEq for Sourced {
    fn eq(&self, other: &Self) -> bool {
        let of = |one: &Self| (one.rollout, one.until, one.begun.clone(), one.reason.clone(), one.read_at);
        of(self) == of(other)
    }
}

impl Sourced {
    /// Returns what is known of a rollout's source before its first reading.
    pub(super) fn new(rollout: &Rollout) -> Self {
        let ticker = Ticker::new(&policy::plan(&rollout.policy.judgement, &rollout.plan));
        Self { rollout: rollout.id, until: None, begun: None, ticker, reason: None, read_at: None }
    }

    pub(super) fn is_of(&self, rollout: &Rollout) -> bool {
        self.rollout == rollout.id
    }

    /// The end of what was read.
    pub(super) fn until(&self) -> Option<Timestamp> {
        self.until
    }

    pub(super) fn begun(&self) -> Option<&Begun> {
        self.begun.as_ref()
    }

    /// Why nothing is known, or a part is not.
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// When something was measured last, by the steady clock.
    pub(super) fn read_at(&self) -> Option<Duration> {
        self.read_at
    }

    /// Takes an answer in. Before the judge listens it is the baseline's past; then it is a tick, unless the weights changed
    /// meanwhile.
    pub(super) fn take_in(
        &mut self,
        deployment: &Deployment,
        rollout: &Rollout,
        answer: Result<Reading, Failure>,
        listens: bool,
        age_ms: u64,
        steady: Duration,
    ) -> Option<Tick> {
        let reading = match answer {
            Ok(reading) => reading,
            Err(failure) => {
                self.reason = Some(failure.to_string());
                return None;
            }
        };
        self.reason = reading.reason().map(str::to_owned);
        let measured = reading.measured()?;
        self.read_at = Some(steady);
        let from = self.until.replace(measured.span.to);
        if !listens {
            let begun = begun(rollout, measured);
            self.ticker.learn(measured, rollout.baseline);
            self.begun = Some(begun);
            return None;
        }
        let share = share(deployment, rollout.canary, measured);
        match (from, share) {
            (Some(_), Some(share)) => Some(self.ticker.tick(measured, rollout.baseline, rollout.canary, share, age_ms)),
            // The first reading of whoever takes over says where to go on from.
            _ => {
                self.ticker.learn(measured, rollout.baseline);
                None
            }
        }
    }
}

/// Returns the canary's share if it was the same for all of the span.
fn share(deployment: &Deployment, canary: StackId, measured: &Measured) -> Option<schemas::Weight> {
    let applied = deployment.traffic.applied.as_ref().filter(|_| deployment.traffic.is_applied())?;
    let share = super::share(&applied.weights, canary)?;
    (applied.at <= measured.span.from).then_some(share)
}

fn begun(rollout: &Rollout, measured: &Measured) -> Begun {
    let judgement: &JudgementPolicy = &rollout.policy.judgement;
    let mut plan: Plan = policy::plan(judgement, &rollout.plan);
    seed(&mut plan, measured, rollout.baseline);
    let past = |history: ledger::judgement::plan::BaselineHistory| Tally {
        requests: history.requests,
        hits: history.hits,
        beyond: history.beyond,
    };
    let history = plan.metrics.iter().map(|metric| metric.history.map(past)).collect();
    Begun {
        rollout: rollout.id,
        rule: RULE.to_owned(),
        plan: rollout.plan.clone(),
        policy: judgement.clone(),
        half_life_s: plan.half_life_seconds as u32,
        history,
    }
}
