//! Traffic: the weights that are set and applied, who held all traffic before, drift, and retiring.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use schemas::command::StackWeight;
use schemas::hold::{Cause, HoldLifted};
use schemas::traffic::{self, Purpose};
use schemas::{
    CommitId, Event, Fence, StackId, StackName, StreamVersion, Timestamp, Version, Weight, Weights, rollout, text,
};
use serde::{Deserialize, Serialize};

use super::rejected::{self, Rejected, RejectionCause};
use super::{Case, Deployment, Phase, generation, hold, waiting};
use crate::at::At;
use crate::decision::{Decision, Rejection};

/// How many former holders of all traffic are remembered.
const HOLDERS_MAX: usize = 50;

/// A deployment's traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// What was asked for; nothing before the first weights and after retiring.
    pub set: Option<Set>,
    /// What the router confirmed last.
    pub applied: Option<Applied>,
    /// Raised by every rollback.
    pub fence: Fence,
    /// The stack that a rollback waits for: its target was gone and is deployed again.
    #[serde(default)]
    pub awaited: Option<StackId>,
    /// The stacks that held all traffic, the latest last.
    pub holders: Vec<Holder>,
    /// What is held against stacks, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejected>,
    /// The last rollback that was carried out without the ledger, unless it was overtaken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded_late: Option<RecordedLate>,
    /// Drift that nobody has corrected.
    pub drift: Option<Drift>,
    /// When it was retired, if it is.
    pub retired_at: Option<Timestamp>,
    /// Why it was retired, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_because: Option<String>,
    /// By which commit it was retired, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_by: Option<CommitId>,
}

/// Weights that were asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// The weights.
    pub weights: Weights,
    /// What for.
    pub purpose: Purpose,
    /// The deployment's version with them; its generation, where a rollback without the ledger was overtaken by them.
    pub version: StreamVersion,
    /// When.
    pub at: Timestamp,
    /// By which commit.
    pub commit: CommitId,
}

/// A rollback that was in effect before it was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedLate {
    /// Its commit.
    pub commit: CommitId,
    /// When it was recorded.
    pub at: Timestamp,
    /// When it was asked for; older programs did not record that.
    pub asked_at: Option<Timestamp>,
}

/// Weights that the router confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The generation it held.
    pub generation: StreamVersion,
    /// What it served.
    pub weights: Weights,
    /// Where users connect.
    pub listening: Option<SocketAddr>,
    /// When.
    pub at: Timestamp,
}

/// A stack that held all traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The stack.
    pub stack: StackId,
    /// Its version.
    pub version: Version,
    /// Which stack of that version it is.
    #[serde(default = "schemas::name::first", skip_serializing_if = "schemas::name::is_first")]
    pub number: u32,
    /// Since when.
    pub at: Timestamp,
}

/// The router served what nobody asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// What it served.
    pub seen: BTreeMap<StackId, Weight>,
    /// Whether it was all on the rollback target, or a rollback without the ledger, and nobody has let the rollout go on
    /// since.
    pub towards_target: bool,
    /// When it was seen.
    pub at: Timestamp,
}

impl Traffic {
    /// Returns the weight that is set for `stack`.
    pub fn set_weight(&self, stack: StackId) -> Weight {
        self.set.as_ref().map_or(Weight::ZERO, |set| set.weights.of(stack))
    }

