//! Status: what runs and what serves, per service and deployment.

mod back;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ledger::State;
use ledger::deployment::hold::Hold;
use ledger::deployment::{self, Deployment, Dropped, Waiting, rejected, rollout, stack, step, waiting};
use ledger::execute::ClockTrouble;
use ledger::judgement::Judgements;
use ledger::judgement::hearing::Hearing;
use ledger::log::Ahead;
use schemas::glass::Unrecorded;
use schemas::hold::Cause;
use schemas::judgement::{Counts, Evidence, Verdict};
use schemas::rollout::{HoldKind, Plan};
use schemas::{
    DeploymentId, EffectId, EnvironmentName, Fence, RolloutId, ServiceName, StackId, StackName, Timestamp, Version,
    Weight,
};
use serde::{Deserialize, Serialize};

pub use ledger::deployment::waiting::ObstacleKind;

pub use self::back::{RollbackTarget, RollingBackStatus, StrandedStatus};

use super::{At, SCHEMA_VERSION};

/// What runs and what serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
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
    /// When its weights were set last.
    pub weights_set_at: Option<Timestamp>,
    /// When the ledger heard of these weights, if they were set without it (break-glass): `weights_set_at` is then when the
    /// rollback took effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights_recorded_at: Option<Timestamp>,
    /// Whether the router has confirmed the weights that are set.
    pub weights_applied: bool,
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

/// A stack: the nodes that run one version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionStatus {
    /// The version it runs.
    pub version: Version,
    /// Its name, as commands take it: `1.2.3`, or `1.2.3~2`.
    #[serde(default)]
    pub name: Option<StackName>,
    /// The stack.
    pub stack: StackId,
    /// How far it is.
    pub phase: StackPhase,
    /// Why it failed, if it did.
    pub reason: Option<String>,
    /// When it failed, if it did.
    #[serde(default)]
    pub failed_at: Option<Timestamp>,
    /// Why a node of it was last lost or could not be launched, if one was.
    pub last_failure: Option<String>,
    /// How many nodes pass their check.
    pub nodes_ready: u16,
    /// How many nodes are wanted.
    pub nodes_wanted: u16,
    /// How many nodes must pass for it to be healthy.
    pub nodes_ready_min: u16,
    /// The weight that was asked for.
    pub weight_set: Weight,
    /// The weight that the router confirmed.
    pub weight_applied: Weight,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// Since when it has had no weight set; none while it has some.
    pub unused_since: Option<Timestamp>,
    /// Since when it is being taken down, if it is.
    pub collecting_since: Option<Timestamp>,
    /// Whether a rollout starts by itself once it is ready.
    pub rolls_when_ready: bool,
    /// What is held against it, if anything is: then no rollback goes to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<RejectedStatus>,
    /// Its nodes by their place.
    pub nodes: Vec<NodeStatus>,
    /// What its requests did in the last minute, where that is asked of one service and was measured. Only of now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<MeasuredStatus>,
}

/// What was measured of a version's requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasuredStatus {
    /// Over how many seconds.
    pub seconds: f64,
    /// Requests that ended.
    pub requests: u64,
    /// Their number in a second.
    pub requests_per_second: f64,
    /// Those that failed, if that is known.
    pub errors: Option<u64>,
    /// Half of them took at most so many milliseconds.
    pub p50_ms: Option<f64>,
    /// 99 % of them took at most so many milliseconds.
    pub p99_ms: Option<f64>,
}

/// What was measured of a rollout's two versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutMeasured {
    /// The baseline's requests.
    pub baseline: MeasuredStatus,
    /// The canary's.
    pub canary: MeasuredStatus,
}

/// What is held against a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedStatus {
    /// What happened to it, in words, after its name.
    pub why: String,
    /// Whether `--again` must be said before it gets traffic.
    pub needs_again: bool,
    /// When.
    pub at: Timestamp,
}

