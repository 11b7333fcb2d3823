//! The folder of what was done without the ledger: a file for each rollback until the ledger has it.
//!
//! `glass/COMMAND.json` waits, `glass/done/` holds those that the ledger has, `glass/aside/` what nobody may take for one,
//! each beside a `.why` that says why.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use schemas::CommandId;
use schemas::break_glass::Intent;

use super::key::Key;
use crate::durable;

/// Where a data folder keeps what was done without the ledger.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

/// A file that waits: its intent, or why it is none.
#[derive(Clone, Debug)]
pub struct Found {
    /// The file.
    pub file: PathBuf,
    /// What it says.
    pub intent: Result<Intent, String>,
}

/// A file that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// The file.
    pub file: PathBuf,
    /// Why nobody may take it for an intent.
    pub why: String,
}

impl Folder {
    /// Returns the folder of `data`. It need not be there.
    pub fn of(data: &Path) -> Self {
        Self { path: data.join("glass") }
    }

    /// Makes the folder and the key that signs, so that an emergency need not.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn prepare(&self) -> io::Result<()> {
        self.key().map(drop)
    }

    /// Returns the key's file, for whoever looks at its permissions.
    pub fn key_file(&self) -> PathBuf {
        self.path.join(super::key::NAME)
    }

    /// Writes an intent down, signed and synced with its name, and returns its file.
    ///
    /// # Errors
    ///
    /// It cannot be written. It may be there all the same.
    pub fn write(&self, intent: &Intent) -> io::Result<PathBuf> {
        let text = self.key()?.sign(intent);
        let file = self.file_of(intent.command.id);
        durable::replace(&file, &text)?;
        Ok(file)
    }

    /// Returns the file in which the intent of a command waits, if it is written down.
    pub(super) fn file_of(&self, id: CommandId) -> PathBuf {
        self.path.join(format!("{id}.json"))
    }

    /// Returns what waits, by its name.
    ///
    /// # Errors
    ///
    /// The folder or its key cannot be read.
    pub fn waiting(&self) -> io::Result<Vec<Found>> {
        let files = json_files(&self.path)?;
        if files.is_empty() {
            return Ok(vec![]);
        }
        let key = self.key()?;
        let mut found = Vec::new();
        for file in files {
            match fs::read(&file) {
                Ok(text) => found.push(Found { intent: key.verify(&text), file }),
                // The ledger has it by now, and somebody else has put it away.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Returns what was set aside, by its name.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn aside(&self) -> io::Result<Vec<Aside>> {
        let files = json_files(&self.path.join("aside"))?.into_iter();
        Ok(files.map(|file| Aside { why: why_of(&file), file }).collect())
    }

    /// Puts away a file whose rollback the ledger has. Doing it twice is harmless.
    ///
    /// # Errors
    ///
    /// It cannot be moved.
    pub fn done(&self, file: &Path) -> io::Result<()> {
        self.put(file, "done").map(drop)
    }

    /// Says whether a file was put away as one whose rollback the ledger has.
    pub fn is_done(&self, file: &Path) -> bool {
        file.file_name().is_some_and(|name| self.path.join("done").join(name).exists())
    }

    /// Puts away a file that nobody may take for an intent, and returns where.
    ///
    /// # Errors
    ///
    /// It cannot be moved.
    pub fn set_aside(&self, file: &Path, why: &str) -> io::Result<PathBuf> {
        let aside = self.path.join("aside");
        make(&aside)?;
        // First: whoever sees the file there also sees why.
        let name = Path::new(file.file_name().unwrap_or_default());
        fs::write(aside.join(name.with_extension("why")), format!("{why}\n"))?;
        self.put(file, "aside")
    }

    fn put(&self, file: &Path, into: &str) -> io::Result<PathBuf> {
        let folder = self.path.join(into);
        make(&folder)?;
        let to = folder.join(file.file_name().unwrap_or_default());
        match fs::rename(file, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        sync(&folder)?;
        sync(&self.path)?;
        Ok(to)
    }

    fn key(&self) -> io::Result<Key> {
        make(&self.path)?;
        Key::of(&self.path)
    }
}

/// Returns the files whose names end as an intent's; none if the folder is not there.
fn json_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        other => other?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn why_of(file: &Path) -> String {
    let why = fs::read_to_string(file.with_extension("why")).unwrap_or_default();
    if why.trim().is_empty() { "nobody wrote down why".to_owned() } else { why.trim().to_owned() }
}

fn make(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    folder.parent().map_or(Ok(()), sync)
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
