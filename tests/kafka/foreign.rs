//! What other programs write into a ledger's topic: it is set aside, or the ledger stops and says why.

use ledger::Halt;
use ledger::execute::LedgerOpenError;
use ledger::log::contract::{Commit, step};
use ledger::log::{Log as _, ReadError};
use ledger::rule::{NO_HEAD, Parsed, Void, canonical};
use rdkafka::message::{Header, OwnedHeaders};
use schemas::Offset;

use crate::raw::{Topic, append, ledger, stopped};

/// A record's key, value, headers, and what it is compressed with.
type Foreign<'a> = (Option<&'a str>, Option<&'a [u8]>, Option<OwnedHeaders>, &'a str);

fn headers(pairs: &[(&str, &str)]) -> OwnedHeaders {
    pairs.iter().fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(*value) }))
}

/// Garbage, tombstones, a megabyte, a commit under a stranger's headers or none, what was compressed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn what_is_no_commit_is_set_aside_and_the_ledger_goes_on_behind_it() {
    let topic = Topic::filled(1).await;
    let log = topic.open().await.unwrap();
    let commit = step(7, "service/foreign", NO_HEAD);
    let big = vec![b'x'; 1_000_000];
    let odd = headers(&[("ce_id", "7"), ("ce_type", "order.placed")]);
    let values: [Foreign<'_>; 8] = [
        (None, Some(b"garbage"), None, "none"),
        (None, Some(b"\xff\xfe\x00"), Some(odd.clone()), "none"),
        (Some("service/s0"), None, None, "none"),
        (None, None, None, "none"),
        (Some("k"), Some(&big), None, "none"),
        (Some("k"), Some(&big), None, "lz4"),
        (None, Some(&commit), None, "none"),
        (Some("service/foreign"), Some(&commit), Some(odd), "none"),
    ];
    for (key, value, headers, codec) in &values {
        topic.write(*key, *value, headers.clone(), codec);
    }
    let after = append(&log, step(9, "service/after", NO_HEAD)).await;
    assert_eq!(after, Offset(10));
    let fresh = topic.open().await.unwrap();
    let mut records = Vec::new();
    for reader in [&log, &fresh] {
        records.clear();
        while records.len() < 11 {
            records.extend(reader.read(Offset(records.len() as u64), 99).await.unwrap());
        }
        for (record, (_, value, ..)) in records[2..10].iter().zip(&values) {
            let bytes = bytes::Bytes::copy_from_slice(value.unwrap_or_default());
            let parsed = Parsed::of(&record.bytes);
            assert!(parsed.envelope.is_none() && record.bytes.len() < 200, "{record:?}");
            if Parsed::of(&bytes).envelope.is_none() {
                assert_eq!(record.bytes, canonical(&bytes), "the same stub as everywhere");
            }
        }
    }
    let mut view = ledger::View::default();
    let voids = records.iter().map(|record| view.fold(record.offset, &record.bytes).unwrap().void);
    let voids: Vec<Option<Void>> = voids.collect();
    assert_eq!(voids.iter().filter(|void| **void == Some(Void::Malformed)).count(), 8);
}

/// A record as `golden.jsonl` has it.
#[derive(serde::Deserialize)]
struct Golden {
    name: String,
    key: Option<String>,
    headers: Vec<(String, Option<String>)>,
    value: Option<String>,
    taken_for: String,
}

/// The vectors, written by another program from the definition in docs/rule.md, through a real broker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn every_golden_record_is_taken_for_what_it_is() {
    let topic = Topic::new();
    let log = topic.open().await.unwrap();
    let vectors = include_str!("../../ledger/src/log/kafka/golden.jsonl").lines();
    let vectors: Vec<Golden> = vectors.map(|line| serde_json::from_str(line).unwrap()).collect();
    for Golden { key, headers, value, .. } in &vectors {
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: value.as_deref() }));
        topic.write(key.as_deref(), value.as_deref().map(str::as_bytes), Some(headers), "none");
    }
    let mut records = Vec::new();
    let mut end = log.end();
    end.wait_for(|end| end.0 >= vectors.len() as u64).await.unwrap();
    while records.len() < vectors.len() {
        records.extend(log.read(Offset(records.len() as u64), 99).await.unwrap());
    }
    for (Golden { name, value, taken_for, .. }, record) in vectors.iter().zip(records) {
        let value = bytes::Bytes::copy_from_slice(value.as_deref().unwrap_or_default().as_bytes());
        let digest = schemas::Hash::of(&value);
        let stub = format!(r#"{{"malformed":{{"sha256":"{digest}","len":{}}}}}"#, value.len());
        let wanted = if taken_for == "the value" { value } else { stub.into() };
        assert_eq!(record.bytes, wanted, "{name}");
    }
}

