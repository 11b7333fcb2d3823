//! How the cache's keys and values are written: every value is sealed with a checksum over its key and itself.

use std::borrow::Cow;

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
    /// An entity's superseded rows, in chunks, each by the offset of its first row.
    Closed = b'c',
    /// A stream's head.
    Stream = b's',
    /// The offsets of a stream's commits, in chunks.
    At = b'a',
    /// The rule's memory of every record, in chunks.
    Records = b'r',
    /// A commit's offset. A hint: what is found is compared with the commit that stands there.
    Commit = b'i',
    /// Who made each commit that counts, and why, in chunks.
    Made = b'w',
    /// A rollback that was in effect before it was recorded, by the offset of its commit.
    Outage = b'g',
}

/// What most of what is kept of who made a commit is made of, so that little more than what differs is kept of each.
const MADE: &[u8] = br#"{"commit":"01900000-0000-7000-8000-000000000000","written_at":"2026-11-22T13:30:00.000000Z","command":
"01900000-0000-7000-8000-000000000000","actor":{"kind":"person","name":"","proof":"unix-peer uid=1000"}"reason":"
"actor":{"kind":"pipeline","name":"","proof":"token""actor":{"kind":"worker","name":"traffic-shifter/collector/provisioner/",
"proof":"lease"},"cause":"01900000-0000-7000-8000-000000000000"}"#;

/// Who made the commits of a chunk of records, and why; none where no commit counts.
pub(super) type Makers = Vec<Option<Made>>;

/// Returns who made the commits of a chunk as it is kept.
pub(super) fn makers_to_bytes(makers: &[Option<Made>]) -> Vec<u8> {
    let json = serde_json::to_vec(makers).expect("plain JSON");
    compress_prepend_size_with_dict(&json, MADE)
}

/// Returns who made the commits of a chunk from what is kept, but for where and when.
pub(super) fn makers_from_bytes(bytes: &[u8]) -> Result<Makers> {
    let json = decompress_size_prepended_with_dict(bytes, MADE);
    let json = json.map_err(|error| damaged(format!("who made a commit cannot be decompressed: {error}")))?;
    serde_json::from_slice(&json).map_err(|error| damaged(format!("who made a commit cannot be read: {error}")))
}

/// How many records a chunk holds.
pub(super) const RECORDS: u64 = 64;
/// How many records have who made them in one chunk.
pub(super) const MAKERS: u64 = 32;
/// How many of a stream's commits a chunk holds.
pub(super) const COMMITS: u64 = 128;
/// How many superseded rows of an entity a chunk holds. The last of them is whole, so that a full chunk needs no other.
pub(super) const ROWS: u64 = 16;

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
    key.get(3..).and_then(|name| std::str::from_utf8(name).ok()).ok_or_else(|| damaged("a key is not a name"))
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

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(|| damaged("a value is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// An entity's present row, with the superseded ones that make no full chunk yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Open {
    /// The record that made it so.
    pub(super) from: Offset,
    /// The record that made the entity.
    pub(super) first: Offset,
    /// How many rows of the entity are superseded.
    pub(super) rows: u64,
    /// The last of them, those of the chunk that is not full.
    pub(super) tail: Vec<Closed>,
    /// The entity's JSON.
    pub(super) json: Vec<u8>,
}

impl Open {
    /// Returns the first row of an entity.
    pub(super) fn first(from: Offset, json: Vec<u8>) -> Self {
        Self { from, first: from, rows: 0, tail: vec![], json }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let tail = write_chunk(&self.tail);
        let numbers = [self.from.0, self.first.0, self.rows, tail.len() as u64].map(u64::to_be_bytes);
        [numbers.as_flattened(), &tail, &self.json].concat()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields(bytes);
        let (from, first, rows) = (Offset(fields.number()?), Offset(fields.number()?), fields.number()?);
        let len = fields.number()? as usize;
        let tail = read_chunk(fields.take(len)?)?;
        let fits = tail.last().is_none_or(|last| last.until == from && last.row + 1 == rows);
        if !fits || tail.len() as u64 != rows % ROWS {
            return Err(damaged("the rows before the present one are missing"));
        }
        Ok(Self { from, first, rows, tail, json: fields.rest().to_vec() })
    }

    /// Returns the row that supersedes this one, and the chunk that is full with it, if one is. The last row of a chunk is kept
    /// whole, every other one as what differs from the next.
    pub(super) fn superseded(mut self, from: Offset, json: Vec<u8>) -> (Self, Option<Vec<Closed>>) {
        let is_whole = self.tail.len() as u64 == ROWS - 1;
        let compressed = if is_whole {
            compress_prepend_size(&self.json)
        } else {
            compress_prepend_size_with_dict(&self.json, &json)
        };
        let crc = crc32c::crc32c(&self.json);
        self.tail.push(Closed { from: self.from, until: from, row: self.rows, crc, is_whole, json: compressed });
        let full = is_whole.then(|| std::mem::take(&mut self.tail));
        (Self { from, rows: self.rows + 1, json, ..self }, full)
    }
}

/// An entity's superseded row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    /// The record that made it so.
    pub(super) from: Offset,
    /// The record that superseded it.
    until: Offset,
    /// How many rows came before it.
    row: u64,
    /// The checksum of the whole JSON.
    crc: u32,
    is_whole: bool,
    /// The JSON, compressed; unless it is whole, with the next row's as its dictionary: little more than what differs.
    json: Vec<u8>,
}

