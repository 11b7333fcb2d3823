//! What only files can show: how they look, what happens to them, and what is said about it.

use std::fs;
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::log::contract::{Carrier, Commit, step};
use crate::rule::NO_HEAD;

/// A data folder that outlives who opens it. Its segments are short, so that the contract crosses them.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("log")
    }

    fn segment(&self, first: u64) -> PathBuf {
        self.log().join(folder::segment_name(Offset(first)))
    }

    fn try_open(&self, segment_bytes: u64, known_end: Option<Offset>) -> Result<Segments, SegmentsOpenError> {
        Segments::open(
            DataFolder::hold(self.0.path())?,
            SegmentsOptions { segment_bytes, known_end, ..SegmentsOptions::default() },
        )
    }

    fn open_one(&self) -> Segments {
        self.try_open(64 << 20, None).unwrap()
    }

    fn reader(&self) -> SegmentsReader {
        SegmentsReader::open(self.0.path(), None).unwrap()
    }

    /// Appends `count` commits, one batch each.
    async fn fill(&self, count: u128) -> Vec<Bytes> {
        let log = self.open_one();
        let commits: Vec<Bytes> = (0..count).map(|n| step(n, "service/api", NO_HEAD)).collect();
        for commit in &commits {
            log.append(commit.clone(), Urgency::Ordinary).await.unwrap();
        }
        commits
    }
}

#[async_trait]
impl Carrier for Files {
    async fn open(&self) -> Arc<dyn Log> {
        Arc::new(self.try_open(2_000, None).unwrap())
    }
}

crate::contract_tests!(Files::new());

fn bytes_of(records: Vec<Record>) -> Vec<Bytes> {
    records.into_iter().map(|record| record.bytes).collect()
}

fn read_all(log: &Segments) -> Result<Vec<Bytes>, ReadError> {
    log.read_blocking(Offset(0), 1_000).map(bytes_of)
}

/// Changes a file's bytes.
fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Returns where the line of the `n`-th record begins.
fn line_at(bytes: &[u8], n: usize) -> usize {
    let ends = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1);
    std::iter::once(0).chain(ends).nth(n).unwrap()
}

fn damage(error: SegmentsOpenError) -> (u64, String) {
    match error {
        SegmentsOpenError::Log(ReadError::Damaged { offset, what }) => (offset.0, what),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_segment_is_lines_of_json_with_each_commits_exact_bytes() {
    let files = Files::new();
    let commits = files.fill(3).await;
    let text = fs::read_to_string(files.segment(0)).unwrap();
    for (n, (line, commit)) in text.lines().zip(&commits).enumerate() {
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&json["offset"], &json["synced"]), (&n.into(), &n.into()));
        assert!(line.ends_with(&format!("\"commit\":{}}}", std::str::from_utf8(commit).unwrap())));
    }
    assert_eq!(text.lines().count(), 3);
}

#[tokio::test]
async fn segments_roll_and_a_read_goes_across_them() {
    let files = Files::new();
    let log = files.try_open(2_000, None).unwrap();
    let commits: Vec<Bytes> = (0..50).map(|n| step(n, "service/api", NO_HEAD)).collect();
    for commit in &commits {
        log.append(commit.clone(), Urgency::Ordinary).await.unwrap();
    }
    drop(log);
    assert!(folder::segments(&files.log()).unwrap().len() > 5);
    let log = files.try_open(2_000, None).unwrap();
    assert_eq!(read_all(&log).unwrap(), commits);
}

#[tokio::test]
async fn a_folder_that_is_held_is_refused_with_its_holder() {
    let files = Files::new();
    let log = files.open_one();
    let error = files.try_open(1, None).unwrap_err().to_string();
    let folder = files.0.path().canonicalize().unwrap();
    let pid = std::process::id();
    assert_eq!(
        error,
        format!("the data folder {} is held by process {pid}; stop it or use its socket", folder.display())
    );
    drop(log);
    files.open_one();
}

