//! Ticks: closed ones that the judge has heard and nobody has recorded, and the one that is being filled.

use std::collections::BTreeMap;

use ledger::judgement::analysis::Analysis;
use ledger::judgement::latency::{InFlight, Latencies, NodeLatencies, Side};
use ledger::judgement::plan::{Kind, Metric};
use schemas::judgement::{Counted, NodeTally, Tally, Tick};
use schemas::policy::metric;
use schemas::{EffectId, StackId, Weight};

use super::{Reading, Since, seconds, share, since};
use crate::traffic::Timeouts;
use crate::traffic::measures::bucket_of;

/// The shortest tick, in milliseconds.
const TICK_MS_MIN: u64 = 100;

/// The shortest later on, in milliseconds: every reader of the log judges each of them again, and a day has many.
const EVEN_TICK_MS_MIN: u64 = 500;

/// The longest: one commit per minute, with one tick in it.
const TICK_MS_MAX: u64 = 60_000;

/// How many bytes of ticks a commit holds; the rest of its 60 KiB is for names and the verdict.
const BYTES_MAX: usize = 48 * 1024;

/// For how long after a step ticks are as short as can be, in milliseconds.
const BRISK_MS: u64 = 60_000;

/// How many commits the short ticks of all steps may fill. With one commit per minute, a day has fewer than 2,000.
const BRISK_COMMITS: usize = 300;

/// How many of them a step may fill at most.
const BRISK_COMMITS_A_STEP: usize = 10;

/// Between which ages the oldest tick is recorded, in milliseconds: the longer the step, the later.
const RECORD_AFTER_MS: (u64, u64) = (1_000, 60_000);

/// What is not recorded yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ticks {
    /// The judge after everything that was counted.
    analysis: Analysis,
    /// How many ticks of it were recorded when `closed` began.
    recorded: u64,
    /// How many nodes of the baseline and of the canary were.
    nodes: (usize, usize),
    closed: Vec<Tick>,
    /// What each of `closed` takes in JSON.
    bytes: Vec<usize>,
    open: Option<Open>,
    in_flight: BTreeMap<(EffectId, usize), InFlight>,
    /// The canary's share, for how long it has been that, and how many bytes were written since.
    step: (Weight, u64, usize),
    steps: usize,
}

/// The tick that is being filled.
#[derive(Clone, Debug, PartialEq)]
struct Open {
    tick: Tick,
    until_ms: u64,
}

impl Ticks {
    /// Goes on from what is recorded, with nothing counted since. `steps` is how many the plan has.
    pub(super) fn from_here(recorded: &Analysis, steps: usize) -> Self {
        let (baseline, canary) = recorded.nodes();
        Self {
            recorded: recorded.judge().ticks(),
            nodes: (baseline.len(), canary.len()),
            analysis: recorded.clone(),
            closed: vec![],
            bytes: vec![],
            open: None,
            in_flight: BTreeMap::new(),
            step: (Weight::ZERO, 0, 0),
            steps,
        }
    }

    /// Says whether `recorded` is where these began, or has some of them.
    pub(super) fn go_on_from(&self, recorded: &Analysis) -> bool {
        let ticks = recorded.judge().ticks();
        self.analysis.rollout() == recorded.rollout()
            && ticks >= self.recorded
            && ticks - self.recorded <= self.closed.len() as u64
    }

    /// Forgets what is recorded by now.
    pub(super) fn prune(&mut self, recorded: &Analysis) {
        let by_now = (recorded.judge().ticks() - self.recorded) as usize;
        self.closed.drain(..by_now);
        self.bytes.drain(..by_now);
        self.recorded = recorded.judge().ticks();
        let (baseline, canary) = recorded.nodes();
        self.nodes = (baseline.len(), canary.len());
    }

    pub(super) fn analysis(&self) -> &Analysis {
        &self.analysis
    }

    /// Returns what `recorded` does not have yet, if there is something.
    pub(super) fn unrecorded(&self, recorded: &Analysis) -> Option<Counted> {
        let (first, (baseline, canary)) = (recorded.judge().ticks(), self.analysis.nodes());
        let ticks = &self.closed[(first - self.recorded) as usize..];
        let (known_baseline, known_canary) = recorded.nodes();
        (!ticks.is_empty()).then(|| Counted {
            rollout: self.analysis.rollout(),
            first,
            baseline_nodes: baseline[known_baseline.len().min(baseline.len())..].to_vec(),
            canary_nodes: canary[known_canary.len().min(canary.len())..].to_vec(),
            ticks: ticks.to_vec(),
        })
    }

