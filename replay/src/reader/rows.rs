//! Answers read through the projection's rows. `None` always means that the rows have none: they were damaged, or do
//! not go that far.

use std::collections::BTreeSet;

use ledger::State;
use ledger::view::Decoded;
use schemas::envelope::Envelope;
use schemas::{DeploymentId, Offset, ServiceName, Version};

use super::collect::{Kept, deployment_in, is_about, service_in, stream_is_about};
use super::origins::Places;
use super::{Error, HistoryQuery, Reader, Seen, history};
use crate::answer::{At, History, Names};
use crate::moment::Moment;
use crate::projection::Projection;
use crate::shares::Shares;

impl Reader {
    /// Returns the moment as the rows have it.
    pub(super) async fn resolve(&self, rows: &Projection, moment: Moment) -> Result<Option<At>, Error> {
        let offset = match moment {
            Moment::Now => Some(self.end().0.checked_sub(1).map(Offset)),
            Moment::Offset(offset) => Some(Some(offset)),
            Moment::Time(time) => rows.offset_at(time),
            Moment::Event(commit) => match Places::Rows(rows).find(&*self.log, commit).await? {
                Some(Some(folded)) => Some(Some(folded.offset)),
                Some(None) => return Err(Error::NoCommit(commit)),
                None => None,
            },
        };
        Ok(match offset {
            None => None,
            Some(None) => Some(At::default()),
            Some(Some(offset)) => {
                rows.judged(offset).map(|judged| At { offset: Some(offset), time: Some(judged.time) })
            }
        })
    }

    /// Returns a part of history.
    pub(super) async fn history_of_rows(
        &self,
        rows: &Projection,
        query: &HistoryQuery,
    ) -> Result<Option<History>, Error> {
        let limit = query.limit.unwrap_or(usize::MAX);
        let Some(candidates) = candidates(rows, query, limit.saturating_add(1)) else { return Ok(None) };
        let mut kept = Vec::new();
        let mut more = false;
        for offset in candidates {
            let Some(judged) = rows.judged(offset) else { return Ok(None) };
            if judged.void.is_some() && !query.voids {
                continue;
            }
            let records = self.log.read(offset, 1).await?;
            let Some(record) = records.first() else { return Ok(None) };
            let decoded = Decoded::of(&record.bytes);
            if !is_about(query, decoded.envelope()) {
                continue;
            }
            if kept.len() == limit {
                more = true;
                break;
            }
            let Some(names) = names_at(rows, decoded.envelope(), offset) else { return Ok(None) };
            kept.push(Kept { folded: decoded.into_folded(offset, judged), names });
        }
        let entries = self.entries(kept, &Places::Rows(rows)).await?;
        Ok(entries.map(|entries| history(query, entries, more)))
    }
}

/// Returns the part of the state that is about a deployment: it, its service with the releases that its stacks run,
/// its shares.
pub(super) fn seen_of(rows: &Projection, deployment: &DeploymentId, at: At) -> Option<Seen> {
    let Some(offset) = at.offset else { return Some(Seen::empty()) };
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
    Some(Seen { at, state, shares })
}

/// Returns the part of the state that is a service's declaration.
pub(super) fn service_at(rows: &Projection, service: &ServiceName, at: At) -> Option<State> {
    let Some(offset) = at.offset else { return Some(State::default()) };
    Some(rows.parts_at(offset, &[format!("service/{service}")])?.0)
}

/// Returns all of the state.
pub(super) fn seen(rows: &Projection, at: At) -> Option<Seen> {
    let Some(offset) = at.offset else { return Some(Seen::empty()) };
    let (state, shares): (State, Shares) = rows.state_at(offset)?;
    Some(Seen { at, state, shares })
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

/// Returns what ids stood for just before and just after the record at `offset`, and what was declared before it.
pub(super) fn names_at(rows: &Projection, envelope: Option<&Envelope<'_>>, offset: Offset) -> Option<Names> {
    let (deployment, service) = (envelope.and_then(deployment_in), envelope.and_then(service_in));
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
