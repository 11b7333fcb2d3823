//! Commands: what people and pipelines may ask for.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hold::Cause;
use crate::id::{CommandId, DeploymentId, Fence, Hash, ServiceName, Version};
use crate::name::StackName;
use crate::release;
use crate::run::{Artifact, EnvValue};
use crate::service::Definition;
use crate::weight::Weight;

/// What a person or a pipeline asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Declare a service, or change its declaration as a whole.
    Apply(Apply),
    /// Record a release, with the service's run spec as it is now.
    Release(Release),
    /// Ask for a stack of a release.
    New(New),
    /// Ask for another stack of a release that has one: with the capacity that is declared now and secrets read anew.
    Renew(Renew),
    /// Set all of a deployment's traffic; a stack that is not named gets none.
    Traffic(Traffic),
    /// Start a rollout.
    Roll(Roll),
    /// Send all traffic back to the rollback target.
    Rollback(Rollback),
    /// Freeze a rollout's weights.
    Pause(Pause),
    /// Let a paused rollout go on.
    Resume(Resume),
    /// End a rollout at its baseline.
    Abort(Abort),
    /// Give a rollout's canary all traffic over the judgement.
    Promote(Promote),
    /// Put a deployment on hold: what pipelines release is prepared and not rolled out. A reason must be given.
    Hold(Hold),
    /// End every hold of a deployment, or one of them.
    LiftHold(LiftHold),
    /// Serve no traffic any more and take every stack down.
    Retire(Retire),
    /// Show the failed stacks of a version no longer, or one of them.
    Dismiss(Dismiss),
}

/// What is asked for with [`Command::Apply`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    /// The service.
    pub service: ServiceName,
    /// What it shall be.
    pub definition: Box<Definition>,
}

/// What is asked for with [`Command::Release`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The service.
    pub service: ServiceName,
    /// The version.
    pub version: Version,
    /// What runs.
    pub artifact: Artifact,
    /// Arguments in place of the service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// Environment variables beside the service's, or in place of those of the same name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, EnvValue>,
    /// Where it comes from.
    #[serde(default)]
    pub source: release::Source,
    /// The version whose fault it mends: it ends the hold that the rollback of that version set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixes: Option<Version>,
}

/// What is asked for with [`Command::New`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct New {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The release's version.
    pub version: Version,
    /// The rollout to start once it is ready. It never goes to a release that was recorded before the one that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then_roll: Option<PlanAsked>,
    /// Whether to roll it out though its version is rejected; a reason must be given.
    #[serde(default, skip_serializing_if = "is_false")]
    pub again: bool,
}

/// What is asked for with [`Command::Renew`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Renew {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The release's version; left out: the one that users are on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// The rollout to start once it is ready. It never goes to a release that was recorded before the one that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then_roll: Option<PlanAsked>,
    /// Whether to roll it out though its version is rejected; a reason must be given.
    #[serde(default, skip_serializing_if = "is_false")]
    pub again: bool,
}

/// What is asked for with [`Command::Traffic`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The shares.
    pub shares: Vec<StackWeight>,
    /// Whether to end a running rollout.
    #[serde(default)]
    pub supersede: bool,
    /// Whether to give traffic to a rejected version; a reason must be given.
    #[serde(default, skip_serializing_if = "is_false")]
    pub again: bool,
}

/// What is asked for with [`Command::Roll`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Roll {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The stack that serves, as `1.2.3` or `1.2.3~2`.
    pub from: StackName,
    /// The canary's.
    pub to: StackName,
    /// How it shall go.
    pub plan: PlanAsked,
    /// Whether to end a running rollout.
    #[serde(default)]
    pub supersede: bool,
    /// Whether to roll out a rejected version; a reason must be given.
    #[serde(default, skip_serializing_if = "is_false")]
    pub again: bool,
}

/// What is asked for with [`Command::Rollback`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Whether to go there though none of its nodes passes its check.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unready: bool,
}

/// What is asked for with [`Command::Pause`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// The deployment.
    pub deployment: DeploymentId,
}

/// What is asked for with [`Command::Resume`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// The deployment.
    pub deployment: DeploymentId,
}

/// What is asked for with [`Command::Abort`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Abort {
    /// The deployment.
    pub deployment: DeploymentId,
}

