//! What is never taken down, and what is when.

use schemas::outcome::{self, DeploymentOutcome};
use schemas::policy::RetentionPolicy;

use super::super::retention::{due, in_use, leaves};
use super::named::{Named, given};
use crate::decision::Rejection;
use crate::kit::*;

const DAY_MS: u64 = 24 * 3_600_000;

fn start(world: &World, text: &str) -> Result<crate::Decision, Rejection> {
    let outcome = DeploymentOutcome::StartCollection(outcome::StartCollection {
        stack: world.stack(text),
        reason: "unused".to_owned(),
    });
    world.decide_outcome(&outcome)
}

fn why(world: &World, text: &str) -> Option<&'static str> {
    in_use(world.deployment(), world.stack(text))
}

#[test]
fn a_stack_with_weight_set_applied_or_seen_is_never_taken_down() {
    let mut world = given(Named::Split);
    world.pass_ms(365 * DAY_MS);
    assert_eq!(why(&world, V2), Some("it has traffic"));
    assert!(start(&world, V2).is_err());
    world.ask(traffic(&[(V1, 100)], false));
    world.pass_ms(365 * DAY_MS);
    assert_eq!(why(&world, V2), Some("the router still gives it traffic"));
    assert!(start(&world, V2).is_err());
    world.applied();
    let seen = [(world.stack(V1), percent(50)), (world.stack(V2), percent(50))].into();
    world.report(DeploymentOutcome::DriftSeen(outcome::DriftSeen { seen, generation: None }));
    assert_eq!(why(&world, V2), Some("the router was seen to give it traffic"));
    assert!(start(&world, V2).is_err());
    world.applied();
    assert_eq!(why(&world, V2), None);
    assert_eq!(kinds(&start(&world, V2).unwrap()), ["retention.collection_started"]);
}

#[test]
fn the_rollback_target_and_both_stacks_of_a_live_rollout_are_kept() {
    let mut world = given(Named::Completed);
    world.pass_ms(365 * DAY_MS);
    assert_eq!(why(&world, V1), Some("it is the rollback target"));
    assert!(start(&world, V1).is_err());
    let mut world = given(Named::Started);
    world.pass_ms(365 * DAY_MS);
    assert_eq!(why(&world, V2), Some("it is in a rollout"));
    assert!(start(&world, V2).is_err());
}

#[test]
fn a_stack_that_starts_or_waits_for_its_rollout_is_kept() {
    let mut world = given(Named::Split);
    world.ask(new_then_roll(V3));
    world.pass_ms(365 * DAY_MS);
    assert_eq!(why(&world, V3), Some("it is starting"));
    world.bring_up(V3);
    world.pass_ms(365 * DAY_MS);
    assert_eq!(why(&world, V3), Some("its rollout waits"));
}

#[test]
fn an_unused_stack_is_kept_warm_for_the_policys_time() {
    let mut world = given(Named::Warm);
    world.pass_ms(DAY_MS - 10);
    assert!(start(&world, V2).is_err());
    world.pass_ms(10);
    let decision = start(&world, V2).unwrap();
    assert_eq!(kinds(&decision), ["retention.collection_started"]);
    assert_eq!(decision.requires, [schemas::Stream::Service(service())], "its policy decided");
}

#[test]
fn of_more_than_the_policys_number_the_longest_unused_goes_first() {
    let mut world = given(Named::Warm);
    world.deploy(V3);
    let policy = |warm_max| RetentionPolicy { warm_max, ..RetentionPolicy::default() };
    let due_now = |world: &World, text: &str, warm_max| {
        due(world.deployment(), world.stack(text), &policy(warm_max)).is_some_and(|(at, _)| at <= world.time)
    };
    assert_eq!([V2, V3].map(|text| due_now(&world, text, 2)), [false, false]);
    assert_eq!([V2, V3].map(|text| due_now(&world, text, 1)), [true, false]);
    assert_eq!([V2, V3].map(|text| due_now(&world, text, 0)), [true, true]);
    let mut narrow = definition();
    narrow.policy.retention.warm_max = 0;
    world.ask(apply(narrow));
    world.report(DeploymentOutcome::StartCollection(outcome::StartCollection {
        stack: world.stack(V3),
        reason: "too many".to_owned(),
    }));
    assert!(!due_now(&world, V2, 1), "one that is being taken down is not kept warm");
}

