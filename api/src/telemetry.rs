//! What Prometheus reads of a process: what it counts, and where the ledger stands as it sees it.

mod proxy;

use std::sync::LazyLock;
use std::time::Duration;

use ledger::Ledger;
use ledger::telemetry::SECONDS;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder as _, GaugeVec, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, TextEncoder,
    register_histogram_vec, register_int_counter, register_int_counter_vec,
};
use schemas::Role;

pub use proxy::of_proxy;

/// The form of the answer. Source: Prometheus' text format 0.0.4.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// How long the log may take to answer where it ends; after that it counts as unreachable.
const ASK_MAX: Duration = Duration::from_secs(2);

/// From a rollback's command to the router's confirmation, or without it to the answer.
pub static ROLLBACK_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let help =
        "Seconds from a rollback's command until the router has confirmed it, or until it was answered without that";
    let buckets = SECONDS.to_vec();
    register_histogram_vec!("ionledger_rollback_seconds", help, &["outcome"], buckets).expect("registered once")
});

/// Requests that were refused because the API, their address or their token has as many connections as it may have.
pub static BUSY: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Requests that were refused because too many connections were open";
    register_int_counter_vec!("ionledger_http_busy_total", help, &["of"]).expect("registered once")
});

/// Files of the store that no release named for a day, and that were removed.
pub static ARTIFACTS_REMOVED: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Artifacts that were removed because no release named them within a day";
    register_int_counter!("ionledger_artifacts_removed_total", help).expect("registered once")
});

/// Returns what this process counts and `more`, as Prometheus reads it.
pub fn text(mut more: Vec<MetricFamily>) -> String {
    let mut families = prometheus::gather();
    families.append(&mut more);
    let mut text = Vec::new();
    // Writing to memory fails only for a family without samples, which has nothing to show.
    families.retain(|family| !family.get_metric().is_empty());
    let _ = TextEncoder::new().encode(&families, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

/// Returns where the ledger stands: its log's end, what is folded of it, its heads and who acts.
pub async fn of_ledger(ledger: &Ledger) -> Vec<MetricFamily> {
    let end = tokio::time::timeout(ASK_MAX, ledger.log().latest()).await.ok().and_then(Result::ok);
    let view = ledger.view();
    let folded = view.next();
    let known_end = end.unwrap_or_else(|| *ledger.log().end().borrow()).max(folded);
    let numbers = [
        ("ionledger_log_reachable", "Whether the log could be asked for its end", u64::from(end.is_some())),
        ("ionledger_log_end_offset", "The offset of the log's next record, as last known", known_end.0),
        ("ionledger_folded_offset", "The offset up to which this process has folded the log", folded.0),
        ("ionledger_lag_records", "Records of the log that this process has not folded", known_end.0 - folded.0),
        ("ionledger_voids", "Records of the log that do not count", view.voids()),
        ("ionledger_streams", "Streams that have a head", view.ruler().heads().len() as u64),
        (
            "ionledger_read_only_streams",
            "Streams with an event that this process does not understand: it accepts nothing for them but a rollback",
            view.read_only().len() as u64,
        ),
        ("ionledger_halted", "Whether this process follows the ledger no longer", u64::from(ledger.halted().is_some())),
    ];
    let mut families: Vec<MetricFamily> =
        numbers.into_iter().flat_map(|(name, help, value)| number(name, help, value)).collect();
    let heads = view.ruler().heads().iter().map(|(stream, head)| (vec![stream.to_string()], head.version.0));
    families.extend(numbered("ionledger_head_version", "The version of each stream's head", &["stream"], heads));
    let leases = Role::ALL.into_iter().filter_map(|role| {
        let holder = view.state().lease(role).holder?;
        Some((vec![role.to_string(), holder], 1))
    });
    families.extend(numbered("ionledger_acting", "The instance that acts for a role", &["role", "holder"], leases));
    families
}

/// Returns one number under a name.
pub fn number(name: &str, help: &str, value: u64) -> Vec<MetricFamily> {
    let gauge = IntGauge::new(name, help).expect("the name is well formed");
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    gauge.collect()
}

/// Returns numbers under a name, each with its labels.
pub fn numbered(
    name: &str,
    help: &str,
    labels: &[&str],
    values: impl Iterator<Item = (Vec<String>, u64)>,
) -> Vec<MetricFamily> {
    measured_as(name, help, labels, values.map(|(labels, value)| (labels, value as f64)))
}

/// Returns what was measured under a name in its base unit, as Prometheus names them (seconds), each with its labels.
pub fn measured_as(
    name: &str,
    help: &str,
    labels: &[&str],
    values: impl Iterator<Item = (Vec<String>, f64)>,
) -> Vec<MetricFamily> {
    let gauges = GaugeVec::new(Opts::new(name, help), labels).expect("the names are well formed");
    for (labels, value) in values {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        gauges.with_label_values(&labels).set(value);
    }
    gauges.collect()
}
