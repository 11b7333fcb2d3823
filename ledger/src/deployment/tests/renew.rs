//! Renewal: another stack of a release, told apart from the one before it by its number, and rolled back to that alone.

use schemas::command::{self, Command, PlanAsked};
use schemas::outcome::{self, DeploymentOutcome};
use schemas::{ActorKind, Event, stack};

use super::super::rejected::{self, RejectionCause};
use super::super::rollback::{self, Target, target};
use super::named::{Named, given};
use crate::decision::Rejection;
use crate::kit::*;

/// The second stack of the first version.
const RENEWED: &str = "1.0.0~2";

/// The third one.
const AGAIN: &str = "1.0.0~3";

fn target_of(world: &World) -> Option<String> {
    let target = target(world.deployment())?.stack()?;
    world.deployment().name_of(target).map(|name| name.to_string())
}

fn held_against(world: &World, text: &str) -> Option<RejectionCause> {
    rejected::of(world.deployment(), world.stack(text)).map(|rejected| rejected.how)
}

fn refused(world: &World, command: &Command) -> String {
    world.decide(command).unwrap_err().to_string()
}

/// The first version serves, and its second stack is ready.
fn renewed() -> World {
    let mut world = given(Named::Serving);
    world.ask(renew(false));
    world.bring_up(RENEWED);
    world
}

/// The same, and users are on the second stack.
fn moved() -> World {
    let mut world = renewed();
    world.serve(&[(RENEWED, 100)]);
    world
}

#[test]
fn a_renewal_is_the_same_release_with_the_capacity_of_now_under_the_next_number() {
    let mut world = given(Named::Serving);
    let mut wider = definition();
    wider.capacity.nodes = 3;
    let said = world.ask(apply(wider)).notes.join("");
    assert_eq!(
        said,
        "what runs in production keeps its old capacity; `ionledger renew api --roll` starts a stack with the new one"
    );
    let before = world.stack_state(V1).clone();
    let decision = world.ask(renew(false));
    let requested = events_of(&decision, "stack.requested");
    let [Event::Stack(stack::Event::Requested(requested))] = requested[..] else { panic!("{decision:?}") };
    assert_eq!((requested.version.as_str(), requested.number, requested.capacity.nodes), (V1, 2, 3));
    assert_eq!((&requested.artifact, &requested.run), (&before.artifact, &before.run));
    assert_eq!((before.number, before.capacity.nodes), (1, 1), "the one that serves is left as it is");
}

#[test]
fn without_a_version_it_is_the_one_that_users_are_on_and_what_cannot_be_renewed_is_refused() {
    let mut world = given(Named::Warm);
    let of = |text: &str| {
        Command::Renew(command::Renew { deployment: id(), version: Some(version(text)), then_roll: None, again: false })
    };
    world.serve(&[(V1, 60), (V2, 40)]);
    let said = refused(&world, &renew(false));
    assert_eq!(said, "users of production/api are on 1.0.0 and 1.1.0; name the version to renew");
    assert!(world.decide(&of(V2)).is_ok());
    let said = refused(&world, &of(V3));
    assert!(said.contains("1.2.0 is not ready: it has no stack; make one with `ionledger new api 1.2.0`"), "{said}");
    assert!(matches!(world.decide(&of("9.9.9")), Err(Rejection::Unknown { .. })));
    let said = refused(&given(Named::Ready), &renew(false));
    assert_eq!(said, "production/api has no users; name the version to renew");
}

#[test]
fn a_version_is_the_name_of_its_first_stack_and_a_number_that_of_another() {
    let mut world = renewed();
    world.deploy(V2);
    let found = |text: &str| world.deployment().stack_named(&stack_name(text)).unwrap().map(|(id, _)| id);
    assert_eq!(found(RENEWED), Some(world.stack(RENEWED)));
    assert_eq!(world.deployment().name_of(found(V1).unwrap()).unwrap().to_string(), V1);
    assert_eq!(found(AGAIN), None);
    let said = refused(&world, &traffic(&[(AGAIN, 100)], false));
    assert!(
        said.ends_with("1.0.0~3 is not ready: it has no stack; the stacks of that version are 1.0.0, 1.0.0~2"),
        "{said}"
    );
    let said = refused(&world, &roll(RENEWED, V2));
    assert_eq!(said, "1.0.0 has the traffic of production/api, not 1.0.0~2; roll from 1.0.0");
    let said = refused(&world, &traffic(&[(V1, 50), (V1, 50)], false));
    assert_eq!(said, "version 1.0.0 is named twice");
    assert!(world.decide(&traffic(&[(V1, 50), (RENEWED, 50)], false)).is_ok());
}