/// Returns rows as they are kept.
pub(super) fn write_chunk(rows: &[Closed]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(rows.iter().map(|row| row.json.len() + 33).sum());
    for row in rows {
        bytes.extend_from_slice([row.from.0, row.until.0, row.row].map(u64::to_be_bytes).as_flattened());
        bytes.extend_from_slice(&row.crc.to_be_bytes());
        bytes.push(u8::from(row.is_whole));
        bytes.extend_from_slice(&(row.json.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&row.json);
    }
    bytes
}

/// Returns the rows that are kept in `bytes`. Each goes on where the one before it ended.
pub(super) fn read_chunk(bytes: &[u8]) -> Result<Vec<Closed>> {
    let mut fields = Fields(bytes);
    let mut rows: Vec<Closed> = Vec::new();
    while !fields.0.is_empty() {
        let (from, until, row) = (Offset(fields.number()?), Offset(fields.number()?), fields.number()?);
        let crc = u32::from_be_bytes(fields.bytes()?);
        let is_whole = fields.bytes()? != [0];
        let len = u32::from_be_bytes(fields.bytes()?) as usize;
        let json = fields.take(len)?.to_vec();
        let goes_on = rows.last().is_none_or(|last| last.until == from && last.row + 1 == row);
        if !goes_on || from >= until || is_whole != (row % ROWS == ROWS - 1) {
            return Err(damaged("the rows of a chunk do not follow each other"));
        }
        rows.push(Closed { from, until, row, crc, is_whole, json });
    }
    Ok(rows)
}

/// Returns the JSON of that row among `rows` which was valid at `offset`; `next` is the JSON of the row after them. None if
/// no row was.
pub(super) fn json_at<'a>(rows: &[Closed], offset: Offset, next: &'a [u8]) -> Result<Option<Cow<'a, [u8]>>> {
    let Some(at) = rows.iter().position(|row| row.from <= offset && offset < row.until) else { return Ok(None) };
    let mut json = Cow::Borrowed(next);
    for row in rows[at..].iter().rev() {
        json = Cow::Owned(row.json(&json)?);
    }
    Ok(Some(json))
}

