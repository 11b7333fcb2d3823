//! Counts as they are written: a plan on the first line, a tick on every other.

use std::collections::BTreeMap;
use std::io::{BufRead, Read as _};

use ledger::judgement::evalue::Line;
use ledger::judgement::observed::Observed;
use ledger::judgement::plan::{BaselineHistory, Kind, Metric, Plan};
use schemas::judgement::Tally;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::failure::{CommandResult, Failure};

/// Longer than any tick's line.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Keys of a tick that no metric can have as its name.
const RESERVED: [&str; 2] = ["seconds", "nu"];

/// The lines of a file or a pipe.
pub(super) struct Input {
    name: String,
    lines: Box<dyn BufRead>,
    number: u64,
    nu: f64,
}

/// The first line. What is left out is as a service without a policy has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    plan_seconds: f64,
    alpha: Option<f64>,
    beta: Option<f64>,
    half_life_seconds: Option<f64>,
    burst_cap: Option<bool>,
    metrics: Vec<MetricHeader>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricHeader {
    name: String,
    weight: Option<f64>,
    r: Option<f64>,
    d: Option<f64>,
    odds: Option<Vec<f64>>,
    accept_ratio: Option<f64>,
    history: Option<HistoryHeader>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HistoryHeader {
    requests: u64,
    hits: u64,
}

/// Any other line.
#[derive(Deserialize)]
struct TickLine {
    seconds: f64,
    nu: Option<f64>,
    #[serde(flatten)]
    metrics: BTreeMap<String, Pair>,
}

/// A metric's requests and hits.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    #[serde(default)]
    baseline: (u64, u64),
    #[serde(default)]
    canary: (u64, u64),
}

impl Input {
    /// Returns the lines of the file of this name; `-` is stdin.
    pub(super) fn new(name: String, lines: Box<dyn BufRead>) -> Self {
        Self { name: if name == "-" { "stdin".to_owned() } else { name }, lines, number: 0, nu: 1.0 }
    }

    /// Returns a usage error at the present line.
    pub(super) fn wrong(&self, reason: &str) -> Failure {
        Failure::usage(format!("{}:{}: {reason}; see `ionledger judge --help`", self.name, self.number.max(1)))
    }

    /// Reads the plan.
    pub(super) fn plan(&mut self) -> CommandResult<Plan> {
        let Some(header) = self.next::<Header>()? else {
            return Err(self.wrong("it is empty, the first line must be the plan"));
        };
        let named = header.metrics.iter().find(|metric| RESERVED.contains(&metric.name.as_str()));
        if let Some(MetricHeader { name, .. }) = named {
            return Err(self.wrong(&format!("no metric can be called `{name}`, a tick has that key already")));
        }
        let defaults = Plan::new(header.plan_seconds);
        Ok(Plan {
            alpha: header.alpha.unwrap_or(defaults.alpha),
            beta: header.beta.unwrap_or(defaults.beta),
            half_life_seconds: header.half_life_seconds.unwrap_or(defaults.half_life_seconds),
            burst_cap: header.burst_cap.unwrap_or(defaults.burst_cap),
            metrics: weighed(header.metrics),
            ..defaults
        })
    }

    /// Reads the next tick, one tally a metric; `None` at the end.
    pub(super) fn tick(&mut self, metrics: &[Metric]) -> CommandResult<Option<Observed>> {
        let Some(mut line) = self.next::<TickLine>()? else { return Ok(None) };
        if !(0.0..=1e9).contains(&line.seconds) {
            return Err(self.wrong("seconds must be from 0 to 1e9"));
        }
        let (mut baseline, mut canary) = (Vec::new(), Vec::new());
        for metric in metrics {
            let pair = line.metrics.remove(&metric.name).unwrap_or(Pair { baseline: (0, 0), canary: (0, 0) });
            for (version, (requests, hits)) in [("baseline", pair.baseline), ("canary", pair.canary)] {
                if hits > requests {
                    let name = &metric.name;
                    return Err(self.wrong(&format!("{name}: {version} has {hits} hits of {requests} requests")));
                }
            }
            // Whoever counts outside has one edge for both versions' hits, or has shifted it already.
            baseline.push(tally(pair.baseline, pair.baseline.1));
            canary.push(tally(pair.canary, 0));
        }
        if let Some(unknown) = line.metrics.keys().next() {
            let known: Vec<&str> = metrics.iter().map(|metric| metric.name.as_str()).collect();
            return Err(self.wrong(&format!("`{unknown}` is not a metric of the plan, which has {}", known.join(", "))));
        }
        self.nu = self.nu_of(line.nu, &baseline, &canary)?;
        Ok(Some(Observed::of_versions(line.seconds, self.nu, baseline, canary)))
    }

    /// The share that is written, else the one there is, else the last.
    fn nu_of(&self, written: Option<f64>, baseline: &[Tally], canary: &[Tally]) -> CommandResult<f64> {
        let most = |tallies: &[Tally]| tallies.iter().map(|tally| tally.requests).max().unwrap_or(0) as f64;
        match written {
            Some(nu) if nu >= 0.0 && nu.is_finite() => Ok(nu),
            Some(_) => {
                Err(self.wrong("nu must be a number of at least 0: the canary's requests for each of the baseline's"))
            }
            None if most(baseline) > 0.0 && most(canary) > 0.0 => Ok(most(canary) / most(baseline)),
            None => Ok(self.nu),
        }
    }

    /// Reads the next line that is not blank.
    fn next<T: DeserializeOwned>(&mut self) -> CommandResult<Option<T>> {
        loop {
            self.number += 1;
            let mut line = Vec::new();
            let read = (&mut self.lines).take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line);
            match read.map_err(|error| Failure::error(format!("cannot read {}: {error}", self.name)))? {
                0 => return Ok(None),
                _ if line.len() as u64 > LINE_BYTES_MAX => return Err(self.wrong("the line is longer than 1 MiB")),
                _ if line.trim_ascii().is_empty() => {}
                _ => return serde_json::from_slice(&line).map(Some).map_err(|error| self.no_json(&error)),
            }
        }
    }

    fn no_json(&self, error: &serde_json::Error) -> Failure {
        self.wrong(&format!("column {}: {}", error.column(), api::json::reason(error)))
    }
}

fn tally((requests, hits): (u64, u64), beyond: u64) -> Tally {
    Tally { requests, hits, beyond }
}

/// Returns the metrics; those without a weight share what the others leave, as their names' usual weights have it.
fn weighed(headers: Vec<MetricHeader>) -> Vec<Metric> {
    let given: f64 = headers.iter().filter_map(|header| header.weight).sum();
    let usual: f64 =
        headers.iter().filter(|header| header.weight.is_none()).map(|header| Metric::named(&header.name).weight).sum();
    let metric = |header: MetricHeader| {
        let usually = Metric::named(&header.name);
        let line = Line { r: header.r.unwrap_or(usually.line.r), d: header.d.unwrap_or(usually.line.d) };
        let history =
            header.history.map(|HistoryHeader { requests, hits }| BaselineHistory { requests, hits, beyond: hits });
        Metric {
            weight: header.weight.unwrap_or((1.0 - given) * usually.weight / usual),
            line,
            odds: header.odds.unwrap_or(usually.odds),
            accept_ratio: header.accept_ratio,
            history,
            // Buckets are the business of whoever counts.
            kind: match usually.kind {
                Kind::Latency { quantile, .. } => Kind::Latency { quantile, buckets: 0 },
                Kind::Status => Kind::Status,
            },
            name: usually.name,
        }
    };
    headers.into_iter().map(metric).collect()
}
