//! The process' monotone clock as a number, so that it fits into an atomic.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Returns milliseconds since this was first asked, plus one: 0 can stand for "never".
pub(super) fn now_ms() -> u64 {
    ORIGIN.elapsed().as_millis() as u64 + 1
}

/// Returns `duration` in whole milliseconds.
pub(super) fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
