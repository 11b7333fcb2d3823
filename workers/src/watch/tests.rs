use std::collections::BTreeMap;

use ledger::at::At;
use ledger::judgement::judge::RULE;
use ledger::state::State;
use schemas::judgement::{Tally, Verdict};
use schemas::policy::Policy;
use schemas::run::{Artifact, Capacity};
use schemas::traffic::{Purpose, WeightsSet};
use schemas::{CommitId, Event, Hash, RolloutId, Stream, StreamVersion, judgement, rollout, stack};
use uuid::Uuid;

use super::*;
use crate::traffic::{Counts, Histogram, StackMeasures};

const BASELINE: StackId = StackId(Uuid::from_u128(1));
const CANARY: StackId = StackId(Uuid::from_u128(2));
const ROLLOUT: RolloutId = RolloutId(Uuid::from_u128(3));

fn id() -> DeploymentId {
    "production/api".parse().unwrap()
}

fn now() -> Timestamp {
    "2026-11-01T12:00:00Z".parse().unwrap()
}

fn node(n: u128) -> EffectId {
    EffectId(Uuid::from_u128(n))
}

/// A state with a rollout at 10 % that the judge listens to, on errors alone.
fn at_step() -> State {
    at_step_under(|_| ())
}

fn at_step_under(change: impl FnOnce(&mut Policy)) -> State {
    let mut state = State::default();
    let mut policy = Policy::default();
    policy.judgement.metrics = policy.judgement.metrics.weighing(&[("errors", 100)]);
    policy.judgement.burst_cap = false;
    change(&mut policy);
    let plan =
        rollout::Plan { steps: [10, 100].map(Weight::from_percent).to_vec(), duration_ms: 86_400_000, bake_ms: 0 };
    let requested = |stack, version: &str| stack::Requested {
        stack,
        version: version.parse().unwrap(),
        number: 1,
        artifact: Artifact { sha256: Hash::of(b"api"), name: "api".to_owned(), size_bytes: 3 },
        run: Default::default(),
        capacity: Capacity { nodes: 1, min_ready: 1 },
        then_roll: None,
    };
    let begun = judgement::Begun {
        rollout: ROLLOUT,
        rule: RULE.to_owned(),
        plan: plan.clone(),
        policy: policy.judgement.clone(),
        half_life_s: 600,
        history: vec![Some(Tally { requests: 60_000, hits: 60, beyond: 60 })],
    };
    let (rollout, baseline, canary, weight) = (ROLLOUT, BASELINE, CANARY, Weight::from_percent(10));
    let counted_from = Default::default();
    let events: Vec<Event> = vec![
        requested(BASELINE, "1.0.0").into(),
        requested(CANARY, "1.1.0").into(),
        stack::Ready { stack: BASELINE }.into(),
        stack::Ready { stack: CANARY }.into(),
        WeightsSet { weights: Weights::all_on(BASELINE), purpose: Purpose::Asked }.into(),
        rollout::Started { rollout, baseline, canary, plan, policy }.into(),
        rollout::StepTaken { rollout, step: 0, weight, counted_from }.into(),
    ];
    let at = At { time: now(), commit: CommitId(Uuid::from_u128(9)), version: StreamVersion(1) };
    events.iter().for_each(|event| state.evolve(&Stream::Deployment(id()), event, &at));
    state.evolve(&Stream::Judgement(id()), &begun.into(), &at);
    state
}

/// A router whose counters a test moves.
struct Router {
    epoch: u128,
    at_ms: u64,
    generation: u64,
    weights: Weights,
    stacks: BTreeMap<StackId, BTreeMap<EffectId, NodeMeasures>>,
}

impl Router {
    fn new() -> Self {
        let weights = Weights::split(BASELINE, CANARY, Weight::from_percent(10));
        Self { epoch: 1, at_ms: 1_000, generation: 5, weights, stacks: BTreeMap::new() }
    }

    fn node(&mut self, stack: StackId, n: u128) -> &mut NodeMeasures {
        let unused = || NodeMeasures {
            address: ([127, 0, 0, 1], 80).into(),
            counts: Counts::default(),
            passed_on: 0,
            latency: Histogram::default(),
            in_flight: Histogram::default(),
            oldest_in_flight_ms: None,
        };
        self.stacks.entry(stack).or_default().entry(node(n)).or_insert_with(unused)
    }

