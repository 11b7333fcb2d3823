//! Every report of a worker in every state: what fits is recorded, what is outdated is refused, what is known is
//! nothing.

use std::collections::{BTreeMap, BTreeSet};

use schemas::hold::Cause;
use schemas::judgement::{Begun, Counted, Judged};
use schemas::outcome::{self, DeploymentOutcome};
use schemas::rollout::{HoldKind, Plan};
use schemas::{EffectId, Probed, RolloutId, StackId, Weight, Weights};
use uuid::Uuid;

use super::matrix::{Results, cells, shown};
use super::named::{Named, given};
use crate::judgement::judge::RULE;
use crate::kit::*;

macro_rules! reports {
    ($($name:ident = $report:expr),+ $(,)?) => {
        /// A report with a name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        enum Report {
            $($name,)+
        }

        impl Report {
            const ALL: &'static [Report] = &[$(Report::$name,)+];

            /// What a worker would say that looks at this world; of things that are not there, it makes them up.
            fn outcome(self, world: &World) -> DeploymentOutcome {
                match self { $(Report::$name => $report(world),)+ }
            }
        }
    };
}

reports! {
    LaunchStartsFirst = |world: &World| outcome::StartLaunch {
        stack: stack(world, V1), slot: 0, attempt: attempt(world, V1), effect: EffectId(Uuid::from_u128(7)), port: 4_000,
    }.into(),
    LaunchedFirst = |world: &World| outcome::Launched {
        effect: effect(world, V1), address: "127.0.0.1:4001".parse().unwrap(), instance: "process 2".to_owned(),
    }.into(),
    LaunchFailedFirst = |world: &World| outcome::LaunchFailed { effect: effect(world, V1), reason: why() }.into(),
    NodeReadyFirst = |world: &World| outcome::NodeReady { effect: effect(world, V1) }.into(),
    NodeUnhealthyFirst = |world: &World| outcome::NodeUnhealthy { effect: effect(world, V1), reason: why() }.into(),
    NodeFailingFirst = |world: &World| outcome::NodeFailing { effect: effect(world, V1), reason: why() }.into(),
    NodeLostSecond = |world: &World| outcome::NodeLost { effect: effect(world, V2), reason: why() }.into(),
    NodeStoppedSecond = |world: &World| outcome::NodeStopped { effect: effect(world, V2) }.into(),
    StackReadyFirst = |world: &World| outcome::StackReady { stack: stack(world, V1) }.into(),
    StackFailedFirst = |world: &World| outcome::StackFailed { stack: stack(world, V1), reason: why() }.into(),
    StackUnhealthyFirst = |world: &World| outcome::StackUnhealthy { stack: stack(world, V1) }.into(),
    StackRecoveredFirst = |world: &World| outcome::StackRecovered { stack: stack(world, V1) }.into(),
    // What is set, at its own generation.
    Applied = |world: &World| {
        let set = world.state.deployment(&id()).and_then(|deployment| deployment.traffic.set.clone());
        let generation = set.as_ref().map(|set| set.version).unwrap_or_default();
        let weights = set.map_or_else(|| Weights::all_on(stack(world, V1)), |set| set.weights);
        outcome::WeightsApplied { generation, weights, listening: None }.into()
    },
    // What is set, at a generation before the deployment's first commit.
    AppliedBefore = |world: &World| {
        let set = world.state.deployment(&id()).and_then(|deployment| deployment.traffic.set.clone());
        let weights = set.map_or_else(|| Weights::all_on(stack(world, V1)), |set| set.weights);
        outcome::WeightsApplied { generation: Default::default(), weights, listening: None }.into()
    },
    RouterIsEmpty = |_: &World| outcome::DriftSeen { seen: BTreeMap::new(), generation: None }.into(),
    RouterServesFirst = |world: &World| outcome::DriftSeen { seen: [(stack(world, V1), Weight::FULL)].into(), generation: None }.into(),
    RequestedRolloutOfSecond = |world: &World| outcome::StartRequestedRollout { stack: stack(world, V2) }.into(),
    DropRequestOfSecond = |world: &World| outcome::DropRequest { stack: stack(world, V2) }.into(),
    HoldIsOver = |_: &World| outcome::EndHold { cause: Cause::Asked }.into(),
    // The next step in good time, after good requests.
    NextStep = |world: &World| match world.state.deployment(&id()).and_then(|deployment| deployment.rollout.as_ref()) {
        Some(rollout) if rollout.next_step().is_some() => world.next_step((900, 0), (100, 0)),
        rollout => no_step(rollout.map_or(nobody().1, |rollout| rollout.id)),
    },
    NextStepOfAnother = |_: &World| no_step(nobody().1),
    HoldsOn = |world: &World| outcome::Hold {
        rollout: rollout(world), kind: HoldKind::Source, reason: why(), counted: None, judged: None,
    }.into(),
    DrivesAgain = |world: &World| outcome::DriveAgain { rollout: rollout(world) }.into(),
    JudgeBegins = |world: &World| {
        let deployment = world.state.deployment(&id());
        let known = deployment.is_some_and(|deployment| deployment.rollout.is_some());
        outcome::BeginJudging { begun: if known { world.begun() } else { begun_of_another() } }.into()
    },
    Counts = |world: &World| {
        let counted = looked(world, (100, 1)).0.unwrap_or_else(counted_of_another);
        outcome::Count { counted, judged: None }.into()
    },
    CanaryIsWorse = |world: &World| {
        let (counted, judged) = looked(world, (100, 50));
        outcome::SendBack { rollout: rollout(world), reason: why(), counted, judged, probed: Probed::default() }.into()
    },
    CanaryIsUnfit = |world: &World| outcome::SendBack { rollout: rollout(world), reason: why(), counted: None, judged: None, probed: Probed::default() }.into(),
    CollectFirst = |world: &World| outcome::StartCollection { stack: stack(world, V1), reason: why() }.into(),
    CollectSecond = |world: &World| outcome::StartCollection { stack: stack(world, V2), reason: why() }.into(),
    CollectedSecond = |world: &World| outcome::Collected { stack: stack(world, V2) }.into(),
}

