//! Probes: what a rollback is told of the stacks that it is about, and targets that die just then.

use ledger::View;
use ledger::decide::asks_probes;
use ledger::deployment::{Deployment, Stack, rollback};
use ledger::execute::{Asked, What};
use schemas::command::{self, Command};
use schemas::envelope::Draft;
use schemas::outcome::{self, DeploymentOutcome, Outcome};
use schemas::traffic::{self, Purpose};
use schemas::{EffectId, Event, Probed, StackId};
use workers::checks::Probe;

use crate::world::{MINUTE, SECOND, World};

impl World {
    /// Tells a command or an outcome that asks for it what the newest probes say. Now and then a stack cannot be asked.
    pub fn probe_for(&mut self, asked: &mut Asked, view: &View) {
        let Some(of) = asked.deployment().and_then(|id| view.state().deployment(id)) else { return };
        let probed = match &mut asked.what {
            What::Command { command, probed, .. } if asks_probes(command) => probed,
            What::Outcome {
                outcome:
                    Outcome::Deployment(outcome::DeploymentReport {
                        outcome: DeploymentOutcome::SendBack(outcome::SendBack { probed, .. }),
                        ..
                    }),
                ..
            } => probed,
            What::Command { .. } | What::Outcome { .. } | What::BreakGlass { .. } => return,
        };
        *probed = Probed::default();
        for stack in rollback::to_probe(of) {
            let Some(found) = of.stacks.get(&stack).filter(|_| self.calm || !self.dice.chance(60)) else { continue };
            if self.passes(found) {
                probed.passes(stack);
            } else {
                probed.fails(stack, "connection refused".to_owned());
            }
        }
    }

    fn passes(&self, stack: &Stack) -> bool {
        let running = stack.nodes.values().filter(|node| node.address().is_some());
        running.into_iter().any(|node| matches!(self.cloud.probe(node.effect, self.now), Probe::Passed { .. }))
    }

    /// 18: whoever is about to move users moves them from a stack that passes only to one that does, or that could not be
    /// asked.
    pub fn check_going_back(&mut self, asked: &Asked, draft: &Draft, view: &View) {
        let Some((id, of)) = asked.deployment().and_then(|id| Some((id, view.state().deployment(id)?))) else { return };
        let told_of = told(asked);
        let decided_before = asked.command.is_some_and(|command| self.checks.left_the_dead_without(command.id));
        if leaves_the_dead(of, &told_of) || decided_before {
            self.checks.left_the_dead(draft.id);
        }
        let Some(to) = goes_back_to(draft) else { return };
        if !asked.is_unready() {
            self.check_target(&id.to_string(), of, to, &told_of);
        }
    }

    /// The same of a rollback without the ledger.
    pub fn check_target(&mut self, id: &str, of: &Deployment, to: StackId, told: &Probed) {
        let here = |stack: StackId| of.stacks.get(&stack).is_some_and(|found| self.passes(found));
        let users = of.traffic.stacks_set();
        let pass = users.into_iter().find(|stack| *stack != to && told.has_passed(*stack) && here(*stack));
        let fails = told.failure(to).is_some() && !here(to);
        if let Some(from) = pass.filter(|_| fails) {
            self.checks
                .fail(18, format!("a rollback of {id} moves users from {from}, which passes, to {to}, which is dead"));
        }
    }

    /// Every node of a rollback's target dies, none of it starts for a while, and often somebody rolls back just then.
    pub fn kill_a_target(&mut self) {
        let Some(id) = self.dice.pick(&crate::people::deployments()).cloned() else { return };
        let view = self.log.view(self.log.end());
        let Some(of) = view.state().deployment(&id) else { return };
        let Some(target) = rollback::target(of).and_then(|target| of.stacks.get(&target.stack()?)) else { return };
        let until = self.now + self.dice.range(20 * SECOND, 2 * MINUTE);
        self.cloud.doomed.insert(target.artifact.sha256, until);
        let nodes: Vec<EffectId> = target.nodes.values().map(|node| node.effect).collect();
        nodes.into_iter().for_each(|effect| self.die(effect));
        self.trace.add(self.now, format_args!("the rollback target of {id}, {}, is dead for a while", target.version));
        if self.dice.chance(600) {
            let unready = self.dice.chance(100);
            self.ask(Command::Rollback(command::Rollback { deployment: id, unready }), of.traffic.fence);
        }
    }
}

/// What an asked rollback was told.
/// Says whether no stack that users are on passes, by what is told or known of it.
pub fn leaves_the_dead(of: &Deployment, told: &Probed) -> bool {
    let fails = |stack: StackId| told.failure(stack).is_some() || !of.can_be_called(stack);
    of.traffic.set.as_ref().is_some_and(|set| set.weights.iter().all(|(stack, _)| fails(stack)))
}

fn told(asked: &Asked) -> Probed {
    match &asked.what {
        What::Command { probed, .. } => probed.clone(),
        What::Outcome {
            outcome:
                Outcome::Deployment(outcome::DeploymentReport {
                    outcome: DeploymentOutcome::SendBack(outcome::SendBack { probed, .. }),
                    ..
                }),
            ..
        } => probed.clone(),
        What::Outcome { .. } | What::BreakGlass { .. } => Probed::default(),
    }
}

/// The stack that a rollback's commit gives all traffic to, if it moves any.
fn goes_back_to(draft: &Draft) -> Option<StackId> {
    draft.events.iter().find_map(|(_, event)| match event {
        Event::Traffic(traffic::Event::WeightsSet(set))
            if matches!(set.purpose, Purpose::Rollback | Purpose::Abort { .. }) =>
        {
            set.weights.sole()
        }
        _ => None,
    })
}
