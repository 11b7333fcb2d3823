//! Explanations, read from the log.

use ledger::log::ReadError;
use ledger::rule::Ruling;
use schemas::{CommitId, DeploymentId};

use super::collect::{Collect, Kept};
use super::origins::Places;
use super::{Error, HistoryQuery, Reader, blocks, origins, rows};
use crate::answer::{self, Explanation, HistoryEntry, Names};
use crate::moment::Moment;

/// How many causes are named.
const CAUSES_MAX: usize = 32;

impl Reader {
    /// Returns why a deployment's rollout, the one under way or the last, went as it did until a moment.
    ///
    /// # Errors
    ///
    /// As [`Reader::state_at`].
    pub async fn explain(&self, deployment: &DeploymentId, moment: Moment) -> Result<Explanation, Error> {
        let status = self.status(moment, Some(&deployment.service), Some(&deployment.environment)).await?;
        let deployments = status.services.into_iter().flat_map(|service| service.deployments);
        let rollout =
            deployments.into_iter().find(|found| found.deployment == *deployment).and_then(|found| found.rollout);
        let mut entries = Vec::new();
        if let Some(rollout) = &rollout {
            let query = HistoryQuery {
                service: Some(deployment.service.clone()),
                environment: Some(deployment.environment.clone()),
                since: Some(rollout.started_at),
                ..HistoryQuery::default()
            };
            let time = moment.time(status.at);
            let late = |entry: &HistoryEntry| entry.recorded_at.is_some() && Some(entry.counts_from()) <= time;
            let until = |entry: &HistoryEntry| Some(entry.offset) <= status.at.offset || late(entry);
            let all = self.history(&query).await?.entries.into_iter().rev();
            entries = answer::story(all.filter(until).collect(), rollout);
        }
        let (schema_version, at) = (answer::SCHEMA_VERSION, Some(status.at));
        Ok(Explanation { schema_version, at, deployment: Some(deployment.clone()), rollout, entries })
    }

    /// Returns what led to a commit: it, its cause, the cause of that, up to a person or a pipeline.
    ///
    /// # Errors
    ///
    /// [`Error::NoCommit`] if none of that id counts, or what keeps the log from being read.
    pub async fn explain_commit(&self, commit: CommitId) -> Result<Explanation, Error> {
        let rows = self.rows().await.cloned();
        let found = match &rows {
            Some(rows) => self.causes(commit, &Places::Rows(rows)).await?,
            None => None,
        };
        let entries = match found {
            Some(entries) => entries,
            None => {
                let mut collected = self.collect(Collect::new(Moment::Event(commit)).with_places()).await?;
                let places = Places::Folded(collected.places());
                self.causes(commit, &places).await?.expect("a fold knows every commit")
            }
        };
        if entries.is_empty() {
            return Err(Error::NoCommit(commit));
        }
        let schema_version = answer::SCHEMA_VERSION;
        Ok(Explanation { schema_version, at: None, deployment: None, rollout: None, entries })
    }

    /// Returns a commit and its causes: `None` if the rows turn out damaged.
    async fn causes(&self, commit: CommitId, places: &Places<'_>) -> Result<Option<Vec<HistoryEntry>>, Error> {
        let (mut kept, mut next) = (Vec::new(), Some(commit));
        while let Some(id) = next.filter(|_| kept.len() < CAUSES_MAX) {
            let Some(found) = places.find(&*self.log, id).await? else { return Ok(None) };
            let Some(made) = found else { break };
            next = made.cause;
            let ruling = Ruling { time: made.time, void: None };
            let read = blocks::within(made.offset, origins::read(&*self.log, made.offset, ruling)).await;
            kept.push(match (read, places) {
                (Ok(None), _) => return Ok(None),
                (Ok(Some(folded)), Places::Folded(_)) => Kept::Read { folded, names: Names::default() },
                (Ok(Some(folded)), Places::Rows(rows)) => {
                    let Some(names) = rows::names_of(rows, &folded) else { return Ok(None) };
                    Kept::Read { folded, names }
                }
                (Err(ReadError::Unavailable(why)), Places::Rows(_)) => {
                    Kept::Missing { offset: made.offset, ruling, made: Some(made), why }
                }
                (Err(error), _) => return Err(error.into()),
            });
        }
        self.entries(kept, places).await
    }
}
