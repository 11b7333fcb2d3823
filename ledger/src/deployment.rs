//! A deployment: a service in an environment, with its stacks, traffic and rollout. One consistency boundary.
//!
//! Its concepts have a file each, with state, `evolve` and `decide` together; here they meet.

pub mod failure;
pub mod generation;
pub mod break_glass;
pub mod hold;
mod making;
pub mod name;
pub mod plan;
pub mod rejected;
mod reports;
pub mod retention;
pub mod rollback;
pub mod rollout;
pub mod served;
pub mod stack;
pub mod step;
pub mod stranded;
pub mod traffic;
pub mod waiting;

use std::collections::BTreeMap;

use schemas::break_glass::Intent;
use schemas::command::Command;
use schemas::outcome::DeploymentOutcome;
use schemas::{ActorKind, DeploymentId, EffectId, Event, Probed, StackId, StackName, Stream, StreamVersion, Version};
use serde::{Deserialize, Serialize};

pub use failure::{Failed, Failure};
pub use rollout::Rollout;
pub use stack::{Node, NodePhase, NotReady, Phase, Stack};
pub use traffic::Traffic;
pub use waiting::{Dropped, Waiting};

use crate::at::At;
use crate::decision::{By, Decision, Now, Rejection};
use crate::judgement::Judgements;
use crate::lease::Lease;
use crate::service::Service;

/// A deployment after its events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its stacks that are not collected.
    pub stacks: BTreeMap<StackId, Stack>,
    /// The failed stacks that are collected and that nobody has dealt with yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<StackId, Failed>,
    /// Its traffic.
    pub traffic: Traffic,
    /// Its rollout: the one under way, or the last.
    pub rollout: Option<Rollout>,
    /// The rollout that was asked for with its stack and has not begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Rollouts that were asked for so and will not begin, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<Dropped>,
    /// The number of the last stack of each version that ever had a second one, so that no name is used again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub numbers: BTreeMap<Version, u32>,
    /// Its holds, while it is on hold.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub holds: hold::Holds,
    /// How many commits its stream holds.
    pub version: StreamVersion,
    /// How many break-glass rollbacks there were, as far as the ledger has heard.
    #[serde(default, skip_serializing_if = "is_never")]
    pub emergency_count: u32,
}

fn is_never(count: &u32) -> bool {
    *count == 0
}

/// Returns the deployment after `event`. Total: the ledger has already accepted it.
pub fn evolve(mut deployment: Deployment, event: &Event, at: &At) -> Deployment {
    deployment.version = at.version;
    match event {
        Event::Stack(event) => stack::evolve(&mut deployment, event, at),
        Event::Node(event) => stack::evolve_node(&mut deployment, event, at),
        Event::Traffic(event) => traffic::evolve(&mut deployment, event, at),
        Event::Rollout(event) => {
            waiting::evolve(&mut deployment, event, at);
            rollout::evolve(&mut deployment, event, at);
        }
        Event::Hold(event) => hold::evolve(&mut deployment, event, at),
        Event::Retention(event) => retention::evolve(&mut deployment, event, at),
        // These have streams of their own and mean nothing here.
        Event::Ledger(_) | Event::Service(_) | Event::Release(_) | Event::Judgement(_) | Event::Lease(_) => {}
    }
    deployment
}

/// What a decision about a deployment looks at.
pub(crate) struct Case<'a> {
    pub(crate) id: &'a DeploymentId,
    pub(crate) deployment: &'a Deployment,
    pub(crate) service: &'a Service,
    pub(crate) judgements: Option<&'a Judgements>,
    pub(crate) by: By<'a>,
    /// What the newest probes say of its stacks.
    pub(crate) probed: &'a Probed,
    pub(crate) now: Now,
}

impl Case<'_> {
    pub(crate) fn stream(&self) -> Stream {
        Stream::Deployment(self.id.clone())
    }

    /// Returns the ready stack of a name.
    ///
    /// # Errors
    ///
    /// As [`Case::stack_of`], and [`Rejection::NotReady`] if it is starting, failed or unhealthy.
    pub(crate) fn ready_stack_of(&self, name: &StackName) -> Result<(StackId, &Stack), Rejection> {
        let (id, stack) = self.stack_of(name)?;
        match stack.not_ready() {
            None => Ok((id, stack)),
            Some(not_ready) => Err(not_ready.refused(self.id, stack.name())),
        }
    }
}

impl Deployment {
    /// Returns the generation of whatever is derived from it.
    pub fn generation(&self) -> StreamVersion {
        generation::of(self.emergency_count, self.version)
    }

    /// Hears of a router's generation: what is derived from now on is above it.
    fn heard_of(&mut self, generation: StreamVersion) {
        self.emergency_count = self.emergency_count.max(generation::emergency_count(generation));
    }

    /// Returns the stack and the node of `effect`.
    pub fn node(&self, effect: EffectId) -> Option<(StackId, &Stack, &Node)> {
        self.stacks.iter().find_map(|(id, stack)| {
            stack.nodes.values().find(|node| node.effect == effect).map(|node| (*id, stack, node))
        })
    }
}

