//! Execute: load, decide, append, settle.
//!
//! A writer learns what became of its commit by folding it when it reads it back, never from the append alone.

mod answer;
mod clock;
mod break_glass;
mod prepare;
mod seal;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard};
use schemas::command::{Command, Request};
use schemas::envelope::{About, CommandRef, Draft, Head as WireHead};
use schemas::outcome::{self, Outcome};
use schemas::{
    Actor, ActorKind, CommandId, CommitId, Event, Fence, Hash, LedgerId, Offset, Probed, Stream, Timestamp, genesis,
};
use tokio::sync::{OwnedMutexGuard, watch};
use uuid::Uuid;

use crate::decide;
use crate::decision::{By, Decision, Now};
use crate::log::{AppendError, Log, ReadError, Subscription, Urgency};
use crate::rule::{Done, Halt};
use crate::telemetry;
use crate::view::{Decoded, View};

use clock::CLOCK_AHEAD_MAX;

pub use answer::{Executed, LedgerOpenError, Refusal};
pub use break_glass::{EmergencyDecision, decide_emergency, may_break_glass};
pub use clock::{Anchor, Clock, ClockTrouble, SystemClock};
pub use prepare::{Asked, Prepared, What, prepare};

/// How long a commit may stay without a verdict before its writer is told that it is unknown.
const VERDICT_MAX: Duration = Duration::from_secs(10);

/// How long to wait before the same bytes are sent again.
const APPEND_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// How long to wait before what could not be read is read again.
const READ_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// How often something is decided anew before its conflict is given back. Each time somebody else's commit came first.
const ROUNDS_MAX: u32 = 100;

/// A ledger: a log and its fold, kept up to date. Clones share both.
#[derive(Clone)]
pub struct Ledger {
    log: Arc<dyn Log>,
    shared: Arc<Shared>,
}

struct Shared {
    view: RwLock<View>,
    folded: watch::Sender<Offset>,
    halted: watch::Sender<Option<String>>,
    queues: Mutex<HashMap<Stream, Arc<tokio::sync::Mutex<()>>>>,
    clock: Arc<dyn Clock>,
    /// When this process began to follow the ledger, by the steady clock.
    started: Duration,
    /// Where the wall clock should be.
    anchor: Mutex<Anchor>,
}

/// Folds everything that `log` holds beyond `view` into it.
///
/// # Errors
///
/// [`LedgerOpenError`] if the log cannot be read, or this program cannot go on without guessing.
pub async fn catch_up(log: &dyn Log, view: &mut View) -> Result<(), LedgerOpenError> {
    loop {
        let records = log.read(view.next(), 4_096).await?;
        if records.is_empty() {
            return Ok(());
        }
        for record in records {
            view.advance(record.offset, &Decoded::of(&record.bytes))?;
        }
    }
}

impl Ledger {
    /// Opens a ledger over `log`, continuing from `view`; makes it if the log is empty. A log that holds a record for a later
    /// rule is open up to that record and has halted there: see [`Ledger::halted`].
    ///
    /// # Errors
    ///
    /// [`LedgerOpenError`] if the log cannot be read or written, or is no ledger.
    pub async fn open(log: Arc<dyn Log>, mut view: View, clock: Arc<dyn Clock>) -> Result<Self, LedgerOpenError> {
        if *log.end().borrow() == Offset(0) {
            log.append(genesis(clock.now()), Urgency::Ordinary).await?;
        }
        let halted = match catch_up(&*log, &mut view).await {
            Ok(()) => None,
            Err(LedgerOpenError::Halt(halt @ Halt::UnknownRule { .. })) if view.next() > Offset(0) => {
                Some(halt.to_string())
            }
            Err(error) => return Err(error),
        };
        let started = clock.steady();
        let anchor = Mutex::new(Anchor { wall: clock.now(), steady: started });
        let (folded, _) = watch::channel(view.next());
        let shared = Arc::new(Shared {
            view: RwLock::new(view),
            folded,
            halted: watch::Sender::new(halted),
            queues: Mutex::default(),
            clock,
            started,
            anchor,
        });
        tokio::spawn(follow(Arc::clone(&log), Arc::clone(&shared)));
        Ok(Self { log, shared })
    }

