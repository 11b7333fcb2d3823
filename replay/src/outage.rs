//! Outages: rollbacks that were in effect before the ledger heard of them (break-glass).
//!
//! The log has such a rollback where it was recorded. An answer about a moment before that, and not before the rollback took
//! effect, has it all the same: its events are folded over the state of that moment. Whoever folds the log and whoever
//! reads the cache's rows do so with [`lay`], so both give the same answer.

use std::sync::Arc;

use ledger::State;
use ledger::at::At as StateAt;
use ledger::deployment::Rollout;
use schemas::{DeploymentId, Event, StackId, Stream, Timestamp, traffic};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::answer::At;
use crate::shares::{CommitPosition, Shares};

/// A rollback that was in effect before it was recorded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outage {
    deployment: DeploymentId,
    /// When it took effect.
    from: Timestamp,
    /// Where it was recorded.
    pub(crate) place: CommitPosition,
    /// What its commit says of the deployment.
    events: Vec<Event>,
    /// The deployment's rollout as that commit leaves it.
    rollout: Option<Rollout>,
}

/// An outage as the cache keeps it.
#[derive(Serialize, Deserialize)]
struct Row {
    deployment: DeploymentId,
    from: Timestamp,
    place: CommitPosition,
    events: Vec<(String, u16, Box<RawValue>)>,
    rollout: Option<Rollout>,
}

impl Outage {
    /// Returns the outage that a commit at `place` tells of, whose rollback took effect at `from`; `after` is the state after
    /// that commit.
    pub(crate) fn of<'a>(
        from: Timestamp,
        place: CommitPosition,
        events: impl Iterator<Item = &'a (Stream, Event)> + Clone,
        after: &State,
    ) -> Option<Self> {
        let deployment = events.clone().find_map(|(stream, event)| match (stream, event) {
            (Stream::Deployment(id), Event::Traffic(traffic::Event::GlassBroken(_))) => Some(id.clone()),
            _ => None,
        })?;
        let stream = Stream::Deployment(deployment.clone());
        let events = events.filter(|(of, _)| *of == stream).map(|(_, event)| event.clone()).collect();
        let rollout = after.deployment(&deployment)?.rollout.clone();
        Some(Self { deployment, from, place, events, rollout })
    }

    /// Says whether it was in effect at `time`, and the log up to `at` does not have it yet.
    pub(crate) fn covers(&self, at: At, time: Timestamp) -> bool {
        self.from <= time && at.offset.is_some_and(|offset| offset < self.place.offset)
    }

    /// Returns it as the cache keeps it.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let events = self.events.iter().map(|event| (event.kind().to_owned(), event.version(), event.data()));
        let (deployment, from, place) = (self.deployment.clone(), self.from, self.place);
        let row = Row { deployment, from, place, events: events.collect(), rollout: self.rollout.clone() };
        serde_json::to_vec(&row).expect("plain JSON")
    }

    /// Returns it from what the cache keeps.
    ///
    /// # Errors
    ///
    /// Why these bytes are none.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let row: Row = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let events = row.events.iter().map(|(kind, version, data)| Event::decode(kind, *version, data.get()));
        let events = events.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        Ok(Self { deployment: row.deployment, from: row.from, place: row.place, events, rollout: row.rollout })
    }

    /// Returns the stack that got all traffic.
    fn to(&self) -> Option<StackId> {
        self.events.iter().find_map(|event| match event {
            Event::Traffic(traffic::Event::GlassBroken(broken)) => Some(broken.to),
            _ => None,
        })
    }

    /// Folds it over a state in which it is not yet.
    fn lay(&self, state: &mut State, shares: &mut Shares) {
        let Some(deployment) = state.deployment(&self.deployment) else { return };
        // Its time may be that of a clock that was wrong: before there was anything to roll back to it changes nothing.
        if !self.to().is_some_and(|to| deployment.stacks.contains_key(&to)) {
            return;
        }
        let stream = Stream::Deployment(self.deployment.clone());
        let at = StateAt { time: self.from, commit: self.place.commit, version: deployment.version };
        for event in &self.events {
            state.evolve(&stream, event, &at);
            shares.evolve(&stream, event, self.place);
        }
        if let Some(deployment) = state.deployments.get_mut(&self.deployment) {
            let deployment = Arc::make_mut(deployment);
            deployment.rollout.clone_from(&self.rollout);
            // What the router had confirmed was before it.
            deployment.traffic.applied = None;
        }
        if let Some(shared) = shares.0.get_mut(&self.deployment) {
            Arc::make_mut(shared).applied = None;
        }
    }
}

/// Lets outages that cover a moment count in its state and shares; of two the one that took effect later is the last word.
pub(crate) fn lay(mut outages: Vec<Outage>, state: &mut State, shares: &mut Shares) {
    outages.sort_by_key(|outage| (outage.from, outage.place.offset));
    outages.iter().for_each(|outage| outage.lay(state, shares));
}