    fn serve(&mut self, stack: StackId, n: u128, requests: u64, errors: u64) {
        let node = self.node(stack, n);
        node.counts.status_2xx += requests - errors;
        node.counts.status_5xx += errors;
        *node.latency.0.entry(300).or_default() += requests;
    }

    /// A tenth of a second of 1,000 requests a second over as many nodes of each version.
    fn usual(&mut self, nodes: u128) {
        for n in 0..nodes {
            self.serve(BASELINE, 100 + n, 90 / nodes as u64, 0);
            self.serve(CANARY, 1_000 + n, (10 / nodes as u64).max(1), 0);
        }
    }

    fn read(&mut self, after_ms: u64) -> Reading {
        self.at_ms += after_ms;
        let stacks = self.stacks.iter();
        let stacks = stacks.map(|(stack, nodes)| {
            let version = if *stack == BASELINE { "1.0.0" } else { "1.1.0" }.parse().unwrap();
            (*stack, StackMeasures { version, nodes: nodes.clone() })
        });
        let measures = Measures {
            epoch: Uuid::from_u128(self.epoch),
            deployment: id(),
            generation: StreamVersion(self.generation),
            at_ms: self.at_ms,
            refused: 0,
            stacks: stacks.collect(),
        };
        Reading { measures, weights: Some(self.weights.clone()), at: Duration::from_millis(self.at_ms) }
    }
}

/// A watch of a router, and the state that its ticks are recorded in.
struct Stage {
    state: State,
    watch: Watch,
    router: Router,
}

impl Stage {
    fn new() -> Self {
        Self { state: at_step(), watch: Watch::default(), router: Router::new() }
    }

    fn look(&mut self, after_ms: u64) {
        let reading = self.router.read(after_ms);
        let now = now() + Duration::from_millis(self.router.at_ms);
        self.watch.take_in(&self.state, &id(), reading, now);
    }

    fn recorded(&self) -> &Analysis {
        self.state.judgements[&id()].of(ROLLOUT).unwrap()
    }

    fn unrecorded(&self) -> Option<Counted> {
        assert!(self.watch.heard(self.recorded()).is_some(), "it goes on from what is recorded");
        self.watch.unrecorded(self.recorded())
    }

    fn record(&mut self, counted: Counted) {
        let at = At { time: now(), commit: CommitId(Uuid::from_u128(9)), version: StreamVersion(1) };
        self.state.evolve(&Stream::Judgement(id()), &counted.into(), &at);
    }

    /// What was counted of the canary in all: requests and errors.
    fn counted(&self) -> (u64, u64) {
        let analysis = self.watch.heard(self.recorded()).unwrap();
        let canary = analysis.measured().canary;
        (canary.requests, canary.errors)
    }
}

#[test]
fn what_was_counted_between_two_looks_is_a_tick_node_by_node() {
    let mut stage = Stage::new();
    stage.router.usual(2);
    stage.look(100);
    assert_eq!(stage.unrecorded(), None, "nothing is known of what came before the first look");
    stage.router.serve(BASELINE, 100, 45, 1);
    stage.router.serve(CANARY, 1_001, 5, 2);
    stage.look(100);
    let counted = stage.unrecorded().unwrap();
    let [tick] = &counted.ticks[..] else { panic!("{counted:?}") };
    assert_eq!((tick.ms, tick.share, counted.first), (100, Weight::from_percent(10), 0));
    assert_eq!((&counted.baseline_nodes[..], &counted.canary_nodes[..]), (&[node(100)][..], &[node(1_001)][..]));
    assert_eq!(tick.baseline[0].counts, [Tally { requests: 45, hits: 1, beyond: 1 }]);
    assert_eq!(tick.canary[0].counts, [Tally { requests: 5, hits: 2, beyond: 0 }]);
    assert_eq!(tick.canary[0].age_ms, 1_200, "since the rollout began");
}

#[test]
fn a_router_that_began_anew_or_changed_its_weights_gives_no_wrong_evidence() {
    let mut stage = Stage::new();
    stage.router.usual(2);
    stage.look(100);
    stage.router.usual(2);
    stage.look(100);
    assert_eq!(stage.counted(), (10, 0));
    // Its counters begin at zero, and a thousand failures were counted before it was looked at.
    stage.router.epoch = 2;
    stage.router.stacks.clear();
    stage.router.serve(CANARY, 1_000, 1_000, 1_000);
    stage.look(100);
    assert_eq!(stage.counted(), (10, 0));
    stage.router.usual(2);
    stage.look(100);
    assert_eq!(stage.counted(), (20, 0));
    stage.router.generation += 1;
    stage.router.serve(CANARY, 1_000, 1_000, 1_000);
    stage.look(100);
    assert_eq!(stage.counted(), (20, 0), "nobody knows under which weights");
    stage.router.usual(2);
    stage.look(100);
    assert_eq!(stage.counted(), (30, 0));
}

