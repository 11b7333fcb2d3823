//! The reconciler: settles what was done without the ledger as soon as the log is back, once and under its true actor and time.
//!
//! Every step may be the last before the process is killed, and whoever comes next repeats it: the file is there until the
//! ledger has its command id, a generation is taken once, and a command id counts once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use ledger::execute::Executed;
use schemas::break_glass::Intent;
use schemas::{CommandId, DeploymentId, Timestamp};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::folder::Found;
use super::next::{Facts, Outside, Progress, Step, after_record, foreign, is_expired, next};
use super::reroute::Attempt;
use super::writes::End;
use super::{BreakGlass, Pending, reroute};

/// How long the log is asked for its end, and its fold waited for, in one attempt.
const LOG_MAX: Duration = Duration::from_secs(3);

impl BreakGlass {
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

    /// Tries once to settle everything that waits here or in the folder. The log is asked once for all of it.
    pub async fn settle_all(&self) {
        self.look_in_folder().await;
        self.settle_those(|_| true).await;
    }

    /// Tries to record the rollbacks of `deployment` that wait here or in the folder. Whoever is about to decide something else about
    /// the deployment calls this first: after a pause, a process still has requests that were sent to it before those rollbacks.
    pub async fn settle_first(&self, deployment: &DeploymentId) {
        if tokio::time::timeout(self.patience.write, self.look_in_folder()).await.is_err() {
            tracing::warn!("the folder of what was done without the ledger does not answer");
        }
        self.settle_those(|intent| intent.deployment == *deployment).await;
    }

    async fn settle_those(&self, wanted: impl Fn(&Intent) -> bool) {
        let mut waiting: BTreeMap<DeploymentId, Vec<(Timestamp, CommandId)>> = BTreeMap::new();
        for (id, pending) in self.lock().iter().filter(|(_, pending)| wanted(&pending.intent)) {
            waiting.entry(pending.intent.deployment.clone()).or_default().push((pending.intent.at, *id));
        }
        let log = OnceCell::new();
        join_all(waiting.into_values().map(|of_deployment| self.settle_in_turn(of_deployment, &log))).await;
    }

    /// Settles the rollbacks of one deployment, the oldest first: the next is recorded only after it.
    async fn settle_in_turn(&self, mut waiting: Vec<(Timestamp, CommandId)>, log: &OnceCell<Result<(), String>>) {
        waiting.sort();
        for (_, id) in waiting {
            self.settle(id, log).await;
            let is_left = self.lock().contains_key(&id);
            if is_left && matches!(log.get(), Some(Ok(()))) {
                return;
            }
        }
    }

    /// Does one step after another of what is to be done about a rollback, until it is settled or must wait. What was tried once
    /// is not tried again before the next attempt.
    async fn settle(&self, id: CommandId, log: &OnceCell<Result<(), String>>) {
        let Some((intent, mut progress)) = self.lock().get(&id).map(|one| (one.intent.clone(), one.progress())) else {
            return;
        };
        let mut facts = Facts::of(&self.ledger.view(), &intent);
        let mut step = next(&intent, progress, &facts);
        loop {
            match step {
                Step::Write => {
                    self.write_again(id).await;
                    progress.written = true;
                }
                Step::Look => facts = self.look(id, &intent, log).await,
                Step::Move => {
                    let _ = self.carry_out_again(&intent, Attempt::Late).await;
                    progress.moved = true;
                }
                Step::Record { generation, moved } => {
                    let answer = self.ledger.reconcile(&intent, generation, moved).await;
                    if let Ok(Executed { commit, offset, notes, .. }) = &answer {
                        tracing::warn!(deployment = %intent.deployment, ?commit, ?offset, ?notes, "a rollback without the ledger was recorded");
                    }
                    step = after_record(&answer);
                    continue;
                }
                Step::PutAway => return self.put_away(id).await,
                Step::SetAside(why) => return self.give_up(id, why).await,
                Step::Wait(why) => return self.note(id, why),
            }
            step = next(&intent, progress, &facts);
        }
    }

