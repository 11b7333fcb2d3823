//! The log in Kafka: one topic with one partition, which any number of processes append to and read.
//!
//! ```text
//! append -> producer (idempotent, acks=all) -> broker -> follower -> tail -> whoever reads, and the append's answer
//! ```
//!
//! An append is answered when its record was read back, so that what a caller hears of is what every reader sees. One
//! thread follows (`follower.rs`) and fills the tail in memory (`tail.rs`); what lies before it is streamed from the
//! brokers (`history.rs`). A watchdog asks the brokers how far the log goes, replaces a follower that has fallen
//! silent, and stops the ledger when its past has changed (`watchdog.rs`).
//!
//! Kafka is known in this module alone.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use schemas::{Hash, Offset};
use tokio::sync::{oneshot, watch};

use super::{Ahead, AppendError, Log, ReadError, Record, Urgency};
use crate::rule::Parsed;
use crate::view::View;
use binding::Outgoing;
use client::{ASK_MAX, Aside, COPY_MAX, Clients, Closing, Consumer, FetchError, Kind};
use follower::Follower;
use history::OlderRecords;
use producer::Producer;
use tail::Tail;
use watchdog::{Message, SEEN_FOR, Streak, Watchdog};

pub use heartbeats::KafkaHeartbeats;
pub use place::{BadKafkaAddress, KafkaAddress, TOPIC};
pub use security::{Identity, Mechanism, Sasl, Secret, Security, Tls};
pub use settings::reserved;
pub use watchdog::Status;

mod acl;
mod binding;
mod client;
mod follower;
mod heartbeats;
mod history;
mod place;
mod probe;
mod producer;
mod security;
mod settings;
mod tail;
mod topic;
mod watchdog;

/// How long an append may stay without an answer before its caller is told that nobody knows.
const ANSWER_MAX: Duration = Duration::from_secs(8);

/// How long the log's end is asked for at the start.
const START_MAX: Duration = Duration::from_secs(20);

/// How long a log that is dropped waits for its threads.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// Why a ledger in Kafka cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum KafkaOpenError {
    /// No broker answers.
    #[error(
        "cannot open the ledger at {place}: {why}; check that its brokers run, can be reached and speak the \
         `protocol` of the settings"
    )]
    Unreachable {
        /// The place.
        place: KafkaAddress,
        /// What the last try came to.
        why: String,
    },
    /// Something else listens there than brokers as the settings have them.
    #[error("{server} of {place} {what}; {next}")]
    Stranger {
        /// The place.
        place: KafkaAddress,
        /// The first address of it.
        server: String,
        /// What listens there.
        what: String,
        /// What to do.
        next: String,
    },
    /// The client library refuses its settings.
    #[error("cannot create the Kafka client: {0}; check its settings")]
    Client(String),
    /// The brokers and this program do not trust each other.
    #[error("the TLS handshake or the login at {place} failed: {why}; {next} in the settings of Kafka")]
    Denied {
        /// The place.
        place: KafkaAddress,
        /// What the client library says of it.
        why: String,
        /// What to look at.
        next: &'static str,
    },
    /// This build cannot do what is asked for.
    #[error("this build has no {what} for Kafka; build it with `cargo install --path cli --features kafka-tls`")]
    Lacking {
        /// What is missing.
        what: &'static str,
    },
    /// A setting that users leave alone.
    #[error("the Kafka client's `{name}` cannot be set: {why}")]
    Reserved {
        /// Its name.
        name: String,
        /// Why not, or what to write instead.
        why: &'static str,
    },
    /// There is no ledger.
    #[error("there is no ledger at {0}; check the address, or make one with `ionledger up --ledger {0}`")]
    NoTopic(KafkaAddress),
    /// It is a copy, which nobody writes but who copies.
    #[error(
        "{0} is a read-only copy; use the ledger that it was copied from, or move that ledger with `ionledger move`"
    )]
    Copy(KafkaAddress),
    /// The topic cannot be made.
    #[error("cannot create topic {topic}: {why}; {}", after_not_made(why))]
    NotMade {
        /// The topic.
        topic: String,
        /// The brokers' reason.
        why: String,
    },
    /// Too few brokers keep a ledger.
    #[error("{place} has {found} brokers, a ledger needs 3; start more, or use --dev for a ledger that may be lost")]
    Brokers {
        /// The place.
        place: KafkaAddress,
        /// How many there are.
        found: usize,
    },
    /// A ledger has one order.
    #[error("topic {topic} has {found} partitions, a ledger needs exactly one; name another topic")]
    Partitions {
        /// The topic.
        topic: String,
        /// How many it has.
        found: usize,
    },
    /// With these settings it would lose records, or readers.
    #[error("topic {topic} {}; set them, and check whether records are missing", listed(weak))]
    Settings {
        /// The topic.
        topic: String,
        /// Each that is too weak.
        weak: Vec<Weak>,
    },
    /// Rights are missing.
    #[error("this user may not {} on topic {topic}; give it the rights that docs/kafka.md lists", rights.join(", "))]
    Rights {
        /// The topic.
        topic: String,
        /// The operations that it may not.
        rights: Vec<String>,
    },
    /// The log's past is not what it was.
    #[error(transparent)]
    Log(#[from] ReadError),
}

