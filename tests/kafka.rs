//! The log in Kafka, against a real one: what every log promises, what is done to a topic that no ledger survives
//! unnoticed, and brokers that go away.

#[path = "support/kafka.rs"]
mod cluster;
#[path = "kafka/contract.rs"]
mod contract;
#[path = "kafka/damage.rs"]
mod damage;
#[path = "kafka/foreign.rs"]
mod foreign;
#[path = "kafka/outage.rs"]
mod outage;
#[path = "kafka/raw.rs"]
mod raw;
