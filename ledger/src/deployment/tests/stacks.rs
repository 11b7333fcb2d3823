//! Stacks: asked for once, brought up, watched.

use schemas::command::{self, Command};
use schemas::outcome::{self, DeploymentOutcome};
use schemas::run::Capacity;

use super::super::{NodePhase, Phase};
use super::named::{Named, given};
use crate::decision::Rejection;
use crate::kit::*;

#[test]
fn a_stack_is_asked_for_once_and_again_after_it_failed() {
    let mut world = given(Named::Starting);
    let again = world.ask(new(V1));
    assert_eq!((again.events.len(), again.notes), (0, vec!["production/api 1.0.0 already has a stack".to_owned()]));
    let failed = world.stack(V1);
    world.report(DeploymentOutcome::StackFailed(outcome::StackFailed { stack: failed, reason: "late".to_owned() }));
    world.ask(new(V1));
    assert_ne!(world.stack(V1), failed);
}

#[test]
fn everything_needed_to_run_it_is_frozen_with_the_request() {
    let mut world = given(Named::Starting);
    let before = world.stack_state(V1).clone();
    let mut other = definition();
    other.run.args = vec!["--new".to_owned()];
    other.capacity = Capacity { nodes: 3, min_ready: 1 };
    world.ask(apply(other));
    assert_eq!(*world.stack_state(V1), before);
}

#[test]
fn a_rollout_of_a_stack_that_is_there_is_asked_for_as_that_of_a_new_one() {
    let mut world = given(Named::Warm);
    let stack = world.stack(V2);
    let decision = world.ask(new_then_roll(V2));
    assert_eq!(kinds(&decision), ["rollout.requested"]);
    assert_eq!(decision.notes, ["1.1.0 already has a stack, and that one is rolled out"]);
    assert_eq!(
        kinds(&world.report(DeploymentOutcome::StartRequestedRollout(outcome::StartRequestedRollout { stack }))),
        ["rollout.started"]
    );
}

#[test]
fn a_rollout_that_waits_gives_way_to_one_of_the_same_stack_by_another_plan() {
    let mut world = given(Named::Waiting);
    let stack = world.stack(V2);
    let mut other = new_then_roll(V2);
    let Command::New(command::New { then_roll: Some(plan), .. }) = &mut other else { unreachable!() };
    plan.duration_ms = Some(60_000);
    assert_eq!(kinds(&world.ask(other)), ["rollout.request_dropped", "rollout.requested"]);
    assert_eq!(world.deployment().waiting.as_ref().map(|waiting| waiting.plan.duration_ms), Some(60_000));
    assert!(!world.stack_state(V2).dropped, "it is still wanted, and not the first to be collected");
    assert_eq!(
        kinds(&world.report(DeploymentOutcome::StartRequestedRollout(outcome::StartRequestedRollout { stack }))),
        ["rollout.started"]
    );
}

#[test]
fn a_rejected_stack_is_rolled_out_again_only_by_who_says_so_and_a_second_plan_needs_supersede() {
    let mut world = given(Named::RolledBack);
    let said = world.decide(&new_then_roll(V2)).unwrap_err().to_string();
    assert!(said.starts_with("production/api 1.1.0 is rejected since a rollback at "), "{said}");
    assert!(said.ends_with("add `--again --reason WHY`"), "{said}");
    assert_eq!(kinds(&world.ask(again(new_then_roll(V2)))), ["rollout.requested"]);

    let mut other = new_then_roll(V2);
    let Command::New(command::New { then_roll: Some(plan), .. }) = &mut other else { unreachable!() };
    plan.duration_ms = Some(60_000);
    let said = given(Named::AtStep).decide(&other).unwrap_err().to_string();
    assert!(said.contains("already rolls out 1.1.0 with another plan, now at 10 %"), "{said}");
    assert!(said.contains("`ionledger roll api 1.0.0 1.1.0 --supersede`"), "{said}");
    let said = given(Named::Split).decide(&new_then_roll(V2)).unwrap_err().to_string();
    assert!(said.contains("has 10 % of the traffic already") && said.contains("traffic api 1.1.0 100"), "{said}");
}

#[test]
fn a_place_is_filled_by_one_node_at_a_time_and_each_attempt_once() {
    let mut world = given(Named::Starting);
    let effect = world.start_launch(V1);
    let stack = world.stack(V1);
    let again =
        |slot, attempt| DeploymentOutcome::StartLaunch(outcome::StartLaunch { stack, slot, attempt, effect, port: 1 });
    for (slot, attempt) in [(0, 0), (0, 1), (1, 0)] {
        let answer = world.decide_outcome(&again(slot, attempt));
        assert!(matches!(answer, Err(Rejection::Outdated(_))), "place {slot} attempt {attempt}: {answer:?}");
    }
    world.report(DeploymentOutcome::LaunchFailed(outcome::LaunchFailed { effect, reason: "no port".to_owned() }));
    assert!(matches!(world.decide_outcome(&again(0, 0)), Err(Rejection::Outdated(_))));
    assert!(world.decide_outcome(&again(0, 1)).is_ok());
}

