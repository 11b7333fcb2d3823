//! The traffic shifter: wanted weights become applied ones. It drives rollouts step by step, reads the judgement and
//! sends canaries back.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::State;
use ledger::deployment::step::{self, Gate, Hold};
use ledger::deployment::{Deployment, Phase, Rollout, Stack, generation, waiting};
use ledger::judgement::hearing::Hearing;
use schemas::command::DeploymentOutcome;
use schemas::judgement::{Judged, Verdict};
use schemas::rollout::HoldKind;
use schemas::{DeploymentId, Probed, Role, StackId, Timestamp, Weight, Weights};

use crate::effect::{Effect, Key, Reaction};
use crate::facts::{FRESH_MAX, Facts, RETRY_AFTER, later};
use crate::traffic::{Backends, Entry, Held, Node, Routes, Timeouts};
use crate::watch::Watch;

/// Reacts to the state and the facts.
pub fn react(state: &State, facts: &Facts, now: Timestamp) -> Reaction {
    let mut reaction = Reaction::default();
    for (id, deployment) in &state.deployments {
        follow_traffic(state, facts, id, deployment, now, &mut reaction);
        // The ledger hears of a rollback that was carried out without it before anything goes on.
        if is_of_unknown_glass(deployment, facts.routers.get(id).and_then(Option::as_ref)) {
            continue;
        }
        follow_rollout(state, facts, id, deployment, now, &mut reaction);
        end_holds(id, deployment, now, &mut reaction);
        follow_request(state, id, deployment, &mut reaction);
    }
    reaction
}

/// Returns the routes that serve what is set, if anything is and a node of every version with weight can be called.
pub fn routes(state: &State, id: &DeploymentId, deployment: &Deployment) -> Option<Routes> {
    routes_by(&deployment.traffic.set.as_ref()?.weights, state, id, deployment)
}

/// Returns the routes that serve `weights` with the nodes of now, if a node of every version with weight can be called.
pub(crate) fn routes_by(
    weights: &Weights,
    state: &State,
    id: &DeploymentId,
    deployment: &Deployment,
) -> Option<Routes> {
    let definition = state.service(&id.service)?.definition.as_ref()?;
    let mut backends = BTreeMap::new();
    for (stack_id, _) in weights.iter() {
        let stack = deployment.stacks.get(&stack_id)?;
        let nodes = nodes(stack);
        if nodes.is_empty() {
            return None;
        }
        backends.insert(stack_id, Backends { version: stack.name(), nodes });
    }
    Some(Routes {
        deployment: id.clone(),
        generation: deployment.generation(),
        listen: definition.listen.get(&id.environment).copied(),
        weights: weights.clone(),
        backends,
        timeouts: Timeouts::default(),
        nodes_only: false,
    })
}

/// Returns the nodes to call: the ready ones, or all that run while none is ready.
fn nodes(stack: &Stack) -> Vec<Node> {
    let call = |node: &ledger::deployment::Node| node.address().map(|address| Node { effect: node.effect, address });
    let ready: Vec<Node> = stack.nodes.values().filter(|node| node.is_ready()).filter_map(call).collect();
    if ready.is_empty() { stack.nodes.values().filter_map(call).collect() } else { ready }
}

