//! Break glass: a rollback that goes on by itself when the ledger gives no verdict, a person's or the judge's.
//!
//! Its intent is signed and synced to a local file, then the weights move, then, when the log is back, the ledger hears of
//! it once, under the command id of the append that got no verdict. In reading order: `key`, `folder` and `writes` keep the intent,
//! `next` says what is to be done, `reroute` moves the weights, `reconciler` settles with the ledger. An audit system must not be able to block an emergency:
//! where even the file cannot be written the weights move all the same, and the caller hears so.

mod folder;
mod writes;
mod reroute;
mod reconciler;
mod key;
mod next;

#[cfg(test)]
mod kit;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ledger::Ledger;
use ledger::decision::Told;
use ledger::execute::{Asked, EmergencyDecision, Executed, Refusal};
use ledger::log::AppendError;
use schemas::break_glass::{Intent, Unrecorded};
use schemas::command::Request;
use schemas::outcome::Outcome;
use schemas::{Actor, CommandId, CommitId, DeploymentId, Probed, Role, Timestamp};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::traffic::{Entry, Router};

use writes::{End, Writes};

pub use folder::{Aside, Folder, Found};
pub use next::{Facts, Outside, Progress, Step, after_record, is_expired, next};
use reroute::Attempt;
pub(crate) use reroute::nobody_listens;
pub use reroute::{generation_above, is_done, routes_back};

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
pub struct BreakGlass {
    folder: Folder,
    writes: Writes,
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

type Verdict = JoinHandle<Result<Executed, Refusal>>;

/// What became of a rollback.
#[derive(Clone, Debug, PartialEq)]
pub enum Rolled {
    /// The ledger gave its verdict.
    Settled(Result<Executed, Refusal>),
    /// It was carried out without.
    Broken(Box<Broken>),
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

impl BreakGlass {
    /// Returns the break-glass rollbacks of the data folder `data`.
    pub fn new(data: &Path, ledger: Ledger, router: Arc<dyn Router>, patience: Patience) -> Arc<Self> {
        let folder = Folder::of(data);
        if let Err(error) = folder.prepare() {
            tracing::error!(%error, "a rollback without the ledger could not be written down now; see to the disk");
        }
        let (writes, pending, woken) = (Writes::default(), Mutex::default(), Notify::new());
        Arc::new(Self { folder, writes, ledger, router, patience, pending, woken })
    }

