//! The rollout that waits: it was asked for with its stack, and begins by itself once nothing is in its way.
//!
//! At most one waits. It never goes to a release that was recorded before one that serves or is being rolled out: then it is
//! dropped, and so it is when a newer one is asked for.

use schemas::rollout::{self, Plan};
use schemas::traffic::{self, Purpose, WeightsSet};
use schemas::{
    CommitId, DeploymentId, Event, RolloutId, StackId, StackName, Stream, Timestamp, Version, Weight, Weights, text,
};
use serde::{Deserialize, Serialize};

use super::rollback::live;
use super::rollout::{Rollout, given_way, taken_over};
use super::{Case, Deployment, Phase, hold};
use crate::at::At;
use crate::decision::{Decision, Rejection};
use crate::service::Service;

/// How many dropped requests are remembered, for whoever waits for them.
const DROPPED_MAX: usize = 20;

/// A rollout that was asked for and has not begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The canary's stack.
    pub stack: StackId,
    /// How it shall go.
    pub plan: Plan,
    /// When it was asked for.
    pub at: Timestamp,
    /// Whether a person asked.
    pub by_hand: bool,
    /// The version that its release fixes, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixes: Option<Version>,
    /// Whether a rollback ends it. So it is with what was asked for before there was `rollout.requested`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub until_rollback: bool,
    /// The commit that asked for it; none in what was kept by earlier programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
}

/// A rollout that was asked for and will not begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The stack that it was asked for with.
    pub stack: StackId,
    /// The version.
    pub version: Version,
    /// Which stack of that version it is.
    #[serde(default = "schemas::name::first", skip_serializing_if = "schemas::name::is_first")]
    pub number: u32,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// Something that the waiting rollout waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// What it is.
    pub kind: ObstacleKind,
    /// What it is, in words.
    pub why: String,
    /// The command that removes it, where one does.
    pub next: Option<String>,
}

/// What kind of thing a rollout waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObstacleKind {
    /// Another rollout is under way.
    Rollout,
    /// A rollback waits for its target.
    Rollback,
    /// The router serves the rollback target, and nobody here asked for it.
    Drift,
    /// More than one version serves.
    Shared,
    /// The version that serves has no node that passes its check.
    Baseline,
    /// The deployment is on hold.
    Hold,
    /// Its own stack is not ready.
    Stack,
}

/// Remembers what was asked for. Of two that wait, which only older programs let happen, the later one stays.
pub(super) fn wait(deployment: &mut Deployment, waiting: Waiting) {
    if let Some(before) = &deployment.waiting {
        let stack = before.stack;
        drop_request(deployment, stack, "another one was asked for after it", waiting.at);
    }
    // Its stack is wanted again, if a rollout of it was dropped before.
    if let Some(stack) = deployment.stacks.get_mut(&waiting.stack) {
        stack.dropped = false;
    }
    deployment.waiting = Some(waiting);
}

/// Forgets that the rollout of `stack` waits, if it does: it has begun, or its stack has traffic.
pub(super) fn fulfil(deployment: &mut Deployment, stack: StackId) {
    deployment.waiting.take_if(|waiting| waiting.stack == stack);
    if let Some(stack) = deployment.stacks.get_mut(&stack) {
        stack.dropped = false;
    }
}

/// Remembers that the rollout of `stack` will not begin, and why.
pub(super) fn drop_request(deployment: &mut Deployment, stack: StackId, reason: &str, at: Timestamp) {
    deployment.waiting.take_if(|waiting| waiting.stack == stack);
    let unused = deployment.traffic.set_weight(stack) == Weight::ZERO;
    let Some(found) = deployment.stacks.get_mut(&stack) else { return };
    found.dropped = unused;
    let (version, number) = (found.version.clone(), found.number);
    deployment.dropped.retain(|before| before.stack != stack);
    deployment.dropped.push(Dropped { stack, version, number, reason: reason.to_owned(), at });
    let excess = deployment.dropped.len().saturating_sub(DROPPED_MAX);
    deployment.dropped.drain(..excess);
}

