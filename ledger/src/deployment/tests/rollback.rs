//! Where a rollback goes, that it goes once, and that nothing older undoes it.

use schemas::outcome::{self, DeploymentOutcome};
use schemas::traffic::{Event as Traffic, Purpose, RolledBack};
use schemas::{Event, Fence, Probed};

use super::super::rollback::{Target, target};
use super::named::{Named, given};
use crate::decision::{Decision, Rejection};
use crate::kit::*;

fn rolled_back(decision: &Decision) -> RolledBack {
    match events_of(decision, "traffic.rolled_back")[..] {
        [Event::Traffic(Traffic::RolledBack(back))] => back.clone(),
        _ => panic!("no rollback in {decision:?}"),
    }
}

/// All three versions held all traffic one after the other, the third does now, and all are warm.
fn three_served() -> World {
    let mut world = World::serving_one_warm_one();
    world.serve(&[(V2, 100)]);
    world.deploy(V3);
    world.serve(&[(V3, 100)]);
    world
}

/// Rolls back, to `to`.
fn goes_back_to(world: &mut World, to: &str) {
    assert_eq!(rolled_back(&world.ask(rollback())).to, world.stack(to));
}

/// A rollback leaves `from` alone, and all traffic goes to `to`.
fn goes_back(mut world: World, from: &str, to: &str) {
    let back = rolled_back(&world.ask(rollback()));
    assert_eq!((back.to, back.from), (world.stack(to), vec![world.stack(from)]));
}

#[test]
fn within_a_rollout_the_target_is_its_baseline() {
    let mut world = three_served();
    world.ask(traffic(&[(V2, 100)], false));
    world.ask(roll(V2, V1));
    assert_eq!(target(world.deployment()), Some(Target::Warm { stack: world.stack(V2), passed_over: vec![] }));
    let back = rolled_back(&world.ask(rollback()));
    assert_eq!((back.to, back.from), (world.stack(V2), vec![world.stack(V1)]));
}

#[test]
fn outside_one_it_is_the_latest_version_before_the_present_that_held_all_traffic() {
    let mut world = three_served();
    let back = rolled_back(&world.ask(rollback()));
    assert_eq!((back.to, back.from), (world.stack(V2), vec![world.stack(V3)]));
    assert_eq!(world.weights(), [(V2.to_owned(), 100)].into());
}

#[test]
fn a_version_that_only_had_a_part_of_the_traffic_is_no_target() {
    let mut world = World::serving_one_warm_one();
    world.serve(&[(V1, 90), (V2, 10)]);
    world.deploy(V3);
    world.serve(&[(V3, 100)]);
    assert_eq!(rolled_back(&world.ask(rollback())).to, world.stack(V1));
}

#[test]
fn a_version_that_was_rolled_back_from_is_no_target_until_it_holds_all_traffic_again() {
    let mut world = World::serving_one_warm_one();
    world.serve(&[(V2, 100)]);
    world.ask(rollback());
    world.deploy(V3);
    world.serve(&[(V3, 100)]);
    assert_eq!(target(world.deployment()).unwrap().stack(), Some(world.stack(V1)), "the second was rolled back from");
    world.ask(again(traffic(&[(V2, 100)], false)));
    world.ask(again(traffic(&[(V3, 100)], false)));
    assert_eq!(target(world.deployment()).unwrap().stack(), Some(world.stack(V2)), "it was trusted again since");
}

/// The release is the same, so it is no better for having a new stack or having served before.
#[test]
fn a_version_that_was_rolled_back_from_is_no_target_for_what_an_older_stack_of_it_held() {
    let mut world = three_served();
    world.collect(V1);
    world.deploy(V1);
    world.serve(&[(V1, 100)]);
    world.ask(rollback());
    assert_eq!(world.weights(), [(V2.to_owned(), 100)].into(), "the third was left for the older first");
    assert_eq!(target(world.deployment()), None);
}

