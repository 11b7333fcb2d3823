//! Stacks that fail: when one is given up, how long a place waits, and what stays visible of it.

use schemas::outcome::{self, DeploymentOutcome};
use schemas::{EffectId, StackId};

use super::super::Phase;
use super::super::failure::{EMPTY_FOR, FAILED_STARTS_MAX, may_give_up};
use super::named::{Named, given};
use crate::kit::*;

const MINUTE_MS: u64 = 60_000;

/// Lets the version's one node start and end, so many times.
fn crash(world: &mut World, text: &str, times: u32) {
    for n in 0..times {
        world.start_launch(text);
        let effect = world.launched(text);
        world
            .report(DeploymentOutcome::NodeLost(outcome::NodeLost { effect, reason: format!("exited with code {n}") }));
    }
}

fn give_up(world: &World, stack: StackId) -> Result<crate::Decision, crate::Rejection> {
    world.decide_outcome(&DeploymentOutcome::StackFailed(outcome::StackFailed { stack, reason: "given up".to_owned() }))
}

/// Takes the nodes of a failed stack down, and then what is left of it.
fn collect(world: &mut World, stack: StackId) {
    world
        .report(DeploymentOutcome::StartCollection(outcome::StartCollection { stack, reason: "it failed".to_owned() }));
    let nodes: Vec<EffectId> = world.deployment().stacks[&stack].nodes.values().map(|node| node.effect).collect();
    nodes
        .into_iter()
        .for_each(|effect| drop(world.report(DeploymentOutcome::NodeStopped(outcome::NodeStopped { effect }))));
    world.report(DeploymentOutcome::Collected(outcome::Collected { stack }));
}

fn failed(world: &World) -> Vec<(String, String)> {
    let kept = world.deployment().failed.values();
    kept.map(|failed| (failed.version.to_string(), failed.failure.reason.clone())).collect()
}

#[test]
fn a_stack_that_nothing_needs_is_given_up_after_five_failed_starts_and_not_before() {
    let mut world = given(Named::Warm);
    let stack = world.stack(V2);
    world.fall_ill(V2);
    crash(&mut world, V2, FAILED_STARTS_MAX - 2);
    assert!(give_up(&world, stack).is_err(), "four");
    crash(&mut world, V2, 1);
    assert_eq!(kinds(&give_up(&world, stack).unwrap()), ["stack.failed"]);
    assert_eq!(world.stack_state(V2).attempts[&0], 5);
}

#[test]
fn what_has_users_is_in_a_rollout_is_the_target_or_is_waited_for_is_tried_for_ever() {
    for (named, text) in
        [(Named::Warm, V1), (Named::Started, V1), (Named::Started, V2), (Named::Completed, V1), (Named::Awaiting, V1)]
    {
        let mut world = given(named);
        let stack = world.stack(text);
        if !world.stack_state(text).nodes.is_empty() {
            world.lose_node(text);
        }
        crash(&mut world, text, 20);
        assert!(!may_give_up(world.deployment(), stack), "{named:?} {text}");
        assert!(give_up(&world, stack).is_err(), "{named:?} {text}");
        assert!(world.decide_outcome(&next_launch(&world, text)).is_ok(), "{named:?} {text}: it is tried again");
    }
}

fn next_launch(world: &World, text: &str) -> DeploymentOutcome {
    let (stack, attempt) = (world.stack(text), world.stack_state(text).attempts[&0]);
    let effect = EffectId::of_launch(world.state.ledger.unwrap(), stack, 0, attempt);
    DeploymentOutcome::StartLaunch(outcome::StartLaunch { stack, slot: 0, attempt, effect, port: 4_000 })
}

#[test]
fn the_wait_grows_with_failures_in_a_row_and_a_place_is_tried_at_least_once_a_minute() {
    let waits: Vec<u64> = (1..=8).map(|failed| EMPTY_FOR.after(failed).as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 50, 50]);
    assert_eq!(EMPTY_FOR.after(u32::MAX).as_secs(), 50);
}

#[test]
fn the_wait_starts_again_once_the_node_was_ready_for_five_minutes_and_attempts_never_do() {
    let mut world = given(Named::Serving);
    for round in 1..=6 {
        world.pass_ms(5 * MINUTE_MS);
        world.lose_node(V1);
        assert_eq!(world.stack_state(V1).failed_starts(0), 1, "round {round}");
        world.launch(V1);
    }
    assert_eq!(world.stack_state(V1).attempts[&0], 7);
    for failures in 2..=4 {
        world.pass_ms(5 * MINUTE_MS - 1_000);
        world.lose_node(V1);
        assert_eq!(world.stack_state(V1).failed_starts(0), failures, "it was ready for less than five minutes");
        world.launch(V1);
    }
    let effect = world.stack_state(V1).nodes[&0].effect;
    world.pass_ms(5 * MINUTE_MS);
    world.report(DeploymentOutcome::NodeUnhealthy(outcome::NodeUnhealthy { effect, reason: "503".to_owned() }));
    world.lose_node(V1);
    assert_eq!(world.stack_state(V1).failed_starts(0), 1, "it was ready for five minutes before it fell ill");
}

