//! Effects: what is to be done outside, as data, with every choice already made.

use std::time::Duration;

use schemas::outcome::{self, DeploymentOutcome, Outcome};
use schemas::{DeploymentId, EffectId, StreamVersion, Timestamp};

use crate::nodes::{Fault, Instance, Launch};
use crate::traffic::{ApplyError, HeldRoutes, RouterTrouble, Routes};

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
pub enum EffectKey {
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
    pub fn key(&self) -> EffectKey {
        match self {
            Effect::Launch(launch) => EffectKey::Launch(launch.effect),
            Effect::Stop { node, .. } => EffectKey::Stop(*node),
            Effect::CleanUp { node } => EffectKey::CleanUp(*node),
            Effect::Route(routes) => EffectKey::Route(routes.deployment.clone()),
            Effect::Unroute { deployment, .. } => EffectKey::Route(deployment.clone()),
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

    /// Returns how the effect ended if nobody knows whether it was carried out, because of `why`.
    pub fn unknown(&self, why: String) -> Done {
        match self {
            Effect::Launch(_) => Done::Launched(Err(Fault::Unknown(why))),
            Effect::Stop { .. } => Done::Stopped(Err(Fault::Unknown(why))),
            Effect::Route(_) => {
                let trouble = RouterTrouble { what: why, hint: String::new() };
                Done::Routed(Err(ApplyError::Unreachable(trouble)))
            }
            Effect::CleanUp { .. } | Effect::Unroute { .. } => Done::Other,
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
    Routed(Result<HeldRoutes, ApplyError>),
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
    /// When to react again at the latest by the wall clock, if nothing happens before.
    pub wake_at: Option<Timestamp>,
    /// When to react again at the latest by the steady clock, if nothing happens before.
    pub wake_steady_at: Option<Duration>,
}

impl Reaction {
    /// Asks to react again no later than `at`, by the wall clock.
    pub fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Asks to react again no later than `at`, by the steady clock.
    pub fn wake_steady(&mut self, at: Duration) {
        self.wake_steady_at = Some(self.wake_steady_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Adds what another part of the fleet asks for.
    pub fn add(&mut self, other: Reaction) {
        let Reaction { effects, outcomes, wake_at, wake_steady_at } = other;
        self.effects.extend(effects);
        self.outcomes.extend(outcomes);
        wake_at.into_iter().for_each(|at| self.wake(at));
        wake_steady_at.into_iter().for_each(|at| self.wake_steady(at));
    }

    /// Says whether there is nothing to do and nothing to record.
    pub fn is_idle(&self) -> bool {
        self.effects.is_empty() && self.outcomes.is_empty()
    }

    /// Records something about a deployment.
    pub fn record(&mut self, deployment: &DeploymentId, outcome: impl Into<DeploymentOutcome>) {
        let outcome = outcome.into();
        self.outcomes.push(Outcome::Deployment(outcome::DeploymentReport { deployment: deployment.clone(), outcome }));
    }
}