fn follow_traffic(
    state: &State,
    facts: &Facts,
    id: &DeploymentId,
    deployment: &Deployment,
    now: Timestamp,
    reaction: &mut Reaction,
) {
    // What cannot be read changes nothing.
    let Some(entry) = facts.routers.get(id) else { return };
    if facts.in_flight.contains(&Key::Route(id.clone())) {
        return;
    }
    let traffic = &deployment.traffic;
    let Some(set) = &traffic.set else {
        // Retiring is the last word, also over a rollback that was carried out before it and that the ledger does not know.
        if let (Some(_), Some(Entry::Routed(held))) = (traffic.retired_at, entry)
            && generation::version(held.routes.generation) < deployment.version
        {
            let glass = generation::glass(held.routes.generation).max(deployment.glass);
            let generation = generation::of(glass, deployment.version);
            reaction.effects.push(Effect::Unroute { deployment: id.clone(), generation });
        }
        return;
    };
    let held = entry.as_ref().and_then(Entry::held);
    let mut left_alone = None;
    let serves = held.is_some_and(|held| held.routes.weights == set.weights && held.routes.generation >= set.version);
    if let (true, Some(held)) = (serves, held) {
        let listening = Some(held.listening);
        let known = traffic.applied.as_ref().is_some_and(|applied| applied.listening == listening);
        if !traffic.is_applied() || traffic.drift.is_some() || !known || is_of_unknown_glass(deployment, entry.as_ref())
        {
            let (generation, weights) = (held.routes.generation, set.weights.clone());
            reaction.record(id, DeploymentOutcome::WeightsApplied { generation, weights, listening });
        }
    } else {
        let seen: BTreeMap<StackId, Weight> = held.map(|held| shares(&held.routes.weights)).unwrap_or_default();
        match traffic.drift.as_ref().filter(|drift| drift.seen == seen) {
            // Whoever sent the traffic back had a reason; a person or their intent explains it. Its weights are left alone,
            // the nodes behind them are kept up to date.
            Some(drift) if drift.towards_target => left_alone = held.map(|held| held.routes.weights.clone()),
            Some(_) => {}
            None if is_drift(deployment, entry.as_ref()) => {
                let generation = entry.as_ref().map(Entry::generation);
                reaction.record(id, DeploymentOutcome::DriftSeen { seen, generation });
                return;
            }
            None => {}
        }
    }
    let right = serves || left_alone.is_some();
    let weights = left_alone.as_ref().unwrap_or(&set.weights);
    let Some(routes) = routes_by(weights, state, id, deployment) else { return };
    let routes = Routes { nodes_only: left_alone.is_some(), ..routes };
    if held.is_some_and(|held| right && same_but_for_generation(&held.routes, &routes)) || is_newer(held, deployment) {
        return;
    }
    match facts.route_failures.get(id) {
        Some((_, at)) if !facts.may_retry(*at) => reaction.wake(later(now, RETRY_AFTER)),
        _ => reaction.effects.push(Effect::Route(Box::new(routes))),
    }
}

/// Says whether what the router holds, which is not what is set, is somebody else's doing.
///
/// One generation has one content: what differs under the very generation of this worker's view always is, whether what is set was
/// confirmed or not; once it was, so is what is older. A generation of broken glass that the ledger has not heard of always is,
/// whatever is on its way.
fn is_drift(deployment: &Deployment, entry: Option<&Entry>) -> bool {
    let applied = deployment.traffic.is_applied();
    let Some(entry) = entry else { return applied };
    is_of_unknown_glass(deployment, Some(entry))
        || entry.held().is_some_and(|held| held.routes.generation == deployment.generation())
        || (applied && entry.held().is_none_or(|held| held.routes.generation <= deployment.generation()))
}

/// Says whether the router holds what a rollback left there that the ledger has not heard of.
fn is_of_unknown_glass(deployment: &Deployment, entry: Option<&Entry>) -> bool {
    entry.is_some_and(|entry| generation::glass(entry.generation()) > deployment.glass)
}

fn shares(weights: &Weights) -> BTreeMap<StackId, Weight> {
    weights.iter().collect()
}

/// The router holds what was decided at least as late as this worker has read: it catches up before it acts, since a
/// router takes only what is younger.
fn is_newer(held: Option<&Held>, deployment: &Deployment) -> bool {
    held.is_some_and(|held| held.routes.generation >= deployment.generation())
}

fn same_but_for_generation(held: &Routes, wanted: &Routes) -> bool {
    held.weights == wanted.weights && held.backends == wanted.backends && held.listen == wanted.listen
}