#[tokio::test]
async fn a_folder_of_a_newer_format_is_refused_for_writing_and_for_reading() {
    let files = Files::new();
    files.fill(1).await;
    fs::write(files.0.path().join("format.json"), r#"{"format":2}"#).unwrap();
    let errors = [
        files.try_open(1, None).unwrap_err().to_string(),
        SegmentsReader::open(files.0.path(), None).unwrap_err().to_string(),
    ];
    assert!(errors.iter().all(|error| error.ends_with("has format 2, this program knows 1; upgrade ionledger")));
}

#[tokio::test]
async fn a_torn_tail_is_kept_aside_and_cut_off() {
    let files = Files::new();
    let commits = files.fill(3).await;
    // A batch of three that a power cut stopped: the first line is whole, the second was never written, the third is.
    let mut torn = Vec::new();
    let lost: Vec<Bytes> = (3..6).map(|n| step(n, "service/api", NO_HEAD)).collect();
    for (n, commit) in lost.iter().enumerate() {
        line::write(&mut torn, Offset(3 + n as u64), Offset(3), commit);
    }
    let (hole, after) = (line_at(&torn, 1), line_at(&torn, 2));
    torn[hole..after].fill(0);
    edit(&files.segment(0), |bytes| bytes.extend_from_slice(&torn));

    assert_eq!(files.reader().read_blocking(Offset(0), 9).unwrap().len(), 4, "a reader shows what a start keeps");
    let log = files.open_one();
    assert_eq!(read_all(&log).unwrap(), [&commits[..], &lost[..1]].concat());
    assert_eq!(fs::read(files.log().join("torn-4-0.bin")).unwrap(), torn[hole..]);
    assert_eq!(log.append(lost[1].clone(), Urgency::Ordinary).await, Ok(Offset(4)));
    drop(log);
    assert_eq!(read_all(&files.open_one()).unwrap(), [&commits[..], &lost[..2]].concat());
}

/// What the power leaves of bytes written behind `len` and not synced: some sectors are there, some are not, and the
/// file's length may not have grown as far.
fn leave_some_sectors(bytes: &mut Vec<u8>, len: usize, random: &mut ChaCha8Rng) {
    let chance = random.random_range(0.0..1.0);
    for sector in (len / 512)..bytes.len().div_ceil(512) {
        let sector = (sector * 512).max(len)..((sector + 1) * 512).min(bytes.len());
        if random.random_bool(chance) {
            bytes[sector].fill(0);
        }
    }
    if random.random_bool(0.3) {
        let cut = random.random_range(len..=bytes.len());
        bytes.truncate(cut);
    }
}

#[tokio::test]
async fn a_tail_torn_in_any_sectors_keeps_what_was_acknowledged_and_the_lines_before_the_first_hole() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let files = Files::new();
    let commits = files.fill(3).await;
    let base = fs::read(files.segment(0)).unwrap();
    let mut kept_of_torn = [0; 9];
    for _ in 0..400 {
        let mut torn = base.clone();
        let batch: Vec<Bytes> = (3..3 + random.random_range(1..9)).map(|n| step(n, "service/api", NO_HEAD)).collect();
        let mut ends = Vec::new();
        for (n, commit) in batch.iter().enumerate() {
            line::write(&mut torn, Offset(3 + n as u64), Offset(3), commit);
            ends.push(torn.len());
        }
        let whole = torn.clone();
        leave_some_sectors(&mut torn, base.len(), &mut random);
        fs::write(files.segment(0), &torn).unwrap();
        let hint = if random.random_bool(0.5) { Some(Offset(3)) } else { None };
        let _ = fs::remove_file(files.log().join("end"));
        if let Some(end) = hint {
            hint::Hint::open(&files.log()).write(end);
        }

        let kept = ends.iter().take_while(|end| torn.get(..**end) == Some(&whole[..**end])).count();
        let expected = [&commits[..], &batch[..kept]].concat();
        assert_eq!(bytes_of(files.reader().read_blocking(Offset(0), 99).unwrap()), expected);
        let log = files.open_one();
        assert_eq!(read_all(&log).unwrap(), expected);
        let next = step(99, "service/api", NO_HEAD);
        assert_eq!(log.append(next.clone(), Urgency::Ordinary).await, Ok(Offset(3 + kept as u64)));
        drop(log);
        assert_eq!(read_all(&files.open_one()).unwrap(), [expected, vec![next]].concat());
        kept_of_torn[kept] += 1;
    }
    assert!(kept_of_torn[..4].iter().all(|count| *count > 5), "{kept_of_torn:?}");
}

