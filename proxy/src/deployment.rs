//! A deployment as the proxy serves it: the table that a request looks at, and the backends behind it.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use rand::TryRng as _;
use rand::rngs::SysRng;
use schemas::{DeploymentId, EffectId, StackId, StreamVersion, Weights};
use uuid::Uuid;

use super::backend::Backend;
use super::clock::now_ms;
use super::picker::{Pick, Picker};
use crate::measures::{Measures, StackMeasures};
use crate::routes::Routes;

/// How many nodes that have left are kept, so that the last of what was seen of them can still be read.
const DEPARTED_MAX: usize = 32;

#[derive(Debug)]
pub(super) struct Deployment {
    id: DeploymentId,
    table: RwLock<Arc<Table>>,
    known: Mutex<Known>,
    refused: AtomicU64,
}

/// What a request needs to know; replaced whole, so that a request sees one set of routes from end to end.
#[derive(Debug)]
pub(super) struct Table {
    generation: StreamVersion,
    weights: Weights,
    picker: Arc<Mutex<Picker>>,
    stacks: Vec<Stack>,
    pub(super) connect: Duration,
    pub(super) response: Duration,
    pub(super) idle: Duration,
}

/// A stack with a share.
#[derive(Debug)]
pub(super) struct Stack {
    nodes: Vec<Arc<Backend>>,
}

type Key = (StackId, EffectId, SocketAddr);

#[derive(Debug, Default)]
struct Known {
    backends: BTreeMap<Key, Arc<Backend>>,
    departed: VecDeque<Key>,
}

impl Deployment {
    /// Returns the deployment that `routes`, which have been checked, are of.
    pub(super) fn new(routes: &Routes) -> Self {
        let mut known = Known::default();
        let table = known.table(routes, None);
        let id = routes.deployment.clone();
        Self { id, table: RwLock::new(Arc::new(table)), known: Mutex::new(known), refused: AtomicU64::new(0) }
    }

    /// Serves `routes` from the next request on; requests at hand end as they began.
    pub(super) fn apply(&self, routes: &Routes) {
        let mut known = self.known.lock().unwrap();
        let table = known.table(routes, Some(&self.table()));
        *self.table.write().unwrap() = Arc::new(table);
        known.part(routes);
    }

    /// Returns what a request needs to know.
    pub(super) fn table(&self) -> Arc<Table> {
        self.table.read().unwrap().clone()
    }

    /// Takes note of a request that was not passed on.
    pub(super) fn note_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// Lets go of connections to nodes that have been idle for too long.
    pub(super) fn sweep(&self) {
        self.known.lock().unwrap().backends.values().for_each(|backend| backend.sweep());
    }

    /// Returns what was seen of its requests.
    pub(super) fn measures(&self, epoch: Uuid) -> Measures {
        let (known, now) = (self.known.lock().unwrap(), Instant::now());
        let mut stacks = BTreeMap::new();
        for backend in known.backends.values() {
            let stack = stacks.entry(backend.stack);
            let stack: &mut StackMeasures =
                stack.or_insert_with(|| StackMeasures { version: backend.version.clone(), nodes: BTreeMap::new() });
            let seen = backend.meter.read(backend.address, now);
            match stack.nodes.get_mut(&backend.effect) {
                None => drop(stack.nodes.insert(backend.effect, seen)),
                Some(elsewhere) => elsewhere.merge(seen),
            }
        }
        Measures {
            epoch,
            deployment: self.id.clone(),
            generation: self.table().generation,
            at_ms: now_ms(),
            refused: self.refused.load(Relaxed),
            stacks,
        }
    }
}

