//! What the provisioner makes of nodes that fail.

use std::collections::BTreeMap;

use ledger::at::At;
use schemas::outcome::{self, DeploymentOutcome, Outcome};
use schemas::run::{Artifact, Capacity, HttpCheck, RunSpec};
use schemas::{CommitId, Event, Hash, Role, Stream, StreamVersion, Version, Weight, genesis, node, rollout, stack};
use uuid::Uuid;

use super::*;
use crate::checks::Probe;
use crate::facts::Probes;
use crate::reactor::react;

/// A deployment with one stack of one node, which nothing needs.
struct World {
    state: State,
    facts: Facts,
    now: Timestamp,
    commits: u64,
}

const STACK: StackId = StackId(Uuid::from_u128(1));

impl World {
    fn new() -> Self {
        let now = "2026-11-01T12:00:00Z".parse().unwrap();
        let mut world = Self { state: State::default(), facts: Facts::default(), now, commits: 0 };
        let ledger = LedgerId(Uuid::from_u128(7));
        world.state.evolve(&Stream::Ledger, &genesis::Created { ledger }.into(), &world.at());
        world.facts.nodes = Some(BTreeMap::new());
        world.facts.ports.insert(STACK, vec![4_000]);
        let artifact = Artifact { sha256: Hash::of(b"api"), name: "api".to_owned(), size_bytes: 1 };
        let run = RunSpec { check: HttpCheck { healthy_after: 2, ..HttpCheck::default() }, ..RunSpec::default() };
        let (version, capacity) = ("1.0.0".parse::<Version>().unwrap(), Capacity { nodes: 1, min_ready: 1 });
        world.happens(stack::Requested { stack: STACK, version, number: 1, artifact, run, capacity, then_roll: None });
        world
    }

    fn at(&self) -> At {
        At {
            time: self.now,
            commit: CommitId(Uuid::from_u128(self.commits.into())),
            version: StreamVersion(self.commits),
        }
    }

    fn happens(&mut self, event: impl Into<Event>) {
        self.commits += 1;
        let stream = Stream::Deployment("production/api".parse().unwrap());
        self.state.evolve(&stream, &event.into(), &self.at());
    }

    fn pass(&mut self, seconds: u64) {
        self.now = later(self.now, Duration::from_secs(seconds));
        self.facts.steady += Duration::from_secs(seconds);
    }

    fn react(&self) -> Vec<DeploymentOutcome> {
        let outcomes = react(Role::Provisioner, &self.state, &self.facts, self.now).outcomes;
        let about = |outcome| match outcome {
            Outcome::Deployment(outcome::DeploymentReport { outcome, .. }) => Some(outcome),
            _ => None,
        };
        outcomes.into_iter().filter_map(about).collect()
    }

    /// Begins the launch that the provisioner wants now.
    fn launch(&mut self) -> EffectId {
        let started = self.react().into_iter().find_map(|outcome| match outcome {
            DeploymentOutcome::StartLaunch(outcome::StartLaunch { stack, slot, attempt, effect, port }) => {
                Some(node::LaunchStarted { stack, slot, attempt, effect, port })
            }
            _ => None,
        });
        let started = started.unwrap_or_else(|| panic!("no launch but {:?}", self.react()));
        let effect = started.effect;
        self.happens(started);
        effect
    }

    /// Lets the node run.
    fn run(&mut self) -> EffectId {
        let effect = self.launch();
        let instance = "process 1".to_owned();
        self.happens(node::Launched { effect, address: "127.0.0.1:4000".parse().unwrap(), instance });
        effect
    }

    /// Lets the node run and end.
    fn crash(&mut self, reason: &str) {
        let effect = self.run();
        self.happens(node::Lost { effect, reason: reason.to_owned() });
    }

    fn probe(&mut self, effect: EffectId, reason: &str) {
        let now = self.facts.steady;
        self.facts.probes.entry(effect).or_default().add(Probe::Failed { reason: reason.to_owned() }, now);
    }

    fn given_up(&self) -> Option<String> {
        self.react().into_iter().find_map(|outcome| match outcome {
            DeploymentOutcome::StackFailed(outcome::StackFailed { reason, .. }) => Some(reason),
            _ => None,
        })
    }
}

#[test]
fn a_stack_that_crashes_fails_after_five_starts_and_names_the_first_cause() {
    let mut world = World::new();
    world.crash("exited with code 1; the end of its log: no table orders");
    for _ in 1..5 {
        assert_eq!(world.given_up(), None);
        world.pass(60);
        world.happens(stack::Ready { stack: STACK }); // its deadline is another matter
        world.crash("exited with code 1; the end of its log: it is locked");
    }
    let reason = world.given_up().expect("given up");
    assert!(reason.contains("failed 5 times in a row"), "{reason}");
    world.pass(3_600);
    let launches = |outcome: &DeploymentOutcome| matches!(outcome, DeploymentOutcome::StartLaunch(_));
    assert!(!world.react().iter().any(launches), "it is not tried again");
}

#[test]
fn the_reason_is_the_crash_and_not_the_probe_that_found_nobody_afterwards() {
    let mut world = World::new();
    for n in 1..5 {
        world.crash(&format!("exited with code {n}"));
        world.pass(10);
    }
    let effect = world.run();
    world.probe(effect, "127.0.0.1:4000 refused the connection");
    world.happens(node::Lost { effect, reason: "exited with code 5".to_owned() });
    let reason = world.given_up().unwrap();
    assert_eq!(reason, "a node was launched too often, 0 of 1 node ready; exited with code 1");
}

