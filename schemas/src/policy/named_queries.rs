//! What a Prometheus server is asked, a query each by the name of what it counts.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::metric;

/// The query for all requests.
pub const REQUESTS: &str = "requests";

/// The query for how long they took.
pub const LATENCY: &str = "latency";

/// Queries for counters, with one series per node and label, not summed: that a counter begins anew is seen only in its own series.
///
/// `{service}`, `{environment}` and `{version}` stand for the names. What is left out is the query of our own names, in
/// `workers::measures::prometheus`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queries(BTreeMap<&'static str, String>);

impl Queries {
    /// Returns the name of every query with what it counts: all requests, each share of them that is a metric, and how long they
    /// took.
    pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
        let shares = metric::share_metrics().map(|metric| (metric.name, metric.counted));
        let latency = "The buckets of a classic histogram of latencies in seconds, with their edge in `le`.";
        [(REQUESTS, "All requests.")].into_iter().chain(shares).chain([(LATENCY, latency)])
    }

    /// Returns the policy's own query of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Sets the query of this name, or leaves it to the default.
    pub fn set(&mut self, name: &'static str, query: Option<String>) {
        match query {
            Some(query) => self.0.insert(name, query),
            None => self.0.remove(name),
        };
    }

    /// Returns the policy's own queries by their names, in the order of [`Queries::names`].
    pub fn own(&self) -> impl Iterator<Item = (&'static str, &str)> {
        Self::names().filter_map(|(name, _)| Some((name, self.get(name)?)))
    }

    /// Whether all are left to the default.
    pub fn is_default(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Queries {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.own())
    }
}

impl<'de> Deserialize<'de> for Queries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut queries = Self::default();
        for (field, query) in BTreeMap::<String, Option<String>>::deserialize(deserializer)? {
            let known = Self::names().find(|(name, _)| *name == field);
            let (name, _) = known.ok_or_else(|| D::Error::custom(format_args!("unknown field `{field}`")))?;
            queries.set(name, query);
        }
        Ok(queries)
    }
}

impl JsonSchema for Queries {
    fn schema_name() -> Cow<'static, str> {
        "Queries".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let query = |(name, what): (&str, &str)| {
            (name.to_owned(), serde_json::json!({"description": what, "type": ["string", "null"]}))
        };
        let properties: serde_json::Map<String, serde_json::Value> = Self::names().map(query).collect();
        let description = "Queries for counters, a series a node and label, not summed: a counter that begins anew is seen in its \
            own series only.\n\n`{service}`, `{environment}` and `{version}` stand for the names. What is left out is the query of \
            our own names, in\n`workers::measures::prometheus`.";
        json_schema!({
            "description": description, "type": "object", "properties": properties, "additionalProperties": false
        })
    }
}
