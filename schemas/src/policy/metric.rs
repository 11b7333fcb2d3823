//! The metrics that a canary is judged by: a row each, by name. Whoever judges, measures, reads or shows them walks over the rows.
//!
//! A new metric is a row in [`METRICS`]. One that is a share of requests also needs somebody who counts it: the router's counters
//! (`proxy::measures::Counts::hits`), or a query of another source.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Index, IndexMut};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A metric: what it is, and what a policy that does not name it says of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name in policies, events and answers.
    pub name: &'static str,
    /// What a hit is.
    pub kind: Kind,
    /// Its share of the bound on false rollbacks, in percent; 0: it is not judged.
    pub weight_percent: u8,
    /// What is tolerated: of a share of requests so many more hits per million, of a latency so much of it more.
    pub tolerance_ppm: u32,
    /// Whether the tolerance is stored also where it is the default, as the first policies had it.
    pub always_stored: bool,
    /// What the stored fields are: the tolerance, the ratio (of a share of requests), the weight.
    pub stored: [&'static str; 3],
    /// Which requests a query of another source counts for it; of a share of requests.
    pub counted: &'static str,
    /// What the file's keys are, in the reference file: the tolerance, the ratio (of a share of requests).
    pub help: [&'static str; 2],
}

/// What a hit of a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request that ended in a certain way. How many of the baseline's did is tolerated times a ratio.
    Share {
        /// Whether a request that takes longer than the router's timeout is one already.
        overdue: bool,
        /// How many in a million are assumed to, where nothing was measured.
        assumed_ppm: u32,
    },
    /// A request that took longer than this quantile of the baseline's latencies, in parts per million.
    Quantile {
        /// 990,000 is the 99th percentile.
        ppm: u32,
    },
}

/// Every metric, in the order in which the judge has them.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "errors",
        kind: Kind::Share { overdue: true, assumed_ppm: 1_000 },
        weight_percent: 50,
        tolerance_ppm: 300,
        always_stored: true,
        stored: [
            "By how many errors per million requests the canary's error rate may exceed what the ratio allows.",
            "How many times the baseline's error rate is tolerated of the canary, in percent.",
            "Of errors.",
        ],
        counted: "Those that failed.",
        help: ["and so much more", "so many times the old version's rate of errors,"],
    },
    Metric {
        name: "4xx",
        kind: Kind::Share { overdue: false, assumed_ppm: 10_000 },
        weight_percent: 0,
        tolerance_ppm: 10_000,
        always_stored: false,
        stored: [
            "The same for answers with a 4xx status, which are no errors: judged if they have a weight.",
            "How many times the baseline's rate of 4xx is tolerated, in percent.",
            "Of answers with a 4xx status.",
        ],
        counted: "Those that were answered with a 4xx status.",
        help: ["", "the same for answers with a 4xx status, if they have a weight"],
    },
    Metric {
        name: "p50",
        kind: Kind::Quantile { ppm: 500_000 },
        weight_percent: 20,
        tolerance_ppm: 105_000,
        always_stored: false,
        stored: [
            "By how much the canary's median latency may exceed the baseline's, as a part of it; to the nearest bucket of 1 %",
            "",
            "Of the median latency.",
        ],
        counted: "",
        help: ["or is slower by more than this: its median,", ""],
    },
    Metric {
        name: "p99",
        kind: Kind::Quantile { ppm: 990_000 },
        weight_percent: 30,
        tolerance_ppm: 208_000,
        always_stored: false,
        stored: ["The same for the 99th percentile.", "", "Of the 99th percentile."],
        counted: "",
        help: ["and its 99th percentile", ""],
    },
];

/// How many times the baseline's share of hits is tolerated, in percent. Source: `docs/judgement.md`, "Policy".
const RATIO_PERCENT: u32 = 120;

/// Returns the metric of this name.
pub fn named(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

/// Says whether a request that takes longer than the router's timeout is already a hit of the metric of this name.
pub fn is_overdue_a_hit(name: &str) -> bool {
    matches!(named(name), Some(Metric { kind: Kind::Share { overdue: true, .. }, .. }))
}

/// Returns the metrics that are shares of requests.
pub fn share_metrics() -> impl Iterator<Item = &'static Metric> {
    METRICS.iter().filter(|metric| metric.is_share())
}

impl Metric {
    /// Whether it is a share of requests, and no latency.
    pub fn is_share(&self) -> bool {
        matches!(self.kind, Kind::Share { .. })
    }

    /// Returns the file's key of its tolerance.
    pub fn tolerance_key(&self) -> String {
        format!("{}_tolerance", self.name)
    }

    /// Returns the file's key of its ratio, if it has one.
    pub fn ratio_key(&self) -> Option<String> {
        self.is_share().then(|| format!("{}_ratio", self.name))
    }

    fn stored_tolerance(&self) -> String {
        format!("{}_tolerance_ppm", self.name)
    }

    fn stored_ratio(&self) -> Option<String> {
        self.is_share().then(|| format!("{}_ratio_percent", self.name))
    }

