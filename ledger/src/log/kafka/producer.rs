//! Appending: an idempotent producer whose answers come when a record is durable on every replica in sync.
//!
//! One thread sends: all that waits goes together, and what comes meanwhile waits until that is acknowledged. Left to
//! itself the client library sends the first record alone, and then asks in a circle whether it may send the rest.

use std::iter;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::bindings::rd_kafka_flush;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use schemas::Offset;

use super::binding::Outgoing;
use super::client::{self, Clients, Closing, Complaint};
use super::tail::{AppendReply, Tail};
use crate::log::AppendError;

/// How long a producer that is dropped waits for what it has sent.
const FLUSH_MAX: Duration = Duration::from_millis(500);

/// How many records are sent together at most.
const TOGETHER: usize = 1_024;

/// How long, in milliseconds, the next ones wait for an acknowledgement; a broker that is slower is sent more.
const ACKNOWLEDGED_WITHIN_MS: i32 = 100;

/// Takes delivery reports and passes them on to the tail, which answers when the record was read back.
struct Deliveries {
    tail: Arc<Tail>,
    complaint: Complaint,
}

type Threaded = ThreadedProducer<Deliveries>;

/// A record to append, and who hears of it.
type Job = (Outgoing, AppendReply);

/// Appends records.
pub(super) struct Producer {
    /// Gone when this is dropped.
    jobs: Option<mpsc::Sender<Job>>,
    sender: Option<JoinHandle<()>>,
}

/// What the thread that sends has.
struct Sender {
    clients: Clients,
    tail: Arc<Tail>,
    current: Threaded,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, _: &str, message: &str) {
        client::say(level, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.complaint.hear(&error, reason);
        tracing::debug!(%error, reason, "kafka");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<AppendReply>;

    fn delivery(&self, result: &DeliveryResult<'_>, answer: Box<AppendReply>) {
        match result {
            Ok(message) => match u64::try_from(message.offset()) {
                Ok(offset) => self.tail.landed(Offset(offset), *answer),
                // A duplicate that the broker recognised long after it was kept has no offset any more.
                Err(_) => drop(answer.send(Err(AppendError::Ambiguous("it was kept, but not where".to_owned())))),
            },
            Err((error, _)) => drop(answer.send(Err(refused_or_ambiguous(error)))),
        }
    }
}

/// Says what became of a record that was not delivered.
fn refused_or_ambiguous(error: &KafkaError) -> AppendError {
    let why = why(error);
    match error.rdkafka_error_code() {
        // It never left this process, or the broker looked at it alone and threw it away.
        Some(
            RDKafkaErrorCode::QueueFull
            | RDKafkaErrorCode::PurgeQueue
            | RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::TopicAuthorizationFailed,
        ) => AppendError::Refused(why),
        _ => AppendError::Ambiguous(why),
    }
}

/// Returns an error's own words.
pub(super) fn why(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageTimedOut) => "no broker confirmed it in time".to_owned(),
        Some(code) => code.to_string(),
        None => error.to_string(),
    }
}

impl Producer {
    /// Makes a producer.
    pub(super) fn new(clients: &Clients, tail: &Arc<Tail>) -> KafkaResult<Self> {
        let current = make(clients, tail)?;
        let sender = Sender { clients: clients.clone(), tail: Arc::clone(tail), current };
        let (jobs, waiting) = mpsc::channel();
        let spawned = thread::Builder::new().name("kafka-producer".to_owned()).spawn(move || sender.run(&waiting));
        let sender = spawned.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { jobs: Some(jobs), sender: Some(sender) })
    }

    /// Appends a record; `answer` hears of it once. What it was is not remembered: to send it again is the caller's.
    pub(super) fn send(&self, record: Outgoing, answer: AppendReply) {
        if let Some(jobs) = &self.jobs {
            // Without the thread the answer is dropped: nobody knows.
            let _ = jobs.send((record, answer));
        }
    }
}

impl Drop for Producer {
    /// What was appended may still be answered; what is not by then gets to hear that nobody knows.
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(Err(_)) = self.sender.take().map(JoinHandle::join) {
            tracing::error!("the thread that sends to Kafka has panicked");
        }
    }
}

impl Sender {
    fn run(mut self, jobs: &mpsc::Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            self.renew_if_it_cannot_go_on();
            for (record, answer) in iter::once(first).chain(jobs.try_iter().take(TOGETHER - 1)) {
                self.hand_over(record, answer);
            }
            self.send_now();
        }
        let _ = self.current.flush(FLUSH_MAX);
    }

    fn hand_over(&self, mut record: Outgoing, answer: AppendReply) {
        let topic = self.clients.topic();
        let mut outgoing = BaseRecord::with_opaque_to(topic, Box::new(answer)).partition(0).payload(&record.value[..]);
        outgoing.key = record.key.as_deref();
        outgoing.headers = record.headers.take();
        if let Err((error, outgoing)) = self.current.send(outgoing) {
            let _ = outgoing.delivery_opaque.send(Err(AppendError::Refused(why(&error))));
        }
    }

    /// Lets what was handed over linger no longer, and waits until it is answered.
    #[allow(unsafe_code)]
    fn send_now(&self) {
        // SAFETY: the pointer is that of a client that lives on, and any thread may flush it. The safe `flush` raises the
        // flag that ends the lingering only for as long as it takes to raise it, and the library's threads miss that.
        unsafe { rd_kafka_flush(self.current.client().native_ptr(), ACKNOWLEDGED_WITHIN_MS) };
    }

    /// Puts another producer in the place of one that takes nothing any more.
    fn renew_if_it_cannot_go_on(&mut self) {
        let Some((code, reason)) = self.current.client().fatal_error() else { return };
        tracing::warn!(?code, reason, "this producer cannot go on; another one takes its place");
        match make(&self.clients, &self.tail) {
            Ok(new) => drop(Closing::begin("producer", std::mem::replace(&mut self.current, new))),
            Err(error) => tracing::error!(%error, "no producer can be made"),
        }
    }
}

fn make(clients: &Clients, tail: &Arc<Tail>) -> KafkaResult<Threaded> {
    let context = Deliveries { tail: Arc::clone(tail), complaint: clients.complaint().clone() };
    clients.writing().create_with_context(context)
}
