//! A view: the fold of a log up to an offset. Every reader of the same log has the same view at the same offset.

use std::collections::BTreeMap;

use bytes::Bytes;
use schemas::envelope::{About, Envelope};
use schemas::{Actor, CommandId, CommitId, Event, Hash, Offset, Stream, StreamVersion, Timestamp, traffic};

use crate::at::At;
use crate::rule::{Done, Halt, Head, Parsed, Ruler, Ruling, Void};
use crate::state::State;
use crate::tree::Frontier;

/// The fold of a log up to an offset.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    ruler: Ruler,
    state: State,
    read_only: BTreeMap<String, String>,
    voids: u64,
}

/// A commit that was read, with its events understood as far as this program can.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// The commit.
    pub id: CommitId,
    /// The command it carries out.
    pub command: CommandId,
    /// The ledger's time at it.
    pub time: Timestamp,
    /// Its writer's time.
    pub written_at: Timestamp,
    /// Its place in each stream that it extends.
    pub extends: Vec<(String, StreamVersion)>,
    /// What happened.
    pub events: Vec<Read>,
    /// Who made it and why; what cannot be read is left as unknown.
    pub about: About,
}

/// An event that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// Its stream, as written.
    pub stream: String,
    /// Its type, as written.
    pub kind: String,
    /// Its payload, as written.
    pub data: String,
    /// The stream and the event, or why this program cannot understand them.
    pub event: Result<(Stream, Event), String>,
}

impl Commit {
    /// Returns when the rollback took effect that it records, as [`Decoded::took_effect`].
    pub fn took_effect(&self) -> Option<Timestamp> {
        self.about.effective_at.filter(|_| records_break_glass(self.events.iter().flat_map(|read| &read.event)))
    }
}

/// A record after folding.
#[derive(Clone, Debug, PartialEq)]
pub struct Folded {
    /// Where it stands.
    pub offset: Offset,
    /// Its leaf.
    pub hash: Hash,
    /// The ledger's time at it.
    pub time: Timestamp,
    /// Why it does not count, or nothing if it does.
    pub void: Option<Void>,
    /// The commit; none if it is malformed.
    pub commit: Option<Commit>,
}

/// A record that was decoded, before the rule. Decoding needs no state, so it may run in threads.
#[derive(Debug)]
pub struct Decoded<'a> {
    parsed: Parsed<'a>,
    events: Vec<Result<(Stream, Event), String>>,
}

impl<'a> Decoded<'a> {
    /// Decodes a record.
    pub fn of(bytes: &'a [u8]) -> Self {
        let parsed = Parsed::of(bytes);
        let events = parsed.envelope.iter().flat_map(|envelope| &envelope.events);
        let events = events
            .map(|wire| {
                let stream = wire.stream.parse::<Stream>().map_err(|error| error.to_string())?;
                let event = Event::decode(&wire.kind, wire.v, wire.data.get()).map_err(|error| error.to_string())?;
                Ok((stream, event))
            })
            .collect();
        Self { parsed, events }
    }

    /// Returns the envelope, if the record is a commit.
    pub fn envelope(&self) -> Option<&Envelope<'a>> {
        self.parsed.envelope.as_ref()
    }

    /// Returns the events, each with its stream, or why it is not understood.
    pub fn events(&self) -> &[Result<(Stream, Event), String>] {
        &self.events
    }

    /// Takes the events, each with its stream, or why it is not understood.
    pub fn take_events(&mut self) -> Vec<Result<(Stream, Event), String>> {
        std::mem::take(&mut self.events)
    }

    /// Returns when the rollback took effect that the commit records, if it is one that was carried out without the ledger
    /// and was not overtaken. Of every other commit `effective_at` is only what its writer says: nothing follows from it.
    pub fn took_effect(&self) -> Option<Timestamp> {
        let about =
            self.parsed.envelope.as_ref().filter(|_| records_break_glass(self.events.iter().flatten()))?.about.get();
        serde_json::from_str::<About>(about).ok()?.effective_at
    }

    /// Returns the record's leaf in the tree.
    pub fn hash(&self) -> Hash {
        self.parsed.hash
    }

    /// Returns what the record was, given what the rule said of it.
    pub fn into_folded(self, offset: Offset, ruling: Ruling) -> Folded {
        let Self { parsed, events } = self;
        let commit = parsed.envelope.map(|envelope| Commit {
            id: envelope.id,
            command: envelope.command.id,
            time: ruling.time,
            written_at: envelope.time,
            extends: envelope.extends.iter().map(|head| (head.stream.to_string(), head.version.next())).collect(),
            about: serde_json::from_str(envelope.about.get()).unwrap_or_else(|_| unreadable_about()),
            events: std::iter::zip(&envelope.events, events)
                .map(|(wire, event)| Read {
                    stream: wire.stream.to_string(),
                    kind: wire.kind.to_string(),
                    data: wire.data.get().to_owned(),
                    event,
                })
                .collect(),
        });
        Folded { offset, hash: parsed.hash, time: ruling.time, void: ruling.void, commit }
    }
}