#[test]
fn whoever_takes_over_goes_on_from_what_is_recorded_and_counts_nothing_twice() {
    let mut stage = Stage::new();
    stage.router.usual(2);
    stage.look(100);
    for _ in 0..3 {
        stage.router.usual(2);
        stage.look(100);
    }
    stage.record(stage.unrecorded().unwrap());
    // A request hangs and is past its deadline; it was counted as failed and recorded.
    stage.router.node(CANARY, 1_000).in_flight = Histogram([(1_200, 1)].into());
    stage.router.usual(2);
    stage.look(100);
    assert_eq!(stage.counted(), (41, 1));
    stage.record(stage.unrecorded().unwrap());
    stage.router.usual(2);
    stage.look(100); // this is lost with the one who counted it
    stage.watch = Watch::default();
    stage.router.usual(2);
    stage.look(100);
    stage.router.usual(2);
    stage.look(100);
    assert_eq!(stage.counted(), (51, 1));
    let counted = stage.unrecorded().unwrap();
    assert_eq!((counted.first, counted.canary_nodes.len()), (4, 0), "nodes keep their numbers");
    stage.record(counted);
    assert_eq!(stage.recorded().judge().ticks(), 5);
    assert_eq!(stage.unrecorded(), None);
}

#[test]
fn a_canary_that_fails_is_convicted_before_anything_is_recorded() {
    let mut stage = Stage::new();
    stage.router.usual(2);
    stage.look(100);
    let mut looks = 0;
    while stage.watch.heard(stage.recorded()).unwrap().judge().verdict() != Verdict::Worse {
        stage.router.serve(BASELINE, 100, 90, 0);
        stage.router.serve(CANARY, 1_000, 5, 5);
        stage.router.serve(CANARY, 1_001, 5, 5);
        stage.look(100);
        looks += 1;
    }
    assert!(looks <= 2, "{looks} looks");
    let mut again = stage.recorded().clone();
    again.take(&stage.unrecorded().unwrap());
    assert_eq!(again.judge().verdict(), Verdict::Worse, "the same from what will be recorded");
}

/// Records whatever is due, as the shifter does; returns how many commits there were and the largest.
fn run(stage: &mut Stage, nodes: u128, looks: u64, every_ms: u64) -> (u64, usize) {
    let (mut commits, mut bytes) = (0, 0);
    for _ in 0..looks {
        stage.router.usual(nodes);
        stage.look(every_ms);
        if stage.watch.is_due()
            && let Some(counted) = stage.unrecorded()
        {
            commits += 1;
            bytes = bytes.max(Event::from(counted.clone()).data().get().len());
            stage.record(counted);
        }
    }
    (commits, bytes)
}

#[test]
fn a_commit_stays_under_its_bound_and_a_day_under_two_thousand_whatever_the_number_of_nodes() {
    for nodes in [4, 64, 400] {
        let mut stage = Stage::new();
        stage.router.usual(nodes);
        stage.look(100);
        let (brisk, largest) = run(&mut stage, nodes, 700, 100);
        assert!(brisk <= 20, "{nodes} nodes: {brisk} commits in the minute after a step");
        let (hour, later) = run(&mut stage, nodes, 720, 5_000);
        assert!(hour <= 65, "{nodes} nodes: {hour} commits in an hour");
        let most = largest.max(later);
        assert!(most <= 58 * 1024, "{nodes} nodes: {most} bytes");
    }
}

#[test]
fn what_cannot_be_recorded_for_long_stays_within_a_commit_and_is_not_lost() {
    let mut stage = Stage::new();
    stage.router.usual(64);
    stage.look(100);
    for _ in 0..600 {
        stage.router.usual(64);
        stage.look(100);
    }
    let counted = stage.unrecorded().unwrap();
    let bytes = Event::from(counted.clone()).data().get().len();
    assert!(bytes <= 58 * 1024, "{bytes} bytes");
    stage.record(counted);
    stage.router.usual(64);
    stage.look(100);
    assert_eq!(stage.counted().0, 601 * 64, "what came meanwhile is in the tick that was kept open");
}

