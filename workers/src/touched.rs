//! What changed in the facts since the last reaction. Whoever changes a fact says so here, in the same function.

use std::collections::{BTreeMap, BTreeSet};

use ledger::State;
use ledger::deployment::Stack;
use schemas::{DeploymentId, EffectId, StackId};
use std::time::Duration;

use crate::facts::{Facts, Looks};
use crate::nodes::Observed;

/// Whose facts changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Those of all deployments.
    pub everything: bool,
    /// Those of these deployments.
    pub deployments: BTreeSet<DeploymentId>,
    /// Those of these nodes.
    pub effects: BTreeSet<EffectId>,
}

impl Touched {
    /// Notes that facts of a deployment changed.
    pub fn deployment(&mut self, id: &DeploymentId) {
        if !self.deployments.contains(id) {
            self.deployments.insert(id.clone());
        }
    }

    /// Notes that facts of a node changed.
    pub fn effect(&mut self, effect: EffectId) {
        self.effects.insert(effect);
    }
}

/// What a look at all nodes takes the place of.
pub(crate) struct Before {
    nodes: Option<BTreeMap<EffectId, Observed>>,
    missing: BTreeMap<EffectId, Looks>,
    under: BTreeMap<StackId, Looks>,
    collecting: BTreeMap<StackId, Duration>,
}

impl Before {
    /// Returns what is known before a look.
    pub(crate) fn of(facts: &mut Facts) -> Self {
        let Facts { nodes, missing, under, collecting, .. } = facts;
        Self { nodes: nodes.take(), missing: missing.clone(), under: under.clone(), collecting: collecting.clone() }
    }

    /// Notes in `facts` whose facts the look changed. The first look changes all.
    pub(crate) fn touch_changed(&self, state: &State, facts: &mut Facts) {
        let (Some(before), Some(nodes)) = (&self.nodes, &facts.nodes) else {
            facts.touched.everything = true;
            return;
        };
        let node_differs = |effect: EffectId| {
            before.get(&effect) != nodes.get(&effect) || self.missing.get(&effect) != facts.missing.get(&effect)
        };
        let stack_differs = |(id, stack): (&StackId, &Stack)| {
            self.under.get(id) != facts.under.get(id)
                || self.collecting.get(id) != facts.collecting.get(id)
                || stack.nodes.values().any(|node| node_differs(node.effect))
        };
        let changed = state.deployments.iter().filter(|(_, deployment)| deployment.stacks.iter().any(stack_differs));
        let changed: Vec<DeploymentId> = changed.map(|(id, _)| id.clone()).collect();
        facts.touched.deployments.extend(changed);
    }
}
