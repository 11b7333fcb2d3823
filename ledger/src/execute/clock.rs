//! The time, as it is told to deciders.

use std::time::Duration;

use schemas::Timestamp;

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
