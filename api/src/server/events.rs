//! `GET /v1/events`: every record of the log, as it is folded, for as long as somebody listens.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::HeaderMap;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use ledger::Ledger;
use ledger::view::Decoded;
use schemas::Offset;
use serde_json::value::RawValue;
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::Api;
use super::peer::Caller;
use super::questions::FromAddress;
use crate::parts::{Part, Parts};
use crate::problem::Problem;
use crate::question::EventsQuestion;

/// How often a listener that gets nothing is told that somebody is still there.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How long a listener may take nothing before it is let go.
const STALLED_MAX: Duration = Duration::from_secs(60);

/// How many records are read at once.
const BATCH: usize = 256;

/// Server-sent events if they are asked for, else a line of JSON a record; an empty line or comment is a heartbeat.
#[derive(Clone, Copy)]
enum Form {
    ServerSent,
    Lines,
}

pub(super) async fn get(
    State(api): State<Arc<Api>>,
    _: Caller,
    FromAddress(question): FromAddress<EventsQuestion>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let from =
        match header("last-event-id") {
            Some(last) => last.trim().parse::<u64>().map(|last| Offset(last.saturating_add(1))).map_err(|_| {
                Problem::malformed("Last-Event-ID is not an offset; send the id of the last event you got")
            })?,
            None => question.from,
        };
    let server_sent = header(ACCEPT.as_str()).is_some_and(|accept| accept.contains("text/event-stream"));
    let (form, content_type) =
        if server_sent { (Form::ServerSent, "text/event-stream") } else { (Form::Lines, "application/x-ndjson") };
    let (parts, body) = Parts::channel();
    tokio::spawn(tell(api.ledger.clone(), api.closing.clone(), from, question.follow, form, parts));
    let headers = [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::new(body)).into_response())
}

async fn tell(
    ledger: Ledger,
    closing: CancellationToken,
    mut next: Offset,
    follow: bool,
    form: Form,
    parts: Sender<Part>,
) {
    let mut folded = ledger.folded();
    loop {
        let end = *folded.borrow_and_update();
        while next < end {
            // Only what is folded has a verdict.
            let wanted = usize::try_from(end.0 - next.0).unwrap_or(BATCH).min(BATCH);
            let records = match ledger.log().read(next, wanted).await {
                Ok(records) if !records.is_empty() => records,
                Ok(_) => return,
                Err(error) => return tracing::warn!(%error, "a listener's records cannot be read"),
            };
            for record in records {
                next = record.offset.next();
                if !send(&parts, part(&ledger, record.offset, &record.bytes, form)).await {
                    return;
                }
            }
        }
        if !follow || ledger.halted().is_some() {
            return;
        }
        tokio::select! {
            changed = folded.changed() => if changed.is_err() { return },
            () = parts.closed() => return,
            () = closing.cancelled() => return,
            () = tokio::time::sleep(HEARTBEAT) => {
                let beat = match form { Form::ServerSent => &b":\n\n"[..], Form::Lines => b"\n" };
                if !send(&parts, Bytes::from_static(beat)).await {
                    return;
                }
            }
        }
    }
}

/// Sends a part, and says whether the listener still listens.
async fn send(parts: &Sender<Part>, part: Bytes) -> bool {
    matches!(tokio::time::timeout(STALLED_MAX, parts.send(Ok(part))).await, Ok(Ok(())))
}

fn part(ledger: &Ledger, offset: Offset, bytes: &[u8], form: Form) -> Bytes {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        offset: Offset,
        counts: bool,
        commit: &'a RawValue,
    }
    let decoded = Decoded::of(bytes);
    let command = decoded.envelope().map(|envelope| envelope.command.id);
    let done = command.and_then(|command| ledger.view().command(command));
    let counts = done.is_some_and(|done| done.offset == offset);
    let null = RawValue::NULL;
    let commit: &RawValue = serde_json::from_slice(bytes).unwrap_or(null);
    let line = serde_json::to_string(&Line { offset, counts, commit }).unwrap_or_default();
    Bytes::from(match form {
        Form::ServerSent => format!("id: {offset}\nevent: record\ndata: {line}\n\n"),
        Form::Lines => format!("{line}\n"),
    })
}