    /// Returns the stacks whose weights are set.
    pub fn stacks_set(&self) -> impl Iterator<Item = StackId> + '_ {
        self.set.iter().flat_map(|set| set.weights.stacks())
    }

    /// Returns the weight that the router last confirmed for `stack`.
    pub fn applied_weight(&self, stack: StackId) -> Weight {
        self.applied.as_ref().map_or(Weight::ZERO, |applied| applied.weights.of(stack))
    }

    /// Returns when the ledger heard of the weights that are set, if they were in effect before.
    pub fn recorded_late_at(&self) -> Option<Timestamp> {
        let set = self.set.as_ref()?;
        self.recorded_late.filter(|late| late.commit == set.commit && set.at < late.at).map(|late| late.at)
    }

    /// Returns when the rollback was asked for whose weights are set, if it was asked for without the ledger.
    pub fn late_rollback_at(&self) -> Option<Timestamp> {
        let set = self.set.as_ref()?;
        let late = self.recorded_late.as_ref().filter(|late| late.commit == set.commit)?;
        Some(late.asked_at.unwrap_or(set.at))
    }

    /// Says whether nobody knows what the router serves: the weights that are set were in effect before the ledger heard of them,
    /// and the router's last confirmation is older.
    pub fn is_applied_unknown(&self) -> bool {
        self.recorded_late_at().is_some() && !self.is_applied()
    }

    /// Says whether the router confirmed what is set.
    pub fn is_applied(&self) -> bool {
        match (&self.set, &self.applied) {
            (Some(set), Some(applied)) => applied.generation >= set.version && applied.weights == set.weights,
            (None, None) => true,
            _ => false,
        }
    }
}

/// Changes the deployment as an event of its traffic says.
pub(super) fn evolve(deployment: &mut Deployment, event: &traffic::Event, at: &At) {
    match event {
        traffic::Event::WeightsSet(set) => set_weights(deployment, set, at),
        traffic::Event::WeightsApplied(applied) => {
            deployment.heard_of(applied.generation);
            deployment.traffic.applied = Some(Applied {
                generation: applied.generation,
                weights: applied.weights.clone(),
                listening: applied.listening,
                at: at.time,
            });
            deployment.traffic.drift = None;
        }
        traffic::Event::DriftSeen(drift) => {
            drift.generation.into_iter().for_each(|generation| deployment.heard_of(generation));
            deployment.traffic.drift =
                Some(Drift { seen: drift.seen.clone(), towards_target: drift.towards_target, at: at.time });
        }
        traffic::Event::RolledBack(back) => {
            roll_back(deployment, back, at);
        }
        traffic::Event::Rejected(left) => {
            rejected::mark(deployment, left.stack, RejectionCause::Left, &left.reason, at.time)
        }
        traffic::Event::GlassBroken(broken) => {
            deployment.heard_of(broken.generation);
            if broken.overtaken.is_none() {
                deployment.traffic.recorded_late =
                    Some(RecordedLate { commit: at.commit, at: broken.recorded_at, asked_at: broken.asked_at });
            }
            // It explains what was seen. What is set now is carried out again, above it, so that no call of it comes late.
            deployment.traffic.drift = None;
            let generation = deployment.generation();
            deployment.traffic.set.iter_mut().for_each(|set| set.version = generation);
        }
        traffic::Event::Retired(retired) => {
            let traffic = &mut deployment.traffic;
            traffic.fence = retired.fence;
            traffic.set = None;
            traffic.applied = None;
            traffic.awaited = None;
            traffic.drift = None;
            traffic.retired_at = Some(at.time);
            traffic.retired_because = Some(retired.reason.clone());
            traffic.retired_by = Some(at.commit);
            deployment.failed.clear();
            deployment.holds.retain(|cause, _| retired.keeps_hold && *cause == Cause::Asked);
            for stack in deployment.stacks.values_mut() {
                stack.failure = None;
                stack.unused_since.get_or_insert(at.time);
                stack.retired = true;
            }
        }
    }
}

fn roll_back(deployment: &mut Deployment, back: &traffic::RolledBack, at: &At) {
    let starting = deployment.stacks.get(&back.to).is_some_and(|stack| stack.phase == Phase::Starting);
    deployment.traffic.fence = back.fence;
    deployment.traffic.awaited = starting.then_some(back.to);
    for stack in &back.from {
        rejected::mark(deployment, *stack, RejectionCause::RolledBack, &back.reason, at.time);
    }
    for stack in &back.passed_over {
        rejected::mark(deployment, *stack, RejectionCause::PassedOver, text::UNSAID, at.time);
    }
    if let Some(waiting) = deployment.waiting.as_ref().filter(|waiting| waiting.until_rollback) {
        let stack = waiting.stack;
        waiting::drop_request(deployment, stack, "a rollback came in between", at.time);
    }
}

