//! Commands: what people and pipelines may ask for, and what workers report.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hold::Cause;
use crate::id::{
    CommandId, DeploymentId, EffectId, Fence, Hash, RolloutId, ServiceName, StackId, StreamVersion, Version,
};
use crate::judgement::{Begun, Counted, Judged};
use crate::name::StackName;
use crate::probed::Probed;
use crate::release;
use crate::rollout::HoldKind;
use crate::run::{Artifact, EnvValue};
use crate::service::Definition;
use crate::stream::Role;
use crate::text;
use crate::weight::{Weight, Weights};

/// What a person or a pipeline asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Declare a service, or change its declaration as a whole.
    Apply {
        /// The service.
        service: ServiceName,
        /// What it shall be.
        definition: Box<Definition>,
    },
    /// Record a release, with the service's run spec as it is now.
    Release {
        /// The service.
        service: ServiceName,
        /// The version.
        version: Version,
        /// What runs.
        artifact: Artifact,
        /// Arguments in place of the service's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        args: Option<Vec<String>>,
        /// Environment variables beside the service's, or in place of those of the same name.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        env: BTreeMap<String, EnvValue>,
        /// Where it comes from.
        #[serde(default)]
        source: release::Source,
        /// The version whose fault it mends: it ends the hold that the rollback of that version set.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fixes: Option<Version>,
    },
    /// Ask for a stack of a release.
    New {
        /// The deployment.
        deployment: DeploymentId,
        /// The release's version.
        version: Version,
        /// The rollout to start once it is ready. It never goes to a release that was recorded before the one that serves.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        then_roll: Option<PlanAsked>,
        /// Whether to roll it out though its version is rejected; a reason must be given.
        #[serde(default, skip_serializing_if = "is_false")]
        again: bool,
    },
    /// Ask for another stack of a release that has one: with the capacity that is declared now and secrets read anew.
    Renew {
        /// The deployment.
        deployment: DeploymentId,
        /// The release's version; left out: the one that users are on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<Version>,
        /// The rollout to start once it is ready. It never goes to a release that was recorded before the one that serves.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        then_roll: Option<PlanAsked>,
        /// Whether to roll it out though its version is rejected; a reason must be given.
        #[serde(default, skip_serializing_if = "is_false")]
        again: bool,
    },
    /// Set all of a deployment's traffic; a stack that is not named gets none.
    Traffic {
        /// The deployment.
        deployment: DeploymentId,
        /// The shares.
        shares: Vec<Share>,
        /// Whether to end a running rollout.
        #[serde(default)]
        supersede: bool,
        /// Whether to give traffic to a rejected version; a reason must be given.
        #[serde(default, skip_serializing_if = "is_false")]
        again: bool,
    },
    /// Start a rollout.
    Roll {
        /// The deployment.
        deployment: DeploymentId,
        /// The stack that serves, as `1.2.3` or `1.2.3~2`.
        from: StackName,
        /// The newcomer's.
        to: StackName,
        /// How it shall go.
        plan: PlanAsked,
        /// Whether to end a running rollout.
        #[serde(default)]
        supersede: bool,
        /// Whether to roll out a rejected version; a reason must be given.
        #[serde(default, skip_serializing_if = "is_false")]
        again: bool,
    },
    /// Send all traffic back to the rollback target.
    Rollback {
        /// The deployment.
        deployment: DeploymentId,
        /// Whether to go there though none of its nodes passes its check.
        #[serde(default, skip_serializing_if = "is_false")]
        unready: bool,
    },
    /// Freeze a rollout's weights.
    Pause {
        /// The deployment.
        deployment: DeploymentId,
    },
    /// Let a paused rollout go on.
    Resume {
        /// The deployment.
        deployment: DeploymentId,
    },
    /// End a rollout at its baseline.
    Abort {
        /// The deployment.
        deployment: DeploymentId,
    },
    /// Give a rollout's canary all traffic over the judgement.
    Promote {
        /// The deployment.
        deployment: DeploymentId,
    },
    /// Put a deployment on hold: what pipelines release is prepared and not rolled out. A reason must be given.
    Hold {
        /// The deployment.
        deployment: DeploymentId,
        /// After how many milliseconds it ends by itself; left out: once somebody lifts it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        for_ms: Option<u64>,
    },
    /// End every hold of a deployment, or one of them.
    LiftHold {
        /// The deployment.
        deployment: DeploymentId,
        /// Which; left out: every one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only: Option<Cause>,
    },
    /// Serve no traffic any more and take every stack down.
    Retire {
        /// The deployment.
        deployment: DeploymentId,
    },
    /// Show the failed stacks of a version no longer, or one of them.
    Dismiss {
        /// The deployment.
        deployment: DeploymentId,
        /// The version, for all of its failed stacks, or the name of one, as `1.2.3~2`.
        version: StackName,
    },
}

