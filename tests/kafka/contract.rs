//! What every log promises.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use ledger::log::Log;
use ledger::log::contract::Carrier;
use ledger::log::kafka::{Kafka, KafkaAddress, KafkaOptions};

use support::cluster::Cluster;

/// A topic of its own, which outlives who opens it.
struct Topic(KafkaAddress);

impl Topic {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("contract-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        Self(Cluster::shared().place(&name).parse().unwrap())
    }
}

#[async_trait]
impl Carrier for Topic {
    async fn open(&self) -> Arc<dyn Log> {
        Arc::new(Kafka::open(self.0.clone(), KafkaOptions::default()).await.unwrap())
    }
}

ledger::contract_tests!(Topic::new(), #[ignore = "needs a Kafka of its own: `bash tests/run` has one"]);
