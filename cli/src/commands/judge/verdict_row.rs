//! What `ionledger judge` tells, as JSON.

use ledger::judgement::evidence::{self, MetricEvidence};
use ledger::judgement::judge::{Judge, RULE};
use schemas::judgement::{Tally, Verdict};
use serde::Serialize;

use crate::failure::{CommandResult, Failure};

/// The verdict and what it rests on.
#[derive(Serialize)]
pub(super) struct VerdictRow {
    schema_version: u16,
    rule: &'static str,
    verdict: &'static str,
    /// The tick it fell at, the first being 1; `null` without a verdict.
    row: Option<u64>,
    /// Ticks that were read.
    rows: u64,
    seconds: f64,
    /// The log of the evidence that the canary is worse, in all.
    ln_total: f64,
    /// How much of it convicts.
    ln_needed: f64,
    canary: Hits,
    metrics: Vec<MetricTold>,
    reason: String,
}

/// One metric's part in it.
#[derive(Serialize)]
struct MetricTold {
    name: String,
    weight: f64,
    /// The log of the evidence that the canary is worse, as if all capital were on this metric.
    ln_total: f64,
    /// The log of the evidence that it is not.
    ln_accept: f64,
    accepted: bool,
    tolerated: f64,
    baseline: Hits,
    canary: Hits,
}

/// One tick's line.
#[derive(Serialize)]
pub(super) struct Row {
    row: u64,
    seconds: f64,
    verdict: &'static str,
    ln_total: f64,
    in_incident: bool,
    metrics: Vec<MetricTold>,
}

#[derive(Serialize)]
struct Hits {
    requests: u64,
    hits: u64,
}

impl VerdictRow {
    /// Returns what there is to tell after `seconds` of ticks.
    pub(super) fn of(judge: &Judge, seconds: f64) -> Self {
        let metrics = metrics(judge);
        let canary = Hits {
            requests: metrics.iter().map(|metric| metric.canary.requests).max().unwrap_or(0),
            hits: metrics.iter().fold(0, |sum: u64, metric| sum.saturating_add(metric.canary.hits)),
        };
        Self {
            schema_version: 1,
            rule: RULE,
            verdict: word(judge.verdict()),
            row: (judge.verdict() != Verdict::Inconclusive).then(|| judge.ticks()),
            rows: judge.ticks(),
            seconds,
            ln_total: judge.ln_wealth(),
            ln_needed: -judge.plan().alpha.ln(),
            canary,
            metrics,
            reason: evidence::sentence(judge, "canary"),
        }
    }
}

impl Row {
    /// Returns the line of the tick that was judged last.
    pub(super) fn of(judge: &Judge, seconds: f64) -> Self {
        Self {
            row: judge.ticks(),
            seconds,
            verdict: word(judge.verdict()),
            ln_total: judge.ln_wealth(),
            in_incident: judge.in_incident(),
            metrics: metrics(judge),
        }
    }
}

/// Returns a line of JSON.
pub(super) fn line(told: &impl Serialize) -> CommandResult<String> {
    let text = serde_json::to_string(told)
        .map_err(|error| Failure::error(format!("the answer is not valid JSON: {error}")))?;
    Ok(text + "\n")
}

fn metrics(judge: &Judge) -> Vec<MetricTold> {
    let told = |(evidence, trial): (MetricEvidence, &ledger::judgement::metric::Trial)| MetricTold {
        name: evidence.name,
        weight: trial.metric.weight,
        ln_total: evidence.ln_worse,
        ln_accept: evidence.ln_not_worse,
        accepted: evidence.accepted,
        tolerated: evidence.tolerated,
        baseline: hits(evidence.baseline),
        canary: hits(evidence.canary),
    };
    evidence::of(judge).into_iter().zip(judge.trials()).map(told).collect()
}

fn hits(tally: Tally) -> Hits {
    Hits { requests: tally.requests, hits: tally.hits }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::NotWorse => "ACCEPT",
        Verdict::Worse => "ROLLBACK",
        Verdict::Inconclusive => "NONE",
    }
}
