//! Bakes: the time after the last step but one.

use schemas::command;

use super::*;

/// A rollout of 5, 10, 50, 90 and 100 % in 900 s, with a bake of an hour at 90 %.
fn at_step_of_a_bake(change: impl FnOnce(&mut Definition)) -> World {
    at_step(|definition| {
        definition.policy.rollout.bake_ms = 3_600_000;
        definition.policy.rollout.control = percent(10);
        change(definition);
    })
}

#[test]
fn a_bake_is_a_step_of_all_but_the_control_after_the_plans_duration() {
    let mut world = at_step_of_a_bake(|_| ());
    let (started, plan) = {
        let rollout = world.deployment().rollout.as_ref().unwrap();
        (rollout.started_at, rollout.plan.clone())
    };
    assert_eq!(plan.steps, [5, 10, 50, 90, 100].map(percent));
    assert_eq!([1, 2, 3, 4].map(|step| plan.due_ms(step)), [300_000, 600_000, 900_000, 4_500_000]);
    good(&mut world, 200);
    go_on(&mut world);
    let took = seconds_since(started, world.time);
    assert!((4_500..=4_506).contains(&took), "{took} s");
}

#[test]
fn early_does_not_shorten_a_bake_and_begins_it_when_all_traffic_would_be_given() {
    let mut world = at_step_of_a_bake(|definition| definition.policy.rollout.early_after_ms = Some(60_000));
    let started = world.time;
    good(&mut world, 200);
    while !world.deployment().rollout.as_ref().unwrap().is_baking() {
        if gate_of(&world) == Gate::Open {
            world.report(world.next_step((90, 0), (10, 0)));
            world.applied();
            good(&mut world, 1);
        } else {
            world.pass_ms(1_000);
        }
        assert!(seconds_since(started, world.time) < 100, "{:?}", gate_of(&world));
    }
    let began = seconds_since(started, world.time);
    assert!((59..=62).contains(&began), "{began} s");
    go_on(&mut world);
    let took = seconds_since(started, world.time);
    assert!((3_659..=3_664).contains(&took), "{took} s");
}

#[test]
fn a_bake_begins_by_the_deadline_and_is_judged_on() {
    let mut world = at_step_of_a_bake(strict);
    for _ in 0..2 {
        good(&mut world, 60);
        world.pass_ms(450_000);
        world.report(world.next_step((90, 0), (10, 0)));
        world.applied();
    }
    good(&mut world, 60);
    world.pass_ms(300_000);
    assert_eq!(gate_of(&world), Gate::Open, "not worse at the plan's end");
    world.report(world.next_step((90, 0), (10, 0)));
    world.applied();
    assert!(world.deployment().rollout.as_ref().unwrap().is_baking());
    assert_eq!(kinds(&world.send_back())[2..], ["traffic.rolled_back", "traffic.weights_set", "rollout.came_back"]);
    assert_eq!(world.weights(), [(V1.to_owned(), 100)].into());

    let mut holding = at_step_of_a_bake(|definition| {
        strict(definition);
        definition.policy.judgement.deadline = Deadline::Hold;
        definition.policy.rollout.steps = [10, 100].map(percent).to_vec();
    });
    good(&mut holding, 60);
    holding.pass_ms(900_000);
    assert_eq!(held(&holding), "the plan is at its end and the canary is not accepted; the policy says hold");
}

#[test]
fn the_soak_must_be_over_before_a_bake_ends_and_nobody_driving_it_is_no_baking() {
    let mut world = at_step_of_a_bake(|definition| {
        definition.policy.rollout.steps = [10, 100].map(percent).to_vec();
        definition.policy.rollout.bake_ms = 60_000;
        definition.policy.judgement.soak_ms = 960_000;
        definition.policy.rollout.duration_ms = 900_000;
    });
    good(&mut world, 200);
    world.pass_ms(900_000);
    world.report(world.next_step((90, 0), (10, 0)));
    world.applied();
    good(&mut world, 10);
    world.pass_ms(50_000);
    let rollout = world.deployment().rollout.as_ref().unwrap().id;
    world.report(DeploymentOutcome::DriveAgain(outcome::DriveAgain { rollout }));
    world.pass_ms(11_000);
    assert!(matches!(gate_of(&world), Gate::NotBefore(_)), "for 50 s nobody judged it");
    world.pass_ms(50_000);
    assert_eq!(gate_of(&world), Gate::Open);
}

