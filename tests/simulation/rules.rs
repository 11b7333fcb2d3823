//! The rules under test, as values: the product's own, or one of them broken.

use std::sync::Arc;

use bytes::Bytes;
use ledger::decision::Now;
use ledger::execute;
use ledger::execute::{Asked, Prepared, Refusal};
use ledger::rule::Halt;
use ledger::service::Service;
use ledger::view::{Folded, View};
use ledger::{Deployment, State};
use schemas::{DeploymentId, Offset, Role, ServiceName, StreamVersion, Timestamp, Weights};
use workers::effect::Reaction;
use workers::facts::Facts;
use workers::touched::Touched;
use workers::traffic::routes::{self, Admission};
use workers::traffic::{Entry, Routes};

use crate::past;

/// A reaction over all deployments.
pub type React = fn(&State, &Facts, Timestamp) -> Reaction;

/// What the simulation runs.
#[derive(Clone, Copy)]
pub struct Rules {
    /// A worker's reaction over all deployments; none where it reacts as the product does, to what changed.
    pub react: fn(Role) -> Option<React>,
    /// What a worker notices of the facts that changed.
    pub notice: fn(&mut Touched),
    /// From a view and what is asked to a commit.
    pub prepare: fn(&View, &Asked, Now, bool) -> Result<Prepared, Refusal>,
    /// From a view and a record to the next view.
    pub fold: fn(&mut View, Offset, &Bytes) -> Result<Folded, Halt>,
    /// What the log keeps of what it is given.
    pub keep: fn(Offset, Bytes) -> Bytes,
    /// How many of so many records are still there after a process was killed.
    pub survive: fn(usize) -> usize,
    /// Which routes replace which.
    pub admit: fn(Option<&Entry>, &Routes) -> Result<Admission, routes::Refusal>,
    /// The weights that are said to have been set at a moment of the past.
    pub set_at: fn(&[Bytes], &DeploymentId, Timestamp) -> Option<Weights>,
    /// Which removal replaces which routes.
    pub admit_removal: fn(Option<&Entry>, &DeploymentId, StreamVersion) -> Result<Admission, routes::Refusal>,
}

/// The product's own.
pub const REAL: Rules = Rules {
    react: |_| None,
    notice: |_| {},
    prepare: execute::prepare,
    fold: |view, offset, bytes| view.fold(offset, bytes),
    keep: |_, bytes| bytes,
    survive: |records| records,
    admit: routes::admit,
    set_at: past::set_at,
    admit_removal: routes::admit_removal,
};

/// Changes every deployment of a state.
pub fn each_deployment(state: &mut State, mut change: impl FnMut(&DeploymentId, &mut Deployment)) {
    let ids: Vec<DeploymentId> = state.deployments.keys().cloned().collect();
    for id in ids {
        if let Some(deployment) = state.deployments.get_mut(&id) {
            change(&id, Arc::make_mut(deployment));
        }
    }
}

/// Changes every service of a state.
pub fn each_service(state: &mut State, mut change: impl FnMut(&mut Service)) {
    let names: Vec<ServiceName> = state.services.keys().cloned().collect();
    for name in names {
        if let Some(service) = state.services.get_mut(&name) {
            change(Arc::make_mut(service));
        }
    }
}
