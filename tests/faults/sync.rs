//! The disk says no: a failed sync or write stops the log for good in its process, and a new start has everything.

use std::fs;
use std::path::Path;

use crate::world::{Plan, Strace, Writer, acked, can_run, check};

const PLAN: Plan = Plan { first: 0, count: 10, at_once: 1, segment_bytes: 1_500 };

/// Runs the writing program with a fault in the thread that appends; returns what it said and its system calls.
fn run_with(data: &Path, fault: &str) -> (Vec<String>, String) {
    let output = data.with_extension("strace");
    let mut writer = Writer::start(data, PLAN);
    writer.about_to("open");
    writer.go_on();
    let thread = writer.about_to("append");
    let strace = Strace::attach(&thread, fault, &output);
    writer.go_on();
    let said = writer.rest();
    drop(writer);
    drop(strace);
    (said, fs::read_to_string(output).unwrap())
}

fn count(said: &[String], kind: &str) -> usize {
    said.iter().filter(|line| line.split(' ').next() == Some(kind)).count()
}

#[test]
#[ignore = "needs root: `bash tests/run` runs it"]
fn a_failed_sync_stops_the_log_and_is_never_retried() {
    if !can_run("failed sync", &["strace"]) {
        return;
    }
    for when in 1..=6 {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let (said, calls) = run_with(&data, &format!("fdatasync:error=EIO:when={when}"));
        assert_eq!((count(&said, "acked"), count(&said, "ambiguous")), (when - 1, 1), "{said:?}");
        assert_eq!(count(&said, "stopped"), 10 - when, "{said:?}");
        assert_eq!(calls.matches("fdatasync(").count(), when, "no sync after the failed one: {calls}");
        check(&data, &acked(&said), PLAN.count);
    }
}

#[test]
#[ignore = "needs root: `bash tests/run` runs it"]
fn a_write_that_fails_stops_the_log_and_one_that_finds_no_room_refuses_alone() {
    if !can_run("failed write", &["strace"]) {
        return;
    }
    // Of each batch the first write is its lines, the second the hint, whose failure matters to nobody.
    for (fault, expected) in [
        ("pwrite64:error=EIO:when=5", [2, 0, 1, 7]),
        ("pwrite64:error=EIO:when=6", [10, 0, 0, 0]),
        ("pwrite64:error=ENOSPC:when=5", [9, 1, 0, 0]),
        ("pwrite64:error=ENOSPC:when=6", [10, 0, 0, 0]),
        ("fsync:error=EIO:when=1", [4, 0, 1, 5]),
        ("fsync:error=EIO:when=2", [4, 0, 1, 5]),
        ("fallocate:error=ENOSPC:when=1+", [10, 0, 0, 0]),
        ("fallocate:error=EOPNOTSUPP:when=1+", [10, 0, 0, 0]),
        ("openat:error=ENOSPC:when=1+", [10, 0, 0, 0]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let (said, calls) = run_with(&data, fault);
        let found = ["acked", "full", "ambiguous", "stopped"].map(|kind| count(&said, kind));
        assert_eq!(found, expected, "{fault}: {said:#?} {calls}");
        check(&data, &acked(&said), PLAN.count);
    }
}
