//! The house: everything that `up` runs on a data folder, in one process beside the proxy's.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::ci::Secrets;
use api::server::{Api, Hooks, Server, check_bind};
use ledger::Ledger;
use ledger::execute::SystemClock;
use ledger::log::segments::{DataFolder, Options};
use miette::{IntoDiagnostic, miette};
use replay::Reader;
use schemas::{DeploymentId, Role};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use workers::artifacts::Artifacts;
use workers::checks::http::HttpChecks;
use workers::collector::STOP_GRACE;
use workers::glass::{Glass, Patience};
use workers::nodes::Seen;
use workers::nodes::process::ProcessNodes;
use workers::runtime::{self, Adapters, WorkerError};
use workers::traffic::{Entry, ProxyControl, Router, ensure_running};

/// How often the proxy is looked at.
const PROXY_EVERY: Duration = Duration::from_secs(1);

/// How many looks in a row must fail before the proxy is started again.
const PROXY_LOOKS: u32 = 3;

/// What of the house can be chosen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Where the HTTP API listens besides the data folder's socket.
    pub(crate) listen: Option<SocketAddr>,
    /// The secrets that CI signs its releases with.
    pub(crate) ci: Secrets,
}

/// A running ledger with its workers and its door.
pub(crate) struct House {
    data: PathBuf,
    proxy: ProxyControl,
    adapters: Adapters,
    tasks: JoinSet<miette::Result<()>>,
    stop: CancellationToken,
    closing: CancellationToken,
    server: tokio::task::JoinHandle<()>,
    tcp: Option<SocketAddr>,
}

impl House {
    /// Takes the data folder, starts the proxy or adopts the one that runs, starts the workers and opens the door.
    ///
    /// # Errors
    ///
    /// What cannot be had: the folder, the log, the proxy or an address.
    pub(crate) async fn open(data: &Path, settings: Settings) -> miette::Result<Self> {
        let folder = DataFolder::hold(data).map_err(report)?;
        let data = folder.path().to_owned();
        let opened = replay::open(folder, Options::default(), Arc::new(SystemClock)).await.map_err(report)?;
        let (ledger, reader) = (opened.ledger.clone(), opened.reader());

        let artifacts = Arc::new(Artifacts::open(&data).map_err(report)?);
        let exe = std::env::current_exe().into_diagnostic()?;
        // The very program that runs, even after its file was replaced by a newer one.
        let launcher = PathBuf::from("/proc/self/exe");
        let nodes = ProcessNodes::open(&data, launcher, Arc::clone(&artifacts)).into_diagnostic()?;
        let proxy = ProxyControl::of(&data);
        let router: Arc<dyn Router> = Arc::new(proxy.clone());
        let glass = Glass::new(&data, ledger.clone(), Arc::clone(&router), Patience::default());
        let adapters =
            Adapters { nodes: Arc::new(nodes), checks: Arc::new(HttpChecks), router, glass: Some(Arc::clone(&glass)) };

        let stop = CancellationToken::new();
        let closing = CancellationToken::new();
        let (server, tcp) = open_door(&data, &ledger, reader, &adapters, artifacts, settings, closing.clone()).await?;
        // Last of what may fail: an `up` that cannot be leaves nothing behind.
        ensure_running(&data, &exe).await.map_err(report)?;
        let mut tasks = JoinSet::new();
        for role in Role::ALL {
            let (ledger, adapters, stop) = (ledger.clone(), adapters.clone(), stop.clone());
            let instance = format!("{}@{}", std::process::id(), ledger.clock().now());
            tasks.spawn(
                async move { runtime::run(role, instance, ledger, adapters, stop).await.map_err(worker_report) },
            );
        }
        let kept = stop.clone();
        tasks.spawn(async move {
            glass.keep(kept).await;
            Ok(())
        });
        tasks.spawn(keep_proxy(data.clone(), exe, proxy.clone(), stop.clone()));
        Ok(Self { data, proxy, adapters, tasks, stop, closing, server, tcp })
    }

    /// Returns the data folder.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Returns where the HTTP API listens besides its socket.
    pub(crate) fn tcp(&self) -> Option<SocketAddr> {
        self.tcp
    }

