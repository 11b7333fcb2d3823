//! The commit on the wire: a frozen envelope that the ledger's rule parses alone, and what is said about it.
//!
//! One line of JSON, at most 60 KiB:
//!
//! ```json
//! {"rule":1,"id":"..","command":{"id":"..","hash":".."},"time":"..",
//!  "extends":[{"stream":"service/api","version":3,"hash":".."}],"requires":[],
//!  "events":[{"stream":"service/api","type":"release.recorded","v":1,"data":{}}],
//!  "about":{"actor":{"kind":"person","name":"ana","proof":"unix-peer uid=1000"}}}
//! ```

use std::borrow::Cow;
use std::fmt::{Display, Write};
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::actor::Actor;
use crate::event::Event;
use crate::id::{CommandId, CommitId, Hash, StreamVersion};
use crate::stream::Stream;
use jiff::Timestamp;

/// The rule that this program writes and understands.
pub const RULE: u32 = 1;

/// The longest commit, in bytes. Source: design, "The log".
pub const COMMIT_BYTES_MAX: usize = 60 * 1024;

/// The command a commit carries out: its id, and the hash of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandRef {
    /// The command.
    #[serde(deserialize_with = "spelt_one_way")]
    pub id: CommandId,
    /// The SHA-256 of its JSON.
    pub hash: Hash,
}

/// A head that a commit expects: the stream, how many commits it holds, and the hash of the last of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected<'a> {
    /// The stream.
    #[serde(borrow)]
    pub stream: Cow<'a, str>,
    /// Its version; 0 for a stream that does not exist yet.
    pub version: StreamVersion,
    /// Its last commit's hash; [`Hash::ZERO`] for a stream that does not exist yet.
    pub hash: Hash,
}

/// An event on the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireEvent<'a> {
    /// The stream it belongs to; its commit must extend it.
    #[serde(borrow)]
    pub stream: Cow<'a, str>,
    /// Its type.
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    /// The version of its type.
    pub v: u16,
    /// Its payload.
    #[serde(borrow, deserialize_with = "as_it_stands")]
    pub data: Cow<'a, RawValue>,
}

/// What the rule reads of a commit. Frozen: a change of it, and any field that is not named here, is a new rule.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope<'a> {
    /// The rule it was written for.
    pub rule: u32,
    /// The commit.
    #[serde(deserialize_with = "spelt_one_way")]
    pub id: CommitId,
    /// The command it carries out.
    pub command: CommandRef,
    /// When its writer made it, by the writer's clock: in UTC, `2026-11-01T12:00:00.25Z`.
    #[serde(deserialize_with = "spelt_one_way")]
    pub time: Timestamp,
    /// The heads it moves.
    #[serde(borrow)]
    pub extends: Vec<Expected<'a>>,
    /// The heads it only relies on.
    #[serde(borrow)]
    pub requires: Vec<Expected<'a>>,
    /// What happened.
    #[serde(borrow)]
    pub events: Vec<WireEvent<'a>>,
    /// What is said about it, as an [`About`]; no concern of the rule's.
    #[serde(borrow, deserialize_with = "as_it_stands")]
    pub about: Cow<'a, RawValue>,
}

/// Takes a value only as it is written here, so that the rule hangs on no parser's leniency.
fn spelt_one_way<'de, D: Deserializer<'de>, T: FromStr + Display>(deserializer: D) -> Result<T, D::Error> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    let Text(text) = Text::deserialize(deserializer)?;
    let value = text.parse::<T>().ok().filter(|value| {
        let mut rest = Rest(&text);
        write!(rest, "{value}").is_ok() && rest.0.is_empty()
    });
    value.ok_or_else(|| D::Error::custom(format_args!("`{text}` is not spelt as it would be written")))
}

/// What is left of a text after what was written so far, as long as that is how it begins.
struct Rest<'a>(&'a str);

impl Write for Rest<'_> {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        self.0 = self.0.strip_prefix(part).ok_or(std::fmt::Error)?;
        Ok(())
    }
}

/// Borrows the JSON instead of copying it, which serde does by itself for text alone.
fn as_it_stands<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'a, RawValue>, D::Error> {
    <&'a RawValue>::deserialize(deserializer).map(Cow::Borrowed)
}

/// Who made a commit, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Who.
    pub actor: Actor,
    /// The commit that led to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<CommitId>,
    /// The commit that everything of this chain goes back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<CommitId>,
    /// What the actor gave as the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The W3C trace context of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// When it took effect, if that was before it could be recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_at: Option<Timestamp>,
}

impl About {
    /// Returns what is said of a commit of which nothing but its maker is to be said.
    pub fn by(actor: Actor) -> Self {
        Self { actor, cause: None, correlation: None, reason: None, traceparent: None, effective_at: None }
    }
}

/// Everything that makes up a commit before it is bytes.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The commit.
    pub id: CommitId,
    /// The command it carries out.
    pub command: CommandRef,
    /// When it is made.
    pub time: Timestamp,
    /// The heads it moves.
    pub extends: Vec<Head>,
    /// The heads it only relies on.
    pub requires: Vec<Head>,
    /// What happened, each in a stream that it extends.
    pub events: Vec<(Stream, Event)>,
    /// Who made it, and why.
    pub about: About,
}

/// A stream's head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The stream.
    pub stream: Stream,
    /// How many commits it holds.
    pub version: StreamVersion,
    /// The hash of the last of them.
    pub hash: Hash,
}

impl Draft {
    /// Returns the commit's bytes, as they are kept and hashed.
    ///
    /// # Panics
    ///
    /// Never: a draft is plain data with text keys.
    pub fn to_bytes(&self) -> Vec<u8> {
        let heads = |heads: &[Head]| heads.iter().map(Head::to_expected).collect();
        let event = |(stream, event): &(Stream, Event)| WireEvent {
            stream: Cow::Owned(stream.to_string()),
            kind: Cow::Borrowed(event.kind()),
            v: event.version(),
            data: Cow::Owned(event.data()),
        };
        let envelope = Envelope {
            rule: RULE,
            id: self.id,
            command: self.command,
            time: self.time,
            extends: heads(&self.extends),
            requires: heads(&self.requires),
            events: self.events.iter().map(event).collect(),
            about: Cow::Owned(serde_json::value::to_raw_value(&self.about).expect("plain JSON")),
        };
        serde_json::to_vec(&envelope).expect("plain JSON")
    }
}

impl Head {
    fn to_expected(&self) -> Expected<'static> {
        Expected { stream: Cow::Owned(self.stream.to_string()), version: self.version, hash: self.hash }
    }
}
