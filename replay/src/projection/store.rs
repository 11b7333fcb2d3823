//! The one place that knows sled: a tree of sealed values, opened, read and written so that its damage is an error.
//!
//! sled 0.34.7 panics on some damage and silently misses keys on other, and a torn snapshot stops it from opening;
//! so everything is called under `catch_unwind`, and whoever reads counts.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::row::{Damaged, Result, damaged, seal, share_of_sum, unseal};

/// sled's memory for pages, in bytes; it was measured to use twice that.
const CACHE_BYTES: u64 = 32 << 20;
/// How often sled writes what it has to the disk, in milliseconds. What a crash takes away is folded again.
const FLUSH_MS: u64 = 2_000;

pub(super) struct Store {
    /// Gone when this is dropped.
    db: Option<sled::Db>,
    folder: PathBuf,
}

/// What is written in one go: all of it or none.
#[derive(Default)]
pub(super) struct Batch(sled::Batch);

impl Batch {
    /// Adds a value and returns its part of the sum over all present rows and heads.
    pub(super) fn put(&mut self, key: Vec<u8>, payload: &[u8]) -> u64 {
        let sealed = seal(&key, payload);
        let share = share_of_sum(&key, &sealed);
        self.0.insert(key, sealed);
        share
    }
}

impl Store {
    /// Opens the store in `folder`, or makes one.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        sweep(folder).map_err(|error| damaged(error.to_string()))?;
        let config = sled::Config::new()
            .path(folder)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(Some(FLUSH_MS))
            .use_compression(false);
        let db = caught(|| open_when_free(&config))?;
        Ok(Self { db: Some(db), folder: folder.to_owned() })
    }

    fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("held until it is dropped")
    }

    /// Returns what is kept under `key`.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let value = caught(|| self.db().get(key))?;
        value.map(|value| unseal(key, &value).map(<[u8]>::to_vec)).transpose()
    }

    /// Returns the last entry from `from` to `to`, both included.
    pub(super) fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let found = caught(|| self.db().range(from..=to).next_back().transpose())?;
        found.map(|(key, value)| Ok((key.to_vec(), unseal(&key, &value)?.to_vec()))).transpose()
    }

    /// Returns the keys that begin with `prefix`, in their order.
    pub(super) fn keys_with(&self, prefix: &[u8]) -> impl Iterator<Item = Result<Vec<u8>>> + use<> {
        let mut entries = self.db().scan_prefix(prefix);
        std::iter::from_fn(move || caught(|| entries.next().transpose()).transpose().map(|entry| Ok(entry?.0.to_vec())))
    }

    /// Calls `see` with every entry whose key begins with `tag`: its key and its sealed value.
    pub(super) fn scan(&self, tag: u8, see: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        self.scan_from(&[tag], tag, see)
    }

    /// Does so from `first` on.
    pub(super) fn scan_from(
        &self,
        first: &[u8],
        tag: u8,
        mut see: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut entries = self.db().range(first.to_vec()..vec![tag + 1]);
        while let Some((key, value)) = caught(|| entries.next().transpose())? {
            see(&key, &value)?;
        }
        Ok(())
    }

    /// Says whether nothing is kept.
    pub(super) fn is_empty(&self) -> Result<bool> {
        caught(|| Ok(self.db().is_empty()))
    }

    /// Writes a batch.
    pub(super) fn apply(&self, batch: Batch) -> Result<()> {
        caught(|| self.db().apply_batch(batch.0))
    }

    /// Writes what is in memory to the disk.
    pub(super) fn flush(&self) -> Result<()> {
        caught(|| self.db().flush()).map(drop)
    }

    /// Returns where it lies.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Moves the store's folder out of the way, in place of one that was moved before.
    pub(super) fn set_aside(mut self) -> std::io::Result<()> {
        let folder = self.folder.clone();
        self.close();
        set_aside(&folder)
    }

    fn close(&mut self) {
        if let Some(db) = self.db.take() {
            let _ = caught(|| {
                drop(db);
                Ok(())
            });
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// Moves the folder of a cache that is of no use out of the way.
pub(super) fn set_aside(folder: &Path) -> std::io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let aside = folder.with_extension("aside");
    if aside.exists() {
        fs::remove_dir_all(&aside)?;
    }
    fs::rename(folder, &aside).or_else(|_| fs::remove_dir_all(folder))
}

/// Removes half-written snapshots, at which sled would stop.
fn sweep(folder: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "generating") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// How long a store that this process closed may take to be free again.
const FREE_WAIT: Duration = Duration::from_secs(10);

/// Opens sled's store. The caller holds the cache's own lock, so that if sled says that the store is locked, it has not yet
/// let go of one that was closed a moment before: its threads end later than its handle.
fn open_when_free(config: &sled::Config) -> sled::Result<sled::Db> {
    let deadline = Instant::now() + FREE_WAIT;
    loop {
        match config.open() {
            Err(sled::Error::Io(error))
                if error.to_string().contains("could not acquire lock") && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened,
        }
    }
}

/// Calls sled; an error and a panic are damage.
fn caught<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| damaged(error.to_string())),
        Err(panic) => {
            let why = panic.downcast_ref::<String>().map(String::as_str);
            let why = why.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("sled panicked");
            Err(Damaged(why.to_owned()))
        }
    }
}
