//! What folding some records changes in the cache, written in one batch: rows, records, heads and how far it goes.

use std::collections::BTreeMap;

use ledger::View;
use ledger::view::Folded;
use schemas::{CommandId, CommitId, Event, Hash, Offset, Stream};
use uuid::Uuid;

use super::held::{Fold, HeldRows, Meta, Tail, commit_key, shares_name};
use super::row::{COMMITS, MAKERS, Makers, Open, RECORDS, Rec, Result, Tag, key, key_at, makers_to_bytes, write_chunk};
use super::store::Batch;
use crate::answer::Made;
use crate::outage::Outage;
use crate::shares::{CommitPosition, Shares};

/// The changes of some records that were folded and not yet written.
#[derive(Default)]
pub(super) struct Pending {
    rows: BTreeMap<String, Open>,
    closed: Vec<(Vec<u8>, Vec<u8>)>,
    records: Vec<Rec>,
    streams: BTreeMap<String, Vec<Offset>>,
    commits: Vec<(CommitId, Offset)>,
    /// Who made each record.
    made: Makers,
    outages: Vec<Outage>,
}

/// Folds the shares on with a record.
pub(super) fn evolve_shares(shares: &mut Shares, folded: &Folded) {
    let Some(commit) = folded.commit.as_ref().filter(|_| folded.void.is_none()) else { return };
    let place = CommitPosition { offset: folded.offset, time: folded.time, commit: commit.id };
    for (stream, event) in commit.events.iter().flat_map(|read| &read.event) {
        shares.evolve(stream, event, place);
    }
}

impl Pending {
    /// Adds a record that was just folded into `fold`.
    pub(super) fn add(&mut self, held: &HeldRows, fold: &Fold, folded: &Folded) {
        let counted = folded.commit.as_ref().filter(|_| folded.void.is_none());
        let command = counted.map_or(CommandId(Uuid::nil()), |commit| commit.command);
        let command_hash = fold.view.command(command).map_or(Hash::ZERO, |done| done.hash);
        self.records.push(Rec { time: folded.time, void: folded.void, command, command_hash });
        self.made.push(counted.and_then(|_| Made::of(folded)));
        let Some(commit) = counted else { return };
        self.commits.push((commit.id, folded.offset));
        self.outages.extend(outage_of(fold, folded));
        for (stream, _) in &commit.extends {
            self.streams.entry(stream.clone()).or_default().push(folded.offset);
        }
        for (name, json) in touched(fold, folded) {
            self.set_row(held, folded.offset, name, json);
        }
    }

    fn set_row(&mut self, held: &HeldRows, offset: Offset, name: String, json: Vec<u8>) {
        let known = self.rows.get(&name).or_else(|| held.rows.get(&name).map(|(open, _)| open));
        if known.is_some_and(|known| known.json == json) {
            return;
        }
        let known = self.rows.remove(&name).or_else(|| held.rows.get(&name).map(|(open, _)| open.clone()));
        let (row, full) = match known {
            Some(known) => known.superseded(offset, json),
            None => (Open::first(offset, json), None),
        };
        if let Some(full) = full {
            self.closed.push((key_at(Tag::Closed, &name, full[0].from.0), write_chunk(&full)));
        }
        self.rows.insert(name, row);
    }

    /// Writes everything in one batch.
    pub(super) fn apply(self, held: &mut HeldRows, fold: &Fold) -> Result<()> {
        let view = &fold.view;
        let mut batch = Batch::default();
        let mut sum = held.meta.sum;
        let mut rows = Vec::with_capacity(self.rows.len());
        for (name, open) in self.rows {
            let share = batch.put(key(Tag::Open, &name), &open.to_bytes());
            let before = held.rows.get(&name).map_or(0, |(_, share)| *share);
            sum = sum.wrapping_sub(before).wrapping_add(share);
            rows.push((name, (open, share)));
        }
        for (key, closed) in self.closed {
            batch.put(key, &closed);
        }
        let mut streams = Vec::with_capacity(self.streams.len());
        for (name, offsets) in self.streams {
            let before = held.streams.get(&name);
            let tail = put_stream(&mut batch, &name, before, &offsets, view);
            sum = sum.wrapping_sub(before.map_or(0, |tail| tail.share)).wrapping_add(tail.share);
            streams.push((name, tail));
        }
        for (commit, offset) in self.commits {
            batch.put(commit_key(commit), &offset.0.to_be_bytes());
        }
        let makers = put_makers(&mut batch, held, self.made);
        let records = put_records(&mut batch, held, self.records);
        let new_rows = rows.iter().filter(|(name, _)| !held.rows.contains_key(name)).count();
        let new_streams = streams.iter().filter(|(name, _)| !held.streams.contains_key(name)).count();
        let meta = Meta {
            format: held.meta.format.clone(),
            ledger: view.state().ledger,
            next: view.next(),
            last: fold.last,
            time: view.time(),
            tree: view.tree().clone(),
            voids: view.voids(),
            read_only: view.read_only().clone(),
            rows: held.meta.rows + new_rows as u64,
            streams: held.meta.streams + new_streams as u64,
            sum,
            outages: held.meta.outages + self.outages.len() as u64,
        };
        for outage in &self.outages {
            batch.put(key_at(Tag::Outage, "", outage.place.offset.0), &outage.to_bytes());
        }
        batch.put(key(Tag::Meta, ""), &to_json(&meta));
        held.store.apply(batch)?;
        held.meta = meta;
        held.rows.extend(rows);
        held.streams.extend(streams);
        held.records = records;
        held.makers = makers;
        held.outages.extend(self.outages);
        Ok(())
    }
}

