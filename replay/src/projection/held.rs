//! What the cache holds, as it is in memory: how far it goes, every entity's present row and every stream's head.
//! Superseded rows stay in the store and are read from there.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ledger::rule::{Commands, Done, Head, Ruler};
use ledger::tree::Frontier;
use ledger::{State, View};
use rayon::iter::ParallelIterator as _;
use rayon::slice::ParallelSlice as _;
use schemas::{CommitId, Hash, LedgerId, Offset, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::kept_commands;
use super::row::{
    COMMITS, Fields, MAKERS, Makers, Open, RECORDS, Rec, Result, Tag, damaged, json_at, key, key_at, makers_from_bytes,
    name_in, number_in, read_chunk as read_rows, share_of_sum, unseal,
};
use super::store::Store;
use crate::answer::Made;
use crate::outage::Outage;
use crate::reader::IdPrefix;
use crate::shares::Shares;

/// The form of what is kept. It is another one whenever the fold or its rows may be: a cache of another form is made
/// again.
pub(super) fn format() -> String {
    format!("12/{}", env!("CARGO_PKG_VERSION"))
}

/// The names of the rows of [`Shares`] begin so.
const SHARES: &str = "shares/";

/// How far the cache goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) format: String,
    pub(super) ledger: Option<LedgerId>,
    /// The offset of the next record.
    pub(super) next: Offset,
    /// The leaf of the last one.
    pub(super) last: Option<Hash>,
    pub(super) time: Timestamp,
    pub(super) tree: Frontier,
    pub(super) voids: u64,
    pub(super) read_only: BTreeMap<String, String>,
    /// How many entities there are.
    pub(super) rows: u64,
    /// How many streams there are.
    pub(super) streams: u64,
    /// The sum over every present row and every stream's head.
    pub(super) sum: u64,
    /// How many outages there were.
    pub(super) outages: u64,
}

/// A stream's head, and the offsets of its last commits: those of its last chunk.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tail {
    pub(super) head: Head,
    pub(super) offsets: Vec<Offset>,
    /// Its share of the sum.
    pub(super) share: u64,
}

pub(super) struct HeldRows {
    pub(super) store: Store,
    pub(super) meta: Meta,
    /// Every entity's present row, and its share of the sum.
    pub(super) rows: BTreeMap<String, (Open, u64)>,
    pub(super) streams: BTreeMap<String, Tail>,
    /// The last chunk of records.
    pub(super) records: Vec<Rec>,
    /// The last chunk of who made them.
    pub(super) makers: Makers,
    /// Every rollback that was in effect before it was recorded.
    pub(super) outages: Vec<Outage>,
    /// The offset before which the kept commands go.
    kept: AtomicU64,
}

/// The fold that goes with what is held.
#[derive(Clone, Default)]
pub(super) struct Fold {
    pub(super) view: View,
    pub(super) shares: Shares,
    /// The leaf of the last record.
    pub(super) last: Option<Hash>,
}

