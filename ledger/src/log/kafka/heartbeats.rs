//! Heartbeats over Kafka: a topic beside the log's, `TOPIC.heartbeats`, of which nothing is kept for long.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientContext as _;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseRecord, ThreadedProducer};
use rdkafka::{Offset as At, TopicPartitionList};
use schemas::Role;

use super::client::{Clients, Closing, Consumer, Quiet};
use super::{KafkaAddress, KafkaOpenError, KafkaOptions, blocking, topic};
use crate::heartbeats::{Beat, FailureDetector, Heartbeats};

/// How long a poll waits for a beat.
const POLL: Duration = Duration::from_millis(100);

/// How long the brokers may take to make the topic.
const MAKE_MAX: Duration = Duration::from_secs(20);

/// How long a beat is tried to be sent: a late one says nothing.
const SEND_MS_MAX: &str = "1000";

/// How long the brokers keep beats, in milliseconds.
const KEPT_MS: &str = "3600000";

/// Sends and hears beats.
pub struct KafkaHeartbeats {
    topic: String,
    producer: Option<ThreadedProducer<Quiet>>,
    detector: Arc<Mutex<FailureDetector>>,
    closed: Arc<AtomicBool>,
}

impl std::fmt::Debug for KafkaHeartbeats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaHeartbeats").field("topic", &self.topic).finish()
    }
}

/// What the topic is called, beside the log's.
pub(super) const NAME: &str = "heartbeats";

/// Makes the topic beside the log at `place`, unless it is there.
pub(super) async fn prepare(place: &KafkaAddress, options: &KafkaOptions) -> Result<Clients, KafkaOpenError> {
    let clients = Clients::new(place.beside(NAME), options);
    make(&clients).await?;
    Ok(clients)
}

impl KafkaHeartbeats {
    /// Listens for the instance `own`, in the topic of heartbeats beside the log at `place`; makes that topic if there is none.
    ///
    /// # Errors
    ///
    /// [`KafkaOpenError`] if the topic cannot be made or read.
    pub async fn open(place: &KafkaAddress, options: &KafkaOptions, own: &str) -> Result<Self, KafkaOpenError> {
        let clients = prepare(place, options).await?;
        let own = own.to_owned();
        blocking(move || Self::begin(&clients, &own)).await
    }

    fn begin(clients: &Clients, own: &str) -> Result<Self, KafkaOpenError> {
        let topic = clients.topic().to_owned();
        let producer = producing(clients).create_with_context(clients.quiet()).map_err(KafkaOpenError::client)?;
        let consumer: Consumer =
            listening(clients).create_with_context(clients.quiet()).map_err(KafkaOpenError::client)?;
        let mut end = TopicPartitionList::with_capacity(1);
        end.add_partition_offset(&topic, 0, At::End)
            .and_then(|()| consumer.assign(&end))
            .map_err(KafkaOpenError::client)?;
        let (detector, closed) = (Arc::new(Mutex::new(FailureDetector::new(own))), Arc::new(AtomicBool::new(false)));
        let listener = {
            let (detector, closed) = (Arc::clone(&detector), Arc::clone(&closed));
            move || listen(&consumer, &detector, &closed)
        };
        let spawned = thread::Builder::new().name("kafka-heartbeats".to_owned()).spawn(listener);
        spawned.map_err(|error| KafkaOpenError::Client(error.to_string()))?;
        Ok(Self { topic, producer: Some(producer), detector, closed })
    }
}

impl Heartbeats for KafkaHeartbeats {
    fn send(&self, beat: &Beat) {
        let Some(producer) = &self.producer else { return };
        let payload = serde_json::to_vec(beat).expect("a beat is plain JSON");
        let record = BaseRecord::<(), [u8]>::to(&self.topic).partition(0).payload(&payload);
        if let Err((error, _)) = producer.send(record) {
            tracing::debug!(%error, "a heartbeat was not sent");
        }
    }

    fn silence(&self, role: Role, holder: &str) -> Duration {
        lock(&self.detector).silence(role, holder)
    }
}

impl Drop for KafkaHeartbeats {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        drop(self.producer.take().and_then(|producer| Closing::begin("producer of heartbeats", producer)));
    }
}

fn listen(consumer: &Consumer, detector: &Mutex<FailureDetector>, closed: &AtomicBool) {
    let began = Instant::now();
    while !closed.load(Ordering::Relaxed) {
        match consumer.poll(POLL) {
            None => {}
            Some(Ok(message)) => {
                // What a stranger writes here is no beat.
                let beat = message.payload().and_then(|payload| serde_json::from_slice::<Beat>(payload).ok());
                if let Some(beat) = beat {
                    lock(detector).hear(beat, began.elapsed());
                }
            }
            Some(Err(error)) => consumer.context().error(error, "heartbeats"),
        }
    }
}

fn lock(detector: &Mutex<FailureDetector>) -> std::sync::MutexGuard<'_, FailureDetector> {
    detector.lock().unwrap_or_else(PoisonError::into_inner)
}

fn producing(clients: &Clients) -> ClientConfig {
    let mut config = clients.config();
    config.set("acks", "1").set("linger.ms", "0").set("message.timeout.ms", SEND_MS_MAX);
    // A broker that comes back is not flooded with what nobody wants to know any more.
    config.set("queue.buffering.max.messages", "100");
    config
}

fn listening(clients: &Clients) -> ClientConfig {
    let mut config = clients.config();
    config
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // Old beats may be gone, and say nothing.
        .set("auto.offset.reset", "latest")
        .set("fetch.wait.max.ms", "100")
        .set("fetch.error.backoff.ms", "20")
        .set("group.id", "ionledger-reads-without-a-group");
    config
}

/// Makes the topic, unless it is there.
async fn make(clients: &Clients) -> Result<(), KafkaOpenError> {
    let admin: AdminClient<Quiet> =
        clients.config().create_with_context(clients.quiet()).map_err(KafkaOpenError::client)?;
    let asking = clients.clone();
    let (brokers, is_there) = blocking(move || {
        let unreachable =
            |error: KafkaError| KafkaOpenError::Unreachable { place: asking.place().clone(), why: error.to_string() };
        let client = asking.asking().map_err(KafkaOpenError::client)?;
        let metadata = client.fetch_metadata(None, MAKE_MAX).map_err(unreachable)?;
        Ok((metadata.brokers().len(), metadata.topics().iter().any(|topic| topic.name() == asking.topic())))
    })
    .await?;
    if is_there {
        return Ok(());
    }
    let replicas = i32::try_from(brokers.clamp(1, 3)).unwrap_or(1);
    let topic = NewTopic::new(clients.topic(), 1, TopicReplication::Fixed(replicas))
        .set("cleanup.policy", "delete")
        .set("retention.ms", KEPT_MS)
        .set("min.insync.replicas", "1");
    let made = topic::create(&admin, &topic, &AdminOptions::new().operation_timeout(Some(MAKE_MAX))).await;
    drop(Closing::begin("admin client", admin));
    made.map_err(|why| KafkaOpenError::NotMade { topic: clients.topic().to_owned(), why })
}
