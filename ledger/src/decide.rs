//! Decide: what a command makes happen, given the state. Pure: time and ids arrive as data.

use schemas::command::{Command, DeploymentOutcome, Outcome};
use schemas::rollout::Plan;
use schemas::weight::NotAllTraffic;
use schemas::{
    ActorKind, CommitId, DeploymentId, Event, Fence, Probed, ServiceName, StackName, Stream, Timestamp, Version,
    Weight, text,
};

use crate::state::State;
use crate::{deployment, lease, service};

/// What a decision may use of the world: the moment and the id its commit would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The moment.
    pub time: Timestamp,
    /// The commit's id, which also names the stack or rollout it begins.
    pub commit: CommitId,
}

/// Who asks, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct By<'a> {
    /// What kind of actor it is.
    pub kind: ActorKind,
    /// Why it is asked for, if they say so.
    pub reason: Option<&'a str>,
}

impl By<'_> {
    /// A person who gives no reason.
    pub const PERSON: Self = By { kind: ActorKind::Person, reason: None };

    /// Returns the reason that they gave, or else `unsaid`.
    pub(crate) fn because(&self, unsaid: &str) -> String {
        self.reason_given().unwrap_or(unsaid).to_owned()
    }

    /// Returns what the rules say, and after it the reason that they gave, if they gave one.
    pub(crate) fn and_because(&self, rule: &str) -> String {
        self.reason_given().map_or(rule.to_owned(), |reason| format!("{rule}: {reason}"))
    }

    fn reason_given(&self) -> Option<&str> {
        self.reason.map(str::trim).filter(|reason| !reason.is_empty())
    }

    /// Says whether a person asks.
    pub fn is_person(&self) -> bool {
        self.kind == ActorKind::Person
    }
}

/// What a command makes happen. No events: it is already true.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// The events and their streams.
    pub events: Vec<(Stream, Event)>,
    /// Streams whose heads the decision relied on without moving them.
    pub requires: Vec<Stream>,
    /// What the one who asked should know besides.
    pub notes: Vec<String>,
}

