//! The operators' listener: whether a process lives, whether it is ready, and its metrics.
//!
//! It listens on an address of its own and asks for no token, so that a supervisor and Prometheus can read it; it shows
//! the names of services and instances, so keep it on loopback or in a private network.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use ledger::Ledger;
use prometheus::proto::MetricFamily;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::telemetry;

/// A process as its operators see it.
#[async_trait]
pub trait Operated: Send + Sync + 'static {
    /// Says whether it can do its work.
    ///
    /// # Errors
    ///
    /// Why it cannot, in a few words.
    async fn ready(&self) -> Result<(), String>;

    /// Returns what it measures now, besides what it counts.
    async fn measured(&self) -> Vec<MetricFamily>;
}

/// A process that follows the ledger is ready while it does. It stays ready while the log cannot be reached: it
/// can still roll back without it.
#[async_trait]
impl Operated for Ledger {
    async fn ready(&self) -> Result<(), String> {
        self.halted().map_or(Ok(()), |why| Err(format!("the ledger cannot be followed any more: {why}")))
    }

    async fn measured(&self) -> Vec<MetricFamily> {
        telemetry::of_ledger(self).await
    }
}

/// An operators' listener that listens and is not yet answering.
#[derive(Debug)]
pub struct Ops {
    listener: TcpListener,
    address: SocketAddr,
}

/// Why there is no operators' listener.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for /healthz, /readyz and /metrics: {cause}; choose another address")]
pub struct ListenError {
    address: SocketAddr,
    cause: std::io::Error,
}

impl Ops {
    /// Listens on `address`.
    ///
    /// # Errors
    ///
    /// [`ListenError`] if it cannot listen there.
    pub async fn listen(address: SocketAddr) -> Result<Self, ListenError> {
        let failed = |cause| ListenError { address, cause };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers for `process` until `closing`.
    pub async fn run(self, process: Arc<dyn Operated>, closing: CancellationToken) {
        let router = Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(process);
        let served = axum::serve(self.listener, router).with_graceful_shutdown(closing.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::warn!(%error, "the server for /healthz, /readyz and /metrics failed");
        }
    }
}

async fn healthz() -> Response {
    json_of(StatusCode::OK, json!({"ok": true, "version": env!("CARGO_PKG_VERSION")}))
}

async fn readyz(State(process): State<Arc<dyn Operated>>) -> Response {
    match process.ready().await {
        Ok(()) => json_of(StatusCode::OK, json!({"ok": true})),
        Err(why) => json_of(StatusCode::SERVICE_UNAVAILABLE, json!({"ok": false, "why": why})),
    }
}

async fn metrics(State(process): State<Arc<dyn Operated>>) -> Response {
    let text = telemetry::text(process.measured().await);
    ([(CONTENT_TYPE, telemetry::CONTENT_TYPE)], text).into_response()
}

fn json_of(status: StatusCode, value: serde_json::Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}
