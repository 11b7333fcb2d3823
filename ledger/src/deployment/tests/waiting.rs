//! A rollout that was asked for with its stack: at most one waits, and none goes back to an older release by itself.

use schemas::outcome::{self, DeploymentOutcome};
use schemas::rollout;
use schemas::{ActorKind, Event, StackId, Version};

use super::named::{Named, given};
use crate::decision::Rejection;
use crate::deployment::waiting::{ObstacleKind, obstacles, pointless};
use crate::kit::*;

/// Recorded after all others, though its name says something else.
const LATEST: &str = "0.9.0";

/// The first version serves, the second is being rolled out at its first step, and there is a fourth release.
fn rolling() -> World {
    let mut world = given(Named::AtStep);
    world.ask(release(LATEST));
    world
}

fn waiting(world: &World) -> Option<Version> {
    let deployment = world.deployment();
    deployment.waiting.as_ref().map(|waiting| deployment.version_of(waiting.stack).unwrap().clone())
}

fn dropped(world: &World) -> Vec<(String, String)> {
    world.deployment().dropped.iter().map(|of| (of.version.to_string(), of.reason.clone())).collect()
}

fn start(stack: StackId) -> DeploymentOutcome {
    DeploymentOutcome::StartRequestedRollout(outcome::StartRequestedRollout { stack })
}

