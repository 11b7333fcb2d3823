//! A node's environment: clean, but for what is named here.
//!
//! From ionledger's own environment a node gets `PATH`, `LANG`, `LC_ALL` and `TZ`. `HOME` is its working directory. Then
//! come the declared variables, and last, so that no declaration can change them: `PORT`, `IONLEDGER_SERVICE`,
//! `IONLEDGER_ENVIRONMENT`, `IONLEDGER_VERSION`, `IONLEDGER_STACK` and `IONLEDGER_NODE` (the effect id).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use schemas::run::EnvValue;

use crate::nodes::Launch;

/// The variable that names a node's effect, by which its descendants are known.
pub(super) const NODE: &str = "IONLEDGER_NODE";

const INHERITED: [&str; 4] = ["PATH", "LANG", "LC_ALL", "TZ"];
const PATH_IF_UNSET: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Why a node's environment cannot be made. It names the reference, never the value.
#[derive(Debug, thiserror::Error)]
#[error("cannot resolve environment variable {variable}: {why}")]
pub(super) struct Unresolved {
    variable: String,
    why: String,
}

/// Returns the whole environment of the node.
pub(super) fn of(launch: &Launch, home: &Path) -> Result<BTreeMap<OsString, OsString>, Unresolved> {
    let inherited = INHERITED.iter().filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)));
    let mut env: BTreeMap<_, _> = inherited.collect();
    env.entry("PATH".into()).or_insert_with(|| PATH_IF_UNSET.into());
    env.insert("HOME".into(), home.into());
    for (name, value) in &launch.env {
        env.insert(name.into(), resolve(name, value)?);
    }
    let given = [
        ("PORT", launch.port.to_string()),
        ("IONLEDGER_SERVICE", launch.deployment.service.to_string()),
        ("IONLEDGER_ENVIRONMENT", launch.deployment.environment.to_string()),
        ("IONLEDGER_VERSION", launch.version.to_string()),
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

fn resolve(name: &str, value: &EnvValue) -> Result<OsString, Unresolved> {
    let fail = |why: String| Unresolved { variable: name.to_owned(), why };
    let resolved = match value {
        EnvValue::Value(text) => text.into(),
        EnvValue::FromEnv(source) => std::env::var_os(source).ok_or_else(|| {
            fail(format!("the variable {source} is not set where ionledger runs; set it and start again"))
        })?,
        EnvValue::FromFile(path) => read_secret(path).map_err(|cause| fail(format!("the file {path}: {cause}")))?,
    };
    if resolved.as_bytes().contains(&0) {
        return Err(fail("the value holds a zero byte".into()));
    }
    Ok(resolved)
}

/// Returns the file's content without the line end that editors leave behind.
fn read_secret(path: &str) -> io::Result<OsString> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 64 KiB"));
    }
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    Ok(OsString::from_vec(bytes))
}
