//! Answers read through the projection's rows. `None` always means that the rows have none: they were damaged, or do
//! not go that far.

use std::collections::BTreeSet;

use ledger::State;
use ledger::log::{ReadError, Record};
use ledger::rule::Ruling;
use ledger::view::{Decoded, Folded};
use schemas::{DeploymentId, Offset, ServiceName, Version};

use super::blocks;
use super::collect::{Kept, is_about, stream_is_about, subjects};
use super::origins::Places;
use super::{Error, HistoryQuery, ProductionAt, Reader, history};
use crate::answer::{At, HistoryAnswer, Names};
use crate::moment::Moment;
use crate::outage;
use crate::projection::Projection;

impl Reader {
    /// Returns the moment as the rows have it.
    pub(super) async fn resolve(&self, rows: &Projection, moment: Moment) -> Result<Option<At>, Error> {
        let offset = match moment {
            Moment::Now => Some(self.end().0.checked_sub(1).map(Offset)),
            Moment::Offset(offset) => Some(Some(offset)),
            Moment::Time(time) => rows.offset_at(time),
            Moment::Event(commit) => match Places::Rows(rows).find(&*self.log, commit).await? {
                Some(Some(made)) => Some(Some(made.offset)),
                Some(None) => return Err(Error::NoCommit(commit)),
                None => None,
            },
        };
        Ok(match offset {
            None => None,
            Some(None) => Some(At::default()),
            Some(Some(offset)) => {
                rows.ruling(offset).map(|ruling| At { offset: Some(offset), time: Some(ruling.time) })
            }
        })
    }

    /// Returns a part of history.
    pub(super) async fn history_of_rows(
        &self,
        rows: &Projection,
        query: &HistoryQuery,
    ) -> Result<Option<HistoryAnswer>, Error> {
        let limit = query.limit.unwrap_or(usize::MAX);
        let Some(mut candidates) = candidates(rows, query, limit.saturating_add(1)) else { return Ok(None) };
        let (mut kept, mut unavailable) = (Vec::new(), None);
        // From the newest block to the oldest, each read from its oldest record to its newest.
        while kept.len() <= limit {
            let wanted = limit.saturating_sub(kept.len()).saturating_add(1).min(BLOCK);
            let Some(mut block) = wanted_of(rows, query, &mut candidates, wanted) else { return Ok(None) };
            if block.is_empty() {
                break;
            }
            block.reverse();
            let Some(part) = self.block(rows, query, block, &mut unavailable).await? else { return Ok(None) };
            kept.extend(part.into_iter().rev());
        }
        let more = kept.len() > limit;
        kept.truncate(limit);
        let entries = self.entries(kept, &Places::Rows(rows)).await?;
        Ok(entries.map(|entries| history(query, entries, more)))
    }

