//! The watchdog: it asks the brokers how far the log goes, and looks whether the follower still follows.
//!
//! A follower that has stopped without an error is replaced. A log whose head or tail is gone, or that is another one
//! than before, is never followed any further: the ledger stops with the reason.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use schemas::Offset;

use super::client::{self, ASK_MAX, Aside, Clients, FetchError};
use super::follower::{self, Doubt, Follower};
use super::tail::Tail;
use super::{ends_early, topic};
use crate::log::ReadError;

/// How often the brokers are asked for the log's end.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// How long a follower may give nothing while there is something.
const SILENT_MAX: Duration = Duration::from_secs(2);

/// How often the first and the last known record are read again, and the topic's settings looked at.
const COMPARE_EVERY: Duration = Duration::from_secs(5);

/// How often in a row something must be seen that ends the ledger.
const SEEN_MIN: u32 = 3;

/// How long it must be seen without a break if a broker that has just come back may be what is behind: it knows its topics
/// only after a while, and the log's end only when the others have told it how far they are. Who does not is given up by it
/// after 30 s. Source: Apache Kafka, `replica.lag.time.max.ms`.
pub(super) const SEEN_FOR: Duration = Duration::from_secs(40);

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
    pub(super) seen: Streak,
    pub(super) doubted: (Offset, u32),
}

/// How often in a row something was seen, and since when.
#[derive(Debug, Default)]
pub(super) struct Streak {
    what: Option<(&'static str, Instant)>,
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

impl Streak {
    /// Counts a sighting, and says whether it was seen often enough, and for so long.
    fn again(&mut self, what: &'static str, long: Duration, now: Instant) -> bool {
        let since = match self.what {
            Some((before, since)) if before == what => since,
            _ => {
                self.times = 0;
                now
            }
        };
        self.times += 1;
        self.what = Some((what, since));
        if self.times == SEEN_MIN {
            tracing::warn!(what, ?long, "the reader stops if this lasts");
        }
        self.times >= SEEN_MIN && now.duration_since(since) >= long
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
                if self.seen.again("the brokers know no such topic", SEEN_FOR, Instant::now()) {
                    self.stop(end, "the topic is gone");
                }
            }
            // Who cannot be asked says nothing.
            Err(error) => {
                self.seen.nothing();
                tracing::debug!(%error, "kafka");
            }
        }
    }

    fn bounds(&mut self, low: u64, high: u64, end: Offset) {
        {
            let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
            status.end_at_brokers = Some(Offset(high));
            status.answered = Some(Instant::now());
        }
        let now = Instant::now();
        match Bounds::of(low, high, end.0, now.saturating_duration_since(self.tail.progress())) {
            Bounds::Fine => {
                self.seen.nothing();
                self.compare(end);
            }
            Bounds::Silent => {
                tracing::warn!(%end, high, "the reader of the log no longer answers; another one takes its place");
                self.replace(Offset(high));
            }
            Bounds::HeadGone if self.seen.again("the log's first records are not there", Duration::ZERO, now) => {
                self.stop(Offset(0), &format!("the records before offset {low} are gone, by retention or by hand"));
            }
            // A leader without the others does not know how far the log was agreed on.
            Bounds::TailGone
                if self.seen.again("the brokers have the log end before what was read", SEEN_FOR, now)
                    && topic::is_in_sync(&self.clients, &self.asking) =>
            {
                self.stop(Offset(high), &ends_early(end));
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
                self.stop(Offset(0), "it is not the record that was here before; the topic was created again");
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
        self.look();
        // The last answer: what it said is in the log.
        let known = self.status.lock().unwrap_or_else(PoisonError::into_inner).end_at_brokers.unwrap_or_default();
        if known <= doubt.at {
            // A leader that has just come back tells of less than it has; if that lasts, its bounds are what is wrong.
            thread::sleep(ASK_EVERY);
            self.replace(known);
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
        self.replace(known);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_ledger_is_seen_often_and_for_long_and_without_a_break() {
        let start = Instant::now();
        let after = |secs| start + Duration::from_secs(secs);
        let mut seen = Streak::default();
        assert!(![0, 1, 30, 39].into_iter().any(|secs| seen.again("gone", SEEN_FOR, after(secs))));
        assert!(seen.again("gone", SEEN_FOR, after(40)));
        assert!(!seen.again("tail", SEEN_FOR, after(41)), "another thing begins anew");
        assert!(!seen.again("tail", SEEN_FOR, after(90)), "twice is not often");
        assert!(seen.again("tail", SEEN_FOR, after(91)));
        seen.nothing();
        assert!(!seen.again("tail", SEEN_FOR, after(92)), "it was well in between");
        assert!(!seen.again("head", Duration::ZERO, after(93)) && !seen.again("head", Duration::ZERO, after(94)));
        assert!(seen.again("head", Duration::ZERO, after(95)));
    }

    #[test]
    fn the_log_is_silent_only_if_the_brokers_have_more_and_nothing_came_for_a_while() {
        let of = |low, high, secs| Bounds::of(low, high, 10, Duration::from_secs(secs));
        assert_eq!([of(0, 10, 9), of(0, 12, 1), of(0, 12, 3)], [Bounds::Fine, Bounds::Fine, Bounds::Silent]);
        assert_eq!([of(3, 10, 0), of(3, 5, 0), of(0, 9, 0)], [Bounds::HeadGone, Bounds::HeadGone, Bounds::TailGone]);
    }
}
