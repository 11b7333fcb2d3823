//! Appending: an idempotent producer whose answers come when a record is durable on every replica in sync.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use schemas::Offset;

use super::binding::Outgoing;
use super::client::{self, Clients, Closing, Complaint};
use super::tail::{Answer, Tail};
use crate::log::AppendError;

/// How long a producer that is dropped waits for what it has sent.
const FLUSH_MAX: Duration = Duration::from_millis(500);

/// Takes delivery reports and passes them on to the tail, which answers when the record was read back.
struct Deliveries {
    tail: Arc<Tail>,
    complaint: Complaint,
}

type Threaded = ThreadedProducer<Deliveries>;

/// Appends records.
pub(super) struct Producer {
    clients: Clients,
    tail: Arc<Tail>,
    current: RwLock<Arc<Threaded>>,
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
    type DeliveryOpaque = Box<Answer>;

    fn delivery(&self, result: &DeliveryResult<'_>, answer: Box<Answer>) {
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
        let current = RwLock::new(Arc::new(make(clients, tail)?));
        Ok(Self { clients: clients.clone(), tail: Arc::clone(tail), current })
    }

    /// Appends a record; `answer` hears of it once. What it was is not remembered: to send it again is the caller's.
    pub(super) fn send(&self, mut record: Outgoing, answer: Answer) {
        let producer = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        if let Some((code, reason)) = producer.client().fatal_error() {
            tracing::warn!(?code, reason, "this producer cannot go on; another one takes its place");
            self.replace(&producer);
            let _ = answer.send(Err(AppendError::Refused(format!("the producer is made anew after {reason}"))));
            return;
        }
        let topic = self.clients.topic();
        let mut outgoing = BaseRecord::with_opaque_to(topic, Box::new(answer)).partition(0).payload(&record.value[..]);
        outgoing.key = record.key.as_deref();
        outgoing.headers = record.headers.take();
        if let Err((error, outgoing)) = producer.send(outgoing) {
            let _ = outgoing.delivery_opaque.send(Err(AppendError::Refused(why(&error))));
        }
    }

    /// Puts another producer in the place of `old`, unless somebody did.
    fn replace(&self, old: &Arc<Threaded>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&current, old) {
            return;
        }
        match make(&self.clients, &self.tail) {
            Ok(new) => drop(Closing::begin("producer", std::mem::replace(&mut *current, Arc::new(new)))),
            Err(error) => tracing::error!(%error, "no producer can be made"),
        }
    }
}

impl Drop for Producer {
    /// What was appended may still be answered; what is not by then gets to hear that nobody knows.
    fn drop(&mut self) {
        let current = self.current.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = current.flush(FLUSH_MAX);
    }
}

fn make(clients: &Clients, tail: &Arc<Tail>) -> KafkaResult<Threaded> {
    let context = Deliveries { tail: Arc::clone(tail), complaint: clients.complaint().clone() };
    clients.writing().create_with_context(context)
}
