//! An analysis: the judge of one rollout, with what its stream holds of it.
//!
//! It is a part of the state. So a verdict can be checked where it is decided, a shifter that takes over goes on with
//! it, and nobody keeps the ticks: a few kilobytes stand for a day of them.

use schemas::judgement::{
    Begun, Counted, Counts, Evidence, IN_TICKS, Judged, Measured, MetricEvidence, Tally, Verdict,
};
use schemas::text::grouped;
use schemas::{EffectId, RolloutId};
use serde::{Deserialize, Serialize};

use super::evalue::ln_needed;
use super::evidence;
use super::exact;
use super::forecast;
use super::judge::{Judge, RULE};
use super::maths::decay;
use super::metric::Trial;
use super::observed::Observed;
use super::plan::{BaselineHistory, InvalidPlan, Kind, Plan};
use super::policy;

/// How many of a version's nodes have a number of their own. Those beyond share them, so that neither a tick nor the state
/// grows without end: such a group is capped, and named, as one node would be.
pub const NODES_MAX: usize = 32;

/// Over how long requests a second are counted: the half-life, in seconds.
const RATE_HALF_LIFE_SECONDS: f64 = 5.0;

/// The judge of one rollout after what was recorded of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    begun: Begun,
    baseline_nodes: Vec<EffectId>,
    canary_nodes: Vec<EffectId>,
    judge: Judge,
    #[serde(with = "exact")]
    requests: f64,
    #[serde(with = "exact")]
    seconds: f64,
    #[serde(with = "exact")]
    nu: f64,
}

/// Why an analysis cannot begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAnalysis {
    /// Another rule judged.
    #[error("the rule `{0}` is unknown to this program; upgrade ionledger")]
    Rule(String),
    /// The judge cannot be told that.
    #[error(transparent)]
    Plan(#[from] InvalidPlan),
}

impl Analysis {
    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// [`InvalidAnalysis`] if another rule judges, or the plan cannot hold.
    pub fn begin(begun: Begun) -> Result<Self, InvalidAnalysis> {
        if begun.rule != RULE {
            return Err(InvalidAnalysis::Rule(begun.rule));
        }
        let judge = Judge::new(plan(&begun))?;
        let (baseline_nodes, canary_nodes) = (vec![], vec![]);
        Ok(Self { begun, baseline_nodes, canary_nodes, judge, requests: 0.0, seconds: 0.0, nu: 0.0 })
    }

    /// The rollout.
    pub fn rollout(&self) -> RolloutId {
        self.begun.rollout
    }

    /// What the judge was told beforehand.
    pub fn begun(&self) -> &Begun {
        &self.begun
    }

    /// The judge.
    pub fn judge(&self) -> &Judge {
        &self.judge
    }

    /// Says whether `counted` is what comes next.
    pub fn follows(&self, counted: &Counted) -> bool {
        counted.rollout == self.rollout() && counted.first == self.judge.ticks()
    }

    /// Takes note of what was counted. What does not come next is ignored: it was never part of the evidence.
    pub fn take(&mut self, counted: &Counted) {
        if self.follows(counted) {
            self.baseline_nodes.extend(&counted.baseline_nodes);
            self.canary_nodes.extend(&counted.canary_nodes);
            counted.ticks.iter().for_each(|tick| self.tick(tick));
        }
    }

    /// Takes note of a tick.
    pub fn tick(&mut self, tick: &schemas::judgement::Tick) {
        let observed = Observed::from(tick);
        self.judge.tick(&observed);
        let kept = decay(observed.seconds, RATE_HALF_LIFE_SECONDS);
        let all = observed.baseline.iter().chain(&observed.canary);
        let requests: u64 = all.filter_map(|node| node.counts.iter().map(|tally| tally.requests).max()).sum();
        self.requests = self.requests * kept + requests as f64;
        self.seconds = self.seconds * kept + observed.seconds;
        self.nu = observed.nu;
    }

    /// The nodes by their numbers: the baseline's and the canary's.
    pub fn nodes(&self) -> (&[EffectId], &[EffectId]) {
        (&self.baseline_nodes, &self.canary_nodes)
    }

    /// Returns the number of one of the baseline's nodes, which gets one if it has none.
    pub fn number_in_baseline(&mut self, node: EffectId) -> u32 {
        number(&mut self.baseline_nodes, node)
    }

    /// Returns the number of one of the canary's nodes, which gets one if it has none.
    pub fn number_in_canary(&mut self, node: EffectId) -> u32 {
        number(&mut self.canary_nodes, node)
    }

    /// Returns the bad node of a canary that is not bad as a whole; several if nodes share its number, since they are not told apart.
    pub fn bad_nodes(&self) -> Vec<EffectId> {
        let Some(bad) = self.judge.bad_node() else { return vec![] };
        let nodes = self.canary_nodes.iter().enumerate().filter(|(place, _)| place % NODES_MAX == bad as usize);
        nodes.map(|(_, node)| *node).collect()
    }

