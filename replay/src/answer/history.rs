//! History: what happened to a service, commit by commit, and who was behind it.

use ledger::rule::{Ruling, Void};
use ledger::view::{Commit, Folded};
use schemas::break_glass::Unrecorded;
use schemas::traffic::{self, GlassBroken};
use schemas::{Actor, ActorKind, CommandId, CommitId, EnvironmentName, Event, Offset, ServiceName, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::summary::{Names, summary};

/// What happened to a service, the newest commit first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryAnswer {
    /// The version of this form.
    pub schema_version: u16,
    /// The service; none for all of the ledger.
    pub service: Option<ServiceName>,
    /// Only this environment's deployment and what concerns the service as a whole; none for all.
    pub environment: Option<EnvironmentName>,
    /// Its commits, the newest first.
    pub entries: Vec<HistoryEntry>,
    /// Whether there are older ones that the limit left out.
    pub more: bool,
    /// Rollbacks that were carried out here and that the ledger does not have yet: it gave no verdict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unrecorded: Vec<Unrecorded>,
}

/// A commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Where it stands in the log.
    pub offset: Offset,
    /// The ledger's time at it.
    pub time: Timestamp,
    /// Its writer's time.
    pub written_at: Option<Timestamp>,
    /// When it took effect, if that was before it could be recorded. Without `recorded_at` it is only what the writer says.
    pub effective_at: Option<Timestamp>,
    /// When it was recorded, if it is a rollback that was carried out without the ledger: it counts from `effective_at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded_at: Option<Timestamp>,
    /// When a rollback without the ledger was asked for that is not known to have moved users before it was recorded. It counts from
    /// `time`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<Timestamp>,
    /// The commit; none if the record is malformed.
    pub commit: Option<CommitId>,
    /// The command it carries out.
    pub command: Option<CommandId>,
    /// Who made it, and how they proved it.
    pub actor: Option<Actor>,
    /// The nearest person or pipeline up the chain of causes, if a worker made it.
    pub on_behalf_of: Option<OnBehalfOf>,
    /// What the actor gave as the reason.
    pub reason: Option<String>,
    /// Why it does not count; none if it does.
    pub void: Option<Void>,
    /// What happened.
    pub events: Vec<Happened>,
    /// Why `events` are not told, if they are not: the record lies where it cannot be read now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// Who made a commit, and why: all that is said of it besides what happened. The cache keeps it, so that it can be answered
/// while the log cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The commit.
    pub commit: CommitId,
    /// Where it stands.
    #[serde(skip)]
    pub offset: Offset,
    /// The ledger's time at it.
    #[serde(skip)]
    pub time: Timestamp,
    /// Its writer's time.
    pub written_at: Timestamp,
    /// When it took effect, if that was before it could be recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_at: Option<Timestamp>,
    /// When it was recorded, if it is a rollback that was carried out without the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded_at: Option<Timestamp>,
    /// When it was asked for, if it is one that is not known to have moved users before it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<Timestamp>,
    /// The command it carries out.
    pub command: CommandId,
    /// Who, and how they proved it.
    pub actor: Actor,
    /// The reason that was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The commit to look at for who is behind it; none if its maker answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<CommitId>,
}

impl Made {
    /// Returns who made a record; none if it is malformed.
    pub fn of(folded: &Folded) -> Option<Self> {
        let commit = folded.commit.as_ref()?;
        Some(Self {
            commit: commit.id,
            offset: folded.offset,
            time: folded.time,
            written_at: commit.written_at,
            effective_at: commit.about.effective_at,
            recorded_at: recorded_at(commit),
            asked_at: asked_at(commit),
            command: commit.command,
            actor: commit.about.actor.clone(),
            reason: commit.about.reason.clone(),
            cause: cause(commit),
        })
    }
}

/// An event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Happened {
    /// Its stream.
    pub stream: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// What happened, in a line of plain words.
    pub summary: String,
    /// Its payload as it was written.
    pub data: Value,
}

/// The person or pipeline behind what a worker did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnBehalfOf {
    /// Who.
    pub actor: Actor,
    /// The commit by which they set it off.
    pub commit: CommitId,
    /// Where that stands.
    pub offset: Offset,
    /// When that was, by the ledger's time.
    pub time: Timestamp,
    /// The reason they gave.
    pub reason: Option<String>,
}

/// Who did something: a commit without its events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The commit.
    pub commit: CommitId,
    /// Where it stands.
    pub offset: Offset,
    /// The ledger's time at it.
    pub time: Timestamp,
    /// When it took effect, if that was before it could be recorded. Without `recorded_at` it is only what the writer says.
    pub effective_at: Option<Timestamp>,
    /// When it was recorded, if it is a rollback that was carried out without the ledger: it counts from `effective_at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded_at: Option<Timestamp>,
    /// When a rollback without the ledger was asked for that is not known to have moved users before it was recorded. It counts from
    /// `time`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<Timestamp>,
    /// The command it carries out.
    pub command: CommandId,
    /// Who, and how they proved it.
    pub actor: Actor,
    /// The nearest person or pipeline up the chain of causes, if a worker made it.
    pub on_behalf_of: Option<OnBehalfOf>,
    /// The reason that was given.
    pub reason: Option<String>,
}

