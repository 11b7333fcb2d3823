//! A deployment: a service in an environment, with its stacks, traffic and rollout. One consistency boundary.
//!
//! Its concepts have a file each, with state, `evolve` and `decide` together; here they meet.

pub mod failure;
pub mod generation;
pub mod glass;
pub mod hold;
mod making;
pub mod name;
pub mod rejected;
pub mod retention;
pub mod rollback;
pub mod rollout;
pub mod stack;
pub mod step;
pub mod stranded;
pub mod traffic;
pub mod waiting;

use std::collections::BTreeMap;

use schemas::command::{Command, DeploymentOutcome};
use schemas::glass::Intent;
use schemas::{
    ActorKind, DeploymentId, EffectId, Event, Fence, Probed, ServiceName, StackId, StackName, Stream, StreamVersion,
    Version,
};
use serde::{Deserialize, Serialize};

pub use failure::{Failed, Failure};
pub use rollout::Rollout;
pub use stack::{Node, NodePhase, Phase, Stack};
pub use traffic::Traffic;
pub use waiting::{Dropped, Waiting};

use crate::decide::{By, Decision, Now, Rejection};
use crate::judgement::Judgements;
use crate::service::Service;
use crate::state::{At, State};

/// A deployment after its events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// How often the glass was broken, as far as the ledger has heard.
    #[serde(default, skip_serializing_if = "is_never")]
    pub glass: u32,
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
            Some(why) => Err(Rejection::NotReady { deployment: self.id.clone(), version: stack.name(), why }),
        }
    }
}

impl Deployment {
    /// Returns the generation of whatever is derived from it.
    pub fn generation(&self) -> StreamVersion {
        generation::of(self.glass, self.version)
    }

    /// Hears of a router's generation: what is derived from now on is above it.
    fn heard_of(&mut self, generation: StreamVersion) {
        self.glass = self.glass.max(generation::glass(generation));
    }

    /// Returns the stack and the node of `effect`.
    pub fn node(&self, effect: EffectId) -> Option<(StackId, &Stack, &Node)> {
        self.stacks.iter().find_map(|(id, stack)| {
            stack.nodes.values().find(|node| node.effect == effect).map(|node| (*id, stack, node))
        })
    }
}

/// Decides a command about a deployment.
///
/// # Errors
///
/// [`Rejection`]: unknown service or deployment first, then the fence, then what the command's own file says.
pub fn decide(
    state: &State,
    command: &Command,
    by: By<'_>,
    fence: Option<Fence>,
    probed: &Probed,
    now: Now,
) -> Result<Decision, Rejection> {
    let Some(id) = command.deployment() else { return Ok(Decision::default()) };
    let unknown = || Rejection::unknown_service(&id.service, state.services.keys());
    let service = state.service(&id.service).ok_or_else(unknown)?;
    let nothing = Deployment::default();
    let deployment = state.deployment(id).unwrap_or(&nothing);
    if state.deployment(id).is_none() && !matches!(command, Command::New { .. }) {
        return Err(unknown_deployment(state, id, command));
    }
    if !matches!(command, Command::Rollback { .. }) {
        check_fence(id, deployment, fence)?;
    }
    let judgements = state.judgements.get(id).map(AsRef::as_ref);
    let case = Case { id, deployment, service, judgements, by, probed, now };
    let decision = match command {
        Command::New { version, then_roll, again, .. } => {
            making::decide_new(&case, version, then_roll.as_ref(), *again)
        }
        Command::Renew { version, then_roll, again, .. } => {
            making::decide_renew(&case, version.as_ref(), then_roll.as_ref(), *again)
        }
        Command::Traffic { shares, supersede, again, .. } => traffic::decide(&case, shares, *supersede, *again),
        Command::Roll { from, to, plan, supersede, again, .. } => {
            rollout::decide_roll(&case, from, to, plan, rollout::Roll { supersede: *supersede, again: *again })
        }
        Command::Rollback { unready, .. } => {
            rollback::decide(&case, *unready).map(|decision| went_back(&case, decision))
        }
        Command::Pause { .. } => rollout::decide_pause(&case),
        Command::Resume { .. } => rollout::decide_resume(&case),
        Command::Abort { .. } => rollout::decide_abort(&case).map(|decision| went_back(&case, decision)),
        Command::Promote { .. } => rollout::decide_promote(&case),
        Command::Hold { for_ms, .. } => hold::decide_hold(&case, *for_ms),
        Command::LiftHold { only, .. } => hold::decide_lift(&case, *only),
        Command::Retire { .. } => traffic::decide_retire(&case),
        Command::Dismiss { version, .. } => failure::decide_dismiss(&case, version),
        Command::Apply { .. } | Command::Release { .. } => Ok(Decision::default()),
    };
    decision.map(|decision| waiting::settled(&case, decision, false))
}

