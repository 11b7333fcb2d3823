//! The watchdog: it asks the brokers how far the log goes, and looks whether the follower still follows.
//!
//! A follower that has stopped without an error is replaced. A log whose head or tail is gone, or that is another one
//! than before, is never followed any further: the ledger stops with the reason.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use schemas::Offset;

use super::client::{self, ASK_MAX, Aside, Clients, FetchError};
use super::follower::{self, Doubt, Follower};
use super::tail::Tail;
use super::topic;
use crate::log::ReadError;

/// How often the brokers are asked for the log's end.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// How long a follower may give nothing while there is something.
const SILENT_MAX: Duration = Duration::from_secs(2);

/// How often the first and the last known record are read again, and the topic's settings looked at.
const COMPARE_EVERY: Duration = Duration::from_secs(5);

/// How often in a row something must be seen that ends the ledger: a broker that has just come back may be behind.
const SEEN_MIN: u32 = 3;

/// How a log in Kafka does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// The log's end as the brokers last told it; none if they never did.
    pub end_at_brokers: Option<Offset>,
    /// When they last answered.
    pub answered: Option<Instant>,
    /// How often a reader that had fallen silent was replaced.
    pub replaced: u64,
    /// What could be better, but endangers nothing yet.
    pub warnings: Vec<String>,
}

/// What the watchdog is told.
pub(super) enum Message {
    /// A follower has ended.
    Doubt(Doubt),
    /// The log is closed.
    Close,
}

/// The watchdog's thread and what it remembers.
pub(super) struct Watchdog {
    pub(super) clients: Clients,
    pub(super) asking: Arc<Aside>,
    pub(super) tail: Arc<Tail>,
    pub(super) status: Arc<Mutex<Status>>,
    pub(super) follower: Arc<Mutex<Follower>>,
    pub(super) doubts: std::sync::mpsc::Sender<Message>,
    /// The first record, once there is one.
    pub(super) first: Option<Bytes>,
    pub(super) compared: Instant,
    /// What was to be said at the start.
    pub(super) warnings: Vec<String>,
    pub(super) dev: bool,
    /// Where what the library does in the background is waited for.
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) seen: Seen,
    pub(super) doubted: (Offset, u32),
}

/// How often in a row something was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    what: Option<&'static str>,
    times: u32,
}

/// What the log's bounds mean.
#[derive(Debug, PartialEq, Eq)]
enum Bounds {
    Fine,
    /// Records are there that the follower does not give.
    Silent,
    HeadGone,
    TailGone,
}

impl Bounds {
    fn of(low: u64, high: u64, end: u64, silent: Duration) -> Self {
        if low > 0 {
            Self::HeadGone
        } else if high < end {
            Self::TailGone
        } else if high > end && silent > SILENT_MAX {
            Self::Silent
        } else {
            Self::Fine
        }
    }
}

impl Seen {
    /// Counts a sighting, and says whether it was seen often enough.
    fn again(&mut self, what: &'static str) -> bool {
        self.times = if self.what == Some(what) { self.times + 1 } else { 1 };
        self.what = Some(what);
        self.times >= SEEN_MIN
    }

    fn nothing(&mut self) {
        *self = Self::default();
    }
}

impl Watchdog {
    /// Watches until the log is closed or has stopped.
    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        loop {
            match messages.recv_timeout(ASK_EVERY) {
                Ok(Message::Doubt(doubt)) => self.doubt(doubt),
                Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.look();
            if self.tail.stopped().is_some() {
                return;
            }
        }
    }