/// Changes the deployment as an event of its waiting rollout says.
pub(super) fn evolve(deployment: &mut Deployment, event: &rollout::Event, at: &At) {
    match event {
        rollout::Event::Requested(requested) => {
            let rollout::Requested { stack, plan, by_hand, fixes } = requested.clone();
            let commit = Some(at.commit);
            wait(deployment, Waiting { stack, plan, at: at.time, by_hand, fixes, until_rollback: false, commit });
        }
        rollout::Event::RequestDropped(dropped) => drop_request(deployment, dropped.stack, &dropped.reason, at.time),
        rollout::Event::Started(started) => fulfil(deployment, started.canary),
        rollout::Event::StepTaken(_)
        | rollout::Event::Held(_)
        | rollout::Event::Paused(_)
        | rollout::Event::Resumed(_)
        | rollout::Event::Completed(_)
        | rollout::Event::CameBack(_)
        | rollout::Event::Aborted(_)
        | rollout::Event::Promoted(_)
        | rollout::Event::Superseded(_)
        | rollout::Event::DrivenAgain(_) => {}
    }
}

/// Returns the events that let the rollout of `stack`, which has this name, wait, in place of the one that waits.
///
/// # Errors
///
/// [`Rejection::Older`] if a release that was recorded later serves, is being rolled out, or waits.
pub(super) fn request(case: &Case<'_>, stack: StackId, name: &StackName, plan: Plan) -> Result<Vec<Event>, Rejection> {
    let deployment = case.deployment;
    let before = deployment.waiting.as_ref().and_then(|before| Some((before.stack, deployment.name_of(before.stack)?)));
    let waits = before.as_ref().map(|(_, before)| (before.clone(), "waits to be rolled out"));
    let waits = waits.filter(|(before, _)| case.service.is_older_stack(name, before));
    if let Some((newer, does)) = newer_than(deployment, case.service, name).or(waits) {
        let next = by_hand(case, stack, name).into();
        return Err(Rejection::Older {
            deployment: case.id.clone(),
            version: name.clone().into(),
            newer: newer.into(),
            does,
            next,
        });
    }
    let replaced = before.map(|(before, _)| {
        let reason = match before == stack {
            true => "it was asked for again with another plan".to_owned(),
            false => format!("a rollout of {name} was asked for after it"),
        };
        let stack = before;
        rollout::RequestDropped { stack, reason }.into()
    });
    let fixes = case.service.releases.get(&name.version).and_then(|release| release.recorded.fixes.clone());
    let requested = rollout::Requested { stack, plan, by_hand: case.by.is_person(), fixes }.into();
    Ok(replaced.into_iter().chain([requested]).collect())
}

/// Returns the commands by which a person goes back to `stack`, which is there or would have been made, by hand.
fn by_hand(case: &Case<'_>, stack: StackId, name: &StackName) -> String {
    let (deployment, service, env) = (case.deployment, &case.id.service, case.id.env_flag());
    match (deployment.stacks.contains_key(&stack), deployment.stack_for(&name.version).is_some()) {
        (true, _) => "`ionledger roll`".to_owned(),
        (false, true) => format!("`ionledger renew {service} {}{env}` and then `ionledger roll`", name.version),
        (false, false) => format!("`ionledger new {service} {}{env}` and then `ionledger roll`", name.version),
    }
}

/// Returns a stack that is newer than the one of this name and serves or is being rolled out, and which of the two.
fn newer_than(deployment: &Deployment, service: &Service, name: &StackName) -> Option<(StackName, &'static str)> {
    let live = live(deployment);
    let canary = live.map(|rollout| (rollout.canary, "is being rolled out"));
    let serving = deployment.traffic.set.iter().flat_map(|set| set.weights.iter()).map(|(stack, _)| (stack, "serves"));
    let mut names =
        canary.into_iter().chain(serving).filter_map(|(stack, does)| Some((deployment.name_of(stack)?, does)));
    names.find(|(newer, _)| service.is_older_stack(name, newer))
}

/// Returns why the rollout that waits has nothing left to do, if that is so.
pub fn pointless(deployment: &Deployment, service: &Service) -> Option<String> {
    let waiting = deployment.waiting.as_ref()?;
    let Some(stack) = deployment.stacks.get(&waiting.stack) else { return Some("its stack is gone".to_owned()) };
    if stack.retired {
        return Some("the deployment was retired".to_owned());
    }
    match &stack.phase {
        Phase::Failed { reason } => return Some(format!("its stack failed: {reason}")),
        Phase::Collecting { .. } => return Some("its stack is being taken down".to_owned()),
        Phase::Starting | Phase::Ready | Phase::Unhealthy => {}
    }
    let (newer, does) = newer_than(deployment, service, &stack.name())?;
    let later = if newer.version == stack.version { "asked for" } else { "recorded" };
    Some(format!("{newer}, which was {later} later, {does}"))
}

