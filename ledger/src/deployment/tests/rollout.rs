//! Rollouts: what they begin with, what lets them go on, and what ends them.

use schemas::command::{self, Command, PlanAsked};
use schemas::judgement::{Counted, Judged};
use schemas::outcome::{self, DeploymentOutcome};
use schemas::rollout::HoldKind;
use schemas::{Event, Probed, Weight, rollout};

use super::super::rollout::Phase;
use super::named::{Named, given};
use crate::decision::{Decision, Rejection};
use crate::kit::*;

fn outdated(answer: &Result<Decision, Rejection>) -> &str {
    match answer {
        Err(Rejection::Outdated(why)) => why,
        other => panic!("not outdated: {other:?}"),
    }
}

fn phase(world: &World) -> &Phase {
    &world.deployment().rollout.as_ref().unwrap().phase
}

#[test]
fn it_goes_from_step_to_step_on_time_and_on_requests_that_are_not_worse() {
    let mut world = given(Named::Started);
    let first = world.report(world.next_step((0, 0), (0, 0)));
    assert_eq!(kinds(&first), ["rollout.step_taken", "traffic.weights_set"], "the first step is due at once");
    assert_eq!(world.weights(), [(V1.to_owned(), 90), (V2.to_owned(), 10)].into());
    assert_eq!(
        kinds(&world.step()),
        ["judgement.counted", "judgement.judged", "rollout.step_taken", "traffic.weights_set"]
    );
    assert_eq!(world.weights(), [(V1.to_owned(), 50), (V2.to_owned(), 50)].into());
    let last = world.step();
    assert_eq!(kinds(&last), ["judgement.counted", "judgement.judged", "rollout.step_taken", "traffic.weights_set"]);
    assert_eq!(world.weights(), [(V2.to_owned(), 100)].into());
    assert_eq!(*phase(&world), Phase::Running, "the router has not confirmed it");
    assert_eq!(kinds(&world.confirm()), ["traffic.weights_applied", "rollout.completed"]);
    assert_eq!(*phase(&world), Phase::Completed);
}

/// All traffic is set to the canary, and the router has not confirmed it.
fn at_the_end() -> World {
    let mut world = given(Named::AtStep);
    world.step();
    world.step();
    world
}

#[test]
fn until_the_router_has_confirmed_the_last_step_the_canary_can_still_come_back() {
    let mut back = at_the_end();
    assert_eq!(kinds(&back.ask(rollback()))[2], "rollout.came_back");
    assert_eq!(back.weights(), [(V1.to_owned(), 100)].into());

    let mut ill = at_the_end();
    ill.fall_ill(V2);
    let (rollout, reason) = (ill.deployment().rollout.as_ref().unwrap().id, "it is unhealthy".to_owned());
    let decision = ill.report(DeploymentOutcome::SendBack(outcome::SendBack {
        rollout,
        reason,
        counted: None,
        judged: None,
        probed: Probed::default(),
    }));
    assert_eq!(kinds(&decision), ["traffic.rolled_back", "traffic.weights_set", "rollout.came_back"]);

    let mut aborted = at_the_end();
    aborted.ask(abort());
    assert_eq!(kinds(&aborted.confirm()), ["traffic.weights_applied"], "what was confirmed is the baseline");
}

#[test]
fn a_rollout_at_its_end_says_what_it_waits_for_and_is_complete_even_if_paused() {
    let mut world = at_the_end();
    let rollout = world.deployment().rollout.as_ref().unwrap().id;
    let promoted = world.ask(promote());
    assert_eq!(
        promoted.notes,
        ["its last step has been taken; the rollout is complete once the router has confirmed it"]
    );
    let (kind, reason) = (HoldKind::Router, "the router has not confirmed the weights".to_owned());
    let held =
        world.report(DeploymentOutcome::Hold(outcome::Hold { rollout, kind, reason, counted: None, judged: None }));
    assert_eq!(kinds(&held)[0], "rollout.held");
    world.ask(pause());
    assert_eq!(kinds(&world.confirm()), ["traffic.weights_applied", "rollout.completed"]);
}

