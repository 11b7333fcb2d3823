//! A rollback that was carried out without the ledger: recorded as what it was, and never against newer work.

use schemas::break_glass::Intent;
use schemas::envelope::{CommandRef, Head};
use schemas::outcome::{self, DeploymentOutcome};
use schemas::{Actor, ActorKind, CommandId, Hash, Stream, StreamVersion, Weight};

use super::named::{Named, given};
use crate::decide;
use crate::decision::{By, Decision, Rejection};
use crate::deployment::generation;
use crate::kit::{self, V1, V2, V3, World, id, kinds, new_then_roll, roll_instead, rollback, stack_name, traffic};

/// What is written down of a rollback to `to` that is decided now.
fn intent(world: &World, to: &str) -> Intent {
    let deployment = world.deployment();
    Intent {
        ledger: world.state.ledger.unwrap(),
        command: CommandRef { id: CommandId(uuid::Uuid::from_u128(77)), hash: rollback().hash() },
        deployment: id(),
        actor: Actor { kind: ActorKind::Person, name: "ana".to_owned(), proof: "unix-peer uid=1000".to_owned() },
        cause: None,
        reason: None,
        why: "asked for".to_owned(),
        at: world.time,
        to: world.stack(to),
        version: stack_name(to),
        passed_over: vec![],
        rollout: None,
        counted: None,
        judged: None,
        head: Head { stream: Stream::Deployment(id()), version: deployment.version, hash: Hash::ZERO },
        fence: deployment.traffic.fence,
        generation: generation::of(deployment.emergency_count + 1, deployment.version),
        after: None,
        moved_at: None,
    }
}

/// The second version has a tenth of the traffic, by the first step of a rollout.
fn rolling() -> World {
    let mut world = given(Named::Warm);
    world.ask(kit::roll(V1, V2));
    world.begin();
    world.report(world.next_step((0, 0), (0, 0)));
    world
}

/// Records it a minute later, in effect since it was asked for.
fn record(world: &mut World, intent: &Intent) -> Decision {
    let decision = decided_late(world, intent, true);
    let now = std::mem::replace(&mut world.time, intent.at);
    world.commit(decision.clone());
    world.time = now;
    decision
}

/// Records it a minute later, when users had not been moved.
fn record_unmoved(world: &mut World, intent: &Intent) -> Decision {
    let decision = decided_late(world, intent, false);
    world.commit(decision.clone());
    decision
}

/// Decides a minute later to record it.
fn decided_late(world: &mut World, intent: &Intent, moved: bool) -> Decision {
    world.pass_ms(60_000);
    decide::decide_break_glass(&world.state, intent, intent.generation, Some(moved), world.now()).unwrap()
}

/// What is written down of a further rollback, to `to`, that was decided a second after `first`.
fn behind(world: &mut World, first: &Intent, to: &str) -> Intent {
    world.pass_ms(1_000);
    Intent {
        command: CommandRef { id: CommandId(uuid::Uuid::from_u128(78)), hash: rollback().hash() },
        at: world.time,
        to: world.stack(to),
        version: stack_name(to),
        fence: first.fence.next(),
        after: Some(first.command.id),
        ..first.clone()
    }
}

/// The router serves all of it on `to`, as a break-glass rollback left it.
fn seen(world: &World, to: &str, generation: StreamVersion) -> DeploymentOutcome {
    DeploymentOutcome::DriftSeen(outcome::DriftSeen {
        seen: [(world.stack(to), Weight::FULL)].into(),
        generation: Some(generation),
    })
}

#[test]
fn it_is_recorded_as_the_rollback_that_it_was() {
    let mut world = rolling();
    let intent = intent(&world, V1);
    let decision = record(&mut world, &intent);
    let expected =
        ["traffic.glass_broken", "traffic.rolled_back", "traffic.weights_set", "rollout.came_back", "hold.set"];
    assert_eq!(kinds(&decision), expected);
    assert_eq!(world.weights(), [(V1.to_owned(), 100)].into());
    assert_eq!(world.deployment().traffic.fence, intent.fence.next());
    assert!(world.deployment().generation() > intent.generation, "the normal path is above it again");
    let again =
        decide::decide(&world.state, &rollback(), By::PERSON, None, &schemas::Probed::default(), world.now()).unwrap();
    assert_eq!(again.events, [], "a second one changes nothing");
}

