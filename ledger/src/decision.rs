//! The words of every decision: what it may use, who asks, what it makes happen, and why not.

use schemas::weight::NotAllTraffic;
use schemas::{
    ActorKind, CommitId, DeploymentId, ErrorText, Event, Fence, ServiceName, StackId, StackName, Stream, Timestamp,
    Version, Weight, text,
};

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
    /// Why a rollback has not moved users by this, if it has not.
    pub not_yet: Option<String>,
    /// The stack with which it is true already, if it is: the one that was asked for before, or that a rollback went to.
    pub stack: Option<StackId>,
}

/// What a decision says besides its events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// What the one who asked should know besides.
    pub notes: Vec<String>,
    /// As [`Decision::stack`].
    pub stack: Option<StackId>,
}

impl Decision {
    /// Returns a decision with all `events` in one stream.
    pub fn on(stream: Stream, events: Vec<Event>) -> Self {
        let events = events.into_iter().map(|event| (stream.clone(), event)).collect();
        Self { events, ..Self::default() }
    }

    /// Returns a decision that changes nothing, and says why.
    pub fn nothing(note: String) -> Self {
        Self { notes: vec![note], ..Self::default() }
    }

    /// Returns a decision that changes nothing, since it is true already with `stack`.
    pub fn nothing_for(stack: StackId, note: String) -> Self {
        Self { stack: Some(stack), ..Self::nothing(note) }
    }

    /// Returns what it says besides its events.
    pub fn told(self) -> Told {
        Told { notes: self.notes, stack: self.stack }
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
    #[error("{deployment} {version} is not ready: {why}; {next}")]
    NotReady {
        /// The deployment.
        deployment: DeploymentId,
        /// The stack.
        version: StackName,
        /// What it is instead; what others wrote may stand in it.
        why: Box<str>,
        /// The next step.
        next: Box<str>,
    },
    /// A rollout's baseline answers nobody.
    #[error(
        "none of the nodes of {version} passes its check{because}, and a rollout would leave its users there step by step; {next}"
    )]
    BaselineFails {
        /// The baseline.
        version: StackName,
        /// What its check said, in brackets; what others wrote may stand in it.
        because: String,
        /// The next step.
        next: String,
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
         with {next}",
        if .version.version == .newer.version { "asked for" } else { "recorded" }
    )]
    Older {
        /// The deployment.
        deployment: DeploymentId,
        /// What was asked for.
        version: Box<StackName>,
        /// What was recorded later.
        newer: Box<StackName>,
        /// What that one does: `serves`, `is being rolled out`, `waits to be rolled out`.
        does: &'static str,
        /// The commands by which a person may go back all the same.
        next: Box<str>,
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
    #[error("{deployment} {version} {why}; {}", AGAIN)]
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
    #[error("{deployment} is {why}; {}", until(.lift))]
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
    #[error("outdated: {0}")]
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

    /// Returns the next step that its text ends with, if it has one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { next, .. } | Self::BaselineFails { next, .. } | Self::NoRollout { next, .. } => {
                Some(next.clone())
            }
            Self::NotReady { next, .. } => Some(next.to_string()),
            Self::Rejected { .. } => Some(AGAIN.to_owned()),
            Self::OnHold { lift, .. } => Some(until(lift)),
            // Each of the versions has its own.
            Self::AllRejected { .. } => None,
            Self::Immutable { .. }
            | Self::Weights(_)
            | Self::TooManyVersions { .. }
            | Self::RolloutRunning { .. }
            | Self::Older { .. }
            | Self::NoTarget { .. }
            | Self::Ambiguous { .. }
            | Self::Fenced { .. }
            | Self::Invalid(_)
            | Self::Outdated(_) => ErrorText::of(self).hint,
        }
    }

    /// Says what a check said.
    pub fn invalid(error: impl std::fmt::Display) -> Self {
        Rejection::Invalid(error.to_string())
    }
}

/// How a rejected version gets traffic.
const AGAIN: &str = "to give it traffic all the same, add `--again --reason WHY`";

/// What ends a hold.
fn until(lift: &str) -> String {
    format!("its pipelines wait until `{lift}`, or until a person rolls out a version")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_of_a_refusal_is_not_cut_out_of_what_a_program_wrote() {
        let (version, said) = ("1.2.3".parse::<StackName>().unwrap(), "exit 1: cannot bind) to port; is it taken?");
        let deployment = "production/api".parse().unwrap();
        let why = format!("its stack failed ({said})").into();
        let not_ready = Rejection::NotReady { deployment, version: version.clone(), why, next: "mend it".into() };
        let because = format!(" (the last one: {said})");
        let fails = Rejection::BaselineFails { version, because, next: "mend it".to_owned() };
        for refusal in [not_ready, fails] {
            assert_eq!(refusal.hint().as_deref(), Some("mend it"), "{refusal}");
            assert!(refusal.to_string().ends_with("; mend it"), "{refusal}");
        }
    }
}
