//! Watching: from a router's counters, look by look, to the ticks that the judge hears. Pure: a fold beside the facts.
//!
//! A tick is what was counted between two looks, or several in a row. How long it is depends on the time since the last
//! step and on how much room ticks take, never on how the requests in it end; so the judge's bound holds. What was not
//! recorded when a shifter ends is lost to the evidence and nothing else: the next one goes on from what is recorded.

mod past;
mod sourced;
mod ticks;

use std::collections::BTreeMap;

use ledger::State;
use ledger::deployment::Rollout;
use ledger::judgement::analysis::Analysis;
use schemas::judgement::{Begun, Counted};
use schemas::{DeploymentId, EffectId, StackId, Timestamp, Weight, Weights};
use std::time::Duration;

use crate::measures::{self, Asked, Failure};
use crate::traffic::Measures;
use crate::traffic::measures::NodeMeasures;

use past::Past;
use sourced::Sourced;
use ticks::Ticks;

pub use sourced::PAST;

/// What a router was read to have counted, and the weights it counted under.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The counters.
    pub measures: Measures,
    /// The weights; nothing if they changed while it was read.
    pub weights: Option<Weights>,
    /// When it was read, by the steady clock.
    pub at: Duration,
}

/// What is known of a deployment's requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Watch {
    last: Option<Reading>,
    past: Option<Past>,
    ticks: Option<Ticks>,
    sourced: Option<Sourced>,
}

/// What one node did between two readings.
#[derive(Clone, Debug, PartialEq)]
struct Since {
    node: EffectId,
    measures: NodeMeasures,
}

impl Reading {
    fn knows(&self, stack: StackId, node: EffectId) -> bool {
        self.measures.stacks.get(&stack).is_some_and(|of| of.nodes.contains_key(&node))
    }
}

impl Watch {
    /// Takes a reading in.
    pub fn take_in(&mut self, state: &State, id: &DeploymentId, reading: Reading, now: Timestamp) {
        let Some(deployment) = state.deployment(id) else { return };
        let rollout = deployment.rollout.as_ref().filter(|rollout| rollout.is_live());
        let sole = || deployment.traffic.set.as_ref().and_then(|set| set.weights.sole());
        let last = self.last.take().filter(|last| follows(last, &reading));
        if let Some(baseline) = rollout.map(|rollout| rollout.baseline).or_else(sole) {
            self.learn(baseline, last.as_ref(), &reading);
        }
        // Nothing is counted of the first reading, so that it may be the past of what follows.
        if let (None, Some(past)) = (&last, &mut self.past) {
            past.settle();
        }
        let by_router = rollout.filter(|rollout| rollout.policy.judgement.source().is_router());
        let recorded = by_router.and_then(|rollout| state.judgements.get(id)?.of(rollout.id).zip(Some(rollout)));
        match recorded {
            // Another source counts this one.
            None if rollout.is_some() && by_router.is_none() => {}
            None => self.ticks = None,
            Some((recorded, rollout)) => {
                let follow = self.ticks.take().filter(|ticks| ticks.go_on_from(recorded));
                let mut ticks = follow.unwrap_or_else(|| Ticks::from_here(recorded, rollout.plan.steps.len()));
                ticks.prune(recorded);
                let latencies = self.past.as_ref().map(Past::latencies);
                let ages = |node: EffectId| age_ms(deployment, rollout, node, now);
                ticks.take_in((rollout.baseline, rollout.canary), last.as_ref(), &reading, latencies, ages);
                self.ticks = Some(ticks);
            }
        }
        // What a tick's requests are measured by was known before them.
        if let Some(past) = &mut self.past {
            past.settle();
        }
        self.last = Some(reading);
    }

    fn learn(&mut self, baseline: StackId, last: Option<&Reading>, reading: &Reading) {
        let past = self.past.take().filter(|past| past.stack() == baseline);
        // Of a stack that is new here, everything that its router has counted so far is the past.
        let mut past = past.unwrap_or_else(|| Past::of(baseline));
        past.take_in(&since(last, reading, baseline), seconds(last, reading));
        self.past = Some(past);
    }

    /// Takes in what another source than the router answered.
    pub fn add_source_reading(
        &mut self,
        state: &State,
        id: &DeploymentId,
        answer: Result<measures::Reading, Failure>,
        (steady, now): (Duration, Timestamp),
    ) {
        let Some(deployment) = state.deployment(id) else { return };
        let Some(rollout) = deployment.rollout.as_ref().filter(|rollout| rollout.is_live()) else { return };
        let recorded = state.judgements.get(id).and_then(|judgements| judgements.of(rollout.id));
        let mut sourced =
            self.sourced.take().filter(|sourced| sourced.is_of(rollout)).unwrap_or_else(|| Sourced::new(rollout));
        let nodes = deployment.stacks.get(&rollout.canary).map(|stack| &stack.nodes);
        let ages = nodes.into_iter().flatten().map(|(_, node)| age_ms(deployment, rollout, node.effect, now));
        let tick = sourced.take_in(deployment, rollout, answer, recorded.is_some(), ages.min().unwrap_or(0), steady);
        self.sourced = Some(sourced);
        let Some(recorded) = recorded else { return };
        let follow = self.ticks.take().filter(|ticks| ticks.go_on_from(recorded));
        let mut ticks = follow.unwrap_or_else(|| Ticks::from_here(recorded, rollout.plan.steps.len()));
        ticks.prune(recorded);
        if let Some(tick) = tick {
            ticks.add(tick);
        }
        self.ticks = Some(ticks);
    }

