//! The rules under test, as values: the product's own, or one of them broken.

use bytes::Bytes;
use ledger::decide::Now;
use ledger::execute;
use ledger::execute::{Asked, Prepared, Refusal};
use ledger::rule::Halt;
use ledger::view::{Folded, View};
use schemas::{DeploymentId, Offset, Role, StreamVersion, Timestamp, Weights};
use workers::runtime::{React, react_of};
use workers::traffic::routes::{self, Admission};
use workers::traffic::{Entry, Routes};

use crate::past;

/// What the simulation runs.
#[derive(Clone, Copy)]
pub struct Rules {
    /// A worker's pure centre.
    pub react: fn(Role) -> React,
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
    react: react_of,
    prepare: execute::prepare,
    fold: |view, offset, bytes| view.fold(offset, bytes),
    keep: |_, bytes| bytes,
    survive: |records| records,
    admit: routes::admit,
    set_at: past::set_at,
    admit_removal: routes::admit_removal,
};
