//! Status: what runs and what serves, per service and deployment.

mod back;
mod rollout;
mod stack;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ledger::State;
use ledger::deployment::hold::Hold;
use ledger::deployment::{Deployment, Dropped, Waiting, waiting};
use ledger::execute::ClockTrouble;
use ledger::judgement::Judgements;
use ledger::log::Ahead;
use schemas::break_glass::Unrecorded;
use schemas::hold::Cause;
use schemas::rollout::Plan;
use schemas::{
    Actor, CommitId, DeploymentId, EffectId, EnvironmentName, Fence, ServiceName, StackId, StackName, Timestamp,
    Version, Weight,
};
use serde::{Deserialize, Serialize};

pub use ledger::deployment::waiting::ObstacleKind;

pub use self::back::{RollbackTarget, RollingBackStatus, StrandedStatus, UsersGetStatus};
pub use self::rollout::{EvidenceStatus, NextStep, RolloutMeasured, RolloutPhase, RolloutStatus, VerdictStatus};
pub use self::stack::{MeasuredStatus, NodePhase, NodeStatus, StackPhase, VersionStatus};

use super::{At, SCHEMA_VERSION};

/// What runs and what serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// The version of this form.
    pub schema_version: u16,
    /// The moment it speaks of.
    pub at: At,
    /// Why the process that answers follows the ledger no further, if it does not: what it says ends there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<String>,
    /// What is really there, where nobody runs who follows the ledger: no rollout goes on and no node is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unattended: Option<Unattended>,
    /// Where the ledger goes on, if it was moved: this is how it stood then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<String>,
    /// What the ledger is a read-only copy of, if it is one: this is how it stood when it was copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_of: Option<String>,
    /// The streams that this program takes nothing for but a rollback, each with the first event in it that it does not
    /// understand. Only of now.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub read_only: BTreeMap<String, String>,
    /// Commits that say that they were made more than a day after the log took them in, of the last that were read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ahead: Vec<Ahead>,
    /// Every service by name, also those without a deployment.
    pub services: Vec<ServiceStatus>,
    /// Rollbacks that were carried out here and that the ledger does not have yet: it gave no verdict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unrecorded: Vec<Unrecorded>,
    /// What is wrong with the clock of the machine that answers, if something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<String>,
    /// Since when the router has not answered whoever follows the ledger, if it has not for some seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_silent: Option<RouterSilentStatus>,
}

/// A router that does not answer: it takes no weights, and nobody knows whether users are served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterSilentStatus {
    /// Since when.
    pub since: Timestamp,
    /// What the last call of it came to.
    pub why: String,
    /// The command that ends its process, after which `ionledger up` starts another; none if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What is there of a ledger that nobody follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unattended {
    /// What should follow it and answers nothing, if it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent: Option<String>,
    /// Why the proxy does not answer, if it does not.
    pub proxy: Option<String>,
    /// How many of the nodes run.
    pub nodes_running: u64,
    /// How many nodes the ledger knows.
    pub nodes: u64,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub service: ServiceName,
    /// The team that answers for it; none if it was never declared.
    pub owner: Option<String>,
    /// What it is, in a sentence.
    pub description: String,
    /// How many releases are recorded.
    pub releases: u64,
    /// The release that was recorded last.
    pub latest_release: Option<Version>,
    /// Its deployments by environment.
    pub deployments: Vec<DeploymentStatus>,
}