#[test]
fn a_further_one_stands_behind_the_first_however_late_that_counts_from() {
    let mut world = given(Named::Completed);
    let first = intent(&world, V1);
    let second = behind(&mut world, &first, V2);
    record_unmoved(&mut world, &first);
    assert_eq!(world.deployment().traffic.recorded_late_at(), None);
    assert!(world.deployment().traffic.set.as_ref().unwrap().at > second.at, "it counts from its record");
    let decision = record(&mut world, &second);
    assert_eq!(kinds(&decision)[..2], ["traffic.glass_broken", "traffic.rolled_back"], "{decision:?}");
    assert_eq!(world.weights(), [(V2.to_owned(), 100)].into());
}

#[test]
fn a_further_one_changes_nothing_where_the_ledger_was_rolled_back_before_the_first_was_recorded() {
    let mut world = given(Named::Completed);
    let first = intent(&world, V1);
    let second = behind(&mut world, &first, V2);
    world.pass_ms(1_000);
    world.ask(rollback());
    for intent in [&first, &second] {
        assert_eq!(kinds(&record_unmoved(&mut world, intent)), ["traffic.glass_broken"]);
    }
    assert_eq!(world.weights(), [(V1.to_owned(), 100)].into());
}

#[test]
fn what_a_rollout_did_by_itself_meanwhile_does_not_stand_against_it() {
    let mut world = rolling();
    let intent = intent(&world, V1);
    world.applied();
    world.step();
    let decision = record(&mut world, &intent);
    assert!(kinds(&decision).contains(&"traffic.weights_set"), "{decision:?}");
    assert_eq!(world.weights(), [(V1.to_owned(), 100)].into());
}

