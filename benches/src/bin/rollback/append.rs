//! A bare append, as durable as the ledger's own: to a file, or to a topic of its own on the same brokers.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

use benches::Error;
use benches::bare_producer::Bare;
use support::cluster::Cluster;

const TOPIC: &str = "bare";

pub enum Append {
    /// Written and synced.
    Disk(File),
    /// Sent, and confirmed by every replica in sync.
    Kafka(Bare),
}

impl Append {
    pub fn to_disk(folder: &Path) -> Result<Self, Error> {
        Ok(Self::Disk(File::create_new(folder.join("bare"))?))
    }

    pub async fn to_kafka(cluster: &Cluster) -> Result<Self, Error> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster.servers());
        let admin: AdminClient<DefaultClientContext> = config.create()?;
        let topic = NewTopic::new(TOPIC, 1, TopicReplication::Fixed(3)).set("min.insync.replicas", "2");
        for made in admin.create_topics([&topic], &AdminOptions::new()).await? {
            made.map_err(|(_, code)| code)?;
        }
        Ok(Self::Kafka(Bare::open(cluster.servers(), TOPIC)?))
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Disk(_) => "a bare file, append and sync",
            Self::Kafka(_) => "a bare producer, acks=all on three brokers",
        }
    }

    pub async fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Self::Disk(file) => {
                file.write_all(bytes)?;
                file.sync_data()?;
            }
            Self::Kafka(producer) => producer.append(bytes).await?,
        }
        Ok(())
    }
}