impl View {
    /// Continues from what was remembered.
    pub fn resume(ruler: Ruler, state: State, read_only: BTreeMap<String, String>, voids: u64) -> Self {
        Self { ruler, state, read_only, voids }
    }

    /// Returns what the rule has seen.
    pub fn ruler(&self) -> &Ruler {
        &self.ruler
    }

    /// Returns the state of production.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Returns the offset of the next record.
    pub fn next(&self) -> Offset {
        self.ruler.next()
    }

    /// Returns the ledger's time.
    pub fn time(&self) -> Timestamp {
        self.ruler.time()
    }

    /// Returns the head of `stream`.
    pub fn head(&self, stream: &Stream) -> Head {
        self.ruler.head(&stream.to_string())
    }

    /// Returns the command's commit, if it counted.
    pub fn command(&self, id: CommandId) -> Option<Done> {
        self.ruler.command(id)
    }

    /// Returns the tree over all records.
    pub fn tree(&self) -> &Frontier {
        self.ruler.tree()
    }

    /// Returns how many records do not count.
    pub fn voids(&self) -> u64 {
        self.voids
    }

    /// Returns the streams that hold events this program does not understand, and the first such event of each.
    /// They are read-only for this program, rollback excepted.
    pub fn read_only(&self) -> &BTreeMap<String, String> {
        &self.read_only
    }

    /// Returns the ledger's time as it would be with the next record.
    pub fn time_with(&self, decoded: &Decoded<'_>) -> Timestamp {
        self.ruler.time_with(&decoded.parsed)
    }

    /// Folds the next record and returns what it was.
    ///
    /// # Errors
    ///
    /// [`Halt`] if this program cannot go on without guessing; the view stays as it was.
    pub fn fold(&mut self, offset: Offset, bytes: &Bytes) -> Result<Folded, Halt> {
        let decoded = Decoded::of(bytes);
        let ruling = self.advance(offset, &decoded)?;
        Ok(decoded.into_folded(offset, ruling))
    }

    /// Folds the next record, already decoded, and returns only what the rule said.
    ///
    /// # Errors
    ///
    /// [`Halt`], as [`View::fold`].
    pub fn advance(&mut self, offset: Offset, decoded: &Decoded<'_>) -> Result<Ruling, Halt> {
        let ruling = self.ruler.rule_on(offset, &decoded.parsed)?;
        match (&decoded.parsed.envelope, ruling.void) {
            (Some(envelope), None) => {
                // What was done without the ledger is so from when it was done.
                let took_effect = decoded.took_effect().map(|at| at.min(ruling.time));
                for (wire, event) in std::iter::zip(&envelope.events, &decoded.events) {
                    let (stream, event) = match event {
                        Ok(event) => event,
                        Err(why) => {
                            self.read_only.entry(wire.stream.to_string()).or_insert_with(|| why.clone());
                            continue;
                        }
                    };
                    let version = envelope.extends.iter().find(|head| head.stream == wire.stream);
                    let version = version.map_or(StreamVersion(0), |head| head.version.next());
                    let of_deployment = matches!(stream, Stream::Deployment(_));
                    let time = took_effect.filter(|_| of_deployment).unwrap_or(ruling.time);
                    self.state.evolve(stream, event, &At { time, commit: envelope.id, version });
                }
            }
            _ => self.voids += 1,
        }
        Ok(ruling)
    }
}

/// Says whether events record a rollback that was carried out without the ledger and was not overtaken.
fn records_break_glass<'a>(mut events: impl Iterator<Item = &'a (Stream, Event)>) -> bool {
    events.any(
        |(_, event)| matches!(event, Event::Traffic(traffic::Event::GlassBroken(broken)) if broken.overtaken.is_none()),
    )
}

fn unreadable_about() -> About {
    About::by(Actor {
        kind: schemas::ActorKind::System,
        name: "unknown".to_owned(),
        proof: "what the commit says of itself cannot be read by this program".to_owned(),
    })
}
