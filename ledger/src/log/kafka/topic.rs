//! The topic: made as a ledger needs it, and looked at before it is trusted.

use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier, TopicReplication,
};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::client::{ASK_MAX, Clients, Closing, Consumer, Quiet};
use super::{KafkaOpenError, KafkaOptions, Weak, blocking};

/// How long the brokers may take to answer at the start.
const READY_MAX: Duration = Duration::from_secs(20);

/// How long the library is listened to.
const LISTEN: Duration = Duration::from_millis(50);

/// How long to wait between two looks.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// The longest that brokers should take to notice that one of them is gone, in milliseconds.
const BROKER_SESSION_MS_MAX: u64 = 3_000;

/// Something a topic must have to hold a ledger.
struct Setting {
    name: &'static str,
    /// What it is made with.
    made: &'static str,
    /// Whether a value will do.
    will_do: fn(&str) -> bool,
}

/// What a topic must have to hold a ledger.
const SETTINGS: [Setting; 7] = [
    // Nothing is ever compacted away.
    Setting { name: "cleanup.policy", made: "delete", will_do: |value| value == "delete" },
    // Nothing is ever deleted.
    Setting { name: "retention.ms", made: "-1", will_do: |value| value == "-1" },
    Setting { name: "retention.bytes", made: "-1", will_do: |value| value == "-1" },
    // What was acknowledged lies on two brokers.
    Setting { name: MIN_IN_SYNC, made: "2", will_do: |value| value.parse().is_ok_and(|brokers: u32| brokers >= 2) },
    // A broker that missed something never leads.
    Setting { name: "unclean.leader.election.enable", made: "false", will_do: |value| value == "false" },
    // Whatever a stranger compresses with, every reader can read it.
    Setting { name: "compression.type", made: "uncompressed", will_do: |value| value == "uncompressed" },
    // A commit with its headers fits.
    Setting {
        name: "max.message.bytes",
        made: "1048588",
        will_do: |value| value.parse().is_ok_and(|bytes: u64| bytes >= 128 << 10),
    },
];

/// How many brokers hold a ledger at least.
const REPLICAS: usize = 3;

/// What the topic is called, beside the log's, whose presence marks a copy.
pub(super) const MARK: &str = "copy";

const MIN_IN_SYNC: &str = "min.insync.replicas";

/// Looks whether the topic can hold a ledger, after making it if it is not there and may be made. Returns what could be
/// better but endangers nothing.
pub(super) async fn prepare(clients: &Clients, options: &KafkaOptions) -> Result<Vec<String>, KafkaOpenError> {
    let admin: AdminClient<Quiet> =
        clients.config().create_with_context(clients.quiet()).map_err(KafkaOpenError::client)?;
    let looked = look(clients, &admin, options).await;
    drop(Closing::begin("admin client", admin));
    looked
}

async fn look(
    clients: &Clients,
    admin: &AdminClient<Quiet>,
    options: &KafkaOptions,
) -> Result<Vec<String>, KafkaOpenError> {
    let deadline = Instant::now() + READY_MAX;
    let topic = || clients.topic().to_owned();
    let mut made = false;
    loop {
        let found = find(clients, deadline).await?;
        if found.is_copy && !options.copying {
            return Err(KafkaOpenError::Copy(clients.place().clone()));
        }
        let why = match found.partitions.as_deref() {
            None if made => "the topic was made and is not there yet",
            None if options.must_exist => return Err(KafkaOpenError::NoTopic(clients.place().clone())),
            None => {
                make(clients, admin, options.dev, found.brokers).await?;
                made = true;
                continue;
            }
            Some([partition]) if partition.leader >= 0 => {
                return check_settings(clients, admin, options.dev, partition, deadline).await;
            }
            Some([] | [_]) => "its partition has no leader",
            Some(many) => return Err(KafkaOpenError::Partitions { topic: topic(), found: many.len() }),
        };
        wait(clients, deadline, why.to_owned()).await?;
    }
}

/// Waits a moment before the next look; the last one's reason is the error.
async fn wait(clients: &Clients, deadline: Instant, why: String) -> Result<(), KafkaOpenError> {
    if Instant::now() > deadline {
        return Err(KafkaOpenError::unreachable(clients, why));
    }
    tokio::time::sleep(AGAIN_AFTER).await;
    Ok(())
}

/// What the brokers say of themselves and of the topic.
struct Found {
    brokers: usize,
    /// None if there is no such topic.
    partitions: Option<Vec<Partition>>,
    /// Whether the topic beside it is there that marks a copy.
    is_copy: bool,
}

struct Partition {
    /// The broker that leads it; less than 0 if none does.
    leader: i32,
    replicas: usize,
}

