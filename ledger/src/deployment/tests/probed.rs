//! A rollback never makes things worse: what it does by what the newest probes say.

use schemas::Probed;
use schemas::outcome::{self, DeploymentOutcome};
use schemas::traffic::{Event as Traffic, RolledBack};
use schemas::{EffectId, Event, StackId};

use super::super::rollback::{Target, target_by};
use super::super::{rollback as rolling_back, served, stranded};
use super::named::{Named, given};
use crate::decision::{Decision, Rejection};
use crate::kit::*;

/// What a second rollback is told while the first one waits.
const WAITS: &str =
    "production/api is being rolled back already: 1.0.0~2 gets all traffic once it is ready; by now 0 of 1 node ready";

/// And what overrules that.
const UNREADY: &str = "; `ionledger rollback api --unready` sends all traffic there now";

fn rolled_back(decision: &Decision) -> RolledBack {
    match events_of(decision, "traffic.rolled_back")[..] {
        [Event::Traffic(Traffic::RolledBack(back))] => back.clone(),
        _ => panic!("no rollback in {decision:?}"),
    }
}

fn not_yet_of(world: &World) -> Option<String> {
    rolling_back::not_yet(world.deployment())
}

/// The first and the second version held all traffic, the third does now, and all are warm.
fn three_served() -> World {
    let mut world = given(Named::Completed);
    world.deploy(V3);
    world.serve(&[(V3, 100)]);
    world
}

/// The same, with a policy that lets no rollback go past its target.
fn strict() -> World {
    let mut world = three_served();
    let mut strict = definition();
    strict.policy.rollout.rollback_past_target = false;
    world.ask(apply(strict));
    world
}

fn stacks(world: &World, texts: &[&str]) -> Vec<StackId> {
    texts.iter().map(|text| world.stack(text)).collect()
}

fn is_started_again(world: &World, decision: &Decision, text: &str) {
    assert_eq!(kinds(decision), ["stack.requested", "traffic.rolled_back", "hold.set"]);
    let again = events_of(decision, "stack.requested");
    let [Event::Stack(schemas::stack::Event::Requested(again))] = again[..] else { panic!("{again:?}") };
    assert_eq!(again.version, version(text));
    assert_ne!(again.stack, world.stack(text), "the dead stack is left as it is");
    assert_eq!(
        decision.notes,
        [format!(
            "users stay where they are: no node of the rollback target {text} passes its check (connection refused). It is \
             started again and gets all traffic once it is ready; `ionledger rollback api --unready` sends all traffic there \
             now"
        )]
    );
}

#[test]
fn users_of_a_version_that_passes_are_not_moved_to_one_that_does_not() {
    let mut world = given(Named::Completed);
    let probed = world.probed(&[V2], &[V1]);
    let decision = world.decide_seeing(&rollback(), &probed).unwrap();
    is_started_again(&world, &decision, V1);
    let dead = world.stack(V1);
    let not_yet = "1.0.0~2 gets all traffic once it is ready, by now 0 of 1 node ready; users stay on 1.1.0";
    assert_eq!(decision.not_yet.as_deref(), Some(not_yet));
    world.commit(decision);
    assert_eq!(world.weights(), [(V2.to_owned(), 100)].into(), "users stay");
    assert_eq!(not_yet_of(&world).as_deref(), Some(not_yet));
    let again = world.decide_seeing(&rollback(), &world.probed(&[V2], &[])).unwrap();
    assert_eq!(again.not_yet.as_deref(), Some(not_yet), "it is not done for being asked for twice");
    assert_eq!(again.stack, Some(world.stack("1.0.0~2")), "and who waits for it knows for which stack");
    assert_eq!((again.events, again.notes.join("")), (vec![], format!("{WAITS}{UNREADY}")), "twice is once");
    assert_eq!(kinds(&world.bring_up(V1)), ["stack.ready", "traffic.weights_set"]);
    assert_ne!(world.stack(V1), dead);
    assert_eq!(world.weights(), [("1.0.0~2".to_owned(), 100)].into());
    assert_eq!(not_yet_of(&world), None);
}

