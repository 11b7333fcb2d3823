//! Numbers in a state's row: as their bits, so that what is read back is what was written, to the last one.

use serde::{Deserialize as _, Deserializer, Serializer};

/// Writes a number as its bits.
pub(super) fn serialize<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(number.to_bits())
}

/// Reads a number from its bits.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    u64::deserialize(deserializer).map(f64::from_bits)
}

/// The same for several of them.
pub(super) mod many {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    /// Writes numbers as their bits.
    pub(in super::super) fn serialize<S: Serializer>(
        numbers: &impl AsRef<[f64]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(numbers.as_ref().iter().map(|number| number.to_bits()))
    }

    /// Reads numbers from their bits.
    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<Vec<f64>>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let numbers: Vec<f64> = Vec::<u64>::deserialize(deserializer)?.into_iter().map(f64::from_bits).collect();
        T::try_from(numbers).map_err(|_| D::Error::custom("another number of numbers"))
    }
}
