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

use schemas::declaration::table::{Key, Kind, Table, smallest, tables};
use schemas::policy::Policy;
use schemas::run::{EnvValue, RunSpec};
use schemas::service::Definition;
use schemas::{EnvironmentName, ServiceName};

use crate::document::{Document, Item, Section, shown};
use crate::moment;

pub use crate::document::{Error, Position};
pub use schema::json_schema;

/// Reads a service's file; `file` is its name for messages.
///
/// # Errors
///
/// [`Error`] with every wrong place, in the file's order.
pub fn parse(file: &str, contents: &str) -> Result<(ServiceName, Definition), Error> {
    let document = Document::parse(file, contents)?;
    let mut root = document.root();
    let mut read = Read { name: None, definition: smallest("") };
    for Table { name, keys, .. } in tables() {
        if name.is_empty() {
            keys.iter().for_each(|key| read.key(&mut root, key));
        } else {
            read.table(root.section(name), &keys);
        }
    }
    root.end();
    document.finish()?;
    let Read { name: Some(name), definition } = read else { unreachable!("a missing name is an error") };
    // An error in the file as a whole has no line of its own.
    definition.validate().map_err(|reason| Error::of_whole(file, reason))?;
    Ok((name, definition))
}

/// What was read so far; where something was wrong, the default.
struct Read {
    name: Option<ServiceName>,
    definition: Definition,
}

impl Read {
    fn table(&mut self, mut section: Section<'_>, keys: &[Key]) {
        if let [Key { kind: Kind::Addresses, .. }] = keys {
            self.definition.listen = listen(section);
            return;
        }
        keys.iter().for_each(|key| self.key(&mut section, key));
        section.end();
    }

    fn key(&mut self, section: &mut Section<'_>, key: &Key) {
        match key.kind {
            Kind::Variables => self.definition.run.env = env(section.section(&key.name)),
            Kind::Tolerance(metric) => judgement::tolerance(section, metric, &mut self.definition.policy.judgement),
            // Read with its tolerance.
            Kind::Ratio(_) => {}
            _ => {
                let item = match key.required {
                    Some(next) => section.required(&key.name, next),
                    None => section.get(&key.name),
                };
                if let Some(item) = item {
                    self.item(item, &key.kind);
                }
            }
        }
    }

