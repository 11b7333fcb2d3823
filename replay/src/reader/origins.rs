//! Origins: where a commit stands, who made it, and which person or pipeline is behind it.

use std::collections::{BTreeMap, HashMap};

use ledger::log::{Log, ReadError};
use ledger::rule::Ruling;
use ledger::view::{Decoded, Folded};
use schemas::{CommitId, DeploymentId, Offset};

use super::collect::{CommitPlaces, Kept};
use super::{Error, ProductionAt, Reader};
use crate::answer::{self, HistoryEntry, Made, OnBehalfOf, Origin, WhoShipped};
use crate::projection::Projection;

/// How far up the chain of causes is looked.
const CAUSES_MAX: usize = 32;

/// Where commits stand.
pub(super) enum Places<'a> {
    /// As the projection's rows have it.
    Rows(&'a Projection),
    /// As a fold found it.
    Folded(CommitPlaces),
}

impl Places<'_> {
    /// Returns who made a commit that counts: `Some(None)` if there is none of that id, `None` if the rows turn out damaged.
    /// The rows know it without the log.
    pub(super) async fn find(&self, log: &dyn Log, commit: CommitId) -> Result<Option<Option<Made>>, ReadError> {
        let rows = match self {
            Places::Folded(places) => {
                let Some((offset, time)) = places.get(&commit) else { return Ok(Some(None)) };
                let folded = read(log, *offset, Ruling { time: *time, void: None }).await?;
                return Ok(Some(folded.as_ref().and_then(Made::of)));
            }
            Places::Rows(rows) => rows,
        };
        let Some(offset) = rows.offset_of(commit) else { return Ok(None) };
        let Some(offset) = offset else { return Ok(rows.check_commits().map(|()| None)) };
        let Some(made) = rows.made(offset) else { return Ok(None) };
        if made.as_ref().map(|made| made.commit) != Some(commit) {
            rows.condemn("it says that a commit stands where another one does");
            return Ok(None);
        }
        Ok(Some(made))
    }
}

impl Places<'_> {
    /// Returns who made a commit that counts and that the log has before `next`, as far as that is known at once: nothing is
    /// scanned. Rows that have not come that far do not know it yet; rows that have and lack it are damaged.
    pub(super) async fn find_counted(
        &self,
        log: &dyn Log,
        commit: CommitId,
        next: Offset,
    ) -> Result<Option<Made>, ReadError> {
        if let Places::Rows(rows) = self {
            let reached = *rows.next_offset().borrow() >= next;
            if !matches!(rows.offset_of(commit), Some(Some(_))) {
                if reached {
                    rows.condemn("a commit that counts is missing");
                }
                return Ok(None);
            }
        }
        Ok(self.find(log, commit).await?.flatten())
    }
}

/// Reads the record at `offset`, of which the rule said `ruling`.
pub(super) async fn read(log: &dyn Log, offset: Offset, ruling: Ruling) -> Result<Option<Folded>, ReadError> {
    let records = log.read(offset, 1).await?;
    Ok(records.first().map(|record| Decoded::of(&record.bytes).into_folded(offset, ruling)))
}

/// Who is behind each commit, as far as it was looked up.
struct Behind<'a> {
    log: &'a dyn Log,
    places: &'a Places<'a>,
    known: HashMap<CommitId, Option<OnBehalfOf>>,
}

impl<'a> Behind<'a> {
    fn new(log: &'a dyn Log, places: &'a Places<'a>) -> Self {
        Self { log, places, known: HashMap::new() }
    }

    /// Returns the nearest person or pipeline up the chain of causes: `None` if the rows turn out damaged.
    async fn of(&mut self, cause: Option<CommitId>) -> Result<Option<Option<OnBehalfOf>>, ReadError> {
        let mut next = cause;
        let mut passed = Vec::new();
        let mut found = None;
        while let Some(commit) = next.filter(|commit| passed.len() < CAUSES_MAX && !passed.contains(commit)) {
            if let Some(known) = self.known.get(&commit) {
                found.clone_from(known);
                break;
            }
            passed.push(commit);
            let Some(cause) = self.places.find(self.log, commit).await? else { return Ok(None) };
            let Some(cause) = cause else { break };
            found = OnBehalfOf::of(&cause);
            next = cause.cause;
        }
        for commit in passed {
            self.known.insert(commit, found.clone());
        }
        Ok(Some(found))
    }
}

impl Reader {
    /// Returns who shipped what: `None` if the rows turn out damaged.
    pub(super) async fn who_shipped_in(
        &self,
        seen: &ProductionAt,
        deployment: &DeploymentId,
        places: &Places<'_>,
    ) -> Result<Option<WhoShipped>, Error> {
        let mut behind = Behind::new(&*self.log, places);
        let mut origins = BTreeMap::new();
        for commit in answer::commits_needed(&seen.state, &seen.shares, deployment) {
            if origins.contains_key(&commit) {
                continue;
            }
            let Some(found) = places.find(&*self.log, commit).await? else { return Ok(None) };
            let Some(made) = found else { continue };
            let Some(on_behalf_of) = behind.of(made.cause).await? else { return Ok(None) };
            origins.insert(commit, Origin::of(made, on_behalf_of));
        }
        Ok(Some(answer::who_shipped(&seen.state, &seen.shares, deployment, seen.at, &origins)))
    }

    /// Returns records as history shows them: `None` if the rows turn out damaged.
    pub(super) async fn entries(
        &self,
        kept: Vec<Kept>,
        places: &Places<'_>,
    ) -> Result<Option<Vec<HistoryEntry>>, Error> {
        let mut behind = Behind::new(&*self.log, places);
        let mut entries = Vec::with_capacity(kept.len());
        for kept in kept {
            let cause = match &kept {
                Kept::Read { folded, .. } => folded.commit.as_ref().and_then(answer::cause),
                Kept::Missing { made, .. } => made.as_ref().and_then(|made| made.cause),
            };
            let Some(on_behalf_of) = behind.of(cause).await? else { return Ok(None) };
            entries.push(match kept {
                Kept::Read { folded, names } => answer::entry(&folded, &names, on_behalf_of),
                Kept::Missing { offset, ruling, made, why } => {
                    answer::entry_without_events(offset, ruling, made, on_behalf_of, why)
                }
            });
            // Others may have something to do, and who asked may have gone.
            tokio::task::consume_budget().await;
        }
        Ok(Some(entries))
    }
}