    /// Looks whether the log is back, what it holds then, and what the router holds.
    async fn look(&self, id: CommandId, intent: &Intent, log: &OnceCell<Result<(), String>>) -> Facts {
        let log = log.get_or_init(|| self.reach()).await.clone();
        let known = Facts::of(&self.ledger.view(), intent);
        let entry = match known.recorded {
            Some(_) => None,
            None => reroute::entry(&*self.router, &intent.deployment).await,
        };
        let outside = Outside { log, entry };
        if outside.log.is_err()
            && outside.holds(intent)
            && let Some(pending) = self.lock().get_mut(&id)
        {
            pending.moved = true;
        }
        Facts { outside: Some(outside), ..known }
    }

    /// Takes in what lies in the folder, also what another process left there, and sets aside what is no intent of ours.
    pub async fn look_in_folder(&self) {
        let folder = self.folder.clone();
        let found = match tokio::task::spawn_blocking(move || folder.waiting()).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return tracing::error!(%error, "what was done without the ledger cannot be read"),
            Err(panic) => return tracing::error!(%panic, "what was done without the ledger cannot be read"),
        };
        let (ledger, mut unnoted) = (self.ledger.id(), Vec::new());
        for found in found {
            let intent = match &found.intent {
                Ok(intent) => match foreign(intent, ledger) {
                    None => intent.clone(),
                    Some(why) => {
                        self.set_aside(&Found { intent: Err(why), ..found }).await;
                        continue;
                    }
                },
                Err(_) => {
                    self.set_aside(&found).await;
                    continue;
                }
            };
            let id = intent.command.id;
            // Its write came to an end after it was settled or refused: whatever is left of it is put away.
            if let Some(end) = self.writes.end_of(id) {
                if let Err(error) = self.end(id, end).await {
                    tracing::error!(file = %found.file.display(), %error, "its rollback has ended, and it cannot be put away");
                }
                continue;
            }
            let mut pending = self.lock();
            // It was put away since it was read.
            if !pending.contains_key(&id) && !found.file.exists() {
                continue;
            }
            let moved_at = intent.moved_at;
            let known = pending.entry(id).or_insert_with(|| Pending {
                intent,
                file: Ok(found.file.clone()),
                moved: false,
                verdict: None,
                trouble: None,
            });
            // The disk was slow, and wrote it all the same.
            known.file = Ok(found.file);
            // Another process noted that it moved users.
            known.intent.moved_at = known.intent.moved_at.or(moved_at);
            if moved_at.is_none() && known.intent.moved_at.is_some() {
                unnoted.push(known.intent.clone());
            }
        }
        for intent in unnoted {
            if let Err(error) = self.write(&intent).await {
                tracing::debug!(deployment = %intent.deployment, %error, "when users were moved could not be noted");
            }
        }
        self.lock().retain(|id, pending| match &pending.file {
            Ok(file) if file.exists() => true,
            // Another process has settled it.
            Ok(file) if self.folder.is_done(file) => {
                self.writes.ended_elsewhere(*id, End::Recorded);
                false
            }
            Ok(file) => {
                pending.file = Err(format!("{} is gone", file.display()));
                true
            }
            Err(_) => true,
        });
    }

    async fn write_again(&self, id: CommandId) {
        let Some(intent) = self.lock().get(&id).map(|pending| pending.intent.clone()) else { return };
        let file = self.write(&intent).await;
        if let Some(pending) = self.lock().get_mut(&id) {
            pending.file = file;
        }
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

    async fn give_up(&self, id: CommandId, why: String) {
        match self.end(id, End::Refused(why.clone())).await {
            Ok(()) => {
                tracing::error!(%id, %why, "a rollback without the ledger is not recorded; its file is set aside")
            }
            Err(error) => tracing::error!(%id, %why, %error, "its file cannot be set aside"),
        }
        self.lock().remove(&id);
    }

    async fn put_away(&self, id: CommandId) {
        if let Err(error) = self.end(id, End::Recorded).await {
            return self.note(id, format!("the ledger has it, and its file could not be put away: {error}"));
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

impl Pending {
    /// Says how far it has come.
    fn progress(&self) -> Progress {
        let appending = self.verdict.as_ref().is_some_and(|verdict| !verdict.is_finished());
        Progress {
            written: self.file.is_ok(),
            moved: self.moved,
            appending,
            expired: is_expired(&self.intent, Timestamp::now()),
        }
    }
}
