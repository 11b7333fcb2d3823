//! Dice: everything that chance decides, from one seed.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use uuid::Uuid;

use crate::world::Ms;

/// A source of chance. The same seed gives the same throws.
pub struct Dice(ChaCha8Rng);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Says yes `permille` times of 1,000.
    pub fn chance(&mut self, permille: u32) -> bool {
        self.0.random_range(0..1_000) < permille
    }

    /// Returns a number from `from` up to, not including, `to`.
    pub fn range(&mut self, from: u64, to: u64) -> u64 {
        if from >= to { from } else { self.0.random_range(from..to) }
    }

    /// Returns one of `from`, if there is any.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let n = usize::try_from(self.range(0, from.len() as u64)).unwrap_or(0);
        from.get(n)
    }

    /// Returns an id as UUIDv7 has it: the time, then chance.
    pub fn uuid(&mut self, now: Ms) -> Uuid {
        let (time, low): (u64, u64) = (now + 1_767_225_600_000, self.0.random());
        let high = (time << 16) | 0x7000 | self.range(0, 0x1000);
        Uuid::from_u64_pair(high, (low & (u64::MAX >> 2)) | (1 << 63))
    }
}