impl HeldRows {
    /// Reads a store and checks it: every checksum, every count, the sum.
    pub(super) fn load(store: Store) -> Result<(Self, Fold)> {
        let meta_key = key(Tag::Meta, "");
        let Some(bytes) = store.get(&meta_key)? else {
            if !store.is_empty()? {
                return Err(damaged("it does not say how far it goes"));
            }
            let meta = Meta { format: format(), ..Meta::default() };
            let (rows, streams) = (BTreeMap::new(), BTreeMap::new());
            let (records, makers, outages) = (vec![], vec![], vec![]);
            let held = Self { store, meta, rows, streams, records, makers, outages, kept: AtomicU64::new(0) };
            return Ok((held, Fold::default()));
        };
        let meta: Meta = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if meta.format != format() {
            return Err(damaged(format!("its form is {}, this program's is {}", meta.format, format())));
        }
        let rows = load_rows(&store)?;
        let streams = load_streams(&store)?;
        let shares = rows.values().map(|(_, share)| share).chain(streams.values().map(|tail| &tail.share));
        let sum = shares.fold(0_u64, |sum, share| sum.wrapping_add(*share));
        if (rows.len() as u64, streams.len() as u64, sum) != (meta.rows, meta.streams, meta.sum) {
            return Err(damaged("rows are missing or of another time"));
        }
        let (kept, commands) = kept_commands::load(store.folder(), meta.ledger, meta.next).unwrap_or_default();
        let (records, commands) = load_records(&store, meta.next, kept, commands)?;
        if meta.tree.size() != meta.next.0 || records.last().is_some_and(|last| last.time != meta.time) {
            return Err(damaged("its parts do not go equally far"));
        }
        let outages = load_outages(&store, meta.outages)?;
        let heads = streams.iter().map(|(name, tail)| (name.clone(), tail.head)).collect();
        let ruler = Ruler::resume(meta.next, meta.time, heads, commands, meta.tree.clone());
        let makers = load_makers(&store, meta.next)?;
        let (state, shares) = together(&rows.iter().collect::<Vec<_>>(), |_, open| Ok(Cow::Borrowed(&open.json)))?;
        let view = View::resume(ruler, state, meta.read_only.clone(), meta.voids);
        let last = meta.last;
        let kept = AtomicU64::new(kept.0);
        Ok((Self { store, meta, rows, streams, records, makers, outages, kept }, Fold { view, shares, last }))
    }

    /// Keeps the commands of `view` in their file, if enough records came behind those that are kept.
    pub(super) fn keep_commands(&self, view: &View, (least, part): (u64, u64)) {
        let (next, kept) = (view.next().0, self.kept.load(Ordering::Relaxed));
        if next.saturating_sub(kept) < least.max(kept / part) {
            return;
        }
        match kept_commands::write(self.store.folder(), view) {
            Ok(()) => self.kept.store(next, Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, "the commands cannot be kept; the next start takes longer"),
        }
    }

    /// Returns the state and the shares after the record at `offset`.
    pub(super) fn state_at(&self, offset: Offset) -> Result<(State, Shares)> {
        let rows: Vec<_> = self.rows.iter().filter(|(_, (open, _))| open.first <= offset).collect();
        together(&rows, |name, open| self.row_of(name, open, offset))
    }

