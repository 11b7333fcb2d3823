//! A producer as the client library has it, which waits for what the brokers acknowledge.

use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};
use tokio::sync::oneshot;

use crate::Error;

/// A producer of one topic.
pub struct Bare {
    producer: ThreadedProducer<Acknowledged>,
    topic: String,
    with_headers: bool,
}

/// As long as those of a commit.
const KEY: &str = "deployment/production/service-000";
const HEADERS: [(&str, &str); 7] = [
    ("ce_specversion", "1.0"),
    ("ce_id", "0194d2a8-7c6e-7b6a-9d53-2f6c1f0e8a11"),
    ("ce_source", "/ionledger"),
    ("ce_type", "ionledger.commit.v1"),
    ("ce_time", "2026-11-26T18:00:00.000000Z"),
    ("ce_subject", KEY),
    ("content-type", "application/json"),
];

struct Acknowledged;

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = Box<oneshot::Sender<bool>>;

    fn delivery(&self, result: &DeliveryResult<'_>, answer: Box<oneshot::Sender<bool>>) {
        let _ = answer.send(result.is_ok());
    }
}

impl Bare {
    /// Opens one that is idempotent, and waits for every replica in sync.
    pub fn open(servers: &str, topic: &str) -> Result<Self, Error> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", servers)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "0");
        Ok(Self { producer: config.create_with_context(Acknowledged)?, topic: topic.to_owned(), with_headers: false })
    }

    /// Lets every record have a commit's key and headers.
    pub fn with_headers(self) -> Self {
        Self { with_headers: true, ..self }
    }

    /// Appends a record and waits until it is acknowledged.
    pub async fn append(&self, bytes: &[u8]) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        let mut record = BaseRecord::<str, [u8], _>::with_opaque_to(&self.topic, Box::new(answer));
        if self.with_headers {
            let headers = OwnedHeaders::new_with_capacity(HEADERS.len());
            let insert = |headers: OwnedHeaders, (key, value)| headers.insert(Header { key, value: Some(value) });
            record = record.key(KEY).headers(HEADERS.into_iter().fold(headers, insert));
        }
        self.producer.send(record.partition(0).payload(bytes)).map_err(|(error, _)| error)?;
        if answered.await? { Ok(()) } else { Err("the record was not taken".into()) }
    }
}
