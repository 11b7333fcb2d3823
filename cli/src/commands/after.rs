//! What comes after a change: the command that takes it back, or the one that comes next.

use replay::answer::DeploymentStatus;
use schemas::command::Command;
use schemas::{DeploymentId, EnvironmentName, Weight};

use crate::render::words::percent;

/// Returns what to say after `command`: `undo: ...` or `next: ...`. `before` is how the deployment stood before it.
pub(crate) fn after(command: &Command, before: Option<&DeploymentStatus>) -> Vec<String> {
    let said = match command {
        Command::Apply { service, .. } => {
            Some(format!("undo: apply the declaration before it again; `ionledger history {service} --json` has it"))
        }
        Command::Release { service, version, .. } => Some(format!("next: ionledger new {service} {version}")),
        Command::New { deployment, version, then_roll } => {
            let place = words(deployment);
            Some(match (then_roll, before.and_then(serving)) {
                (Some(_), _) => format!("undo: ionledger abort {place}, once the rollout has begun"),
                (None, Some(now)) => {
                    format!("next: ionledger roll {} {now} {version} 24 hours{}", deployment.service, env(deployment))
                }
                (None, None) => {
                    format!("next: ionledger traffic {} {version} 100{}", deployment.service, env(deployment))
                }
            })
        }
        Command::Traffic { deployment, .. } | Command::Rollback { deployment } => {
            before.and_then(|before| weights(deployment, before)).map(|words| format!("undo: {words}"))
        }
        Command::Roll { deployment, .. } => Some(format!("undo: ionledger abort {}", words(deployment))),
        Command::Pause { deployment } => Some(format!("undo: ionledger resume {}", words(deployment))),
        Command::Resume { deployment } => Some(format!("undo: ionledger pause {}", words(deployment))),
        Command::Promote { deployment } => Some(format!("undo: ionledger rollback {}", words(deployment))),
        Command::Abort { deployment } => before.and_then(|before| {
            let rollout = before.rollout.as_ref()?;
            let (from, to) = (rollout.baseline.as_ref()?, rollout.canary.as_ref()?);
            Some(format!("undo: ionledger roll {} {from} {to}{}", deployment.service, env(deployment)))
        }),
        Command::Retire { deployment } => before.and_then(serving).map(|version| {
            format!("undo: ionledger new {} {version}{}, then give it traffic", deployment.service, env(deployment))
        }),
    };
    said.into_iter().collect()
}

/// The version with the largest share.
fn serving(before: &DeploymentStatus) -> Option<String> {
    let serving = before.versions.iter().filter(|version| version.weight_set > Weight::ZERO);
    serving.max_by_key(|version| version.weight_set).map(|version| version.version.to_string())
}

/// The command that sets the weights as they were.
fn weights(deployment: &DeploymentId, before: &DeploymentStatus) -> Option<String> {
    let shares: Vec<String> = before
        .versions
        .iter()
        .filter(|version| version.weight_set > Weight::ZERO)
        .map(|version| format!("{} {}", version.version, percent(version.weight_set)))
        .collect();
    (!shares.is_empty())
        .then(|| format!("ionledger traffic {} {}{}", deployment.service, shares.join(" "), env(deployment)))
}

fn words(deployment: &DeploymentId) -> String {
    format!("{}{}", deployment.service, env(deployment))
}

fn env(deployment: &DeploymentId) -> String {
    match deployment.environment == EnvironmentName::production() {
        true => String::new(),
        false => format!(" --env {}", deployment.environment),
    }
}
