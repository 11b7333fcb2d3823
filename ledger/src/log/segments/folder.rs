//! The data folder: who holds it, which format it has, and which segments lie in it.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use schemas::{LedgerId, Offset};
use serde::{Deserialize, Serialize};

use super::SegmentsOpenError;

/// The format of the data folder that this program writes and understands.
pub const FORMAT: u32 = 1;

/// The file that marks a copy.
const COPY_OF: &str = "copy-of";

/// The file that says where the ledger of a folder's nodes and routes lies, if not in the folder.
const ELSEWHERE: &str = "ledger-at.json";

/// How long a lock that no living process put its id to is waited for: a reader holds it for the moment of a look.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// How long a lock is waited for that its holder has for one command only: a little longer than that may take.
const MOMENT_MAX: Duration = Duration::from_secs(12);

/// What stands behind the id of a process that holds the lock for one command only.
const MOMENT: &str = " for a moment";

#[derive(Serialize, Deserialize)]
struct Format {
    format: u32,
}

/// A data folder that this process holds; it is given back when this is dropped.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    lock: File,
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        // A blank lock names no holder. A process that is killed leaves its id behind, which then no longer lives.
        let _ = sign(&self.lock, "");
        unlock(&self.lock);
    }
}

impl DataFolder {
    /// Makes the folder at `path` if there is none, and holds it against every other process.
    ///
    /// # Errors
    ///
    /// [`SegmentsOpenError`] if another process holds it, it has a newer format, or it cannot be used.
    pub fn hold(path: &Path) -> Result<Self, SegmentsOpenError> {
        let path = made(path)?;
        let io = |source| SegmentsOpenError::io(&path, source);
        if let Some(parent) = path.parent() {
            sync_dir(parent).map_err(io)?;
        }
        let lock = lock(&path)?;
        match format(&path)? {
            Some(_) => {}
            None => write_synced(&path, "format.json", &serde_json::to_vec(&Format { format: FORMAT }).expect("JSON"))
                .map_err(io)?,
        }
        fs::create_dir_all(path.join("log")).and_then(|()| sync_dir(&path)).map_err(io)?;
        Ok(Self { path, lock })
    }

    /// Says in its lock that it is held for one command only: whoever would hold it waits that long.
    ///
    /// # Errors
    ///
    /// [`SegmentsOpenError::Io`] if that cannot be written.
    pub fn sign_for_a_moment(&self) -> Result<(), SegmentsOpenError> {
        let signed = sign(&self.lock, &format!("{}{MOMENT}", std::process::id()));
        signed.map_err(|source| SegmentsOpenError::io(&self.path, source))
    }

    /// Returns what its log is a copy of, if it is one.
    ///
    /// # Errors
    ///
    /// [`SegmentsOpenError::Io`] if that cannot be read.
    pub fn copy_of(&self) -> Result<Option<String>, SegmentsOpenError> {
        copy_of(&self.path)
    }

    /// Marks its log as a copy, or as none any more.
    ///
    /// # Errors
    ///
    /// [`SegmentsOpenError::Io`] if that cannot be written.
    pub fn mark_copy(&self, of: Option<&str>) -> Result<(), SegmentsOpenError> {
        let path = self.path.join(COPY_OF);
        let marked = match of {
            Some(of) => write_synced(&self.path, COPY_OF, format!("{of}\n").as_bytes()),
            None => match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => sync_dir(&self.path),
            },
        };
        marked.map_err(|source| SegmentsOpenError::io(&path, source))
    }

    /// Says that its ledger lies in it, and no longer elsewhere.
    ///
    /// # Errors
    ///
    /// [`SegmentsOpenError::Io`] if that cannot be written.
    pub fn mark_here(&self) -> Result<(), SegmentsOpenError> {
        let path = self.path.join(ELSEWHERE);
        let marked = match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => sync_dir(&self.path),
        };
        marked.map_err(|source| SegmentsOpenError::io(&path, source))
    }

    /// Returns where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Where the ledger of a folder's nodes and routes lies, if not in the folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// The place, as `--ledger` names it.
    pub place: String,
    /// The ledger.
    pub ledger: LedgerId,
}

