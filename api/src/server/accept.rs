//! Accepting connections: each gets a seat, a time to say what it wants, and a time to take what it asked for.

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
use tokio_util::task::TaskTracker;

use super::Api;
use super::peer::Peer;
use super::seat::Seats;
use super::stall::Unstalled;

/// Serves the Unix socket until the server closes and its connections have ended.
pub(super) async fn unix(listener: UnixListener, api: Arc<Api>, router: Router) {
    let connections = Connections::new(api, router);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = connections.api.closing.cancelled() => break,
        };
        match accepted.and_then(|(stream, _)| Ok((stream.peer_cred()?, stream))) {
            Ok((user, stream)) => {
                connections.open(stream, Peer::Unix { uid: user.uid(), gid: user.gid(), pid: user.pid() });
            }
            Err(error) => rest(&error).await,
        }
    }
    connections.close().await;
}

/// Serves TCP until the server closes and its connections have ended.
pub(super) async fn tcp(listener: TcpListener, api: Arc<Api>, router: Router) {
    let connections = Connections::new(api, router);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = connections.api.closing.cancelled() => break,
        };
        match accepted {
            Ok((stream, address)) => {
                let _ = stream.set_nodelay(true); // only a matter of speed
                connections.open(stream, Peer::Tcp(address));
            }
            Err(error) => rest(&error).await,
        }
    }
    connections.close().await;
}

struct Connections {
    api: Arc<Api>,
    service: TowerToHyperService<Router>,
    seats: Arc<Seats>,
    connections: TaskTracker,
}

impl Connections {
    fn new(api: Arc<Api>, router: Router) -> Self {
        let seats = Seats::new(&api.limits);
        Self { api, service: TowerToHyperService::new(router), seats, connections: TaskTracker::new() }
    }

    fn open(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, peer: Peer) {
        let seat = self.seats.seat(peer.address());
        let (service, of_request) = (self.service.clone(), Arc::clone(&seat));
        let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert(Arc::clone(&of_request));
            service.call(request)
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(self.api.limits.head_timeout).max_buf_size(64 * 1024);
        let stream = Unstalled::new(stream, self.api.limits.stalled_max);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let api = Arc::clone(&self.api);
        self.connections.spawn(async move {
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = seat.taken_away() => Ok(()),
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
