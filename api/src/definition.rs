//! The form in which people write a service down: `SERVICE.toml`.
//!
//! ```toml
//! name = "api"
//! owner = "team-checkout"
//!
//! [listen]
//! production = "127.0.0.1:8080"
//!
//! [run]
//! args = ["--port={port}"]
//! env = { LOG_LEVEL = "info", DB_PASSWORD = { from_env = "API_DB_PASSWORD" } }
//!
//! [rollout]
//! steps = ["1 %", 5, 25, 100]
//! duration = "2 hours"
//! ```
//!
//! Everything but `name` and `owner` may be left out. Unknown keys are refused. Every error is one line that
//! names the file, line and column: `api.toml:12:10: rollout.steps: ...`.

mod judgement;
mod schema;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use schemas::policy::{HoldAfter, Policy, RetentionPolicy, RolloutPolicy};
use schemas::run::{Capacity, EnvValue, HttpCheck, RunSpec};
use schemas::service::Definition;
use schemas::{EnvironmentName, ServiceName, Weight, text};

use crate::document::{Document, Item, Section, shown};
use crate::moment;

pub use crate::document::{Error, Place};
pub use schema::json_schema;

/// Reads a service's file; `file` is its name for messages.
///
/// # Errors
///
/// [`Error`] with every wrong place, in the file's order.
pub fn parse(file: &str, contents: &str) -> Result<(ServiceName, Definition), Error> {
    let document = Document::parse(file, contents)?;
    let mut root = document.root();
    let name = root.required("name", "name the service as its address is written, `api`").and_then(Item::parsed);
    let owner = root.required("owner", "name the team that answers for it").and_then(|item| item.checked(owner));
    let description = root.get("description").and_then(|item| item.checked(description)).unwrap_or_default();
    let listen = listen(root.section("listen"));
    let run = run(root.section("run"), root.section("check"));
    let capacity = capacity(root.section("capacity"));
    let rollout = rollout(root.section("rollout"));
    let judgement = judgement::read(root.section("judgement"));
    let retention = retention(root.section("retention"));
    root.end();
    document.finish()?;
    let policy = Policy { rollout, judgement, retention };
    let (Some(name), Some(owner)) = (name, owner) else { unreachable!("a missing name or owner is an error") };
    let definition = Definition { owner, description, listen, run, capacity, policy };
    // An error in the file as a whole has no line of its own.
    definition.validate().map_err(|reason| Error::of_whole(file, reason))?;
    Ok((name, definition))
}

fn owner(written: &str) -> Result<String, String> {
    match written.trim() {
        "" => Err("it is empty; name the team that answers for the service".to_owned()),
        name => text::check("it", name, 200).map(|()| name.to_owned()).map_err(|error| error.to_string()),
    }
}

fn description(written: &str) -> Result<String, String> {
    // A description may be written on several lines; it is one sentence all the same.
    let joined = written.split_whitespace().collect::<Vec<_>>().join(" ");
    text::check("it", &joined, 2_000).map(|()| joined).map_err(|error| error.to_string())
}

fn listen(section: Section<'_>) -> BTreeMap<EnvironmentName, SocketAddr> {
    let mut listen = BTreeMap::new();
    for item in section.all() {
        let Some(environment) = item.key_parsed::<EnvironmentName>() else { continue };
        let taken = |address: &SocketAddr| listen.values().any(|other| other == address);
        let address = item.checked(|text| {
            let no_address = |_| format!("`{}` is no address; write `127.0.0.1:8080`", shown(text));
            let address: SocketAddr = text.parse().map_err(no_address)?;
            match address {
                _ if address.port() == 0 => Err("port 0 is no port; name one, or leave the environment out".to_owned()),
                _ if taken(&address) => Err(format!("another environment listens on {address}")),
                _ => Ok(address),
            }
        });
        listen.extend(address.map(|address| (environment, address)));
    }
    listen
}

