//! The log port: an append-only sequence of records. It keeps bytes in an order and makes them durable; it decides
//! nothing (see [`crate::rule`]).

pub mod absent;
#[doc(hidden)]
pub mod contract;
pub mod copy;
pub mod kafka;
pub mod memory;
pub mod segments;

use async_trait::async_trait;
use bytes::Bytes;
use schemas::{Offset, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// A record as the log keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place.
    pub offset: Offset,
    /// The exact bytes: a commit's, or what somebody wrote in its stead.
    pub bytes: Bytes,
}

/// A record whose commit says that it was made long after the log took it in: its writer's clock is wrong, or it was forged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ahead {
    /// The record.
    pub offset: Offset,
    /// When its writer made it, as it says.
    pub time: Timestamp,
    /// When the log took it in, by the log's own clock.
    pub taken: Timestamp,
}

/// How far a commit's time may be ahead of the log's own clock before it is named: a day.
pub const RECORD_AHEAD_MAX: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

/// Why an append gave no offset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Nothing was written, and the same bytes may be sent again.
    #[error("the log did not accept the commit: {0}")]
    Refused(String),
    /// The bytes may or may not be in the log. Send the same bytes again, or read.
    #[error("the log did not answer: {0}; the commit may have been kept, read the history before you repeat it")]
    Ambiguous(String),
    /// There is no room for any commit but a rollback.
    #[error("the disk is full: {0}; free space; until then only rollbacks are accepted")]
    Full(String),
    /// The log has stopped for good in this process.
    #[error("the log has stopped: {0}")]
    Stopped(String),
}

/// Why the log cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The log's bytes are damaged.
    #[error("the log is damaged at offset {offset}: {what}; restore it from a copy, or keep the records before it")]
    Damaged {
        /// The first bad record.
        offset: Offset,
        /// What is wrong with it.
        what: String,
    },
    /// It cannot be read now.
    #[error("the log cannot be read: {0}")]
    Unavailable(String),
}

/// What kind of commit is appended; only decides what the reserve may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Any commit.
    Ordinary,
    /// A rollback and what carries it out: taken even when the disk is full.
    Rollback,
}

/// An append-only log. Every implementation passes the suite in [`contract`].
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// Appends `bytes` and returns their offset once they are durable. A reader may see them before the caller does.
    ///
    /// # Errors
    ///
    /// [`AppendError`] says whether the bytes can be in the log.
    async fn append(&self, bytes: Bytes, urgency: Urgency) -> Result<Offset, AppendError>;

    /// Reads durable records from `from` on, in order and without gaps: at most `max`, none at the log's end.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the next record cannot be read; the ones before it were returned by an earlier call.
    async fn read(&self, from: Offset, max: usize) -> Result<Vec<Record>, ReadError>;

    /// Returns the end of what is durable, the offset of the next record, and every change of it.
    fn end(&self) -> watch::Receiver<Offset>;

    /// Asks for the end of what is durable now. Who has folded that much knows everything that was kept before the
    /// question; a log in another process is asked there, so that one who is cut off from it is told so.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unavailable`] if the log cannot be asked.
    async fn latest(&self) -> Result<Offset, ReadError> {
        Ok(*self.end().borrow())
    }

    /// Returns how many records that nobody wants are read more quickly than they are passed over.
    fn read_through_max(&self) -> u64 {
        16
    }

    /// Returns the last records read here that are [`Ahead`] by more than [`RECORD_AHEAD_MAX`], by offset. A log without a clock of
    /// its own knows of none.
    fn ahead(&self) -> Vec<Ahead> {
        Vec::new()
    }

    /// Subscribes to every durable record from `from` on, without gaps or duplicates.
    fn subscribe(&self, from: Offset) -> Subscription<'_>
    where
        Self: Sized,
    {
        Subscription::new(self, from)
    }
}

/// A place in a log that moves on as records become durable.
pub struct Subscription<'a> {
    log: &'a dyn Log,
    next: Offset,
    end: watch::Receiver<Offset>,
}

/// How many records a subscription reads at once.
const BATCH: usize = 1_024;

impl<'a> Subscription<'a> {
    /// Subscribes to `log` from `from` on.
    pub fn new(log: &'a dyn Log, from: Offset) -> Self {
        Self { log, next: from, end: log.end() }
    }

    /// Whether the log goes on: false once it has stopped.
    pub fn goes_on(&self) -> bool {
        self.end.has_changed().is_ok()
    }

    /// Waits for the next records: at least one, in order.
    ///
    /// # Errors
    ///
    /// [`ReadError`], also when the log has stopped and everything durable was returned.
    pub async fn next(&mut self) -> Result<Vec<Record>, ReadError> {
        let next = self.next;
        let has_stopped = self.end.wait_for(|end| *end > next).await.is_err();
        // A log that has stopped says why where it would go on.
        let records = self.log.read(self.next, BATCH).await?;
        if has_stopped && records.is_empty() {
            return Err(ReadError::Unavailable("the log has stopped".to_owned()));
        }
        if let Some(last) = records.last() {
            self.next = last.offset.next();
        }
        Ok(records)
    }
}
