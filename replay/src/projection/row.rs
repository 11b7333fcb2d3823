//! How the cache's keys and values are written: every value is sealed with a checksum over its key and itself.

use lz4_flex::block::{
    compress_prepend_size, compress_prepend_size_with_dict, decompress_size_prepended,
    decompress_size_prepended_with_dict,
};
use schemas::{CommandId, Offset, Timestamp};
use uuid::Uuid;

use ledger::rule::Void;

use crate::answer::Made;

/// The cache is not what was written: it is set aside and made again from the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cache is damaged: {0}")]
pub struct Damaged(pub String);

pub(super) type Result<T> = std::result::Result<T, Damaged>;

/// What a key holds; its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Tag {
    /// The one that says how far the cache goes.
    Meta = b'm',
    /// An entity's present row.
    Open = b'o',
    /// An entity's superseded row.
    Closed = b'c',
    /// A stream's head.
    Stream = b's',
    /// The offsets of a stream's commits, in chunks.
    At = b'a',
    /// The rule's memory of every record, in chunks.
    Records = b'r',
    /// A commit's offset. A hint: what is found is compared with the commit that stands there.
    Commit = b'i',
    /// Who made a commit that counts, and why, by its offset.
    Made = b'w',
    /// A rollback that was in effect before it was recorded, by the offset of its commit.
    Outage = b'g',
}

/// What most of what is kept of who made a commit is made of, so that little more than what differs is kept of each.
const MADE: &[u8] = br#"{"commit":"01900000-0000-7000-8000-000000000000","written_at":"2026-11-22T13:30:00.000000Z","command":
"01900000-0000-7000-8000-000000000000","actor":{"kind":"person","name":"","proof":"unix-peer uid=1000"}"reason":"
"actor":{"kind":"pipeline","name":"","proof":"token""actor":{"kind":"worker","name":"traffic-shifter/collector/provisioner/",
"proof":"lease"},"cause":"01900000-0000-7000-8000-000000000000"}"#;

/// Returns who made a commit as it is kept.
pub(super) fn made_to_bytes(made: &Made) -> Vec<u8> {
    let json = serde_json::to_vec(made).expect("plain JSON");
    compress_prepend_size_with_dict(&json, MADE)
}

/// Returns who made a commit from what is kept, but for where and when.
pub(super) fn made_from_bytes(bytes: &[u8]) -> Result<Made> {
    let json = decompress_size_prepended_with_dict(bytes, MADE);
    let json = json.map_err(|error| damaged(format!("who made a commit cannot be decompressed: {error}")))?;
    serde_json::from_slice(&json).map_err(|error| damaged(format!("who made a commit cannot be read: {error}")))
}

/// How many records a chunk holds.
pub(super) const RECORDS: u64 = 64;
/// How many of a stream's commits a chunk holds.
pub(super) const COMMITS: u64 = 128;
/// Every so many superseded rows of an entity one is written whole.
const WHOLE_EVERY: u64 = 16;

/// The place in bytes where a name's numbers begin is told by its length, so that any name will do.
pub(super) fn key(tag: Tag, name: &str) -> Vec<u8> {
    let len = u16::try_from(name.len()).unwrap_or(u16::MAX);
    let mut key = Vec::with_capacity(name.len() + 11);
    key.push(tag as u8);
    key.extend_from_slice(&len.to_be_bytes());
    key.extend_from_slice(name.as_bytes());
    key
}

pub(super) fn key_at(tag: Tag, name: &str, number: u64) -> Vec<u8> {
    let mut key = key(tag, name);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Returns the name in a key that holds nothing else.
pub(super) fn name_in(key: &[u8]) -> Result<&str> {
    key.get(3..).and_then(|name| std::str::from_utf8(name).ok()).ok_or_else(|| damaged("a key is no name"))
}

/// Returns the number at a key's end.
pub(super) fn number_in(key: &[u8]) -> Result<u64> {
    let at = key.len().checked_sub(8).ok_or_else(|| damaged("a key is too short"))?;
    Ok(u64::from_be_bytes(key[at..].try_into().expect("eight bytes")))
}

pub(super) fn damaged(what: impl Into<String>) -> Damaged {
    Damaged(what.into())
}

/// Puts the checksum of `key` and `payload` before `payload`.
pub(super) fn seal(key: &[u8], payload: &[u8]) -> Vec<u8> {
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), payload);
    let mut value = Vec::with_capacity(payload.len() + 4);
    value.extend_from_slice(&crc.to_be_bytes());
    value.extend_from_slice(payload);
    value
}

