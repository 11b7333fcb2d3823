//! TCP ports: which of the free ones each stack may use for its next nodes, so that one deployment's launches depend on no other's.

use std::collections::{BTreeMap, BTreeSet};

use ledger::State;
use ledger::deployment::Stack;
use schemas::{StackId, Timestamp};

use crate::poll::is_live;
use crate::provisioner::fill_at;

/// Shares `offered` out, one port a place: to the places first that may be filled soonest. `before` is what was shared out
/// last; where a place of its stack may be filled now, a port of it may be on its way into the ledger, and goes to no other stack.
pub(crate) fn allot(
    state: &State,
    offered: &[u16],
    before: &BTreeMap<StackId, Vec<u16>>,
    now: Timestamp,
) -> BTreeMap<StackId, Vec<u16>> {
    let mut allotted: BTreeMap<StackId, Vec<u16>> = BTreeMap::new();
    if offered.is_empty() {
        return allotted;
    }
    let stacks = || state.deployments.values().flat_map(|deployment| &deployment.stacks);
    let taken: BTreeSet<u16> = stacks().flat_map(|(_, stack)| stack.nodes.values().map(|node| node.port)).collect();
    let mut free: BTreeSet<u16> = offered.iter().copied().filter(|port| !taken.contains(port)).collect();
    let live = stacks().filter(|(_, stack)| is_live(&stack.phase));
    let mut places: Vec<(Option<Timestamp>, StackId)> =
        live.flat_map(|(id, stack)| empty_places(stack, now).map(|due| (due, *id))).collect();
    places.sort();
    let fills: BTreeSet<StackId> = places.iter().filter(|(due, _)| due.is_none()).map(|(_, stack)| *stack).collect();
    let kept = before.iter().filter(|(stack, _)| fills.contains(stack));
    let owners: BTreeMap<u16, StackId> =
        kept.flat_map(|(stack, ports)| ports.iter().map(|port| (*port, *stack))).collect();
    for (_, stack) in places {
        let mine = |port: &&u16| owners.get(*port).is_none_or(|owner| *owner == stack);
        let Some(port) = free.iter().find(mine).copied() else { continue };
        free.remove(&port);
        allotted.entry(stack).or_default().push(port);
    }
    allotted
}

/// Returns when each empty place of a stack may be filled; nothing if it may be now.
fn empty_places(stack: &Stack, now: Timestamp) -> impl Iterator<Item = Option<Timestamp>> {
    let empty = (0..stack.capacity.nodes).filter(|slot| !stack.nodes.contains_key(slot));
    empty.map(move |slot| fill_at(stack, slot).filter(|due| now < *due))
}

#[cfg(test)]
mod tests {
    use ledger::at::At;
    use schemas::run::{Artifact, Capacity, RunSpec};
    use schemas::{CommitId, EffectId, Event, Hash, Stream, StreamVersion, node, stack};
    use uuid::Uuid;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn id(n: u128) -> StackId {
        StackId(Uuid::from_u128(n))
    }

    fn happens(state: &mut State, service: &str, event: impl Into<Event>) {
        let stream = Stream::Deployment(format!("production/{service}").parse().unwrap());
        let at = At { time: NOW, commit: CommitId(Uuid::nil()), version: StreamVersion(1) };
        state.evolve(&stream, &event.into(), &at);
    }

    /// Two deployments of a stack each, with so many places.
    fn world(nodes: u16) -> State {
        let mut state = State::default();
        for (n, service) in [(1, "api"), (2, "web")] {
            let artifact = Artifact { sha256: Hash::of(b"1"), name: service.to_owned(), size_bytes: 1 };
            let (version, capacity) = ("1.0.0".parse().unwrap(), Capacity { nodes, min_ready: 1 });
            let (stack, run) = (id(n), RunSpec::default());
            let asked = stack::Requested { stack, version, number: 1, artifact, run, capacity, then_roll: None };
            happens(&mut state, service, asked);
        }
        state
    }

    #[test]
    fn no_port_is_shared_out_twice_and_none_that_a_node_has() {
        let mut state = world(2);
        let effect = EffectId(Uuid::from_u128(9));
        happens(&mut state, "api", node::LaunchStarted { effect, stack: id(1), slot: 0, attempt: 0, port: 4_000 });
        let ports = allot(&state, &[4_000, 4_001, 4_002, 4_003, 4_004], &BTreeMap::new(), NOW);
        assert_eq!(ports, BTreeMap::from([(id(1), vec![4_001]), (id(2), vec![4_002, 4_003])]));
    }

    #[test]
    fn a_port_that_may_be_on_its_way_into_the_ledger_goes_to_no_other_stack() {
        let state = world(1);
        let before = BTreeMap::from([(id(2), vec![4_000])]);
        let ports = allot(&state, &[4_000, 4_001], &before, NOW);
        assert_eq!(ports, BTreeMap::from([(id(1), vec![4_001]), (id(2), vec![4_000])]));
    }

    /// The launch on port 4000 of the first stack's only place has just failed, and its next one waits a second.
    fn after_a_failed_launch() -> State {
        let mut state = world(1);
        let effect = EffectId(Uuid::from_u128(9));
        happens(&mut state, "api", node::LaunchStarted { effect, stack: id(1), slot: 0, attempt: 0, port: 4_000 });
        happens(&mut state, "api", node::LaunchFailed { effect, reason: "port 4000 is in use".to_owned() });
        state
    }

    #[test]
    fn a_place_that_may_be_filled_now_comes_before_one_that_waits() {
        let ports = allot(&after_a_failed_launch(), &[4_001], &BTreeMap::new(), NOW);
        assert_eq!(ports, BTreeMap::from([(id(2), vec![4_001])]), "the other waits a second");
    }

    #[test]
    fn a_place_that_waits_keeps_no_port_from_one_that_may_be_filled_now() {
        let before = BTreeMap::from([(id(1), vec![4_001])]);
        let ports = allot(&after_a_failed_launch(), &[4_001], &before, NOW);
        assert_eq!(ports, BTreeMap::from([(id(2), vec![4_001])]));
    }
}
