//! Holds: what sets one, whom it holds, and what ends it.

use schemas::command::{self, Command};
use schemas::hold::{self, Cause};
use schemas::outcome::{self, DeploymentOutcome};
use schemas::policy::HoldAfter;
use schemas::{ActorKind, Event};

use super::super::hold::Holds;
use super::super::waiting::{ObstacleKind, obstacles};
use super::named::{Named, given};
use crate::decide;
use crate::decision::{By, Decision, Rejection};
use crate::kit::*;

const V4: &str = "4.0.0";

fn causes(world: &World) -> Vec<Cause> {
    world.deployment().holds.keys().copied().collect()
}

/// What the rollout that waits waits for.
fn waits_for(world: &World) -> Vec<ObstacleKind> {
    obstacles(world.deployment(), &id()).into_iter().map(|obstacle| obstacle.kind).collect()
}

/// A pipeline asks for a rollout, and its stack is brought up.
fn shipped(world: &mut World, text: &str) {
    world.ask_by_pipeline(&new_then_roll(text));
    world.bring_up(text);
}

fn with_policy(named: Named, hold_after: HoldAfter) -> World {
    let mut world = given(named);
    let mut definition = definition();
    definition.policy.rollout.hold_after = hold_after;
    world.ask(apply(definition));
    world
}

fn fixing(text: &str, fixed: &str) -> Command {
    let Command::Release(command::Release { service, version, artifact, args, env, source, .. }) = release(text) else {
        unreachable!()
    };
    Command::Release(command::Release {
        service,
        version,
        artifact,
        args,
        env,
        source,
        fixes: Some(fixed.parse().unwrap()),
    })
}

#[test]
fn after_a_persons_rollback_and_abort_a_pipelines_release_is_prepared_and_not_rolled_out() {
    for (named, back) in [(Named::AtStep, rollback()), (Named::AtStep, abort()), (Named::Completed, rollback())] {
        let mut world = given(named);
        let decision = world.ask(back.clone());
        assert_eq!(kinds(&decision).last(), Some(&"hold.set"), "{back:?}");
        shipped(&mut world, V3);
        assert_eq!(waits_for(&world), [ObstacleKind::Hold], "its stack is ready, and the hold alone is in its way");
        let stack = world.stack(V3);
        let begins = DeploymentOutcome::StartRequestedRollout(outcome::StartRequestedRollout { stack });
        let said = world.decide_outcome(&begins).unwrap_err().to_string();
        assert!(said.contains("the deployment is on hold since") && said.contains("1.1.0 was"), "{said}");
        world.ask(lift_hold());
        assert_eq!(waits_for(&world), []);
        assert_eq!(kinds(&world.report(begins)), ["rollout.started"]);
    }
}

#[test]
fn what_waited_before_a_rollback_waits_on_whoever_asked_for_it() {
    for kind in [ActorKind::Person, ActorKind::Pipeline] {
        let mut world = given(Named::AtStep);
        let decision = world.decide_by(kind, &new_then_roll(V3)).unwrap();
        world.commit(decision);
        world.bring_up(V3);
        assert_eq!(waits_for(&world), [ObstacleKind::Rollout]);
        let back = world.ask(rollback());
        assert!(!kinds(&back).contains(&"rollout.request_dropped"), "{back:?}");
        assert_eq!(waits_for(&world), [ObstacleKind::Hold], "{kind}");
    }
}

#[test]
fn where_a_rollback_sets_no_hold_it_drops_what_waited() {
    let mut world = with_policy(Named::AtStep, HoldAfter::Never);
    shipped(&mut world, V3);
    assert_eq!(kinds(&world.ask(rollback())).last(), Some(&"rollout.request_dropped"));
    assert_eq!((causes(&world), world.deployment().waiting.is_none()), (vec![], true));
}

#[test]
fn the_judges_rollback_holds_only_where_the_policy_says_any() {
    for (hold_after, held) in [(HoldAfter::Rollback, false), (HoldAfter::Never, false), (HoldAfter::Any, true)] {
        let mut world = with_policy(Named::AtStep, hold_after);
        assert_eq!(kinds(&world.send_back()).contains(&"hold.set"), held, "{hold_after:?}");
        let mut by_pipeline = with_policy(Named::AtStep, hold_after);
        by_pipeline.ask_by_pipeline(&rollback());
        assert_eq!(!causes(&by_pipeline).is_empty(), held, "{hold_after:?}");
    }
}

