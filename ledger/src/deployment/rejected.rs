//! Rejected stacks. A stack is rejected if users were rolled back from it, if somebody left it for an older release, if a rollback
//! went past it because it did not pass, or if its rollout was aborted. No rollback goes to it. In the first two cases traffic to it
//! needs `--again`.
//!
//! What is said of a stack is said of its version, too: the release is the same, and is no better for being deployed again.
//! Where another stack of the version was in good standing then, it is said of that one stack alone; and it counts against no
//! other while one is.

use schemas::traffic::Rejected as RejectedEvent;
use schemas::{Event, StackId, StackName, Timestamp, Version, Weight, Weights, text};
use serde::{Deserialize, Serialize};

use super::{Case, Deployment};
use crate::decision::Rejection;

/// How many marks of stacks that are gone are kept; beyond it the oldest is forgotten.
const GONE_MAX: usize = 100;

/// What is held against a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The stack; it may be gone.
    pub stack: StackId,
    /// Its version.
    pub version: Version,
    /// Which stack of that version it is.
    #[serde(default = "schemas::name::first", skip_serializing_if = "schemas::name::is_first")]
    pub number: u32,
    /// Whether another stack of the version was in good standing, so that nothing is held against the version.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
    /// What happened to it.
    pub how: RejectionCause,
    /// Why, as the event says.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// Why a stack is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectionCause {
    /// It was rolled back from, by a person or by the judge.
    RolledBack,
    /// Somebody gave its traffic to an older release.
    Left,
    /// A rollback went past it to an older one, because it did not pass. It may be tried again without a warning, as it is
    /// looked at before it gets traffic.
    PassedOver,
    /// Its rollout was aborted. People abort because a plan was wrong, so it may be tried again without a warning.
    Aborted,
}

impl Rejected {
    /// Says whether somebody must say so before it gets traffic again.
    pub fn needs_again(&self) -> bool {
        !matches!(self.how, RejectionCause::PassedOver | RejectionCause::Aborted)
    }

    /// Says what is held against it, after its name: `is rejected since a rollback at .. (..)`.
    pub fn told(&self) -> String {
        let at = self.at.strftime("%Y-%m-%dT%H:%M:%SZ");
        let why = text::given(&self.reason).map(|reason| format!(" ({reason})")).unwrap_or_default();
        match self.how {
            RejectionCause::RolledBack => format!("is rejected since a rollback at {at}{why}"),
            RejectionCause::Left => format!("is rejected since a move to an older release at {at}{why}"),
            RejectionCause::PassedOver => {
                format!("is rejected since a rollback at {at} went past it because it did not pass")
            }
            RejectionCause::Aborted => format!("is no target since its rollout was aborted at {at}{why}"),
        }
    }
}

/// Returns what is held against `stack`, if anything is.
pub fn of(deployment: &Deployment, stack: StackId) -> Option<&Rejected> {
    let own = own(deployment, stack);
    if own.is_some() || deployment.traffic.holders.iter().any(|holder| holder.stack == stack) {
        return own;
    }
    of_version(deployment, deployment.version_of(stack)?)
}

/// Returns what is held against a stack of `version` that is yet to be made, if anything is.
pub fn of_version<'a>(deployment: &'a Deployment, version: &Version) -> Option<&'a Rejected> {
    if in_good_standing(deployment, version).next().is_some() {
        return None;
    }
    deployment.traffic.rejected.iter().rev().find(|rejected| rejected.version == *version && !rejected.alone)
}

/// Returns the stacks of `version` that held all traffic, are there, and have nothing held against them.
fn in_good_standing<'a>(deployment: &'a Deployment, version: &'a Version) -> impl Iterator<Item = StackId> + 'a {
    let stands = |stack: StackId| deployment.stacks.contains_key(&stack) && own(deployment, stack).is_none();
    let of_version = deployment.traffic.holders.iter().filter(|holder| holder.version == *version);
    of_version.map(|holder| holder.stack).filter(move |stack| stands(*stack))
}

/// Returns what is held against `stack` itself, whatever is held against its version.
pub(super) fn own(deployment: &Deployment, stack: StackId) -> Option<&Rejected> {
    deployment.traffic.rejected.iter().find(|rejected| rejected.stack == stack)
}

/// Holds something against a stack. What needs no `--again` takes nothing back that does.
pub(super) fn mark(deployment: &mut Deployment, stack: StackId, how: RejectionCause, reason: &str, at: Timestamp) {
    let Some(StackName { version, number }) = deployment.name_of(stack) else { return };
    let alone = in_good_standing(deployment, &version).any(|other| other != stack);
    let stacks = &deployment.stacks;
    let rejected = &mut deployment.traffic.rejected;
    let new = Rejected { stack, version, number, alone, how, reason: reason.to_owned(), at };
    if !new.needs_again() && rejected.iter().any(|known| known.stack == stack && known.needs_again()) {
        return;
    }
    rejected.retain(|known| known.stack != stack);
    rejected.push(new);
    let gone = |known: &Rejected| !stacks.contains_key(&known.stack);
    if rejected.iter().filter(|known| gone(known)).count() > GONE_MAX
        && let Some(oldest) = rejected.iter().position(gone)
    {
        rejected.remove(oldest);
    }
}

