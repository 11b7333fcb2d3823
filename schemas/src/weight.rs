//! Weights: shares of user traffic in basis points.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::StackId;

/// A share of user traffic in basis points, 0 to 10,000 (100 %).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "u16", into = "u16")]
#[schemars(extend("maximum" = 10_000))]
pub struct Weight(u16);

/// Why a number or text is no weight.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a weight; write a percentage from 0 to 100 with at most two decimals")]
pub struct InvalidWeight(String);

impl Weight {
    /// No traffic.
    pub const ZERO: Self = Self(0);
    /// All traffic.
    pub const FULL: Self = Self(10_000);

    /// Returns the weight of `points` basis points.
    ///
    /// # Errors
    ///
    /// [`InvalidWeight`] above 10,000.
    pub fn from_basis_points(points: u16) -> Result<Self, InvalidWeight> {
        if points <= 10_000 { Ok(Self(points)) } else { Err(InvalidWeight(format!("{points} basis points"))) }
    }

    /// Returns the weight of `percent` percent, at most 100.
    ///
    /// # Panics
    ///
    /// Above 100: for weights written in code.
    pub const fn from_percent(percent: u16) -> Self {
        assert!(percent <= 100, "a weight is at most 100 %");
        Self(percent * 100)
    }

    /// Returns the weight in basis points.
    pub const fn basis_points(self) -> u16 {
        self.0
    }

    /// Returns what is left of all traffic.
    #[must_use]
    pub const fn rest(self) -> Self {
        Self(10_000 - self.0)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole} %"),
            (whole, hundredths) if hundredths % 10 == 0 => write!(f, "{whole}.{} %", hundredths / 10),
            (whole, hundredths) => write!(f, "{whole}.{hundredths:02} %"),
        }
    }
}

impl FromStr for Weight {
    type Err = InvalidWeight;

    fn from_str(text: &str) -> Result<Self, InvalidWeight> {
        let invalid = || InvalidWeight(text.chars().take(40).collect());
        let text = text.trim();
        let number = text.strip_suffix('%').unwrap_or(text).trim_end();
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || whole.len() > 3 || fraction.len() > 2 || !digits(whole) || !digits(fraction) {
            return Err(invalid());
        }
        let whole: u16 = whole.parse().map_err(|_| invalid())?;
        let hundredths: u16 = format!("{fraction:0<2}").parse().map_err(|_| invalid())?;
        Self::from_basis_points(whole * 100 + hundredths).map_err(|_| invalid())
    }
}

impl TryFrom<u16> for Weight {
    type Error = InvalidWeight;

    fn try_from(points: u16) -> Result<Self, InvalidWeight> {
        Self::from_basis_points(points)
    }
}

impl From<Weight> for u16 {
    fn from(weight: Weight) -> u16 {
        weight.0
    }
}

/// How all of a deployment's traffic is shared out over its stacks: exactly 100 %, no stack with a share of zero.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "BTreeMap<StackId, Weight>", into = "BTreeMap<StackId, Weight>")]
#[schemars(extend("minProperties" = 1))]
pub struct Weights(BTreeMap<StackId, Weight>);

/// Why shares do not make up all traffic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the weights sum to {} % instead of 100 %; name every version that shall keep traffic", percent(.0))]
pub struct NotAllTraffic(pub u32);