/// Adds to a decision that takes users back what follows from it for releases that are under way.
fn went_back(case: &Case<'_>, decision: Decision) -> Decision {
    waiting::ended_by_rollback(case, hold::after_going_back(case, decision))
}

fn check_fence(id: &DeploymentId, deployment: &Deployment, asked: Option<Fence>) -> Result<(), Rejection> {
    match (asked, deployment.traffic.fence) {
        (Some(asked), now) if asked != now => Err(Rejection::Fenced { deployment: id.clone(), asked, now }),
        _ => Ok(()),
    }
}

/// Decides a worker's conclusion about a deployment.
///
/// # Errors
///
/// [`Rejection::Outdated`] if it no longer fits the state.
pub fn decide_outcome(
    state: &State,
    id: &DeploymentId,
    outcome: &DeploymentOutcome,
    now: Now,
) -> Result<Decision, Rejection> {
    let outdated = || Rejection::Outdated(format!("{id} is unknown"));
    let deployment = state.deployment(id).ok_or_else(outdated)?;
    let service = state.service(&id.service).ok_or_else(outdated)?;
    let by = By { kind: ActorKind::Worker, reason: None };
    let judgements = state.judgements.get(id).map(AsRef::as_ref);
    let nothing = Probed::default();
    let probed = if let DeploymentOutcome::SendBack { probed, .. } = outcome { probed } else { &nothing };
    let case = Case { id, deployment, service, judgements, by, probed, now };
    let outcome = &outcome.clone().tidied();
    let decision = match outcome {
        DeploymentOutcome::StartLaunch { .. }
        | DeploymentOutcome::Launched { .. }
        | DeploymentOutcome::LaunchFailed { .. }
        | DeploymentOutcome::NodeReady { .. }
        | DeploymentOutcome::NodeUnhealthy { .. }
        | DeploymentOutcome::NodeFailing { .. }
        | DeploymentOutcome::NodeLost { .. }
        | DeploymentOutcome::NodeStopped { .. } => stack::decide_node(&case, outcome),
        DeploymentOutcome::StackReady { .. }
        | DeploymentOutcome::StackFailed { .. }
        | DeploymentOutcome::StackUnhealthy { .. }
        | DeploymentOutcome::StackRecovered { .. } => stack::decide_stack(&case, outcome),
        DeploymentOutcome::WeightsApplied { generation, weights, listening } => {
            traffic::decide_applied(&case, *generation, weights, *listening)
        }
        DeploymentOutcome::DriftSeen { seen, generation } => traffic::decide_drift(&case, seen, *generation),
        DeploymentOutcome::StartRequestedRollout { stack } => waiting::decide_start(&case, *stack),
        DeploymentOutcome::EndHold { cause } => hold::decide_end(&case, *cause),
        DeploymentOutcome::DropRequest { stack } => waiting::decide_drop(&case, *stack),
        DeploymentOutcome::BeginJudging { begun } => step::decide_begin(&case, begun),
        DeploymentOutcome::Count { counted, judged } => step::decide_count(&case, counted, judged.as_ref()),
        DeploymentOutcome::TakeStep { .. } => step::decide_step(&case, outcome),
        DeploymentOutcome::Hold { .. } => step::decide_hold(&case, outcome),
        DeploymentOutcome::DriveAgain { rollout } => step::decide_drive_again(&case, *rollout),
        DeploymentOutcome::SendBack { rollout, reason, counted, judged, .. } => {
            rollback::decide_send_back(&case, *rollout, reason, counted.as_ref(), judged.as_ref())
                .map(|decision| hold::after_going_back(&case, decision))
        }
        DeploymentOutcome::StartCollection { stack, reason } => retention::decide_start(&case, *stack, reason),
        DeploymentOutcome::Collected { stack } => retention::decide_collected(&case, *stack),
    };
    let begins = matches!(outcome, DeploymentOutcome::StartRequestedRollout { .. });
    decision.map(|decision| waiting::settled(&case, decision, begins))
}

