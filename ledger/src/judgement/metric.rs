//! One metric on trial: its bets that the canary is worse, and those that it is not.

use schemas::judgement::Tally;
use serde::{Deserialize, Serialize};

use super::baseline::{Baseline, Counted};
use super::burst::{Bursts, Many, NodeHits};
use super::evalue::{Against, Bet, Block, LINE_MAX, Payoffs, ln_needed, times_odds};
use super::ladder::Ladder;
use super::maths::poisson_limit;
use super::nodes::BetsWithoutNode;
use super::observed::Observed;
use super::plan::{Metric, Plan};
use super::wealth::Wealth;

/// Shares of the bets on acceptance: the canary is as the baseline, halfway to the line, and half as bad.
const ACCEPT_SHARES: [f64; 3] = [0.6, 0.2, 0.2];

/// Nearer to the line than this share of it, acceptance bets on nothing.
const ACCEPT_BELOW_LINE: f64 = 0.98;

/// No block adds more than this to the log of the evidence for acceptance.
const ACCEPT_LN_E_MAX: f64 = 600.0;

/// What is known of one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// What is compared.
    pub metric: Metric,
    /// All that was counted, whether it was credited or not.
    pub seen: Totals,
    baseline: Baseline,
    bursts: Option<[Bursts; 2]>,
    pending: Pending,
    worse: Wealth,
    without: BetsWithoutNode,
    not_worse: Wealth,
    accepted: bool,
    ladder: Ladder,
}

/// All requests and hits of both versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// The baseline's.
    pub baseline: Tally,
    /// The canary's.
    pub canary: Tally,
}

/// What was credited since the last block.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Pending {
    block: Block,
    nodes: Vec<NodeHits>,
}

impl Trial {
    /// Returns the trial of `metric` before the first request.
    pub fn new(plan: &Plan, metric: &Metric) -> Self {
        let shares = if metric.accept_ratio.is_some() { &[1.0][..] } else { &ACCEPT_SHARES };
        Self {
            seen: Totals::default(),
            baseline: Baseline::new(metric),
            bursts: plan.burst_cap.then(Default::default),
            pending: Pending::default(),
            worse: Wealth::staked(metric.odds.len()),
            without: BetsWithoutNode::default(),
            not_worse: Wealth::shared(shares),
            accepted: false,
            ladder: Ladder::new(!metric.is_latency()),
            metric: metric.clone(),
        }
    }

    /// The bets on the canary being worse.
    pub fn worse(&self) -> &Wealth {
        &self.worse
    }

    /// Returns, for each node, the same bets without that node's requests.
    pub fn without_each_node(&self) -> &BetsWithoutNode {
        &self.without
    }

    /// Returns the log of the evidence that the canary is not worse.
    pub fn ln_not_worse(&self) -> f64 {
        self.not_worse.ln()
    }

    /// Whether it has once been enough.
    pub fn is_accepted(&self) -> bool {
        self.accepted
    }

    /// Which regressions are excluded.
    pub fn ladder(&self) -> &Ladder {
        &self.ladder
    }

    /// What the baseline is used to.
    pub fn baseline(&self) -> &Baseline {
        &self.baseline
    }

    /// Returns the highest rate that is tolerated of the canary now.
    pub fn tolerated(&self) -> f64 {
        self.metric.line.at(self.baseline.rate()).min(LINE_MAX)
    }

    /// Whether so many of the canary's requests failed, credited or not, as a canary that is tolerated has once in ten
    /// thousand. It convicts nobody, since failures come in bursts; it only speaks against trusting the canary more.
    pub fn is_far_above(&self) -> bool {
        let Totals { baseline, canary } = self.seen;
        let of_baseline = if baseline.requests > 0 { baseline.hits as f64 / baseline.requests as f64 } else { 0.0 };
        let tolerated = self.tolerated().max(self.metric.line.at(of_baseline)).min(1.0);
        !self.metric.is_latency() && canary.hits as f64 > poisson_limit(tolerated * canary.requests as f64)
    }

    /// Follows `node` from here on, without what it did.
    pub fn follow(&mut self, node: u32) {
        self.without.follow(node, &self.worse);
    }

    /// Stakes `amount` more.
    pub fn stake(&mut self, amount: f64) {
        self.worse.add(amount);
        self.without.add(amount);
    }

    /// Counts a tick and, if enough has come together, bets on it and settles. `place` is the metric's place in the plan;
    /// in an incident of the baseline, `frozen`, nothing speaks for the canary and nothing is learnt.
    pub fn tick(&mut self, plan: &Plan, place: usize, tick: &Observed, frozen: bool) {
        let counted = self.count(plan, place, tick);
        if self.pending.block.n_b >= 1.0 && self.pending.block.n_a >= (0.5 * self.pending.block.n_b / tick.nu).max(1.0)
        {
            let pending = std::mem::take(&mut self.pending);
            if !self.baseline.is_listening() {
                self.settle(&pending, frozen, plan.beta);
            }
        }
        self.baseline.learn(tick.seconds, plan.half_life_seconds, frozen, counted);
    }

