//! The shapes that go over the wire besides commands and problems.

use std::collections::BTreeMap;

use ledger::execute;
use ledger::log::Ahead;
use replay::answer::{Names, summary};
use schemas::break_glass::Unrecorded;
use schemas::{CommitId, Event, Hash, LedgerId, Offset, StackId, Stream, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How much a command's body may hold, in bytes.
pub const COMMAND_BYTES_MAX: usize = 256 * 1024;

/// The header of every answer of a process that follows the ledger no further, with the reason: what it tells ends there.
pub const HALTED: http::HeaderName = http::HeaderName::from_static("ionledger-halted");

/// The header of a request that says when it was sent, in RFC 3339: a server that stood still may read it much later.
pub const SENT_AT: http::HeaderName = http::HeaderName::from_static("ionledger-sent-at");

/// What became of a command.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CommandAnswer {
    /// The commit that carries it out; none if it was already true, or in a dry run.
    pub commit: Option<CommitId>,
    /// Where that stands.
    pub offset: Option<Offset>,
    /// What happened, or in a dry run what would.
    pub events: Vec<Happened>,
    /// What the one who asked should know besides.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Whether the same command had been carried out before, and this is its first answer.
    #[serde(default)]
    pub repeated: bool,
    /// Whether the router confirmed the weights within the wait; nothing if the command set none.
    #[serde(default)]
    pub applied: Option<bool>,
    /// Why a rollback has not moved users, if it has not: its target is yet to be ready, and users stay where they are until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_yet: Option<String>,
    /// The stack with which it was true already, if it was: the one that was asked for before, or that a rollback went to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<StackId>,
    /// The rollback that was carried out and that the ledger does not have yet: it gave no verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unrecorded: Option<Unrecorded>,
}

/// An artifact that is in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Its hash.
    pub sha256: Hash,
    /// Its length in bytes.
    pub size_bytes: u64,
}

/// An event in an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Happened {
    /// Its stream.
    pub stream: Stream,
    /// Its type, `stack.requested`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it says, in a line of plain words.
    pub summary: String,
    /// Its payload.
    pub data: Value,
}

/// What became of a pipeline's report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reported {
    /// Of the release.
    pub release: CommandAnswer,
    /// Of its rollout; nothing if the service's policy did not ask for one.
    pub rollout: Option<CommandAnswer>,
}

/// What a ledger is and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its id.
    pub ledger: LedgerId,
    /// The offset of the next record to be folded.
    pub next: Offset,
    /// The offset of the next record to be kept.
    pub end: Offset,
    /// The root of the tree over all folded records.
    pub root: schemas::Hash,
    /// The ledger's time.
    pub time: Timestamp,
    /// How many records do not count.
    pub voids: u64,
    /// Why the process follows the ledger no further, if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<String>,
    /// The streams that the process takes nothing for but a rollback, each with the first event in it that it does not
    /// understand.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub read_only: BTreeMap<String, String>,
    /// Commits that say that they were made more than a day after the log took them in, of the last that were read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ahead: Vec<Ahead>,
}

/// A record as followers get it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Where it stands.
    pub offset: Offset,
    /// Whether it counts.
    pub counts: bool,
    /// The commit as it is kept; bytes that are none are `{"malformed":{...}}`.
    pub commit: Value,
}

impl Happened {
    /// Returns events as they go over the wire. `names` are those of their deployment.
    pub fn all(events: &[(Stream, Event)], names: &Names) -> Vec<Self> {
        let one = |(stream, event): &(Stream, Event)| Self {
            stream: stream.clone(),
            kind: event.kind().to_owned(),
            summary: summary(stream, event, names),
            data: serde_json::from_str(event.data().get()).unwrap_or(Value::Null),
        };
        events.iter().map(one).collect()
    }
}

impl CommandAnswer {
    /// Returns what became of a command as it goes over the wire. `names` are those of its deployment.
    pub fn of(answer: &execute::Executed, names: &Names) -> Self {
        Self {
            commit: answer.commit,
            offset: answer.offset,
            events: Happened::all(&answer.events, names),
            notes: answer.notes.clone(),
            repeated: answer.repeated,
            stack: answer.stack,
            ..Self::default()
        }
    }
}
