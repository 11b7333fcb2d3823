//! The time, as it is told to deciders, and what is wrong with the clock that tells it.

use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;
use schemas::Timestamp;

/// How far a writer's clock may be ahead. Source: design, "The log", Time.
pub const CLOCK_AHEAD_MAX: SignedDuration = SignedDuration::from_secs(5);

/// By how much a wall clock may differ from where it should be before that is named.
pub const JUMP_MAX: SignedDuration = SignedDuration::from_secs(60);

/// The time, as it is told to deciders.
pub trait Clock: Send + Sync + 'static {
    /// Returns the wall clock's time.
    fn now(&self) -> Timestamp;

    /// Returns the time since some fixed moment by a clock that nobody sets, and that goes on while the machine sleeps.
    fn steady(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }

    /// Linux' `CLOCK_MONOTONIC` stands still while the machine sleeps: after an hour of it every clock would seem to
    /// be an hour ahead.
    fn steady(&self) -> Duration {
        let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::try_from(since_boot).unwrap_or_default()
    }
}

/// Where a wall clock should be: a moment at which it was right, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The moment by the wall clock.
    pub wall: Timestamp,
    /// The same by the steady clock.
    pub steady: Duration,
}

impl Anchor {
    /// Returns the time as it should be when the steady clock says `steady`.
    pub fn expected(&self, steady: Duration) -> Timestamp {
        self.wall.checked_add(steady.saturating_sub(self.steady)).unwrap_or(Timestamp::MAX)
    }

    /// Returns by how much the wall clock is ahead of where it should be; negative if it is behind.
    pub fn jumped(&self, wall: Timestamp, steady: Duration) -> SignedDuration {
        wall.duration_since(self.expected(steady))
    }

    /// Returns the anchor after a look at both clocks: a difference that a writer may have is taken for a correction, so
    /// that many small ones do not add up to a jump.
    #[must_use]
    pub fn looked(self, wall: Timestamp, steady: Duration) -> Self {
        if self.jumped(wall, steady).abs() <= CLOCK_AHEAD_MAX { Self { wall, steady } } else { self }
    }
}

/// What is wrong with a machine's wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockTrouble {
    /// By how much it was set ahead (or back, if negative) against the clock that nobody sets, if by more than a minute.
    pub jumped: Option<SignedDuration>,
    /// By how much it is behind the ledger's time, if by more than a minute; that does not advance meanwhile.
    pub behind: Option<SignedDuration>,
}

impl ClockTrouble {
    /// Returns what is wrong with a clock that says `wall` when it should say `expected`, on a ledger whose time is
    /// `ledger`. A ledger that nobody wrote to for days is no trouble.
    pub fn of(wall: Timestamp, expected: Timestamp, ledger: Timestamp) -> Option<Self> {
        let jumped = Some(wall.duration_since(expected)).filter(|by| by.abs() > JUMP_MAX);
        let behind = Some(ledger.duration_since(wall)).filter(|by| *by > JUMP_MAX);
        (jumped.is_some() || behind.is_some()).then_some(Self { jumped, behind })
    }

    /// Says why a rollout that this machine drives takes no step meanwhile; nothing if it may.
    pub fn holds(&self) -> Option<&'static str> {
        match (self.behind, self.jumped) {
            (Some(_), _) => Some(
                "this machine's clock is behind the ledger's time, which does not advance; it goes on once the clock has caught \
                 up or is set right",
            ),
            (None, Some(by)) if by.is_positive() => Some(
                "this machine's clock was set ahead; it goes on once the clock is right, or ionledger is started again",
            ),
            (None, _) => None,
        }
    }
}

impl fmt::Display for ClockTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = |by: SignedDuration| format!("{:#}", SignedDuration::from_secs(by.abs().as_secs()));
        let right = "set the clock right; if it is already right, start ionledger again";
        match (self.jumped, self.behind) {
            (Some(by), _) if by.is_positive() => {
                write!(f, "this machine's clock was set ahead by {}: only rollbacks are accepted; {right}", length(by))
            }
            (Some(by), Some(behind)) => write!(
                f,
                "this machine's clock was set back by {}: the ledger's time does not advance for {}; {right}",
                length(by),
                length(behind)
            ),
            (Some(by), None) => write!(f, "this machine's clock was set back by {}; {right}", length(by)),
            (None, Some(behind)) => write!(
                f,
                "this machine's clock is {} behind the ledger's time, which does not advance until the clock has caught up; \
                 set the clock right",
                length(behind)
            ),
            (None, None) => f.write_str("this machine's clock is right"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + second).unwrap()
    }

    fn trouble(wall: i64, expected: i64, ledger: i64) -> Option<String> {
        ClockTrouble::of(at(wall), at(expected), at(ledger)).map(|trouble| trouble.to_string())
    }

    #[test]
    fn a_jump_by_more_than_a_minute_is_named_and_a_quiet_weekend_is_none() {
        assert_eq!(trouble(0, 0, -3 * 86_400), None, "nobody wrote for three days");
        assert_eq!(trouble(60, 0, 0), None);
        assert_eq!(trouble(-60, 0, 0), None);
        assert_eq!(
            trouble(3_600, 0, 0).unwrap(),
            "this machine's clock was set ahead by 1h: only rollbacks are accepted; set the clock right; if it is \
             already right, start ionledger again"
        );
        assert_eq!(
            trouble(-1_500, 0, -20).unwrap(),
            "this machine's clock was set back by 25m: the ledger's time does not advance for 24m 40s; set the clock \
             right; if it is already right, start ionledger again"
        );
        assert_eq!(
            trouble(-1_500, -1_500, 0).unwrap(),
            "this machine's clock is 25m behind the ledger's time, which does not advance until the clock has caught up; set \
             the clock right"
        );
        assert!(trouble(-1_500, 0, -3_600).unwrap().starts_with("this machine's clock was set back by 25m; "));
    }

    #[test]
    fn a_rollout_is_held_while_time_stands_still_or_runs_ahead() {
        let holds = |wall, expected, ledger| {
            ClockTrouble::of(at(wall), at(expected), at(ledger)).is_some_and(|trouble| trouble.holds().is_some())
        };
        assert!(holds(-1_500, 0, 0));
        assert!(holds(-1_500, -1_500, 0));
        assert!(holds(1_500, 0, 0));
        assert!(!holds(-1_500, 0, -3_600), "the ledger's time goes on");
    }

    #[test]
    fn many_small_corrections_are_no_jump_and_one_large_one_stays_one() {
        let mut anchor = Anchor { wall: at(0), steady: Duration::ZERO };
        let steady = |hour: u64| Duration::from_secs(hour * 3_600);
        for hour in 1..=100 {
            let wall = at(i64::try_from(hour * 3_600 + hour * 4).unwrap());
            assert_eq!(anchor.jumped(wall, steady(hour)).as_secs(), 4);
            anchor = anchor.looked(wall, steady(hour));
        }
        let jumped = at(100 * 3_600 + 400 + 120);
        anchor = anchor.looked(jumped, steady(100));
        assert_eq!(anchor.jumped(jumped, steady(100)).as_secs(), 120);
    }
}
