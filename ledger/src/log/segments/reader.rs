//! Reading a log in files without holding it: beside the process that does, or when none runs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use schemas::Offset;
use tokio::sync::watch;

use super::folder::{self, UnheldFolder};
use super::recover::{self, Known};
use super::segment_index::SegmentIndex;
use super::{SegmentsOpenError, hint, read_aside};
use crate::log::{AppendError, Log, ReadError, Record, Urgency};

/// A log in files that this process only reads. It changes nothing.
///
/// It shows what is known to be durable. Beside a writer that is what the file `end` or a later line says was
/// acknowledged, which may be a batch behind. With no writer it is what one would begin with: every intact line, after
/// a sync of its own.
#[derive(Debug)]
pub struct SegmentsReader {
    index: Arc<SegmentIndex>,
    end: watch::Sender<Offset>,
    known_end: Option<Offset>,
    folder: PathBuf,
}

impl SegmentsReader {
    /// Opens the log in the data folder at `path`.
    ///
    /// # Errors
    ///
    /// [`SegmentsOpenError`] if there is none, or it is of a newer format. Damage is found where it is read: what was
    /// acknowledged, as the log or `known_end` says, but is not there, is an error and never the log's end.
    pub fn open(path: &Path, known_end: Option<Offset>) -> Result<Self, SegmentsOpenError> {
        if folder::format(path)?.is_none() {
            return Err(SegmentsOpenError::NoLog(path.to_owned()));
        }
        let log = path.join("log");
        let index = SegmentIndex::open(&log).map_err(|source| SegmentsOpenError::io(&log, source))?;
        let end = watch::Sender::new(Offset(0));
        let reader = Self { index: Arc::new(index), end, known_end, folder: path.to_owned() };
        reader.refresh()?;
        Ok(reader)
    }

    /// Looks again how far the log goes, and returns its end.
    ///
    /// # Errors
    ///
    /// As [`SegmentsReader::open`].
    pub fn refresh(&self) -> Result<Offset, SegmentsOpenError> {
        let look = UnheldFolder::at(&self.folder);
        // Before the lines are read: what it says is in them by then.
        let hinted = hint::read(self.index.log());
        let known = Known::beside(hinted, self.known_end);
        self.index.refresh().map_err(|source| SegmentsOpenError::io(self.index.log(), source))?;
        if look.is_held && hinted.is_some() {
            return Ok(self.publish(known.end));
        }
        let known_end = known.end;
        let Some(found) = recover::look(&self.index, known)? else { return Ok(self.publish(known_end)) };
        if look.is_held || found.survey.end <= found.known.end {
            return Ok(self.publish(found.known.end));
        }
        let path = self.index.path(found.first);
        let synced = File::open(&path).and_then(|segment| segment.sync_all());
        synced.map_err(|source| SegmentsOpenError::io(&path, source))?;
        Ok(self.publish(found.survey.end))
    }

    /// Reads as [`Log::read`] does, on this thread: for reading very many records at once.
    ///
    /// # Errors
    ///
    /// As [`Log::read`].
    pub fn read_blocking(&self, from: Offset, max: usize) -> Result<Vec<Record>, ReadError> {
        self.index.read(from, max, *self.end.borrow())
    }

    /// Publishes the end, never backwards.
    fn publish(&self, end: Offset) -> Offset {
        self.end.send_if_modified(|known| {
            let grows = end > *known;
            *known = end.max(*known);
            grows
        });
        *self.end.borrow()
    }
}

#[async_trait]
impl Log for SegmentsReader {
    async fn append(&self, _: Bytes, _: Urgency) -> Result<Offset, AppendError> {
        Err(AppendError::Refused("the log is open read-only; start `ionledger up` for changes".to_owned()))
    }

    async fn read(&self, from: Offset, max: usize) -> Result<Vec<Record>, ReadError> {
        let (index, end) = (Arc::clone(&self.index), *self.end.borrow());
        read_aside(move || index.read(from, max, end)).await
    }

    fn end(&self) -> watch::Receiver<Offset> {
        self.end.subscribe()
    }
}