    fn look(&mut self) {
        // Before the brokers are asked: what is folded by then was in the log by then.
        let end = self.tail.end();
        match self.asking.fetch_watermarks(self.clients.topic(), 0, ASK_MAX) {
            Ok((low, high)) => self.bounds(u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0), end),
            Err(error) if topic::is_gone(&error) => {
                if self.seen.again("gone") {
                    self.stop(end, "the topic is gone");
                }
            }
            // Who cannot be asked says nothing.
            Err(error) => tracing::debug!(%error, "kafka"),
        }
    }

    fn bounds(&mut self, low: u64, high: u64, end: Offset) {
        {
            let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
            status.end_at_brokers = Some(Offset(high));
            status.answered = Some(Instant::now());
        }
        match Bounds::of(low, high, end.0, self.tail.progress().elapsed()) {
            Bounds::Fine => {
                self.seen.nothing();
                self.compare(end);
            }
            Bounds::Silent => {
                tracing::warn!(%end, high, "the reader of the log has fallen silent; another one takes its place");
                self.replace(Offset(high));
            }
            Bounds::HeadGone if self.seen.again("head") => {
                self.stop(Offset(0), &format!("the records before offset {low} are gone, by retention or by hand"));
            }
            Bounds::TailGone if self.seen.again("tail") => {
                self.stop(Offset(high), &format!("the log ends here and was read up to {end}; its tail is gone"));
            }
            Bounds::HeadGone | Bounds::TailGone => {}
        }
    }

    /// Reads the first and the last known record again, so that a log that was made anew under the same name is noticed.
    fn compare(&mut self, end: Offset) {
        if self.compared.elapsed() < COMPARE_EVERY || end == Offset(0) {
            return;
        }
        self.compared = Instant::now();
        self.look_at_settings();
        let Ok(consumer) = self.clients.looking_back() else { return };
        let first = client::fetch(&self.clients, &consumer, Offset(0));
        match (first, &self.first) {
            (Ok(found), Some(known)) if found != *known => {
                self.stop(Offset(0), "it is another record than before; the topic was made anew");
            }
            (Ok(found), _) => self.first = Some(found),
            (Err(FetchError::Missing(why)), _) => self.stop(Offset(0), &why),
            (Err(FetchError::Unavailable(_)), _) => return,
        }
        let Some(known) = self.tail.last() else { return };
        match client::fetch(&self.clients, &consumer, known.offset) {
            Ok(found) if found != known.bytes => self.stop(known.offset, "it is another record than before"),
            Err(FetchError::Missing(why)) => self.stop(known.offset, &why),
            Ok(_) | Err(FetchError::Unavailable(_)) => {}
        }
    }

    /// Looks for settings that were weakened while the ledger runs. It goes on and says so: nothing is lost yet, and a
    /// rollback must not wait for whoever repairs it.
    fn look_at_settings(&self) {
        let Some(weak) = self.runtime.block_on(topic::look_again(&self.clients, self.dev)) else { return };
        let warnings: Vec<String> = self.warnings.iter().cloned().chain(weak).collect();
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        for new in warnings.iter().filter(|warning| !status.warnings.contains(warning)) {
            tracing::error!(warning = new, "kafka");
        }
        status.warnings = warnings;
    }

    /// Lets another follower try where one could not go on; after a few tries in vain the ledger stops there.
    fn doubt(&mut self, doubt: Doubt) {
        if !self.tail.is_current(doubt.follower) {
            return;
        }
        let (at, times) = self.doubted;
        self.doubted = (doubt.at, if at == doubt.at { times + 1 } else { 1 });
        if self.doubted.1 >= SEEN_MIN {
            // The log's bounds may tell more of it than the one record.
            for _ in 0..SEEN_MIN {
                self.look();
            }
            self.stop(doubt.at, &doubt.what);
            return;
        }
        tracing::warn!(at = %doubt.at, what = doubt.what, "the log does not go on; it is read again");
        // The last answer: what it said is in the log.
        let known = self.status.lock().unwrap_or_else(PoisonError::into_inner).end_at_brokers;
        self.replace(known.unwrap_or_default());
    }

    /// Puts another follower in place of this one; everything before `known` is in the log.
    fn replace(&mut self, known: Offset) {
        match start(&self.clients, &self.tail, known, &self.doubts) {
            Ok(follower) => {
                *self.follower.lock().unwrap_or_else(PoisonError::into_inner) = follower;
                self.status.lock().unwrap_or_else(PoisonError::into_inner).replaced += 1;
            }
            Err(error) => tracing::error!(%error, "no reader can be made"),
        }
    }

    fn stop(&self, offset: Offset, what: &str) {
        self.tail.stop(ReadError::Damaged { offset, what: what.to_owned() });
    }
}

/// Starts a follower whose doubts come back to the watchdog.
pub(super) fn start(
    clients: &Clients,
    tail: &Arc<Tail>,
    known: Offset,
    doubts: &std::sync::mpsc::Sender<Message>,
) -> Result<Follower, KafkaError> {
    let doubts = doubts.clone();
    let tell = move |doubt| drop(doubts.send(Message::Doubt(doubt)));
    follower::start(clients, tail, known, Box::new(tell))
}