/// Before this was recorded with the router's confirmation, it was recorded with the last step.
#[test]
fn a_history_whose_rollout_completed_with_its_last_step_is_complete_and_stays_so() {
    let mut world = given(Named::AtStep);
    world.step();
    world.pass_ms(500_000);
    let mut last = world.decide_outcome(&world.next_step((900, 0), (100, 0))).unwrap();
    let rollout = world.deployment().rollout.as_ref().unwrap().id;
    last.events.push((schemas::Stream::Deployment(id()), rollout::Completed { rollout }.into()));
    world.commit(last);
    assert_eq!(*phase(&world), Phase::Completed);
    assert_eq!(kinds(&world.confirm()), ["traffic.weights_applied"]);
    assert_eq!(*phase(&world), Phase::Completed);
}

#[test]
fn time_alone_never_promotes() {
    let mut world = given(Named::AtStep);
    world.pass_ms(52 * 7 * 24 * 3_600_000);
    for (baseline, canary, why) in [
        ((0, 0), (0, 0), "the canary got no requests, 50 are needed"),
        ((1_000_000, 0), (0, 0), "the canary got no requests, 50 are needed"),
        ((441, 0), (49, 0), "the canary needs 50 requests in all"),
    ] {
        let answer = world.decide_outcome(&world.next_step(baseline, canary));
        assert!(outdated(&answer).contains(why), "{answer:?}");
    }
    assert!(world.decide_outcome(&world.next_step((0, 0), (50, 0))).is_ok());
}

#[test]
fn requests_alone_never_promote_before_a_step_is_due() {
    let mut world = given(Named::AtStep);
    world.pass_ms(499_000);
    let answer = world.decide_outcome(&world.next_step((1_000, 0), (1_000, 0)));
    assert!(outdated(&answer).contains("its next step is not due"), "{answer:?}");
}

#[test]
fn a_step_needs_the_judges_own_verdict_on_what_was_counted() {
    let mut world = given(Named::AtStep);
    world.pass_ms(600_000);
    let take = |change: &dyn Fn(&mut Counted, &mut Option<Judged>)| {
        let DeploymentOutcome::TakeStep(outcome::TakeStep { rollout, step, counted: Some(mut counted), mut judged }) =
            world.next_step((900, 0), (100, 0))
        else {
            unreachable!()
        };
        change(&mut counted, &mut judged);
        world.decide_outcome(&DeploymentOutcome::TakeStep(outcome::TakeStep {
            rollout,
            step,
            counted: Some(counted),
            judged,
        }))
    };
    assert!(take(&|_, _| ()).is_ok());
    let none = take(&|_, judged| *judged = None);
    assert!(outdated(&none).contains("the judge said nothing"), "{none:?}");
    let other_counts = take(&|counted, _| counted.ticks[0].canary[0].counts[0].hits += 1);
    assert!(outdated(&other_counts).contains("not what the judge says"), "{other_counts:?}");
    let forged = take(&|counted, judged| {
        counted.ticks[0].canary[0].counts[0].hits = 50;
        judged.as_mut().unwrap().canary.errors = 50;
    });
    assert!(outdated(&forged).contains("not what the judge says"), "{forged:?}");
    let older = take(&|_, judged| judged.as_mut().unwrap().step = 1);
    assert!(outdated(&older).contains("not what the judge says"), "{older:?}");
    let twice = take(&|counted, _| counted.first = 1);
    assert!(outdated(&twice).contains("does not follow what is recorded"), "{twice:?}");
}

#[test]
fn a_worse_canary_takes_no_step_whatever_the_time() {
    let mut world = given(Named::AtStep);
    world.pass_ms(600_000);
    let answer = world.decide_outcome(&world.next_step((900, 0), (100, 50)));
    assert!(outdated(&answer).contains("the canary is judged worse"), "{answer:?}");
}

#[test]
fn an_unhealthy_canary_takes_no_step() {
    let mut world = given(Named::CanaryIll);
    world.pass_ms(600_000);
    let answer = world.decide_outcome(&world.next_step((900, 0), (100, 0)));
    assert!(outdated(&answer).contains("its canary is not ready"), "{answer:?}");
}

