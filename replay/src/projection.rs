//! The projection: every entity's rows with their validity, kept in sled under `DATA/replay`, so that a state of the
//! past costs the same however long history is, and a start need not fold from the beginning.
//!
//! It is a cache. It follows the log as any reader does and writes rows, records, heads and its offset in one batch;
//! a crash takes rows and offset back together. It can be deleted or damaged at any time: whatever does not read as
//! it was written is set aside and made again from the log.
//!
//! ```text
//! m                            how far it goes: offset, last leaf, tree, ledger, counts, and a sum over o and s
//! o <entity>                   its present row: since which offset, its JSON, and up to 15 rows before it
//! c <entity> <from>            older rows, 16 a chunk: from and until which offset, JSON or how it differs from the next row's
//! s <stream>                   its head
//! a <stream> <chunk>           the offsets of its commits, 128 a chunk
//! r <chunk>                    every record's ledger time, void and command, 64 a chunk
//! i <commit>                   its offset
//! w <chunk>                    who made each commit that counts, and why, 32 a chunk
//! g <offset>                   a rollback that was in effect before it was recorded there
//! ```
//!
//! Beside them, in `commands`, lie the commands that counted, sorted, up to some offset: a start reads that file and only the
//! records behind it.

mod held;
mod kept_commands;
mod pending;
mod row;
mod store;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use ledger::log::segments::SegmentsReader;
use ledger::log::{Log, ReadError, Record};
use ledger::rule::{Halt, Parsed};
use ledger::{State, View};
use schemas::{CommitId, Hash, LedgerId, Offset, Timestamp};
use tokio::sync::{Notify, watch};

use crate::answer::{At, Made};
use crate::outage::Outage;
use crate::reader::IdPrefix;
use crate::shares::Shares;
use held::{Fold, HeldRows};
use pending::{Pending, evolve_shares};
use store::Store;

pub use row::Damaged;

/// How many records are folded and written at once.
const BATCH: usize = 32_768;
/// After how many new records the kept commands are written again: after the first number, or after the records that were kept
/// divided by the second, whichever is more. `LATE` while the log is followed, `EARLY` at the end.
const KEPT_LATE: (u64, u64) = (65_536, 4);
const KEPT_EARLY: (u64, u64) = (128, 64);
/// How often a damaged cache is made again before it is left alone until the next start.
const REBUILDS_MAX: u32 = 3;
/// How long a process that opens the cache waits for another one that reads it.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Why there is no projection.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionOpenError {
    /// Another process holds it.
    #[error("the cache in {0} is in use by another process")]
    InUse(PathBuf),
    /// The operating system refuses the folder.
    #[error("the cache in {folder} cannot be used: {source}")]
    Io {
        /// The folder.
        folder: PathBuf,
        /// Its reason.
        source: std::io::Error,
    },
}

/// The log does not go on from where the projection stands. It is not guessed which of the two is right.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The log ends before the record that was folded last.
    #[error(
        "the log ends before offset {end}, but {next} records were folded from it: it was cut, or is an older copy; \
         put the newer log back, or, if those records are given up, remove {folder}"
    )]
    Lost {
        /// Where the log ends.
        end: Offset,
        /// How many records were folded.
        next: Offset,
        /// The projection's folder.
        folder: PathBuf,
    },
    /// The log holds another record than the one that was folded last.
    #[error(
        "the log's record at offset {offset} is not the one that was folded: the log was changed; \
         compare it with a copy, or, if the log is right, remove {folder}"
    )]
    Differs {
        /// The record.
        offset: Offset,
        /// The projection's folder.
        folder: PathBuf,
    },
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The rows, and the thread that keeps them up to date. Dropping it waits until what was folded is written.
pub struct Projection {
    shared: Arc<Shared>,
    /// What the store was loaded with, until the thread takes it.
    fold: Mutex<Option<Fold>>,
    follower: Mutex<Option<JoinHandle<()>>>,
    stop: watch::Sender<bool>,
    found: Option<String>,
    _lock: File,
}