/// What is asked for with [`Command::Promote`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Promote {
    /// The deployment.
    pub deployment: DeploymentId,
}

/// What is asked for with [`Command::Hold`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// The deployment.
    pub deployment: DeploymentId,
    /// After how many milliseconds it ends by itself; left out: once somebody lifts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
}

/// What is asked for with [`Command::LiftHold`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LiftHold {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Which; left out: every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Cause>,
}

/// What is asked for with [`Command::Retire`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retire {
    /// The deployment.
    pub deployment: DeploymentId,
}

/// What is asked for with [`Command::Dismiss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dismiss {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The version, for all of its failed stacks, or the name of one, as `1.2.3~2`.
    pub version: StackName,
}

fn is_false(value: &bool) -> bool {
    !*value
}

/// A stack's share of the traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StackWeight {
    /// The stack's name, as `1.2.3` or `1.2.3~2`.
    pub version: StackName,
    /// Its share.
    pub weight: Weight,
}

/// How a rollout shall go; what is left out comes from the service's policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanAsked {
    /// The time from the first step to the last, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// The canary's weights, rising, the last of them 100 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<Weight>>,
}

/// A command as the server receives it. An unknown field is refused by the command, which gets all but these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)] // not serde's, which would take the command's own fields for unknown ones
pub struct Request {
    /// The command's id: sent again with the same content it gives the first answer.
    pub id: CommandId,
    /// What is asked for.
    #[serde(flatten)]
    pub command: Command,
    /// The fence its sender saw; the command is refused under a newer one. Left out: the fence when it arrives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Fence>,
    /// Why it is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it took effect, if that was before it could be recorded.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "rfc3339")]
    pub effective_at: Option<Timestamp>,
}

/// Reads a time in RFC 3339, which has no zones: [`Timestamp`] alone would pass over one in brackets, and over an offset that
/// contradicts it.
fn rfc3339<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    use serde::de::Error as _;
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let shown = || text.chars().take(60).collect::<String>();
    if text.contains('[') {
        return Err(D::Error::custom(format!("`{}` names a zone; write the time in RFC 3339, without one", shown())));
    }
    text.parse().map(Some).map_err(|_| D::Error::custom(format!("`{}` is not a time in RFC 3339", shown())))
}

impl Command {
    /// Returns the deployment it is about, unless it is about a service.
    pub fn deployment(&self) -> Option<&DeploymentId> {
        match self {
            Command::Apply(_) | Command::Release(_) => None,
            Command::New(command) => Some(&command.deployment),
            Command::Renew(command) => Some(&command.deployment),
            Command::Traffic(command) => Some(&command.deployment),
            Command::Roll(command) => Some(&command.deployment),
            Command::Rollback(command) => Some(&command.deployment),
            Command::Pause(command) => Some(&command.deployment),
            Command::Resume(command) => Some(&command.deployment),
            Command::Abort(command) => Some(&command.deployment),
            Command::Promote(command) => Some(&command.deployment),
            Command::Hold(command) => Some(&command.deployment),
            Command::LiftHold(command) => Some(&command.deployment),
            Command::Retire(command) => Some(&command.deployment),
            Command::Dismiss(command) => Some(&command.deployment),
        }
    }

    /// Returns the service it is about.
    pub fn service(&self) -> &ServiceName {
        match self {
            Command::Apply(apply) => &apply.service,
            Command::Release(release) => &release.service,
            other => &other.deployment().expect("all others are about a deployment").service,
        }
    }

    /// Says whether it may give traffic to a version that is rejected.
    pub fn asks_again(&self) -> bool {
        match self {
            Command::New(command) => command.again,
            Command::Renew(command) => command.again,
            Command::Traffic(command) => command.again,
            Command::Roll(command) => command.again,
            Command::Apply(_)
            | Command::Release(_)
            | Command::Rollback(_)
            | Command::Pause(_)
            | Command::Resume(_)
            | Command::Abort(_)
            | Command::Promote(_)
            | Command::Hold(_)
            | Command::LiftHold(_)
            | Command::Retire(_)
            | Command::Dismiss(_) => false,
        }
    }

    /// Returns the SHA-256 of its JSON, by which a repeated id is known to mean the same command.
    pub fn hash(&self) -> Hash {
        Hash::of(&serde_json::to_vec(self).expect("a command is plain JSON"))
    }
}
