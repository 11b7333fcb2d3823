//! Heartbeats: by what an instance of a worker tells that the one who acts has fallen silent.
//!
//! They are no part of the log and decide nothing: silence is the reason for a takeover, and the log decides it. A
//! listener counts silence only for as long as it hears itself, so that one who is cut off, or brokers that are down,
//! depose nobody.

use std::collections::BTreeMap;
use std::time::Duration;

use schemas::Role;
use serde::{Deserialize, Serialize};

/// How often an instance tells that it lives.
pub const BEAT_EVERY: Duration = Duration::from_millis(250);

/// For how long the one who acts may be silent: with the commit, a takeover is done within three seconds.
pub const SILENCE_MAX: Duration = Duration::from_millis(2_500);

/// The longest time between two of a listener's own beats for which it has listened.
const GAP_MAX: Duration = Duration::from_millis(1_000);

/// For how long a voice that has fallen silent is remembered.
const REMEMBERED: Duration = Duration::from_secs(3_600);

/// A sign of life of one instance for one role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// The role.
    pub role: Role,
    /// The instance.
    pub holder: String,
}

/// Where beats are sent and heard.
pub trait Heartbeats: Send + Sync + 'static {
    /// Sends a beat. It may get lost.
    fn send(&self, beat: &Beat);

    /// Returns for how long nothing was heard of `holder` in `role`, counted while this listener heard itself.
    fn silence(&self, role: Role, holder: &str) -> Duration;
}

/// What a listener has heard. Pure: what time it is comes as data.
#[derive(Clone, Debug)]
pub struct FailureDetector {
    own: String,
    /// For how long it has listened in all.
    listened: Duration,
    /// When it heard itself last.
    own_at: Option<Duration>,
    /// How long it had listened when it heard each voice last.
    heard: BTreeMap<(Role, String), Duration>,
}

impl FailureDetector {
    /// Returns the failure detector of the instance `own`, which has heard nothing.
    pub fn new(own: &str) -> Self {
        Self { own: own.to_owned(), listened: Duration::ZERO, own_at: None, heard: BTreeMap::new() }
    }

    /// Hears a beat at `now` by a steady clock.
    pub fn hear(&mut self, beat: Beat, now: Duration) {
        if beat.holder == self.own {
            let gap = self.own_at.map_or(Duration::MAX, |at| now.saturating_sub(at));
            if gap <= GAP_MAX {
                self.listened += gap;
            }
            self.own_at = Some(now);
        }
        self.heard.insert((beat.role, beat.holder), self.listened);
        let forgotten = self.listened.saturating_sub(REMEMBERED);
        self.heard.retain(|_, at| *at >= forgotten);
    }

    /// Returns for how long nothing was heard of `holder` in `role`; since the beginning if it was never heard.
    pub fn silence(&self, role: Role, holder: &str) -> Duration {
        let heard = self.heard.get(&(role, holder.to_owned())).copied().unwrap_or_default();
        self.listened.saturating_sub(heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: Role = Role::Provisioner;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn beat(holder: &str) -> Beat {
        Beat { role: ROLE, holder: holder.to_owned() }
    }

    #[test]
    fn silence_is_counted_while_the_listener_hears_itself() {
        let mut detector = FailureDetector::new("b");
        for at in (0..2_000).step_by(250) {
            detector.hear(beat("a"), ms(at));
            detector.hear(beat("b"), ms(at));
        }
        assert!(detector.silence(ROLE, "a") <= BEAT_EVERY);
        for at in (2_000..5_000).step_by(250) {
            detector.hear(beat("b"), ms(at));
        }
        assert!(detector.silence(ROLE, "a") > SILENCE_MAX);
        assert_eq!(detector.silence(ROLE, "b"), Duration::ZERO);
    }

    #[test]
    fn a_listener_that_is_cut_off_counts_nothing() {
        let mut detector = FailureDetector::new("b");
        detector.hear(beat("a"), ms(0));
        detector.hear(beat("b"), ms(0));
        // Nobody is heard for a minute; then this listener a moment before the other.
        detector.hear(beat("b"), ms(60_000));
        assert_eq!(detector.silence(ROLE, "a"), Duration::ZERO);
        detector.hear(beat("b"), ms(60_250));
        assert_eq!(detector.silence(ROLE, "a"), ms(250));
    }

    #[test]
    fn whoever_was_never_heard_is_silent_since_the_listening_began() {
        let mut detector = FailureDetector::new("b");
        (0..=3_000).step_by(250).for_each(|at| detector.hear(beat("b"), ms(at)));
        assert_eq!(detector.silence(ROLE, "a"), ms(3_000));
        assert_eq!(detector.silence(Role::Collector, "b"), ms(3_000), "a voice is heard for its role alone");
    }
}