fn set_weights(deployment: &mut Deployment, set: &traffic::WeightsSet, at: &At) {
    for (id, stack) in &mut deployment.stacks {
        stack.retired = false;
        if set.weights.of(*id) > Weight::ZERO {
            stack.unused_since = None;
            stack.used_since.get_or_insert(at.time);
            stack.dropped = false;
        } else {
            stack.unused_since.get_or_insert(at.time);
        }
    }
    deployment.waiting.take_if(|waiting| set.weights.of(waiting.stack) > Weight::ZERO);
    let name = set.weights.sole().and_then(|stack| deployment.name_of(stack));
    if let (Some(stack), Purpose::Asked | Purpose::Promotion { .. }) = (set.weights.sole(), &set.purpose) {
        rejected::clear(deployment, stack);
    }
    let traffic = &mut deployment.traffic;
    if let (Some(stack), Some(StackName { version, number })) = (set.weights.sole(), name)
        && traffic.holders.last().is_none_or(|last| last.stack != stack)
    {
        traffic.holders.push(Holder { stack, version, number, at: at.time });
        let excess = traffic.holders.len().saturating_sub(HOLDERS_MAX);
        traffic.holders.drain(..excess);
    }
    traffic.drift = None;
    traffic.awaited = None;
    (traffic.retired_at, traffic.retired_because, traffic.retired_by) = (None, None, None);
    traffic.set = Some(Set {
        weights: set.weights.clone(),
        purpose: set.purpose.clone(),
        version: at.version,
        at: at.time,
        commit: at.commit,
    });
}

/// Decides `traffic`: none if these weights are set already, no rollout runs and no rollback waits. Where the router
/// was turned to the rollback target by another hand, asking for what is set is the word to correct it. A stack that is
/// left for an older release is rejected in the same commit.
///
/// # Errors
///
/// [`Rejection`]: a version named twice, weights that are not all traffic, a version that is not ready and would gain
/// traffic, more versions than the policy allows, a running rollout, or a rejected version that would gain traffic without
/// `again`.
pub(super) fn decide(
    case: &Case<'_>,
    shares: &[StackWeight],
    supersede: bool,
    again: bool,
) -> Result<Decision, Rejection> {
    let mut weights: Vec<(StackId, Weight)> = Vec::new();
    for StackWeight { version, weight } in shares {
        let (stack, found) = match case.stack_of(version) {
            Err(Rejection::NotReady { .. }) if *weight == Weight::ZERO => continue,
            found => found?,
        };
        if weights.iter().any(|(other, _)| *other == stack) {
            return Err(Rejection::Invalid(format!("version {} is named twice", found.name())));
        }
        let gains = *weight > case.deployment.traffic.set_weight(stack);
        if gains && let Some(not_ready) = found.not_ready() {
            return Err(not_ready.refused(case.id, found.name()));
        }
        weights.push((stack, *weight));
    }
    let weights = Weights::new(weights)?;
    let allowed = case.service.definition.as_ref().map_or(2, |definition| definition.policy.retention.serving_max);
    if weights.len() > usize::from(allowed) {
        return Err(Rejection::TooManyVersions { deployment: case.id.clone(), asked: weights.len(), allowed });
    }
    let rollout = case.deployment.rollout.as_ref().filter(|rollout| rollout.is_live());
    let mut events = Vec::new();
    match rollout {
        Some(rollout) if weights.sole() == Some(rollout.baseline) => {
            let reason = case.by.and_because("traffic was set to all on the baseline");
            events.push(rollout::Aborted { rollout: rollout.id, reason }.into());
        }
        Some(rollout) if supersede => {
            let rule = case.by.and_because("--supersede: weights set by hand end the rollout");
            events.push(rollout::Superseded { rollout: rollout.id, rule }.into());
        }
        Some(rollout) => return Err(case.rollout_running(rollout)),
        None if is_so(case.deployment, &weights) => return Ok(Decision::default()),
        None => {}
    }
    let back = rollout.is_some_and(|rollout| weights.sole() == Some(rollout.baseline));
    for (stack, weight) in weights.iter().filter(|_| !back) {
        // Users who still wait for a rollback's target have not been given back.
        let gains = weight > case.deployment.traffic.set_weight(stack) || case.deployment.traffic.awaited.is_some();
        if gains && let Some(name) = case.deployment.name_of(stack) {
            hold::check(case, &name.version)?;
            case.check_again(name, stack, again)?;
        }
    }
    events.extend(case.left_for_older(&weights));
    events.push(traffic::WeightsSet { weights, purpose: Purpose::Asked }.into());
    Ok(Decision::on(case.stream(), events).requiring(schemas::Stream::Service(case.id.service.clone())))
}

