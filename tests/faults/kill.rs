//! The process is killed at every system call: of the thread that appends, and of the start that repairs.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use ledger::log::segments::SegmentsReader;
use tempfile::{TempDir, tempdir};

use crate::world::{Plan, Strace, Writer, acked, can_run, check, read_all, run};

#[test]
#[ignore = "needs root: `bash tests/run` runs it"]
fn a_kill_at_every_system_call_of_the_append_path_loses_nothing_acknowledged() {
    if !can_run("kill at every system call of the append path", &["strace"]) {
        return;
    }
    for (at_once, count) in [(1, 12), (4, 32)] {
        // Short segments, so that making the next one is among what is cut short.
        let plan = Plan { first: 0, count, at_once, segment_bytes: 2_000 };
        sweep("append", plan, &BTreeMap::new(), |_| tempdir().unwrap(), |_| {});
    }
}

#[test]
#[ignore = "needs root: `bash tests/run` runs it"]
fn a_kill_at_every_system_call_of_a_start_that_repairs_loses_nothing_acknowledged() {
    if !can_run("kill at every system call of a start", &["strace"]) {
        return;
    }
    let whole = tempdir().unwrap();
    let plan = Plan { first: 0, count: 6, at_once: 1, segment_bytes: 1_000 };
    let mut writer = Writer::start(whole.path(), plan);
    writer.go_on();
    writer.go_on();
    let before = acked(&writer.rest());
    assert_eq!(before.len(), 6);
    let torn_copy = |n| {
        let data = tempdir().unwrap();
        run("cp", &["-r", &format!("{}/.", whole.path().display()), data.path().to_str().unwrap()]);
        tear(data.path(), n % 2 == 0);
        data
    };
    let is_kept_aside = |data: &Path| {
        let mut names = fs::read_dir(data.join("log")).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(names.any(|name| name.to_string_lossy().starts_with("torn-6-")), "the torn tail is kept aside");
    };
    sweep("open", Plan { first: 6, count: 1, ..plan }, &before, torn_copy, is_kept_aside);
}

/// Kills the writing program at every system call of its `stage`, each time on the folder that `data` gives, and
/// checks what is left.
fn sweep(stage: &str, plan: Plan, before: &BTreeMap<u64, u64>, data: impl Fn(u64) -> TempDir, also: impl Fn(&Path)) {
    let output = tempfile::NamedTempFile::new().unwrap();
    // strace counts each system call by its name: so each name's turn comes, up to as often as a whole run makes it.
    run_with(data(0).path(), plan, stage, "none", output.path());
    let mut calls: BTreeMap<String, u64> = BTreeMap::new();
    for line in fs::read_to_string(output.path()).unwrap().lines() {
        if let Some((name, _)) =
            line.split_once('(').filter(|(name, _)| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    let all: u64 = calls.values().sum();
    let (mut killed, mut acked_before_death) = (0, 0);
    for (n, (name, when)) in calls.iter().flat_map(|(name, n)| (1..=*n).map(move |when| (name, when))).enumerate() {
        let data = data(n as u64);
        let fault = format!("{name}:signal=KILL:when={when}");
        let (said, was_killed) = run_with(data.path(), plan, stage, &fault, Path::new("/dev/null"));
        killed += u64::from(was_killed);
        let mut acked = acked(&said);
        acked_before_death += acked.len();
        acked.extend(before);
        check(data.path(), &acked, plan.first + plan.count);
        also(data.path());
    }
    eprintln!("{stage}, {} at once: killed at {killed} of {all} system calls: {calls:?}", plan.at_once);
    // How many calls appends make that are sent together depends on how they fall together, and differs from run to run.
    let tenths = if plan.at_once == 1 { 8 } else { 6 };
    assert!(killed > 40 && killed * 10 > all * tenths, "killed at {killed} of {all} system calls: {calls:?}");
    assert!(stage == "open" || acked_before_death as u64 > killed, "{acked_before_death} acknowledged");
}

/// Runs the writing program with a fault in the thread that is about to do `stage`, and returns what it said
/// and whether it was killed.
fn run_with(data: &Path, plan: Plan, stage: &str, fault: &str, output: &Path) -> (Vec<String>, bool) {
    let mut writer = Writer::start(data, plan);
    let mut thread = writer.about_to("open");
    if stage == "append" {
        writer.go_on();
        thread = writer.about_to("append");
    }
    let _strace = Strace::attach(&thread, fault, output);
    writer.go_on();
    let mut said = Vec::new();
    while let Some(line) = writer.next() {
        if line == "append" {
            writer.go_on();
        }
        said.push(line);
    }
    (said, writer.was_killed())
}

/// Leaves a tail as a killed process does that wrote more than it synced: a line cut short, perhaps with no hint.
fn tear(data: &Path, forget: bool) {
    let log = data.join("log");
    let reader = SegmentsReader::open(data, None).unwrap();
    let end = read_all(|from| reader.read_blocking(from, 100)).0.len();
    let segments = fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path());
    let last = segments.filter(|path| path.extension().is_some_and(|name| name == "jsonl")).max().unwrap();
    let torn = format!("{{\"offset\":{end},\"synced\":{end},\"crc\":\"00");
    OpenOptions::new().append(true).open(last).unwrap().write_all(torn.as_bytes()).unwrap();
    if forget {
        let _ = fs::remove_file(log.join("end"));
    }
}