#[test]
fn while_the_first_stack_is_gone_a_version_means_the_only_other_one_and_of_several_none() {
    let mut world = moved();
    let first = world.deployment().stack_named(&stack_name(V1)).unwrap().unwrap().0;
    world.ask(renew(false));
    world.bring_up(AGAIN);
    world.serve(&[(AGAIN, 100)]);
    world.serve(&[(RENEWED, 50), (AGAIN, 50)]);
    world.pass_ms(2 * 24 * 3_600_000);
    world.report(DeploymentOutcome::StartCollection(outcome::StartCollection {
        stack: first,
        reason: "unused".to_owned(),
    }));
    let refused = world.decide(&traffic(&[(V1, 100)], false)).unwrap_err();
    let said = "1.0.0 names several stacks of production/api: 1.0.0~2, 1.0.0~3; name one of them";
    assert_eq!(refused.to_string(), said);
    world.serve(&[(RENEWED, 100)]);
    let renewed = world.stack(RENEWED);
    let third = world.stack(AGAIN);
    world.pass_ms(2 * 24 * 3_600_000);
    world.report(DeploymentOutcome::StartCollection(outcome::StartCollection {
        stack: third,
        reason: "unused".to_owned(),
    }));
    let found = world.deployment().stack_named(&stack_name(V1)).unwrap();
    assert_eq!(found.map(|(id, _)| id), Some(renewed));
}

#[test]
fn a_renewal_that_is_worse_comes_back_to_the_stack_before_it_and_is_rejected_alone() {
    let mut world = renewed();
    world.ask(roll(V1, RENEWED));
    world.begin();
    world.report(world.next_step((0, 0), (0, 0)));
    assert_eq!(target_of(&world).as_deref(), Some(V1));
    world.send_back();
    assert_eq!(world.weights().into_iter().collect::<Vec<_>>(), [(V1.to_owned(), 100)]);
    assert_eq!(held_against(&world, RENEWED), Some(RejectionCause::RolledBack));
    let said = refused(&world, &roll(V1, RENEWED));
    assert!(said.contains("1.0.0~2 is rejected since a rollback at"), "{said}");
    assert!(rejected::of_version(world.deployment(), &version(V1)).is_none(), "the release is in good standing");
    let renewed_again = world.ask(renew(true));
    assert!(kinds(&renewed_again).contains(&"rollout.requested"), "{renewed_again:?}");
}

#[test]
fn a_rollback_of_a_renewal_that_has_all_users_returns_to_the_stack_before_it_and_rejects_that_one_alone() {
    let mut world = moved();
    assert_eq!(target_of(&world).as_deref(), Some(V1));
    let decision = world.ask(rollback());
    assert_eq!(kinds(&decision), ["traffic.rolled_back", "traffic.weights_set", "hold.set"]);
    assert_eq!(world.weights().into_iter().collect::<Vec<_>>(), [(V1.to_owned(), 100)]);
    assert_eq!(held_against(&world, RENEWED), Some(RejectionCause::RolledBack));
    assert!(world.deployment().holds.values().all(|hold| hold.reason.starts_with("1.0.0~2 was rolled back")));
    assert_eq!(target(world.deployment()), None, "no rollback goes forward to it");
}

