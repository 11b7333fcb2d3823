//! The weighted reverse proxy: a process of its own, so that users' traffic depends on nothing else of ionledger.
//!
//! It shares the requests of each deployment out over its stacks by weight, counts what came of them, and keeps what it serves on
//! disk. `ionledger proxy` starts it; it is told what to serve on its control socket, whose calls `control` lists. The caller of
//! that socket is an adapter in `workers`.
//!
//! Begin with [`routes`], what it is told, and [`measures`], what it tells: plain values, which cross the control socket. Then
//! [`Proxy::start`]. The modules stand in reading order: `picker` says which stack takes a request, `meter` what came of it, and
//! `deployment` holds both beside the routes; a request's way goes from `listener` to `body`; a change's way from `disk` to `control`.
//! `handover` gives the sockets to another proxy.

pub mod routes;
pub mod measures;

mod clock;
mod limits;
mod picker;
mod meter;
mod ticket;
mod upload;
mod link;
mod backend;
mod deployment;

mod listener;
mod connection;
mod activity;
mod watched;
mod heads;
mod parting;
mod refused;
mod target;
mod trusted;
mod headers;
mod forward;
mod answer;
mod body;

mod disk;
mod kept;
mod registry;
mod control;
mod handover;

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub use handover::TakeOver;
pub use kept::bring_up_to_date;
pub use limits::Patience;
pub use trusted::TrustedProxies;

use control::Control;
use handover::{Successor, Taken};
use listener::Shared;
use registry::Registry;

/// The longest path of a Unix socket on Linux, in bytes.
const SOCKET_PATH_MAX: usize = 107;

/// How often the proxy looks after itself: an address that is taken is tried again, idle connections to nodes are let go.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// How long a proxy that hands over may take to let go of the folder.
const LOCK_MAX: Duration = Duration::from_secs(10);

/// What a proxy is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data folder; the proxy keeps its files in `proxy/` below it.
    pub data: PathBuf,
    /// How long requests at hand may take once the proxy has been told to end; default 30 s.
    pub drain: Duration,
    /// How many users may be connected at a time, fewer where descriptors are; default 16,384.
    pub connections_max: usize,
    /// How long users are waited for.
    pub patience: Patience,
    /// Whose word on who asked is believed; default nobody's.
    pub trusted_proxies: TrustedProxies,
    /// Whether operators can ask it how it is; one that they cannot ask is taken over by one that they can.
    pub watched: bool,
    /// From which proxy of the folder to take over, if one runs; default from none.
    pub take_over: TakeOver,
}

impl Config {
    /// Returns the defaults for the data folder `data`.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            drain: Duration::from_secs(30),
            connections_max: 16_384,
            patience: Patience::default(),
            trusted_proxies: TrustedProxies::default(),
            watched: false,
            take_over: TakeOver::Never,
        }
    }
}

/// Where the files of a data folder's proxy are.
#[derive(Clone, Debug)]
pub struct Files {
    /// The proxy's folder, open to its user alone.
    pub folder: PathBuf,
    /// The control socket.
    pub control: PathBuf,
    /// Where another proxy can take over.
    pub handover: PathBuf,
    /// Held by the proxy that runs, as long as it does.
    pub lock: PathBuf,
    /// Who it is, as JSON, from when it serves until it ends in an orderly way.
    pub ready: PathBuf,
    /// What it says.
    pub log: PathBuf,
    /// The last routes.
    pub routes: PathBuf,
}

impl Files {
    /// Returns the files of `data`'s proxy.
    pub fn of(data: &Path) -> Self {
        let folder = data.join("proxy");
        let file = |name| folder.join(name);
        Self {
            control: file("control.sock"),
            handover: file("handover.sock"),
            lock: file("lock"),
            ready: file("ready.json"),
            log: file("proxy.log"),
            routes: file("routes"),
            folder,
        }
    }

    /// Says whether a proxy that started would serve something.
    pub fn has_routes(&self) -> bool {
        disk::files(&self.routes).is_ok_and(|mut files| files.next().is_some())
    }