struct Shared {
    held: RwLock<Option<HeldRows>>,
    folder: PathBuf,
    next: watch::Sender<Offset>,
    condemned: Notify,
    /// It follows the log no longer.
    gave_up: AtomicBool,
}

impl Projection {
    /// Opens the projection in the data folder `data`, or begins one. One that is damaged, of another form or of
    /// another ledger is set aside first.
    ///
    /// # Errors
    ///
    /// [`ProjectionOpenError`] if another process holds it or the folder cannot be used.
    pub fn open(data: &Path) -> Result<Self, ProjectionOpenError> {
        Self::open_within(data, LOCK_WAIT)
    }

    /// Opens the projection as [`Projection::open`] does, if no other process holds it now.
    ///
    /// # Errors
    ///
    /// As [`Projection::open`].
    pub fn open_if_free(data: &Path) -> Result<Self, ProjectionOpenError> {
        Self::open_within(data, Duration::ZERO)
    }

    fn open_within(data: &Path, wait: Duration) -> Result<Self, ProjectionOpenError> {
        let folder = data.join("replay");
        let io = |source| ProjectionOpenError::Io { folder: folder.clone(), source };
        let lock = lock(&data.join("replay.lock"), wait)
            .map_err(io)?
            .ok_or_else(|| ProjectionOpenError::InUse(folder.clone()))?;
        let (loaded, found) = match load(&folder, ledger_in(data)) {
            Ok(loaded) => (loaded, None),
            Err(Damaged(why)) => {
                tracing::warn!(%why, folder = %folder.display(), "the cache is set aside and made again from the log");
                store::set_aside(&folder).map_err(io)?;
                (load(&folder, None).map_err(|error| io(std::io::Error::other(error)))?, Some(why))
            }
        };
        let (held, fold) = loaded;
        let (next, _) = watch::channel(held.meta.next);
        let (stop, _) = watch::channel(false);
        let shared = Shared {
            held: RwLock::new(Some(held)),
            folder,
            next,
            condemned: Notify::new(),
            gave_up: AtomicBool::new(false),
        };
        Ok(Self {
            shared: Arc::new(shared),
            fold: Mutex::new(Some(fold)),
            follower: Mutex::new(None),
            stop,
            found,
            _lock: lock,
        })
    }

    /// Returns the offset before which everything is known to have been acknowledged by the log, for opening it; none
    /// if nothing is.
    pub fn known_end(&self) -> Option<Offset> {
        Some(*self.shared.next.borrow()).filter(|next| *next > Offset(0))
    }

    /// Returns what was wrong with the cache that was found at the opening, if that was set aside.
    pub fn found_damaged(&self) -> Option<&str> {
        self.found.as_deref()
    }

    /// Returns the view at which the projection was opened, from which `log` is to be folded on; an empty one if it
    /// has just been begun. Ask before [`Projection::follow`].
    ///
    /// # Errors
    ///
    /// [`ResumeError`] if `log` does not hold the record that was folded last.
    pub async fn resume(&self, log: &dyn Log) -> Result<View, ResumeError> {
        let folder = || self.shared.folder.clone();
        let fold = lock_of(&self.fold).clone().unwrap_or_default();
        let view = fold.view;
        let next = view.next();
        let Some(last) = next.0.checked_sub(1).map(Offset) else { return Ok(view) };
        let end = *log.end().borrow();
        if end < next {
            return Err(ResumeError::Lost { end, next, folder: folder() });
        }
        let records = log.read(last, 1).await?;
        let found = records.first().map(|record| Parsed::of(&record.bytes).hash);
        if found == fold.last { Ok(view) } else { Err(ResumeError::Differs { offset: last, folder: folder() }) }
    }

    /// Returns the view at which the projection was opened, whatever became of its log since; an empty one if it has just been
    /// begun.
    pub fn known(&self) -> View {
        lock_of(&self.fold).clone().unwrap_or_default().view
    }

