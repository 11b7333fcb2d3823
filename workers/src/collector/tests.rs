//! What the collector waits for.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use ledger::execute::ClockTrouble;
use ledger::state::At;
use schemas::command::Outcome;
use schemas::run::{Artifact, Capacity, RunSpec};
use schemas::service::Definition;
use schemas::{CommitId, Event, Hash, Stream, StreamVersion, service, stack, traffic};
use uuid::Uuid;

use super::*;

const STACK: StackId = StackId(Uuid::from_u128(1));
const MINUTE: Duration = Duration::from_secs(60);

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

/// A stack that is ready and has never had traffic, on a router that knows nothing of it.
fn world() -> (State, Facts) {
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
    happens(deployment(), stack::Ready { stack: STACK }.into());
    let id: DeploymentId = "production/api".parse().unwrap();
    let mut facts = Facts { nodes: Some(BTreeMap::new()), ..Facts::default() };
    facts.routers.insert(id.clone(), None);
    facts.routers_at.insert(id, Duration::MAX);
    (state, facts)
}

fn takes(state: &State, facts: &Facts, now: &str) -> Option<String> {
    react(state, facts, at(now)).outcomes.into_iter().find_map(|outcome| match outcome {
        Outcome::Deployment { outcome: DeploymentOutcome::StartCollection { reason, .. }, .. } => Some(reason),
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
    let retired = traffic::Retired { fence: schemas::Fence::default(), reason: "asked for".to_owned() };
    state.evolve(&deployment, &retired.into(), &then);
    assert_eq!(takes(&state, &facts, "2026-11-01T12:00:01Z").as_deref(), Some("its deployment was retired"));
}