#[test]
fn a_baselines_past_is_what_the_judge_is_told_beforehand() {
    let mut stage = Stage::new();
    stage.state.judgements.clear();
    let begun = |stage: &Stage| stage.watch.begun(stage.state.deployment(&id()).unwrap().rollout.as_ref().unwrap());
    assert_eq!(begun(&stage), None, "the router was not read yet");
    stage.router.serve(BASELINE, 100, 49, 1);
    stage.look(100);
    assert_eq!(begun(&stage).unwrap().history, [None], "too little to rely on");
    stage.router.serve(BASELINE, 101, 951, 3);
    stage.look(1);
    let history = begun(&stage).unwrap().history;
    assert_eq!(history, [Some(Tally { requests: 1_000, hits: 4, beyond: 4 })]);
}

/// What another source counted between two moments, in seconds from now.
fn counted_by_source(from: i64, to: i64, canary: (u64, u64)) -> measures::Measured {
    let at = |seconds| now() + jiff::SignedDuration::from_secs(seconds);
    let node = |requests, errors| measures::NodeMeasured {
        requests,
        hits: [("errors", errors), ("4xx", 0)].into(),
        ..measures::NodeMeasured::nothing()
    };
    let stacks = [(BASELINE, vec![node(9 * canary.0, 0)]), (CANARY, vec![node(canary.0, canary.1)])].into();
    measures::Measured { span: measures::Span { from: at(from), to: at(to) }, stacks }
}

fn measured_elsewhere() -> Stage {
    let state = at_step_under(|policy| {
        policy.judgement.prometheus = Some(schemas::policy::Prometheus::at("http://127.0.0.1:9"));
    });
    let mut stage = Stage { state, ..Stage::new() };
    let weights = Weights::split(BASELINE, CANARY, Weight::from_percent(10));
    let generation = StreamVersion(1);
    let events: [Event; 2] = [
        WeightsSet { weights: weights.clone(), purpose: Purpose::Step { rollout: ROLLOUT, step: 0 } }.into(),
        schemas::traffic::WeightsApplied { generation, weights, listening: None }.into(),
    ];
    let at = At { time: now(), commit: CommitId(Uuid::from_u128(9)), version: StreamVersion(1) };
    events.iter().for_each(|event| stage.state.evolve(&Stream::Deployment(id()), event, &at));
    stage
}

#[test]
fn what_another_source_measured_is_judged_and_the_routers_own_counts_are_not() {
    let mut stage = measured_elsewhere();
    let tell = |stage: &mut Stage, from, to, canary| {
        let reading = measures::Reading::Complete(counted_by_source(from, to, canary));
        stage.watch.add_source_reading(&stage.state, &id(), Ok(reading), (Duration::from_secs(1), now()));
    };
    tell(&mut stage, 0, 10, (100, 0));
    assert_eq!(stage.unrecorded(), None, "the first says where to go on from");
    tell(&mut stage, 10, 20, (100, 1));
    stage.router.usual(2);
    stage.look(100);
    stage.router.usual(2);
    stage.look(100);
    assert_eq!(stage.counted(), (100, 1));
    tell(&mut stage, 20, 30, (100, 60));
    assert_eq!(stage.watch.heard(stage.recorded()).unwrap().judge().verdict(), Verdict::Worse);
}

#[test]
fn a_source_that_says_nothing_holds_the_rollout_with_the_reason() {
    use crate::measures::{Failure, Reading};
    let stale = || Ok(Reading::Stale { reason: "its newest sample is 90 s old".to_owned() });
    let empty = || Ok(Reading::Empty { reason: "no series of api".to_owned() });
    let down = || Err(Failure::TimedOut { at: "http://127.0.0.1:9".to_owned(), after: Duration::from_secs(5) });
    let answers: [(Result<Reading, Failure>, &str); 3] =
        [(stale(), "90 s old"), (empty(), "no series of api"), (down(), "gave no complete answer within 5s")];
    for (answer, reason) in answers {
        let mut stage = measured_elsewhere();
        stage.watch.add_source_reading(&stage.state, &id(), answer, (Duration::from_secs(1), now()));
        let mut facts = crate::facts::Facts { steady: Duration::from_secs(2), ..Default::default() };
        facts.watches.insert(id(), stage.watch.clone());
        let due = now() + Duration::from_secs(86_400 + 60);
        let reaction = crate::reactor::react(schemas::Role::TrafficShifter, &stage.state, &facts, due);
        let said = format!("{:?}", reaction.outcomes);
        assert!(said.contains("Hold") && said.contains(reason), "{reason}: {said}");
    }
}