    /// Returns those of these records, which ascend, that are asked for. What the log cannot give now is told without its events;
    /// once it could not, it is not asked again.
    async fn block(
        &self,
        rows: &Projection,
        query: &HistoryQuery,
        rulings: Vec<(Offset, Ruling)>,
        unavailable: &mut Option<String>,
    ) -> Result<Option<Vec<Kept>>, Error> {
        let offsets: Vec<Offset> = rulings.iter().map(|(offset, _)| *offset).collect();
        let about = |record: &Record| {
            let decoded = Decoded::of(&record.bytes);
            let of_record = rulings[rulings.partition_point(|(offset, _)| *offset < record.offset)].1;
            is_about(query, decoded.envelope()).then(|| decoded.into_folded(record.offset, of_record))
        };
        let read = match &unavailable {
            None => blocks::read(&*self.log, &offsets, about).await,
            Some(why) => Err(ReadError::Unavailable(why.clone())),
        };
        let mut kept = Vec::with_capacity(offsets.len());
        match read {
            Ok(found) => {
                for folded in found.into_values().flatten() {
                    let Some(names) = names_of(rows, &folded) else { return Ok(None) };
                    kept.push(Kept::Read { folded, names });
                    // Others may have something to do, and who asked may have gone.
                    tokio::task::consume_budget().await;
                }
            }
            Err(ReadError::Unavailable(why)) => {
                for (offset, ruling) in rulings {
                    let Some(made) = rows.made(offset) else { return Ok(None) };
                    // Of a record that does not count nobody knows what it is about.
                    if made.is_some() || query.is_all() {
                        kept.push(Kept::Missing { offset, ruling, made, why: why.clone() });
                    }
                }
                *unavailable = Some(why);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Some(kept))
    }
}

/// How many records of history are held at once before they are told.
const BLOCK: usize = 2_048;

/// Takes the next `max` candidates that may be told, the newest first, each with what the rule said of it.
fn wanted_of(
    rows: &Projection,
    query: &HistoryQuery,
    candidates: &mut (dyn Iterator<Item = Offset> + Send),
    max: usize,
) -> Option<Vec<(Offset, Ruling)>> {
    let rulings = candidates.map(|offset| Some((offset, rows.ruling(offset)?)));
    let told = rulings.filter(|of| query.voids || of.as_ref().is_none_or(|(_, ruling)| ruling.void.is_none()));
    told.take(max).collect()
}

/// Returns the part of the state that is about a deployment: it, its service with the releases that its stacks run,
/// its shares.
pub(super) fn seen_of(rows: &Projection, deployment: &DeploymentId, moment: Moment, at: At) -> Option<ProductionAt> {
    let Some(offset) = at.offset else { return Some(ProductionAt::empty()) };
    let mut names = vec![
        format!("deployment/{deployment}"),
        format!("service/{}", deployment.service),
        format!("shares/{deployment}"),
    ];
    let (state, _) = rows.parts_at(offset, &names)?;
    let found = state.deployment(deployment).into_iter();
    let versions: BTreeSet<&Version> = found
        .flat_map(|found| {
            let holders = found.traffic.holders.iter().map(|holder| &holder.version);
            found.stacks.values().map(|stack| &stack.version).chain(holders)
        })
        .collect();
    names.extend(versions.into_iter().map(|version| format!("release/{}/{version}", deployment.service)));
    let (state, shares) = rows.parts_at(offset, &names)?;
    with_outages(rows, moment, ProductionAt { at, state, shares })
}

/// Returns the part of the state that is a service's declaration.
pub(super) fn service_at(rows: &Projection, service: &ServiceName, at: At) -> Option<State> {
    let Some(offset) = at.offset else { return Some(State::default()) };
    Some(rows.parts_at(offset, &[format!("service/{service}")])?.0)
}

/// Returns all of the state.
pub(super) fn seen(rows: &Projection, moment: Moment, at: At) -> Option<ProductionAt> {
    let Some(offset) = at.offset else { return Some(ProductionAt::empty()) };
    let (state, shares) = rows.state_at(offset)?;
    with_outages(rows, moment, ProductionAt { at, state, shares })
}

/// Lets the rollbacks count that were in effect at a moment and were recorded later.
fn with_outages(rows: &Projection, moment: Moment, mut seen: ProductionAt) -> Option<ProductionAt> {
    if let Some(time) = moment.time(seen.at) {
        outage::lay(rows.outages_over(seen.at, time)?, &mut seen.state, &mut seen.shares);
    }
    Some(seen)
}

/// Returns the first record that is not older than what is asked for.
fn since(rows: &Projection, query: &HistoryQuery) -> Option<Offset> {
    let nanosecond = jiff::SignedDuration::from_nanos(1);
    let Some(before) = query.since.and_then(|since| since.checked_sub(nanosecond).ok()) else {
        return Some(Offset(0));
    };
    Some(rows.offset_at(before)?.map_or(Offset(0), Offset::next))
}

/// Returns the offsets of the newest records that may be what is asked for, the newest first: `max` of each stream, and
/// the voids; of the whole ledger all that there are, one by one.
fn candidates(rows: &Projection, query: &HistoryQuery, max: usize) -> Option<Box<dyn Iterator<Item = Offset> + Send>> {
    let since = since(rows, query)?;
    let (end, ..) = rows.reached()?;
    let end = query.before.map_or(end, |before| before.min(end));
    if query.is_all() {
        return Some(Box::new((since.0..end.0).rev().map(Offset)));
    }
    let mut offsets = BTreeSet::new();
    if query.voids {
        offsets.extend(rows.voids(since)?.into_iter().filter(|offset| *offset < end));
    }
    for stream in rows.streams(|stream| stream_is_about(query, stream))? {
        offsets.extend(rows.commits_of(&stream, since..end, max)?);
    }
    Some(Box::new(offsets.into_iter().rev()))
}

/// Returns what ids stood for just before and just after a record, and what was declared before it.
pub(super) fn names_of(rows: &Projection, folded: &Folded) -> Option<Names> {
    let extended = folded.commit.iter().flat_map(|commit| &commit.extends);
    let (deployment, service) = subjects(extended.map(|(stream, _)| stream.as_str()));
    let offset = folded.offset;
    let part = |name: String, offset| Some(rows.parts_at(offset, &[name])?.0);
    let before = |name: String| match offset.0.checked_sub(1) {
        Some(before) => part(name, Offset(before)),
        None => Some(State::default()),
    };
    let mut names = Names::default();
    if let Some(id) = deployment {
        let name = format!("deployment/{id}");
        names.before = before(name.clone())?.deployments.get(&id).cloned();
        names.after = part(name, offset)?.deployments.get(&id).cloned();
    }
    if let Some(service) = service {
        names.service = before(format!("service/{service}"))?.services.get(&service).cloned();
    }
    Some(names)
}
