//! What needs no real broker, against the client library's own imitation of one.

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::mocking::MockCluster;

use super::*;
use crate::log::Subscription;
use crate::log::contract::step;
use crate::rule::NO_HEAD;

/// Longer than anything takes that works.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Opens a log on `cluster`, which knows no settings to look at.
async fn open(servers: String) -> Kafka {
    let place: KafkaAddress = format!("kafka://{servers}").parse().unwrap();
    let runtime = tokio::runtime::Handle::current();
    let clients = Clients::new(place, &KafkaOptions::default());
    blocking(move || Kafka::begin(clients, Status::default(), true, runtime)).await.unwrap()
}

fn mock() -> MockCluster<'static, rdkafka::producer::DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, 1, 1).unwrap();
    cluster
}

async fn append(log: &Kafka, n: u128) -> Result<Offset, AppendError> {
    log.append(step(n, "service/api", NO_HEAD), Urgency::Ordinary).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_falls_silent_without_an_error_is_replaced_and_nothing_is_missed() {
    let cluster = mock();
    let log = open(cluster.bootstrap_servers()).await;
    assert_eq!(append(&log, 0).await, Ok(Offset(0)));
    let mut topic = TopicPartitionList::new();
    topic.add_partition(TOPIC, 0);
    let consumer = log.follower.lock().unwrap().consumer.upgrade().expect("it follows");
    consumer.pause(&topic).unwrap();
    drop(consumer);
    let mut subscription = Subscription::new(&log, Offset(1));
    let (appended, seen) = futures::join!(append(&log, 1), tokio::time::timeout(WAIT_MAX, subscription.next()));
    assert_eq!(appended, Ok(Offset(1)), "the record is read back by another");
    let seen = seen.expect("it comes").unwrap();
    assert_eq!(seen, log.read(Offset(1), 9).await.unwrap());
    assert_eq!(log.status().replaced, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_broker_answers_too_late_is_ambiguous_and_the_same_bytes_again_are_taken() {
    let cluster = mock();
    let log = open(cluster.bootstrap_servers()).await;
    assert_eq!(append(&log, 0).await, Ok(Offset(0)));
    cluster.broker_round_trip_time(1, Duration::from_secs(9)).unwrap();
    let unanswered = append(&log, 1).await;
    assert!(matches!(unanswered, Err(AppendError::Ambiguous(_))), "{unanswered:?}");
    cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
    let offset = tokio::time::timeout(WAIT_MAX, async {
        loop {
            match append(&log, 1).await {
                Ok(offset) => return offset,
                Err(error) => assert!(!matches!(error, AppendError::Stopped(_)), "{error}"),
            }
        }
    });
    let offset = offset.await.expect("it is taken");
    let record = log.read(offset, 1).await.unwrap().remove(0);
    assert_eq!(record.bytes, step(1, "service/api", NO_HEAD));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_a_log_whose_broker_is_gone_does_not_hang() {
    let cluster = mock();
    let log = Arc::new(open(cluster.bootstrap_servers()).await);
    assert_eq!(append(&log, 0).await, Ok(Offset(0)));
    cluster.broker_down(1).unwrap();
    let appending = Arc::clone(&log);
    let appending = tokio::spawn(async move { append(&appending, 1).await });
    while log.latest().await.is_ok() {}
    appending.abort();
    let _ = appending.await;
    let begun = Instant::now();
    drop(Arc::into_inner(log).expect("the last one"));
    assert!(begun.elapsed() < CLOSE_MAX + Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[test]
fn brokers_that_do_not_answer_in_time_are_not_taken_for_a_missing_right() {
    use rdkafka::types::RDKafkaErrorCode::{OperationTimedOut, RequestTimedOut, TopicAuthorizationFailed};
    let said = |code: rdkafka::types::RDKafkaErrorCode| {
        KafkaOpenError::NotMade { topic: "t".to_owned(), why: code.to_string() }.to_string()
    };
    for late in [OperationTimedOut, RequestTimedOut] {
        assert!(said(late).contains("try again") && !said(late).contains("let this user"), "{}", said(late));
    }
    assert!(said(TopicAuthorizationFailed).contains("let this user make topics"), "{}", said(TopicAuthorizationFailed));
}