fn is_false(value: &bool) -> bool {
    !*value
}

/// A stack's share of the traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Share {
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

/// A command as it comes through the door. An unknown field is refused by the command, which gets all but these.
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
    text.parse().map(Some).map_err(|_| D::Error::custom(format!("`{}` is no time in RFC 3339", shown())))
}

impl Command {
    /// Returns the deployment it is about, unless it is about a service.
    pub fn deployment(&self) -> Option<&DeploymentId> {
        match self {
            Command::Apply { .. } | Command::Release { .. } => None,
            Command::New { deployment, .. }
            | Command::Renew { deployment, .. }
            | Command::Traffic { deployment, .. }
            | Command::Roll { deployment, .. }
            | Command::Rollback { deployment, .. }
            | Command::Pause { deployment }
            | Command::Resume { deployment }
            | Command::Abort { deployment }
            | Command::Promote { deployment }
            | Command::Hold { deployment, .. }
            | Command::LiftHold { deployment, .. }
            | Command::Retire { deployment }
            | Command::Dismiss { deployment, .. } => Some(deployment),
        }
    }

    /// Returns the service it is about.
    pub fn service(&self) -> &ServiceName {
        match self {
            Command::Apply { service, .. } | Command::Release { service, .. } => service,
            other => &other.deployment().expect("all others are about a deployment").service,
        }
    }

    /// Says whether it may give traffic to a version that is rejected.
    pub fn asks_again(&self) -> bool {
        match self {
            Command::New { again, .. }
            | Command::Renew { again, .. }
            | Command::Traffic { again, .. }
            | Command::Roll { again, .. } => *again,
            Command::Apply { .. }
            | Command::Release { .. }
            | Command::Rollback { .. }
            | Command::Pause { .. }
            | Command::Resume { .. }
            | Command::Abort { .. }
            | Command::Promote { .. }
            | Command::Hold { .. }
            | Command::LiftHold { .. }
            | Command::Retire { .. }
            | Command::Dismiss { .. } => false,
        }
    }

    /// Returns the SHA-256 of its JSON, by which a repeated id is known to mean the same command.
    pub fn hash(&self) -> Hash {
        Hash::of(&serde_json::to_vec(self).expect("a command is plain JSON"))
    }
}

/// What a worker concludes or has done. It is about one deployment or about a lease.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)] // few at a time, and none is kept
pub enum Outcome {
    /// About a deployment.
    Deployment {
        /// The deployment.
        deployment: DeploymentId,
        /// What about it.
        outcome: DeploymentOutcome,
    },
    /// An instance takes a role over.
    TakeLease {
        /// The role.
        role: Role,
        /// The instance.
        holder: String,
        /// Whose place it takes, as it saw it: who takes one over that somebody else has taken meanwhile comes too late.
        from: Option<String>,
        /// Why.
        reason: String,
    },
    /// The holder gives its role up.
    ReleaseLease {
        /// The role.
        role: Role,
        /// The instance.
        holder: String,
    },
}