    fn default(&self) -> Tolerance {
        let Self { weight_percent, tolerance_ppm, .. } = *self;
        Tolerance { weight_percent, tolerance_ppm, ratio_percent: RATIO_PERCENT }
    }
}

/// What a policy says of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// Its share of the bound on false rollbacks, in percent; 0: it is not judged.
    pub weight_percent: u8,
    /// What is tolerated, as [`Metric::tolerance_ppm`].
    pub tolerance_ppm: u32,
    /// How many times the baseline's share of hits is tolerated, in percent; means nothing for latencies.
    pub ratio_percent: u32,
}

/// What a policy says of each metric. Stored as the fields `NAME_tolerance_ppm` and `NAME_ratio_percent` of the policy, and
/// `weights`; what is the default is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics(Vec<(&'static Metric, Tolerance)>);

impl Default for Metrics {
    fn default() -> Self {
        Self::of(METRICS)
    }
}

impl Metrics {
    /// Returns what a policy says that says nothing, of these metrics.
    pub fn of(metrics: &'static [Metric]) -> Self {
        Self(metrics.iter().map(|metric| (metric, metric.default())).collect())
    }

    /// Returns each metric with what is said of it, in the judge's order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Metric, &Tolerance)> {
        self.0.iter().map(|(metric, tolerance)| (*metric, tolerance))
    }

    /// Returns the metrics that are judged.
    pub fn judged(&self) -> impl Iterator<Item = (&'static Metric, &Tolerance)> {
        self.iter().filter(|(_, tolerance)| tolerance.weight_percent > 0)
    }

    /// Returns these with the weights of `weights`, in percent; a metric that is not among them has none.
    #[must_use]
    pub fn weighing(mut self, weights: &[(&str, u8)]) -> Self {
        for (metric, tolerance) in &mut self.0 {
            let own = weights.iter().find(|(name, _)| *name == metric.name);
            tolerance.weight_percent = own.map_or(0, |(_, weight)| *weight);
        }
        self
    }

    /// Returns the sum of the weights, in percent.
    pub fn weights_sum(&self) -> u32 {
        self.0.iter().map(|(_, tolerance)| u32::from(tolerance.weight_percent)).sum()
    }

    fn has_default_weights(&self) -> bool {
        self.0.iter().all(|(metric, tolerance)| tolerance.weight_percent == metric.weight_percent)
    }

    /// Returns where a stored field other than `weights` is kept, if there is one of this name.
    fn field(&mut self, name: &str) -> Option<&mut u32> {
        self.0.iter_mut().find_map(|(metric, tolerance)| match name {
            _ if name == metric.stored_tolerance() => Some(&mut tolerance.tolerance_ppm),
            _ if metric.stored_ratio().is_some_and(|ratio| ratio == name) => Some(&mut tolerance.ratio_percent),
            _ => None,
        })
    }
}

impl Index<&str> for Metrics {
    type Output = Tolerance;

    fn index(&self, name: &str) -> &Tolerance {
        let found = self.0.iter().find(|(metric, _)| metric.name == name);
        found.map(|(_, tolerance)| tolerance).expect("a metric of the table")
    }
}

impl IndexMut<&str> for Metrics {
    fn index_mut(&mut self, name: &str) -> &mut Tolerance {
        let found = self.0.iter_mut().find(|(metric, _)| metric.name == name);
        found.map(|(_, tolerance)| tolerance).expect("a metric of the table")
    }
}

impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (metric, tolerance) in self.iter() {
            if metric.always_stored || tolerance.tolerance_ppm != metric.tolerance_ppm {
                map.serialize_entry(&metric.stored_tolerance(), &tolerance.tolerance_ppm)?;
            }
            if let Some(ratio) = metric.stored_ratio().filter(|_| tolerance.ratio_percent != RATIO_PERCENT) {
                map.serialize_entry(&ratio, &tolerance.ratio_percent)?;
            }
        }
        if !self.has_default_weights() {
            map.serialize_entry("weights", &Weights(self))?;
        }
        map.end()
    }
}

/// The stored field `weights`.
struct Weights<'m>(&'m Metrics);

impl Serialize for Weights<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(metric, tolerance)| (metric.name, tolerance.weight_percent)))
    }
}

