//! The log in Kafka over TLS, with a login or a certificate: who proves himself is let in, and who does not hears why.
//!
//! `cargo test --workspace --features ledger/kafka-tls --test kafka_tls`

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ledger::log::contract::{genesis, step};
use ledger::log::kafka::{
    Identity, Kafka, KafkaAddress, KafkaOpenError, KafkaOptions, Mechanism, Sasl, Secret, Security, Tls,
};
use ledger::log::{Log as _, Urgency};
use ledger::rule::NO_HEAD;
use schemas::Offset;
use support::cluster::Cluster;

/// Within what who is not let in must hear of it: nobody waits for it to change.
const REFUSED_WITHIN: Duration = Duration::from_secs(15);

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start_secure(1))
}

fn key(name: &str) -> PathBuf {
    cluster().keys().join(name)
}

fn tls(ca: &str) -> Tls {
    Tls { ca_file: Some(key(ca)), identity: None }
}

fn login(mechanism: Mechanism) -> Security {
    let password = Secret::new(std::fs::read_to_string(key("password")).unwrap());
    let sasl = Sasl { mechanism, username: "ionledger".to_owned(), password };
    Security { tls: Some(tls("ca.pem")), sasl: Some(sasl) }
}

fn certified() -> Security {
    let identity = Identity { certificate_file: key("client.pem"), key_file: key("client.key"), key_password: None };
    Security { tls: Some(Tls { identity: Some(identity), ..tls("ca.pem") }), sasl: None }
}

async fn open(listener: &str, topic: &str, security: Security) -> Result<Kafka, KafkaOpenError> {
    let place: KafkaAddress = format!("kafka://{}/{topic}", cluster().listener(listener)).parse().unwrap();
    Kafka::open(place, KafkaOptions { dev: true, security, ..KafkaOptions::default() }).await
}

/// Appends and reads back, and reads it again as somebody else.
async fn is_served(listener: &str, topic: &str, security: Security) {
    let log = open(listener, topic, security.clone()).await.unwrap();
    let commit = step(1, "service/api", NO_HEAD);
    assert_eq!(log.append(genesis(), Urgency::Ordinary).await, Ok(Offset(0)));
    assert_eq!(log.append(commit.clone(), Urgency::Ordinary).await, Ok(Offset(1)));
    let other = open(listener, topic, security).await.unwrap();
    let read = other.read(Offset(1), 9).await.unwrap();
    assert_eq!(read.iter().map(|record| &record.bytes).collect::<Vec<_>>(), [&commit]);
}

/// Returns what is said to who is not let in.
async fn refusal(listener: &str, security: Security) -> String {
    let begun = Instant::now();
    let refused = open(listener, "refused", security).await.expect_err("it is refused");
    assert!(begun.elapsed() < REFUSED_WITHIN, "{:?}: {refused}", begun.elapsed());
    assert!(matches!(refused, KafkaOpenError::Denied { .. }), "{refused:?}");
    refused.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn who_logs_in_over_tls_appends_and_reads() {
    for mechanism in Mechanism::ALL {
        is_served("login", mechanism.name(), login(mechanism)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn who_shows_a_certificate_appends_and_reads() {
    is_served("mutual", "mutual", certified()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn a_wrong_password_is_refused_at_once_and_not_repeated() {
    let mut security = login(Mechanism::ScramSha512);
    security.sasl.as_mut().unwrap().password = Secret::new("hush-not-this");
    let said = refusal("login", security).await;
    assert!(said.contains("Authentication failed"), "{said}");
    assert!(said.contains("check `username` and the password in the settings"), "{said}");
    assert!(!said.contains("hush"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn a_broker_that_nobody_trusted_vouches_for_gets_nothing() {
    let security = Security { tls: Some(tls("stranger.pem")), ..login(Mechanism::ScramSha256) };
    let said = refusal("login", security).await;
    assert!(said.contains("certificate"), "{said}");
    assert!(said.contains("`ca_file`"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn who_shows_no_certificate_where_one_is_asked_for_is_refused() {
    let said = refusal("mutual", Security { tls: Some(tls("ca.pem")), sasl: None }).await;
    assert!(said.contains("certificate"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn a_plain_connection_to_a_listener_that_speaks_tls_is_no_ledger() {
    let refused = open("login", "plain", Security::default()).await.expect_err("it is refused");
    assert!(matches!(refused, KafkaOpenError::Stranger { .. }), "{refused:?}");
    let said = refused.to_string();
    assert!(said.contains("speaks TLS") && said.contains("set `protocol` to ssl or sasl_ssl"), "{said}");
}
