//! Hooks: what the door asks the workers to do at once.

use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use schemas::policy::JudgementPolicy;
use schemas::run::RunSpec;
use schemas::{DeploymentId, Probed};
use workers::measures::{Asked, Measured};

/// What the workers do for the door.
#[async_trait]
pub trait Hooks: Send + Sync + 'static {
    /// Sends the weights that are set for `deployment` to its router at once, waiting for no lease: a rollback that was
    /// committed here is applied from here. Returns when the router has confirmed them.
    ///
    /// # Errors
    ///
    /// Why it did not, in a few words; the traffic shifter goes on trying.
    async fn apply_now(&self, deployment: &DeploymentId) -> Result<(), String>;

    /// Returns what the newest probes say of the stacks that a rollback of `deployment` is about; nothing where nobody can ask.
    async fn probed(&self, deployment: &DeploymentId) -> Probed {
        let _ = deployment;
        Probed::default()
    }

    /// Makes sure that `deployment`'s users can be listened for on `address`, where it does not listen yet.
    ///
    /// # Errors
    ///
    /// Why they cannot, in a few words.
    async fn check_listen(&self, deployment: &DeploymentId, address: SocketAddr) -> Result<(), String> {
        let _ = deployment;
        check_bind(address).await
    }

    /// Returns what a node of this run spec would lack if it were launched here, each as a sentence; nothing where no nodes
    /// are launched.
    async fn lacks(&self, run: &RunSpec) -> Vec<String> {
        let _ = run;
        Vec::new()
    }

    /// Returns what was measured lately of a stack's requests, by whoever the policy says measures.
    ///
    /// # Errors
    ///
    /// Why nothing was, in a few words.
    async fn measured(&self, asked: &Asked, policy: &JudgementPolicy) -> Result<Measured, String> {
        let _ = policy;
        Err(format!("nobody measures {} here", asked.deployment))
    }

    /// Tries once, for 2 s at most, whether whoever the policy says measures can be asked about the stacks that serve. Returns
    /// what is amiss, each as a sentence; nothing where nobody can try.
    async fn try_source(&self, serving: &[Asked], policy: &JudgementPolicy) -> Vec<String> {
        let _ = (serving, policy);
        Vec::new()
    }

    /// Returns what was measured of some stacks' requests in the last minute, if that is known at once.
    async fn measured_recently(&self, asked: &Asked, policy: &JudgementPolicy) -> Option<Measured> {
        let _ = (asked, policy);
        None
    }
}

/// A door without workers behind it: nothing is applied from here.
#[derive(Clone, Copy, Debug)]
pub struct Unhooked;

#[async_trait]
impl Hooks for Unhooked {
    async fn apply_now(&self, deployment: &DeploymentId) -> Result<(), String> {
        Err(format!("no router of {deployment} is known here"))
    }
}

/// Makes sure that `address` can be listened on now, by trying.
///
/// # Errors
///
/// Why it cannot.
pub async fn check_bind(address: SocketAddr) -> Result<(), String> {
    match tokio::net::TcpListener::bind(address).await {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::AddrInUse => format!("port in use: another program listens on {address}"),
            io::ErrorKind::AddrNotAvailable => format!("{} is no address of this machine", address.ip()),
            io::ErrorKind::PermissionDenied => format!("this user may not listen on port {}", address.port()),
            _ => format!("cannot listen on {address}: {error}"),
        }),
    }
}
