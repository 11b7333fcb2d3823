//! Reads that need only the view: health and where the ledger stands.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use super::peer::Caller;
use super::{Api, respond};
use crate::problem::{Code, Problem};
use crate::wire::Standing;

/// `GET /healthz`: the process answers.
pub(super) async fn healthz() -> Response {
    respond::json(&json!({"ok": true, "version": env!("CARGO_PKG_VERSION")}))
}

/// `GET /readyz`: the ledger is followed, so that writes can be taken.
pub(super) async fn readyz(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    match api.ledger.halted() {
        Some(why) => Err(Problem::new(Code::Halted, format!("the ledger cannot be followed any more: {why}"))),
        None if api.closing.is_cancelled() => Err(Problem::new(Code::Halted, "this server is closing")),
        None => Ok(respond::json(&json!({"ok": true}))),
    }
}

/// `GET /v1/ledger`: what it is and where it stands.
pub(super) async fn ledger(State(api): State<Arc<Api>>, _: Caller) -> Response {
    let end = *api.ledger.log().end().borrow();
    let id = api.ledger.id();
    let view = api.ledger.view();
    let (next, root, time, voids) = (view.next(), view.tree().root(), view.time(), view.voids());
    drop(view);
    respond::json(&Standing { ledger: id, next, end, root, time, voids })
}