/// Every kind of report must be in the table: a new one has no name here.
fn name(outcome: &DeploymentOutcome) -> &'static str {
    use DeploymentOutcome::*;
    match outcome {
        StartLaunch(_) => "StartLaunch",
        Launched(_) => "Launched",
        LaunchFailed(_) => "LaunchFailed",
        NodeReady(_) => "NodeReady",
        NodeUnhealthy(_) => "NodeUnhealthy",
        NodeFailing(_) => "NodeFailing",
        NodeLost(_) => "NodeLost",
        NodeStopped(_) => "NodeStopped",
        StackReady(_) => "StackReady",
        StackFailed(_) => "StackFailed",
        StackUnhealthy(_) => "StackUnhealthy",
        StackRecovered(_) => "StackRecovered",
        WeightsApplied(_) => "WeightsApplied",
        DriftSeen(_) => "DriftSeen",
        StartRequestedRollout(_) => "StartRequestedRollout",
        DropRequest(_) => "DropRequest",
        EndHold(_) => "EndHold",
        BeginJudging(_) => "BeginJudging",
        Count(_) => "Count",
        TakeStep(_) => "TakeStep",
        Hold(_) => "Hold",
        DriveAgain(_) => "DriveAgain",
        SendBack(_) => "SendBack",
        StartCollection(_) => "StartCollection",
        Collected(_) => "Collected",
    }
}

/// How many names [`name`] gives.
const KINDS: usize = 25;

fn nobody() -> (StackId, RolloutId) {
    (StackId(Uuid::from_u128(u128::MAX)), RolloutId(Uuid::from_u128(u128::MAX)))
}

fn why() -> String {
    "it was seen".to_owned()
}

fn stack(world: &World, text: &str) -> StackId {
    let deployment = world.state.deployment(&id());
    let of_version = deployment.iter().flat_map(|deployment| &deployment.stacks);
    let of_version = of_version.filter(|(_, stack)| stack.version == version(text));
    of_version.max_by_key(|(_, stack)| stack.requested_at).map_or(nobody().0, |(id, _)| *id)
}

fn attempt(world: &World, text: &str) -> u32 {
    let found = world.state.deployment(&id()).and_then(|deployment| deployment.stacks.get(&stack(world, text)));
    found.and_then(|stack| stack.attempts.get(&0).copied()).unwrap_or(0)
}

