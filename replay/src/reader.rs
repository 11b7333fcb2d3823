//! The reader: what the other crates ask about the past and the present.
//!
//! It answers from the projection's rows if it can, otherwise from a full fold of the log. Both give the same answers; the
//! tests compare them.

mod blocks;
mod collect;
mod explain;
mod named;
mod origins;
mod rows;
mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ledger::log::segments::{self, SegmentsReader};
use ledger::log::{Log, ReadError};
use ledger::rule::Halt;
use ledger::view::Decoded;
use ledger::{Ledger, State};
use schemas::text::count;
use schemas::{CommitId, DeploymentId, EnvironmentName, Event, Offset, ServiceName, Timestamp, genesis};

use crate::answer::{self, At, Declaration, HistoryAnswer, Made, Production, StatusAnswer, Verified, WhoShipped};
use crate::fold::{FoldError, visit_all};
use crate::moment::Moment;
use crate::projection::{Projection, ProjectionOpenError};
use crate::shares::Shares;
use collect::Collect;
use origins::Places;

pub(crate) use named::IdPrefix;

/// A log with at most this many records is folded from its beginning rather than read through a cache: it is as fast.
const FOLD_MAX: u64 = 20_000;
/// How long an answer waits for the projection to have seen what the log holds, before it is folded from the log.
const BEHIND_MAX: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log cannot be opened.
    #[error(transparent)]
    Open(#[from] segments::SegmentsOpenError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log cannot be folded.
    #[error(transparent)]
    Halt(#[from] Halt),
    /// The time lies in the future.
    #[error("{asked} is in the future, it is {now}; ask for a time up to now")]
    Future {
        /// The time that was asked for.
        asked: Timestamp,
        /// The time it is.
        now: Timestamp,
    },
    /// The record is not written yet.
    #[error(
        "offset {asked} is not written yet; the ledger holds {}, the last is at offset {last}",
        count(*records, "record", "records")
    )]
    NoOffset {
        /// The offset that was asked for.
        asked: Offset,
        /// How many records there are.
        records: u64,
        /// The last of them.
        last: u64,
    },
    /// The log is empty.
    #[error("the ledger holds no record yet")]
    Empty,
    /// The commit is not in the log, or does not count.
    #[error("commit {0} is not in this ledger, or does not count; `ionledger history` lists every commit that counts")]
    NoCommit(CommitId),
    /// The record is no commit.
    #[error("the record at offset {0} is not a commit; `ionledger history --voids` says why it does not count")]
    NoCommitAt(Offset),
    /// Nothing has that name.
    #[error("{what} is not a service, version, offset or commit here; {instead}")]
    Nothing {
        /// The name, and of which service a version was asked for.
        what: String,
        /// What was meant, and what there is.
        instead: String,
    },
    /// Several things have that name.
    #[error("`{what}` could mean {found}; say which")]
    Several {
        /// The name.
        what: String,
        /// What has it.
        found: String,
    },
}

impl From<FoldError> for Error {
    fn from(error: FoldError) -> Self {
        match error {
            FoldError::Read(error) => Error::Read(error),
            FoldError::Halt(halt) => Error::Halt(halt),
        }
    }
}

/// The state of production at a moment, with the shares of then.
#[derive(Clone, Debug, PartialEq)]
pub struct ProductionAt {
    /// The moment.
    pub at: At,
    /// The state.
    pub state: State,
    /// Since when each stack had its traffic.
    pub shares: Shares,
}

impl ProductionAt {
    fn empty() -> Self {
        Self { at: At::default(), state: State::default(), shares: Shares::default() }
    }
}

/// Which part of history is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Only this service's; none for all of the ledger.
    pub service: Option<ServiceName>,
    /// Only this environment's, and what concerns a service as a whole; none for all.
    pub environment: Option<EnvironmentName>,
    /// How many commits at most, the newest; none for all.
    pub limit: Option<usize>,
    /// Only commits since this time.
    pub since: Option<Timestamp>,
    /// Only records before this offset, to go on where another answer ended; none for all.
    pub before: Option<Offset>,
    /// Also the records that do not count.
    pub voids: bool,
    /// Of a service also the commits that hold nothing but what the judge was told, about one a minute of a rollout.
    pub counts: bool,
}

impl HistoryQuery {
    /// Says whether all of the ledger is asked for.
    fn is_all(&self) -> bool {
        self.service.is_none() && self.environment.is_none()
    }

