//! The one thread that writes: it takes all waiting appends, writes them at once, syncs once, and acknowledges them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use schemas::Offset;
use tokio::sync::{mpsc, oneshot, watch};

use super::hint::Hint;
use super::segment_index::SegmentIndex;
use super::tail::Tail;
use super::{folder, line};
use crate::log::{AppendError, Record, Urgency};

/// The most appends that are written at once.
const BATCH: usize = 512;

/// What ordinary appends leave allocated behind the segment's end, in bytes, so that rollbacks fit on a full disk.
pub(super) const RESERVE: u64 = 1 << 20;

/// How many bytes are allocated ahead at once.
const AHEAD: u64 = 4 << 20;

/// An append that waits.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) bytes: Bytes,
    pub(super) urgency: Urgency,
    pub(super) answer: oneshot::Sender<Result<Offset, AppendError>>,
}

/// What the writer shares with those who read.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) index: SegmentIndex,
    pub(super) tail: Tail,
    /// Why the writer has stopped, if it has.
    pub(super) stopped: OnceLock<String>,
}

/// The writer, and the end of the segment it writes to.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) hint: Hint,
    pub(super) end: watch::Sender<Offset>,
    pub(super) segment: Segment,
    /// The segment's length from which on the next one is begun, in bytes.
    pub(super) segment_bytes: u64,
    pub(super) lines: Vec<u8>,
}

/// The segment that is written to.
///
/// Its space is allocated ahead, behind the file's end. So a full disk shows when space is asked for, where nothing
/// was written yet and it can be said so, and not at the sync, where a file system that allocates late reports it and
/// nobody can tell what was kept. And what is kept in reserve for rollbacks is the log's own: no other program that
/// fills the disk can take it in the moment in which a reserve elsewhere would be given up for it.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) first: Offset,
    pub(super) file: File,
    /// Its length: everything before it is durable.
    pub(super) len: u64,
    /// How far space is known to be allocated.
    pub(super) allocated: u64,
}

/// The log cannot go on in this process.
struct Stop(String);

