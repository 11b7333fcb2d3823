//! Steps: how the judgement and the policy set the pace of a rollout.

mod bakes;

use schemas::command::{Command, PlanAsked};
use schemas::judgement::{Begun, Verdict};
use schemas::outcome::{self, DeploymentOutcome};
use schemas::policy::{Deadline, Prometheus};
use schemas::rollout::HoldKind;
use schemas::service::Definition;
use schemas::{Event, Timestamp, Weight, rollout};

use super::super::rollout::Phase;
use super::super::step::{Expected, Gate, expected, gate};
use super::named::{Named, given};
use crate::decision::Rejection;
use crate::kit::*;

/// A rollout of 5, 10, 50 and 100 % in 900 s at its first step.
fn at_step(change: impl FnOnce(&mut Definition)) -> World {
    let mut world = given(Named::Warm);
    let mut definition = definition();
    definition.policy.rollout.steps = [5, 10, 50, 100].map(percent).to_vec();
    definition.policy.rollout.duration_ms = 900_000;
    change(&mut definition);
    world.ask(apply(definition));
    world.ask(roll(V1, V2));
    world.begin();
    world.report(world.next_step((0, 0), (0, 0)));
    world.applied();
    world
}

/// Records requests of both versions without a failure.
fn good(world: &mut World, requests: u64) {
    let (Some(counted), _) = world.look((9 * requests, 0), (requests, 0)) else { panic!("nobody listens") };
    world.report(DeploymentOutcome::Count(outcome::Count { counted, judged: None }));
}

fn gate_of(world: &World) -> Gate {
    let rollout = world.deployment().rollout.as_ref().unwrap();
    gate(&world.deployment().traffic, rollout, world.state.judgements[&id()].of(rollout.id), world.time)
}

fn held(world: &World) -> String {
    match gate_of(world) {
        Gate::Held(hold) => hold.reason,
        other => panic!("not held: {other:?}"),
    }
}

fn weight(world: &World) -> Weight {
    world.deployment().rollout.as_ref().unwrap().weight()
}

/// Takes steps as they come until nothing happens within a minute.
fn go_on(world: &mut World) {
    while let Gate::Open | Gate::NotBefore(_) = gate_of(world) {
        if gate_of(world) == Gate::Open {
            world.report(world.next_step((90, 0), (10, 0)));
            world.applied();
        } else {
            world.pass_ms(1_000);
        }
        if world.deployment().rollout.as_ref().unwrap().phase == Phase::Completed {
            return;
        }
        good(world, 1);
    }
}

fn expected_of(world: &World) -> Expected {
    let deployment = world.deployment();
    let rollout = deployment.rollout.as_ref().unwrap();
    let analysis = world.state.judgements.get(&id()).and_then(|judgements| judgements.of(rollout.id));
    expected(&deployment.traffic, rollout, analysis, world.time).expect("a step is left")
}

fn seconds_since(from: Timestamp, to: Timestamp) -> i64 {
    to.duration_since(from).as_secs()
}

/// Takes the next step, which is open, and returns how long it took until the one after it is.
fn seconds_to_the_next(world: &mut World) -> i64 {
    assert_eq!(gate_of(world), Gate::Open);
    let from = world.time;
    world.report(world.next_step((90, 0), (10, 0)));
    world.applied();
    good(world, 10);
    while gate_of(world) != Gate::Open {
        world.pass_ms(1_000);
        assert!(seconds_since(from, world.time) < 100_000, "{:?}", gate_of(world));
    }
    seconds_since(from, world.time)
}

/// So strict that no number of requests in these tests accepts anything.
fn strict(definition: &mut Definition) {
    let errors = &mut definition.policy.judgement.metrics["errors"];
    (errors.tolerance_ppm, errors.ratio_percent) = (1, 100);
}

