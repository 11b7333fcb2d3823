//! Steps: how the judgement and the policy set the pace of a rollout.

use schemas::Weight;
use schemas::command::DeploymentOutcome;
use schemas::judgement::{Begun, Verdict};
use schemas::policy::Deadline;
use schemas::service::Definition;

use super::super::rollout::Phase;
use super::super::step::{Gate, gate};
use super::named::{Named, given};
use crate::decide::Rejection;
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
    world.report(DeploymentOutcome::Count { counted, judged: None });
}

fn gate_of(world: &World) -> Gate {
    let rollout = world.deployment().rollout.as_ref().unwrap();
    gate(rollout, world.state.judgements[&id()].of(rollout.id), world.time)
}

fn held(world: &World) -> String {
    match gate_of(world) {
        Gate::Held(reason) => reason,
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

/// So strict that no number of requests in these tests accepts anything.
fn strict(definition: &mut Definition) {
    definition.policy.judgement.errors_tolerance_ppm = 1;
    definition.policy.judgement.errors_ratio_percent = 100;
}

#[test]
fn a_canary_that_is_not_accepted_gets_a_fifth_at_most_before_the_plans_end() {
    let mut world = at_step(strict);
    good(&mut world, 60);
    world.pass_ms(700_000);
    assert_eq!(gate_of(&world), Gate::Open, "10 % is within the ramp");
    world.report(world.next_step((90, 0), (10, 0)));
    good(&mut world, 60);
    assert_eq!(held(&world), "until the canary is accepted or the plan ends it gets at most 20 %");
    world.pass_ms(200_000);
    go_on(&mut world);
    assert_eq!(weight(&world), Weight::FULL, "not worse at the end, with its requests");
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
    assert_eq!(held(&world), "the canary got no requests since its last step");
}

#[test]
fn an_accepted_canary_has_all_traffic_at_the_plans_end_and_not_before() {
    let mut world = at_step(|_| ());
    let started = world.time;
    good(&mut world, 200);
    go_on(&mut world);
    let took = world.time.duration_since(started).as_secs();
    assert!((899..=901).contains(&took), "{took} s");
}

#[test]
fn with_early_it_has_all_traffic_as_soon_as_it_is_accepted_and_soaked() {
    for (after_ms, soak_ms, seconds) in [(0, 0, 6..=8), (60_000, 0, 59..=61), (60_000, 60_000, 59..=61)] {
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
    assert_eq!(held(&world), "the canary may still be so bad that more would risk over 1 requests");
}

#[test]
fn a_baseline_in_an_incident_freezes_the_ramp_and_convicts_nobody() {
    let mut world = at_step(|_| ());
    good(&mut world, 200);
    world.pass_ms(700_000);
    let (Some(counted), judged) = world.look((900, 450), (100, 50)) else { panic!("nobody listens") };
    assert_eq!(judged.unwrap().verdict, Verdict::NotWorse);
    world.report(DeploymentOutcome::Count { counted, judged: None });
    assert_eq!(held(&world), "the baseline itself is in an incident; nothing is learnt of the canary meanwhile");
}

#[test]
fn a_router_that_sends_the_canary_too_much_is_called_broken_and_not_the_version_bad() {
    let mut world = at_step(|_| ());
    for _ in 0..5 {
        let (Some(counted), _) = world.look_under(percent(5), (500, 0), (500, 0)) else { panic!("nobody listens") };
        world.report(DeploymentOutcome::Count { counted, judged: None });
    }
    world.pass_ms(700_000);
    assert!(held(&world).starts_with("the router does not share requests out as the weights say"));
}

#[test]
fn what_was_counted_is_recorded_in_order_and_once() {
    let mut world = at_step(|_| ());
    let (Some(counted), judged) = world.look((90, 0), (10, 0)) else { panic!("nobody listens") };
    let count = |judged| DeploymentOutcome::Count { counted: counted.clone(), judged };
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
        (|begun| begun.policy.errors_tolerance_ppm += 1) as fn(&mut schemas::judgement::Begun),
        |begun| begun.plan.duration_ms += 1,
        |begun| begun.rule = "betting/99".to_owned(),
    ] {
        let mut begun = world.begun();
        change(&mut begun);
        let answer = world.decide_outcome(&DeploymentOutcome::BeginJudging { begun });
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
    world.report(DeploymentOutcome::BeginJudging { begun });
    world.report(world.next_step((0, 0), (0, 0)));
    world.applied();
    let (Some(counted), judged) = world.look((30, 0), (60, 40)) else { panic!("nobody listens") };
    assert_eq!(judged.unwrap().verdict, Verdict::Inconclusive);
    world.report(DeploymentOutcome::Count { counted, judged: None });
    world.pass_ms(10_000_000);
    assert_eq!(held(&world), "the canary fails far above the tolerance; whether that is a burst is not told yet");
}
