//! The follower: one thread that takes every new record to the tail.

use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::Duration;

use bytes::BytesMut;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use schemas::Offset;

use super::binding;
use super::client::{self, Clients, Consumer, Early};
use super::tail::Tail;
use crate::log::{Ahead, Record};

/// How long a poll waits for something to happen.
const POLL: Duration = Duration::from_millis(100);

/// The most records that are passed on at once: whoever waits for the first of them goes on while the last is still taken.
const BATCH: usize = 64;

/// What a follower cannot go on over. It has ended, and somebody must look.
#[derive(Debug)]
pub(super) struct Doubt {
    /// Who doubts.
    pub(super) follower: u64,
    /// The record that it waited for.
    pub(super) at: Offset,
    /// What came instead.
    pub(super) what: String,
}

/// A follower that runs.
pub(super) struct Follower {
    /// Its consumer, which belongs to the thread: a test lets it fall silent.
    #[cfg_attr(not(test), expect(dead_code))]
    pub(super) consumer: Weak<Consumer>,
    /// Hears when the thread has ended and its client is gone.
    pub(super) ended: mpsc::Receiver<()>,
}

/// Starts a follower at the tail's end, in place of the one before it. Everything before `known` is in the log.
pub(super) fn start(
    clients: &Clients,
    tail: &Arc<Tail>,
    known: Offset,
    doubts: Box<dyn Fn(Doubt) + Send>,
) -> KafkaResult<Follower> {
    let consumer = Arc::new(clients.following()?);
    let (number, from) = tail.next_follower();
    clients.assign(&consumer, from)?;
    let (end, ended) = mpsc::channel();
    let (tail, held, early) = (Arc::clone(tail), Arc::downgrade(&consumer), clients.early().clone());
    let run = move || {
        if let Err((at, what)) = follow(&consumer, &tail, &early, number, (from, known)) {
            doubts(Doubt { follower: number, at, what });
        }
        drop(consumer);
        drop(end);
    };
    let spawned = thread::Builder::new().name("kafka-follower".to_owned()).spawn(run);
    spawned.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
    Ok(Follower { consumer: held, ended })
}

/// Follows until somebody else does.
fn follow(
    consumer: &Consumer,
    tail: &Tail,
    early: &Early,
    number: u64,
    (from, known): (Offset, Offset),
) -> Result<(), (Offset, String)> {
    let (mut next, mut room) = (from, BytesMut::new());
    while tail.is_current(number) {
        let (records, grave) = batch(consumer, early, &mut next, known, (POLL, BATCH), &mut room);
        if !records.is_empty() && !tail.push(number, records) {
            return Ok(());
        }
        if let Some(what) = grave {
            return Err((next, what));
        }
    }
    Ok(())
}

/// Waits for records that go on at `next`, takes what else is already here into `room`, `max` in all, and says what keeps the
/// log from going on.
/// Everything before `known` is in the log: if it ends before, there are offsets without a record.
pub(super) fn batch(
    consumer: &Consumer,
    early: &Early,
    next: &mut Offset,
    known: Offset,
    (mut wait, max): (Duration, usize),
    room: &mut BytesMut,
) -> (Vec<Record>, Option<String>) {
    let mut records = Vec::new();
    while records.len() < max {
        match consumer.poll(wait) {
            None => break,
            Some(Ok(message)) if u64::try_from(message.offset()) == Ok(next.0) => {
                if let Some((time, taken)) = binding::times_of(&message) {
                    early.note(Ahead { offset: *next, time, taken });
                }
                records.push(Record { offset: *next, bytes: binding::bytes_of(&message, room) });
                *next = next.next();
                wait = Duration::ZERO;
            }
            Some(Ok(message)) => {
                let gap = format!("records are missing here, offset {} comes instead", message.offset());
                return (records, Some(gap));
            }
            Some(Err(KafkaError::PartitionEOF(_))) if *next < known => {
                return (records, Some(format!("no record is here, though the log goes on to offset {known}")));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) if is_grave(&error) => return (records, Some(error.to_string())),
            // Brokers come and go; the client library finds them again by itself.
            Some(Err(error)) => tracing::debug!(%error, "kafka"),
        }
    }
    (records, None)
}

fn is_grave(error: &KafkaError) -> bool {
    let is_damage = error.rdkafka_error_code() == Some(RDKafkaErrorCode::BadMessage);
    is_damage || client::is_out_of_range(error) || matches!(error, KafkaError::MessageConsumptionFatal(_))
}