#[test]
fn a_canary_that_is_not_accepted_gets_a_fifth_at_most_before_the_plans_end() {
    let mut world = at_step(strict);
    let started = world.time;
    good(&mut world, 60);
    world.pass_ms(300_000);
    assert_eq!(gate_of(&world), Gate::Open, "10 % is within the ramp");
    world.report(world.next_step((90, 0), (10, 0)));
    good(&mut world, 60);
    world.pass_ms(300_000);
    assert_eq!(held(&world), "until the canary is accepted or the plan ends it gets at most 20 %");
    let (expected, began) = (expected_of(&world), world.deployment().rollout.as_ref().unwrap().started_at);
    assert_eq!(seconds_since(began, expected.next_at), 900, "at the plan's end the deadline lets it");
    assert_eq!(seconds_since(began, expected.end_at()), 1_200, "and the last step keeps its distance");
    world.pass_ms(300_000);
    assert_eq!(gate_of(&world), Gate::Open);
    go_on(&mut world);
    assert_eq!(weight(&world), Weight::FULL, "not worse at the end, with its requests");
    let took = seconds_since(started, world.time);
    assert!((1_200..=1_204).contains(&took), "{took} s");
    let judged = world.state.judgements[&id()].last.as_ref().unwrap();
    assert_eq!(judged.verdict, Verdict::Inconclusive);
}

#[test]
fn at_the_end_it_holds_if_the_policy_says_so_and_without_its_requests_always() {
    let mut holding = at_step(|definition| {
        strict(definition);
        definition.policy.judgement.deadline = Deadline::Hold;
    });
    good(&mut holding, 60);
    holding.pass_ms(1_000_000);
    assert_eq!(held(&holding), "the plan is at its end and the canary is not accepted; the policy says hold");

    let mut idle = at_step(strict);
    idle.pass_ms(100_000_000);
    assert_eq!(held(&idle), "the canary got no requests, 50 are needed");
    good(&mut idle, 49);
    assert_eq!(held(&idle), "the canary needs 50 requests in all");
}

#[test]
fn a_step_without_a_request_leads_to_no_other() {
    let mut world = at_step(|_| ());
    good(&mut world, 100);
    world.pass_ms(900_000);
    world.report(world.next_step((90, 0), (10, 0)));
    world.pass_ms(300_000);
    assert_eq!(held(&world), "the canary got no requests since its last step");
}

#[test]
fn an_accepted_canary_has_all_traffic_at_the_plans_end_and_not_before() {
    let mut world = at_step(|_| ());
    let started = world.time;
    good(&mut world, 200);
    go_on(&mut world);
    let took = world.time.duration_since(started).as_secs();
    assert!((899..=904).contains(&took), "{took} s");
}

#[test]
fn with_early_it_has_all_traffic_as_soon_as_it_is_accepted_and_soaked() {
    for (after_ms, soak_ms, seconds) in [(0, 0, 6..=9), (60_000, 0, 59..=61), (60_000, 60_000, 59..=61)] {
        let mut world = at_step(|definition| {
            definition.policy.rollout.early_after_ms = Some(after_ms);
            definition.policy.judgement.soak_ms = soak_ms;
        });
        let started = world.time;
        good(&mut world, 200);
        go_on(&mut world);
        let took = world.time.duration_since(started).as_secs();
        assert!(seconds.contains(&took), "{after_ms} ms, {soak_ms} ms: {took} s");
    }
}

#[test]
fn with_early_the_ramp_alone_gives_a_canary_of_which_nothing_is_known_a_fifth() {
    let mut world = at_step(|definition| {
        strict(definition);
        definition.policy.rollout.early_after_ms = Some(0);
    });
    good(&mut world, 60);
    world.pass_ms(3_000);
    assert_eq!(gate_of(&world), Gate::Open);
    world.report(world.next_step((90, 0), (10, 0)));
    world.applied();
    good(&mut world, 60);
    world.pass_ms(3_000);
    assert!(matches!(gate_of(&world), Gate::NotBefore(_)), "more than a fifth waits for the plan");
}

#[test]
fn more_than_the_ramps_risk_waits_until_the_worst_is_excluded() {
    let mut world = at_step(|definition| {
        strict(definition);
        definition.policy.judgement.bad_requests_max = 1;
    });
    good(&mut world, 50);
    world.pass_ms(700_000);
    assert_eq!(held(&world), "the canary may still be so bad that more would risk over 1 request");
}

#[test]
fn a_baseline_in_an_incident_freezes_the_ramp_and_convicts_nobody() {
    let mut world = at_step(|_| ());
    good(&mut world, 200);
    world.pass_ms(700_000);
    let (Some(counted), judged) = world.look((900, 450), (100, 50)) else { panic!("nobody listens") };
    assert_eq!(judged.unwrap().verdict, Verdict::NotWorse);
    world.report(DeploymentOutcome::Count(outcome::Count { counted, judged: None }));
    assert_eq!(
        held(&world),
        "the baseline itself has an incident; nothing can be learned about the canary until it is over"
    );
}