/// The domain says no. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Something was never declared or recorded.
    #[error("{what} is unknown; {next}")]
    Unknown {
        /// The thing.
        what: String,
        /// How to make it known.
        next: String,
    },
    /// A release of that version exists with other content.
    #[error(
        "release {service} {version} is already recorded with another {what}; releases are immutable, use a new version"
    )]
    Immutable {
        /// The service.
        service: ServiceName,
        /// The version.
        version: Version,
        /// What differs.
        what: &'static str,
    },
    /// The stack cannot get traffic.
    #[error("{deployment} {version} is not ready: {why}")]
    NotReady {
        /// The deployment.
        deployment: DeploymentId,
        /// The stack.
        version: StackName,
        /// What it is instead, and the next step.
        why: String,
    },
    /// The weights are not all traffic.
    #[error(transparent)]
    Weights(#[from] NotAllTraffic),
    /// More versions than the policy allows.
    #[error(
        "{asked} versions would serve {deployment}, its policy allows {allowed}; name fewer, or raise retention.serving_max"
    )]
    TooManyVersions {
        /// The deployment.
        deployment: DeploymentId,
        /// How many were named.
        asked: usize,
        /// How many may serve.
        allowed: u16,
    },
    /// A rollout is in the way.
    #[error("{deployment} has a rollout {from} -> {to} at {weight}; pause, abort or promote it, or use --supersede")]
    RolloutRunning {
        /// The deployment.
        deployment: DeploymentId,
        /// Its baseline.
        from: StackName,
        /// Its canary.
        to: StackName,
        /// The canary's weight.
        weight: Weight,
    },
    /// It would go back to an older release by itself.
    #[error(
        "{deployment} does not go back to {version} by itself: {newer} was {} later and {does}; a person may go back \
         with `ionledger new` and then `ionledger roll`",
        if .version.version == .newer.version { "asked for" } else { "recorded" }
    )]
    Older {
        /// The deployment.
        deployment: DeploymentId,
        /// What was asked for.
        version: StackName,
        /// What was recorded later.
        newer: Box<StackName>,
        /// What that one does: `serves`, `is being rolled out`, `waits to be`.
        does: &'static str,
    },
    /// There is no rollout to act on.
    #[error("{deployment} has no rollout under way{last}; {next}")]
    NoRollout {
        /// The deployment.
        deployment: DeploymentId,
        /// How its last one ended.
        last: String,
        /// The next step.
        next: String,
    },
    /// There is nothing to go back to.
    #[error(
        "{deployment} has nothing to go back to: no earlier version held all its traffic; set weights with `ionledger traffic`"
    )]
    NoTarget {
        /// The deployment.
        deployment: DeploymentId,
    },
    /// What would be gone back to is rejected.
    #[error(
        "{deployment} has nothing to go back to, every version that held all its traffic before is rejected: {rejected}"
    )]
    AllRejected {
        /// The deployment.
        deployment: DeploymentId,
        /// Each with what is held against it and the command that overrules that.
        rejected: String,
    },
    /// A stack was rolled back from, or left by hand for an older release.
    #[error("{deployment} {version} {why}; to give it traffic all the same, add `--again --reason WHY`")]
    Rejected {
        /// The deployment.
        deployment: DeploymentId,
        /// The stack, or the version of one that is yet to be made.
        version: StackName,
        /// What is held against it, after its name.
        why: String,
    },
    /// A version names no single stack.
    #[error("{version} names several stacks of {deployment}: {}; name one of them", among(.stacks))]
    Ambiguous {
        /// The deployment.
        deployment: DeploymentId,
        /// The version.
        version: Version,
        /// Its stacks that stand, the oldest first.
        stacks: Vec<StackName>,
    },
    /// A pipeline would give a version traffic, and the deployment is on hold.
    #[error("{deployment} is {why}; its pipelines wait until `{lift}`, or until a person rolls out a version")]
    OnHold {
        /// The deployment.
        deployment: DeploymentId,
        /// Which hold, since when and why.
        why: String,
        /// The command that ends it.
        lift: String,
    },
    /// A rollback came in between.
    #[error(
        "{deployment} was rolled back since this was asked for (fence {now}, asked under {asked}); look at `ionledger status` and ask again"
    )]
    Fenced {
        /// The deployment.
        deployment: DeploymentId,
        /// The fence it was asked under.
        asked: Fence,
        /// The fence now.
        now: Fence,
    },
    /// What was asked for is not possible in itself.
    #[error("{0}")]
    Invalid(String),
    /// A worker's conclusion no longer fits; it looks again.
    #[error("no longer so: {0}")]
    Outdated(String),
}

impl Rejection {
    /// Says that a service was never declared, and which were.
    pub fn unknown_service<'k>(service: &ServiceName, known: impl IntoIterator<Item = &'k ServiceName>) -> Self {
        let known: Vec<&str> = known.into_iter().map(ServiceName::as_str).collect();
        let next = format!("declare it with `ionledger apply {service}.toml`");
        Rejection::Unknown { what: format!("service {service}"), next: or_known(next, service.as_str(), &known) }
    }

    /// Says that a release was never recorded, and which of the service were.
    pub fn unknown_release<'k>(
        service: &ServiceName,
        version: &Version,
        known: impl IntoIterator<Item = &'k Version>,
    ) -> Self {
        let known: Vec<&str> = known.into_iter().map(Version::as_str).collect();
        let next = format!("record it with `ionledger release {service} {version} --artifact FILE`");
        Rejection::Unknown {
            what: format!("release {service} {version}"),
            next: or_known(next, version.as_str(), &known),
        }
    }

    /// Says what a check said.
    pub fn invalid(error: impl std::fmt::Display) -> Self {
        Rejection::Invalid(error.to_string())
    }
}

fn among(stacks: &[StackName]) -> String {
    let stacks: Vec<String> = stacks.iter().map(ToString::to_string).collect();
    stacks.join(", ")
}

