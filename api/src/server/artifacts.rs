//! `PUT /v1/artifacts?name=NAME`: a file comes in, its hash goes out. `GET /v1/artifacts/HASH`: whether it need come at all.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use schemas::Hash;
use schemas::run::Artifact;
use serde::Deserialize;
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt as _;
use workers::artifacts;
use workers::artifacts::program::Program;
use workers::identity::Identity;

use super::peer::Caller;
use super::{Api, respond, unnamed};
use crate::authorize::{Act, authorize};
use crate::problem::{Code, Problem};
use crate::wire::Stored;

/// How many files are taken at a time; others wait.
pub(super) const UPLOADS_MAX: usize = 8;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UploadOptions {
    /// The file's name, for people.
    name: String,
    /// The hash it must have, if the sender knows it.
    sha256: Option<Hash>,
}

pub(super) async fn put(
    State(api): State<Arc<Api>>,
    Caller(actor): Caller,
    options: Result<Query<UploadOptions>, QueryRejection>,
    body: Body,
) -> Result<Response, Problem> {
    let options = respond::query(options)?;
    authorize(&actor, Act::Upload)?;
    let plain = |name: &str| !name.contains('/') && !name.chars().any(char::is_control);
    if !(1..=255).contains(&options.name.len()) || !plain(&options.name) {
        return Err(Problem::malformed("name must be a file's name of 1 to 255 bytes, without `/`"));
    }
    unnamed::check_announced(&api, options.sha256, body.size_hint().lower()).await?;
    let draft = Draft::new(&api);
    receive(&api, body, &draft).await?;
    Ok(respond::json(&keep(&api, draft.path.clone(), options.name, options.sha256, None).await?))
}

/// `GET /v1/artifacts/HASH`: whether it is in the store, undamaged; it is kept for another day at least.
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    Caller(actor): Caller,
    sha256: Result<Path<Hash>, PathRejection>,
) -> Result<Response, Problem> {
    let sha256 = respond::path(sha256)?;
    authorize(&actor, Act::Upload)?;
    let size_bytes = size_of(&api, sha256).await?;
    Ok(respond::json(&Stored { sha256, size_bytes }))
}

/// Puts a file of this machine into the store, if it has the hash that was announced and there is room for it.
/// With `reader` it must be a file that this user can read, else one that this process can.
pub(super) async fn keep(
    api: &Api,
    path: PathBuf,
    name: String,
    expected: Option<Hash>,
    reader: Option<Identity>,
) -> Result<Artifact, Problem> {
    let (store, named) = (Arc::clone(&api.artifacts), unnamed::named(api));
    let max = api.limits.unnamed_bytes_max;
    let stored = tokio::task::spawn_blocking(move || {
        let admit = |new: &Artifact| unnamed::admit(&store, &named, new, max);
        match reader {
            Some(reader) => store.store_of(&path, &reader, admit),
            None => store.store_if(&path, expected, admit),
        }
    });
    let stored = stored.await.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    stored.map(|artifact| Artifact { name, ..artifact }).map_err(|error| problem(&error))
}

/// Makes sure that an artifact is in the store, undamaged, as long as is said, and a program; and returns what it lacks on this
/// machine.
pub(super) async fn check(api: &Api, artifact: &Artifact) -> Result<Option<String>, Problem> {
    let (sha256, said) = (artifact.sha256, artifact.size_bytes);
    let size = size_of(api, sha256).await?;
    if size != said {
        let why = format!("artifact {sha256} is {size} bytes long, not {said}; name its true size_bytes");
        return Err(Problem::new(Code::Invalid, why));
    }
    let (path, name) = (api.artifacts.path(sha256), artifact.name.clone());
    let program = tokio::task::spawn_blocking(move || Program::read(&path)).await;
    let program = program.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    match program {
        Ok(program) => Ok(program.lacks_here().map(|lack| format!("artifact {name}: {lack}"))),
        Err(why) => Err(Problem::new(Code::Invalid, format!("artifact {name} cannot be run: {why}"))),
    }
}

/// Returns how long the copy in the store is, after making sure that it is undamaged.
async fn size_of(api: &Api, sha256: Hash) -> Result<u64, Problem> {
    let store = Arc::clone(&api.artifacts);
    let found = tokio::task::spawn_blocking(move || store.size_bytes(sha256)).await;
    found.map_err(|error| Problem::new(Code::Internal, error.to_string()))?.map_err(|error| problem(&error))
}

fn problem(error: &artifacts::Error) -> Problem {
    let code = match error {
        artifacts::Error::Missing(_) => Code::Unknown,
        artifacts::Error::Source { .. } | artifacts::Error::NotAFile(_) | artifacts::Error::Other { .. } => {
            Code::Invalid
        }
        artifacts::Error::NotAdmitted(_) => Code::Quota,
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
    let waited = tokio::time::timeout(idle, api.uploads.acquire()).await;
    let _place = waited.map_err(|_| {
        Problem::new(Code::Busy, format!("{UPLOADS_MAX} files are being sent, the most at a time; try again"))
    })?;
    let mut file = File::create_new(&draft.path).await.map_err(at)?;
    let mut length = 0_u64;
    loop {
        let frame = tokio::time::timeout(idle, body.frame()).await;
        let slow = |_| Problem::new(Code::Slow, format!("no data arrived for {} s; send it again", idle.as_secs()));
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
