//! Weights set by hand, what the router confirms, and drift.

use std::collections::BTreeMap;

use schemas::outcome::{self, DeploymentOutcome};
use schemas::{StreamVersion, Weight};

use super::named::{Named, given};
use crate::decision::Rejection;
use crate::kit::*;

fn refused(world: &World, shares: &[(&str, u16)]) -> String {
    world.decide(&traffic(shares, false)).unwrap_err().to_string()
}

#[test]
fn weights_that_are_not_exactly_all_traffic_are_refused() {
    let world = given(Named::Warm);
    assert_eq!(
        refused(&world, &[(V1, 90), (V2, 9)]),
        "the weights sum to 99 % instead of 100 %; name every version that shall keep traffic"
    );
    assert!(refused(&world, &[(V1, 100), (V2, 100)]).starts_with("the weights sum to 200 %"));
    assert!(refused(&world, &[]).starts_with("the weights sum to 0 %"));
    assert_eq!(refused(&world, &[(V1, 50), (V1, 50)]), "version 1.0.0 is named twice");
}

#[test]
fn a_version_that_is_not_named_gets_nothing() {
    let mut world = given(Named::Split);
    world.ask(traffic(&[(V1, 100)], false));
    assert_eq!(world.weights(), [(V1.to_owned(), 100)].into());
}

#[test]
fn an_unknown_version_is_told_from_one_without_a_stack_and_one_that_starts() {
    let mut world = given(Named::Warm);
    assert_eq!(
        refused(&world, &[("9.9.9", 100)]),
        "release api 9.9.9 is unknown; record it with `ionledger release api 9.9.9 --artifact FILE`; known: 1.0.0, 1.1.0, 1.2.0"
    );
    assert!(refused(&world, &[("1.10", 100)]).contains("; did you mean 1.1.0? known: 1.0.0, 1.1.0, 1.2.0"));
    assert_eq!(
        refused(&world, &[(V3, 100)]),
        "production/api 1.2.0 is not ready: it has no stack; make one with `ionledger new api 1.2.0`"
    );
    world.ask(new(V3));
    assert_eq!(
        refused(&world, &[(V3, 100)]),
        "production/api 1.2.0 is not ready: 0 of 1 node ready; wait for the rest with `ionledger status -w`"
    );
    let zero = world.decide(&traffic(&[(V1, 100), (V3, 0)], false)).unwrap();
    assert_eq!(zero.events, [], "no traffic needs no stack");
}

#[test]
fn an_unhealthy_stack_may_keep_its_traffic_but_gets_no_more() {
    let mut world = given(Named::Split);
    world.fall_ill(V2);
    assert!(refused(&world, &[(V1, 80), (V2, 20)]).contains("it is unhealthy, 0 of 1 node ready and 1 must be"));
    world.ask(traffic(&[(V1, 95), (V2, 5)], false));
}

#[test]
fn no_more_versions_serve_than_the_policy_allows() {
    let mut world = given(Named::Split);
    world.deploy(V3);
    let shares = [(V1, 80), (V2, 10), (V3, 10)];
    assert_eq!(
        refused(&world, &shares),
        "3 versions would serve production/api, its policy allows 2; name fewer, or raise retention.serving_max"
    );
    let mut wider = definition();
    wider.policy.retention.serving_max = 3;
    world.ask(apply(wider));
    world.ask(traffic(&shares, false));
}

#[test]
fn a_rollout_refuses_weights_by_hand_unless_they_are_all_the_baselines() {
    let world = given(Named::AtStep);
    assert_eq!(
        refused(&world, &[(V1, 50), (V2, 50)]),
        "production/api has a rollout 1.0.0 -> 1.1.0 at 10 %; pause, abort or promote it, or use --supersede"
    );
    let all_back = world.decide(&traffic(&[(V1, 100)], false)).unwrap();
    assert_eq!(kinds(&all_back), ["rollout.aborted", "traffic.rejected", "traffic.weights_set"]);
    let instead = world.decide(&traffic(&[(V1, 50), (V2, 50)], true)).unwrap();
    assert_eq!(kinds(&instead), ["rollout.superseded", "traffic.weights_set"]);
}

#[test]
fn only_the_weights_that_are_set_are_confirmed() {
    let mut world = given(Named::Warm);
    let old = world.deployment().traffic.set.clone().unwrap();
    world.ask(traffic(&[(V1, 90), (V2, 10)], false));
    let set = world.deployment().traffic.set.clone().unwrap();
    let confirm = |generation: StreamVersion, weights| {
        DeploymentOutcome::WeightsApplied(outcome::WeightsApplied { generation, weights, listening: None })
    };
    for late in [confirm(set.version, old.weights), confirm(old.version, set.weights.clone())] {
        assert!(matches!(world.decide_outcome(&late), Err(Rejection::Outdated(_))), "{late:?}");
    }
    assert!(!world.deployment().traffic.is_applied());
    world.report(confirm(set.version, set.weights.clone()));
    assert!(world.deployment().traffic.is_applied());
    assert_eq!(world.decide_outcome(&confirm(set.version, set.weights)).unwrap().events, [], "it is known");
}