/// Returns what the rollout that waits waits for: nothing if none waits, or it may begin.
pub fn obstacles(deployment: &Deployment, id: &DeploymentId) -> Vec<Obstacle> {
    let Some(waiting) = &deployment.waiting else { return vec![] };
    let mut obstacles = Vec::new();
    let mut add = |kind, why: String, next: Option<String>| obstacles.push(Obstacle { kind, why, next });
    for hold in hold::against(deployment, waiting) {
        add(ObstacleKind::Hold, format!("the deployment is {}", hold.told()), Some(hold::lift(id)));
    }
    match live(deployment) {
        Some(live) if live.gives_way(deployment, waiting.fixes.as_ref()).is_none() => {
            let [from, to] = [live.baseline, live.canary].map(|stack| deployment.told_name(stack));
            let why = format!("the rollout {from} -> {to} is under way");
            add(ObstacleKind::Rollout, why, None);
        }
        Some(live) => baking_obstacle(deployment, id, live, &mut add),
        None => serving_obstacles(deployment, id, &mut add),
    }
    let stack = deployment.stacks.get(&waiting.stack);
    match stack.map(|stack| (stack, stack.not_ready())) {
        Some((_, None)) => {}
        None => add(ObstacleKind::Stack, "its stack is gone".to_owned(), None),
        Some((stack, Some(_))) if stack.phase == Phase::Starting => {
            let ready = text::nodes_ready(stack.ready_nodes(), stack.capacity.nodes);
            add(ObstacleKind::Stack, format!("its stack is starting, {ready}"), None);
        }
        Some((_, Some(not_ready))) => add(ObstacleKind::Stack, format!("its stack is not ready: {not_ready}"), None),
    }
    obstacles
}

/// What stands against a rollout that would begin from what serves now.
fn serving_obstacles(
    deployment: &Deployment,
    id: &DeploymentId,
    add: &mut impl FnMut(ObstacleKind, String, Option<String>),
) {
    let traffic = &deployment.traffic;
    if traffic.awaited.is_some() {
        add(ObstacleKind::Rollback, "a rollback waits for its target to be ready".to_owned(), None);
    }
    if deployment.drift_left_alone().is_some() {
        let why = "the router serves the rollback target and nobody here asked for it";
        add(ObstacleKind::Drift, why.to_owned(), Some(format!("ionledger rollback {}", id.arguments())));
    }
    let Some(set) = &traffic.set else { return };
    let Some(baseline) = set.weights.sole() else {
        let largest =
            set.weights.iter().max_by_key(|(_, weight)| *weight).and_then(|(stack, _)| deployment.name_of(stack));
        let next = largest.map(|name| all_on(id, &name));
        add(ObstacleKind::Shared, "more than one version serves".to_owned(), next);
        return;
    };
    baseline_obstacle(deployment, id, baseline, add);
}

fn all_on(id: &DeploymentId, name: &StackName) -> String {
    format!("ionledger traffic {} {name} 100{}", id.service, id.env_flag())
}

/// What stands against a rollout that would begin from `baseline`.
fn baseline_obstacle(
    deployment: &Deployment,
    id: &DeploymentId,
    baseline: StackId,
    add: &mut impl FnMut(ObstacleKind, String, Option<String>),
) {
    let to = deployment.waiting.as_ref().and_then(|waiting| deployment.name_of(waiting.stack));
    if let (false, Some(name)) = (deployment.passes(baseline), deployment.name_of(baseline)) {
        let why = format!("{name} serves and none of its nodes passes its check");
        add(ObstacleKind::Baseline, why, to.map(|name| all_on(id, &name)));
    }
}

