//! What lies outside and the server reaches by itself: the router, the nodes' checks, and whoever measures.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ledger::Ledger;
use schemas::policy::JudgementPolicy;
use schemas::run::RunSpec;
use schemas::{DeploymentId, Probed};
use tokio_util::sync::CancellationToken;
use workers::measures::recent::Recent;
use workers::measures::{self, Asked, Measured};
use workers::nodes::process;
use workers::probing::Probing;
use workers::runtime;
use workers::traffic::{Entry, Router, Silence};

/// What the server reaches outside. The default reaches nothing: weights are applied and requests measured by others alone.
#[derive(Clone, Default)]
pub struct Outside {
    /// The router. Who commits a rollback here tells it at once.
    pub router: Option<Arc<dyn Router>>,
    /// Asks nodes whether they pass their checks.
    pub probing: Option<Arc<Probing>>,
    /// What requests did in the last minute, as [`Outside::look_on`] keeps it.
    pub recent: Arc<Recent>,
    /// Whether this process launches nodes, too.
    pub launches: bool,
    /// This process's name as a worker, if no other process can act on the ledger. It then records what the router confirms.
    pub only_instance: Option<String>,
}

/// How long an answer waits until what the router confirmed is recorded.
const RECORD_MAX: Duration = Duration::from_millis(500);

/// How often it is seen to that there is a look to measure the last minute from.
const LOOK_EVERY: Duration = Duration::from_secs(2);

impl Outside {
    /// Looks at what requests do, until `closing`. Without a router it ends at once.
    pub async fn look_on(self, ledger: Ledger, closing: CancellationToken) {
        let Some(router) = self.router else { return };
        while !closing.is_cancelled() {
            let serving = serving(&ledger);
            // A router that does not answer is heard of also where no worker reads it, and is waited for once.
            let answers = match serving.first() {
                Some(first) => router.entry(first).await.is_ok(),
                None => true,
            };
            if answers {
                self.recent.keep(serving, &*router, ledger.clock().now()).await;
            }
            tokio::select! {
                () = closing.cancelled() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Returns since when the router has not answered, if that is some seconds by now.
    pub(super) fn silence(&self) -> Option<Silence> {
        self.router.as_ref()?.silence()
    }

    /// Sends the weights that are set for `deployment` to its router at once, waiting for no lease: a rollback that was
    /// committed here is applied from here. Returns when the router has confirmed them; the traffic shifter records that, or this
    /// process if there can be no other.
    ///
    /// # Errors
    ///
    /// Why it did not, in a few words; the traffic shifter goes on trying.
    pub(super) async fn apply_now(&self, ledger: &Ledger, deployment: &DeploymentId) -> Result<(), String> {
        let Some(router) = &self.router else { return Err(format!("no router of {deployment} is known here")) };
        let Some(instance) = self.only_instance.clone() else {
            let applied = runtime::apply_now(ledger, &**router, deployment).await;
            return applied.map(drop).map_err(|error| error.to_string());
        };
        let held = runtime::apply_now_looking(ledger, &**router, deployment).await;
        let held = held.map_err(|error| error.to_string())?;
        let (ledger, id) = (ledger.clone(), deployment.clone());
        // It goes on when it is not waited for any more, so that the role is given back.
        let recording = tokio::spawn(async move { runtime::record_applied(&ledger, &instance, &id, &held).await });
        match tokio::time::timeout(RECORD_MAX, recording).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%deployment, %error, "what the router confirmed was not recorded"),
            Ok(Err(panic)) => tracing::error!(%deployment, %panic, "what the router confirmed was not recorded"),
            Err(_) => tracing::warn!(%deployment, "what the router confirmed was not recorded in time"),
        }
        Ok(())
    }

    /// Returns what the newest probes say of the stacks that a rollback of `deployment` is about; nothing where nobody can ask.
    pub(super) async fn probed(&self, ledger: &Ledger, deployment: &DeploymentId) -> Probed {
        let found = ledger.view().state().deployment(deployment).cloned();
        match (found, &self.probing) {
            (Some(found), Some(probing)) => probing.look(&found).await,
            _ => Probed::default(),
        }
    }

    /// Makes sure that `deployment`'s users can be listened for on `address`, where it does not listen yet.
    ///
    /// # Errors
    ///
    /// Why they cannot, in a few words.
    pub(super) async fn check_listen(&self, deployment: &DeploymentId, address: SocketAddr) -> Result<(), String> {
        if let Some(router) = &self.router {
            let entry = router.entry(deployment).await.ok().flatten();
            // The address that the router chose for it is taken, and may be kept.
            if entry.as_ref().and_then(Entry::held).is_some_and(|held| held.listening == address) {
                return Ok(());
            }
        }
        check_bind(address).await
    }

    /// Returns what a node of this run spec would lack if it were launched here, each as a sentence; nothing where no nodes
    /// are launched.
    pub(super) async fn lacks(&self, run: &RunSpec) -> Vec<String> {
        if !self.launches {
            return Vec::new();
        }
        let run = run.clone();
        tokio::task::spawn_blocking(move || process::lacks(&run)).await.unwrap_or_default()
    }

    /// Returns what was measured lately of a stack's requests, by whoever the policy says measures.
    ///
    /// # Errors
    ///
    /// Why nothing was, in a few words.
    pub(super) async fn measured(
        &self,
        ledger: &Ledger,
        asked: &Asked,
        policy: &JudgementPolicy,
    ) -> Result<Measured, String> {
        let Some(router) = &self.router else { return Err(format!("nobody measures {} here", asked.deployment)) };
        measures::lately(asked, policy, &**router, ledger.clock().now()).await
    }

    /// Tries once, for 2 s at most, whether whoever the policy says measures can be asked about the stacks that serve. Returns
    /// what is wrong, each as a sentence; nothing where nothing is driven from.
    pub(super) async fn try_source(&self, ledger: &Ledger, serving: &[Asked], policy: &JudgementPolicy) -> Vec<String> {
        match self.router {
            Some(_) => measures::test_source(policy, serving, ledger.clock().now()).await,
            None => Vec::new(),
        }
    }

    /// Returns what was measured of some stacks' requests in the last minute, if that is known at once.
    pub(super) async fn measured_recently(
        &self,
        ledger: &Ledger,
        asked: &Asked,
        policy: &JudgementPolicy,
    ) -> Option<Measured> {
        self.recent.of(asked, policy, &**self.router.as_ref()?, ledger.clock().now()).await
    }
}

/// Returns the deployments that have weights.
fn serving(ledger: &Ledger) -> BTreeSet<DeploymentId> {
    let view = ledger.view();
    let deployments = view.state().deployments.iter();
    deployments.filter(|(_, deployment)| deployment.traffic.set.is_some()).map(|(id, _)| id.clone()).collect()
}

/// Makes sure that `address` can be listened on now, by trying.
///
/// # Errors
///
/// Why it cannot.
async fn check_bind(address: SocketAddr) -> Result<(), String> {
    match tokio::net::TcpListener::bind(address).await {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::AddrInUse => format!("port in use: another program listens on {address}"),
            io::ErrorKind::AddrNotAvailable => format!("{} is not an address of this machine", address.ip()),
            io::ErrorKind::PermissionDenied => format!("this user may not listen on port {}", address.port()),
            _ => format!("cannot listen on {address}: {error}"),
        }),
    }
}
