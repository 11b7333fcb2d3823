//! Stranded users: those on a stack of which no node passes its check, while another stack that users are on has one. They get
//! errors until somebody moves them.

use schemas::{DeploymentId, Probed, StackId, Weight, text};

use super::rollback::{live, to_probe};
use super::{Deployment, NodePhase, Phase, Stack, rejected};

/// Users on a stack that does not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranded {
    /// The stack.
    pub stack: StackId,
    /// Their share.
    pub weight: Weight,
    /// Why it does not pass, in a few words.
    pub why: String,
    /// The command that moves them to a stack that passes, where one does.
    pub next: Option<String>,
}

/// Returns what the ledger itself knows of the stacks that a rollback is about, as if it had just probed them.
pub fn known(deployment: &Deployment) -> Probed {
    let mut known = Probed::default();
    let stacks = to_probe(deployment).into_iter();
    for (id, stack) in stacks.filter_map(|id| Some((id, deployment.stacks.get(&id)?))) {
        match stack.ready_nodes() {
            0 => known.fails(id, stack.trouble()),
            _ => known.passes(id),
        }
    }
    known
}

/// Returns the users that are stranded by what `probed` says, those with the largest share first.
pub fn stranded(deployment: &Deployment, id: &DeploymentId, probed: &Probed) -> Vec<Stranded> {
    let Some(set) = &deployment.traffic.set else { return vec![] };
    let passing = set.weights.iter().filter(|(stack, _)| probed.has_passed(*stack));
    let Some((passing, _)) = passing.max_by_key(|(_, weight)| *weight) else { return vec![] };
    let next = way_out(deployment, id, passing);
    let failing = |(stack, weight)| {
        let why = why(deployment, stack, probed.failure(stack)?);
        Some(Stranded { stack, weight, why, next: next.clone() })
    };
    let mut stranded: Vec<Stranded> = set.weights.iter().filter_map(failing).collect();
    stranded.sort_by_key(|stranded| std::cmp::Reverse(stranded.weight));
    stranded
}

/// Returns the command that moves all users to `passing`, one of the stacks that they are on, if it would be taken.
pub fn way_out(deployment: &Deployment, id: &DeploymentId, passing: StackId) -> Option<String> {
    let stack = deployment.stacks.get(&passing).filter(|stack| stack.phase == Phase::Ready)?;
    if let Some(live) = live(deployment) {
        let command = if live.canary == passing { "promote" } else { "abort" };
        return Some(format!("ionledger {command} {}", id.arguments()));
    }
    let needs_again = rejected::of(deployment, passing).is_some_and(rejected::Rejected::needs_again);
    let again = if needs_again { " --again --reason WHY" } else { "" };
    Some(format!("ionledger traffic {} {} 100{}{again}", id.service, stack.name(), id.env_flag()))
}

/// Returns why `stack` does not pass: how its node ended, if it has none now, else what `said` says, which somebody who asked it
/// was told.
pub(super) fn why(deployment: &Deployment, stack: StackId, said: &str) -> String {
    let crash = deployment.stacks.get(&stack).and_then(Stack::crash);
    brief(crash.as_deref().unwrap_or(said)).to_owned()
}

/// A cause without the end of a node's log, which `status` and `logs` show.
fn brief(cause: &str) -> &str {
    cause.split_once("; ").map_or(cause, |(brief, _)| brief)
}

impl Stack {
    /// Returns how a node of it ended, while its place is empty or the next node there has yet to pass its check.
    fn crash(&self) -> Option<String> {
        let starting = |phase: &NodePhase| matches!(phase, NodePhase::Launching | NodePhase::Launched { .. });
        let down = |slot: &u16| self.nodes.get(slot).is_none_or(|node| starting(&node.phase));
        self.failed_starts.keys().any(down).then(|| self.last_failure.clone()).flatten()
    }

    /// Returns in a few words what is known of why no node of it passes its check.
    fn known_trouble(&self) -> Option<String> {
        let failing = self.nodes.values().find_map(|node| node.failing.as_ref()).map(|failing| failing.reason.clone());
        self.crash().or(failing).map(|trouble| brief(&trouble).to_owned())
    }

    /// Says in a few words why no node of it passes its check.
    pub fn trouble(&self) -> String {
        let unknown =
            if self.nodes.is_empty() { "none of its nodes runs" } else { "its nodes have yet to pass their check" };
        self.known_trouble().unwrap_or_else(|| unknown.to_owned())
    }

    /// Says how far it is on its way to be ready, and what is in its way: `0 of 2 nodes are ready (exited with code 1)`.
    pub fn progress(&self) -> String {
        let trouble = self.known_trouble().map(|trouble| format!(" ({trouble})")).unwrap_or_default();
        format!("{}{trouble}", text::nodes_ready(self.ready_nodes(), self.capacity.nodes))
    }
}

/// Says where stranded users are, and which command moves them.
pub(super) fn told(deployment: &Deployment, stranded: &Stranded) -> String {
    let Stranded { stack, weight, why, next } = stranded;
    let name = deployment.told_name(*stack);
    let next = next.as_ref().map(|next| format!("; `{next}` moves them now")).unwrap_or_default();
    format!("{weight} of users are on {name}, which does not pass ({why}){next}")
}