    /// Says whether a record at `offset` is old enough.
    fn reaches(&self, offset: Offset) -> bool {
        self.before.is_none_or(|before| offset < before)
    }
}

/// Reads the ledger of a data folder, or of a running process.
pub struct Reader {
    log: Arc<dyn Log>,
    projection: Option<Arc<Projection>>,
    ledger: Option<Ledger>,
    /// The data folder, if it was opened there.
    data: Option<PathBuf>,
}

impl Reader {
    /// Opens the ledger in the data folder `data` for reading, beside a running `up` or without one. The log is not
    /// written. The cache is used where that is faster and no other process holds it.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] if there is no ledger or it cannot be read.
    pub async fn open(data: &Path) -> Result<Self, Error> {
        let log: Arc<dyn Log> = Arc::new(SegmentsReader::open(data, None)?);
        let mut reader = Self { data: Some(data.to_owned()), ..Self::from_genesis(Arc::clone(&log)) };
        if log.end().borrow().0 <= FOLD_MAX || !data.join("replay").exists() {
            return Ok(reader);
        }
        match Projection::open_if_free(data) {
            Ok(projection) => {
                let sound = projection.resume(&*log).await.is_ok_and(|view| view.next().0 > 0);
                let behind = log.end().borrow().0.saturating_sub(projection.next_offset().borrow().0);
                if sound && behind <= FOLD_MAX && projection.catch_up(&*log).await.is_ok() {
                    reader.projection = Some(Arc::new(projection));
                }
            }
            Err(error) => tracing::debug!(%error, "answers are folded from the log"),
        }
        Ok(reader)
    }

    /// Returns a reader that folds `log` from its beginning for every answer.
    pub fn from_genesis(log: Arc<dyn Log>) -> Self {
        Self { log, projection: None, ledger: None, data: None }
    }

    /// Returns a reader of `log` that uses `projection` where that has seen all of it.
    pub fn over(log: Arc<dyn Log>, projection: Option<Arc<Projection>>) -> Self {
        Self { projection, ..Self::from_genesis(log) }
    }

    /// Returns a reader over a running ledger and the projection that follows the same log.
    pub fn live(ledger: Ledger, log: Arc<dyn Log>, projection: Option<Arc<Projection>>) -> Self {
        Self { ledger: Some(ledger), ..Self::over(log, projection) }
    }

    /// Returns a reader of the same log that uses no cache: `--from-genesis`.
    #[must_use]
    pub fn without_cache(&self) -> Self {
        Self { ledger: self.ledger.clone(), ..Self::from_genesis(Arc::clone(&self.log)) }
    }

    /// Returns the state at `moment`: an empty one before the ledger's first record.
    ///
    /// # Errors
    ///
    /// [`Error::Future`], [`Error::NoOffset`] or [`Error::NoCommit`] for a moment that does not exist; otherwise why the log
    /// cannot be read.
    pub async fn state_at(&self, moment: Moment) -> Result<ProductionAt, Error> {
        self.check(moment)?;
        if let Some(rows) = self.rows().await
            && let Some(at) = self.resolve(rows, moment).await?
            && let Some(seen) = all_seen(Arc::clone(rows), moment, at).await
        {
            return Ok(seen);
        }
        Ok(self.collect(Collect::new(moment).with_outages()).await?.seen())
    }

    /// Returns the status of every service, or of one in one environment or all.
    ///
    /// # Errors
    ///
    /// As [`Reader::state_at`].
    pub async fn status(
        &self,
        moment: Moment,
        service: Option<&ServiceName>,
        environment: Option<&EnvironmentName>,
    ) -> Result<StatusAnswer, Error> {
        let of = |state: &State, at| match service {
            Some(service) => answer::status_of(state, at, service, environment),
            None => answer::status(state, at),
        };
        if let (Some(ledger), Moment::Now) = (&self.ledger, moment) {
            let halted = ledger.halted();
            let (mut status, next) = {
                let view = ledger.view();
                let read_only = about(view.read_only(), service);
                let ahead = self.log.ahead();
                (StatusAnswer { halted, read_only, ahead, ..of(view.state(), At::of(&view)) }, view.next())
            };
            // What a running process has to read first is not waited for: status must answer whatever the log does.
            if let Some(rows) = &self.projection {
                self.name_who_holds(&mut status, &Places::Rows(rows), next).await;
            }
            return Ok(status);
        }
        let (seen, read_only) = match moment {
            Moment::Now => self.now().await?,
            _ => (self.state_at(moment).await?, BTreeMap::new()),
        };
        let mut status = StatusAnswer { read_only: about(&read_only, service), ..of(&seen.state, seen.at) };
        if status.holds_mut().next().is_some() {
            let places = match self.rows().await {
                Some(rows) => Some(Places::Rows(rows)),
                None => {
                    let collected = self.collect(Collect::new(Moment::Now).with_places()).await;
                    collected.ok().map(|mut collected| Places::Folded(collected.places()))
                }
            };
            if let Some(places) = places {
                self.name_who_holds(&mut status, &places, self.end()).await;
            }
        }
        Ok(status)
    }