async fn find(clients: &Clients, deadline: Instant) -> Result<Found, KafkaOpenError> {
    let clients = clients.clone();
    blocking(move || {
        let client = clients.asking().map_err(KafkaOpenError::client)?;
        let metadata = loop {
            // Of all topics: to ask for one alone could make it, with settings that are not a ledger's.
            let error = match client.fetch_metadata(None, ASK_MAX) {
                Ok(metadata) => break metadata,
                Err(error) => error,
            };
            // What the library has against the brokers, or they against this program, waiting may not change.
            while client.poll(LISTEN).is_some() {}
            if clients.complaint().is_final() || Instant::now() > deadline {
                return Err(KafkaOpenError::unreachable(&clients, error.to_string()));
            }
        };
        let topic = metadata.topics().iter().find(|topic| topic.name() == clients.topic());
        let partitions = topic.map(|topic| {
            let partitions = topic.partitions().iter();
            partitions.map(|each| Partition { leader: each.leader(), replicas: each.replicas().len() }).collect()
        });
        let is_copy = metadata.topics().iter().any(|topic| topic.name() == mark_of(&clients));
        Ok(Found { brokers: metadata.brokers().len(), partitions, is_copy })
    })
    .await
}

async fn make(clients: &Clients, admin: &AdminClient<Quiet>, dev: bool, brokers: usize) -> Result<(), KafkaOpenError> {
    if brokers < 3 && !dev {
        return Err(KafkaOpenError::Brokers { place: clients.place().clone(), found: brokers });
    }
    let replicas = brokers.clamp(1, 3);
    let mut topic = NewTopic::new(clients.topic(), 1, TopicReplication::Fixed(replicas as i32));
    for Setting { name, made, .. } in SETTINGS {
        topic = topic.set(name, if name == MIN_IN_SYNC && replicas < 3 { "1" } else { made });
    }
    // By the brokers' clock, so that a commit that says another time can be named. A topic without it is taken, too.
    topic = topic.set("message.timestamp.type", "LogAppendTime");
    let made = create(admin, &topic, &AdminOptions::new()).await;
    made.map_err(|why| KafkaOpenError::NotMade { topic: clients.topic().to_owned(), why })
}

/// Makes a topic, unless it is there; the brokers' reason if they refuse.
pub(super) async fn create(
    admin: &AdminClient<Quiet>,
    topic: &NewTopic<'_>,
    options: &AdminOptions,
) -> Result<(), String> {
    let made = admin.create_topics([topic], options).await.map_err(|error| error.to_string())?;
    match made.into_iter().next() {
        // Another process was quicker.
        None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, code))) => Err(code.to_string()),
    }
}

async fn check_settings(
    clients: &Clients,
    admin: &AdminClient<Quiet>,
    dev: bool,
    partition: &Partition,
    deadline: Instant,
) -> Result<Vec<String>, KafkaOpenError> {
    let (topic, broker) = loop {
        match settings(clients, admin, partition.leader).await {
            Ok(told) => break told,
            Err(why) => wait(clients, deadline, why).await?,
        }
    };
    let too_few = (partition.replicas < REPLICAS && !dev).then(|| Weak {
        name: "replicas",
        found: partition.replicas.to_string(),
        wanted: "3, or --dev if it may be lost",
    });
    let weak: Vec<Weak> = too_few.into_iter().chain(weaknesses(&topic, dev)).collect();
    match weak.is_empty() {
        false => Err(KafkaOpenError::Settings { topic: clients.topic().to_owned(), weak }),
        true => Ok(broker.as_ref().and_then(slow_broker).into_iter().collect()),
    }
}

/// Asks for the topic's settings and, if this user may know them, its leader's.
async fn settings(
    clients: &Clients,
    admin: &AdminClient<Quiet>,
    leader: i32,
) -> Result<(ConfigResource, Option<ConfigResource>), String> {
    let asked = [ResourceSpecifier::Topic(clients.topic()), ResourceSpecifier::Broker(leader)];
    let answers = admin.describe_configs(&asked, &AdminOptions::new()).await.map_err(|error| error.to_string())?;
    let (mut topic, mut broker, mut refused) = (None, None, "the topic's settings were not told".to_owned());
    for answer in answers {
        match answer {
            Ok(told) if matches!(told.specifier, OwnedResourceSpecifier::Topic(_)) => {
                topic = Some(told).filter(is_told)
            }
            Ok(told) => broker = Some(told),
            Err(code) => refused = code.to_string(),
        }
    }
    Ok((topic.ok_or(refused)?, broker))
}

/// Says whether an answer tells settings at all. A broker that has not heard of a new topic yet answers without any: that
/// is no word about them.
fn is_told(resource: &ConfigResource) -> bool {
    !resource.entries.is_empty()
}