/// What a worker concludes or has done about a deployment.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentOutcome {
    /// The provisioner is about to launch a node.
    StartLaunch {
        /// The stack.
        stack: StackId,
        /// The place it fills.
        slot: u16,
        /// How often the place was filled before.
        attempt: u32,
        /// The effect.
        effect: EffectId,
        /// The port.
        port: u16,
    },
    /// A node runs.
    Launched {
        /// The effect.
        effect: EffectId,
        /// Where it listens.
        address: SocketAddr,
        /// What it is called outside.
        instance: String,
    },
    /// A node could not be launched.
    LaunchFailed {
        /// The effect.
        effect: EffectId,
        /// Why.
        reason: String,
    },
    /// A node passed its check as often as it must.
    NodeReady {
        /// The effect.
        effect: EffectId,
    },
    /// A ready node fails its check.
    NodeUnhealthy {
        /// The effect.
        effect: EffectId,
        /// What the check said.
        reason: String,
    },
    /// A node that was launched and is not ready yet fails its check.
    NodeFailing {
        /// The effect.
        effect: EffectId,
        /// What the check said.
        reason: String,
    },
    /// A node is gone that nobody took down.
    NodeLost {
        /// The effect.
        effect: EffectId,
        /// What was seen.
        reason: String,
    },
    /// A node was taken down.
    NodeStopped {
        /// The effect.
        effect: EffectId,
    },
    /// Every node of a stack is ready.
    StackReady {
        /// The stack.
        stack: StackId,
    },
    /// A stack did not become ready, or one without traffic failed too often.
    StackFailed {
        /// The stack.
        stack: StackId,
        /// Why.
        reason: String,
    },
    /// A ready stack was under its `min_ready` on three looks.
    StackUnhealthy {
        /// The stack.
        stack: StackId,
    },
    /// An unhealthy stack has its `min_ready` again.
    StackRecovered {
        /// The stack.
        stack: StackId,
    },
    /// The router confirmed the weights that are set.
    WeightsApplied {
        /// The generation it holds.
        generation: StreamVersion,
        /// What it serves.
        weights: Weights,
        /// Where users connect.
        listening: Option<SocketAddr>,
    },
    /// The router serves what nobody asked for.
    DriftSeen {
        /// What it serves.
        seen: BTreeMap<StackId, Weight>,
        /// The generation it holds; none if it knows nothing of the deployment.
        generation: Option<StreamVersion>,
    },
    /// The rollout that waits has nothing in its way any more.
    StartRequestedRollout {
        /// The stack.
        stack: StackId,
    },
    /// The time of a hold is over.
    EndHold {
        /// Which.
        cause: Cause,
    },
    /// The rollout that waits has nothing left to do.
    DropRequest {
        /// The stack.
        stack: StackId,
    },
    /// The judge begins to listen to a rollout.
    BeginJudging {
        /// What it is told beforehand.
        begun: Begun,
    },
    /// What both versions of a rollout did is recorded.
    Count {
        /// It.
        counted: Counted,
        /// What the judge says after it, if there is something to say.
        judged: Option<Judged>,
    },
    /// A rollout's due step is taken.
    TakeStep {
        /// The rollout.
        rollout: RolloutId,
        /// The step.
        step: u16,
        /// What was not recorded yet.
        counted: Option<Counted>,
        /// What the judge says after it; nothing before the first step.
        judged: Option<Judged>,
    },
    /// A rollout's due step is not taken yet.
    Hold {
        /// The rollout.
        rollout: RolloutId,
        /// What kind of thing it waits for.
        kind: HoldKind,
        /// Why.
        reason: String,
        /// What was not recorded yet.
        counted: Option<Counted>,
        /// What the judge says after it.
        judged: Option<Judged>,
    },
    /// A running rollout that nobody drove for a time is driven again.
    DriveAgain {
        /// The rollout.
        rollout: RolloutId,
    },
    /// A canary is worse or unhealthy and goes back.
    SendBack {
        /// The rollout.
        rollout: RolloutId,
        /// Why.
        reason: String,
        /// What was not recorded yet.
        counted: Option<Counted>,
        /// What the judge says after it, if it was the judge.
        judged: Option<Judged>,
        /// What the newest probes say of where it could go.
        probed: Probed,
    },
    /// An unused stack will be taken down after its drain.
    StartCollection {
        /// The stack.
        stack: StackId,
        /// Why.
        reason: String,
    },
    /// All nodes of a stack are gone.
    Collected {
        /// The stack.
        stack: StackId,
    },
}

impl DeploymentOutcome {
    /// Returns it with a reason that may be kept for ever, as [`text::tidy`] makes it.
    #[must_use]
    pub fn tidied(mut self) -> Self {
        match &mut self {
            DeploymentOutcome::LaunchFailed { reason, .. }
            | DeploymentOutcome::NodeUnhealthy { reason, .. }
            | DeploymentOutcome::NodeFailing { reason, .. }
            | DeploymentOutcome::NodeLost { reason, .. }
            | DeploymentOutcome::StackFailed { reason, .. }
            | DeploymentOutcome::Hold { reason, .. }
            | DeploymentOutcome::SendBack { reason, .. }
            | DeploymentOutcome::StartCollection { reason, .. } => *reason = text::tidy(reason),
            DeploymentOutcome::StartLaunch { .. }
            | DeploymentOutcome::Launched { .. }
            | DeploymentOutcome::NodeReady { .. }
            | DeploymentOutcome::NodeStopped { .. }
            | DeploymentOutcome::StackReady { .. }
            | DeploymentOutcome::StackUnhealthy { .. }
            | DeploymentOutcome::StackRecovered { .. }
            | DeploymentOutcome::WeightsApplied { .. }
            | DeploymentOutcome::DriftSeen { .. }
            | DeploymentOutcome::StartRequestedRollout { .. }
            | DeploymentOutcome::EndHold { .. }
            | DeploymentOutcome::DropRequest { .. }
            | DeploymentOutcome::BeginJudging { .. }
            | DeploymentOutcome::Count { .. }
            | DeploymentOutcome::TakeStep { .. }
            | DeploymentOutcome::DriveAgain { .. }
            | DeploymentOutcome::Collected { .. } => {}
        }
        self
    }
}

impl Outcome {
    /// Returns the SHA-256 of its JSON.
    pub fn hash(&self) -> Hash {
        Hash::of(&serde_json::to_vec(self).expect("an outcome is plain JSON"))
    }
}