    /// Returns the state and the shares after the record at `offset`, as far as the entities of `names` go.
    pub(super) fn parts_at<'a>(&self, offset: Offset, names: impl Iterator<Item = &'a str>) -> Result<(State, Shares)> {
        let rows = names.filter_map(|name| self.rows.get_key_value(name));
        let rows: Vec<_> = rows.filter(|(_, (open, _))| open.first <= offset).collect();
        together(&rows, |name, open| self.row_of(name, open, offset))
    }

    /// Returns the JSON of an entity as it was after the record at `offset`; its present row is `open`.
    fn row_of<'a>(&self, name: &str, open: &'a Open, offset: Offset) -> Result<Cow<'a, [u8]>> {
        if open.from <= offset {
            return Ok(Cow::Borrowed(&open.json));
        }
        if let Some(json) = json_at(&open.tail, offset, &open.json)? {
            return Ok(json);
        }
        let chunk = self.store.last(&key_at(Tag::Closed, name, 0), &key_at(Tag::Closed, name, offset.0))?;
        let json = chunk.map_or(Ok(None), |(_, chunk)| json_at(&read_rows(&chunk)?, offset, &[]))?;
        json.ok_or_else(|| damaged(format!("the row of {name} at offset {offset} is missing")))
    }

    /// Returns what the rule said of the record at `offset`, which must be one that is held.
    pub(super) fn record(&self, offset: Offset) -> Result<Rec> {
        let place = (offset.0 % RECORDS) as usize;
        let chunk = self.chunk(offset.0 / RECORDS)?;
        chunk.get(place).copied().ok_or_else(|| damaged(format!("record {offset} is missing")))
    }

    /// Returns a chunk of records.
    pub(super) fn chunk(&self, number: u64) -> Result<Vec<Rec>> {
        if number == self.meta.next.0.saturating_sub(1) / RECORDS {
            return Ok(self.records.clone());
        }
        let missing = || damaged(format!("records from {} on are missing", number * RECORDS));
        let chunk = read_chunk(&self.store.get(&key_at(Tag::Records, "", number))?.ok_or_else(missing)?)?;
        if chunk.len() as u64 == RECORDS { Ok(chunk) } else { Err(missing()) }
    }

    /// Returns the last record whose time is not later than `time`; none if the first is later.
    pub(super) fn offset_at(&self, time: Timestamp) -> Result<Option<Offset>> {
        // The chunks that begin at or before it, found by halving.
        let (mut from, mut to) = (0, self.meta.next.0.div_ceil(RECORDS));
        while from < to {
            let middle = from.midpoint(to);
            if self.chunk(middle)?.first().is_some_and(|first| first.time <= time) {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        let Some(number) = from.checked_sub(1) else { return Ok(None) };
        let within = self.chunk(number)?.partition_point(|record| record.time <= time) as u64;
        Ok(Some(Offset(number * RECORDS + within - 1)))
    }

    /// Returns the offsets of a stream's last commits in `within`, the newest first: at most `max`.
    pub(super) fn commits_of(&self, stream: &str, within: Range<Offset>, max: usize) -> Result<Vec<Offset>> {
        let Some(tail) = self.streams.get(stream) else { return Ok(vec![]) };
        let last = (tail.head.version.0 - 1) / COMMITS;
        let load = |number| match number == last {
            true => Ok(tail.offsets.clone()),
            false => load_offsets(&self.store, stream, number, COMMITS),
        };
        let mut number = self.chunk_before(last, within.end, load)?;
        let mut chunk = load(number)?;
        let mut offsets = Vec::new();
        loop {
            offsets.extend(chunk.iter().rev().filter(|offset| within.contains(*offset)));
            if number == 0 || offsets.len() >= max || chunk.first().is_some_and(|first| *first < within.start) {
                offsets.truncate(max);
                return Ok(offsets);
            }
            number -= 1;
            chunk = load(number)?;
        }
    }

    /// Returns the last of a stream's chunks (the first if none) that begins before `end`.
    fn chunk_before(&self, last: u64, end: Offset, load: impl Fn(u64) -> Result<Vec<Offset>>) -> Result<u64> {
        let begins_before = |number| Ok(load(number)?.first().is_some_and(|first: &Offset| *first < end));
        if begins_before(last)? {
            return Ok(last);
        }
        let (mut low, mut high) = (0, last);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if begins_before(middle)? { low = middle } else { high = middle }
        }
        Ok(low)
    }

    /// Returns the offsets of the records that do not count, the newest first, none before `since`.
    pub(super) fn voids(&self, since: Offset) -> Result<Vec<Offset>> {
        let mut voids = Vec::new();
        for number in (since.0 / RECORDS..self.meta.next.0.div_ceil(RECORDS)).rev() {
            let chunk = self.chunk(number)?;
            let void = chunk.iter().enumerate().rev().filter(|(_, record)| record.void.is_some());
            voids.extend(void.map(|(at, _)| Offset(number * RECORDS + at as u64)).filter(|offset| *offset >= since));
        }
        Ok(voids)
    }

    /// Checks that no commit's offset is missing.
    pub(super) fn check_commits(&self) -> Result<()> {
        let mut count = 0;
        self.store.scan(Tag::Commit as u8, |key, sealed| {
            count += 1;
            unseal(key, sealed).map(drop)
        })?;
        if count != self.meta.next.0 - self.meta.voids {
            return Err(damaged(format!("the offsets of {count} commits are there")));
        }
        Ok(())
    }

    /// Returns the commits whose ids begin so, at most `max`.
    pub(super) fn commits_with(&self, prefix: &IdPrefix, max: usize) -> Result<Vec<CommitId>> {
        let mut key = vec![Tag::Commit as u8];
        key.extend(prefix.bytes());
        let mut commits = vec![];
        for key in self.store.keys_with(&key) {
            let id = key?.get(1..).and_then(|id| Uuid::from_slice(id).ok()).map(CommitId);
            commits.extend(id.filter(|commit| prefix.begins(*commit)));
            if commits.len() == max {
                break;
            }
        }
        Ok(commits)
    }

    /// Returns who made the commit at `offset`, and why; none if no commit counts there.
    pub(super) fn made(&self, offset: Offset) -> Result<Option<Made>> {
        let record = self.record(offset)?;
        if record.void.is_some() {
            return Ok(None);
        }
        let place = (offset.0 % MAKERS) as usize;
        let made = match offset.0 / MAKERS == self.meta.next.0.saturating_sub(1) / MAKERS {
            true => self.makers.get(place).cloned().flatten(),
            false => load_makers(&self.store, Offset((offset.0 / MAKERS + 1) * MAKERS))?.swap_remove(place),
        };
        let made = made.ok_or_else(|| damaged(format!("who made the commit at offset {offset} is missing")))?;
        Ok(Some(Made { offset, time: record.time, ..made }))
    }

    /// Returns where a commit is said to stand.
    pub(super) fn offset_of(&self, commit: CommitId) -> Result<Option<Offset>> {
        let bytes = self.store.get(&commit_key(commit))?;
        bytes.map(|bytes| Fields(&bytes).number().map(Offset)).transpose()
    }
}