#[test]
fn a_plan_of_one_step_gets_no_bake_and_says_so_and_steps_above_it_are_replaced_by_it() {
    let mut world = given(Named::Warm);
    let mut definition = definition();
    definition.policy.rollout.bake_ms = 60_000;
    world.ask(apply(definition));
    let asked = |steps: &[u16]| {
        let plan = PlanAsked { steps: Some(steps.iter().copied().map(percent).collect()), ..PlanAsked::default() };
        Command::Roll(command::Roll {
            deployment: id(),
            from: stack_name(V1),
            to: stack_name(V2),
            plan,
            supersede: false,
            again: false,
        })
    };
    let started = |world: &World, steps: &[u16]| {
        let decision = world.decide(&asked(steps)).unwrap();
        let [Event::Rollout(rollout::Event::Started(started))] = events_of(&decision, "rollout.started")[..] else {
            panic!("{decision:?}")
        };
        (started.plan.steps.iter().map(|step| step.basis_points() / 100).collect::<Vec<_>>(), decision.notes.clone())
    };
    let (steps, notes) = started(&world, &[100]);
    let said = "a plan of one step gets no bake; with two steps or more it gets the policy's, 1m";
    assert_eq!((steps, notes[1].as_str()), (vec![100], said));
    let replaced = "the bake at 95 % takes the place of the plan's 98 %: until it is over the old version keeps 5 %";
    assert_eq!(started(&world, &[50, 95, 98, 100]), (vec![50, 95, 100], vec![replaced.to_owned()]));
    assert_eq!(started(&world, &[98, 100]), (vec![95, 100], vec![replaced.to_owned()]));
    assert_eq!(started(&world, &[50, 95, 100]), (vec![50, 95, 100], vec![]));
    assert_eq!(started(&world, &[50, 100]), (vec![50, 95, 100], vec![]));
}

#[test]
fn a_rollout_that_is_asked_for_with_its_stack_bakes_too_or_says_that_it_does_not() {
    let mut world = given(Named::Warm);
    let mut definition = definition();
    definition.policy.rollout.bake_ms = 60_000;
    world.ask(apply(definition));
    world.ask(release(V3));
    let asked = |steps: &[u16]| {
        let plan = PlanAsked { steps: Some(steps.iter().copied().map(percent).collect()), ..PlanAsked::default() };
        Command::New(command::New { deployment: id(), version: version(V3), then_roll: Some(plan), again: false })
    };
    let decided = |steps: &[u16]| {
        let decision = world.decide(&asked(steps)).unwrap();
        let [Event::Rollout(rollout::Event::Requested(requested))] = events_of(&decision, "rollout.requested")[..]
        else {
            panic!("{decision:?}")
        };
        (requested.plan.clone(), decision.notes.clone())
    };
    let (plan, notes) = decided(&[100]);
    assert!(
        plan.bake_ms == 0 && notes.iter().any(|note| note.starts_with("a plan of one step gets no bake")),
        "{notes:?}"
    );
    let (plan, notes) = decided(&[50, 100]);
    assert_eq!((plan.steps, plan.bake_ms, notes), ([50, 95, 100].map(percent).to_vec(), 60_000, vec![]));
}

/// A rollout of 10, 90 and 100 % that has just begun to bake.
fn baking() -> World {
    let mut world = at_step_of_a_bake(|definition| definition.policy.rollout.steps = [10, 100].map(percent).to_vec());
    good(&mut world, 200);
    world.pass_ms(900_000);
    world.report(world.next_step((90, 0), (10, 0)));
    world.applied();
    good(&mut world, 10);
    assert!(world.deployment().rollout.as_ref().unwrap().is_baking());
    world
}

#[test]
fn a_pause_does_not_count_as_baking_and_a_promotion_ends_it() {
    let mut world = baking();
    world.pass_ms(1_800_000);
    world.ask(pause());
    assert!(world.deployment().rollout.as_ref().unwrap().is_baking(), "paused, it still has its control");
    world.pass_ms(7_200_000);
    world.ask(resume());
    assert!(
        matches!(gate_of(&world), Gate::NotBefore(at) if (1_795..=1_800).contains(&seconds_since(world.time, at))),
        "{:?}",
        gate_of(&world)
    );
    let decision = world.ask(promote());
    assert!(!events_of(&decision, "rollout.promoted").is_empty(), "{decision:?}");
    assert_eq!(world.weights(), [(V2.to_owned(), 100)].into());
}

#[test]
fn a_bakes_control_is_the_baseline_to_which_everything_goes_back() {
    for command in [abort(), rollback()] {
        let mut world = baking();
        assert_eq!(world.weights(), [(V1.to_owned(), 10), (V2.to_owned(), 90)].into());
        world.ask(command);
        assert_eq!(world.weights(), [(V1.to_owned(), 100)].into());
    }
    let refused = baking().decide(&traffic(&[(V1, 50), (V2, 50)], false)).unwrap_err().to_string();
    assert!(refused.contains("--supersede"), "{refused}");
}
