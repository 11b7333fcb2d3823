//! Accepting connections: as many as are allowed, each with a time to say what it wants.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::Api;
use super::peer::Peer;

/// Serves the Unix socket until the server closes and its connections have ended.
pub(super) async fn unix(listener: UnixListener, api: Arc<Api>, router: Router) {
    let door = Door::new(api, router);
    while let Some(permit) = door.place().await {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = door.api.closing.cancelled() => break,
        };
        match accepted.and_then(|(stream, _)| Ok((stream.peer_cred()?, stream))) {
            Ok((user, stream)) => door.open(stream, Peer::Unix { uid: user.uid(), pid: user.pid() }, permit),
            Err(error) => rest(&error).await,
        }
    }
    door.close().await;
}

/// Serves TCP until the server closes and its connections have ended.
pub(super) async fn tcp(listener: TcpListener, api: Arc<Api>, router: Router) {
    let door = Door::new(api, router);
    while let Some(permit) = door.place().await {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = door.api.closing.cancelled() => break,
        };
        match accepted {
            Ok((stream, address)) => {
                let _ = stream.set_nodelay(true); // only a matter of speed
                door.open(stream, Peer::Tcp(address), permit);
            }
            Err(error) => rest(&error).await,
        }
    }
    door.close().await;
}

struct Door {
    api: Arc<Api>,
    service: TowerToHyperService<Router>,
    places: Arc<Semaphore>,
    connections: TaskTracker,
}

impl Door {
    fn new(api: Arc<Api>, router: Router) -> Self {
        let places = Arc::new(Semaphore::new(api.limits.connections_max));
        Self { api, service: TowerToHyperService::new(router), places, connections: TaskTracker::new() }
    }

    /// Waits until one more connection is allowed; nothing when the server closes.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            permit = Arc::clone(&self.places).acquire_owned() => permit.ok(),
            () = self.api.closing.cancelled() => None,
        }
    }

    fn open(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        peer: Peer,
        place: OwnedSemaphorePermit,
    ) {
        let service = self.service.clone();
        let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(peer);
            service.call(request)
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(self.api.limits.head_timeout).max_buf_size(64 * 1024);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let api = Arc::clone(&self.api);
        self.connections.spawn(async move {
            let _place = place;
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = api.closing.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    tokio::time::timeout(api.limits.close_timeout, connection).await.unwrap_or(Ok(()))
                }
            };
            if let Err(error) = ended {
                tracing::debug!(?peer, %error, "a connection ended");
            }
        });
    }

    async fn close(self) {
        self.connections.close();
        self.connections.wait().await;
    }
}

/// Accepting fails when descriptors run out; that passes.
async fn rest(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(Duration::from_millis(100)).await;
}
