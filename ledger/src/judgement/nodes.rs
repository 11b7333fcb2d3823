//! One bad node is not a bad version: the evidence without each of the canary's nodes.

use serde::{Deserialize, Serialize};

use super::wealth::Wealth;

/// With fewer nodes than this one of them is too much of the version to be left out.
pub const NODES_MIN: usize = 3;

/// For each node the bets of one metric on everything but what that node did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BetsWithoutNode(Vec<(u32, Wealth)>);

impl BetsWithoutNode {
    /// Follows `node` from here on; what was seen before is common to all.
    pub fn follow(&mut self, node: u32, all: &Wealth) {
        if let Err(place) = self.0.binary_search_by_key(&node, |(node, _)| *node) {
            self.0.insert(place, (node, all.clone()));
        }
    }

    /// Stakes `amount` more on each.
    pub fn add(&mut self, amount: f64) {
        self.0.iter_mut().for_each(|(_, wealth)| wealth.add(amount));
    }

    /// Settles the bet in this `place` with the log of the e-value that each node's absence leaves.
    pub fn settle(&mut self, place: usize, ln_e_without: impl Fn(u32) -> f64) {
        self.0.iter_mut().for_each(|(node, wealth)| wealth.multiply(place, ln_e_without(*node)));
    }

    /// Returns the wealth without each node.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Wealth)> {
        self.0.iter().map(|(node, wealth)| (*node, wealth))
    }
}