    /// Writes into a status who set each hold, of which the log told before `next`; it is left out where that cannot be read.
    async fn name_who_holds(&self, status: &mut StatusAnswer, places: &Places<'_>, next: Offset) {
        for hold in status.holds_mut() {
            let Some(commit) = hold.commit else { continue };
            if let Ok(Some(made)) = places.find_counted(&*self.log, commit, next).await {
                hold.actor = Some(made.actor);
            }
        }
    }

    /// Returns the state as it is now, and the streams that are read-only for this program, each with why.
    async fn now(&self) -> Result<(ProductionAt, BTreeMap<String, String>), Error> {
        if let Some(rows) = self.rows().await
            && let Some(at) = self.resolve(rows, Moment::Now).await?
            && let Some(seen) = all_seen(Arc::clone(rows), Moment::Now, at).await
            && let Some(read_only) = rows.read_only()
        {
            return Ok((seen, read_only));
        }
        let collected = self.collect(Collect::new(Moment::Now)).await?;
        let read_only = collected.read_only().clone();
        Ok((collected.seen(), read_only))
    }

    /// Returns where a ledger goes on that was moved away from here; nothing if it was not. Its last record says so.
    ///
    /// # Errors
    ///
    /// Why that record cannot be read.
    pub async fn moved_to(&self) -> Result<Option<String>, Error> {
        let Some(last) = self.end().0.checked_sub(1).map(Offset) else { return Ok(None) };
        let records = self.log.read(last, 1).await?;
        let mut decoded = records.first().map(|record| Decoded::of(&record.bytes));
        let events = decoded.iter_mut().flat_map(Decoded::take_events);
        Ok(events.flatten().find_map(|(_, event)| match event {
            Event::Ledger(genesis::Event::Sealed(sealed)) => Some(sealed.target),
            _ => None,
        }))
    }

    /// Returns all of production at `moment`.
    ///
    /// # Errors
    ///
    /// As [`Reader::state_at`].
    pub async fn production(&self, moment: Moment) -> Result<Production, Error> {
        let seen = self.state_at(moment).await?;
        Ok(answer::production(&seen.state, seen.at))
    }

    /// Returns how a service was declared at `moment`.
    ///
    /// # Errors
    ///
    /// As [`Reader::state_at`].
    pub async fn declaration(&self, service: &ServiceName, moment: Moment) -> Result<Declaration, Error> {
        self.check(moment)?;
        if let Some(rows) = self.rows().await
            && let Some(at) = self.resolve(rows, moment).await?
            && let Some(state) = rows::service_at(rows, service, at)
        {
            return Ok(answer::declaration(&state, service, at));
        }
        let seen = self.collect(Collect::new(moment)).await?.seen();
        Ok(answer::declaration(&seen.state, service, seen.at))
    }

    /// Returns which versions served what share of a deployment at `moment`, and who put them there.
    ///
    /// # Errors
    ///
    /// As [`Reader::state_at`].
    pub async fn who_shipped(&self, deployment: &DeploymentId, moment: Moment) -> Result<WhoShipped, Error> {
        self.check(moment)?;
        if let Some(rows) = self.rows().await
            && let Some(at) = self.resolve(rows, moment).await?
            && let Some(seen) = rows::seen_of(rows, deployment, moment, at)
            && let Some(answer) = self.who_shipped_in(&seen, deployment, &Places::Rows(rows)).await?
        {
            return Ok(answer);
        }
        let mut collected = self.collect(Collect::new(moment).with_outages().with_places()).await?;
        let places = Places::Folded(collected.places());
        let seen = collected.seen();
        let answer = self.who_shipped_in(&seen, deployment, &places).await?;
        Ok(answer.expect("a fold knows every commit"))
    }

