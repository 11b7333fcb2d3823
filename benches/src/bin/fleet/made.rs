//! A fleet that is there already: for each deployment one commit, after which 1.1.0 has all its users and 1.0.0 is warm.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use jiff::Timestamp;
use ledger::execute::genesis;
use schemas::envelope::{About, CommandRef, Draft, Head};
use schemas::run::{Artifact, Capacity, RunSpec};
use schemas::service::Definition;
use schemas::traffic::Purpose;
use schemas::{
    Actor, ActorKind, CommandId, CommitId, DeploymentId, EffectId, Event, Hash, StackId, Stream, StreamVersion,
    Weights, node, release, service, stack, traffic,
};
use uuid::Uuid;

/// The versions, the one that users are on last.
pub const VERSIONS: [&str; 2] = ["1.0.0", "1.1.0"];

/// Returns the name of the `n`th deployment.
pub fn deployment(n: usize) -> DeploymentId {
    format!("production/service-{n:05}").parse().expect("a name")
}

/// Returns the stack of the `n`th deployment that runs a version.
pub fn stack_of(n: usize, version: usize) -> StackId {
    StackId(Uuid::from_u128(1 << 100 | (n as u128) << 8 | version as u128))
}

/// Returns the one node of a stack.
pub fn node_of(n: usize, version: usize) -> EffectId {
    EffectId(Uuid::from_u128(2 << 100 | (n as u128) << 8 | version as u128))
}

/// Returns where a node would listen.
pub fn address_of(n: usize, version: usize) -> SocketAddr {
    let [_, b, c, d] = u32::try_from(n * 2 + version).expect("few").to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(127, b + 1, c, d), 8_080))
}

/// Returns that the router confirmed weights.
pub fn applied(weights: Weights) -> Event {
    let listening = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 80)));
    traffic::WeightsApplied { generation: StreamVersion(1), weights, listening }.into()
}

/// Returns the records of a ledger with so many deployments.
pub fn records(deployments: usize, time: Timestamp) -> Vec<Bytes> {
    let made = (0..deployments).map(|n| commit(n, time));
    [genesis(time)].into_iter().chain(made).collect()
}

fn commit(n: usize, time: Timestamp) -> Bytes {
    let id = deployment(n);
    let of_service = Stream::Service(id.service.clone());
    let of_deployment = Stream::Deployment(id);
    let head = |stream: &Stream| Head { stream: stream.clone(), version: StreamVersion(0), hash: Hash::ZERO };
    let mut events = vec![(of_service.clone(), Event::from(service::Applied { definition: definition() }))];
    for (v, version) in VERSIONS.into_iter().enumerate() {
        let (version, run) = (version.parse().expect("a version"), RunSpec::default());
        let recorded =
            release::Recorded { version, artifact: artifact(), run, source: Default::default(), fixes: None };
        events.push((of_service.clone(), recorded.into()));
        events.extend(stack_events(n, v).into_iter().map(|event| (of_deployment.clone(), event)));
    }
    for v in 0..VERSIONS.len() {
        let weights = Weights::all_on(stack_of(n, v));
        let set = traffic::WeightsSet { weights: weights.clone(), purpose: Purpose::Asked };
        events.extend([Event::from(set), applied(weights)].map(|event| (of_deployment.clone(), event)));
    }
    let unique = Uuid::from_u128(3 << 100 | n as u128);
    let draft = Draft {
        id: CommitId(unique),
        command: CommandRef { id: CommandId(unique), hash: Hash::of(unique.as_bytes()) },
        time,
        extends: vec![head(&of_service), head(&of_deployment)],
        requires: vec![],
        events,
        about: About::by(actor()),
    };
    draft.to_bytes().into()
}

fn stack_events(n: usize, v: usize) -> Vec<Event> {
    let (stack, effect) = (stack_of(n, v), node_of(n, v));
    let (version, capacity) = (VERSIONS[v].parse().expect("a version"), Capacity { nodes: 1, min_ready: 1 });
    let run = RunSpec::default();
    vec![
        stack::Requested { stack, version, number: 1, artifact: artifact(), run, capacity, then_roll: None }.into(),
        node::LaunchStarted { effect, stack, slot: 0, attempt: 0, port: 8_080 }.into(),
        node::Launched { effect, address: address_of(n, v), instance: format!("node {n} {v}") }.into(),
        node::Ready { effect }.into(),
        stack::Ready { stack }.into(),
    ]
}

fn definition() -> Definition {
    Definition {
        owner: "team".to_owned(),
        description: String::new(),
        listen: BTreeMap::new(),
        run: Default::default(),
        capacity: Capacity { nodes: 1, min_ready: 1 },
        policy: Default::default(),
    }
}

fn artifact() -> Artifact {
    Artifact { sha256: Hash::of(b"artifact"), name: "api".to_owned(), size_bytes: 1 }
}

/// Returns who asks for everything here.
pub fn actor() -> Actor {
    Actor { kind: ActorKind::Person, name: "bench".to_owned(), proof: "bench".to_owned() }
}