#[tokio::test]
async fn a_bad_place_that_a_later_line_proves_synced_stops_the_start() {
    let files = Files::new();
    files.fill(5).await;
    fs::remove_file(files.log().join("end")).unwrap();
    let whole = fs::read(files.segment(0)).unwrap();
    let (second, fourth) = (line_at(&whole, 1), line_at(&whole, 3));
    edit(&files.segment(0), |bytes| bytes[second + 5] ^= 1);
    let (offset, what) = damage(files.try_open(1, None).unwrap_err());
    assert_eq!(offset, 1);
    let last = line_at(&whole, 4);
    assert_eq!(
        what,
        format!(
            "segment {}, byte {second}: the line does not have the form of a record, but the line at byte {last} says \
             that everything before offset 4 was acknowledged",
            files.segment(0).canonicalize().unwrap().display()
        )
    );
    // Nothing was changed, and a reader names the same place after it has given what is before it.
    assert_eq!(fs::read(files.segment(0)).unwrap().len(), whole.len());
    let reader = files.reader();
    assert_eq!(reader.read_blocking(Offset(0), 9).unwrap().len(), 1);
    assert!(matches!(reader.read_blocking(Offset(1), 9), Err(ReadError::Damaged { offset: Offset(1), .. })));
    assert!(fourth < last);
}

#[tokio::test]
async fn a_lost_newline_does_not_hide_the_line_that_proves_the_one_before_it() {
    let files = Files::new();
    files.fill(2).await;
    fs::remove_file(files.log().join("end")).unwrap();
    let second = line_at(&fs::read(files.segment(0)).unwrap(), 1);
    edit(&files.segment(0), |bytes| bytes[second - 1] ^= 2);
    assert_eq!(damage(files.try_open(1, None).unwrap_err()).0, 0);
}

#[tokio::test]
async fn an_acknowledged_last_line_is_missed_by_the_hint_or_by_what_was_folded() {
    for (hint, known_end) in [(true, None), (false, Some(Offset(3)))] {
        let files = Files::new();
        files.fill(3).await;
        if !hint {
            fs::remove_file(files.log().join("end")).unwrap();
        }
        let last = line_at(&fs::read(files.segment(0)).unwrap(), 2);
        for len in [last, last + 7] {
            edit(&files.segment(0), |bytes| bytes.resize(len, 0));
            let (offset, what) = damage(files.try_open(1, known_end).unwrap_err());
            assert!(offset == 2 && what.contains(&format!("byte {last}:")), "{offset} {what}");
        }
        let reader = SegmentsReader::open(files.0.path(), known_end).unwrap();
        assert_eq!(reader.read_blocking(Offset(0), 9).unwrap().len(), 2);
        assert!(matches!(reader.read_blocking(Offset(2), 9), Err(ReadError::Damaged { offset: Offset(2), .. })));
    }
}

#[tokio::test]
async fn a_missing_segment_is_named_and_not_skipped() {
    let files = Files::new();
    let log = files.try_open(500, None).unwrap();
    for n in 0..9 {
        log.append(step(n, "service/api", NO_HEAD), Urgency::Ordinary).await.unwrap();
    }
    drop(log);
    let firsts = folder::segments(&files.log()).unwrap();
    fs::remove_file(files.segment(firsts[1].0)).unwrap();
    let log = files.try_open(500, None).unwrap();
    assert_eq!(read_all(&log).unwrap().len() as u64, firsts[1].0);
    let error = log.read(firsts[1], 9).await.unwrap_err();
    assert!(matches!(error, ReadError::Damaged { offset, .. } if offset == firsts[1]), "{error}");
    drop(log);
    for first in [firsts[0], *firsts.last().unwrap()] {
        fs::rename(files.segment(first.0), files.log().join("away")).unwrap();
        files.try_open(500, None).unwrap_err();
        fs::rename(files.log().join("away"), files.segment(first.0)).unwrap();
    }
}