/// Ten bytes that look like another rule's stop nobody, whatever type they are written under.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn a_value_that_names_another_rule_under_other_headers_is_malformed() {
    let topic = Topic::new();
    let running = ledger(topic.open().await.unwrap()).await.unwrap();
    let later = &br#"{"rule":2}"#[..];
    let commit = step(7, "service/foreign", NO_HEAD);
    let agreeing = ("ce_type", "ionledger.commit.v2");
    let values: [(&[u8], Option<OwnedHeaders>); 9] = [
        (later, None),
        (later, Some(headers(&[]))),
        (later, Some(headers(&[("ce_type", "ionledger.commit.v1")]))),
        (later, Some(headers(&[("ce_type", "ionledger.commit.v3")]))),
        (later, Some(headers(&[agreeing, ("ce_type", "ionledger.commit.v2")]))),
        (later, Some(headers(&[("CE_TYPE", "ionledger.commit.v2")]))),
        (br#"{"rule":0}"#, Some(headers(&[("ce_type", "ionledger.commit.v0")]))),
        (br#"["rule",2]"#, Some(headers(&[agreeing]))),
        (&commit, Some(headers(&[agreeing]))),
    ];
    for (value, headers) in &values {
        topic.write(None, Some(value), headers.clone(), "none");
    }
    let next = Offset(1 + values.len() as u64);
    let mut folded = running.folded();
    let all = folded.wait_for(|folded| *folded >= next || running.halted().is_some());
    tokio::time::timeout(support::cluster::DEADLINE, all).await.expect("they are read").unwrap();
    assert_eq!((running.halted(), running.view().voids()), (None, values.len() as u64));
    let opened = ledger(topic.open().await.unwrap()).await.unwrap();
    assert_eq!((opened.halted(), opened.view().tree().root()), (None, running.view().tree().root()));
}

/// Whoever can write can forge a commit, and with it the ledger's time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn a_commit_that_is_a_day_ahead_of_its_broker_is_named() {
    let topic = Topic::filled(1).await;
    let log = topic.open().await.unwrap();
    let now = schemas::Timestamp::now();
    let hours = |hours| now.checked_add(jiff::SignedDuration::from_hours(hours)).unwrap();
    for (n, time) in [(7, hours(20)), (8, hours(30)), (9, hours(-2_000))] {
        let stream = format!("service/t{n}");
        append(&log, Commit::new(n).at(time).extends(&stream, NO_HEAD).event(&stream, "test.stepped").bytes()).await;
    }
    for reader in [log, topic.open().await.unwrap()] {
        let mut view = ledger::View::default();
        ledger::execute::catch_up(&reader, &mut view).await.unwrap();
        let ahead = reader.ahead();
        let named: Vec<(Offset, schemas::Timestamp)> = ahead.iter().map(|ahead| (ahead.offset, ahead.time)).collect();
        assert_eq!(named, [(Offset(3), hours(30))]);
        assert!(ahead[0].taken.duration_since(now).abs() < jiff::SignedDuration::from_hours(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn a_record_for_a_future_rule_halts_every_reader_at_its_place() {
    let topic = Topic::new();
    let running = ledger(topic.open().await.unwrap()).await.unwrap();
    let agreeing = headers(&[("ce_id", "1"), ("ce_type", "ionledger.commit.v2")]);
    topic.write(None, Some(br#"{"rule":2,"in":"another shape"}"#), Some(agreeing), "none");
    let mut folded = running.folded();
    let halted = folded.wait_for(|_| running.halted().is_some());
    tokio::time::timeout(support::cluster::DEADLINE, halted).await.expect("it halts").unwrap();
    let why = running.halted().unwrap();
    assert!(why.contains("offset 1 follows rule 2"), "{why}");
    let opened = ledger(topic.open().await.unwrap()).await.unwrap();
    assert_eq!((opened.halted(), opened.view().next()), (Some(why), Offset(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn a_topic_that_is_no_ledger_is_refused() {
    let topic = Topic::new();
    drop(topic.open().await.unwrap());
    topic.write(None, Some(b"an order"), None, "none");
    let opened = ledger(topic.open().await.unwrap()).await.err();
    assert!(matches!(opened, Some(LedgerOpenError::Halt(Halt::NoGenesis))), "{opened:?}");
}

/// The end of a transaction takes an offset that holds no record: no reader could tell it from one that was removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn a_place_without_a_record_stops_the_ledger_there() {
    let topic = Topic::filled(1).await;
    let log = topic.open().await.unwrap();
    topic.write_in_transaction(b"an order");
    match stopped(&log).await {
        ReadError::Damaged { offset: Offset(3), what } => assert!(what.contains("no record is here"), "{what}"),
        other => panic!("{other}"),
    }
    topic.write(None, Some(b"another"), None, "none");
    let log = topic.open().await.unwrap();
    assert_eq!(log.read(Offset(2), 99).await.unwrap().len(), 1);
    match log.read(Offset(3), 99).await {
        Err(ReadError::Damaged { offset: Offset(3), what }) => {
            assert!(what.contains("offset 4 comes instead"), "{what}")
        }
        other => panic!("{other:?}"),
    }
}