/// Returns where the ledger of the folder at `path` lies, if not in it.
///
/// # Errors
///
/// [`SegmentsOpenError::Io`] if that cannot be read.
pub fn elsewhere(path: &Path) -> Result<Option<Elsewhere>, SegmentsOpenError> {
    let path = path.join(ELSEWHERE);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| SegmentsOpenError::io(&path, error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SegmentsOpenError::io(&path, source)),
    }
}

/// A data folder that this process shares with others: its ledger lies elsewhere, and none may be held in it meanwhile.
#[derive(Debug)]
pub struct SharedFolder {
    path: PathBuf,
    lock: File,
}

impl Drop for SharedFolder {
    fn drop(&mut self) {
        unlock(&self.lock);
    }
}

impl SharedFolder {
    /// Makes the folder at `path` if there is none, and keeps every process from holding it.
    ///
    /// # Errors
    ///
    /// [`SegmentsOpenError`] if a process holds it, or it cannot be used.
    pub fn hold(path: &Path) -> Result<Self, SegmentsOpenError> {
        let path = made(path)?;
        let io = |source| SegmentsOpenError::io(&path, source);
        let lock = lock_file(&path).map_err(io)?;
        match lock.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::Error(source)) => return Err(io(source)),
            Err(TryLockError::WouldBlock) => return Err(held(&path, holder(&path).map(|(pid, _)| pid))),
        }
        // Whoever is kept from holding it is told of one of those who share it.
        sign(&lock, &std::process::id().to_string()).map_err(io)?;
        Ok(Self { path, lock })
    }

    /// Says where its ledger lies, so that nobody begins one in it: to that, its nodes would be strangers.
    ///
    /// # Errors
    ///
    /// [`SegmentsOpenError::Io`] if that cannot be written.
    pub fn mark_elsewhere(&self, at: &Elsewhere) -> Result<(), SegmentsOpenError> {
        if elsewhere(&self.path)?.as_ref() == Some(at) {
            return Ok(());
        }
        let marked = write_synced(&self.path, ELSEWHERE, &serde_json::to_vec(at).expect("JSON"));
        marked.map_err(|source| SegmentsOpenError::io(&self.path.join(ELSEWHERE), source))
    }

    /// Returns where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes the folder at `path` if there is none, and returns where it is.
fn made(path: &Path) -> Result<PathBuf, SegmentsOpenError> {
    let made = fs::create_dir_all(path).and_then(|()| path.canonicalize());
    made.map_err(|source| SegmentsOpenError::io(path, source))
}

/// Returns what the log of the folder at `path` is a copy of, if it is one.
///
/// # Errors
///
/// [`SegmentsOpenError::Io`] if that cannot be read.
pub fn copy_of(path: &Path) -> Result<Option<String>, SegmentsOpenError> {
    let path = path.join(COPY_OF);
    match fs::read_to_string(&path) {
        Ok(of) => Ok(Some(of.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SegmentsOpenError::io(&path, source)),
    }
}

/// Looks whether there is a ledger that a process could follow and write to from the folder at `path`.
///
/// # Errors
///
/// [`SegmentsOpenError::NoLog`] and [`SegmentsOpenError::Copy`], or what keeps from looking.
pub fn check_ledger(path: &Path) -> Result<(), SegmentsOpenError> {
    if elsewhere(path)?.is_some() {
        return Ok(());
    }
    if format(path)?.is_none() {
        return Err(SegmentsOpenError::NoLog(path.to_owned()));
    }
    match copy_of(path)? {
        Some(of) => Err(SegmentsOpenError::Copy { folder: path.to_owned(), of }),
        None => Ok(()),
    }
}

/// Opens the file that is locked.
fn lock_file(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path.join("lock"))
}

/// The error of who finds the folder held.
fn held(path: &Path, holder: Option<u32>) -> SegmentsOpenError {
    let pid = holder.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
    SegmentsOpenError::Held { folder: path.to_owned(), pid }
}

