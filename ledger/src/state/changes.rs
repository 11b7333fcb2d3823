//! What is different between two states. What they share is not looked at, so that it costs what changed: deployments and services
//! are `Eq`, and two `Arc`s that hold one `Eq` value are equal without a look at it.

use std::collections::BTreeSet;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use schemas::{DeploymentId, ServiceName};

use super::State;

/// What one state says otherwise than another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Deployments of which the deployment itself or its judgements differ.
    pub deployments: BTreeSet<DeploymentId>,
    /// Services that differ. What is said of their deployments may follow from them.
    pub services: BTreeSet<ServiceName>,
}

impl State {
    /// Returns what of this state is otherwise than in `before`, a state of any offset.
    pub fn changes_since(&self, before: &State) -> Changes {
        let mut deployments = changed(&before.deployments, &self.deployments);
        deployments.extend(changed(&before.judgements, &self.judgements));
        Changes { deployments, services: changed(&before.services, &self.services) }
    }
}

fn changed<K: Ord + Clone, V: PartialEq>(before: &OrdMap<K, V>, now: &OrdMap<K, V>) -> BTreeSet<K> {
    if before.ptr_eq(now) {
        return BTreeSet::new();
    }
    let key = |item: DiffItem<'_, '_, K, V>| match item {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) | DiffItem::Update { new: (key, _), .. } => key.clone(),
    };
    before.diff(now).map(key).collect()
}

#[cfg(test)]
mod tests {
    use crate::State;
    use crate::kit::*;

    #[test]
    fn what_changed_between_two_states_is_named_in_both_directions() {
        let mut world = World::empty();
        let empty = State::default();
        world.ask(apply(definition()));
        let declared = world.state.clone();
        assert!(declared.changes_since(&empty).services.contains(&service()));
        assert!(declared.changes_since(&empty).deployments.is_empty());
        assert_eq!(declared.changes_since(&declared.clone()), Default::default());
        world.ask(release(V1));
        let released = world.state.clone();
        assert!(released.changes_since(&declared).services.contains(&service()), "a release is a part of its service");
        world.ask(new(V1));
        let changes = world.state.changes_since(&released);
        assert!(changes.services.is_empty() && changes.deployments.contains(&id()), "{changes:?}");
        assert_eq!(released.changes_since(&world.state), changes, "a reader may be put back");
    }
}
