//! The fake cloud: nodes, their checks, and the router with its users. It knows the truth; `calls.rs` lies about it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use schemas::{DeploymentId, EffectId, Hash, StackId, StreamVersion};
use workers::checks::Probe;
use workers::nodes::{Exit, Fault, Instance, Launch, Observed, Stopped};
use workers::traffic::routes::{Admission, Refusal};
use workers::traffic::{Counts, Entry, HeldRoutes, Histogram, Measures, NodeMeasures, Routes, StackMeasures};

use crate::rules::Rules;
use crate::world::{Ms, time_at};

/// How an artifact behaves, whatever anybody thinks of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Nature {
    /// Errors per million requests.
    pub errors_ppm: u64,
    /// How long a node takes from its start to its first passed check.
    pub slow_ms: Ms,
    /// It ends as soon as it is started.
    pub crashes: bool,
    /// It cannot be started at all.
    pub broken: bool,
}

/// Who ended a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EndedBy {
    Us,
    Cloud,
}

/// A node as it is.
#[derive(Clone, Debug)]
pub struct Node {
    pub launch: Launch,
    pub instance: Instance,
    pub created_at: Ms,
    /// Before this it is in no look.
    pub visible_at: Ms,
    pub healthy_at: Ms,
    /// It fails its checks from, and until.
    pub sick: (Ms, Ms),
    pub ended: Option<(Ms, EndedBy)>,
    pub removed_at: Option<Ms>,
}

impl Node {
    /// Says whether it runs at `now`.
    pub fn runs(&self, now: Ms) -> bool {
        self.ended.is_none_or(|(at, _)| at > now)
    }

    fn is_healthy(&self, now: Ms) -> bool {
        self.runs(now) && self.healthy_at <= now && !(self.sick.0..self.sick.1).contains(&now)
    }
}

/// The cloud's truth.
pub struct Cloud {
    pub nodes: BTreeMap<EffectId, Node>,
    /// Effects that were stopped: no launch of them succeeds any more.
    pub fenced: BTreeMap<EffectId, Ms>,
    /// How each artifact behaves.
    pub natures: BTreeMap<Hash, Nature>,
    /// Artifacts of which no node starts until then.
    pub doomed: BTreeMap<Hash, Ms>,
    pub router: Router,
    next_port: u16,
}

/// The router's truth.
pub struct Router {
    pub entries: BTreeMap<DeploymentId, Entry>,
    /// It answers nobody until then. Users are served all the same.
    pub deaf_until: Ms,
    pub epoch: u64,
    /// When it was started.
    started_at: Ms,
    counted: BTreeMap<(DeploymentId, StackId), StackMeasures>,
    /// How many requests were shared out over a stack's nodes.
    turns: BTreeMap<StackId, u64>,
    /// Parts of requests that were not counted yet, in ten-millionths.
    rest: BTreeMap<StackId, u64>,
    /// Everything that ever happened to a stack: when, and its requests in all.
    pub truth: BTreeMap<StackId, Vec<(Ms, u64)>>,
    flowed_at: Ms,
    pub requests_per_s: u64,
}

impl Cloud {
    pub fn new(requests_per_s: u64) -> Self {
        let router = Router {
            entries: BTreeMap::new(),
            deaf_until: 0,
            epoch: 1,
            started_at: 0,
            counted: BTreeMap::new(),
            turns: BTreeMap::new(),
            rest: BTreeMap::new(),
            truth: BTreeMap::new(),
            flowed_at: 0,
            requests_per_s,
        };
        let (nodes, fenced, natures, doomed) = Default::default();
        Self { nodes, fenced, natures, doomed, router, next_port: 20_000 }
    }

    pub fn nature(&self, launch: &Launch) -> Nature {
        self.natures.get(&launch.artifact).copied().unwrap_or_default()
    }