fn run(mut section: Section<'_>, check_section: Section<'_>) -> RunSpec {
    let default = RunSpec::default();
    let args = section.get("args").and_then(|item| {
        let args: Option<Vec<String>> = item.list()?.into_iter().map(|arg| arg.text().map(str::to_owned)).collect();
        item.valid(args?, |args| RunSpec { args: args.clone(), ..RunSpec::default() }.validate())
    });
    let start_deadline_ms = section.get("start_deadline").and_then(|item| {
        item.valid(item.duration_ms()?, |ms| RunSpec { start_deadline_ms: *ms, ..RunSpec::default() }.validate())
    });
    let env = env(section.section("env"));
    let user = section.get("user").and_then(|item| {
        item.valid(item.text()?.to_owned(), |user| {
            RunSpec { user: Some(user.clone()), ..RunSpec::default() }.validate()
        })
    });
    section.end();
    RunSpec {
        args: args.unwrap_or(default.args),
        env,
        check: check(check_section),
        start_deadline_ms: start_deadline_ms.unwrap_or(default.start_deadline_ms),
        user,
    }
}

fn env(section: Section<'_>) -> BTreeMap<String, EnvValue> {
    let mut env = BTreeMap::new();
    for item in section.all() {
        let Some(value) = env_value(&item) else { continue };
        let name = item.key().to_owned();
        let alone = |value: &EnvValue| {
            let env = BTreeMap::from([(name.clone(), value.clone())]);
            RunSpec { env, ..RunSpec::default() }.validate()
        };
        env.extend(item.valid(value, alone).map(|value| (name.clone(), value)));
    }
    env
}

fn env_value(item: &Item<'_>) -> Option<EnvValue> {
    if !item.is_table() {
        return item.text().map(|text| EnvValue::Value(text.to_owned()));
    }
    let mut section = item.table()?;
    let from_env = section.get("from_env").map(|item| item.text().map(|text| EnvValue::FromEnv(text.to_owned())));
    let from_file = section.get("from_file").map(|item| item.text().map(|text| EnvValue::FromFile(text.to_owned())));
    let understood = section.end();
    match (from_env, from_file) {
        (Some(value), None) | (None, Some(value)) => value,
        _ if !understood => None,
        _ => item.wrong("write a text, `{ from_env = \"NAME\" }` or `{ from_file = \"PATH\" }`"),
    }
}

fn check(mut section: Section<'_>) -> HttpCheck {
    fn valid<T>(item: &Item<'_>, value: T, set: impl Fn(&mut HttpCheck, &T)) -> Option<T> {
        item.valid(value, |value| {
            let mut run = RunSpec::default();
            set(&mut run.check, value);
            run.validate()
        })
    }
    let default = HttpCheck::default();
    let path = section.get("path").and_then(|item| valid(&item, item.text()?.to_owned(), |c, v| c.path.clone_from(v)));
    let status = section.get("status").and_then(|item| valid(&item, item.integer()?, |c, v| c.status = *v));
    let timeout = section.get("timeout").and_then(|item| valid(&item, item.duration_ms()?, |c, v| c.timeout_ms = *v));
    let interval =
        section.get("interval").and_then(|item| valid(&item, item.duration_ms()?, |c, v| c.interval_ms = *v));
    let healthy =
        section.get("healthy_after").and_then(|item| valid(&item, item.integer()?, |c, v| c.healthy_after = *v));
    let latency = section
        .get("latency_max")
        .and_then(|item| valid(&item, item.duration_ms()?, |c, v| c.latency_ms_max = Some(*v)));
    section.end();
    HttpCheck {
        path: path.unwrap_or(default.path),
        status: status.unwrap_or(default.status),
        timeout_ms: timeout.unwrap_or(default.timeout_ms),
        interval_ms: interval.unwrap_or(default.interval_ms),
        healthy_after: healthy.unwrap_or(default.healthy_after),
        latency_ms_max: latency.or(default.latency_ms_max),
    }
}

fn capacity(mut section: Section<'_>) -> Capacity {
    let default = Capacity::default();
    let nodes = section
        .get("nodes")
        .map(|item| item.valid(item.integer()?, |nodes| Capacity { nodes: *nodes, min_ready: 1 }.validate()));
    // Where `nodes` is wrong itself, `min_ready` is only wrong if no number of nodes would do.
    let nodes = nodes.map_or(default.nodes, |nodes| nodes.unwrap_or(100));
    let min_ready = section
        .get("min_ready")
        .and_then(|item| item.valid(item.integer()?, |min| Capacity { nodes, min_ready: *min }.validate()));
    section.end();
    Capacity { nodes, min_ready: min_ready.unwrap_or(default.min_ready) }
}