/// A service in an environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeploymentStatus {
    /// The deployment, `production/api`.
    pub deployment: DeploymentId,
    /// Where it runs.
    pub environment: EnvironmentName,
    /// Where its users connect: as the router said last, or as its service declares.
    pub listen: Option<SocketAddr>,
    /// Its stacks, the oldest first.
    pub versions: Vec<VersionStatus>,
    /// What its users get now, where nobody runs who follows the ledger and it was looked at the proxy itself. The applied
    /// weights are then those that were seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<SeenStatus>,
    /// Since when its router has not answered whoever follows the ledger, if it has not for some seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_silent: Option<RouterSilentStatus>,
    /// When its weights were set last.
    pub weights_set_at: Option<Timestamp>,
    /// When the ledger heard of these weights, if they were set without it (break-glass): `weights_set_at` is then when the
    /// rollback took effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights_recorded_at: Option<Timestamp>,
    /// Whether the router has confirmed the weights that are set.
    pub weights_applied: bool,
    /// Whether nobody knows what the router serves: it was told without the ledger, or it does not answer. The applied weights are
    /// then those that it confirmed before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub applied_unknown: bool,
    /// Its rollout: the one under way, or the last.
    pub rollout: Option<RolloutStatus>,
    /// Where a rollback would go now.
    pub rollback_target: Option<RollbackTarget>,
    /// The version that a rollback goes to as soon as its stack is ready again, while that is waited for.
    #[serde(default)]
    pub rolling_back_to: Option<Version>,
    /// The name of that stack.
    #[serde(default)]
    pub rolling_back_to_name: Option<StackName>,
    /// What that waits for, while it is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling_back: Option<RollingBackStatus>,
    /// Users on a stack that does not pass its check, while another that users are on does: they get errors until somebody moves
    /// them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stranded: Vec<StrandedStatus>,
    /// What its users get, where that is not what is set because none of it can be called, or where no node of it passes its
    /// check. Only as far as somebody follows the ledger who would know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users_get: Option<UsersGetStatus>,
    /// The number that every rollback raises.
    pub fence: Fence,
    /// Its holds: while there is one, what pipelines release is prepared and not rolled out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<HoldStatus>,
    /// The rollout that was asked for with its stack and has not begun.
    #[serde(default)]
    pub waiting: Option<WaitingStatus>,
    /// Rollouts that were asked for so and will not begin, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<DroppedStatus>,
    /// What the router served that nobody asked for, while it lasts.
    pub drift: Option<DriftStatus>,
    /// When it was retired, if it is.
    pub retired_at: Option<Timestamp>,
    /// Why it was retired, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_because: Option<String>,
}

/// What a deployment's users get, as it was seen at the proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenStatus {
    /// The weights that it serves; none if it serves nobody.
    pub weights: BTreeMap<StackId, Weight>,
    /// Why users cannot connect, if they cannot.
    pub trouble: Option<String>,
}

impl StatusAnswer {
    /// Says of each node where its log lies.
    pub fn name_logs(&mut self, path: impl Fn(EffectId) -> String) {
        let deployments = self.services.iter_mut().flat_map(|service| &mut service.deployments);
        for node in deployments.flat_map(|deployment| &mut deployment.versions).flat_map(|version| &mut version.nodes) {
            node.log = Some(path(node.effect));
        }
    }
}

/// A rollout that was asked for and has not begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingStatus {
    /// The version; none if its stack is gone.
    pub version: Option<Version>,
    /// The name of its stack, as commands take it: `1.2.3`, or `1.2.3~2`.
    #[serde(default)]
    pub name: Option<StackName>,
    /// Its stack.
    pub stack: StackId,
    /// How it shall go.
    pub plan: Plan,
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// What it waits for; nothing if it is about to begin.
    pub waits_for: Vec<ObstacleStatus>,
}

/// A hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldStatus {
    /// What it was set for.
    pub cause: Cause,
    /// Why.
    pub reason: String,
    /// Who set it, where that can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
    /// The commit that set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// The versions that were rolled back from or aborted: a release that fixes one of them ends the hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<Version>,
    /// Since when.
    pub since: Timestamp,
    /// When it ends by itself; none if somebody must lift it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// Something that a rollout waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObstacleStatus {
    /// What kind of thing it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ObstacleKind>,
    /// What it is.
    pub why: String,
    /// The command that removes it, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A rollout that was asked for and will not begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedStatus {
    /// The version.
    pub version: Version,
    /// The name of its stack, as commands take it: `1.2.3`, or `1.2.3~2`.
    #[serde(default)]
    pub name: Option<StackName>,
    /// The stack that it was asked for with.
    pub stack: StackId,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// What the router served that nobody asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftStatus {
    /// What it served.
    pub seen: BTreeMap<StackId, Weight>,
    /// Whether it was all on the rollback target.
    pub towards_target: bool,
    /// When it was seen.
    pub at: Timestamp,
}

