//! A run: trouble until enough has happened, then an hour without, and what came of it.

use crate::checks::Broken;
use crate::rules::Rules;
use crate::tally::Tally;
use crate::world::{HOUR, MINUTE, World};

/// What came of a run.
pub struct Outcome {
    /// A hash of everything that happened, and of the log.
    pub hash: u64,
    pub tally: Tally,
    pub broken: Option<Broken>,
}

/// Runs a seed.
pub fn run(seed: u64, rules: Rules) -> Outcome {
    let mut world = World::new(seed, rules, false);
    go(&mut world);
    outcome(&world)
}

/// Runs a seed and returns the end of its trace too.
pub fn traced(seed: u64, rules: Rules) -> (Outcome, String) {
    let mut world = World::new(seed, rules, true);
    go(&mut world);
    (outcome(&world), world.trace.tail())
}

fn outcome(world: &World) -> Outcome {
    let checks = &world.checks;
    let mut tally = world.tally.clone();
    (tally.commits, tally.voids) = (checks.commits, checks.voids);
    (tally.rollouts, tally.rollbacks) = (checks.rollouts, checks.rollbacks);
    (tally.late_steps, tally.bakes) = (checks.late_steps, checks.bakes);
    tally.asked_about_past = checks.asked_about_past;
    tally.hours = world.now / HOUR;
    Outcome { hash: world.trace.hash(), tally, broken: checks.broken.clone() }
}

fn go(world: &mut World) {
    while world.now < 30 * MINUTE || (!is_enough(world) && world.now < 6 * HOUR) {
        if !world.step() {
            return;
        }
    }
    world.heal();
    let end = world.now + HOUR;
    while world.now < end {
        if !world.step() {
            return;
        }
    }
    let now = world.now;
    world.checks.converged(&world.cloud, &world.people, now);
    if let Some(intent) = world.hosts.iter().flat_map(|host| host.intents.values()).map(|kept| &kept.intent).next() {
        let (what, id) = (&intent.deployment, intent.command.id);
        world.checks.fail(9, format!("the rollback {id} of {what} without the ledger was never recorded"));
    }
    world.checks.refold(&world.log);
    world.checks.past(&world.log, &world.rules);
    let root = world.log.last().tree().root();
    world.trace.add(now, format_args!("the root is {root:?}"));
}

fn is_enough(world: &World) -> bool {
    let checks = &world.checks;
    checks.commits >= 200 && world.tally.crashes >= 20 && checks.rollouts >= 3 && checks.rollbacks >= 1
}
