//! Generations: the order in which a router takes routes. A router refuses a lower one than it holds.
//!
//! A generation is the stream's version of the deployment below, and above it how many break-glass rollbacks there were: a rollback
//! that is carried out without the ledger counts one more than anything it can know of. So it is taken whatever was on its
//! way, every call that was decided without knowing of it is refused, and once the ledger knows of it, which raises the
//! deployment's own count, the next call is above it again.

use schemas::StreamVersion;

/// The place of the count: a deployment's stream never holds as many commits as fit below it.
const EMERGENCY_COUNT_AT: u32 = 32;

/// Returns the generation of what is decided at `version` of a deployment that had `emergency_count` break-glass rollbacks.
pub fn of(emergency_count: u32, version: StreamVersion) -> StreamVersion {
    StreamVersion((u64::from(emergency_count) << EMERGENCY_COUNT_AT) | version.0)
}

/// Returns how many break-glass rollbacks there had been at `generation`.
pub fn emergency_count(generation: StreamVersion) -> u32 {
    u32::try_from(generation.0 >> EMERGENCY_COUNT_AT).unwrap_or(u32::MAX)
}

/// Returns the stream's version that `generation` was decided at.
pub fn version(generation: StreamVersion) -> StreamVersion {
    StreamVersion(generation.0 & ((1 << EMERGENCY_COUNT_AT) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_of_a_break_glass_rollback_is_above_every_other_and_below_what_follows_it() {
        let generations = [of(0, StreamVersion(7)), of(0, StreamVersion(4_000_000_000)), of(1, StreamVersion(7))];
        assert!(generations.is_sorted());
        assert!(of(1, StreamVersion(8)) > generations[2]);
        assert_eq!(generations.map(emergency_count), [0, 0, 1]);
        assert_eq!(generations.map(|of| version(of).0), [7, 4_000_000_000, 7]);
        assert_eq!(of(0, StreamVersion(7)), StreamVersion(7));
    }
}