fn why_not(world: &World, stack: StackId) -> String {
    match world.decide_outcome(&start(stack)) {
        Err(Rejection::Outdated(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_two_that_are_asked_for_the_one_that_was_recorded_later_waits_and_the_other_is_dropped() {
    let mut world = rolling();
    world.ask(new_then_roll(V3));
    let decision = world.ask(new_then_roll(LATEST));
    assert_eq!(kinds(&decision), ["stack.requested", "rollout.request_dropped", "rollout.requested"]);
    assert_eq!(waiting(&world), Some(version(LATEST)));
    assert_eq!(dropped(&world), [(V3.to_owned(), format!("a rollout of {LATEST} was asked for after it"))]);
    world.bring_up(V3);
    assert!(why_not(&world, world.stack(V3)).contains("no rollout of it is asked for"));
}

#[test]
fn one_that_was_recorded_earlier_than_what_waits_is_refused() {
    let mut world = rolling();
    world.ask(new_then_roll(LATEST));
    let refused = world.decide(&new_then_roll(V3)).unwrap_err();
    assert!(
        matches!(&refused, Rejection::Older { newer, does: "waits to be rolled out", .. } if **newer == stack_name(LATEST))
    );
}

#[test]
fn nothing_is_asked_for_that_would_go_back_by_itself() {
    for (named, does) in
        [(Named::Promoted, "serves"), (Named::AtStep, "is being rolled out"), (Named::Completed, "serves")]
    {
        let mut world = given(named);
        world.ask(release(LATEST));
        world.ask(new(LATEST));
        world.bring_up(LATEST);
        if named == Named::AtStep {
            world.ask(abort());
        }
        let from = if named == Named::AtStep { V1 } else { V2 };
        world.ask(roll(from, LATEST));
        if does == "serves" {
            world.ask(promote());
        }
        let refused = world.decide(&new_then_roll(V3)).unwrap_err();
        assert!(
            matches!(&refused, Rejection::Older { newer, does: found, .. } if **newer == stack_name(LATEST) && *found == does)
        );
        assert!(world.decide(&new(V3)).is_ok(), "a stack alone goes nowhere");
    }
}

/// Three rollouts are asked for in the order of their releases, and somebody promotes: the last begins, and then nothing.
#[test]
fn after_the_newest_nothing_begins_by_itself() {
    let mut world = rolling();
    world.ask(new_then_roll(V3));
    world.bring_up(V3);
    world.ask(new_then_roll(LATEST));
    world.bring_up(LATEST);
    world.ask(promote());
    world.applied();
    world.report(start(world.stack(LATEST)));
    world.ask(promote());
    world.applied();
    assert_eq!(world.weights(), [(LATEST.to_owned(), 100)].into());
    assert_eq!(world.deployment().waiting, None);
    assert!(matches!(world.decide_outcome(&start(world.stack(V3))), Err(Rejection::Outdated(_))));
}

#[test]
fn starting_something_newer_drops_what_waits() {
    let mut world = given(Named::Serving);
    world.ask(release(LATEST));
    world.ask(new(LATEST));
    world.bring_up(LATEST);
    world.ask(new_then_roll(V2));
    let decision = world.ask(roll(V1, LATEST));
    assert_eq!(kinds(&decision), ["rollout.started", "rollout.request_dropped"]);
    assert_eq!(dropped(&world), [(V2.to_owned(), format!("{LATEST}, which was recorded later, is being rolled out"))]);
}

#[test]
fn weights_that_somebody_sets_by_hand_drop_what_waits_if_they_are_newer_or_its_own() {
    for (to, because) in
        [(LATEST, "0.9.0, which was recorded later, serves"), (V2, "its stack was given traffic without it")]
    {
        let mut world = given(Named::Serving);
        world.ask(release(LATEST));
        world.ask(new(LATEST));
        world.bring_up(LATEST);
        world.ask(new_then_roll(V2));
        world.bring_up(V2);
        let decision = world.ask(traffic(&[(V1, 90), (to, 10)], false));
        assert_eq!(kinds(&decision), ["traffic.weights_set", "rollout.request_dropped"], "{to}");
        assert_eq!(dropped(&world), [(V2.to_owned(), because.to_owned())]);
    }
}

#[test]
fn what_begins_is_not_dropped() {
    let mut world = given(Named::Waiting);
    let decision = world.report(start(world.stack(V2)));
    assert_eq!(kinds(&decision), ["rollout.started"]);
    assert_eq!((waiting(&world), dropped(&world)), (None, vec![]));
}

#[test]
fn a_stack_that_fails_and_a_deployment_that_is_retired_drop_what_waits() {
    let mut world = given(Named::Serving);
    world.ask(new_then_roll(V2));
    let stack = world.stack(V2);
    let failed = DeploymentOutcome::StackFailed(outcome::StackFailed { stack, reason: "it took too long".to_owned() });
    assert_eq!(kinds(&world.report(failed)), ["stack.failed", "rollout.request_dropped"]);
    assert_eq!(dropped(&world), [(V2.to_owned(), "its stack failed: it took too long".to_owned())]);
    let mut world = given(Named::Waiting);
    assert_eq!(kinds(&world.ask(retire())), ["traffic.retired", "rollout.request_dropped"]);
    assert_eq!(dropped(&world), [(V2.to_owned(), "the deployment was retired".to_owned())]);
}

#[test]
fn what_waits_goes_on_waiting_when_a_canary_came_back() {
    let mut world = rolling();
    world.ask(new_then_roll(V3));
    world.bring_up(V3);
    world.send_back();
    world.applied();
    assert_eq!(waiting(&world), Some(version(V3)));
    assert_eq!(kinds(&world.report(start(world.stack(V3)))), ["rollout.started"]);
}

/// As an older program wrote it: the stack's own request asks for the rollout, several may, and a rollback ends them.
mod from_an_older_program {
    use schemas::stack;

    use super::*;
    use crate::decision::Decision;

    fn asked(world: &mut World, text: &str) {
        let mut decision = world.decide(&new_then_roll(text)).unwrap();
        let plan = decision.events.iter().find_map(|(_, event)| match event {
            Event::Rollout(rollout::Event::Requested(requested)) => Some(requested.plan.clone()),
            _ => None,
        });
        decision.events.truncate(1);
        if let (_, Event::Stack(stack::Event::Requested(requested))) = &mut decision.events[0] {
            requested.then_roll = plan;
        }
        world.commit(decision);
        world.bring_up(text);
    }

    #[test]
    fn the_later_of_two_waits_and_what_serves_ends_it() {
        let mut world = rolling();
        asked(&mut world, V3);
        asked(&mut world, LATEST);
        assert_eq!(waiting(&world), Some(version(LATEST)));
        assert_eq!(dropped(&world), [(V3.to_owned(), "another one was asked for after it".to_owned())]);
    }

    #[test]
    fn one_that_would_go_back_is_dropped_by_the_shifter() {
        let mut world = given(Named::Serving);
        asked(&mut world, V2);
        world.ask(new(V3));
        world.bring_up(V3);
        // The older program let the newer begin and dropped nothing.
        let decision = world.decide(&traffic(&[(V3, 100)], false)).unwrap();
        let weights = decision.events.into_iter().filter(|(_, event)| event.kind() == "traffic.weights_set");
        world.commit(Decision { events: weights.collect(), ..Decision::default() });
        let (stack, service) = (world.stack(V2), world.state.service(&service()).unwrap());
        assert!(pointless(world.deployment(), service).is_some());
        assert!(why_not(&world, stack).contains("1.2.0, which was recorded later, serves"));
        let decision = world.report(DeploymentOutcome::DropRequest(outcome::DropRequest { stack }));
        assert_eq!(kinds(&decision), ["rollout.request_dropped"]);
        assert_eq!(waiting(&world), None);
    }

    #[test]
    fn a_rollback_ends_it() {
        let mut world = given(Named::Warm);
        world.serve(&[(V2, 100)]);
        asked(&mut world, V3);
        world.ask(rollback());
        assert_eq!(waiting(&world), None);
        assert_eq!(dropped(&world).len(), 1);
    }
}

#[test]
fn what_it_waits_for_is_said_with_the_command_that_helps() {
    let found = |world: &World| -> Vec<(ObstacleKind, Option<String>)> {
        obstacles(world.deployment(), &id()).into_iter().map(|obstacle| (obstacle.kind, obstacle.next)).collect()
    };
    let mut world = rolling();
    let decision = world.ask(new_then_roll(V3));
    assert_eq!(decision.notes, ["1.2.0 is prepared and its rollout waits: the rollout 1.0.0 -> 1.1.0 is under way"]);
    assert_eq!(found(&world), [(ObstacleKind::Rollout, None), (ObstacleKind::Stack, None)]);
    world.bring_up(V3);
    world.ask(traffic(&[(V1, 60), (V2, 40)], true));
    assert_eq!(found(&world), [(ObstacleKind::Shared, Some("ionledger traffic api 1.0.0 100".to_owned()))]);
    world.ask(traffic(&[(V1, 100)], false));
    assert_eq!(found(&world), []);
}

#[test]
fn onto_a_baseline_without_a_passing_node_it_waits_and_names_traffic() {
    let mut world = given(Named::Waiting);
    world.lose_node(V1);
    let stack = world.stack(V2);
    assert!(why_not(&world, stack).contains("1.0.0 serves and none of its nodes passes its check"));
    let next = obstacles(world.deployment(), &id())[0].next.clone();
    assert_eq!(next.as_deref(), Some("ionledger traffic api 1.1.0 100"));
    world.launch(V1);
    assert_eq!(kinds(&world.report(start(stack))), ["rollout.started"]);
}

#[test]
fn the_stack_of_a_dropped_request_goes_first_and_takes_no_other_ones_place() {
    let mut changed = definition();
    changed.policy.retention.warm_max = 1;
    let mut world = given(Named::Warm);
    world.ask(apply(changed));
    world.ask(release(LATEST));
    world.ask(new_then_roll(V3));
    world.bring_up(V3);
    world.ask(new_then_roll(LATEST));
    let (second, third) = (world.stack(V2), world.stack(V3));
    let collect =
        |stack| DeploymentOutcome::StartCollection(outcome::StartCollection { stack, reason: "unused".to_owned() });
    assert!(matches!(world.decide_outcome(&collect(second)), Err(Rejection::Outdated(_))), "it is kept warm");
    assert_eq!(kinds(&world.report(collect(third))), ["retention.collection_started"]);
}

#[test]
fn a_stack_that_waits_is_not_taken_down_however_long() {
    let mut world = given(Named::Waiting);
    world.lose_node(V1);
    world.pass_ms(30 * 24 * 3_600_000);
    let stack = world.stack(V2);
    let collect = DeploymentOutcome::StartCollection(outcome::StartCollection { stack, reason: "unused".to_owned() });
    let answer = world.decide_outcome(&collect);
    assert!(matches!(&answer, Err(Rejection::Outdated(why)) if why.contains("its rollout waits")), "{answer:?}");
}

#[test]
fn a_pipeline_does_not_go_back_even_if_it_says_so_and_a_person_may() {
    let mut world = given(Named::Warm);
    world.serve(&[(V2, 100)]);
    let back = roll(V2, V1);
    let refused = world.decide_by(ActorKind::Pipeline, &back).unwrap_err();
    assert!(matches!(refused, Rejection::Older { .. }), "{refused}");
    assert_eq!(kinds(&world.decide(&back).unwrap()), ["rollout.started"]);
}

#[test]
fn an_abort_drops_what_waits_where_no_rollout_is_under_way() {
    let mut world = given(Named::Completed);
    world.ask(new_then_roll(V3));
    let reason = "the config is wrong";
    let decision = world.ask_because(reason, &abort());
    assert_eq!(kinds(&decision), ["rollout.request_dropped"], "and it sets no hold");
    assert_eq!(dropped(&world), [(V3.to_owned(), format!("it was aborted before it began: {reason}"))]);
    assert_eq!(waiting(&world), None);
    assert!(world.deployment().holds.is_empty());
    world.bring_up(V3);
    assert!(why_not(&world, world.stack(V3)).contains("no rollout of it is asked for"));
    let again = world.ask(abort());
    let told = (again.events, again.notes.join(""));
    assert_eq!(told, (vec![], "the waiting rollout of 1.2.0 was dropped already".to_owned()), "twice is once");
}

#[test]
fn a_second_abort_sets_no_hold_for_what_the_judge_rolled_back_before() {
    let mut world = given(Named::CameBack);
    world.ask(new_then_roll(V3));
    assert_eq!(kinds(&world.ask(abort())), ["rollout.request_dropped"]);
    assert_eq!(kinds(&world.ask(abort())), Vec::<&str>::new());
    assert!(world.deployment().holds.is_empty());
}

#[test]
fn an_abort_of_a_rollout_says_what_becomes_of_the_one_that_waits_and_a_second_one_drops_it() {
    let mut world = rolling();
    world.ask(new_then_roll(V3));
    let decision = world.ask(abort());
    assert_eq!(kinds(&decision), ["rollout.aborted", "traffic.weights_set", "hold.set"]);
    let note = "the waiting rollout of 1.2.0 is prepared and does not begin until `ionledger hold api --lift`; to drop it, \
                run `ionledger abort api` again";
    assert_eq!(decision.notes.last().map(String::as_str), Some(note));
    assert_eq!(waiting(&world), Some(version(V3)));
    assert_eq!(kinds(&world.ask(abort())), ["rollout.request_dropped"]);
    assert_eq!(kinds(&world.ask(abort())), Vec::<&str>::new(), "and a third one changes nothing");
}

#[test]
fn once_its_canary_was_rolled_back_a_promotion_is_refused_and_names_what_helps() {
    let mut world = given(Named::Completed);
    assert_eq!(world.decide(&promote()).unwrap().events, vec![], "it has all traffic");
    world.ask(rollback());
    let refused = world.decide(&promote()).unwrap_err();
    assert!(matches!(refused, Rejection::NoRollout { .. }), "{refused}");
    let hint = refused.hint().unwrap();
    assert!(hint.contains("all traffic went back to 1.0.0 by a rollback at "), "{hint}");
    assert!(hint.contains("`ionledger roll api 1.0.0 1.1.0 --again --reason WHY` tries 1.1.0 once more"), "{hint}");
}

#[test]
fn once_its_canary_got_traffic_again_an_abort_of_an_aborted_rollout_is_refused() {
    let mut world = given(Named::Aborted);
    assert_eq!(world.decide(&abort()).unwrap().events, vec![]);
    world.ask(traffic(&[(V1, 50), (V2, 50)], false));
    assert!(matches!(world.decide(&abort()), Err(Rejection::NoRollout { .. })));
}