impl Origin {
    /// Returns who made a commit.
    pub fn of(made: Made, on_behalf_of: Option<OnBehalfOf>) -> Self {
        let Made { commit, offset, time, effective_at, recorded_at, asked_at, command, actor, reason, .. } = made;
        Self { commit, offset, time, effective_at, recorded_at, asked_at, command, actor, on_behalf_of, reason }
    }

    /// Returns since when it counts: by the ledger's time, or from when a rollback without the ledger took effect.
    pub fn counts_from(&self) -> Timestamp {
        counts_from(self.time, self.effective_at, self.recorded_at)
    }

    /// Returns the time that it has besides that, if it has one.
    pub fn other_time(&self) -> Option<OtherTime> {
        OtherTime::of(self.effective_at, self.recorded_at, self.asked_at)
    }
}

impl HistoryEntry {
    /// Returns since when it counts, as [`Origin::counts_from`].
    pub fn counts_from(&self) -> Timestamp {
        counts_from(self.time, self.effective_at, self.recorded_at)
    }

    /// Returns the other time that it has, as [`Origin::other_time`].
    pub fn other_time(&self) -> Option<OtherTime> {
        OtherTime::of(self.effective_at, self.recorded_at, self.asked_at)
    }
}

/// A time of a commit that is told beside the one from which it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherTime {
    /// A rollback without the ledger that counts from when it took effect was recorded then.
    Recorded(Timestamp),
    /// A rollback without the ledger that counts from its record was asked for then.
    Asked(Timestamp),
    /// The writer of an ordinary commit says that it took effect then, and nothing follows from that.
    Said(Timestamp),
}

impl OtherTime {
    fn of(
        effective_at: Option<Timestamp>,
        recorded_at: Option<Timestamp>,
        asked_at: Option<Timestamp>,
    ) -> Option<Self> {
        let (recorded, asked) = (recorded_at.map(Self::Recorded), asked_at.map(Self::Asked));
        recorded.or(asked).or(effective_at.map(Self::Said))
    }
}

fn counts_from(time: Timestamp, effective_at: Option<Timestamp>, recorded_at: Option<Timestamp>) -> Timestamp {
    effective_at.filter(|_| recorded_at.is_some()).unwrap_or(time)
}

/// Returns when a rollback was recorded that was carried out without the ledger, and took effect before.
fn recorded_at(commit: &Commit) -> Option<Timestamp> {
    commit.about.effective_at.and_then(|_| glass_broken(commit)).map(|broken| broken.recorded_at)
}

/// Returns when a rollback was asked for that the ledger heard of later, and that is not known to have taken effect before.
fn asked_at(commit: &Commit) -> Option<Timestamp> {
    glass_broken(commit).filter(|_| commit.about.effective_at.is_none()).and_then(|broken| broken.asked_at)
}

fn glass_broken(commit: &Commit) -> Option<&GlassBroken> {
    commit.events.iter().find_map(|read| match &read.event {
        Ok((_, Event::Traffic(traffic::Event::GlassBroken(broken)))) => Some(broken),
        _ => None,
    })
}

impl OnBehalfOf {
    /// Returns a commit's maker, if that is a person or a pipeline.
    pub fn of(made: &Made) -> Option<Self> {
        is_answerable(&made.actor).then(|| Self {
            actor: made.actor.clone(),
            commit: made.commit,
            offset: made.offset,
            time: made.time,
            reason: made.reason.clone(),
        })
    }
}

/// Says whether an actor answers for what it does, as people and pipelines do.
fn is_answerable(actor: &Actor) -> bool {
    matches!(actor.kind, ActorKind::Person | ActorKind::Pipeline)
}

/// Returns the commit to look at for who is behind `commit`: none if its maker is a person or a pipeline.
///
/// That is the cause its worker named. Where none is named, the ids of what it is about say it: a stack's and a
/// rollout's id is that of the commit that began it.
pub fn cause(commit: &Commit) -> Option<CommitId> {
    if is_answerable(&commit.about.actor) {
        return None;
    }
    let implied = || commit.events.iter().find_map(|read| implied_cause(&read.event.as_ref().ok()?.1));
    commit.about.cause.or_else(implied).filter(|cause| *cause != commit.id)
}