    /// Launches a node once an effect; `visible_after` later it can be seen.
    pub fn launch(&mut self, launch: &Launch, now: Ms, visible_after: Ms) -> Result<Instance, Fault> {
        if self.fenced.contains_key(&launch.effect) {
            return Err(Fault::Permanent("it was stopped; it cannot be started again by the same effect".to_owned()));
        }
        if let Some(node) = self.nodes.get(&launch.effect) {
            let ended = || Fault::Permanent("it has ended; it cannot be started again by the same effect".to_owned());
            return if node.runs(now) { Ok(node.instance.clone()) } else { Err(ended()) };
        }
        let nature = self.nature(launch);
        if nature.broken {
            return Err(Fault::Permanent("the artifact cannot be executed".to_owned()));
        }
        let address = SocketAddr::from(([10, 0, 0, 1], launch.port));
        let taken = self.nodes.values().any(|node| node.runs(now) && node.instance.address == address);
        let instance = Instance { name: format!("i-{}", launch.effect), address, started_at: time_at(now) };
        let doomed = self.doomed.get(&launch.artifact).is_some_and(|until| *until > now);
        let dead = (nature.crashes || doomed || taken).then_some((now + 200, EndedBy::Cloud));
        let node = Node {
            launch: launch.clone(),
            instance: instance.clone(),
            created_at: now,
            visible_at: now + visible_after,
            healthy_at: now + nature.slow_ms,
            sick: (0, 0),
            ended: dead,
            removed_at: None,
        };
        self.nodes.insert(launch.effect, node);
        Ok(instance)
    }

    /// Ends a node within `within` and fences its effect.
    pub fn stop(&mut self, effect: EffectId, now: Ms, within: Ms) -> Stopped {
        self.fenced.entry(effect).or_insert(now);
        match self.nodes.get_mut(&effect) {
            Some(node) if node.runs(now) => {
                node.ended = Some((now + within, EndedBy::Us));
                Stopped::Ended
            }
            _ => Stopped::NotRunning,
        }
    }

