//! What is held against a stack: where it comes from, what it keeps from happening, and what clears it.

use schemas::Fence;

use super::super::rejected::{self, RejectionCause};
use super::super::rollback::target;
use super::named::{Named, given};
use crate::decision::Rejection;
use crate::kit::*;

fn held_against(world: &World, text: &str) -> Option<RejectionCause> {
    rejected::of(world.deployment(), world.stack(text)).map(|rejected| rejected.how)
}

fn target_of(world: &World) -> Option<String> {
    let stack = target(world.deployment())?.stack().expect("it is warm");
    world.deployment().version_of(stack).map(ToString::to_string)
}

fn refused(world: &World, command: &schemas::command::Command) -> String {
    world.decide(command).unwrap_err().to_string()
}

#[test]
fn a_version_that_was_left_by_hand_for_an_older_release_is_no_target_and_needs_again() {
    let mut world = given(Named::Completed);
    let decision = world.ask(traffic(&[(V1, 100)], false));
    assert_eq!(kinds(&decision), ["traffic.rejected", "traffic.weights_set"]);
    assert_eq!(held_against(&world, V2), Some(RejectionCause::Left));
    assert_eq!(target(world.deployment()), None, "a rollback goes forward again");
    for command in [traffic(&[(V2, 100)], false), traffic(&[(V1, 99), (V2, 1)], false), roll(V1, V2)] {
        let said = refused(&world, &command);
        assert!(
            said.contains("1.1.0 is rejected since a move to an older release at 2026-11-01T")
                && said.contains("`--again --reason WHY`"),
            "{said}"
        );
        assert!(world.decide(&again(command)).is_ok());
    }
}

#[test]
fn so_is_one_that_a_rollout_by_hand_or_a_promotion_left_for_an_older_release() {
    for promoted in [false, true] {
        let mut world = given(Named::Completed);
        world.ask(roll(V2, V1));
        world.begin();
        world.report(world.next_step((0, 0), (0, 0)));
        if promoted {
            world.ask(promote());
        } else {
            world.step();
            world.step();
            world.applied();
        }
        assert_eq!(held_against(&world, V2), Some(RejectionCause::Left), "promoted: {promoted}");
        assert_eq!(target(world.deployment()), None);
    }
}

#[test]
fn a_version_that_is_left_for_a_newer_release_is_the_target() {
    let mut world = given(Named::Completed);
    world.deploy(V3);
    assert_eq!(kinds(&world.ask(traffic(&[(V3, 100)], false))), ["traffic.weights_set"]);
    assert_eq!((held_against(&world, V2), target_of(&world).as_deref()), (None, Some(V2)));
}

/// Older is what was recorded earlier, whatever the versions are called.
#[test]
fn the_text_of_a_version_says_nothing_of_its_age() {
    let mut world = World::empty();
    world.ask(apply(definition()));
    for text in [V2, V1] {
        world.ask(release(text));
        world.deploy(text);
        world.serve(&[(text, 100)]);
    }
    assert_eq!(target_of(&world).as_deref(), Some(V2), "1.0.0 was recorded after 1.1.0");
    world.ask(traffic(&[(V2, 100)], false));
    assert_eq!((held_against(&world, V1), target(world.deployment())), (Some(RejectionCause::Left), None));
}

#[test]
fn part_by_part_a_version_is_left_for_an_older_one_all_the_same() {
    let mut world = given(Named::Completed);
    world.serve(&[(V1, 50), (V2, 50)]);
    assert_eq!(held_against(&world, V2), None, "it has half of the traffic");
    world.serve(&[(V1, 100)]);
    assert_eq!(held_against(&world, V2), Some(RejectionCause::Left));
}

#[test]
fn a_version_that_served_when_its_deployment_was_retired_is_left_too_when_an_older_one_is_chosen() {
    let mut world = given(Named::Completed);
    world.ask(retire());
    world.ask(traffic(&[(V1, 100)], false));
    assert_eq!((held_against(&world, V2), target(world.deployment())), (Some(RejectionCause::Left), None));
}

#[test]
fn a_canary_that_is_given_up_by_traffic_to_its_older_baseline_is_rejected() {
    let mut world = given(Named::AtStep);
    let decision = world.ask(traffic(&[(V1, 100)], false));
    assert_eq!(kinds(&decision), ["rollout.aborted", "traffic.rejected", "traffic.weights_set"]);
    assert_eq!(held_against(&world, V2), Some(RejectionCause::Left));
}

#[test]
fn one_that_was_judged_worse_or_rolled_back_from_is_rejected() {
    for named in [Named::CameBack, Named::RolledBack] {
        let world = given(named);
        assert_eq!(held_against(&world, V2), Some(RejectionCause::RolledBack), "{named:?}");
        assert!(refused(&world, &roll(V1, V2)).contains("1.1.0 is rejected since a rollback at"), "{named:?}");
    }
}

