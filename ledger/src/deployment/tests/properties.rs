//! What holds over any history: commands and reports in any order, with time going on.
//!
//! Every act is decided and, if the rules allow it, folded; after each the invariants of a deployment are checked. So
//! that histories get somewhere, they begin in any of the named states, and half of the acts are drawn from those that
//! change something there.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::Index;
use schemas::command::Command;
use schemas::outcome::{self, DeploymentOutcome};
use schemas::rollout::HoldKind;
use schemas::traffic::{Event as Traffic, Purpose};
use schemas::{Event, Fence, Probed, StackId, Stream, Weight, Weights};

use super::super::rollback;
use super::super::{Deployment, Phase};
use super::named::{Named, given};
use crate::decision::{Decision, Rejection};
use crate::kit::*;
use crate::state::State;

/// One thing that happens, picked by numbers so that it shrinks.
#[derive(Clone, Debug)]
enum Act {
    /// Time goes on by so many milliseconds.
    Wait(u64),
    /// Somebody asks for anything, under the fence as it was so many rollbacks ago.
    Ask(Index, u64),
    /// Somebody asks for what changes something.
    AskWell(Index),
    /// A worker reports anything.
    Report(Index),
    /// A worker reports what is new.
    ReportWell(Index),
    /// All workers do what they should, and a step's time goes by.
    Settle,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        1 => prop_oneof![0_u64..2_000, 400_000_u64..600_000, Just(2 * 24 * 3_600_000)].prop_map(Act::Wait),
        2 => (any::<Index>(), 0_u64..3).prop_map(|(n, behind)| Act::Ask(n, behind)),
        3 => any::<Index>().prop_map(Act::AskWell),
        3 => any::<Index>().prop_map(Act::Report),
        2 => any::<Index>().prop_map(Act::ReportWell),
        2 => Just(Act::Settle),
    ];
    proptest::collection::vec(act, 1..60)
}

fn histories() -> impl Strategy<Value = (Named, Vec<Act>)> {
    (proptest::sample::select(Named::ALL), acts())
}

const VERSIONS: [&str; 3] = [V1, V2, V3];

fn commands() -> Vec<Command> {
    let mut commands = vec![rollback(), pause(), resume(), abort(), promote(), retire(), apply(definition())];
    let mut strict = definition();
    strict.policy.retention.warm_max = 1;
    strict.policy.judgement.requests_min = 200;
    commands.push(apply(strict));
    for a in VERSIONS {
        commands.extend([new(a), new_then_roll(a), traffic(&[(a, 100)], false), traffic(&[(a, 100)], true)]);
        commands.extend([dismiss(a), again(new_then_roll(a)), again(traffic(&[(a, 100)], false))]);
        for b in VERSIONS {
            commands.extend([roll(a, b), roll_instead(a, b), traffic(&[(a, 70), (b, 30)], false)]);
            commands.push(again(roll(a, b)));
        }
    }
    commands.push(traffic(&[(V1, 40), (V2, 30), (V3, 30)], false));
    commands
}