/// Checks a policy in which only this value is not the default.
fn in_policy<T>(item: &Item<'_>, value: T, set: impl Fn(&mut Policy, &T)) -> Option<T> {
    item.valid(value, |value| {
        let mut policy = Policy::default();
        set(&mut policy, value);
        policy.validate()
    })
}

fn rollout(mut section: Section<'_>) -> RolloutPolicy {
    let default = RolloutPolicy::default();
    let steps = section.get("steps").and_then(|item| {
        let steps: Option<Vec<Weight>> = item.list()?.iter().map(|step| step.percent(str::parse)).collect();
        in_policy(&item, steps?, |policy, steps| policy.rollout.steps.clone_from(steps))
    });
    let duration = section
        .get("duration")
        .and_then(|item| in_policy(&item, item.duration_ms()?, |policy, ms| policy.rollout.duration_ms = *ms));
    let on_release = section.get("on_release").and_then(|item| item.boolean());
    let early = section.get("early").and_then(|item| {
        in_policy(&item, item.checked(early)?, |policy, after| policy.rollout.early_after_ms = *after)
    });
    let bake = section
        .get("bake")
        .and_then(|item| in_policy(&item, item.duration_ms()?, |policy, ms| policy.rollout.bake_ms = *ms));
    let control = section
        .get("control")
        .and_then(|item| in_policy(&item, item.percent(str::parse)?, |policy, share| policy.rollout.control = *share));
    let rollback_past_target = section.get("rollback_past_target").and_then(|item| item.boolean());
    let hold_after = section.get("hold_after").and_then(|item| item.checked(hold_after));
    section.end();
    RolloutPolicy {
        steps: steps.unwrap_or(default.steps),
        duration_ms: duration.unwrap_or(default.duration_ms),
        on_release: on_release.unwrap_or(default.on_release),
        early_after_ms: early.unwrap_or(default.early_after_ms),
        bake_ms: bake.unwrap_or(default.bake_ms),
        control: control.unwrap_or(default.control),
        rollback_past_target: rollback_past_target.unwrap_or(default.rollback_past_target),
        hold_after: hold_after.unwrap_or(default.hold_after),
    }
}

/// Reads which rollbacks put a deployment on hold.
fn hold_after(text: &str) -> Result<HoldAfter, String> {
    match text.trim() {
        "rollback" => Ok(HoldAfter::Rollback),
        "any" => Ok(HoldAfter::Any),
        "never" => Ok(HoldAfter::Never),
        _ => Err(format!("`{}` is none of `rollback` (a person's), `any` and `never`", shown(text))),
    }
}

/// Reads how long after its first step an accepted canary may have all traffic: `never`, or `after 30 minutes`.
fn early(text: &str) -> Result<Option<u64>, String> {
    match text.trim().strip_prefix("after ") {
        Some(soak) => moment::duration_ms(soak).map(Some),
        None if text.trim() == "never" => Ok(None),
        None => Err(format!("`{}` says not when; write `after 30 minutes` or `never`", shown(text))),
    }
}

fn retention(mut section: Section<'_>) -> RetentionPolicy {
    let default = RetentionPolicy::default();
    let serving_max = section
        .get("serving_max")
        .and_then(|item| in_policy(&item, item.integer()?, |policy, n| policy.retention.serving_max = *n));
    let warm_for = section
        .get("warm_for")
        .and_then(|item| in_policy(&item, item.duration_ms()?, |policy, ms| policy.retention.warm_for_ms = *ms));
    let warm_max = section
        .get("warm_max")
        .and_then(|item| in_policy(&item, item.integer()?, |policy, n| policy.retention.warm_max = *n));
    let drain = section
        .get("drain")
        .and_then(|item| in_policy(&item, item.duration_ms()?, |policy, ms| policy.retention.drain_ms = *ms));
    section.end();
    RetentionPolicy {
        serving_max: serving_max.unwrap_or(default.serving_max),
        warm_for_ms: warm_for.unwrap_or(default.warm_for_ms),
        warm_max: warm_max.unwrap_or(default.warm_max),
        drain_ms: drain.unwrap_or(default.drain_ms),
    }
}

#[cfg(test)]
mod tests;
