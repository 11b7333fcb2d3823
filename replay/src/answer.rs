//! Answers: plain values with a stable JSON form, and the pure functions that make them from a state.
//!
//! Every answer carries `schema_version`; a field may be added under the same version, none is renamed or removed.
//! Weights are basis points (10,000 = 100 %), times are RFC 3339 in UTC.

mod declaration;
mod explain;
mod history;
mod production;
mod shipped;
mod status;
mod summary;
mod verified;

mod named;

use ledger::View;
use schemas::{Offset, Timestamp};
use serde::{Deserialize, Serialize};

pub use declaration::{Declaration, declaration};
pub use explain::Explanation;
pub(crate) use explain::story;
pub(crate) use history::entry_without_events;
pub use history::{Happened, HistoryAnswer, HistoryEntry, Made, OnBehalfOf, Origin, OtherTime, cause, entry};
pub use production::{LeaseAt, Production, ReleaseAt, ServiceAt, production};
pub use shipped::{ReleaseOrigin, Shipped, WhoShipped, commits_needed, who_shipped};
pub use status::{
    DeploymentStatus, DriftStatus, DroppedStatus, EvidenceStatus, HoldStatus, MeasuredStatus, NextStep, NodePhase,
    NodeStatus, ObstacleKind, ObstacleStatus, RollbackTarget, RollingBackStatus, RolloutMeasured, RolloutPhase,
    RolloutStatus, RouterSilentStatus, SeenStatus, ServiceStatus, StackPhase, StatusAnswer, StrandedStatus, Unattended,
    UsersGetStatus, VerdictStatus, VersionStatus, WaitingStatus, status, status_of,
};
pub use summary::{Names, asked_for, summary};
pub use verified::{BadPlace, Compared, Verified};

/// The version of the answers' JSON form.
pub const SCHEMA_VERSION: u16 = 1;

/// The moment an answer speaks of: after the record at `offset`, when the ledger's time was `time`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    /// The last record that was folded; none before the ledger's first.
    pub offset: Option<Offset>,
    /// The ledger's time there.
    pub time: Option<Timestamp>,
}

impl At {
    /// Returns the moment of a view.
    pub fn of(view: &View) -> Self {
        let offset = view.next().0.checked_sub(1).map(Offset);
        Self { offset, time: offset.map(|_| view.time()) }
    }
}