#[test]
fn a_person_who_rolls_back_what_the_judge_has_rolled_back_wants_a_hold_once() {
    let mut world = given(Named::CameBack);
    assert_eq!(kinds(&world.ask(rollback())), ["hold.set"]);
    assert_eq!(world.deployment().holds[&Cause::Rollback].versions, [version(V2)]);
    assert_eq!(world.decide(&rollback()).unwrap().events, []);
    let never = with_policy(Named::CameBack, HoldAfter::Never);
    assert_eq!(never.decide(&rollback()).unwrap().events, []);
}

#[test]
fn a_person_is_never_held_and_a_roll_lifts_every_hold() {
    let on_hold = given(Named::OnHold);
    assert_eq!(kinds(&on_hold.decide(&traffic(&[(V2, 100)], false)).unwrap()), ["traffic.weights_set"]);
    let mut world = on_hold.clone();
    world.ask(new_then_roll(V3));
    world.bring_up(V3);
    assert_eq!((waits_for(&world), causes(&world)), (vec![], vec![Cause::Asked]));
    let mut world = on_hold.clone();
    assert_eq!(kinds(&world.ask(roll(V1, V2))), ["hold.lifted", "rollout.started"]);
    assert_eq!(causes(&world), []);
    world.ask(hold(None));
    assert!(kinds(&world.decide(&promote()).unwrap()).contains(&"rollout.promoted"));
}

#[test]
fn a_pipeline_gives_nothing_traffic_while_on_hold_and_may_go_back() {
    let world = given(Named::OnHold);
    for command in [roll(V1, V2), traffic(&[(V1, 90), (V2, 10)], false), traffic(&[(V2, 100)], false)] {
        let said = world.decide_by(ActorKind::Pipeline, &command).unwrap_err();
        assert!(matches!(said, Rejection::OnHold { .. }), "{said}");
        assert!(said.to_string().contains("`ionledger hold api --lift`"), "{said}");
    }
    let mut rolling = given(Named::AtStep);
    rolling.ask(hold(None));
    for command in [rollback(), abort(), traffic(&[(V1, 100)], false)] {
        assert!(rolling.decide_by(ActorKind::Pipeline, &command).is_ok(), "{command:?}");
    }
}

#[test]
fn a_hold_needs_a_reason_and_a_time_that_can_be() {
    let world = given(Named::Serving);
    for reason in [None, Some("  ")] {
        let by = By { reason, ..By::PERSON };
        let said = decide::decide(&world.state, &hold(None), by, None, &schemas::Probed::default(), world.now())
            .unwrap_err()
            .to_string();
        assert!(said.contains("`--reason WHY`"), "{said}");
    }
    assert!(matches!(world.decide(&hold(Some(0))), Err(Rejection::Invalid(_))));
    assert!(matches!(world.decide(&hold(Some(u64::MAX))), Err(Rejection::Invalid(_))));
}

#[test]
fn a_hold_with_an_end_ends_then_and_not_before() {
    let mut world = given(Named::Serving);
    world.ask(hold(Some(7_200_000)));
    let over = DeploymentOutcome::EndHold(outcome::EndHold { cause: Cause::Asked });
    let until = world.deployment().holds[&Cause::Asked].until.unwrap();
    world.pass_ms(u64::try_from(until.duration_since(world.time).as_millis()).unwrap() - 1);
    assert!(matches!(world.decide_outcome(&over), Err(Rejection::Outdated(_))));
    world.pass_ms(1);
    assert_eq!(kinds(&world.report(over)), ["hold.lifted"]);
    assert_eq!(causes(&world), []);
}

#[test]
fn a_fix_ends_the_hold_of_the_rollback_of_that_version_alone() {
    let fixes = |named: Named, fixed: &str| {
        let mut world = given(named);
        world.ask(rollback());
        world.ask(fixing(V4, fixed));
        world.ask_by_pipeline(&new_then_roll(V4));
        world.bring_up(V4);
        world
    };
    let fixed = fixes(Named::Completed, V2);
    assert_eq!((causes(&fixed), waits_for(&fixed)), (vec![], vec![]));
    let other = fixes(Named::Completed, V1);
    assert_eq!((causes(&other), waits_for(&other)), (vec![Cause::Rollback], vec![ObstacleKind::Hold]));

    let mut asked = given(Named::Completed);
    asked.ask(rollback());
    asked.ask(hold(None));
    asked.ask(fixing(V4, V2));
    shipped(&mut asked, V4);
    assert_eq!(causes(&asked), [Cause::Asked], "a person's hold stays");
    assert_eq!(waits_for(&asked), [ObstacleKind::Hold]);
    assert!(matches!(asked.decide_by(ActorKind::Pipeline, &roll(V1, V4)), Err(Rejection::OnHold { .. })));

    let mut rolled = given(Named::Completed);
    rolled.ask(rollback());
    rolled.ask(fixing(V4, V2));
    rolled.deploy(V4);
    assert_eq!(kinds(&rolled.ask_by_pipeline(&roll(V1, V4))), ["hold.lifted", "rollout.started"]);
}

