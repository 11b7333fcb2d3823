//! Retries: what did not work is tried again later and later, and its reason is told once.

use std::collections::BTreeMap;
use std::time::Duration;

use schemas::Backoff;

/// The waits for what may heal at any moment: when it does, nobody should notice that it was waited for.
const HEALS: Backoff = Backoff { first: Duration::from_millis(50), max: Duration::from_secs(1) };

/// The waits for what only another program can do.
const CLOSED: Backoff = Backoff { max: Duration::from_secs(60), ..HEALS };

/// What failed last, of each subject.
#[derive(Debug)]
pub(super) struct Retries<S> {
    failed: BTreeMap<S, Failed>,
}

#[derive(Debug)]
struct Failed {
    times: u32,
    why: String,
    /// On the steady clock.
    again_at: Duration,
}

impl<S> Default for Retries<S> {
    fn default() -> Self {
        Self { failed: BTreeMap::new() }
    }
}

impl<S: Ord> Retries<S> {
    /// Whether it is too early, at `steady`, to try `subject` again.
    pub(super) fn waits(&self, subject: &S, steady: Duration) -> bool {
        self.failed.get(subject).is_some_and(|failed| steady < failed.again_at)
    }

    /// Returns when the next one after `steady` may be tried again.
    pub(super) fn due(&self, steady: Duration) -> Duration {
        let due = self.failed.values().map(|failed| failed.again_at).filter(|at| *at > steady);
        due.min().unwrap_or(Duration::MAX)
    }

    /// Takes in that it worked.
    pub(super) fn done(&mut self, subject: &S) {
        self.failed.remove(subject);
    }

    /// Takes in that it failed at `steady`; `heals` says whether it may work at any moment. Returns how long it waits now,
    /// and whether the reason is another one than before.
    pub(super) fn failed(&mut self, subject: S, why: &str, heals: bool, steady: Duration) -> (Duration, bool) {
        let before = self.failed.remove(&subject);
        let is_new = before.as_ref().is_none_or(|before| before.why != why);
        let times = before.map_or(1, |before| before.times.saturating_add(1));
        let wait = if heals { HEALS } else { CLOSED }.after(times);
        let failed = Failed { times, why: why.to_owned(), again_at: steady.saturating_add(wait) };
        self.failed.insert(subject, failed);
        (wait, is_new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_another_program_can_do_is_tried_a_dozen_times_in_the_first_minutes_and_told_once() {
        let (mut retries, mut tries, mut told) = (Retries::default(), 0, 0);
        for ms in (0..180_000).step_by(20) {
            let steady = Duration::from_millis(ms);
            if !retries.waits(&"api", steady) {
                tries += 1;
                told += u32::from(retries.failed("api", "read-only", false, steady).1);
            }
        }
        assert!((10..=14).contains(&tries), "{tries}");
        assert_eq!(told, 1);
        assert!(!retries.waits(&"web", Duration::ZERO), "another subject waits for none");
    }

    #[test]
    fn what_may_heal_is_tried_every_second_and_begins_anew_once_it_worked() {
        let mut retries = Retries::default();
        for n in 0..40 {
            let (wait, is_new) = retries.failed("api", "no answer", true, Duration::from_secs(n));
            assert!(wait <= HEALS.max && is_new == (n == 0));
        }
        assert!(retries.failed("api", "disk full", true, Duration::ZERO).1, "another reason is told");
        retries.done(&"api");
        assert_eq!(retries.failed("api", "no answer", true, Duration::ZERO), (HEALS.first, true));
    }
}