pub(super) fn commit_key(commit: CommitId) -> Vec<u8> {
    let mut key = vec![Tag::Commit as u8];
    key.extend_from_slice(commit.0.as_bytes());
    key
}

/// Returns the name of the row that holds a deployment's shares.
pub(super) fn shares_name(deployment: &schemas::DeploymentId) -> String {
    format!("{SHARES}{deployment}")
}

/// How many rows are put together by a thread before another may take some over.
const PART: usize = 128;

/// Puts state and shares together from the rows of entities, each as `json` gives it.
fn together<'a>(
    rows: &[(&'a String, &'a (Open, u64))],
    json: impl Fn(&str, &'a Open) -> Result<Cow<'a, [u8]>> + Sync,
) -> Result<(State, Shares)> {
    let part = |rows: &[(&'a String, &'a (Open, u64))]| {
        let (mut state, mut shares) = (State::default(), Shares::default());
        for (name, (open, _)) in rows {
            let put = put(&mut state, &mut shares, name, &json(name, open)?);
            put.map_err(|error| damaged(format!("a row cannot be read: {error}")))?;
        }
        Ok((state, shares))
    };
    let parts: Vec<Result<_>> = rows.par_chunks(PART).map(part).collect();
    let mut whole = (State::default(), Shares::default());
    for part in parts {
        let (state, shares) = part?;
        whole.0.extend(state);
        whole.1.0.extend(shares.0);
    }
    Ok(whole)
}

fn put(state: &mut State, shares: &mut Shares, name: &str, json: &[u8]) -> std::result::Result<(), String> {
    let Some(deployment) = name.strip_prefix(SHARES) else { return state.put(name, json) };
    let deployment = deployment.parse().map_err(|_| name.to_owned())?;
    let shared = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    shares.0.insert(deployment, Arc::new(shared));
    Ok(())
}

fn load_rows(store: &Store) -> Result<BTreeMap<String, (Open, u64)>> {
    let mut rows = BTreeMap::new();
    store.scan(Tag::Open as u8, |key, sealed| {
        let open = Open::from_bytes(unseal(key, sealed)?)?;
        rows.insert(name_in(key)?.to_owned(), (open, share_of_sum(key, sealed)));
        Ok(())
    })?;
    Ok(rows)
}

