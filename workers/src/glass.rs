//! Break glass: a rollback that goes on by itself when the ledger gives no verdict, a person's or the judge's.
//!
//! Its intent is signed and synced to a local file, then the weights move, then, when the log is back, the ledger hears of
//! it once, under the command id of the append that got no verdict. In reading order: `key` and `folder` keep the intent,
//! `hand` moves the weights, `keeper` settles with the ledger. An audit system must not be able to block an emergency:
//! where even the file cannot be written the weights move all the same, and the caller hears so.

mod folder;
mod hand;
mod keeper;
mod key;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ledger::Ledger;
use ledger::execute::{Answer, Asked, Intended, Refusal};
use ledger::log::AppendError;
use schemas::command::{Outcome, Request};
use schemas::glass::{Intent, Unrecorded};
use schemas::{Actor, CommandId, CommitId, Probed, Role};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::traffic::Router;

pub use folder::{Aside, Folder, Found};
pub use hand::{generation_above, is_done, routes_back};

/// How long each part of a rollback may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The log's verdict; default 2 s. Source: design, "Rollouts".
    pub verdict: Duration,
    /// Writing the intent down; default 500 ms. A disk that hangs must not block an emergency.
    pub write: Duration,
    /// Between two attempts to settle with the ledger; default 1 s.
    pub again: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self { verdict: ms(2_000), write: ms(500), again: ms(1_000) }
    }
}

/// Carries rollbacks out while the ledger gives no verdict, and records them afterwards.
pub struct Glass {
    folder: Folder,
    ledger: Ledger,
    router: Arc<dyn Router>,
    patience: Patience,
    pending: Mutex<BTreeMap<CommandId, Pending>>,
    woken: Notify,
}

/// A rollback that the ledger does not have yet.
struct Pending {
    intent: Intent,
    /// Its file, or why there is none.
    file: Result<PathBuf, String>,
    /// Whether the router confirmed it.
    moved: bool,
    /// The append that got no verdict in time, and goes on.
    verdict: Option<Verdict>,
    trouble: Option<String>,
}

type Verdict = JoinHandle<Result<Answer, Refusal>>;

/// What became of a rollback.
#[derive(Clone, Debug, PartialEq)]
pub enum Rolled {
    /// The ledger gave its verdict.
    Settled(Result<Answer, Refusal>),
    /// It was carried out without.
    Broken(Broken),
}

/// A rollback without the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct Broken {
    /// What the ledger does not have yet.
    pub unrecorded: Unrecorded,
    /// Why the weights could not be moved, if they could not; it is tried again.
    pub unmoved: Option<String>,
    /// What else to know.
    pub notes: Vec<String>,
}

impl Glass {
    /// Returns the glass of the data folder `data`.
    pub fn new(data: &Path, ledger: Ledger, router: Arc<dyn Router>, patience: Patience) -> Arc<Self> {
        let folder = Folder::of(data);
        if let Err(error) = folder.prepare() {
            tracing::error!(%error, "a rollback without the ledger could not be written down now; see to the disk");
        }
        let (pending, woken) = (Mutex::default(), Notify::new());
        Arc::new(Self { folder, ledger, router, patience, pending, woken })
    }

    /// Carries out a person's or a pipeline's rollback, as [`Ledger::execute_seeing`], and without a verdict past the ledger.
    pub async fn execute(&self, request: Request, actor: Actor, cause: Option<CommitId>, probed: Probed) -> Rolled {
        let asked = Asked::request(&request, actor.clone(), cause, probed.clone());
        let (ledger, patience) = (self.ledger.clone(), self.patience.verdict);
        self.race(&asked, async move {
            let until = tokio::time::Instant::now() + patience;
            loop {
                match ledger.execute_seeing(request.clone(), actor.clone(), cause, probed.clone()).await {
                    // Nothing was written, and it may be sent again.
                    Err(Refusal::NotTaken(AppendError::Refused(_))) if tokio::time::Instant::now() < until => {
                        tokio::time::sleep(AGAIN_AFTER).await;
                    }
                    answer => return answer,
                }
            }
        })
        .await
    }

    /// Records that a canary goes back, as [`Ledger::record`], and without a verdict sends it back past the ledger.
    ///
    /// # Errors
    ///
    /// [`Refusal`]; none once the weights are on their way.
    pub async fn record(
        &self,
        outcome: Outcome,
        role: Role,
        holder: &str,
        cause: Option<CommitId>,
    ) -> Result<Answer, Refusal> {
        let asked = Asked::outcome(outcome.clone(), role, holder, cause);
        let (ledger, holder) = (self.ledger.clone(), holder.to_owned());
        match self.race(&asked, async move { ledger.record(outcome, role, &holder, cause).await }).await {
            Rolled::Settled(answer) => answer,
            Rolled::Broken(Broken { notes, .. }) => {
                Ok(Answer { commit: None, offset: None, events: vec![], notes, repeated: false })
            }
        }
    }