    /// Follows `log` from now on, on a thread of its own.
    ///
    /// # Errors
    ///
    /// The operating system's, if it gives no thread.
    pub fn follow(&self, log: Arc<dyn Log>) -> std::io::Result<()> {
        let Some(fold) = lock_of(&self.fold).take() else { return Ok(()) };
        let (shared, stop) = (Arc::clone(&self.shared), self.stop.subscribe());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let thread = std::thread::Builder::new().name("projection".to_owned());
        let follow = move || runtime.block_on(follow(&shared, &*log, fold, stop));
        *lock_of(&self.follower) = Some(thread.spawn(follow)?);
        Ok(())
    }

    /// Folds what `log` holds beyond the projection, here and now. Not beside [`Projection::follow`].
    ///
    /// # Errors
    ///
    /// [`ReadError`] of the log, or the halt of the fold.
    pub async fn catch_up(&self, log: &dyn Log) -> Result<(), CatchUpError> {
        let Some(mut fold) = lock_of(&self.fold).take() else { return Ok(()) };
        let caught = catch_up(&self.shared, log, &mut fold).await;
        *lock_of(&self.fold) = Some(fold);
        caught
    }

    /// Returns a receiver of the offset of the next record to fold.
    pub fn next_offset(&self) -> watch::Receiver<Offset> {
        self.shared.next.subscribe()
    }

    /// Waits until the records before `next` are in it, and says whether they are within `at_most`.
    pub async fn wait_for(&self, next: Offset, at_most: Duration) -> bool {
        let mut changes = self.next_offset();
        if self.shared.gave_up.load(Ordering::Relaxed) {
            return *changes.borrow() >= next;
        }
        let reached = changes.wait_for(|now| *now >= next);
        matches!(tokio::time::timeout(at_most, reached).await, Ok(Ok(_)))
    }

    /// Writes what is in memory to the disk.
    pub fn flush(&self) {
        self.shared.read(|held| held.store.flush());
    }
}

/// What can be read of the past. `None` always means that the cache has no answer and the log must be asked: the cache was
/// damaged and is being made again, or it does not go that far.
impl Projection {
    /// Returns the state and the shares after the record at `offset`.
    pub fn state_at(&self, offset: Offset) -> Option<(State, Shares)> {
        self.read_at(offset, |held| held.state_at(offset))
    }

    /// Returns the state and the shares after the record at `offset`, as far as the entities `names` go.
    pub(crate) fn parts_at(&self, offset: Offset, names: &[String]) -> Option<(State, Shares)> {
        self.read_at(offset, |held| held.parts_at(offset, names.iter().map(String::as_str)))
    }

    /// Returns the ledger's time at a record and why it does not count, or nothing if it does.
    pub(crate) fn ruling(&self, offset: Offset) -> Option<ledger::rule::Ruling> {
        let record = self.read_at(offset, |held| held.record(offset))?;
        Some(ledger::rule::Ruling { time: record.time, void: record.void })
    }

    /// Returns who made the commit at an offset, and why; `Some(None)` if no commit counts there.
    pub(crate) fn made(&self, offset: Offset) -> Option<Option<Made>> {
        self.read_at(offset, |held| held.made(offset))
    }

    /// Returns the last record whose time is not later than `time`.
    pub(crate) fn offset_at(&self, time: Timestamp) -> Option<Option<Offset>> {
        self.shared.read(|held| held.offset_at(time))
    }

    /// Returns the rollbacks that were in effect at `time` and that the log up to `at` does not have yet.
    pub(crate) fn outages_over(&self, at: At, time: Timestamp) -> Option<Vec<Outage>> {
        self.shared.read(|held| Ok(held.outages.iter().filter(|outage| outage.covers(at, time)).cloned().collect()))
    }

