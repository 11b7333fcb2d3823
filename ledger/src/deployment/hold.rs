//! Holds: while a deployment is on hold, what pipelines release is prepared and waits. A person's rollback sets one, so that no
//! release that was under way undoes it.
//!
//! This is not the hold of a rollout's step, which waits for the judge, the router or the source (`step`).

use std::collections::BTreeMap;

use jiff::SignedDuration;
use schemas::command;
use schemas::hold::{self, Cause};
use schemas::policy::HoldAfter;
use schemas::{CommitId, DeploymentId, Event, StackId, StackName, Stream, Timestamp, Version, rollout, text, traffic};
use serde::{Deserialize, Serialize};

use super::rejected::RejectionCause;
use super::{Case, Deployment, Waiting};
use crate::at::At;
use crate::decision::{Decision, Rejection};

/// How long a hold with an end lasts at most, in milliseconds: 52 weeks.
pub const FOR_MS_MAX: u64 = 52 * 7 * 24 * 3_600_000;

/// The holds of a deployment, one a cause.
pub type Holds = BTreeMap<Cause, Hold>;

/// A hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Why.
    pub reason: String,
    /// The versions whose fix ends it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<Version>,
    /// Since when.
    pub since: Timestamp,
    /// The commit that set it.
    pub commit: CommitId,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Hold {
    /// Says what it is: `on hold since 2026-11-28T03:00:00Z (1.2 was rolled back)`.
    pub fn told(&self) -> String {
        let time = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ");
        let until = self.until.map(|until| format!(" until {}", time(until))).unwrap_or_default();
        format!("on hold since {}{until} ({})", time(self.since), self.reason)
    }

    /// Says whether its time is over.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// Changes the deployment as an event of its hold says.
pub(super) fn evolve(deployment: &mut Deployment, event: &hold::Event, at: &At) {
    match event {
        hold::Event::HoldSet(set) => {
            let hold::HoldSet { cause, reason, versions, until } = set.clone();
            deployment.holds.insert(cause, Hold { reason, versions, since: at.time, commit: at.commit, until });
        }
        hold::Event::HoldLifted(lifted) => drop(deployment.holds.remove(&lifted.cause)),
    }
}

/// Returns the holds that keep `waiting` from beginning: all that hold pipelines, and for what a person asked for those that
/// were set later.
pub fn against<'a>(deployment: &'a Deployment, waiting: &Waiting) -> impl Iterator<Item = &'a Hold> {
    let (by_hand, asked_at) = (waiting.by_hand, waiting.at);
    deployment.holds.values().filter(move |hold| !by_hand || hold.since >= asked_at)
}

/// Decides `hold`: none if it is on hold for the same reason until the same time. It takes the place of the hold that somebody
/// asked for before, and of no other.
///
/// # Errors
///
/// [`Rejection::Invalid`] without a reason, or for a time that is too long.
pub(super) fn decide_hold(case: &Case<'_>, asked: &command::Hold) -> Result<Decision, Rejection> {
    let for_ms = asked.for_ms;
    let reason = case.by.reason.map(str::trim).filter(|reason| !reason.is_empty());
    let Some(reason) = reason else {
        let why = "a hold needs a reason, which those who wait for it will read; add `--reason WHY`".to_owned();
        return Err(Rejection::Invalid(why));
    };
    if for_ms.is_some_and(|ms| ms == 0 || ms > FOR_MS_MAX) {
        let why = "`--for` takes from 1 ms to 52 weeks; leave it out for a hold that lasts until it is lifted";
        return Err(Rejection::Invalid(why.to_owned()));
    }
    let until = for_ms.map(|ms| case.now.time.saturating_add(SignedDuration::from_millis(ms.cast_signed())));
    let until = until.map(|until| until.unwrap_or(Timestamp::MAX));
    let known = case.deployment.holds.get(&Cause::Asked);
    if known.is_some_and(|known| known.reason == reason && known.until == until) {
        return Ok(Decision::nothing(format!("{} is {}", case.id, known.map(Hold::told).unwrap_or_default())));
    }
    let set = hold::HoldSet { cause: Cause::Asked, reason: reason.to_owned(), versions: vec![], until };
    Ok(Decision::on(case.stream(), vec![set.into()]))
}

