//! The file `log/end`: how far the log was acknowledged, for those who read beside a writer.
//!
//! It is written after each sync and before the acknowledgement, and never synced itself. So what it says was always
//! acknowledged or about to be, and durable; after a power cut it may say less, or nothing that can be read.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use schemas::Offset;

use super::folder::read_small;

const NAME: &str = "end";
const LEN: usize = 48;

/// The open file; none if it could not be made, on a full disk.
#[derive(Debug)]
pub(super) struct Hint(Option<File>);

impl Hint {
    /// Opens the file in the folder `log`, and keeps what is in it.
    pub(super) fn open(log: &Path) -> Self {
        let file = File::options().write(true).create(true).truncate(false).open(log.join(NAME));
        Self(file.inspect_err(|error| tracing::warn!(%error, "the log's end cannot be written down")).ok())
    }

    /// Says that everything before `end` is durable.
    pub(super) fn write(&self, end: Offset) {
        // Only a hint: a reader that finds an older one sees less.
        let written = self.0.as_ref().map(|file| file.write_all_at(text(end).as_bytes(), 0));
        if let Some(Err(error)) = written {
            tracing::debug!(%error, "the log's end was not written down");
        }
    }
}

fn text(end: Offset) -> String {
    let digits = format!("\"{:020}\"", end.0);
    let text = format!("{{\"end\":{digits},\"crc\":\"{:08x}\"}}\n", crc32c::crc32c(digits.as_bytes()));
    debug_assert_eq!(text.len(), LEN);
    text
}

/// Returns what the file in the folder `log` says, if it can be read.
pub(super) fn read(log: &Path) -> Option<Offset> {
    let bytes = read_small(&log.join(NAME), LEN as u64 + 1).ok()?;
    let digits = bytes.get(8..28)?;
    let end = Offset(std::str::from_utf8(digits).ok()?.parse().ok()?);
    (text(end).as_bytes() == bytes).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_reads_back_and_every_flipped_bit_of_it_is_found() {
        let log = tempfile::tempdir().unwrap();
        assert_eq!(read(log.path()), None);
        Hint::open(log.path()).write(Offset(12));
        assert_eq!(read(log.path()), Some(Offset(12)));
        let good = std::fs::read(log.path().join(NAME)).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(log.path().join(NAME), &bad).unwrap();
            assert_eq!(read(log.path()), None, "bit {bit}");
        }
    }
}
