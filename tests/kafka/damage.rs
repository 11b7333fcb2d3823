//! A topic whose past is not what it was, or that would not keep it.

use ledger::log::contract::{genesis, step};
use ledger::log::kafka::{Kafka, KafkaOpenError, KafkaOptions, Weak};
use ledger::log::{Log as _, ReadError, Urgency};
use ledger::rule::NO_HEAD;
use ledger::{View, execute};
use schemas::Offset;

use crate::raw::{Topic, append, stopped, warned};
use support::cluster::Cluster;

/// As a ledger makes its topic.
const GOOD: [(&str, &str); 6] = [
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("min.insync.replicas", "2"),
    ("unclean.leader.election.enable", "false"),
    ("compression.type", "uncompressed"),
];

fn but(name: &str, value: &'static str) -> Vec<(&'static str, &'static str)> {
    GOOD.into_iter().map(|(known, good)| (known, if known == name { value } else { good })).collect()
}

async fn view_of(topic: &Topic) -> View {
    let log = topic.open().await.unwrap();
    let mut view = View::default();
    execute::catch_up(&log, &mut view).await.unwrap();
    log.follows(&view).await.unwrap();
    view
}

fn damage(error: ReadError) -> (u64, String) {
    match error {
        ReadError::Damaged { offset, what } => (offset.0, what),
        other => panic!("{other}"),
    }
}