fn drift(world: &World, seen: &[(&str, Weight)]) -> DeploymentOutcome {
    DeploymentOutcome::DriftSeen(outcome::DriftSeen {
        seen: seen.iter().map(|(version, weight)| (world.stack(version), *weight)).collect(),
        generation: None,
    })
}

#[test]
fn what_the_router_serves_before_it_has_followed_is_no_drift() {
    let mut world = given(Named::Warm);
    world.ask(roll(V1, V2));
    world.begin();
    world.report(world.next_step((0, 0), (0, 0)));
    let answer = world.decide_outcome(&drift(&world, &[(V1, Weight::FULL)]));
    assert!(matches!(answer, Err(Rejection::Outdated(_))), "{answer:?}");
    let mut first = given(Named::Ready);
    first.ask(traffic(&[(V1, 100)], false));
    let answer = first
        .decide_outcome(&DeploymentOutcome::DriftSeen(outcome::DriftSeen { seen: BTreeMap::new(), generation: None }));
    assert!(matches!(answer, Err(Rejection::Outdated(_))), "{answer:?}");
}

#[test]
fn drift_is_recorded_once_for_each_thing_seen() {
    let mut world = given(Named::Split);
    let half = percent(50);
    let decision = world.report(drift(&world, &[(V1, half), (V2, half)]));
    assert_eq!(kinds(&decision), ["traffic.drift_seen"]);
    assert!(!world.deployment().traffic.drift.as_ref().unwrap().towards_target);
    assert_eq!(world.report(drift(&world, &[(V1, half), (V2, half)])).events, []);
    world.applied();
    assert_eq!(world.deployment().traffic.drift, None);
}

#[test]
fn drift_towards_the_rollback_target_pauses_the_rollout_and_a_person_lets_it_be_corrected() {
    let mut world = given(Named::AtStep);
    let decision = world.report(drift(&world, &[(V1, Weight::FULL)]));
    assert_eq!(kinds(&decision), ["traffic.drift_seen", "rollout.paused"]);
    assert!(world.deployment().traffic.drift.as_ref().unwrap().towards_target);
    world.ask(resume());
    assert!(!world.deployment().traffic.drift.as_ref().unwrap().towards_target, "now it is corrected");
    assert_eq!(world.report(drift(&world, &[(V1, Weight::FULL)])).events, [], "the same drift does not pause it again");
}

#[test]
fn drift_towards_the_target_without_a_rollout_is_corrected_once_somebody_asks_for_what_is_set() {
    let mut world = given(Named::DriftedToTarget);
    assert!(world.deployment().traffic.drift.as_ref().unwrap().towards_target);
    world.ask(traffic(&[(V2, 100)], false));
    assert_eq!(world.deployment().traffic.drift, None);
}

#[test]
fn retiring_ends_the_rollout_and_all_traffic() {
    let mut world = given(Named::AtStep);
    let decision = world.ask(retire());
    assert_eq!(kinds(&decision), ["rollout.aborted", "traffic.retired"]);
    assert!(world.deployment().traffic.set.is_none());
    assert!(world.deployment().traffic.retired_at.is_some());
}

#[test]
fn a_rollouts_stacks_are_called_by_their_names_also_once_they_are_gone() {
    let mut world = given(Named::AtStep);
    let (baseline, canary) = (world.stack(V1), world.stack(V2));
    world.ask(retire());
    world.collect(V2);
    let deployment = world.deployment();
    assert_eq!(deployment.name_of(canary), None, "no decision rests on what is gone");
    let names = [baseline, canary].map(|stack| deployment.remembered_name(stack).map(|name| name.to_string()));
    assert_eq!(names, [Some(V1.to_owned()), Some(V2.to_owned())]);
}

#[test]
fn a_stack_is_used_since_it_first_had_weight() {
    let mut world = given(Named::Serving);
    world.deploy(V2);
    let used_since = |world: &World| world.stack_state(V2).used_since;
    assert_eq!(used_since(&world), None);
    world.pass_ms(60_000);
    world.serve(&[(V1, 90), (V2, 10)]);
    let first = used_since(&world);
    assert_eq!(first, Some(world.deployment().traffic.set.as_ref().unwrap().at));
    world.pass_ms(60_000);
    world.serve(&[(V1, 50), (V2, 50)]);
    assert_eq!(used_since(&world), first, "more of it is no beginning");
    world.serve(&[(V1, 100)]);
    assert_eq!(used_since(&world), first, "what it did before is in what is counted of it");
}