#[test]
fn an_older_version_that_passes_is_taken_at_once_and_what_was_passed_over_is_named() {
    let world = three_served();
    let back = rolled_back(&world.decide_seeing(&rollback(), &world.probed(&[V3, V1], &[V2])).unwrap());
    assert_eq!((back.to, back.passed_over), (world.stack(V1), stacks(&world, &[V2])));
}

#[test]
fn an_older_version_that_cannot_be_asked_is_taken_too_and_one_that_is_dead_is_not() {
    let world = three_served();
    let unasked = world.probed(&[V3], &[V2]);
    assert_eq!(rolled_back(&world.decide_seeing(&rollback(), &unasked).unwrap()).to, world.stack(V1));
    let all_dead = world.probed(&[V3], &[V2, V1]);
    is_started_again(&world, &world.decide_seeing(&rollback(), &all_dead).unwrap(), V2);
}

#[test]
fn a_second_rollback_goes_further_back_once_what_the_first_went_to_is_dead() {
    let mut world = three_served();
    world.ask(rollback());
    let passes = world.probed(&[V2, V1], &[]);
    let again = world.decide_seeing(&rollback(), &passes).unwrap();
    assert_eq!(again.events, [], "twice is once");
    assert!(again.notes[0].ends_with("`ionledger traffic api 1.0.0 100` goes further back"), "{:?}", again.notes);
    let dead = world.decide_seeing(&rollback(), &world.probed(&[V2], &[V1])).unwrap();
    assert!(!dead.notes[0].contains("ionledger traffic"), "nobody is sent to what does not pass: {:?}", dead.notes);
    let decision = world.decide_seeing(&rollback(), &world.probed(&[V1], &[V2])).unwrap();
    assert_eq!((rolled_back(&decision).to, decision.not_yet), (world.stack(V1), None));
}

#[test]
fn users_who_go_to_a_version_that_does_not_pass_are_told_of() {
    let world = given(Named::Completed);
    let decision = world.decide_seeing(&rollback(), &world.probed(&[], &[V1, V2])).unwrap();
    let told = "1.0.0 gets all traffic although it does not pass its check (connection refused)";
    assert_eq!(
        (rolled_back(&decision).to, &*decision.notes),
        (world.stack(V1), &[format!("{told}; what users were on does not pass either")][..])
    );
    let overruled = world.decide_seeing(&rollback_unready(), &world.probed(&[V2], &[V1])).unwrap();
    assert_eq!((rolled_back(&overruled).to, &*overruled.notes), (world.stack(V1), &[told.to_owned()][..]));
    let passes = world.decide_seeing(&rollback(), &world.probed(&[V1], &[V2])).unwrap();
    assert_eq!(passes.notes, Vec::<String>::new());
}

/// The router keeps what it serves while no node of what is set can be called.
#[test]
fn users_are_not_said_to_be_on_a_version_that_the_router_never_served() {
    let mut world = World::serving_one_warm_one();
    world.serve(&[(V2, 100)]);
    world.lose_node(V1);
    world.ask(rollback_unready());
    let traffic = &world.deployment().traffic;
    assert_eq!(traffic.set.as_ref().and_then(|set| set.weights.sole()), Some(world.stack(V1)));
    assert!(!traffic.is_applied());
    let mut probed = Probed::default();
    probed.fails(world.stack(V1), "connection refused".to_owned());
    let told = "1.0.0 gets all traffic once a node of it can be called; users stay on 1.1.0";
    let unhelped = rolling_back::unhelped(world.deployment(), &"production/api".parse().unwrap(), &probed);
    assert_eq!(unhelped.as_deref(), Some(told));
}

#[test]
fn a_rollback_behind_one_that_the_router_cannot_serve_yet_moves_nobody_from_what_passes() {
    let mut world = three_served();
    world.applied();
    world.lose_node(V2);
    world.ask(rollback_unready());
    assert!(!world.deployment().traffic.is_applied());
    let again = world.decide_seeing(&rollback(), &world.probed(&[V3, V1], &[V2])).unwrap();
    let told = "1.1.0 gets all traffic once a node of it can be called; users stay on 1.2.0";
    assert_eq!((again.events, again.not_yet.as_deref()), (vec![], Some(told)));
    assert_eq!(again.notes, [format!("production/api is rolled back already: {told}")]);
    let dead = world.decide_seeing(&rollback(), &world.probed(&[V1], &[V2, V3])).unwrap();
    assert_eq!(rolled_back(&dead).to, world.stack(V1), "what users are on is dead, too");
    let further = world.decide_seeing(&rollback_unready(), &world.probed(&[V3], &[V2, V1])).unwrap();
    let notes = further.notes.join("");
    assert!(!notes.contains("either"), "users are on 1.2.0, which passes: {notes}");
}