    /// Returns every rollback that was carried out here and that the ledger does not have yet, the oldest first.
    pub fn unrecorded(&self) -> Vec<Unrecorded> {
        let mut all: Vec<Unrecorded> = self.lock().values().map(Pending::unrecorded).collect();
        let view = self.ledger.view();
        all.retain(|one| view.command(one.command).is_none());
        all.sort_by_key(|one| one.at);
        all
    }

    /// Waits for the verdict as long as it may take, then goes on without.
    async fn race(
        &self,
        asked: &Asked,
        verdict: impl Future<Output = Result<Answer, Refusal>> + Send + 'static,
    ) -> Rolled {
        if let Some(command) = asked.command
            && self.lock().get(&command.id).is_some_and(|pending| pending.intent.command.hash != command.hash)
        {
            return Rolled::Settled(Err(Refusal::OtherContent { id: command.id }));
        }
        if let Some(broken) = self.again(asked).await {
            return Rolled::Broken(broken);
        }
        // It goes on when it is not waited for any more: the append may still land, and counts then.
        let mut verdict = tokio::spawn(verdict);
        let (why, verdict) = match tokio::time::timeout(self.patience.verdict, &mut verdict).await {
            Ok(Ok(Err(refusal))) if is_silence(&refusal) => (refusal, None),
            Ok(Ok(answer)) => return Rolled::Settled(answer),
            Ok(Err(panic)) => (Refusal::Halted(panic.to_string()), None),
            Err(_) => (silent(asked, format!("none came within {:?}", self.patience.verdict)), Some(verdict)),
        };
        let obstacle = match self.ledger.intend(asked) {
            Ok(Intended::Back(intent)) if asked.is_unready() => return self.go_on(*intent, verdict, &why).await,
            Ok(Intended::Back(intent)) => match hand::look_for_nodes(&self.ledger, &intent).await {
                Ok(()) => return self.go_on(*intent, verdict, &why).await,
                Err(gone) => gone,
            },
            // The verdict is being read just now.
            Ok(Intended::Nothing(notes)) => {
                let answer = Answer { commit: None, offset: None, events: vec![], notes, repeated: false };
                let last = match verdict {
                    Some(verdict) => tokio::time::timeout(AGAIN_AFTER, verdict).await.ok().and_then(Result::ok),
                    None => None,
                };
                return Rolled::Settled(last.filter(|last| !is_silent(last)).unwrap_or(Ok(answer)));
            }
            Ok(Intended::Cold(_)) => COLD.to_owned(),
            Err(refusal) => return Rolled::Settled(Err(refusal)),
        };
        let (cold, next) = ("without the ledger nothing can be done", "send it again once the ledger answers");
        Rolled::Settled(Err(silent(asked, format!("{why}; {cold}: {obstacle}; {next}"))))
    }

    /// A second rollback of the same deployment changes nothing and is no second intent.
    async fn again(&self, asked: &Asked) -> Option<Broken> {
        let deployment = asked.deployment()?;
        // Never the view under this lock.
        let pending: Vec<(Intent, bool)> =
            self.lock().values().map(|pending| (pending.intent.clone(), pending.moved)).collect();
        let waits = |intent: &Intent| {
            intent.deployment == *deployment && self.ledger.view().command(intent.command.id).is_none()
        };
        let (intent, moved) = pending.into_iter().find(|(intent, _)| waits(intent))?;
        let moved = if moved { Ok(()) } else { self.carry_out_late(&intent).await };
        let note = "it was carried out before and is not yet in the ledger; nothing was done again";
        self.told(intent.command.id, moved.err(), vec![note.to_owned()])
    }

    /// Writes the intent down, moves the weights, and says what became of both.
    async fn go_on(&self, mut intent: Intent, mut verdict: Option<Verdict>, why: &Refusal) -> Rolled {
        let glass = self.ledger.view().state().deployment(&intent.deployment).map_or(0, |of| of.glass);
        let held = hand::held(&*self.router, &intent.deployment).await;
        if let Some(held) = held.as_ref().filter(|held| hand::is_done(&intent, held, glass)) {
            let note = "the router serves it already, by a rollback that the ledger does not have yet and whose intent lies \
                        with whoever carried it out";
            tracing::warn!(deployment = %intent.deployment, generation = %held.routes.generation, note);
            let unrecorded = unrecorded(&intent, None, None);
            return Rolled::Broken(Broken { unrecorded, unmoved: None, notes: vec![note.to_owned()] });
        }
        intent.generation = hand::generation_above(&intent, glass, held.map(|held| held.routes.generation));
        tracing::error!(deployment = %intent.deployment, to = %intent.version, %why, "the glass is broken: a rollback goes on without the ledger");
        let id = intent.command.id;
        let file = self.write(&intent).await;
        let mut notes = Vec::new();
        if let Err(error) = &file {
            let note = format!(
                "its intent could not be written down ({error}): while this process lives it is kept in memory"
            );
            tracing::error!(%note);
            notes.push(note);
        }
        // A verdict that came meanwhile is the better end.
        if let Some(ended) = verdict.take_if(|verdict| verdict.is_finished())
            && let Ok(answer) = ended.await
            && !is_silent(&answer)
        {
            if let Ok(file) = &file
                && let Err(error) = self.folder.done(file)
            {
                tracing::warn!(file = %file.display(), %error, "it is settled and could not be put away");
            }
            return Rolled::Settled(answer);
        }
        let pending = Pending { intent: intent.clone(), file, moved: false, verdict, trouble: None };
        self.lock().insert(id, pending);
        let moved = self.carry_out(&intent, Ok(())).await;
        self.woken.notify_one();
        let unmoved = moved.err();
        let told = self.told(id, unmoved.clone(), notes.clone());
        Rolled::Broken(told.unwrap_or_else(|| Broken { unrecorded: unrecorded(&intent, None, None), unmoved, notes }))
    }

