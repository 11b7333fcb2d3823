//! Outcomes: what workers report. They are hashed as JSON and never stored.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;

use crate::hold::Cause;
use crate::id::{DeploymentId, EffectId, Hash, RolloutId, StackId, StreamVersion};
use crate::judgement::{Begun, Counted, Judged};
use crate::probed::Probed;
use crate::rollout::HoldKind;
use crate::stream::Role;
use crate::text;
use crate::weight::{Weight, Weights};

/// What a worker concludes or has done. It is about one deployment or about a lease.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)] // few at a time, and none is kept
pub enum Outcome {
    /// About a deployment.
    Deployment(DeploymentReport),
    /// An instance takes a role over.
    TakeLease(TakeLease),
    /// The holder gives its role up.
    ReleaseLease(ReleaseLease),
}

/// What a worker concludes or has done about a deployment.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentOutcome {
    /// The provisioner is about to launch a node.
    StartLaunch(StartLaunch),
    /// A node runs.
    Launched(Launched),
    /// A node could not be launched.
    LaunchFailed(LaunchFailed),
    /// A node passed its check as often as it must.
    NodeReady(NodeReady),
    /// A ready node fails its check.
    NodeUnhealthy(NodeUnhealthy),
    /// A node that was launched and is not ready yet fails its check.
    NodeFailing(NodeFailing),
    /// A node is gone that nobody took down.
    NodeLost(NodeLost),
    /// A node was taken down.
    NodeStopped(NodeStopped),
    /// Every node of a stack is ready.
    StackReady(StackReady),
    /// A stack did not become ready, or one without traffic failed too often.
    StackFailed(StackFailed),
    /// A ready stack was under its `min_ready` on three looks.
    StackUnhealthy(StackUnhealthy),
    /// An unhealthy stack has its `min_ready` again.
    StackRecovered(StackRecovered),
    /// The router confirmed the weights that are set.
    WeightsApplied(WeightsApplied),
    /// The router serves what nobody asked for.
    DriftSeen(DriftSeen),
    /// The rollout that waits has nothing in its way any more.
    StartRequestedRollout(StartRequestedRollout),
    /// The time of a hold is over.
    EndHold(EndHold),
    /// The rollout that waits has nothing left to do.
    DropRequest(DropRequest),
    /// The judge begins to listen to a rollout.
    BeginJudging(BeginJudging),
    /// What both versions of a rollout did is recorded.
    Count(Count),
    /// A rollout's due step is taken.
    TakeStep(TakeStep),
    /// A rollout's due step is not taken yet.
    Hold(Hold),
    /// A running rollout that nobody drove for a time is driven again.
    DriveAgain(DriveAgain),
    /// A canary is worse or unhealthy and goes back.
    SendBack(SendBack),
    /// An unused stack will be taken down after its drain.
    StartCollection(StartCollection),
    /// All nodes of a stack are gone.
    Collected(Collected),
}

/// What is reported with [`Outcome::Deployment`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeploymentReport {
    /// The deployment.
    pub deployment: DeploymentId,
    /// What about it.
    pub outcome: DeploymentOutcome,
}

/// What is reported with [`Outcome::TakeLease`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TakeLease {
    /// The role.
    pub role: Role,
    /// The instance.
    pub holder: String,
    /// Whose place it takes, as it saw it: who takes one over that somebody else has taken meanwhile comes too late.
    pub from: Option<String>,
    /// Why.
    pub reason: String,
}

/// What is reported with [`Outcome::ReleaseLease`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReleaseLease {
    /// The role.
    pub role: Role,
    /// The instance.
    pub holder: String,
}

/// What is reported with [`DeploymentOutcome::StartLaunch`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StartLaunch {
    /// The stack.
    pub stack: StackId,
    /// The place it fills.
    pub slot: u16,
    /// How often the place was filled before.
    pub attempt: u32,
    /// The effect.
    pub effect: EffectId,
    /// The port.
    pub port: u16,
}

/// What is reported with [`DeploymentOutcome::Launched`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Launched {
    /// The effect.
    pub effect: EffectId,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it is called outside.
    pub instance: String,
}

