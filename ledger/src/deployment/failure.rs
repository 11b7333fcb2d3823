//! Failure: when a stack is given up, how long a place waits for its next node, and what is remembered of a failed stack.

use std::time::Duration;

use schemas::{Backoff, StackId, StackName, Timestamp, Version, stack};
use serde::{Deserialize, Serialize};

use super::{Case, Deployment, Phase, Stack, retention};
use crate::at::At;
use crate::decision::{Decision, Rejection};

/// A stack that nothing needs is given up when one of its places has failed to start this many times in a row.
pub const FAILED_STARTS_MAX: u32 = 5;

/// Once a node was ready for this long, the failed starts before it no longer count.
pub const STEADY_AFTER: Duration = Duration::from_secs(5 * 60);

/// How long a place stays empty after failed starts in a row. With the start itself it is tried at least once a minute.
pub const EMPTY_FOR: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(50) };

/// How many failed stacks a deployment remembers once their nodes are gone; the oldest are forgotten first.
const KEPT_MAX: usize = 20;

/// That a stack failed for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// What is kept of a failed stack once its nodes are gone, until its version is asked for again or somebody has seen it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Its version.
    pub version: Version,
    /// Which stack of that version it was.
    #[serde(default = "schemas::name::first", skip_serializing_if = "schemas::name::is_first")]
    pub number: u32,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// How many nodes it should have had.
    pub nodes: u16,
    /// How many of them must have been ready.
    pub min_ready: u16,
    /// Why it failed, and when.
    #[serde(flatten)]
    pub failure: Failure,
}

/// Says whether `stack` is given up when a place of it has failed too often: nothing needs it, so nobody would miss it.
pub fn may_give_up(deployment: &Deployment, stack: StackId) -> bool {
    let retired = deployment.stacks.get(&stack).is_some_and(|stack| stack.retired);
    retired || retention::needed(deployment, stack).is_none()
}

impl Deployment {
    /// Returns the stack of `version` that failed last, as far as that is remembered, and why.
    pub(super) fn last_failure_of(&self, version: &Version) -> Option<(StackName, &str)> {
        let there =
            self.stacks.values().filter_map(|stack| Some((&stack.version, stack.number, stack.failure.as_ref()?)));
        let gone = self.failed.values().map(|failed| (&failed.version, failed.number, &failed.failure));
        let of_version = there.chain(gone).filter(|(of, ..)| *of == version);
        let (_, number, failure) = of_version.max_by_key(|(_, number, failure)| (failure.at, *number))?;
        Some((StackName::new(version.clone(), number), &failure.reason))
    }
}

impl Stack {
    /// Returns how often in a row the place `slot` lost its node, or got none, since a node was ready there for
    /// [`STEADY_AFTER`].
    pub fn failed_starts(&self, slot: u16) -> u32 {
        self.failed_starts.get(&slot).copied().unwrap_or(0)
    }

    /// Says whether a place without a node has failed as often as a stack may that nothing needs.
    pub fn is_spent(&self) -> bool {
        let empty = |slot: &u16| !self.nodes.contains_key(slot);
        self.failed_starts.iter().any(|(slot, failed)| *failed >= FAILED_STARTS_MAX && empty(slot))
    }

    /// Forgets the failures of a place whose node was ready for long enough at `now`.
    pub(super) fn settle(&mut self, slot: u16, now: Timestamp) {
        let since = self.nodes.get(&slot).and_then(|node| node.ready_since);
        let steady = jiff::SignedDuration::try_from(STEADY_AFTER).unwrap_or(jiff::SignedDuration::MAX);
        if since.is_some_and(|since| now.duration_since(since) >= steady) {
            self.failed_starts.remove(&slot);
        }
    }

    /// Counts a failed start of a place, and keeps the first reason beside the last. How a node ended that `had_started`, and passed its
    /// check, is not why the next ones do not start.
    pub(super) fn count_failure(&mut self, slot: u16, reason: &str, had_started: bool) {
        *self.failed_starts.entry(slot).or_default() += 1;
        if !had_started {
            self.first_failure.get_or_insert_with(|| reason.to_owned());
        }
        self.last_failure = Some(reason.to_owned());
    }
}