/// Returns the next step after a topic could not be made: brokers that are busy say nothing of rights.
fn after_not_made(why: &str) -> &'static str {
    if why.to_lowercase().contains("timed out") {
        "the brokers did not answer in time, as they may while they start: try again"
    } else {
        "let this user make topics, or make it by hand as the documents say"
    }
}

/// A setting that is too weak for a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weak {
    /// The setting; `replicas` is how many brokers hold the topic.
    pub name: &'static str,
    /// Its value.
    pub found: String,
    /// The value that it should have.
    pub wanted: &'static str,
}

fn listed(weak: &[Weak]) -> String {
    let each = weak.iter().map(|Weak { name, found, wanted }| format!("has {name}={found}, a ledger needs {wanted}"));
    each.collect::<Vec<_>>().join("; ")
}

impl KafkaOpenError {
    fn client(error: KafkaError) -> Self {
        Self::Client(error.to_string())
    }

    /// Nobody answers, or whoever does is not trusted or does not trust this program.
    fn unreachable(clients: &Clients, why: impl Into<String>) -> Self {
        let place = clients.place().clone();
        match clients.complaint().last() {
            Some((Kind::Login, why)) => Self::Denied { place, why, next: "check `username` and the password" },
            Some((Kind::Certificate, why)) => {
                Self::Denied { place, why, next: "check `protocol`, `ca_file` and `certificate_file`" }
            }
            Some((Kind::Connection, why)) => Self::Unreachable { place, why },
            None => Self::Unreachable { place, why: why.into() },
        }
    }
}

/// How a ledger in Kafka is opened.
#[derive(Clone, Debug, Default)]
pub struct KafkaOptions {
    /// Takes a topic that lies on fewer than three brokers, and can be lost with one.
    pub dev: bool,
    /// Makes no topic: a ledger must be there.
    pub must_exist: bool,
    /// Opens a copy too, to read it or to carry it on: an append waits for its brokers for minutes, and none overtakes
    /// another.
    pub copying: bool,
    /// How this program and the brokers prove to each other who they are.
    pub security: Security,
    /// More settings of the client library, but those that are [`reserved`]. Source: librdkafka, CONFIGURATION.md.
    pub client: BTreeMap<String, String>,
}

impl KafkaOptions {
    /// Looks whether a client can be made with these.
    ///
    /// # Errors
    ///
    /// [`KafkaOpenError::Lacking`], [`KafkaOpenError::Reserved`] or [`KafkaOpenError::Client`] if not; no broker is asked.
    pub fn validate(&self) -> Result<(), KafkaOpenError> {
        if let Some(what) = self.security.lacking() {
            return Err(KafkaOpenError::Lacking { what });
        }
        for name in self.client.keys() {
            if let Some(why) = reserved(name) {
                return Err(KafkaOpenError::Reserved { name: name.clone(), why });
            }
        }
        let mut config = ClientConfig::new();
        self.security.set(&mut config);
        config.extend(self.client.clone());
        config.create_native_config().map(drop).map_err(KafkaOpenError::client)
    }
}

