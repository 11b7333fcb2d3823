//! The rule: which records of a log count. Every reader applies it in log order and comes to the same answer.
//!
//! It parses the frozen envelope alone and knows no clock, schema or business. A change of it is a new rule number,
//! and a reader that does not know that number halts.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use schemas::envelope::{COMMIT_BYTES_MAX, CommandRef, Envelope, Expected, RULE};
use schemas::{CommandId, Hash, Offset, StreamVersion, Timestamp};
use serde::{Deserialize, Serialize};

use crate::tree;

mod commands;

pub use commands::{Commands, NotSorted};

/// Why a record does not count. It stays in the log, for everyone and for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Void {
    /// A head it names has moved on: its writer acted on an old view.
    Stale,
    /// A head it names was never the head here: its writer followed another history.
    Fork,
    /// Its command, or it itself, counted before: harmless.
    Duplicate,
    /// It is no commit.
    Malformed,
    /// The ledger was sealed before it: it goes on elsewhere.
    Sealed,
}

impl fmt::Display for Void {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Void::Stale => "stale",
            Void::Fork => "fork",
            Void::Duplicate => "duplicate",
            Void::Malformed => "malformed",
            Void::Sealed => "sealed",
        })
    }
}

/// A reader must stop: it cannot go on without guessing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// A record was written for a rule that this program does not know.
    #[error(
        "the record at offset {offset} follows rule {rule}, this program knows rule {RULE}; upgrade ionledger, or, if no \
         newer one has written, see \"A record for another rule\" in docs/kafka.md"
    )]
    UnknownRule {
        /// The record.
        offset: Offset,
        /// Its rule.
        rule: u32,
    },
    /// The log does not go on where the reader stands.
    #[error("the log goes on at offset {found} where {expected} was expected; records are missing or repeated")]
    Gap {
        /// The next offset.
        expected: Offset,
        /// What came.
        found: Offset,
    },
    /// The log does not begin as a ledger.
    #[error("the record at offset 0 does not create a ledger; this is not an ionledger log, or its beginning is gone")]
    NoGenesis,
}

/// A stream's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// How many commits the stream holds.
    pub version: StreamVersion,
    /// The hash of the last.
    pub hash: Hash,
}

/// The head of a stream that does not exist yet.
pub const NO_HEAD: Head = Head { version: StreamVersion(0), hash: Hash::ZERO };

/// A command that counted: the hash of its content and the commit that carried it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The hash of the command's JSON.
    pub hash: Hash,
    /// Where its commit stands.
    pub offset: Offset,
}

/// What the rule has seen of a log: the only memory it has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ruler {
    next: Offset,
    time: Timestamp,
    heads: HashMap<String, Head>,
    commands: Commands,
    tree: tree::Frontier,
    sealed: bool,
}

/// A record before the rule: everything that can be said of it without the records before it.
#[derive(Clone, Debug)]
pub struct Parsed<'a> {
    /// Its leaf in the tree, which is also a commit's hash.
    pub hash: Hash,
    /// The rule it was written for.
    pub rule: u32,
    /// Its envelope; none if it is malformed or follows another rule.
    pub envelope: Option<Envelope<'a>>,
}

/// A record after the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// The ledger's time at it.
    pub time: Timestamp,
    /// Why it does not count, or nothing if it does.
    pub void: Option<Void>,
}

/// A malformed record's stand-in, the same on every carrier.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stub {
    malformed: StubOf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StubOf {
    sha256: Hash,
    len: u64,
}

/// Returns the bytes that stand for a record on every carrier and in the tree: a commit's own, or a stub that names
/// what is no commit. What follows another rule is kept as it is, so that every reader halts at it and none takes it
/// for malformed.
pub fn canonical(bytes: &Bytes) -> Bytes {
    match Form::of(bytes) {
        Form::Malformed => stub(bytes),
        Form::Commit(_) | Form::Stub | Form::OtherRule(_) => bytes.clone(),
    }
}

