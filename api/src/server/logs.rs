//! `GET /v1/logs/ENVIRONMENT/SERVICE`: what its nodes wrote, a line of JSON a line, and with `follow` what they go on to write.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;
use workers::nodes::process::logs::{Line, Logs, Wanted};

use super::Api;
use super::peer::Caller;
use super::questions::FromAddress;
use crate::parts::{Part, Parts};
use crate::problem::{Code, Problem};
use crate::question::open_logs;

/// How often logs are looked at for more.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// After how many looks without more a listener is told that somebody is still there: 15 s.
const QUIET_LOOKS: u32 = 60;

/// How long a listener may take nothing before it is let go.
const STALLED_MAX: Duration = Duration::from_secs(60);

pub(super) async fn get(
    State(api): State<Arc<Api>>,
    _: Caller,
    FromAddress(wanted): FromAddress<Wanted>,
) -> Result<Response, Problem> {
    let follow = wanted.follow;
    // Of a service that is known, nodes may yet come.
    let may_come = follow && api.ledger.view().state().service(&wanted.deployment.service).is_some();
    let data = api.data.clone();
    let logs = tokio::task::spawn_blocking(move || open_logs(&data, wanted, may_come)).await;
    let logs = logs.map_err(|error| Problem::new(Code::Internal, error.to_string()))??;
    let (parts, body) = Parts::channel();
    tokio::spawn(tell(logs, follow, api.closing.clone(), parts));
    let headers = [(CONTENT_TYPE, "application/x-ndjson"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::new(body)).into_response())
}

/// Sends what comes for as long as somebody takes it. At most the channel's parts and what is read at once wait.
async fn tell(mut logs: Logs, follow: bool, closing: CancellationToken, parts: Sender<Part>) {
    let mut quiet = 0;
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let lines = logs.next_lines();
            (logs, lines)
        });
        let Ok((back, lines)) = read.await else { return };
        logs = back;
        let lines = match lines {
            Ok(lines) => lines,
            Err(error) => return tracing::warn!(%error, "the nodes' logs cannot be read"),
        };
        if !lines.is_empty() {
            quiet = 0;
            if !send(&parts, part(&lines)).await {
                return;
            }
            continue;
        }
        if !follow {
            return;
        }
        tokio::select! {
            () = parts.closed() => return,
            () = closing.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => quiet += 1,
        }
        if quiet >= QUIET_LOOKS {
            quiet = 0;
            if !send(&parts, Bytes::from_static(b"\n")).await {
                return;
            }
        }
    }
}

async fn send(parts: &Sender<io::Result<Bytes>>, part: Bytes) -> bool {
    matches!(tokio::time::timeout(STALLED_MAX, parts.send(Ok(part))).await, Ok(Ok(())))
}

fn part(lines: &[Line]) -> Bytes {
    let text: String =
        lines.iter().filter_map(|line| serde_json::to_string(line).ok()).map(|line| line + "\n").collect();
    Bytes::from(text)
}