/// Says what a new hold means for those that were set before it: it takes the place of the one of its own cause, and stands beside
/// the others. `who` says who set a hold.
pub fn beside(
    id: &DeploymentId,
    before: &Holds,
    set: &hold::HoldSet,
    who: impl Fn(&Hold) -> Option<String>,
) -> Vec<String> {
    let by = |hold: &Hold| who(hold).map(|who| format!(", set by {who}")).unwrap_or_default();
    let told = |(cause, hold): (&Cause, &Hold)| match *cause == set.cause {
        true => format!("the new hold takes the place of the one before: {}{}", hold.told(), by(hold)),
        false => format!("{id} is also {}{}; `{}` ends that one alone", hold.told(), by(hold), lift_one(id, *cause)),
    };
    before.iter().map(told).collect()
}

/// Decides `hold --lift`: none if it is not on hold. `only` says which hold is meant, if not every one.
///
/// # Errors
///
/// None.
pub(super) fn decide_lift(case: &Case<'_>, only: Option<Cause>) -> Result<Decision, Rejection> {
    let holds = &case.deployment.holds;
    let ends = |cause: &Cause| only.is_none_or(|only| only == *cause);
    let stay: Vec<String> = holds.iter().filter(|(cause, _)| !ends(cause)).map(|(_, hold)| hold.told()).collect();
    let stays = stay.iter().map(|told| format!("{} is still {told}", case.id));
    if !holds.keys().any(ends) {
        let such = only.map(|only| format!(" by {}", of(only))).unwrap_or_default();
        let mut decision = Decision::nothing(format!("{} is not on hold{such}", case.id));
        decision.notes.extend(stays);
        return Ok(decision);
    }
    let reason = case.by.because(text::UNSAID);
    let lifted = holds.keys().filter(|cause| ends(cause));
    let lifted = lifted.map(|cause| hold::HoldLifted { cause: *cause, reason: reason.clone() }.into()).collect();
    let mut decision = Decision::on(case.stream(), lifted);
    if !stay.is_empty() {
        decision.notes.extend(stays);
    } else if let Some(waiting) = &case.deployment.waiting
        && let Some(name) = case.deployment.name_of(waiting.stack)
    {
        decision.notes.push(format!("the waiting rollout of {name} begins when nothing else blocks it"));
    }
    Ok(decision)
}

/// Decides that a hold ends because its time is over.
///
/// # Errors
///
/// [`Rejection::Outdated`] if there is none, or its time is not over.
pub(super) fn decide_end(case: &Case<'_>, cause: Cause) -> Result<Decision, Rejection> {
    let hold = case.deployment.holds.get(&cause).filter(|hold| hold.is_over(case.now.time));
    hold.ok_or_else(|| Rejection::Outdated(format!("{} has no hold whose time is over", case.id)))?;
    let lifted = hold::HoldLifted { cause, reason: "its time was over".to_owned() };
    Ok(Decision::on(case.stream(), vec![lifted.into()]))
}

/// The events that end every hold.
pub(super) fn lifted(deployment: &Deployment, reason: &str) -> Vec<Event> {
    let causes = deployment.holds.keys();
    causes.map(|cause| hold::HoldLifted { cause: *cause, reason: reason.to_owned() }.into()).collect()
}

/// The event that ends a rollback's hold because `version` fixes what was rolled back, if it does.
pub(super) fn lifted_by_fix(case: &Case<'_>, version: &Version) -> Option<Event> {
    let fixed = case.service.releases.get(version)?.recorded.fixes.as_ref()?;
    let hold = case.deployment.holds.get(&Cause::Rollback)?;
    let reason = format!("{version} fixes {fixed}");
    hold.versions.contains(fixed).then(|| hold::HoldLifted { cause: Cause::Rollback, reason }.into())
}

/// Checks that a pipeline may give `version` traffic at once: not while there is a hold that the release does not end.
///
/// # Errors
///
/// [`Rejection::OnHold`].
pub(super) fn check(case: &Case<'_>, version: &Version) -> Result<(), Rejection> {
    let ended = lifted_by_fix(case, version).map(|_| Cause::Rollback);
    let hold = case.deployment.holds.iter().find(|(cause, _)| Some(**cause) != ended);
    match hold.filter(|_| !case.by.is_person()) {
        None => Ok(()),
        Some((_, hold)) => {
            Err(Rejection::OnHold { deployment: case.id.clone(), why: hold.told(), lift: lift(case.id) })
        }
    }
}

