//! A service's declaration in the words of its file: every key of `SERVICE.toml` with its value.

mod reference;
pub mod table;

use std::collections::{BTreeMap, BTreeSet};

use toml::Value;

use crate::ServiceName;
use crate::policy::{Metric, Tolerance};
use crate::run::EnvValue;
use crate::service::Definition;
use table::{Kind, Table, tables};

pub use reference::reference;

/// Returns `definition` as the file that `ionledger apply` takes, with every key that has a value.
pub fn file(service: &ServiceName, definition: &Definition) -> String {
    let mut text = format!("name = {}\n", Value::from(service.as_str()));
    let keys = keys(definition);
    let mut section = "";
    for (key, value) in &keys {
        let (of, name) = key.split_once('.').unwrap_or(("", key));
        if of != section {
            text.push_str(&format!("\n[{of}]\n"));
            section = of;
        }
        text.push_str(&format!("{name} = {value}\n"));
    }
    text
}

/// Returns what differs between two declarations, one entry per key: `judgement.errors_tolerance 1 % -> 2 %`.
pub fn changes(before: &Definition, after: &Definition) -> Vec<String> {
    let (old, new) = (keys(before), keys(after));
    let order: Vec<&String> = new.iter().chain(&old).map(|(key, _)| key).collect();
    let find =
        |all: &[(String, Value)], key: &String| all.iter().find(|(name, _)| name == key).map(|(_, value)| shown(value));
    let mut seen = BTreeSet::new();
    let differing = order.into_iter().filter(|key| seen.insert(*key)).filter_map(|key| {
        let (old, new) = (find(&old, key), find(&new, key));
        let text = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
        (old != new).then(|| format!("{key} {} -> {}", text(old), text(new)))
    });
    differing.collect()
}

/// A value as people read it: a text without its quotes.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Every key but `name`, in the file's order, those of a table named `TABLE.KEY`; what has no value is left out.
fn keys(definition: &Definition) -> Vec<(String, Value)> {
    // The rows say where a value is by a reference that may change it.
    let mut definition = definition.clone();
    let mut keys = vec![];
    for Table { name: table, keys: rows, .. } in tables() {
        for row in &rows {
            let named = |name: &str| if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") };
            if matches!(row.kind, Kind::Addresses) {
                let addresses = definition.listen.iter();
                keys.extend(addresses.map(|(environment, at)| (named(environment.as_str()), at.to_string().into())));
            } else {
                keys.extend(value(&row.kind, &mut definition).map(|value| (named(&row.name), value)));
            }
        }
    }
    keys
}

/// Returns what a declaration has for a row as its file says it, if it has something.
fn value(kind: &Kind, of: &mut Definition) -> Option<Value> {
    let whole = |number: u64| Value::from(i64::try_from(number).unwrap_or(i64::MAX));
    let metrics = &of.policy.judgement.metrics;
    Some(match kind {
        Kind::Name | Kind::Addresses => return None,
        Kind::Text { at, .. } => at(of).as_str().into(),
        Kind::TextIfAny { at, .. } => at(of).as_deref()?.into(),
        Kind::Texts(at) => at(of).clone().into(),
        Kind::Variables if of.run.env.is_empty() => return None,
        Kind::Variables => variables(&of.run.env).into(),
        Kind::Whole { get, .. } => whole(get(of)),
        Kind::Flag(at) => (*at(of)).into(),
        Kind::Duration { at, .. } => duration(*at(of)).into(),
        Kind::DurationIfAny { at, .. } => duration((*at(of))?).into(),
        Kind::Choice { words, get, .. } => words[get(of)].into(),
        Kind::Shares(at) => at(of).iter().map(ToString::to_string).collect::<Vec<_>>().into(),
        Kind::Share(at) => at(of).to_string().into(),
        Kind::After(at) => at(of).map_or("never".to_owned(), |ms| format!("after {}", duration(ms))).into(),
        Kind::Percent(at) => percent(*at(of)).into(),
        Kind::Tolerance(metric) => percent(metrics[metric.name].tolerance_ppm).into(),
        Kind::Ratio(metric) => Value::Float(f64::from(metrics[metric.name].ratio_percent) / 100.0),
        Kind::Weights => {
            let weight =
                |(metric, of): (&Metric, &Tolerance)| (metric.name.to_owned(), whole(of.weight_percent.into()));
            toml::Table::from_iter(metrics.iter().map(weight)).into()
        }
        Kind::Server { is_there, .. } if !is_there(of) => return None,
        Kind::Server { keys, .. } => {
            let keys = keys().into_iter().filter_map(|key| Some((key.name, value(&key.kind, of)?)));
            toml::Table::from_iter(keys).into()
        }
        Kind::Url(at) => at(of).as_str().into(),
        Kind::Reference(at) => variable(at(of).as_ref()?),
        Kind::Query(name, at) => at(of).get(name)?.into(),
    })
}

