//! The port `ledger::log::Log`: a folder with one file for each record, named by its offset.
//!
//! A record gets the first name that is free, and the file system refuses a name that is taken. An object store that can
//! refuse to replace an object works the same way. This one tells the end of the log only to readers in its own process, and
//! keeps no reserve for a rollback on a full disk.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use ledger::log::contract::{self, Carrier};
use ledger::log::{AppendError, Log, ReadError, Record, Urgency};
use ledger::rule;
use schemas::Offset;
use tempfile::{NamedTempFile, TempDir};
use tokio::sync::watch;

struct FolderLog {
    folder: PathBuf,
    end: watch::Sender<Offset>,
}

impl FolderLog {
    fn open(folder: &Path) -> io::Result<Self> {
        let folder = folder.to_owned();
        let mut end = Offset(0);
        while name(&folder, end).try_exists()? {
            end = end.next();
        }
        Ok(Self { folder, end: watch::Sender::new(end) })
    }

    /// Writes a draft and gives it the first free name. The draft is synced first: a name stands for the whole record.
    fn keep(&self, bytes: &[u8]) -> Result<Offset, AppendError> {
        let refused = |cause: io::Error| AppendError::Refused(cause.to_string());
        let mut draft = NamedTempFile::new_in(&self.folder).map_err(refused)?;
        draft.write_all(bytes).and_then(|()| draft.as_file().sync_all()).map_err(refused)?;
        let mut offset = *self.end.borrow();
        loop {
            match draft.persist_noclobber(name(&self.folder, offset)) {
                Ok(_) => break,
                Err(error) if error.error.kind() == ErrorKind::AlreadyExists => draft = error.file,
                Err(error) => return Err(refused(error.error)),
            }
            offset = offset.next();
        }
        let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.map_err(|cause| AppendError::Ambiguous(cause.to_string()))?;
        Ok(offset)
    }
}

fn name(folder: &Path, offset: Offset) -> PathBuf {
    folder.join(format!("{:020}", offset.0))
}

#[async_trait]
impl Log for FolderLog {
    async fn append(&self, bytes: Bytes, _: Urgency) -> Result<Offset, AppendError> {
        let offset = self.keep(&rule::canonical(&bytes))?;
        // Another append may have told a later end already.
        self.end.send_if_modified(|end| {
            let is_later = *end < offset.next();
            *end = (*end).max(offset.next());
            is_later
        });
        Ok(offset)
    }

    async fn read(&self, from: Offset, max: usize) -> Result<Vec<Record>, ReadError> {
        let end = *self.end.borrow();
        let read = |offset: u64| {
            let offset = Offset(offset);
            let bytes = fs::read(name(&self.folder, offset)).map_err(|cause| match cause.kind() {
                ErrorKind::NotFound => ReadError::Damaged { offset, what: "its file is gone".to_owned() },
                _ => ReadError::Unavailable(cause.to_string()),
            })?;
            Ok(Record { offset, bytes: bytes.into() })
        };
        (from.0..end.0).take(max).map(read).collect()
    }

    fn end(&self) -> watch::Receiver<Offset> {
        self.end.subscribe()
    }
}

/// A folder of its own for each promise.
struct Folder(TempDir);

#[async_trait]
impl Carrier for Folder {
    async fn open(&self) -> Arc<dyn Log> {
        Arc::new(FolderLog::open(self.0.path()).expect("the folder can be read"))
    }
}

fn folder() -> Folder {
    Folder(tempfile::tempdir().expect("a folder can be made"))
}

/// Appends three commits, reads them back after a restart, and takes one promise of the contract. The tests below take all.
pub(crate) async fn run() -> crate::Ran {
    let folder = folder();
    let log = folder.open().await;
    let commits =
        [contract::genesis(), contract::step(1, "service/api", rule::NO_HEAD), Bytes::from_static(b"no commit")];
    for commit in &commits {
        let offset = log.append(commit.clone(), Urgency::Ordinary).await?;
        println!("{} bytes are durable at offset {offset}", commit.len());
    }
    drop(log);
    let log = folder.open().await;
    assert_eq!(log.latest().await?, Offset(3));
    let records = log.read(Offset(0), 10).await?;
    let read: Vec<&Bytes> = records.iter().map(|record| &record.bytes).collect();
    assert_eq!(read[..2], [&commits[0], &commits[1]], "a commit is kept byte for byte");
    assert_eq!(*read[2], rule::canonical(&commits[2]), "and of what is no commit its hash and its length");
    fs::remove_file(name(folder.0.path(), Offset(1)))?;
    println!("{}", log.read(Offset(1), 1).await.expect_err("a record is gone"));

    contract::what_was_seen_is_durable(&self::folder()).await;
    Ok(())
}

#[cfg(test)]
mod promises {
    ledger::contract_tests!(super::folder());
}