/// What a worker may say now: of everything there is, all that could be said of it.
fn reports(world: &World) -> Vec<DeploymentOutcome> {
    let Some(deployment) = world.state.deployment(&id()) else { return vec![] };
    let why = || "it was seen".to_owned();
    let mut reports =
        vec![DeploymentOutcome::DriftSeen(outcome::DriftSeen { seen: Default::default(), generation: None })];
    for (id, stack) in &deployment.stacks {
        let stack_id = *id;
        reports.extend([
            DeploymentOutcome::StackReady(outcome::StackReady { stack: stack_id }),
            DeploymentOutcome::StackFailed(outcome::StackFailed { stack: stack_id, reason: why() }),
            DeploymentOutcome::StackUnhealthy(outcome::StackUnhealthy { stack: stack_id }),
            DeploymentOutcome::StackRecovered(outcome::StackRecovered { stack: stack_id }),
            DeploymentOutcome::StartRequestedRollout(outcome::StartRequestedRollout { stack: stack_id }),
            DeploymentOutcome::StartCollection(outcome::StartCollection { stack: stack_id, reason: why() }),
            DeploymentOutcome::Collected(outcome::Collected { stack: stack_id }),
            DeploymentOutcome::DriftSeen(outcome::DriftSeen {
                seen: [(stack_id, Weight::FULL)].into(),
                generation: None,
            }),
        ]);
        for effect in stack.nodes.values().map(|node| node.effect) {
            reports.extend([
                DeploymentOutcome::NodeUnhealthy(outcome::NodeUnhealthy { effect, reason: why() }),
                DeploymentOutcome::NodeFailing(outcome::NodeFailing { effect, reason: why() }),
                DeploymentOutcome::NodeLost(outcome::NodeLost { effect, reason: why() }),
                DeploymentOutcome::NodeStopped(outcome::NodeStopped { effect }),
                DeploymentOutcome::NodeReady(outcome::NodeReady { effect }),
            ]);
        }
    }
    if let Some(set) = &deployment.traffic.set {
        let (generation, weights) = (set.version, set.weights.clone());
        reports.push(DeploymentOutcome::WeightsApplied(outcome::WeightsApplied {
            generation,
            weights,
            listening: None,
        }));
    }
    if let Some(rollout) = &deployment.rollout {
        for (baseline, canary) in [((900, 0), (300, 0)), ((900, 0), (100, 50)), ((0, 0), (0, 0))] {
            let (counted, judged) = world.look(baseline, canary);
            if rollout.next_step().is_some() {
                reports.push(world.next_step(baseline, canary));
            }
            if let Some(counted) = counted.clone() {
                reports.push(DeploymentOutcome::Count(outcome::Count { counted, judged: judged.clone() }));
            }
            let (rollout, counted_too, judged_too) = (rollout.id, counted.clone(), judged.clone());
            reports.push(DeploymentOutcome::Hold(outcome::Hold {
                rollout,
                kind: HoldKind::Source,
                reason: why(),
                counted,
                judged,
            }));
            let (counted, judged) = (counted_too, judged_too);
            reports.push(DeploymentOutcome::SendBack(outcome::SendBack {
                rollout,
                reason: why(),
                counted,
                judged,
                probed: Probed::default(),
            }));
        }
        reports.push(DeploymentOutcome::BeginJudging(outcome::BeginJudging { begun: world.begun() }));
        reports.push(DeploymentOutcome::DriveAgain(outcome::DriveAgain { rollout: rollout.id }));
        let (counted, judged) = (None, None);
        reports.push(DeploymentOutcome::SendBack(outcome::SendBack {
            rollout: rollout.id,
            reason: why(),
            counted,
            judged,
            probed: Probed::default(),
        }));
    }
    reports
}

/// Lets the provisioner bring up what starts, the router follow, and a rollout take its next step.
fn settle(world: &mut World) {
    for text in VERSIONS {
        let starting = |world: &World| {
            let deployment = world.state.deployment(&id())?;
            let of_version = deployment.stacks.values().filter(|stack| stack.version == version(text));
            let newest = of_version.max_by_key(|stack| stack.requested_at)?;
            (newest.phase == Phase::Starting && newest.nodes.is_empty()).then_some(())
        };
        if starting(world).is_some() {
            world.bring_up(text);
        }
    }
    if world.state.deployment(&id()).is_some_and(|deployment| deployment.traffic.set.is_some()) {
        world.applied();
    }
    let rollout = world.state.deployment(&id()).and_then(|deployment| deployment.rollout.as_ref());
    if rollout.is_some_and(|rollout| rollout.is_running() && rollout.next_step().is_some()) {
        world.pass_ms(500_000);
        let step = world.decide_outcome(&world.next_step((900, 0), (300, 0)));
        step.into_iter().for_each(|step| world.commit(step));
    }
}

fn sets(decision: &Decision) -> Option<(&Weights, &Purpose)> {
    decision.events.iter().find_map(|(_, event)| match event {
        Event::Traffic(Traffic::WeightsSet(set)) => Some((&set.weights, &set.purpose)),
        _ => None,
    })
}

/// Weights are set over stacks that were ready at that head; what gains traffic is ready now, but for what goes back.
fn check_weights(before: &Deployment, decision: &Decision) {
    let Some((weights, purpose)) = sets(decision) else { return };
    let sum: u32 = weights.iter().map(|(_, weight)| u32::from(weight.basis_points())).sum();
    assert_eq!(sum, 10_000);
    assert!(weights.len() <= 2, "{} versions would serve", weights.len());
    let becomes_ready: BTreeSet<StackId> = decision
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Stack(schemas::stack::Event::Ready(ready)) => Some(ready.stack),
            _ => None,
        })
        .collect();
    let back = matches!(purpose, Purpose::Rollback | Purpose::Abort { .. });
    for (stack, weight) in weights.iter() {
        let phase = &before.stacks[&stack].phase;
        let gains = weight > before.traffic.set_weight(stack);
        let fit = *phase == Phase::Ready || becomes_ready.contains(&stack);
        let falls = matches!(purpose, Purpose::Step { .. }) && weight < Weight::FULL;
        let kept = *phase == Phase::Unhealthy && (!gains || back || falls);
        assert!(fit || kept, "{stack} is {phase:?} and gets {weight} for {purpose:?}");
    }
}

