//! What Prometheus reads of our proxy: users' requests by version, how they ended and how long they took.

use async_trait::async_trait;
use ledger::telemetry::SECONDS;
use prometheus::proto::{Bucket, Counter, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use schemas::DeploymentId;
use workers::traffic::measures::{bucket_of, upper_edge_ms};
use workers::traffic::{ApplyError, ProxyControl, StackMeasures};

use super::{measured_as, number, numbered};
use crate::ops::Operated;

/// A proxy is ready while it listens for the users of every deployment.
#[async_trait]
impl Operated for ProxyControl {
    async fn ready(&self) -> Result<(), String> {
        let status = self.status().await.map_err(|error| error.to_string())?;
        let deaf = status.listeners.iter().find_map(|(id, listening)| Some((id, listening.error.as_ref()?)));
        deaf.map_or(Ok(()), |(id, error)| Err(format!("{id}: {error}")))
    }

    async fn measured(&self) -> Vec<MetricFamily> {
        measured(self).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the proxy does not tell what it measured");
            vec![]
        })
    }
}

/// Returns what `proxy`, a process of its own, measured, and whether it could be asked.
pub async fn of_proxy(proxy: &ProxyControl) -> Vec<MetricFamily> {
    let measured = measured(proxy).await;
    let reachable = u64::from(measured.is_ok());
    let help = "Whether the proxy could be asked what it measured";
    [number("ionledger_proxy_reachable", help, reachable), measured.unwrap_or_default()].concat()
}

async fn measured(proxy: &ProxyControl) -> Result<Vec<MetricFamily>, ApplyError> {
    let mut requests = family("ionledger_proxy_requests_total", "Users' requests that ended", MetricType::COUNTER);
    let help = "Seconds from a request's head to the end of its answer; the sum is exact to 1 %";
    let mut seconds = family("ionledger_proxy_request_seconds", help, MetricType::HISTOGRAM);
    let (mut in_flight, mut oldest) = (Vec::new(), Vec::new());
    for id in proxy.status().await?.listeners.keys() {
        let Some(measures) = proxy.measures(id).await? else { continue };
        for stack in measures.stacks.values() {
            let labels = labels(id, stack);
            requests.mut_metric().extend(counters(&labels, stack));
            seconds.mut_metric().push(histogram(&labels, stack));
            let named = || labels.iter().map(|label| label.value().to_owned()).collect::<Vec<String>>();
            in_flight.push((named(), stack.in_flight().count()));
            let oldest_ms = stack.nodes.values().filter_map(|node| node.oldest_in_flight_ms).max();
            oldest.push((named(), oldest_ms.unwrap_or(0) as f64 / 1_000.0));
        }
    }
    let names = ["environment", "service", "version"];
    let help = "Users' requests that have not ended";
    let in_flight = numbered("ionledger_proxy_requests_in_flight", help, &names, in_flight.into_iter());
    let help = "The age of the oldest request that has not ended, in seconds";
    let oldest = measured_as("ionledger_proxy_oldest_in_flight_seconds", help, &names, oldest.into_iter());
    Ok([vec![requests, seconds], in_flight, oldest].concat())
}

fn family(name: &str, help: &str, kind: MetricType) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}

fn labels(id: &DeploymentId, stack: &StackMeasures) -> Vec<LabelPair> {
    vec![
        label("environment", id.environment.as_str()),
        label("service", id.service.as_str()),
        label("version", &stack.version.to_string()),
    ]
}

/// Counts by how requests ended: the status' class, `failed` (no whole answer from the node) or `abandoned` (by the user).
fn counters(labels: &[LabelPair], stack: &StackMeasures) -> Vec<Metric> {
    let counts = stack.counts();
    let outcomes = [
        ("1xx", counts.status_1xx),
        ("2xx", counts.status_2xx),
        ("3xx", counts.status_3xx),
        ("4xx", counts.status_4xx),
        ("5xx", counts.status_5xx),
        ("failed", counts.failed),
        ("abandoned", counts.abandoned),
    ];
    let metrics = outcomes.into_iter().map(|(outcome, count)| {
        let mut metric = Metric::from_label([labels, &[label("outcome", outcome)]].concat());
        let mut counter = Counter::default();
        counter.set_value(count as f64);
        metric.set_counter(counter);
        metric
    });
    metrics.collect()
}

/// Our buckets of 1 % in those of Prometheus: a request counts below an edge if its whole bucket lies there.
fn histogram(labels: &[LabelPair], stack: &StackMeasures) -> Metric {
    let latency = stack.latency();
    let buckets = SECONDS.map(|edge| {
        let below = bucket_of(edge * 1e3 * (1.0 + 1e-9)) - 1;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(edge);
        bucket.set_cumulative_count(latency.count() - latency.count_above(below));
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_sample_count(latency.count());
    histogram.set_sample_sum(
        0.0 + latency.0.iter().map(|(bucket, count)| upper_edge_ms(*bucket) / 1e3 * *count as f64).sum::<f64>(),
    );
    histogram.set_bucket(buckets.to_vec());
    let mut metric = Metric::from_label(labels.to_vec());
    metric.set_histogram(histogram);
    metric
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use workers::traffic::{Counts, Histogram as Buckets, NodeMeasures};

    #[test]
    fn requests_are_told_by_version_and_outcome_and_each_counts_below_an_edge_only_if_it_surely_is() {
        let mut latency = Buckets::default();
        [0.9, 1.0, 1.005, 40.0].into_iter().for_each(|ms| latency.add(ms));
        let counts = Counts { status_2xx: 3, status_5xx: 1, ..Counts::default() };
        let node = NodeMeasures {
            address: "127.0.0.1:1".parse().unwrap(),
            counts,
            passed_on: 0,
            latency,
            in_flight: Buckets::default(),
            oldest_in_flight_ms: None,
        };
        let effect = schemas::EffectId(uuid::Uuid::nil());
        let stack = StackMeasures { version: "1.2.3".parse().unwrap(), nodes: BTreeMap::from([(effect, node)]) };
        let labels = labels(&"production/api".parse().unwrap(), &stack);

        let (mut requests, mut seconds) =
            (family("requests", "", MetricType::COUNTER), family("seconds", "", MetricType::HISTOGRAM));
        requests.mut_metric().extend(counters(&labels, &stack));
        seconds.mut_metric().push(histogram(&labels, &stack));
        let text = super::super::text(vec![requests, seconds]);
        let of = "environment=\"production\",service=\"api\",version=\"1.2.3\"";
        for line in [
            format!("requests{{{of},outcome=\"2xx\"}} 3"),
            format!("requests{{{of},outcome=\"5xx\"}} 1"),
            format!("seconds_bucket{{{of},le=\"0.001\"}} 2"),
            format!("seconds_bucket{{{of},le=\"0.002\"}} 3"),
            format!("seconds_bucket{{{of},le=\"0.05\"}} 4"),
            format!("seconds_bucket{{{of},le=\"+Inf\"}} 4"),
            format!("seconds_count{{{of}}} 4"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
