//! Explanations: why a rollout went on, held or came back, and what led to a commit.

use schemas::{CommitId, DeploymentId, RolloutId, StackId};
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
    /// What happened to the rollout, the oldest first, and what took all traffic from its canary after it; or the commit and its causes, each before its own cause.
    pub entries: Vec<HistoryEntry>,
}

/// Returns of a deployment's commits since a rollout began, the oldest first, those that tell its story: its own, and once its
/// canary was given all traffic by it those that take that away, until another stack has all traffic.
pub(crate) fn story(entries: Vec<HistoryEntry>, rollout: &RolloutStatus) -> Vec<HistoryEntry> {
    let (mut has_all, mut is_over) = (false, false);
    let mut tells = |entry: &HistoryEntry| {
        let own = is_of(entry, rollout.rollout);
        let is_told = entry.missing.is_some() || own || (has_all && !is_over && entry.events.iter().any(moves_traffic));
        has_all |= own && entry.events.iter().any(|happened| GIVES_ALL.contains(&happened.kind.as_str()));
        is_over |= has_all && entry.events.iter().any(|happened| takes_all(happened, rollout.canary_stack));
        is_told
    };
    entries.into_iter().filter(|entry| tells(entry)).collect()
}

/// How a rollout ends with all traffic on its canary.
const GIVES_ALL: [&str; 2] = ["rollout.completed", "rollout.promoted"];

fn moves_traffic(happened: &Happened) -> bool {
    let kinds = ["traffic.rolled_back", "traffic.weights_set", "traffic.glass_broken", "traffic.retired"];
    kinds.contains(&happened.kind.as_str())
}

/// Says whether an event gives all traffic to another stack than `canary`, or to none.
fn takes_all(happened: &Happened, canary: StackId) -> bool {
    let weights = happened.data["weights"].as_object();
    let to_another = weights.is_some_and(|weights| weights.len() == 1 && !weights.contains_key(&canary.to_string()));
    happened.kind == "traffic.retired" || (happened.kind == "traffic.weights_set" && to_another)
}

/// Says whether a commit is a part of a rollout.
fn is_of(entry: &HistoryEntry, rollout: RolloutId) -> bool {
    let id = rollout.to_string();
    let names = |happened: &Happened| {
        let purpose = &happened.data["purpose"];
        let purposes = ["step", "promotion", "abort"].map(|what| &purpose[what]["rollout"]);
        happened.data["rollout"] == id.as_str() || purposes.iter().any(|of| **of == id.as_str())
    };
    entry.commit == Some(CommitId(rollout.0)) || entry.events.iter().any(names)
}