#[test]
fn a_failed_stack_and_those_of_a_retired_deployment_go_at_once() {
    assert!(start(&given(Named::Failed), V1).is_ok());
    let world = given(Named::Retired);
    assert!(start(&world, V1).is_ok());
    assert!(start(&world, V2).is_ok());
}

#[test]
fn a_stack_that_is_asked_for_after_the_end_is_no_part_of_it() {
    let mut world = given(Named::Retired);
    world.deploy(V3);
    assert!(start(&world, V3).is_err());
    assert!(start(&world, V2).is_ok());
    assert!(world.deployment().traffic.retired_at.is_some(), "it serves nothing yet");
    world.serve(&[(V3, 100)]);
    assert!(start(&world, V2).is_err(), "it serves again, and keeps what is warm");
    assert_eq!(world.deployment().traffic.retired_at, None);
}

#[test]
fn what_was_asked_for_after_the_end_can_be_ended_too() {
    let mut world = given(Named::Retired);
    world.deploy(V3);
    assert_eq!(kinds(&world.ask(retire())), ["traffic.retired"]);
    assert!(start(&world, V3).is_ok());
    assert_eq!(world.ask(retire()).events, []);
}

#[test]
fn a_stack_is_gone_once_its_nodes_are() {
    let mut world = given(Named::Collecting);
    let stack = world.stack(V2);
    let collected = DeploymentOutcome::Collected(outcome::Collected { stack });
    assert!(matches!(world.decide_outcome(&collected), Err(Rejection::Outdated(_))));
    let effect = world.stack_state(V2).nodes[&0].effect;
    world.report(DeploymentOutcome::NodeStopped(outcome::NodeStopped { effect }));
    world.report(collected);
    assert!(!world.deployment().stacks.contains_key(&stack));
}

#[test]
fn no_node_is_stopped_but_those_of_a_stack_that_is_taken_down() {
    let world = given(Named::Warm);
    let effect = world.stack_state(V2).nodes[&0].effect;
    let answer = world.decide_outcome(&DeploymentOutcome::NodeStopped(outcome::NodeStopped { effect }));
    assert!(matches!(answer, Err(Rejection::Outdated(_))), "{answer:?}");
}

#[test]
fn a_stack_whose_rollout_was_dropped_goes_also_while_it_starts_and_who_dropped_it_is_told() {
    let told = format!("{V2} is taken down: its rollout was dropped; `ionledger new api {V2}` makes another");
    for is_ready in [false, true] {
        let mut world = given(Named::Serving);
        world.ask(new_then_roll(V2));
        if is_ready {
            world.bring_up(V2);
        }
        assert!(start(&world, V2).is_err(), "its rollout waits");
        let replaced = world.ask(new_then_roll(V3));
        assert!(replaced.notes.contains(&told), "{:?}", replaced.notes);
        assert_eq!(leaves(world.deployment(), world.stack(V2)), Some("its rollout was dropped"));
        assert!(start(&world, V3).is_err(), "the other one's rollout waits");
        let taken = start(&world, V2).unwrap();
        assert_eq!(kinds(&taken), ["retention.collection_started"]);
        let mut others = world.clone();
        assert!(!others.ask(hold(None)).notes.contains(&told), "it is said once");

        let stack = world.stack(V2);
        world.commit(taken);
        assert_eq!(leaves(world.deployment(), stack), None, "it has begun");
        let ready = DeploymentOutcome::StackReady(outcome::StackReady { stack });
        assert!(matches!(world.decide_outcome(&ready), Err(Rejection::Outdated(_))), "it does not come back");
    }
}

#[test]
fn an_abort_of_what_waits_says_that_its_stack_is_taken_down() {
    let mut world = given(Named::Waiting);
    let told = format!("{V2} is taken down: its rollout was dropped; `ionledger new api {V2}` makes another");
    assert_eq!(world.ask(abort()).notes, [told]);
}
