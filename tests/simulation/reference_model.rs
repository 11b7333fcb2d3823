//! The reference model: what the log says, kept by hand from its bytes. It shares no code with the ledger's rule and state, so
//! that it can find them wrong.

use std::collections::{BTreeMap, BTreeSet};

use schemas::envelope::About;
use schemas::policy::HoldAfter;
use schemas::traffic::Purpose;
use schemas::{
    CommandId, CommitId, DeploymentId, EffectId, Event, Fence, Hash, RolloutId, ServiceName, StackId, Timestamp,
    Version, Weight, Weights, hold, node, release, retention, rollout, service, stack, traffic,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::world::{Ms, SECOND};

/// What a record is.
pub enum Entry {
    Malformed,
    Void,
    Counts(Box<Counted>),
}

/// A commit that counts.
pub struct Counted {
    pub id: CommitId,
    pub command: CommandId,
    /// The hash of the command's content.
    pub content: Hash,
    pub time: Timestamp,
    /// The streams it extends.
    pub extends: Vec<String>,
    pub events: Vec<(String, Result<Event, String>)>,
    pub about: About,
}

/// The reference model.
#[derive(Default)]
pub struct ReferenceModel {
    heads: BTreeMap<String, (u64, Hash)>,
    commands: BTreeSet<CommandId>,
    pub commits: BTreeSet<CommitId>,
    /// The leaf of every record.
    pub leaves: Vec<Hash>,
    pub holders: BTreeMap<String, String>,
    pub services: BTreeMap<ServiceName, Service>,
    pub deployments: BTreeMap<DeploymentId, Deployment>,
    /// The ledger's time: the latest of its commits. One that was long on its way has an earlier one.
    pub time: Timestamp,
}

#[derive(Default)]
pub struct Service {
    pub serving_max: u16,
    /// Which rollbacks put it on hold.
    pub hold_after: HoldAfter,
    pub releases: BTreeMap<Version, Value>,
    /// Its releases in the order in which they were recorded.
    order: Vec<Version>,
}

impl Service {
    /// Says whether `one` was recorded before `other`.
    pub fn is_older(&self, one: &Version, other: &Version) -> bool {
        let place = |version| self.order.iter().position(|recorded| recorded == version);
        matches!((place(one), place(other)), (Some(one), Some(other)) if one < other)
    }
}

#[derive(Default)]
pub struct Deployment {
    pub version: u64,
    pub stacks: BTreeMap<StackId, Stack>,
    pub set: Option<Weights>,
    /// The weights set, or none, from each version of the stream on.
    pub sets: Vec<(u64, Option<Weights>)>,
    pub purpose: Option<Purpose>,
    pub applied: Option<Weights>,
    pub drifted_home: bool,
    /// The stack that a rollback waits for.
    pub awaited: Option<StackId>,
    /// The stacks that a rollback went past, and that had not all traffic since.
    pub gone_past: BTreeSet<StackId>,
    pub fence: Fence,
    pub rollout: Option<Rollout>,
    /// The stack whose rollout was asked for with it and has not begun.
    pub waiting: Option<StackId>,
    /// Since when a person has asked for it, if a person did.
    pub waiting_by_hand: Option<Timestamp>,
    /// Since when it is on hold, for what.
    pub holds: BTreeMap<hold::Cause, Timestamp>,
    pub retired: bool,
    /// Every launch there was.
    pub launches: BTreeMap<EffectId, node::LaunchStarted>,
}

pub struct Stack {
    pub version: Version,
    /// Which stack of that version it is.
    pub number: u32,
    pub phase: Phase,
    pub nodes: BTreeSet<EffectId>,
    pub ready: BTreeSet<EffectId>,
    pub wanted: u16,
    pub requested_at: Timestamp,
    pub deadline_ms: u64,
    /// Since when it is being taken down.
    pub collecting_since: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    Starting,
    Ready,
    Unhealthy,
    Failed,
    Collecting,
}

pub struct Rollout {
    pub id: RolloutId,
    pub canary: StackId,
    pub live: bool,
    pub paused: bool,
    pub held: bool,
    pub requests_min: u64,
    pub started_at: Timestamp,
    pub interval_ms: u64,
    /// When something was last heard of it.
    pub heard_at: Timestamp,
    /// When its last step was taken, in virtual time.
    pub step_at: Option<(u16, Timestamp)>,
    pub plan: rollout::Plan,
    /// Whether its policy lets the judge shorten the plan.
    pub early: bool,
    /// Since when it is paused.
    pub paused_at: Option<Timestamp>,
    /// For how long it was paused since its last step, in milliseconds.
    pub paused_ms: Ms,
}

impl ReferenceModel {
    /// Reads a record, judges it, and remembers it if it counts. Events are applied by [`Book::apply`].
    pub fn read(&mut self, bytes: &[u8]) -> Entry {
        let leaf = leaf_hash(bytes);
        self.leaves.push(leaf);
        let Ok(commit) = serde_json::from_slice::<Value>(bytes) else { return Entry::Malformed };
        if commit["rule"] != 1 {
            return Entry::Malformed;
        }
        let command: CommandId = from(&commit["command"]["id"]);
        if self.commands.contains(&command) {
            return Entry::Void;
        }
        let none = vec![];
        let list = |field: &str| commit[field].as_array().unwrap_or(&none).clone();
        for head in list("extends").iter().chain(&list("requires")) {
            let (version, hash) = self.heads.get(&text(&head["stream"])).copied().unwrap_or((0, Hash::ZERO));
            if head["version"] != version || from::<Hash>(&head["hash"]) != hash {
                return Entry::Void;
            }
        }
        self.commands.insert(command);
        let id: CommitId = from(&commit["id"]);
        self.commits.insert(id);
        let extends: Vec<String> = list("extends").iter().map(|head| text(&head["stream"])).collect();
        for stream in &extends {
            let head = self.heads.entry(stream.clone()).or_insert((0, leaf));
            *head = (head.0 + 1, leaf);
        }
        let events = list("events");
        let events = events.iter().map(|event| {
            let version = u16::try_from(event["v"].as_u64().unwrap_or(0)).unwrap_or(0);
            let decoded = Event::decode(&text(&event["type"]), version, &event["data"].to_string());
            (text(&event["stream"]), decoded.map_err(|error| error.to_string()))
        });
        let (events, time, about) = (events.collect(), from(&commit["time"]), from(&commit["about"]));
        Entry::Counts(Box::new(Counted {
            id,
            command,
            content: from(&commit["command"]["hash"]),
            time,
            extends,
            events,
            about,
        }))
    }

    /// Returns from when on a commit counts that is the last one: a rollback without the ledger from when it took effect.
    pub fn time_of(&self, commit: &Counted) -> Timestamp {
        let records_break_glass = |(_, event): &(String, Result<Event, String>)| {
            matches!(event, Ok(Event::Traffic(traffic::Event::GlassBroken(_))))
        };
        let from = commit.about.effective_at.filter(|_| commit.events.iter().any(records_break_glass));
        from.map_or(self.time, |from| from.min(self.time))
    }

    /// Moves the streams that a counting commit extends on, and the ledger's time.
    pub fn extend(&mut self, commit: &Counted) {
        self.time = self.time.max(commit.time);
        for id in commit.extends.iter().filter_map(|stream| deployment_of(stream)) {
            self.deployments.entry(id).or_default().version += 1;
        }
    }

    /// Applies an event of a counting commit.
    pub fn apply(&mut self, stream: &str, event: &Event, time: Timestamp) {
        match event {
            Event::Service(service::Event::Applied(applied)) => {
                let service = self.services.entry(service_of(stream)).or_default();
                service.serving_max = applied.definition.policy.retention.serving_max;
                service.hold_after = applied.definition.policy.rollout.hold_after;
            }
            Event::Release(release::Event::Recorded(recorded)) => {
                let service = self.services.entry(service_of(stream)).or_default();
                service.releases.insert(recorded.version.clone(), content(recorded));
                service.order.push(recorded.version.clone());
            }
            Event::Lease(schemas::lease::Event::Taken(taken)) => {
                self.holders.insert(taken.role.to_string(), taken.holder.clone());
            }
            Event::Lease(schemas::lease::Event::Released(released)) => {
                self.holders.remove(&released.role.to_string());
            }
            Event::Judgement(_) | Event::Ledger(_) => {}
            other => {
                if let Some(id) = deployment_of(stream) {
                    self.deployments.entry(id).or_default().apply(other, time);
                }
            }
        }
    }

    /// Returns the stack that owns a node now, if any does.
    pub fn owner(&self, effect: EffectId) -> Option<(&DeploymentId, &Deployment, StackId, &Stack)> {
        self.deployments.iter().find_map(|(id, deployment)| {
            let mut stacks = deployment.stacks.iter();
            stacks
                .find(|(_, stack)| stack.nodes.contains(&effect))
                .map(|(stack, found)| (id, deployment, *stack, found))
        })
    }
}

impl Rollout {
    /// Says whether a step that was taken at `at` came later than the plan had it, by more than a look.
    pub fn is_late(&self, step: u16, at: Timestamp) -> bool {
        ms_between(self.started_at, at) > self.plan.due_ms(step) + 10 * SECOND
    }
}

impl Deployment {
    fn apply(&mut self, event: &Event, time: Timestamp) {
        match event {
            Event::Stack(stack::Event::Requested(requested)) => {
                let stack = Stack {
                    version: requested.version.clone(),
                    number: requested.number,
                    phase: Phase::Starting,
                    nodes: BTreeSet::new(),
                    ready: BTreeSet::new(),
                    wanted: requested.capacity.nodes,
                    requested_at: time,
                    deadline_ms: requested.run.start_deadline_ms,
                    collecting_since: None,
                };
                self.stacks.insert(requested.stack, stack);
                self.retired = false;
            }
            Event::Stack(stack::Event::Ready(ready)) => self.phase(ready.stack, Phase::Ready),
            Event::Stack(stack::Event::Failed(failed)) => {
                self.phase(failed.stack, Phase::Failed);
                self.awaited.take_if(|stack| *stack == failed.stack);
            }
            Event::Stack(stack::Event::Unhealthy(unhealthy)) => self.phase(unhealthy.stack, Phase::Unhealthy),
            Event::Stack(stack::Event::Recovered(recovered)) => self.phase(recovered.stack, Phase::Ready),
            Event::Stack(stack::Event::Dismissed(_)) => {}
            Event::Retention(retention::Event::CollectionStarted(started)) => {
                self.phase(started.stack, Phase::Collecting);
                if let Some(stack) = self.stacks.get_mut(&started.stack) {
                    stack.collecting_since = Some(time);
                }
            }
            Event::Retention(retention::Event::Collected(collected)) => drop(self.stacks.remove(&collected.stack)),
            Event::Node(event) => self.apply_node(event),
            Event::Traffic(event) => self.apply_traffic(event),
            Event::Rollout(event) => self.apply_rollout(event, time),
            Event::Hold(hold::Event::HoldSet(set)) => drop(self.holds.insert(set.cause, time)),
            Event::Hold(hold::Event::HoldLifted(lifted)) => drop(self.holds.remove(&lifted.cause)),
            _ => {}
        }
    }

    fn phase(&mut self, stack: StackId, phase: Phase) {
        if let Some(stack) = self.stacks.get_mut(&stack) {
            stack.phase = phase;
        }
    }

    fn apply_node(&mut self, event: &node::Event) {
        let mut with = |effect: EffectId, change: fn(&mut Stack, EffectId)| {
            self.stacks.values_mut().filter(|stack| stack.nodes.contains(&effect)).for_each(|s| change(s, effect));
        };
        let gone = |stack: &mut Stack, effect: EffectId| {
            stack.nodes.remove(&effect);
            stack.ready.remove(&effect);
        };
        match event {
            node::Event::LaunchStarted(started) => {
                if let Some(stack) = self.stacks.get_mut(&started.stack) {
                    stack.nodes.insert(started.effect);
                }
                self.launches.insert(started.effect, started.clone());
            }
            node::Event::Launched(_) => {}
            node::Event::Ready(ready) => with(ready.effect, |stack, effect| _ = stack.ready.insert(effect)),
            node::Event::Unhealthy(sick) => with(sick.effect, |stack, effect| _ = stack.ready.remove(&effect)),
            node::Event::LaunchFailed(failed) => with(failed.effect, gone),
            node::Event::Failing(_) => {}
            node::Event::Lost(lost) => with(lost.effect, gone),
            node::Event::Stopped(stopped) => with(stopped.effect, gone),
        }
    }

    fn apply_traffic(&mut self, event: &traffic::Event) {
        match event {
            traffic::Event::WeightsSet(set) => {
                self.set = Some(set.weights.clone());
                self.waiting.take_if(|stack| set.weights.of(*stack) > Weight::ZERO);
                self.purpose = Some(set.purpose.clone());
                self.gone_past.retain(|stack| set.weights.of(*stack) < Weight::FULL);
                self.sets.push((self.version, self.set.clone()));
                (self.retired, self.drifted_home, self.awaited) = (false, false, None);
            }
            traffic::Event::WeightsApplied(applied) => {
                self.applied = Some(applied.weights.clone());
                self.drifted_home = false;
            }
            traffic::Event::DriftSeen(drift) => self.drifted_home = drift.towards_target,
            traffic::Event::Rejected(_) => {}
            traffic::Event::RolledBack(back) => {
                (self.fence, self.awaited) = (back.fence, Some(back.to));
                self.gone_past.extend(back.passed_over.iter().copied());
            }
            traffic::Event::GlassBroken(_) => self.drifted_home = false,
            traffic::Event::Retired(retired) => {
                self.fence = retired.fence;
                (self.set, self.applied, self.purpose) = (None, None, None);
                self.holds.retain(|cause, _| retired.keeps_hold && *cause == hold::Cause::Asked);
                self.sets.push((self.version, None));
                (self.retired, self.drifted_home, self.awaited) = (true, false, None);
            }
        }
    }

    fn apply_rollout(&mut self, event: &rollout::Event, time: Timestamp) {
        match event {
            rollout::Event::Requested(requested) => {
                (self.waiting, self.waiting_by_hand) = (Some(requested.stack), requested.by_hand.then_some(time));
            }
            rollout::Event::RequestDropped(dropped) => drop(self.waiting.take_if(|stack| *stack == dropped.stack)),
            rollout::Event::Started(started) => drop(self.waiting.take_if(|stack| *stack == started.canary)),
            _ => {}
        }
        if let rollout::Event::Started(started) = event {
            let steps = started.plan.steps.len().max(2) as u64 - 1;
            self.rollout = Some(Rollout {
                id: started.rollout,
                canary: started.canary,
                live: true,
                paused: false,
                held: false,
                requests_min: started.policy.judgement.requests_min,
                started_at: time,
                interval_ms: (started.plan.duration_ms / steps).max(started.plan.bake_ms),
                heard_at: time,
                step_at: None,
                plan: started.plan.clone(),
                early: started.policy.rollout.early_after_ms.is_some(),
                paused_at: None,
                paused_ms: 0,
            });
            return;
        }
        let of_rollout = !matches!(event, rollout::Event::Requested(_) | rollout::Event::RequestDropped(_));
        let Some(rollout) = self.rollout.as_mut().filter(|_| of_rollout) else { return };
        rollout.heard_at = time;
        match event {
            rollout::Event::Started(_) | rollout::Event::Requested(_) | rollout::Event::RequestDropped(_) => {}
            rollout::Event::StepTaken(taken) => {
                (rollout.held, rollout.paused_ms) = (false, 0);
                rollout.step_at = Some((taken.step, time));
            }
            rollout::Event::Held(_) => rollout.held = true,
            rollout::Event::DrivenAgain(_) => {}
            rollout::Event::Paused(_) => (rollout.paused, rollout.paused_at) = (true, Some(time)),
            rollout::Event::Resumed(_) => {
                rollout.paused = false;
                rollout.paused_ms += rollout.paused_at.take().map_or(0, |since| ms_between(since, time));
            }
            rollout::Event::Completed(_)
            | rollout::Event::CameBack(_)
            | rollout::Event::Aborted(_)
            | rollout::Event::Promoted(_)
            | rollout::Event::Superseded(_) => rollout.live = false,
        }
    }

    /// Returns the weights that were set as of `version` of the stream.
    pub fn set_at(&self, version: u64) -> Option<&Weights> {
        let n = self.sets.partition_point(|(at, _)| *at <= version);
        n.checked_sub(1).and_then(|n| self.sets[n].1.as_ref())
    }
}

/// Returns the time between two moments, in milliseconds; none if they are the wrong way round.
pub fn ms_between(from: Timestamp, to: Timestamp) -> Ms {
    Ms::try_from(to.duration_since(from).as_millis()).unwrap_or(0)
}

/// Returns what two releases of a version must have in common.
pub fn content(recorded: &release::Recorded) -> Value {
    serde_json::json!([recorded.artifact.sha256, recorded.run])
}

pub fn deployment_of(stream: &str) -> Option<DeploymentId> {
    stream.strip_prefix("deployment/").and_then(|id| id.parse().ok())
}

fn service_of(stream: &str) -> ServiceName {
    stream.trim_start_matches("service/").parse().expect("a service's stream")
}

/// Returns the leaf of a record in the tree: SHA-256(0x00, its bytes).
pub fn leaf_hash(bytes: &[u8]) -> Hash {
    Hash(Sha256::new().chain_update([0]).chain_update(bytes).finalize().into())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn from<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).expect("what a commit says can be read")
}
