//! A router that takes what it hears, counts it, and does what a test wants.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use schemas::{DeploymentId, StreamVersion};
use tokio::sync::Notify;
use workers::traffic::{ApplyError, Entry, HeldRoutes, Measures, Router, Routes, Silence};

type Counters = dyn Fn(&DeploymentId) -> Option<Measures> + Send + Sync;

/// What a deployment's router is for a test.
#[derive(Default)]
pub struct FakeRouter {
    /// Whether every call of it is a bug.
    pub breaks: bool,
    /// How often it was told routes.
    pub applied: AtomicU32,
    /// Told as soon as it hears routes.
    pub begun: Notify,
    /// What it waits for before it takes them.
    pub go_on: Option<Notify>,
    /// How often it took them.
    pub ended: AtomicU32,
    /// What it counted.
    pub counters: Option<Box<Counters>>,
    /// Since when it does not answer, if it does not.
    pub silence: Mutex<Option<Silence>>,
}

#[async_trait]
impl Router for FakeRouter {
    async fn apply(&self, routes: &Routes) -> Result<HeldRoutes, ApplyError> {
        assert!(!self.breaks, "a bug in a hook");
        assert_eq!(routes.deployment, crate::world::deployment());
        self.applied.fetch_add(1, Ordering::SeqCst);
        self.begun.notify_one();
        if let Some(go_on) = &self.go_on {
            go_on.notified().await;
        }
        self.ended.fetch_add(1, Ordering::SeqCst);
        Ok(HeldRoutes { routes: routes.clone(), listening: "127.0.0.1:8080".parse().unwrap() })
    }

    async fn remove(&self, _: &DeploymentId, _: StreamVersion) -> Result<(), ApplyError> {
        Err(ApplyError::Refused("it serves on".to_owned()))
    }

    async fn entry(&self, _: &DeploymentId) -> Result<Option<Entry>, ApplyError> {
        assert!(!self.breaks, "a bug in a hook");
        Ok(None)
    }

    async fn measures(&self, deployment: &DeploymentId) -> Result<Option<Measures>, ApplyError> {
        Ok(self.counters.as_ref().and_then(|counters| counters(deployment)))
    }

    fn silence(&self) -> Option<Silence> {
        self.silence.lock().unwrap().clone()
    }
}
