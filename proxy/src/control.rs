//! The control socket: HTTP/1 and JSON on a Unix socket that only the proxy's own user can open.
//!
//! | call | answer |
//! | --- | --- |
//! | `GET /status` | 200 `Status` |
//! | `PUT /routes/ENVIRONMENT/SERVICE` with `Routes` | 200 `Held`; 409 or 422 `Problem` |
//! | `GET /routes/ENVIRONMENT/SERVICE` | 200 `Entry`; 404 |
//! | `DELETE /routes/ENVIRONMENT/SERVICE?generation=N` | 200; 409 `Problem` |
//! | `GET /measures/ENVIRONMENT/SERVICE` | 200 `Measures`; 404 |
//! | `POST /read` with `[Wanted]` | 200 `[Read]`, in the same order |
//!
//! A call with the header `ionledger-not-after` (milliseconds since boot) does nothing after that time: 408.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use schemas::{DeploymentId, StreamVersion};
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::registry::{ChangeError, Registry};
use crate::routes::{self, Problem, Read, Refusal, Routes, Status, Wanted};

/// The most that a request's body may have, in bytes: a stack of 5,000 nodes fits.
const BODY_MAX: usize = 1 << 20;

/// How long a request's body may take.
const BODY_TIME_MAX: Duration = Duration::from_secs(2);

type Answer = Response<Full<Bytes>>;

#[derive(Debug)]
pub(super) struct Control {
    pub(super) epoch: Uuid,
    pub(super) trusted_proxies: String,
    pub(super) registry: Arc<Registry>,
    /// The calls that are being answered.
    pub(super) calls: TaskTracker,
    /// Cancelled when the proxy ends; what comes then would be a change behind the back of its successor.
    pub(super) closing: CancellationToken,
}

/// Answers what comes in on `socket`, until it is dropped.
pub(super) async fn serve(socket: UnixListener, control: Arc<Control>) {
    loop {
        match socket.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve_one(stream, control.clone()))),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a control connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve_one(stream: UnixStream, control: Arc<Control>) {
    let service = service_fn(move |request| {
        let callee = control.clone();
        // A task of its own: a caller who has hung up must not stop a change halfway.
        let answering = control.calls.spawn(async move { callee.answer(request).await });
        async move {
            let broken = |_| problem(StatusCode::INTERNAL_SERVER_ERROR, "the answer failed; see the proxy's log", None);
            Ok::<_, Infallible>(answering.await.unwrap_or_else(broken))
        }
    });
    let mut http = http1::Builder::new();
    if let Err(error) = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a control connection broke off");
    }
}