impl Known {
    fn table(&mut self, routes: &Routes, before: Option<&Table>) -> Table {
        let stacks = routes.weights.iter().map(|(stack, _)| Stack { nodes: self.nodes(routes, stack) }).collect();
        let picker = match before {
            Some(before) if before.weights == routes.weights => before.picker.clone(),
            _ => Arc::new(Mutex::new(new_picker(&routes.weights))),
        };
        let ms = |ms| Duration::from_millis(u64::from(ms));
        Table {
            generation: routes.generation,
            weights: routes.weights.clone(),
            picker,
            stacks,
            connect: ms(routes.timeouts.connect_ms),
            response: ms(routes.timeouts.response_ms),
            idle: ms(routes.timeouts.idle_ms),
        }
    }

    fn nodes(&mut self, routes: &Routes, stack: StackId) -> Vec<Arc<Backend>> {
        let Some(backends) = routes.backends.get(&stack) else { return Vec::new() };
        let node = |node: &crate::routes::Node| {
            let new = || Arc::new(Backend::new(stack, backends.version.clone(), node.effect, node.address));
            let backend = self.backends.entry((stack, node.effect, node.address)).or_insert_with(new);
            backend.revive();
            backend.clone()
        };
        backends.nodes.iter().map(node).collect()
    }

    /// Parts with the nodes that `routes` do not name; what was seen of the last of them stays for a while.
    fn part(&mut self, routes: &Routes) {
        let serves = |(stack, effect, address): &Key| {
            let nodes = routes.backends.get(stack).map(|backends| backends.nodes.as_slice()).unwrap_or_default();
            nodes.iter().any(|node| node.effect == *effect && node.address == *address)
        };
        self.departed.retain(|key| !serves(key));
        for (key, backend) in &self.backends {
            if !serves(key) && !self.departed.contains(key) {
                backend.retire();
                self.departed.push_back(*key);
            }
        }
        while self.departed.len() > DEPARTED_MAX {
            self.departed.pop_front().and_then(|key| self.backends.remove(&key));
        }
    }
}

impl Table {
    /// Returns the stack that takes the next request, and a random number.
    pub(super) fn pick(&self) -> (&Stack, u32) {
        let Pick { stack, salt } = self.picker.lock().unwrap().pick();
        (&self.stacks[stack], salt)
    }
}

impl Stack {
    /// Returns the node with the fewest requests in flight, equal ones by `salt`. Those that refused a connection a
    /// moment before `now` come last, those in `tried` not at all.
    pub(super) fn choose(&self, now: u64, salt: u32, tried: &[EffectId]) -> Option<&Arc<Backend>> {
        let fresh = |node: &Backend| !tried.contains(&node.effect);
        self.least(salt, |node| fresh(node) && !node.is_ejected(now)).or_else(|| self.least(salt, fresh))
    }

    fn least(&self, salt: u32, eligible: impl Fn(&Backend) -> bool) -> Option<&Arc<Backend>> {
        let start = salt as usize % self.nodes.len().max(1);
        let (before, from) = self.nodes.split_at(start);
        from.iter().chain(before).filter(|node| eligible(node)).min_by_key(|node| node.meter.load())
    }
}

fn new_picker(weights: &Weights) -> Picker {
    let mut seed = [0; 32];
    SysRng.try_fill_bytes(&mut seed).expect("the operating system gives random bytes");
    let weights: Vec<_> = weights.iter().filter_map(|(_, weight)| NonZeroU16::new(weight.basis_points())).collect();
    Picker::new(&weights, seed)
}

#[cfg(test)]
mod tests {
    use schemas::{StreamVersion, Weight};

    use super::*;
    use crate::meter::RequestOutcome;
    use crate::routes::{Node, StackNodes, Timeouts};

    fn stack(n: u128) -> StackId {
        StackId(Uuid::from_u128(n))
    }

    fn effect(n: u128) -> EffectId {
        EffectId(Uuid::from_u128(n))
    }

