//! What one change costs the three workers: the turn as it is, and beside it the turn of before, which copied the whole state
//! and reacted to all of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ledger::State;
use ledger::at::At;
use rustix::time::{ClockId, clock_gettime};
use schemas::{CommitId, Offset, Role, Stream, StreamVersion, Timestamp, Weights};
use uuid::Uuid;
use workers::checks::Probe;
use workers::facts::Facts;
use workers::poll::{Pace, PollResult, PollSchedule};
use workers::reactor::{self, Reactor};

use crate::made;
use crate::outside::Outside;

/// How often a turn is measured.
const TURNS: usize = 200;

/// And one of before, of which fewer say enough.
const TURNS_BEFORE: usize = 20;

/// Processor time for one change, in all three workers.
pub struct Turns {
    /// As it is.
    pub now: Duration,
    /// As it was.
    pub before: Duration,
    /// The first turns, which react to everything.
    pub first: Duration,
}

/// A worker without its loop.
struct Worker {
    role: Role,
    facts: Facts,
    schedule: PollSchedule,
    reactor: Reactor,
}

/// Measures the turns of workers on `state`.
pub fn measure(state: &State, outside: &Outside, now: Timestamp) -> Turns {
    let roles = [Role::Provisioner, Role::TrafficShifter, Role::Collector];
    let mut workers = roles.map(|role| Worker::new(role, state, outside, now));
    let mut state = state.clone();
    let first = timed(|| workers.iter_mut().for_each(|worker| worker.turn(&state, now)));
    let mut new = Duration::ZERO;
    for n in 0..TURNS {
        change(&mut state, n, now);
        new += timed(|| workers.iter_mut().for_each(|worker| worker.turn(&state, now)));
    }
    let mut before = Duration::ZERO;
    for n in 0..TURNS_BEFORE {
        change(&mut state, n, now);
        before += timed(|| workers.iter().for_each(|worker| worker.turn_of_before(&state, now)));
    }
    Turns { now: new / TURNS as u32, before: before / TURNS_BEFORE as u32, first }
}

/// The router confirms another deployment's weights once more: a commit after which there is nothing to do.
fn change(state: &mut State, n: usize, time: Timestamp) {
    let of = n * 7_919 % state.deployments.len();
    let id = made::deployment(of);
    let version = StreamVersion(state.deployment(&id).map_or(1, |of| of.version.0 + 1));
    let at = At { time, commit: CommitId(Uuid::nil()), version };
    let event = made::applied(Weights::all_on(made::stack_of(of, made::VERSIONS.len() - 1)));
    state.evolve(&Stream::Deployment(id), &event, &at);
}

impl Worker {
    /// Returns a worker that has seen all there is.
    fn new(role: Role, state: &State, outside: &Outside, now: Timestamp) -> Self {
        let mut facts = Facts { steady: Duration::from_secs(1), wall: now, ..Facts::default() };
        let mut schedule = PollSchedule::new(role, Pace::default());
        schedule.begin(state, &facts);
        schedule.take_in(&mut facts, state, Offset(1), PollResult::Nodes(Ok(outside.seen()), vec![], Some(Offset(1))));
        for (id, deployment) in &state.deployments {
            facts.read_router(id.clone(), facts.steady, Ok(outside.served(id)));
            for node in deployment.stacks.values().flat_map(|stack| stack.nodes.values()) {
                facts.probed(node.effect, Probe::Passed { latency_ms: 1 });
            }
        }
        Self { role, facts, schedule, reactor: Reactor::new(role) }
    }

    fn turn(&mut self, state: &State, now: Timestamp) {
        let state = state.clone();
        self.schedule.begin(&state, &self.facts);
        self.reactor.react(&state, &mut self.facts, now);
    }

    /// Without its polls, which walked over all deployments too.
    fn turn_of_before(&self, state: &State, now: Timestamp) {
        let deployments: BTreeMap<_, _> =
            state.deployments.iter().map(|(id, of)| (id.clone(), Arc::clone(of))).collect();
        let services: BTreeMap<_, _> = state.services.iter().map(|(id, of)| (id.clone(), Arc::clone(of))).collect();
        let judgements: BTreeMap<_, _> = state.judgements.iter().map(|(id, of)| (id.clone(), Arc::clone(of))).collect();
        reactor::react(self.role, state, &self.facts, now);
        drop((deployments, services, judgements));
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = processor_time();
    work();
    processor_time() - began
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).expect("not negative"), u32::try_from(time.tv_nsec).expect("short"))
}