#[test]
fn a_target_known_to_be_unhealthy_is_passed_over_for_the_next_older_and_named() {
    let mut world = three_served();
    world.fall_ill(V2);
    let back = rolled_back(&world.ask(rollback()));
    assert_eq!((back.to, back.passed_over), (world.stack(V1), vec![world.stack(V2)]));
}

#[test]
fn health_that_is_not_known_for_certain_stops_no_rollback() {
    let mut world = three_served();
    let effect = world.stack_state(V2).nodes[&0].effect;
    world.report(DeploymentOutcome::NodeUnhealthy(outcome::NodeUnhealthy {
        effect,
        reason: "one look failed".to_owned(),
    }));
    assert_eq!(rolled_back(&world.ask(rollback())).to, world.stack(V2));
}

#[test]
fn within_a_rollout_an_unhealthy_baseline_is_the_target_if_nothing_older_is_fit() {
    let mut world = given(Named::AtStep);
    world.fall_ill(V1);
    world.fall_ill(V2);
    let rollout = world.deployment().rollout.as_ref().unwrap().id;
    let reason = "the canary is unhealthy".to_owned();
    let decision = world.report(DeploymentOutcome::SendBack(outcome::SendBack {
        rollout,
        reason,
        counted: None,
        judged: None,
        probed: Probed::default(),
    }));
    assert_eq!(rolled_back(&decision).to, world.stack(V1));
}

#[test]
fn a_warm_target_gets_its_weight_in_the_same_commit_and_passes_no_gate() {
    let mut world = three_served();
    let mut narrow = definition();
    narrow.policy.retention.warm_for_ms = 0;
    world.ask(apply(narrow));
    let decision = world.decide(&rollback()).unwrap();
    assert_eq!(kinds(&decision), ["traffic.rolled_back", "traffic.weights_set", "hold.set"]);
    assert_eq!(decision.requires, [], "nothing that happens to the service can void it");
}

#[test]
fn from_weights_that_were_set_by_hand_it_goes_to_the_older_version() {
    let mut world = World::serving_one_warm_one();
    world.serve(&[(V2, 100)]);
    world.serve(&[(V1, 50), (V2, 50)]);
    goes_back(world, V2, V1);
}

#[test]
fn from_weights_that_were_set_by_hand_it_goes_back_to_what_held_all_before_where_the_older_never_did() {
    let mut world = World::serving_one_warm_one();
    world.deploy(V3);
    world.serve(&[(V3, 100)]);
    world.serve(&[(V3, 90), (V2, 10)]);
    goes_back(world, V2, V3);
}

#[test]
fn a_second_rollback_changes_nothing() {
    let mut world = three_served();
    world.ask(rollback());
    let fence = world.deployment().traffic.fence;
    let second = world.ask(rollback());
    assert_eq!(second.events, []);
    assert_eq!(
        second.notes,
        ["production/api is rolled back already; `ionledger traffic api 1.0.0 100` goes further back"]
    );
    assert_eq!(world.deployment().traffic.fence, fence);
}

/// The purpose of the weights is still the older rollback's when a new rollout has begun and taken no step.
#[test]
fn a_rollback_ends_a_rollout_that_was_started_after_another_rollback() {
    let mut world = given(Named::StartedAfterRollback);
    let decision = world.ask(rollback());
    assert_eq!(kinds(&decision), ["traffic.rolled_back", "traffic.weights_set", "rollout.came_back", "hold.set"]);
    assert!(!world.deployment().rollout.as_ref().unwrap().is_live());
}

#[test]
fn a_rollback_of_a_rollback_never_goes_forward_again() {
    let mut world = given(Named::RolledBack);
    world.pass_ms(1_000);
    assert_eq!(world.decide(&rollback()).unwrap().events, []);
    world.ask(again(roll(V1, V2)));
    world.ask(abort());
    assert!(matches!(world.decide(&rollback()), Err(Rejection::AllRejected { .. })));
}