    /// Returns who made a commit that counts, if that is known without a scan.
    ///
    /// # Errors
    ///
    /// What keeps the log from being read.
    pub async fn made(&self, commit: CommitId) -> Result<Option<Made>, Error> {
        let end = self.end();
        let Some(rows) = self.rows().await else { return Ok(None) };
        Places::Rows(rows).find_counted(&*self.log, commit, end).await.map_err(Error::from)
    }

    /// Returns a part of history, the newest commit first.
    ///
    /// # Errors
    ///
    /// Why the log cannot be read.
    pub async fn history(&self, query: &HistoryQuery) -> Result<HistoryAnswer, Error> {
        if let Some(rows) = self.rows().await
            && let Some(history) = self.history_of_rows(rows, query).await?
        {
            return Ok(history);
        }
        let mut collected = self.collect(Collect::new(Moment::Now).with_places().with_history(query.clone())).await?;
        let (kept, more) = collected.take_kept();
        let places = Places::Folded(collected.places());
        let entries = self.entries(kept, &places).await?;
        Ok(history(query, entries.expect("a fold knows every commit"), more))
    }

    /// Recomputes hashes, rule and root from the first record on, and compares the cache with them.
    ///
    /// # Errors
    ///
    /// None for a damaged log, which is the answer; [`Error::Read`] if it cannot be read now.
    pub async fn verify(&self) -> Result<Verified, Error> {
        let opened = match (&self.data, &self.projection) {
            (Some(data), None) if data.join("replay").exists() => Projection::open_if_free(data).map(Some),
            _ => Ok(None),
        };
        let in_use = matches!(opened, Err(ProjectionOpenError::InUse(_)));
        let opened = opened.ok().flatten();
        verify::verify(&self.log, self.projection.as_deref().or(opened.as_ref()), in_use).await
    }

    /// Returns the projection if it has seen all that the log holds now.
    async fn rows(&self) -> Option<&Arc<Projection>> {
        let projection = self.projection.as_ref()?;
        projection.wait_for(self.end(), BEHIND_MAX).await.then_some(projection)
    }

    /// Returns the offset that answers end at: the log's end, or where a ledger that runs here has halted.
    fn end(&self) -> Offset {
        let halted = self.ledger.as_ref().filter(|ledger| ledger.halted().is_some());
        halted.map_or_else(|| *self.log.end().borrow(), |ledger| ledger.view().next())
    }

    async fn collect(&self, collect: Collect) -> Result<Collect, Error> {
        let (collect, error) = visit_all(Arc::clone(&self.log), collect).await;
        match error {
            // The caller also learns that the ledger has halted; what lies before that is still known.
            Some(FoldError::Halt(_)) if self.ledger.as_ref().is_some_and(|ledger| ledger.halted().is_some()) => {}
            Some(error) => return Err(error.into()),
            None => {}
        }
        collect.reached()
    }

    fn check(&self, moment: Moment) -> Result<(), Error> {
        let records = self.end().0;
        match moment {
            Moment::Now | Moment::Event(_) => Ok(()),
            Moment::Offset(_) if records == 0 => Err(Error::Empty),
            Moment::Offset(asked) if asked.0 >= records => Err(Error::NoOffset { asked, records, last: records - 1 }),
            Moment::Offset(_) => Ok(()),
            Moment::Time(asked) => {
                let now = self.ledger.as_ref().map_or_else(Timestamp::now, |ledger| ledger.clock().now());
                if asked > now { Err(Error::Future { asked, now }) } else { Ok(()) }
            }
        }
    }
}

/// Reads every row on a blocking thread: with many deployments it takes too long for the async runtime.
async fn all_seen(rows: Arc<Projection>, moment: Moment, at: At) -> Option<ProductionAt> {
    let seeing = tokio::task::spawn_blocking(move || rows::seen(&rows, moment, at)).await;
    seeing.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Returns those of `streams` that concern a service, if one is named.
fn about(streams: &BTreeMap<String, String>, service: Option<&ServiceName>) -> BTreeMap<String, String> {
    let query = HistoryQuery { service: service.cloned(), counts: true, ..HistoryQuery::default() };
    let streams = streams.iter().filter(|(stream, _)| collect::stream_is_about(&query, stream));
    streams.map(|(stream, why)| (stream.clone(), why.clone())).collect()
}

fn history(query: &HistoryQuery, entries: Vec<answer::HistoryEntry>, more: bool) -> HistoryAnswer {
    HistoryAnswer {
        schema_version: answer::SCHEMA_VERSION,
        service: query.service.clone(),
        environment: query.environment.clone(),
        entries,
        more,
        unrecorded: vec![],
    }
}