/// Adds to the next step what is known, and which of it was meant.
fn or_known(next: String, name: &str, known: &[&str]) -> String {
    match text::known_instead(name, known) {
        instead if instead.is_empty() => next,
        instead => format!("{next}; {instead}"),
    }
}

/// Decides a person's or a pipeline's command. `by` asks; `fence` is the one it was asked under; `probed` is what the newest
/// probes say of its deployment's stacks.
///
/// # Errors
///
/// [`Rejection`] says why not, and what to do instead.
pub fn decide(
    state: &State,
    command: &Command,
    by: By<'_>,
    fence: Option<Fence>,
    probed: &Probed,
    now: Now,
) -> Result<Decision, Rejection> {
    match command {
        Command::Apply { service: name, definition } => {
            let before = state.service(name);
            let events = service::decide_apply(before, definition)?;
            let before = before.and_then(|service| service.definition.as_ref());
            let mut decision = Decision::on(Stream::Service(name.clone()), events);
            if before.is_some_and(|before| before.capacity != definition.capacity) {
                decision.notes.extend(deployment::keep_their_capacity(state, name));
            }
            Ok(decision)
        }
        Command::Release { service: name, .. } => {
            let known = || Rejection::unknown_service(name, state.services.keys());
            let events = service::decide_release(name, state.service(name).ok_or_else(known)?, command)?;
            Ok(Decision::on(Stream::Service(name.clone()), events))
        }
        Command::New { .. }
        | Command::Renew { .. }
        | Command::Traffic { .. }
        | Command::Roll { .. }
        | Command::Rollback { .. }
        | Command::Pause { .. }
        | Command::Resume { .. }
        | Command::Abort { .. }
        | Command::Promote { .. }
        | Command::Hold { .. }
        | Command::LiftHold { .. }
        | Command::Retire { .. }
        | Command::Dismiss { .. } => deployment::decide(state, command, by, fence, probed, now),
    }
}

/// Decides a worker's conclusion or report.
///
/// # Errors
///
/// [`Rejection::Outdated`] if it no longer fits the state; the worker looks again.
pub fn decide_outcome(state: &State, outcome: &Outcome, now: Now) -> Result<Decision, Rejection> {
    match outcome {
        Outcome::Deployment { deployment, outcome } => deployment::decide_outcome(state, deployment, outcome, now),
        Outcome::TakeLease { role, holder, from, reason } => {
            let events = lease::decide_take(&state.lease(*role), *role, holder, from.as_deref(), reason)?;
            Ok(Decision::on(Stream::Worker(*role), events))
        }
        Outcome::ReleaseLease { role, holder } => {
            let events = lease::decide_release(&state.lease(*role), *role, holder)?;
            Ok(Decision::on(Stream::Worker(*role), events))
        }
    }
}

/// Checks that whoever gives traffic to a rejected version says why.
///
/// # Errors
///
/// [`Rejection::Invalid`] for `again` without a reason.
pub fn check_reason(command: &Command, reason: Option<&str>) -> Result<(), Rejection> {
    if command.asks_again() && reason.is_none_or(|reason| reason.trim().is_empty()) {
        let why = "`--again` needs a reason, which is kept for ever: add `--reason WHY`".to_owned();
        return Err(Rejection::Invalid(why));
    }
    Ok(())
}

/// Says whether a command sends traffic back, and so passes every gate.
pub fn is_rollback(command: &Command) -> bool {
    matches!(command, Command::Rollback { .. } | Command::Abort { .. })
}

/// Says whether a command is decided by what the newest probes say: those that send traffic back, and `roll`, whose
/// baseline must serve.
pub fn asks_probes(command: &Command) -> bool {
    is_rollback(command) || matches!(command, Command::Roll { .. })
}

/// Says whether an outcome sends traffic back.
pub fn outcome_is_rollback(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Deployment { outcome: DeploymentOutcome::SendBack { .. }, .. })
}

