//! Files that a person names: settings, declarations, secrets. One that is far too large is none of these.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// How large such a file may be, in KiB. What is declared in one must fit into a commit, which is smaller.
const KIB_MAX: u64 = 1_024;

/// How large the file of a secret may be, in KiB.
pub const SECRET_KIB_MAX: u64 = 64;

/// Reads the file at `path`, of at most `kib_max` KiB.
///
/// # Errors
///
/// It cannot be read, or is larger.
pub fn read(path: &Path, kib_max: u64) -> io::Result<Vec<u8>> {
    let (mut bytes, bytes_max) = (Vec::new(), kib_max * 1_024);
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > bytes_max {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {kib_max} KiB"))),
        false => Ok(bytes),
    }
}

/// Reads the text in the file at `path`.
///
/// # Errors
///
/// It cannot be read, is larger than 1,024 KiB, or is no UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    let bytes = read(path, KIB_MAX)?;
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no text in UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_never_ends_is_refused_and_one_that_fits_is_read() {
        assert_eq!(read_text(Path::new("/dev/zero")).unwrap_err().to_string(), "it is larger than 1024 KiB");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("api.toml");
        std::fs::write(&file, vec![b' '; 2_048]).unwrap();
        assert_eq!(read(&file, 2).unwrap().len(), 2_048);
        assert_eq!(read(&file, 1).unwrap_err().to_string(), "it is larger than 1 KiB");
        std::fs::write(&file, b"\xff").unwrap();
        assert_eq!(read_text(&file).unwrap_err().to_string(), "it is no text in UTF-8");
    }
}