fn effect(world: &World, text: &str) -> EffectId {
    let found = world.state.deployment(&id()).and_then(|deployment| deployment.stacks.get(&stack(world, text)));
    found.and_then(|stack| stack.nodes.get(&0)).map_or(EffectId(Uuid::from_u128(u128::MAX)), |node| node.effect)
}

fn rollout(world: &World) -> RolloutId {
    let deployment = world.state.deployment(&id());
    deployment.and_then(|deployment| deployment.rollout.as_ref()).map_or(nobody().1, |rollout| rollout.id)
}

fn no_step(rollout: RolloutId) -> DeploymentOutcome {
    DeploymentOutcome::TakeStep(outcome::TakeStep { rollout, step: 0, counted: None, judged: None })
}

/// What was counted, if the judge listens, and what it says then.
fn looked(world: &World, canary: (u64, u64)) -> (Option<Counted>, Option<Judged>) {
    let known = world.state.deployment(&id()).is_some_and(|deployment| deployment.rollout.is_some());
    if known { world.look((900, 0), canary) } else { (None, None) }
}

fn counted_of_another() -> Counted {
    Counted { rollout: nobody().1, first: 0, baseline_nodes: vec![], canary_nodes: vec![], ticks: vec![] }
}

fn begun_of_another() -> Begun {
    let policy = definition().policy;
    let plan = Plan { steps: policy.rollout.steps, duration_ms: policy.rollout.duration_ms, bake_ms: 0 };
    let (rollout, rule) = (nobody().1, RULE.to_owned());
    Begun { rollout, rule, plan, policy: policy.judgement, half_life_s: 600, history: vec![None] }
}

/// A report comes two days after the state: whatever was due, is.
fn later(named: Named) -> World {
    let mut world = given(named);
    world.pass_ms(2 * 24 * 3_600_000);
    world
}