/// What a rollback went past did not pass, and is a newer release than the one that users are on since.
#[test]
fn what_a_rollback_went_past_is_no_target_until_it_holds_all_traffic_again() {
    let mut world = three_served();
    world.fall_ill(V2);
    goes_back_to(&mut world, V1);
    world.ask(again(traffic(&[(V3, 100)], false)));
    world.ask(traffic(&[(V1, 100)], false));
    assert_eq!(target(world.deployment()), None);
    let refused = world.decide(&rollback()).unwrap_err().to_string();
    let said = format!("{V2} is rejected since a rollback at ");
    assert!(refused.contains(&said) && refused.contains("`ionledger traffic api 1.1.0 100` overrules"), "{refused}");

    world.launch(V2);
    let recovered = outcome::StackRecovered { stack: world.stack(V2) };
    world.report(DeploymentOutcome::StackRecovered(recovered));
    assert_eq!(target(world.deployment()), None);
    world.ask(traffic(&[(V2, 100)], false));
    world.ask(again(traffic(&[(V3, 100)], false)));
    goes_back_to(&mut world, V2);
}

#[test]
fn a_second_rollback_sends_nobody_to_a_newer_version_as_if_it_went_further_back() {
    let mut world = three_served();
    world.ask(traffic(&[(V1, 100)], false));
    world.ask(again(traffic(&[(V3, 100)], false)));
    goes_back_to(&mut world, V1);
    let second = world.ask(rollback());
    assert_eq!(second.notes, ["production/api is rolled back already"]);
}

mod of_a_target_that_is_gone {
    use super::*;

    #[test]
    fn it_is_deployed_again_and_said_so() {
        let mut world = given(Named::Awaiting);
        let traffic = &world.deployment().traffic;
        assert_eq!(traffic.awaited, Some(world.stack(V1)));
        assert_eq!(world.weights(), [(V2.to_owned(), 100)].into(), "it goes on serving until the target is ready");
        let decision = world.bring_up(V1);
        assert_eq!(kinds(&decision), ["stack.ready", "traffic.weights_set"]);
        assert_eq!(world.weights(), [("1.0.0~2".to_owned(), 100)].into());
        let traffic = &world.deployment().traffic;
        assert_eq!((traffic.awaited, traffic.set.as_ref().map(|set| &set.purpose)), (None, Some(&Purpose::Rollback)));
    }

    #[test]
    fn the_note_suggests_the_retention_that_would_have_kept_it() {
        let mut world = three_served();
        world.collect(V1);
        world.fall_ill(V2);
        let decision = world.decide(&rollback()).unwrap();
        assert_eq!(kinds(&decision), ["stack.requested", "traffic.rolled_back", "hold.set"]);
        assert_eq!(rolled_back(&decision).passed_over, [world.stack(V2)]);
        assert_eq!(
            decision.notes,
            ["the rollback target 1.0.0 is gone; it is deployed again and gets all traffic once it is ready. \
              A longer retention.warm_for in the policy of api would have kept it"]
        );
        assert_eq!(decision.requires, [schemas::Stream::Service(service())]);
    }

    #[test]
    fn of_a_target_that_failed_the_note_says_so_and_blames_no_retention() {
        let mut world = three_served();
        world.collect(V1);
        world.fall_ill(V2);
        world.ask(new(V1));
        let stack = world.deployment().stack_for(&version(V1)).unwrap().0;
        let reason = "exited with code 1".to_owned();
        world.report(DeploymentOutcome::StackFailed(outcome::StackFailed { stack, reason }));
        let decision = world.decide(&rollback()).unwrap();
        assert_eq!(
            decision.notes,
            [
                "the rollback target 1.0.0 is gone: 1.0.0~2 failed (exited with code 1); it is deployed again and gets all \
              traffic once it is ready"
            ]
        );
    }

    #[test]
    fn the_fence_is_raised_at_once_and_a_second_rollback_waits_for_the_same_stack() {
        let world = given(Named::Awaiting);
        assert_eq!(world.deployment().traffic.fence, Fence(2));
        assert_eq!(world.decide(&rollback()).unwrap().events, []);
    }