/// Drives the rollout under way: back at once if the canary is worse or unhealthy, on when a step is due and the judge
/// lets it.
fn follow_rollout(
    state: &State,
    facts: &Facts,
    id: &DeploymentId,
    deployment: &Deployment,
    now: Timestamp,
    reaction: &mut Reaction,
) {
    let Some(rollout) = deployment.rollout.as_ref().filter(|rollout| rollout.is_live()) else { return };
    let recorded = state.judgements.get(id).and_then(|judgements| judgements.of(rollout.id));
    let watch = facts.watches.get(id);
    let heard = recorded.and_then(|recorded| watch?.heard(recorded));
    let (hearing, counted) = heard.map_or((recorded, None), |(hearing, counted)| (Some(hearing), counted));
    if let Some(reason) = canary_trouble(deployment, rollout) {
        reaction.record(
            id,
            DeploymentOutcome::SendBack {
                rollout: rollout.id,
                reason,
                counted,
                judged: None,
                probed: Probed::default(),
            },
        );
        return;
    }
    let judged = hearing.and_then(|hearing| step::judged_of(deployment, rollout, hearing));
    if let Some(judged) = judged.as_ref().filter(|judged| judged.verdict == Verdict::Worse) {
        let (reason, judged) = (judged.reason.clone(), Some(judged.clone()));
        let probed = Probed::default();
        reaction.record(id, DeploymentOutcome::SendBack { rollout: rollout.id, reason, counted, judged, probed });
        return;
    }
    if is_undriven(state, facts, id, rollout) {
        reaction.record(id, DeploymentOutcome::DriveAgain { rollout: rollout.id });
        return;
    }
    let fresh = watch.filter(|watch| is_fresh(facts, watch, rollout));
    if let (None, false, Some(watch)) = (recorded, rollout.is_unjudged(), fresh)
        && let Some(begun) = watch.begun(rollout)
    {
        reaction.record(id, DeploymentOutcome::BeginJudging { begun });
        return;
    }
    let missing = watch.and_then(|watch| watch.missing(rollout));
    let drive = Drive { deployment, rollout, hearing, is_read: fresh.is_some(), missing, now };
    match drive.next() {
        Some(Next::Step(step)) => {
            reaction.record(id, DeploymentOutcome::TakeStep { rollout: rollout.id, step, counted, judged });
            return;
        }
        Some(Next::Hold(Hold { kind, reason })) if rollout.is_news(kind, now) => {
            reaction.record(id, DeploymentOutcome::Hold { rollout: rollout.id, kind, reason, counted, judged });
            return;
        }
        Some(Next::Wait(until)) => reaction.wake(until),
        Some(Next::Hold(_)) | None => {}
    }
    let named = names_a_node(state, id, judged.as_ref());
    if let (Some(counted), true) = (counted, named || watch.is_some_and(Watch::is_due)) {
        reaction.record(id, DeploymentOutcome::Count { counted, judged: judged.filter(|_| named) });
    }
}

/// Whether the judge has found a bad node that no recorded verdict names.
fn names_a_node(state: &State, id: &DeploymentId, judged: Option<&Judged>) -> bool {
    let nodes =
        |judged: &'_ Judged| judged.evidence.as_ref().map(|evidence| evidence.bad_nodes.clone()).unwrap_or_default();
    let named = judged.map(nodes).unwrap_or_default();
    let last = state.judgements.get(id).and_then(|judgements| judgements.last.as_ref());
    let before = last.filter(|last| judged.is_some_and(|judged| judged.rollout == last.rollout)).map(nodes);
    !named.is_empty() && before != Some(named)
}

/// What decides on a rollout's next step.
struct Drive<'a> {
    deployment: &'a Deployment,
    rollout: &'a Rollout,
    hearing: Option<&'a Hearing>,
    is_read: bool,
    missing: Option<&'a str>,
    now: Timestamp,
}

/// What is to be done about a rollout's next step.
enum Next {
    Step(u16),
    Hold(Hold),
    Wait(Timestamp),
}