#[test]
fn a_node_is_ready_only_after_it_runs_and_a_stack_only_when_all_its_nodes_are() {
    let mut world = World::released();
    let mut two = definition();
    two.capacity = Capacity { nodes: 2, min_ready: 1 };
    world.ask(apply(two));
    world.ask(new(V1));
    let effect = world.start_launch(V1);
    assert!(matches!(
        world.decide_outcome(&DeploymentOutcome::NodeReady(outcome::NodeReady { effect })),
        Err(Rejection::Outdated(_))
    ));
    let address = "127.0.0.1:4000".parse().unwrap();
    world.report(DeploymentOutcome::Launched(outcome::Launched { effect, address, instance: "process 1".to_owned() }));
    world.report(DeploymentOutcome::NodeReady(outcome::NodeReady { effect }));
    assert!(world.stack_state(V1).nodes[&0].is_ready());
    let ready = DeploymentOutcome::StackReady(outcome::StackReady { stack: world.stack(V1) });
    assert!(matches!(world.decide_outcome(&ready), Err(Rejection::Outdated(_))), "one of two");
}

#[test]
fn a_stack_is_unhealthy_under_its_minimum_and_recovers_at_it() {
    let mut world = given(Named::Serving);
    let stack = world.stack(V1);
    let unhealthy = DeploymentOutcome::StackUnhealthy(outcome::StackUnhealthy { stack });
    assert!(matches!(world.decide_outcome(&unhealthy), Err(Rejection::Outdated(_))), "enough nodes are ready");
    world.fall_ill(V1);
    assert_eq!(world.stack_state(V1).phase, Phase::Unhealthy);
    let recovered = DeploymentOutcome::StackRecovered(outcome::StackRecovered { stack });
    assert!(matches!(world.decide_outcome(&recovered), Err(Rejection::Outdated(_))), "no node is back");
    world.launch(V1);
    world.report(recovered);
    assert_eq!(world.stack_state(V1).phase, Phase::Ready);
}

#[test]
fn a_report_is_kept_without_secrets_and_cut_short() {
    let mut world = given(Named::Starting);
    let effect = world.start_launch(V1);
    let reason = format!("exit 1:\npassword=hunter2hunter2 {}", "x".repeat(100_000));
    let decision = world.report(DeploymentOutcome::LaunchFailed(outcome::LaunchFailed { effect, reason }));
    let text = decision.events[0].1.data().get().to_owned();
    assert!(text.contains("exit 1: [...] xxx") && text.len() < 1_200 && !text.contains("hunter2"), "{text}");
}

#[test]
fn a_release_is_immutable_and_its_run_spec_is_content_too() {
    let mut world = World::released();
    assert_eq!(
        world.decide(&release_of(V1, "other")).unwrap_err().to_string(),
        "release api 1.0.0 is already recorded with another artifact; releases are immutable, use a new version"
    );
    let mut renamed = artifact(V1);
    renamed.name = "api-linux".to_owned();
    let Command::Release(command::Release { service, version, args, env, source, .. }) = release(V1) else {
        unreachable!()
    };
    let same =
        Command::Release(command::Release { service, version, artifact: renamed, args, env, source, fixes: None });
    assert_eq!(world.decide(&same).unwrap().events, [], "the same bytes under another name are the same content");
    let mut other = definition();
    other.run.args = vec!["--fast".to_owned()];
    world.ask(apply(other));
    let answer = world.decide(&release(V1)).unwrap_err().to_string();
    assert!(answer.contains("recorded with another run spec"), "{answer}");
}

#[test]
fn what_a_service_or_release_says_of_itself_is_checked() {
    let world = World::released();
    let with = |change: &dyn Fn(&mut schemas::service::Definition)| {
        let mut changed = definition();
        change(&mut changed);
        world.decide(&apply(changed))
    };
    for answer in [
        with(&|d| d.owner = " ".into()),
        with(&|d| d.owner = "team\n".into()),
        with(&|d| d.owner = "x".repeat(201)),
        with(&|d| d.description = "the key is ghp_16C7e42F292c6912E7710c838347Ae178B4a".into()),
        with(&|d| d.run.args = vec!["--password=hunter2hunter2".into()]),
        with(&|d| d.capacity = Capacity { nodes: 0, min_ready: 0 }),
        with(&|d| d.policy.retention.serving_max = 1),
    ] {
        assert!(matches!(answer, Err(Rejection::Invalid(_))), "{answer:?}");
    }
    let Command::Release(command::Release { service, artifact, args, env, .. }) = release("2.0.0") else {
        unreachable!()
    };
    let run_url = Some("https://ci.example.com/runs/1?token=abcdef123456".to_owned());
    let source = schemas::release::Source { commit: None, run_url };
    let leaky = Command::Release(command::Release {
        service,
        version: version("2.0.0"),
        artifact,
        args,
        env,
        source,
        fixes: None,
    });
    assert!(matches!(world.decide(&leaky), Err(Rejection::Invalid(_))));
}

#[test]
fn a_node_that_is_lost_leaves_its_place_and_why() {
    let mut world = given(Named::Serving);
    let effect = world.stack_state(V1).nodes[&0].effect;
    assert!(matches!(world.stack_state(V1).nodes[&0].phase, NodePhase::Ready { .. }));
    world.report(DeploymentOutcome::NodeLost(outcome::NodeLost { effect, reason: "it exited".to_owned() }));
    let stack = world.stack_state(V1);
    assert_eq!((stack.nodes.len(), stack.last_failure.as_deref()), (0, Some("it exited")));
    assert_eq!(stack.phase, Phase::Ready, "three looks make it unhealthy, not one");
}