/// What sets a hold of this cause.
fn of(cause: Cause) -> &'static str {
    match cause {
        Cause::Asked => "`hold`",
        Cause::Rollback => "a rollback or an abort",
    }
}

/// The command that ends one hold of a deployment, and leaves the others.
pub fn lift_one(id: &DeploymentId, cause: Cause) -> String {
    let cause = match cause {
        Cause::Asked => "asked",
        Cause::Rollback => "rollback",
    };
    format!("ionledger hold {} --lift={cause}", id.arguments())
}

/// The command that ends a deployment's holds.
pub fn lift(id: &DeploymentId) -> String {
    format!("ionledger hold {} --lift", id.arguments())
}

/// Adds to a decision that takes users back the hold that follows from it: a person's by default, by the policy that of every
/// other, or of none.
pub(super) fn after_going_back(case: &Case<'_>, decision: Decision) -> Decision {
    after(case, decision, None)
}

/// Adds to a person's or the judge's rollback the hold that follows from it. Whoever rolls back what the judge has rolled back
/// already wants it held all the same.
pub(super) fn after_rollback(case: &Case<'_>, decision: Decision) -> Decision {
    let again = went_back_before(case.deployment).filter(|_| decision.events.is_empty());
    after(case, decision, again)
}

/// What a decision goes back from, and what happened to it, in words.
type Left = (Vec<StackName>, &'static str);

fn after(case: &Case<'_>, mut decision: Decision, again: Option<Left>) -> Decision {
    let definition = case.service.definition.as_ref();
    let wanted = match definition.map(|definition| definition.policy.rollout.hold_after).unwrap_or_default() {
        HoldAfter::Never => false,
        HoldAfter::Any => true,
        HoldAfter::Rollback => case.by.is_person(),
    };
    let back = decision.events.iter().find_map(|(_, event)| went_back(case, event));
    if let Some((left, what)) = back.or(again).filter(|_| wanted) {
        let names: Vec<String> = left.iter().map(ToString::to_string).collect();
        let mut versions: Vec<Version> = left.into_iter().map(|name| name.version).collect();
        versions.dedup();
        let what = if names.len() > 1 { what.replacen("was ", "were ", 1) } else { what.to_owned() };
        let names = if names.is_empty() { "it".to_owned() } else { names.join(" and ") };
        let reason = text::tidy(&case.by.and_because(&format!("{names} {what}")));
        let set = hold::HoldSet { cause: Cause::Rollback, reason, versions, until: None };
        decision.events.push((case.stream(), set.into()));
    }
    decision
}

/// Returns what the last rollback went back from, if no hold follows from it yet.
fn went_back_before(deployment: &Deployment) -> Option<Left> {
    let last = deployment.traffic.rejected.iter().rev().find(|rejected| rejected.how == RejectionCause::RolledBack)?;
    let is_held = deployment.holds.contains_key(&Cause::Rollback);
    (!is_held).then(|| (vec![StackName::new(last.version.clone(), last.number)], ROLLED_BACK))
}

const ROLLED_BACK: &str = "was rolled back";

/// Returns the stacks that an event takes users back from, and what happened to them, in words.
fn went_back(case: &Case<'_>, event: &Event) -> Option<Left> {
    let names = |stacks: &[StackId]| {
        let mut names: Vec<StackName> = stacks.iter().filter_map(|stack| case.deployment.name_of(*stack)).collect();
        names.dedup();
        names
    };
    match event {
        Event::Traffic(traffic::Event::RolledBack(back)) => Some((names(&back.from), ROLLED_BACK)),
        Event::Rollout(rollout::Event::Aborted(_)) => {
            let canary = case.deployment.rollout.as_ref()?.canary;
            Some((names(&[canary]), "was aborted"))
        }
        _ => None,
    }
}

/// Says whether a decision puts the deployment on hold, or it is.
pub(super) fn holds_after(case: &Case<'_>, decision: &Decision) -> bool {
    let sets = |(_, event): &(Stream, Event)| matches!(event, Event::Hold(hold::Event::HoldSet(_)));
    !case.deployment.holds.is_empty() || decision.events.iter().any(sets)
}