/// How far a stack is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StackPhase {
    /// Its nodes are being launched and checked.
    Starting,
    /// Its nodes passed their checks, and enough of them still do.
    Ready,
    /// It was ready, but fewer nodes are than must be.
    Unhealthy,
    /// It did not become ready, or was given up. Its nodes go; it is shown until its version gets another stack or it is
    /// dismissed.
    Failed,
    /// It is being taken down.
    Collecting,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its place in the stack, from 0.
    pub slot: u16,
    /// The effect that launched it.
    pub effect: EffectId,
    /// How often its place was filled before.
    pub attempt: u32,
    /// How far it is.
    pub phase: NodePhase,
    /// Where it listens, once it runs.
    pub address: Option<SocketAddr>,
    /// What it is called outside, once it runs.
    pub instance: Option<String>,
    /// When its launch began.
    pub started_at: Timestamp,
    /// What its check says, while it fails.
    #[serde(default)]
    pub failing: Option<String>,
    /// Whether its process was seen to run, where nobody runs who follows the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<bool>,
    /// Where its log lies on its machine, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

impl Status {
    /// Says of each node where its log lies.
    pub fn name_logs(&mut self, path: impl Fn(EffectId) -> String) {
        let deployments = self.services.iter_mut().flat_map(|service| &mut service.deployments);
        for node in deployments.flat_map(|deployment| &mut deployment.versions).flat_map(|version| &mut version.nodes) {
            node.log = Some(path(node.effect));
        }
    }
}

/// How far a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodePhase {
    /// The launch is under way.
    Launching,
    /// It runs and has not yet passed its check.
    Launched,
    /// It passes its check.
    Ready,
    /// It runs and fails its check.
    Unhealthy,
}

/// A rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutStatus {
    /// The rollout.
    pub rollout: RolloutId,
    /// The version that served; none if its stack is unknown here.
    pub baseline: Option<Version>,
    /// The baseline's stack.
    pub baseline_stack: StackId,
    /// The name of that stack.
    #[serde(default)]
    pub baseline_name: Option<StackName>,
    /// The newcomer; none if its stack is gone.
    pub canary: Option<Version>,
    /// The canary's stack.
    pub canary_stack: StackId,
    /// The name of that stack.
    #[serde(default)]
    pub canary_name: Option<StackName>,
    /// How it stands.
    pub phase: RolloutPhase,
    /// Whether it is running or paused.
    pub live: bool,
    /// Whether it bakes: the old version keeps a small share, and the newcomer is judged on.
    #[serde(default)]
    pub baking: bool,
    /// Why it is paused, came back, or was ended by somebody.
    pub reason: Option<String>,
    /// How many steps were taken.
    pub steps_taken: u16,
    /// How many steps there are.
    pub steps: u16,
    /// The canary's weight at the step it is at.
    pub weight: Weight,
    /// How it was planned.
    pub plan: Plan,
    /// When it started.
    pub started_at: Timestamp,
    /// When its present step was taken.
    pub step_taken_at: Option<Timestamp>,
    /// When it was paused, if it is.
    pub paused_since: Option<Timestamp>,
    /// How long it was paused in all before, in milliseconds.
    pub paused_ms: u64,
    /// For how long nobody drove it in all, in milliseconds.
    #[serde(default)]
    pub undriven_ms: u64,
    /// Why a due step is not taken, if it is not.
    pub held: Option<String>,
    /// What kind of thing that step waits for.
    #[serde(default)]
    pub held_kind: Option<HoldKind>,
    /// Since when it is known to.
    #[serde(default)]
    pub held_since: Option<Timestamp>,
    /// The step that comes next, while it is live.
    pub next: Option<NextStep>,
    /// When it is expected to end, while it is live and has a step left: as of the moment that this speaks of.
    #[serde(default)]
    pub expected_end_at: Option<Timestamp>,
    /// What the judge said of it last.
    pub verdict: Option<VerdictStatus>,
    /// What the judge knows of it by now, whether there was something to say or not.
    #[serde(default)]
    pub evidence: Option<EvidenceStatus>,
    /// What its two versions did, where `explain` asks and it was measured. Only of now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<RolloutMeasured>,
}

/// How a rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutPhase {
    /// It goes on as planned and judged.
    Running,
    /// Somebody froze its weights.
    Paused,
    /// The canary holds all traffic and was not judged worse.
    Completed,
    /// The canary came back.
    CameBack,
    /// Somebody ended it at its baseline.
    Aborted,
    /// Somebody gave the canary all traffic over the judgement.
    Promoted,
    /// Something else took its place.
    Superseded,
}