#[test]
fn a_router_that_sends_the_canary_too_much_is_called_broken_and_not_the_version_bad() {
    let mut world = at_step(|_| ());
    for _ in 0..5 {
        let (Some(counted), _) = world.look_under(percent(5), (500, 0), (500, 0)) else { panic!("nobody listens") };
        world.report(DeploymentOutcome::Count(outcome::Count { counted, judged: None }));
    }
    world.pass_ms(700_000);
    assert!(held(&world).starts_with("the router does not share requests out as the weights say"));
}

#[test]
fn what_was_counted_is_recorded_in_order_and_once() {
    let mut world = at_step(|_| ());
    let (Some(counted), judged) = world.look((90, 0), (10, 0)) else { panic!("nobody listens") };
    let count = |judged| DeploymentOutcome::Count(outcome::Count { counted: counted.clone(), judged });
    assert_eq!(kinds(&world.clone().report(count(judged.clone()))), ["judgement.counted", "judgement.judged"]);
    let mut forged = judged.unwrap();
    forged.canary.errors += 1;
    assert!(matches!(world.decide_outcome(&count(Some(forged))), Err(Rejection::Outdated(_))));
    world.report(count(None));
    let again = world.decide_outcome(&count(None));
    assert!(matches!(&again, Err(Rejection::Outdated(why)) if why.contains("does not follow")), "{again:?}");
}

#[test]
fn the_judge_is_told_the_rollouts_own_plan_and_policy() {
    let mut world = given(Named::Warm);
    world.ask(roll(V1, V2));
    for change in [
        (|begun| begun.policy.metrics["errors"].tolerance_ppm += 1) as fn(&mut schemas::judgement::Begun),
        |begun| begun.plan.duration_ms += 1,
        |begun| begun.rule = "betting/99".to_owned(),
    ] {
        let mut begun = world.begun();
        change(&mut begun);
        let answer = world.decide_outcome(&DeploymentOutcome::BeginJudging(outcome::BeginJudging { begun }));
        assert!(matches!(answer, Err(Rejection::Outdated(_))), "{answer:?}");
    }
    assert_eq!(kinds(&world.begin()), ["judgement.begun"]);
    assert_eq!(world.begin().events, []);
}

#[test]
fn a_canary_that_fails_far_above_the_tolerance_gets_no_more_though_the_judge_still_listens_to_the_baseline() {
    let mut world = given(Named::Warm);
    world.ask(roll(V1, V2));
    // Nothing is known of the baseline, so nothing is bet before it had its first requests.
    let begun = Begun { history: vec![None], ..world.begun() };
    world.report(DeploymentOutcome::BeginJudging(outcome::BeginJudging { begun }));
    world.report(world.next_step((0, 0), (0, 0)));
    world.applied();
    let (Some(counted), judged) = world.look((30, 0), (60, 40)) else { panic!("nobody listens") };
    assert_eq!(judged.unwrap().verdict, Verdict::Inconclusive);
    world.report(DeploymentOutcome::Count(outcome::Count { counted, judged: None }));
    world.pass_ms(10_000_000);
    assert_eq!(
        held(&world),
        "the canary's failures are far above the tolerance; it is not known yet whether that is a burst"
    );
}

/// A canary that breaks under load must be seen at each step: overdue steps are not made up for.
#[test]
fn a_step_that_was_taken_late_delays_the_later_ones() {
    let mut world = at_step(|_| ());
    good(&mut world, 49);
    // It had to wait for its requests until long after the plan's end.
    world.pass_ms(2_000_000);
    assert_eq!(held(&world), "the canary needs 50 requests in all");
    let started = world.deployment().rollout.as_ref().unwrap().started_at;
    assert_eq!(seconds_since(started, expected_of(&world).end_at()), 2_600, "two distances of 300 s are left");
    good(&mut world, 200);
    for _ in 0..2 {
        let took = seconds_to_the_next(&mut world);
        assert!((300..=301).contains(&took), "{took} s");
    }
}