impl Control {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        if self.closing.is_cancelled() {
            return problem(StatusCode::SERVICE_UNAVAILABLE, "the proxy is ending", None);
        }
        let (head, body) = request.into_parts();
        // This process may have stood still with the call before it: what was true when it was sent need not be true any more.
        if head.headers.get(routes::NOT_AFTER).is_some_and(|not_after| is_past(not_after.as_bytes())) {
            return problem(StatusCode::REQUEST_TIMEOUT, "the caller has given up by now; nothing was done", None);
        }
        if head.uri.path() == "/status" && head.method == Method::GET {
            return json(StatusCode::OK, &self.status());
        }
        if head.uri.path() == "/read" && head.method == Method::POST {
            return self.read(body).await;
        }
        let path = head.uri.path().trim_start_matches('/').split_once('/');
        let Some((what @ ("routes" | "measures"), id)) = path else {
            return problem(StatusCode::NOT_FOUND, "there is nothing here", None);
        };
        let id: DeploymentId = match id.parse() {
            Ok(id) => id,
            Err(error) => return problem(StatusCode::UNPROCESSABLE_ENTITY, error, None),
        };
        match (what, head.method) {
            ("measures", Method::GET) => found(self.registry.measures(&id), &id),
            ("routes", Method::GET) => found(self.registry.entry(&id), &id),
            ("routes", Method::PUT) => self.put(&id, body).await,
            ("routes", Method::DELETE) => self.delete(&id, head.uri.query().unwrap_or_default()).await,
            _ => problem(StatusCode::METHOD_NOT_ALLOWED, "this cannot be done here", None),
        }
    }

    fn status(&self) -> Status {
        Status {
            pid: std::process::id(),
            epoch: self.epoch,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            trusted_proxies: self.trusted_proxies.clone(),
            listeners: self.registry.listening(),
        }
    }

    /// Answers for many deployments in one call: a caller that asks for each of a fleet pays for a connection each.
    async fn read(&self, body: Incoming) -> Answer {
        let body = match whole(body).await {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let held = |Wanted { deployment, measures }: Wanted| Read {
            entry: self.registry.entry(&deployment),
            measures: measures.then(|| self.registry.measures(&deployment)).flatten(),
        };
        match serde_json::from_slice::<Vec<Wanted>>(&body) {
            Err(error) => problem(StatusCode::UNPROCESSABLE_ENTITY, error, None),
            Ok(wanted) => json(StatusCode::OK, &wanted.into_iter().map(held).collect::<Vec<_>>()),
        }
    }

    async fn put(&self, id: &DeploymentId, body: Incoming) -> Answer {
        let body = match whole(body).await {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        match serde_json::from_slice::<Routes>(&body) {
            Err(error) => problem(StatusCode::UNPROCESSABLE_ENTITY, error, None),
            Ok(routes) if routes.deployment != *id => {
                let words = format!("these are routes of {}, not of {id}", routes.deployment);
                problem(StatusCode::UNPROCESSABLE_ENTITY, words, None)
            }
            Ok(routes) => match self.registry.apply(routes).await {
                Ok(held) => json(StatusCode::OK, &held),
                Err(error) => refused(&error),
            },
        }
    }

    async fn delete(&self, id: &DeploymentId, query: &str) -> Answer {
        let generation = query.strip_prefix("generation=").and_then(|text| text.parse::<StreamVersion>().ok());
        let Some(generation) = generation else {
            return problem(StatusCode::UNPROCESSABLE_ENTITY, "say ?generation=N", None);
        };
        match self.registry.remove(id, generation).await {
            Ok(()) => json(StatusCode::OK, &serde_json::json!({})),
            Err(error) => refused(&error),
        }
    }
}

fn is_past(not_after: &[u8]) -> bool {
    let not_after = std::str::from_utf8(not_after).ok().and_then(|text| text.parse::<u128>().ok());
    not_after.is_some_and(|not_after| routes::since_boot().as_millis() > not_after)
}

/// Returns a request's body, or the answer to one that is too long or too slow.
async fn whole(body: Incoming) -> Result<Bytes, Answer> {
    match timeout(BODY_TIME_MAX, Limited::new(body, BODY_MAX).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(problem(StatusCode::PAYLOAD_TOO_LARGE, error, None)),
        Err(late) => Err(problem(StatusCode::REQUEST_TIMEOUT, late, None)),
    }
}

fn refused(error: &ChangeError) -> Answer {
    let (status, held) = match error {
        ChangeError::Refused(Refusal::Superseded { held, .. }) => (StatusCode::CONFLICT, Some(*held)),
        ChangeError::Refused(Refusal::Conflicting { .. } | Refusal::Turned { .. }) => (StatusCode::CONFLICT, None),
        ChangeError::Refused(Refusal::Invalid { .. }) | ChangeError::Listen { .. } => {
            (StatusCode::UNPROCESSABLE_ENTITY, None)
        }
        ChangeError::Ending => (StatusCode::SERVICE_UNAVAILABLE, None),
        ChangeError::Disk { .. } => (StatusCode::INTERNAL_SERVER_ERROR, None),
    };
    problem(status, error, held)
}

fn found<T: Serialize>(value: Option<T>, id: &DeploymentId) -> Answer {
    match value {
        Some(value) => json(StatusCode::OK, &value),
        None => problem(StatusCode::NOT_FOUND, format!("nothing is held for {id}"), None),
    }
}

fn problem(status: StatusCode, error: impl std::fmt::Display, superseded_by: Option<StreamVersion>) -> Answer {
    json(status, &Problem { error: error.to_string(), superseded_by })
}

fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value).expect("every answer has a JSON form");
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}
