//! A Prometheus server as a source: its HTTP API, one series a node and label, increments counted here.
//!
//! It is asked with `query_range` for the counters themselves, at steps half as long as its scrape interval, so that
//! every scrape is seen. What a span holds is the sum of the rises of each series; a counter that falls has begun anew at
//! 0, and one that was not there when the span began has begun at 0 in it. No `rate()` and no `increase()`: both guess
//! beyond the samples, and give counts that are none.
//!
//! The default queries are for what our own proxies tell Prometheus: [`REQUESTS`], [`ERRORS`], [`STATUS_4XX`], [`LATENCY`].

mod buckets;
mod client;
mod series;
mod stack;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::try_join_all;
use schemas::policy::{self, JudgementPolicy, Prometheus};
use schemas::{StackName, Timestamp};

use super::{Asked, Failure, Limits, Measured, Reading, Source, Span};
use client::Client;
use series::Grid;
use stack::{Answers, StackAnswers, What};

/// All requests.
pub const REQUESTS: &str =
    r#"ionledger_proxy_requests_total{service="{service}",environment="{environment}",version="{version}"}"#;

/// Those that failed.
pub const ERRORS: &str = r#"ionledger_proxy_requests_total{service="{service}",environment="{environment}",version="{version}",outcome=~"5xx|failed"}"#;

/// Those that were answered with a 4xx status.
pub const STATUS_4XX: &str = r#"ionledger_proxy_requests_total{service="{service}",environment="{environment}",version="{version}",outcome="4xx"}"#;

/// How long they took, in seconds.
pub const LATENCY: &str =
    r#"ionledger_proxy_request_seconds_bucket{service="{service}",environment="{environment}",version="{version}"}"#;

/// The queries of our own names; a metric without one is asked for only where the policy has its query.
const DEFAULTS: [(&str, &str); 4] =
    [(policy::REQUESTS, REQUESTS), ("errors", ERRORS), ("4xx", STATUS_4XX), (policy::LATENCY, LATENCY)];

/// How long ago a span must end for its scrapes to be in.
const LAG: Duration = Duration::from_secs(2);

/// How far back is looked for what a service's traffic is like.
const SPAN_MAX: Duration = Duration::from_secs(3_600);

/// After how many scrape intervals without a sample it is stale.
const STALE_INTERVALS: u32 = 3;

/// Counts by asking a Prometheus server.
#[derive(Debug)]
pub struct PrometheusSource {
    client: Client,
    interval: Duration,
    queries: BTreeMap<What, String>,
}

/// Returns the source that a policy with a Prometheus server means.
///
/// # Errors
///
/// [`Failure::Unasked`] if it names none, or no client can be made.
pub fn open(policy: &JudgementPolicy) -> Result<Box<dyn Source>, Failure> {
    let unnamed = || Failure::Unasked { at: "prometheus".to_owned(), reason: "the policy names none".to_owned() };
    let server = policy.prometheus.as_ref().ok_or_else(unnamed)?;
    Ok(Box::new(PrometheusSource::new(server, policy)?))
}

impl PrometheusSource {
    /// Returns the source that asks `server` for what `judgement` gives a weight.
    ///
    /// # Errors
    ///
    /// [`Failure::Unasked`] if no client can be made, as without any certificate of an authority on this machine.
    pub fn new(server: &Prometheus, judgement: &JudgementPolicy) -> Result<Self, Failure> {
        let query = |name: &str| {
            let default = DEFAULTS.iter().find(|(known, _)| *known == name).map(|(_, query)| *query);
            server.queries.get(name).or(default).map(str::to_owned)
        };
        let requests = query(policy::REQUESTS).unwrap_or_default();
        let mut queries =
            BTreeMap::from([(What::Newest, format!("timestamp({requests})")), (What::Requests, requests)]);
        for (metric, _) in judgement.metrics.judged() {
            let (what, name) = if metric.is_share() {
                (What::Hits(metric.name), metric.name)
            } else {
                (What::Latency, policy::LATENCY)
            };
            queries.extend(query(name).map(|query| (what, query)));
        }
        Ok(Self { client: Client::new(server)?, interval: Duration::from_millis(server.scrape_interval_ms), queries })
    }

    async fn ask(&self, asked: &Asked, version: &StackName, grid: Grid) -> Result<Answers, Failure> {
        let one = |(what, query): (&What, &String)| {
            let (what, query) = (*what, filled(query, asked, version));
            async move { self.client.range(&query, grid).await.map(|answer| (what, answer)) }
        };
        Ok(try_join_all(self.queries.iter().map(one)).await?.into_iter().collect())
    }

    /// Returns why no series of `what` does not mean that there were none: its query names a metric that is not there at
    /// all.
    async fn not_there(&self, what: What, asked: &Asked, version: &StackName) -> Result<Option<String>, Failure> {
        let Some(query) = self.queries.get(&what) else { return Ok(None) };
        let query = filled(query, asked, version);
        let (names, at) = (series::metrics_of(&query), self.client.at());
        if names.is_empty() {
            return Ok(Some(format!("`{query}` finds nothing at {at}, and names no metric to see whether it could")));
        }
        for name in names {
            if !self.client.has_metric(&name).await? {
                return Ok(Some(no_metric(at, &name)));
            }
        }
        Ok(None)
    }
}