fn variables(env: &BTreeMap<String, EnvValue>) -> toml::Table {
    env.iter().map(|(name, value)| (name.clone(), variable(value))).collect()
}

fn variable(value: &EnvValue) -> Value {
    let reference = |kind: &str, of: &str| Value::Table(toml::Table::from_iter([(kind.to_owned(), Value::from(of))]));
    match value {
        EnvValue::Value(text) => Value::from(text.as_str()),
        EnvValue::FromEnv(name) => reference("from_env", name),
        EnvValue::FromFile(path) => reference("from_file", path),
    }
}

/// A length of time in its widest unit, a day in hours: `24 hours`, `2 days`, `90 s`.
fn duration(ms: u64) -> String {
    const UNITS: [(u64, &str, &str); 4] =
        [(86_400_000, "day", "days"), (3_600_000, "hour", "hours"), (60_000, "minute", "minutes"), (1_000, "s", "s")];
    let fits = |unit: u64| ms >= unit && ms.is_multiple_of(unit);
    let widest = UNITS.iter().find(|(unit, name, _)| fits(*unit) && (*name != "day" || ms > *unit));
    match widest {
        _ if ms == 0 => "0 s".to_owned(),
        None => format!("{ms} ms"),
        Some((unit, one, _)) if ms == *unit => format!("1 {one}"),
        Some((unit, _, many)) => format!("{} {many}", ms / unit),
    }
}

/// Parts per million as a percentage: `0.03 %`.
fn percent(ppm: u32) -> String {
    let digits = format!("{}.{:04}", ppm / 10_000, ppm % 10_000);
    format!("{} %", digits.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::run::{Capacity, RunSpec};

    #[test]
    fn what_changed_is_named_by_its_key_with_both_values() {
        let before = Definition {
            owner: "team".to_owned(),
            description: String::new(),
            listen: BTreeMap::new(),
            run: RunSpec::default(),
            capacity: Capacity::default(),
            policy: Policy::default(),
        };
        assert_eq!(changes(&before, &before), Vec::<String>::new());
        let mut after = before.clone();
        after.owner = "another".to_owned();
        after.description = "the shop".to_owned();
        after.listen.insert(crate::EnvironmentName::production(), "127.0.0.1:80".parse().unwrap());
        after.run.env.insert("KEY".to_owned(), EnvValue::FromEnv("API_KEY".to_owned()));
        after.policy.judgement.metrics["errors"].tolerance_ppm = 20_000;
        after.policy.rollout.early_after_ms = Some(1_800_000);
        after.policy.retention.warm_for_ms = 90_000;
        assert_eq!(
            changes(&before, &after),
            [
                "owner team -> another",
                "description none -> the shop",
                "listen.production none -> 127.0.0.1:80",
                "run.env none -> { KEY = { from_env = \"API_KEY\" } }",
                "rollout.early never -> after 30 minutes",
                "judgement.errors_tolerance 0.03 % -> 2 %",
                "retention.warm_for 24 hours -> 90 s",
            ]
        );
        assert!(changes(&after, &before).contains(&"listen.production 127.0.0.1:80 -> none".to_owned()));
    }
}