/// What is taken down holds no traffic, is no target and is in no rollout.
fn check_taken_down(before: &Deployment, decision: &Decision) {
    for (_, event) in &decision.events {
        if let Event::Retention(schemas::retention::Event::CollectionStarted(started)) = event {
            let stack = started.stack;
            assert_eq!(before.traffic.set_weight(stack), Weight::ZERO);
            assert_eq!(before.traffic.applied_weight(stack), Weight::ZERO);
            let live = before.rollout.as_ref().filter(|rollout| rollout.is_live());
            assert!(live.is_none_or(|rollout| rollout.baseline != stack && rollout.canary != stack));
            let target = rollback::target(before).and_then(|target| target.stack());
            assert!(before.stacks[&stack].retired || target != Some(stack), "the rollback target is taken down");
        }
    }
}

/// What holds of a deployment at any time.
fn check_state(world: &World) {
    let Some(deployment) = world.state.deployment(&id()) else { return };
    let traffic = &deployment.traffic;
    for (stack, weight) in traffic.set.iter().flat_map(|set| set.weights.iter()) {
        let phase = deployment.stacks.get(&stack).map(|stack| &stack.phase);
        assert!(matches!(phase, Some(Phase::Ready | Phase::Unhealthy)), "{stack} has {weight} and is {phase:?}");
    }
    let live = deployment.rollout.as_ref().filter(|rollout| rollout.is_live());
    if let Some(rollout) = live {
        assert_eq!(
            traffic.set_weight(rollout.canary),
            rollout.weight(),
            "a live rollout's canary has its step's weight"
        );
        assert_eq!(traffic.set_weight(rollout.baseline), rollout.weight().rest());
        assert_eq!(traffic.awaited, None);
    }
    if let Some(awaited) = traffic.awaited {
        assert_eq!(deployment.stacks[&awaited].phase, Phase::Starting);
    }
    let efforts: Vec<_> = deployment.stacks.values().flat_map(|stack| stack.nodes.values()).collect();
    let effects: BTreeSet<_> = efforts.iter().map(|node| node.effect).collect();
    assert_eq!(efforts.len(), effects.len(), "one node an effect");
}

/// A rollback goes only where the rule says, raises the fence by one, and is done then.
fn check_rollback(world: &World) {
    let Some(deployment) = world.state.deployment(&id()) else { return };
    let target = rollback::target(deployment);
    let mut after = world.clone();
    match world.decide(&rollback()) {
        Ok(decision) if !kinds(&decision).contains(&"traffic.rolled_back") => {
            after.commit(decision);
            assert_eq!(after.decide(&rollback()).unwrap().events, [], "it is rolled back already, and on hold by now");
        }
        Ok(decision) => {
            let to = sets(&decision).and_then(|(weights, _)| weights.sole());
            assert_eq!(to, target.and_then(|target| target.stack()));
            after.commit(decision);
            assert_eq!(after.deployment().traffic.fence, deployment.traffic.fence.next());
            if to.is_none_or(|to| after.deployment().can_be_called(to)) {
                assert_eq!(after.decide(&rollback()).unwrap().events, [], "a second rollback changes nothing");
            }
            assert!(after.deployment().rollout.as_ref().is_none_or(|rollout| !rollout.is_live()));
        }
        Err(no) => {
            let nowhere = matches!(no, Rejection::NoTarget { .. } | Rejection::AllRejected { .. });
            assert!(target.is_none() && nowhere, "{no}");
        }
    }
}

fn changes(answer: &Result<Decision, Rejection>) -> bool {
    answer.as_ref().is_ok_and(|decision| !decision.events.is_empty())
}

fn pick(n: &Index, answers: impl Iterator<Item = Result<Decision, Rejection>>) -> Result<Decision, Rejection> {
    let answers: Vec<_> = answers.collect();
    if answers.is_empty() { Ok(Decision::default()) } else { n.get(&answers).clone() }
}

