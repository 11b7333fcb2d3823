//! Explanations: why a rollout went on, held or came back, and what led to a commit.

use schemas::{CommitId, DeploymentId, RolloutId};
use serde::{Deserialize, Serialize};

use super::{At, Happened, HistoryEntry, RolloutStatus};

/// Why something is as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The version of this form.
    pub schema_version: u16,
    /// The moment it speaks of; none if it explains a commit.
    pub at: Option<At>,
    /// The deployment, if it explains that deployment's rollout.
    pub deployment: Option<DeploymentId>,
    /// The rollout with its evidence, the one under way or the last; none if there was none, or a commit is explained.
    pub rollout: Option<RolloutStatus>,
    /// What happened to the rollout, the oldest first; or the commit and its causes, each before its own cause.
    pub entries: Vec<HistoryEntry>,
}

/// Says whether a commit is a part of a rollout.
pub(crate) fn is_of(entry: &HistoryEntry, rollout: RolloutId) -> bool {
    let id = rollout.to_string();
    let names = |happened: &Happened| {
        let purpose = &happened.data["purpose"];
        let purposes = ["step", "promotion", "abort"].map(|what| &purpose[what]["rollout"]);
        happened.data["rollout"] == id.as_str() || purposes.iter().any(|of| **of == id.as_str())
    };
    entry.commit == Some(CommitId(rollout.0)) || entry.events.iter().any(names)
}