#[test]
fn no_step_is_taken_twice_or_left_out_and_none_while_paused() {
    let mut world = given(Named::AtStep);
    world.pass_ms(2_000_000);
    let DeploymentOutcome::TakeStep(outcome::TakeStep { rollout, step, counted, judged }) =
        world.next_step((900, 0), (100, 0))
    else {
        unreachable!()
    };
    for wrong in [step - 1, step + 1] {
        let (counted, judged) = (counted.clone(), judged.clone());
        let answer = world.decide_outcome(&DeploymentOutcome::TakeStep(outcome::TakeStep {
            rollout,
            step: wrong,
            counted,
            judged,
        }));
        assert!(outdated(&answer).contains("not its next step"), "{answer:?}");
    }
    world.ask(pause());
    let answer =
        world.decide_outcome(&DeploymentOutcome::TakeStep(outcome::TakeStep { rollout, step, counted, judged }));
    assert!(outdated(&answer).contains("is not running"), "{answer:?}");
}

#[test]
fn the_plan_moves_by_the_time_it_was_paused() {
    let mut world = given(Named::AtStep);
    let due = world.deployment().rollout.as_ref().unwrap().due_at(1);
    world.ask(pause());
    world.pass_ms(100_000);
    world.ask(resume());
    let moved = world.deployment().rollout.as_ref().unwrap().due_at(1);
    assert_eq!(moved.duration_since(due).as_millis(), 100_001, "a commit takes a millisecond here");
}

#[test]
fn the_policy_is_frozen_when_it_starts() {
    let mut world = given(Named::AtStep);
    let mut strict = definition();
    strict.policy.judgement.requests_min = 1_000_000;
    world.ask(apply(strict.clone()));
    world.step();
    assert_eq!(world.deployment().rollout.as_ref().unwrap().policy, definition().policy);
    world.ask(abort());
    let decision = world.ask(roll(V1, V2));
    let [Event::Rollout(rollout::Event::Started(started))] = events_of(&decision, "rollout.started")[..] else {
        panic!("{decision:?}")
    };
    assert_eq!(started.policy, strict.policy);
}

#[test]
fn a_plan_that_ends_before_the_soak_is_refused() {
    let mut world = given(Named::AtStep);
    world.ask(abort());
    let mut patient = definition();
    patient.policy.judgement.soak_ms = 600_000;
    world.ask(apply(patient));
    let plan = |steps: &[u16], duration_ms| PlanAsked {
        steps: Some(steps.iter().map(|step| percent(*step)).collect()),
        duration_ms: Some(duration_ms),
    };
    let decide = |plan| {
        let Command::Roll(command::Roll { deployment, from, to, supersede, .. }) = roll(V1, V2) else { unreachable!() };
        world.decide(&Command::Roll(command::Roll { deployment, from, to, plan, supersede, again: false }))
    };
    for (steps, duration_ms, all_after) in [(&[10, 100][..], 599_999, "9m 59s 999ms"), (&[100], 600_000, "0s")] {
        let said = decide(plan(steps, duration_ms)).unwrap_err().to_string();
        assert!(said.contains("the policy's soak is 10m, and this plan gives all traffic after"), "{said}");
        assert!(said.contains(all_after), "{said}");
    }
    assert!(decide(plan(&[10, 100], 600_000)).is_ok());
}

#[test]
fn its_baseline_must_hold_all_traffic() {
    let mut world = given(Named::Split);
    world.deploy(V3);
    assert_eq!(
        world.decide(&roll(V1, V3)).unwrap_err().to_string(),
        "1.0.0 has 90 % of the traffic of production/api, not all of it; give it all with `ionledger traffic api 1.0.0 100`"
    );
}

#[test]
fn its_baseline_must_have_a_node_that_passes_its_check() {
    for named in [Named::Sick, Named::Unhealthy] {
        let mut world = given(named);
        let said = world.decide(&roll(V1, V2)).unwrap_err().to_string();
        assert!(said.starts_with("none of the nodes of 1.0.0 passes its check (the last one: it exited)"), "{said}");
        assert!(said.ends_with("`ionledger traffic api VERSION 100`"), "{said}");
        world.ask(traffic(&[(V2, 100)], false));
    }
    let mut started = given(Named::AtStep);
    started.deploy(V3);
    started.lose_node(V1);
    assert!(matches!(started.decide(&roll_instead(V1, V3)), Err(Rejection::BaselineFails { .. })));
    assert!(given(Named::Mended).decide(&roll(V1, V2)).is_ok(), "a node is back");
}

