//! The segments as they lie on disk: where a record stands, and reading many of them at once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use schemas::Offset;

use super::folder;
use super::line::{self, Flaw};
use crate::log::{ReadError, Record};

/// Every how many records a place is remembered.
const EVERY: u64 = 1_024;

/// How many bytes are read at once.
const CHUNK: usize = 1 << 20;

/// The segments of one log. Which of their records are durable is for its user to know.
#[derive(Debug)]
pub(super) struct SegmentIndex {
    log: PathBuf,
    /// By its first offset, each segment with some of its records' places.
    segments: Mutex<BTreeMap<Offset, Places>>,
}

/// Some records of a segment, and the bytes at which they begin.
type Places = BTreeMap<Offset, u64>;

impl SegmentIndex {
    /// Lists the segments in the folder `log`.
    pub(super) fn open(log: &Path) -> io::Result<Self> {
        let index = Self { log: log.to_owned(), segments: Mutex::default() };
        index.refresh()?;
        Ok(index)
    }

    /// Lists the segments again.
    pub(super) fn refresh(&self) -> io::Result<()> {
        let firsts = folder::segments(&self.log)?;
        let mut segments = self.lock();
        for first in firsts {
            segments.entry(first).or_default();
        }
        Ok(())
    }

    /// Returns the folder of the segments.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// Returns the first offset of the last segment.
    pub(super) fn last(&self) -> Option<Offset> {
        self.lock().last_key_value().map(|(first, _)| *first)
    }

    /// Returns the first offset of the first segment.
    pub(super) fn first(&self) -> Option<Offset> {
        self.lock().first_key_value().map(|(first, _)| *first)
    }

    /// Returns the file of the segment that begins with `first`.
    pub(super) fn path(&self, first: Offset) -> PathBuf {
        self.log.join(folder::segment_name(first))
    }

    /// Adds a segment that was just made.
    pub(super) fn add(&self, first: Offset) {
        self.lock().entry(first).or_default();
    }

    /// Remembers where a record of the segment that begins with `first` stands, if it is one of those that are.
    pub(super) fn place(&self, first: Offset, offset: Offset, at: u64) {
        if offset.0.is_multiple_of(EVERY)
            && let Some(places) = self.lock().get_mut(&first)
        {
            places.insert(offset, at);
        }
    }

    /// Reads records from `from` on, at most `max`, and none from `end` on. Every one is checked.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the record at `from` cannot be read.
    pub(super) fn read(&self, from: Offset, max: usize, end: Offset) -> Result<Vec<Record>, ReadError> {
        let mut records = Vec::new();
        if from >= end || max == 0 {
            return Ok(records);
        }
        let mut cursor = self.cursor(from)?;
        while records.len() < max && cursor.next < end {
            match cursor.advance(from, end, max, &mut records) {
                // What was read before the bad place is good; the bad place is named to who goes on from there.
                Err(_) if !records.is_empty() => break,
                other => other?,
            }
        }
        Ok(records)
    }

    fn cursor(&self, from: Offset) -> Result<Cursor<'_>, ReadError> {
        let segments = self.lock();
        let Some((first, places)) = segments.range(..=from).next_back() else {
            drop(segments);
            return Err(self.missing(from));
        };
        let (next, at) = places.range(..=from).next_back().map_or((*first, 0), |(offset, at)| (*offset, *at));
        let first = *first;
        drop(segments);
        Ok(Cursor { index: self, first, file: self.open_segment(first)?, next, at, chunk: CHUNK })
    }

    fn open_segment(&self, first: Offset) -> Result<File, ReadError> {
        let path = self.path(first);
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.missing(first),
            _ => unavailable(&path, &error),
        })
    }

    fn missing(&self, offset: Offset) -> ReadError {
        let what = format!("no segment in {} holds it", self.log.display());
        ReadError::Damaged { offset, what }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Offset, Places>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the segments that is being read from.
struct Cursor<'a> {
    index: &'a SegmentIndex,
    /// The segment's first offset.
    first: Offset,
    file: File,
    /// The next record.
    next: Offset,
    /// The byte at which it begins.
    at: u64,
    /// How many bytes to read: more once a line was longer.
    chunk: usize,
}

impl Cursor<'_> {
    /// Reads one chunk and keeps the records of it that were asked for.
    fn advance(&mut self, from: Offset, end: Offset, max: usize, out: &mut Vec<Record>) -> Result<(), ReadError> {
        let bytes = read_at(&self.file, self.at, self.chunk)
            .map_err(|error| unavailable(&self.index.path(self.first), &error))?;
        if bytes.is_empty() {
            return self.turn();
        }
        let mut used = 0;
        while self.next < end && out.len() < max && used < bytes.len() {
            let (line, len) = match line::read(&bytes[used..]) {
                Ok((line, _)) if line.offset != self.next => return Err(self.damaged(Flaw::Order)),
                Ok(read) => read,
                // The chunk ends within the line: read on from its beginning.
                Err(Flaw::Cut) if used > 0 => break,
                Err(Flaw::Cut) if bytes.len() == self.chunk => {
                    self.chunk *= 2;
                    break;
                }
                Err(flaw) => return Err(self.damaged(flaw)),
            };
            self.index.place(self.first, self.next, self.at);
            if self.next >= from {
                let commit = used + line.commit.start..used + line.commit.end;
                out.push(Record { offset: self.next, bytes: bytes.slice(commit) });
            }
            self.next = self.next.next();
            self.at += len as u64;
            used += len;
        }
        // Whoever goes on from here need not look for it.
        self.index.place(self.first, self.next, self.at);
        Ok(())
    }

    /// Goes on in the next segment.
    fn turn(&mut self) -> Result<(), ReadError> {
        let log = self.index.log();
        self.index.refresh().map_err(|error| unavailable(log, &error))?;
        let follows = self.first != self.next && self.index.lock().contains_key(&self.next);
        if !follows {
            let path = self.index.path(self.first);
            let what = format!("segment {} ends before it, at byte {}", path.display(), self.at);
            return Err(ReadError::Damaged { offset: self.next, what });
        }
        self.file = self.index.open_segment(self.next)?;
        (self.first, self.at) = (self.next, 0);
        Ok(())
    }

    fn damaged(&self, flaw: Flaw) -> ReadError {
        damaged(self.next, &self.index.path(self.first), self.at, &flaw.to_string())
    }
}

/// Names a bad place.
pub(super) fn damaged(offset: Offset, segment: &Path, at: u64, what: &str) -> ReadError {
    ReadError::Damaged { offset, what: format!("segment {}, byte {at}: {what}", segment.display()) }
}

/// Names what cannot be read now.
pub(super) fn unavailable(path: &Path, error: &io::Error) -> ReadError {
    ReadError::Unavailable(format!("{}: {error}", path.display()))
}

/// Reads up to `len` bytes from `at` on; fewer only where the file ends.
fn read_at(file: &File, at: u64, len: usize) -> io::Result<Bytes> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut bytes[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes.into())
}
