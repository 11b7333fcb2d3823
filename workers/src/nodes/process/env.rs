//! A node's environment: clean, but for what is named here.
//!
//! From ionledger's own environment a node gets `PATH`, `LANG`, `LC_ALL` and `TZ`. `HOME` is its working directory. Then
//! come the declared variables, and last, so that no declaration can change them: `PORT`, `IONLEDGER_SERVICE`,
//! `IONLEDGER_ENVIRONMENT`, `IONLEDGER_VERSION`, `IONLEDGER_STACK`,
//! `IONLEDGER_STACK_NAME` (the version, or `1.2.3~2`) and `IONLEDGER_NODE` (the effect id).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use schemas::run::EnvValue;

use crate::nodes::Launch;
use crate::{rights, text_file};

/// The variable that names a node's effect, by which its descendants are known.
pub(super) const NODE: &str = "IONLEDGER_NODE";

const INHERITED: [&str; 4] = ["PATH", "LANG", "LC_ALL", "TZ"];
const PATH_IF_UNSET: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a node's environment cannot be made. It names the reference, never the value.
#[derive(Debug, thiserror::Error)]
#[error("cannot resolve environment variable {variable}: {why}")]
pub(super) struct Unresolved {
    variable: String,
    why: String,
    /// Whether it stays so until ionledger is started again: its own environment does not change.
    pub(super) lasting: bool,
}

/// Returns what a node that is launched from here would lack: variables that are not set here, and files that cannot be read
/// or that others can read. Each is a sentence for people; no value is in it.
pub(super) fn lacks(env: &BTreeMap<String, EnvValue>) -> Vec<String> {
    let found = env.iter().filter_map(|(name, value)| match value {
        EnvValue::Value(_) => None,
        EnvValue::FromEnv(source) if std::env::var_os(source).is_none() => Some(format!(
            "env {name}: the variable {source} is not set where ionledger runs, and no node starts without it; set it and \
             start `ionledger up` again"
        )),
        EnvValue::FromEnv(_) => None,
        EnvValue::FromFile(path) => match (read_secret(path), rights::is_open_secret(Path::new(path))) {
            (Err(cause), _) => Some(format!("env {name}: no node starts without the file {path}, which cannot be read: {cause}")),
            (Ok(_), Some(mode)) => Some(format!(
                "env {name}: the secret file {path} has mode {mode:03o}: every user of this machine can read it; chmod o-r {path}"
            )),
            (Ok(_), None) => None,
        },
    });
    found.collect()
}

/// Returns the whole environment of the node. No secret of the data folder `data` itself gets in.
pub(super) fn of(launch: &Launch, home: &Path, data: &Path) -> Result<BTreeMap<OsString, OsString>, Unresolved> {
    let inherited = INHERITED.iter().filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)));
    let mut env: BTreeMap<_, _> = inherited.collect();
    env.entry("PATH".into()).or_insert_with(|| PATH_IF_UNSET.into());
    env.insert("HOME".into(), home.into());
    for (name, value) in &launch.env {
        if let EnvValue::FromFile(path) = value
            && rights::is_own_secret(data, Path::new(path))
        {
            let why = format!("the file {path} is a secret of ionledger's own; name another file");
            return Err(Unresolved { variable: name.clone(), why, lasting: true });
        }
        env.insert(name.into(), resolve(name, value)?);
    }
    let given = [
        ("PORT", launch.port.to_string()),
        ("IONLEDGER_SERVICE", launch.deployment.service.to_string()),
        ("IONLEDGER_ENVIRONMENT", launch.deployment.environment.to_string()),
        ("IONLEDGER_VERSION", launch.version.to_string()),
        ("IONLEDGER_STACK_NAME", launch.stack_name().to_string()),
        ("IONLEDGER_STACK", launch.stack.to_string()),
        (NODE, launch.effect.to_string()),
    ];
    env.extend(given.map(|(name, value)| (name.into(), value.into())));
    Ok(env)
}

/// Returns the values of the node's secrets as they are now, to mask them.
pub(super) fn secrets(launch: &Launch) -> Result<Vec<OsString>, Unresolved> {
    let references = launch.env.iter().filter(|(_, value)| !matches!(value, EnvValue::Value(_)));
    references.map(|(name, value)| resolve(name, value)).collect()
}

/// Returns the values of the node's secrets, to mask them: of a running node, whose process `pid` is, those that it was
/// given; else as they are now.
pub(super) fn secrets_of(launch: &Launch, pid: Option<i32>) -> Result<Vec<OsString>, Unresolved> {
    let given = pid.and_then(|pid| std::fs::read(format!("/proc/{pid}/environ")).ok()).filter(|all| !all.is_empty());
    let Some(given) = given else { return secrets(launch) };
    let is_secret = |name: &[u8]| {
        let value = std::str::from_utf8(name).ok().and_then(|name| launch.env.get(name));
        value.is_some_and(|value| !matches!(value, EnvValue::Value(_)))
    };
    let pairs = given.split(|byte| *byte == 0).filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        Some((&pair[..at], &pair[at + 1..]))
    });
    Ok(pairs.filter(|(name, _)| is_secret(name)).map(|(_, value)| OsString::from_vec(value.to_vec())).collect())
}

fn resolve(name: &str, value: &EnvValue) -> Result<OsString, Unresolved> {
    let fail = |why: String, lasting| Unresolved { variable: name.to_owned(), why, lasting };
    let resolved = match value {
        EnvValue::Value(text) => text.into(),
        EnvValue::FromEnv(source) => std::env::var_os(source).ok_or_else(|| {
            fail(format!("the variable {source} is not set where ionledger runs; set it and start again"), true)
        })?,
        // A file may yet come: it is mounted, or written by somebody else.
        EnvValue::FromFile(path) => {
            read_secret(path).map_err(|cause| fail(format!("the file {path}: {cause}"), false))?
        }
    };
    if resolved.as_bytes().contains(&0) {
        return Err(fail("the value holds a zero byte".into(), true));
    }
    Ok(resolved)
}

/// Returns the file's content without the line end that editors leave behind.
fn read_secret(path: &str) -> io::Result<OsString> {
    let mut bytes = text_file::read(Path::new(path), text_file::SECRET_KIB_MAX)?;
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    Ok(OsString::from_vec(bytes))
}
