//! The last routes on disk, a file per deployment: users' traffic flows from them when nothing else is up.
//!
//! A file has a mark and two places, each a text of two lines (the SHA-256 of the second, then JSON) in a block of its
//! own. A change is written over the older place and synced, so it costs one sync and no space: a rollback is quick,
//! and works on a full disk. A power cut leaves the change or what was before it, whole, in the other place. The mark
//! is the number of the last change that was synced; it is what tells a write that was cut off, behind which the place
//! before it counts, from a damaged place, behind which nothing may be served: it can be long out of date.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use schemas::{DeploymentId, Hash};
use serde::{Deserialize, Serialize};

use crate::routes::Entry;

const ENDING: &str = "routes";

/// The length of the mark's block, and what a place's length is a multiple of, in bytes.
const BLOCK: usize = 4_096;

/// A file of the routes' folder that says nothing usable, moved aside.
#[derive(Debug)]
pub(super) struct Damaged {
    /// Where it is now.
    pub(super) aside: PathBuf,
    /// What is wrong with it.
    pub(super) reason: String,
}

/// An entry as a place holds it.
#[derive(Debug, Serialize, Deserialize)]
struct Change {
    /// How many there were before it, and it.
    number: u64,
    entry: Entry,
}

/// The change that counts, and where it stands.
#[derive(Debug)]
struct Newest {
    change: Change,
    /// The place that the next change is written to.
    older_place: usize,
}

/// Reads every entry of `folder`; damaged files are moved aside and named, and the others are served.
///
/// # Errors
///
/// The folder cannot be read.
pub(super) fn load(folder: &Path) -> io::Result<(BTreeMap<DeploymentId, Entry>, Vec<Damaged>)> {
    let (mut entries, mut damaged) = (BTreeMap::new(), Vec::new());
    for path in files(folder)? {
        let path = path?;
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

/// Returns the files of `folder` that hold routes, damaged or not.
///
/// # Errors
///
/// The folder cannot be read.
pub(super) fn files(folder: &Path) -> io::Result<impl Iterator<Item = io::Result<PathBuf>>> {
    let paths = fs::read_dir(folder)?.map(|file| Ok(file?.path()));
    Ok(paths.filter(|path| path.as_ref().map_or(true, |path| path.extension().is_some_and(|end| end == ENDING))))
}

/// Returns what is on disk for `id`, if that is whole; nothing is moved aside.
pub(super) fn kept(folder: &Path, id: &DeploymentId) -> Option<Entry> {
    read(&path_of(folder, id)).ok().map(|(_, entry)| entry)
}

/// Makes `entry` what is on disk for `id`; when this returns, a power cut cannot undo it.
///
/// # Errors
///
/// It could not be written or synced: the disk then holds the old entry or the new one.
pub(super) fn store(folder: &Path, id: &DeploymentId, entry: &Entry) -> io::Result<()> {
    let path = path_of(folder, id);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        read => read.unwrap_or_default(),
    };
    let newest = newest(&bytes).ok();
    let number = newest.as_ref().map_or(1, |newest| newest.change.number + 1);
    let json = serde_json::to_vec(&Change { number, entry: entry.clone() }).map_err(io::Error::other)?;
    match newest.and_then(|newest| Some((place(&bytes, newest.older_place), text(&json, place_len(&bytes)?)?))) {
        // Where that failed, nobody knows what the disk holds: a new file leaves nothing of it.
        Some((place, text)) => write_over(&path, place, &text, number).or_else(|_| replace(&path, &json, number)),
        None => replace(&path, &json, number),
    }
}

/// Writes a change over the older place.
fn write_over(path: &Path, place: usize, text: &[u8], number: u64) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.write_all_at(text, place as u64)?;
    file.sync_data()?;
    // The next sync takes it to disk, or the system when it likes: until then the place before is known to be older
    // by its number, and only a damage of this one would be taken for a write that was cut off.
    let _ = file.write_all_at(&mark(number), 0);
    Ok(())
}