impl<'de> Deserialize<'de> for Metrics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Metrics;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a policy's tolerances and weights")
            }

            /// Takes what the policy itself has no field for, and refuses what no metric has either.
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metrics, A::Error> {
                let mut metrics = Metrics::default();
                while let Some(field) = map.next_key::<String>()? {
                    if field == "weights" {
                        let weights: std::collections::BTreeMap<String, u8> = map.next_value()?;
                        for (name, weight) in weights {
                            let own = metrics.0.iter_mut().find(|(metric, _)| metric.name == name);
                            let unknown = || A::Error::custom(format_args!("unknown field `{name}` of `weights`"));
                            own.ok_or_else(unknown)?.1.weight_percent = weight;
                        }
                    } else {
                        let unknown = || A::Error::custom(format_args!("unknown field `{field}`"));
                        *metrics.field(&field).ok_or_else(unknown)? = map.next_value()?;
                    }
                }
                Ok(metrics)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl JsonSchema for Metrics {
    fn schema_name() -> Cow<'static, str> {
        "Metrics".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = json_schema!({"type": "object", "properties": {}});
        let properties = schema.get_mut("properties").and_then(|found| found.as_object_mut()).expect("just made");
        let number =
            |what: &str| serde_json::json!({"description": what, "type": "integer", "format": "uint32", "minimum": 0});
        for metric in METRICS {
            let [tolerance, ratio, _] = metric.stored;
            let mut of_tolerance = number(tolerance);
            if metric.always_stored {
                of_tolerance["default"] = metric.tolerance_ppm.into();
            }
            properties.insert(metric.stored_tolerance(), of_tolerance);
            properties.extend(metric.stored_ratio().map(|field| (field, number(ratio))));
        }
        let mut weights = generator.subschema_for::<MetricWeights>();
        weights.insert("description".to_owned(), "How the metrics share the one bound on false rollbacks.".into());
        properties.insert("weights".to_owned(), weights.to_value());
        schema
    }
}

/// The schema of the stored field `weights`.
struct MetricWeights;

impl JsonSchema for MetricWeights {
    fn schema_name() -> Cow<'static, str> {
        "MetricWeights".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let weight = |metric: &Metric| {
            let weight = serde_json::json!({
                "description": metric.stored[2], "type": "integer", "format": "uint8",
                "default": metric.weight_percent, "minimum": 0, "maximum": 255
            });
            (metric.name.to_owned(), weight)
        };
        let properties: serde_json::Map<String, serde_json::Value> = METRICS.iter().map(weight).collect();
        json_schema!({
            "description": "How the metrics share the bound on false rollbacks, in percent; a metric without a share is not judged",
            "type": "object", "properties": properties, "additionalProperties": false
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A share of requests and a quantile that nobody has.
    const MADE_UP: &[Metric] = &[
        Metric {
            name: "aborted",
            kind: Kind::Share { overdue: false, assumed_ppm: 500 },
            weight_percent: 60,
            tolerance_ppm: 100,
            always_stored: false,
            stored: ["", "", ""],
            counted: "",
            help: ["", ""],
        },
        Metric {
            name: "p90",
            kind: Kind::Quantile { ppm: 900_000 },
            weight_percent: 40,
            tolerance_ppm: 150_000,
            always_stored: false,
            stored: ["", "", ""],
            counted: "",
            help: ["", ""],
        },
    ];

    #[test]
    fn a_made_up_metric_is_stored_by_its_name_where_it_is_not_the_default() {
        let mut metrics = Metrics::of(MADE_UP);
        assert_eq!(serde_json::to_string(&metrics).unwrap(), "{}");
        let mut set = |field: &str, value: u32| metrics.field(field).map(|own| *own = value).is_some();
        assert!(set("aborted_tolerance_ppm", 5) && set("aborted_ratio_percent", 150));
        assert!(set("p90_tolerance_ppm", 200_000) && !set("p90_ratio_percent", 150));
        let written = serde_json::to_string(&metrics.clone().weighing(&[("p90", 100)])).unwrap();
        let expected = r#"{"aborted_tolerance_ppm":5,"aborted_ratio_percent":150,"p90_tolerance_ppm":200000,"weights":{"aborted":0,"p90":100}}"#;
        assert_eq!(written, expected);
        assert_eq!(metrics.judged().map(|(metric, _)| metric.name).collect::<Vec<_>>(), ["aborted", "p90"]);
    }

    #[test]
    fn what_no_metric_has_is_refused_by_name() {
        let refused = |text: &str| serde_json::from_str::<Metrics>(text).unwrap_err().to_string();
        assert!(refused(r#"{"errors_tolerance":5}"#).starts_with("unknown field `errors_tolerance`"));
        assert!(refused(r#"{"p50_ratio_percent":150}"#).starts_with("unknown field `p50_ratio_percent`"));
        assert!(refused(r#"{"weights":{"p90":5}}"#).starts_with("unknown field `p90` of `weights`"));
    }

    #[test]
    fn weights_that_are_not_named_are_the_default() {
        let metrics: Metrics = serde_json::from_str(r#"{"weights":{"p99":10}}"#).unwrap();
        assert_eq!((metrics["errors"].weight_percent, metrics["p99"].weight_percent), (50, 10));
        assert_eq!(metrics.weights_sum(), 80);
    }

    #[test]
    fn no_two_metrics_have_a_name_or_a_key_in_common() {
        let keys = METRICS.iter().flat_map(|metric| [Some(metric.tolerance_key()), metric.ratio_key()]).flatten();
        let keys: Vec<String> = keys.chain(METRICS.iter().map(|metric| metric.name.to_owned())).collect();
        let different: std::collections::BTreeSet<&String> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
    }
}
