//! A real Kafka on loopback, as `tests/kafka/cluster` makes it. Its brokers can be killed, paused and started again one by
//! one, and all of them end with the test's process, however that ends.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::{lines, output};

/// Longer than anything takes that works.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// What the script ends with where Java or the jars cannot be had.
const NOT_HERE: i32 = 3;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../kafka/cluster");

/// A Kafka of one broker or three on loopback; it ends with the test.
pub struct Cluster {
    folder: tempfile::TempDir,
    servers: String,
    /// What the script said when it made it.
    said: String,
    brokers: Mutex<Vec<Option<Broker>>>,
}

struct Broker {
    attendant: Child,
    pid: Pid,
}

impl Cluster {
    /// Starts a cluster of one broker or three and waits until they all serve.
    pub fn start(brokers: usize) -> Self {
        Self::made(brokers, &[])
    }

    /// Starts a cluster that also listens for clients that log in, or show a certificate, over TLS.
    pub fn start_secure(brokers: usize) -> Self {
        Self::made(brokers, &["secure"])
    }

    /// Starts a cluster of one broker that lets nobody do anything until [`Cluster::acls`] says so.
    pub fn start_with_acls() -> Self {
        Self::made(1, &["acl"])
    }

    /// Gives or takes rights, as an administrator, with the arguments of `kafka-acls.sh`.
    pub fn acls(&self, arguments: &[&str]) {
        let mut acls = Command::new(SCRIPT);
        let done = output(acls.arg("acls").arg(self.folder.path()).args(arguments));
        assert!(done.status.success(), "{arguments:?}: {done:?}");
    }

    fn made(brokers: usize, how: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("kafka-").tempdir().unwrap();
        let mut make = Command::new(SCRIPT);
        make.arg("prepare").arg(folder.path()).arg(brokers.to_string()).args(how).stderr(Stdio::inherit());
        let made = make.output().unwrap();
        let said = String::from_utf8(made.stdout).unwrap();
        if made.status.code() == Some(NOT_HERE) && std::env::var("CI").as_deref() != Ok("true") {
            // Not by `eprintln`, which the harness keeps for itself.
            let _ = writeln!(std::io::stderr(), "SKIPPED every test with Kafka: there is none here, see above");
            std::process::exit(0);
        }
        assert!(made.status.success(), "no cluster can be made: {said}");
        let servers = told(&said, "servers=").to_owned();
        let cluster = Self { folder, servers, said, brokers: Mutex::new((0..brokers).map(|_| None).collect()) };
        for n in 1..=brokers {
            cluster.launch(n);
        }
        cluster.wait_for(brokers);
        cluster
    }

    /// Returns a cluster of three that this process shares.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(3))
    }

    /// Returns the brokers' addresses.
    pub fn servers(&self) -> &str {
        &self.servers
    }

    /// Returns the addresses of a secure one's listener: `login` (SASL_SSL) or `mutual` (SSL).
    pub fn listener(&self, name: &str) -> &str {
        told(&self.said, &format!("{name}="))
    }

    /// Returns where a secure one's certificates, keys and password lie.
    pub fn keys(&self) -> PathBuf {
        self.folder.path().join("keys")
    }

    /// Returns a place in it.
    pub fn place(&self, topic: &str) -> String {
        format!("kafka://{}/{topic}", self.servers)
    }

    /// Starts broker `n` again; it serves some time later.
    pub fn launch(&self, n: usize) {
        let mut attendant = Command::new(SCRIPT)
            .arg("attend")
            .arg(self.folder.path())
            .arg(n.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = lines(attendant.stdout.take().unwrap()).next().unwrap_or_default();
        let pid = said.strip_prefix("pid=").and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
        let pid = pid.unwrap_or_else(|| panic!("broker {n} does not start: {said}"));
        self.brokers.lock().unwrap()[n - 1] = Some(Broker { attendant, pid });
    }

    /// Kills broker `n` as a power switch would.
    pub fn kill(&self, n: usize) {
        let mut broker = self.brokers.lock().unwrap()[n - 1].take().expect("it runs");
        kill_process(broker.pid, Signal::KILL).unwrap();
        let _ = broker.attendant.stdin.take().unwrap().write_all(b"keep\n");
        broker.attendant.wait().unwrap();
    }

    /// Lets broker `n` stand still: when this returns, none of its threads runs any more.
    pub fn pause(&self, n: usize) {
        self.signal(n, Signal::STOP);
        let pid = self.brokers.lock().unwrap()[n - 1].as_ref().expect("it runs").pid;
        let stands = |task: fs::DirEntry| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
        };
        let deadline = Instant::now() + DEADLINE;
        let tasks = || fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).unwrap().flatten();
        while !tasks().all(stands) {
            assert!(Instant::now() < deadline, "broker {n} goes on");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets broker `n` go on.
    pub fn resume(&self, n: usize) {
        self.signal(n, Signal::CONT);
    }

    fn signal(&self, n: usize, signal: Signal) {
        let brokers = self.brokers.lock().unwrap();
        kill_process(brokers[n - 1].as_ref().expect("it runs").pid, signal).unwrap();
    }

    /// Waits until `count` brokers are known to the first that answers.
    pub fn wait_for(&self, count: usize) {
        let client = self.client();
        let deadline = Instant::now() + DEADLINE;
        loop {
            let metadata = client.fetch_metadata(None, Duration::from_secs(5));
            match metadata {
                Ok(metadata) if metadata.brokers().len() == count => return,
                _ if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
                other => panic!("{count} brokers are wanted, {:?}; {}", other.map(|m| m.brokers().len()), self.logs()),
            }
        }
    }

    /// Returns the broker that leads the one partition of `topic`, once one does that is not `except`.
    pub fn leader(&self, topic: &str, except: Option<usize>) -> usize {
        let client = self.client();
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Ok(metadata) = client.fetch_metadata(Some(topic), Duration::from_secs(5))
                && let Some(partition) = metadata.topics().first().and_then(|topic| topic.partitions().first())
                && let Ok(leader) = usize::try_from(partition.leader())
                && Some(leader) != except
                && leader > 0
            {
                return leader;
            }
            assert!(Instant::now() < deadline, "nobody leads {topic}; {}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until `count` brokers hold everything of `topic`.
    pub fn in_sync(&self, topic: &str, count: usize) {
        let client = self.client();
        let deadline = Instant::now() + DEADLINE;
        loop {
            let metadata = client.fetch_metadata(Some(topic), Duration::from_secs(5)).ok();
            let partition = metadata.as_ref().and_then(|all| all.topics().first()?.partitions().first());
            if partition.is_some_and(|partition| partition.isr().len() == count) {
                return;
            }
            assert!(Instant::now() < deadline, "{topic} is not in sync; {}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn client(&self) -> BaseConsumer {
        ClientConfig::new().set("bootstrap.servers", &self.servers).set("log_level", "2").create().unwrap()
    }

    /// Returns the last that each broker said.
    pub fn logs(&self) -> String {
        let tail = |path: &Path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines().rev().take(5).collect::<Vec<_>>().join("\n")
        };
        (1..=3)
            .map(|n| format!("broker {n}: {}\n", tail(&self.folder.path().join(n.to_string()).join("log"))))
            .collect()
    }
}

fn told<'a>(said: &'a str, name: &str) -> &'a str {
    said.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {said}"))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let running: Vec<bool> = self.brokers.lock().unwrap().iter().map(Option::is_some).collect();
        for (n, _) in running.iter().enumerate().filter(|(_, runs)| **runs) {
            self.kill(n + 1);
        }
    }
}
