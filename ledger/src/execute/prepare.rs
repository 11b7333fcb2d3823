//! Prepare: from a view and what is asked to the commit that would carry it out. Pure, so that the simulation uses
//! the same.

use bytes::Bytes;
use schemas::break_glass::Intent;
use schemas::command::Command;
use schemas::envelope::{About, CommandRef, Draft, Head as WireHead};
use schemas::outcome::{self, DeploymentOutcome, Outcome};
use schemas::{Actor, ActorKind, CommandId, CommitId, Event, Fence, Hash, Probed, Role, Stream, StreamVersion, text};

use super::Refusal;
use crate::decide;
use crate::decision::{By, Decision, Now, Rejection, Told};
use crate::log::Record;
use crate::rule::{Done, Parsed};
use crate::view::{Decoded, View};

/// Something asked of the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The command's id and hash; a worker's are derived from what it concluded and where.
    pub command: Option<CommandRef>,
    /// What.
    pub what: What,
    /// By whom, and why.
    pub about: About,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // few at a time, and none is kept
pub enum What {
    /// A person's or a pipeline's command.
    Command {
        /// The command.
        command: Command,
        /// The fence it was asked under.
        fence: Option<Fence>,
        /// What the newest probes say of its deployment's stacks.
        probed: Probed,
    },
    /// A worker's conclusion or report.
    Outcome {
        /// It.
        outcome: Outcome,
        /// The worker's role.
        role: Role,
        /// The worker's instance.
        holder: String,
    },
    /// To record a rollback that was carried out without the ledger.
    BreakGlass {
        /// What was written down of it.
        intent: Box<Intent>,
        /// The generation that the router holds.
        generation: StreamVersion,
        /// Whether the router served it before now, if that is known.
        moved: Option<bool>,
    },
}

/// What asking comes to.
#[derive(Clone, Debug)]
pub enum Prepared {
    /// A commit to append, and what the one who asked is told besides.
    Commit(Box<Draft>, Told),
    /// It is already true.
    Nothing(Told),
    /// The same command was carried out before.
    Before(Done),
}

impl Asked {
    /// Returns what a worker asks.
    pub fn outcome(outcome: Outcome, role: Role, holder: &str, cause: Option<CommitId>) -> Self {
        let actor = Actor { kind: ActorKind::Worker, name: format!("{role}/{holder}"), proof: "lease".to_owned() };
        let about = About { cause, correlation: cause, ..About::by(actor) };
        Self { command: None, what: What::Outcome { outcome, role, holder: holder.to_owned() }, about }
    }
}

/// Decides what is asked and puts the commit together.
///
/// # Errors
///
/// [`Refusal`] says why nothing is to be appended.
pub fn prepare(view: &View, asked: &Asked, now: Now, rollback: bool) -> Result<Prepared, Refusal> {
    if let Some(command) = asked.command
        && let Some(done) = view.command(command.id)
    {
        let same = done.hash == command.hash;
        return if same { Ok(Prepared::Before(done)) } else { Err(Refusal::OtherContent { id: command.id }) };
    }
    if let Some(target) = &view.state().sealed {
        return Err(Refusal::Sealed { target: target.clone() });
    }
    let about = told(asked, now, rollback)?;
    if let What::Command { command, .. } = &asked.what {
        decide::check_reason(command, about.reason.as_deref())?;
    }
    let mut decision = match &asked.what {
        What::Command { command, fence, probed } => {
            let by = By { kind: about.actor.kind, reason: about.reason.as_deref() };
            decide::decide(view.state(), command, by, *fence, probed, now)?
        }
        What::Outcome { outcome, role, holder } => decide_as(view, outcome, *role, holder, now)?,
        What::BreakGlass { intent, generation, moved } => {
            decide::decide_break_glass(view.state(), intent, *generation, *moved, now)?
        }
    };
    if decision.events.is_empty() {
        return Ok(Prepared::Nothing(decision.told()));
    }
    let extends = heads(view, decision.events.iter().map(|(stream, _)| stream));
    let requires = heads(view, decision.requires.iter());
    if !rollback {
        check_understood(view, extends.iter().chain(&requires))?;
    }
    let command = asked.command.unwrap_or_else(|| derived(view, &asked.what, &extends));
    // What was done without the ledger took effect then; so what served at a moment is answered right for that time too.
    let time = match &asked.what {
        What::BreakGlass { .. } => about.effective_at.unwrap_or(now.time),
        What::Command { .. } | What::Outcome { .. } => now.time,
    };
    let events = std::mem::take(&mut decision.events);
    let draft = Draft { id: now.commit, command, time, extends, requires, events, about };
    Ok(Prepared::Commit(Box::new(draft), decision.told()))
}