    /// Returns the offset of a commit that counts. It is a hint: compare it with the log.
    pub(crate) fn offset_of(&self, commit: CommitId) -> Option<Option<Offset>> {
        self.shared.read(|held| held.offset_of(commit))
    }

    /// Returns the commits that count and whose ids begin so, at most `max`.
    pub(crate) fn commits_with(&self, prefix: &IdPrefix, max: usize) -> Option<Vec<CommitId>> {
        self.shared.read(|held| held.commits_with(prefix, max))
    }

    /// Returns the streams for which `wanted` holds.
    pub(crate) fn streams(&self, wanted: impl Fn(&str) -> bool) -> Option<Vec<String>> {
        self.shared.read(|held| Ok(held.streams.keys().filter(|name| wanted(name)).cloned().collect()))
    }

    /// Returns the offsets of a stream's last commits in `within`, the newest first.
    pub(crate) fn commits_of(&self, stream: &str, within: Range<Offset>, max: usize) -> Option<Vec<Offset>> {
        self.shared.read(|held| held.commits_of(stream, within.clone(), max))
    }

    /// Returns the offsets of the last records that do not count, the newest first, none before `since`.
    pub(crate) fn voids(&self, since: Offset) -> Option<Vec<Offset>> {
        self.shared.read(|held| held.voids(since))
    }

    /// Says whether the index of commits is whole; a damaged cache is condemned.
    pub(crate) fn check_commits(&self) -> Option<()> {
        self.shared.read(HeldRows::check_commits)
    }

    /// Returns how many records it holds, the last one's leaf and the root over all of them.
    pub(crate) fn reached(&self) -> Option<(Offset, Option<Hash>, Hash)> {
        self.shared.read(|held| Ok((held.meta.next, held.meta.last, held.meta.tree.root())))
    }

    /// Returns the streams that are read-only for this program, each with why.
    pub(crate) fn read_only(&self) -> Option<BTreeMap<String, String>> {
        self.shared.read(|held| Ok(held.meta.read_only.clone()))
    }

    /// Says that what was read does not fit the log: the cache is set aside and made again.
    pub(crate) fn condemn(&self, why: &str) {
        self.shared.condemn(why);
    }

    fn read_at<T>(&self, offset: Offset, read: impl FnOnce(&HeldRows) -> row::Result<T>) -> Option<T> {
        self.shared.read(|held| if offset < held.meta.next { read(held).map(Some) } else { Ok(None) }).flatten()
    }
}

impl Drop for Projection {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(follower) = lock_of(&self.follower).take() {
            let _ = follower.join();
        }
        if let Some(fold) = lock_of(&self.fold).take() {
            self.shared.keep_commands(&fold, KEPT_EARLY);
        }
        self.flush();
    }
}

/// Why a projection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CatchUpError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The fold halted at a record that it cannot judge.
    #[error(transparent)]
    Halt(#[from] Halt),
    /// The cache was damaged again each time it was made again.
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

impl Shared {
    fn read<T>(&self, read: impl FnOnce(&HeldRows) -> row::Result<T>) -> Option<T> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let result = read(held.as_ref()?);
        drop(held);
        result.inspect_err(|Damaged(why)| self.condemn(why)).ok()
    }

    fn condemn(&self, why: &str) {
        let held = self.held.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(held) = held else { return };
        tracing::warn!(why, folder = %self.folder.display(), "the cache is set aside and made again from the log");
        if let Err(error) = held.store.set_aside() {
            tracing::warn!(%error, folder = %self.folder.display(), "the damaged cache cannot be set aside");
        }
        self.next.send_replace(Offset(0));
        self.condemned.notify_one();
    }

    /// Begins again after the store was condemned.
    fn begin_again(&self) -> row::Result<Fold> {
        let (held, fold) = load(&self.folder, None)?;
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Some(held);
        Ok(fold)
    }

    /// Makes the next start quick, if enough records came since that was done. Others can read meanwhile.
    fn keep_commands(&self, fold: &Fold, after: (u64, u64)) {
        if let Some(held) = self.held.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            held.keep_commands(&fold.view, after);
        }
    }

    fn is_gone(&self) -> bool {
        self.held.read().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Folds records and writes what they change. Without a store nothing is done.
    fn fold(&self, fold: &mut Fold, records: &[Record]) -> Result<(), CatchUpError> {
        let mut pending = Pending::default();
        let mut halt = None;
        {
            let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
            let Some(held) = held.as_ref() else { return Ok(()) };
            for record in records {
                match fold.view.fold(record.offset, &record.bytes) {
                    Ok(folded) => {
                        fold.last = Some(folded.hash);
                        evolve_shares(&mut fold.shares, &folded);
                        pending.add(held, fold, &folded);
                    }
                    Err(error) => {
                        halt = Some(error);
                        break;
                    }
                }
            }
        }
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let Some(held) = held.as_mut() else { return Ok(()) };
        pending.apply(held, fold)?;
        self.next.send_replace(held.meta.next);
        halt.map_or(Ok(()), |halt| Err(halt.into()))
    }
}