    fn routes(generation: u64, canary: Weight, nodes: u128) -> Routes {
        let backends = |base: u128| StackNodes {
            version: "1.0.0".parse().unwrap(),
            nodes: (0..nodes)
                .map(|n| Node { effect: effect(base + n), address: ([127, 0, 0, 1], (base + n) as u16).into() })
                .collect(),
        };
        Routes {
            deployment: "production/api".parse().unwrap(),
            generation: StreamVersion(generation),
            listen: None,
            weights: Weights::split(stack(1), stack(2), canary),
            backends: [(stack(1), backends(1_000)), (stack(2), backends(2_000))].into(),
            timeouts: Timeouts::default(),
            nodes_only: false,
        }
    }

    #[test]
    fn a_request_goes_to_the_node_with_the_fewest_in_flight() {
        let deployment = Deployment::new(&routes(1, Weight::ZERO, 3));
        let table = deployment.table();
        let (stack, _) = table.pick();
        for (expected, salt) in [(1_000, 0), (1_001, 0), (1_002, 0), (1_001, 1), (1_002, 1)] {
            let node = stack.choose(1, salt, &[]).unwrap();
            assert_eq!(node.effect, effect(expected));
            node.meter.begin(Instant::now());
        }
        assert_eq!(stack.choose(1, 1, &[effect(1_000)]).unwrap().effect, effect(1_001));
    }

    #[test]
    fn an_ejected_node_is_passed_over_for_a_second_while_there_is_another() {
        let deployment = Deployment::new(&routes(1, Weight::ZERO, 2));
        let table = deployment.table();
        let (stack, _) = table.pick();
        stack.nodes[0].eject(5);
        assert!((0..9).all(|salt| stack.choose(1_004, salt, &[]).unwrap().effect == effect(1_001)));
        assert_eq!(stack.choose(1_005, 0, &[]).unwrap().effect, effect(1_000));
        stack.nodes[1].eject(5);
        assert!(stack.choose(6, 0, &[]).is_some(), "a stack is never left without a node");
        assert!(stack.choose(6, 0, &[effect(1_000), effect(1_001)]).is_none());
    }

    #[test]
    fn what_was_seen_outlives_a_change_of_routes() {
        let deployment = Deployment::new(&routes(1, Weight::from_percent(10), 1));
        let backend = deployment.table().stacks[1].nodes[0].clone();
        let place = backend.meter.begin(Instant::now());
        let mut without = routes(2, Weight::ZERO, 1);
        without.backends.remove(&stack(2));
        deployment.apply(&without);
        backend.meter.end(place, RequestOutcome::Answered(200), Instant::now());
        let seen = deployment.measures(Uuid::nil());
        assert_eq!(seen.generation, StreamVersion(2));
        assert_eq!(seen.stacks[&stack(2)].counts().status_2xx, 1, "it ended after its stack had left");

        deployment.apply(&routes(3, Weight::from_percent(10), 1));
        assert!(Arc::ptr_eq(&backend, &deployment.table().stacks[1].nodes[0]), "the stack came back");
    }

    #[test]
    fn a_deployment_forgets_the_oldest_of_many_nodes_that_left() {
        let deployment = Deployment::new(&routes(1, Weight::ZERO, 1));
        for generation in 2..200_u64 {
            let mut next = routes(generation, Weight::ZERO, 1);
            next.backends.get_mut(&stack(1)).unwrap().nodes[0].effect = effect(u128::from(generation));
            deployment.apply(&next);
        }
        let seen = deployment.measures(Uuid::nil());
        assert!(seen.stacks.values().map(|stack| stack.nodes.len()).sum::<usize>() <= DEPARTED_MAX + 2);
    }

    #[test]
    fn only_a_change_of_weights_begins_a_new_block() {
        let ten = Weight::from_percent(10);
        let deployment = Deployment::new(&routes(1, ten, 1));
        let picker = deployment.table().picker.clone();
        deployment.apply(&routes(2, ten, 2));
        assert!(Arc::ptr_eq(&picker, &deployment.table().picker));
        deployment.apply(&routes(3, Weight::from_percent(20), 2));
        assert!(!Arc::ptr_eq(&picker, &deployment.table().picker));
    }
}
