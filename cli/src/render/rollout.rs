//! A rollout in words: how it stands, and what the judge says of it.

use replay::answer::{RolloutPhase, RolloutStatus};
use schemas::StackName;
use schemas::judgement::Verdict;

use super::words::{BAD, BUSY, GOOD, IDLE, STILL, WARN};

/// Returns how a rollout under way stands, with its glyph.
pub(super) fn headline(rollout: &RolloutStatus) -> (&'static str, String) {
    let step = format!("step {} of {}", rollout.steps_taken, rollout.steps);
    let rolling = rolling(rollout);
    if let Some(to) = &rollout.comes_back_to {
        return (WARN, format!("{rolling} {}", comes_back(to, rollout.came_back)));
    }
    match (rollout.phase, &rollout.held) {
        (RolloutPhase::Paused, _) => (STILL, format!("{rolling} is paused at {step}, {}", rollout.weight)),
        (_, Some(_)) => (WARN, format!("{rolling} holds at {step}, {}", rollout.weight)),
        (_, None) if rollout.baking => (BUSY, format!("{rolling} bakes at {}, {step}", rollout.weight)),
        (_, None) if rollout.next.is_none() => {
            (BUSY, format!("rolling {rolling}, {step}, {}; the router has not confirmed it yet", rollout.weight))
        }
        _ => (BUSY, format!("rolling {rolling}, {step}, {}", rollout.weight)),
    }
}

/// Returns what is said of a rollout that an unrecorded rollback ends, which moved users, did not, or may have.
pub(super) fn comes_back(to: &StackName, moved: Option<bool>) -> String {
    match moved {
        Some(true) => format!("comes back: a rollback sent all traffic to {to}, and the ledger does not have it yet"),
        Some(false) => {
            format!("is to come back: a rollback to {to} was asked for, and users are not known to be moved yet")
        }
        None => format!("is to come back: a rollback to {to} was asked for, and the ledger does not have it yet"),
    }
}

/// Returns what it moves: `1.1.0 -> 1.2.0`.
pub(super) fn rolling(rollout: &RolloutStatus) -> String {
    format!("{} -> {}", name(rollout.baseline_name()), name(rollout.canary_name()))
}

/// Returns the name of a stack that may be gone.
pub(super) fn name(name: Option<StackName>) -> String {
    name.map_or("a gone stack".to_owned(), |name| name.to_string())
}

/// Returns a verdict, with its glyph.
pub(super) fn said(verdict: Verdict) -> String {
    match verdict {
        Verdict::NotWorse => format!("{GOOD} not worse"),
        Verdict::Worse => format!("{BAD} worse"),
        Verdict::Inconclusive => "? inconclusive".to_owned(),
    }
}

/// Returns how a rollout stands, in some words.
pub(super) fn in_words(rollout: &RolloutStatus) -> String {
    let (glyph, words) = match rollout.phase {
        RolloutPhase::Running | RolloutPhase::Paused => headline(rollout),
        RolloutPhase::Completed => (GOOD, format!("{} complete", rolling(rollout))),
        RolloutPhase::CameBack => (BAD, format!("{} came back", rolling(rollout))),
        RolloutPhase::Aborted => (BAD, format!("{} aborted", rolling(rollout))),
        RolloutPhase::Promoted => (GOOD, format!("{} promoted", rolling(rollout))),
        RolloutPhase::Superseded => (IDLE, format!("{} superseded", rolling(rollout))),
    };
    format!("{glyph} {words}")
}
