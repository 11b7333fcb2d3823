//! Bits flip on the disk: every record is read as it was written, or the damage is named; never a wrong record, never
//! one that is silently gone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use futures::future::join_all;
use ledger::log::segments::{DataFolder, Segments, SegmentsOpenError, SegmentsOptions, SegmentsReader};
use ledger::log::{Log as _, ReadError, Record, Urgency};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use schemas::Offset;

use crate::world::{commit, quick_folder, read_all};

const FLIPS: usize = 1_000;
const RECORDS: u64 = 60;
const LAST_BATCH: u64 = 5;

/// Writes the log that is damaged: of several segments, its last batch of [`LAST_BATCH`] records.
async fn write_log(data: &Path) {
    let options = SegmentsOptions { segment_bytes: 6_000, ..SegmentsOptions::default() };
    let log = Segments::open(DataFolder::hold(data).unwrap(), options).unwrap();
    for n in 0..RECORDS - LAST_BATCH {
        log.append(commit(n), Urgency::Ordinary).await.unwrap();
    }
    // Polled in this order before any of them is waited for; whether they share a sync, their lines will tell.
    let last = join_all((RECORDS - LAST_BATCH..RECORDS).map(|n| log.append(commit(n), Urgency::Ordinary))).await;
    assert!(last.iter().all(Result::is_ok));
}

fn files(log: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

/// Returns how much of the log its own lines prove to have been acknowledged.
fn proven(files: &BTreeMap<PathBuf, Vec<u8>>) -> u64 {
    let (_, last) = files.iter().rfind(|(path, _)| path.extension().is_some()).unwrap();
    let line = String::from_utf8(last.clone()).unwrap().lines().last().unwrap().to_owned();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    line["synced"].as_u64().unwrap()
}

/// Checks what was read of the damaged log. `flipped` is the record in which the bit is; none if it is in no record.
fn judge(records: &[Record], error: Option<&ReadError>, flipped: Option<u64>, at_least: u64) {
    assert!(records.iter().all(|record| record.bytes == commit(record.offset.0)), "a wrong record");
    let read = records.len() as u64;
    match error {
        None => assert!(read >= at_least, "records from {read} on are silently gone"),
        Some(ReadError::Damaged { offset, what }) => {
            assert_eq!(Some(offset.0), flipped, "{what}");
            assert!(read <= offset.0);
            assert!(what.contains("byte ") && what.contains(".jsonl"), "{what}");
        }
        Some(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn every_flipped_bit_is_harmless_or_named() {
    let folder = quick_folder();
    let (data, log) = (folder.path().join("data"), folder.path().join("data/log"));
    write_log(&data).await;
    let whole = files(&log);
    let proven = proven(&whole);
    let end = log.canonicalize().unwrap().join("end");
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let targets: Vec<&PathBuf> = whole.keys().collect();
    let (mut named_at_start, mut named_when_read) = (0, 0);
    for round in 0..FLIPS {
        let target = targets[random.random_range(0..targets.len())];
        let mut bytes = whole[target].clone();
        let bit = random.random_range(0..bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let flipped = record_at(target, &whole[target], bit / 8);
        fs::write(target, &bytes).unwrap();
        // Every second time the hint is gone, as after a power cut: then the lines alone prove what was acknowledged.
        let hinted = round % 2 == 0;
        if !hinted {
            let _ = fs::remove_file(&end);
        }
        let hint_is_whole = hinted && target.extension().is_some();
        let at_least = if hint_is_whole || flipped.is_none() { RECORDS } else { proven };

        let reader = SegmentsReader::open(&data, None).unwrap();
        let (records, error) = read_all(|from| reader.read_blocking(from, 100));
        judge(&records, error.as_ref(), flipped, at_least);
        match Segments::open(DataFolder::hold(&data).unwrap(), SegmentsOptions::default()) {
            Ok(log) => {
                let (records, error) = read_all(|from| log.read_blocking(from, 100));
                judge(&records, error.as_ref(), flipped, at_least);
                named_when_read += usize::from(error.is_some());
            }
            Err(SegmentsOpenError::Log(error)) => {
                judge(&[], Some(&error), flipped, at_least);
                named_at_start += 1;
            }
            Err(other) => panic!("{other}"),
        }
        restore(&log, &whole);
    }
    assert!(named_at_start > 50 && named_when_read > 200, "{named_at_start} at a start, {named_when_read} when read");
}

fn restore(log: &Path, whole: &BTreeMap<PathBuf, Vec<u8>>) {
    for path in files(log).into_keys().filter(|path| !whole.contains_key(path)) {
        fs::remove_file(path).unwrap();
    }
    for (path, bytes) in whole {
        fs::write(path, bytes).unwrap();
    }
}

/// Returns the record whose line holds the byte `at` of a segment.
fn record_at(path: &Path, bytes: &[u8], at: usize) -> Option<u64> {
    let first: u64 = path.file_stem()?.to_str()?.parse().ok()?;
    let before = bytes[..at].iter().filter(|b| **b == b'\n').count() as u64;
    Some(Offset(first + before).0)
}