/// Notes that a stack failed. One that was retired meanwhile did not fail, it was ended.
pub(super) fn fail(deployment: &mut Deployment, failed: &stack::Failed, at: &At) {
    if let Some(stack) = deployment.stacks.get_mut(&failed.stack) {
        stack.phase = Phase::Failed { reason: failed.reason.clone() };
        let failure = Failure { reason: failed.reason.clone(), at: at.time };
        stack.failure = Some(failure).filter(|_| !stack.retired);
    }
    deployment.traffic.awaited.take_if(|awaited| *awaited == failed.stack);
}

/// Keeps the record of a failed stack that is gone now.
pub(super) fn keep(deployment: &mut Deployment, id: StackId, stack: Stack) {
    let Some(failure) = stack.failure else { return };
    let Stack { version, number, requested_at, capacity, .. } = stack;
    let failed =
        Failed { version, number, requested_at, nodes: capacity.nodes, min_ready: capacity.min_ready, failure };
    deployment.failed.insert(id, failed);
    while deployment.failed.len() > KEPT_MAX {
        let oldest = deployment.failed.iter().min_by_key(|(id, failed)| (failed.failure.at, **id));
        let Some(oldest) = oldest.map(|(id, _)| *id) else { return };
        deployment.failed.remove(&oldest);
    }
}

/// Forgets the failures of a version that is asked for again.
pub(super) fn forget_version(deployment: &mut Deployment, version: &Version) {
    deployment.failed.retain(|_, failed| failed.version != *version);
    let stacks = deployment.stacks.values_mut().filter(|stack| stack.version == *version);
    stacks.for_each(|stack| stack.failure = None);
}

/// Forgets that a stack failed.
pub(super) fn forget(deployment: &mut Deployment, stack: StackId) {
    deployment.failed.remove(&stack);
    if let Some(stack) = deployment.stacks.get_mut(&stack) {
        stack.failure = None;
    }
}

/// Decides `dismiss`: none if no such stack is shown as failed. A version means all of its stacks.
///
/// # Errors
///
/// [`Rejection::Unknown`] without the release, or for a stack that never was.
pub(super) fn decide_dismiss(case: &Case<'_>, name: &StackName) -> Result<Decision, Rejection> {
    let Case { id, deployment, service, .. } = case;
    let version = &name.version;
    if !service.releases.contains_key(version) {
        return Err(Rejection::unknown_release(&id.service, version, service.releases.keys()));
    }
    let gone = deployment.failed.iter().filter(|(_, failed)| name.means(&failed.version, failed.number));
    let gone = gone.map(|(stack, _)| *stack);
    let failed = |stack: &Stack| stack.failure.is_some() && name.means(&stack.version, stack.number);
    let here = deployment.stacks.iter().filter(|(_, stack)| failed(stack));
    let events: Vec<_> =
        gone.chain(here.map(|(stack, _)| *stack)).map(|stack| stack::Dismissed { stack }.into()).collect();
    if !events.is_empty() {
        return Ok(Decision::on(case.stream(), events));
    }
    let known = known_failed(deployment);
    let ever = deployment.numbers.get(version).copied().unwrap_or(1);
    if name.number > ever && !deployment.stacks.values().any(|stack| stack.name() == *name) {
        let next = known.unwrap_or_else(|| "no stack is shown as failed".to_owned());
        return Err(Rejection::Unknown { what: format!("stack {id} {name}"), next });
    }
    let known = known.map(|known| format!("; {known}")).unwrap_or_default();
    Ok(Decision::nothing(format!("no stack of {id} {name} is shown as failed{known}")))
}

/// Names the stacks that are shown as failed, if some are.
fn known_failed(deployment: &Deployment) -> Option<String> {
    let gone = deployment.failed.values().map(|failed| StackName::new(failed.version.clone(), failed.number));
    let here = deployment.stacks.values().filter(|stack| stack.failure.is_some()).map(Stack::name);
    let mut names: Vec<StackName> = gone.chain(here).collect();
    names.sort();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    (!names.is_empty()).then(|| format!("shown as failed: {}", names.join(", ")))
}

/// Says whether the provisioner may call the stack failed: it did not start, or has failed too often and nothing needs
/// it. One that a rollback waits for, or that has users, is tried for ever.
pub(super) fn fits(case: &Case<'_>, id: StackId, stack: &Stack) -> bool {
    may_give_up(case.deployment, id)
        && match stack.phase {
            Phase::Starting => true,
            Phase::Ready | Phase::Unhealthy => stack.is_spent(),
            Phase::Failed { .. } | Phase::Collecting { .. } => false,
        }
}
