//! The server: HTTP over a Unix socket in the data folder and, on request, over TCP.
//!
//! On the socket the actor is the peer's user, as the kernel says it (SO_PEERCRED). Over TCP it is whoever the token
//! belongs to. Every handler runs in a task of its own, so that a caller who goes away does not stop a command half
//! way, and a panic ends one request and nothing else.

mod accept;
mod artifacts;
mod ci;
mod commands;
mod listeners;
mod events;
mod break_glass;
mod history;
mod holds;
mod logs;
mod outside;
mod peer;
mod process;
mod questions;
mod respond;
mod seat;
mod socket;
mod stall;
mod unnamed;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post, put};
use ledger::Ledger;
use replay::{HistoryQuery, Reader};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use workers::artifacts::Artifacts;
use workers::break_glass::BreakGlass;
use workers::nodes::process::logs::Wanted;
use workers::traffic::ProxyControl;

use crate::ci::Secrets;
use crate::problem::{Code, Problem};
use crate::question::EventsQuestion;
use crate::tokens::Tokens;

pub use history::LIMIT_MAX as HISTORY_LIMIT_MAX;
pub use listeners::Listeners;
pub use outside::Outside;
pub use socket::{SocketError, path as socket_path, reach as reach_socket};

/// What the server answers from and acts on.
pub struct Api {
    /// The ledger.
    pub ledger: Ledger,
    /// The data folder.
    pub data: PathBuf,
    /// What reads are answered from.
    pub reader: Arc<Reader>,
    /// The files that releases run.
    pub artifacts: Arc<Artifacts>,
    /// What it reaches outside by itself.
    pub outside: Outside,
    /// What carries rollbacks out while the ledger gives no verdict; without it they wait for the ledger.
    pub break_glass: Option<Arc<BreakGlass>>,
    /// The proxy whose figures `/metrics` gives too; without it that proxy gives them itself.
    pub proxy: Option<ProxyControl>,
    /// Who may come through TCP.
    pub tokens: Tokens,
    /// The secrets that CI signs with; without one nothing from CI is believed.
    pub ci: Secrets,
    /// The group whose members may use the data folder's socket, besides its owner.
    pub socket_group: Option<u32>,
    /// How much is taken at once.
    pub limits: Limits,
    /// A permit for each long read; more reads wait.
    pub long_reads: Semaphore,
    /// A permit for each upload.
    uploads: Semaphore,
    /// The connections that each token has now.
    token_connections: seat::Counts<String>,
    /// Cancelled when the server closes; long answers end then.
    pub closing: CancellationToken,
}

/// How long an artifact may be, in bytes.
pub const ARTIFACT_BYTES_MAX: u64 = 2 << 30;

/// How many reads that may fold the whole log run at a time.
const LONG_READS_MAX: usize = 4;

/// How much is taken at once.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections open at a time, on each of the two listeners. Those that come later may ask for health and a rollback.
    pub connections_max: usize,
    /// Connections beyond them that are kept open at a time; a new one closes the oldest.
    pub connections_reserved_max: usize,
    /// Connections that a token may have at a time, on all listeners.
    pub connections_per_token_max: usize,
    /// Connections that an address may have at a time over TCP; as many as there are if there is nothing.
    pub connections_per_address_max: Option<usize>,
    /// How long the other end of a connection may take less than 16 KiB of what is written to it.
    pub stalled_max: Duration,
    /// How long a request's head may take.
    pub head_timeout: Duration,
    /// How long a command's body may take.
    pub body_timeout: Duration,
    /// How long the server waits for the next part of an artifact.
    pub upload_idle: Duration,
    /// How long an artifact may be, in bytes.
    pub artifact_bytes_max: u64,
    /// How much the files that no release names may take together, in bytes.
    pub unnamed_bytes_max: u64,
    /// How often files that no release named for a day are looked for, the first time after the server has run so long.
    pub unnamed_every: Duration,
    /// How long an answer waits for the router to confirm weights, if its caller does not say.
    pub applied_wait: Duration,
    /// How long open requests may go on when the server closes.
    pub close_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 256,
            connections_reserved_max: 32,
            connections_per_token_max: 64,
            connections_per_address_max: None,
            stalled_max: Duration::from_secs(30),
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            upload_idle: Duration::from_secs(30),
            artifact_bytes_max: ARTIFACT_BYTES_MAX,
            unnamed_bytes_max: 10 << 30,
            unnamed_every: Duration::from_secs(600),
            applied_wait: Duration::from_secs(2),
            close_timeout: Duration::from_secs(5),
        }
    }
}

