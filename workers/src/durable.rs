//! Small files that are replaced as a whole: after a power cut there is the old one or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Puts `bytes` in the place of the file at `path`, for its owner alone to read. It is written beside it, synced, renamed,
/// and synced with its folder; what a killed write leaves is `PATH` with the extension `tmp`.
///
/// # Errors
///
/// It cannot be written. The new file may be there all the same.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("tmp");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(path.parent().expect("a file lies in a folder"))?.sync_all()
}