#[test]
fn a_release_fixes_what_is_recorded_and_not_itself() {
    let world = given(Named::Serving);
    let said = world.decide(&fixing(V4, "9.9.9")).unwrap_err().to_string();
    assert!(said.starts_with("release api 9.9.9 is unknown"), "{said}");
    assert!(matches!(world.decide(&fixing(V4, V4)), Err(Rejection::Invalid(_))));
}

/// A rollout from the first to the second version that has nearly all traffic and bakes.
fn baking() -> World {
    let mut definition = definition();
    definition.policy.rollout.bake_ms = 3_600_000;
    definition.policy.rollout.steps = [10, 100].map(percent).to_vec();
    let mut world = given(Named::Warm);
    world.ask(apply(definition));
    world.ask(roll(V1, V2));
    world.begin();
    world.report(world.next_step((0, 0), (0, 0)));
    world.applied();
    world.pass_ms(1_000_000);
    world.report(world.next_step((900, 0), (100, 0)));
    world.applied();
    assert!(world.deployment().rollout.as_ref().is_some_and(|rollout| rollout.is_baking()));
    world
}

#[test]
fn a_release_that_fixes_the_baking_version_takes_its_place_and_no_other_does() {
    let mut world = baking();
    world.ask(fixing(V4, V2));
    shipped(&mut world, V4);
    assert_eq!(waits_for(&world), []);
    let stack = world.stack(V4);
    let begun = world.report(DeploymentOutcome::StartRequestedRollout(outcome::StartRequestedRollout { stack }));
    assert_eq!(kinds(&begun), ["rollout.superseded", "traffic.weights_set", "rollout.started"]);
    let rollout = world.deployment().rollout.as_ref().unwrap();
    assert_eq!((rollout.baseline, rollout.canary), (world.stack(V1), stack));
    assert_eq!(world.weights(), [(V1.to_owned(), 100)].into());

    let mut rolled = baking();
    rolled.ask(fixing(V4, V2));
    rolled.deploy(V4);
    let by = |world: &World| world.decide_by(ActorKind::Pipeline, &roll(V1, V4));
    assert_eq!(
        kinds(&by(&rolled).unwrap()),
        ["rollout.superseded", "traffic.weights_set", "rollout.started"],
        "without --supersede"
    );

    let mut other = baking();
    other.ask(fixing(V4, V1));
    shipped(&mut other, V4);
    assert_eq!(waits_for(&other), [ObstacleKind::Rollout], "it fixes another version");
    assert!(matches!(by(&other), Err(Rejection::RolloutRunning { .. })));
    let mut early = given(Named::AtStep);
    early.ask(fixing(V4, V2));
    shipped(&mut early, V4);
    assert_eq!(waits_for(&early), [ObstacleKind::Rollout], "it does not bake yet");
}

#[test]
fn retiring_ends_the_hold_of_a_rollback_on_record_and_older_histories_have_none() {
    let mut world = given(Named::AtStep);
    world.ask(rollback());
    let retired = world.ask(retire());
    assert_eq!(kinds(&retired), ["hold.lifted", "traffic.retired"]);
    assert_eq!(retired.notes, [""; 0], "no pipeline's release is rolled here");
    assert_eq!(causes(&world), []);
    let set_no_hold = given(Named::AtStep);
    let mut events = set_no_hold.decide(&rollback()).unwrap();
    events.events.retain(|(_, event)| !matches!(event, Event::Hold(_)));
    let mut old = set_no_hold.clone();
    old.commit(events);
    assert_eq!(causes(&old), [], "a rollback that was recorded without a hold sets none");
}

#[test]
fn retiring_says_that_a_pipelines_next_release_begins_anew() {
    let mut world = given(Named::Serving);
    let mut definition = definition();
    definition.policy.rollout.on_release = true;
    world.ask(apply(definition));
    let told = "the next release that a pipeline reports is deployed and gets all traffic at once; `ionledger hold api --reason \
                WHY` has it wait";
    assert_eq!(world.ask(retire()).notes, [told]);
}

