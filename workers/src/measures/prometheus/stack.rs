//! What a server has of one stack, and what that comes to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use schemas::policy::metric;
use schemas::{StackId, StackName};

use super::super::NodeMeasured;
use super::buckets;
use super::client::QueryResult;
use super::series::{Grid, Increase};
use crate::traffic::Histogram;

/// What a query is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// All requests.
    Requests,
    /// When their newest samples were taken.
    Newest,
    /// Those that were hits of the metric of this name, a share of requests.
    Hits(&'static str),
    /// How long they took.
    Latency,
}

/// What each query found.
pub(super) type Answers = BTreeMap<What, QueryResult>;

/// What a server has of one stack.
pub(super) struct StackAnswers<'a> {
    pub(super) id: StackId,
    pub(super) version: &'a StackName,
    pub(super) answers: Answers,
    /// The server.
    pub(super) at: &'a str,
}

impl StackAnswers<'_> {
    /// Says whether there is any series of its requests.
    pub(super) fn has_requests(&self) -> bool {
        !self.has_no_series(What::Requests) && self.answers.contains_key(&What::Requests)
    }

    /// Says whether `what` was asked for and not found.
    pub(super) fn has_no_series(&self, what: What) -> bool {
        self.answers.get(&what).is_some_and(|answer| answer.series.is_empty())
    }

    /// Says whether any of its counters had a sample before the span.
    pub(super) fn is_there_when_it_begins(&self) -> bool {
        let counters = self.answers.iter().filter(|(what, _)| **what != What::Newest);
        counters.flat_map(|(_, answer)| &answer.series).any(|series| series.is_there_when_it_begins())
    }

    /// Returns why its samples say nothing of the span's end, if they are older than `after`.
    pub(super) fn stale(&self, grid: Grid, after: Duration) -> Option<String> {
        let newest = self.answers.get(&What::Newest)?.series.iter().filter_map(|series| series.highest());
        let age_seconds = grid.end_seconds() - newest.reduce(f64::max)?;
        let old = age_seconds > after.as_secs_f64();
        old.then(|| {
            format!(
                "the newest sample of {} at {} was {age_seconds:.0} s old; see whether its nodes are scraped",
                self.version, self.at
            )
        })
    }

    /// Returns what was counted, and adds to `missing` what is not known. `from_zero`: a series that begins in the span
    /// has begun at 0. `unknown` are those of which no series means that nobody knows.
    pub(super) fn measured(
        &self,
        from_zero: bool,
        unknown: &BTreeSet<What>,
        missing: &mut BTreeSet<String>,
    ) -> NodeMeasured {
        let (version, at) = (self.version, self.at);
        let warnings = self.answers.values().flat_map(|answer| &answer.warnings);
        missing.extend(warnings.map(|warning| format!("{at} warns: {warning}")));
        if !self.has_requests() {
            missing.insert(format!("{at} has no requests of {version}: there were none, or the query finds none"));
        }
        let increases = |what| -> Option<Vec<Increase<'_>>> {
            let series = &self.answers.get(&what)?.series;
            Some(series.iter().map(|series| series.increase(from_zero)).collect())
        };
        let sum = |what| -> Option<u64> {
            let increases = increases(what).filter(|_| !unknown.contains(&what))?;
            Some(increases.iter().map(|increase| increase.by).sum::<f64>().round() as u64)
        };
        let requests = sum(What::Requests).unwrap_or(0);
        let latency = increases(What::Latency).and_then(|increases| {
            if increases.is_empty() && requests > 0 {
                missing.insert(format!("{at} has no latencies of {version}"));
                return None;
            }
            let latency = buckets::latency(&increases);
            latency.map_err(|why| missing.insert(format!("the latencies of {version} at {at}: {why}"))).ok()
        });
        NodeMeasured {
            node: None,
            requests,
            hits: metric::share_metrics()
                .filter_map(|metric| Some((metric.name, sum(What::Hits(metric.name))?)))
                .collect(),
            latency,
            in_flight: Histogram::default(),
        }
    }
}