/// What stands against a rollout that would take the place of `live`, which bakes: it would begin from the same baseline. While
/// `live` is under way, weights are set with `--supersede` alone.
fn baking_obstacle(
    deployment: &Deployment,
    id: &DeploymentId,
    live: &Rollout,
    add: &mut impl FnMut(ObstacleKind, String, Option<String>),
) {
    if deployment.passes(live.baseline) {
        return;
    }
    let [baseline, canary] = [live.baseline, live.canary].map(|stack| deployment.told_name(stack));
    let why = format!("none of the nodes of {baseline}, to which {canary} is still compared, passes its check");
    let canary_ready = deployment.stacks.get(&live.canary).is_some_and(|stack| stack.not_ready().is_none());
    let takes_all = canary_ready && deployment.passes(live.canary);
    let to = deployment.waiting.as_ref().and_then(|waiting| deployment.name_of(waiting.stack));
    let next = match takes_all {
        true => Some(format!("ionledger promote {}", id.arguments())),
        false => to.map(|name| format!("{} --supersede", all_on(id, &name))),
    };
    add(ObstacleKind::Baseline, why, next);
}

/// Adds to a decision what follows from it for the rollout that waits: it is dropped once it has nothing left to do.
/// `begins` says that the decision carries it out.
pub(super) fn settled(case: &Case<'_>, mut decision: Decision, begins: bool) -> Decision {
    let stream = case.stream();
    let touched = decision.events.iter().any(|(on, _)| *on == stream);
    if !touched || (case.deployment.waiting.is_none() && !decision.events.iter().any(|(_, event)| requests(event))) {
        return decision;
    }
    let after = after(case, &decision);
    let started = |stack| decision.events.iter().any(|(_, event)| starts(event, stack));
    let told = |stack| started(stack) || after.dropped.last().is_some_and(|last| last.stack == stack);
    let dropped = match (&after.waiting, &case.deployment.waiting) {
        (Some(waiting), _) => pointless(&after, case.service).map(|reason| (waiting.stack, reason)),
        (None, Some(waiting)) if !begins && !told(waiting.stack) => {
            Some((waiting.stack, "its stack was given traffic without it".to_owned()))
        }
        (None, _) => None,
    };
    if let Some((stack, reason)) = dropped {
        let reason = schemas::text::tidy(&reason);
        decision.events.push((stream, rollout::RequestDropped { stack, reason }.into()));
    }
    decision
}

fn requests(event: &Event) -> bool {
    matches!(event, Event::Rollout(rollout::Event::Requested(_)))
}

fn starts(event: &Event, stack: StackId) -> bool {
    matches!(event, Event::Rollout(rollout::Event::Started(started)) if started.canary == stack)
}

/// Adds to a person's rollback that the rollout that waits is dropped, unless there is a hold for which it waits: nothing older
/// than a rollback undoes it.
pub(super) fn ended_by_rollback(case: &Case<'_>, mut decision: Decision) -> Decision {
    if hold::holds_after(case, &decision) {
        return decision;
    }
    let goes_back = |(_, event): &(Stream, Event)| matches!(event, Event::Traffic(traffic::Event::RolledBack(_)));
    if let Some(waiting) = case.deployment.waiting.as_ref().filter(|_| decision.events.iter().any(goes_back)) {
        let reason = format!("{} was rolled back after it was asked for", case.id);
        decision.events.push((case.stream(), rollout::RequestDropped { stack: waiting.stack, reason }.into()));
    }
    decision
}

/// Returns the deployment as it is once a decision is carried out.
pub(super) fn after(case: &Case<'_>, decision: &Decision) -> Deployment {
    let (stream, version) = (case.stream(), case.deployment.version.next());
    let at = At { time: case.now.time, commit: case.now.commit, version };
    let ours = decision.events.iter().filter(|(on, _)| *on == stream);
    ours.fold(case.deployment.clone(), |deployment, (_, event)| super::evolve(deployment, event, &at))
}

/// Says to the one who asked for a rollout what it waits for besides its own stack.
pub(super) fn noted(case: &Case<'_>, mut decision: Decision) -> Decision {
    let after = after(case, &decision);
    let Some(name) = after.waiting.as_ref().and_then(|waiting| after.name_of(waiting.stack)) else {
        return decision;
    };
    for Obstacle { kind, why, next } in obstacles(&after, case.id) {
        let next = next.map(|next| format!("; `{next}`")).unwrap_or_default();
        if kind != ObstacleKind::Stack {
            decision.notes.push(format!("{name} is prepared and its rollout waits: {why}{next}"));
        }
    }
    decision
}

