//! The log in files of this machine: append-only segments, a line of JSON a record, readable with `jq`.
//!
//! ```text
//! DATA/lock                             the process that holds the folder
//! DATA/format.json                      {"format":1}
//! DATA/log/00000000000000000000.jsonl   a segment, named by its first offset
//! DATA/log/end                          how far it was acknowledged, a hint (see `hint.rs`)
//! DATA/copy-of                          what the log is a read-only copy of, if it is one
//! DATA/log/torn-12-0.bin                what was cut off behind offset 12 at a start, kept aside
//! ```
//!
//! One thread writes (`writer.rs`). A line says how far the log was acknowledged when it was written, so later lines
//! prove that earlier ones were; that, the hint and what the caller knows tell a torn tail, which is cut off at the
//! start, from damage, at which the start stops (`recover.rs`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use async_trait::async_trait;
use bytes::Bytes;
use schemas::Offset;
use tokio::sync::{mpsc, oneshot, watch};

use super::{AppendError, Log, ReadError, Record, Urgency};
use crate::rule;
use hint::Hint;
use segment_index::SegmentIndex;
use writer::{Append, Shared, Writer};

pub use folder::{DataFolder, Elsewhere, FORMAT, SharedFolder, check_ledger, copy_of, elsewhere, taken_by};
pub use reader::SegmentsReader;

mod folder;
mod hint;
mod line;
mod reader;
mod recover;
mod scan;
mod segment_index;
mod tail;
mod writer;

/// How many appends may wait before the next one waits to be allowed to.
const QUEUE: usize = 1_024;

/// Why a log in files cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SegmentsOpenError {
    /// Another process writes it.
    #[error("the data folder {folder} is held by process {pid}; stop it or use its socket")]
    Held {
        /// The folder.
        folder: PathBuf,
        /// The process.
        pid: String,
    },
    /// It was written by a newer program.
    #[error("data folder {folder} has format {found}, this program knows {FORMAT}; upgrade ionledger")]
    Format {
        /// The folder.
        folder: PathBuf,
        /// Its format.
        found: u32,
    },
    /// There is no log in it.
    #[error("there is no ledger in {0}; name its folder, or make one with `ionledger up`")]
    NoLog(PathBuf),
    /// It is a copy, which nobody writes but who copies.
    #[error("{folder} is a read-only copy of {of}; use that ledger, or move it with `ionledger move`")]
    Copy {
        /// The folder.
        folder: PathBuf,
        /// What it is a copy of.
        of: String,
    },
    /// Its records are damaged.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// The operating system refuses.
    #[error("the data folder cannot be used: {path}: {source}; check that it exists and that this user may use it")]
    Io {
        /// The file.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
}

impl SegmentsOpenError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

/// How a log in files is opened.
#[derive(Clone, Copy, Debug)]
pub struct SegmentsOptions {
    /// The length from which on a new segment is begun, in bytes; 64 MiB.
    pub segment_bytes: u64,
    /// Everything before this offset is known to have been acknowledged, by a projection or a checkpoint.
    pub known_end: Option<Offset>,
    /// Opens a copy too, to carry it on.
    pub copying: bool,
}

impl Default for SegmentsOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, known_end: None, copying: false }
    }
}

/// A log in files that this process writes. Dropping it waits until what was appended is answered.
#[derive(Debug)]
pub struct Segments {
    shared: Arc<Shared>,
    end: watch::Receiver<Offset>,
    /// Gone when this is dropped.
    queue: Option<mpsc::Sender<Append>>,
    writer: Option<JoinHandle<()>>,
    folder: Arc<DataFolder>,
}

impl Segments {
    /// Opens the log in `folder`, or makes it. A torn tail is cut off and kept aside.
    ///
    /// # Errors
    ///
    /// [`SegmentsOpenError::Log`] if something that was acknowledged is damaged or missing; nothing is changed then.
    pub fn open(folder: DataFolder, options: SegmentsOptions) -> Result<Self, SegmentsOpenError> {
        if let Some(of) = folder.copy_of()?.filter(|_| !options.copying) {
            return Err(SegmentsOpenError::Copy { folder: folder.path().to_owned(), of });
        }
        let log = folder.path().join("log");
        let index = SegmentIndex::open(&log).map_err(|source| SegmentsOpenError::io(&log, source))?;
        let (segment, end) = recover::recover(&index, options.known_end)?;
        let hint = Hint::open(&log);
        hint.write(end);

        let shared = Arc::new(Shared { index, tail: tail::Tail::default(), stopped: OnceLock::new() });
        let folder = Arc::new(folder);
        let (sender, receiver) = watch::channel(end);
        let (queue, waiting) = mpsc::channel(QUEUE);
        let writer = Writer {
            shared: Arc::clone(&shared),
            hint,
            end: sender,
            segment,
            segment_bytes: options.segment_bytes,
            lines: Vec::new(),
        };
        let writer = thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || writer.run(waiting))
            .map_err(|source| SegmentsOpenError::io(&log, source))?;
        Ok(Self { shared, end: receiver, queue: Some(queue), writer: Some(writer), folder })
    }

    /// Returns the folder it lies in.
    pub fn folder(&self) -> &DataFolder {
        &self.folder
    }

    /// Reads as [`Log::read`] does, on this thread: for reading very many records at once.
    ///
    /// # Errors
    ///
    /// As [`Log::read`].
    pub fn read_blocking(&self, from: Offset, max: usize) -> Result<Vec<Record>, ReadError> {
        let end = *self.end.borrow();
        match self.shared.tail.read(from, max, end) {
            Some(records) => Ok(records),
            None => self.shared.index.read(from, max, end),
        }
    }

    fn stopped(&self) -> String {
        self.shared.stopped.get().cloned().unwrap_or_else(|| "its writer has ended".to_owned())
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl Log for Segments {
    async fn append(&self, bytes: Bytes, urgency: Urgency) -> Result<Offset, AppendError> {
        let (answer, answered) = oneshot::channel();
        let append = Append { bytes: rule::canonical(&bytes), urgency, answer };
        let queue = self.queue.as_ref().expect("held until it is dropped");
        if queue.send(append).await.is_err() {
            return Err(AppendError::Stopped(self.stopped()));
        }
        answered.await.unwrap_or_else(|_| Err(AppendError::Ambiguous(self.stopped())))
    }

    async fn read(&self, from: Offset, max: usize) -> Result<Vec<Record>, ReadError> {
        let end = *self.end.borrow();
        if from >= end {
            return Ok(Vec::new());
        }
        if let Some(records) = self.shared.tail.read(from, max, end) {
            return Ok(records);
        }
        let shared = Arc::clone(&self.shared);
        read_aside(move || shared.index.read(from, max, end)).await
    }

    fn end(&self) -> watch::Receiver<Offset> {
        self.end.clone()
    }
}

/// Reads on a thread that may wait for the disk.
async fn read_aside(
    read: impl FnOnce() -> Result<Vec<Record>, ReadError> + Send + 'static,
) -> Result<Vec<Record>, ReadError> {
    let read = tokio::task::spawn_blocking(read).await;
    read.unwrap_or_else(|error| Err(ReadError::Unavailable(format!("the reading thread ended: {error}"))))
}

#[cfg(test)]
mod tests;