    /// Adds a tick to what is pending, and returns what it says of the baseline.
    fn count(&mut self, plan: &Plan, place: usize, tick: &Observed) -> Counted {
        let warm_up_ms = if self.metric.is_latency() { plan.warm_up_seconds * 1_000.0 } else { 0.0 };
        let tally = |node: &schemas::judgement::NodeTally| {
            node.counts.get(place).map(|tally| Tally { hits: tally.hits.min(tally.requests), ..*tally })
        };
        let (mut a, mut b) = (Vec::with_capacity(tick.baseline.len()), Vec::with_capacity(tick.canary.len()));
        let mut counted = Counted::default();
        for node in &tick.baseline {
            let Some(tally) = tally(node) else { continue };
            self.seen.baseline = sum(self.seen.baseline, tally);
            counted.beyond += tally.beyond.min(tally.hits) as f64;
            counted.raw_hits += tally.hits as f64;
            a.push(hits(node.node, tally));
        }
        for node in tick.canary.iter().filter(|node| node.age_ms as f64 >= warm_up_ms) {
            let Some(tally) = tally(node) else { continue };
            self.seen.canary = sum(self.seen.canary, tally);
            b.push(hits(node.node, tally));
        }
        let line = self.tolerated();
        if let Some([of_a, of_b]) = &mut self.bursts {
            of_a.cap(tick.seconds, line, Many::Counted, &mut a);
            of_b.cap(tick.seconds, line, Many::Capped, &mut b);
        }
        counted.requests = a.iter().map(|node| node.requests).sum();
        counted.hits = a.iter().map(|node| node.hits).sum();
        self.pending.add(&counted, &b);
        counted
    }

    fn settle(&mut self, pending: &Pending, frozen: bool, beta: f64) {
        let (block, a) = (&pending.block, self.baseline.rate());
        let (line, v) = (self.metric.line, block.v());
        let tolerated = self.tolerated();
        for (place, odds) in self.metric.odds.iter().enumerate() {
            let b = times_odds(tolerated, *odds).min(0.999).max(tolerated + 1e-9);
            let bet = line.bet(a, b, v, Against::Tolerable);
            let payoffs = bet.payoffs(line, v);
            self.worse.multiply(place, payoffs.ln_e(block));
            self.without.settle(place, pending_without(pending, line, bet, payoffs));
        }
        if !frozen {
            self.ladder.settle(a, block, beta);
            self.settle_not_worse(a, block, beta);
        }
    }

    /// Bets that the canary is not worse, until that is accepted: it is so for good.
    fn settle_not_worse(&mut self, a: f64, block: &Block, beta: f64) {
        if self.accepted {
            return;
        }
        let (line, v) = (self.metric.line, block.v());
        let below = line.at(a) * ACCEPT_BELOW_LINE;
        let equal = a * self.metric.accept_ratio.unwrap_or_else(|| self.ratio());
        for (place, b) in [equal, 0.5 * (equal + line.at(a)), 0.5 * equal].into_iter().enumerate() {
            if place > 0 && self.metric.accept_ratio.is_some() {
                break;
            }
            let payoffs = line.bet(a, b.min(below).max(1e-12), v, Against::Worse).payoffs(line, v);
            self.not_worse.multiply(place, payoffs.ln_e(block).min(ACCEPT_LN_E_MAX));
        }
        self.accepted = self.not_worse.ln() >= ln_needed(beta);
    }

    /// The canary's rate as a multiple of the baseline's if both do the same: a latency's edge is further for the canary.
    pub fn ratio(&self) -> f64 {
        if self.metric.is_latency() { self.baseline.beyond_ratio() } else { 1.0 }
    }
}

/// Returns the log of the block's e-value without what one node of the canary did, by that node: the same bet, at fewer
/// requests of the canary.
fn pending_without(
    pending: &Pending,
    line: super::evalue::Line,
    bet: Bet,
    payoffs: Payoffs,
) -> impl Fn(u32) -> f64 + '_ {
    let all = pending.block;
    let ln_e = payoffs.ln_e(&all);
    move |node| match pending.nodes.iter().find(|own| own.node == node) {
        None => ln_e,
        Some(own) => {
            let rest = Block { n_b: (all.n_b - own.requests).max(0.0), x_b: (all.x_b - own.hits).max(0.0), ..all };
            bet.with_fewer(line, payoffs, rest.v()).ln_e(&rest)
        }
    }
}

fn hits(node: u32, tally: Tally) -> NodeHits {
    NodeHits { node, requests: tally.requests as f64, hits: tally.hits as f64 }
}

fn sum(all: Tally, more: Tally) -> Tally {
    Tally {
        requests: all.requests.saturating_add(more.requests),
        hits: all.hits.saturating_add(more.hits),
        beyond: all.beyond.saturating_add(more.beyond),
    }
}

impl Pending {
    fn add(&mut self, baseline: &Counted, canary: &[NodeHits]) {
        self.block.n_a += baseline.requests;
        self.block.x_a += baseline.hits;
        for node in canary.iter().filter(|node| node.requests > 0.0 || node.hits > 0.0) {
            self.block.n_b += node.requests;
            self.block.x_b += node.hits;
            match self.nodes.iter_mut().find(|own| own.node == node.node) {
                Some(own) => {
                    own.requests += node.requests;
                    own.hits += node.hits;
                }
                None => self.nodes.push(*node),
            }
        }
    }
}
