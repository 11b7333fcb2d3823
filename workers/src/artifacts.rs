//! The files that releases run, kept under their SHA-256 in `DATA/artifacts`, so that what was released is what runs.
//!
//! A file that no release names is kept for a day after it was last sent or asked for: time enough to release it.

pub mod program;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use schemas::Hash;
use schemas::run::Artifact;
use sha2::{Digest as _, Sha256};

use crate::identity::Identity;

/// A copy that was begun longer ago than this belongs to a process that died.
const ABANDONED_AFTER: Duration = Duration::from_secs(3_600);

/// How long a file is kept that no release names, after it was last sent or asked for.
pub const UNNAMED_FOR: Duration = Duration::from_secs(24 * 3_600);

/// How long a process must have seen that no release names a file before it removes it: a clock that was set forward is no
/// reason to.
pub const SEEN_UNNAMED_FOR: Duration = Duration::from_secs(3_600);

/// Why an artifact cannot be kept or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file that shall be released cannot be read.
    #[error("cannot read artifact {path}: {cause}; name a file that this user can read")]
    Source {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The file that shall be released is a folder, a pipe or the like.
    #[error("artifact {0} is not a regular file; name the program itself")]
    NotAFile(PathBuf),
    /// The store cannot be written or read.
    #[error("cannot use the artifact store at {path}: {cause}")]
    Store {
        /// The place in the store.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The file is not the one that was announced.
    #[error("what arrived has the hash {found}, not {expected}; send it again")]
    Other {
        /// What was announced.
        expected: Hash,
        /// What arrived.
        found: Hash,
    },
    /// It is new here and may not be kept.
    #[error("{0}")]
    NotAdmitted(String),
    /// No copy with this hash.
    #[error("no artifact {0} in the store; release the version again on this machine")]
    Missing(Hash),
    /// The copy is not what was released.
    #[error("artifact {expected} is damaged: its copy has the hash {found}; release the version again to replace it")]
    Damaged {
        /// What was released.
        expected: Hash,
        /// What lies there.
        found: Hash,
    },
}

/// The store. Calls block on the disk.
#[derive(Debug)]
pub struct Artifacts {
    folder: PathBuf,
    verified: Mutex<BTreeMap<Hash, Stamp>>,
    /// Since when this process has seen that no release names a file, on the clock of [`Artifacts::remove_unnamed`]. Held
    /// while a file comes or goes, so that none goes that was just asked for.
    unnamed: Mutex<BTreeMap<Hash, Duration>>,
}

/// A copy in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its hash, and its file's name.
    pub sha256: Hash,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// When it was last sent or asked for.
    pub asked_for: SystemTime,
}

/// What changes whenever a file's content does: device, inode, length, modification and change time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp([i64; 7]);

impl Artifacts {
    /// Opens the store of the data folder, and makes it if it is not there.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if it cannot be made.
    pub fn open(data: &Path) -> Result<Self, Error> {
        let folder = data.join("artifacts");
        let at = |cause| Error::Store { path: folder.clone(), cause };
        make(&folder).map_err(at)?;
        remove_abandoned_copies(&folder).map_err(at)?;
        Ok(Self { folder, verified: Mutex::default(), unnamed: Mutex::default() })
    }

    /// Keeps a copy of the file at `source`. Again with the same content changes nothing; a damaged copy is replaced.
    ///
    /// # Errors
    ///
    /// [`Error`] naming the file and what is wrong with it.
    pub fn store(&self, source: &Path) -> Result<Artifact, Error> {
        self.store_if(source, None, |_| Ok(()))
    }

    /// Keeps a copy of the file at `source` as [`Artifacts::store`] does, if it has the hash `expected` and, unless its content
    /// is in the store already, if `admit` lets it in.
    ///
    /// # Errors
    ///
    /// [`Error::Other`], [`Error::NotAdmitted`] with what `admit` says, or another [`Error`].
    pub fn store_if(
        &self,
        source: &Path,
        expected: Option<Hash>,
        admit: impl FnOnce(&Artifact) -> Result<(), String>,
    ) -> Result<Artifact, Error> {
        self.keep(open_source(source)?, source, expected, admit)
    }

