//! How a release is run: its artifact, arguments, environment and check.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::Hash;
use crate::secret;
use crate::text::{self, InvalidText};

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
    /// The user of the node's host as whom it runs where ionledger is root; without one a user is made for the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
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
            user: None,
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

/// Returns every name in an argument that is written as a placeholder, `{prt}`, and is none.
pub fn unknown_placeholders(arg: &str) -> impl Iterator<Item = &str> {
    let names = arg.split('{').skip(1).filter_map(|rest| rest.split_once('}').map(|(name, _)| name));
    let is_name =
        |name: &&str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    names.filter(is_name).filter(|name| *name != PORT)
}

/// What stands for the node's port in an argument, in braces.
const PORT: &str = "port";

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
            let next = self.args.get(n + 1).map(String::as_str);
            if let Some(why) = secret::looks_like_secret_arguments(arg, next) {
                return Err(InvalidRun::Secret { place: format!("argument {}", n + 1), why });
            }
            if arg.contains('\0') {
                return field(format!("argument {} holds a NUL, which no program can be given", n + 1));
            }
        }
        for (name, value) in &self.env {
            if !is_variable(name) {
                return field(format!("`{}` is not a valid name of a variable", name.escape_default()));
            }
            if name == "PORT" || name.starts_with("IONLEDGER_") {
                return field(format!(
                    "env {name}: ionledger sets this variable itself; choose another name, `{{port}}` in args is the port too"
                ));
            }
            value.validate(name)?;
        }
        self.check.validate()?;
        if !(1_000..=86_400_000).contains(&self.start_deadline_ms) {
            return field("the start deadline must be from 1 s to 1 day".to_owned());
        }
        match self.user.as_deref() {
            Some("root") => {
                return field("user is root, and no node runs as root; name another user, or leave it out".to_owned());
            }
            Some(user) if !is_user(user) => {
                return field(format!(
                    "user `{}` is not a user's name, such as `api` or `www-data`",
                    user.escape_default()
                ));
            }
            _ => {}
        }
        Ok(())
    }
}

impl EnvValue {
    /// Checks a literal for secrets, and a reference for being one: a secret must not get in as a name either.
    fn validate(&self, name: &str) -> Result<(), InvalidRun> {
        let secret = |why| Err(InvalidRun::Secret { place: format!("env {name}"), why });
        let field = |what: &str| Err(InvalidRun::Field(format!("env {name}: {what}")));
        match self {
            EnvValue::Value(value) => match secret::looks_like_secret(name, value) {
                Some(why) => secret(why),
                None if value.contains('\0') => field("the value holds a NUL, which no program can be given"),
                None => Ok(()),
            },
            EnvValue::FromEnv(other) => match secret::looks_like_secret_value(other) {
                Some(why) => secret(why),
                None if !is_variable(other) => field("from_env must be the name of an environment variable"),
                None => Ok(()),
            },
            EnvValue::FromFile(path) if !path.starts_with('/') || path.contains(char::is_control) => {
                field("from_file must be the path of a file, from `/`")
            }
            EnvValue::FromFile(_) => Ok(()),
        }
    }
}

impl HttpCheck {
    fn validate(&self) -> Result<(), InvalidRun> {
        let field = |text: String| Err(InvalidRun::Field(text));
        if !self.path.starts_with('/') || self.path.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return field(format!(
                "check path `{}` must begin with `/` and hold no blanks",
                self.path.escape_default()
            ));
        }
        if !(100..=599).contains(&self.status) {
            return field(format!("check status {} is not an HTTP status", self.status));
        }
        if !(10..=60_000).contains(&self.timeout_ms) || !(10..=60_000).contains(&self.interval_ms) {
            return field("check timeout and interval must be from 10 ms to 60 s".to_owned());
        }
        if self.latency_ms_max == Some(0) {
            return field("check latency must be at least 1 ms, no answer takes none".to_owned());
        }
        if !(1..=100).contains(&self.healthy_after) {
            return field("check healthy_after must be from 1 to 100".to_owned());
        }
        Ok(())
    }
}

