//! The commands that counted, in a file of its own beside the rows: sorted as [`Commands`] holds them, so that a start reads them in
//! one go instead of record by record. The file holds nothing that the records do not: where it is damaged, missing, of another
//! ledger or ahead of the rows, every record is read.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use bytes::Bytes;
use ledger::View;
use ledger::rule::Commands;
use schemas::{LedgerId, Offset};

use super::row::{Fields, Result};

const FILE: &str = "commands";

/// The length of what comes before the commands: a checksum of all the rest, the ledger, the offset before which they stand.
const HEAD: usize = 4 + 16 + 8;

/// Returns the commands that are kept in `folder` and the offset before which they stand, if they are of this ledger and not ahead of
/// the rows, which go up to `next`.
pub(super) fn load(folder: &Path, of: Option<LedgerId>, next: Offset) -> Option<(Offset, Commands)> {
    let bytes = Bytes::from(fs::read(folder.join(FILE)).ok()?);
    let head = || -> Result<_> {
        let mut fields = Fields(&bytes);
        Ok((u32::from_be_bytes(fields.bytes()?), fields.bytes::<16>()?, Offset(fields.number()?)))
    };
    let (crc, ledger, until) = head().ok()?;
    let is_of = of.is_some_and(|of| *of.0.as_bytes() == ledger);
    if !is_of || until > next || crc != crc32c::crc32c(&bytes[4..]) {
        return None;
    }
    let commands = Commands::from_sorted(bytes.slice(HEAD..)).ok()?;
    Some((until, commands))
}

/// Keeps the commands of `view` in `folder`. It need not be on disk when this returns: a file that was cut off is of no use, and of
/// no harm.
pub(super) fn write(folder: &Path, view: &View) -> io::Result<()> {
    let Some(ledger) = view.state().ledger else { return Ok(()) };
    let commands = view.ruler().commands().to_sorted();
    let mut head = [0; HEAD];
    head[4..20].copy_from_slice(ledger.0.as_bytes());
    head[20..].copy_from_slice(&view.next().0.to_be_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head[4..]), &commands);
    head[..4].copy_from_slice(&crc.to_be_bytes());
    let aside = folder.join("commands.new");
    let mut file = fs::File::create(&aside)?;
    file.write_all(&head)?;
    file.write_all(&commands)?;
    fs::rename(&aside, folder.join(FILE))
}
