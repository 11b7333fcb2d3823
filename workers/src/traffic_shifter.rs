//! The traffic shifter: wanted weights become applied ones. It drives rollouts step by step, reads the judgement and
//! sends canaries back.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::State;
use ledger::deployment::step::{self, Gate, Hold};
use ledger::deployment::{Deployment, Phase, Rollout, generation, waiting};
use ledger::judgement::analysis::Analysis;
use schemas::judgement::Verdict;
use schemas::outcome::{self, DeploymentOutcome};
use schemas::rollout::HoldKind;
use schemas::{DeploymentId, Probed, Role, StackId, Timestamp, Weight, Weights};

use crate::effect::{Effect, EffectKey, Reaction};
use crate::facts::{FRESH_MAX, Facts, RETRY_AFTER, later};
use crate::poll::{Pace, PollInterval, PollTarget};
use crate::routing;
use crate::traffic::{Entry, HeldRoutes, Routes};
use crate::watch::Watch;

/// Reacts to one deployment. It reads that deployment, its service and judge, this worker's lease, and what was seen of the
/// deployment, nothing of another one.
pub fn react_deployment(
    state: &State,
    facts: &Facts,
    id: &DeploymentId,
    deployment: &Deployment,
    now: Timestamp,
) -> Reaction {
    let mut reaction = Reaction::default();
    follow_traffic(state, facts, id, deployment, &mut reaction);
    // The ledger hears of a rollback that was carried out without it before anything goes on.
    if is_of_unrecorded_rollback(deployment, facts.routers.get(id).and_then(Option::as_ref)) {
        return reaction;
    }
    follow_rollout(state, facts, id, deployment, now, &mut reaction);
    end_holds(id, deployment, now, &mut reaction);
    follow_request(state, id, deployment, &mut reaction);
    reaction
}

/// Returns what the traffic shifter polls of a deployment: its router, the faster the more depends on it, and the source that
/// its rollout's policy names.
pub fn polls(deployment: &Deployment, pace: &Pace) -> Vec<PollInterval> {
    let traffic = &deployment.traffic;
    let rollout = deployment.rollout.as_ref().filter(|rollout| rollout.is_live());
    let every = if rollout.is_some() {
        Some(pace.judging)
    } else if !traffic.is_applied() || traffic.drift.is_some() {
        Some(pace.moving)
    } else {
        (traffic.set.is_some() || traffic.retired_at.is_some()).then_some(pace.quiet)
    };
    let router = every.map(|every| PollInterval { what: PollTarget::Router, every });
    let interval = rollout.and_then(|rollout| rollout.policy.judgement.source().interval_ms);
    let source = interval.map(|ms| PollInterval { what: PollTarget::Source, every: Duration::from_millis(ms) });
    router.into_iter().chain(source).collect()
}