fn percent(points: &u32) -> String {
    format!("{}.{:02}", points / 100, points % 100).trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Weights {
    /// Returns the given shares; those of zero are left out.
    ///
    /// # Errors
    ///
    /// [`NotAllTraffic`] if they do not sum to exactly 10,000 basis points.
    pub fn new(shares: impl IntoIterator<Item = (StackId, Weight)>) -> Result<Self, NotAllTraffic> {
        let mut sum = 0_u32;
        let mut weights = BTreeMap::new();
        for (stack, weight) in shares {
            sum += u32::from(weight.0);
            if weight > Weight::ZERO && weights.insert(stack, weight).is_some() {
                return Err(NotAllTraffic(sum.saturating_sub(u32::from(weight.0))));
            }
        }
        if sum == 10_000 { Ok(Self(weights)) } else { Err(NotAllTraffic(sum)) }
    }

    /// Returns all traffic on one stack.
    pub fn all_on(stack: StackId) -> Self {
        Self(BTreeMap::from([(stack, Weight::FULL)]))
    }

    /// Returns `weight` on `canary` and the rest on `baseline`.
    pub fn split(baseline: StackId, canary: StackId, weight: Weight) -> Self {
        let shares = [(baseline, weight.rest()), (canary, weight)];
        Self(shares.into_iter().filter(|(_, weight)| *weight > Weight::ZERO).collect())
    }

    /// Returns the weight of `stack`, zero if it has none.
    pub fn of(&self, stack: StackId) -> Weight {
        self.0.get(&stack).copied().unwrap_or(Weight::ZERO)
    }

    /// Returns the stacks with traffic and their weights, ordered by stack id.
    pub fn iter(&self) -> impl Iterator<Item = (StackId, Weight)> + '_ {
        self.0.iter().map(|(stack, weight)| (*stack, *weight))
    }

    /// Returns the stacks with traffic, ordered by stack id.
    pub fn stacks(&self) -> impl Iterator<Item = StackId> + '_ {
        self.0.keys().copied()
    }

    /// Returns the stack that holds all traffic, if one does.
    pub fn sole(&self) -> Option<StackId> {
        if self.0.len() == 1 { self.0.keys().next().copied() } else { None }
    }

    /// Returns how many stacks have traffic.
    #[allow(clippy::len_without_is_empty)] // never empty: the weights sum to 100 %
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl TryFrom<BTreeMap<StackId, Weight>> for Weights {
    type Error = NotAllTraffic;

    fn try_from(shares: BTreeMap<StackId, Weight>) -> Result<Self, NotAllTraffic> {
        Self::new(shares)
    }
}

impl From<Weights> for BTreeMap<StackId, Weight> {
    fn from(weights: Weights) -> Self {
        weights.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(n: u128) -> StackId {
        StackId(uuid::Uuid::from_u128(n))
    }

    #[test]
    fn weights_read_as_percentages() {
        for (text, points) in [("10", 1_000), ("100", 10_000), ("0.5", 50), ("12.34", 1_234), ("0", 0), ("10%", 1_000)]
        {
            assert_eq!(text.parse::<Weight>().map(Weight::basis_points), Ok(points), "{text}");
        }
        for text in ["", "101", "-1", "1.234", "x", "1e2", ".5", "100.01", "9999", "10%%"] {
            assert!(text.parse::<Weight>().is_err(), "{text}");
        }
    }

    #[test]
    fn weights_print_without_needless_zeros() {
        let printed = [0, 1, 10, 50, 100, 1_250, 10_000].map(|p| Weight::from_basis_points(p).unwrap().to_string());
        assert_eq!(printed, ["0 %", "0.01 %", "0.1 %", "0.5 %", "1 %", "12.5 %", "100 %"]);
    }

    #[test]
    fn shares_must_sum_to_exactly_all_traffic() {
        let error = Weights::new([(stack(1), Weight::from_percent(90)), (stack(2), Weight::from_percent(5))]);
        assert_eq!(
            error.unwrap_err().to_string(),
            "the weights sum to 95 % instead of 100 %; name every version that shall keep traffic"
        );
        let weights = Weights::new([(stack(1), Weight::FULL), (stack(2), Weight::ZERO)]).unwrap();
        assert_eq!(weights.sole(), Some(stack(1)));
    }

    #[test]
    fn one_stack_named_twice_is_refused() {
        let half = Weight::from_percent(50);
        assert!(Weights::new([(stack(1), half), (stack(1), half)]).is_err());
    }
}
