//! Processes that a test waits for. One that hangs fails its test, which then says which one it was, and keeps no run from its end.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long a process may take for its next line or its end: longer than anything that a test has it do.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Waits for the end of `child`, and kills it where that does not come in time.
///
/// # Panics
///
/// It did not end in time, or nobody can wait for it.
#[track_caller]
pub fn ended(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("it is a child of this process") {
            return status;
        }
        if Instant::now() >= deadline {
            let said =
                format!("process {} did not end within {PATIENCE:?}; its threads: {}", child.id(), threads(child.id()));
            child.kill().expect("it is a child of this process");
            let status = child.wait().expect("it is a child of this process");
            // A second panic, while things are dropped after a first one, would hide that.
            assert!(std::thread::panicking(), "{said}");
            return status;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs `command` to its end, with nothing to read, and returns what it left.
///
/// # Panics
///
/// It cannot be started, or did not end in time.
#[track_caller]
pub fn output(command: &mut Command) -> Output {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = whole(child.stdout.take().expect("it is piped"));
    let stderr = whole(child.stderr.take().expect("it is piped"));
    let deadline = Instant::now() + PATIENCE;
    let [stdout, stderr] = [stdout, stderr].map(|all| {
        all.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap_or_else(|_| {
            let waits = threads(child.id());
            let _ = child.kill();
            panic!("{command:?} did not end within {PATIENCE:?}; its threads: {waits}")
        })
    });
    Output { status: ended(&mut child), stdout, stderr }
}

/// Returns the lines that come from a process, each within [`PATIENCE`].
///
/// # Panics
///
/// The iterator does where no line comes in time, or one is not UTF-8.
pub fn lines(from: impl Read + Send + 'static) -> impl Iterator<Item = String> + Send {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        // It is read to its end also where nobody listens: nobody may be left to wait for a reader.
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = tell.send(line);
        }
    });
    std::iter::from_fn(move || match told.recv_timeout(PATIENCE) {
        Ok(line) => Some(line),
        Err(mpsc::RecvTimeoutError::Disconnected) => None,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("no line came within {PATIENCE:?}"),
    })
}

/// Returns all that comes from a process, once it has come.
fn whole(mut from: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut all = Vec::new();
        let _ = from.read_to_end(&mut all);
        let _ = tell.send(all);
    });
    told
}

/// Returns the name of each thread of a process and what it waits for in the kernel.
fn threads(pid: u32) -> String {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return "gone".to_owned() };
    let told = tasks.filter_map(|task| {
        let task = task.ok()?.path();
        let read = |file: &str| std::fs::read_to_string(task.join(file)).unwrap_or_default().trim().to_owned();
        Some(format!("{} in {}", read("comm"), read("wchan")))
    });
    told.collect::<Vec<_>>().join(", ")
}