    /// Otherwise the version that was rolled back from would be the target of the next rollback.
    #[test]
    fn what_was_rolled_back_from_is_no_target_afterwards() {
        let mut world = given(Named::Awaiting);
        world.bring_up(V1);
        world.applied();
        assert_eq!(world.decide(&rollback()).unwrap().events, []);
        assert_eq!(target(world.deployment()), None);
    }

    #[test]
    fn no_rollout_starts_while_it_waits() {
        let mut world = given(Named::Awaiting);
        world.ask(again(new_then_roll(V3)));
        world.bring_up(V3);
        let stack = world.stack(V3);
        let early =
            world.decide_outcome(&DeploymentOutcome::StartRequestedRollout(outcome::StartRequestedRollout { stack }));
        assert!(matches!(early, Err(Rejection::Outdated(_))), "{early:?}");
        world.bring_up(V1);
        world.applied();
        let decision = world.report(DeploymentOutcome::StartRequestedRollout(outcome::StartRequestedRollout { stack }));
        assert_eq!(kinds(&decision), ["rollout.started"]);
        assert_eq!(world.deployment().rollout.as_ref().unwrap().baseline, world.stack(V1));
    }

    #[test]
    fn it_is_tried_until_it_comes_up_and_the_rollback_is_carried_out_then() {
        let mut world = given(Named::Awaiting);
        let stack = world.stack(V1);
        let late =
            DeploymentOutcome::StackFailed(outcome::StackFailed { stack, reason: "it took too long".to_owned() });
        assert!(matches!(world.decide_outcome(&late), Err(Rejection::Outdated(_))), "a rollback waits for it");
        for _ in 0..10 {
            world.start_launch(V1);
            world.launched(V1);
            world.lose_node(V1);
        }
        assert!(world.decide_outcome(&late).is_err());
        world.bring_up(V1);
        assert_eq!(world.weights(), [("1.0.0~2".to_owned(), 100)].into());
    }

    #[test]
    fn a_stack_of_it_that_is_starting_already_is_waited_for() {
        let mut world = three_served();
        world.collect(V1);
        world.fall_ill(V2);
        world.ask(new(V1));
        let decision = world.ask(rollback());
        assert_eq!(kinds(&decision), ["traffic.rolled_back", "hold.set"]);
        assert_eq!(world.deployment().traffic.awaited, Some(world.stack(V1)));
    }

    #[test]
    fn a_warm_stack_of_the_same_version_is_as_good() {
        let mut world = three_served();
        world.collect(V1);
        world.deploy(V1);
        world.fall_ill(V2);
        let decision = world.ask(rollback());
        assert_eq!(kinds(&decision), ["traffic.rolled_back", "traffic.weights_set", "hold.set"]);
        assert_eq!(rolled_back(&decision).to, world.stack(V1));
    }

    #[test]
    fn weights_set_by_hand_afterwards_end_the_waiting() {
        let mut world = given(Named::Awaiting);
        let untold = world.decide(&traffic(&[(V2, 100)], false));
        assert!(matches!(untold, Err(Rejection::Rejected { .. })), "it was rolled back from: {untold:?}");
        world.ask(again(traffic(&[(V2, 100)], false)));
        assert_eq!(world.deployment().traffic.awaited, None);
        assert_eq!(kinds(&world.bring_up(V1)), ["stack.ready"]);
        assert_eq!(world.weights(), [(V2.to_owned(), 100)].into());
    }
}

#[test]
fn what_was_asked_under_an_older_fence_is_refused_and_a_rollback_never() {
    let before = three_served();
    let fence = before.deployment().traffic.fence;
    let mut world = before.clone();
    world.ask(rollback());
    assert_eq!(world.deployment().traffic.fence, fence.next());
    for command in [
        new(V3),
        traffic(&[(V3, 100)], false),
        traffic(&[(V3, 100)], true),
        roll(V2, V3),
        pause(),
        resume(),
        abort(),
        promote(),
        retire(),
    ] {
        let answer = world.decide_under(&command, fence);
        assert!(matches!(answer, Err(Rejection::Fenced { .. })), "{command:?}: {answer:?}");
        let answer = world.decide_under(&command, fence.next());
        assert!(!matches!(answer, Err(Rejection::Fenced { .. })), "{command:?}: {answer:?}");
    }
    assert_eq!(world.decide_under(&rollback(), fence).unwrap().events, []);
}

