//! What the faults share: the writing program, strace on one of its threads, file systems, and the check afterwards.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ledger::log::contract::step;
use ledger::log::segments::{DataFolder, Segments, SegmentsOptions, SegmentsReader};
use ledger::log::{ReadError, Record};
use ledger::rule::NO_HEAD;
use schemas::Offset;
use tempfile::TempDir;

/// Returns a folder in memory, for faults that have nothing to do with the disk; on the disk where there is none.
pub(crate) fn quick_folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Returns the commit that the writing program appends as `n`.
pub(crate) fn commit(n: u64) -> Bytes {
    step(n.into(), "service/api", NO_HEAD)
}

/// Whether `test` can run here: as root, with `tools`. Says if not, and fails where nothing may be skipped.
pub(crate) fn can_run(test: &str, tools: &[&str]) -> bool {
    let missing: Vec<&str> = tools.iter().copied().filter(|tool| !is_there(tool)).collect();
    let is_root = rustix::process::geteuid().is_root();
    if is_root && missing.is_empty() {
        return true;
    }
    let reason = if is_root { format!("{} not installed", missing.join(", ")) } else { "not root".to_owned() };
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} cannot run in CI: {reason}");
    eprintln!("SKIPPED {test}: {reason}");
    false
}

fn is_there(tool: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':').any(|folder| Path::new(folder).join(tool).exists())
}

/// Runs a tool to its end, which must be good.
pub(crate) fn run(program: &str, args: &[&str]) {
    let output = Command::new(program)
        .args(args)
        .env("PATH", std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until `get` gives something.
pub(crate) fn until<T>(what: &str, mut get: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(got) = get() {
            return got;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// Unmounts a file system. A child that another test has just forked may still have a file open on it.
pub(crate) fn unmount(mount: &Path) {
    let is_gone = || Command::new("umount").arg(mount).stderr(Stdio::null()).status().unwrap().success();
    until("the file system is unmounted", || is_gone().then_some(()));
}

/// How the writing program is run.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) first: u64,
    pub(crate) count: u64,
    pub(crate) at_once: u64,
    pub(crate) segment_bytes: u64,
}

/// The writing program.
pub(crate) struct Writer {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Writer {
    pub(crate) fn start(data: &Path, plan: Plan) -> Self {
        let numbers = [plan.first, plan.count, plan.at_once, plan.segment_bytes].map(|number| number.to_string());
        let mut child = Command::new(env!("CARGO_BIN_EXE_fault-writer"))
            .arg(data)
            .args(numbers)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { stdin: child.stdin.take(), child, lines }
    }

    /// Waits until it is about to `open` or to `append`, and returns the thread that will do it.
    pub(crate) fn about_to(&mut self, what: &str) -> String {
        assert_eq!(self.next().as_deref(), Some(what));
        if what == "open" { self.child.id().to_string() } else { self.writing_thread() }
    }

    /// Returns the log's own thread, which has been started and is about to name itself.
    fn writing_thread(&self) -> String {
        let tasks = format!("/proc/{}/task", self.child.id());
        let name = |task: &Path| std::fs::read_to_string(task.join("comm")).unwrap_or_default();
        until("the log's thread is there", || {
            let mut threads = std::fs::read_dir(&tasks).unwrap().map(|task| task.unwrap().path());
            let thread = threads.find(|task| name(task).trim() == "log-writer")?;
            Some(thread.file_name().unwrap().to_string_lossy().into_owned())
        })
    }

    /// Lets it go on.
    pub(crate) fn go_on(&mut self) {
        // It may have been killed while it waited.
        let _ = self.stdin.as_mut().unwrap().write_all(b"\n");
    }

    /// Returns what it says next; nothing once it has ended.
    pub(crate) fn next(&mut self) -> Option<String> {
        self.lines.next().map(Result::unwrap)
    }

    /// Waits for its end, and returns whether it was killed.
    pub(crate) fn was_killed(&mut self) -> bool {
        self.child.wait().unwrap().signal() == Some(9)
    }

    /// Returns everything that it says to its end.
    pub(crate) fn rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// strace on one thread; it ends with it.
pub(crate) struct Strace {
    child: Child,
    _messages: BufReader<ChildStderr>,
}

impl Strace {
    /// Attaches to `thread` with a fault, as `fdatasync:error=EIO:when=3`, or with `none`. The count is of this thread's
    /// system calls of that name alone.
    pub(crate) fn attach(thread: &str, fault: &str, output: &Path) -> Self {
        let mut child = Command::new("strace")
            .args(["-p", thread, "-o"])
            .arg(output)
            .args((fault != "none").then(|| format!("--inject={fault}")))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut messages = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        messages.read_line(&mut line).unwrap();
        assert!(line.contains("attached"), "strace: {line}");
        Self { child, _messages: messages }
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the acknowledged numbers with their offsets out of what the writing program said.
pub(crate) fn acked(said: &[String]) -> BTreeMap<u64, u64> {
    let acked = said.iter().filter_map(|line| line.strip_prefix("acked "));
    acked.map(|line| line.split_once(' ').unwrap()).map(|(n, at)| (n.parse().unwrap(), at.parse().unwrap())).collect()
}

/// Reads all that `read` gives; with an error, what came before it.
pub(crate) fn read_all(read: impl Fn(Offset) -> Result<Vec<Record>, ReadError>) -> (Vec<Record>, Option<ReadError>) {
    let mut records: Vec<Record> = Vec::new();
    loop {
        match read(Offset(records.len() as u64)) {
            Ok(more) if more.is_empty() => return (records, None),
            Ok(more) => records.extend(more),
            Err(error) => return (records, Some(error)),
        }
    }
}

/// Opens the log for writing.
pub(crate) fn open(data: &Path) -> Segments {
    Segments::open(DataFolder::hold(data).unwrap(), SegmentsOptions::default())
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Checks the log after a fault: a reader and a start both find every acknowledged commit at its offset, nothing twice,
/// nothing that was not tried (numbers below `tried`), and the same. Returns its end.
pub(crate) fn check(data: &Path, acked: &BTreeMap<u64, u64>, tried: u64) -> u64 {
    let reader = SegmentsReader::open(data, None).unwrap();
    let (seen, error) = read_all(|from| reader.read_blocking(from, 1_000));
    assert_eq!(error, None);
    let log = open(data);
    let (kept, error) = read_all(|from| log.read_blocking(from, 1_000));
    assert_eq!(error, None);
    assert_eq!(seen, kept, "a reader with no writer sees what a start keeps");
    let mut numbers: BTreeMap<Bytes, u64> = (0..tried).map(|n| (commit(n), n)).collect();
    let mut found = BTreeMap::new();
    for record in &kept {
        let n = numbers.remove(&record.bytes).unwrap_or_else(|| panic!("{} is there twice or unasked", record.offset));
        found.insert(n, record.offset.0);
    }
    for (n, offset) in acked {
        assert_eq!(found.get(n), Some(offset), "commit {n} was acknowledged at {offset}");
    }
    kept.len() as u64
}
