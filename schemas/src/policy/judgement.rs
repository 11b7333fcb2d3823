//! When a canary counts as worse, and where what it did is measured.
//!
//! A policy that was recorded before a field existed means that field's default, for ever: whoever changes a default of
//! new policies must leave what a missing field means as it is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metric::{Kind, Metrics};
use super::{InvalidPolicy, Queries, queries};
use crate::run::EnvValue;
use crate::text;

/// When a canary counts as worse than its baseline, and when as not worse. Chances and rates are parts per million.
///
/// The line between tolerable and worse is, for errors and 4xx, `ratio * (the baseline's rate) + tolerance`; for
/// latencies the baseline's quantile and `tolerance` of it more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(transform = no_more)]
pub struct JudgementPolicy {
    /// What is tolerated of each metric, and how the metrics share the one bound on false rollbacks.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// The chance that a canary within every tolerance comes back, over the whole rollout.
    #[serde(skip_serializing_if = "is_default_alpha")]
    pub alpha_ppm: u32,
    /// The chance that a canary at or beyond a tolerance is accepted.
    #[serde(skip_serializing_if = "is_default_beta")]
    pub beta_ppm: u32,
    /// How many requests of the canary a rollout must have seen before it can pass.
    pub requests_min: u64,
    /// How long after its first step a canary may have all traffic at the earliest, in milliseconds: evidence says
    /// nothing of bugs that have not happened yet.
    #[serde(skip_serializing_if = "is_zero")]
    pub soak_ms: u64,
    /// What happens at the plan's end to a canary that is neither worse nor accepted.
    #[serde(skip_serializing_if = "Deadline::is_default")]
    pub deadline: Deadline,
    /// For how long a new node of the canary is not judged by its latencies, in milliseconds; its errors always count.
    #[serde(skip_serializing_if = "is_zero")]
    pub warm_up_ms: u64,
    /// Whether a node may contribute only so many hits a second, because requests fail together.
    #[serde(skip_serializing_if = "is_true")]
    pub burst_cap: bool,
    /// How many bad requests the ramp may risk in the time that it takes to move the weights back.
    #[serde(skip_serializing_if = "is_default_bad_requests_max")]
    pub bad_requests_max: u32,
    /// The Prometheus server that measures. Left out: the router's own counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<Prometheus>,
}

/// What happens at the plan's end to a canary that is neither worse nor accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Deadline {
    /// It goes on if it has had its minimum of requests, and holds without them.
    #[default]
    GoOn,
    /// It holds until it is accepted, comes back, or a person decides.
    Hold,
}

/// A Prometheus server that measures a service's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prometheus {
    /// Its address, `http://prometheus:9090`, with the path before `/api/v1` if it has one.
    pub address: String,
    /// A bearer token for it: where it is found, never the token itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<EnvValue>,
    /// How often it scrapes the service, in milliseconds. Nothing for three times as long, and what it says is stale.
    #[serde(default = "default_scrape_interval_ms")]
    pub scrape_interval_ms: u64,
    /// What it is asked.
    #[serde(default, skip_serializing_if = "Queries::is_default")]
    pub queries: Queries,
}

// Source: `docs/judgement.md`, "Policy".
const ALPHA_PPM: u32 = 10_000;
const BETA_PPM: u32 = 50_000;
const REQUESTS_MIN: u64 = 50;
const BAD_REQUESTS_MAX: u32 = 200;
const SCRAPE_INTERVAL_MS: u64 = 15_000;

const MILLION: u32 = 1_000_000;
const QUERY_BYTES_MAX: usize = 2_000;

impl Default for JudgementPolicy {
    fn default() -> Self {
        Self {
            metrics: Metrics::default(),
            alpha_ppm: ALPHA_PPM,
            beta_ppm: BETA_PPM,
            requests_min: REQUESTS_MIN,
            soak_ms: 0,
            deadline: Deadline::default(),
            warm_up_ms: 0,
            burst_cap: true,
            bad_requests_max: BAD_REQUESTS_MAX,
            prometheus: None,
        }
    }
}