    /// Checks that its sockets can have their paths.
    ///
    /// # Errors
    ///
    /// [`Error::PathTooLong`].
    pub fn check(&self) -> Result<(), Error> {
        [&self.control, &self.handover].into_iter().try_for_each(|path| check_length(path))
    }
}

/// Why a proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another one serves this folder.
    #[error("a proxy already runs on {0}; take over from it with --take-over, or use another --data")]
    AlreadyRuns(PathBuf),
    /// Another one serves this folder, and did not hand its sockets over.
    #[error("cannot take over from the proxy that runs on {folder}: {cause}; it still serves users, end it first")]
    NotHanded {
        /// The folder.
        folder: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
    /// The folder's path is too long.
    #[error("the socket {path} has a path of {length} bytes, and {SOCKET_PATH_MAX} is the most; use a shorter --data")]
    PathTooLong {
        /// The socket's path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// A file cannot be used.
    #[error("cannot use {path} for the proxy: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
}

/// A proxy that serves.
#[derive(Debug)]
pub struct Proxy {
    files: Files,
    drain: Duration,
    shared: Shared,
    aside: TaskTracker,
    calls: TaskTracker,
    registry: Arc<Registry>,
    lock: File,
    gone: CancellationToken,
}

impl Proxy {
    /// Serves the last routes on disk, then opens the control socket. If another proxy of the folder runs, and may be taken
    /// over from, its sockets are served here before it ends.
    ///
    /// # Errors
    ///
    /// [`Error`]; nothing is served then.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let files = Files::of(&config.data);
        let (lock, taken) = take(&files, config.take_over).await?;
        let epoch = Uuid::new_v4();
        let shared = Shared {
            closing: CancellationToken::new(),
            patience: config.patience,
            trusted: Arc::new(config.trusted_proxies),
            permits: Arc::new(Semaphore::new(connections_max(config.connections_max))),
            listeners: TaskTracker::new(),
            connections: TaskTracker::new(),
        };
        let (taken, sockets) = taken.map_or_else(Default::default, |taken| (Some(taken.stream), taken.sockets));
        let registry = Registry::load(epoch, files.routes.clone(), shared.clone(), sockets);
        let registry = Arc::new(registry.map_err(at(&files.routes))?);
        if let Some(other) = taken {
            end_other(other, &lock, &files).await?;
        }
        let calls = TaskTracker::new();
        let control = Arc::new(Control {
            epoch,
            trusted_proxies: shared.trusted.to_string(),
            registry: registry.clone(),
            calls: calls.clone(),
            closing: shared.closing.clone(),
        });
        let (socket, handover) = (open_socket(&files.control)?, open_socket(&files.handover)?);
        write_ready(&files, epoch).map_err(at(&files.ready))?;

        let aside = TaskTracker::new();
        let gone = CancellationToken::new();
        let proxy = Self { files, drain: config.drain, shared, aside, calls, registry, lock, gone };
        proxy.spawn_aside(control::serve(socket, control));
        proxy.spawn_aside(handover::serve(handover, proxy.registry.clone(), config.watched, proxy.gone.clone()));
        let registry = proxy.registry.clone();
        proxy.spawn_aside(async move {
            loop {
                tokio::time::sleep(HOUSEKEEPING).await;
                registry.listen_again();
                registry.sweep();
                registry.store_again().await;
            }
        });
        tracing::info!(%epoch, deployments = proxy.registry.listening().len(), "the proxy serves");
        Ok(proxy)
    }

    /// Returns where its files are.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Returns once another proxy serves the sockets of this one, which is to be stopped then.
    pub async fn taken_over(&self) {
        self.gone.cancelled().await;
    }

    /// Takes no more connections or changes, lets requests at hand end, and returns how many connections did not end
    /// in time. Another proxy can serve the folder as soon as changes have ended, while this one's last requests do.
    pub async fn stop(self) -> usize {
        // The ready file goes first: whoever looks must not find a proxy that is ending.
        let _ = fs::remove_file(&self.files.ready);
        let _ = fs::remove_file(&self.files.control);
        let _ = fs::remove_file(&self.files.handover);
        self.shared.closing.cancel();
        let Self { shared, aside, calls, registry, lock, drain, .. } = self;
        for tasks in [&aside, &calls, &shared.listeners] {
            tasks.close();
            tasks.wait().await;
        }
        registry.close();
        drop(lock);
        shared.connections.close();
        let _ = tokio::time::timeout(drain, shared.connections.wait()).await;
        shared.connections.len()
    }

    fn spawn_aside(&self, task: impl Future<Output = ()> + Send + 'static) {
        let closing = self.shared.closing.clone();
        self.aside.spawn(async move {
            tokio::select! {
                () = closing.cancelled() => {}
                () = task => {}
            }
        });
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    |cause| Error::File { path, cause }
}

/// Takes the lock; where another proxy holds it and may be taken over from, its sockets instead.
async fn take(files: &Files, terms: TakeOver) -> Result<(File, Option<Taken>), Error> {
    let lock = prepare(files)?;
    match lock.try_lock() {
        Ok(()) => return Ok((lock, None)),
        Err(TryLockError::WouldBlock) if terms == TakeOver::Never => {
            return Err(Error::AlreadyRuns(files.folder.clone()));
        }
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(cause)) => return Err(Error::File { path: files.lock.clone(), cause }),
    }
    let path = files.handover.clone();
    let taken = tokio::task::spawn_blocking(move || handover::take(&path, terms)).await;
    match taken.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
        Ok(Some(taken)) => Ok((lock, Some(taken))),
        Ok(None) => Err(Error::AlreadyRuns(files.folder.clone())),
        Err(cause) => Err(Error::NotHanded { folder: files.folder.clone(), cause }),
    }
}

