//! Decide: what a command makes happen, given the state. Pure: time and ids arrive as data.

use schemas::break_glass::Intent;
use schemas::command::{self, Command};
use schemas::outcome::{self, DeploymentOutcome, Outcome};
use schemas::{ActorKind, DeploymentId, Fence, Probed, Role, ServiceName, Stream, StreamVersion, Version};

use crate::decision::{By, Decision, Now, Rejection};
use crate::deployment::{self, Case, Deployment};
use crate::service::Service;
use crate::state::State;
use crate::{lease, service};

/// Decides a person's or a pipeline's command. `by` asks; `fence` is the one it was asked under; `probed` is what the newest
/// probes say of its deployment's stacks.
///
/// # Errors
///
/// [`Rejection`] says why not, and what to do instead.
pub fn decide(
    state: &State,
    command: &Command,
    by: By<'_>,
    fence: Option<Fence>,
    probed: &Probed,
    now: Now,
) -> Result<Decision, Rejection> {
    match command {
        Command::Apply(command::Apply { service: name, definition }) => {
            let before = state.service(name);
            let events = service::decide_apply(before, definition)?;
            let before = before.and_then(|service| service.definition.as_ref());
            let mut decision = Decision::on(Stream::Service(name.clone()), events);
            if before.is_some_and(|before| before.capacity != definition.capacity) {
                decision.notes.extend(keep_their_capacity(state, name));
            }
            Ok(decision)
        }
        Command::Release(release) => {
            let name = &release.service;
            let known = || Rejection::unknown_service(name, state.services.keys());
            let events = service::decide_release(state.service(name).ok_or_else(known)?, release)?;
            Ok(Decision::on(Stream::Service(name.clone()), events))
        }
        Command::New(_)
        | Command::Renew(_)
        | Command::Traffic(_)
        | Command::Roll(_)
        | Command::Rollback(_)
        | Command::Pause(_)
        | Command::Resume(_)
        | Command::Abort(_)
        | Command::Promote(_)
        | Command::Hold(_)
        | Command::LiftHold(_)
        | Command::Retire(_)
        | Command::Dismiss(_) => decide_of_deployment(state, command, by, fence, probed, now),
    }
}

/// Decides a worker's conclusion or report.
///
/// # Errors
///
/// [`Rejection::Outdated`] if it no longer fits the state; the worker looks again.
pub fn decide_outcome(state: &State, outcome: &Outcome, now: Now) -> Result<Decision, Rejection> {
    match outcome {
        Outcome::Deployment(of) => decide_outcome_of_deployment(state, of, now),
        Outcome::TakeLease(outcome::TakeLease { role, holder, from, reason }) => {
            let events = lease::decide_take(&state.lease(*role), *role, holder, from.as_deref(), reason)?;
            Ok(Decision::on(Stream::Worker(*role), events))
        }
        Outcome::ReleaseLease(outcome::ReleaseLease { role, holder }) => {
            let events = lease::decide_release_lease(&state.lease(*role), *role, holder)?;
            Ok(Decision::on(Stream::Worker(*role), events))
        }
    }
}

/// Unknown service or deployment first, then the fence, then what the command's own file says.
fn decide_of_deployment(
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
    if state.deployment(id).is_none() && !matches!(command, Command::New(_)) {
        return Err(unknown_deployment(state, id, command));
    }
    if !matches!(command, Command::Rollback(_)) {
        check_fence(id, deployment, fence)?;
    }
    let judgements = state.judgements.get(id).map(AsRef::as_ref);
    deployment::decide(&Case { id, deployment, service, judgements, by, probed, now }, command)
}

fn check_fence(id: &DeploymentId, deployment: &Deployment, asked: Option<Fence>) -> Result<(), Rejection> {
    match (asked, deployment.traffic.fence) {
        (Some(asked), now) if asked != now => Err(Rejection::Fenced { deployment: id.clone(), asked, now }),
        _ => Ok(()),
    }
}

