//! Brokers that stand still, die and come back, under a ledger of one broker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ledger::log::contract::{genesis, step};
use ledger::log::kafka::{Kafka, KafkaOptions};
use ledger::log::{AppendError, Log as _, Subscription, Urgency};
use ledger::rule::NO_HEAD;
use schemas::Offset;

use crate::raw::{Topic, append};
use support::cluster::{Cluster, DEADLINE};

async fn open(topic: &Topic) -> Kafka {
    Kafka::open(topic.place(), KafkaOptions { dev: true, ..KafkaOptions::default() }).await.unwrap()
}

/// Sends the same bytes until they are taken, as a ledger does.
async fn settle(log: &Kafka, bytes: bytes::Bytes) -> Offset {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match log.append(bytes.clone(), Urgency::Ordinary).await {
            Ok(offset) => return offset,
            Err(AppendError::Stopped(why)) => panic!("{why}"),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn without_brokers_an_append_is_ambiguous_and_the_end_unknown_and_with_them_all_goes_on() {
    let cluster = Cluster::start(1);
    let topic = Topic::on(&cluster);
    let log = open(&topic).await;
    append(&log, genesis()).await;
    let follower = open(&topic).await;
    let mut subscription = Subscription::new(&follower, Offset(1));

    cluster.pause(1);
    let unanswered = log.append(step(1, "service/api", NO_HEAD), Urgency::Ordinary).await;
    assert!(matches!(unanswered, Err(AppendError::Ambiguous(_))), "{unanswered:?}");
    assert!(log.latest().await.is_err(), "nobody can be asked");
    cluster.resume(1);
    let paused = settle(&log, step(1, "service/api", NO_HEAD)).await;
    assert!(paused == Offset(1) || paused == Offset(2), "at most the one copy came before it: {paused}");

    cluster.kill(1);
    let unanswered = log.append(step(2, "service/api", NO_HEAD), Urgency::Ordinary).await;
    assert!(matches!(unanswered, Err(AppendError::Ambiguous(_) | AppendError::Refused(_))), "{unanswered:?}");
    cluster.launch(1);
    let last = settle(&log, step(2, "service/api", NO_HEAD)).await;

    let mut seen = Vec::new();
    while seen.len() as u64 != last.0 {
        seen.extend(tokio::time::timeout(DEADLINE, subscription.next()).await.expect("it goes on").unwrap());
    }
    assert!(seen.iter().enumerate().all(|(n, record)| record.offset == Offset(n as u64 + 1)), "without a gap");
    assert_eq!(seen.last().unwrap().bytes, step(2, "service/api", NO_HEAD));
    assert!(log.latest().await.unwrap() > last);
}

/// A broker that has just come back answers before it knows its topics, and leads before it knows what was agreed on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn brokers_that_come_back_one_after_the_other_are_not_taken_for_a_lost_ledger() {
    let cluster = Cluster::start(3);
    let topic = Topic::on(&cluster);
    let log = Kafka::open(topic.place(), KafkaOptions::default()).await.unwrap();
    append(&log, genesis()).await;
    for n in 1..20 {
        append(&log, step(n, &format!("service/t{n}"), NO_HEAD)).await;
    }
    (1..=3).for_each(|broker| cluster.kill(broker));
    for broker in 1..=3 {
        cluster.launch(broker);
        // Real brokers, one after the other: each has some time in which the others are still down.
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    let offset = settle(&log, step(20, "service/api", NO_HEAD)).await;
    assert!(offset >= Offset(20), "nothing of what was acknowledged is lost: {offset}");
    let records = log.read(offset, 1).await.unwrap();
    assert_eq!(records[0].bytes, step(20, "service/api", NO_HEAD));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn a_log_is_dropped_in_time_though_its_broker_stands_still() {
    let cluster = Cluster::start(1);
    let topic = Topic::on(&cluster);
    let log = Arc::new(open(&topic).await);
    append(&log, genesis()).await;
    cluster.pause(1);
    let appending = Arc::clone(&log);
    let appending = tokio::spawn(async move { appending.append(step(1, "s", NO_HEAD), Urgency::Ordinary).await });
    assert!(log.latest().await.is_err());
    let _ = appending.await.unwrap();
    let begun = Instant::now();
    drop(Arc::into_inner(log).expect("the last one"));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    cluster.resume(1);
}