/// Returns what was sealed under `key`.
pub(super) fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8]> {
    let (crc, payload) = value.split_at_checked(4).ok_or_else(|| damaged("a value is too short"))?;
    let found = crc32c::crc32c_append(crc32c::crc32c(key), payload);
    if crc != found.to_be_bytes() {
        return Err(damaged(format!("the checksum of {} does not fit", key.escape_ascii())));
    }
    Ok(payload)
}

/// Returns a sealed value's part of the sum over all present rows and heads, which finds one of an older time.
pub(super) fn share_of_sum(key: &[u8], sealed: &[u8]) -> u64 {
    let mut bytes = key.to_vec();
    bytes.extend_from_slice(&sealed[..4.min(sealed.len())]);
    let hash = schemas::Hash::of(&bytes);
    u64::from_be_bytes(hash.0[..8].try_into().expect("eight bytes"))
}

/// Reads fixed-width fields.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or_else(|| damaged("a value is cut short"))?;
        self.0 = rest;
        Ok(*field)
    }

    pub(super) fn number(&mut self) -> Result<u64> {
        self.bytes().map(u64::from_be_bytes)
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// An entity's present row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Open {
    /// The record that made it so.
    pub(super) from: Offset,
    /// The record that made the entity.
    pub(super) first: Offset,
    /// How many rows of the entity are superseded.
    pub(super) rows: u64,
    /// The entity's JSON.
    pub(super) json: std::sync::Arc<[u8]>,
}

impl Open {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let numbers = [self.from.0, self.first.0, self.rows].map(u64::to_be_bytes);
        [numbers.as_flattened(), &self.json].concat()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields(bytes);
        let (from, first, rows) = (fields.number()?, fields.number()?, fields.number()?);
        Ok(Self { from: Offset(from), first: Offset(first), rows, json: fields.rest().into() })
    }

    /// Returns this row as it is kept once `next` supersedes it: every so often whole, else as what differs from the
    /// next one, from which it is read back.
    pub(super) fn close(&self, next: &Open) -> Closed {
        let how = if self.rows.is_multiple_of(WHOLE_EVERY) {
            How::Whole(compress_prepend_size(&self.json))
        } else {
            How::Differs(compress_prepend_size_with_dict(&self.json, &next.json))
        };
        Closed { until: next.from, row: self.rows, crc: crc32c::crc32c(&self.json), how }
    }
}

/// An entity's superseded row, valid from the offset in its key on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    /// The record that superseded it.
    pub(super) until: Offset,
    /// How many rows came before it.
    pub(super) row: u64,
    /// The checksum of the whole JSON.
    crc: u32,
    how: How,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum How {
    /// The JSON, compressed.
    Whole(Vec<u8>),
    /// The JSON, compressed with the next row's as its dictionary: little more than what differs.
    Differs(Vec<u8>),
}

impl Closed {
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.how, How::Whole(_))
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = [self.until.0, self.row].map(u64::to_be_bytes).concat();
        bytes.extend_from_slice(&self.crc.to_be_bytes());
        let (how, compressed) = match &self.how {
            How::Whole(compressed) => (0, compressed),
            How::Differs(compressed) => (1, compressed),
        };
        bytes.push(how);
        bytes.extend_from_slice(compressed);
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields(bytes);
        let (until, row) = (Offset(fields.number()?), fields.number()?);
        let crc = u32::from_be_bytes(fields.bytes()?);
        let how = match fields.bytes()? {
            [0] => How::Whole(fields.rest().to_vec()),
            [_] => How::Differs(fields.rest().to_vec()),
        };
        Ok(Self { until, row, crc, how })
    }

    /// Returns the row's JSON, given the next row's unless it is whole.
    pub(super) fn json(&self, next: &[u8]) -> Result<Vec<u8>> {
        let json = match &self.how {
            How::Whole(compressed) => decompress_size_prepended(compressed),
            How::Differs(compressed) => decompress_size_prepended_with_dict(compressed, next),
        };
        let json = json.map_err(|error| damaged(format!("a row cannot be decompressed: {error}")))?;
        if crc32c::crc32c(&json) != self.crc { Err(damaged("a row does not read back")) } else { Ok(json) }
    }
}