/// Returns the settings with which a ledger could lose records.
fn weaknesses(topic: &ConfigResource, dev: bool) -> Vec<Weak> {
    let found = |name: &str| topic.get(name).and_then(|entry| entry.value.as_deref()).unwrap_or("not told");
    let needed = SETTINGS.into_iter().filter(|setting| !(dev && setting.name == MIN_IN_SYNC));
    let weak = needed.filter(|setting| !(setting.will_do)(found(setting.name)));
    weak.map(|Setting { name, made, .. }| Weak { name, found: found(name).to_owned(), wanted: made }).collect()
}

/// Looks at a topic that was good enough at the start, and says what has become too weak; nothing if nobody answers.
pub(super) async fn look_again(clients: &Clients, dev: bool) -> Option<Vec<String>> {
    let admin: AdminClient<Quiet> = clients.config().create_with_context(clients.quiet()).ok()?;
    let asked = [ResourceSpecifier::Topic(clients.topic())];
    let answers = admin.describe_configs(&asked, &AdminOptions::new().request_timeout(Some(ASK_MAX))).await;
    drop(Closing::begin("admin client", admin));
    let topic = answers.ok()?.into_iter().next()?.ok().filter(is_told)?;
    let weak = weaknesses(&topic, dev);
    let said = KafkaOpenError::Settings { topic: clients.topic().to_owned(), weak: weak.clone() };
    Some((!weak.is_empty()).then(|| said.to_string()).into_iter().collect())
}

/// Says so if brokers take long to notice that one of them is gone. Rollbacks wait for that, but nothing is lost.
fn slow_broker(broker: &ConfigResource) -> Option<String> {
    let name = "broker.session.timeout.ms";
    let ms = broker.get(name)?.value.as_ref()?.parse::<u64>().ok()?;
    (ms > BROKER_SESSION_MS_MAX).then(|| {
        format!("brokers have {name}={ms}: when one is gone, commits wait that long; set it to {BROKER_SESSION_MS_MAX}")
    })
}

/// The topic that marks another as a copy. It holds nothing.
fn mark_of(clients: &Clients) -> String {
    clients.place().beside(MARK).topic().to_owned()
}

/// Marks the topic as a copy, or as none any more.
pub(super) async fn mark_copy(clients: &Clients, is_copy: bool) -> Result<(), KafkaOpenError> {
    let mark = mark_of(clients);
    let failed = |why: String| KafkaOpenError::NotMade { topic: mark.clone(), why };
    let admin: AdminClient<Quiet> =
        clients.config().create_with_context(clients.quiet()).map_err(KafkaOpenError::client)?;
    let done = if is_copy {
        let topic = NewTopic::new(&mark, 1, TopicReplication::Fixed(1));
        admin.create_topics([&topic], &AdminOptions::new()).await
    } else {
        admin.delete_topics(&[&mark], &AdminOptions::new()).await
    };
    drop(Closing::begin("admin client", admin));
    match done.map_err(|error| failed(error.to_string()))?.into_iter().next() {
        None | Some(Ok(_)) => Ok(()),
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists | RDKafkaErrorCode::UnknownTopicOrPartition))) => Ok(()),
        Some(Err((_, code))) => Err(failed(code.to_string())),
    }
}

/// Whether as many brokers are in sync as an acknowledged record lies on: then the log's end is the one that they agreed on.
pub(super) fn is_in_sync(clients: &Clients, asking: &Consumer) -> bool {
    let Ok(metadata) = asking.fetch_metadata(None, ASK_MAX) else { return false };
    let topic = metadata.topics().iter().find(|topic| topic.name() == clients.topic());
    let partition = topic.and_then(|topic| topic.partitions().first());
    partition.is_some_and(|partition| partition.isr().len() >= partition.replicas().len().min(2))
}

/// Whether the error says that the topic is not there.
pub(super) fn is_gone(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{UnknownPartition, UnknownTopic, UnknownTopicOrPartition};
    matches!(error.rdkafka_error_code(), Some(UnknownPartition | UnknownTopic | UnknownTopicOrPartition))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_settings_is_no_word_about_them() {
        let specifier = OwnedResourceSpecifier::Topic("ionledger.commits".to_owned());
        let mut topic = ConfigResource { specifier, entries: vec![] };
        assert!(!is_told(&topic), "it is asked again");
        topic.entries.push(rdkafka::admin::ConfigEntry {
            name: "cleanup.policy".to_owned(),
            value: Some("compact".to_owned()),
            source: rdkafka::admin::ConfigSource::DynamicTopic,
            is_read_only: false,
            is_default: false,
            is_sensitive: false,
        });
        assert!(is_told(&topic) && weaknesses(&topic, true).iter().any(|weak| weak.found == "compact"));
    }
}
