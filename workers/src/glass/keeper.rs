//! The keeper: settles what was done without the ledger as soon as the log is back, once and under its true actor and time.
//!
//! Every step may be the last before the process is killed, and whoever comes next repeats it: the file is there until the
//! ledger has its command id, a generation is taken once, and a command id counts once.

use std::sync::Arc;
use std::time::Duration;

use ledger::deployment::{generation, glass};
use ledger::execute::{Answer, Refusal};
use schemas::glass::Intent;
use schemas::{CommandId, Role};
use tokio_util::sync::CancellationToken;

use super::folder::Found;
use super::{Glass, Pending, hand};

/// How long the log is asked for its end, and its fold waited for, in one attempt.
const LOG_MAX: Duration = Duration::from_secs(3);

/// What an attempt to settle came to.
enum Settled {
    /// The ledger has it.
    Recorded,
    /// It never will.
    Foreign(String),
    /// Not now.
    Not(String),
}

impl Glass {
    /// Settles what was done without the ledger, at once and whenever the log is back, until `stop`.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        loop {
            self.settle_all().await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.woken.notified() => {}
                () = tokio::time::sleep(self.patience.again) => {}
            }
        }
    }

    /// Tries once to settle everything that waits here or in the folder.
    pub async fn settle_all(&self) {
        self.look_in_folder().await;
        let waiting: Vec<CommandId> = self.lock().keys().copied().collect();
        for id in waiting {
            let Some(intent) = self.lock().get(&id).map(|pending| pending.intent.clone()) else { continue };
            self.write_if_missing(id, &intent).await;
            match self.settle(id, &intent).await {
                Settled::Recorded => self.put_away(id).await,
                Settled::Foreign(why) => {
                    let file = self.lock().remove(&id).and_then(|pending| pending.file.ok());
                    match file {
                        Some(file) => self.set_aside(&Found { file, intent: Err(why) }).await,
                        None => tracing::error!(%id, %why, "a rollback without the ledger is no concern of this one"),
                    }
                }
                Settled::Not(why) => self.note(id, why),
            }
        }
    }

    /// Takes in what lies in the folder, also what another process left there, and sets aside what is no intent of ours.
    async fn look_in_folder(&self) {
        let folder = self.folder.clone();
        let found = match tokio::task::spawn_blocking(move || folder.waiting()).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return tracing::error!(%error, "what was done without the ledger cannot be read"),
            Err(panic) => return tracing::error!(%panic, "what was done without the ledger cannot be read"),
        };
        let ledger = self.ledger.id();
        for found in found {
            let intent = match &found.intent {
                Ok(intent) if intent.ledger == ledger => intent.clone(),
                Ok(intent) => {
                    let why = format!("it belongs to ledger {}, this one is {ledger}", intent.ledger);
                    self.set_aside(&Found { intent: Err(why), ..found }).await;
                    continue;
                }
                Err(_) => {
                    self.set_aside(&found).await;
                    continue;
                }
            };
            let mut pending = self.lock();
            let known = pending.entry(intent.command.id).or_insert_with(|| Pending {
                intent,
                file: Ok(found.file.clone()),
                moved: false,
                verdict: None,
                trouble: None,
            });
            // The disk was slow, and wrote it all the same.
            known.file = Ok(found.file);
        }
        self.lock().retain(|_, pending| match &pending.file {
            Ok(file) if file.exists() => true,
            // Another process has settled it.
            Ok(file) if self.folder.is_done(file) => false,
            Ok(file) => {
                pending.file = Err(format!("{} is gone", file.display()));
                true
            }
            Err(_) => true,
        });
    }

    async fn write_if_missing(&self, id: CommandId, intent: &Intent) {
        let missing = self.lock().get(&id).is_some_and(|pending| pending.file.is_err());
        if missing {
            let file = self.write(intent).await;
            if let Some(pending) = self.lock().get_mut(&id) {
                pending.file = file;
            }
        }
    }

    async fn settle(&self, id: CommandId, intent: &Intent) -> Settled {
        if let Some(settled) = self.known(intent) {
            return settled;
        }
        // The append that got no verdict goes on for a while, and settles it if it counts.
        if self
            .lock()
            .get(&id)
            .and_then(|pending| pending.verdict.as_ref())
            .is_some_and(|verdict| !verdict.is_finished())
        {
            return Settled::Not("the append that got no verdict goes on".to_owned());
        }
        if let Err(why) = self.reach().await {
            self.move_if_unmoved(id, intent).await;
            return Settled::Not(why);
        }
        if let Some(settled) = self.known(intent) {
            return settled;
        }
        let held = hand::held(&*self.router, &intent.deployment).await;
        let generation = held.map_or(intent.generation, |held| held.routes.generation.max(intent.generation));
        match self.ledger.reconcile(intent, generation).await {
            Ok(Answer { commit, offset, notes, .. }) => {
                tracing::warn!(deployment = %intent.deployment, ?commit, ?offset, ?notes, "a rollback without the ledger was recorded");
                Settled::Recorded
            }
            Err(refusal @ (Refusal::Rejected(_) | Refusal::OtherContent { .. } | Refusal::TooLarge { .. })) => {
                Settled::Foreign(refusal.to_string())
            }
            Err(refusal) => Settled::Not(refusal.to_string()),
        }
    }

    /// Returns how it is settled, if the ledger has its command.
    fn known(&self, intent: &Intent) -> Option<Settled> {
        let done = self.ledger.view().command(intent.command.id)?;
        let other = || format!("command {} was used for something else", intent.command.id);
        Some(if done.hash == intent.command.hash { Settled::Recorded } else { Settled::Foreign(other()) })
    }

    /// Makes sure that the log is back, and that everything it holds is known here.
    async fn reach(&self) -> Result<(), String> {
        if let Some(why) = self.ledger.halted() {
            return Err(format!("the ledger cannot be followed: {why}"));
        }
        let mut folded = self.ledger.folded();
        let reach = async {
            let end = self.ledger.log().latest().await.map_err(|error| error.to_string())?;
            folded.wait_for(|next| *next >= end).await.map(drop).map_err(|_| "the ledger was closed".to_owned())
        };
        tokio::time::timeout(LOG_MAX, reach).await.unwrap_or_else(|_| Err("the log does not answer".to_owned()))
    }

    /// A rollback whose weights did not move, or that a process was killed before, is carried out as long as it stands.
    async fn move_if_unmoved(&self, id: CommandId, intent: &Intent) {
        if self.lock().get(&id).is_none_or(|pending| pending.moved) {
            return;
        }
        let overtaken = {
            let view = self.ledger.view();
            let lease = view.state().lease(Role::TrafficShifter);
            let deployment = view.state().deployment(&intent.deployment);
            deployment.is_none_or(|deployment| glass::overtaken(deployment, &lease, intent).is_some())
        };
        let held = hand::held(&*self.router, &intent.deployment).await;
        let known =
            held.is_some_and(|held| generation::glass(held.routes.generation) >= generation::glass(intent.generation));
        if known && let Some(pending) = self.lock().get_mut(&id) {
            // This one, or one that came after it.
            pending.moved = true;
        }
        if !overtaken && !known {
            let _ = self.carry_out_late(intent).await;
        }
    }

    async fn put_away(&self, id: CommandId) {
        let Some(file) = self.lock().get(&id).map(|pending| pending.file.as_ref().ok().cloned()) else { return };
        if let Some(file) = file {
            let (folder, path) = (self.folder.clone(), file.clone());
            let put = tokio::task::spawn_blocking(move || folder.done(&path)).await;
            if let Err(error) = put.map_err(std::io::Error::other).flatten() {
                return self.note(id, format!("the ledger has it, {} could not be put away: {error}", file.display()));
            }
        }
        self.lock().remove(&id);
    }

    async fn set_aside(&self, found: &Found) {
        let Err(why) = &found.intent else { return };
        let (folder, file, reason) = (self.folder.clone(), found.file.clone(), why.clone());
        let aside = tokio::task::spawn_blocking(move || folder.set_aside(&file, &reason)).await;
        match aside.map_err(std::io::Error::other).flatten() {
            Ok(aside) => tracing::error!(file = %aside.display(), %why, "set aside: it is not recorded"),
            Err(error) => tracing::error!(file = %found.file.display(), %why, %error, "it cannot be set aside"),
        }
    }

    /// Remembers what is in the way, and says so when that changes.
    fn note(&self, id: CommandId, why: String) {
        if let Some(pending) = self.lock().get_mut(&id)
            && pending.trouble.as_ref() != Some(&why)
        {
            tracing::warn!(deployment = %pending.intent.deployment, %why, "a rollback without the ledger waits to be recorded");
            pending.trouble = Some(why);
        }
    }
}