/// The fault that a renewal brings with it: once its older stack is gone, a mark against a renewal must not count for the
/// release, which held all traffic and was never at fault.
#[test]
fn a_release_whose_renewal_was_rolled_back_is_a_rollback_target_also_once_its_stack_is_gone() {
    let mut world = moved();
    world.ask(rollback());
    let first = world.deployment().traffic.set.as_ref().unwrap().weights.sole().unwrap();
    world.deploy(V2);
    world.serve(&[(V2, 100)]);
    world.deploy(V3);
    world.serve(&[(V3, 100)]);
    world.pass_ms(2 * 24 * 3_600_000);
    world.report(DeploymentOutcome::StartCollection(outcome::StartCollection {
        stack: first,
        reason: "unused".to_owned(),
    }));
    world.fall_ill(V2);
    let gone = target(world.deployment());
    assert!(matches!(&gone, Some(Target::Gone { version, .. }) if version.as_str() == V1), "{gone:?}");
    let decision = world.ask(rollback());
    let requested = events_of(&decision, "stack.requested");
    let [Event::Stack(stack::Event::Requested(requested))] = requested[..] else { panic!("{decision:?}") };
    assert_eq!(requested.number, 3, "a number is used once");
}

#[test]
fn traffic_by_hand_to_the_stack_before_a_renewal_rejects_the_renewal_alone() {
    let mut world = moved();
    let decision = world.ask(traffic(&[(V1, 100)], false));
    assert_eq!(kinds(&decision), ["traffic.rejected", "traffic.weights_set"]);
    assert_eq!(held_against(&world, RENEWED), Some(RejectionCause::Left));
    assert!(rejected::of_version(world.deployment(), &version(V1)).is_none());
    assert!(refused(&world, &traffic(&[(RENEWED, 100)], false)).contains("left by hand for the older 1.0.0)"));
}

#[test]
fn a_rollback_never_goes_to_the_stack_that_it_leaves() {
    let mut world = moved();
    let first = rollback::target(world.deployment()).unwrap().stack().unwrap();
    world.pass_ms(2 * 24 * 3_600_000);
    world.ask(renew(false));
    world.bring_up(AGAIN);
    world.serve(&[(AGAIN, 100)]);
    world.serve(&[(RENEWED, 100)]);
    world.pass_ms(2 * 24 * 3_600_000);
    world.report(DeploymentOutcome::StartCollection(outcome::StartCollection {
        stack: world.stack(AGAIN),
        reason: "unused".to_owned(),
    }));
    assert_eq!(target(world.deployment()).and_then(|target| target.stack()), Some(first));
}

#[test]
fn a_waiting_rollout_never_goes_back_to_an_older_stack_of_the_release_that_serves() {
    let mut world = given(Named::Serving);
    world.ask(renew(true));
    let waiting = world.stack(RENEWED);
    world.ask(renew(false));
    world.bring_up(AGAIN);
    world.serve(&[(AGAIN, 100)]);
    assert_eq!(world.deployment().waiting, None);
    let dropped = world.deployment().dropped.last().unwrap();
    let told = (dropped.stack, dropped.number, dropped.reason.as_str());
    assert_eq!(told, (waiting, 2, "1.0.0~3, which was asked for later, serves"));
    world.bring_up(RENEWED);
    let older = world.decide_by(ActorKind::Pipeline, &roll(AGAIN, RENEWED)).unwrap_err();
    assert!(matches!(older, Rejection::Older { .. }), "{older}");
}

#[test]
fn a_newer_renewal_takes_the_place_of_one_that_waits() {
    let mut world = given(Named::Serving);
    world.ask(renew(true));
    let twice = world.decide(&renew(true)).unwrap();
    assert_eq!(twice.stack, Some(world.stack(RENEWED)), "who waits for it knows for which stack");
    assert_eq!((twice.events, twice.notes.join("")), (vec![], "production/api 1.0.0~2 is starting already".to_owned()));
    world.bring_up(RENEWED);
    let decision = world.ask(renew(true));
    assert_eq!(kinds(&decision), ["stack.requested", "rollout.request_dropped", "rollout.requested"]);
    world.bring_up(AGAIN);
    let stack = world.stack(AGAIN);
    world.report(DeploymentOutcome::StartRequestedRollout(outcome::StartRequestedRollout { stack }));
    let rollout = world.deployment().rollout.clone().unwrap();
    assert_eq!((rollout.canary, world.deployment().name_of(rollout.baseline)), (stack, Some(stack_name(V1))));
}

#[test]
fn a_persons_renewal_is_not_held() {
    let mut world = given(Named::Serving);
    world.ask(hold(None));
    world.ask(renew(true));
    assert!(world.deployment().waiting.as_ref().unwrap().by_hand);
}