impl StatusAnswer {
    /// Returns every hold that is in force.
    pub(crate) fn holds_mut(&mut self) -> impl Iterator<Item = &mut HoldStatus> {
        let deployments = self.services.iter_mut().flat_map(|service| &mut service.deployments);
        deployments.flat_map(|deployment| &mut deployment.holds)
    }

    /// Names the rollbacks that the ledger does not have yet: it does not know what the router serves of their deployments, and the
    /// rollouts that they end come back.
    pub fn name_unrecorded(&mut self, unrecorded: Vec<Unrecorded>) {
        for deployment in self.services.iter_mut().flat_map(|service| &mut service.deployments) {
            let of_deployment = unrecorded.iter().filter(|one| one.deployment == deployment.deployment);
            deployment.applied_unknown |= unrecorded.iter().any(|one| one.deployment == deployment.deployment);
            if let Some(rollout) = &mut deployment.rollout {
                rollout.name_unrecorded(of_deployment);
            }
        }
        self.unrecorded = unrecorded;
    }

    /// Names the router that does not answer, also beside each deployment that it has weights of.
    pub fn name_silent_router(&mut self, silent: RouterSilentStatus) {
        let deployments = self.services.iter_mut().flat_map(|service| &mut service.deployments);
        for deployment in deployments.filter(|deployment| deployment.weights_set_at.is_some()) {
            deployment.router_silent = Some(silent.clone());
        }
        self.router_silent = Some(silent);
    }

    /// Names what is wrong with the clock of the machine that answers: it may be why a rollout takes no step.
    pub fn name_clock(&mut self, trouble: &ClockTrouble) {
        self.clock = Some(trouble.to_string());
        let Some(why) = trouble.holds() else { return };
        let now = self.at.time;
        let deployments = self.services.iter_mut().flat_map(|service| &mut service.deployments);
        let rollouts = deployments.filter_map(|deployment| deployment.rollout.as_mut());
        let goes_on =
            |rollout: &&mut RolloutStatus| rollout.phase == RolloutPhase::Running && rollout.comes_back_to.is_none();
        for rollout in rollouts.filter(goes_on) {
            rollout.held = Some(why.to_owned());
            (rollout.held_kind, rollout.held_since) = (None, None);
            let remaining =
                rollout.expected_end_at.take().zip(now).map(|(end, now)| end.duration_since(now).as_millis());
            rollout.remaining_ms = rollout.remaining_ms.or(remaining.map(|ms| u64::try_from(ms).unwrap_or(0)));
        }
    }
}

/// Returns the status of every service.
pub fn status(state: &State, at: At) -> StatusAnswer {
    let names: BTreeSet<&ServiceName> =
        state.services.keys().chain(state.deployments.keys().map(|id| &id.service)).collect();
    let services = names.into_iter().map(|name| service_status(state, name, at.time)).collect();
    whole(state, at, services)
}

fn whole(state: &State, at: At, services: Vec<ServiceStatus>) -> StatusAnswer {
    StatusAnswer {
        schema_version: SCHEMA_VERSION,
        at,
        halted: None,
        unattended: None,
        moved_to: state.sealed.clone(),
        copy_of: None,
        read_only: BTreeMap::new(),
        ahead: vec![],
        services,
        unrecorded: vec![],
        clock: None,
        router_silent: None,
    }
}

/// Returns the status of one service, with its deployments in `environment` or all of them; no services if it is
/// unknown.
pub fn status_of(state: &State, at: At, service: &ServiceName, environment: Option<&EnvironmentName>) -> StatusAnswer {
    let deployed = state.deployments.keys().any(|id| &id.service == service);
    let mut services = Vec::new();
    if state.services.contains_key(service) || deployed {
        let mut found = service_status(state, service, at.time);
        found.deployments.retain(|deployment| environment.is_none_or(|wanted| *wanted == deployment.environment));
        services.push(found);
    }
    whole(state, at, services)
}

