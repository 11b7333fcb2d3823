//! What comes after a change: the command that takes it back, or the one that comes next.

use api::wire::Happened;
use ledger::deployment::hold;
use replay::answer::{DeploymentStatus, VersionStatus};
use schemas::command::Command;
use schemas::hold::Cause;
use schemas::{DeploymentId, Offset, StackName, Version, Weight};

use crate::not_allowed::in_quotes;
use crate::render::words::percent;

/// How things stood before a command, as far as it could be read.
#[derive(Default)]
pub(crate) struct Before {
    /// The deployment of a command that is about one.
    pub(crate) deployment: Option<DeploymentStatus>,
    /// The last record before the command, if its service was declared by then.
    pub(crate) declared_at: Option<Offset>,
}

/// Returns what to say after `command`: `undo: ...` or `next: ...`. `happened` is what it came to.
pub(crate) fn after(command: &Command, before: &Before, happened: &[Happened]) -> Vec<String> {
    let declared_at = before.declared_at;
    let before = before.deployment.as_ref();
    let said = match command {
        Command::Apply { service, .. } => declared_at.map(|offset| {
            format!("undo: ionledger show {service} --offset {offset} > before.toml && ionledger apply before.toml")
        }),
        Command::Release { service, version, .. } => Some(format!("next: ionledger new {service} {version}")),
        Command::New { deployment, then_roll, .. } | Command::Renew { deployment, then_roll, .. } => {
            let place = deployment.arguments();
            made(happened).map(|version| match (then_roll, before.and_then(serving)) {
                (Some(_), _) => format!("undo: ionledger abort {place}, once the rollout has begun"),
                (None, Some(now)) => {
                    format!("next: ionledger roll {} {now} {version}{}", deployment.service, deployment.env_flag())
                }
                (None, None) => {
                    format!("next: ionledger traffic {} {version} 100{}", deployment.service, deployment.env_flag())
                }
            })
        }
        // What was rolled back before is only held now.
        Command::Rollback { deployment, .. } if !happened.iter().any(|event| event.kind == "traffic.rolled_back") => {
            Some(format!("undo: {}", hold::lift_one(deployment, Cause::Rollback)))
        }
        Command::Traffic { deployment, .. } | Command::Rollback { deployment, .. } => {
            let before = before.filter(|before| !goes_to_rejected(before, happened));
            before.and_then(|before| weights(deployment, before)).map(|words| format!("undo: {words}"))
        }
        Command::Roll { deployment, .. } => Some(format!("undo: ionledger abort {}", deployment.arguments())),
        Command::Pause { deployment } => Some(format!("undo: ionledger resume {}", deployment.arguments())),
        Command::Resume { deployment } => Some(format!("undo: ionledger pause {}", deployment.arguments())),
        Command::Promote { .. } if happened.iter().any(|event| event.kind == "traffic.rejected") => None,
        Command::Promote { deployment } => Some(format!("undo: ionledger rollback {}", deployment.arguments())),
        Command::Hold { deployment, .. } => Some(format!("undo: {}", undo_hold(deployment, before))),
        Command::Abort { deployment } => before.and_then(|before| {
            let rollout = before.rollout.as_ref()?;
            let (from, to) = (rollout.baseline_name()?, rollout.canary_name()?);
            Some(format!("undo: ionledger roll {} {from} {to}{}", deployment.service, deployment.env_flag()))
        }),
        Command::Retire { deployment } => before.and_then(serving).map(|stack| {
            format!(
                "undo: ionledger new {} {}{}, then give it traffic",
                deployment.service,
                stack.version,
                deployment.env_flag()
            )
        }),
        Command::LiftHold { .. } | Command::Dismiss { .. } => None,
    };
    said.into_iter().collect()
}

/// The command that brings the hold back that somebody asked for before, or ends the one that is new; no other hold is touched.
fn undo_hold(deployment: &DeploymentId, before: Option<&DeploymentStatus>) -> String {
    let mut holds = before.into_iter().flat_map(|before| &before.holds);
    let Some(replaced) = holds.find(|hold| hold.cause == Cause::Asked) else {
        return hold::lift_one(deployment, Cause::Asked);
    };
    let until = replaced.until.map(|until| format!(", with --for what is left until {until}")).unwrap_or_default();
    format!("ionledger hold {} --reason {}{until}", deployment.arguments(), in_quotes(&replaced.reason))
}

/// Returns the name of the stack that was asked for, if one was.
pub(crate) fn made(happened: &[Happened]) -> Option<StackName> {
    let requested = happened.iter().find(|event| event.kind == "stack.requested")?;
    let version: Version = requested.data.get("version")?.as_str()?.parse().ok()?;
    let number = requested.data.get("number").and_then(serde_json::Value::as_u64).unwrap_or(1);
    Some(StackName::new(version, u32::try_from(number).ok()?))
}

/// Says whether taking a change back would give traffic to a stack that was rejected before it, or is by it.
fn goes_to_rejected(before: &DeploymentStatus, happened: &[Happened]) -> bool {
    let now = |kind: &str| kind == "traffic.rejected" || kind == "traffic.rolled_back";
    let mut serving = before.versions.iter().filter(|version| version.weight_set > Weight::ZERO);
    serving.any(|version| version.rejected.as_ref().is_some_and(|rejected| rejected.needs_again))
        || happened.iter().any(|event| now(&event.kind))
}

/// The stack with the largest share.
fn serving(before: &DeploymentStatus) -> Option<StackName> {
    let serving = before.versions.iter().filter(|version| version.weight_set > Weight::ZERO);
    serving.max_by_key(|version| version.weight_set).map(VersionStatus::name)
}

/// The command that sets the weights as they were.
fn weights(deployment: &DeploymentId, before: &DeploymentStatus) -> Option<String> {
    let shares: Vec<String> = before
        .versions
        .iter()
        .filter(|version| version.weight_set > Weight::ZERO)
        .map(|version| format!("{} {}", version.name(), percent(version.weight_set)))
        .collect();
    (!shares.is_empty())
        .then(|| format!("ionledger traffic {} {}{}", deployment.service, shares.join(" "), deployment.env_flag()))
}