#[test]
fn a_failed_stack_is_visible_until_it_is_dismissed() {
    let mut world = given(Named::Failed);
    let stack = world.stack(V1);
    assert!(world.deployment().stacks[&stack].failure.is_some());
    collect(&mut world, stack);
    assert_eq!(failed(&world), [(V1.to_owned(), "it took too long".to_owned())]);
    assert_eq!(world.deployment().version_of(stack), Some(&version(V1)));
    world.pass_ms(365 * 24 * 60 * MINUTE_MS);
    assert_eq!(kinds(&world.ask(dismiss(V1))), ["stack.dismissed"]);
    assert_eq!(failed(&world), []);
    let again = world.ask(dismiss(V1));
    assert_eq!(again.notes, ["no stack of production/api 1.0.0 is shown as failed"]);
}

#[test]
fn a_failed_stack_that_is_dismissed_while_its_nodes_go_leaves_no_record() {
    let mut world = given(Named::Failed);
    let stack = world.stack(V1);
    world
        .report(DeploymentOutcome::StartCollection(outcome::StartCollection { stack, reason: "it failed".to_owned() }));
    assert!(world.stack_state(V1).failure.is_some(), "its failure is not forgotten while it is taken down");
    assert!(matches!(world.stack_state(V1).phase, Phase::Collecting { .. }));
    world.ask(dismiss(V1));
    world.report(DeploymentOutcome::Collected(outcome::Collected { stack }));
    assert_eq!(failed(&world), []);
}

#[test]
fn a_failure_is_forgotten_once_its_version_is_asked_for_again_and_no_sooner() {
    let mut world = given(Named::Failed);
    let stack = world.stack(V1);
    collect(&mut world, stack);
    world.deploy(V2);
    assert_eq!(failed(&world).len(), 1, "another version says nothing of it");
    world.ask(new(V1));
    assert_eq!(failed(&world), []);
    let mut world = given(Named::Failed);
    let first = world.stack(V1);
    world.ask(new(V1));
    collect(&mut world, first);
    assert_eq!(failed(&world), [], "the stack that failed was still there");
}

#[test]
fn a_stack_that_was_retired_while_it_started_did_not_fail() {
    let mut world = given(Named::Starting);
    world.ask(retire());
    let stack = world.stack(V1);
    world.report(DeploymentOutcome::StackFailed(outcome::StackFailed {
        stack,
        reason: "the deployment was retired".to_owned(),
    }));
    collect(&mut world, stack);
    assert_eq!(failed(&world), []);
}

#[test]
fn the_records_of_failed_stacks_are_bounded_and_the_oldest_go_first() {
    let mut world = World::released();
    for n in 0..30 {
        let text = format!("3.0.{n}");
        world.ask(release(&text));
        world.ask(new(&text));
        let stack = world.stack(&text);
        world.report(DeploymentOutcome::StackFailed(outcome::StackFailed { stack, reason: "no".to_owned() }));
        collect(&mut world, stack);
    }
    let versions: Vec<String> = failed(&world).into_iter().map(|(version, _)| version).collect();
    assert_eq!(versions.len(), 20);
    assert!(versions.contains(&"3.0.29".to_owned()) && !versions.contains(&"3.0.9".to_owned()), "{versions:?}");
}

#[test]
fn the_first_cause_is_kept_beside_the_last_until_the_stack_is_well() {
    let mut world = given(Named::Starting);
    crash(&mut world, V1, 3);
    let stack = world.stack_state(V1);
    assert_eq!(stack.first_failure.as_deref(), Some("exited with code 0"));
    assert_eq!(stack.last_failure.as_deref(), Some("exited with code 2"));
    world.bring_up(V1);
    assert_eq!(world.stack_state(V1).first_failure, None);
}

/// A node is killed that served well, and the ones after it end at their start.
#[test]
fn how_a_node_ended_that_had_started_is_not_why_the_next_ones_do_not_start() {
    let mut world = given(Named::Warm);
    world.lose_node(V1);
    assert_eq!(world.stack_state(V1).first_failure, None);
    crash(&mut world, V1, 3);
    let stack = world.stack_state(V1);
    assert_eq!((stack.first_failure.as_deref(), stack.failed_starts(0)), (Some("exited with code 0"), 4));
}

#[test]
fn what_the_check_of_a_node_says_is_recorded_when_it_changes_and_forgotten_when_it_passes() {
    let mut world = given(Named::Launched);
    let effect = world.stack_state(V1).nodes[&0].effect;
    let failing =
        |reason: &str| DeploymentOutcome::NodeFailing(outcome::NodeFailing { effect, reason: reason.to_owned() });
    assert_eq!(kinds(&world.report(failing("/health answered 503 instead of 200"))), ["node.failing"]);
    assert_eq!(world.report(failing("/health answered 503 instead of 200")).events, []);
    assert_eq!(kinds(&world.report(failing("no complete answer within 1000 ms"))), ["node.failing"]);
    let said = |world: &World| world.stack_state(V1).nodes[&0].failing.as_ref().map(|failing| failing.reason.clone());
    assert_eq!(said(&world).as_deref(), Some("no complete answer within 1000 ms"));
    world.report(DeploymentOutcome::NodeReady(outcome::NodeReady { effect }));
    assert_eq!(said(&world), None);
    world.report(DeploymentOutcome::NodeUnhealthy(outcome::NodeUnhealthy { effect, reason: "refused".to_owned() }));
    assert_eq!(said(&world).as_deref(), Some("refused"));
}
