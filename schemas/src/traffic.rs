//! Traffic: weights asked for and confirmed, drift, rollback, and the end of a deployment.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::events;
use crate::id::{Fence, RolloutId, StackId, StreamVersion};
use crate::upcast::unchanged;
use crate::weight::{Weight, Weights};

/// What weights were set for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// A `traffic` command.
    Asked,
    /// A rollout's step, from 0.
    Step {
        /// The rollout.
        rollout: RolloutId,
        /// The step.
        step: u16,
    },
    /// A rollout promoted by hand.
    Promotion {
        /// The rollout.
        rollout: RolloutId,
    },
    /// A rollout aborted by hand, or ended for another from the same baseline: all back to that.
    Abort {
        /// The rollout.
        rollout: RolloutId,
    },
    /// A rollback, by hand or by the judge.
    Rollback,
}

/// Weights were asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WeightsSet {
    /// All of the traffic.
    pub weights: Weights,
    /// What for.
    pub purpose: Purpose,
}

/// The router confirmed what it serves: the weights that are set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WeightsApplied {
    /// The generation the router holds: the stream's version they were sent at.
    pub generation: StreamVersion,
    /// All of the traffic.
    pub weights: Weights,
    /// Where users connect, as the router said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listening: Option<SocketAddr>,
}

/// The router served other weights than those that were last confirmed, and nobody asked for it here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DriftSeen {
    /// What it served; empty if it knew nothing of the deployment.
    pub seen: BTreeMap<StackId, Weight>,
    /// Whether it was the rollback target that had all traffic, or a rollback carried out without the ledger; then nobody
    /// corrects it and the rollout pauses.
    pub towards_target: bool,
    /// The generation under which it served that, if it said one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<StreamVersion>,
}

/// All traffic is sent back. The weights follow in the same commit, or, if the target's stack was gone and is deployed
/// again, in the one that says it is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RolledBack {
    /// The stacks that had traffic and are left.
    pub from: Vec<StackId>,
    /// The stack that gets it all.
    pub to: StackId,
    /// Targets that were passed over because they are known to be unhealthy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<StackId>,
    /// The deployment's fence from now on.
    pub fence: Fence,
    /// Why.
    pub reason: String,
}

/// A stack that had traffic was left by hand for an older release. No rollback goes back to it, until it is given all
/// traffic again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rejected {
    /// The stack.
    pub stack: StackId,
    /// Why.
    pub reason: String,
}

/// A break-glass rollback was asked for while the ledger gave no verdict, and is recorded now. When it took effect is its
/// commit's `effective_at`; without one it counts from the commit. What it changed in the ledger follows in the same commit;
/// nothing if it was overtaken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GlassBroken {
    /// The stack that gets all traffic.
    pub to: StackId,
    /// The generation under which the router was told; later ones are above it.
    pub generation: StreamVersion,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// Why it changes nothing in the ledger: what was decided since stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overtaken: Option<String>,
    /// When it was asked for; not kept before version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<Timestamp>,
    /// Whether the router served it before it was recorded; none if that is not known, and before version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<bool>,
}

/// A deployment was retired: no traffic is served any more and every stack will be collected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Retired {
    /// The deployment's fence from now on.
    pub fence: Fence,
    /// Why.
    pub reason: String,
    /// Whether a hold that a person asked for stays; it ended with the deployment before version 2.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_hold: bool,
}

events! {
    /// What happens to a deployment's traffic.
    WeightsSet = "traffic.weights_set",
    WeightsApplied = "traffic.weights_applied",
    DriftSeen = "traffic.drift_seen",
    RolledBack = "traffic.rolled_back",
    Rejected = "traffic.rejected",
    GlassBroken = "traffic.glass_broken" [unchanged],
    Retired = "traffic.retired" [unchanged],
}