/// Returns what stands for bytes that are no commit, or were not written as one.
pub(crate) fn stub(bytes: &[u8]) -> Bytes {
    let stub = Stub { malformed: StubOf { sha256: Hash::of(bytes), len: bytes.len() as u64 } };
    serde_json::to_vec(&stub).expect("plain JSON").into()
}

fn is_stub(text: &str) -> bool {
    serde_json::from_str::<Stub>(text).is_ok_and(|stub| serde_json::to_string(&stub).expect("plain JSON") == text)
}

impl<'a> Parsed<'a> {
    /// Parses a record.
    pub fn of(bytes: &'a [u8]) -> Self {
        let (hash, rule, envelope) = match Form::of(bytes) {
            Form::Commit(envelope) => (tree::leaf_hash(bytes), RULE, Some(envelope)),
            Form::Stub => (tree::leaf_hash(bytes), RULE, None),
            Form::OtherRule(rule) => (tree::leaf_hash(bytes), rule, None),
            Form::Malformed => (tree::leaf_hash(&stub(bytes)), RULE, None),
        };
        Self { hash, rule, envelope }
    }
}

#[derive(Deserialize)]
struct RuleOnly {
    rule: u32,
}

/// What a record's bytes are.
enum Form<'a> {
    Commit(Envelope<'a>),
    /// It stands for bytes that are no commit.
    Stub,
    /// It was written for a rule that this program does not know.
    OtherRule(u32),
    Malformed,
}

impl<'a> Form<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        // One line of UTF-8, so that a record is the same line of JSON on every carrier.
        // Every byte is looked at, which processors do many at a time.
        let is_one_line = bytes.iter().fold(true, |so_far, b| so_far & (*b >= b' '));
        let Some(text) = std::str::from_utf8(bytes).ok().filter(|_| is_one_line) else {
            return Form::Malformed;
        };
        if let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(text)
            && envelope.rule == RULE
        {
            let is_commit = bytes.len() <= COMMIT_BYTES_MAX && is_consistent(&envelope);
            return if is_commit { Form::Commit(envelope) } else { Form::Malformed };
        }
        // Another rule may have another envelope and another length: only its number is looked for.
        match serde_json::from_str(text) {
            Ok(RuleOnly { rule }) if rule != RULE => Form::OtherRule(rule),
            _ if is_stub(text) => Form::Stub,
            _ => Form::Malformed,
        }
    }
}

/// A commit moves at least one head, names no stream twice, and has its events in streams that it moves.
fn is_consistent(envelope: &Envelope<'_>) -> bool {
    let named: Vec<&str> = envelope.extends.iter().chain(&envelope.requires).map(|e| &*e.stream).collect();
    let extends = |stream: &str| envelope.extends.iter().any(|e| e.stream == stream);
    !envelope.extends.is_empty()
        && !envelope.events.is_empty()
        && named.iter().all(|stream| !stream.is_empty() && stream.len() <= 255)
        && named.iter().enumerate().all(|(n, stream)| !named[..n].contains(stream))
        && envelope.events.iter().all(|event| extends(&event.stream))
}

impl Ruler {
    /// Continues from what was remembered.
    pub fn resume(
        next: Offset,
        time: Timestamp,
        heads: HashMap<String, Head>,
        commands: Commands,
        tree: tree::Frontier,
    ) -> Self {
        let sealed = heads.get(LEDGER).is_some_and(seals);
        Self { next, time, heads, commands, tree, sealed }
    }

    /// Returns the offset of the next record.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// Returns the ledger's time: the latest that any record was made at.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// Returns the head of `stream`.
    pub fn head(&self, stream: &str) -> Head {
        self.heads.get(stream).copied().unwrap_or(NO_HEAD)
    }

    /// Returns whether the ledger was sealed: its own stream holds the commit that made it and one that ended it.
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Returns every stream's head.
    pub fn heads(&self) -> &HashMap<String, Head> {
        &self.heads
    }