    /// Keeps a copy of the file at `source`, if the user `identity` can read it and `admit` lets it in. Only root can ask so
    /// of another user.
    ///
    /// # Errors
    ///
    /// As [`Artifacts::store_if`].
    pub fn store_of(
        &self,
        source: &Path,
        identity: &Identity,
        admit: impl FnOnce(&Artifact) -> Result<(), String>,
    ) -> Result<Artifact, Error> {
        let unreadable = |cause| Error::Source { path: source.to_owned(), cause };
        let opened = identity.act(|| open_source(source)).map_err(unreadable)?;
        self.keep(opened?, source, None, admit)
    }

    fn keep(
        &self,
        mut from: File,
        source: &Path,
        expected: Option<Hash>,
        admit: impl FnOnce(&Artifact) -> Result<(), String>,
    ) -> Result<Artifact, Error> {
        let unreadable = |cause| Error::Source { path: source.to_owned(), cause };
        let draft = Draft::new(&self.folder);
        // The hash is taken of the copy and not of the source, which may change while it is read.
        let (copy, sha256, size_bytes) = draft.fill(&mut from).map_err(|fault| match fault {
            FillFault::Reading(cause) => unreadable(cause),
            FillFault::Keeping(cause) => Error::Store { path: draft.path.clone(), cause },
        })?;
        if let Some(expected) = expected.filter(|expected| *expected != sha256) {
            return Err(Error::Other { expected, found: sha256 });
        }
        let name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let artifact = Artifact { sha256, name, size_bytes };
        let mut unnamed = self.unnamed.lock().unwrap();
        if self.verify(sha256).is_ok() {
            self.ask_for(sha256, &mut unnamed)?;
        } else {
            admit(&artifact).map_err(Error::NotAdmitted)?;
            let at = |cause| Error::Store { path: self.path(sha256), cause };
            draft.keep_as(&self.path(sha256)).map_err(at)?;
            let stamp = Stamp::of(&copy).map_err(at)?; // only now: renaming changes it
            self.verified.lock().unwrap().insert(sha256, stamp);
        }
        Ok(artifact)
    }

    /// Returns the length of the copy with this hash, in bytes, and keeps it for another day at least.
    ///
    /// # Errors
    ///
    /// As [`Artifacts::verify`].
    pub fn size_bytes(&self, sha256: Hash) -> Result<u64, Error> {
        let mut unnamed = self.unnamed.lock().unwrap();
        self.verify(sha256)?;
        self.ask_for(sha256, &mut unnamed)
    }

    /// Notes that a copy was asked for now, and returns its length.
    fn ask_for(&self, sha256: Hash, unnamed: &mut BTreeMap<Hash, Duration>) -> Result<u64, Error> {
        let at = |cause| Error::Store { path: self.path(sha256), cause };
        let file = File::open(self.path(sha256)).map_err(at)?;
        file.set_modified(SystemTime::now()).map_err(at)?;
        unnamed.remove(&sha256);
        let stamp = Stamp::of(&file).map_err(at)?; // it was verified, and this changed it
        self.verified.lock().unwrap().insert(sha256, stamp);
        Ok(file.metadata().map_err(at)?.len())
    }

    /// Returns every copy that is not among `named`.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if the folder cannot be read.
    pub fn unnamed(&self, named: &BTreeSet<Hash>) -> Result<Vec<Kept>, Error> {
        let at = |cause| Error::Store { path: self.folder.clone(), cause };
        let mut found = vec![];
        for entry in fs::read_dir(&self.folder).map_err(at)? {
            let entry = entry.map_err(at)?;
            let sha256 = entry.file_name().to_str().and_then(|name| name.parse::<Hash>().ok());
            let Some(sha256) = sha256.filter(|sha256| !named.contains(sha256)) else { continue };
            // One that goes meanwhile is gone.
            let Ok(metadata) = entry.metadata() else { continue };
            let asked_for = metadata.modified().map_err(at)?;
            found.push(Kept { sha256, size_bytes: metadata.len(), asked_for });
        }
        Ok(found)
    }