/// Has the other proxy end, whose sockets are served here now, and takes its lock.
async fn end_other(mut other: Successor, lock: &File, files: &Files) -> Result<(), Error> {
    let not_handed = |cause| Error::NotHanded { folder: files.folder.clone(), cause };
    other.say_mine().map_err(not_handed)?;
    let deadline = Instant::now() + LOCK_MAX;
    while lock.try_lock().is_err() {
        if Instant::now() >= deadline {
            return Err(not_handed(io::Error::other(format!("it has not ended within {LOCK_MAX:?}"))));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Makes the folders and opens the lock.
fn prepare(files: &Files) -> Result<File, Error> {
    let mut folders = fs::DirBuilder::new();
    folders.recursive(true).mode(0o700).create(&files.routes).map_err(at(&files.routes))?;
    fs::set_permissions(&files.folder, fs::Permissions::from_mode(0o700)).map_err(at(&files.folder))?;
    File::options().create(true).append(true).open(&files.lock).map_err(at(&files.lock))
}

fn check_length(path: &Path) -> Result<(), Error> {
    let length = path.as_os_str().len();
    if length <= SOCKET_PATH_MAX { Ok(()) } else { Err(Error::PathTooLong { path: path.to_owned(), length }) }
}

/// Opens a socket for the proxy's user alone; one that lies there is a dead proxy's, as the lock is held.
fn open_socket(path: &Path) -> Result<UnixListener, Error> {
    check_length(path)?;
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(at(path)(cause)),
        Ok(()) | Err(_) => {}
    }
    let socket = UnixListener::bind(path).map_err(at(path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(at(path))?;
    Ok(socket)
}

fn write_ready(files: &Files, epoch: Uuid) -> io::Result<()> {
    let ready = serde_json::json!({
        "pid": std::process::id(), "epoch": epoch, "version": env!("CARGO_PKG_VERSION"), "control": files.control,
    });
    let aside = files.ready.with_extension("new");
    fs::write(&aside, format!("{ready}\n"))?;
    fs::rename(&aside, &files.ready)
}

/// Raises the limit on descriptors as far as it goes, and returns how many connections fit: each may need a second
/// descriptor towards a node.
fn connections_max(asked: usize) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }); // what there is must do
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let fit = usize::try_from(descriptors.saturating_sub(64) / 2).unwrap_or(usize::MAX);
    asked.min(fit).clamp(1, Semaphore::MAX_PERMITS)
}