fn follow_traffic(state: &State, facts: &Facts, id: &DeploymentId, deployment: &Deployment, reaction: &mut Reaction) {
    // What cannot be read changes nothing.
    let Some(entry) = facts.routers.get(id) else { return };
    if facts.in_flight.contains(&EffectKey::Route(id.clone())) {
        return;
    }
    let traffic = &deployment.traffic;
    let Some(set) = &traffic.set else {
        // Retiring is the last word: also over a rollback that was carried out before it and that the ledger does not know, and over
        // a call that comes late, which a router without a mark of this generation would take.
        let held = entry.as_ref().map(Entry::generation);
        if traffic.retired_at.is_some() && held.is_none_or(|held| generation::version(held) < deployment.version) {
            let emergency_count = held.map_or(0, generation::emergency_count).max(deployment.emergency_count);
            let generation = generation::of(emergency_count, deployment.version);
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
        if !traffic.is_applied()
            || traffic.drift.is_some()
            || !known
            || is_of_unrecorded_rollback(deployment, entry.as_ref())
        {
            let (generation, weights) = (held.routes.generation, set.weights.clone());
            reaction.record(id, outcome::WeightsApplied { generation, weights, listening });
        }
    } else {
        let seen: BTreeMap<StackId, Weight> = held.map(|held| shares(&held.routes.weights)).unwrap_or_default();
        match traffic.drift.as_ref().filter(|drift| drift.seen == seen) {
            // Whoever sent the traffic back had a reason; a person or their intent explains it. Its weights are left alone,
            // the nodes behind them are kept up to date.
            Some(_) if deployment.drift_left_alone().is_some() => {
                left_alone = held.map(|held| held.routes.weights.clone());
            }
            Some(_) => {}
            None if is_drift(deployment, entry.as_ref()) => {
                let generation = entry.as_ref().map(Entry::generation);
                reaction.record(id, outcome::DriftSeen { seen, generation });
                return;
            }
            None => {}
        }
    }
    let right = serves || left_alone.is_some();
    let weights = left_alone.as_ref().unwrap_or(&set.weights);
    let Some(routes) = routing::routes_by(weights, state, id, deployment) else { return };
    let routes = Routes { nodes_only: left_alone.is_some(), ..routes };
    if held.is_some_and(|held| right && same_but_for_generation(&held.routes, &routes)) || is_newer(held, deployment) {
        return;
    }
    match facts.route_failures.get(id) {
        Some((_, at)) if !facts.may_retry(*at) => reaction.wake_steady(*at + RETRY_AFTER),
        _ => reaction.effects.push(Effect::Route(Box::new(routes))),
    }
}

/// Says whether somebody else made the router hold other weights than those that are set.
///
/// One generation has one content. So it was somebody else if the router holds other weights under the generation of this worker's
/// view, whether or not those that are set were confirmed. Once they were confirmed, it was somebody else under an older generation
/// too. It always was under the generation of a break-glass rollback that the ledger does not know.
fn is_drift(deployment: &Deployment, entry: Option<&Entry>) -> bool {
    let applied = deployment.traffic.is_applied();
    let Some(entry) = entry else { return applied };
    is_of_unrecorded_rollback(deployment, Some(entry))
        || entry.held().is_some_and(|held| held.routes.generation == deployment.generation())
        || (applied && entry.held().is_none_or(|held| held.routes.generation <= deployment.generation()))
}

/// Says whether the router holds what a rollback left there that the ledger has not heard of.
fn is_of_unrecorded_rollback(deployment: &Deployment, entry: Option<&Entry>) -> bool {
    entry.is_some_and(|entry| generation::emergency_count(entry.generation()) > deployment.emergency_count)
}

fn shares(weights: &Weights) -> BTreeMap<StackId, Weight> {
    weights.iter().collect()
}

/// The router holds what was decided at least as late as this worker has read: it catches up before it acts, since a
/// router takes only what is younger.
fn is_newer(held: Option<&HeldRoutes>, deployment: &Deployment) -> bool {
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
    let analysis = heard.or(recorded);
    // Both are long texts and lists, and most reactions need neither.
    let counted = || recorded.zip(watch).and_then(|(recorded, watch)| watch.unrecorded(recorded));
    let judged = || analysis.and_then(|analysis| step::judged_of(deployment, rollout, analysis));
    if let Some(reason) = canary_trouble(deployment, rollout) {
        reaction.record(
            id,
            DeploymentOutcome::SendBack(outcome::SendBack {
                rollout: rollout.id,
                reason,
                counted: counted(),
                judged: None,
                probed: Probed::default(),
            }),
        );
        return;
    }
    if analysis.is_some_and(|analysis| analysis.judge().verdict() == Verdict::Worse)
        && let Some(judged) = judged()
    {
        let (reason, counted, judged) = (judged.reason.clone(), counted(), Some(judged));
        let probed = Probed::default();
        reaction.record(id, outcome::SendBack { rollout: rollout.id, reason, counted, judged, probed });
        return;
    }
    if is_undriven(state, facts, id, rollout) {
        reaction.record(id, outcome::DriveAgain { rollout: rollout.id });
        return;
    }
    let fresh_until = watch.and_then(|watch| fresh_until(watch, rollout));
    let fresh = watch.filter(|_| fresh_until.is_some_and(|until| facts.steady <= until));
    if let (Some(_), Some(until)) = (fresh, fresh_until) {
        reaction.wake_steady(until + Duration::from_nanos(1));
    }
    if now < rollout.ends_at() {
        reaction.wake(rollout.ends_at());
    }
    if let (None, false, Some(watch)) = (recorded, rollout.is_unjudged(), fresh)
        && let Some(begun) = watch.begun(rollout)
    {
        reaction.record(id, outcome::BeginJudging { begun });
        return;
    }
    let missing = watch.and_then(|watch| watch.missing(rollout));
    let drive = Drive { deployment, rollout, analysis, is_read: fresh.is_some(), missing, now };
    match drive.next() {
        Some(Next::Step(step)) => {
            let (counted, judged) = (counted(), judged());
            reaction.record(id, outcome::TakeStep { rollout: rollout.id, step, counted, judged });
            return;
        }
        Some(Next::Hold(Hold { kind, reason })) if rollout.is_news(kind, now) => {
            let (counted, judged) = (counted(), judged());
            reaction.record(id, outcome::Hold { rollout: rollout.id, kind, reason, counted, judged });
            return;
        }
        Some(Next::Wait(until)) => reaction.wake(until),
        Some(Next::Hold(Hold { kind, .. })) => {
            rollout.news_at(kind).filter(|at| now < *at).into_iter().for_each(|at| reaction.wake(at));
        }
        None => {}
    }
    let named = analysis.filter(|analysis| names_a_node(state, id, analysis)).and_then(|_| judged());
    if (named.is_some() || watch.is_some_and(Watch::is_due))
        && let Some(counted) = counted()
    {
        reaction.record(id, outcome::Count { counted, judged: named });
    }
}

/// Whether the judge has found a bad node that no recorded verdict names.
fn names_a_node(state: &State, id: &DeploymentId, analysis: &Analysis) -> bool {
    let named = analysis.bad_nodes();
    let last = state.judgements.get(id).and_then(|judgements| judgements.last.as_ref());
    let last = last.filter(|last| last.rollout == analysis.rollout());
    let before = last.and_then(|last| last.evidence.as_ref()).map(|evidence| &evidence.bad_nodes);
    !named.is_empty() && before != Some(&named)
}

/// What decides on a rollout's next step.
struct Drive<'a> {
    deployment: &'a Deployment,
    rollout: &'a Rollout,
    analysis: Option<&'a Analysis>,
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
        let gate = step::gate(&self.deployment.traffic, self.rollout, self.analysis, self.now);
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

/// Until when, by the steady clock, what was last measured of a rollout still says something. A source that is asked now and
/// then has a few turns.
fn fresh_until(watch: &Watch, rollout: &Rollout) -> Option<Duration> {
    let every = rollout.policy.judgement.source().interval_ms.unwrap_or(0);
    let fresh = FRESH_MAX.max(Duration::from_millis(4 * every));
    Some(watch.read_at(rollout)?.saturating_add(fresh))
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
            Some(_) if hold.is_over(now) => reaction.record(id, outcome::EndHold { cause: *cause }),
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
        reaction.record(id, outcome::DropRequest { stack });
    } else if waiting::obstacles(deployment, id).is_empty() {
        reaction.record(id, outcome::StartRequestedRollout { stack });
    }
}