    /// Removes the copies that are not among `named`, once they have not been asked for in [`UNNAMED_FOR`], and returns them.
    /// `elapsed` is how long the process has run, on a clock that nobody sets: a copy goes only if it was seen here without a
    /// name for [`SEEN_UNNAMED_FOR`].
    ///
    /// # Errors
    ///
    /// [`Error::Store`] for what cannot be read or removed.
    pub fn remove_unnamed(
        &self,
        named: &BTreeSet<Hash>,
        now: SystemTime,
        elapsed: Duration,
    ) -> Result<Vec<Kept>, Error> {
        let mut seen = self.unnamed.lock().unwrap();
        let unnamed = self.unnamed(named)?;
        seen.retain(|sha256, _| unnamed.iter().any(|kept| kept.sha256 == *sha256));
        let mut removed = vec![];
        for kept in unnamed {
            let since = *seen.entry(kept.sha256).or_insert(elapsed);
            let old = now.duration_since(kept.asked_for).is_ok_and(|age| age >= UNNAMED_FOR);
            if !old || elapsed.saturating_sub(since) < SEEN_UNNAMED_FOR {
                continue;
            }
            let path = self.path(kept.sha256);
            fs::remove_file(&path).map_err(|cause| Error::Store { path, cause })?;
            self.verified.lock().unwrap().remove(&kept.sha256);
            seen.remove(&kept.sha256);
            removed.push(kept);
        }
        Ok(removed)
    }

    /// Returns where the copy with this hash lies, if it does.
    pub fn path(&self, sha256: Hash) -> PathBuf {
        self.folder.join(sha256.to_string())
    }

    /// Returns the copy's path after making sure that it still has its hash. A copy that has not been touched since it
    /// was last verified is not read again.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`], [`Error::Damaged`], or [`Error::Store`] if it cannot be read.
    pub fn verify(&self, sha256: Hash) -> Result<PathBuf, Error> {
        let path = self.path(sha256);
        let at = |cause: io::Error| match cause.kind() {
            io::ErrorKind::NotFound => Error::Missing(sha256),
            _ => Error::Store { path: path.clone(), cause },
        };
        let mut file = File::open(&path).map_err(at)?;
        let stamp = Stamp::of(&file).map_err(at)?;
        if self.verified.lock().unwrap().get(&sha256) == Some(&stamp) {
            return Ok(path);
        }
        let found = hash(&mut file).map_err(at)?;
        if found != sha256 {
            return Err(Error::Damaged { expected: sha256, found });
        }
        self.verified.lock().unwrap().insert(sha256, stamp);
        Ok(path)
    }
}

/// Opens a regular file; what a pipe or a device would give is never waited for.
fn open_source(source: &Path) -> Result<File, Error> {
    let unreadable = |cause| Error::Source { path: source.to_owned(), cause };
    if !fs::metadata(source).map_err(unreadable)?.is_file() {
        return Err(Error::NotAFile(source.to_owned()));
    }
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(source).map_err(unreadable)?;
    match file.metadata().map_err(unreadable)?.is_file() {
        true => Ok(file),
        false => Err(Error::NotAFile(source.to_owned())),
    }
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let m = file.metadata()?;
        let (dev, ino, size) = (m.dev() as i64, m.ino() as i64, m.len() as i64);
        Ok(Self([dev, ino, size, m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()]))
    }
}

/// A copy under way; removed when dropped unless it was kept.
struct Draft {
    path: PathBuf,
}

enum FillFault {
    Reading(io::Error),
    Keeping(io::Error),
}

