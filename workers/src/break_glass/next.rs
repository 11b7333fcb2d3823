//! What is to be done next about a rollback that the ledger does not have: one plain function. `reconciler` waits around it, and
//! the simulation runs it too.

use std::time::Duration;

use ledger::deployment::{break_glass, generation};
use ledger::execute::Refusal;
use ledger::{State, View};
use schemas::break_glass::Intent;
use schemas::{Hash, LedgerId, Role, StreamVersion, Timestamp};

use crate::facts::later;
use crate::traffic::Entry;

/// How long after it was asked for a rollback's weights are still moved past the ledger; then the ledger decides.
pub const EXPIRES_AFTER: Duration = Duration::from_secs(10 * 60);

/// How far a rollback has come that the ledger does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Whether its intent is written down, or was tried to be a moment ago.
    pub written: bool,
    /// Whether the router confirmed it, or was tried to be told a moment ago.
    pub moved: bool,
    /// Whether the append that got no verdict goes on.
    pub appending: bool,
    /// Whether it was asked for more than 10 minutes ago: somebody may have helped themselves since.
    pub expired: bool,
}

/// What is known of the world.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// What the ledger has under the intent's command id: the command's hash.
    pub recorded: Option<Hash>,
    /// Whether newer work in the ledger stands against it, as far as is folded here.
    pub overtaken: bool,
    /// What is outside; none until it was looked at.
    pub outside: Option<Outside>,
}

/// What is outside.
#[derive(Clone, Debug, PartialEq)]
pub struct Outside {
    /// Whether the log answers and all that it holds is folded here, or why not.
    pub log: Result<(), String>,
    /// What the router has of the deployment, if it can be read and has anything.
    pub entry: Option<Entry>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write its intent down.
    Write,
    /// See whether the log answers, and what the router holds.
    Look,
    /// Send all traffic to its target.
    Move,
    /// Have the ledger record it.
    Record {
        /// The generation that the router holds.
        generation: StreamVersion,
        /// Whether the router served it before now, if that is known.
        moved: Option<bool>,
    },
    /// Put its file away: the ledger has it.
    PutAway,
    /// Set its file aside for this reason: the ledger will never have it.
    SetAside(String),
    /// Nothing now, for this reason.
    Wait(String),
}

impl Facts {
    /// Returns what `view` knows of `intent`; nothing of what is outside.
    pub fn of(view: &View, intent: &Intent) -> Self {
        let recorded = view.command(intent.command.id).map(|done| done.hash);
        Self { recorded, overtaken: overtaken(view.state(), intent).is_some(), outside: None }
    }
}

/// Returns what newer work in the ledger stands against `intent`, if some does.
pub fn overtaken(state: &State, intent: &Intent) -> Option<String> {
    match state.deployment(&intent.deployment) {
        Some(deployment) => break_glass::overtaken(deployment, &state.lease(Role::TrafficShifter), intent),
        None => Some(format!("{} is not in the ledger", intent.deployment)),
    }
}

impl Outside {
    /// Says whether the router holds this rollback, or what came after it: another one, or that the deployment was retired.
    pub fn holds(&self, intent: &Intent) -> bool {
        let ours = generation::emergency_count(intent.generation);
        self.entry.as_ref().is_some_and(|entry| generation::emergency_count(entry.generation()) >= ours)
    }

    /// Says whether the router served this rollback, if that is known: whoever moved users noted it, or was killed before they
    /// could. If the router holds something later, it is not known.
    fn served(&self, intent: &Intent) -> Option<bool> {
        if intent.moved_at.is_some() {
            return Some(true);
        }
        let entry = self.entry.as_ref()?;
        let is_on_target = entry.held().and_then(|held| held.routes.weights.sole()) == Some(intent.to);
        match (self.holds(intent), is_on_target) {
            (false, _) => Some(false),
            (true, true) => Some(true),
            (true, false) => None,
        }
    }
}

/// Returns what is to be done next about `intent`.
pub fn next(intent: &Intent, progress: Progress, facts: &Facts) -> Step {
    if !progress.written {
        return Step::Write;
    }
    match &facts.recorded {
        Some(hash) if *hash == intent.command.hash => return Step::PutAway,
        Some(_) => return Step::SetAside(format!("command {} was used for something else", intent.command.id)),
        None => {}
    }
    // The append goes on for a while, and settles it if it counts.
    if progress.appending {
        return Step::Wait("the append that got no verdict goes on".to_owned());
    }
    let Some(outside) = &facts.outside else { return Step::Look };
    // Its weights did not move, or a process was killed before they did.
    let is_noted = intent.moved_at.is_some() && outside.entry.is_none();
    let unmoved = !progress.moved && !is_noted && !outside.holds(intent) && !facts.overtaken;
    match &outside.log {
        Ok(()) => {
            let held = outside.entry.as_ref().map(Entry::generation);
            let generation = held.map_or(intent.generation, |held| held.max(intent.generation));
            Step::Record { generation, moved: outside.served(intent) }
        }
        Err(why) if unmoved && progress.expired => Step::Wait(format!(
            "{why}, and it is not known that users were moved within {} minutes; whether they are is decided once it does",
            EXPIRES_AFTER.as_secs() / 60
        )),
        Err(_) if unmoved => Step::Move,
        Err(why) => Step::Wait(why.clone()),
    }
}

/// Says whether an intent is so old at `now` that its weights are not moved past the ledger any more.
pub fn is_expired(intent: &Intent, now: Timestamp) -> bool {
    now > later(intent.at, EXPIRES_AFTER)
}

/// Returns what is to be done once the ledger has answered to [`Step::Record`].
pub fn after_record<T>(answer: &Result<T, Refusal>) -> Step {
    match answer {
        Ok(_) => Step::PutAway,
        Err(refusal @ (Refusal::Rejected(_) | Refusal::OtherContent { .. } | Refusal::TooLarge { .. })) => {
            Step::SetAside(refusal.to_string())
        }
        Err(refusal) => Step::Wait(refusal.to_string()),
    }
}

/// Returns why an intent that lies in the folder is not `ledger`'s, if it is not.
pub fn foreign(intent: &Intent, ledger: LedgerId) -> Option<String> {
    (intent.ledger != ledger).then(|| format!("it belongs to ledger {}, this one is {ledger}", intent.ledger))
}

#[cfg(test)]
mod tests;