/// Makes a file with the change in both places, and replaces the one that is there as a whole.
fn replace(path: &Path, json: &[u8], number: u64) -> io::Result<()> {
    let place_len = (2 * json.len() + 2 * BLOCK).next_multiple_of(BLOCK);
    let text = text(json, place_len).expect("the place was made for it");
    let aside = path.with_extension("new");
    let file = File::create(&aside)?;
    file.write_all_at(&mark(number), 0)?;
    file.write_all_at(&text, BLOCK as u64)?;
    file.write_all_at(&text, (BLOCK + place_len) as u64)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    File::open(path.parent().expect("it lies in a folder"))?.sync_all()
}

fn mark(number: u64) -> Vec<u8> {
    text(number.to_string().as_bytes(), BLOCK).expect("a number is short")
}

/// Returns the two lines of `json` filled up to `len` bytes, if they fit.
fn text(json: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut text = format!("{}\n", Hash::of(json)).into_bytes();
    text.extend_from_slice(json);
    text.push(b'\n');
    if text.len() > len {
        return None;
    }
    text.resize(len, b'\n');
    Some(text)
}

/// Returns the JSON of a text, if it is what its hash says.
fn json(text: &[u8]) -> Option<&[u8]> {
    let mut lines = text.splitn(3, |byte| *byte == b'\n');
    let (hash, json, _) = (lines.next()?, lines.next()?, lines.next()?);
    (Hash::of(json).to_string().as_bytes() == hash).then_some(json)
}

/// Returns the length of a place, unless the file has none.
fn place_len(bytes: &[u8]) -> Option<usize> {
    let len = bytes.len().checked_sub(BLOCK)? / 2;
    (len > 0 && bytes.len() == BLOCK + 2 * len).then_some(len)
}

/// Returns where a place of the file begins.
fn place(bytes: &[u8], nth: usize) -> usize {
    BLOCK + nth * (bytes.len() - BLOCK) / 2
}

/// Returns the change that counts.
fn newest(bytes: &[u8]) -> Result<Newest, String> {
    let len = place_len(bytes).ok_or("it has not the length of such a file")?;
    let change = |nth| serde_json::from_slice::<Change>(json(&bytes[place(bytes, nth)..][..len])?).ok();
    let (newest, whole) = match [change(0), change(1)] {
        [Some(first), Some(second)] if first.number < second.number => {
            (Newest { change: second, older_place: 0 }, true)
        }
        [Some(first), second] => (Newest { change: first, older_place: 1 }, second.is_some()),
        [None, Some(second)] => (Newest { change: second, older_place: 0 }, false),
        [None, None] => return Err("neither of its places matches its hash".to_owned()),
    };
    let synced = json(&bytes[..BLOCK]).and_then(|json| serde_json::from_slice::<u64>(json).ok());
    match synced {
        Some(synced) if synced > newest.change.number => {
            Err(format!("change {synced} was synced, and {} is the newest that matches its hash", newest.change.number))
        }
        None if !whole => Err("neither its mark nor one of its places matches its hash".to_owned()),
        _ => Ok(newest),
    }
}

fn path_of(folder: &Path, id: &DeploymentId) -> PathBuf {
    // Neither name can contain a dot.
    folder.join(format!("{}.{}.{ENDING}", id.environment, id.service))
}

fn read(path: &Path) -> Result<(DeploymentId, Entry), String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let entry = newest(&bytes)?.change.entry;
    // A proxy that was killed may have written and not synced it: what is served must be what a power cut leaves.
    File::open(path).and_then(|file| file.sync_data()).map_err(|error| error.to_string())?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let id: DeploymentId = stem.replacen('.', "/", 1).parse().map_err(|error| format!("{error}"))?;
    match entry.held() {
        Some(held) if held.routes.deployment != id => Err(format!("it holds routes of {}", held.routes.deployment)),
        _ => Ok((id, entry)),
    }
}

#[cfg(test)]
mod tests;