/// Says whether a text can be the name of a user. Source: Debian, adduser(8), NAME_REGEX, and useradd(8): 32 characters.
fn is_user(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl Artifact {
    /// Checks its name, which is shown to people.
    ///
    /// # Errors
    ///
    /// [`InvalidText`] if it is too long or not printable.
    pub fn validate(&self) -> Result<(), InvalidText> {
        text::check("the artifact's name", &self.name, 255)
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
    fn a_secret_does_not_get_in_as_a_reference_or_as_two_arguments() {
        let mut run = RunSpec::default();
        run.env.insert("KEY".into(), EnvValue::FromEnv("ghp_16C7e42F292c6912E7710c838347Ae178B4a".into()));
        assert!(matches!(run.validate(), Err(InvalidRun::Secret { .. })));
        run.env.insert("KEY".into(), EnvValue::FromFile("correct horse".into()));
        assert!(matches!(run.validate(), Err(InvalidRun::Field(_))));
        run.env.insert("KEY".into(), EnvValue::FromFile("/run/secrets/key".into()));
        assert_eq!(run.validate(), Ok(()));
        run.args = vec!["--password".into(), "hunter2hunter2".into()];
        assert!(matches!(run.validate(), Err(InvalidRun::Secret { .. })));
        run.args = vec!["--token-file".into(), "/run/secrets/token".into()];
        assert_eq!(run.validate(), Ok(()));
    }

    #[test]
    fn a_nul_is_refused_before_a_launch_fails_of_it() {
        let mut run = RunSpec { args: vec!["a\0b".into()], ..RunSpec::default() };
        assert!(run.validate().is_err());
        run.args.clear();
        run.env.insert("X".into(), EnvValue::Value("a\0b".into()));
        assert!(run.validate().is_err());
    }

    #[test]
    fn a_variable_that_every_node_gets_is_refused_and_not_overridden_in_silence() {
        for name in ["PORT", "IONLEDGER_VERSION"] {
            let env = BTreeMap::from([(name.to_owned(), EnvValue::Value("1".into()))]);
            let error = RunSpec { env, ..RunSpec::default() }.validate().unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("sets this variable itself"), "{error}");
        }
    }

    #[test]
    fn what_looks_like_a_placeholder_and_is_none_is_found() {
        let unknown = |arg: &'static str| unknown_placeholders(arg).collect::<Vec<_>>();
        assert_eq!(unknown("--port={prt}"), ["prt"]);
        assert_eq!(unknown("{port}:{Port}"), ["Port"]);
        assert_eq!(unknown("${HOME}/{prt}"), ["HOME", "prt"]);
        for arg in ["{port}", "0.0.0.0:{port}", "{\"a\":1}", "{}", "{{.Name}}", "a{b", "}{", "{a b}", ""] {
            assert!(unknown(arg).is_empty(), "{arg}");
        }
    }

    #[test]
    fn a_user_is_a_users_name_and_never_root() {
        let run = |user: &str| RunSpec { user: Some(user.to_owned()), ..RunSpec::default() }.validate();
        for user in ["api", "_apt", "www-data", "s3"] {
            assert_eq!(run(user), Ok(()), "{user}");
        }
        for user in ["", "root", "0", "-x", "Ana", "a b", "a:b", "a/b", &"a".repeat(33)] {
            assert!(run(user).is_err(), "{user}");
        }
    }

    #[test]
    fn min_ready_is_at_most_nodes() {
        assert!(Capacity { nodes: 2, min_ready: 3 }.validate().is_err());
        assert!(Capacity { nodes: 0, min_ready: 0 }.validate().is_err());
        assert!(Capacity { nodes: 2, min_ready: 2 }.validate().is_ok());
    }
}