fn implied_cause(event: &Event) -> Option<CommitId> {
    use schemas::{judgement, node, retention, rollout, stack, traffic};
    let of_rollout = |rollout: &schemas::RolloutId| Some(CommitId(rollout.0));
    let of_stack = |stack: &schemas::StackId| Some(CommitId(stack.0));
    match event {
        Event::Rollout(event) => match event {
            // They come with what they follow from, or are said of it by a worker that names its cause.
            rollout::Event::Requested(_) | rollout::Event::RequestDropped(_) => None,
            rollout::Event::Started(started) => of_stack(&started.canary),
            rollout::Event::StepTaken(taken) => of_rollout(&taken.rollout),
            rollout::Event::Held(held) => of_rollout(&held.rollout),
            rollout::Event::DrivenAgain(again) => of_rollout(&again.rollout),
            rollout::Event::Paused(paused) => of_rollout(&paused.rollout),
            rollout::Event::Resumed(resumed) => of_rollout(&resumed.rollout),
            rollout::Event::Completed(completed) => of_rollout(&completed.rollout),
            rollout::Event::CameBack(back) => of_rollout(&back.rollout),
            rollout::Event::Aborted(aborted) => of_rollout(&aborted.rollout),
            rollout::Event::Promoted(promoted) => of_rollout(&promoted.rollout),
            rollout::Event::Superseded(superseded) => of_rollout(&superseded.rollout),
        },
        Event::Judgement(event) => match event {
            judgement::Event::Begun(begun) => of_rollout(&begun.rollout),
            judgement::Event::Counted(counted) => of_rollout(&counted.rollout),
            judgement::Event::Judged(judged) => of_rollout(&judged.rollout),
        },
        Event::Traffic(traffic::Event::WeightsSet(set)) => match &set.purpose {
            traffic::Purpose::Step { rollout, .. }
            | traffic::Purpose::Promotion { rollout }
            | traffic::Purpose::Abort { rollout } => of_rollout(rollout),
            traffic::Purpose::Asked => set.weights.sole().and_then(|stack| of_stack(&stack)),
            traffic::Purpose::Rollback => None,
        },
        Event::Traffic(_) => None,
        Event::Stack(event) => match event {
            stack::Event::Requested(_) => None,
            stack::Event::Ready(ready) => of_stack(&ready.stack),
            stack::Event::Failed(failed) => of_stack(&failed.stack),
            stack::Event::Unhealthy(unhealthy) => of_stack(&unhealthy.stack),
            stack::Event::Recovered(recovered) => of_stack(&recovered.stack),
            stack::Event::Dismissed(_) => None,
        },
        Event::Node(node::Event::LaunchStarted(started)) => of_stack(&started.stack),
        Event::Retention(event) => match event {
            retention::Event::CollectionStarted(started) => of_stack(&started.stack),
            retention::Event::Collected(collected) => of_stack(&collected.stack),
        },
        Event::Node(_)
        | Event::Hold(_)
        | Event::Ledger(_)
        | Event::Service(_)
        | Event::Release(_)
        | Event::Lease(_) => None,
    }
}

/// Returns a record as history shows it. `names` are those of its deployment then.
pub fn entry(folded: &Folded, names: &Names, on_behalf_of: Option<OnBehalfOf>) -> HistoryEntry {
    let commit = folded.commit.as_ref();
    HistoryEntry {
        offset: folded.offset,
        time: folded.time,
        written_at: commit.map(|commit| commit.written_at),
        effective_at: commit.and_then(|commit| commit.about.effective_at),
        recorded_at: commit.and_then(recorded_at),
        asked_at: commit.and_then(asked_at),
        commit: commit.map(|commit| commit.id),
        command: commit.map(|commit| commit.command),
        actor: commit.map(|commit| commit.about.actor.clone()),
        on_behalf_of,
        reason: commit.and_then(|commit| commit.about.reason.clone()),
        void: folded.void,
        events: commit.map(|commit| happened(commit, names)).unwrap_or_default(),
        missing: None,
    }
}

/// Returns a record as history shows it that cannot be read now: as far as the cache knows it.
pub(crate) fn entry_without_events(
    offset: Offset,
    ruling: Ruling,
    made: Option<Made>,
    on_behalf_of: Option<OnBehalfOf>,
    why: String,
) -> HistoryEntry {
    let made = made.as_ref();
    HistoryEntry {
        offset,
        time: ruling.time,
        written_at: made.map(|made| made.written_at),
        effective_at: made.and_then(|made| made.effective_at),
        recorded_at: made.and_then(|made| made.recorded_at),
        asked_at: made.and_then(|made| made.asked_at),
        commit: made.map(|made| made.commit),
        command: made.map(|made| made.command),
        actor: made.map(|made| made.actor.clone()),
        on_behalf_of,
        reason: made.and_then(|made| made.reason.clone()),
        void: ruling.void,
        events: vec![],
        missing: Some(why),
    }
}

fn happened(commit: &Commit, names: &Names) -> Vec<Happened> {
    let events = commit.events.iter().map(|read| Happened {
        stream: read.stream.clone(),
        kind: read.kind.clone(),
        summary: match &read.event {
            Ok((stream, event)) => summary(stream, event, names),
            Err(why) => format!("{}: {why}", read.kind),
        },
        data: serde_json::from_str(&read.data).unwrap_or(Value::Null),
    });
    events.collect()
}