    /// Returns the view as it is now. Nothing is folded while anybody has one: for anything long, copy its state, which takes a
    /// constant time.
    pub fn view(&self) -> RwLockReadGuard<'_, View> {
        // Also while a record waits to be folded. Who has a view may call what asks for one, or wait for a lock whose holder
        // asks for one: behind that record they would wait for each other for ever.
        self.shared.view.read_recursive()
    }

    /// Returns the ledger's id.
    ///
    /// # Panics
    ///
    /// Never: an open ledger has its first record.
    pub fn id(&self) -> LedgerId {
        self.view().state().ledger.expect("an open ledger has its first record")
    }

    /// Returns the offset up to which the log is folded, and every change of it.
    pub fn folded(&self) -> watch::Receiver<Offset> {
        self.shared.folded.subscribe()
    }

    /// Returns why this reader halted, if it did.
    pub fn halted(&self) -> Option<String> {
        self.shared.halted.borrow().clone()
    }

    /// Returns the log.
    pub fn log(&self) -> &dyn Log {
        &*self.log
    }

    /// Returns when this process began to follow the ledger, by the steady clock.
    pub fn started(&self) -> Duration {
        self.shared.started
    }

    /// Looks at this machine's clocks and says what is wrong with the one on the wall.
    pub fn clock_trouble(&self) -> Option<ClockTrouble> {
        let ledger = self.view().time();
        let (wall, steady) = (self.shared.clock.now(), self.shared.clock.steady());
        let mut anchor = lock(&self.shared.anchor);
        *anchor = anchor.looked(wall, steady);
        ClockTrouble::of(wall, anchor.expected(steady), ledger)
    }

    /// Returns the clock.
    pub fn clock(&self) -> &dyn Clock {
        &*self.shared.clock
    }

    /// Says what a request of `actor` would do now, without doing it.
    ///
    /// # Errors
    ///
    /// [`Refusal`] as [`Ledger::execute`], as far as it can be known beforehand.
    pub fn dry_run(&self, request: &Request, actor: &Actor, probed: &Probed) -> Result<Decision, Refusal> {
        decide::check_reason(&request.command, request.reason.as_deref())?;
        let view = self.view();
        let now = self.now(&view);
        let by = By { kind: actor.kind, reason: request.reason.as_deref() };
        Ok(decide::decide(view.state(), &request.command, by, request.fence, probed, now)?)
    }

    /// Carries out a person's or a pipeline's request.
    ///
    /// Requests about one deployment take turns, but for a rollback, which waits for nobody. A request that lost to
    /// something else comes back as a conflict; a rollback is decided again.
    ///
    /// # Errors
    ///
    /// [`Refusal`] says why nothing was done, or that nobody knows.
    pub async fn execute(&self, request: Request, actor: Actor, cause: Option<CommitId>) -> Result<Executed, Refusal> {
        self.execute_seeing(request, actor, cause, Probed::default()).await
    }

    /// Carries a request out as [`Ledger::execute`], and by what the newest probes say of its deployment's stacks.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub async fn execute_seeing(
        &self,
        request: Request,
        actor: Actor,
        cause: Option<CommitId>,
        probed: Probed,
    ) -> Result<Executed, Refusal> {
        let fence = request.fence.or_else(|| self.fence_of(&request.command));
        let rollback = decide::is_rollback(&request.command);
        let queue = if rollback { vec![] } else { self.queue(&streams_of(&request.command)).await };
        let asked = Asked::request(&Request { fence, ..request }, actor, cause, probed);
        let answer = self.settle(&asked, rollback, rollback).await;
        drop(queue);
        answer
    }

    /// Records what a worker concluded or did, as `holder` of `role`. It is decided again on a conflict.
    ///
    /// # Errors
    ///
    /// [`Refusal`]; [`Refusal::Deposed`] if another instance acts.
    pub async fn record(
        &self,
        outcome: Outcome,
        role: schemas::Role,
        holder: &str,
        cause: Option<CommitId>,
    ) -> Result<Executed, Refusal> {
        let rollback = decide::outcome_is_rollback(&outcome);
        let queue = match &outcome {
            Outcome::Deployment(outcome::DeploymentReport { deployment, .. }) if !rollback => {
                self.queue(&[Stream::Deployment(deployment.clone())]).await
            }
            _ => vec![],
        };
        let asked = Asked::outcome(outcome, role, holder, cause);
        let answer = self.settle(&asked, true, rollback).await;
        drop(queue);
        answer
    }

    fn fence_of(&self, command: &Command) -> Option<Fence> {
        let id = command.deployment()?;
        Some(self.view().state().deployment(id).map_or(Fence(0), |deployment| deployment.traffic.fence))
    }

    /// Waits for one's turn on each of `streams`, always in the same order.
    async fn queue(&self, streams: &[Stream]) -> Vec<OwnedMutexGuard<()>> {
        let mut turns = Vec::with_capacity(streams.len());
        for stream in streams {
            let queue = Arc::clone(lock(&self.shared.queues).entry(stream.clone()).or_default());
            turns.push(queue.lock_owned().await);
        }
        turns
    }

    fn now(&self, view: &View) -> Now {
        let wall = self.shared.clock.now();
        // Only rollbacks are taken from a clock that is ahead; they must not take the ledger's time with them.
        let time = if self.ahead(view, wall) > CLOCK_AHEAD_MAX { self.expected() } else { wall };
        Now { time: time.max(view.time()), commit: CommitId(Uuid::now_v7()) }
    }

    /// The time as it should be, by the steady clock since the wall clock was right.
    fn expected(&self) -> Timestamp {
        lock(&self.shared.anchor).expected(self.shared.clock.steady())
    }

    /// How far `wall` is ahead of both the ledger's time and the time as it should be.
    fn ahead(&self, view: &View, wall: Timestamp) -> jiff::SignedDuration {
        wall.duration_since(self.expected()).min(wall.duration_since(view.time()))
    }

    async fn settle(&self, asked: &Asked, again: bool, rollback: bool) -> Result<Executed, Refusal> {
        let urgency = if rollback { Urgency::Rollback } else { Urgency::Ordinary };
        let mut round = 1;
        loop {
            let (prepared, seen) = self.prepare_now(asked, rollback)?;
            let (draft, told) = match prepared {
                Prepared::Commit(draft, told) => (*draft, told),
                Prepared::Nothing(told) => return Ok(Executed::nothing(told)),
                Prepared::Before(done) => return self.first_answer(done).await,
            };
            let bytes = Bytes::from(draft.to_bytes());
            if bytes.len() > schemas::envelope::COMMIT_BYTES_MAX {
                return Err(Refusal::TooLarge { bytes: bytes.len() });
            }
            match self.append(&draft, bytes, urgency).await? {
                Some((done, true)) => {
                    let Draft { id, events, .. } = draft;
                    let offset = Some(done.offset);
                    return Ok(Executed { commit: Some(id), offset, events, ..Executed::nothing(told) });
                }
                // An earlier copy of these bytes counts, or the same command was sent twice at once and the other does.
                Some((done, false)) => {
                    let answer = self.first_answer(done).await?;
                    let own = answer.commit == Some(draft.id);
                    return Ok(if own {
                        Executed { notes: told.notes, stack: told.stack, repeated: false, ..answer }
                    } else {
                        answer
                    });
                }
                None if again && round < ROUNDS_MAX => round += 1,
                None => return Err(self.conflict(&draft, seen).await),
            }
        }
    }

    fn prepare_now(&self, asked: &Asked, rollback: bool) -> Result<(Prepared, Offset), Refusal> {
        if let Some(why) = self.halted() {
            return Err(Refusal::Halted(why));
        }
        let view = self.view();
        if !rollback {
            self.check_clock(&view)?;
        }
        Ok((prepare(&view, asked, self.now(&view), rollback)?, view.next()))
    }

    /// Appends the draft and waits for its verdict: what carries its command out and whether that is this very append, or
    /// `None` if it is void.
    async fn append(&self, draft: &Draft, bytes: Bytes, urgency: Urgency) -> Result<Option<(Done, bool)>, Refusal> {
        let indeterminate = |why: String| Refusal::Indeterminate { id: draft.command.id, why };
        let mut folded = self.shared.folded.subscribe();
        let verdict = async {
            // Whether an earlier copy may have been kept: the same bytes count at most once, however often they land.
            let mut unsure = false;
            let offset = loop {
                match self.log.append(bytes.clone(), urgency).await {
                    Ok(offset) => break offset,
                    Err(AppendError::Ambiguous(_)) if self.halted().is_none() => unsure = true,
                    Err(AppendError::Refused(_)) if unsure => {}
                    Err(AppendError::Ambiguous(why)) => return Err(indeterminate(why)),
                    Err(error) if unsure => return Err(indeterminate(error.to_string())),
                    Err(error) => return Err(Refusal::NotTaken(error)),
                }
                tokio::time::sleep(APPEND_AGAIN_AFTER).await;
            };
            let halted = || self.halted();
            let waited = folded.wait_for(|next| *next > offset || halted().is_some()).await.map(|next| *next > offset);
            if !matches!(waited, Ok(true)) {
                return Err(indeterminate(self.halted().unwrap_or_else(|| "this reader has stopped".to_owned())));
            }
            let done = self.view().command(draft.command.id).filter(|done| done.hash == draft.command.hash);
            Ok(done.map(|done| (done, done.offset == offset)))
        };
        let began = std::time::Instant::now();
        let verdict = match tokio::time::timeout(VERDICT_MAX, verdict).await {
            Ok(verdict) => verdict,
            Err(_) => Err(indeterminate(format!("none came within {} s", VERDICT_MAX.as_secs()))),
        };
        let outcome = match &verdict {
            Ok(Some(_)) => "counted",
            Ok(None) => "void",
            Err(Refusal::Indeterminate { .. }) => "unknown",
            Err(_) => "refused",
        };
        telemetry::APPENDS.with_label_values(&[outcome]).inc();
        telemetry::APPEND_SECONDS.observe(began.elapsed().as_secs_f64());
        verdict
    }

    /// Reads back what the first commit of a repeated command did.
    async fn first_answer(&self, done: Done) -> Result<Executed, Refusal> {
        let records = self.log.read(done.offset, 1).await.map_err(|error| Refusal::Halted(error.to_string()))?;
        let record = records.first().ok_or_else(|| Refusal::Halted(format!("offset {} is gone", done.offset)))?;
        let decoded: Option<(CommitId, Vec<(Stream, Event)>)> = prepare::read_back(&record.bytes);
        let (commit, events) =
            decoded.ok_or_else(|| Refusal::Halted(format!("offset {} is not a commit", done.offset)))?;
        Ok(Executed {
            commit: Some(commit),
            offset: Some(done.offset),
            events,
            notes: vec![],
            repeated: true,
            stack: None,
        })
    }

    /// Says what happened on the draft's streams since `seen`.
    async fn conflict(&self, draft: &Draft, seen: Offset) -> Refusal {
        // The same id was sent for something else at once, and that came first.
        let CommandRef { id, hash } = draft.command;
        if self.view().command(id).is_some_and(|done| done.hash != hash) {
            return Refusal::OtherContent { id };
        }
        let mut streams = draft.extends.iter().chain(&draft.requires);
        let moved = {
            let view = self.view();
            streams.find(|head| view.head(&head.stream).version != head.version).map(|head| head.stream.to_string())
        };
        let stream = moved.unwrap_or_else(|| draft.extends[0].stream.to_string());
        let records = self.log.read(seen, 256).await.unwrap_or_default();
        let view = self.view();
        let since: Vec<String> = records.iter().flat_map(|record| prepare::kinds_on(&view, record, &stream)).collect();
        let since = if since.is_empty() { "another commit came first".to_owned() } else { since.join(", ") };
        Refusal::Conflict { stream, since }
    }

    /// Refuses when this machine's clock has jumped ahead: of the ledger's time and of its own steady clock.
    fn check_clock(&self, view: &View) -> Result<(), Refusal> {
        let ahead = self.ahead(view, self.shared.clock.now());
        if ahead > CLOCK_AHEAD_MAX { Err(Refusal::ClockAhead { ahead_s: ahead.as_secs() }) } else { Ok(()) }
    }
}