impl Writer {
    /// Writes what comes from `queue` until it is closed or the disk fails.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Append>) {
        let mut waiting = Vec::with_capacity(BATCH);
        while queue.blocking_recv_many(&mut waiting, BATCH) > 0 {
            let Err(Stop(reason)) = self.write(&mut waiting) else { continue };
            tracing::error!(reason, "the log has stopped");
            let _ = self.shared.stopped.set(reason.clone());
            for append in waiting.drain(..) {
                let _ = append.answer.send(Err(AppendError::Ambiguous(reason.clone())));
            }
            queue.close();
            while let Some(append) = queue.blocking_recv() {
                let _ = append.answer.send(Err(AppendError::Stopped(reason.clone())));
            }
            return;
        }
    }

    /// Writes `waiting` in one go and answers it. What is left in it when this stops may or may not be kept.
    fn write(&mut self, waiting: &mut Vec<Append>) -> Result<(), Stop> {
        let synced = *self.end.borrow();
        self.roll(synced)?;
        self.lines.clear();
        let mut taken = 0;
        while let Some(append) = waiting.get(taken) {
            let before = self.lines.len();
            line::write(&mut self.lines, Offset(synced.0 + taken as u64), synced, &append.bytes);
            let left_free = if append.urgency == Urgency::Rollback { 0 } else { RESERVE };
            let want = self.segment.len + self.lines.len() as u64 + left_free;
            if self.segment.reach(want).map_err(|error| self.stop("allocating space for", &error))? {
                taken += 1;
            } else {
                self.lines.truncate(before);
                self.refuse(waiting.remove(taken));
            }
        }
        if waiting.is_empty() { Ok(()) } else { self.write_lines(waiting, synced) }
    }

    fn write_lines(&mut self, waiting: &mut Vec<Append>, synced: Offset) -> Result<(), Stop> {
        let written = self.segment.file.write_all_at(&self.lines, self.segment.len);
        match written {
            Ok(()) => {}
            Err(error) if is_full(&error) => {
                // Nothing of this is synced or acknowledged. A file system without allocation ahead comes here.
                self.segment.undo().map_err(|error| self.stop("taking back what did not fit into", &error))?;
                waiting.drain(..).for_each(|append| self.refuse(append));
                return Ok(());
            }
            Err(error) => return Err(self.stop("writing", &error)),
        }
        // A failed sync is never retried: the kernel may have dropped what it could not write, and say nothing again.
        self.segment.file.sync_data().map_err(|error| self.stop("syncing", &error))?;
        self.acknowledge(waiting, synced);
        Ok(())
    }

    fn acknowledge(&mut self, waiting: &mut Vec<Append>, synced: Offset) {
        let mut at = self.segment.len;
        let mut answers = Vec::with_capacity(waiting.len());
        let mut next = synced;
        for Append { bytes, answer, .. } in waiting.drain(..) {
            self.shared.index.place(self.segment.first, next, at);
            at += line::len(next, synced, bytes.len()) as u64;
            answers.push((answer, next));
            self.shared.tail.push(Record { offset: next, bytes });
            next = next.next();
        }
        self.segment.len += self.lines.len() as u64;
        debug_assert_eq!(at, self.segment.len);
        self.hint.write(next);
        self.end.send_replace(next);
        for (answer, offset) in answers {
            let _ = answer.send(Ok(offset));
        }
    }

    fn refuse(&self, append: Append) {
        let room = format!("{} has no room for {} more bytes", self.path(), append.bytes.len());
        let _ = append.answer.send(Err(AppendError::Full(room)));
    }

    /// Begins the next segment if this one is long enough and there is room for another. Everything before `synced`,
    /// its first offset, is acknowledged: so only the last segment can ever have a torn tail.
    fn roll(&mut self, synced: Offset) -> Result<(), Stop> {
        if self.segment.len < self.segment_bytes {
            return Ok(());
        }
        let path = self.shared.index.path(synced);
        match Segment::create(&path, synced) {
            Ok(Some(segment)) => {
                let old = std::mem::replace(&mut self.segment, segment);
                self.shared.index.add(synced);
                // What it had allocated and does not need. A failure costs only that space.
                let _ = old.file.set_len(old.len);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => Err(Stop(format!("making {} failed: {error}", path.display()))),
        }
    }

    fn stop(&self, doing: &str, error: &io::Error) -> Stop {
        Stop(format!("{doing} {} failed: {error}", self.path()))
    }

    fn path(&self) -> String {
        self.shared.index.path(self.segment.first).display().to_string()
    }
}

impl Segment {
    /// Makes a segment and its name durable; none if the disk has no room for it and its reserve.
    pub(super) fn create(path: &std::path::Path, first: Offset) -> io::Result<Option<Self>> {
        let file = match File::options().write(true).create_new(true).open(path) {
            Err(error) if is_full(&error) => return Ok(None),
            other => other?,
        };
        let mut segment = Self { first, file, len: 0, allocated: 0 };
        if !segment.reach(RESERVE)? {
            std::fs::remove_file(path)?;
            return Ok(None);
        }
        segment.file.sync_all()?;
        folder::sync_dir(path.parent().expect("a segment lies in a folder"))?;
        Ok(Some(segment))
    }

    /// Allocates the file's space up to `want`, and some more if there is. Returns false if the disk is too full.
    pub(super) fn reach(&mut self, want: u64) -> io::Result<bool> {
        if self.allocated >= want {
            return Ok(true);
        }
        for want in [want + AHEAD, want] {
            // From the known end on: what an earlier call got before it failed stays allocated and costs nothing.
            match fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.allocated, want - self.allocated) {
                Ok(()) => {
                    self.allocated = want;
                    return Ok(true);
                }
                Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => {}
                // No allocation here: a full disk then shows at the write.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    tracing::warn!("this file system allocates nothing ahead: no space is in reserve for rollbacks");
                    self.allocated = u64::MAX;
                    return Ok(true);
                }
                Err(Errno::INTR) => return self.reach(want),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    /// Cuts off what was written behind the durable end.
    fn undo(&mut self) -> io::Result<()> {
        self.file.set_len(self.len)?;
        self.allocated = self.allocated.min(self.len);
        self.file.sync_all()
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
