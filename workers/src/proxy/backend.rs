//! A backend: one node of a stack as the proxy sees it, with its idle connections and its meter.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use schemas::{EffectId, StackId, Version};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::body::Upload;
use super::clock::{ms, now_ms};
use super::meter::Meter;

/// A connection that can carry one request at a time.
pub(super) type Sender = http1::SendRequest<Upload>;

/// How long a node that refused a connection is passed over while its stack has another.
const EJECTION: Duration = Duration::from_secs(1);

/// How long an idle connection is trusted: less than the five seconds after which common servers close theirs, as
/// a request sent into a closing connection is lost.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// How many idle connections are kept.
const IDLE_COUNT_MAX: usize = 1_024;

#[derive(Debug)]
pub(super) struct Backend {
    pub(super) stack: StackId,
    pub(super) version: Version,
    pub(super) effect: EffectId,
    pub(super) address: SocketAddr,
    pub(super) meter: Meter,
    ejected_until_ms: AtomicU64,
    idle: Mutex<VecDeque<Idle>>,
    retired: AtomicBool,
}

#[derive(Debug)]
struct Idle {
    sender: Sender,
    since_ms: u64,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

impl Backend {
    pub(super) fn new(stack: StackId, version: Version, effect: EffectId, address: SocketAddr) -> Self {
        Self {
            stack,
            version,
            effect,
            address,
            meter: Meter::default(),
            ejected_until_ms: AtomicU64::new(0),
            idle: Mutex::default(),
            retired: AtomicBool::new(false),
        }
    }

    /// Returns whether it refused a connection shortly before `now`.
    pub(super) fn is_ejected(&self, now: u64) -> bool {
        now < self.ejected_until_ms.load(Relaxed)
    }

    /// Passes it over for a moment after `now`.
    pub(super) fn eject(&self, now: u64) {
        self.ejected_until_ms.store(now + ms(EJECTION), Relaxed);
    }

    /// Returns the idle connection that was used last, if there is one that is open.
    pub(super) fn checkout(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap();
        let mut busy = 0;
        while idle.len() > busy {
            let place = idle.len() - 1 - busy;
            if idle[place].sender.is_ready() {
                let taken = idle.remove(place)?;
                if now_ms() < taken.since_ms + ms(IDLE_MAX) {
                    return Some(taken.sender);
                }
            } else if idle[place].sender.is_closed() {
                idle.remove(place);
            } else {
                busy += 1; // its last exchange is being wound up
            }
        }
        None
    }

    /// Keeps a connection whose exchange has ended.
    pub(super) fn checkin(&self, sender: Sender) {
        if sender.is_closed() || self.retired.load(Relaxed) {
            return;
        }
        let now = now_ms();
        let mut idle = self.idle.lock().unwrap();
        let stale = |idle: &Idle| now >= idle.since_ms + ms(IDLE_MAX);
        while idle.len() >= IDLE_COUNT_MAX || idle.front().is_some_and(stale) {
            idle.pop_front();
        }
        idle.push_back(Idle { sender, since_ms: now });
    }

    /// Lets go of the idle connections, as no new request will come; those in use carry theirs to the end.
    pub(super) fn retire(&self) {
        self.retired.store(true, Relaxed);
        self.idle.lock().unwrap().clear();
    }

    /// Takes it into use again.
    pub(super) fn revive(&self) {
        self.retired.store(false, Relaxed);
    }

    /// Opens a connection.
    pub(super) async fn connect(&self, limit: Duration) -> Result<Sender, ConnectError> {
        let stream = timeout(limit, TcpStream::connect(self.address)).await;
        let stream = stream.map_err(|_| ConnectError::TimedOut(limit))??;
        // Where nobody listens on a port of the kernel's own range, a socket may come to be connected to itself.
        if stream.local_addr()? == self.address {
            return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
        }
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(stream)).await?;
        // What goes wrong on it is told to the request that uses it.
        tokio::spawn(connection);
        Ok(sender)
    }
}
