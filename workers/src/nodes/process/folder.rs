//! A node's folder, `DATA/nodes/<effect id>/`, and the small files in it.
//!
//! | file | written by | says |
//! | --- | --- | --- |
//! | `launch.json` | the launcher | the frozen launch, secrets as references |
//! | `lock` | node-exec | held by the node while it lives; see `life` |
//! | `node.json` | node-exec | which process is about to become the node |
//! | `started` | the launcher | the start was acknowledged: this effect never starts again |
//! | `stopped` | `stop` | the effect is fenced: this effect never starts again |
//! | `exit.json` | the launcher | how the node ended, if its launcher lived to see it |
//! | `cleaned` | `cleanup` | only the logs are left |
//! | `log`, `log.1` | the node | its stdout and stderr; at 10 MiB the log is set aside as `log.1` |
//! | `times`, `times.1` | whoever looks at it | how long the log was at which time |
//! | `work/` | the node | its working directory and home; its user's alone |

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use schemas::{EffectId, Hash, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::nodes::Launch;

/// The process that is about to become the node, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) effect: EffectId,
    pub(super) pid: i32,
    /// When the process began, in clock ticks since boot. With the pid and the boot it is one process for all time.
    pub(super) start_ticks: u64,
    pub(super) boot_id: String,
    pub(super) address: SocketAddr,
    pub(super) artifact: Hash,
    pub(super) launched_at: Timestamp,
}

/// How a node's process ended, as its parent saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) pid: i32,
    pub(super) code: Option<i32>,
    pub(super) signal: Option<i32>,
}

/// The marks that a folder can bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Started,
    Stopped,
    Cleaned,
}

#[derive(Clone, Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
}

impl Folder {
    pub(super) fn of(nodes: &Path, effect: EffectId) -> Self {
        Self { path: nodes.join(effect.to_string()) }
    }

    pub(super) fn create(&self) -> io::Result<()> {
        make_searchable(&self.path)?;
        match DirBuilder::new().mode(0o700).create(self.work()) {
            Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => Err(cause),
            _ => Ok(()),
        }
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.path.join("lock")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    pub(super) fn former_log(&self) -> PathBuf {
        self.path.join("log.1")
    }

    pub(super) fn times(&self) -> PathBuf {
        self.path.join("times")
    }

    pub(super) fn former_times(&self) -> PathBuf {
        self.path.join("times.1")
    }

    pub(super) fn work(&self) -> PathBuf {
        self.path.join("work")
    }

    pub(super) fn launch(&self) -> io::Result<Option<Launch>> {
        self.read("launch.json")
    }

    pub(super) fn write_launch(&self, launch: &Launch) -> io::Result<()> {
        self.write("launch.json", launch)
    }

    pub(super) fn record(&self) -> io::Result<Option<Record>> {
        self.read("node.json")
    }

    pub(super) fn write_record(&self, record: &Record) -> io::Result<()> {
        self.write("node.json", record)
    }

    pub(super) fn remove_record(&self) -> io::Result<()> {
        fs::remove_file(self.path.join("node.json"))
    }

    /// Returns how the process `pid` of this node ended, if that was seen.
    pub(super) fn ended(&self, pid: i32) -> io::Result<Option<Ended>> {
        Ok(self.read::<Ended>("exit.json")?.filter(|ended| ended.pid == pid))
    }

    pub(super) fn write_ended(&self, ended: &Ended) -> io::Result<()> {
        self.write("exit.json", ended)
    }

    pub(super) fn has(&self, mark: Mark) -> io::Result<bool> {
        self.path.join(mark.name()).try_exists()
    }

    /// Sets a mark, durably.
    pub(super) fn mark(&self, mark: Mark) -> io::Result<()> {
        if self.has(mark)? {
            return Ok(());
        }
        File::create(self.path.join(mark.name()))?;
        File::open(&self.path)?.sync_all()
    }

    pub(super) fn marked_at(&self, mark: Mark) -> io::Result<SystemTime> {
        fs::metadata(self.path.join(mark.name()))?.modified()
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        let path = self.path.join(name);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|cause| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged: {cause}", path.display()))
            }),
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Writes by renaming, so that no reader sees half a file. Not synced: after a power cut nothing runs anyway.
    fn write<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let draft = self.path.join(format!(".{name}-{}-{n}", std::process::id()));
        let mut bytes = serde_json::to_vec(value).map_err(io::Error::other)?;
        bytes.push(b'\n');
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&bytes).and_then(|()| fs::rename(&draft, self.path.join(name))).inspect_err(|_| {
            let _ = fs::remove_file(&draft);
        })
    }
}

/// Makes a folder, if it is not there, that others may pass through and not list (`rights`).
pub(super) fn make_searchable(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o711).create(folder) {
        Ok(()) => fs::set_permissions(folder, fs::Permissions::from_mode(0o711)),
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(cause) => Err(cause),
    }
}

impl Mark {
    fn name(self) -> &'static str {
        match self {
            Mark::Started => "started",
            Mark::Stopped => "stopped",
            Mark::Cleaned => "cleaned",
        }
    }
}
