//! Reading what the tail does not hold any more: a few consumers that each stream on from where they were read last.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;
use std::vec;

use bytes::BytesMut;
use rdkafka::consumer::Consumer as _;
use schemas::Offset;
use tokio::sync::{Mutex, mpsc as channel};

use super::client::{Clients, Consumer};
use super::follower;
use super::tail::Tail;
use crate::log::{ReadError, Record};

/// How many places of the past can be read at once without one beginning anew.
const CURSORS: usize = 3;

/// How long the next records are waited for.
const READ_MAX: Duration = Duration::from_secs(15);

/// The most records of a batch: whoever folds them shares them out over threads.
const BATCH: usize = 1_024;

/// How many batches are read ahead.
const AHEAD: usize = 4;

/// How long a poll waits for something to happen.
const POLL: Duration = Duration::from_millis(50);

/// How often a record that does not come is looked for, and how long after the last time.
const TRIES: u32 = 3;
const AGAIN_AFTER: Duration = Duration::from_millis(300);

type Batch = Result<Vec<Record>, ReadError>;

/// What lies before the tail.
pub(super) struct OlderRecords {
    clients: Clients,
    tail: Arc<Tail>,
    /// The one that was used last comes last.
    idle: Mutex<Vec<Cursor>>,
}

/// A thread with a consumer that reads where it is told to.
struct Cursor {
    jobs: mpsc::Sender<Job>,
    next: Offset,
    here: vec::IntoIter<Record>,
    coming: channel::Receiver<Batch>,
}

/// What a cursor's thread shall read.
struct Job {
    from: Offset,
    until: Offset,
    batches: channel::Sender<Batch>,
}

impl OlderRecords {
    /// Makes a history without cursors.
    pub(super) fn new(clients: &Clients, tail: &Arc<Tail>) -> Self {
        Self { clients: clients.clone(), tail: Arc::clone(tail), idle: Mutex::default() }
    }

    /// Reads as `Log::read` does, from before the tail.
    pub(super) async fn read(&self, from: Offset, max: usize) -> Result<Vec<Record>, ReadError> {
        let mut cursor = self.cursor(from).await?;
        if cursor.next != from || !cursor.goes_on() {
            cursor.seek(from, self.tail.first())?;
        }
        // A cursor that failed is not put back.
        let records = tokio::time::timeout(READ_MAX, cursor.take(max)).await;
        let unanswered = || format!("no broker gave the record at offset {from} within {} s", READ_MAX.as_secs());
        let records = records.map_err(|_| ReadError::Unavailable(unanswered()))??;
        self.idle.lock().await.push(cursor);
        Ok(records)
    }

    /// Takes the cursor that stands at `from`, or a new one, or the one that was used least lately.
    async fn cursor(&self, from: Offset) -> Result<Cursor, ReadError> {
        let mut idle = self.idle.lock().await;
        if let Some(at) = idle.iter().position(|cursor| cursor.next == from) {
            return Ok(idle.remove(at));
        }
        if idle.len() >= CURSORS {
            return Ok(idle.remove(0));
        }
        drop(idle);
        Cursor::start(self.clients.clone())
    }
}

impl Cursor {
    fn start(clients: Clients) -> Result<Self, ReadError> {
        let unavailable = |error: &dyn std::fmt::Display| ReadError::Unavailable(error.to_string());
        let consumer = clients.looking_back().map_err(|error| unavailable(&error))?;
        let (jobs, waiting) = mpsc::channel::<Job>();
        let run = move || waiting.iter().for_each(|job| job.run(&clients, &consumer));
        let spawned = thread::Builder::new().name("kafka-history".to_owned()).spawn(run);
        spawned.map_err(|error| unavailable(&error))?;
        let (_, coming) = channel::channel(1);
        Ok(Self { jobs, next: Offset(u64::MAX), here: Vec::new().into_iter(), coming })
    }

    /// Whether it has something to give where it stands.
    fn goes_on(&self) -> bool {
        self.here.len() > 0 || !self.coming.is_closed() || !self.coming.is_empty()
    }

    fn seek(&mut self, from: Offset, until: Offset) -> Result<(), ReadError> {
        let (batches, coming) = channel::channel(AHEAD);
        self.coming = coming;
        self.here = Vec::new().into_iter();
        self.next = from;
        let sent = self.jobs.send(Job { from, until: until.max(from.next()), batches });
        sent.map_err(|_| ReadError::Unavailable("the reading thread has ended".to_owned()))
    }

    /// Takes at most `max` of the next records, at least one.
    async fn take(&mut self, max: usize) -> Result<Vec<Record>, ReadError> {
        if self.here.len() == 0 {
            let ended = || Err(ReadError::Unavailable("the reading thread has ended".to_owned()));
            self.here = self.coming.recv().await.unwrap_or_else(ended)?.into_iter();
        }
        let records: Vec<Record> = self.here.by_ref().take(max.max(1)).collect();
        if let Some(last) = records.last() {
            self.next = last.offset.next();
        }
        Ok(records)
    }
}

impl Job {
    /// Reads on until the end, or until nobody wants it any more.
    fn run(self, clients: &Clients, consumer: &Consumer) {
        if let Err(error) = clients.assign(consumer, self.from) {
            let _ = self.batches.blocking_send(Err(ReadError::Unavailable(error.to_string())));
            return;
        }
        let (mut next, mut tries, mut room) = (self.from, 0, BytesMut::new());
        while next < self.until && !self.batches.is_closed() {
            let (mut records, grave) =
                follower::batch(consumer, clients.early(), &mut next, self.until, (POLL, BATCH), &mut room);
            if next > self.until {
                records.truncate(records.len() - (next.0 - self.until.0) as usize);
            }
            if !records.is_empty() {
                tries = 0;
                if self.batches.blocking_send(Ok(records)).is_err() {
                    break;
                }
            }
            let Some(what) = grave else { continue };
            tries += 1;
            // A broker that has just begun to lead may not know yet how far the log goes.
            if tries < TRIES && clients.assign(consumer, next).is_ok() {
                thread::sleep(AGAIN_AFTER);
                continue;
            }
            let _ = self.batches.blocking_send(Err(ReadError::Damaged { offset: next, what }));
            break;
        }
        let _ = consumer.unassign();
    }
}
