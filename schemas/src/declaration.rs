//! A service's declaration in the words of its file: every key of `SERVICE.toml` with its value.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use crate::ServiceName;
use crate::policy::{
    Deadline, HoldAfter, JudgementPolicy, MetricWeights, Policy, Prometheus, Queries, RetentionPolicy, RolloutPolicy,
};
use crate::run::{Capacity, EnvValue, HttpCheck, RunSpec};
use crate::service::Definition;

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

/// Returns what differs between two declarations, a key each: `judgement.errors_tolerance 1 % -> 2 %`.
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
    let Definition { owner, description, listen, run, capacity, policy } = definition;
    let RunSpec { args, env, check, start_deadline_ms, user } = run;
    let Policy { rollout, judgement, retention } = policy;
    let mut keys = Keys(vec![]);
    keys.add("", "owner", owner.as_str());
    keys.add("", "description", description.as_str());
    keys.0.extend(
        listen.iter().map(|(environment, address)| (format!("listen.{environment}"), Value::from(address.to_string()))),
    );
    keys.add("run", "args", args.clone());
    keys.add("run", "start_deadline", duration(*start_deadline_ms));
    if let Some(user) = user {
        keys.add("run", "user", user.as_str());
    }
    if !env.is_empty() {
        keys.add("run", "env", variables(env));
    }
    keys.check(check);
    let Capacity { nodes, min_ready } = *capacity;
    keys.add("capacity", "nodes", i64::from(nodes));
    keys.add("capacity", "min_ready", i64::from(min_ready));
    keys.rollout(rollout);
    keys.judgement(judgement);
    let RetentionPolicy { serving_max, warm_for_ms, warm_max, drain_ms } = *retention;
    keys.add("retention", "serving_max", i64::from(serving_max));
    keys.add("retention", "warm_for", duration(warm_for_ms));
    keys.add("retention", "warm_max", i64::from(warm_max));
    keys.add("retention", "drain", duration(drain_ms));
    keys.0
}

struct Keys(Vec<(String, Value)>);

impl Keys {
    fn add(&mut self, table: &str, name: &str, value: impl Into<Value>) {
        let key = if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") };
        self.0.push((key, value.into()));
    }

    fn check(&mut self, check: &HttpCheck) {
        let HttpCheck { path, status, timeout_ms, interval_ms, healthy_after, latency_ms_max } = check;
        self.add("check", "path", path.as_str());
        self.add("check", "status", i64::from(*status));
        self.add("check", "timeout", duration(*timeout_ms));
        self.add("check", "interval", duration(*interval_ms));
        self.add("check", "healthy_after", i64::from(*healthy_after));
        if let Some(ms) = latency_ms_max {
            self.add("check", "latency_max", duration(*ms));
        }
    }

    fn rollout(&mut self, rollout: &RolloutPolicy) {
        let RolloutPolicy {
            steps,
            duration_ms,
            on_release,
            early_after_ms,
            bake_ms,
            control,
            rollback_past_target,
            hold_after,
        } = rollout;
        self.add("rollout", "steps", steps.iter().map(ToString::to_string).collect::<Vec<_>>());
        self.add("rollout", "duration", duration(*duration_ms));
        self.add("rollout", "on_release", *on_release);
        let early = early_after_ms.map_or("never".to_owned(), |ms| format!("after {}", duration(ms)));
        self.add("rollout", "early", early);
        self.add("rollout", "bake", duration(*bake_ms));
        self.add("rollout", "control", control.to_string());
        self.add("rollout", "rollback_past_target", *rollback_past_target);
        let hold_after = match hold_after {
            HoldAfter::Rollback => "rollback",
            HoldAfter::Any => "any",
            HoldAfter::Never => "never",
        };
        self.add("rollout", "hold_after", hold_after);
    }

    fn judgement(&mut self, judgement: &JudgementPolicy) {
        let JudgementPolicy {
            errors_tolerance_ppm,
            errors_ratio_percent,
            status_4xx_tolerance_ppm,
            status_4xx_ratio_percent,
            p50_tolerance_ppm,
            p99_tolerance_ppm,
            weights,
            alpha_ppm,
            beta_ppm,
            requests_min,
            soak_ms,
            deadline,
            warm_up_ms,
            burst_cap,
            bad_requests_max,
            prometheus,
        } = judgement;
        let ratio = |percent: u32| Value::Float(f64::from(percent) / 100.0);
        self.add("judgement", "errors_ratio", ratio(*errors_ratio_percent));
        self.add("judgement", "errors_tolerance", percent(*errors_tolerance_ppm));
        self.add("judgement", "4xx_ratio", ratio(*status_4xx_ratio_percent));
        self.add("judgement", "4xx_tolerance", percent(*status_4xx_tolerance_ppm));
        self.add("judgement", "p50_tolerance", percent(*p50_tolerance_ppm));
        self.add("judgement", "p99_tolerance", percent(*p99_tolerance_ppm));
        let MetricWeights { errors, status_4xx, p50, p99 } = *weights;
        let weights = [("errors", errors), ("4xx", status_4xx), ("p50", p50), ("p99", p99)];
        let weights = weights.map(|(metric, weight)| (metric.to_owned(), Value::from(i64::from(weight))));
        self.add("judgement", "weights", Table::from_iter(weights));
        self.add("judgement", "alpha", percent(*alpha_ppm));
        self.add("judgement", "beta", percent(*beta_ppm));
        self.add("judgement", "requests_min", i64::try_from(*requests_min).unwrap_or(i64::MAX));
        self.add("judgement", "soak", duration(*soak_ms));
        let deadline = match deadline {
            Deadline::GoOn => "go on",
            Deadline::Hold => "hold",
        };
        self.add("judgement", "deadline", deadline);
        self.add("judgement", "warm_up", duration(*warm_up_ms));
        self.add("judgement", "burst_cap", *burst_cap);
        self.add("judgement", "bad_requests_max", i64::from(*bad_requests_max));
        if let Some(source) = prometheus {
            self.add("judgement", "prometheus", prometheus_table(source));
        }
    }
}

fn prometheus_table(prometheus: &Prometheus) -> Table {
    let Prometheus { address, token, scrape_interval_ms, queries } = prometheus;
    let Queries { requests, errors, status_4xx, latency } = queries;
    let mut table = Table::new();
    table.insert("address".to_owned(), address.as_str().into());
    table.extend(token.as_ref().map(|token| ("token".to_owned(), variable(token))));
    table.insert("scrape_interval".to_owned(), duration(*scrape_interval_ms).into());
    for (name, query) in [("requests", requests), ("errors", errors), ("4xx", status_4xx), ("latency", latency)] {
        table.extend(query.as_ref().map(|query| (name.to_owned(), Value::from(query.as_str()))));
    }
    table
}

fn variables(env: &BTreeMap<String, EnvValue>) -> Table {
    env.iter().map(|(name, value)| (name.clone(), variable(value))).collect()
}

fn variable(value: &EnvValue) -> Value {
    let reference = |kind: &str, of: &str| Value::Table(Table::from_iter([(kind.to_owned(), Value::from(of))]));
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
        after.policy.judgement.errors_tolerance_ppm = 20_000;
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