fn default_scrape_interval_ms() -> u64 {
    SCRAPE_INTERVAL_MS
}

fn is_default_alpha(ppm: &u32) -> bool {
    *ppm == ALPHA_PPM
}

fn is_default_beta(ppm: &u32) -> bool {
    *ppm == BETA_PPM
}

fn is_default_bad_requests_max(requests: &u32) -> bool {
    *requests == BAD_REQUESTS_MAX
}

fn is_zero(ms: &u64) -> bool {
    *ms == 0
}

fn is_true(yes: &bool) -> bool {
    *yes
}

impl Deadline {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Says that the stored policy has no more fields: [`Metrics`] refuses what neither it nor the policy has.
fn no_more(schema: &mut schemars::Schema) {
    schema.remove("unevaluatedProperties");
    schema.insert("additionalProperties".to_owned(), false.into());
}

impl JudgementPolicy {
    /// Checks what the types cannot, and that every metric that is judged leaves room between equal and worse.
    ///
    /// # Errors
    ///
    /// [`InvalidPolicy`] naming the field and its rule.
    pub fn validate(&self) -> Result<(), InvalidPolicy> {
        for (metric, tolerance) in self.metrics.iter() {
            let (field, ppm) = (format!("judgement.{}", metric.tolerance_key()), tolerance.tolerance_ppm);
            match metric.kind {
                Kind::Share { .. } => check_line(&field, ppm, tolerance.ratio_percent)?,
                Kind::Quantile { .. } => check(&field, (10_000..=100 * MILLION).contains(&ppm), || {
                    "it must be from 1 % (latencies are told apart by 1 %) to 10,000 %".to_owned()
                })?,
            }
        }
        let sum = self.metrics.weights_sum();
        check("judgement.weights", (1..=100).contains(&sum), || {
            format!("they sum to {sum} %; they must sum to 1-100 %: all metrics share one bound on false rollbacks")
        })?;
        for (field, ppm) in [("judgement.alpha", self.alpha_ppm), ("judgement.beta", self.beta_ppm)] {
            check(field, (1..=MILLION / 2).contains(&ppm), || {
                "it must be above 0 and at most 50 %: it is the chance to be wrong".to_owned()
            })?;
        }
        check("judgement.requests_min", self.requests_min > 0, || {
            "it must be at least 1: no data never promotes".to_owned()
        })?;
        check("judgement.warm_up", self.warm_up_ms <= 24 * 3_600_000, || "it must be at most 1 day".to_owned())?;
        check("judgement.bad_requests_max", self.bad_requests_max > 0, || {
            "it must be at least 1: a canary without traffic shows nothing".to_owned()
        })?;
        self.prometheus.as_ref().map_or(Ok(()), Prometheus::validate)
    }
}

impl Prometheus {
    /// Returns the server at `address`, asked by our own names.
    pub fn at(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            token: None,
            scrape_interval_ms: SCRAPE_INTERVAL_MS,
            queries: Queries::default(),
        }
    }

    fn validate(&self) -> Result<(), InvalidPolicy> {
        check_address(&self.address).or_else(|rule| check("judgement.prometheus.address", false, || rule))?;
        check("judgement.prometheus.token", !matches!(self.token, Some(EnvValue::Value(_))), || {
            "refer to it with `from_env` or `from_file`, the ledger keeps every value for ever".to_owned()
        })?;
        if let Some(EnvValue::FromEnv(at) | EnvValue::FromFile(at)) = &self.token {
            text::check("it", at, 1_000)
                .or_else(|error| check("judgement.prometheus.token", false, || error.to_string()))?;
        }
        check("judgement.prometheus.scrape_interval", (100..=600_000).contains(&self.scrape_interval_ms), || {
            "it must be from 100 ms to 10 minutes".to_owned()
        })?;
        for (name, query) in self.queries.own() {
            let field = format!("judgement.prometheus.{name}");
            text::check("it", query, QUERY_BYTES_MAX).or_else(|error| check(&field, false, || error.to_string()))?;
            queries::check(query).or_else(|rule| check(&field, false, || rule))?;
        }
        Ok(())
    }
}

