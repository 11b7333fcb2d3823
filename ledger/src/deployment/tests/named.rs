//! The states a deployment can be in, each made by the commands and reports that lead there.

use std::collections::BTreeMap;

use schemas::Weight;
use schemas::outcome::{self, DeploymentOutcome};
use schemas::rollout::HoldKind;

use crate::kit::*;

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// A state with a name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Named {
            $($(#[$doc])* $name,)+
        }

        impl Named {
            pub(super) const ALL: &'static [Named] = &[$(Named::$name,)+];
        }
    };
}

states! {
    /// Nobody ever declared the service.
    Undeclared,
    /// It is declared and has no release.
    Declared,
    /// It has releases and no stack.
    Released,
    /// The first version's stack is being brought up.
    Starting,
    /// Its node is being launched.
    Launching,
    /// Its node runs and has not passed its check.
    Launched,
    /// Its node is ready, and nobody has said so of the stack.
    Up,
    /// The first version's stack did not become ready.
    Failed,
    /// The first version's stack is ready and has no traffic.
    Ready,
    /// The first version holds all traffic.
    Serving,
    /// The second stands warm beside it.
    Warm,
    /// The same, and a person has put it on hold, for a time that is over.
    OnHold,
    /// The second stands warm beside it, and a rollout of it was asked for with it.
    Waiting,
    /// Both have traffic, set by hand, 90 and 10 %.
    Split,
    /// The first version holds all traffic and has lost its node; the second stands warm.
    Sick,
    /// The same, and its stack was found unhealthy.
    Unhealthy,
    /// The same, and its node is back.
    Mended,
    /// The first version replaced the second, which is being taken down.
    Collecting,
    /// The same, and its node is gone.
    Emptied,
    /// A rollout from the first to the second version has begun and taken no step.
    Started,
    /// The same, in a deployment that was rolled back before.
    StartedAfterRollback,
    /// It has taken its first step.
    AtStep,
    /// It is paused there.
    Paused,
    /// Its next step is due and not taken, for want of requests.
    Held,
    /// Its canary is unhealthy.
    CanaryIll,
    /// It came to its end.
    Completed,
    /// It was judged worse and came back.
    CameBack,
    /// It was aborted.
    Aborted,
    /// It was promoted.
    Promoted,
    /// Weights set by hand took its place.
    Superseded,
    /// The second version held all traffic and was rolled back by hand.
    RolledBack,
    /// The second version holds all traffic. A rollback goes to the first, which was gone and is deployed again before.
    Awaiting,
    /// The second version holds all traffic, and the router serves something else.
    DriftedOff,
    /// The second version is rolled out, and the router serves the first alone: the rollout is paused.
    DriftedBack,
    /// The second version holds all traffic, and the router serves the first, which is the rollback target.
    DriftedToTarget,
    /// It was retired.
    Retired,
}