/// Returns the rollback that a record tells of, if that was in effect before.
fn outage_of(fold: &Fold, folded: &Folded) -> Option<Outage> {
    let commit = folded.commit.as_ref().filter(|_| folded.void.is_none())?;
    let place = CommitPosition { offset: folded.offset, time: folded.time, commit: commit.id };
    let events = commit.events.iter().flat_map(|read| &read.event);
    Outage::of(commit.took_effect()?, place, events, fold.view.state())
}

/// Returns the rows that a record changed, as they are after it.
fn touched(fold: &Fold, folded: &Folded) -> BTreeMap<String, Vec<u8>> {
    let mut rows = BTreeMap::new();
    let mut seen = Vec::new();
    for (stream, event) in folded.commit.iter().flat_map(|commit| &commit.events).flat_map(|read| &read.event) {
        // A stream's own row is the same whichever of its events touched it; a release has a row of its own.
        if !matches!(event, Event::Release(_)) {
            if seen.contains(&stream) {
                continue;
            }
            seen.push(stream);
        }
        let touched = fold.view.state().rows_touched(stream, event);
        rows.extend(
            touched.into_iter().map(|(name, json)| (name, Box::<str>::from(json).into_boxed_bytes().into_vec())),
        );
        if let Stream::Deployment(id) = stream
            && let Some(shared) = fold.shares.of(id)
        {
            rows.insert(shares_name(id), to_json(shared));
        }
    }
    rows
}

fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain JSON")
}

/// Writes a stream's head and the chunks of its commits that change.
fn put_stream(batch: &mut Batch, name: &str, before: Option<&Tail>, offsets: &[Offset], view: &View) -> Tail {
    let mut version = before.map_or(0, |tail| tail.head.version.0);
    let mut chunk: Vec<Offset> = before.map(|tail| tail.offsets.clone()).unwrap_or_default();
    let put = |batch: &mut Batch, number: u64, chunk: &[Offset]| {
        let bytes: Vec<u8> = chunk.iter().flat_map(|offset| offset.0.to_be_bytes()).collect();
        batch.put(key_at(Tag::At, name, number), &bytes);
    };
    for offset in offsets {
        if version > 0 && version.is_multiple_of(COMMITS) {
            put(batch, version / COMMITS - 1, &chunk);
            chunk.clear();
        }
        chunk.push(*offset);
        version += 1;
    }
    put(batch, (version - 1) / COMMITS, &chunk);
    let head = view.ruler().head(name);
    debug_assert_eq!(head.version.0, version, "a stream's version is the number of its commits");
    let mut bytes = head.version.0.to_be_bytes().to_vec();
    bytes.extend_from_slice(&head.hash.0);
    let share = batch.put(key(Tag::Stream, name), &bytes);
    Tail { head, offsets: chunk, share }
}

/// Writes the chunks of who made records that change, and returns the last of them.
fn put_makers(batch: &mut Batch, held: &HeldRows, new: Makers) -> Makers {
    let mut next = held.meta.next.0;
    let mut chunk = held.makers.clone();
    for made in new {
        if next.is_multiple_of(MAKERS) {
            chunk.clear();
        }
        chunk.push(made);
        next += 1;
        if next.is_multiple_of(MAKERS) {
            batch.put(key_at(Tag::Made, "", next / MAKERS - 1), &makers_to_bytes(&chunk));
        }
    }
    if !next.is_multiple_of(MAKERS) {
        batch.put(key_at(Tag::Made, "", next / MAKERS), &makers_to_bytes(&chunk));
    }
    chunk
}

/// Writes the chunks of records that change, and returns the last of them.
fn put_records(batch: &mut Batch, held: &HeldRows, new: Vec<Rec>) -> Vec<Rec> {
    let mut number = held.meta.next.0 / RECORDS;
    let whole = held.meta.next.0.is_multiple_of(RECORDS);
    let mut chunk = if whole { Vec::new() } else { held.records.clone() };
    if new.is_empty() {
        return held.records.clone();
    }
    let put = |batch: &mut Batch, number: u64, chunk: &[Rec]| {
        let mut bytes = Vec::with_capacity(chunk.len() * Rec::LEN);
        chunk.iter().for_each(|record| record.write(&mut bytes));
        batch.put(key_at(Tag::Records, "", number), &bytes);
    };
    for record in new {
        if chunk.len() as u64 == RECORDS {
            put(batch, number, &chunk);
            chunk.clear();
            number += 1;
        }
        chunk.push(record);
    }
    put(batch, number, &chunk);
    chunk
}
