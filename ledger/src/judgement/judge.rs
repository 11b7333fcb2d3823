//! The judge: a fold over ticks. The same plan and ticks give the same verdict at the same tick, bit for bit.

use schemas::judgement::Verdict;
use serde::{Deserialize, Serialize};

use super::evalue::ln_needed;
use super::maths::{ln, ln_sum_exp};
use super::metric::Trial;
use super::nodes::NODES_MIN;
use super::observed::Observed;
use super::plan::{InvalidPlan, Plan};
use super::share_alarm::ShareAlarm;
use super::wealth::{Reserve, Wealth};

/// The rule's name and version, written into every verdict.
pub const RULE: &str = "betting/1";

/// Everything a judge knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    plan: Plan,
    reserve: Reserve,
    trials: Vec<Trial>,
    #[serde(rename = "routing")]
    share_alarm: ShareAlarm,
    nodes: Vec<u32>,
    bad_node: Option<u32>,
    in_incident: bool,
    ticks: u64,
    verdict: Verdict,
}

impl Judge {
    /// Returns a judge who has seen nothing.
    ///
    /// # Errors
    ///
    /// [`InvalidPlan`] for a plan that cannot hold.
    pub fn new(plan: Plan) -> Result<Self, InvalidPlan> {
        plan.validate()?;
        Ok(Self {
            reserve: Reserve::new(plan.plan_seconds),
            trials: plan.metrics.iter().map(|metric| Trial::new(&plan, metric)).collect(),
            share_alarm: ShareAlarm::new(plan.plan_seconds),
            nodes: vec![],
            bad_node: None,
            in_incident: false,
            ticks: 0,
            verdict: Verdict::Inconclusive,
            plan,
        })
    }

    /// Takes note of a tick and returns what there is to say after it. Worse is for good; not worse is too, unless the
    /// canary turns out worse later.
    pub fn tick(&mut self, tick: &Observed) -> Verdict {
        self.ticks += 1;
        self.meet(tick);
        let staked = self.reserve.drip(tick.seconds);
        for (place, trial) in self.trials.iter_mut().enumerate() {
            trial.stake(staked);
            trial.tick(&self.plan, place, tick, self.in_incident);
        }
        self.in_incident = self.trials.iter().any(|trial| trial.baseline().in_incident());
        let requests = |nodes: &[schemas::judgement::NodeTally]| {
            nodes.iter().filter_map(|node| node.counts.iter().map(|tally| tally.requests).max()).sum::<u64>() as f64
        };
        self.share_alarm.listen(tick.seconds, tick.nu, requests(&tick.baseline), requests(&tick.canary));
        self.conclude();
        self.verdict
    }

    /// Gets to know the canary's nodes, by the requests they have had.
    fn meet(&mut self, tick: &Observed) {
        for node in tick.canary.iter().filter(|node| node.counts.iter().any(|tally| tally.requests > 0)) {
            if let Err(place) = self.nodes.binary_search(&node.node) {
                self.nodes.insert(place, node.node);
                if self.nodes.len() >= NODES_MIN {
                    let (nodes, trials) = (&self.nodes, &mut self.trials);
                    trials.iter_mut().for_each(|trial| nodes.iter().for_each(|node| trial.follow(*node)));
                }
            }
        }
    }

    fn conclude(&mut self) {
        let needed = ln_needed(self.plan.alpha);
        if self.verdict != Verdict::Worse && self.ln_wealth() >= needed {
            match self.least_without() {
                Some((node, ln_wealth)) if ln_wealth < needed => self.bad_node = self.bad_node.or(Some(node)),
                _ => self.verdict = Verdict::Worse,
            }
        }
        if self.verdict == Verdict::Inconclusive && self.trials.iter().all(Trial::is_accepted) {
            self.verdict = Verdict::NotWorse;
        }
    }

    /// Returns the log of the evidence that the canary is worse: at least `ln(1 / alpha)` convicts.
    pub fn ln_wealth(&self) -> f64 {
        self.ln_of(|trial| Some(trial.worse()))
    }

    /// Returns the node without which the evidence is least, and the log of what is then left; `None` below three nodes.
    pub fn least_without(&self) -> Option<(u32, f64)> {
        let of = |node: &u32| {
            let find = |trial: &'_ Trial| {
                trial
                    .without_each_node()
                    .iter()
                    .find(|(own, _)| own == node)
                    .map(|(_, wealth)| wealth.ln_with(&self.reserve))
            };
            let terms: Option<Vec<f64>> =
                self.trials.iter().map(|trial| Some(ln(trial.metric.weight) + find(trial)?)).collect();
            Some((*node, self.with_idle(&terms?)))
        };
        self.nodes.iter().filter_map(of).min_by(|a, b| a.1.total_cmp(&b.1))
    }

    fn ln_of<'a>(&'a self, wealth: impl Fn(&'a Trial) -> Option<&'a Wealth>) -> f64 {
        let ln_of =
            |trial: &'a Trial| wealth(trial).map(|wealth| ln(trial.metric.weight) + wealth.ln_with(&self.reserve));
        let terms: Vec<f64> = self.trials.iter().filter_map(ln_of).collect();
        self.with_idle(&terms)
    }

    /// Adds up the metrics' wealth and the capital that no metric's weight claims.
    fn with_idle(&self, terms: &[f64]) -> f64 {
        let idle = 1.0 - self.plan.metrics.iter().map(|metric| metric.weight).sum::<f64>();
        let idle = if idle > 1e-12 { ln(idle) } else { f64::NEG_INFINITY };
        ln_sum_exp(terms.iter().copied().chain([idle]))
    }

    /// Returns the log of the evidence that the canary is worse by one metric, as if all capital were on it.
    pub fn ln_wealth_of(&self, trial: &Trial) -> f64 {
        trial.worse().ln_with(&self.reserve)
    }

    /// What was said last.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// What it was told before it began.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Each metric's trial, in the plan's order.
    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }

    /// The canary's node that is to be taken out: it alone is bad, the version without it is not known to be.
    pub fn bad_node(&self) -> Option<u32> {
        self.bad_node
    }

    /// Whether the baseline itself is in an incident, so that nothing may be learnt and no more traffic be moved.
    pub fn in_incident(&self) -> bool {
        self.in_incident
    }

    /// The share alarm.
    pub fn share_alarm(&self) -> &ShareAlarm {
        &self.share_alarm
    }

    /// How many ticks there have been.
    pub fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Returns the smallest severity that is excluded, over all metrics that count bad requests; 1 (every request)
    /// while nothing is.
    pub fn severity_excluded(&self) -> f64 {
        let climbing = self.trials.iter().filter(|trial| trial.ladder().climbs());
        climbing.map(|trial| trial.ladder().excluded().unwrap_or(1.0)).reduce(f64::max).unwrap_or(1.0)
    }
}