#[test]
fn a_new_rollout_in_place_of_another_begins_with_all_traffic_on_its_baseline() {
    let mut world = given(Named::AtStep);
    world.deploy(V3);
    let decision = world.ask(roll_instead(V1, V3));
    assert_eq!(kinds(&decision), ["rollout.superseded", "traffic.weights_set", "rollout.started"]);
    assert_eq!(world.weights(), [(V1.to_owned(), 100)].into());
}

/// With the canary as the next baseline, the first step would give it nearly all traffic, and nobody had judged it.
#[test]
fn a_canary_is_no_baseline_before_it_was_promoted() {
    let mut world = given(Named::AtStep);
    world.deploy(V3);
    let answer = world.decide(&roll_instead(V2, V3));
    assert!(matches!(&answer, Err(Rejection::Invalid(why)) if why.starts_with("1.1.0 has 10 %")), "{answer:?}");
}

#[test]
fn a_plan_may_come_from_the_command_and_must_rise_to_all_traffic() {
    let world = given(Named::Warm);
    let with = |steps: &[u16], duration_ms| {
        let plan = PlanAsked { steps: Some(steps.iter().copied().map(percent).collect()), duration_ms };
        let (from, to) = (stack_name(V1), stack_name(V2));
        world.decide(&Command::Roll(command::Roll { deployment: id(), from, to, plan, supersede: false, again: false }))
    };
    for steps in [&[][..], &[0, 100], &[50, 10, 100], &[50, 50, 100], &[10, 50]] {
        assert!(matches!(with(steps, None), Err(Rejection::Invalid(_))), "{steps:?}");
    }
    assert!(matches!(with(&[100], Some(u64::MAX)), Err(Rejection::Invalid(_))));
    let at_once = with(&[100], Some(0)).unwrap();
    assert_eq!(at_once.notes, ["the plan's only step is 100 %: 1.1.0 gets all traffic at once and is not judged"]);
    assert!(matches!(world.decide(&roll(V1, V1)), Err(Rejection::Invalid(_))));
}

#[test]
fn a_promotion_is_recorded_as_over_the_judgement() {
    let mut world = given(Named::Held);
    let decision = world.ask(promote());
    let [Event::Rollout(rollout::Event::Promoted(promoted))] = events_of(&decision, "rollout.promoted")[..] else {
        panic!("{decision:?}")
    };
    assert_eq!(promoted.reason, "over the judgement");
    assert_eq!(world.weights(), [(V2.to_owned(), 100)].into());
}

#[test]
fn the_reason_that_somebody_gives_is_kept_with_what_it_is_the_reason_of() {
    const WHY: &str = "the queue grows";
    let ended = |command: Command| {
        let mut world = given(Named::AtStep);
        world.ask_because(WHY, &command);
        let rollout = world.deployment().rollout.clone().unwrap();
        (rollout.ended_because.unwrap_or_default(), world)
    };
    let mut paused = given(Named::AtStep);
    paused.ask_because(WHY, &pause());
    assert!(matches!(phase(&paused), Phase::Paused { reason, .. } if reason == WHY), "{:?}", phase(&paused));
    let again = paused.ask_because("another", &pause());
    assert!(
        again.notes[0].contains(&format!("paused already, since 2026-11-01T12:00:00Z ({WHY}); the reason")),
        "{again:?}"
    );
    assert!(matches!(phase(&paused), Phase::Paused { reason, .. } if reason == WHY), "{:?}", phase(&paused));
    assert_eq!(ended(promote()).0, WHY);
    assert_eq!(ended(traffic(&[(V1, 100)], false)).0, format!("traffic was set to all on the baseline: {WHY}"));
    let (superseded, _) = ended(traffic(&[(V1, 50), (V2, 50)], true));
    assert!(superseded.ends_with(&format!("end the rollout: {WHY}")), "{superseded}");

    let (aborted, world) = ended(abort());
    let rejected = |world: &World| world.deployment().traffic.rejected.iter().map(|one| one.told()).collect::<String>();
    assert_eq!(aborted, WHY);
    assert!(rejected(&world).ends_with(&format!("({WHY})")), "{}", rejected(&world));

    let (_, world) = ended(rollback());
    assert!(matches!(phase(&world), Phase::CameBack { reason } if reason == WHY), "{:?}", phase(&world));
    assert!(rejected(&world).ends_with(&format!("({WHY})")), "{}", rejected(&world));

    let (aborted, world) = ended(retire());
    assert_eq!(aborted, format!("the deployment was retired: {WHY}"));
    assert_eq!(world.deployment().traffic.retired_because.as_deref(), Some(WHY));

    let mut world = given(Named::AtStep);
    world.ask_because("  ", &abort());
    assert_eq!(world.deployment().rollout.clone().unwrap().ended_because.as_deref(), Some("asked for"));
}

