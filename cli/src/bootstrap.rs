//! Bootstrap: what serves on a data folder. `up` runs all of it in one process beside the proxy's; `worker` and `api`
//! run a part of it each.

mod alone;
mod api_server;
mod open;
mod proxy;
mod work;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::ci::Secrets;
use ledger::execute::SystemClock;
use miette::{IntoDiagnostic, miette};
use schemas::Role;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use workers::artifacts::Artifacts;
use workers::break_glass::{BreakGlass, Patience};
use workers::checks::http::HttpChecks;
use workers::collector::STOP_GRACE;
use workers::identity;
use workers::nodes::Observed;
use workers::nodes::process::{self, ProcessNodes};
use workers::probing::Probing;
use workers::rights::{self, Open};
use workers::runtime::Adapters;
use workers::traffic::{MonitoredRouter, ProxyControl, Router};

use crate::settings::ServerSettings;

pub(crate) use alone::{Alone, MOMENT_MAX};
pub(crate) use api_server::{ApiServer, Way};
pub(crate) use open::{Need, Opened};
pub(crate) use work::work;

/// A running ledger with its workers and its API.
pub(crate) struct LocalServer {
    data: PathBuf,
    proxy: ProxyControl,
    adapters: Adapters,
    tasks: JoinSet<miette::Result<()>>,
    stop: CancellationToken,
    api: ApiServer,
}

impl LocalServer {
    /// Takes the data folder, starts the proxy or adopts the one that runs, starts the workers and starts the API.
    ///
    /// # Errors
    ///
    /// What cannot be had: the folder, the log, the proxy or an address.
    pub(crate) async fn open(data: &Path, settings: &ServerSettings, ci: Secrets) -> miette::Result<Self> {
        let opened = Opened::open(data, settings, Need::Answers).await?;
        opened.refuse_absent()?;
        opened.refuse_halted()?;
        let data = opened.data.clone();
        let artifacts = Arc::new(Artifacts::open(&data).map_err(report)?);
        let adapters = adapters(&opened, &artifacts)?;
        name_obstacle(&data);
        name_lacks(&opened);
        let stop = CancellationToken::new();
        let way = Way::Socket(settings.listen);
        let api = ApiServer::open(&opened, &adapters, artifacts, ci, settings, way, true).await?;
        // A proxy that is started serves what the ledger says is set, so that rollbacks without the ledger come first.
        if let Some(break_glass) = &adapters.break_glass {
            break_glass.settle_all().await;
        }
        // Last of what may fail: an `up` that cannot be leaves nothing behind.
        let exe = std::env::current_exe().into_diagnostic()?;
        let proxy = proxy::start(&data, &exe, &settings.trusted_proxies, &opened.ledger).await?;
        let opened = Arc::new(opened);
        let mut tasks = JoinSet::new();
        for role in Role::ALL {
            let (opened, adapters, stop) = (Arc::clone(&opened), adapters.clone(), stop.clone());
            tasks.spawn(async move { work(role, &opened, adapters, stop).await });
        }
        tasks.spawn(keep_break_glass(&adapters, stop.clone()));
        let (trusted, ledger) = (settings.trusted_proxies.clone(), opened.ledger.clone());
        tasks.spawn(proxy::keep(data.clone(), exe, trusted, proxy.clone(), ledger, stop.clone()));
        Ok(Self { data, proxy, adapters, tasks, stop, api })
    }

    /// Returns the data folder.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Returns where the HTTP API listens besides its socket.
    pub(crate) fn tcp(&self) -> Option<SocketAddr> {
        self.api.tcp()
    }

    /// Waits until something ends that should not, and says why it did.
    pub(crate) async fn failed(&mut self) -> miette::Report {
        match self.tasks.join_next().await {
            Some(Ok(Err(report))) => report,
            Some(Err(panic)) => miette!("a worker panicked: {panic}"),
            Some(Ok(Ok(()))) | None => miette!("a worker ended by itself"),
        }
    }

    /// Closes the API, then stops the workers. Nodes and the proxy go on serving.
    pub(crate) async fn close(&mut self) {
        self.api.close().await;
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
        let running = nodes.iter().filter(|(_, seen)| !matches!(seen, Observed::Exited(_)));
        let stopping = running.map(|(effect, _)| self.adapters.nodes.stop(*effect, STOP_GRACE));
        for stopped in futures::future::join_all(stopping).await {
            stopped.map_err(report)?;
        }
        proxy::stop(&self.proxy).await
    }
}