/// What is reported with [`DeploymentOutcome::LaunchFailed`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LaunchFailed {
    /// The effect.
    pub effect: EffectId,
    /// Why.
    pub reason: String,
}

/// What is reported with [`DeploymentOutcome::NodeReady`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeReady {
    /// The effect.
    pub effect: EffectId,
}

/// What is reported with [`DeploymentOutcome::NodeUnhealthy`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeUnhealthy {
    /// The effect.
    pub effect: EffectId,
    /// What the check said.
    pub reason: String,
}

/// What is reported with [`DeploymentOutcome::NodeFailing`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeFailing {
    /// The effect.
    pub effect: EffectId,
    /// What the check said.
    pub reason: String,
}

/// What is reported with [`DeploymentOutcome::NodeLost`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeLost {
    /// The effect.
    pub effect: EffectId,
    /// What was seen.
    pub reason: String,
}

/// What is reported with [`DeploymentOutcome::NodeStopped`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeStopped {
    /// The effect.
    pub effect: EffectId,
}

/// What is reported with [`DeploymentOutcome::StackReady`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StackReady {
    /// The stack.
    pub stack: StackId,
}

/// What is reported with [`DeploymentOutcome::StackFailed`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StackFailed {
    /// The stack.
    pub stack: StackId,
    /// Why.
    pub reason: String,
}

/// What is reported with [`DeploymentOutcome::StackUnhealthy`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StackUnhealthy {
    /// The stack.
    pub stack: StackId,
}

/// What is reported with [`DeploymentOutcome::StackRecovered`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StackRecovered {
    /// The stack.
    pub stack: StackId,
}

/// What is reported with [`DeploymentOutcome::WeightsApplied`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WeightsApplied {
    /// The generation it holds.
    pub generation: StreamVersion,
    /// What it serves.
    pub weights: Weights,
    /// Where users connect.
    pub listening: Option<SocketAddr>,
}

/// What is reported with [`DeploymentOutcome::DriftSeen`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DriftSeen {
    /// What it serves.
    pub seen: BTreeMap<StackId, Weight>,
    /// The generation it holds; none if it knows nothing of the deployment.
    pub generation: Option<StreamVersion>,
}

/// What is reported with [`DeploymentOutcome::StartRequestedRollout`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StartRequestedRollout {
    /// The stack.
    pub stack: StackId,
}

/// What is reported with [`DeploymentOutcome::EndHold`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EndHold {
    /// Which.
    pub cause: Cause,
}

/// What is reported with [`DeploymentOutcome::DropRequest`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DropRequest {
    /// The stack.
    pub stack: StackId,
}

/// What is reported with [`DeploymentOutcome::BeginJudging`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BeginJudging {
    /// What it is told beforehand.
    pub begun: Begun,
}

/// What is reported with [`DeploymentOutcome::Count`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Count {
    /// It.
    pub counted: Counted,
    /// What the judge says after it, if there is something to say.
    pub judged: Option<Judged>,
}

/// What is reported with [`DeploymentOutcome::TakeStep`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TakeStep {
    /// The rollout.
    pub rollout: RolloutId,
    /// The step.
    pub step: u16,
    /// What was not recorded yet.
    pub counted: Option<Counted>,
    /// What the judge says after it; nothing before the first step.
    pub judged: Option<Judged>,
}

/// What is reported with [`DeploymentOutcome::Hold`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hold {
    /// The rollout.
    pub rollout: RolloutId,
    /// What kind of thing it waits for.
    pub kind: HoldKind,
    /// Why.
    pub reason: String,
    /// What was not recorded yet.
    pub counted: Option<Counted>,
    /// What the judge says after it.
    pub judged: Option<Judged>,
}

/// What is reported with [`DeploymentOutcome::DriveAgain`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DriveAgain {
    /// The rollout.
    pub rollout: RolloutId,
}

/// What is reported with [`DeploymentOutcome::SendBack`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SendBack {
    /// The rollout.
    pub rollout: RolloutId,
    /// Why.
    pub reason: String,
    /// What was not recorded yet.
    pub counted: Option<Counted>,
    /// What the judge says after it, if it was the judge.
    pub judged: Option<Judged>,
    /// What the newest probes say of where it could go.
    pub probed: Probed,
}

