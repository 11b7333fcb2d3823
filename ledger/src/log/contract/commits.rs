//! Commits in the making, for whoever puts a log through something.

use std::borrow::Cow;

use bytes::Bytes;
use schemas::envelope::{CommandRef, Envelope, Expected, RULE, WireEvent};
use schemas::{CommandId, CommitId, Hash, Timestamp};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::rule::{Head, NO_HEAD};

/// Returns the genesis that every log here begins with.
pub fn genesis() -> Bytes {
    Commit::new(0).extends("ledger", NO_HEAD).event("ledger", "ledger.created").bytes()
}

/// A commit in the making, with ids derived from a number.
pub struct Commit {
    envelope: Envelope<'static>,
}

impl Commit {
    /// Returns the commit `n`, which carries out the command `n`.
    pub fn new(n: u128) -> Self {
        Self {
            envelope: Envelope {
                rule: RULE,
                id: CommitId(Uuid::from_u128(n)),
                command: CommandRef { id: CommandId(Uuid::from_u128(n)), hash: Hash::of(&n.to_be_bytes()) },
                time: Timestamp::UNIX_EPOCH,
                extends: Vec::new(),
                requires: Vec::new(),
                events: Vec::new(),
                about: raw("{}"),
            },
        }
    }

    /// Lets it carry out the command `n`.
    #[must_use]
    pub fn command(mut self, n: u128) -> Self {
        self.envelope.command = CommandRef { id: CommandId(Uuid::from_u128(n)), hash: Hash::of(&n.to_be_bytes()) };
        self
    }

    /// Lets it say that it was made at `time`.
    #[must_use]
    pub fn at(mut self, time: Timestamp) -> Self {
        self.envelope.time = time;
        self
    }

    /// Lets it move a head.
    #[must_use]
    pub fn extends(mut self, stream: &str, head: Head) -> Self {
        self.envelope.extends.push(expected(stream, head));
        self
    }

    /// Lets it rely on a head.
    #[must_use]
    pub fn requires(mut self, stream: &str, head: Head) -> Self {
        self.envelope.requires.push(expected(stream, head));
        self
    }

    /// Adds an event.
    #[must_use]
    pub fn event(mut self, stream: &str, kind: &str) -> Self {
        let (stream, kind) = (stream.to_owned().into(), kind.to_owned().into());
        self.envelope.events.push(WireEvent { stream, kind, v: 1, data: raw("{}") });
        self
    }

    /// Adds what is said about it, as JSON.
    #[must_use]
    pub fn about(mut self, json: &str) -> Self {
        self.envelope.about = raw(json);
        self
    }

    /// Returns its bytes.
    pub fn bytes(&self) -> Bytes {
        serde_json::to_vec(&self.envelope).expect("plain JSON").into()
    }
}

/// Returns the commit `n`, which moves one head by one event.
pub fn step(n: u128, stream: &str, head: Head) -> Bytes {
    Commit::new(n).extends(stream, head).event(stream, "test.stepped").bytes()
}

fn raw(json: &str) -> Cow<'static, RawValue> {
    Cow::Owned(RawValue::from_string(json.to_owned()).expect("JSON"))
}

fn expected(stream: &str, head: Head) -> Expected<'static> {
    Expected { stream: stream.to_owned().into(), version: head.version, hash: head.hash }
}