/// Follows the log for ever: folds each record, then lets everyone know.
async fn follow(log: Arc<dyn Log>, shared: Arc<Shared>) {
    let from = *shared.folded.borrow();
    let mut subscription = Subscription::new(&*log, from);
    let why = loop {
        let records = match subscription.next().await {
            Ok(records) => records,
            // A log that goes on can be read later.
            Err(ReadError::Unavailable(why)) if subscription.goes_on() => {
                tracing::warn!(%why, "the log is read again");
                tokio::time::sleep(READ_AGAIN_AFTER).await;
                continue;
            }
            Err(error) => break error.to_string(),
        };
        let mut view = shared.view.write();
        let mut halt = None;
        for record in records {
            if let Err(error) = view.advance(record.offset, &Decoded::of(&record.bytes)) {
                halt = Some(error.to_string());
                break;
            }
        }
        let next = view.next();
        drop(view);
        shared.folded.send_replace(next);
        if let Some(halt) = halt {
            break halt;
        }
    };
    tracing::error!(%why, "this reader has halted");
    shared.halted.send_replace(Some(why));
    // Whoever waits for the next record shall look up.
    shared.folded.send_modify(|_| ());
}

/// Returns the bytes of a new ledger's first commit.
pub fn genesis(time: Timestamp) -> Bytes {
    let id = CommitId(Uuid::now_v7());
    let ledger = LedgerId(Uuid::now_v7());
    let event: Event = genesis::Created { ledger }.into();
    let draft = Draft {
        id,
        command: CommandRef { id: CommandId(ledger.0), hash: Hash::of(event.data().get().as_bytes()) },
        time,
        extends: vec![WireHead { stream: Stream::Ledger, version: schemas::StreamVersion(0), hash: Hash::ZERO }],
        requires: vec![],
        events: vec![(Stream::Ledger, event)],
        about: About::by(Actor {
            kind: ActorKind::System,
            name: "ionledger".to_owned(),
            proof: "makes the ledger".to_owned(),
        }),
    };
    draft.to_bytes().into()
}

/// Returns the streams a command is decided on, in the order in which turns are taken.
fn streams_of(command: &Command) -> Vec<Stream> {
    let deployment = command.deployment().cloned().map(Stream::Deployment);
    deployment.into_iter().chain([Stream::Service(command.service().clone())]).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
