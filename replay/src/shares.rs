//! Shares: since when, and by which commit, each stack has had the traffic it has. Folded beside the ledger's state,
//! which keeps only the last weights.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas::traffic::Event as TrafficEvent;
use schemas::{CommitId, DeploymentId, Event, Offset, StackId, Stream, Timestamp, Weight};
use serde::{Deserialize, Serialize};

/// A commit and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitPosition {
    /// The record's offset.
    pub offset: Offset,
    /// The ledger's time at it.
    pub time: Timestamp,
    /// The commit.
    pub commit: CommitId,
}

/// A stack's share of its deployment's traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The weight that is set.
    pub weight: Weight,
    /// Where it got exactly this weight.
    pub weight_since: CommitPosition,
    /// Where it got traffic, after it had none.
    pub since: CommitPosition,
}

/// The shares of one deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// The stacks that have traffic.
    pub stacks: BTreeMap<StackId, Share>,
    /// Where the router's confirmation was recorded last.
    pub applied: Option<CommitPosition>,
    /// Where it was retired, if it is.
    pub retired: Option<CommitPosition>,
}

/// The shares of every deployment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shares(pub BTreeMap<DeploymentId, Arc<Shared>>);

impl Shares {
    /// Returns the shares of a deployment, if it ever had any.
    pub fn of(&self, deployment: &DeploymentId) -> Option<&Shared> {
        self.0.get(deployment).map(Arc::as_ref)
    }

    /// Applies an event that counts, at its place; returns the deployment whose shares changed, if one's did.
    pub fn evolve(&mut self, stream: &Stream, event: &Event, place: CommitPosition) -> Option<DeploymentId> {
        let (Stream::Deployment(id), Event::Traffic(event)) = (stream, event) else { return None };
        match event {
            TrafficEvent::WeightsSet(set) => {
                let shared = self.entry(id);
                let stacks = set.weights.iter().map(|(stack, weight)| {
                    let share = match shared.stacks.remove(&stack) {
                        Some(known) if known.weight == weight => known,
                        Some(known) => Share { weight, weight_since: place, since: known.since },
                        None => Share { weight, weight_since: place, since: place },
                    };
                    (stack, share)
                });
                shared.stacks = stacks.collect();
                shared.retired = None;
            }
            TrafficEvent::WeightsApplied(_) => self.entry(id).applied = Some(place),
            TrafficEvent::Retired(_) => *self.entry(id) = Shared { retired: Some(place), ..Shared::default() },
            TrafficEvent::DriftSeen(_)
            | TrafficEvent::RolledBack(_)
            | TrafficEvent::Rejected(_)
            | TrafficEvent::GlassBroken(_) => return None,
        }
        Some(id.clone())
    }

    fn entry(&mut self, id: &DeploymentId) -> &mut Shared {
        if !self.0.contains_key(id) {
            self.0.insert(id.clone(), Arc::default());
        }
        Arc::make_mut(self.0.get_mut(id).expect("just put there"))
    }
}