/// Takes the lock of the folder at `path` and writes this process's id into it.
fn lock(path: &Path) -> Result<File, SegmentsOpenError> {
    let io = |source| SegmentsOpenError::io(path, source);
    let file = lock_file(path).map_err(io)?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(source)) => return Err(io(source)),
            Err(TryLockError::WouldBlock) => {
                let holder = holder(path);
                let lives = |pid: u32| Path::new(&format!("/proc/{pid}")).exists();
                let patience = match &holder {
                    Some((pid, false)) if lives(*pid) => Duration::ZERO,
                    Some((pid, true)) if lives(*pid) => MOMENT_MAX,
                    _ => LOOK_MAX,
                };
                if begun.elapsed() >= patience {
                    return Err(held(path, holder.map(|(pid, _)| pid)));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    sign(&file, &std::process::id().to_string()).map_err(io)?;
    Ok(file)
}

/// Writes who holds the lock over who did: in place, which needs no space on a full disk.
fn sign(lock: &File, pid: &str) -> io::Result<()> {
    lock.write_all_at(format!("{pid:<40}\n").as_bytes(), 0)
}

/// Returns the process that took the folder at `path` last, alive or not; nothing if none did.
pub fn taken_by(path: &Path) -> Option<u32> {
    holder(path).map(|(pid, _)| pid)
}

/// Returns who holds the lock, and whether for one command only.
fn holder(path: &Path) -> Option<(u32, bool)> {
    let text = fs::read_to_string(path.join("lock")).ok()?;
    let signed = text.lines().next()?.trim();
    let moment = signed.strip_suffix(MOMENT.trim());
    Some((moment.unwrap_or(signed).trim().parse().ok()?, moment.is_some()))
}

/// A look at a folder that is not held: while it lasts no process can begin to hold it.
pub(super) struct UnheldFolder {
    lock: Option<File>,
    /// Whether another process holds the folder.
    pub(super) is_held: bool,
}

impl UnheldFolder {
    /// Looks at the folder at `path`. A folder whose lock cannot be read counts as held, the careful answer.
    pub(super) fn at(path: &Path) -> Self {
        match File::open(path.join("lock")) {
            Ok(lock) => Self { is_held: lock.try_lock_shared().is_err(), lock: Some(lock) },
            Err(error) => Self { is_held: error.kind() != io::ErrorKind::NotFound, lock: None },
        }
    }
}

impl Drop for UnheldFolder {
    fn drop(&mut self) {
        self.lock.iter().for_each(unlock);
    }
}

/// Gives a lock back at once. Closing its file is not enough: a child that another thread has just forked has the file
/// open too, until it executes its program.
fn unlock(lock: &File) {
    let _ = lock.unlock();
}

/// Returns the folder's format, nothing for a folder that has none yet.
///
/// # Errors
///
/// [`SegmentsOpenError`] if it is newer than [`FORMAT`], or not to be read.
pub(super) fn format(path: &Path) -> Result<Option<u32>, SegmentsOpenError> {
    let file = path.join("format.json");
    let text = match fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(SegmentsOpenError::io(&file, source)),
    };
    let Format { format } =
        serde_json::from_slice(&text).map_err(|error| SegmentsOpenError::io(&file, error.into()))?;
    if format > FORMAT {
        return Err(SegmentsOpenError::Format { folder: path.to_owned(), found: format });
    }
    Ok(Some(format))
}

/// Writes a file so that after a power cut it is there whole or not at all.
pub(super) fn write_synced(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = folder.join(format!("{name}.new"));
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, folder.join(name))?;
    sync_dir(folder)
}

/// Makes the names in a folder durable.
pub(super) fn sync_dir(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Returns the name of the segment that begins with `first`.
pub(super) fn segment_name(first: Offset) -> String {
    format!("{:020}.jsonl", first.0)
}

/// Returns the first offset of every segment in `log`, in order.
pub(super) fn segments(log: &Path) -> io::Result<Vec<Offset>> {
    let mut firsts = Vec::new();
    for entry in fs::read_dir(log)? {
        let name = entry?.file_name();
        let first = name.to_str().and_then(|name| name.strip_suffix(".jsonl")).and_then(|stem| stem.parse().ok());
        if let Some(first) = first.map(Offset).filter(|first| name == *segment_name(*first)) {
            firsts.push(first);
        }
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// Reads a small file whole.
pub(super) fn read_small(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}