impl Draft {
    fn new(folder: &Path) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { path: folder.join(format!(".draft-{}-{n}", std::process::id())) }
    }

    /// Copies all of `from`, durably, and returns the copy, its hash and its length in bytes.
    fn fill(&self, from: &mut File) -> Result<(File, Hash, u64), FillFault> {
        let _ = fs::remove_file(&self.path); // of a process that died and had our id
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o700);
        let mut copy = options.open(&self.path).map_err(FillFault::Keeping)?;
        // Between two files this is `copy_file_range`: no bytes through this process, shared blocks where possible.
        let size_bytes = io::copy(from, &mut copy).map_err(|cause| match cause.raw_os_error() {
            Some(NO_SPACE | OVER_QUOTA | TOO_LARGE) => FillFault::Keeping(cause),
            _ => FillFault::Reading(cause),
        })?;
        copy.set_permissions(fs::Permissions::from_mode(0o555)).map_err(FillFault::Keeping)?;
        copy.sync_all().map_err(FillFault::Keeping)?;
        drop(copy);
        let mut copy = File::open(&self.path).map_err(FillFault::Keeping)?;
        let sha256 = hash(&mut copy).map_err(FillFault::Keeping)?;
        Ok((copy, sha256, size_bytes))
    }

    fn keep_as(&self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        File::open(path.parent().expect("a copy lies in the store's folder"))?.sync_all()
    }
}

const NO_SPACE: i32 = rustix::io::Errno::NOSPC.raw_os_error();
const OVER_QUOTA: i32 = rustix::io::Errno::DQUOT.raw_os_error();
const TOO_LARGE: i32 = rustix::io::Errno::FBIG.raw_os_error();

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // not there any more if it was kept
    }
}

fn hash(file: &mut File) -> io::Result<Hash> {
    let mut sha256 = Sha256::new();
    let mut chunk = vec![0; 256 * 1024];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(Hash(sha256.finalize().into())),
            n => sha256.update(&chunk[..n]),
        }
    }
}

/// Makes the store so that others may come to an artifact whose hash they know, and not list them (`rights`).
fn make(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o711).create(folder) {
        Ok(()) => fs::set_permissions(folder, fs::Permissions::from_mode(0o711)),
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(cause) => Err(cause),
    }
}