/// Holds nothing against `stack` any more, nor against stacks of its version that are gone: it was given all traffic.
pub(super) fn clear(deployment: &mut Deployment, stack: StackId) {
    let Some(version) = deployment.version_of(stack).cloned() else { return };
    let stacks = &deployment.stacks;
    let stays = |known: &super::rejected::Rejected| {
        known.stack != stack && (known.version != version || stacks.contains_key(&known.stack))
    };
    deployment.traffic.rejected.retain(stays);
}

impl Case<'_> {
    /// Checks that `stack`, of this name, may get traffic.
    ///
    /// # Errors
    ///
    /// [`Rejection::Rejected`] if it is rejected and nobody said `again`.
    pub(super) fn check_again(&self, name: StackName, stack: StackId, again: bool) -> Result<(), Rejection> {
        self.check_not(name, of(self.deployment, stack), again)
    }

    /// Checks that a stack of `version` that is yet to be made may be rolled out, as [`Case::check_again`].
    ///
    /// # Errors
    ///
    /// [`Rejection::Rejected`].
    pub(super) fn check_version_again(&self, version: &Version, again: bool) -> Result<(), Rejection> {
        let rejected = of_version(self.deployment, version);
        let name = rejected.map_or(version.clone().into(), |of| StackName::new(of.version.clone(), of.number));
        self.check_not(name, rejected, again)
    }

    fn check_not(&self, version: StackName, rejected: Option<&Rejected>, again: bool) -> Result<(), Rejection> {
        match rejected.filter(|rejected| rejected.needs_again() && !again) {
            None => Ok(()),
            Some(rejected) => Err(Rejection::Rejected { deployment: self.id.clone(), version, why: rejected.told() }),
        }
    }

    /// The events that reject each stack that has traffic, gets none of `weights`, and is left for older releases alone. Of
    /// two stacks of one release, the one that was asked for earlier is the older.
    pub(super) fn left_for_older(&self, weights: &Weights) -> Vec<Event> {
        let traffic = &self.deployment.traffic;
        let last = || traffic.holders.last().map(|holder| holder.stack);
        let serving: Vec<StackId> = match &traffic.set {
            Some(set) => set.weights.stacks().collect(),
            None => last().into_iter().collect(),
        };
        let known = |stack: StackId| own(self.deployment, stack).is_some_and(Rejected::needs_again);
        let left = serving.into_iter().filter(|stack| weights.of(*stack) == Weight::ZERO && !known(*stack));
        let left = left.filter(|stack| weights.iter().all(|(now, _)| self.is_older(now, *stack)));
        let names = weights.iter().filter_map(|(now, _)| self.deployment.name_of(now));
        let names: Vec<String> = names.map(|name| name.to_string()).collect();
        let reason = self.by.and_because(&format!("left by hand for the older {}", names.join(" and ")));
        left.map(|stack| RejectedEvent { stack, reason: reason.clone() }.into()).collect()
    }

    pub(super) fn is_older(&self, stack: StackId, other: StackId) -> bool {
        let (this, that) = (self.deployment.name_of(stack), self.deployment.name_of(other));
        let Some((this, that)) = this.zip(that) else { return false };
        let asked_at = |stack| self.deployment.stacks.get(&stack).map(|stack| stack.requested_at);
        let earlier = || asked_at(other).is_some_and(|that| asked_at(stack).is_some_and(|this| this < that));
        self.service.is_older_stack(&this, &that) || (this == that && earlier())
    }

    /// Returns what is held against each version that a rollback would else go to, with the command that overrules it, the
    /// nearest first.
    pub(super) fn rejected_targets(&self) -> Vec<String> {
        let deployment = self.deployment;
        let mut told: Vec<(StackName, String)> = Vec::new();
        for holder in deployment.traffic.holders.iter().rev() {
            let there = deployment.stacks.contains_key(&holder.stack);
            let rejected = if there { of(deployment, holder.stack) } else { of_version(deployment, &holder.version) };
            // What is gone comes back as another stack, under another name.
            let name = StackName::new(holder.version.clone(), if there { holder.number } else { 1 });
            if let Some(rejected) = rejected
                && deployment.traffic.set_weight(holder.stack) != Weight::FULL
                && !told.iter().any(|(known, _)| *known == name || (!there && known.version == name.version))
            {
                let overruled = self.overruling(&name, there, rejected);
                told.push((name, overruled));
            }
        }
        told.into_iter().map(|(_, told)| told).collect()
    }

    fn overruling(&self, name: &StackName, there: bool, rejected: &Rejected) -> String {
        let version = &name.version;
        let (service, env) = (&self.id.service, self.id.env_flag());
        let again = if rejected.needs_again() { " --again --reason WHY" } else { "" };
        let traffic = format!("`ionledger traffic {service} {name} 100{env}{again}`");
        let first = match there || self.deployment.stack_for(version).is_some() {
            true => String::new(),
            false => format!("`ionledger new {service} {version}{env} --wait` and then "),
        };
        format!("{name} {}: {first}{traffic} overrules that", rejected.told())
    }
}