fn act(world: &mut World, act: &Act) {
    let before = world.state.deployment(&id()).cloned().unwrap_or_default();
    let decision = match act {
        Act::Wait(ms) => return world.pass_ms(*ms),
        Act::Settle => return settle(world),
        Act::Ask(n, behind) => {
            let command = n.get(&commands()).clone();
            let fence = Fence(before.traffic.fence.0.saturating_sub(*behind));
            let answer = world.decide_under(&command, fence);
            let rollback = matches!(command, Command::Rollback(_) | Command::Apply(_));
            if fence != before.traffic.fence && !rollback {
                assert!(answer.is_err(), "{command:?} under an older fence");
            }
            answer
        }
        Act::AskWell(n) => pick(n, commands().iter().map(|command| world.decide(command)).filter(changes)),
        Act::Report(n) => pick(n, reports(world).iter().map(|report| world.decide_outcome(report))),
        Act::ReportWell(n) => pick(n, reports(world).iter().map(|report| world.decide_outcome(report)).filter(changes)),
    };
    let Ok(decision) = decision else { return };
    check_weights(&before, &decision);
    check_taken_down(&before, &decision);
    world.commit(decision);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_invariants_hold_over_any_history((named, history) in histories()) {
        let mut world = given(named);
        for step in &history {
            act(&mut world, step);
            check_state(&world);
            check_rollback(&world);
        }
        prop_assert_eq!(&State::from_rows(world.state.rows()).unwrap(), &world.state, "the state is its rows");
    }

    #[test]
    fn the_same_history_folds_to_the_same_bytes((named, history) in histories()) {
        let fold = || {
            let mut world = given(named);
            history.iter().for_each(|step| act(&mut world, step));
            serde_json::to_vec(&world.state.rows()).unwrap()
        };
        prop_assert_eq!(fold(), fold());
    }
}

/// Every example event that is kept, in the stream it belongs to.
fn examples() -> Vec<(Stream, Event)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/examples");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    let read = |file: std::path::PathBuf| {
        let kind = file.file_name().unwrap().to_str().unwrap().split_once(".v").unwrap().0;
        let event = Event::decode(kind, 1, &std::fs::read_to_string(&file).unwrap()).unwrap();
        let stream = match &event {
            Event::Ledger(_) => Stream::Ledger,
            Event::Service(_) | Event::Release(_) => Stream::Service(service()),
            Event::Judgement(_) => Stream::Judgement(id()),
            Event::Lease(_) => Stream::Worker(schemas::Role::Collector),
            Event::Stack(_)
            | Event::Node(_)
            | Event::Traffic(_)
            | Event::Rollout(_)
            | Event::Hold(_)
            | Event::Retention(_) => Stream::Deployment(id()),
        };
        (stream, event)
    };
    files.into_iter().map(read).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Another program may have written what these rules would not have: folding and deciding go on.
    #[test]
    fn no_history_makes_the_rules_panic_however_little_sense_it_makes(
        picks in proptest::collection::vec(any::<Index>(), 1..60)
    ) {
        let examples = examples();
        let mut world = World::empty();
        for pick in &picks {
            let (stream, event) = pick.get(&examples).clone();
            world.commit(Decision::on(stream, vec![event]));
            for command in commands() {
                let _ = world.decide(&command);
            }
            for report in reports(&world) {
                let _ = world.decide_outcome(&report);
            }
        }
        prop_assert_eq!(&State::from_rows(world.state.rows()).unwrap(), &world.state);
    }
}

/// The histories above would prove little if they went nowhere.
#[test]
fn random_histories_reach_rollouts_rollbacks_and_removals() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    for _ in 0..500 {
        let (named, history) = histories().new_tree(&mut runner).unwrap().current();
        let mut world = given(named);
        let before = world.kinds_seen.len();
        history.iter().for_each(|step| act(&mut world, step));
        seen.extend(world.kinds_seen[before..].iter().copied());
    }
    let wanted: BTreeSet<&str> = schemas::stack::Event::KINDS
        .iter()
        .chain(schemas::node::Event::KINDS)
        .chain(schemas::traffic::Event::KINDS)
        .chain(schemas::rollout::Event::KINDS)
        .chain(schemas::retention::Event::KINDS)
        .map(|kind| kind.name)
        // What is done without the ledger has tests of its own.
        .filter(|kind| !["node.launch_failed", "traffic.glass_broken"].contains(kind))
        .collect();
    assert_eq!(wanted.difference(&seen).collect::<Vec<_>>(), Vec::<&&str>::new());
}