impl Closed {
    /// Returns the row's JSON, given the next row's unless it is whole.
    fn json(&self, next: &[u8]) -> Result<Vec<u8>> {
        let json = match self.is_whole {
            true => decompress_size_prepended(&self.json),
            false => decompress_size_prepended_with_dict(&self.json, next),
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
        let time = time.map_err(|_| damaged("a time cannot be read"))?;
        let void = match fields.bytes()? {
            [0] => None,
            [n] => Some(*VOIDS.get(usize::from(n) - 1).ok_or_else(|| damaged("a void cannot be read"))?),
        };
        let command = CommandId(Uuid::from_bytes(fields.bytes()?));
        Ok(Self { time, void, command, command_hash: schemas::Hash(fields.bytes()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns an entity's rows, the present one and the chunks before it, when its JSON was one of `texts` after another.
    fn rows<'a>(texts: impl IntoIterator<Item = &'a str>) -> (Open, Vec<Vec<Closed>>) {
        let mut texts = (0..).map(|n| Offset(n * 10)).zip(texts);
        let (from, text) = texts.next().unwrap();
        let mut open = Open::first(from, text.as_bytes().to_vec());
        let mut chunks = Vec::new();
        for (from, text) in texts {
            let (next, full) = open.superseded(from, text.as_bytes().to_vec());
            open = next;
            chunks.extend(full);
        }
        (open, chunks)
    }

    #[test]
    fn every_superseded_row_reads_back_at_every_offset_it_was_valid_at() {
        let texts = ["", "a", "abc", "abXc", "XabXc", "abab", "ababab", "{\"a\":1,\"b\":2}", "{\"a\":1,\"b\":22}"];
        let all: Vec<&str> = texts.iter().flat_map(|one| texts.iter().flat_map(move |next| [*one, *next])).collect();
        let (open, chunks) = rows(all.iter().copied());
        let open = Open::from_bytes(&open.to_bytes()).unwrap();
        assert_eq!(chunks.len(), (all.len() - 1) / ROWS as usize);
        for (n, text) in all[..all.len() - 1].iter().enumerate() {
            for offset in [n * 10, n * 10 + 9].map(|offset| Offset(offset as u64)) {
                let json = match chunks.get(n / ROWS as usize) {
                    Some(chunk) => json_at(&read_chunk(&write_chunk(chunk)).unwrap(), offset, b"").unwrap(),
                    None => json_at(&open.tail, offset, &open.json).unwrap(),
                };
                assert_eq!(json.as_deref(), Some(text.as_bytes()), "row {n}");
            }
        }
    }

    #[test]
    fn a_row_put_together_from_the_wrong_one_is_found() {
        let json = |name: &str, n: u32| format!("{{\"{name}\":\"{}\",\"n\":{n}}}", name.repeat(30));
        let (open, _) = rows([&*json("api", 1), &*json("api", 2)]);
        let read = |next: &str| json_at(&open.tail, Offset(0), next.as_bytes()).map(drop);
        assert!(read(&json("api", 2)).is_ok());
        assert!(read(&json("web", 2)).is_err());
        assert!(read("").is_err());
    }

    #[test]
    fn a_row_that_changes_little_takes_little_room() {
        let json = |n: u32| {
            format!("{{\"a\":{n},{},\"z\":{n}}}", (0..200).map(|n| format!("\"k{n}\":{n}")).collect::<String>())
        };
        let (open, _) = rows([&*json(1), &*json(2)]);
        assert!(write_chunk(&open.tail).len() < json(1).len() / 10);
    }

    #[test]
    fn rows_of_which_one_is_missing_or_in_another_place_are_found() {
        let (open, _) = rows(["a", "b", "c", "d"]);
        let rows = |places: &[usize]| places.iter().map(|place| open.tail[*place].clone()).collect::<Vec<_>>();
        let read = |places: &[usize]| Open::from_bytes(&Open { tail: rows(places), ..open.clone() }.to_bytes());
        assert!(read(&[0, 1, 2]).is_ok());
        for wrong in [&[0, 2][..], &[0, 1], &[1, 2], &[1, 0, 2], &[]] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        let chunk = write_chunk(&open.tail);
        assert!(read_chunk(&chunk[..chunk.len() - 1]).is_err());
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
