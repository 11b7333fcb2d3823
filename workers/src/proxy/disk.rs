//! The last routes on disk, a file per deployment: users' traffic flows from them when nothing else is up.
//!
//! A file holds the SHA-256 of its second line, then the entry as JSON. It is replaced whole (written aside,
//! synced, renamed, the folder synced), so that a power cut leaves the old one or the new one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use schemas::{DeploymentId, Hash};

use crate::traffic::routes::Entry;

const ENDING: &str = "json";

/// A file of the routes' folder that says nothing usable, moved aside.
#[derive(Debug)]
pub(super) struct Damaged {
    /// Where it is now.
    pub(super) aside: PathBuf,
    /// What is wrong with it.
    pub(super) reason: String,
}

/// Reads every entry of `folder`; damaged files are moved aside and named, and the others are served.
///
/// # Errors
///
/// The folder cannot be read.
pub(super) fn load(folder: &Path) -> io::Result<(BTreeMap<DeploymentId, Entry>, Vec<Damaged>)> {
    let (mut entries, mut damaged) = (BTreeMap::new(), Vec::new());
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        if path.extension().is_none_or(|ending| ending != ENDING) {
            continue;
        }
        match read(&path) {
            Ok((id, entry)) => {
                entries.insert(id, entry);
            }
            Err(reason) => {
                let aside = path.with_extension("damaged");
                fs::rename(&path, &aside)?;
                damaged.push(Damaged { aside, reason });
            }
        }
    }
    Ok((entries, damaged))
}

/// Makes `entry` what is on disk for `id`; when this returns, a power cut cannot undo it.
///
/// # Errors
///
/// It could not be written or synced: the disk then holds the old entry or the new one.
pub(super) fn store(folder: &Path, id: &DeploymentId, entry: &Entry) -> io::Result<()> {
    let json = serde_json::to_vec(entry).map_err(io::Error::other)?;
    let path = path_of(folder, id);
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    file.write_all(format!("{}\n", Hash::of(&json)).as_bytes())?;
    file.write_all(&json)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&aside, &path)?;
    File::open(folder)?.sync_all()
}

fn path_of(folder: &Path, id: &DeploymentId) -> PathBuf {
    // Neither name can contain a dot.
    folder.join(format!("{}.{}.{ENDING}", id.environment, id.service))
}

fn read(path: &Path) -> Result<(DeploymentId, Entry), String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let (hash, json) = text.split_once('\n').ok_or("it has one line instead of two")?;
    let json = json.strip_suffix('\n').ok_or("its end is missing")?;
    if Hash::of(json.as_bytes()).to_string() != hash {
        return Err("its content does not match its hash".to_owned());
    }
    let entry: Entry = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let id: DeploymentId = stem.replacen('.', "/", 1).parse().map_err(|error| format!("{error}"))?;
    match entry.held() {
        Some(held) if held.routes.deployment != id => Err(format!("it holds routes of {}", held.routes.deployment)),
        _ => Ok((id, entry)),
    }
}

#[cfg(test)]
mod tests {
    use schemas::StreamVersion;

    use super::*;

    fn retired(generation: u64) -> Entry {
        Entry::Retired { generation: StreamVersion(generation) }
    }

    #[test]
    fn what_was_stored_last_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let [api, web]: [DeploymentId; 2] = ["production/api", "test/web"].map(|id| id.parse().unwrap());
        for (id, generation) in [(&api, 1), (&web, 5), (&api, 2)] {
            store(folder.path(), id, &retired(generation)).unwrap();
        }
        fs::write(folder.path().join("production.api.new"), "a write that was cut off").unwrap();
        let (entries, damaged) = load(folder.path()).unwrap();
        assert_eq!(entries, [(api, retired(2)), (web, retired(5))].into());
        assert!(damaged.is_empty());
    }

    #[test]
    fn any_flipped_bit_is_found_out_and_the_other_files_are_loaded() {
        let (good, bad): (DeploymentId, DeploymentId) = ("test/a".parse().unwrap(), "test/b".parse().unwrap());
        let folder = tempfile::tempdir().unwrap();
        store(folder.path(), &good, &retired(1)).unwrap();
        store(folder.path(), &bad, &retired(3)).unwrap();
        let bytes = fs::read(path_of(folder.path(), &bad)).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(path_of(folder.path(), &bad), flipped).unwrap();
            let (entries, damaged) = load(folder.path()).unwrap();
            assert_eq!((entries.len(), damaged.len()), (1, 1), "bit {bit}");
            assert!(damaged[0].aside.exists());
        }
    }
}
