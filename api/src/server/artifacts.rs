//! `PUT /v1/artifacts?name=NAME`: a file comes in, its hash goes out.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use http_body_util::BodyExt as _;
use schemas::Hash;
use schemas::run::Artifact;
use serde::Deserialize;
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt as _;
use workers::artifacts;

use super::peer::Caller;
use super::{Api, respond};
use crate::authorize::{Act, authorize};
use crate::problem::{Code, Problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    /// The file's name, for people.
    name: String,
    /// The hash it must have, if the sender knows it.
    sha256: Option<Hash>,
}

pub(super) async fn put(
    State(api): State<Arc<Api>>,
    Caller(actor): Caller,
    options: Result<Query<Options>, QueryRejection>,
    body: Body,
) -> Result<Response, Problem> {
    let options = respond::query(options)?;
    authorize(&actor, Act::Upload)?;
    let plain = |name: &str| !name.contains('/') && !name.chars().any(char::is_control);
    if !(1..=255).contains(&options.name.len()) || !plain(&options.name) {
        return Err(Problem::malformed("name must be a file's name of 1 to 255 bytes, without `/`"));
    }
    let draft = Draft::new(&api);
    receive(&api, body, &draft).await?;
    let artifact = keep(&api, draft.path.clone(), options.name).await?;
    if let Some(expected) = options.sha256
        && artifact.sha256 != expected
    {
        let found = artifact.sha256;
        let why = format!("what arrived has the hash {found}, not {expected}; send it again");
        return Err(Problem::new(Code::Invalid, why));
    }
    Ok(respond::json(&artifact))
}

/// Puts a file of this machine into the store.
pub(super) async fn keep(api: &Api, path: PathBuf, name: String) -> Result<Artifact, Problem> {
    let store = Arc::clone(&api.artifacts);
    let stored = tokio::task::spawn_blocking(move || store.store(&path)).await;
    let stored = stored.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    stored.map(|artifact| Artifact { name, ..artifact }).map_err(|error| problem(&error))
}

/// Makes sure that an artifact is in the store, undamaged and as long as is said.
pub(super) async fn check(api: &Api, artifact: &Artifact) -> Result<(), Problem> {
    let (store, sha256) = (Arc::clone(&api.artifacts), artifact.sha256);
    let found = tokio::task::spawn_blocking(move || {
        let path = store.verify(sha256)?;
        std::fs::metadata(&path).map(|found| found.len()).map_err(|cause| artifacts::Error::Store { path, cause })
    });
    let found = found.await.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    let size = found.map_err(|error| problem(&error))?;
    if size == artifact.size_bytes {
        return Ok(());
    }
    let said = artifact.size_bytes;
    Err(Problem::new(
        Code::Invalid,
        format!("artifact {sha256} is {size} bytes long, not {said}; name its true size_bytes"),
    ))
}

fn problem(error: &artifacts::Error) -> Problem {
    let code = match error {
        artifacts::Error::Missing(_) => Code::Unknown,
        artifacts::Error::Source { .. } | artifacts::Error::NotAFile(_) => Code::Invalid,
        artifacts::Error::Damaged { .. } => Code::Damaged,
        artifacts::Error::Store { cause, .. } => code_of(cause),
    };
    Problem::new(code, error.to_string())
}

fn code_of(cause: &io::Error) -> Code {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::DiskFull,
        _ => Code::Internal,
    }
}

/// Writes what comes into the draft, as long as it comes and is not too long.
async fn receive(api: &Api, mut body: Body, draft: &Draft) -> Result<(), Problem> {
    let at =
        |cause: io::Error| Problem::new(code_of(&cause), format!("cannot write {}: {cause}", draft.path.display()));
    let (max, idle) = (api.limits.artifact_bytes_max, api.limits.upload_idle);
    let mut file = File::create_new(&draft.path).await.map_err(at)?;
    let mut length = 0_u64;
    loop {
        let frame = tokio::time::timeout(idle, body.frame()).await;
        let slow = |_| Problem::new(Code::Slow, format!("nothing came for {} s; send it again", idle.as_secs()));
        let Some(frame) = frame.map_err(slow)? else { break };
        let frame = frame.map_err(|error| Problem::malformed(format!("the artifact ended early: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len() as u64;
        if length > max {
            return Err(Problem::new(Code::TooLarge, format!("the artifact is longer than {max} bytes")));
        }
        file.write_all(&data).await.map_err(at)?;
    }
    file.flush().await.map_err(at)
}

/// A file under way, removed when dropped. One that a killed process leaves is removed when the store is opened.
struct Draft {
    path: PathBuf,
}

impl Draft {
    fn new(api: &Api) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!(".draft-upload-{}-{n}", std::process::id());
        let path = api.data.join("artifacts").join(name);
        let _ = std::fs::remove_file(&path); // of a process that died and had our id
        Self { path }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let path = self.path.clone();
        tokio::spawn(async move { fs::remove_file(path).await });
    }
}