#[test]
fn a_deadline_moves_with_pauses_and_while_nobody_drives_it_and_never_with_late_steps() {
    let mut world = at_step(|_| ());
    let ends_at = |world: &World| world.deployment().rollout.as_ref().unwrap().ends_at();
    let planned = ends_at(&world);
    assert_eq!(seconds_since(world.deployment().rollout.as_ref().unwrap().started_at, planned), 900);
    good(&mut world, 200);
    world.pass_ms(500_000);
    world.report(world.next_step((90, 0), (10, 0)));
    assert_eq!(ends_at(&world), planned, "a late step moves nothing");
    world.ask(pause());
    world.pass_ms(100_000);
    world.ask(resume());
    assert_eq!(seconds_since(planned, ends_at(&world)), 100);
    let rollout = world.deployment().rollout.as_ref().unwrap().id;
    world.pass_ms(4_000);
    let answer = world.decide_outcome(&DeploymentOutcome::DriveAgain(outcome::DriveAgain { rollout }));
    assert!(matches!(&answer, Err(Rejection::Outdated(why)) if why.contains("a moment ago")), "{answer:?}");
    world.pass_ms(46_000);
    assert_eq!(
        kinds(&world.report(DeploymentOutcome::DriveAgain(outcome::DriveAgain { rollout }))),
        ["rollout.driven_again"]
    );
    assert_eq!(seconds_since(planned, ends_at(&world)), 150);
    let again = world.decide_outcome(&DeploymentOutcome::DriveAgain(outcome::DriveAgain { rollout }));
    assert!(matches!(again, Err(Rejection::Outdated(_))), "once is enough: {again:?}");
    good(&mut world, 1);
    world.pass_ms(10_000);
    let (Some(counted), _) = world.look((90, 0), (10, 0)) else { panic!("nobody listens") };
    world.report(DeploymentOutcome::Count(outcome::Count { counted, judged: None }));
    let again = world.decide_outcome(&DeploymentOutcome::DriveAgain(outcome::DriveAgain { rollout }));
    assert!(matches!(again, Err(Rejection::Outdated(_))), "what is counted is a sign: {again:?}");
}

#[test]
fn a_pause_at_a_step_moves_the_next_one_and_the_expected_end() {
    let mut world = at_step(|_| ());
    good(&mut world, 200);
    let due = |world: &World| world.deployment().rollout.as_ref().unwrap().due_at(1);
    let before = due(&world);
    world.ask(pause());
    world.pass_ms(50_000);
    assert_eq!(seconds_since(before, expected_of(&world).next_at), 50, "it moves while it is paused");
    world.ask(resume());
    assert_eq!(seconds_since(before, due(&world)), 50);
    world.pass_ms(251_000);
    assert_eq!(gate_of(&world), Gate::NotBefore(due(&world)));
    world.pass_ms(50_000);
    let took = seconds_to_the_next(&mut world);
    assert!((300..=301).contains(&took), "a pause before a step does not move the one after it: {took} s");
}

#[test]
fn with_early_a_step_lasts_two_readings_of_its_source_and_until_the_router_has_settled() {
    let early = |change: fn(&mut Definition)| {
        let mut world = at_step(|definition| {
            definition.policy.rollout.early_after_ms = Some(0);
            change(definition);
        });
        good(&mut world, 200);
        world.pass_ms(60_000);
        world
    };
    let mut by_router = early(|_| ());
    assert!((2..=3).contains(&seconds_to_the_next(&mut by_router)));
    let mut by_source = early(|definition| {
        let prometheus = Prometheus { scrape_interval_ms: 10_000, ..Prometheus::at("http://127.0.0.1:9090") };
        definition.policy.judgement.prometheus = Some(prometheus);
    });
    assert!((20..=21).contains(&seconds_to_the_next(&mut by_source)));
    let mut slow_router = early(|_| ());
    slow_router.report(slow_router.next_step((90, 0), (10, 0)));
    good(&mut slow_router, 10);
    slow_router.pass_ms(40_000);
    let planned = slow_router.deployment().rollout.as_ref().unwrap().due_at(2);
    assert_eq!(gate_of(&slow_router), Gate::NotBefore(planned), "nothing is early that the router has not confirmed");
    slow_router.applied();
    assert_eq!(gate_of(&slow_router), Gate::Open);
}

#[test]
fn with_early_a_step_is_never_later_than_the_plan_has_it() {
    let mut world = at_step(|definition| {
        definition.policy.rollout.early_after_ms = Some(0);
        definition.policy.rollout.duration_ms = 3_000;
    });
    good(&mut world, 200);
    world.pass_ms(10_000);
    assert!((1..=2).contains(&seconds_to_the_next(&mut world)), "the plan's own distance is 1 s");
}

