//! Reads that need only the view: health and where the ledger stands.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use replay::answer;
use schemas::{EnvironmentName, ServiceName};
use serde::Deserialize;
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Selected {
    service: Option<ServiceName>,
    environment: Option<EnvironmentName>,
}

/// `GET /v1/status`: what runs and what serves now.
pub(super) async fn status(
    State(api): State<Arc<Api>>,
    _: Caller,
    selected: Result<Query<Selected>, QueryRejection>,
) -> Result<Response, Problem> {
    let Selected { service, environment } = respond::query(selected)?;
    let view = api.ledger.view();
    let (state, at) = (view.state().clone(), answer::At::of(&view));
    drop(view);
    let status = match &service {
        Some(service) => answer::status_of(&state, at, service, environment.as_ref()),
        None => {
            let mut status = answer::status(&state, at);
            for service in &mut status.services {
                service
                    .deployments
                    .retain(|found| environment.as_ref().is_none_or(|wanted| *wanted == found.environment));
            }
            status
        }
    };
    Ok(respond::json(&status))
}
