//! The log of a ledger whose brokers do not answer, as far as it is known here: it takes nothing, and nothing of it is read.

use async_trait::async_trait;
use bytes::Bytes;
use schemas::Offset;
use tokio::sync::watch;

use super::{AppendError, Log, ReadError, Record, Urgency};

/// A log that cannot be reached.
#[derive(Debug)]
pub struct Absent {
    end: watch::Sender<Offset>,
    why: String,
}

impl Absent {
    /// Returns the log of which everything before `end` is known elsewhere, and why it cannot be reached.
    pub fn known_to(end: Offset, why: String) -> Self {
        Self { end: watch::Sender::new(end), why }
    }
}

#[async_trait]
impl Log for Absent {
    async fn append(&self, _: Bytes, _: Urgency) -> Result<Offset, AppendError> {
        Err(AppendError::Refused(self.why.clone()))
    }

    async fn read(&self, from: Offset, _: usize) -> Result<Vec<Record>, ReadError> {
        if from >= *self.end.borrow() { Ok(vec![]) } else { Err(ReadError::Unavailable(self.why.clone())) }
    }

    fn end(&self) -> watch::Receiver<Offset> {
        self.end.subscribe()
    }

    async fn latest(&self) -> Result<Offset, ReadError> {
        Err(ReadError::Unavailable(self.why.clone()))
    }
}