/// Source: the policy, `soak`: how long after its first step, whenever that was.
#[test]
fn a_soak_counts_from_the_first_step() {
    let mut world = given(Named::Warm);
    let mut definition = definition();
    definition.policy.judgement.soak_ms = 1_000_000;
    definition.policy.rollout.early_after_ms = Some(1_000_000);
    world.ask(apply(definition));
    world.ask(roll(V1, V2));
    world.pass_ms(400_000);
    world.begin();
    world.report(world.next_step((0, 0), (0, 0)));
    world.applied();
    good(&mut world, 200);
    world.pass_ms(2_000);
    world.report(world.next_step((90, 0), (10, 0)));
    world.applied();
    good(&mut world, 10);
    world.pass_ms(700_000);
    assert!(matches!(gate_of(&world), Gate::NotBefore(_)));
    world.pass_ms(300_000);
    assert_eq!(gate_of(&world), Gate::Open);
}

#[test]
fn reasons_that_take_turns_are_recorded_once_each_and_again_only_after_a_while() {
    let mut world = at_step(|_| ());
    let rollout = world.deployment().rollout.as_ref().unwrap().id;
    let hold = |world: &mut World, kind, reason: &str| {
        world.pass_ms(1_000);
        let (counted, judged) = (None, None);
        kinds(&world.report(DeploymentOutcome::Hold(outcome::Hold {
            rollout,
            kind,
            reason: reason.to_owned(),
            counted,
            judged,
        })))
        .len()
    };
    assert_eq!(hold(&mut world, HoldKind::Source, "the query `a` fails"), 1);
    assert_eq!(hold(&mut world, HoldKind::Source, "the query `b` fails"), 0, "another query of the same source");
    assert_eq!(hold(&mut world, HoldKind::NoRequests, "no requests"), 1);
    assert_eq!(
        (0..100).map(|n| hold(&mut world, [HoldKind::Source, HoldKind::NoRequests][n % 2], "x")).sum::<usize>(),
        0
    );
    assert_eq!(world.deployment().rollout.as_ref().unwrap().held.as_ref().unwrap().reason, "no requests");
    world.pass_ms(600_000);
    assert_eq!(hold(&mut world, HoldKind::Source, "the query `b` fails"), 1);
}

#[test]
fn a_rollout_that_is_held_before_its_first_step_is_at_no_step() {
    let mut world = given(Named::Warm);
    world.ask(roll(V1, V2));
    let rollout = world.deployment().rollout.as_ref().unwrap().id;
    let (kind, reason) = (HoldKind::Source, "no answer".to_owned());
    let held =
        world.report(DeploymentOutcome::Hold(outcome::Hold { rollout, kind, reason, counted: None, judged: None }));
    let [Event::Rollout(rollout::Event::Held(held))] = events_of(&held, "rollout.held")[..] else { panic!("{held:?}") };
    assert_eq!(held.step, None);
}

#[test]
fn while_a_rollout_stands_still_what_remains_is_known_and_not_when_it_ends() {
    let mut world = at_step(|_| {});
    good(&mut world, 60);
    let known = expected_of(&world);
    assert_eq!(known.remaining_ms, None, "it goes on by the clock");
    let left_ms = u64::try_from(known.end_at().duration_since(world.time).as_millis()).unwrap();
    world.ask(pause());
    let paused = expected_of(&world).remaining_ms.unwrap();
    assert!(paused.abs_diff(left_ms) <= 1_000, "{paused} of {left_ms}");
    world.pass_ms(3_600_000);
    assert_eq!(expected_of(&world).remaining_ms, Some(paused), "it does not move with the clock");
    world.ask(resume());
    world.pass_ms(3_600_000);
    let rollout = world.deployment().rollout.as_ref().unwrap().id;
    let (kind, reason) = (HoldKind::Source, "the source does not answer".to_owned());
    world.report(DeploymentOutcome::Hold(outcome::Hold { rollout, kind, reason, counted: None, judged: None }));
    let held = expected_of(&world).remaining_ms.unwrap();
    world.pass_ms(3_600_000);
    assert_eq!(expected_of(&world).remaining_ms, Some(held));
}
