//! What the collector waits for.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use ledger::at::At;
use ledger::execute::ClockTrouble;
use schemas::outcome::{self, DeploymentOutcome, Outcome};
use schemas::run::{Artifact, Capacity, RunSpec};
use schemas::service::Definition;
use schemas::{CommitId, Event, Hash, Role, Stream, StreamVersion, rollout, service, stack, traffic};
use uuid::Uuid;

use super::*;
use crate::reactor::react;

const STACK: StackId = StackId(Uuid::from_u128(1));
const MINUTE: Duration = Duration::from_secs(60);

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

/// A stack that is ready and has never had traffic, on a router that knows nothing of it.
fn world() -> (State, Facts) {
    world_after(vec![stack::Ready { stack: STACK }.into()])
}

/// A stack that was asked for, and what happened to it since.
fn world_after(events: Vec<Event>) -> (State, Facts) {
    let mut state = State::default();
    let mut happens = |stream: Stream, event: Event| {
        let at = At { time: at("2026-11-01T12:00:00Z"), commit: CommitId(Uuid::nil()), version: StreamVersion(1) };
        state.evolve(&stream, &event, &at);
    };
    let definition: Definition = serde_json::from_str(r#"{"owner":"team"}"#).unwrap();
    happens(Stream::Service("api".parse().unwrap()), service::Applied { definition }.into());
    let deployment = || Stream::Deployment("production/api".parse().unwrap());
    let artifact = Artifact { sha256: Hash::of(b"api"), name: "api".to_owned(), size_bytes: 1 };
    let (version, capacity) = ("1.0.0".parse().unwrap(), Capacity { nodes: 1, min_ready: 1 });
    let run = RunSpec::default();
    let requested = stack::Requested { stack: STACK, version, number: 1, artifact, run, capacity, then_roll: None };
    happens(deployment(), requested.into());
    events.into_iter().for_each(|event| happens(deployment(), event));
    let id: DeploymentId = "production/api".parse().unwrap();
    let mut facts = Facts { nodes: Some(BTreeMap::new()), ..Facts::default() };
    facts.routers.insert(id.clone(), None);
    facts.routers_at.insert(id, Duration::MAX);
    (state, facts)
}

fn takes(state: &State, facts: &Facts, now: &str) -> Option<String> {
    react(Role::Collector, state, facts, at(now)).outcomes.into_iter().find_map(|outcome| match outcome {
        Outcome::Deployment(outcome::DeploymentReport {
            outcome: DeploymentOutcome::StartCollection(outcome::StartCollection { reason, .. }),
            ..
        }) => Some(reason),
        _ => None,
    })
}

#[test]
fn a_start_with_the_clock_a_year_ahead_takes_no_warm_stack_down() {
    let (state, mut facts) = world();
    facts.started = MINUTE * 60 * 24;
    facts.steady = facts.started;
    assert_eq!(takes(&state, &facts, "2027-11-01T12:00:00Z"), None, "it has just begun to run");
    facts.steady = facts.started + MINUTE * 10 - Duration::from_secs(1);
    assert_eq!(takes(&state, &facts, "2027-11-01T12:09:59Z"), None);
    facts.steady = facts.started + MINUTE * 10;
    assert_eq!(takes(&state, &facts, "2027-11-01T12:10:00Z").as_deref(), Some(retention::BY_AGE));
    facts.clock = Some(ClockTrouble { jumped: Some(SignedDuration::from_hours(8_760)), behind: None });
    assert_eq!(takes(&state, &facts, "2027-11-01T12:10:00Z"), None, "the clock is known to be wrong");
}

#[test]
fn retired_and_failed_stacks_do_not_wait() {
    let (mut state, facts) = world();
    let deployment = Stream::Deployment("production/api".parse().unwrap());
    let then = At { time: at("2026-11-01T12:00:00Z"), commit: CommitId(Uuid::nil()), version: StreamVersion(3) };
    let mut failed = state.clone();
    failed.evolve(&deployment, &stack::Failed { stack: STACK, reason: "no".to_owned() }.into(), &then);
    assert_eq!(takes(&failed, &facts, "2026-11-01T12:00:01Z").as_deref(), Some("it failed"));
    let retired =
        traffic::Retired { fence: schemas::Fence::default(), reason: "asked for".to_owned(), keeps_hold: true };
    state.evolve(&deployment, &retired.into(), &then);
    assert_eq!(takes(&state, &facts, "2026-11-01T12:00:01Z").as_deref(), Some("its deployment was retired"));
}

/// A call that was sent before a deployment was retired may reach a router after it.
#[test]
fn a_retired_stacks_nodes_run_until_a_router_that_never_heard_of_it_refuses_late_calls() {
    let retired =
        traffic::Retired { fence: schemas::Fence::default(), reason: "asked for".to_owned(), keeps_hold: true };
    let collecting =
        schemas::retention::CollectionStarted { stack: STACK, reason: "it was retired".to_owned(), drain_ms: 0 };
    let (state, mut facts) = world_after(vec![retired.into(), collecting.into()]);
    facts.collecting.insert(STACK, Duration::ZERO);
    let id: DeploymentId = "production/api".parse().unwrap();
    let asked = |role, facts: &Facts| react(role, &state, facts, at("2026-11-01T12:00:01Z"));
    assert_eq!(asked(Role::Collector, &facts).outcomes, []);
    let marks = asked(Role::TrafficShifter, &facts).effects;
    assert!(matches!(&marks[..], [Effect::Unroute { deployment, .. }] if *deployment == id), "{marks:?}");
    let [Effect::Unroute { generation, .. }] = marks[..] else { unreachable!() };
    facts.routers.insert(id, Some(Entry::Retired { generation }));
    assert_eq!(asked(Role::TrafficShifter, &facts).effects, [], "it is marked once");
    assert!(!asked(Role::Collector, &facts).outcomes.is_empty());
}

#[test]
fn a_stack_that_starts_is_taken_down_once_its_rollout_was_dropped() {
    let now = "2026-11-01T12:00:01Z";
    let plan = rollout::Plan { steps: vec![Weight::FULL], duration_ms: 0, bake_ms: 0 };
    let requested = rollout::Requested { stack: STACK, plan, by_hand: true, fixes: None };
    let dropped = rollout::RequestDropped { stack: STACK, reason: "1.1.0 was asked for after it".to_owned() };
    let takes_after = |events| {
        let (state, facts) = world_after(events);
        takes(&state, &facts, now)
    };
    assert_eq!(takes_after(vec![]), None, "it starts");
    assert_eq!(takes_after(vec![requested.clone().into()]), None, "its rollout waits");
    let leaves = Some("its rollout was dropped".to_owned());
    assert_eq!(takes_after(vec![requested.clone().into(), dropped.clone().into()]), leaves);
    assert_eq!(takes_after(vec![requested.clone().into(), dropped.into(), requested.into()]), None, "asked for again");
}
