//! Writes: intents on their way to the disk. A write that takes longer than it may goes on, and may come to its end after its
//! rollback was settled or refused. Whoever wrote puts the file away then, and nobody takes it for one that waits.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schemas::CommandId;
use schemas::break_glass::Intent;

use super::folder::Folder;

/// The writes of a process that are under way, and the ends that they have not heard of. Clones share both.
#[derive(Clone, Debug, Default)]
pub(super) struct Writes(Arc<Mutex<BTreeMap<CommandId, Known>>>);

/// How a rollback ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The ledger has it.
    Recorded,
    /// The ledger will not have it, for this reason.
    Refused(String),
}

/// What is known of the writes of one intent.
#[derive(Debug, Default)]
struct Known {
    under_way: u32,
    end: Option<End>,
}

/// A write that is under way.
pub(super) struct Writing {
    writes: Writes,
    id: CommandId,
}

impl Writes {
    /// Notes that a rollback is carried out, whatever became of one under its id before.
    pub(super) fn reopen(&self, id: CommandId) {
        if let Some(known) = self.lock().get_mut(&id) {
            known.end = None;
        }
    }

    /// Notes that an intent is about to be written.
    pub(super) fn begin(&self, id: CommandId) -> Writing {
        self.lock().entry(id).or_default().under_way += 1;
        Writing { writes: self.clone(), id }
    }

    /// Notes how a rollback ended and puts its file away, now if it is there, and when a write that is under way leaves one.
    ///
    /// # Errors
    ///
    /// The file that is there cannot be moved. It is never acted on all the same.
    pub(super) fn end(&self, folder: &Folder, id: CommandId, end: End) -> io::Result<()> {
        self.lock().entry(id).or_default().end = Some(end.clone());
        self.put_away(folder, id, &end)
    }

    /// Notes how a rollback ended whose file another process has put away.
    pub(super) fn ended_elsewhere(&self, id: CommandId, end: End) {
        if let Some(known) = self.lock().get_mut(&id) {
            known.end = Some(end);
        }
    }

    /// Returns how a rollback ended, as long as a file of it may still appear or is left.
    pub(super) fn end_of(&self, id: CommandId) -> Option<End> {
        self.lock().get(&id).and_then(|known| known.end.clone())
    }

    fn put_away(&self, folder: &Folder, id: CommandId, end: &End) -> io::Result<()> {
        let file = folder.file_of(id);
        if file.try_exists()? {
            match end {
                End::Recorded => folder.done(&file)?,
                End::Refused(why) => drop(folder.set_aside(&file, why)?),
            }
        }
        let mut all = self.lock();
        if all.get(&id).is_some_and(|known| known.under_way == 0) {
            all.remove(&id);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<CommandId, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writing {
    /// Writes the intent down, unless its rollback has ended. If it ended meanwhile, the file is put away.
    ///
    /// # Errors
    ///
    /// It cannot be written, or its rollback has ended.
    pub(super) fn write(self, folder: &Folder, intent: &Intent) -> io::Result<PathBuf> {
        let written = match self.writes.end_of(self.id) {
            None => folder.write(intent),
            Some(_) => Err(over()),
        };
        match self.ended() {
            None => written,
            Some(end) => {
                if let Err(error) = self.writes.put_away(folder, self.id, &end) {
                    tracing::error!(id = %self.id, %error, "an intent was written after its rollback ended, and cannot be put away");
                }
                Err(over())
            }
        }
    }

    /// Notes that the write has come to its end, and returns how the rollback ended, if it has.
    fn ended(&self) -> Option<End> {
        let mut all = self.writes.lock();
        let known = all.get_mut(&self.id)?;
        known.under_way = known.under_way.saturating_sub(1);
        if known.under_way == 0 && known.end.is_none() {
            all.remove(&self.id);
            return None;
        }
        known.end.clone()
    }
}

fn over() -> io::Error {
    io::Error::other("its rollback was settled or refused meanwhile")
}