/// Says of each deployment with users that another capacity does not reach it by itself, and what brings it out.
pub(crate) fn keep_their_capacity(state: &State, service: &ServiceName) -> Vec<String> {
    let of_service = state.deployments.iter().filter(|(id, _)| id.service == *service);
    let serving = of_service.filter(|(_, deployment)| deployment.traffic.set.is_some());
    let note = |id: &DeploymentId| {
        let renew = format!("ionledger renew {} --roll", id.arguments());
        format!("what runs in {} keeps its capacity; `{renew}` brings the new one out", id.environment)
    };
    serving.map(|(id, _)| note(id)).collect()
}

/// Says that a service does not run in an environment, and what helps: another environment where it does, or for a command that
/// gives traffic its first stack.
fn unknown_deployment(state: &State, id: &DeploymentId, command: &Command) -> Rejection {
    let elsewhere = state.deployments.keys().filter(|other| other.service == id.service);
    let elsewhere: Vec<&str> = elsewhere.map(|other| other.environment.as_str()).collect();
    let gives_traffic = matches!(command, Command::Traffic { .. } | Command::Roll { .. });
    let next = match elsewhere[..] {
        [] if gives_traffic => {
            format!("make its first stack with `ionledger new {} VERSION --env {}`", id.service, id.environment)
        }
        [] => format!("{} runs nowhere, so there is nothing to change; `ionledger status` shows what runs", id.service),
        _ => format!("{} runs in {}; name that with --env", id.service, elsewhere.join(", ")),
    };
    Rejection::Unknown { what: format!("deployment {id}"), next }
}

/// Decides to record a rollback that was carried out while the log gave no verdict.
///
/// # Errors
///
/// [`Rejection::Unknown`] if there is no such deployment.
pub fn decide_glass(
    state: &State,
    intent: &Intent,
    generation: StreamVersion,
    now: Now,
) -> Result<Decision, Rejection> {
    let id = &intent.deployment;
    let unknown = || Rejection::unknown_service(&id.service, state.services.keys());
    let service = state.service(&id.service).ok_or_else(unknown)?;
    let deployment = state.deployment(id).ok_or_else(|| Rejection::Unknown {
        what: format!("deployment {id}"),
        next: "look at whose intent it is".to_owned(),
    })?;
    let judgements = state.judgements.get(id).map(AsRef::as_ref);
    let by = By { kind: intent.actor.kind, reason: intent.reason.as_deref() };
    // It is recorded as it was carried out, whatever probes say by now.
    let probed = &Probed::default();
    let case = Case { id, deployment, service, judgements, by, probed, now };
    let decision = glass::decide(&case, state, intent, generation)?;
    let decision = match case.by.kind {
        ActorKind::Worker => hold::after_going_back(&case, decision),
        _ => went_back(&case, decision),
    };
    Ok(waiting::settled(&case, decision, false))
}

#[cfg(test)]
mod tests;