    /// Returns the commit that carried a command out, if one counted.
    pub fn command(&self, id: CommandId) -> Option<Done> {
        self.commands.get(id)
    }

    /// Returns every command that counted.
    pub fn commands(&self) -> &Commands {
        &self.commands
    }

    /// Returns where the last record stands that counted; none before the first.
    pub fn last_counted(&self) -> Option<Offset> {
        self.commands.last()
    }

    /// Returns the tree over all records so far.
    pub fn tree(&self) -> &tree::Frontier {
        &self.tree
    }

    /// Returns the ledger's time as it would be with the next record; nothing is remembered.
    pub fn time_with(&self, record: &Parsed<'_>) -> Timestamp {
        let envelope = record.envelope.as_ref();
        match (envelope, self.void(envelope)) {
            (Some(envelope), None) => self.time.max(envelope.time),
            _ => self.time,
        }
    }

    /// Rules on the next record and remembers it.
    ///
    /// # Errors
    ///
    /// [`Halt`] if this program cannot go on without guessing; nothing is remembered then.
    pub fn rule_on(&mut self, offset: Offset, record: &Parsed<'_>) -> Result<Ruling, Halt> {
        if offset != self.next {
            return Err(Halt::Gap { expected: self.next, found: offset });
        }
        if record.rule != RULE {
            return Err(Halt::UnknownRule { offset, rule: record.rule });
        }
        let envelope = record.envelope.as_ref();
        let void = self.void(envelope);
        if offset == Offset(0) && (void.is_some() || !envelope.is_some_and(is_genesis)) {
            return Err(Halt::NoGenesis);
        }
        self.remember(offset, record.hash, envelope, void);
        Ok(Ruling { time: self.time, void })
    }

    fn void(&self, envelope: Option<&Envelope<'_>>) -> Option<Void> {
        let Some(envelope) = envelope else { return Some(Void::Malformed) };
        if self.commands.get(envelope.command.id).is_some() {
            return Some(Void::Duplicate);
        }
        if self.is_sealed() {
            return Some(Void::Sealed);
        }
        let mut wrong = envelope.extends.iter().chain(&envelope.requires).filter_map(|expected| self.void_of(expected));
        // A fork is the graver finding: it is named even if another head is merely stale.
        let first = wrong.next()?;
        Some(if first == Void::Fork || wrong.any(|void| void == Void::Fork) { Void::Fork } else { Void::Stale })
    }

    fn void_of(&self, expected: &Expected<'_>) -> Option<Void> {
        let head = self.head(&expected.stream);
        if expected.version < head.version {
            Some(Void::Stale)
        } else if expected.version > head.version || expected.hash != head.hash {
            Some(Void::Fork)
        } else {
            None
        }
    }

    fn remember(&mut self, offset: Offset, hash: Hash, envelope: Option<&Envelope<'_>>, void: Option<Void>) {
        self.next = offset.next();
        self.tree.push(hash);
        let (Some(envelope), None) = (envelope, void) else { return };
        self.time = self.time.max(envelope.time);
        let CommandRef { id, hash: command_hash } = envelope.command;
        self.commands.insert(id, Done { hash: command_hash, offset });
        for Expected { stream, version, .. } in &envelope.extends {
            let head = Head { version: version.next(), hash };
            self.sealed |= *stream == LEDGER && seals(&head);
            match self.heads.get_mut(&**stream) {
                Some(known) => *known = head,
                None => {
                    self.heads.insert(Cow::clone(stream).into_owned(), head);
                }
            }
        }
    }
}

/// The stream of what happens to the ledger itself.
const LEDGER: &str = "ledger";

/// Whether a ledger whose own stream has this head is sealed.
fn seals(head: &Head) -> bool {
    head.version > StreamVersion(1)
}

fn is_genesis(envelope: &Envelope<'_>) -> bool {
    matches!(&envelope.events[..], [event] if event.stream == LEDGER && event.kind == "ledger.created")
}

#[cfg(test)]
mod tests;
