//! Effects: what is to be done outside, as data, with every choice already made.

use std::time::Duration;

use schemas::command::Outcome;
use schemas::{DeploymentId, EffectId, StreamVersion, Timestamp};

use crate::nodes::{Fault, Instance, Launch};
use crate::traffic::{ApplyError, Held, Routes};

/// Something to do outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Launch a node.
    Launch(Box<Launch>),
    /// Take a node down.
    Stop {
        /// The node.
        node: EffectId,
        /// How long it may take to end by itself.
        grace: Duration,
    },
    /// Remove what an ended node left behind.
    CleanUp {
        /// The node.
        node: EffectId,
    },
    /// Have a deployment's traffic served so.
    Route(Box<Routes>),
    /// Serve a deployment no longer.
    Unroute {
        /// The deployment.
        deployment: DeploymentId,
        /// The version it was decided at.
        generation: StreamVersion,
    },
}

/// What an effect acts on. The runtime starts no effect while one on the same thing is under way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Launching a node.
    Launch(EffectId),
    /// Taking a node down.
    Stop(EffectId),
    /// Cleaning up after a node.
    CleanUp(EffectId),
    /// Routing a deployment.
    Route(DeploymentId),
}

impl Effect {
    /// Returns what the effect acts on.
    pub fn key(&self) -> Key {
        match self {
            Effect::Launch(launch) => Key::Launch(launch.effect),
            Effect::Stop { node, .. } => Key::Stop(*node),
            Effect::CleanUp { node } => Key::CleanUp(*node),
            Effect::Route(routes) => Key::Route(routes.deployment.clone()),
            Effect::Unroute { deployment, .. } => Key::Route(deployment.clone()),
        }
    }

    /// Returns the effect's kind, for counts and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Effect::Launch(_) => "launch",
            Effect::Stop { .. } => "stop",
            Effect::CleanUp { .. } => "clean-up",
            Effect::Route(_) => "route",
            Effect::Unroute { .. } => "unroute",
        }
    }
}

/// How an effect ended.
#[derive(Clone, Debug)]
pub enum Done {
    /// A launch.
    Launched(Result<Instance, Fault>),
    /// A stop.
    Stopped(Result<(), Fault>),
    /// A routing.
    Routed(Result<Held, ApplyError>),
    /// Anything else; what came of it is seen at the next look.
    Other,
}

impl Done {
    /// Says whether it is known to have failed.
    pub fn failed(&self) -> bool {
        match self {
            Done::Launched(result) => result.is_err(),
            Done::Stopped(result) => result.is_err(),
            Done::Routed(result) => result.is_err(),
            Done::Other => false,
        }
    }
}

/// What a worker makes of the state and the facts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reaction {
    /// What to do outside.
    pub effects: Vec<Effect>,
    /// What to record.
    pub outcomes: Vec<Outcome>,
    /// When to look again at the latest, if nothing happens before.
    pub wake_at: Option<Timestamp>,
}

impl Reaction {
    /// Asks to look again at `at` at the latest.
    pub fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Records something about a deployment.
    pub fn record(&mut self, deployment: &DeploymentId, outcome: schemas::command::DeploymentOutcome) {
        self.outcomes.push(Outcome::Deployment { deployment: deployment.clone(), outcome });
    }
}