#[test]
fn where_a_second_rollback_would_help_nobody_it_says_so_and_is_not_done() {
    let mut world = three_served();
    world.ask(rollback());
    let decision = world.decide_seeing(&rollback(), &world.probed(&[], &[V2, V1])).unwrap();
    assert_eq!(decision.events, []);
    let told = "production/api is rolled back already and users stay on 1.1.0, which does not pass (connection refused): no \
                earlier version passes that a rollback may go to";
    assert_eq!(decision.not_yet.as_deref(), Some(told));
}

#[test]
fn users_of_a_dead_version_go_to_the_nearest_that_passes() {
    let world = three_served();
    let decision = world.decide_seeing(&rollback(), &world.probed(&[V1], &[V2, V3])).unwrap();
    assert_eq!(rolled_back(&decision).to, world.stack(V1));
}

#[test]
fn unready_is_offered_only_where_a_node_can_be_called() {
    let mut world = given(Named::Completed);
    world.lose_node(V1);
    let decision = world.decide_seeing(&rollback(), &world.probed(&[V2], &[V1])).unwrap();
    assert!(!decision.notes.join("").contains("--unready"), "{:?}", decision.notes);
    world.commit(decision);
    let again = world.decide_seeing(&rollback(), &world.probed(&[V2], &[])).unwrap();
    assert!(!again.notes.join("").contains("--unready"), "{:?}", again.notes);
}

/// A node that was just started may end at once; the router keeps what it serves until the check has said something of it.
#[test]
fn a_node_that_was_just_started_cannot_be_called_before_its_check_said_something() {
    let mut world = given(Named::Completed);
    world.lose_node(V1);
    world.start_launch(V1);
    let effect = world.launched(V1);
    let v1 = world.stack(V1);
    assert!(!world.deployment().can_be_called(v1));
    world.report(DeploymentOutcome::NodeFailing(outcome::NodeFailing { effect, reason: "503".to_owned() }));
    assert!(world.deployment().can_be_called(v1));
    world.report(DeploymentOutcome::NodeReady(outcome::NodeReady { effect }));
    assert!(world.deployment().can_be_called(v1));
}

/// All users were sent to a version of which no node passes, and the one that they came from still does.
#[test]
fn who_is_on_a_dead_version_is_shown_the_way_to_one_that_passes() {
    let mut world = given(Named::Completed);
    world.commit(world.decide_seeing(&rollback_unready(), &world.probed(&[V2], &[V1])).unwrap());
    world.applied();
    world.lose_node(V1);
    let told = served::trouble(world.deployment(), &id()).unwrap();
    assert_eq!(told.next.as_deref(), Some("ionledger traffic api 1.1.0 100 --again --reason WHY"));
}

#[test]
fn where_the_policy_says_so_it_does_not_go_past_its_target() {
    let world = strict();
    is_started_again(&world, &world.decide_seeing(&rollback(), &world.probed(&[V3, V1], &[V2])).unwrap(), V2);
    let passes = world.probed(&[V3, V2, V1], &[]);
    assert_eq!(rolled_back(&world.decide_seeing(&rollback(), &passes).unwrap()).to, world.stack(V2));
}

#[test]
fn if_nothing_that_serves_passes_there_is_nothing_to_lose() {
    let world = given(Named::Completed);
    for probed in [world.probed(&[], &[V1, V2]), world.probed(&[], &[V1]), Probed::default()] {
        let decision = world.decide_seeing(&rollback(), &probed).unwrap();
        assert_eq!(rolled_back(&decision).to, world.stack(V1), "{probed:?}");
    }
}