fn decide_outcome_of_deployment(
    state: &State,
    of: &outcome::DeploymentReport,
    now: Now,
) -> Result<Decision, Rejection> {
    let id = &of.deployment;
    let outdated = || Rejection::Outdated(format!("{id} is unknown"));
    let deployment = state.deployment(id).ok_or_else(outdated)?;
    let service = state.service(&id.service).ok_or_else(outdated)?;
    let by = By { kind: ActorKind::Worker, reason: None };
    let judgements = state.judgements.get(id).map(AsRef::as_ref);
    let nothing = Probed::default();
    let probed = if let DeploymentOutcome::SendBack(back) = &of.outcome { &back.probed } else { &nothing };
    deployment::decide_outcome(&Case { id, deployment, service, judgements, by, probed, now }, &of.outcome)
}

/// Says of each deployment with users that another capacity does not reach it by itself, and what brings it out.
fn keep_their_capacity(state: &State, service: &ServiceName) -> Vec<String> {
    let of_service = state.deployments.iter().filter(|(id, _)| id.service == *service);
    let serving = of_service.filter(|(_, deployment)| deployment.traffic.set.is_some());
    let note = |id: &DeploymentId| {
        let renew = format!("ionledger renew {} --roll", id.arguments());
        format!("what runs in {} keeps its old capacity; `{renew}` starts a stack with the new one", id.environment)
    };
    serving.map(|(id, _)| note(id)).collect()
}

/// Says that a service does not run in an environment, and what helps: another environment where it does, or for a command that
/// gives traffic its first stack.
fn unknown_deployment(state: &State, id: &DeploymentId, command: &Command) -> Rejection {
    let elsewhere = state.deployments.keys().filter(|other| other.service == id.service);
    let elsewhere: Vec<&str> = elsewhere.map(|other| other.environment.as_str()).collect();
    let wants_stack = matches!(command, Command::Traffic(_) | Command::Roll(_) | Command::Renew(_));
    let next = match elsewhere[..] {
        [] if wants_stack => {
            let newest = state.service(&id.service).and_then(Service::newest);
            let version = newest.map_or("VERSION", Version::as_str);
            format!("make its first stack with `ionledger new {} {version} --env {}`", id.service, id.environment)
        }
        [] => format!("{} runs nowhere, so there is nothing to change; `ionledger status` shows what runs", id.service),
        _ => format!("{} runs in {}; name that with --env", id.service, elsewhere.join(", ")),
    };
    Rejection::Unknown { what: format!("deployment {id}"), next }
}

/// Decides to record a rollback that was asked for while the log gave no verdict; `generation` is what the router holds, and
/// `moved` whether it served it before now, if that is known.
///
/// # Errors
///
/// [`Rejection::Unknown`] if there is no such deployment.
pub fn decide_break_glass(
    state: &State,
    intent: &Intent,
    generation: StreamVersion,
    moved: Option<bool>,
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
    // It is recorded as it was asked for, whatever probes say by now.
    let probed = &Probed::default();
    let case = Case { id, deployment, service, judgements, by, probed, now };
    deployment::decide_break_glass(&case, &state.lease(Role::TrafficShifter), intent, generation, moved)
}

/// Checks that whoever gives traffic to a rejected version says why.
///
/// # Errors
///
/// [`Rejection::Invalid`] for `again` without a reason.
pub fn check_reason(command: &Command, reason: Option<&str>) -> Result<(), Rejection> {
    if command.asks_again() && reason.is_none_or(|reason| reason.trim().is_empty()) {
        let why = "`--again` needs a reason, which is kept for ever; add `--reason WHY`".to_owned();
        return Err(Rejection::Invalid(why));
    }
    Ok(())
}

/// Says whether a command sends traffic back, and so passes every gate.
pub fn is_rollback(command: &Command) -> bool {
    matches!(command, Command::Rollback(_) | Command::Abort(_))
}

/// Says whether a command is decided by what the newest probes say: those that send traffic back, and `roll`, whose
/// baseline must serve.
pub fn asks_probes(command: &Command) -> bool {
    is_rollback(command) || matches!(command, Command::Roll(_))
}

/// Says whether an outcome sends traffic back.
pub fn outcome_is_rollback(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Deployment(outcome::DeploymentReport { outcome: DeploymentOutcome::SendBack(_), .. }))
}