impl Decision {
    /// Returns a decision with all `events` in one stream.
    pub fn on(stream: Stream, events: Vec<Event>) -> Self {
        let events = events.into_iter().map(|event| (stream.clone(), event)).collect();
        Self { events, requires: vec![], notes: vec![] }
    }

    /// Returns a decision that changes nothing, and says why.
    pub fn nothing(note: String) -> Self {
        Self { notes: vec![note], ..Self::default() }
    }

    /// Adds a stream whose head the decision relied on.
    #[must_use]
    pub fn requiring(mut self, stream: Stream) -> Self {
        if !self.events.is_empty() {
            self.requires.push(stream);
        }
        self
    }
}

/// Puts a plan together from what was asked for and the policy.
///
/// # Errors
///
/// [`Rejection::Invalid`] if the steps do not rise to 100 %, the duration is out of range, or the canary would have all
/// traffic before the policy's soak is over.
pub fn plan(asked: &schemas::command::PlanAsked, policy: &schemas::policy::Policy) -> Result<Plan, Rejection> {
    let steps = asked.steps.clone().unwrap_or_else(|| policy.rollout.steps.clone());
    schemas::policy::check_steps(&steps).map_err(|rule| Rejection::Invalid(format!("steps: {rule}")))?;
    let duration_ms = asked.duration_ms.unwrap_or(policy.rollout.duration_ms);
    if duration_ms > 52 * 7 * 24 * 3_600_000 {
        return Err(Rejection::Invalid("a rollout takes at most 52 weeks".to_owned()));
    }
    let plan = with_bake(Plan { steps, duration_ms, bake_ms: 0 }, &policy.rollout);
    let (soak_ms, all_ms) = (policy.judgement.soak_ms, plan.all_ms());
    if soak_ms > all_ms {
        let length = |ms: u64| jiff::SignedDuration::from_millis(ms.try_into().unwrap_or(i64::MAX));
        return Err(Rejection::Invalid(format!(
            "the policy's soak is {:#}, and this plan gives all traffic after {:#}; plan for at least as long, or \
             declare a shorter soak",
            length(soak_ms),
            length(all_ms)
        )));
    }
    Ok(plan)
}

/// Puts the policy's bake before a plan's last step: a step of all but the control's share, in the place of those that leave
/// the old version no more. A plan of one step gets none: nobody judges it.
fn with_bake(mut plan: Plan, policy: &schemas::policy::RolloutPolicy) -> Plan {
    let bake = Weight::FULL.basis_points().saturating_sub(policy.control.basis_points());
    let (Ok(bake), true) = (Weight::from_basis_points(bake), policy.bake_ms > 0 && plan.steps.len() > 1) else {
        return plan;
    };
    plan.steps.retain(|step| *step < bake);
    plan.steps.extend([bake, Weight::FULL]);
    Plan { bake_ms: policy.bake_ms, ..plan }
}

/// Says where the policy's bake makes `plan` another one than was asked for, or cannot be in it.
pub fn bake_note(asked: &schemas::command::PlanAsked, plan: &Plan, policy: &schemas::policy::Policy) -> Option<String> {
    let (rollout, length) = (&policy.rollout, jiff::SignedDuration::from_millis);
    if rollout.bake_ms == 0 {
        return None;
    }
    let Some(bake) = plan.bake_step().map(|step| plan.steps[usize::from(step)]) else {
        let bake = length(i64::try_from(rollout.bake_ms).unwrap_or(i64::MAX));
        return Some(format!("a plan of one step gets no bake; with two steps or more it gets the policy's, {bake:#}"));
    };
    let steps = asked.steps.as_ref().unwrap_or(&rollout.steps);
    let replaced = steps.iter().filter(|step| **step > bake && **step < Weight::FULL);
    let replaced: Vec<String> = replaced.map(ToString::to_string).collect();
    (!replaced.is_empty()).then(|| {
        let (steps, control) = (replaced.join(", "), rollout.control);
        format!(
            "the bake at {bake} takes the place of the plan's {steps}: until it is over the old version keeps {control}"
        )
    })
}