    /// Removes what an ended node left.
    pub fn clean_up(&mut self, effect: EffectId, now: Ms) -> Result<(), Fault> {
        match self.nodes.get_mut(&effect) {
            Some(node) if node.runs(now) => Err(Fault::Permanent("it still runs".to_owned())),
            Some(node) => {
                node.removed_at.get_or_insert(now);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Returns the nodes as they could be seen at `then`.
    pub fn look(&self, then: Ms) -> BTreeMap<EffectId, Observed> {
        let there = self.nodes.iter().filter(|(_, node)| {
            node.created_at <= then && node.visible_at <= then && node.removed_at.is_none_or(|at| at > then)
        });
        let seen = |node: &Node| match node.ended {
            Some((at, by)) if at <= then => {
                let code = (by == EndedBy::Cloud).then_some(1);
                Observed::Exited(Exit { code, stopped: by == EndedBy::Us, ..Exit::default() })
            }
            _ => Observed::Running(node.instance.clone()),
        };
        there.map(|(effect, node)| (*effect, seen(node))).collect()
    }

    pub fn probe(&self, effect: EffectId, now: Ms) -> Probe {
        match self.nodes.get(&effect) {
            Some(node) if node.is_healthy(now) => Probe::Passed { latency_ms: 3 },
            Some(node) if node.runs(now) => Probe::Failed { reason: "status 503 instead of 200".to_owned() },
            _ => Probe::Failed { reason: "connection refused".to_owned() },
        }
    }

    /// Says whether nobody listens where a node was.
    pub fn is_gone(&self, effect: EffectId, now: Ms) -> bool {
        self.nodes.get(&effect).is_none_or(|node| !node.runs(now))
    }

    /// Returns ports that nobody listens on.
    pub fn free_ports(&mut self, n: u16) -> Vec<u16> {
        let first = self.next_port;
        self.next_port = if first > 60_000 { 20_000 } else { first + n };
        (first..first + n).collect()
    }

    /// Lets the users' requests flow up to `now`.
    pub fn flow(&mut self, now: Ms) {
        let elapsed = now - self.router.flowed_at;
        if elapsed == 0 {
            return;
        }
        self.router.flowed_at = now;
        let requests = self.router.requests_per_s * elapsed;
        for (id, held) in self.router.entries.iter().filter_map(|(id, entry)| Some((id, entry.held()?))) {
            for (stack, weight) in held.routes.weights.iter() {
                let rest = self.router.rest.entry(stack).or_default();
                *rest += requests * u64::from(weight.basis_points());
                let share = *rest / 10_000_000;
                *rest %= 10_000_000;
                if let Some(backends) = held.routes.backends.get(&stack) {
                    let of = self
                        .router
                        .counted
                        .entry((id.clone(), stack))
                        .or_insert_with(|| StackMeasures { version: backends.version.clone(), nodes: BTreeMap::new() });
                    let turn = self.router.turns.entry(stack).or_default();
                    let nodes = backends.nodes.len() as u64;
                    for (place, node) in (0..).zip(&backends.nodes) {
                        // In turn: the first ones may get one more.
                        let mine = part(*turn + share, place, nodes) - part(*turn, place, nodes);
                        let known = self.nodes.get(&node.effect);
                        let runs = known.is_some_and(|known| known.runs(now));
                        let nature = known.and_then(|known| self.natures.get(&known.launch.artifact));
                        let errors_ppm = if runs { nature.map_or(0, |nature| nature.errors_ppm) } else { 1_000_000 };
                        serve(of.nodes.entry(node.effect).or_insert_with(|| unused(node.address)), mine, errors_ppm);
                    }
                    *turn += share;
                }
                let truth = self.router.truth.entry(stack).or_default();
                let before = truth.last().map_or(0, |(_, requests)| *requests);
                truth.push((now, before + share));
            }
        }
    }
}

impl Router {
    /// Takes routes as the real one does.
    pub fn apply(&mut self, rules: &Rules, routes: &Routes) -> Result<HeldRoutes, Refusal> {
        let entry = self.entries.get(&routes.deployment);
        let admission = (rules.admit)(entry, routes)?;
        let listening = SocketAddr::from(([10, 0, 0, 2], 80));
        let held = HeldRoutes { routes: routes.clone(), listening };
        if admission == Admission::Apply {
            self.entries.insert(routes.deployment.clone(), Entry::Routed(held.clone()));
        }
        Ok(held)
    }

    /// Takes a removal as the real one does.
    pub fn remove(&mut self, rules: &Rules, id: &DeploymentId, generation: StreamVersion) -> Result<(), Refusal> {
        if (rules.admit_removal)(self.entries.get(id), id, generation)? == Admission::Apply {
            self.entries.insert(id.clone(), Entry::Retired { generation });
        }
        Ok(())
    }

    /// Starts anew: its routes are on disk, its counters are not.
    pub fn restart(&mut self, now: Ms) {
        self.epoch += 1;
        self.started_at = now;
        self.counted.clear();
    }

    /// Returns its counters of a deployment since its start, if it serves that.
    pub fn measures(&self, id: &DeploymentId, now: Ms) -> Option<Measures> {
        let held = self.entries.get(id).and_then(Entry::held)?;
        let of_it = self.counted.iter().filter(|((of, _), _)| of == id);
        Some(Measures {
            epoch: uuid::Uuid::from_u128(u128::from(self.epoch)),
            deployment: id.clone(),
            generation: held.routes.generation,
            at_ms: now - self.started_at,
            refused: 0,
            stacks: of_it.map(|((_, stack), measures)| (*stack, measures.clone())).collect(),
        })
    }

    /// Returns how many requests a stack had truly got by `then`.
    pub fn truth_at(&self, stack: StackId, then: Ms) -> u64 {
        let Some(truth) = self.truth.get(&stack) else { return 0 };
        let n = truth.partition_point(|(at, _)| *at <= then);
        n.checked_sub(1).map_or(0, |n| truth[n].1)
    }
}

/// Returns how many of the first `requests` the node in this place of so many gets.
fn part(requests: u64, place: u64, nodes: u64) -> u64 {
    (requests + nodes - 1 - place) / nodes
}

fn unused(address: SocketAddr) -> NodeMeasures {
    let (latency, in_flight) = (Histogram::default(), Histogram::default());
    NodeMeasures { address, counts: Counts::default(), passed_on: 0, latency, in_flight, oldest_in_flight_ms: None }
}

/// Lets a node answer so many more requests: the same share of them fails at any time, half take 10 ms, one in a hundred
/// 60 ms, the others 20 ms.
fn serve(node: &mut NodeMeasures, requests: u64, errors_ppm: u64) {
    let before = node.counts.ended();
    let after = before + requests;
    let failed = after * errors_ppm / 1_000_000 - before * errors_ppm / 1_000_000;
    node.counts.status_5xx += failed.min(requests);
    node.counts.status_2xx += requests - failed.min(requests);
    let below = |n: u64, from: u64, to: u64| n / 100 * (to - from) + (n % 100).clamp(from, to) - from;
    for (from, to, ms) in [(0, 50, 10.0), (50, 99, 20.0), (99, 100, 60.0)] {
        let more = below(after, from, to) - below(before, from, to);
        if more > 0 {
            *node.latency.0.entry(workers::traffic::measures::bucket_of(ms)).or_default() += more;
        }
    }
}