/// A log in Kafka.
pub struct Kafka {
    clients: Clients,
    tail: Arc<Tail>,
    end: watch::Receiver<Offset>,
    asking: Arc<Aside>,
    history: OlderRecords,
    status: Arc<Mutex<Status>>,
    follower: Arc<Mutex<Follower>>,
    watchdog: mpsc::Sender<Message>,
    answer_max: Duration,
    /// Gone when this is dropped.
    producer: Option<Producer>,
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka").field("place", self.clients.place()).field("end", &self.tail.end()).finish()
    }
}

impl Kafka {
    /// Opens the log at `place`, or makes it.
    ///
    /// # Errors
    ///
    /// [`KafkaOpenError`] if it cannot be reached, or is not kept as a ledger must be: nothing weaker is taken.
    pub async fn open(place: KafkaAddress, options: KafkaOptions) -> Result<Self, KafkaOpenError> {
        options.validate()?;
        let clients = Clients::new(place, &options);
        let security = options.security.clone();
        let warnings = tokio::select! {
            biased;
            prepared = topic::prepare(&clients, &options) => prepared?,
            (server, what, next) = probe::stranger(clients.place(), &security) => {
                return Err(KafkaOpenError::Stranger { place: clients.place().clone(), server, what, next });
            }
        };
        for warning in &warnings {
            tracing::warn!(warning, "kafka");
        }
        let status = Status { warnings, ..Status::default() };
        let (dev, copying) = (options.dev, options.copying);
        let runtime = tokio::runtime::Handle::current();
        blocking(move || {
            let mut log = Self::begin(clients, status, dev, runtime)?;
            if copying {
                log.answer_max = COPY_MAX + ANSWER_MAX;
            }
            Ok(log)
        })
        .await
    }