async fn catch_up(shared: &Shared, log: &dyn Log, fold: &mut Fold) -> Result<(), CatchUpError> {
    let mut rebuilds = 0;
    loop {
        if shared.is_gone() {
            rebuilds += 1;
            if rebuilds > REBUILDS_MAX {
                return Err(row::damaged("it was damaged again and again").into());
            }
            *fold = shared.begin_again()?;
        }
        let records = log.read(fold.view.next(), BATCH).await?;
        if records.is_empty() {
            return Ok(());
        }
        match shared.fold(fold, &records) {
            Err(CatchUpError::Damaged(Damaged(why))) => shared.condemn(&why),
            other => other?,
        }
        shared.keep_commands(fold, KEPT_LATE);
        // Lets other threads run.
        tokio::task::yield_now().await;
    }
}

async fn follow(shared: &Shared, log: &dyn Log, mut fold: Fold, mut stop: watch::Receiver<bool>) {
    let mut end = log.end();
    loop {
        let caught = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return shared.keep_commands(&fold, KEPT_EARLY),
            caught = catch_up(shared, log, &mut fold) => caught,
        };
        if let Err(error) = caught {
            tracing::warn!(%error, "the projection no longer follows the log; answers are folded from the log itself");
            shared.gave_up.store(true, Ordering::Relaxed);
            return;
        }
        let next = fold.view.next();
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return shared.keep_commands(&fold, KEPT_EARLY),
            () = shared.condemned.notified() => {}
            grown = end.wait_for(|end| *end > next) => if grown.is_err() { return },
        }
    }
}

fn load(folder: &Path, ledger: Option<LedgerId>) -> row::Result<(HeldRows, Fold)> {
    let store = Store::open(folder)?;
    let (held, fold) = HeldRows::load(store)?;
    match (ledger, held.meta.ledger) {
        (Some(this), Some(other)) if this != other => {
            Err(row::damaged(format!("it is of ledger {other}, the log of ledger {this}")))
        }
        _ => Ok((held, fold)),
    }
}

/// Returns the id of the ledger whose log lies in `data`; none if there is none, or its first record cannot be read,
/// which the log's own opening names.
fn ledger_in(data: &Path) -> Option<LedgerId> {
    let log = SegmentsReader::open(data, None).ok()?;
    let first = log.read_blocking(Offset(0), 1).ok()?.into_iter().next()?;
    let mut view = View::default();
    view.fold(first.offset, &first.bytes).ok()?;
    view.state().ledger
}

/// Takes the lock at `path`, or none if another process keeps it for longer than `wait`.
fn lock(path: &Path, wait: Duration) -> std::io::Result<Option<File>> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    let deadline = std::time::Instant::now() + wait;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(fs::TryLockError::Error(error)) => return Err(error),
            Err(fs::TryLockError::WouldBlock) if std::time::Instant::now() > deadline => return Ok(None),
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn lock_of<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
