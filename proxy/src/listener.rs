//! A listener: where a deployment's users connect.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{User, serve};
use super::deployment::Deployment;
use super::limits::Patience;
use super::trusted::TrustedProxies;

/// Connections that the kernel may hold until they are accepted.
const BACKLOG: u32 = 4_096;

/// What all listeners share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    /// Cancelled when the proxy ends.
    pub(super) closing: CancellationToken,
    /// How long users are waited for.
    pub(super) patience: Patience,
    /// Whose word on who asked is believed.
    pub(super) trusted: Arc<TrustedProxies>,
    /// The connections that may still be taken.
    pub(super) permits: Arc<Semaphore>,
    /// The sockets that accept users.
    pub(super) listeners: TaskTracker,
    /// The connections that are served.
    pub(super) connections: TaskTracker,
}

/// Accepts users; dropped, it stops, and its connections close after the request at hand.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) address: SocketAddr,
    pub(super) socket: Arc<TcpListener>,
    closing: CancellationToken,
    task: JoinHandle<()>,
}

/// Takes `address`; connections wait until [`Listener::start`].
///
/// # Errors
///
/// The address is in use or is not this machine's.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?; // an address whose last connections linger is free
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Listener {
    /// Serves the users of `deployment` who connect to `socket`.
    ///
    /// # Errors
    ///
    /// The socket has no address.
    pub(super) fn start(socket: TcpListener, deployment: Arc<Deployment>, shared: &Shared) -> io::Result<Self> {
        let (address, closing) = (socket.local_addr()?, shared.closing.child_token());
        let socket = Arc::new(socket);
        let task = shared.listeners.spawn(accept(socket.clone(), deployment, shared.clone(), closing.clone()));
        Ok(Self { address, socket, closing, task })
    }

    /// Stops accepting; when this returns, the address is free.
    pub(super) async fn stop(mut self) {
        self.closing.cancel();
        let _ = (&mut self.task).await; // it only ends
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

async fn accept(socket: Arc<TcpListener>, deployment: Arc<Deployment>, shared: Shared, closing: CancellationToken) {
    loop {
        let next = async {
            let permit = shared.permits.clone().acquire_owned().await.ok()?;
            Some((socket.accept().await, permit))
        };
        let next = tokio::select! {
            () = closing.cancelled() => return,
            next = next => next,
        };
        match next {
            None => return, // the permits are never closed
            Some((Ok((stream, address)), permit)) => {
                let (deployment, patience, closing) = (deployment.clone(), shared.patience, closing.clone());
                let trusted = shared.trusted.clone();
                shared.connections.spawn(async move {
                    serve(User { stream, address }, deployment, patience, &trusted, closing).await;
                    drop(permit);
                });
            }
            Some((Err(error), _)) => {
                // Out of descriptors, mostly: those at hand end sooner or later.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
