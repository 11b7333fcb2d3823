//! What anyone can do to a topic who may write to Kafka.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ledger::execute::{Ledger, SystemClock};
use ledger::log::contract::{genesis, step};
use ledger::log::kafka::{Kafka, KafkaAddress, KafkaOpenError, KafkaOptions};
use ledger::log::{Log as _, ReadError, Urgency};
use ledger::rule::NO_HEAD;
use ledger::{View, execute};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset as At, TopicPartitionList};
use schemas::Offset;

use support::cluster::{Cluster, DEADLINE};

/// A topic of its own on the shared cluster.
pub struct Topic {
    pub name: String,
    servers: String,
}

impl Topic {
    pub fn new() -> Self {
        Self::on(Cluster::shared())
    }

    pub fn on(cluster: &Cluster) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("raw-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        Self { name, servers: cluster.servers().to_owned() }
    }

    pub fn place(&self) -> KafkaAddress {
        format!("kafka://{}/{}", self.servers, self.name).parse().unwrap()
    }

    pub async fn open(&self) -> Result<Kafka, KafkaOpenError> {
        Kafka::open(self.place(), KafkaOptions::default()).await
    }

    /// Makes it with a genesis and `steps` commits.
    pub async fn filled(steps: u128) -> Self {
        let topic = Self::new();
        topic.fill(steps).await;
        topic
    }

    pub async fn fill(&self, steps: u128) {
        let log = self.open().await.unwrap();
        log.append(genesis(), Urgency::Ordinary).await.unwrap();
        for n in 0..steps {
            log.append(step(n + 1, &format!("service/s{n}"), NO_HEAD), Urgency::Ordinary).await.unwrap();
        }
    }

    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers).set("log_level", "2");
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().unwrap()
    }

    /// Makes it by hand.
    pub async fn make(&self, partitions: i32, replicas: i32, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(&self.name, partitions, TopicReplication::Fixed(replicas));
        for (name, value) in settings {
            topic = topic.set(name, value);
        }
        let made = self.admin().create_topics([&topic], &AdminOptions::new()).await.unwrap();
        made.into_iter().next().unwrap().unwrap();
    }

    pub async fn delete(&self) {
        let deleted = self.admin().delete_topics(&[&self.name], &AdminOptions::new()).await.unwrap();
        deleted.into_iter().next().unwrap().unwrap();
    }

    /// Replaces its settings.
    pub async fn set(&self, settings: &[(&str, &str)]) {
        use rdkafka::admin::{AlterConfig, ResourceSpecifier};
        let mut alter = AlterConfig::new(ResourceSpecifier::Topic(&self.name));
        for (name, value) in settings {
            alter = alter.set(name, value);
        }
        let altered = self.admin().alter_configs([&alter], &AdminOptions::new()).await.unwrap();
        altered.into_iter().next().unwrap().unwrap();
    }

    /// Deletes the records before `offset`.
    pub async fn cut_head(&self, offset: i64) {
        let mut before = TopicPartitionList::new();
        before.add_partition_offset(&self.name, 0, At::Offset(offset)).unwrap();
        self.admin().delete_records(&before, &AdminOptions::new()).await.unwrap();
    }

    /// Writes a record as any program could.
    pub fn write(&self, key: Option<&str>, value: Option<&[u8]>, headers: Option<OwnedHeaders>, codec: &str) {
        let mut config = self.config();
        config.set("acks", "all").set("message.max.bytes", "2000000").set("compression.type", codec);
        let producer: BaseProducer = config.create().unwrap();
        let mut record = BaseRecord::<str, [u8]>::to(&self.name).partition(0);
        (record.key, record.payload, record.headers) = (key, value, headers);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(DEADLINE).unwrap();
    }

    /// Writes a record in a transaction, which leaves a place in the order that no record has.
    pub fn write_in_transaction(&self, value: &[u8]) {
        let mut config = self.config();
        config.set("transactional.id", &self.name);
        let producer: BaseProducer = config.create().unwrap();
        producer.init_transactions(DEADLINE).unwrap();
        producer.begin_transaction().unwrap();
        producer.send(BaseRecord::<str, [u8]>::to(&self.name).partition(0).payload(value)).map_err(|(e, _)| e).unwrap();
        producer.commit_transaction(DEADLINE).unwrap();
    }
}

/// Opens a ledger over a log.
pub async fn ledger(log: Kafka) -> Result<Ledger, execute::LedgerOpenError> {
    Ledger::open(Arc::new(log), View::default(), Arc::new(SystemClock)).await
}

/// Waits until the log has stopped, and returns its reason.
pub async fn stopped(log: &Kafka) -> ReadError {
    let mut end = log.end();
    let waited = tokio::time::timeout(DEADLINE, async { while end.changed().await.is_ok() {} }).await;
    assert!(waited.is_ok(), "it does not stop: {:?}", log.status());
    let end = *end.borrow();
    log.read(end, 1).await.expect_err("it has stopped")
}

pub async fn append(log: &Kafka, bytes: Bytes) -> Offset {
    log.append(bytes, Urgency::Ordinary).await.unwrap()
}

/// Waits until the log's warnings are as wanted.
pub async fn warned(log: &Kafka, what: &str, mut holds: impl FnMut(&[String]) -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !holds(&log.status().warnings) {
        let late = tokio::time::Instant::now() > deadline;
        assert!(!late, "it does not come: {what}; {:?}; {}", log.status(), Cluster::shared().logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