/// Returns the adapters of a data folder: process nodes, HTTP checks, the folder's proxy, and break-glass rollbacks.
///
/// # Errors
///
/// The folder cannot be used.
pub(crate) fn adapters(opened: &Opened, artifacts: &Arc<Artifacts>) -> miette::Result<Adapters> {
    adapters_with(opened, artifacts, Patience::default())
}

/// Returns the adapters as [`adapters`], for rollbacks that wait for the ledger as long as `patience` says.
///
/// # Errors
///
/// The folder cannot be used.
fn adapters_with(opened: &Opened, artifacts: &Arc<Artifacts>, patience: Patience) -> miette::Result<Adapters> {
    let data = &opened.data;
    // The very program that runs, even after its file was replaced by a newer one.
    let launcher = PathBuf::from("/proc/self/exe");
    let nodes = match identity::is_root() {
        true => ProcessNodes::open_with_users(data, launcher, Arc::clone(artifacts)),
        false => ProcessNodes::open(data, launcher, Arc::clone(artifacts)),
    };
    let nodes = nodes.into_diagnostic()?;
    let router: Arc<dyn Router> =
        Arc::new(MonitoredRouter::new(Arc::new(ProxyControl::of(data)), Arc::new(SystemClock)));
    let break_glass = BreakGlass::new(data, opened.ledger.clone(), Arc::clone(&router), patience);
    Ok(Adapters {
        nodes: Arc::new(nodes),
        checks: Probing::new(Arc::new(HttpChecks)),
        router,
        break_glass: Some(break_glass),
    })
}

/// Records break-glass rollbacks in the ledger once it answers, until `stop`.
pub(crate) fn keep_break_glass(
    adapters: &Adapters,
    stop: CancellationToken,
) -> impl Future<Output = miette::Result<()>> + use<> {
    let break_glass = adapters.break_glass.clone();
    async move {
        match break_glass {
            Some(break_glass) => break_glass.keep(stop).await,
            None => stop.cancelled().await,
        }
        Ok(())
    }
}

/// Makes the data folder if there is none, closes in it what others should not read, and names what it cannot close.
/// `others_pass` says whether other users use the folder's socket.
///
/// # Errors
///
/// The folder cannot be used.
pub(crate) fn settle(data: &Path, others_pass: bool) -> miette::Result<()> {
    let left = rights::settle(data, others_pass).map_err(|cause| {
        miette!(
            "the data folder cannot be used: {}: {cause}; check that it exists and that this user may use it",
            data.display()
        )
    })?;
    if let Some(Open { path, mode, wanted }) = left.first() {
        let (path, more) = (path.display(), left.len() - 1);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        let next = format!("chmod {wanted:o} {path}");
        eprintln!("warning: {path} has mode {mode:03o}, and this user may not change that{more}; as its owner: {next}");
    }
    Ok(())
}

/// Names what nodes of the declared services would lack if this process launched them.
fn name_lacks(opened: &Opened) {
    let view = opened.ledger.view();
    for (name, service) in &view.state().services {
        let run = service.definition.as_ref().map(|definition| &definition.run);
        for lack in run.map(process::lacks).unwrap_or_default() {
            eprintln!("warning: {name}: {lack}");
        }
    }
}

/// Names what keeps nodes from starting, before one is launched.
pub(crate) fn name_obstacle(data: &Path) {
    if let Some(obstacle) = identity::is_root().then(|| process::obstacle(data)).flatten() {
        eprintln!("warning: no node can start: {obstacle}");
    }
}

/// Names each of these secret files that every user of this machine can read.
pub(crate) fn name_open_secrets<'a>(files: impl IntoIterator<Item = &'a PathBuf>) {
    for file in files {
        if let Some(mode) = rights::is_open_secret(file) {
            let file = file.display();
            eprintln!(
                "warning: the secret file {file} has mode {mode:03o}: every user of this machine can read it; chmod o-r {file}"
            );
        }
    }
}

fn report(error: impl std::fmt::Display) -> miette::Report {
    miette!("{error}")
}