fn is_so(deployment: &Deployment, weights: &Weights) -> bool {
    let traffic = &deployment.traffic;
    deployment.drift_left_alone().is_none()
        && traffic.awaited.is_none()
        && traffic.set.as_ref().is_some_and(|set| set.weights == *weights)
}

/// Decides `retire`: none if it is retired already, with all its stacks.
///
/// # Errors
///
/// None.
pub(super) fn decide_retire(case: &Case<'_>) -> Result<Decision, Rejection> {
    let traffic = &case.deployment.traffic;
    if traffic.retired_at.is_some() && case.deployment.stacks.values().all(|stack| stack.retired) {
        return Ok(Decision::default());
    }
    let mut events = Vec::new();
    if let Some(rollout) = case.deployment.rollout.as_ref().filter(|rollout| rollout.is_live()) {
        let reason = case.by.and_because("the deployment was retired");
        events.push(rollout::Aborted { rollout: rollout.id, reason }.into());
    }
    let holds = &case.deployment.holds;
    let ended = holds.keys().filter(|cause| **cause != Cause::Asked);
    let lifted =
        ended.map(|cause| HoldLifted { cause: *cause, reason: "the deployment was retired".to_owned() }.into());
    events.extend(lifted);
    let (fence, reason) = (traffic.fence.next(), case.by.because(text::UNSAID));
    events.push(traffic::Retired { fence, reason, keeps_hold: true }.into());
    let mut decision = Decision::on(case.stream(), events);
    let stays = holds.get(&Cause::Asked).map(|hold| {
        format!(
            "{} stays {}: a pipeline's release is prepared and waits until `{}`",
            case.id,
            hold.told(),
            hold::lift(case.id)
        )
    });
    // One that is on hold by hand stays so; else the next release begins anew, and nothing is there that it could be compared with.
    let rolls = case.service.definition.as_ref().is_some_and(|definition| definition.policy.rollout.on_release);
    let anew = (rolls && stays.is_none()).then(|| {
        let Case { id, .. } = case;
        format!(
            "the next release that a pipeline reports is deployed and gets all traffic at once; `ionledger hold {} --reason WHY` \
             has it wait",
            id.arguments()
        )
    });
    decision.notes.extend(stays.into_iter().chain(anew));
    Ok(decision)
}

/// Decides what the router confirmed: none if it was known. If it confirms the last step of a rollout, the rollout is
/// complete. Under the generation of a break-glass rollback that the ledger has not heard of, somebody sent traffic back to
/// what is set: a running rollout waits until that is explained.
///
/// # Errors
///
/// [`Rejection::Outdated`] if other weights are set by now.
pub(super) fn decide_applied(
    case: &Case<'_>,
    generation: StreamVersion,
    weights: &Weights,
    listening: Option<SocketAddr>,
) -> Result<Decision, Rejection> {
    let traffic = &case.deployment.traffic;
    let fits = traffic.set.as_ref().is_some_and(|set| set.weights == *weights && generation >= set.version);
    if !fits {
        return Err(Rejection::Outdated(format!("{} has other weights set by now", case.id)));
    }
    let known = traffic.applied.as_ref().is_some_and(|applied| applied.listening == listening);
    let by_break_glass = generation::emergency_count(generation) > case.deployment.emergency_count;
    if traffic.is_applied() && traffic.drift.is_none() && known && !by_break_glass {
        return Ok(Decision::default());
    }
    let mut events = vec![traffic::WeightsApplied { generation, weights: weights.clone(), listening }.into()];
    match case.deployment.rollout.as_ref().filter(|rollout| rollout.is_at_end()) {
        Some(rollout) => events.push(rollout::Completed { rollout: rollout.id }.into()),
        None if by_break_glass => {
            events.extend(case.pausing("somebody rolled back without the ledger, to what is set"))
        }
        None => {}
    }
    Ok(Decision::on(case.stream(), events))
}