    /// Carries out a person's or a pipeline's rollback, as [`Ledger::execute_seeing`], and without a verdict past the ledger.
    pub async fn execute(&self, request: Request, actor: Actor, cause: Option<CommitId>, probed: Probed) -> Rolled {
        let asked = Asked::request(&request, actor.clone(), cause, probed.clone());
        let (ledger, patience) = (self.ledger.clone(), self.patience.verdict);
        self.race(&asked, async move {
            // What is known by then is said, before the wait for it ends.
            let last = tokio::time::Instant::now() + patience.saturating_sub(AGAIN_AFTER * 2);
            loop {
                match ledger.execute_seeing(request.clone(), actor.clone(), cause, probed.clone()).await {
                    // Nothing was written, and it may be sent again.
                    Err(Refusal::NotTaken(AppendError::Refused(_))) if tokio::time::Instant::now() < last => {
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
    ) -> Result<Executed, Refusal> {
        let asked = Asked::outcome(outcome.clone(), role, holder, cause);
        let (ledger, holder) = (self.ledger.clone(), holder.to_owned());
        match self.race(&asked, async move { ledger.record(outcome, role, &holder, cause).await }).await {
            Rolled::Settled(answer) => answer,
            Rolled::Broken(broken) => Ok(Executed::nothing(Told { notes: broken.notes, stack: None })),
        }
    }

    /// Returns every rollback that was asked for here and that the ledger does not have yet, the oldest first.
    pub fn unrecorded(&self) -> Vec<Unrecorded> {
        // Never the view under this lock.
        let pending: Vec<(Intent, Unrecorded)> =
            self.lock().values().map(|pending| (pending.intent.clone(), pending.unrecorded())).collect();
        let view = self.ledger.view();
        let waits = pending.into_iter().filter(|(intent, _)| view.command(intent.command.id).is_none());
        let mut all: Vec<Unrecorded> = waits
            .map(|(intent, told)| Unrecorded { overtaken: next::overtaken(view.state(), &intent), ..told })
            .collect();
        all.sort_by_key(|one| one.at);
        all
    }

    /// Waits for the verdict as long as it may take, then goes on without.
    async fn race(
        &self,
        asked: &Asked,
        verdict: impl Future<Output = Result<Executed, Refusal>> + Send + 'static,
    ) -> Rolled {
        if let Some(command) = asked.command
            && self.lock().get(&command.id).is_some_and(|pending| pending.intent.command.hash != command.hash)
        {
            return Rolled::Settled(Err(Refusal::OtherContent { id: command.id }));
        }
        let recorded_before = self.settle_before(asked).await;
        if let Some(broken) = self.again(asked).await {
            return Rolled::Broken(Box::new(broken));
        }
        // It goes on when it is not waited for any more: the append may still land, and counts then.
        let mut verdict = tokio::spawn(verdict);
        let (why, verdict) = match tokio::time::timeout(self.patience.verdict, &mut verdict).await {
            Ok(Ok(Err(refusal))) if is_silence(&refusal) => (refusal, None),
            Ok(Ok(answer)) => {
                return Rolled::Settled(answer.map(|mut done| {
                    done.notes.splice(0..0, recorded_before);
                    done
                }));
            }
            Ok(Err(panic)) => (Refusal::Halted(panic.to_string()), None),
            Err(_) => (silent(asked, format!("none came within {:?}", self.patience.verdict)), Some(verdict)),
        };
        let before = asked.deployment().and_then(|id| self.newest(id)).map(|(before, _)| before);
        let obstacle = match self.ledger.decide_emergency(asked) {
            // It went there before, and no node of it is there any more: this one is no other.
            Ok(EmergencyDecision::Back(intent)) if before.as_ref().is_some_and(|before| before.to == intent.to) => {
                match self.once_more(&before.unwrap_or(*intent)).await {
                    Some(broken) => return Rolled::Broken(Box::new(broken)),
                    None => GONE.to_owned(),
                }
            }
            Ok(EmergencyDecision::Back(intent)) => match reroute::look_for_nodes(&self.ledger, &intent).await {
                Err(gone) if !asked.is_unready() => gone,
                // Whatever its check says, users stay where they are until a node of it can be called.
                nodes => return self.go_on(asked, *intent, before, verdict, &why, nodes).await,
            },
            // The verdict is being read just now.
            Ok(EmergencyDecision::Nothing(told)) => {
                let answer = Executed::nothing(told);
                let last = match verdict {
                    Some(verdict) => tokio::time::timeout(AGAIN_AFTER, verdict).await.ok().and_then(Result::ok),
                    None => None,
                };
                return Rolled::Settled(last.filter(|last| !is_silent(last)).unwrap_or(Ok(answer)));
            }
            Ok(EmergencyDecision::Cold(cold)) => cold,
            Err(refusal) => return Rolled::Settled(Err(refusal)),
        };
        // Nothing waits to be written, so there is nothing to wait for.
        if verdict.is_none() && is_not_written(&why) {
            return Rolled::Settled(Err(Refusal::Cold(obstacle)));
        }
        let next = "send it again once the ledger answers";
        Rolled::Settled(Err(silent(asked, format!("{why}; {obstacle}; {next}"))))
    }

    /// Tries to record what waits of the deployment: where the log answers again, this rollback is decided after it as any other.
    /// Returns what to say if that was recorded.
    async fn settle_before(&self, asked: &Asked) -> Option<String> {
        let deployment = asked.deployment()?;
        let (waited, _) = self.newest(deployment)?;
        // It waits on for the next attempt.
        let _ = tokio::time::timeout(self.patience.verdict, self.settle_first(deployment)).await;
        let is_recorded = self.ledger.view().command(waited.command.id).is_some();
        is_recorded.then(|| format!("the rollback to {} that waited for the ledger was recorded first", waited.version))
    }

    /// Returns the youngest rollback of a deployment that the ledger does not have, and whether its weights are known to be moved.
    fn newest(&self, deployment: &DeploymentId) -> Option<(Intent, bool)> {
        // Never the view under this lock.
        let pending: Vec<(Intent, bool)> =
            self.lock().values().map(|pending| (pending.intent.clone(), pending.moved)).collect();
        let waits = |intent: &Intent| {
            intent.deployment == *deployment && self.ledger.view().command(intent.command.id).is_none()
        };
        pending.into_iter().filter(|(intent, _)| waits(intent)).max_by_key(|(intent, _)| intent.at)
    }

    /// A second rollback of the same deployment changes nothing and is no second intent, unless what the first one went to is gone
    /// by now.
    async fn again(&self, asked: &Asked) -> Option<Broken> {
        let (intent, moved) = self.newest(asked.deployment()?)?;
        if reroute::look_for_nodes(&self.ledger, &intent).await.is_err() {
            return None;
        }
        let moved = self.is_moved(&intent).await.unwrap_or(moved);
        let (moved, note) = match moved {
            true => (Ok(()), "it was carried out before and is not yet in the ledger; nothing was done again"),
            false => (
                self.carry_out_again(&intent, Attempt::Now).await,
                "it was asked for before and is not yet in the ledger; users had not been moved, and that was tried again",
            ),
        };
        self.told(intent.command.id, moved.err(), vec![note.to_owned()])
    }

    /// Tries again to carry out a rollback of which no node seems to be there, and answers with what became of it.
    async fn once_more(&self, intent: &Intent) -> Option<Broken> {
        let unmoved = self.carry_out_again(intent, Attempt::Now).await.err();
        let note = "it was asked for before and is not yet in the ledger; that was tried again".to_owned();
        self.told(intent.command.id, unmoved, vec![note])
    }

    /// Asks the router whether it holds a rollback, and remembers it if so; none if it cannot be read.
    async fn is_moved(&self, intent: &Intent) -> Option<bool> {
        let entry = reroute::entry(&*self.router, &intent.deployment).await?;
        let is_done = reroute::is_done(intent, &entry, self.emergency_count(&intent.deployment));
        if is_done && let Some(pending) = self.lock().get_mut(&intent.command.id) {
            pending.moved = true;
        }
        Some(is_done)
    }

    /// Returns how many rollbacks without the ledger the ledger knows of a deployment.
    fn emergency_count(&self, id: &DeploymentId) -> u32 {
        self.ledger.view().state().deployment(id).map_or(0, |of| of.emergency_count)
    }

    /// Writes the intent down, behind the one `before` it that the ledger does not have either, moves the weights if `nodes` of the
    /// target can be called, and says what became of both.
    async fn go_on(
        &self,
        asked: &Asked,
        mut intent: Intent,
        before: Option<Intent>,
        mut verdict: Option<Verdict>,
        why: &Refusal,
        nodes: Result<(), String>,
    ) -> Rolled {
        let emergency_count = self.emergency_count(&intent.deployment);
        let entry = reroute::entry(&*self.router, &intent.deployment).await;
        if let Some(entry) = entry.as_ref().filter(|entry| reroute::is_done(&intent, entry, emergency_count)) {
            let note = "the router serves it already, by a rollback that the ledger does not have yet and whose intent lies \
                        with whoever carried it out";
            tracing::warn!(deployment = %intent.deployment, generation = %entry.generation(), note);
            let unrecorded = Unrecorded { moved: Some(true), ..unrecorded(&intent, None, None) };
            let notes = vec![note.to_owned()];
            return Rolled::Broken(Box::new(Broken { unrecorded, unmoved: None, notes }));
        }
        let held = entry.as_ref().map(Entry::generation);
        let held = held.max(before.as_ref().map(|before| before.generation));
        intent.generation = reroute::generation_above(&intent, emergency_count, held);
        if let Some(before) = before {
            (intent.after, intent.fence) = (Some(before.command.id), before.fence.next());
        }
        tracing::error!(deployment = %intent.deployment, to = %intent.version, %why, "break-glass: a rollback goes on without the ledger");
        let id = intent.command.id;
        self.writes.reopen(id);
        let file = self.write(&intent).await;
        let mut notes: Vec<String> = self.ledger.told_passed_over(asked, &intent).into_iter().collect();
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
            let end = answer.as_ref().map_or_else(|refusal| End::Refused(refusal.to_string()), |_| End::Recorded);
            if let Err(error) = self.end(id, end).await {
                tracing::warn!(%id, %error, "it is settled and its file could not be put away");
            }
            // Whoever looked into the folder meanwhile may have taken it in.
            self.lock().remove(&id);
            return Rolled::Settled(answer);
        }
        let pending = Pending { intent: intent.clone(), file, moved: false, verdict, trouble: None };
        self.lock().insert(id, pending);
        let moved = self.carry_out(&intent, nodes, Attempt::Now).await;
        self.woken.notify_one();
        let unmoved = moved.err();
        let told = self.told(id, unmoved.clone(), notes.clone());
        let told = told.unwrap_or_else(|| {
            let unrecorded = Unrecorded { moved: Some(unmoved.is_none()), ..unrecorded(&intent, None, None) };
            Broken { unrecorded, unmoved, notes }
        });
        Rolled::Broken(Box::new(told))
    }

    /// Moves the weights unless its nodes are gone, and remembers whether that was confirmed.
    async fn carry_out(&self, intent: &Intent, nodes: Result<(), String>, attempt: Attempt) -> Result<(), String> {
        let moved = match nodes {
            Ok(()) => reroute::move_weights(&self.ledger, &*self.router, intent, attempt).await,
            Err(gone) => Err(gone),
        };
        match &moved {
            Ok(generation) => {
                tracing::error!(deployment = %intent.deployment, to = %intent.version, %generation, "all traffic was sent back without the ledger");
            }
            Err(error) => tracing::error!(deployment = %intent.deployment, %error, "the weights could not be moved"),
        }
        let confirmed = self.lock().get_mut(&intent.command.id).and_then(|pending| {
            pending.moved |= moved.is_ok();
            pending.trouble = moved.as_ref().err().cloned();
            pending.confirm()
        });
        // A disk that did not take the intent is not waited for a second time.
        if let Some(confirmed) = confirmed
            && let Err(error) = self.write(&confirmed).await
        {
            tracing::warn!(deployment = %intent.deployment, %error, "when users were moved could not be noted");
        }
        moved.map(drop)
    }

    /// Carries out what could not be carried out when it was made.
    async fn carry_out_again(&self, intent: &Intent, attempt: Attempt) -> Result<(), String> {
        self.carry_out(intent, reroute::look_for_nodes(&self.ledger, intent).await, attempt).await
    }

    /// Writes the intent down, as long as that may take. A write that takes longer goes on.
    async fn write(&self, intent: &Intent) -> Result<PathBuf, String> {
        let (folder, intent, writing) = (self.folder.clone(), intent.clone(), self.writes.begin(intent.command.id));
        let writing = tokio::task::spawn_blocking(move || writing.write(&folder, &intent));
        match tokio::time::timeout(self.patience.write, writing).await {
            Ok(Ok(written)) => written.map_err(|error| error.to_string()),
            Ok(Err(panic)) => Err(panic.to_string()),
            Err(_) => Err(format!("the disk took longer than {:?}", self.patience.write)),
        }
    }

    /// Puts the file of a rollback away that has ended, also one that a slow disk writes later.
    async fn end(&self, id: CommandId, end: End) -> std::io::Result<()> {
        let (folder, writes) = (self.folder.clone(), self.writes.clone());
        let ended = tokio::task::spawn_blocking(move || writes.end(&folder, id, end));
        match tokio::time::timeout(self.patience.write, ended).await {
            Ok(ended) => ended.map_err(std::io::Error::other).flatten(),
            // It goes on, and nobody takes the file for one that waits.
            Err(_) => Err(std::io::Error::other(format!("the disk took longer than {:?}", self.patience.write))),
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

/// Why there is nothing to turn to, where what the last rollback went to is gone.
const GONE: &str = "no node of the rollback target is there any more; it must be started first";

/// How long to wait before what was not taken is sent again, and for a verdict that is being read.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

impl Pending {
    /// Notes when the router confirmed it, if that is new, and returns its intent if that is to be written down again.
    fn confirm(&mut self) -> Option<Intent> {
        if !self.moved || self.intent.moved_at.is_some() {
            return None;
        }
        self.intent.moved_at = Some(Timestamp::now().max(self.intent.at));
        self.file.is_ok().then(|| self.intent.clone())
    }

    fn unrecorded(&self) -> Unrecorded {
        let unwritten = self.file.as_ref().err().map(|why| format!("it is not written down: {why}"));
        let told = unrecorded(&self.intent, self.file.as_ref().ok().cloned(), self.trouble.clone().or(unwritten));
        Unrecorded { moved: Some(self.moved || self.intent.moved_at.is_some()), ..told }
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
        moved: intent.moved_at.map(|_| true),
        overtaken: None,
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

/// Says whether nothing was written, nor will be.
fn is_not_written(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::NotTaken(AppendError::Refused(_)))
}

/// Says whether a refusal is no verdict: the log said nothing, or cannot be followed.
fn is_silence(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Indeterminate { .. } | Refusal::NotTaken(_) | Refusal::Halted(_))
}

fn is_silent(answer: &Result<Executed, Refusal>) -> bool {
    answer.as_ref().is_err_and(is_silence)
}

fn silent(asked: &Asked, why: String) -> Refusal {
    match asked.command {
        Some(command) => Refusal::Indeterminate { id: command.id, why },
        None => Refusal::NotTaken(AppendError::Ambiguous(why)),
    }
}