#[test]
fn a_hold_that_a_person_asked_for_outlives_retiring() {
    let mut world = given(Named::Serving);
    world.ask(hold(None));
    let decision = world.ask(retire());
    assert_eq!(kinds(&decision), ["traffic.retired"]);
    assert!(decision.notes[0].contains("stays on hold since"), "{:?}", decision.notes);
    assert_eq!(causes(&world), [Cause::Asked]);
    let refused = world.decide_by(ActorKind::Pipeline, &traffic(&[(V1, 100)], false));
    assert!(matches!(refused, Err(Rejection::OnHold { .. })), "{refused:?}");
}

/// Before version 2 of the event it ended with the deployment.
#[test]
fn a_hold_ended_with_a_deployment_that_was_retired_before() {
    let mut world = given(Named::OnHold);
    let mut decision = world.decide(&retire()).unwrap();
    for (_, event) in &mut decision.events {
        if let Event::Traffic(schemas::traffic::Event::Retired(retired)) = event {
            retired.keeps_hold = false;
        }
    }
    world.commit(decision);
    assert_eq!(causes(&world), []);
}

#[test]
fn a_second_hold_takes_the_place_of_the_first_and_says_which_ones_it_found() {
    let mut world = given(Named::AtStep);
    world.ask(rollback());
    let before = world.deployment().holds.clone();
    let first = world.ask(hold(None));
    let beside = |before: &Holds, decision: &Decision| {
        let [Event::Hold(hold::Event::HoldSet(set))] = events_of(decision, "hold.set")[..] else {
            panic!("{decision:?}")
        };
        super::super::hold::beside(&id(), before, set, |_| Some("person:ana".to_owned()))
    };
    let [told] = &beside(&before, &first)[..] else { panic!("{first:?}") };
    assert!(
        told.starts_with("production/api is also on hold since ") && told.contains("1.1.0 was rolled back"),
        "{told}"
    );
    assert!(told.ends_with("set by person:ana; `ionledger hold api --lift=rollback` ends that one alone"), "{told}");

    let before = world.deployment().holds.clone();
    let second = world.ask(hold(Some(60_000)));
    let told = beside(&before, &second);
    assert!(told[0].starts_with("the new hold takes the place of the one before: on hold since "), "{told:?}");
    assert!(told[0].ends_with("(nobody is on call), set by person:ana"), "{told:?}");
    assert!(told[1].contains("is also on hold"), "{told:?}");
    assert_eq!(causes(&world), [Cause::Asked, Cause::Rollback]);
}

#[test]
fn one_hold_is_lifted_without_the_other() {
    let mut world = given(Named::AtStep);
    world.ask(rollback());
    world.ask(hold(None));
    let only = |cause| Command::LiftHold(command::LiftHold { deployment: id(), only: Some(cause) });
    let lifted = world.ask(only(Cause::Asked));
    assert_eq!((kinds(&lifted), causes(&world)), (vec!["hold.lifted"], vec![Cause::Rollback]));
    assert!(lifted.notes[0].starts_with("production/api is still on hold since "), "{lifted:?}");
    let nothing = world.decide(&only(Cause::Asked)).unwrap();
    assert_eq!((nothing.events.len(), nothing.notes[0].as_str()), (0, "production/api is not on hold by `hold`"));
    assert!(nothing.notes[1].contains("is still on hold"), "{nothing:?}");
    assert_eq!(kinds(&world.ask(lift_hold())), ["hold.lifted"]);
    assert_eq!(causes(&world), []);
}

#[test]
fn a_hold_that_lasts_no_time_names_the_argument_and_its_range() {
    for wrong in [0, super::super::hold::FOR_MS_MAX + 1] {
        let said = given(Named::Warm).decide(&hold(Some(wrong))).unwrap_err().to_string();
        assert!(said.starts_with("`--for` takes from 1 ms to 52 weeks"), "{said}");
    }
}

#[test]
fn while_a_rollout_bakes_beside_a_dead_baseline_the_named_command_is_taken() {
    let mut world = baking();
    world.ask(fixing(V4, V2));
    shipped(&mut world, V4);
    world.lose_node(V1);
    let next = |world: &World| obstacles(world.deployment(), &id())[0].next.clone();
    assert_eq!(next(&world).as_deref(), Some("ionledger promote api"));
    assert!(matches!(world.decide(&traffic(&[(V4, 100)], false)), Err(Rejection::RolloutRunning { .. })));
    assert!(kinds(&world.decide(&promote()).unwrap()).contains(&"rollout.promoted"));

    world.lose_node(V2);
    assert_eq!(next(&world), Some(format!("ionledger traffic api {V4} 100 --supersede")));
    assert!(world.decide(&traffic(&[(V4, 100)], true)).is_ok());
}