#[test]
fn a_target_that_passes_or_cannot_be_asked_gets_the_traffic_at_once() {
    let world = given(Named::Completed);
    for probed in [world.probed(&[V1, V2], &[]), world.probed(&[V2], &[])] {
        let decision = world.decide_seeing(&rollback(), &probed).unwrap();
        assert_eq!(kinds(&decision), ["traffic.rolled_back", "traffic.weights_set", "hold.set"], "{probed:?}");
    }
}

#[test]
fn unready_overrules_also_while_the_target_is_being_started_again() {
    let mut world = given(Named::Completed);
    let (dead, probed) = (world.stack(V1), world.probed(&[V2], &[V1]));
    assert_eq!(rolled_back(&world.decide_seeing(&rollback_unready(), &probed).unwrap()).to, dead);
    let waiting = world.decide_seeing(&rollback(), &probed).unwrap();
    world.commit(waiting);
    let decision = world.decide_seeing(&rollback_unready(), &probed).unwrap();
    assert_eq!(rolled_back(&decision).to, dead);
    world.commit(decision);
    assert_eq!((world.weights(), world.deployment().traffic.awaited), ([(V1.to_owned(), 100)].into(), None));
}

#[test]
fn a_rollout_whose_baseline_is_dead_ends_and_its_users_stay() {
    let mut world = given(Named::AtStep);
    let probed = world.probed(&[V2], &[V1]);
    let decision = world.decide_seeing(&rollback(), &probed).unwrap();
    assert_eq!(kinds(&decision), ["stack.requested", "traffic.rolled_back", "rollout.came_back", "hold.set"]);
    let dead = world.stack(V1);
    assert!(!rolled_back(&decision).from.contains(&dead), "it is no worse than its release");
    world.commit(decision);
    assert_eq!(world.weights(), [(V1.to_owned(), 90), (V2.to_owned(), 10)].into());
    let step = world.decide_outcome(&world.next_step((900, 0), (100, 0)));
    assert!(matches!(step, Err(Rejection::Outdated(_))), "it takes another step: {step:?}");
    world.bring_up(V1);
    assert_eq!(world.weights(), [("1.0.0~2".to_owned(), 100)].into());
}

#[test]
fn users_of_a_dead_stack_are_named_with_the_command_that_moves_them_until_they_are_moved() {
    let mut world = given(Named::Warm);
    world.serve(&[(V1, 50), (V2, 50)]);
    let probed = world.probed(&[V2], &[V1]);
    let stranded = "50 % of users are on 1.0.0, which does not pass (connection refused); `ionledger traffic api 1.1.0 100 \
                    --again --reason WHY` moves them now";
    let decision = world.decide_seeing(&rollback(), &probed).unwrap();
    assert!(decision.notes[0].starts_with("users stay where they are"), "{:?}", decision.notes);
    assert_eq!(decision.notes[1], stranded);
    let dead = world.stack(V1);
    world.commit(decision);

    // The target's node exits at once: that is the cause from then on, and not that nobody answers.
    let starting = world.deployment().traffic.awaited.unwrap();
    let effect = EffectId::of_launch(world.state.ledger.unwrap(), starting, 0, 0);
    world.report(DeploymentOutcome::StartLaunch(outcome::StartLaunch {
        stack: starting,
        slot: 0,
        attempt: 0,
        effect,
        port: 1,
    }));
    let reason = "exited with code 3; the end of its log: no database".to_owned();
    world.report(DeploymentOutcome::LaunchFailed(outcome::LaunchFailed { effect, reason }));
    let mut probed = Probed::default();
    probed.passes(world.stack(V2));
    probed.fails(dead, "connection refused".to_owned());
    let second = world.decide_seeing(&rollback(), &probed).unwrap();
    assert_eq!(second.events, []);
    assert_eq!(second.notes, [format!("{WAITS} (exited with code 3){UNREADY}"), stranded.to_owned()]);

    assert_eq!(kinds(&world.ask(again(traffic(&[(V2, 100)], false)))), ["traffic.weights_set"]);
    assert_eq!((world.weights(), world.deployment().traffic.awaited), ([(V2.to_owned(), 100)].into(), None));
}

