//! How a release is run: its artifact, arguments, environment and check.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::Hash;
use crate::secret;

/// The file that a release runs, kept under its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Artifact {
    /// The SHA-256 of its bytes.
    pub sha256: Hash,
    /// The file's name when it was recorded; for people only.
    pub name: String,
    /// Its length in bytes.
    pub size_bytes: u64,
}

/// A value in a node's environment. Secrets are references only: the ledger keeps everything for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EnvValue {
    /// The value itself, for everyone to read.
    Value(String),
    /// The name of a variable in the launcher's environment that holds the value.
    FromEnv(String),
    /// The path of a file on the node's host that holds the value.
    FromFile(String),
}

/// The check that a node must pass before it gets user traffic, and goes on passing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    /// The path asked for, from `/`.
    pub path: String,
    /// The one status that passes.
    pub status: u16,
    /// How long an answer may take, in milliseconds.
    pub timeout_ms: u64,
    /// How long to wait from one probe to the next, in milliseconds.
    pub interval_ms: u64,
    /// How many probes in a row must pass before a node is ready, and must fail before it is unhealthy.
    pub healthy_after: u16,
    /// The longest time an answer may take and still pass, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms_max: Option<u64>,
}

impl Default for HttpCheck {
    fn default() -> Self {
        Self {
            path: "/health".to_owned(),
            status: 200,
            timeout_ms: 1_000,
            interval_ms: 1_000,
            healthy_after: 2,
            latency_ms_max: None,
        }
    }
}

/// How a service's releases are run. A release freezes the one that is current when it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunSpec {
    /// Arguments; `{port}` stands for the node's port.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, EnvValue>,
    /// The check of a node.
    #[serde(default)]
    pub check: HttpCheck,
    /// How long a stack may take from being asked for to being ready, in milliseconds.
    #[serde(default = "default_start_deadline_ms")]
    pub start_deadline_ms: u64,
}

fn default_start_deadline_ms() -> u64 {
    120_000
}

impl Default for RunSpec {
    fn default() -> Self {
        Self {
            args: Vec::new(),
            env: BTreeMap::new(),
            check: HttpCheck::default(),
            start_deadline_ms: default_start_deadline_ms(),
        }
    }
}

/// How many nodes a stack has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Capacity {
    /// Nodes wanted.
    pub nodes: u16,
    /// Nodes that must be healthy for the stack to count as healthy.
    pub min_ready: u16,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { nodes: 1, min_ready: 1 }
    }
}

/// Why a run spec or capacity is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRun {
    /// A literal that looks like a secret.
    #[error(
        "{place} looks like a secret ({why}); refer to it with `from_env` or `from_file`, the ledger keeps every value for ever"
    )]
    Secret {
        /// Where it stands.
        place: String,
        /// What it looks like.
        why: &'static str,
    },
    /// Anything else.
    #[error("{0}")]
    Field(String),
}

impl RunSpec {
    /// Checks what the types cannot: ranges, paths, names, and that nothing looks like a secret.
    ///
    /// # Errors
    ///
    /// [`InvalidRun`] naming the field; a suspected secret's value is not repeated.
    pub fn validate(&self) -> Result<(), InvalidRun> {
        let field = |text: String| Err(InvalidRun::Field(text));
        for (n, arg) in self.args.iter().enumerate() {
            if let Some(why) = secret::looks_like_secret_argument(arg) {
                return Err(InvalidRun::Secret { place: format!("argument {}", n + 1), why });
            }
        }
        for (name, value) in &self.env {
            let bytes = name.as_bytes();
            let named = !bytes.is_empty()
                && !bytes[0].is_ascii_digit()
                && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_');
            if !named {
                return field(format!("`{}` is no environment variable's name", name.escape_default()));
            }
            if let EnvValue::Value(value) = value
                && let Some(why) = secret::looks_like_secret(name, value)
            {
                return Err(InvalidRun::Secret { place: format!("env {name}"), why });
            }
        }
        let check = &self.check;
        if !check.path.starts_with('/') || check.path.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return field(format!(
                "check path `{}` must begin with `/` and hold no blanks",
                check.path.escape_default()
            ));
        }
        if !(100..=599).contains(&check.status) {
            return field(format!("check status {} is no HTTP status", check.status));
        }
        if !(10..=60_000).contains(&check.timeout_ms) || !(10..=60_000).contains(&check.interval_ms) {
            return field("check timeout and interval must be from 10 ms to 60 s".to_owned());
        }
        if !(1..=100).contains(&check.healthy_after) {
            return field("check healthy_after must be from 1 to 100".to_owned());
        }
        if !(1_000..=86_400_000).contains(&self.start_deadline_ms) {
            return field("the start deadline must be from 1 s to 1 day".to_owned());
        }
        Ok(())
    }
}

impl Capacity {
    /// Checks the ranges.
    ///
    /// # Errors
    ///
    /// [`InvalidRun`] if there are no nodes, more than 100, or `min_ready` is not from 1 to `nodes`.
    pub fn validate(&self) -> Result<(), InvalidRun> {
        if !(1..=100).contains(&self.nodes) {
            return Err(InvalidRun::Field(format!("nodes is {}; it must be from 1 to 100", self.nodes)));
        }
        if !(1..=self.nodes).contains(&self.min_ready) {
            let (min, nodes) = (self.min_ready, self.nodes);
            return Err(InvalidRun::Field(format!("min_ready is {min}; it must be from 1 to nodes ({nodes})")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_secret_is_refused_without_repeating_it() {
        let mut run = RunSpec::default();
        run.env.insert("DB_PASSWORD".into(), EnvValue::Value("hunter2hunter2".into()));
        let error = run.validate().unwrap_err().to_string();
        assert!(error.starts_with("env DB_PASSWORD looks like a secret"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
        run.env.insert("DB_PASSWORD".into(), EnvValue::FromEnv("DB_PASSWORD".into()));
        assert_eq!(run.validate(), Ok(()));
    }

    #[test]
    fn min_ready_is_at_most_nodes() {
        assert!(Capacity { nodes: 2, min_ready: 3 }.validate().is_err());
        assert!(Capacity { nodes: 0, min_ready: 0 }.validate().is_err());
        assert!(Capacity { nodes: 2, min_ready: 2 }.validate().is_ok());
    }
}