#[test]
fn dismiss_takes_a_version_for_all_of_its_failed_stacks_and_a_name_for_one() {
    let mut world = given(Named::Serving);
    world.ask(renew(false));
    let stack = world.stack(RENEWED);
    world.report(DeploymentOutcome::StackFailed(outcome::StackFailed { stack, reason: "no program".to_owned() }));
    let said = refused(&world, &dismiss(AGAIN));
    assert_eq!(said, "stack production/api 1.0.0~3 is unknown; shown as failed: 1.0.0~2", "it never was");
    for name in [V1, RENEWED] {
        assert_eq!(kinds(&world.decide(&dismiss(name)).unwrap()), ["stack.dismissed"]);
    }
    let again = Command::Renew(command::Renew {
        deployment: id(),
        version: None,
        then_roll: Some(PlanAsked::default()),
        again: false,
    });
    world.ask(again);
    assert_eq!(world.stack_state(AGAIN).number, 3, "the number of a failed stack is not used again");
}

#[test]
fn no_name_is_used_again_whatever_became_of_the_stack() {
    let mut world = given(Named::Serving);
    let name_of_next = |world: &mut World| {
        let decision = world.ask(renew(false));
        let requested = events_of(&decision, "stack.requested");
        let [Event::Stack(stack::Event::Requested(requested))] = requested[..] else { panic!("{decision:?}") };
        (requested.number, requested.stack)
    };
    let (number, second) = name_of_next(&mut world);
    assert_eq!(number, 2);
    let reason = "no program".to_owned();
    world.report(DeploymentOutcome::StackFailed(outcome::StackFailed { stack: second, reason }));
    world.ask(Command::Dismiss(command::Dismiss { deployment: id(), version: RENEWED.parse().unwrap() }));
    assert_eq!(name_of_next(&mut world).0, 3, "history knows the second one");
}

#[test]
fn a_renewal_of_a_rejected_release_names_the_stack_that_was_rolled_back_from() {
    let mut world = given(Named::Warm);
    world.ask(Command::Renew(command::Renew {
        deployment: id(),
        version: Some(version(V2)),
        then_roll: None,
        again: false,
    }));
    world.bring_up("1.1.0~2");
    world.serve(&[("1.1.0~2", 100)]);
    world.ask(rollback());
    let again = Command::Renew(command::Renew {
        deployment: id(),
        version: Some(version(V2)),
        then_roll: Some(PlanAsked::default()),
        again: false,
    });
    let said = refused(&world, &again);
    assert!(said.starts_with("production/api 1.1.0~2 is rejected since a rollback at "), "{said}");
}

#[test]
fn a_renewal_that_is_refused_names_the_commands_that_help() {
    let mut world = World::released();
    let said = refused(&world, &renew(true));
    assert!(said.ends_with("make its first stack with `ionledger new api 1.2.0 --env production`"), "{said}");
    world.deploy(V1);
    world.serve(&[(V1, 100)]);
    world.deploy(V2);
    world.serve(&[(V2, 100)]);
    let of_first = Some(version(V1));
    let older = Command::Renew(command::Renew {
        deployment: id(),
        version: of_first,
        then_roll: Some(PlanAsked::default()),
        again: false,
    });
    let said = refused(&world, &older);
    assert!(said.ends_with("with `ionledger renew api 1.0.0` and then `ionledger roll`"), "{said}");
    let said = refused(&world, &new_then_roll(V1));
    assert!(said.ends_with("a person may go back with `ionledger roll`"), "its stack is there: {said}");
    world.ask(retire());
    let said = refused(&world, &renew(false));
    assert_eq!(said, "production/api has no running version to renew; start it with `ionledger new api 1.1.0`");
}

#[test]
fn nobody_is_told_to_start_a_rejected_version() {
    let mut world = World::serving_one_warm_one();
    world.serve(&[(V2, 100)]);
    world.ask(rollback());
    world.ask(retire());
    let said = refused(&world, &renew(false));
    assert!(said.ends_with("start it with `ionledger new api 1.0.0`"), "{said}");
}
