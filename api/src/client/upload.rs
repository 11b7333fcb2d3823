//! Sending a file.

use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use http::Method;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use schemas::Hash;
use schemas::run::Artifact;
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;

use super::Error;
use super::call::{self, Fault, Target};
use crate::parts::{Part, Parts};
use crate::question::address::escape;

const PART_BYTES: usize = 256 * 1024;

/// How long an upload may take until its answer; the server ends one that does not move.
const TIMEOUT: Duration = Duration::from_secs(24 * 3_600);

/// Sends the file at `path` and tells `sent` how many of its bytes are gone.
pub(super) async fn upload(
    target: &Target,
    path: &Path,
    sha256: Option<Hash>,
    sent: watch::Sender<u64>,
) -> Result<Artifact, Error> {
    let at = |cause| Error::File { path: path.to_owned(), cause };
    let file = File::open(path).await.map_err(at)?;
    let found = file.metadata().await.map_err(at)?;
    if !found.is_file() {
        return Err(at(std::io::Error::other("it is not a regular file; name the program itself")));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let sha256 = sha256.map(|sha256| format!("&sha256={sha256}")).unwrap_or_default();
    let (parts, body) = Parts::channel();
    tokio::spawn(read(file, parts, sent));
    let request = target
        .request(Method::PUT, &format!("/v1/artifacts?name={}{sha256}", escape(&name)))
        .header(CONTENT_TYPE, "application/octet-stream")
        .header(CONTENT_LENGTH, found.len())
        .body(body);
    let response = target.exchange(request, TIMEOUT).await?;
    call::read_json(response, "/v1/artifacts").await.map_err(Fault::into)
}

async fn read(mut file: File, parts: tokio::sync::mpsc::Sender<Part>, sent: watch::Sender<u64>) {
    let mut length = 0;
    loop {
        let mut part = BytesMut::with_capacity(PART_BYTES);
        let next = match file.read_buf(&mut part).await {
            Ok(0) => return,
            Ok(n) => {
                length += n as u64;
                Ok(part.freeze())
            }
            Err(error) => Err(error),
        };
        let failed = next.is_err();
        if parts.send(next).await.is_err() || failed {
            return;
        }
        sent.send_replace(length);
    }
}