#[test]
fn newer_work_stands_and_what_happened_is_recorded_all_the_same() {
    type Case = (&'static str, fn(&mut World));
    let cases: [Case; 4] = [
        ("other weights", |world| drop(world.ask(traffic(&[(V1, 50), (V2, 50)], true)))),
        ("asked for since", |world| drop(world.ask(roll_instead(V1, V2)))),
        ("let go on", |world| {
            world.ask(kit::pause());
            world.ask(kit::resume());
        }),
        ("rolled back or retired", |world| drop(world.ask(rollback()))),
    ];
    for (why, since) in cases {
        let mut world = rolling();
        let intent = intent(&world, V1);
        world.pass_ms(1_000);
        since(&mut world);
        let (weights, fence) = (world.weights(), world.deployment().traffic.fence);
        let decision = record(&mut world, &intent);
        assert_eq!(kinds(&decision), ["traffic.glass_broken"], "{why}");
        assert!(decision.notes[0].contains(why), "{why}: {:?}", decision.notes);
        assert_eq!((world.weights(), world.deployment().traffic.fence), (weights, fence), "{why}");
        assert!(
            !world.deployment().traffic.is_applied(),
            "{why}: it is confirmed again above the break-glass \
                                                           rollback"
        );
        assert!(world.deployment().generation() > intent.generation, "{why}: what is set is carried out again");
    }
}

/// A rollback waits for its target; a process that is behind sends users elsewhere after all of them were moved there.
#[test]
fn a_rollback_that_was_under_way_and_came_true_unseen_stands_against_it() {
    let mut world = rolling();
    world.ask(rollback());
    let mut behind = intent(&world, V2);
    behind.head.version = StreamVersion(behind.head.version.0 - 1);
    let weights = world.weights();
    let decision = record(&mut world, &behind);
    assert_eq!(kinds(&decision), ["traffic.glass_broken"]);
    assert!(decision.notes[0].contains("under way moved all users meanwhile"), "{:?}", decision.notes);
    assert_eq!(world.weights(), weights);
}

#[test]
fn what_was_asked_for_before_it_does_not_stand_against_it_though_it_landed_later() {
    let mut world = rolling();
    let mut late = world.clone();
    late.ask(traffic(&[(V1, 50), (V2, 50)], true));
    world.pass_ms(5_000);
    let intent =
        Intent { head: Head { version: world.deployment().version, ..intent(&world, V1).head }, ..intent(&world, V1) };
    let decision = record(&mut late, &intent);
    assert!(kinds(&decision).contains(&"traffic.weights_set"), "{decision:?}");
    assert_eq!(late.weights(), [(V1.to_owned(), 100)].into());
}

#[test]
fn a_judge_that_acted_no_more_is_recorded_and_changes_nothing() {
    let mut world = rolling();
    let worker = Actor { kind: ActorKind::Worker, name: "traffic-shifter/old".to_owned(), proof: "lease".to_owned() };
    let intent = Intent { actor: worker, ..intent(&world, V1) };
    let decision = record(&mut world, &intent);
    assert_eq!(kinds(&decision), ["traffic.glass_broken"]);
}

#[test]
fn a_target_that_is_gone_by_now_gets_no_weights() {
    let mut world = rolling();
    let gone = Intent { to: schemas::StackId(uuid::Uuid::from_u128(1)), ..intent(&world, V1) };
    assert_eq!(kinds(&record(&mut world, &gone)), ["traffic.glass_broken"]);
}

#[test]
fn what_break_glass_left_is_drift_that_nobody_corrects_whatever_the_target_is_held_for() {
    let mut world = given(Named::Warm);
    world.ask(kit::roll(V1, V2));
    world.begin();
    world.report(world.next_step((0, 0), (0, 0)));
    // The step was never confirmed, and what is served is what was served before it.
    let decision = world.report(seen(&world, V1, generation::of(1, StreamVersion(3))));
    assert_eq!(kinds(&decision), ["traffic.drift_seen", "rollout.paused"]);
    assert!(world.deployment().traffic.drift.as_ref().unwrap().towards_target);
    assert_eq!(world.deployment().emergency_count, 1);
    let answer = world.decide_outcome(&seen(&world, V2, generation::of(1, StreamVersion(4)))).unwrap();
    assert_eq!(kinds(&answer), ["traffic.drift_seen"], "the ledger has heard of that rollback");
}

#[test]
fn no_rollout_starts_by_itself_over_a_rollback_that_the_ledger_does_not_know() {
    let mut world = given(Named::Warm);
    world.ask(traffic(&[(V2, 100)], false));
    world.applied();
    world.ask(new_then_roll(V3));
    world.bring_up(V3);
    world.report(seen(&world, V1, generation::of(1, StreamVersion(9))));
    let start = DeploymentOutcome::StartRequestedRollout(outcome::StartRequestedRollout { stack: world.stack(V3) });
    assert!(matches!(world.decide_outcome(&start), Err(Rejection::Outdated(_))));
}

#[test]
fn a_router_that_kept_the_generation_of_a_break_glass_rollback_and_serves_nobody_is_told_anew() {
    let mut world = given(Named::Ready);
    world.ask(traffic(&[(V1, 100)], false));
    let generation = generation::of(1, StreamVersion(3));
    let nothing =
        DeploymentOutcome::DriftSeen(outcome::DriftSeen { seen: Default::default(), generation: Some(generation) });
    assert_eq!(kinds(&world.report(nothing)), ["traffic.drift_seen"]);
    assert!(!world.deployment().traffic.drift.as_ref().unwrap().towards_target);
    assert!(world.deployment().generation() > generation);
}

#[test]
fn a_rollback_that_came_to_the_router_after_its_stack_was_gone_is_corrected() {
    let mut world = rolling();
    let gone = DeploymentOutcome::DriftSeen(outcome::DriftSeen {
        seen: [(schemas::StackId(uuid::Uuid::from_u128(1)), Weight::FULL)].into(),
        generation: Some(generation::of(1, StreamVersion(3))),
    });
    assert_eq!(kinds(&world.report(gone)), ["traffic.drift_seen"], "the rollout goes on");
    assert_eq!(world.deployment().drift_left_alone(), None);
    assert_eq!(world.deployment().emergency_count, 1, "the next call is above it");
}

#[test]
fn what_break_glass_left_on_a_stack_that_is_taken_down_is_corrected_once_its_node_is_gone() {
    let mut world = given(Named::Collecting);
    world.report(seen(&world, V2, generation::of(1, StreamVersion(3))));
    assert!(world.deployment().drift_left_alone().is_some(), "its node still answers");
    let effect = world.stack_state(V2).nodes[&0].effect;
    world.report(DeploymentOutcome::NodeStopped(outcome::NodeStopped { effect }));
    assert_eq!(world.deployment().drift_left_alone(), None);
}

#[test]
fn until_the_router_is_read_again_it_is_unknown_what_it_serves() {
    let mut world = rolling();
    world.applied();
    assert!(!world.deployment().traffic.is_applied_unknown());
    let intent = intent(&world, V1);
    record(&mut world, &intent);
    assert!(world.deployment().traffic.is_applied_unknown(), "what it confirmed is older than the rollback");
    world.applied();
    assert!(!world.deployment().traffic.is_applied_unknown());
}