/// What the rule remembers of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rec {
    /// The ledger's time at it.
    pub(super) time: Timestamp,
    /// Why it does not count, or nothing if it does.
    pub(super) void: Option<Void>,
    /// Its command and that one's hash, if it counts.
    pub(super) command: CommandId,
    pub(super) command_hash: schemas::Hash,
}

const VOIDS: [Void; 5] = [Void::Stale, Void::Fork, Void::Duplicate, Void::Malformed, Void::Sealed];

impl Rec {
    pub(super) const LEN: usize = 16 + 1 + 16 + 32;

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.time.as_nanosecond().to_be_bytes());
        let void = self.void.and_then(|void| VOIDS.iter().position(|known| *known == void));
        out.push(void.map_or(0, |at| at as u8 + 1));
        out.extend_from_slice(self.command.0.as_bytes());
        out.extend_from_slice(&self.command_hash.0);
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields(bytes);
        let time = Timestamp::from_nanosecond(i128::from_be_bytes(fields.bytes()?));
        let time = time.map_err(|_| damaged("a time is none"))?;
        let void = match fields.bytes()? {
            [0] => None,
            [n] => Some(*VOIDS.get(usize::from(n) - 1).ok_or_else(|| damaged("a void is none"))?),
        };
        let command = CommandId(Uuid::from_bytes(fields.bytes()?));
        Ok(Self { time, void, command, command_hash: schemas::Hash(fields.bytes()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(rows: u64, json: &str) -> Open {
        Open { from: Offset(rows * 10), first: Offset(0), rows, json: json.as_bytes().into() }
    }

    #[test]
    fn a_superseded_row_reads_back_from_the_next_one() {
        let texts = ["", "a", "abc", "abXc", "XabXc", "abab", "ababab", "{\"a\":1,\"b\":2}", "{\"a\":1,\"b\":22}"];
        for this in texts {
            for next in texts {
                for rows in [1, 16] {
                    let closed = open(rows, this).close(&open(rows + 1, next));
                    assert_eq!(closed.is_whole(), rows == 16);
                    let read = Closed::from_bytes(&closed.to_bytes()).unwrap();
                    assert_eq!(read, closed);
                    assert_eq!(read.json(next.as_bytes()).unwrap(), this.as_bytes(), "{this} before {next}");
                }
            }
        }
    }

    #[test]
    fn a_row_put_together_from_the_wrong_one_is_found() {
        let json = |name: &str, n: u32| format!("{{\"{name}\":\"{}\",\"n\":{n}}}", name.repeat(30));
        let closed = open(1, &json("api", 1)).close(&open(2, &json("api", 2)));
        assert!(closed.json(json("api", 2).as_bytes()).is_ok());
        assert!(closed.json(json("web", 2).as_bytes()).is_err());
        assert!(closed.json(b"").is_err());
    }

    #[test]
    fn a_row_that_changes_little_takes_little_room() {
        let json = |n: u32| {
            format!("{{\"a\":{n},{},\"z\":{n}}}", (0..200).map(|n| format!("\"k{n}\":{n}")).collect::<String>())
        };
        let closed = open(1, &json(1)).close(&open(2, &json(2)));
        assert!(closed.to_bytes().len() < json(1).len() / 10);
    }

    #[test]
    fn every_flipped_bit_of_a_sealed_value_is_found_and_so_is_another_key() {
        let sealed = seal(b"key", b"payload");
        assert_eq!(unseal(b"key", &sealed).unwrap(), b"payload");
        assert!(unseal(b"kez", &sealed).is_err());
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(b"key", &bad).is_err(), "bit {bit}");
        }
    }
}