    /// Reads an item as its row says. What is wrong is said of its place, and nothing is set.
    fn item(&mut self, item: Item<'_>, kind: &Kind) -> Option<()> {
        let definition = &mut self.definition;
        match kind {
            Kind::Name => self.name = item.parsed(),
            Kind::Text { at, read, .. } => {
                let text = item.checked(read)?;
                self.set(&item, |of| at(of).clone_from(&text))?;
            }
            Kind::TextIfAny { at, .. } => {
                let text = item.text()?.to_owned();
                self.set(&item, |of| *at(of) = Some(text.clone()))?;
            }
            Kind::Texts(at) => {
                let texts: Option<Vec<String>> = item.list()?.iter().map(|of| of.text().map(str::to_owned)).collect();
                let texts = texts?;
                self.set(&item, |of| at(of).clone_from(&texts))?;
            }
            Kind::Whole { to, set, .. } => {
                let number: u64 = item.integer()?;
                if !set(&mut definition.clone(), number) {
                    return item.wrong(format!("{number} is out of range"));
                }
                let valid = self.set(&item, |of| _ = set(of, number));
                if valid.is_none() {
                    // Said to be wrong; nothing else shall be wrong for it, as `min_ready` for `nodes`.
                    set(&mut self.definition, *to);
                }
            }
            Kind::Flag(at) => *at(definition) = item.boolean()?,
            Kind::Duration { at, with_others: true, .. } => *at(definition) = item.duration_ms()?,
            Kind::Duration { at, .. } => {
                let ms = item.duration_ms()?;
                self.set(&item, |of| *at(of) = ms)?;
            }
            Kind::DurationIfAny { at, .. } => {
                let ms = item.duration_ms()?;
                self.set(&item, |of| *at(of) = Some(ms))?;
            }
            Kind::Choice { words, set, wrong, .. } => {
                let none = |text: &str| format!("`{}` {wrong}", shown(text));
                let position = |text: &str| words.iter().position(|word| *word == text.trim());
                let chosen = item.checked(|text| position(text).ok_or_else(|| none(text)))?;
                set(definition, chosen);
            }
            Kind::Shares(at) => {
                let shares: Option<Vec<_>> = item.list()?.iter().map(|share| share.percent(str::parse)).collect();
                let shares = shares?;
                self.set(&item, |of| at(of).clone_from(&shares))?;
            }
            Kind::Share(at) => {
                let share = item.percent(str::parse)?;
                self.set(&item, |of| *at(of) = share)?;
            }
            Kind::After(at) => {
                let after = item.checked(after)?;
                self.set(&item, |of| *at(of) = after)?;
            }
            Kind::Percent(at) => {
                let ppm = item.percent(judgement::parts_per_million)?;
                self.set(&item, |of| *at(of) = ppm)?;
            }
            Kind::Weights => {
                let weights = judgement::weights(&item)?;
                let weigh = |of: &mut Definition| {
                    let metrics = &mut of.policy.judgement.metrics;
                    *metrics = metrics.clone().weighing(&weights);
                };
                self.set(&item, weigh)?;
            }
            Kind::Server { keys, copy, .. } => {
                let mut section = item.table()?;
                keys().iter().for_each(|key| self.key(&mut section, key));
                section.end();
                // Its address is checked last, where nothing else can be wrong with it.
                let mut alone = smallest("team");
                copy(&self.definition, &mut alone);
                item.valid((), |()| alone.validate())?;
            }
            Kind::Url(at) => *at(definition) = item.text()?.to_owned(),
            Kind::Reference(at) => match env_value(&item)? {
                EnvValue::Value(_) => {
                    return item.wrong("write `{ from_env = \"NAME\" }` or `{ from_file = \"PATH\" }`");
                }
                reference => self.set(&item, |of| *at(of) = Some(reference.clone()))?,
            },
            Kind::Query(name, at) => {
                // A query may be written on several lines; it is one all the same.
                let query = item.text()?.split_whitespace().collect::<Vec<_>>().join(" ");
                self.set(&item, |of| at(of).set(name, Some(query.clone())))?;
            }
            // These have no item of their own.
            Kind::Addresses | Kind::Variables | Kind::Tolerance(_) | Kind::Ratio(_) => {}
        }
        Some(())
    }

    /// Sets a value if a declaration in which only this is not the default is valid.
    fn set(&mut self, item: &Item<'_>, set: impl Fn(&mut Definition)) -> Option<()> {
        let mut alone = smallest("team");
        // So many are never wrong for `min_ready`, which is for them.
        alone.capacity.nodes = self.definition.capacity.nodes;
        set(&mut alone);
        item.valid((), |()| alone.validate())?;
        set(&mut self.definition);
        Some(())
    }
}

fn listen(section: Section<'_>) -> BTreeMap<EnvironmentName, SocketAddr> {
    let mut listen = BTreeMap::new();
    for item in section.all() {
        let Some(environment) = item.key_parsed::<EnvironmentName>() else { continue };
        let taken = |address: &SocketAddr| listen.values().any(|other| other == address);
        let address = item.checked(|text| {
            let no_address = |_| format!("`{}` is not an address; write `127.0.0.1:8080`", shown(text));
            let address: SocketAddr = text.parse().map_err(no_address)?;
            match address {
                _ if address.port() == 0 => {
                    Err("port 0 cannot be used; name another, or leave the environment out".to_owned())
                }
                _ if taken(&address) => Err(format!("another environment listens on {address}")),
                _ => Ok(address),
            }
        });
        listen.extend(address.map(|address| (environment, address)));
    }
    listen
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

/// Checks a policy in which only this value is not the default.
fn in_policy<T>(item: &Item<'_>, value: T, set: impl Fn(&mut Policy, &T)) -> Option<T> {
    item.valid(value, |value| {
        let mut policy = Policy::default();
        set(&mut policy, value);
        policy.validate()
    })
}

/// Reads how long after its first step an accepted canary may have all traffic: `never`, or `after 30 minutes`.
fn after(text: &str) -> Result<Option<u64>, String> {
    match text.trim().strip_prefix("after ") {
        Some(soak) => moment::duration_ms(soak).map(Some),
        None if text.trim() == "never" => Ok(None),
        None => Err(format!("`{}` names no time; write `after 30 minutes` or `never`", shown(text))),
    }
}

#[cfg(test)]
mod tests;