/// What each report comes to, by state: `nothing`, the events, or the name of the rejection.
#[rustfmt::skip]
const CELLS: &[(Report, Results)] = {
    use Named::*;
    &[
        (Report::LaunchStartsFirst, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold, Waiting, Split,
                Mended, Collecting, Emptied, Started, StartedAfterRollback, AtStep, Paused, Held, CanaryIll,
                Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, DriftedOff, DriftedBack,
                DriftedToTarget, Retired,
            ]),
            ("node.launch_started", &[Starting, Sick, Unhealthy, Awaiting]),
        ]),
        (Report::LaunchedFirst, &[
            ("Outdated", &[Undeclared, Declared, Released, Starting, Failed, Sick, Unhealthy, Awaiting]),
            ("node.launched", &[Launching]),
            ("nothing", &[
                Launched, Up, Ready, Serving, Warm, OnHold, Waiting, Split, Mended, Collecting, Emptied, Started,
                StartedAfterRollback, AtStep, Paused, Held, CanaryIll, Completed, CameBack, Aborted, Promoted,
                Superseded, RolledBack, DriftedOff, DriftedBack, DriftedToTarget, Retired,
            ]),
        ]),
        (Report::LaunchFailedFirst, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launched, Up, Failed, Ready, Serving, Warm, OnHold, Waiting, Split,
                Sick, Unhealthy, Mended, Collecting, Emptied, Started, StartedAfterRollback, AtStep, Paused, Held,
                CanaryIll, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting, DriftedOff,
                DriftedBack, DriftedToTarget, Retired,
            ]),
            ("node.launch_failed", &[Launching]),
        ]),
        (Report::NodeReadyFirst, &[
            ("Outdated", &[Undeclared, Declared, Released, Starting, Launching, Failed, Sick, Unhealthy, Awaiting]),
            ("node.ready", &[Launched]),
            ("nothing", &[
                Up, Ready, Serving, Warm, OnHold, Waiting, Split, Mended, Collecting, Emptied, Started, StartedAfterRollback,
                AtStep, Paused, Held, CanaryIll, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack,
                DriftedOff, DriftedBack, DriftedToTarget, Retired,
            ]),
        ]),
        (Report::NodeUnhealthyFirst, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Failed, Sick, Unhealthy, Awaiting,
            ]),
            ("node.unhealthy", &[
                Up, Ready, Serving, Warm, OnHold, Waiting, Split, Mended, Collecting, Emptied, Started, StartedAfterRollback,
                AtStep, Paused, Held, CanaryIll, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack,
                DriftedOff, DriftedBack, DriftedToTarget, Retired,
            ]),
        ]),
        (Report::NodeFailingFirst, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Up, Failed, Ready, Serving, Warm, OnHold, Waiting, Split,
                Sick, Unhealthy, Mended, Collecting, Emptied, Started, StartedAfterRollback, AtStep, Paused, Held,
                CanaryIll, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting, DriftedOff,
                DriftedBack, DriftedToTarget, Retired,
            ]),
            ("node.failing", &[Launched]),
        ]),
        (Report::NodeLostSecond, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Emptied,
                CanaryIll,
            ]),
            ("node.lost", &[
                Warm, OnHold, Waiting, Split, Sick, Unhealthy, Mended, Collecting, Started, StartedAfterRollback, AtStep,
                Paused, Held, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting, DriftedOff,
                DriftedBack, DriftedToTarget, Retired,
            ]),
        ]),
        (Report::NodeStoppedSecond, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold,
                Waiting, Split, Sick, Unhealthy, Mended, Emptied, Started, StartedAfterRollback, AtStep, Paused, Held,
                CanaryIll, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting, DriftedOff,
                DriftedBack, DriftedToTarget, Retired,
            ]),
            ("node.stopped", &[Collecting]),
        ]),
        (Report::StackReadyFirst, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Failed, Ready, Serving, Warm, OnHold, Waiting,
                Split, Sick, Unhealthy, Mended, Collecting, Emptied, Started, StartedAfterRollback, AtStep, Paused,
                Held, CanaryIll, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting, DriftedOff,
                DriftedBack, DriftedToTarget, Retired,
            ]),
            ("stack.ready", &[Up]),
        ]),
        (Report::StackFailedFirst, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Failed, Ready, Serving, Warm, OnHold, Waiting, Split, Sick, Unhealthy, Mended,
                Collecting, Emptied, Started, StartedAfterRollback, AtStep, Paused, Held, CanaryIll, Completed,
                CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting, DriftedOff, DriftedBack,
                DriftedToTarget, Retired,
            ]),
            ("stack.failed", &[Starting, Launching, Launched, Up]),
        ]),
        (Report::StackUnhealthyFirst, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold,
                Waiting, Split, Unhealthy, Mended, Collecting, Emptied, Started, StartedAfterRollback, AtStep, Paused,
                Held, CanaryIll, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting, DriftedOff,
                DriftedBack, DriftedToTarget, Retired,
            ]),
            ("stack.unhealthy", &[Sick]),
        ]),
        (Report::StackRecoveredFirst, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold,
                Waiting, Split, Sick, Unhealthy, Collecting, Emptied, Started, StartedAfterRollback, AtStep, Paused,
                Held, CanaryIll, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting, DriftedOff,
                DriftedBack, DriftedToTarget, Retired,
            ]),
            ("stack.recovered", &[Mended]),
        ]),
        (Report::Applied, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Up, Failed, Ready, Retired,
            ]),
            ("nothing", &[
                Serving, Warm, OnHold, Waiting, Split, Sick, Unhealthy, Mended, Collecting, Emptied, Started,
                StartedAfterRollback, AtStep, Paused, Held, CanaryIll, Completed, CameBack, RolledBack, Awaiting,
            ]),
            ("traffic.weights_applied", &[Aborted, Promoted, Superseded, DriftedOff, DriftedBack, DriftedToTarget]),
        ]),
        (Report::AppliedBefore, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold,
                Waiting, Split, Sick, Unhealthy, Mended, Collecting, Emptied, Started, StartedAfterRollback, AtStep,
                Paused, Held, CanaryIll, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting,
                DriftedOff, DriftedBack, DriftedToTarget, Retired,
            ]),
        ]),
        (Report::RouterIsEmpty, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Up, Failed, Ready, Retired,
            ]),
            ("traffic.drift_seen", &[
                Serving, Warm, OnHold, Waiting, Split, Sick, Unhealthy, Mended, Collecting, Emptied, Started,
                StartedAfterRollback, AtStep, Paused, Held, CanaryIll, Completed, CameBack, Aborted, Promoted,
                Superseded, RolledBack, Awaiting, DriftedBack, DriftedToTarget,
            ]),
            ("nothing", &[DriftedOff]),
        ]),
        (Report::RouterServesFirst, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold,
                Waiting, Sick, Unhealthy, Mended, Collecting, Emptied, Started, StartedAfterRollback, CameBack,
                Aborted, RolledBack, Retired,
            ]),
            ("traffic.drift_seen", &[Split, Paused, Completed, Promoted, Superseded, Awaiting, DriftedOff]),
            ("traffic.drift_seen + rollout.paused", &[AtStep, Held, CanaryIll]),
            ("nothing", &[DriftedBack, DriftedToTarget]),
        ]),
        (Report::RequestedRolloutOfSecond, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold,
                Split, Sick, Unhealthy, Mended, Collecting, Emptied, Started, StartedAfterRollback, AtStep, Paused,
                Held, CanaryIll, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting, DriftedOff,
                DriftedBack, DriftedToTarget, Retired,
            ]),
            ("rollout.started", &[Waiting]),
        ]),
        (Report::HoldIsOver, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm,
                Waiting, Split, Sick, Unhealthy, Mended, Collecting, Emptied, Started, StartedAfterRollback, AtStep,
                Paused, Held, CanaryIll, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting,
                DriftedOff, DriftedBack, DriftedToTarget, Retired,
            ]),
            ("hold.lifted", &[OnHold]),
        ]),
        (Report::NextStep, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold,
                Waiting, Split, Sick, Unhealthy, Mended, Collecting, Emptied, Paused, CanaryIll, Completed, CameBack,
                Aborted, Promoted, Superseded, RolledBack, Awaiting, DriftedOff, DriftedBack, DriftedToTarget,
                Retired,
            ]),
            ("rollout.step_taken + traffic.weights_set", &[Started, StartedAfterRollback]),
            ("judgement.counted + judgement.judged + rollout.step_taken + traffic.weights_set", &[AtStep, Held]),
        ]),
        (Report::NextStepOfAnother, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold,
                Waiting, Split, Sick, Unhealthy, Mended, Collecting, Emptied, Started, StartedAfterRollback, AtStep,
                Paused, Held, CanaryIll, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting,
                DriftedOff, DriftedBack, DriftedToTarget, Retired,
            ]),
        ]),
        (Report::HoldsOn, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold,
                Waiting, Split, Sick, Unhealthy, Mended, Collecting, Emptied, Paused, Completed, CameBack, Aborted,
                Promoted, Superseded, RolledBack, Awaiting, DriftedOff, DriftedBack, DriftedToTarget, Retired,
            ]),
            ("rollout.held", &[Started, StartedAfterRollback, AtStep, Held, CanaryIll]),
        ]),
        (Report::DrivesAgain, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold,
                Waiting, Split, Sick, Unhealthy, Mended, Collecting, Emptied, Paused, Completed, CameBack, Aborted,
                Promoted, Superseded, RolledBack, Awaiting, DriftedOff, DriftedBack, DriftedToTarget, Retired,
            ]),
            ("rollout.driven_again", &[Started, StartedAfterRollback, AtStep, Held, CanaryIll]),
        ]),
        (Report::JudgeBegins, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold,
                Waiting, Split, Sick, Unhealthy, Mended, Collecting, Emptied, Completed, CameBack, Aborted, Promoted,
                Superseded, RolledBack, Awaiting, DriftedOff, DriftedToTarget, Retired,
            ]),
            ("nothing", &[Started, StartedAfterRollback, AtStep, Paused, Held, CanaryIll, DriftedBack]),
        ]),
        (Report::Counts, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold,
                Waiting, Split, Sick, Unhealthy, Mended, Collecting, Emptied, RolledBack, Awaiting, Retired,
            ]),
            // Also what is left to record when a rollout has ended.
            ("judgement.counted", &[
                Started, StartedAfterRollback, AtStep, Paused, Held, CanaryIll, Completed, CameBack, Aborted, Promoted,
                Superseded, DriftedOff, DriftedBack, DriftedToTarget,
            ]),
        ]),
        (Report::CanaryIsWorse, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold,
                Waiting, Split, Sick, Unhealthy, Mended, Collecting, Emptied, Started, StartedAfterRollback,
                Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting, DriftedOff, DriftedToTarget,
                Retired,
            ]),
            ("judgement.counted + judgement.judged + traffic.rolled_back + traffic.weights_set + rollout.came_back", &[
                AtStep, Paused, Held, CanaryIll, DriftedBack,
            ]),
        ]),
        (Report::CanaryIsUnfit, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold,
                Waiting, Split, Sick, Unhealthy, Mended, Collecting, Emptied, Started, StartedAfterRollback, AtStep,
                Paused, Held, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting, DriftedOff,
                DriftedBack, DriftedToTarget, Retired,
            ]),
            ("traffic.rolled_back + traffic.weights_set + rollout.came_back", &[CanaryIll]),
        ]),
        (Report::CollectFirst, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Up, Serving, Warm, OnHold, Waiting, Split,
                Sick, Unhealthy, Mended, Collecting, Emptied, Started, StartedAfterRollback, AtStep, Paused, Held,
                CanaryIll, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting, DriftedOff,
                DriftedBack, DriftedToTarget,
            ]),
            ("retention.collection_started", &[Failed, Ready, Retired]),
        ]),
        (Report::CollectSecond, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Waiting,
                Split, Started, StartedAfterRollback, AtStep, Paused, Held, CanaryIll, Completed, Aborted, Promoted,
                Superseded, Awaiting, DriftedOff, DriftedBack, DriftedToTarget,
            ]),
            ("retention.collection_started", &[Warm, OnHold, Sick, Unhealthy, Mended, CameBack, RolledBack, Retired]),
            ("nothing", &[Collecting, Emptied]),
        ]),
        (Report::CollectedSecond, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold,
                Waiting, Split, Sick, Unhealthy, Mended, Collecting, Started, StartedAfterRollback, AtStep, Paused,
                Held, CanaryIll, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting, DriftedOff,
                DriftedBack, DriftedToTarget, Retired,
            ]),
            ("retention.collected", &[Emptied]),
        ]),
        (Report::DropRequestOfSecond, &[
            ("Outdated", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold,
                Waiting, Split, Sick, Unhealthy, Mended, Collecting, Emptied, Started, StartedAfterRollback, AtStep,
                Paused, Held, CanaryIll, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting,
                DriftedOff, DriftedBack, DriftedToTarget, Retired,
            ]),
        ]),
    ]
};