impl Api {
    /// Returns the API of `ledger` that reaches nothing outside, with the usual limits.
    pub fn new(ledger: Ledger, reader: Arc<Reader>, data: &Path, artifacts: Arc<Artifacts>) -> Self {
        Self {
            ledger,
            data: data.to_owned(),
            reader,
            artifacts,
            outside: Outside::default(),
            break_glass: None,
            proxy: None,
            tokens: Tokens::of(data),
            ci: Secrets::default(),
            socket_group: None,
            limits: Limits::default(),
            long_reads: Semaphore::new(LONG_READS_MAX),
            uploads: Semaphore::new(artifacts::UPLOADS_MAX),
            token_connections: seat::Counts::default(),
            closing: CancellationToken::new(),
        }
    }
}

/// A server that listens and is not yet answering.
pub struct Server {
    api: Arc<Api>,
    unix: Option<UnixListener>,
    tcp: Option<TcpListener>,
    /// Its own listeners, which close with it.
    _listeners: Option<Listeners>,
}

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// On the socket in the data folder.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// On the TCP address.
    #[error("cannot listen on {address}: {cause}; choose another with `--listen ADDRESS:PORT`")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// Why.
        cause: std::io::Error,
    },
}

impl Server {
    /// Listens on the data folder's socket and, if there is an address, over TCP. A socket that a killed process left
    /// is replaced.
    ///
    /// # Errors
    ///
    /// [`ListenError`]: the socket answers already, or it cannot listen on an address.
    pub async fn listen(api: Arc<Api>, tcp: Option<SocketAddr>) -> Result<Self, ListenError> {
        let listeners = Listeners::open(&api.data, api.socket_group, tcp).await?;
        let server = Self::behind(api, &listeners)?;
        Ok(Self { _listeners: Some(listeners), ..server })
    }

    /// Answers on listeners that stay open when it ends.
    ///
    /// # Errors
    ///
    /// [`ListenError`]: the operating system's.
    pub fn behind(api: Arc<Api>, listeners: &Listeners) -> Result<Self, ListenError> {
        let (unix, tcp) = listeners.for_server()?;
        Ok(Self { api, unix, tcp, _listeners: None })
    }

    /// Says whether it listens on the data folder's socket.
    pub fn has_socket(&self) -> bool {
        self.unix.is_some()
    }

    /// Returns the address it listens on over TCP, if it does.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|tcp| tcp.local_addr().ok())
    }

    /// Answers until [`Api::closing`] is cancelled; then lets open requests end, for a while, and closes its own listeners.
    pub async fn run(self) {
        let Self { api, unix, tcp, _listeners } = self;
        let router = router(Arc::clone(&api));
        let over_unix = async {
            match unix {
                Some(unix) => accept::unix(unix, Arc::clone(&api), router.clone()).await,
                None => api.closing.cancelled().await,
            }
        };
        let over_tcp = async {
            match tcp {
                Some(tcp) => accept::tcp(tcp, Arc::clone(&api), router.clone()).await,
                None => api.closing.cancelled().await,
            }
        };
        tokio::join!(over_unix, over_tcp, unnamed::keep_removing(&api));
    }
}

/// Returns every address there is.
fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/healthz", get(process::healthz))
        .route("/readyz", get(process::readyz))
        .route("/metrics", get(process::metrics))
        .route("/v1/commands", post(commands::post))
        .route("/v1/ci/releases", post(ci::post))
        .route("/v1/artifacts", put(artifacts::put))
        .route("/v1/artifacts/{sha256}", get(artifacts::get))
        .merge(questions::whole())
        .merge(questions::at::<HistoryQuery, _>(history::get))
        .merge(questions::at::<Wanted, _>(logs::get))
        .merge(questions::at::<EventsQuestion, _>(events::get))
        .fallback(|| async { Problem::new(Code::NoSuchPath, "no such address; every address is in docs/api.md") })
        .method_not_allowed_fallback(|| async { Problem::new(Code::Method, "this path does not support that method") })
        .layer(axum::middleware::from_fn(respond::in_a_task))
        .layer(axum::middleware::from_fn(seat::reserved_only))
        .layer(axum::middleware::from_fn(respond::drained))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&api), respond::with_halt))
        .with_state(api)
}