fn open_damage(opened: Result<impl std::fmt::Debug, KafkaOpenError>) -> (u64, String) {
    match opened.expect_err("it is refused") {
        KafkaOpenError::Log(error) => damage(error),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn a_topic_that_would_lose_records_is_refused_by_the_name_of_its_setting() {
    for (name, bad) in [
        ("cleanup.policy", "compact"),
        ("cleanup.policy", "compact,delete"),
        ("retention.ms", "604800000"),
        ("retention.bytes", "1073741824"),
        ("min.insync.replicas", "1"),
        ("unclean.leader.election.enable", "true"),
        ("compression.type", "producer"),
    ] {
        let topic = Topic::new();
        topic.make(1, 3, &but(name, bad)).await;
        match topic.open().await {
            Err(KafkaOpenError::Settings { weak, .. }) => {
                let sorted = |text: &str| text.split(',').collect::<std::collections::BTreeSet<_>>().len();
                let [Weak { name: named, found, .. }] = &weak[..] else { panic!("{weak:?}") };
                assert_eq!((*named, sorted(found)), (name, sorted(bad)));
            }
            other => panic!("{name}={bad}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn everything_that_is_too_weak_is_named_at_once() {
    let topic = Topic::new();
    let bad = [("cleanup.policy", "compact"), ("min.insync.replicas", "1"), ("unclean.leader.election.enable", "true")];
    topic.make(1, 2, &bad).await;
    match topic.open().await {
        Err(KafkaOpenError::Settings { weak, .. }) => {
            let names: Vec<&str> = weak.iter().map(|weak| weak.name).collect();
            let wanted = [
                "replicas",
                "cleanup.policy",
                "retention.ms",
                "min.insync.replicas",
                "unclean.leader.election.enable",
                "compression.type",
            ];
            assert_eq!(names, wanted);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn a_topic_with_too_few_replicas_or_two_partitions_is_refused() {
    let topic = Topic::new();
    topic.make(1, 1, &but("min.insync.replicas", "1")).await;
    let refused = topic.open().await.expect_err("it is refused").to_string();
    let all = "has replicas=1, a ledger needs 3, or --dev if it may be lost; has min.insync.replicas=1, a ledger needs 2; set";
    assert!(refused.contains(all), "{refused}");
    let dev = KafkaOptions { dev: true, ..KafkaOptions::default() };
    Kafka::open(topic.place(), dev.clone()).await.expect("--dev takes it");
    let topic = Topic::new();
    topic.make(2, 3, &GOOD).await;
    assert!(matches!(Kafka::open(topic.place(), dev).await, Err(KafkaOpenError::Partitions { found: 2, .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn where_a_ledger_must_be_none_is_made() {
    let topic = Topic::new();
    let must_exist = KafkaOptions { must_exist: true, ..KafkaOptions::default() };
    for _ in 0..2 {
        let opened = Kafka::open(topic.place(), must_exist.clone()).await;
        assert!(matches!(opened, Err(KafkaOpenError::NoTopic(_))), "{opened:?}");
    }
    let nobody = "kafka://127.0.0.1:1".parse().unwrap();
    let opened = Kafka::open(nobody, must_exist).await;
    assert!(matches!(opened, Err(KafkaOpenError::Unreachable { .. })), "{opened:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn a_head_that_was_cut_off_is_named_at_the_start_and_while_it_runs() {
    let topic = Topic::filled(20).await;
    let log = topic.open().await.unwrap();
    topic.cut_head(7).await;
    let (offset, what) = damage(stopped(&log).await);
    assert!(offset == 0 && what.contains("before offset 7"), "{offset} {what}");
    let refused = log.append(step(99, "service/new", NO_HEAD), Urgency::Ordinary).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("before offset 7")));
    let (offset, what) = open_damage(topic.open().await);
    assert!(offset == 0 && what.contains("before offset 7"), "{offset} {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn a_topic_that_was_made_anew_and_is_shorter_is_named_at_the_start_and_while_it_runs() {
    let topic = Topic::filled(20).await;
    let view = view_of(&topic).await;
    let running = topic.open().await.unwrap();
    topic.delete().await;
    topic.make(1, 3, &GOOD).await;
    topic.fill(3).await;
    damage(stopped(&running).await);
    let log = topic.open().await.unwrap();
    let (offset, what) = open_damage(log.follows(&view).await);
    assert!(offset == 4 && what.contains("21 records were read before"), "{offset} {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn a_topic_that_was_made_anew_and_is_longer_is_named_at_the_start_and_while_it_runs() {
    let topic = Topic::filled(5).await;
    let view = view_of(&topic).await;
    let running = topic.open().await.unwrap();
    topic.delete().await;
    // Another ledger.
    topic.make(1, 3, &GOOD).await;
    let log = topic.open().await.unwrap();
    append(&log, execute::genesis(schemas::Timestamp::UNIX_EPOCH)).await;
    for n in 0..40 {
        append(&log, step(n, "service/other", NO_HEAD)).await;
    }
    let (offset, what) = open_damage(log.follows(&view).await);
    assert!(offset == 0 && what.contains("not the record that was folded"), "{offset} {what}");
    damage(stopped(&running).await);
    assert!(
        running.read(Offset(5), 9).await.is_ok_and(|records| records.iter().all(|record| record.offset < Offset(6)))
    );
}

/// As after an election of a broker that had missed something: the same beginning, then others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn a_tail_that_was_replaced_is_named_at_the_start() {
    let topic = Topic::filled(5).await;
    let view = view_of(&topic).await;
    let other = Topic::new();
    let log = other.open().await.unwrap();
    append(&log, genesis()).await;
    for n in 0..9 {
        append(&log, step(n + 1, &format!("service/t{n}"), NO_HEAD)).await;
    }
    let (offset, what) = open_damage(log.follows(&view).await);
    assert!(offset == 5 && what.contains("not the record that was folded"), "{offset} {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn a_setting_that_is_weakened_while_it_runs_is_named_and_commits_go_on() {
    let topic = Topic::filled(2).await;
    let log = topic.open().await.unwrap();
    assert_eq!(log.status().warnings, Vec::<String>::new());
    topic.set(&but("cleanup.policy", "compact")).await;
    warned(&log, "compaction", |all| all.iter().any(|each| each.contains("cleanup.policy=compact"))).await;
    topic.set(&but("retention.ms", "3600000")).await;
    warned(&log, "retention", |all| all.iter().any(|each| each.contains("retention.ms=3600000"))).await;
    append(&log, step(50, "service/new", NO_HEAD)).await;
    topic.set(&GOOD).await;
    warned(&log, "none", <[String]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn too_few_brokers_are_refused_without_dev() {
    let one = Cluster::start(1);
    let topic = Topic::on(&one);
    assert!(matches!(topic.open().await, Err(KafkaOpenError::Brokers { found: 1, .. })));
    let log = Kafka::open(topic.place(), KafkaOptions { dev: true, ..KafkaOptions::default() }).await.unwrap();
    assert_eq!(append(&log, genesis()).await, Offset(0));
}