/// The step of a rollout that comes next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextStep {
    /// Which, from 1.
    pub number: u16,
    /// Its weight.
    pub weight: Weight,
    /// When it is due, not counting a pause under way.
    pub due_at: Timestamp,
    /// How long the plan takes from there to all traffic, in milliseconds.
    #[serde(default)]
    pub then_ms: u64,
}

/// What the judge said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictStatus {
    /// Of which step, from 1.
    pub step: u16,
    /// What.
    pub verdict: Verdict,
    /// In words.
    pub reason: String,
    /// What the baseline did since the rollout began.
    pub baseline: Counts,
    /// What the canary did since then.
    pub canary: Counts,
    /// What it rests on.
    #[serde(default)]
    pub evidence: Option<Evidence>,
}

/// What the judge knows of a rollout: as of the last ticks that are recorded, at most a minute ago.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceStatus {
    /// What it would say now.
    pub verdict: Verdict,
    /// In words.
    pub reason: String,
    /// What the baseline did since the rollout began.
    pub baseline: Counts,
    /// What the canary did since then.
    pub canary: Counts,
    /// What that rests on.
    #[serde(flatten)]
    pub evidence: Evidence,
    /// The bad nodes by their places, from 1, as far as they are still there.
    pub bad_places: Vec<u16>,
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

impl Status {
    /// Names what is wrong with the clock of the machine that answers: it may be why a rollout takes no step.
    pub fn name_clock(&mut self, trouble: &ClockTrouble) {
        self.clock = Some(trouble.to_string());
        let Some(why) = trouble.holds() else { return };
        let deployments = self.services.iter_mut().flat_map(|service| &mut service.deployments);
        let rollouts = deployments.filter_map(|deployment| deployment.rollout.as_mut());
        for rollout in rollouts.filter(|rollout| rollout.phase == RolloutPhase::Running) {
            rollout.held = Some(why.to_owned());
            (rollout.held_kind, rollout.held_since) = (None, None);
        }
    }
}

/// Returns the status of every service.
pub fn status(state: &State, at: At) -> Status {
    let names: BTreeSet<&ServiceName> =
        state.services.keys().chain(state.deployments.keys().map(|id| &id.service)).collect();
    let services = names.into_iter().map(|name| service_status(state, name, at.time)).collect();
    whole(state, at, services)
}

fn whole(state: &State, at: At, services: Vec<ServiceStatus>) -> Status {
    Status {
        schema_version: SCHEMA_VERSION,
        at,
        halted: None,
        unattended: None,
        moved_to: state.sealed.clone(),
        read_only: BTreeMap::new(),
        ahead: vec![],
        services,
        unrecorded: vec![],
        clock: None,
    }
}