    fn begin(
        clients: Clients,
        status: Status,
        dev: bool,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, KafkaOpenError> {
        let warnings = status.warnings.clone();
        let asking = Arc::new(clients.asking().map_err(KafkaOpenError::client)?);
        let (end, first) = bounds(&clients, &asking)?;
        let (tail, receiver) = Tail::new(end);
        let tail = Arc::new(tail);
        let (watchdog, messages) = mpsc::channel();
        let follower = watchdog::start(&clients, &tail, end, &watchdog).map_err(KafkaOpenError::client)?;
        let log = Self {
            producer: Some(Producer::new(&clients, &tail).map_err(KafkaOpenError::client)?),
            history: OlderRecords::new(&clients, &tail),
            end: receiver,
            status: Arc::new(Mutex::new(status)),
            follower: Arc::new(Mutex::new(follower)),
            clients,
            tail,
            asking,
            watchdog,
            answer_max: ANSWER_MAX,
        };
        let watching = Watchdog {
            clients: log.clients.clone(),
            asking: Arc::clone(&log.asking),
            tail: Arc::clone(&log.tail),
            status: Arc::clone(&log.status),
            follower: Arc::clone(&log.follower),
            doubts: log.watchdog.clone(),
            first,
            compared: Instant::now(),
            warnings,
            dev,
            runtime,
            seen: Streak::default(),
            doubted: (Offset(0), 0),
        };
        let spawned = thread::Builder::new().name("kafka-watchdog".to_owned()).spawn(move || watching.run(&messages));
        spawned.map_err(|error| KafkaOpenError::Client(error.to_string()))?;
        Ok(log)
    }

    /// Looks whether the log is the one that `view` was folded from: it begins and goes on with the same records.
    ///
    /// # Errors
    ///
    /// [`KafkaOpenError::Log`] if it is not, with the first record that tells them apart.
    pub async fn follows(&self, view: &View) -> Result<(), KafkaOpenError> {
        if view.next() > self.tail.end() {
            // A broker that has just come back may still find what it does not tell of.
            tracing::warn!(end = %self.tail.end(), folded = %view.next(), "the log ends before the last record that \
                                                                           was read; waiting for it");
            let mut end = self.end.clone();
            let _ = tokio::time::timeout(SEEN_FOR, end.wait_for(|end| *end >= view.next())).await;
        }
        let end = self.tail.end();
        if view.next() > end {
            return Err(ReadError::Damaged { offset: end, what: ends_early(view.next()) }.into());
        }
        let heads: HashSet<Hash> = view.ruler().heads().values().map(|head| head.hash).collect();
        let ledger = view.ruler().head("ledger");
        // A stream's head is its last commit: the last commit of all is a head, and so is the first of a ledger.
        let first = (ledger.version.0 == 1).then_some(Offset(0));
        for offset in first.into_iter().chain(view.ruler().last_counted()) {
            let records = self.read(offset, 1).await?;
            let hash = records.first().map(|record| Parsed::of(&record.bytes).hash);
            let is_known =
                hash.is_some_and(|hash| if offset == Offset(0) { hash == ledger.hash } else { heads.contains(&hash) });
            if !is_known {
                let what = "it is not the record that was folded; the topic was created again or cut".to_owned();
                return Err(ReadError::Damaged { offset, what }.into());
            }
        }
        Ok(())
    }

    /// Marks the topic as a copy by another topic, `TOPIC.copy`, or as none any more: its own records are the source's.
    ///
    /// # Errors
    ///
    /// [`KafkaOpenError::NotMade`] if the brokers refuse.
    pub async fn mark_copy(&self, is_copy: bool) -> Result<(), KafkaOpenError> {
        topic::mark_copy(&self.clients, is_copy).await
    }

    /// Makes sure, without doing it, that this user may seal the ledger here.
    ///
    /// # Errors
    ///
    /// [`KafkaOpenError::Rights`] with what it may not, or why that cannot be known.
    pub async fn may_end(&self) -> Result<(), KafkaOpenError> {
        use acl::Right::{Read, Write};
        self.may(vec![(self.place().topic().to_owned(), vec![Read, Write])]).await
    }

    /// Makes sure, without doing it, that this user may go on here with a ledger that was carried here: append and read, beat
    /// beside it, and take the mark of a copy away.
    ///
    /// # Errors
    ///
    /// As [`Kafka::may_end`].
    pub async fn may_go_on(&self, options: &KafkaOptions) -> Result<(), KafkaOpenError> {
        use acl::Right::{Delete, DescribeConfigs, Read, Write};
        heartbeats::prepare(self.place(), options).await?;
        let beside = |name| self.place().beside(name).topic().to_owned();
        let log = (self.place().topic().to_owned(), vec![Read, Write, DescribeConfigs]);
        self.may(vec![log, (beside(heartbeats::NAME), vec![Read, Write]), (beside(topic::MARK), vec![Delete])]).await
    }

    async fn may(&self, wanted: Vec<(String, Vec<acl::Right>)>) -> Result<(), KafkaOpenError> {
        let asking = Arc::clone(&self.asking);
        blocking(move || {
            for (topic, wanted) in wanted {
                let rights = match acl::lacking(&asking, &topic, &wanted) {
                    Ok(lacking) => lacking.iter().map(ToString::to_string).collect(),
                    Err(why) => vec![format!("describe ({why})")],
                };
                if !Vec::is_empty(&rights) {
                    return Err(KafkaOpenError::Rights { topic, rights });
                }
            }
            Ok(())
        })
        .await
    }

    /// Returns the place.
    pub fn place(&self) -> &KafkaAddress {
        self.clients.place()
    }

    /// Returns how it does.
    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Asks for the log's end and reads its first record, if there is one.
fn bounds(clients: &Clients, asking: &Consumer) -> Result<(Offset, Option<Bytes>), KafkaOpenError> {
    let deadline = Instant::now() + START_MAX;
    let mut consumer = None;
    loop {
        let unreachable = match asking.fetch_watermarks(clients.topic(), 0, ASK_MAX) {
            Ok((0, 0)) => return Ok((Offset(0), None)),
            Ok((0, high)) => {
                let consumer = match &mut consumer {
                    Some(consumer) => consumer,
                    none => none.insert(clients.looking_back().map_err(KafkaOpenError::client)?),
                };
                match client::fetch(clients, consumer, Offset(0)) {
                    Ok(first) => return Ok((Offset(u64::try_from(high).unwrap_or(0)), Some(first))),
                    Err(FetchError::Missing(what)) => return Err(ReadError::Damaged { offset: Offset(0), what }.into()),
                    Err(FetchError::Unavailable(why)) => why,
                }
            }
            Ok((low, _)) => {
                let what = format!("the records before offset {low} are gone, by retention or by hand");
                return Err(ReadError::Damaged { offset: Offset(0), what }.into());
            }
            Err(error) => error.to_string(),
        };
        if Instant::now() > deadline {
            return Err(KafkaOpenError::unreachable(clients, unreachable));
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Says what is wrong with a log that ends before `read`, up to where it was read.
fn ends_early(read: Offset) -> String {
    format!("the log ends at this offset, but {read} records were read before: the last records are missing")
}

/// Does what waits for brokers on a thread that may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KafkaOpenError> + Send + 'static,
) -> Result<T, KafkaOpenError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(KafkaOpenError::Client(format!("its thread ended: {error}"))))
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let deadline = Instant::now() + CLOSE_MAX;
        let _ = self.watchdog.send(Message::Close);
        let producer = self.producer.take().and_then(|producer| Closing::begin("producer", producer));
        if let Some(producer) = producer {
            producer.wait(deadline);
        }
        self.tail.close();
        let follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        let left = deadline.saturating_duration_since(Instant::now());
        if follower.ended.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("the reader of the log does not end; it is left behind");
        }
    }
}

