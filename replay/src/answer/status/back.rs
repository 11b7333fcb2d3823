//! The way back: where a rollback would go, what one waits for whose target is not ready, and users on a stack that does not pass.

use ledger::deployment::stranded::{self, Stranded};
use ledger::deployment::{Deployment, rollback, served};
use schemas::{DeploymentId, Probed, StackId, StackName, Version, Weight};
use serde::{Deserialize, Serialize};

/// Where a rollback would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackTarget {
    /// The version.
    pub version: Option<Version>,
    /// The name of its stack; the version if that is gone.
    #[serde(default)]
    pub name: Option<StackName>,
    /// Its stack; none if that is gone and would be deployed again.
    pub stack: Option<StackId>,
    /// Whether it gets the traffic at once; else it is deployed, or started again, first.
    pub warm: bool,
    /// Why no node of its stack passes its check, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<String>,
    /// Versions before it that are known to be unhealthy.
    pub passed_over: Vec<Version>,
    /// The names of those stacks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed_over_names: Vec<StackName>,
}

/// What a rollback waits for that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollingBackStatus {
    /// How far its target is, and what is in its way.
    pub why: String,
    /// The command that sends all users to the target as it is, where there is a stack of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Users on a stack that does not pass its check, while another that users are on does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrandedStatus {
    /// The version; none if its stack is unknown here.
    pub version: Option<Version>,
    /// The name of its stack.
    #[serde(default)]
    pub name: Option<StackName>,
    /// The stack.
    pub stack: StackId,
    /// Their share.
    pub weight: Weight,
    /// Why it does not pass.
    pub why: String,
    /// The command that moves them to a stack that passes, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What users get that nobody meant them to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsersGetStatus {
    /// What, and why.
    pub why: String,
    /// The command that moves all users to a stack that passes, where one would be taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Returns where a rollback would go, by what the ledger knows of the stacks' nodes; none where it would change nothing. `past` is
/// whether the policy lets it go past its target.
pub(super) fn target_status(deployment: &Deployment, past: bool) -> Option<RollbackTarget> {
    let known = stranded::known(deployment);
    let target = rollback::target_by(deployment, &known, past)?;
    if rollback::is_settled(deployment, &known, Some(&target)) {
        return None;
    }
    let version = |stack: &StackId| deployment.version_of(*stack).cloned();
    Some(match target {
        rollback::Target::Warm { stack, passed_over } => RollbackTarget {
            version: version(&stack),
            name: deployment.name_of(stack),
            stack: Some(stack),
            warm: true,
            failing: failing(&known, stack),
            passed_over: passed_over.iter().filter_map(version).collect(),
            passed_over_names: passed_over.iter().filter_map(|stack| deployment.name_of(*stack)).collect(),
        },
        rollback::Target::Failing { stack, why } => RollbackTarget {
            version: version(&stack),
            name: deployment.name_of(stack),
            stack: Some(stack),
            warm: false,
            failing: Some(why),
            passed_over: vec![],
            passed_over_names: vec![],
        },
        rollback::Target::Gone { version, .. } => RollbackTarget {
            name: Some(version.clone().into()),
            version: Some(version),
            stack: None,
            warm: false,
            failing: None,
            passed_over: vec![],
            passed_over_names: vec![],
        },
    })
}

fn failing(known: &Probed, stack: StackId) -> Option<String> {
    known.failure(stack).map(str::to_owned)
}

/// Returns what the rollback waits for whose target is not ready yet, if there is one.
pub(super) fn rolling_back_status(id: &DeploymentId, deployment: &Deployment) -> Option<RollingBackStatus> {
    let awaited = deployment.stacks.get(&deployment.traffic.awaited?)?;
    Some(RollingBackStatus { why: awaited.progress(), next: rollback::unready(deployment, id) })
}

/// Returns what users get, where that is not what is set, or no node of it passes its check.
pub(super) fn users_get_status(id: &DeploymentId, deployment: &Deployment) -> Option<UsersGetStatus> {
    served::trouble(deployment, id).map(|served::ServingTrouble { why, next }| UsersGetStatus { why, next })
}

/// Returns the users that are on a stack which does not pass, by what the ledger knows of the stacks' nodes.
pub(super) fn stranded_status(id: &DeploymentId, deployment: &Deployment) -> Vec<StrandedStatus> {
    let stranded = stranded::stranded(deployment, id, &stranded::known(deployment)).into_iter();
    let status = |Stranded { stack, weight, why, next }| StrandedStatus {
        version: deployment.version_of(stack).cloned(),
        name: deployment.name_of(stack),
        stack,
        weight,
        why,
        next,
    };
    stranded.map(status).collect()
}