/// Makes a state.
pub(super) fn given(named: Named) -> World {
    match named {
        Named::Undeclared => World::empty(),
        Named::Declared => and(Named::Undeclared, |world| drop(world.ask(apply(definition())))),
        Named::Released => World::released(),
        Named::Starting => and(Named::Released, |world| drop(world.ask(new(V1)))),
        Named::Launching => and(Named::Starting, |world| _ = world.start_launch(V1)),
        Named::Launched => and(Named::Launching, |world| _ = world.launched(V1)),
        Named::Up => and(Named::Starting, |world| world.launch(V1)),
        Named::Failed => and(Named::Starting, |world| {
            let stack = world.stack(V1);
            world.report(DeploymentOutcome::StackFailed(outcome::StackFailed {
                stack,
                reason: "it took too long".to_owned(),
            }));
        }),
        Named::Ready => and(Named::Starting, |world| drop(world.bring_up(V1))),
        Named::Serving => and(Named::Ready, |world| {
            world.serve(&[(V1, 100)]);
        }),
        Named::Warm => World::serving_one_warm_one(),
        Named::OnHold => and(Named::Warm, |world| {
            world.ask(hold(Some(1_000)));
            world.pass_ms(2_000);
        }),
        Named::Waiting => and(Named::Serving, |world| {
            world.ask(new_then_roll(V2));
            world.bring_up(V2);
        }),
        Named::Split => and(Named::Warm, |world| {
            world.serve(&[(V1, 90), (V2, 10)]);
        }),
        Named::Sick => and(Named::Warm, |world| world.lose_node(V1)),
        Named::Unhealthy => and(Named::Warm, |world| world.fall_ill(V1)),
        Named::Mended => and(Named::Unhealthy, |world| world.launch(V1)),
        Named::Collecting => and(Named::Warm, |world| {
            world.pass_ms(2 * 24 * 3_600_000);
            let stack = world.stack(V2);
            world.report(DeploymentOutcome::StartCollection(outcome::StartCollection {
                stack,
                reason: "unused".to_owned(),
            }));
        }),
        Named::Emptied => and(Named::Collecting, |world| {
            let effect = world.stack_state(V2).nodes[&0].effect;
            world.report(DeploymentOutcome::NodeStopped(outcome::NodeStopped { effect }));
        }),
        Named::Started => and(Named::Warm, |world| {
            world.ask(roll(V1, V2));
            world.begin();
        }),
        Named::StartedAfterRollback => and(Named::RolledBack, |world| {
            world.ask(again(roll(V1, V2)));
            world.begin();
        }),
        Named::AtStep => and(Named::Started, |world| {
            world.report(world.next_step((0, 0), (0, 0)));
            world.applied();
        }),
        Named::Paused => and(Named::AtStep, |world| drop(world.ask(pause()))),
        Named::Held => and(Named::AtStep, |world| {
            world.pass_ms(600_000);
            let rollout = world.deployment().rollout.as_ref().unwrap().id;
            let (counted, judged) = world.look((900, 0), (3, 0));
            let (kind, reason) = (HoldKind::FewRequests, "too few requests".to_owned());
            world.report(DeploymentOutcome::Hold(outcome::Hold { rollout, kind, reason, counted, judged }));
        }),
        Named::CanaryIll => and(Named::AtStep, |world| world.fall_ill(V2)),
        Named::Completed => and(Named::AtStep, |world| {
            world.step();
            world.step();
            world.applied();
        }),
        Named::CameBack => and(Named::AtStep, |world| {
            world.send_back();
            world.applied();
        }),
        Named::Aborted => and(Named::AtStep, |world| drop(world.ask(abort()))),
        Named::Promoted => and(Named::AtStep, |world| drop(world.ask(promote()))),
        Named::Superseded => and(Named::AtStep, |world| drop(world.ask(traffic(&[(V1, 50), (V2, 50)], true)))),
        Named::RolledBack => and(Named::Warm, |world| {
            world.serve(&[(V2, 100)]);
            world.ask(rollback());
            world.applied();
        }),
        Named::Awaiting => and(Named::Warm, |world| {
            // The third version came and went, and in its time the first was no target and was taken down.
            world.serve(&[(V2, 100)]);
            world.deploy(V3);
            world.serve(&[(V3, 100)]);
            world.collect(V1);
            world.ask(rollback());
            world.ask(again(traffic(&[(V2, 90), (V3, 10)], false)));
            world.applied();
            world.serve(&[(V2, 100)]);
            world.collect(V3);
            world.ask(rollback());
        }),
        Named::DriftedOff => and(Named::Completed, |world| {
            world.report(DeploymentOutcome::DriftSeen(outcome::DriftSeen { seen: BTreeMap::new(), generation: None }));
        }),
        Named::DriftedBack => and(Named::AtStep, |world| {
            let seen = BTreeMap::from([(world.stack(V1), Weight::FULL)]);
            world.report(DeploymentOutcome::DriftSeen(outcome::DriftSeen { seen, generation: None }));
        }),
        Named::DriftedToTarget => and(Named::Completed, |world| {
            let seen = BTreeMap::from([(world.stack(V1), Weight::FULL)]);
            world.report(DeploymentOutcome::DriftSeen(outcome::DriftSeen { seen, generation: None }));
        }),
        Named::Retired => and(Named::Warm, |world| drop(world.ask(retire()))),
    }
}

fn and(named: Named, more: impl FnOnce(&mut World)) -> World {
    let mut world = given(named);
    more(&mut world);
    world
}