    /// Says whether a commit's worth has come together, or the oldest has waited long enough.
    pub(super) fn is_due(&self) -> bool {
        let waited: u64 = self.closed.iter().map(|tick| u64::from(tick.ms)).sum();
        let (after, at_most) = RECORD_AFTER_MS;
        let after = if self.steps <= BRISK_COMMITS / BRISK_COMMITS_A_STEP { self.step.1 / 2 } else { at_most }
            .clamp(after, at_most);
        self.is_full() || waited >= after
    }

    fn written(&self) -> usize {
        self.bytes.iter().sum()
    }

    fn is_full(&self) -> bool {
        self.written() + 2 * self.bytes.last().copied().unwrap_or(0) > BYTES_MAX
    }

    /// Counts what both versions did since `last`, and closes the tick if it is long enough.
    pub(super) fn take_in(
        &mut self,
        (baseline, canary): (StackId, StackId),
        last: Option<&Reading>,
        reading: &Reading,
        latencies: Option<&Latencies>,
        age_ms: impl Fn(EffectId) -> u64,
    ) {
        let weights = last.and_then(|last| last.weights.as_ref());
        let weights =
            weights.filter(|_| last.is_some_and(|last| last.measures.generation == reading.measures.generation));
        let weights = weights.filter(|weights| reading.weights.as_ref() == Some(*weights));
        let share = weights.and_then(|weights| share(weights, canary));
        let sides = [(Side::Baseline, baseline), (Side::Canary, canary)];
        let Some(share) = share else {
            // Weights have changed in between, or the router began anew: what was counted belongs to no share. What is in
            // flight is taken note of, so that nothing of it is counted twice.
            let edges = self.edges(latencies);
            for (side, stack) in sides {
                self.tally(side, &since(Some(reading), reading, stack), &edges);
            }
            return;
        };
        let ms = (seconds(last, reading) * 1_000.0) as u64;
        if self.step.0 != share {
            self.close();
            self.open = None;
            self.step = (share, 0, 0);
        }
        let edges = match &self.open {
            Some(open) => open.tick.edges.clone(),
            None => self.edges(latencies),
        };
        let counted = sides.map(|(side, stack)| {
            let tallies = self.tally(side, &since(last, reading, stack), &edges);
            self.numbered(side, tallies, &age_ms)
        });
        let until_ms = self.tick_ms();
        let new = || Tick { ms: 0, share, edges, baseline: vec![], canary: vec![] };
        let open = self.open.get_or_insert_with(|| Open { tick: new(), until_ms });
        let [of_baseline, of_canary] = counted;
        add(&mut open.tick.baseline, of_baseline);
        add(&mut open.tick.canary, of_canary);
        open.tick.ms = open.tick.ms.saturating_add(u32::try_from(ms).unwrap_or(u32::MAX));
        self.step.1 += ms;
        let is_there = |node: &EffectId| sides.iter().any(|(_, stack)| reading.knows(*stack, *node));
        self.in_flight.retain(|(node, _), _| is_there(node));
        if self.open.as_ref().is_some_and(|open| u64::from(open.tick.ms) >= open.until_ms) {
            self.close();
        }
    }

    /// Adds a tick that another source than the router was read for. While a commit's worth waits to be recorded it is left
    /// out: evidence that is lost, and nothing wrong.
    pub(super) fn add(&mut self, tick: Tick) {
        if self.step.0 != tick.share {
            self.step = (tick.share, 0, 0);
        }
        self.step.1 += u64::from(tick.ms);
        let until_ms = 0;
        self.open = Some(Open { tick, until_ms });
        self.close();
        self.open = None;
    }

    /// Ends the tick that is being filled. While a commit's worth waits to be recorded it goes on instead.
    fn close(&mut self) {
        if self.is_full() {
            return;
        }
        let Some(Open { tick, .. }) = self.open.take() else { return };
        let bytes = serde_json::to_vec(&tick).map_or(0, |json| json.len() + 1);
        self.analysis.tick(&tick);
        self.step.2 += bytes;
        self.bytes.push(bytes);
        self.closed.push(tick);
    }

