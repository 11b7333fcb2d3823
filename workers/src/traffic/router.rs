//! The port to routers: whatever shares a deployment's requests out over its nodes.

use schemas::{DeploymentId, StreamVersion};

use super::{ApplyError, Entry, Held, Measures, ProxyControl, Routes};

/// A router. Every call ends within a second or fails, so that a late one cannot undo what came after it.
#[async_trait::async_trait]
pub trait Router: Send + Sync {
    /// Has a deployment served as `routes` say, and returns what it serves then.
    ///
    /// # Errors
    ///
    /// [`ApplyError`]: something younger is held, the routes are refused, or the router cannot be reached.
    async fn apply(&self, routes: &Routes) -> Result<Held, ApplyError>;

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
}

#[async_trait::async_trait]
impl Router for ProxyControl {
    async fn apply(&self, routes: &Routes) -> Result<Held, ApplyError> {
        ProxyControl::apply(self, routes).await
    }

    async fn remove(&self, deployment: &DeploymentId, generation: StreamVersion) -> Result<(), ApplyError> {
        ProxyControl::remove(self, deployment, generation).await
    }

    async fn entry(&self, deployment: &DeploymentId) -> Result<Option<Entry>, ApplyError> {
        ProxyControl::entry(self, deployment).await
    }

    async fn measures(&self, deployment: &DeploymentId) -> Result<Option<Measures>, ApplyError> {
        ProxyControl::measures(self, deployment).await
    }
}