/// Reads every outage; there were `count`.
fn load_outages(store: &Store, count: u64) -> Result<Vec<Outage>> {
    let mut outages = Vec::new();
    store.scan(Tag::Outage as u8, |key, sealed| {
        let outage = Outage::from_bytes(unseal(key, sealed)?);
        outages.push(outage.map_err(|why| damaged(format!("an outage cannot be read: {why}")))?);
        Ok(())
    })?;
    if outages.len() as u64 != count {
        return Err(damaged(format!("it holds {} outages and says {count}", outages.len())));
    }
    Ok(outages)
}

fn load_streams(store: &Store) -> Result<BTreeMap<String, Tail>> {
    let mut heads = Vec::new();
    store.scan(Tag::Stream as u8, |key, sealed| {
        let mut fields = Fields(unseal(key, sealed)?);
        let head = Head { version: schemas::StreamVersion(fields.number()?), hash: Hash(fields.bytes()?) };
        heads.push((name_in(key)?.to_owned(), head, share_of_sum(key, sealed)));
        Ok(())
    })?;
    let mut streams = BTreeMap::new();
    for (name, head, share) in heads {
        let last = head.version.0.checked_sub(1).ok_or_else(|| damaged(format!("{name} has no commit")))?;
        let offsets = load_offsets(store, &name, last / COMMITS, last % COMMITS + 1)?;
        streams.insert(name, Tail { head, offsets, share });
    }
    Ok(streams)
}

fn load_offsets(store: &Store, stream: &str, number: u64, count: u64) -> Result<Vec<Offset>> {
    let missing = || damaged(format!("commits of {stream} are missing"));
    let bytes = store.get(&key_at(Tag::At, stream, number))?.ok_or_else(missing)?;
    let (offsets, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() || offsets.len() as u64 != count {
        return Err(missing());
    }
    Ok(offsets.iter().map(|offset| Offset(u64::from_be_bytes(*offset))).collect())
}

/// Reads who made the last chunk of the records before `next`.
fn load_makers(store: &Store, next: Offset) -> Result<Makers> {
    let Some(last) = next.0.checked_sub(1) else { return Ok(vec![]) };
    let missing = || damaged(format!("who made the commits before offset {next} is missing"));
    let makers = makers_from_bytes(&store.get(&key_at(Tag::Made, "", last / MAKERS))?.ok_or_else(missing)?)?;
    if makers.len() as u64 == last % MAKERS + 1 { Ok(makers) } else { Err(missing()) }
}

fn read_chunk(bytes: &[u8]) -> Result<Vec<Rec>> {
    bytes.chunks(Rec::LEN).map(Rec::read).collect()
}

/// Reads the records from `kept` on and before `next`: returns the last chunk of them, and `commands` with those that counted.
fn load_records(store: &Store, next: Offset, kept: Offset, mut commands: Commands) -> Result<(Vec<Rec>, Commands)> {
    // The last chunk is wanted whole.
    let first = kept.0.saturating_sub(1) / RECORDS;
    let mut count = first * RECORDS;
    let mut last = Vec::new();
    store.scan_from(&key_at(Tag::Records, "", first), Tag::Records as u8, |key, sealed| {
        let chunk = read_chunk(unseal(key, sealed)?)?;
        if number_in(key)? * RECORDS != count {
            return Err(damaged(format!("records from {count} on are missing")));
        }
        for record in &chunk {
            if record.void.is_none() && count >= kept.0 {
                commands.insert(record.command, Done { hash: record.command_hash, offset: Offset(count) });
            }
            count += 1;
        }
        last = chunk;
        Ok(())
    })?;
    if count != next.0 {
        return Err(damaged(format!("it holds {count} records and says {next}")));
    }
    Ok((last, commands))
}
