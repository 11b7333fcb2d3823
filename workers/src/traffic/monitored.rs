//! Whether a router answers: what came of every read of it, whoever made it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ledger::execute::Clock;
use schemas::{DeploymentId, StreamVersion, Timestamp};

use super::{ApplyError, Entry, HeldRoutes, Measures, Router, Routes, Seen, Wanted};

/// For how long no read may be answered before the router is said to be silent.
pub const SILENT_MIN: Duration = Duration::from_secs(5);

/// How often it is logged at most that it does not answer.
pub const LOGGED_EVERY: Duration = Duration::from_secs(60);

/// How long a read may be over and still say something.
const FRESH_MAX: Duration = Duration::from_secs(15);

/// A router that has not answered for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// Since when.
    pub since: Timestamp,
    /// What the last read of it came to.
    pub why: String,
}

/// A router of which is known whether it answers. It logs when it no longer does, at most once a minute while it does not, and
/// when it does again.
pub struct MonitoredRouter {
    router: Arc<dyn Router>,
    clock: Arc<dyn Clock>,
    reads: Mutex<Reads>,
}

impl MonitoredRouter {
    /// Returns `router`, and remembers from now on whether it answers.
    pub fn new(router: Arc<dyn Router>, clock: Arc<dyn Clock>) -> Self {
        Self { router, clock, reads: Mutex::default() }
    }

    fn note<T>(&self, read: Result<T, ApplyError>) -> Result<T, ApplyError> {
        let failed = read.as_ref().err().and_then(unanswered);
        let (steady, wall) = (self.clock.steady(), self.clock.now());
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        let news = match &failed {
            Some(failed) => reads.failed(failed, steady, wall),
            None => reads.answered(steady),
        };
        drop(reads);
        match news {
            Some(News::Silent { why }) => tracing::warn!(%why, "the router does not answer"),
            Some(News::StillSilent { seconds, why }) => {
                tracing::warn!(%why, "the router has not answered for {seconds} s");
            }
            Some(News::Answers { seconds }) => tracing::warn!("the router answers again, after {seconds} s"),
            None => {}
        }
        read
    }
}

/// A read that was not answered.
struct Unanswered {
    why: String,
    /// Whether no router runs.
    absent: bool,
}

fn unanswered(error: &ApplyError) -> Option<Unanswered> {
    match error {
        ApplyError::NotRunning(trouble) => Some(Unanswered { why: trouble.what.clone(), absent: true }),
        ApplyError::Unreachable(trouble) => Some(Unanswered { why: trouble.what.clone(), absent: false }),
        ApplyError::Superseded { .. } | ApplyError::Refused(_) => None,
    }
}

/// What is logged.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Silent { why: String },
    StillSilent { seconds: u64, why: String },
    Answers { seconds: u64 },
}

/// What reads came to until now.
#[derive(Debug, Default)]
struct Reads {
    /// Whether it ever answered: where none ever ran, none is missed.
    ever_answered: bool,
    silent: Option<Failures>,
    logged_at: Option<Duration>,
}

/// Reads in a row that were not answered.
#[derive(Debug)]
struct Failures {
    since: Timestamp,
    first: Duration,
    last: Duration,
    why: String,
    logged: bool,
}

impl Reads {
    fn answered(&mut self, now: Duration) -> Option<News> {
        self.ever_answered = true;
        let silent = self.silent.take().filter(|silent| silent.logged)?;
        Some(News::Answers { seconds: now.saturating_sub(silent.first).as_secs() })
    }

    fn failed(&mut self, failed: &Unanswered, now: Duration, wall: Timestamp) -> Option<News> {
        if failed.absent && !self.ever_answered {
            return None;
        }
        // Where nobody read it for a while, this process stood still, or the machine slept: what was before says nothing.
        let before = self.silent.take_if(|silent| now.saturating_sub(silent.last) > FRESH_MAX);
        let logged = before.is_some_and(|before| before.logged);
        let why = failed.why.clone();
        let begin = || Failures { since: wall, first: now, last: now, why: String::new(), logged };
        let silent = self.silent.get_or_insert_with(begin);
        (silent.last, silent.why) = (now, why.clone());
        if self.logged_at.is_some_and(|at| now.saturating_sub(at) < LOGGED_EVERY) {
            return None;
        }
        (self.logged_at, silent.logged) = (Some(now), true);
        Some(match now.saturating_sub(silent.first).as_secs() {
            0 => News::Silent { why },
            seconds => News::StillSilent { seconds, why },
        })
    }

    fn silence(&self, now: Duration) -> Option<Silence> {
        let silent = self.silent.as_ref()?;
        let lasted = silent.last.saturating_sub(silent.first) >= SILENT_MIN;
        let fresh = now.saturating_sub(silent.last) <= FRESH_MAX;
        (lasted && fresh).then(|| Silence { since: silent.since, why: silent.why.clone() })
    }
}

