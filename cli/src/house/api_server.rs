//! The HTTP API of a running ledger: on the data folder's socket, over TCP, or both.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::ci::Secrets;
use api::server::{Api, Hooks, Server, check_bind};
use ledger::Ledger;
use schemas::policy::JudgementPolicy;
use schemas::run::RunSpec;
use schemas::{DeploymentId, Probed};
use tokio_util::sync::CancellationToken;
use workers::artifacts::Artifacts;
use workers::measures::recent::Recent;
use workers::measures::{self, Asked, Measured};
use workers::nodes::process;
use workers::probing::Probing;
use workers::runtime::{self, Adapters};
use workers::traffic::{Entry, ProxyControl, Router};

use super::{Opened, report};
use crate::settings::ServerSettings;

/// How callers come in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way<'f> {
    /// By the data folder's socket, and over TCP if there is an address.
    Socket(Option<SocketAddr>),
    /// Over TCP, and by the folder's socket unless another process answers there.
    Tcp(SocketAddr),
    /// By the socket of another folder alone.
    Aside(&'f Path),
}

/// An API server that answers.
pub(crate) struct ApiServer {
    closing: CancellationToken,
    server: tokio::task::JoinHandle<()>,
    tcp: Option<SocketAddr>,
    has_socket: bool,
}

impl ApiServer {
    /// Starts it. `launches` says whether this process launches nodes, too; then its metrics include the proxy's.
    ///
    /// # Errors
    ///
    /// An address that cannot be had.
    pub(crate) async fn open(
        opened: &Opened,
        adapters: &Adapters,
        artifacts: Arc<Artifacts>,
        ci: Secrets,
        settings: &ServerSettings,
        way: Way<'_>,
        launches: bool,
    ) -> miette::Result<Self> {
        let closing = CancellationToken::new();
        let mut api = Api::new(opened.ledger.clone(), Arc::clone(&opened.reader), &opened.data, artifacts);
        let router = Arc::clone(&adapters.router);
        let hands = Arc::new(Hands {
            ledger: opened.ledger.clone(),
            router,
            launches,
            probing: Arc::clone(&adapters.checks),
            recent: Recent::default(),
        });
        tokio::spawn(Arc::clone(&hands).look_on(closing.clone()));
        api.hooks = hands;
        api.glass = adapters.glass.clone();
        api.proxy = launches.then(|| ProxyControl::of(&opened.data));
        api.ci = ci;
        api.limits.connections_per_address_max = settings.connections_per_address_max;
        api.limits.unnamed_bytes_max = settings.unnamed_artifacts_bytes_max.unwrap_or(api.limits.unnamed_bytes_max);
        api.socket_group = settings.socket_group;
        api.closing = closing.clone();
        if let Way::Aside(folder) = way {
            folder.clone_into(&mut api.data);
        }
        let api = Arc::new(api);
        let server = match way {
            Way::Socket(tcp) => Server::listen(api, tcp).await,
            Way::Aside(_) => Server::listen(api, None).await,
            Way::Tcp(tcp) => Server::listen_beside(api, tcp).await,
        };
        let server = server.map_err(report)?;
        let (tcp, has_socket) = (server.tcp_address(), server.has_socket());
        Ok(Self { closing, server: tokio::spawn(server.run()), tcp, has_socket })
    }

    /// Returns where it listens over TCP.
    pub(crate) fn tcp(&self) -> Option<SocketAddr> {
        self.tcp
    }

    /// Says whether it listens on the data folder's socket.
    pub(crate) fn has_socket(&self) -> bool {
        self.has_socket
    }

    /// Takes nothing more, and lets open requests end.
    pub(crate) async fn close(&mut self) {
        self.closing.cancel();
        let _ = (&mut self.server).await;
    }
}

/// What the workers do for the API.
struct Hands {
    ledger: Ledger,
    router: Arc<dyn Router>,
    /// Whether this process launches nodes, too.
    launches: bool,
    /// Asks nodes whether they pass their checks.
    probing: Arc<Probing>,
    /// What requests did in the last minute.
    recent: Recent,
}

/// How often it is seen to that there is a look to measure the last minute from.
const LOOK_EVERY: Duration = Duration::from_secs(2);

impl Hands {
    /// Looks at what requests do, until `closing`.
    async fn look_on(self: Arc<Self>, closing: CancellationToken) {
        while !closing.is_cancelled() {
            let serving = self.serving();
            self.recent.keep(serving, &*self.router, self.ledger.clock().now()).await;
            tokio::select! {
                () = closing.cancelled() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Returns the deployments that have weights.
    fn serving(&self) -> BTreeSet<DeploymentId> {
        let view = self.ledger.view();
        let deployments = view.state().deployments.iter();
        deployments.filter(|(_, deployment)| deployment.traffic.set.is_some()).map(|(id, _)| id.clone()).collect()
    }
}

#[async_trait::async_trait]
impl Hooks for Hands {
    async fn apply_now(&self, deployment: &DeploymentId) -> Result<(), String> {
        let applied = runtime::apply_now(&self.ledger, &*self.router, deployment).await;
        applied.map(drop).map_err(|error| error.to_string())
    }

    async fn probed(&self, deployment: &DeploymentId) -> Probed {
        let found = self.ledger.view().state().deployment(deployment).cloned();
        match found {
            Some(found) => self.probing.look(&found).await,
            None => Probed::default(),
        }
    }

    async fn check_listen(&self, deployment: &DeploymentId, address: SocketAddr) -> Result<(), String> {
        let entry = self.router.entry(deployment).await.ok().flatten();
        // The address that the proxy chose for it is taken, and may be kept.
        if entry.as_ref().and_then(Entry::held).is_some_and(|held| held.listening == address) {
            return Ok(());
        }
        check_bind(address).await
    }

    async fn lacks(&self, run: &RunSpec) -> Vec<String> {
        if !self.launches {
            return Vec::new();
        }
        let run = run.clone();
        tokio::task::spawn_blocking(move || process::lacks(&run)).await.unwrap_or_default()
    }

    async fn measured(&self, asked: &Asked, policy: &JudgementPolicy) -> Result<Measured, String> {
        measures::lately(asked, policy, &*self.router, self.ledger.clock().now()).await
    }

    async fn try_source(&self, serving: &[Asked], policy: &JudgementPolicy) -> Vec<String> {
        measures::trial(policy, serving, self.ledger.clock().now()).await
    }

    async fn measured_recently(&self, asked: &Asked, policy: &JudgementPolicy) -> Option<Measured> {
        self.recent.of(asked, policy, &*self.router, self.ledger.clock().now()).await
    }
}