    /// Returns how long the next tick is to be: as short as can be for a while after a step, then so that a minute's
    /// fit into a commit. By the size of those before it, so it is known before the tick begins.
    fn tick_ms(&self) -> u64 {
        let (_, since_step, written) = self.step;
        let commits = (BRISK_COMMITS / self.steps.max(1)).clamp(1, BRISK_COMMITS_A_STEP);
        if since_step < BRISK_MS && written < commits * BYTES_MAX {
            return TICK_MS_MIN;
        }
        let of_one = self.bytes.last().copied().unwrap_or(1_000) as u64;
        let even = 60_000 * of_one / (BYTES_MAX as u64 * 9 / 10);
        even.next_multiple_of(TICK_MS_MIN).clamp(EVEN_TICK_MS_MIN, TICK_MS_MAX)
    }

    fn metrics(&self) -> impl Iterator<Item = &Metric> {
        self.analysis.judge().plan().metrics.iter()
    }

    fn edges(&self, latencies: Option<&Latencies>) -> Vec<Option<i32>> {
        let edge = |metric: &Metric| match metric.kind {
            Kind::Latency { quantile, .. } => latencies?.edge(quantile),
            Kind::Status => None,
        };
        self.metrics().map(edge).collect()
    }

    /// Counts what nodes did, metric by metric.
    fn tally(&mut self, side: Side, nodes: &[Since], edges: &[Option<i32>]) -> Vec<(EffectId, Vec<Tally>)> {
        let deadline = bucket_of(f64::from(Timeouts::default().response_ms));
        let metrics: Vec<Metric> = self.metrics().cloned().collect();
        let mut tallies = Vec::with_capacity(nodes.len());
        for Since { node, measures } in nodes {
            let seen = |failed| NodeLatencies {
                ended: measures.latency.0.clone(),
                failed,
                in_flight: measures.in_flight.0.clone(),
            };
            let tally = |(place, metric): (usize, &Metric)| {
                let in_flight = self.in_flight.entry((*node, place)).or_default();
                let edge = edges.get(place).copied().flatten();
                let failed = measures.counts.hits(&metric.name);
                if failed.is_none() && !metric.is_latency() {
                    // What the router does not count is no request.
                    return Tally::default();
                }
                let deadline = if metric::is_overdue_a_hit(&metric.name) { deadline } else { i32::MAX };
                in_flight.count(metric, side, edge, deadline, &seen(failed.unwrap_or(0)))
            };
            tallies.push((*node, metrics.iter().enumerate().map(tally).collect()));
        }
        tallies
    }

    /// Leaves out the nodes without a request and gives the others their numbers.
    fn numbered(
        &mut self,
        side: Side,
        tallies: Vec<(EffectId, Vec<Tally>)>,
        age_ms: impl Fn(EffectId) -> u64,
    ) -> Vec<NodeTally> {
        let busy = |counts: &Vec<Tally>| counts.iter().any(|tally| tally.requests > 0 || tally.hits > 0);
        let busy = tallies.into_iter().filter(|(_, counts)| busy(counts));
        let mut numbered = Vec::new();
        for (node, counts) in busy {
            let number = match side {
                Side::Baseline => self.analysis.number_in_baseline(node),
                Side::Canary => self.analysis.number_in_canary(node),
            };
            add(&mut numbered, vec![NodeTally { node: number, age_ms: age_ms(node), counts }]);
        }
        numbered
    }
}

/// Adds what nodes did to what they did before in the same tick.
fn add(all: &mut Vec<NodeTally>, more: Vec<NodeTally>) {
    for node in more {
        match all.binary_search_by_key(&node.node, |own| own.node) {
            Err(place) => all.insert(place, node),
            Ok(place) => {
                let own = &mut all[place];
                own.age_ms = own.age_ms.min(node.age_ms);
                for (sum, tally) in own.counts.iter_mut().zip(node.counts) {
                    sum.requests += tally.requests;
                    sum.hits += tally.hits;
                    sum.beyond += tally.beyond;
                }
            }
        }
    }
}