#[async_trait::async_trait]
impl Router for MonitoredRouter {
    async fn apply(&self, routes: &Routes) -> Result<HeldRoutes, ApplyError> {
        self.router.apply(routes).await
    }

    async fn remove(&self, deployment: &DeploymentId, generation: StreamVersion) -> Result<(), ApplyError> {
        self.router.remove(deployment, generation).await
    }

    async fn entry(&self, deployment: &DeploymentId) -> Result<Option<Entry>, ApplyError> {
        self.note(self.router.entry(deployment).await)
    }

    async fn measures(&self, deployment: &DeploymentId) -> Result<Option<Measures>, ApplyError> {
        self.note(self.router.measures(deployment).await)
    }

    async fn read_all(&self, wanted: Vec<Wanted>, seen: &Seen<'_>) {
        self.router.read_all(wanted, &|id, entry, measures| seen(id, self.note(entry), measures)).await;
    }

    fn silence(&self) -> Option<Silence> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).silence(self.clock.steady())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: &str = "nothing within 1s";

    fn at(ms: u64) -> (Duration, Timestamp) {
        (Duration::from_millis(ms), Timestamp::from_millisecond(i64::try_from(ms).unwrap()).unwrap())
    }

    fn fail(reads: &mut Reads, ms: u64) -> Option<News> {
        let (now, wall) = at(ms);
        reads.failed(&Unanswered { why: NOTHING.to_owned(), absent: false }, now, wall)
    }

    /// Three services are read by three workers, and the router hangs for two minutes.
    #[test]
    fn a_router_that_hangs_is_logged_when_it_begins_once_a_minute_and_when_it_ends() {
        let mut reads = Reads::default();
        assert_eq!(reads.answered(at(0).0), None);
        let told: Vec<News> = (0..9 * 130).filter_map(|n| fail(&mut reads, 1_000 + n * 111)).collect();
        let why = || NOTHING.to_owned();
        let [first, second, third] = &told[..] else { panic!("{told:?}") };
        assert_eq!(first, &News::Silent { why: why() });
        assert_eq!(second, &News::StillSilent { seconds: 60, why: why() });
        assert_eq!(third, &News::StillSilent { seconds: 120, why: why() });
        assert_eq!(reads.answered(at(140_000).0), Some(News::Answers { seconds: 139 }));
        assert_eq!(reads.answered(at(141_000).0), None);
    }

    #[test]
    fn a_router_that_answers_now_and_then_is_logged_once_a_minute() {
        let mut reads = Reads::default();
        let mut lines = 0;
        for second in 0..60 {
            lines += usize::from(fail(&mut reads, second * 1_000).is_some());
            lines += usize::from(reads.answered(at(second * 1_000 + 500).0).is_some());
            assert_eq!(reads.silence(at(second * 1_000 + 600).0), None);
        }
        assert_eq!(lines, 2);
    }

    #[test]
    fn it_is_silent_after_five_seconds_without_an_answer() {
        let mut reads = Reads::default();
        for (ms, silent) in [(2_000, false), (4_000, false), (6_900, false), (7_000, true), (9_000, true)] {
            fail(&mut reads, ms);
            let silence = reads.silence(at(ms).0);
            assert_eq!(silence.is_some(), silent, "{ms}");
            assert!(silence.is_none_or(|silence| silence.since == at(2_000).1 && silence.why == NOTHING));
        }
        reads.answered(at(9_100).0);
        assert_eq!(reads.silence(at(9_100).0), None);
    }

    #[test]
    fn a_process_that_stood_still_blames_no_router_when_it_goes_on() {
        let mut reads = Reads::default();
        reads.answered(at(0).0);
        fail(&mut reads, 1_000);
        // Stopped for a minute, with a read under way.
        fail(&mut reads, 61_000);
        assert_eq!(reads.silence(at(61_000).0), None);
        // What was logged has an end in the log.
        assert_eq!(reads.answered(at(62_000).0), Some(News::Answers { seconds: 1 }));
    }

    #[test]
    fn a_router_that_never_ran_is_not_missed_and_one_that_ended_is() {
        let absent = Unanswered { why: "the proxy does not run".to_owned(), absent: true };
        let mut reads = Reads::default();
        let read = |reads: &mut Reads, ms| reads.failed(&absent, at(ms).0, at(ms).1).is_some();
        assert!(!read(&mut reads, 0) && !read(&mut reads, 6_000));
        assert_eq!(reads.silence(at(6_000).0), None);
        reads.answered(at(7_000).0);
        assert!(read(&mut reads, 8_000) && !read(&mut reads, 14_000));
        assert!(reads.silence(at(14_000).0).is_some());
    }
}
