//! The disk is full: ordinary appends are refused with the reason, rollbacks are taken, and space that returns is used.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::future::join_all;
use ledger::log::segments::Segments;
use ledger::log::{AppendError, Log as _, Urgency};

use crate::world::{can_run, commit, open, read_all, run, unmount};

/// A small file system that can be filled.
struct SmallDisk {
    mount: PathBuf,
}

impl SmallDisk {
    fn tmpfs(folder: &Path) -> Self {
        let mount = folder.join("tmpfs");
        fs::create_dir(&mount).unwrap();
        run("mount", &["-t", "tmpfs", "-o", "size=12m", "tmpfs", mount.to_str().unwrap()]);
        Self { mount }
    }

    fn ext4(folder: &Path) -> Self {
        let (image, mount) = (folder.join("disk.img"), folder.join("ext4"));
        File::create(&image).unwrap().set_len(24 << 20).unwrap();
        // No blocks kept back for root, who runs this.
        run("mkfs.ext4", &["-qF", "-m0", image.to_str().unwrap()]);
        fs::create_dir(&mount).unwrap();
        run("mount", &["-o", "loop", image.to_str().unwrap(), mount.to_str().unwrap()]);
        Self { mount }
    }

    fn data(&self) -> PathBuf {
        self.mount.join("data")
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.mount.join("filler")).unwrap();
        for size in [1 << 16, 1 << 12, 1 << 9, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        let _ = file.sync_all();
    }

    fn free(&self) {
        fs::remove_file(self.mount.join("filler")).unwrap();
        File::open(&self.mount).and_then(|mount| rustix::fs::syncfs(mount).map_err(Into::into)).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.mount);
    }
}

/// A log on the small disk, and what it acknowledged.
struct Acknowledged {
    log: Segments,
    tried: u64,
    kept: BTreeMap<u64, Bytes>,
}

impl Acknowledged {
    /// Appends the next commit.
    async fn append(&mut self, urgency: Urgency) -> Result<(), AppendError> {
        self.tried += 1;
        let bytes = commit(self.tried);
        let offset = self.log.append(bytes.clone(), urgency).await?;
        assert_eq!(self.kept.insert(offset.0, bytes), None, "{offset} is given twice");
        Ok(())
    }

    /// Appends until commits are refused; returns how many bytes were taken, and why no more.
    async fn fill(&mut self, urgency: Urgency) -> (usize, AppendError) {
        let mut taken = 0;
        loop {
            // Many at once, so that the test does not wait for thousands of syncs.
            let commits: Vec<Bytes> = (1..=64).map(|n| commit(self.tried + n)).collect();
            self.tried += 64;
            let answers = join_all(commits.iter().map(|bytes| self.log.append(bytes.clone(), urgency))).await;
            let mut full = None;
            for (bytes, answer) in commits.into_iter().zip(answers) {
                match answer {
                    Ok(offset) => {
                        taken += bytes.len();
                        assert_eq!(self.kept.insert(offset.0, bytes), None, "{offset} is given twice");
                    }
                    Err(error) => full = Some(error),
                }
            }
            if let Some(error) = full {
                return (taken, error);
            }
        }
    }

    /// Opens the log again, and checks that it holds what was acknowledged and no more.
    fn reopen(self, data: &Path) -> Self {
        drop(self.log);
        let log = open(data);
        let (records, error) = read_all(|from| log.read_blocking(from, 1_000));
        assert_eq!(error, None);
        assert!(records.into_iter().map(|record| (record.offset.0, record.bytes)).eq(self.kept.clone()));
        Self { log, ..self }
    }
}

#[tokio::test]
#[ignore = "needs root: `bash tests/run` runs it"]
async fn a_full_disk_refuses_all_but_rollbacks_and_goes_on_when_there_is_space() {
    if !can_run("full disk", &["mkfs.ext4", "mount"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for disk in [SmallDisk::tmpfs(folder.path()), SmallDisk::ext4(folder.path())] {
        let mut log = Acknowledged { log: open(&disk.data()), tried: 0, kept: BTreeMap::new() };
        log.append(Urgency::Ordinary).await.unwrap();
        disk.fill();

        let (_, error) = log.fill(Urgency::Ordinary).await;
        let segment = disk.data().canonicalize().unwrap().join("log/00000000000000000000.jsonl");
        let expected = format!(
            "the disk is full: {} has no room for {} more bytes; free space; until then only rollbacks are accepted",
            segment.display(),
            commit(log.tried).len()
        );
        assert_eq!(error.to_string(), expected);
        log.append(Urgency::Rollback).await.unwrap();
        assert!(matches!(log.append(Urgency::Ordinary).await, Err(AppendError::Full(_))));
        log.append(Urgency::Rollback).await.unwrap();

        // What is kept for rollbacks outlives the process, on a disk that is still full.
        log = log.reopen(&disk.data());
        assert!(matches!(log.append(Urgency::Ordinary).await, Err(AppendError::Full(_))));
        let (taken, error) = log.fill(Urgency::Rollback).await;
        assert!(matches!(error, AppendError::Full(_)), "{error}");
        assert!(taken > 600 << 10, "{taken} bytes of rollbacks fit");

        // Space returns: everything is taken again, and space is kept in reserve again.
        disk.free();
        log.append(Urgency::Ordinary).await.unwrap();
        disk.fill();
        let (_, error) = log.fill(Urgency::Ordinary).await;
        assert!(matches!(error, AppendError::Full(_)), "{error}");
        log.append(Urgency::Rollback).await.unwrap();
        log.reopen(&disk.data());
    }
}