#[test]
fn in_a_rollout_the_way_out_is_the_end_that_passes() {
    let world = given(Named::AtStep);
    for (passing, failing, next) in [(V2, V1, "promote"), (V1, V2, "abort")] {
        let stranded = stranded::stranded(world.deployment(), &id(), &world.probed(&[passing], &[failing]));
        let found: Vec<_> = stranded.iter().map(|found| (found.stack, found.next.clone())).collect();
        assert_eq!(found, [(world.stack(failing), Some(format!("ionledger {next} api")))]);
    }
    assert_eq!(stranded::stranded(world.deployment(), &id(), &world.probed(&[], &[V1, V2])), [], "nobody passes");
}

#[test]
fn the_ledger_knows_of_a_lost_node_at_once_and_how_it_ended() {
    let mut world = given(Named::Split);
    assert_eq!(stranded::stranded(world.deployment(), &id(), &stranded::known(world.deployment())), []);
    let effect = world.stack_state(V1).nodes[&0].effect;
    let reason = "exited with code 3; the end of its log: no database".to_owned();
    world.report(DeploymentOutcome::NodeLost(outcome::NodeLost { effect, reason }));
    let known = stranded::known(world.deployment());
    let found = stranded::stranded(world.deployment(), &id(), &known);
    let found: Vec<_> = found.iter().map(|found| (found.weight, found.why.as_str(), found.next.as_deref())).collect();
    assert_eq!(found, [(percent(90), "exited with code 3", Some("ionledger traffic api 1.1.0 100"))]);
    assert!(matches!(target_by(world.deployment(), &known, true), Some(Target::Failing { .. })));
}

#[test]
fn the_judges_rollback_follows_the_same_rule_and_keeps_its_verdict() {
    let world = given(Named::AtStep);
    let rollout = world.deployment().rollout.as_ref().unwrap().id;
    let (counted, judged) = world.look((900, 0), (100, 50));
    let back = |probed| {
        let (counted, judged) = (counted.clone(), judged.clone());
        let outcome = DeploymentOutcome::SendBack(outcome::SendBack {
            rollout,
            reason: "worse".to_owned(),
            counted,
            judged,
            probed,
        });
        kinds(&world.decide_outcome(&outcome).unwrap())
    };
    let stays =
        ["judgement.counted", "judgement.judged", "stack.requested", "traffic.rolled_back", "rollout.came_back"];
    assert_eq!(back(world.probed(&[V2], &[V1])), stays);
    assert!(back(world.probed(&[], &[V1, V2])).contains(&"traffic.weights_set"));
}

#[test]
fn an_abort_does_not_send_a_canarys_users_to_a_dead_baseline() {
    let world = given(Named::AtStep);
    let said = world.decide_seeing(&abort(), &world.probed(&[V2], &[V1])).unwrap_err().to_string();
    let next = "`ionledger rollback api` goes to an older version or starts this one again, and \
                `ionledger rollback api --unready` sends them there all the same";
    assert!(said.contains("1.0.0 is not ready") && said.ends_with(next), "{said}");
    assert!(world.decide_seeing(&abort(), &world.probed(&[], &[V1, V2])).is_ok());
    assert!(world.decide_seeing(&abort(), &world.probed(&[V1, V2], &[])).is_ok());
}

/// It is under its `min_ready`, and a node of it passes: better than the target that is dead.
#[test]
fn fewer_nodes_than_must_be_are_better_than_none() {
    let mut world = three_served();
    world.fall_ill(V1);
    let probed = world.probed(&[V3, V1], &[V2]);
    let back = rolled_back(&world.decide_seeing(&rollback(), &probed).unwrap());
    assert_eq!((back.to, back.passed_over), (world.stack(V1), stacks(&world, &[V2])));
}

#[test]
fn the_judges_rollback_goes_past_a_dead_baseline_to_an_older_version_that_passes() {
    let mut world = given(Named::Completed);
    world.deploy(V3);
    world.ask(roll(V2, V3));
    world.begin();
    world.report(world.next_step((0, 0), (0, 0)));
    let rollout = world.deployment().rollout.as_ref().unwrap().id;
    let (counted, judged) = world.look((900, 0), (100, 50));
    let probed = world.probed(&[V3, V1], &[V2]);
    let outcome =
        DeploymentOutcome::SendBack(outcome::SendBack { rollout, reason: "worse".to_owned(), counted, judged, probed });
    let back = rolled_back(&world.decide_outcome(&outcome).unwrap());
    assert_eq!((back.to, back.passed_over), (world.stack(V1), stacks(&world, &[V2])));
}

