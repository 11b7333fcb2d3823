//! The client library: its settings, and what it says.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::ProducerContext;
use rdkafka::{ClientContext, Offset as At, TopicPartitionList};
use schemas::Offset;

use super::place::KafkaAddress;
use super::security::Security;
use super::{KafkaOptions, binding};
use crate::log::{Ahead, RECORD_AHEAD_MAX};

/// How long one question to a broker may take.
pub(super) const ASK_MAX: Duration = Duration::from_secs(3);

/// How long a record that is copied waits for its brokers.
pub(super) const COPY_MAX: Duration = Duration::from_secs(300);

/// Makes clients for a place.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    place: KafkaAddress,
    security: Security,
    /// What users have chosen besides.
    more: BTreeMap<String, String>,
    copying: bool,
    complaint: Complaint,
    ahead: Early,
}

/// The last records that were read and whose commits were made long after their broker took them in.
#[derive(Clone, Debug, Default)]
pub(super) struct Early(Arc<Mutex<BTreeMap<Offset, Ahead>>>);

/// How many of them are remembered.
const EARLY_MAX: usize = 16;

impl Early {
    /// Takes in when a commit was made and when its broker took it in.
    pub(super) fn note(&self, ahead: Ahead) {
        if ahead.time.duration_since(ahead.taken) > RECORD_AHEAD_MAX {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(ahead.offset, ahead);
            if known.len() > EARLY_MAX {
                known.pop_first();
            }
        }
    }

    /// Returns them.
    pub(super) fn all(&self) -> Vec<Ahead> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().copied().collect()
    }
}

/// What the library has last said against the brokers, or they against this program. It tries again and again, and tells
/// the one who asked only that no broker answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Complaint(Arc<Mutex<Option<(Kind, String)>>>);

/// What a complaint is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The brokers do not take this program's login.
    Login,
    /// One does not take the other's certificate.
    Certificate,
    /// They cannot be reached.
    Connection,
}

impl Complaint {
    /// Takes what the library says.
    pub(super) fn hear(&self, error: &KafkaError, reason: &str) {
        use RDKafkaErrorCode::{AllBrokersDown, Authentication, SSL, SaslAuthenticationFailed};
        self.take(
            match error.rdkafka_error_code() {
                Some(Authentication | SaslAuthenticationFailed) => Kind::Login,
                Some(SSL) => Kind::Certificate,
                // A broker that refuses a certificate ends the connection; OpenSSL's words for it are all that is left.
                Some(_) if reason.contains("SSL routines") => Kind::Certificate,
                // It says less than what came before it.
                Some(AllBrokersDown) | None => return,
                Some(_) => Kind::Connection,
            },
            reason,
        );
    }

    /// Takes what the library has logged: a connection that a broker ends, it only logs.
    fn overhear(&self, facility: &str, message: &str) {
        if facility == "FAIL" && !self.is_final() {
            self.take(Kind::Connection, message);
        }
    }

    fn take(&self, kind: Kind, reason: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((kind, reason.to_owned()));
    }

    /// Returns the last.
    pub(super) fn last(&self) -> Option<(Kind, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it is one that waiting does not change.
    pub(super) fn is_final(&self) -> bool {
        self.last().is_some_and(|(kind, _)| kind != Kind::Connection)
    }
}

/// What the library says goes to the log of this program, where it belongs to a reader of debug lines: brokers that
/// come and go are ordinary, and what they mean for the ledger is said elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Quiet(Complaint);

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.overhear(facility, message);
        say(level, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.hear(&error, reason);
        tracing::debug!(%error, reason, "kafka");
    }
}

impl ConsumerContext for Quiet {}

impl ProducerContext for Quiet {
    type DeliveryOpaque = ();

    /// Of what is sent so, nobody asks whether it has arrived.
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// Passes on what the library says.
pub(super) fn say(level: RDKafkaLogLevel, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::warn!(message, "kafka");
        }
        _ => tracing::debug!(message, "kafka"),
    }
}

/// A consumer as this module uses it.
pub(super) type Consumer = BaseConsumer<Quiet>;

impl Clients {
    /// Makes clients for `place`.
    pub(super) fn new(place: KafkaAddress, options: &KafkaOptions) -> Self {
        let KafkaOptions { security, client, copying, .. } = options.clone();
        Self { place, security, more: client, copying, complaint: Complaint::default(), ahead: Early::default() }
    }

    /// Returns what was last complained of.
    pub(super) fn complaint(&self) -> &Complaint {
        &self.complaint
    }

    /// Returns where commits are noted whose time is ahead of their broker's.
    pub(super) fn early(&self) -> &Early {
        &self.ahead
    }

    /// Returns what hears what the library says.
    pub(super) fn quiet(&self) -> Quiet {
        Quiet(self.complaint.clone())
    }

    /// Returns the place.
    pub(super) fn place(&self) -> &KafkaAddress {
        &self.place
    }

    /// Returns the topic.
    pub(super) fn topic(&self) -> &str {
        self.place.topic()
    }