/// Says to the one who aborts a rollout what becomes of the one that waits behind it, and how to drop that, too.
pub(super) fn behind_abort(case: &Case<'_>, mut decision: Decision) -> Decision {
    let after = after(case, &decision);
    let waiting = after.waiting.as_ref().filter(|_| !decision.events.is_empty());
    let Some(name) = waiting.and_then(|waiting| after.name_of(waiting.stack)) else { return decision };
    let obstacles = obstacles(&after, case.id);
    let on_hold = obstacles.iter().find(|obstacle| obstacle.kind == ObstacleKind::Hold);
    let then = match on_hold {
        Some(hold) => {
            let lift = hold.next.as_ref().map(|next| format!(" until `{next}`")).unwrap_or_default();
            format!("is prepared and does not begin{lift}")
        }
        None => "begins when nothing else blocks it".to_owned(),
    };
    let again = format!("to drop it, run `ionledger abort {}` again", case.id.arguments());
    decision.notes.push(format!("the waiting rollout of {name} {then}; {again}"));
    decision
}

/// Decides to start the rollout that waits. Without a version that serves, its stack gets all traffic at once.
///
/// # Errors
///
/// [`Rejection::Outdated`] if it does not wait any more, has nothing left to do, or something is in its way.
pub(super) fn decide_start(case: &Case<'_>, canary: StackId) -> Result<Decision, Rejection> {
    let outdated = |why: &str| Rejection::Outdated(format!("stack {canary}: {why}"));
    let waiting = case.deployment.waiting.as_ref().filter(|waiting| waiting.stack == canary);
    let waiting = waiting.ok_or_else(|| outdated("no rollout of it is asked for"))?;
    let definition = case.service.definition.as_ref().ok_or_else(|| outdated("its service is undeclared"))?;
    if let Some(why) = pointless(case.deployment, case.service) {
        return Err(outdated(&why));
    }
    if let Some(obstacle) = obstacles(case.deployment, case.id).first() {
        return Err(outdated(&obstacle.why));
    }
    let Some(set) = &case.deployment.traffic.set else {
        let weights = Weights::all_on(canary);
        return Ok(Decision::on(case.stream(), vec![WeightsSet { weights, purpose: Purpose::Asked }.into()]));
    };
    let live = live(case.deployment);
    let baseline = live.map(|live| live.baseline).or_else(|| set.weights.sole());
    let baseline = baseline.ok_or_else(|| outdated("more than one version serves"))?;
    let mut events = match (live, &waiting.fixes, case.deployment.version_of(canary)) {
        (Some(live), Some(fixed), Some(to)) => taken_over(case.deployment, live, baseline, given_way(to, fixed)),
        _ => vec![],
    };
    let (rollout, plan): (RolloutId, _) = (case.now.commit.into(), waiting.plan.clone());
    let started = rollout::Started { rollout, baseline, canary, plan, policy: definition.policy.clone() };
    events.push(started.into());
    Ok(Decision::on(case.stream(), events).requiring(Stream::Service(case.id.service.clone())))
}

/// Decides to drop the rollout that waits.
///
/// # Errors
///
/// [`Rejection::Outdated`] if it does not wait any more, or there is something left to do for it.
pub(super) fn decide_drop(case: &Case<'_>, stack: StackId) -> Result<Decision, Rejection> {
    let outdated = |why: &str| Rejection::Outdated(format!("stack {stack}: {why}"));
    case.deployment
        .waiting
        .as_ref()
        .filter(|waiting| waiting.stack == stack)
        .ok_or_else(|| outdated("no rollout of it is asked for"))?;
    let reason = pointless(case.deployment, case.service).ok_or_else(|| outdated("its rollout still waits"))?;
    let dropped = rollout::RequestDropped { stack, reason: schemas::text::tidy(&reason) };
    Ok(Decision::on(case.stream(), vec![dropped.into()]))
}

/// Says whether such a rollout of `stack` waits.
pub(super) fn waits(deployment: &Deployment, stack: StackId, plan: &Plan) -> bool {
    deployment.waiting.as_ref().is_some_and(|waiting| waiting.stack == stack && waiting.plan == *plan)
}