#[test]
fn every_report_in_every_state_is_decided_on_purpose() {
    let mut cells = cells(CELLS);
    let mut wrong = Vec::new();
    for named in Named::ALL {
        let world = later(*named);
        for report in Report::ALL {
            let found = shown(&world.decide_outcome(&report.outcome(&world)));
            let wanted = cells.remove(&(*report, *named)).unwrap_or("(nobody has decided)");
            if found != wanted {
                wrong.push(format!("{report:?} in {named:?}: {found}, not {wanted}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_kind_of_report_is_in_the_table_and_recorded_in_some_state() {
    let name = |report: &Report| name(&report.outcome(&given(Named::AtStep)));
    let named: BTreeSet<&str> = Report::ALL.iter().map(name).collect();
    assert_eq!(named.len(), KINDS);
    let recorded = CELLS.iter().filter(|(_, results)| results.iter().any(|(result, _)| result.contains('.')));
    let mut recorded: BTreeSet<&str> = recorded.map(|(report, _)| name(report)).collect();
    // Every state with a rollout comes after it.
    if given(Named::Started).kinds_seen.contains(&"judgement.begun") {
        recorded.insert("BeginJudging");
    }
    // What this program writes leaves no rollout to be dropped later; what an older one wrote may (`tests/waiting.rs`).
    recorded.insert("DropRequest");
    assert_eq!(recorded, named);
}

/// A worker that repeats itself after a crash, or whose twin was faster, writes nothing.
#[test]
fn a_report_that_was_recorded_is_nothing_or_outdated_a_second_time() {
    for named in Named::ALL {
        for report in Report::ALL {
            let mut world = later(*named);
            let outcome = report.outcome(&world);
            let Ok(first) = world.decide_outcome(&outcome) else { continue };
            world.commit(first);
            let again = shown(&world.decide_outcome(&outcome));
            assert!(["nothing", "Outdated"].contains(&again.as_str()), "{report:?} twice in {named:?}: {again}");
        }
    }
}