    /// Waits until something ends that should not, and says why it did.
    pub(crate) async fn failed(&mut self) -> miette::Report {
        match self.tasks.join_next().await {
            Some(Ok(Err(report))) => report,
            Some(Err(panic)) => miette!("a worker broke off: {panic}"),
            Some(Ok(Ok(()))) | None => miette!("a worker ended by itself"),
        }
    }

    /// Closes the door, then stops the workers. Nodes and the proxy go on serving.
    pub(crate) async fn close(&mut self) {
        self.closing.cancel();
        let _ = (&mut self.server).await;
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    /// Takes every node and the proxy down.
    ///
    /// # Errors
    ///
    /// What could not be stopped.
    pub(crate) async fn take_down(&self) -> miette::Result<()> {
        let nodes = self.adapters.nodes.look().await.map_err(report)?;
        let running = nodes.iter().filter(|(_, seen)| !matches!(seen, Seen::Exited(_)));
        let stopping = running.map(|(effect, _)| self.adapters.nodes.stop(*effect, STOP_GRACE));
        for stopped in futures::future::join_all(stopping).await {
            stopped.map_err(report)?;
        }
        stop_proxy(&self.proxy).await
    }
}

fn report(error: impl std::fmt::Display) -> miette::Report {
    miette!("{error}")
}

fn worker_report(error: WorkerError) -> miette::Report {
    report(error)
}

async fn open_door(
    data: &Path,
    ledger: &Ledger,
    reader: Reader,
    adapters: &Adapters,
    artifacts: Arc<Artifacts>,
    settings: Settings,
    closing: CancellationToken,
) -> miette::Result<(tokio::task::JoinHandle<()>, Option<SocketAddr>)> {
    let mut api = Api::new(ledger.clone(), Arc::new(reader), data, artifacts);
    api.hooks = Arc::new(Hands { ledger: ledger.clone(), router: Arc::clone(&adapters.router) });
    api.glass = adapters.glass.clone();
    api.ci = settings.ci;
    api.closing = closing;
    let server = Server::listen(Arc::new(api), settings.listen).await.map_err(report)?;
    let tcp = server.tcp_address();
    Ok((tokio::spawn(server.run()), tcp))
}

/// What the workers do for the door.
struct Hands {
    ledger: Ledger,
    router: Arc<dyn Router>,
}

#[async_trait::async_trait]
impl Hooks for Hands {
    async fn apply_now(&self, deployment: &DeploymentId) -> Result<(), String> {
        let applied = runtime::apply_now(&self.ledger, &*self.router, deployment).await;
        applied.map(drop).map_err(|error| error.to_string())
    }

    async fn check_listen(&self, deployment: &DeploymentId, address: SocketAddr) -> Result<(), String> {
        let entry = self.router.entry(deployment).await.ok().flatten();
        // The address that the proxy chose for it is taken, and may be kept.
        if entry.as_ref().and_then(Entry::held).is_some_and(|held| held.listening == address) {
            return Ok(());
        }
        check_bind(address).await
    }
}

/// Starts the proxy again if it is gone.
async fn keep_proxy(data: PathBuf, exe: PathBuf, proxy: ProxyControl, stop: CancellationToken) -> miette::Result<()> {
    let mut silent = 0;
    loop {
        tokio::select! {
            () = tokio::time::sleep(PROXY_EVERY) => {}
            () = stop.cancelled() => return Ok(()),
        }
        silent = if proxy.status().await.is_ok() { 0 } else { silent + 1 };
        if silent < PROXY_LOOKS {
            continue;
        }
        match ensure_running(&data, &exe).await {
            Ok(_) => tracing::warn!("the proxy did not answer and runs again"),
            Err(error) => tracing::error!(%error, "the proxy cannot be started"),
        }
    }
}

/// Ends the proxy as its status names it, through a handle that no other process can come to mean.
async fn stop_proxy(proxy: &ProxyControl) -> miette::Result<()> {
    let status = proxy.status().await.map_err(report)?;
    let pid = i32::try_from(status.pid).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or_else(|| miette!("the proxy says it is process {}", status.pid))?;
    let handle = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).into_diagnostic()?;
    let again = proxy.status().await.map_err(report)?;
    if again.epoch != status.epoch {
        return Err(miette!("the proxy was started again meanwhile; end process {} yourself", again.pid));
    }
    rustix::process::pidfd_send_signal(handle, rustix::process::Signal::TERM).into_diagnostic()
}