    /// Returns the requests of both versions in a second, of late.
    pub fn requests_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.requests / self.seconds } else { 0.0 }
    }

    /// Returns what was counted of both versions since the rollout began.
    pub fn measured(&self) -> Measured {
        let errors = self.judge.trials().iter().find(|trial| trial.metric.name == "errors");
        let counts = |of: fn(&Trial) -> Tally| Counts {
            requests: self.judge.trials().iter().map(|trial| of(trial).requests).max().unwrap_or(0),
            errors: errors.map_or(0, |trial| of(trial).hits),
        };
        let (baseline, canary) = (counts(|trial| trial.seen.baseline), counts(|trial| trial.seen.canary));
        Measured { epoch: IN_TICKS.to_owned(), baseline, canary }
    }

    /// Returns what the judge says now of a rollout at `step`; `canary` is its version.
    pub fn judged(&self, step: u16, canary: &str) -> Judged {
        let Measured { baseline, canary: of_canary, .. } = self.measured();
        let verdict = self.judge.verdict();
        let word = match verdict {
            Verdict::NotWorse => "not worse",
            Verdict::Worse => "worse",
            Verdict::Inconclusive => "inconclusive",
        };
        let said = evidence::sentence(&self.judge, &format!("canary {canary}"));
        Judged {
            rollout: self.rollout(),
            step,
            verdict,
            baseline,
            canary: of_canary,
            errors_tolerance_ppm: self.begun.policy.metrics["errors"].tolerance_ppm,
            rule: RULE.to_owned(),
            reason: format!("{word}: {said}"),
            evidence: Some(self.evidence()),
        }
    }

    /// Returns what a verdict rests on now.
    pub fn evidence(&self) -> Evidence {
        let judge = &self.judge;
        let not_worse = judge.trials().iter().map(Trial::ln_not_worse).fold(f64::INFINITY, f64::min);
        let excluded = judge.severity_excluded();
        let metric = |of: evidence::MetricEvidence| MetricEvidence {
            name: of.name,
            baseline: of.baseline,
            canary: of.canary,
            tolerated_ppm: ppm(of.tolerated),
            worse_milli: milli(of.ln_worse),
            not_worse_milli: milli(of.ln_not_worse),
            accepted: of.accepted,
        };
        Evidence {
            ticks: judge.ticks(),
            worse_milli: milli(judge.ln_wealth()),
            worse_needed_milli: milli(ln_needed(judge.plan().alpha)),
            not_worse_milli: milli(not_worse),
            not_worse_needed_milli: milli(ln_needed(judge.plan().beta)),
            requests_still_needed: forecast::requests_still_needed(judge, self.nu),
            excluded_ppm: (excluded < 1.0).then(|| ppm(excluded)),
            in_incident: judge.in_incident(),
            routing_broken: judge.share_alarm().is_broken(),
            bad_nodes: self.bad_nodes(),
            metrics: evidence::of(judge).into_iter().map(metric).collect(),
        }
    }
}

/// Returns what a judge is told before the first tick, from what its stream says.
fn plan(begun: &Begun) -> Plan {
    let mut plan = policy::plan(&begun.policy, &begun.plan);
    plan.half_life_seconds = f64::from(begun.half_life_s.max(1));
    for (metric, tally) in plan.metrics.iter_mut().zip(&begun.history) {
        metric.history = tally.map(|Tally { requests, hits, beyond }| BaselineHistory { requests, hits, beyond });
    }
    plan
}

/// Returns the names and kinds of what a judge compares, in the order in which ticks have them.
pub fn metrics(begun: &Begun) -> Vec<(String, Kind)> {
    plan(begun).metrics.into_iter().map(|metric| (metric.name, metric.kind)).collect()
}

fn number(nodes: &mut Vec<EffectId>, node: EffectId) -> u32 {
    let place = nodes.iter().position(|known| *known == node).unwrap_or_else(|| {
        nodes.push(node);
        nodes.len() - 1
    });
    (place % NODES_MAX) as u32
}

fn milli(ln: f64) -> i64 {
    (ln * 1_000.0) as i64
}

fn ppm(share: f64) -> u32 {
    libm::round(share * 1e6) as u32
}

/// Returns evidence as odds, as `219 to 1`; `milli` is its logarithm in thousandths.
pub fn odds(milli: i64) -> String {
    evidence::to_one(milli as f64 / 1_000.0)
}

/// Returns a rate in hits per million requests as a percentage.
pub fn percent(ppm: u32) -> String {
    evidence::percent(f64::from(ppm) / 1e6)
}

/// Returns hits of requests in words: `6 of 500`.
pub fn hits(tally: Tally) -> String {
    format!("{} of {}", grouped(tally.hits), grouped(tally.requests))
}