#[test]
fn nothing_is_rolled_out_while_a_rollback_waits_for_its_target() {
    let mut world = three_served();
    let probed = world.probed(&[V3], &[V1, V2]);
    let waiting = world.decide_seeing(&rollback(), &probed).unwrap();
    world.commit(waiting);
    let said = world.decide(&roll(V3, V1)).unwrap_err().to_string();
    assert!(said.contains("waits for its rollback target to be ready"), "{said}");
    for command in [promote(), resume()] {
        let found = world.decide(&command);
        assert!(found.as_ref().map_or(true, |decision| decision.events.is_empty()), "{command:?}: {found:?}");
    }
}

#[test]
fn unready_changes_nothing_while_a_target_without_a_stack_is_being_made() {
    let again = given(Named::Awaiting).decide(&rollback_unready()).unwrap();
    assert_eq!((again.events, again.notes.join("")), (vec![], WAITS.to_owned()));
}

#[test]
fn no_rollout_begins_from_a_baseline_that_does_not_pass_now() {
    let world = given(Named::Warm);
    let said = world.decide_seeing(&roll(V1, V2), &world.probed(&[V2], &[V1])).unwrap_err().to_string();
    assert!(said.starts_with("none of the nodes of 1.0.0 passes its check (connection refused)"), "{said}");
    assert!(said.contains("`ionledger traffic api VERSION 100`"), "{said}");
    for probed in [world.probed(&[V1, V2], &[]), world.probed(&[V1], &[V2]), Probed::default()] {
        assert_eq!(kinds(&world.decide_seeing(&roll(V1, V2), &probed).unwrap()), ["rollout.started"], "{probed:?}");
    }
}

#[test]
fn unready_goes_past_no_target_that_is_dead_or_unhealthy() {
    let mut world = three_served();
    let probed = world.probed(&[V3, V1], &[V2]);
    for ill in [false, true] {
        if ill {
            world.fall_ill(V2);
            assert_eq!(rolled_back(&world.decide_seeing(&rollback(), &probed).unwrap()).to, world.stack(V1));
        }
        let back = rolled_back(&world.decide_seeing(&rollback_unready(), &probed).unwrap());
        assert_eq!((back.to, back.passed_over), (world.stack(V2), vec![]), "ill: {ill}");
    }
}

/// The router keeps what it served while no node of what is set can be called.
#[test]
fn what_users_get_is_told_where_it_is_not_what_is_set_or_does_not_pass() {
    let trouble = |world: &World| served::trouble(world.deployment(), &id());
    let mut world = given(Named::Completed);
    assert_eq!(trouble(&world), None);
    world.fall_ill(V1);
    let probed = world.probed(&[V2], &[V1]);
    let decision = world.decide_seeing(&rollback_unready(), &probed).unwrap();
    world.commit(decision);
    let told = trouble(&world).unwrap();
    assert_eq!(told.why, "still 1.1.0: no node of 1.0.0 can be called (it exited)");
    let keeps = "ionledger traffic api 1.1.0 100 --again --reason WHY";
    assert_eq!(told.next.as_deref(), Some(keeps));
    world.lose_node(V2);
    let told = trouble(&world).unwrap();
    assert_eq!((told.why.ends_with("; 1.1.0 does not pass, either"), told.next), (true, None));
    world.start_launch(V1);
    let effect = world.launched(V1);
    world.applied();
    world.report(DeploymentOutcome::NodeFailing(outcome::NodeFailing { effect, reason: "503".to_owned() }));
    let told = trouble(&world).unwrap();
    assert_eq!(told.why, "what nodes answer that do not pass their check: they are on 1.0.0 (it exited)");
    world.lose_node(V1);
    assert_eq!(trouble(&world).unwrap().why, "failures, no node can be called: they are on 1.0.0 (it exited)");
}
