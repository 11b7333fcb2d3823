//! How long to wait before what failed is tried again.

use std::time::Duration;

/// A wait that grows: `first` after the first failure, twice as long after each further one, at most `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub max: Duration,
}

impl Backoff {
    /// Returns how long to wait after `failed` failures in a row.
    pub fn after(self, failed: u32) -> Duration {
        let factor = 2_u32.saturating_pow(failed.saturating_sub(1));
        self.first.saturating_mul(factor).min(self.max)
    }

    /// Returns the waits one after another, without end.
    pub fn waits(self) -> impl Iterator<Item = Duration> {
        (1..=u32::MAX).chain(std::iter::repeat(u32::MAX)).map(move |failed| self.after(failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_doubles_until_it_is_as_long_as_it_may_be() {
        let backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(1) };
        let waits: Vec<u128> = backoff.waits().take(6).map(|wait| wait.as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!((backoff.after(0), backoff.after(u32::MAX)), (backoff.first, backoff.max));
        let endless = Backoff { max: Duration::MAX, ..backoff };
        assert!(endless.after(u32::MAX) >= endless.after(40));
    }
}
