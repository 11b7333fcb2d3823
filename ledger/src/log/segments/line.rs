//! One line of a segment: a record, what was acknowledged when it was written, and a checksum over both.
//!
//! ```json
//! {"offset":12,"synced":9,"crc":"e3069283","commit":{...}}
//! ```
//!
//! The checksum is the CRC-32C of the line's bytes before `,"crc"` and of the commit's; every other byte is fixed.

use std::io::Write as _;
use std::ops::Range;

use schemas::Offset;

/// How a line begins.
pub(super) const OPEN: &[u8] = b"{\"offset\":";
const SYNCED: &[u8] = b",\"synced\":";
const CRC: &[u8] = b",\"crc\":\"";
const COMMIT: &[u8] = b"\",\"commit\":";
const CLOSE: &[u8] = b"}\n";

/// A line that reads as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The record's place.
    pub(super) offset: Offset,
    /// Everything before this was acknowledged when the line was written.
    pub(super) synced: Offset,
    /// Where the commit stands in the line.
    pub(super) commit: Range<usize>,
}

/// Why a line does not read as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flaw {
    #[error("the line has no end")]
    Cut,
    #[error("the line does not have the form of a record")]
    Shape,
    #[error("the line does not match its checksum")]
    Checksum,
    #[error("the line holds another record")]
    Order,
}

/// Appends a record's line to `out`.
pub(super) fn write(out: &mut Vec<u8>, offset: Offset, synced: Offset, commit: &[u8]) {
    let start = out.len();
    out.extend_from_slice(OPEN);
    write!(out, "{offset}").expect("memory");
    out.extend_from_slice(SYNCED);
    write!(out, "{synced}").expect("memory");
    let crc = checksum(&out[start..], commit);
    out.extend_from_slice(CRC);
    write!(out, "{crc:08x}").expect("memory");
    out.extend_from_slice(COMMIT);
    out.extend_from_slice(commit);
    out.extend_from_slice(CLOSE);
}

/// Returns how long a record's line is, in bytes.
pub(super) fn len(offset: Offset, synced: Offset, commit: usize) -> usize {
    let digits = |Offset(n): Offset| n.checked_ilog10().unwrap_or(0) as usize + 1;
    let around = OPEN.len() + SYNCED.len() + CRC.len() + 8 + COMMIT.len() + CLOSE.len();
    around + digits(offset) + digits(synced) + commit
}

/// Reads the line that `bytes` begin with, and returns it with its length in bytes.
pub(super) fn read(bytes: &[u8]) -> Result<(Line, usize), Flaw> {
    let len = memchr::memchr(b'\n', bytes).ok_or(Flaw::Cut)? + 1;
    let line = parse(&bytes[..len])?;
    Ok((line, len))
}

fn parse(line: &[u8]) -> Result<Line, Flaw> {
    let rest = line.strip_prefix(OPEN).ok_or(Flaw::Shape)?;
    let (offset, rest) = number(rest).ok_or(Flaw::Shape)?;
    let rest = rest.strip_prefix(SYNCED).ok_or(Flaw::Shape)?;
    let (synced, rest) = number(rest).ok_or(Flaw::Shape)?;
    let head = &line[..line.len() - rest.len()];
    let rest = rest.strip_prefix(CRC).ok_or(Flaw::Shape)?;
    let (crc, rest) = rest.split_at_checked(8).ok_or(Flaw::Shape)?;
    let crc = hex(crc).ok_or(Flaw::Shape)?;
    let rest = rest.strip_prefix(COMMIT).ok_or(Flaw::Shape)?;
    let commit = rest.strip_suffix(CLOSE).ok_or(Flaw::Shape)?;
    if checksum(head, commit) != crc {
        return Err(Flaw::Checksum);
    }
    let start = line.len() - rest.len();
    Ok(Line { offset: Offset(offset), synced: Offset(synced), commit: start..start + commit.len() })
}

fn checksum(head: &[u8], commit: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(head), commit)
}

/// Reads a number as [`write`] writes it: in digits, the first of them 0 for 0 alone.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    let (text, rest) = bytes.split_at(digits);
    if digits == 0 || (digits > 1 && text[0] == b'0') {
        return None;
    }
    let number = text.iter().try_fold(0_u64, |n, b| n.checked_mul(10)?.checked_add(u64::from(b - b'0')))?;
    Some((number, rest))
}

/// Reads lower-case hexadecimal digits.
fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |n, b| {
        let digit = match b {
            b'0'..=b'9' => b - b'0',
            b'a'..=b'f' => b - b'a' + 10,
            _ => return None,
        };
        Some(n << 4 | u32::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Vec<u8> {
        let mut line = Vec::new();
        write(&mut line, Offset(12), Offset(9), br#"{"a":1}"#);
        line
    }

    #[test]
    fn a_line_is_json_with_the_commits_exact_bytes_and_reads_back() {
        let line = line();
        assert_eq!(
            std::str::from_utf8(&line).unwrap(),
            "{\"offset\":12,\"synced\":9,\"crc\":\"13c36f31\",\"commit\":{\"a\":1}}\n"
        );
        assert_eq!(len(Offset(12), Offset(9), 7), line.len());
        let (read, len) = read(&line).unwrap();
        assert_eq!((read.offset, read.synced, len), (Offset(12), Offset(9), line.len()));
        assert_eq!(&line[read.commit], br#"{"a":1}"#);
    }

    #[test]
    fn every_flipped_bit_of_a_line_is_found() {
        let good = line();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bad).is_err(), "bit {bit}: {}", String::from_utf8_lossy(&bad));
        }
    }

    #[test]
    fn a_number_that_is_not_written_as_we_write_it_is_refused() {
        for text in ["", "01", "+1", "18446744073709551616", "-1"] {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
        assert_eq!(number(b"18446744073709551615,"), Some((u64::MAX, &b","[..])));
        assert_eq!(number(b"0"), Some((0, &b""[..])));
    }
}