/// What is reported with [`DeploymentOutcome::StartCollection`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StartCollection {
    /// The stack.
    pub stack: StackId,
    /// Why.
    pub reason: String,
}

/// What is reported with [`DeploymentOutcome::Collected`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Collected {
    /// The stack.
    pub stack: StackId,
}

impl DeploymentOutcome {
    /// Returns it with a reason that may be kept for ever, as [`text::tidy`] makes it.
    #[must_use]
    pub fn tidied(mut self) -> Self {
        let reason = match &mut self {
            DeploymentOutcome::LaunchFailed(outcome) => &mut outcome.reason,
            DeploymentOutcome::NodeUnhealthy(outcome) => &mut outcome.reason,
            DeploymentOutcome::NodeFailing(outcome) => &mut outcome.reason,
            DeploymentOutcome::NodeLost(outcome) => &mut outcome.reason,
            DeploymentOutcome::StackFailed(outcome) => &mut outcome.reason,
            DeploymentOutcome::Hold(outcome) => &mut outcome.reason,
            DeploymentOutcome::SendBack(outcome) => &mut outcome.reason,
            DeploymentOutcome::StartCollection(outcome) => &mut outcome.reason,
            DeploymentOutcome::StartLaunch(_)
            | DeploymentOutcome::Launched(_)
            | DeploymentOutcome::NodeReady(_)
            | DeploymentOutcome::NodeStopped(_)
            | DeploymentOutcome::StackReady(_)
            | DeploymentOutcome::StackUnhealthy(_)
            | DeploymentOutcome::StackRecovered(_)
            | DeploymentOutcome::WeightsApplied(_)
            | DeploymentOutcome::DriftSeen(_)
            | DeploymentOutcome::StartRequestedRollout(_)
            | DeploymentOutcome::EndHold(_)
            | DeploymentOutcome::DropRequest(_)
            | DeploymentOutcome::BeginJudging(_)
            | DeploymentOutcome::Count(_)
            | DeploymentOutcome::TakeStep(_)
            | DeploymentOutcome::DriveAgain(_)
            | DeploymentOutcome::Collected(_) => return self,
        };
        *reason = text::tidy(reason);
        self
    }
}

impl Outcome {
    /// Returns the SHA-256 of its JSON.
    pub fn hash(&self) -> Hash {
        Hash::of(&serde_json::to_vec(self).expect("an outcome is plain JSON"))
    }
}

/// Makes each of the types the outcome that carries it.
macro_rules! outcomes {
    ($($outcome:ident),* $(,)?) => {$(
        impl From<$outcome> for DeploymentOutcome {
            fn from(outcome: $outcome) -> Self {
                DeploymentOutcome::$outcome(outcome)
            }
        }
    )*};
}

outcomes! {
    StartLaunch, Launched, LaunchFailed, NodeReady, NodeUnhealthy, NodeFailing, NodeLost, NodeStopped, StackReady,
    StackFailed, StackUnhealthy, StackRecovered, WeightsApplied, DriftSeen, StartRequestedRollout, EndHold,
    DropRequest, BeginJudging, Count, TakeStep, Hold, DriveAgain, SendBack, StartCollection, Collected,
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    /// Its hash is part of the id under which it is recorded, so that two programs of different versions record it once.
    #[test]
    fn an_outcome_is_the_same_json_as_ever() {
        let stack = StackId(Uuid::from_u128(1));
        let deployment = "production/api".parse().unwrap();
        let outcome = StackFailed { stack, reason: "it does not start".to_owned() }.into();
        let reported = Outcome::Deployment(DeploymentReport { deployment, outcome });
        let inner = json!({"stack_failed": {"stack": stack, "reason": "it does not start"}});
        let whole = json!({"deployment": {"deployment": "production/api", "outcome": inner}});
        assert_eq!(serde_json::to_value(&reported).unwrap(), whole);
        let taken =
            TakeLease { role: Role::Collector, holder: "one".to_owned(), from: None, reason: "started".to_owned() };
        let taken = serde_json::to_value(Outcome::TakeLease(taken)).unwrap();
        let fields = json!({"role": "collector", "holder": "one", "from": null, "reason": "started"});
        assert_eq!(taken, json!({"take_lease": fields}));
    }
}