#[async_trait]
impl Log for Kafka {
    async fn append(&self, bytes: Bytes, _: Urgency) -> Result<Offset, AppendError> {
        if let Some(why) = self.tail.stopped() {
            return Err(AppendError::Stopped(why.to_string()));
        }
        let (answer, answered) = oneshot::channel();
        let producer = self.producer.as_ref().expect("held until it is dropped");
        producer.send(Outgoing::of(&bytes), answer);
        match tokio::time::timeout(self.answer_max, answered).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(AppendError::Ambiguous("the log was closed".to_owned()))),
            Err(_) => Err(AppendError::Ambiguous(format!("none came within {} s", self.answer_max.as_secs()))),
        }
    }

    async fn read(&self, from: Offset, max: usize) -> Result<Vec<Record>, ReadError> {
        match self.tail.read(from, max) {
            Some(read) => read,
            None => self.history.read(from, max).await,
        }
    }

    fn end(&self) -> watch::Receiver<Offset> {
        self.end.clone()
    }

    /// Another place takes a question to a broker, in whose time a thousand records come.
    fn read_through_max(&self) -> u64 {
        1_000
    }

    fn ahead(&self) -> Vec<Ahead> {
        self.clients.early().all()
    }

    async fn latest(&self) -> Result<Offset, ReadError> {
        let (asking, topic) = (Arc::clone(&self.asking), self.clients.topic().to_owned());
        let asked = move || asking.fetch_watermarks(&topic, 0, ASK_MAX);
        let answer = tokio::task::spawn_blocking(asked).await;
        let unavailable = |why: String| ReadError::Unavailable(why);
        let (_, high) =
            answer.map_err(|error| unavailable(error.to_string()))?.map_err(|e| unavailable(e.to_string()))?;
        Ok(Offset(u64::try_from(high).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests;