#[test]
fn an_abort_to_an_unhealthy_baseline_is_carried_out_and_says_so() {
    let mut world = given(Named::AtStep);
    world.fall_ill(V1);
    let decision = world.ask(abort());
    assert_eq!(kinds(&decision), ["rollout.aborted", "traffic.weights_set", "hold.set"]);
    assert!(decision.notes[0].contains("it is unhealthy"), "{:?}", decision.notes);
}

#[test]
fn holding_for_the_same_reason_is_recorded_once_and_the_next_step_ends_it() {
    let mut world = given(Named::Held);
    let rollout = world.deployment().rollout.as_ref().unwrap().id;
    let (counted, judged) = world.look((900, 0), (9, 0));
    let (kind, reason) = (HoldKind::FewRequests, "too few requests, said otherwise".to_owned());
    let again = DeploymentOutcome::Hold(outcome::Hold { rollout, kind, reason, counted, judged });
    assert_eq!(world.report(again).events, []);
    world.report(world.next_step((900, 0), (100, 0)));
    assert_eq!(world.deployment().rollout.as_ref().unwrap().held, None);
}

#[test]
fn the_first_version_of_a_deployment_gets_all_traffic_when_its_rollout_was_asked_for() {
    let mut world = World::released();
    world.ask(new_then_roll(V1));
    world.bring_up(V1);
    let stack = world.stack(V1);
    let decision = world.report(DeploymentOutcome::StartRequestedRollout(outcome::StartRequestedRollout { stack }));
    assert_eq!(kinds(&decision), ["traffic.weights_set"]);
    assert_eq!(world.weights(), [(V1.to_owned(), 100)].into());
}

#[test]
fn a_rollout_asked_for_with_its_stack_starts_once_that_is_ready_and_nothing_is_in_the_way() {
    let mut world = given(Named::AtStep);
    world.ask(new_then_roll(V3));
    let start = DeploymentOutcome::StartRequestedRollout(outcome::StartRequestedRollout { stack: world.stack(V3) });
    assert!(outdated(&world.decide_outcome(&start)).contains("the rollout 1.0.0 -> 1.1.0 is under way"));
    world.bring_up(V3);
    assert!(outdated(&world.decide_outcome(&start)).contains("the rollout 1.0.0 -> 1.1.0 is under way"));
    world.step();
    world.step();
    assert!(outdated(&world.decide_outcome(&start)).contains("1.0.0 -> 1.1.0 is under way"), "it is not confirmed");
    world.confirm();
    let decision = world.report(start.clone());
    assert_eq!(kinds(&decision), ["rollout.started"]);
    assert_eq!(decision.requires, [schemas::Stream::Service(service())]);
    let live = world.deployment().rollout.as_ref().unwrap();
    assert_eq!((live.baseline, live.canary), (world.stack(V2), world.stack(V3)));
    assert!(outdated(&world.decide_outcome(&start)).contains("no rollout of it is asked for"));
    assert_eq!(live.weight(), Weight::ZERO);
}