    /// Moves the weights unless its nodes are gone, and remembers whether that was confirmed.
    async fn carry_out(&self, intent: &Intent, nodes: Result<(), String>) -> Result<(), String> {
        let moved = match nodes {
            Ok(()) => hand::move_weights(&self.ledger, &*self.router, intent).await,
            Err(gone) => Err(gone),
        };
        match &moved {
            Ok(generation) => {
                tracing::error!(deployment = %intent.deployment, to = %intent.version, %generation, "all traffic was sent back without the ledger");
            }
            Err(error) => tracing::error!(deployment = %intent.deployment, %error, "the weights could not be moved"),
        }
        if let Some(pending) = self.lock().get_mut(&intent.command.id) {
            pending.moved = moved.is_ok();
            pending.trouble = moved.as_ref().err().cloned();
        }
        moved.map(drop)
    }

    /// Carries out, later than it was made, what could not be carried out then.
    async fn carry_out_late(&self, intent: &Intent) -> Result<(), String> {
        self.carry_out(intent, hand::look_for_nodes(&self.ledger, intent).await).await
    }

    /// Writes the intent down, as long as that may take.
    async fn write(&self, intent: &Intent) -> Result<PathBuf, String> {
        let (folder, intent) = (self.folder.clone(), intent.clone());
        let writing = tokio::task::spawn_blocking(move || folder.write(&intent));
        match tokio::time::timeout(self.patience.write, writing).await {
            Ok(Ok(written)) => written.map_err(|error| error.to_string()),
            Ok(Err(panic)) => Err(panic.to_string()),
            Err(_) => Err(format!("the disk took longer than {:?}", self.patience.write)),
        }
    }

    fn told(&self, id: CommandId, unmoved: Option<String>, notes: Vec<String>) -> Option<Broken> {
        let unrecorded = self.lock().get(&id).map(Pending::unrecorded)?;
        Some(Broken { unrecorded, unmoved, notes })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<CommandId, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is nothing to turn to.
const COLD: &str =
    "the rollback target must be started first, because its stack is gone or no node of it passes its check";

/// How long to wait before what was not taken is sent again, and for a verdict that is being read.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

impl Pending {
    fn unrecorded(&self) -> Unrecorded {
        let unwritten = self.file.as_ref().err().map(|why| format!("it is not written down: {why}"));
        unrecorded(&self.intent, self.file.as_ref().ok().cloned(), self.trouble.clone().or(unwritten))
    }
}

/// Returns what is shown of an intent.
fn unrecorded(intent: &Intent, file: Option<PathBuf>, trouble: Option<String>) -> Unrecorded {
    Unrecorded {
        deployment: intent.deployment.clone(),
        version: intent.version.version.clone(),
        name: Some(intent.version.clone()),
        command: intent.command.id,
        actor: intent.actor.clone(),
        reason: intent.reason.clone(),
        at: intent.at,
        file: file.map(|file| file.display().to_string()),
        trouble,
    }
}

/// Returns what waits in the data folder `data`, for whoever looks while nothing runs on it.
pub fn left_in(data: &Path) -> Vec<Unrecorded> {
    let found = Folder::of(data).waiting().unwrap_or_default();
    let intents = found.into_iter().filter_map(|found| Some(unrecorded(&found.intent.ok()?, Some(found.file), None)));
    let mut all: Vec<Unrecorded> = intents.collect();
    all.sort_by_key(|one| one.at);
    all
}

/// Says whether a refusal is no verdict: the log said nothing, or cannot be followed.
fn is_silence(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Indeterminate { .. } | Refusal::NotTaken(_) | Refusal::Halted(_))
}

fn is_silent(answer: &Result<Answer, Refusal>) -> bool {
    answer.as_ref().is_err_and(is_silence)
}

fn silent(asked: &Asked, why: String) -> Refusal {
    match asked.command {
        Some(command) => Refusal::Indeterminate { id: command.id, why },
        None => Refusal::NotTaken(AppendError::Ambiguous(why)),
    }
}
