//! The log in Kafka, against a real one: what every log promises, what is done to a topic that no ledger survives
//! unnoticed, and brokers that go away.

mod contract;
mod damage;
mod foreign;
mod outage;
mod raw;