#[test]
fn a_stack_whose_check_never_passes_fails_at_its_deadline_with_what_the_check_said() {
    let mut world = World::new();
    let effect = world.run();
    world.probe(effect, "/health answered 503 instead of 200");
    let deadline_ms = world.state.deployments.values().next().unwrap().stacks[&STACK].run.start_deadline_ms;
    world.pass(deadline_ms / 1_000 - 1);
    assert_eq!(world.given_up(), None);
    world.pass(1);
    let wanted = "it was not ready in time, 0 of 1 node ready; check: /health answered 503 instead of 200";
    assert_eq!(world.given_up().as_deref(), Some(wanted));
}

#[test]
fn a_cause_that_cannot_heal_ends_a_start_at_once() {
    let mut world = World::new();
    let effect = world.launch();
    let reason = "cannot resolve environment variable KEY: the variable API_KEY is not set";
    world.facts.launches.insert(effect, (Err(Fault::Hopeless(reason.to_owned())), Duration::ZERO));
    assert_eq!(world.given_up().as_deref(), Some(reason));
    world.facts.launches.insert(effect, (Err(Fault::Permanent("port 4000 is in use".to_owned())), Duration::ZERO));
    assert_eq!(world.given_up(), None, "another port may do");
}

#[test]
fn what_a_check_says_before_the_node_is_ready_is_recorded_after_three_seconds_and_again_when_it_changes() {
    let mut world = World::new();
    let effect = world.run();
    let said = |world: &World| {
        world.react().into_iter().find_map(|outcome| match outcome {
            DeploymentOutcome::NodeFailing(outcome::NodeFailing { reason, .. }) => Some(reason),
            _ => None,
        })
    };
    for _ in 0..3 {
        world.probe(effect, "refused");
        assert_eq!(said(&world), None, "most programs take a moment");
        world.pass(1);
    }
    assert_eq!(said(&world).as_deref(), Some("refused"));
    world.happens(node::Failing { effect, reason: "refused".to_owned() });
    assert_eq!(said(&world), None);
    world.probe(effect, "/health answered 503 instead of 200");
    assert_eq!(said(&world), None, "it may change to and fro");
    world.pass(10);
    assert_eq!(said(&world).as_deref(), Some("/health answered 503 instead of 200"));
    let probes = Probes { passed: 2, ..Probes::default() };
    world.facts.probes.insert(effect, probes);
    assert_eq!(world.react(), [DeploymentOutcome::NodeReady(outcome::NodeReady { effect })]);
}

#[test]
fn the_wait_before_a_node_is_replaced_starts_again_after_five_good_minutes() {
    let mut world = World::new();
    let effect = world.run();
    world.happens(node::Ready { effect });
    world.happens(stack::Ready { stack: STACK });
    let mut effect = effect;
    for round in 0..10 {
        world.pass(5 * 60);
        world.happens(node::Lost { effect, reason: "exited".to_owned() });
        world.pass(1);
        effect = world.run();
        world.happens(node::Ready { effect });
        let attempts = &world.state.deployments.values().next().unwrap().stacks[&STACK].attempts;
        assert_eq!(attempts[&0], round + 2, "attempts go on");
    }
}

#[test]
fn a_port_on_which_a_launch_failed_is_not_tried_again_before_ports_are_offered_anew() {
    let mut world = World::new();
    let port = |outcomes: Vec<DeploymentOutcome>| {
        outcomes.into_iter().find_map(|outcome| match outcome {
            DeploymentOutcome::StartLaunch(outcome::StartLaunch { effect, port, .. }) => Some((effect, port)),
            _ => None,
        })
    };
    let (effect, first) = port(world.react()).unwrap();
    assert_eq!(first, 4_000);
    world.happens(node::LaunchStarted { effect, stack: STACK, slot: 0, attempt: 0, port: first });
    let launch = react(Role::Provisioner, &world.state, &world.facts, world.now).effects.remove(0);
    assert!(world.facts.begin(&launch) && !world.facts.begin(&launch), "one at a time");
    let taken = "port 4000 is in use by another program; launch on another port".to_owned();
    world.facts.take_in(launch.key(), crate::effect::Done::Launched(Err(Fault::Permanent(taken.clone()))));
    world.happens(node::LaunchFailed { effect, reason: taken });
    world.pass(2);
    assert_eq!(port(world.react()), None, "nobody has looked which ports are free since");
    world.facts.wall = world.now;
    let state = world.state.clone();
    world.facts.offer_ports(&state, &[4_001]);
    assert_eq!(port(world.react()).map(|(_, port)| port), Some(4_001));
}

#[test]
fn no_node_is_launched_for_a_stack_whose_rollout_was_dropped() {
    let mut world = World::new();
    let plan = rollout::Plan { steps: vec![Weight::FULL], duration_ms: 0, bake_ms: 0 };
    world.happens(rollout::Requested { stack: STACK, plan, by_hand: true, fixes: None });
    let launches = |world: &World| react(Role::Provisioner, &world.state, &world.facts, world.now).effects.len();
    assert!(matches!(world.react()[..], [DeploymentOutcome::StartLaunch(_)]), "it is wanted");
    world.launch();
    assert_eq!(launches(&world), 1, "the call is made");
    world.happens(rollout::RequestDropped { stack: STACK, reason: "1.1.0 was asked for after it".to_owned() });
    assert_eq!(launches(&world), 0, "the collector takes it down");

    let mut world = World::new();
    world.happens(rollout::RequestDropped { stack: STACK, reason: "1.1.0 was asked for after it".to_owned() });
    assert_eq!(world.react(), []);
    world.pass(3_600);
    assert!(matches!(world.react()[..], [DeploymentOutcome::StackFailed(_)]), "it does not start for ever");
}
