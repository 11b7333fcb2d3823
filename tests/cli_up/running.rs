//! A ledger that runs in a folder of its own, and what the tests ask of it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use support::binary::{Run, ionledger, run};
use support::process::{ended, lines};

/// How long anything may take before a test gives it up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running `up`; it is taken down with everything it started at the end.
pub struct Up {
    child: Child,
    folder: TempDir,
}

impl Up {
    /// Starts `up` on a new folder.
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// Starts `up` on a new folder with more arguments.
    pub fn with(arguments: &[&str]) -> Self {
        Self::on(tempfile::tempdir().unwrap(), arguments)
    }

    /// Starts `up` on a folder that was used before.
    pub fn on(folder: TempDir, arguments: &[&str]) -> Self {
        let mut command = ionledger();
        command.args(["up", "--down"]).args(arguments).env("IONLEDGER_DATA", folder.path().join("data"));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = lines(child.stderr.take().unwrap());
        let mut said = Vec::new();
        while !said.iter().any(|line: &String| line.contains("is up on")) {
            said.push(lines.next().unwrap_or_else(|| panic!("up ended: {said:?}")));
        }
        Self { child, folder }
    }

    /// Returns the data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Returns a path beside the data folder.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the binary with a sentence of plain words.
    pub fn say(&self, sentence: &str) -> Run {
        run(&self.data(), &sentence.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs a sentence that must do what it says, and returns what it left.
    #[track_caller]
    pub fn done(&self, sentence: &str) -> Run {
        let run = self.say(sentence);
        assert_eq!(run.code, 0, "{sentence}: {run:?}");
        run
    }

    /// Returns the answer of a sentence as JSON.
    #[track_caller]
    pub fn json(&self, sentence: &str) -> Value {
        serde_json::from_str(&self.done(&format!("{sentence} --json")).stdout).unwrap()
    }

    /// Declares the service `api`, whose users come in at the address that is returned, with more lines in its file.
    pub fn declare(&self, more: &str) -> SocketAddr {
        let address = free_address();
        let text = format!(
            "name = \"api\"\nowner = \"team\"\nlisten = {{ production = \"{address}\" }}\n{more}\n\
             [run]\nargs = [\"demo-service\", \"--port\", \"{{port}}\"]\n\
             [check]\npath = \"/health\"\ninterval = \"100 ms\"\nhealthy_after = 1\n"
        );
        let file = self.beside("api.toml");
        std::fs::write(&file, text).unwrap();
        self.done(&format!("apply {}", file.display()));
        address
    }

    /// Records a release of `api` that runs the demo's service with these arguments.
    #[track_caller]
    pub fn release(&self, version: &str, arguments: &[&str]) -> Run {
        let data = self.data();
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_ionledger"));
        let binary = binary.to_str().unwrap();
        let mut words = vec!["release", "api", version, "--artifact", binary, "--commit", "4f2a91c"];
        let base = ["demo-service", "--port", "{port}", "--version-name", version];
        for argument in base.iter().chain(arguments) {
            words.extend(["--arg", argument]);
        }
        let run = run(&data, &words);
        assert_eq!(run.code, 0, "{run:?}");
        run
    }

    /// Declares `api`, and has `version` serve it.
    pub fn serving(&self, version: &str, more: &str) -> SocketAddr {
        let address = self.declare(more);
        self.release(version, &[]);
        self.done(&format!("new api {version} --wait --timeout 60s"));
        self.done(&format!("traffic api {version} 100"));
        self.applied();
        address
    }

    /// A ledger of which 1.1.0 serves, after 1.0.0, and where its users connect.
    pub fn shipped() -> (Self, SocketAddr) {
        let up = Self::new();
        let address = up.serving("1.0.0", "");
        up.ready("1.1.0", &[]);
        up.done("traffic api 1.1.0 100");
        up.applied();
        (up, address)
    }

    /// Has a stack of `version` ready.
    pub fn ready(&self, version: &str, arguments: &[&str]) {
        self.release(version, arguments);
        self.done(&format!("new api {version} --wait --timeout 60s"));
    }

    /// Waits until the router serves what is set.
    pub fn applied(&self) {
        self.until("weights are applied", |deployment| deployment["weights_applied"] == true);
    }

    /// Waits until production's deployment of `api` is as `is` wants it, and returns it.
    pub fn until(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.json("status api");
            let deployment = &status["services"][0]["deployments"][0];
            if is(deployment) {
                return deployment.clone();
            }
            assert!(Instant::now() < deadline, "never: {what}; {deployment:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// How many commits people have made.
    pub fn asked(&self) -> usize {
        let history = self.json("history --limit 0 --voids");
        let entries = history["entries"].as_array().unwrap();
        entries.iter().filter(|entry| entry["actor"]["kind"] == "person").count()
    }

    /// Ends it in an orderly way and returns its folder. What it started ends too.
    pub fn end(mut self) -> TempDir {
        self.terminate();
        let empty = tempfile::tempdir().unwrap();
        std::mem::replace(&mut self.folder, empty)
    }

    /// Kills it and returns its folder. What it started goes on.
    pub fn kill(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let empty = tempfile::tempdir().unwrap();
        std::mem::replace(&mut self.folder, empty)
    }

    /// Returns its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().try_into().unwrap()).unwrap(), signal).unwrap();
    }

    fn terminate(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
            let _ = kill_process(pid, Signal::TERM);
            ended(&mut self.child);
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.terminate();
    }
}

/// Returns an address that nobody listens on.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Asks `address` as a user does, and returns the status.
pub fn ask(address: SocketAddr) -> u16 {
    let head = answer(address);
    head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{head:?}"))
}

/// Asks `address` as a user does, and returns the whole answer.
pub fn answer(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Asks a server until `stop` says so, in a thread of its own.
pub fn users(address: SocketAddr) -> Users {
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = stop.clone();
    let thread = std::thread::spawn(move || {
        while !told.load(std::sync::atomic::Ordering::Relaxed) {
            ask(address);
            std::thread::sleep(Duration::from_millis(2)); // some hundred requests a second
        }
    });
    Users { stop, thread: Some(thread) }
}

/// Users who come until this is dropped.
pub struct Users {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Users {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