#[async_trait::async_trait]
impl Source for PrometheusSource {
    async fn read(&self, asked: &Asked, span: Span) -> Result<Reading, Failure> {
        let at = self.client.at();
        let Some(grid) = Grid::over(span, self.interval / 2) else {
            return Ok(Reading::Empty { reason: "the span that was asked for has no length".to_owned() });
        };
        let answers = try_join_all(asked.stacks.values().map(|version| self.ask(asked, version, grid))).await?;
        let stacks = asked.stacks.iter().zip(answers);
        let stacks: Vec<StackAnswers<'_>> =
            stacks.map(|((id, version), answers)| StackAnswers { id: *id, version, answers, at }).collect();
        let Some(first) = stacks.first().filter(|_| stacks.iter().any(StackAnswers::has_requests)) else {
            let versions: Vec<String> = asked.stacks.values().map(StackName::to_string).collect();
            let reason = format!("{at} has no series of the requests of {}", versions.join(" or of "));
            return Ok(Reading::Empty { reason });
        };
        let stale_after = self.interval * STALE_INTERVALS;
        if let Some(reason) = stacks.iter().find_map(|stack| stack.stale(grid, stale_after)) {
            return Ok(Reading::Stale { reason });
        }
        let mut missing = BTreeSet::new();
        // Whether a series that was not there when the span began had not begun, or nobody had looked.
        let scraped_before = stacks.iter().any(StackAnswers::is_there_when_it_begins);
        if !scraped_before {
            let what = "nothing was scraped before the span; what was counted until its first scrape is not in it";
            missing.insert(what.to_owned());
        }
        let mut unknown = BTreeSet::new();
        for what in self.queries.keys().copied().filter(|what| matches!(what, What::Hits(_))) {
            if stacks.iter().all(|stack| stack.has_no_series(what))
                && let Some(why) = self.not_there(what, asked, first.version).await?
            {
                missing.insert(why);
                unknown.insert(what);
            }
        }
        let mut measured = BTreeMap::new();
        for stack in &stacks {
            measured.insert(stack.id, vec![stack.measured(scraped_before, &unknown, &mut missing)]);
        }
        let measured = Measured { span: Span { from: span.from, to: grid.end() }, stacks: measured };
        Ok(Reading::of(measured, missing.into_iter().collect()))
    }

    async fn test_source(&self, serving: &[Asked], now: Timestamp) -> Result<Vec<String>, Failure> {
        let queries = self.queries.iter().filter(|(what, _)| **what != What::Newest);
        let names: BTreeSet<String> = queries.flat_map(|(_, query)| series::metrics_of(query)).collect();
        let mut lacks = vec![];
        for name in names {
            if !self.client.has_metric(&name).await? {
                lacks.push(no_metric(self.client.at(), &name));
            }
        }
        if lacks.is_empty() {
            for asked in serving {
                match self.read(asked, self.limits().lately(now)).await? {
                    Reading::Complete(_) | Reading::Partial { .. } => {}
                    Reading::Stale { reason } => lacks.push(reason),
                    Reading::Empty { reason } => {
                        lacks
                            .push(format!("{reason}; correct the queries, or see whether it scrapes what counts them"));
                    }
                }
            }
        }
        Ok(lacks)
    }

    fn at(&self) -> &str {
        self.client.at()
    }

    fn limits(&self) -> Limits {
        Limits { lag: LAG, span_max: SPAN_MAX }
    }
}

fn no_metric(at: &str, name: &str) -> String {
    format!("{at} has no metric `{name}`; correct the query, or let the service begin that counter at 0")
}

/// Returns `query` with the names that its placeholders stand for. None of them holds what a text in PromQL must escape.
fn filled(query: &str, asked: &Asked, version: &StackName) -> String {
    query
        .replace("{service}", asked.deployment.service.as_str())
        .replace("{environment}", asked.deployment.environment.as_str())
        .replace("{version}", &version.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::policy::Metrics;

    #[test]
    fn placeholders_are_filled_and_braces_of_the_language_stay() {
        let asked = Asked { deployment: "production/api".parse().unwrap(), stacks: BTreeMap::new() };
        assert_eq!(
            filled(ERRORS, &asked, &"1.2.3".parse().unwrap()),
            r#"ionledger_proxy_requests_total{service="api",environment="production",version="1.2.3",outcome=~"5xx|failed"}"#
        );
        let renewed = filled(REQUESTS, &asked, &"1.2.3~2".parse().unwrap());
        assert!(renewed.contains(r#"version="1.2.3~2""#), "two stacks of one version are counted apart: {renewed}");
    }

    #[test]
    fn what_is_not_judged_is_not_asked_for() {
        let metrics = Metrics::default().weighing(&[("errors", 100)]);
        let judgement = JudgementPolicy { metrics, ..JudgementPolicy::default() };
        let source = PrometheusSource::new(&Prometheus::at("http://127.0.0.1:1"), &judgement).unwrap();
        let asked: Vec<What> = source.queries.keys().copied().collect();
        assert_eq!(asked, [What::Requests, What::Newest, What::Hits("errors")]);
    }
}
