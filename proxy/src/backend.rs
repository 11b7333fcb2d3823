//! A backend: one node of a stack as the proxy sees it, with its idle connections and its meter.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use schemas::{EffectId, StackId, StackName};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::clock::{ms, now_ms};
use super::link::Link;
use super::meter::Meter;

/// How long a node that refused a connection is passed over while its stack has another.
const EJECTION: Duration = Duration::from_secs(1);

/// How long an idle connection is trusted: less than the five seconds after which common servers close theirs, as
/// a request sent into a closing connection is lost.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// How long the end of an exchange may take after its answer, if the rest of its request is still on its way.
const WIND_UP_MAX: Duration = Duration::from_secs(1);

/// How many idle connections are kept.
const IDLE_COUNT_MAX: usize = 1_024;

#[derive(Debug)]
pub(super) struct Backend {
    pub(super) stack: StackId,
    pub(super) version: StackName,
    pub(super) effect: EffectId,
    pub(super) address: SocketAddr,
    pub(super) meter: Meter,
    ejected_until_ms: AtomicU64,
    idle: Mutex<VecDeque<Idle>>,
    retired: AtomicBool,
}

#[derive(Debug)]
struct Idle {
    link: Link,
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
    pub(super) fn new(stack: StackId, version: StackName, effect: EffectId, address: SocketAddr) -> Self {
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
    pub(super) fn checkout(&self) -> Option<Link> {
        loop {
            let Idle { mut link, since_ms } = self.idle.lock().unwrap().pop_back()?;
            if now_ms() < since_ms + ms(IDLE_MAX) && link.is_ready() {
                return Some(link);
            }
        }
    }

    /// Keeps a connection whose answer has ended.
    pub(super) fn checkin(self: &Arc<Self>, mut link: Link) {
        if link.is_ready() {
            self.keep(link);
        } else if link.has_task() {
            let backend = self.clone();
            tokio::spawn(async move {
                if timeout(WIND_UP_MAX, link.ready()).await == Ok(true) {
                    backend.keep(link);
                }
            });
        }
    }

    /// Lets go of the connections that have been idle for too long.
    pub(super) fn sweep(&self) {
        let now = now_ms();
        let mut idle = self.idle.lock().unwrap();
        while idle.front().is_some_and(|idle| now >= idle.since_ms + ms(IDLE_MAX)) {
            idle.pop_front();
        }
    }

    fn keep(&self, link: Link) {
        let mut idle = self.idle.lock().unwrap();
        if self.retired.load(Relaxed) {
            return;
        }
        if idle.len() >= IDLE_COUNT_MAX {
            idle.pop_front();
        }
        idle.push_back(Idle { link, since_ms: now_ms() });
    }

    /// Lets go of the idle connections, as no new request will come; those in use carry theirs to the end.
    pub(super) fn retire(&self) {
        let mut idle = self.idle.lock().unwrap();
        self.retired.store(true, Relaxed);
        idle.clear();
    }

    /// Takes it into use again.
    pub(super) fn revive(&self) {
        self.retired.store(false, Relaxed);
    }

    /// Opens a connection.
    pub(super) async fn connect(&self, limit: Duration) -> Result<Link, ConnectError> {
        let stream = timeout(limit, TcpStream::connect(self.address)).await;
        let stream = stream.map_err(|_| ConnectError::TimedOut(limit))??;
        // Where nobody listens on a port of the kernel's own range, a socket may come to be connected to itself.
        if stream.local_addr()? == self.address {
            return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
        }
        stream.set_nodelay(true)?;
        Ok(Link::new(stream).await?)
    }
}