/// Decides on drift: recorded once for each thing seen. Towards the rollback target, or under the generation of a break-glass
/// rollback that the ledger has not heard of, it also pauses a running rollout.
///
/// # Errors
///
/// [`Rejection::Outdated`] if what was seen is what is set, or what was served before and is about to change.
pub(super) fn decide_drift(
    case: &Case<'_>,
    seen: &BTreeMap<StackId, Weight>,
    generation: Option<StreamVersion>,
) -> Result<Decision, Rejection> {
    let traffic = &case.deployment.traffic;
    let Some(set) = &traffic.set else {
        return Err(Rejection::Outdated(format!("{} has no weights set", case.id)));
    };
    if set.weights.iter().eq(shares(seen)) {
        return Err(Rejection::Outdated(format!("{} serves what is set", case.id)));
    }
    let before = traffic.applied.as_ref().map(|applied| &applied.weights);
    let unchanged = before.map_or(seen.is_empty(), |weights| weights.iter().eq(shares(seen)));
    let by_break_glass =
        generation.is_some_and(|held| generation::emergency_count(held) > case.deployment.emergency_count);
    if unchanged && !traffic.is_applied() && !by_break_glass {
        return Err(Rejection::Outdated(format!("{} does not serve what is set yet", case.id)));
    }
    let target = super::rollback::target(case.deployment).and_then(|target| target.stack());
    let on_target = target.is_some_and(|target| seen.len() == 1 && seen.get(&target) == Some(&Weight::FULL));
    // If nobody is served, the router is told again what is set: it was retired and has kept the generation, or the stack was
    // taken down before the rollback reached the router.
    let towards_target = on_target || (by_break_glass && !seen.is_empty() && case.deployment.can_serve(seen));
    if traffic.drift.as_ref().is_some_and(|drift| drift.seen == *seen) {
        return Ok(Decision::default());
    }
    let mut events = vec![traffic::DriftSeen { seen: seen.clone(), towards_target, generation }.into()];
    if towards_target {
        events.extend(case.pausing("the router serves the rollback target and nobody here asked for it"));
    }
    Ok(Decision::on(case.stream(), events))
}

impl Deployment {
    /// Returns the drift that the traffic shifter leaves as it is, if there is one: somebody sent all traffic back past the ledger,
    /// and a person or the intent of that rollback has yet to explain it. Drift to a stack that is gone is corrected.
    pub fn drift_left_alone(&self) -> Option<&Drift> {
        self.traffic.drift.as_ref().filter(|drift| drift.towards_target && self.can_serve(&drift.seen))
    }

    /// Says whether each stack of `weights` exists and, if it is being taken down, still has a node to call.
    fn can_serve(&self, weights: &BTreeMap<StackId, Weight>) -> bool {
        weights.keys().all(|id| {
            let stack = self.stacks.get(id);
            stack.is_some_and(|stack| !matches!(stack.phase, Phase::Collecting { .. }) || self.can_be_called(*id))
        })
    }
}

impl Case<'_> {
    /// The event that pauses the rollout, if one is running.
    fn pausing(&self, reason: &str) -> Option<Event> {
        let running = self.deployment.rollout.as_ref().filter(|rollout| rollout.is_running())?;
        Some(rollout::Paused { rollout: running.id, reason: reason.to_owned() }.into())
    }
}

fn shares(seen: &BTreeMap<StackId, Weight>) -> impl Iterator<Item = (StackId, Weight)> {
    seen.iter().map(|(stack, weight)| (*stack, *weight))
}