fn remove_abandoned_copies(folder: &Path) -> io::Result<()> {
    let now = SystemTime::now();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let old = |m: fs::Metadata| now.duration_since(m.modified().ok()?).ok().filter(|age| *age > ABANDONED_AFTER);
        if entry.file_name().to_string_lossy().starts_with(".draft-") && entry.metadata().ok().and_then(old).is_some() {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Artifacts) {
        let data = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(data.path()).unwrap();
        (data, artifacts)
    }

    fn file(data: &tempfile::TempDir, name: &str, content: &[u8]) -> PathBuf {
        let path = data.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn a_copy_lies_under_its_hash_and_only_once() {
        let (data, artifacts) = store();
        let first = artifacts.store(&file(&data, "api", b"#!/bin/sh\n")).unwrap();
        let again = artifacts.store(&file(&data, "other", b"#!/bin/sh\n")).unwrap();
        assert_eq!(first, Artifact { sha256: Hash::of(b"#!/bin/sh\n"), name: "api".into(), size_bytes: 10 });
        assert_eq!(again.sha256, first.sha256);
        let copy = artifacts.verify(first.sha256).unwrap();
        assert_eq!(fs::read(&copy).unwrap(), b"#!/bin/sh\n");
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o7777, 0o555);
        assert_eq!(fs::read_dir(data.path().join("artifacts")).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_later_change_of_the_source_does_not_change_the_copy() {
        let (data, artifacts) = store();
        let source = file(&data, "api", b"one");
        let one = artifacts.store(&source).unwrap();
        fs::write(&source, b"two").unwrap();
        assert_eq!(fs::read(artifacts.verify(one.sha256).unwrap()).unwrap(), b"one");
    }

    #[test]
    fn a_changed_copy_is_found_out_after_it_was_verified_and_storing_again_mends_it() {
        let (data, artifacts) = store();
        let source = file(&data, "api", b"right");
        let sha256 = artifacts.store(&source).unwrap().sha256;
        let copy = artifacts.verify(sha256).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(&copy, b"wrong").unwrap();
        let error = artifacts.verify(sha256).unwrap_err();
        assert!(matches!(error, Error::Damaged { found, .. } if found == Hash::of(b"wrong")), "{error}");
        artifacts.store(&source).unwrap();
        assert_eq!(fs::read(artifacts.verify(sha256).unwrap()).unwrap(), b"right");
    }

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn what_no_release_names_goes_a_day_after_it_was_last_asked_for() {
        let (data, artifacts) = store();
        let [one, two, named] =
            [b"one", b"two", b"nam"].map(|content| artifacts.store(&file(&data, "x", content)).unwrap().sha256);
        let release = BTreeSet::from([named]);
        let now = SystemTime::now();
        let removed = |wall: Duration, elapsed| -> Vec<Hash> {
            let removed = artifacts.remove_unnamed(&release, now + wall, elapsed).unwrap();
            removed.iter().map(|kept| kept.sha256).collect()
        };
        assert!(removed(HOUR * 23, HOUR * 23).is_empty());
        File::open(artifacts.path(two)).unwrap().set_modified(now + HOUR * 20).unwrap(); // sent again
        assert_eq!(removed(HOUR * 25, HOUR * 25), [one]);
        assert!(matches!(artifacts.verify(one), Err(Error::Missing(_))));
        assert_eq!(removed(HOUR * 45, HOUR * 45), [two]);
        assert!(removed(HOUR * 9_000, HOUR * 9_000).is_empty());
        artifacts.verify(named).unwrap();
    }

    #[test]
    fn a_clock_that_was_set_forward_and_a_file_that_is_asked_for_remove_nothing() {
        let (data, artifacts) = store();
        let one = artifacts.store(&file(&data, "one", b"one")).unwrap();
        let year = SystemTime::now() + HOUR * 9_000;
        let none = BTreeSet::new();
        for minutes in [0, 10, 59] {
            let removed = artifacts.remove_unnamed(&none, year, Duration::from_secs(minutes * 60)).unwrap();
            assert_eq!(removed, [], "after {minutes} minutes of running");
        }
        assert_eq!(artifacts.size_bytes(one.sha256).unwrap(), 3);
        assert_eq!(artifacts.remove_unnamed(&none, year, HOUR * 2).unwrap(), [], "it was asked for since");
        assert_eq!(artifacts.remove_unnamed(&none, year, HOUR * 3).unwrap().len(), 1);
    }

    #[test]
    fn what_is_not_let_in_or_is_not_what_was_announced_is_not_kept_and_known_content_is() {
        let (data, artifacts) = store();
        let known = file(&data, "known", b"known");
        artifacts.store(&known).unwrap();
        let nothing = |_: &Artifact| Err("full".to_owned());
        assert_eq!(artifacts.store_if(&known, None, nothing).unwrap().sha256, Hash::of(b"known"));
        let new = file(&data, "new", b"new");
        let refused = artifacts.store_if(&new, None, nothing).unwrap_err();
        assert!(matches!(&refused, Error::NotAdmitted(why) if why == "full"), "{refused}");
        let other = artifacts.store_if(&new, Some(Hash::of(b"known")), |_| Ok(())).unwrap_err();
        assert!(matches!(other, Error::Other { .. }), "{other}");
        assert_eq!(fs::read_dir(data.path().join("artifacts")).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_stored_is_named() {
        let (data, artifacts) = store();
        let missing = artifacts.store(&data.path().join("nothing")).unwrap_err().to_string();
        assert!(missing.contains("nothing: No such file"), "{missing}");
        let folder = artifacts.store(data.path()).unwrap_err().to_string();
        assert!(folder.contains("is not a regular file"), "{folder}");
        let unknown = artifacts.verify(Hash::of(b"never")).unwrap_err();
        assert!(matches!(unknown, Error::Missing(_)), "{unknown}");
    }
}