fn check(field: &str, holds: bool, rule: impl FnOnce() -> String) -> Result<(), InvalidPolicy> {
    if holds { Ok(()) } else { Err(InvalidPolicy { field: field.to_owned(), rule: rule() }) }
}

fn check_line(field: &str, tolerance_ppm: u32, ratio_percent: u32) -> Result<(), InvalidPolicy> {
    check(field, tolerance_ppm < 900_000, || "it must be below 90 %: beyond it nothing is worse".to_owned())?;
    check(field, (100..=10_000).contains(&ratio_percent), || {
        format!("its ratio is {}; it must be from 1 to 100", f64::from(ratio_percent) / 100.0)
    })?;
    check(field, tolerance_ppm > 0 || ratio_percent > 100, || {
        "it leaves no room between equal and worse, so that no canary could ever be accepted; give it more than 0 %, \
         or a ratio above 1"
            .to_owned()
    })
}

/// Checks an address without repeating it: a password may stand in it.
fn check_address(address: &str) -> Result<(), String> {
    let Some(rest) = address.strip_prefix("http://").or_else(|| address.strip_prefix("https://")) else {
        return Err("write it as `http://HOST:PORT` or `https://HOST`".to_owned());
    };
    let host = rest.split('/').next().unwrap_or("");
    if host.contains('@') {
        return Err(
            "it contains a user name or a password; leave them out, the ledger keeps every text for ever".to_owned()
        );
    }
    let plain = |c: char| c.is_ascii_graphic() && !"?#{}\"<>\\^`|".contains(c);
    if host.is_empty() || !rest.chars().all(plain) {
        return Err("it names no host, or holds a character that no address has".to_owned());
    }
    text::check("it", address, 500).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut JudgementPolicy)) -> String {
        let mut policy = JudgementPolicy::default();
        change(&mut policy);
        policy.validate().unwrap_err().to_string()
    }

    #[test]
    fn a_policy_of_before_the_statistical_judge_reads_and_writes_back_as_it_was() {
        let old = r#"{"errors_tolerance_ppm":10000,"requests_min":50}"#;
        let policy: JudgementPolicy = serde_json::from_str(old).unwrap();
        let mut expected = JudgementPolicy::default();
        expected.metrics["errors"].tolerance_ppm = 10_000;
        assert_eq!(policy, expected);
        assert_eq!(serde_json::to_string(&policy).unwrap(), old);
    }

    #[test]
    fn what_differs_from_the_default_is_written_and_reads_back() {
        let mut policy = JudgementPolicy {
            alpha_ppm: 1,
            soak_ms: 7,
            deadline: Deadline::Hold,
            burst_cap: false,
            metrics: Metrics::default().weighing(&[("errors", 50), ("4xx", 10), ("p50", 20), ("p99", 20)]),
            prometheus: Some(Prometheus::at("https://prometheus.example/team")),
            ..JudgementPolicy::default()
        };
        policy.metrics["4xx"].tolerance_ppm = 5;
        policy.prometheus.as_mut().unwrap().queries.set("latency", Some("x{version=\"{version}\"}".to_owned()));
        policy.prometheus.as_mut().unwrap().token = Some(EnvValue::FromEnv("PROMETHEUS_TOKEN".to_owned()));
        assert_eq!(policy.validate(), Ok(()));
        let written = serde_json::to_string(&policy).unwrap();
        assert!(written.contains(r#""4xx_tolerance_ppm":5"#) && written.contains(r#""deadline":"hold""#), "{written}");
        assert_eq!(serde_json::from_str::<JudgementPolicy>(&written).unwrap(), policy);
    }

    #[test]
    fn a_recorded_query_that_would_be_refused_now_is_read_as_it_was() {
        let old = r#"{"errors_tolerance_ppm":10000,"requests_min":50,"prometheus":{"address":"http://p:9090",
            "queries":{"requests":"sum(x{version=\"{version}\"}) or vector(0)","errors":"x{version=\"${VERSION}\"}["}}}"#;
        let policy: JudgementPolicy = serde_json::from_str(old).unwrap();
        let queries = policy.prometheus.as_ref().map(|prometheus| prometheus.queries.clone()).unwrap();
        assert_eq!(queries.get("requests"), Some("sum(x{version=\"{version}\"}) or vector(0)"));
        assert!(policy.validate().unwrap_err().to_string().starts_with("policy judgement.prometheus.requests: `sum`"));
    }

    #[test]
    fn what_no_rollout_could_meet_is_refused_with_the_reason() {
        let no_room = refused(|policy| {
            let errors = &mut policy.metrics["errors"];
            (errors.tolerance_ppm, errors.ratio_percent) = (0, 100);
        });
        assert!(no_room.starts_with("policy judgement.errors_tolerance: it leaves no room between equal"), "{no_room}");
        assert!(
            refused(|policy| policy.metrics["p99"].tolerance_ppm = 9_999)
                .contains("p99_tolerance: it must be from 1 %")
        );
        assert!(refused(|policy| policy.alpha_ppm = 0).contains("alpha: it must be above 0 and at most 50 %"));
        assert!(refused(|policy| policy.beta_ppm = 500_001).contains("beta: it must be above 0"));
        assert!(refused(|policy| policy.metrics["p99"].weight_percent = 31).contains("weights: they sum to 101 %"));
        assert!(refused(|policy| policy.requests_min = 0).contains("no data never promotes"));
        assert!(
            refused(|policy| policy.metrics["errors"].ratio_percent = 99)
                .contains("its ratio is 0.99; it must be from 1")
        );
        assert!(refused(|policy| policy.bad_requests_max = 0).contains("a canary without traffic shows nothing"));
    }

    #[test]
    fn a_prometheus_that_cannot_be_asked_is_refused_and_no_secret_is_repeated() {
        for (address, why) in [
            ("prometheus:9090", "write it as `http://HOST:PORT`"),
            ("http://", "it names no host"),
            ("http://a b", "it names no host"),
            ("http://user:hunter2@host:9090", "it contains a user name or a password"),
        ] {
            let said = refused(|policy| policy.prometheus = Some(Prometheus::at(address)));
            assert!(said.contains(why) && !said.contains("hunter2"), "{address}: {said}");
        }
        let with = |change: &dyn Fn(&mut Prometheus)| {
            let mut prometheus = Prometheus::at("http://localhost:9090/prometheus");
            change(&mut prometheus);
            refused(|policy| policy.prometheus = Some(prometheus))
        };
        let said = with(&|it| it.queries.set("requests", Some("http_requests_total".to_owned())));
        assert!(said.starts_with("policy judgement.prometheus.requests: it must tell the versions apart"), "{said}");
        for query in [
            "rate(http_requests_total{version=\"{version}\"}[1m])",
            "sum by (code) (http_requests_total{version=\"{version}\"})",
            "sum(x{version='{version}'})",
        ] {
            let said = with(&|it| it.queries.set("requests", Some(query.to_owned())));
            assert!(said.contains("gives no counters; write a selector of the counters themselves"), "{said}");
        }
        let said = with(&|it| it.queries.set("errors", Some("x{version=\"{version}\"} or vector(0)".to_owned())));
        let next = "leave it out: no series already means no requests";
        assert!(
            said.starts_with("policy judgement.prometheus.errors: `vector(...)`") && said.ends_with(next),
            "{said}"
        );
        let said = with(&|it| it.token = Some(EnvValue::Value("hunter2".to_owned())));
        assert!(said.contains("refer to it with `from_env`") && !said.contains("hunter2"), "{said}");
        assert!(with(&|it| it.scrape_interval_ms = 0).contains("from 100 ms to 10 minutes"));
    }
}