/// Checks what is said about a commit and is kept for ever with it. A rollback passes no gate: what cannot be kept of
/// its reason is left out, and it took effect now at the latest.
fn told(asked: &Asked, now: Now, rollback: bool) -> Result<About, Rejection> {
    let mut about = asked.about.clone();
    if rollback {
        about.reason = about.reason.as_deref().map(text::tidy);
        about.effective_at = about.effective_at.map(|at| at.min(now.time));
        return Ok(about);
    }
    text::check("the reason", about.reason.as_deref().unwrap_or_default(), 500).map_err(Rejection::invalid)?;
    match about.effective_at {
        Some(at) if at > now.time => Err(Rejection::Invalid(format!(
            "effective_at {at} is in the future; it is the time at which something took effect that could not be \
             recorded then"
        ))),
        _ => Ok(about),
    }
}

/// Decides a worker's outcome; whatever is about a deployment requires the lease that lets the worker act.
fn decide_as(view: &View, outcome: &Outcome, role: Role, holder: &str, now: Now) -> Result<Decision, Refusal> {
    let about_deployment = matches!(outcome, Outcome::Deployment(_));
    if about_deployment && view.state().lease(role).holder.as_deref() != Some(holder) {
        return Err(Refusal::Deposed { role, holder: holder.to_owned() });
    }
    let mut decision = decide::decide_outcome(view.state(), outcome, now)?;
    if about_deployment {
        decision.requires.push(Stream::Worker(role));
    }
    Ok(decision)
}

fn heads<'a>(view: &View, streams: impl Iterator<Item = &'a Stream>) -> Vec<WireHead> {
    let mut heads: Vec<WireHead> = Vec::new();
    for stream in streams {
        if heads.iter().all(|head| head.stream != *stream) {
            let head = view.head(stream);
            heads.push(WireHead { stream: stream.clone(), version: head.version, hash: head.hash });
        }
    }
    heads
}

fn check_understood<'a>(view: &View, mut heads: impl Iterator<Item = &'a WireHead>) -> Result<(), Refusal> {
    let read_only = heads.find_map(|head| {
        let stream = head.stream.to_string();
        view.read_only().get(&stream).map(|why| Refusal::ReadOnly { stream, why: why.clone() })
    });
    read_only.map_or(Ok(()), Err)
}

/// The same conclusion at the same place is the same command.
fn derived(view: &View, what: &What, extends: &[WireHead]) -> CommandRef {
    let ledger = view.state().ledger.unwrap_or(schemas::LedgerId(uuid::Uuid::nil()));
    let hash = match what {
        What::Command { command, .. } => command.hash(),
        // A rollout comes back once, wherever and on whatever counts that is decided.
        What::Outcome {
            outcome:
                Outcome::Deployment(outcome::DeploymentReport {
                    outcome: DeploymentOutcome::SendBack(outcome::SendBack { rollout, .. }),
                    ..
                }),
            ..
        } => {
            let what = format!("rollout {rollout} comes back");
            return CommandRef { id: CommandId::of_outcome(ledger, &what), hash: Hash::of(what.as_bytes()) };
        }
        What::Outcome { outcome, .. } => outcome.hash(),
        What::BreakGlass { intent, .. } => return intent.command,
    };
    let at: Vec<String> = extends.iter().map(|head| format!("{}@{}", head.stream, head.version)).collect();
    CommandRef { id: CommandId::of_outcome(ledger, &format!("{}#{hash}", at.join(","))), hash }
}

/// Returns the commit and events in `bytes`, as far as this program understands them.
pub(super) fn read_back(bytes: &Bytes) -> Option<(CommitId, Vec<(Stream, Event)>)> {
    let mut view = Decoded::of(bytes);
    let id = view.envelope()?.id;
    Some((id, view.take_events().into_iter().flatten().collect()))
}

/// Returns the types of the events on `stream` in a record, if that counts.
pub(super) fn kinds_on(view: &View, record: &Record, stream: &str) -> Vec<String> {
    let parsed = Parsed::of(&record.bytes);
    let counts = |id: CommandId| view.command(id).is_some_and(|done| done.offset == record.offset);
    let envelope = parsed.envelope.iter().filter(|envelope| counts(envelope.command.id));
    let events = envelope.flat_map(|envelope| &envelope.events);
    events.filter(|event| event.stream == stream).map(|event| event.kind.to_string()).collect()
}