/// Returns the status of one service, with its deployments in `environment` or all of them; no services if it is
/// unknown.
pub fn status_of(state: &State, at: At, service: &ServiceName, environment: Option<&EnvironmentName>) -> Status {
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
    let here = deployment.stacks.iter().map(|(id, stack)| version_status(deployment, *id, stack));
    let mut versions: Vec<_> =
        here.chain(deployment.failed.iter().map(|(id, gone)| failed_status(deployment, *id, gone))).collect();
    versions.sort_by_key(|version| (version.requested_at, version.stack));
    let drift = traffic.drift.as_ref();
    DeploymentStatus {
        deployment: id.clone(),
        environment: id.environment.clone(),
        listen: None,
        versions,
        seen: None,
        weights_set_at: traffic.set.as_ref().map(|set| set.at),
        weights_recorded_at: traffic.recorded_late_at(),
        weights_applied: traffic.is_applied(),
        rollout: deployment.rollout.as_ref().map(|rollout| rollout_status(deployment, rollout, judgements, at)),
        rollback_target: None,
        fence: traffic.fence,
        rolling_back_to_name: traffic.awaited.and_then(|id| Some(deployment.stacks.get(&id)?.name())),
        rolling_back_to: traffic.awaited.and_then(|id| Some(deployment.stacks.get(&id)?.version.clone())),
        rolling_back: back::rolling_back_status(id, deployment),
        stranded: back::stranded_status(id, deployment),
        holds: deployment.holds.iter().map(hold_status).collect(),
        waiting: deployment.waiting.as_ref().map(|waiting| waiting_status(id, deployment, waiting)),
        dropped: deployment.dropped.iter().map(dropped_status).collect(),
        drift: drift.map(|drift| DriftStatus {
            seen: drift.seen.clone(),
            towards_target: drift.towards_target,
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
    let Hold { reason, versions, since, until, .. } = hold.clone();
    HoldStatus { cause: *cause, reason, versions, since, until }
}

fn dropped_status(dropped: &Dropped) -> DroppedStatus {
    let Dropped { stack, version, number, reason, at } = dropped.clone();
    let name = Some(StackName::new(version.clone(), number));
    DroppedStatus { version, name, stack, reason, at }
}

fn version_status(deployment: &Deployment, id: StackId, stack: &deployment::Stack) -> VersionStatus {
    let (mut phase, mut reason, collecting_since) = match &stack.phase {
        stack::Phase::Starting => (StackPhase::Starting, None, None),
        // The ledger records it a few looks later, and its router knows it already.
        stack::Phase::Ready if stack.ready_nodes() < stack.capacity.min_ready => (StackPhase::Unhealthy, None, None),
        stack::Phase::Ready => (StackPhase::Ready, None, None),
        stack::Phase::Unhealthy => (StackPhase::Unhealthy, None, None),
        stack::Phase::Failed { reason } => (StackPhase::Failed, Some(reason.clone()), None),
        stack::Phase::Collecting { since, .. } => (StackPhase::Collecting, None, Some(*since)),
    };
    if let Some(failure) = &stack.failure {
        (phase, reason) = (StackPhase::Failed, Some(failure.reason.clone()));
    }
    VersionStatus {
        version: stack.version.clone(),
        name: Some(stack.name()),
        stack: id,
        phase,
        reason,
        failed_at: stack.failure.as_ref().map(|failure| failure.at),
        last_failure: stack.last_failure.clone(),
        nodes_ready: stack.ready_nodes(),
        nodes_wanted: stack.capacity.nodes,
        nodes_ready_min: stack.capacity.min_ready,
        weight_set: deployment.traffic.set_weight(id),
        weight_applied: deployment.traffic.applied_weight(id),
        requested_at: stack.requested_at,
        unused_since: stack.unused_since,
        collecting_since,
        rolls_when_ready: deployment.waiting.as_ref().is_some_and(|waiting| waiting.stack == id),
        rejected: rejected::of(deployment, id).map(|rejected| RejectedStatus {
            why: rejected.told(),
            needs_again: rejected.needs_again(),
            at: rejected.at,
        }),
        nodes: stack.nodes.iter().map(|(slot, node)| node_status(*slot, node)).collect(),
        measured: None,
    }
}

/// What is left to show of a failed stack whose nodes are gone.
fn failed_status(deployment: &Deployment, id: StackId, failed: &deployment::Failed) -> VersionStatus {
    VersionStatus {
        version: failed.version.clone(),
        name: deployment.name_of(id),
        stack: id,
        phase: StackPhase::Failed,
        reason: Some(failed.failure.reason.clone()),
        failed_at: Some(failed.failure.at),
        last_failure: None,
        nodes_ready: 0,
        nodes_wanted: failed.nodes,
        nodes_ready_min: failed.min_ready,
        weight_set: Weight::ZERO,
        weight_applied: Weight::ZERO,
        requested_at: failed.requested_at,
        unused_since: None,
        collecting_since: None,
        rolls_when_ready: false,
        rejected: None,
        nodes: vec![],
        measured: None,
    }
}

fn node_status(slot: u16, node: &deployment::Node) -> NodeStatus {
    let (phase, instance) = match &node.phase {
        stack::NodePhase::Launching => (NodePhase::Launching, None),
        stack::NodePhase::Launched { instance, .. } => (NodePhase::Launched, Some(instance.clone())),
        stack::NodePhase::Ready { instance, .. } => (NodePhase::Ready, Some(instance.clone())),
        stack::NodePhase::Unhealthy { instance, .. } => (NodePhase::Unhealthy, Some(instance.clone())),
    };
    NodeStatus {
        slot,
        effect: node.effect,
        attempt: node.attempt,
        phase,
        address: node.address(),
        instance,
        started_at: node.started_at,
        failing: node.failing.as_ref().map(|failing| failing.reason.clone()),
        runs: None,
        log: None,
    }
}

fn rollout_status(
    deployment: &Deployment,
    rollout: &deployment::Rollout,
    judgements: Option<&Judgements>,
    at: Option<Timestamp>,
) -> RolloutStatus {
    let (phase, reason, paused_since) = match &rollout.phase {
        rollout::Phase::Running => (RolloutPhase::Running, None, None),
        rollout::Phase::Paused { since, reason } => (RolloutPhase::Paused, Some(reason.clone()), Some(*since)),
        rollout::Phase::Completed => (RolloutPhase::Completed, None, None),
        rollout::Phase::CameBack { reason } => (RolloutPhase::CameBack, Some(reason.clone()), None),
        rollout::Phase::Aborted => (RolloutPhase::Aborted, rollout.ended_because.clone(), None),
        rollout::Phase::Promoted => (RolloutPhase::Promoted, rollout.ended_because.clone(), None),
        rollout::Phase::Superseded => (RolloutPhase::Superseded, rollout.ended_because.clone(), None),
    };
    let next = rollout.next_step().filter(|_| rollout.is_live());
    let judged = judgements.and_then(|judgements| judgements.last.as_ref());
    let hearing = judgements.and_then(|judgements| judgements.of(rollout.id));
    let expected = step::expected(&deployment.traffic, rollout, hearing, at.unwrap_or(rollout.started_at));
    RolloutStatus {
        rollout: rollout.id,
        baseline: deployment.version_of(rollout.baseline).cloned(),
        baseline_stack: rollout.baseline,
        baseline_name: deployment.name_of(rollout.baseline),
        canary: deployment.version_of(rollout.canary).cloned(),
        canary_stack: rollout.canary,
        canary_name: deployment.name_of(rollout.canary),
        phase,
        live: rollout.is_live(),
        baking: rollout.is_baking(),
        reason,
        steps_taken: rollout.step.as_ref().map_or(0, |step| step.number + 1),
        steps: u16::try_from(rollout.plan.steps.len()).unwrap_or(u16::MAX),
        weight: rollout.weight(),
        plan: rollout.plan.clone(),
        started_at: rollout.started_at,
        step_taken_at: rollout.step.as_ref().map(|step| step.at),
        paused_since,
        paused_ms: rollout.still.paused_ms,
        undriven_ms: rollout.still.undriven_ms,
        held: rollout.held.as_ref().map(|held| held.reason.clone()),
        held_kind: rollout.held.as_ref().map(|held| held.kind),
        held_since: rollout.held.as_ref().map(|held| held.at),
        next: next.map(|step| NextStep {
            number: step + 1,
            weight: rollout.plan.steps[usize::from(step)],
            due_at: rollout.due_at(step),
            then_ms: expected.map_or(0, |expected| expected.then_ms),
        }),
        expected_end_at: expected.map(step::Expected::end_at),
        verdict: judged.filter(|judged| judged.rollout == rollout.id).map(|judged| VerdictStatus {
            step: judged.step + 1,
            verdict: judged.verdict,
            reason: judged.reason.clone(),
            baseline: judged.baseline,
            canary: judged.canary,
            evidence: judged.evidence.clone(),
        }),
        evidence: hearing.and_then(|hearing| evidence_status(deployment, rollout, hearing)),
        measured: None,
    }
}

fn evidence_status(
    deployment: &Deployment,
    rollout: &deployment::Rollout,
    hearing: &Hearing,
) -> Option<EvidenceStatus> {
    let judged = step::judged_of(deployment, rollout, hearing)?;
    let evidence = judged.evidence?;
    let places = deployment.stacks.get(&rollout.canary).map(|stack| &stack.nodes);
    let bad = |(_, node): &(&u16, &deployment::Node)| evidence.bad_nodes.contains(&node.effect);
    let bad_places = places.into_iter().flatten().filter(bad).map(|(slot, _)| slot + 1).collect();
    Some(EvidenceStatus {
        verdict: judged.verdict,
        reason: judged.reason,
        baseline: judged.baseline,
        canary: judged.canary,
        evidence,
        bad_places,
    })
}