/// Decides a command about the case's deployment.
///
/// # Errors
///
/// [`Rejection`], as the command's own file says.
pub(crate) fn decide(case: &Case<'_>, command: &Command) -> Result<Decision, Rejection> {
    let decision = match command {
        Command::New(new) => making::decide_new(case, &new.version, new.then_roll.as_ref(), new.again),
        Command::Renew(renew) => {
            making::decide_renew(case, renew.version.as_ref(), renew.then_roll.as_ref(), renew.again)
        }
        Command::Traffic(traffic) => traffic::decide(case, &traffic.shares, traffic.supersede, traffic.again),
        Command::Roll(roll) => {
            let may = rollout::Roll { supersede: roll.supersede, again: roll.again };
            rollout::decide_roll(case, &roll.from, &roll.to, &roll.plan, may)
        }
        Command::Rollback(rollback) => {
            let decision = rollback::decide(case, rollback.unready)?;
            Ok(waiting::ended_by_rollback(case, hold::after_rollback(case, decision)))
        }
        Command::Pause(_) => rollout::decide_pause(case),
        Command::Resume(_) => rollout::decide_resume(case),
        Command::Abort(_) => {
            let decision = hold::after_going_back(case, rollout::decide_abort(case)?);
            Ok(waiting::behind_abort(case, waiting::ended_by_rollback(case, decision)))
        }
        Command::Promote(_) => rollout::decide_promote(case),
        Command::Hold(hold) => hold::decide_hold(case, hold),
        Command::LiftHold(lift) => hold::decide_lift(case, lift.only),
        Command::Retire(_) => traffic::decide_retire(case),
        Command::Dismiss(dismiss) => failure::decide_dismiss(case, &dismiss.version),
        Command::Apply(_) | Command::Release(_) => Ok(Decision::default()),
    };
    decision.map(|decision| retention::noted(case, waiting::settled(case, decision, false)))
}

/// Decides a worker's conclusion about the case's deployment.
///
/// # Errors
///
/// [`Rejection::Outdated`] if it no longer fits.
pub(crate) fn decide_outcome(case: &Case<'_>, outcome: &DeploymentOutcome) -> Result<Decision, Rejection> {
    let outcome = &outcome.clone().tidied();
    let decision = match outcome {
        DeploymentOutcome::StartLaunch(start) => reports::decide_start_launch(case, start),
        DeploymentOutcome::Launched(launched) => reports::decide_launched(case, launched),
        DeploymentOutcome::LaunchFailed(failed) => reports::decide_launch_failed(case, failed),
        DeploymentOutcome::NodeReady(ready) => reports::decide_node_ready(case, ready),
        DeploymentOutcome::NodeUnhealthy(unhealthy) => reports::decide_node_unhealthy(case, unhealthy),
        DeploymentOutcome::NodeFailing(failing) => reports::decide_node_failing(case, failing),
        DeploymentOutcome::NodeLost(lost) => reports::decide_node_lost(case, lost),
        DeploymentOutcome::NodeStopped(stopped) => reports::decide_node_stopped(case, stopped),
        DeploymentOutcome::StackReady(ready) => reports::decide_stack_ready(case, ready),
        DeploymentOutcome::StackFailed(failed) => reports::decide_stack_failed(case, failed),
        DeploymentOutcome::StackUnhealthy(unhealthy) => reports::decide_stack_unhealthy(case, unhealthy),
        DeploymentOutcome::StackRecovered(recovered) => reports::decide_stack_recovered(case, recovered),
        DeploymentOutcome::WeightsApplied(applied) => {
            traffic::decide_applied(case, applied.generation, &applied.weights, applied.listening)
        }
        DeploymentOutcome::DriftSeen(drift) => traffic::decide_drift(case, &drift.seen, drift.generation),
        DeploymentOutcome::StartRequestedRollout(start) => waiting::decide_start(case, start.stack),
        DeploymentOutcome::EndHold(end) => hold::decide_end(case, end.cause),
        DeploymentOutcome::DropRequest(dropped) => waiting::decide_drop(case, dropped.stack),
        DeploymentOutcome::BeginJudging(begin) => step::decide_begin(case, &begin.begun),
        DeploymentOutcome::Count(count) => step::decide_count(case, &count.counted, count.judged.as_ref()),
        DeploymentOutcome::TakeStep(taken) => step::decide_step(case, taken),
        DeploymentOutcome::Hold(hold) => step::decide_hold(case, hold),
        DeploymentOutcome::DriveAgain(again) => step::decide_drive_again(case, again.rollout),
        DeploymentOutcome::SendBack(back) => {
            let (counted, judged) = (back.counted.as_ref(), back.judged.as_ref());
            rollback::decide_send_back(case, back.rollout, &back.reason, counted, judged)
                .map(|decision| hold::after_going_back(case, decision))
        }
        DeploymentOutcome::StartCollection(start) => retention::decide_start(case, start.stack, &start.reason),
        DeploymentOutcome::Collected(collected) => retention::decide_collected(case, collected.stack),
    };
    let begins = matches!(outcome, DeploymentOutcome::StartRequestedRollout(_));
    decision.map(|decision| waiting::settled(case, decision, begins))
}

/// Decides to record a rollback of the case's deployment that was carried out while the log gave no verdict.
///
/// # Errors
///
/// None.
pub(crate) fn decide_break_glass(
    case: &Case<'_>,
    lease: &Lease,
    intent: &Intent,
    generation: StreamVersion,
    moved: Option<bool>,
) -> Result<Decision, Rejection> {
    let decision = break_glass::decide(case, lease, intent, generation, moved)?;
    let decision = match case.by.kind {
        ActorKind::Worker => hold::after_going_back(case, decision),
        _ => waiting::ended_by_rollback(case, hold::after_rollback(case, decision)),
    };
    Ok(waiting::settled(case, decision, false))
}

#[cfg(test)]
mod tests;
