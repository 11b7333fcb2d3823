//! The port to routers: whatever shares a deployment's requests out over its nodes, and tells what was seen of them.
//!
//! `routes` and `measures` are plain values that every router adapter and the simulation's fake share. They lie in the crate of our
//! own proxy, which serves the first and counts the second.

pub mod monitored;
pub mod proxy;

use std::fmt;

use futures::future::join_all;
use schemas::{DeploymentId, StreamVersion};

pub use self::proxy::{ProxyControl, ProxyProcess, StartError, ensure_running};
pub use ::proxy::{measures, routes};
pub use measures::{Counts, Histogram, Measures, NodeMeasures, StackMeasures};
pub use monitored::{MonitoredRouter, Silence};
pub use routes::{Entry, HeldRoutes, Node, Routes, StackNodes, Status, Timeouts, Wanted};

/// A router. Every call ends within a second or fails, so that a late one cannot undo what came after it.
#[async_trait::async_trait]
pub trait Router: Send + Sync {
    /// Has a deployment served as `routes` say, and returns what it serves then.
    ///
    /// # Errors
    ///
    /// [`ApplyError`]: something younger is held, the routes are refused, or the router cannot be reached.
    async fn apply(&self, routes: &Routes) -> Result<HeldRoutes, ApplyError>;

    /// Has a deployment served no longer.
    ///
    /// # Errors
    ///
    /// [`ApplyError`], as [`Router::apply`].
    async fn remove(&self, deployment: &DeploymentId, generation: StreamVersion) -> Result<(), ApplyError>;

    /// Reads back what it holds for a deployment; `None` if it does not know it.
    ///
    /// # Errors
    ///
    /// [`ApplyError::Unreachable`].
    async fn entry(&self, deployment: &DeploymentId) -> Result<Option<Entry>, ApplyError>;

    /// Reads the counters of a deployment.
    ///
    /// # Errors
    ///
    /// [`ApplyError::Unreachable`].
    async fn measures(&self, deployment: &DeploymentId) -> Result<Option<Measures>, ApplyError>;

    /// Reads back what it holds for several deployments, and their counters where those are wanted. Each answer goes to `seen` as
    /// soon as it is there. This default makes a call for each; a router that can answer for many in one call has its own.
    async fn read_all(&self, wanted: Vec<Wanted>, seen: &Seen<'_>) {
        read_each(self, wanted, seen).await;
    }

    /// Returns since when it has not answered, if that is some seconds by now. Only [`MonitoredRouter`] knows.
    fn silence(&self) -> Option<Silence> {
        None
    }
}

/// Takes what a router holds for a deployment, and its counters if they could be read.
pub type Seen<'s> = dyn Fn(DeploymentId, Result<Option<Entry>, ApplyError>, Option<Measures>) + Send + Sync + 's;

/// Reads deployments by a call for each, at once, so that a slow one delays no other.
async fn read_each(router: &(impl Router + ?Sized), wanted: Vec<Wanted>, seen: &Seen<'_>) {
    let one = |Wanted { deployment, measures }| async move {
        let entry = router.entry(&deployment).await;
        let counted = if measures { router.measures(&deployment).await.ok().flatten() } else { None };
        seen(deployment, entry, counted);
    };
    join_all(wanted.into_iter().map(one)).await;
}

/// Why a router did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// It holds a younger generation; nothing changed.
    #[error("the router has the newer generation {held}; read the deployment again and decide again")]
    Superseded {
        /// The generation that is held.
        held: StreamVersion,
    },
    /// It says no, for this reason; nothing changed.
    #[error("the router refused: {0}")]
    Refused(String),
    /// It does not run; nothing changed, and nobody is served.
    #[error("{0}")]
    NotRunning(RouterTrouble),
    /// No answer: it is unknown whether anything changed. Read back before acting on it.
    #[error("{0}")]
    Unreachable(RouterTrouble),
}

/// What the adapter of a router says, in its own words, about a call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterTrouble {
    /// Which router it is, and what happened.
    pub what: String,
    /// What helps; empty if nothing is known to.
    pub hint: String,
}

impl fmt::Display for RouterTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "; {}", self.hint) }
    }
}