#[test]
fn an_aborted_one_is_never_a_target_and_needs_no_again() {
    let mut world = given(Named::Completed);
    world.deploy(V3);
    world.serve(&[(V3, 100)]);
    world.ask(roll(V3, V2));
    world.begin();
    world.report(world.next_step((0, 0), (0, 0)));
    world.ask(abort());
    assert_eq!((held_against(&world, V2), target_of(&world).as_deref()), (Some(RejectionCause::Aborted), Some(V1)));
    assert!(world.decide(&roll(V3, V2)).is_ok() && world.decide(&traffic(&[(V2, 100)], false)).is_ok());
}

#[test]
fn an_abort_takes_nothing_back_that_was_held_against_a_stack_before() {
    let mut world = given(Named::RolledBack);
    world.ask(again(roll(V1, V2)));
    world.ask(abort());
    assert_eq!(held_against(&world, V2), Some(RejectionCause::RolledBack));
}

#[test]
fn all_traffic_clears_it_and_a_part_does_not() {
    let clear = |world: &World| held_against(world, V2).is_none();
    let mut by_hand = given(Named::RolledBack);
    by_hand.ask(again(traffic(&[(V1, 50), (V2, 50)], false)));
    assert!(!clear(&by_hand));
    by_hand.ask(again(traffic(&[(V2, 100)], false)));
    assert!(clear(&by_hand));

    let mut promoted = given(Named::StartedAfterRollback);
    assert!(!clear(&promoted));
    promoted.ask(promote());
    assert!(clear(&promoted));

    let mut completed = given(Named::StartedAfterRollback);
    completed.report(completed.next_step((0, 0), (0, 0)));
    completed.applied();
    completed.step();
    completed.step();
    assert!(!clear(&completed), "the router has not confirmed it");
    completed.applied();
    assert!(clear(&completed));
}

#[test]
fn a_version_that_is_deployed_again_is_no_better_for_it() {
    let mut world = given(Named::RolledBack);
    world.collect(V2);
    assert!(refused(&world, &new_then_roll(V2)).contains("1.1.0 is rejected since a rollback at"));
    assert!(world.decide(&again(new_then_roll(V2))).is_ok());
    world.deploy(V2);
    assert_eq!(held_against(&world, V2), Some(RejectionCause::RolledBack));
    world.ask(again(traffic(&[(V2, 100)], false)));
    assert_eq!(held_against(&world, V2), None);
}

#[test]
fn if_every_older_one_is_rejected_a_rollback_lists_each_with_its_reason_and_the_command_that_overrules() {
    let mut world = given(Named::RolledBack);
    world.deploy(V3);
    world.ask(traffic(&[(V3, 100)], false));
    world.ask(again(traffic(&[(V2, 100)], false)));
    world.ask(traffic(&[(V1, 100)], false));
    let Err(Rejection::AllRejected { rejected, .. }) = world.decide(&rollback()) else { panic!("it goes somewhere") };
    let overrules = |text: &str| format!("`ionledger traffic api {text} 100 --again --reason WHY` overrules that");
    assert!(rejected.contains(&overrules(V2)) && rejected.contains(&overrules(V3)), "{rejected}");
    assert!(
        rejected.contains("1.2.0 is rejected since a move to an older release at") && rejected.contains("older 1.1.0"),
        "{rejected}"
    );
    assert!(!rejected.contains(&overrules(V1)), "it serves: {rejected}");
}

#[test]
fn what_ends_a_wait_for_a_rollbacks_target_at_what_was_rolled_back_from_needs_again() {
    let world = given(Named::Awaiting);
    assert_eq!(world.deployment().traffic.fence, Fence(2));
    assert!(refused(&world, &traffic(&[(V2, 100)], false)).contains("`--again --reason WHY`"));
}

#[test]
fn weights_that_are_set_already_need_no_again() {
    let mut world = given(Named::RolledBack);
    world.ask(again(traffic(&[(V1, 50), (V2, 50)], false)));
    assert_eq!(world.decide(&traffic(&[(V1, 50), (V2, 50)], false)).unwrap().events, []);
    assert!(world.decide(&traffic(&[(V1, 60), (V2, 40)], false)).is_ok(), "it gets no more");
    assert!(world.decide(&traffic(&[(V1, 40), (V2, 60)], false)).is_err());
}

#[test]
fn again_needs_a_reason() {
    let command = again(traffic(&[(V2, 100)], false));
    for reason in [None, Some(""), Some("  ")] {
        let said = crate::decide::check_reason(&command, reason).unwrap_err().to_string();
        assert_eq!(said, "`--again` needs a reason, which is kept for ever; add `--reason WHY`");
    }
    assert_eq!(crate::decide::check_reason(&command, Some("it was mended")), Ok(()));
    assert_eq!(crate::decide::check_reason(&rollback(), None), Ok(()));
}