fn service_status(state: &State, name: &ServiceName, at: Option<Timestamp>) -> ServiceStatus {
    let service = state.service(name);
    let definition = service.and_then(|service| service.definition.as_ref());
    let deployments = state.deployments.iter().filter(|(id, _)| id.service == *name);
    ServiceStatus {
        service: name.clone(),
        owner: definition.map(|definition| definition.owner.clone()),
        description: definition.map(|definition| definition.description.clone()).unwrap_or_default(),
        releases: service.map_or(0, |service| service.releases.len() as u64),
        latest_release: service.and_then(|service| service.newest()).cloned(),
        deployments: deployments
            .map(|(id, deployment)| {
                let declared = definition.and_then(|definition| definition.listen.get(&id.environment)).copied();
                let listen = deployment.traffic.applied.as_ref().and_then(|applied| applied.listening).or(declared);
                let judgements = state.judgements.get(id).map(AsRef::as_ref);
                let past = definition.is_none_or(|definition| definition.policy.rollout.rollback_past_target);
                DeploymentStatus {
                    listen,
                    rollback_target: back::target_status(deployment, past),
                    ..deployment_status(id, deployment, judgements, at)
                }
            })
            .collect(),
    }
}

fn deployment_status(
    id: &DeploymentId,
    deployment: &Deployment,
    judgements: Option<&Judgements>,
    at: Option<Timestamp>,
) -> DeploymentStatus {
    let traffic = &deployment.traffic;
    let here = deployment.stacks.iter().map(|(id, stack)| stack::version_status(deployment, *id, stack));
    let mut versions: Vec<_> =
        here.chain(deployment.failed.iter().map(|(id, gone)| stack::failed_status(deployment, *id, gone))).collect();
    versions.sort_by_key(|version| (version.requested_at, version.stack));
    let drift = traffic.drift.as_ref();
    DeploymentStatus {
        deployment: id.clone(),
        environment: id.environment.clone(),
        listen: None,
        versions,
        seen: None,
        router_silent: None,
        weights_set_at: traffic.set.as_ref().map(|set| set.at),
        weights_recorded_at: traffic.recorded_late_at(),
        weights_applied: traffic.is_applied(),
        applied_unknown: traffic.is_applied_unknown(),
        rollout: deployment
            .rollout
            .as_ref()
            .map(|rollout| rollout::rollout_status(deployment, rollout, judgements, at)),
        rollback_target: None,
        fence: traffic.fence,
        rolling_back_to_name: traffic.awaited.and_then(|id| Some(deployment.stacks.get(&id)?.name())),
        rolling_back_to: traffic.awaited.and_then(|id| Some(deployment.stacks.get(&id)?.version.clone())),
        rolling_back: back::rolling_back_status(id, deployment),
        stranded: back::stranded_status(id, deployment),
        users_get: back::users_get_status(id, deployment),
        holds: deployment.holds.iter().map(hold_status).collect(),
        waiting: deployment.waiting.as_ref().map(|waiting| waiting_status(id, deployment, waiting)),
        dropped: deployment.dropped.iter().map(dropped_status).collect(),
        drift: drift.map(|drift| DriftStatus {
            seen: drift.seen.clone(),
            towards_target: deployment.drift_left_alone().is_some(),
            at: drift.at,
        }),
        retired_at: traffic.retired_at,
        retired_because: traffic.retired_because.clone(),
    }
}

fn waiting_status(id: &DeploymentId, deployment: &Deployment, waiting: &Waiting) -> WaitingStatus {
    let obstacles = waiting::obstacles(deployment, id).into_iter();
    WaitingStatus {
        version: deployment.version_of(waiting.stack).cloned(),
        name: deployment.name_of(waiting.stack),
        stack: waiting.stack,
        plan: waiting.plan.clone(),
        asked_at: waiting.at,
        waits_for: obstacles.map(obstacle_status).collect(),
    }
}

fn obstacle_status(waiting::Obstacle { kind, why, next }: waiting::Obstacle) -> ObstacleStatus {
    ObstacleStatus { kind: Some(kind), why, next }
}

fn hold_status((cause, hold): (&Cause, &Hold)) -> HoldStatus {
    let Hold { reason, versions, since, until, commit } = hold.clone();
    HoldStatus { cause: *cause, reason, actor: None, commit: Some(commit), versions, since, until }
}

fn dropped_status(dropped: &Dropped) -> DroppedStatus {
    let Dropped { stack, version, number, reason, at } = dropped.clone();
    let name = Some(StackName::new(version.clone(), number));
    DroppedStatus { version, name, stack, reason, at }
}
