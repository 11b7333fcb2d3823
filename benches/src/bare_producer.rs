//! A producer as the client library has it, which waits for what the brokers acknowledge.

use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};
use tokio::sync::oneshot;

use crate::Error;

pub struct Bare {
    producer: ThreadedProducer<Acknowledged>,
    topic: String,
}

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
        Ok(Self { producer: config.create_with_context(Acknowledged)?, topic: topic.to_owned() })
    }

    /// Appends a record and waits until it is acknowledged.
    pub async fn append(&self, bytes: &[u8]) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        let record = BaseRecord::<str, [u8], _>::with_opaque_to(&self.topic, Box::new(answer));
        self.producer.send(record.partition(0).payload(bytes)).map_err(|(error, _)| error)?;
        if answered.await? { Ok(()) } else { Err("the record was not taken".into()) }
    }
}