    /// Returns what every client has set: a broker that is gone is noticed, and its successor found, in about a second.
    pub(super) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set_log_level(RDKafkaLogLevel::Info)
            .set("bootstrap.servers", self.place.servers())
            .set("client.id", "ionledger")
            .set("socket.timeout.ms", "3000")
            .set("socket.connection.setup.timeout.ms", "2000")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "500")
            .set("retry.backoff.ms", "50")
            .set("retry.backoff.max.ms", "250")
            .set("topic.metadata.refresh.interval.ms", "2000")
            .set("topic.metadata.refresh.fast.interval.ms", "50")
            .set("allow.auto.create.topics", "false");
        self.security.set(&mut config);
        for (name, value) in &self.more {
            config.set(name, value);
        }
        config
    }

    /// Returns what a producer has set.
    pub(super) fn writing(&self) -> ClientConfig {
        let mut config = self.config();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // Whoever sends ends it; only what a slow broker has not taken by then waits longer.
            .set("linger.ms", "5")
            .set("compression.type", "none")
            // A caller hears after this that nobody knows, and sends the same bytes again.
            .set("message.timeout.ms", "5000")
            .set("request.timeout.ms", "3000");
        if self.copying {
            config.set("message.timeout.ms", COPY_MAX.as_millis().to_string());
            config.set("enable.gapless.guarantee", "true");
        }
        config
    }

    /// Returns what a consumer has set.
    pub(super) fn reading(&self) -> ClientConfig {
        let mut config = self.config();
        config
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // The head of a ledger is never skipped silently.
            .set("auto.offset.reset", "error")
            // No transactions belong here: one that a stranger leaves open must not hold anyone up.
            .set("isolation.level", "read_uncommitted")
            .set("check.crcs", "true")
            .set("fetch.error.backoff.ms", "20")
            .set("fetch.queue.backoff.ms", "5")
            .set("queued.max.messages.kbytes", "16384");
        config
    }

    /// Returns a client that only asks: for metadata and for the log's end.
    pub(super) fn asking(&self) -> KafkaResult<Aside> {
        self.reading().create_with_context(self.quiet()).map(Some).map(Aside)
    }

    /// Returns a consumer that waits for what is new. It reads nothing until it is assigned.
    pub(super) fn following(&self) -> KafkaResult<Consumer> {
        self.consumer("500")
    }

    /// Returns a consumer for what is there already: it never waits at the log's end, where it would be held up on its
    /// way to another place. It reads nothing until it is assigned.
    pub(super) fn looking_back(&self) -> KafkaResult<Aside> {
        self.consumer("5").map(Some).map(Aside)
    }

    fn consumer(&self, wait_ms: &str) -> KafkaResult<Consumer> {
        let mut config = self.reading();
        config.set("fetch.wait.max.ms", wait_ms).set("enable.partition.eof", "true");
        // Never joined: without a name for one, nothing can be assigned.
        config.set("group.id", "ionledger-reads-without-a-group");
        config.create_with_context(self.quiet())
    }

    /// Lets a consumer read from `from` on.
    pub(super) fn assign(&self, consumer: &Consumer, from: Offset) -> KafkaResult<()> {
        let mut at = TopicPartitionList::with_capacity(1);
        let from = i64::try_from(from.0).unwrap_or(i64::MAX);
        at.add_partition_offset(self.topic(), 0, At::Offset(from))?;
        consumer.assign(&at)
    }
}

/// A consumer that is dropped on a thread of its own, so that its user never waits for that.
pub(super) struct Aside(Option<Consumer>);

impl Deref for Aside {
    type Target = Consumer;

    fn deref(&self) -> &Consumer {
        self.0.as_ref().expect("held until it is dropped")
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        drop(self.0.take().and_then(|consumer| Closing::begin("consumer", consumer)));
    }
}

/// Why one record could not be fetched.
#[derive(Debug)]
pub(super) enum FetchError {
    /// The log does not hold it.
    Missing(String),
    /// It cannot be had now.
    Unavailable(String),
}

/// Fetches the record at `offset` by itself, within [`ASK_MAX`].
pub(super) fn fetch(clients: &Clients, consumer: &Consumer, offset: Offset) -> Result<Bytes, FetchError> {
    let unavailable = |error: KafkaError| FetchError::Unavailable(error.to_string());
    clients.assign(consumer, offset).map_err(unavailable)?;
    let deadline = Instant::now() + ASK_MAX;
    let mut last = "no broker answered in time".to_owned();
    let fetched = loop {
        if Instant::now() > deadline {
            break Err(FetchError::Unavailable(last));
        }
        match consumer.poll(Duration::from_millis(50)) {
            None => {}
            Some(Ok(message)) if u64::try_from(message.offset()) == Ok(offset.0) => {
                break Ok(binding::bytes_of(&message, &mut BytesMut::with_capacity(message.payload_len())));
            }
            Some(Ok(message)) => {
                break Err(FetchError::Missing(format!(
                    "offset {} comes where {offset} was asked for",
                    message.offset()
                )));
            }
            Some(Err(error)) if is_out_of_range(&error) => break Err(FetchError::Missing(error.to_string())),
            Some(Err(error)) => last = error.to_string(),
        }
    };
    let _ = consumer.unassign();
    fetched
}

/// Whether the log does not hold what was asked for.
pub(super) fn is_out_of_range(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AutoOffsetReset, LogTruncation, OffsetOutOfRange};
    matches!(error.rdkafka_error_code(), Some(AutoOffsetReset | LogTruncation | OffsetOutOfRange))
}

/// A client that is being dropped on a thread of its own: the library may wait there for what never comes.
#[derive(Debug)]
pub(super) struct Closing {
    what: &'static str,
    done: mpsc::Receiver<()>,
}

impl Closing {
    /// Drops `client` aside.
    pub(super) fn begin<T: Send + 'static>(what: &'static str, client: T) -> Option<Self> {
        let (ended, done) = mpsc::channel();
        let closer = move || {
            drop(client);
            let _ = ended.send(());
        };
        // Without a thread it was dropped right here, with the closure.
        thread::Builder::new().name("kafka-close".to_owned()).spawn(closer).ok().map(|_| Self { what, done })
    }

    /// Waits until it is gone, at most until `deadline`; then it is left behind.
    pub(super) fn wait(self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        if let Err(mpsc::RecvTimeoutError::Timeout) = self.done.recv_timeout(left) {
            tracing::warn!(what = self.what, "this Kafka client does not close; it is left behind");
        }
    }
}