impl Drive<'_> {
    /// Returns what is to be done now; nothing while it is paused.
    fn next(&self) -> Option<Next> {
        if !self.rollout.is_running() {
            return None;
        }
        let Some(next) = self.rollout.next_step() else { return self.confirmation() };
        let gate = step::gate(&self.deployment.traffic, self.rollout, self.hearing, self.now);
        if let Gate::NotBefore(due) = gate {
            return Some(Next::Wait(due));
        }
        let hold = if !self.is_read && !self.rollout.is_unjudged() {
            Hold::new(HoldKind::Source, self.missing.unwrap_or("the router's counters cannot be read"))
        } else if self.is_unconfirmed() {
            unconfirmed()
        } else {
            return Some(match gate {
                Gate::Held(hold) => Next::Hold(hold),
                Gate::Open | Gate::NotBefore(_) => Next::Step(next),
            });
        };
        Some(self.patient(self.rollout.due_at(next), hold))
    }

    /// After the last step only the router's word is missing.
    fn confirmation(&self) -> Option<Next> {
        let last = self.rollout.step.as_ref().filter(|_| self.is_unconfirmed())?;
        Some(self.patient(last.at, unconfirmed()))
    }

    fn is_unconfirmed(&self) -> bool {
        self.deployment.traffic.set.is_some() && !self.deployment.traffic.is_applied()
    }

    /// A router that was not asked yet, or has just been told, is given a moment before it is called silent.
    fn patient(&self, since: Timestamp, hold: Hold) -> Next {
        let patient = later(since, ROUTER_PATIENCE);
        if self.now < patient { Next::Wait(patient) } else { Next::Hold(hold) }
    }
}

fn unconfirmed() -> Hold {
    Hold::new(HoldKind::Router, "the router has not confirmed the weights")
}

/// Says whether nobody drove a running rollout for a time: this worker took over, or stood still, and nothing was recorded of
/// the rollout for a while before that.
fn is_undriven(state: &State, facts: &Facts, id: &DeploymentId, rollout: &Rollout) -> bool {
    let driven_at = step::driven_at(rollout, state.judgements.get(id).map(AsRef::as_ref));
    let acts_since = state.lease(Role::TrafficShifter).since.max(facts.woke_at);
    let undriven = later(driven_at, Duration::from_millis(step::UNDRIVEN_MS_MIN));
    rollout.is_running() && acts_since.is_some_and(|since| since >= undriven)
}

/// How long after a step was due a router may be silent before the rollout is visibly held.
const ROUTER_PATIENCE: Duration = Duration::from_secs(5);

/// A source that is asked now and then has a few turns.
fn is_fresh(facts: &Facts, watch: &Watch, rollout: &Rollout) -> bool {
    let every = rollout.policy.judgement.prometheus.as_ref().map_or(0, |prometheus| prometheus.scrape_interval_ms);
    let fresh = FRESH_MAX.max(Duration::from_millis(4 * every));
    watch.read_at(rollout).is_some_and(|at| facts.steady.saturating_sub(at) <= fresh)
}

fn canary_trouble(deployment: &Deployment, rollout: &Rollout) -> Option<String> {
    match deployment.stacks.get(&rollout.canary) {
        None => Some("the canary's stack is gone".to_owned()),
        Some(stack) => match &stack.phase {
            Phase::Ready => None,
            Phase::Unhealthy => {
                let (ready, min) = (stack.ready_nodes(), stack.capacity.min_ready);
                Some(format!("the canary is unhealthy: {ready} of its nodes are ready, {min} must be"))
            }
            Phase::Failed { reason } => Some(format!("the canary failed: {reason}")),
            Phase::Starting | Phase::Collecting { .. } => Some("the canary is not running".to_owned()),
        },
    }
}

/// Ends the holds whose time is over.
fn end_holds(id: &DeploymentId, deployment: &Deployment, now: Timestamp, reaction: &mut Reaction) {
    for (cause, hold) in &deployment.holds {
        match hold.until {
            Some(_) if hold.is_over(now) => reaction.record(id, DeploymentOutcome::EndHold { cause: *cause }),
            Some(until) => reaction.wake(until),
            None => {}
        }
    }
}

/// Starts the rollout that waits, once nothing is in its way, or drops it, once it has nothing left to do.
fn follow_request(state: &State, id: &DeploymentId, deployment: &Deployment, reaction: &mut Reaction) {
    let (Some(waiting), Some(service)) = (&deployment.waiting, state.service(&id.service)) else { return };
    let stack = waiting.stack;
    if waiting::pointless(deployment, service).is_some() {
        reaction.record(id, DeploymentOutcome::DropRequest { stack });
    } else if waiting::obstacles(deployment, id).is_empty() {
        reaction.record(id, DeploymentOutcome::StartRequestedRollout { stack });
    }
}