    /// Returns from when on another source is to be asked of a rollout.
    pub fn source_from(&self, rollout: &Rollout, listens: bool, now: Timestamp) -> Timestamp {
        let until = self.sourced.as_ref().filter(|sourced| sourced.is_of(rollout)).and_then(Sourced::until);
        let past = || now.checked_sub(PAST).unwrap_or(now);
        until.filter(|_| listens).unwrap_or_else(|| if listens { now } else { past() })
    }

    /// Returns why the rollout's source has not measured all there is, if it has not.
    pub fn missing(&self, rollout: &Rollout) -> Option<&str> {
        self.sourced.as_ref().filter(|sourced| sourced.is_of(rollout))?.reason()
    }

    /// Returns when the rollout's requests were measured last.
    pub fn read_at(&self, rollout: &Rollout) -> Option<Duration> {
        if rollout.policy.judgement.source().is_router() {
            return self.last.as_ref().map(|last| last.at);
        }
        self.sourced.as_ref().filter(|sourced| sourced.is_of(rollout)).and_then(Sourced::read_at)
    }

    /// Returns what the judge is told of a rollout before its first tick; nothing while its source was not read.
    pub fn begun(&self, rollout: &Rollout) -> Option<Begun> {
        if !rollout.policy.judgement.source().is_router() {
            return self.sourced.as_ref().filter(|sourced| sourced.is_of(rollout))?.begun().cloned();
        }
        self.last.as_ref()?;
        let past = self.past.as_ref().filter(|past| past.stack() == rollout.baseline);
        Some(past::begun(past, rollout))
    }

    /// Returns what the judge knows after everything that was counted; `None` if this watch does not go on from what is
    /// recorded.
    pub fn heard(&self, recorded: &Analysis) -> Option<&Analysis> {
        self.ticks_after(recorded).map(Ticks::analysis)
    }

    /// Returns what was counted and is not recorded yet; `None` also if this watch does not go on from what is recorded.
    pub fn unrecorded(&self, recorded: &Analysis) -> Option<Counted> {
        self.ticks_after(recorded)?.unrecorded(recorded)
    }

    fn ticks_after(&self, recorded: &Analysis) -> Option<&Ticks> {
        self.ticks.as_ref().filter(|ticks| ticks.go_on_from(recorded))
    }

    /// Says whether what was counted is to be recorded now.
    pub fn is_due(&self) -> bool {
        self.ticks.as_ref().is_some_and(Ticks::is_due)
    }
}

/// Returns what a source is asked about a rollout.
pub fn asked(id: &DeploymentId, deployment: &ledger::Deployment, rollout: &Rollout) -> Asked {
    let of = |stack: StackId| Some((stack, deployment.name_of(stack)?));
    let stacks = [rollout.baseline, rollout.canary].into_iter().filter_map(of).collect();
    Asked { deployment: id.clone(), stacks }
}

/// Whether differences between two readings mean anything.
fn follows(last: &Reading, next: &Reading) -> bool {
    last.measures.epoch == next.measures.epoch && last.measures.at_ms < next.measures.at_ms
}

/// Returns what a stack's nodes did since `last`; since the router's start without it.
fn since(last: Option<&Reading>, reading: &Reading, stack: StackId) -> Vec<Since> {
    let nodes =
        |reading: &'_ Reading| reading.measures.stacks.get(&stack).map(|of| of.nodes.clone()).unwrap_or_default();
    let before: BTreeMap<EffectId, NodeMeasures> = last.map(nodes).unwrap_or_default();
    let since = |(node, now): (EffectId, NodeMeasures)| {
        let measures = match before.get(&node) {
            None => now,
            Some(before) => NodeMeasures {
                counts: now.counts.since(&before.counts),
                latency: now.latency.since(&before.latency),
                ..now
            },
        };
        Since { node, measures }
    };
    nodes(reading).into_iter().map(since).collect()
}

/// Returns the seconds between two readings; since the router's start without the first.
fn seconds(last: Option<&Reading>, reading: &Reading) -> f64 {
    let from = last.map_or(0, |last| last.measures.at_ms);
    reading.measures.at_ms.saturating_sub(from) as f64 / 1_000.0
}

/// Returns for how long a node of the rollout may have served users, in milliseconds: since its launch or the rollout's
/// start, whichever is later. A warm stack has cold caches until its first users come.
fn age_ms(deployment: &ledger::Deployment, rollout: &Rollout, node: EffectId, now: Timestamp) -> u64 {
    let launched = deployment.node(node).map_or(rollout.started_at, |(_, _, node)| node.started_at);
    let from = if launched > rollout.started_at { launched } else { rollout.started_at };
    u64::try_from(now.duration_since(from).as_millis()).unwrap_or(0)
}

/// Returns the canary's share, if both versions have one.
fn share(weights: &Weights, canary: StackId) -> Option<Weight> {
    let share = weights.of(canary);
    (share > Weight::ZERO && share < Weight::FULL).then_some(share)
}

#[cfg(test)]
mod tests;