#[tokio::test]
async fn a_reader_beside_the_writer_follows_what_is_acknowledged_and_no_more() {
    let files = Files::new();
    let log = files.try_open(1_000, None).unwrap();
    let reader = files.reader();
    for n in 0..20_u64 {
        log.append(step(n.into(), "service/api", NO_HEAD), Urgency::Ordinary).await.unwrap();
        assert_eq!(reader.refresh().unwrap(), Offset(n + 1));
        assert_eq!(reader.read(Offset(n), 9).await.unwrap().len(), 1);
    }
    // A line that was written and not synced yet.
    let last = *folder::segments(&files.log()).unwrap().last().unwrap();
    let mut unsynced = Vec::new();
    line::write(&mut unsynced, Offset(20), Offset(20), &step(20, "service/api", NO_HEAD));
    edit(&files.segment(last.0), |bytes| bytes.extend_from_slice(&unsynced));
    assert_eq!(reader.refresh().unwrap(), Offset(20));
    fs::remove_file(files.log().join("end")).unwrap();
    assert_eq!(files.reader().end().borrow().0, 20, "without the hint the last lines say so");
    let refused = reader.append(Bytes::new(), Urgency::Ordinary).await;
    assert!(matches!(refused, Err(AppendError::Refused(_))));
}

#[tokio::test]
async fn a_folder_without_a_log_is_not_read_as_an_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(SegmentsReader::open(folder.path(), None), Err(SegmentsOpenError::NoLog(_))));
}

#[tokio::test]
async fn a_large_log_is_read_from_everywhere() {
    let files = Files::new();
    let log = Arc::new(files.try_open(300_000, None).unwrap());
    let long =
        |n: u128| Commit::new(n).extends("s", NO_HEAD).event("s", "e").about(&format!("\"{}\"", "y".repeat(50_000)));
    let appends = (0..3_000_u128).map(|n| {
        let (log, commit) = (Arc::clone(&log), if n % 500 == 9 { long(n).bytes() } else { step(n, "s", NO_HEAD) });
        tokio::spawn(async move { (log.append(commit.clone(), Urgency::Ordinary).await.unwrap(), commit) })
    });
    let mut kept: Vec<_> = futures::future::join_all(appends).await.into_iter().map(Result::unwrap).collect();
    kept.sort();
    drop(log);
    let log = files.open_one();
    let reader = files.reader();
    for from in [0, 1, 1_023, 1_024, 1_025, 2_500, 2_999] {
        let records = log.read(Offset(from), 10).await.unwrap();
        let expected = &kept[from as usize..][..records.len()];
        assert!(!records.is_empty());
        assert!(records.iter().zip(expected).all(|(r, (offset, bytes))| r.offset == *offset && r.bytes == *bytes));
        assert_eq!(reader.read(Offset(from), 10).await.unwrap(), records);
    }
}

#[test]
fn a_folder_that_is_held_for_one_command_is_waited_for_and_another_is_not() {
    let temp = tempfile::tempdir().unwrap();
    let folder = DataFolder::hold(temp.path()).unwrap();
    assert!(matches!(DataFolder::hold(temp.path()), Err(SegmentsOpenError::Held { .. })), "for good");
    folder.sign_for_a_moment().unwrap();
    let (path, begun) = (temp.path().to_owned(), std::time::Instant::now());
    let waiting = std::thread::spawn(move || DataFolder::hold(&path).map(|_| begun.elapsed()));
    let moment = Duration::from_millis(200);
    std::thread::sleep(moment);
    drop(folder);
    assert!(waiting.join().unwrap().unwrap() >= moment, "it came in before the command was over");
}
