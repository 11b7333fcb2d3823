//! A data folder with nodes in it, all of which end with the test.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use schemas::{EffectId, Hash, StackId};
use tokio::time::Instant;
use workers::artifacts::Artifacts;
use workers::nodes::process::ProcessNodes;
use workers::nodes::{Exit, Launch, Nodes as _, Observed};

/// A node that runs until it is told to end.
pub const PATIENT: &str = "#!/bin/sh\nexec sleep 1000\n";
/// Longer than anything takes that works.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A data folder for nodes that no ledger knows.
pub struct Fixture {
    /// The data folder.
    pub data: tempfile::TempDir,
    /// Its artifacts.
    pub artifacts: Arc<Artifacts>,
}

impl Default for Fixture {
    fn default() -> Self {
        Self::new()
    }
}

impl Fixture {
    /// Returns a new, empty one.
    pub fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let artifacts = Arc::new(Artifacts::open(data.path()).unwrap());
        Self { data, artifacts }
    }

    /// A new adapter, as after a restart: it knows nothing but what lies on the disk.
    pub fn nodes(&self) -> ProcessNodes {
        self.nodes_through(crate::program().into())
    }

    /// Returns its nodes, launched through another program than ours.
    pub fn nodes_through(&self, launcher: PathBuf) -> ProcessNodes {
        ProcessNodes::open(self.data.path(), launcher, self.artifacts.clone()).unwrap()
    }

    /// Writes an executable file beside the data folder.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.data.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Stores a script as an artifact.
    pub fn artifact(&self, text: &str) -> Hash {
        self.artifacts.store(&self.script("source", text)).unwrap().sha256
    }

    /// Returns a launch of an artifact, with an effect and a port of its own.
    pub async fn launch_of(&self, artifact: Hash) -> Launch {
        Launch {
            effect: EffectId(uuid::Uuid::new_v4()),
            deployment: "production/api".parse().unwrap(),
            stack: StackId(uuid::Uuid::from_u128(7)),
            version: "1.2.3".parse().unwrap(),
            number: 1,
            slot: 0,
            attempt: 0,
            port: self.nodes().free_ports(1).await.unwrap()[0],
            artifact,
            args: Vec::new(),
            env: BTreeMap::new(),
            user: None,
        }
    }

    /// Returns the folder of an effect.
    pub fn folder(&self, effect: EffectId) -> PathBuf {
        self.data.path().join("nodes").join(effect.to_string())
    }

    /// Returns the end of a node's log.
    pub fn log(&self, effect: EffectId) -> String {
        fs::read_to_string(self.folder(effect).join("log")).unwrap_or_default()
    }

    /// Waits until the node's log holds `text`.
    pub async fn logged(&self, effect: EffectId, text: &str) {
        eventually(&format!("{text:?} in the log"), || self.log(effect).contains(text)).await;
    }

    /// Waits until a node has ended, and returns how.
    pub async fn exited(&self, nodes: &ProcessNodes, effect: EffectId) -> Exit {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match nodes.look().await.unwrap().remove(&effect) {
                Some(Observed::Exited(exit)) => return exit,
                other => assert!(Instant::now() < deadline, "still {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let nodes = self.nodes();
        let stop_all = async move {
            for effect in nodes.look().await.unwrap().into_keys() {
                nodes.stop(effect, Duration::ZERO).await.unwrap();
            }
        };
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ended = std::thread::spawn(move || runtime().block_on(stop_all)).join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

/// Waits until something holds.
///
/// # Panics
///
/// If it does not come to hold.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The pid in an instance's name, `process/PID/START`.
pub fn pid(instance: &str) -> i32 {
    instance.split('/').nth(1).unwrap().parse().unwrap()
}

/// Sends a signal.
pub fn kill(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Returns the ids of all processes of this machine.
pub fn all_processes() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
}

/// The processes whose environment names the effect.
pub fn processes_of(effect: EffectId) -> Vec<i32> {
    let wanted = format!("IONLEDGER_NODE={effect}");
    let named = |env: Vec<u8>| env.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes());
    all_processes().filter(|pid| fs::read(format!("/proc/{pid}/environ")).is_ok_and(named)).collect()
}

/// A number of `/proc/<pid>/stat`, counted from the state: 1 is the parent, 3 the session.
pub fn field_of_stat(pid: i32, nth: usize) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(nth)?.parse().ok()
}

/// Says whether a process runs and is no zombie.
pub fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Every regular file below `folder`.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}