#[test]
fn retiring_raises_the_fence_too() {
    let mut world = three_served();
    let fence = world.deployment().traffic.fence;
    world.ask(retire());
    let late = world.decide_under(&traffic(&[(V2, 100)], false), fence);
    assert!(matches!(late, Err(Rejection::Fenced { .. })), "{late:?}");
}

#[test]
fn a_rollout_that_was_asked_for_before_a_rollback_does_not_start_after_it() {
    let mut world = World::serving_one_warm_one();
    world.serve(&[(V2, 100)]);
    world.ask(new_then_roll(V3));
    world.ask(rollback());
    world.bring_up(V3);
    let stack = world.stack(V3);
    let answer =
        world.decide_outcome(&DeploymentOutcome::StartRequestedRollout(outcome::StartRequestedRollout { stack }));
    assert!(matches!(answer, Err(Rejection::Outdated(_))), "{answer:?}");
}

#[test]
fn a_retired_deployment_is_brought_back_to_what_served_last() {
    let mut world = given(Named::Retired);
    let decision = world.ask(rollback());
    assert_eq!(kinds(&decision), ["traffic.rolled_back", "traffic.weights_set", "hold.set"]);
    assert_eq!(world.weights(), [(V1.to_owned(), 100)].into());
    assert_eq!(world.deployment().traffic.retired_at, None);
}

mod by_the_judge {
    use super::*;

    #[test]
    fn the_verdict_the_rollback_and_the_end_of_the_rollout_are_one_commit() {
        let mut world = given(Named::AtStep);
        let decision = world.send_back();
        assert_eq!(
            kinds(&decision),
            [
                "judgement.counted",
                "judgement.judged",
                "traffic.rolled_back",
                "traffic.weights_set",
                "rollout.came_back"
            ]
        );
        assert_eq!(world.weights(), [(V1.to_owned(), 100)].into());
        assert_eq!(world.deployment().traffic.fence, Fence(1));
    }

    #[test]
    fn it_needs_a_verdict_of_worse_or_a_canary_that_is_unfit() {
        let world = given(Named::AtStep);
        let rollout = world.deployment().rollout.as_ref().unwrap().id;
        let (good, said_of_it) = world.look((900, 0), (100, 0));
        let (bad, mut forged) = world.look((900, 0), (100, 50));
        let elsewhere = forged.clone();
        forged.as_mut().unwrap().canary.errors = 40;
        for (counted, judged) in [
            (bad.clone(), None),
            (good.clone(), said_of_it),
            (bad, forged),
            (good, elsewhere.clone()),
            (None, elsewhere),
        ] {
            let reason = "?".to_owned();
            let answer = world.decide_outcome(&DeploymentOutcome::SendBack(outcome::SendBack {
                rollout,
                reason,
                counted,
                judged,
                probed: Probed::default(),
            }));
            assert!(matches!(answer, Err(Rejection::Outdated(_))), "{answer:?}");
        }
    }

    #[test]
    fn a_paused_rollout_comes_back_too() {
        let mut world = given(Named::Paused);
        world.send_back();
        assert_eq!(world.weights(), [(V1.to_owned(), 100)].into());
    }
}

#[test]
fn an_abort_after_a_rollback_says_that_there_is_nothing_to_abort_and_advises_no_other_rollback() {
    for (named, told) in [
        (Named::RolledBack, "there is nothing to abort: all traffic went back to 1.0.0 by a rollback at "),
        (Named::CameBack, "there is nothing to abort: all traffic went back to 1.0.0 by a rollback at "),
        (
            Named::Awaiting,
            "there is nothing to abort: it is being rolled back, and 1.0.0~2 gets all traffic once it is ready",
        ),
    ] {
        let said = given(named).decide(&abort()).unwrap_err().to_string();
        assert!(said.contains(told) && !said.contains("ionledger rollback"), "{named:?}: {said}");
    }
}
