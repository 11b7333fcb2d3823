//! What the process says of itself: whether it answers, whether it takes writes, and what it counts.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use serde_json::json;
use workers::traffic::Silence;

use super::peer::Caller;
use super::{Api, respond};
use crate::problem::{Code, Problem};
use crate::telemetry;

/// `GET /healthz`: the process answers.
pub(super) async fn healthz() -> Response {
    respond::json(&json!({"ok": true, "version": env!("CARGO_PKG_VERSION")}))
}

/// `GET /readyz`: the ledger is followed, so that writes can be taken, and the router answers.
pub(super) async fn readyz(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    match api.ledger.halted() {
        Some(why) => Err(Problem::new(Code::Halted, format!("the ledger cannot be followed any more: {why}"))),
        None if api.closing.is_cancelled() => Err(Problem::new(Code::Halted, "this server is closing")),
        None => match api.outside.silence() {
            Some(Silence { since, why }) => {
                let since = since.strftime("%Y-%m-%dT%H:%M:%SZ");
                let why =
                    format!("the router has not answered since {since} ({why}); `ionledger doctor` says what helps");
                Err(Problem::new(Code::RouterSilent, why))
            }
            None => Ok(respond::json(&json!({"ok": true}))),
        },
    }
}

/// `GET /metrics`: what Prometheus reads. It has names of services, so it needs a token like every other read.
pub(super) async fn metrics(State(api): State<Arc<Api>>, _: Caller) -> Response {
    let mut families = telemetry::of_ledger(&api.ledger).await;
    if let Some(proxy) = &api.proxy {
        families.extend(telemetry::of_proxy(proxy).await);
    }
    let text = telemetry::text(families);
    ([(CONTENT_TYPE, telemetry::CONTENT_TYPE)], text).into_response()
}
