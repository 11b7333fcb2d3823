//! Opening the ledger: in the data folder, or in Kafka beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ledger::execute::SystemClock;
use ledger::heartbeats::Heartbeats;
use ledger::log::Log;
use ledger::log::kafka::{self, Kafka, KafkaHeartbeats};
use ledger::log::segments::{self, DataFolder, Elsewhere, SegmentsReader, SharedFolder};
use ledger::{Ledger, View};
use miette::miette;
use replay::Reader;
use schemas::{LedgerId, Offset};

use super::report;
use crate::place::LedgerLocation;
use crate::settings::ServerSettings;

/// A ledger that this process follows, and the data folder where its nodes, artifacts and routes lie.
pub(crate) struct Opened {
    /// The data folder.
    pub(crate) data: PathBuf,
    /// The ledger.
    pub(crate) ledger: Ledger,
    /// What answers questions about the past.
    pub(crate) reader: Arc<Reader>,
    /// The signs of life of workers in other processes; none where no other process may act.
    pub(crate) heartbeats: Option<Arc<dyn Heartbeats>>,
    /// How this process is called as a worker.
    pub(crate) instance: String,
    /// Why its log cannot be reached, if it cannot: the ledger is as the cache knows it.
    pub(crate) absent: Option<String>,
    /// Keeps a process with an embedded ledger from the folder.
    _shared: Option<SharedFolder>,
}

/// How often brokers that do not answer are tried again.
const REACH_EVERY: Duration = Duration::from_secs(1);

/// Another process holds the folder; in words.
#[derive(Debug)]
pub(crate) struct FolderInUse(pub(crate) String);

/// What a process needs of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// To act on it and to answer questions about the past: with the cache.
    Answers,
    /// To act on it.
    Follow,
}

impl Opened {
    /// Opens the ledger that the settings name; without a name, that of the data folder.
    ///
    /// # Errors
    ///
    /// What cannot be had: the folder or the log.
    pub(crate) async fn open(data: &Path, settings: &ServerSettings, need: Need) -> miette::Result<Self> {
        super::settle(data, settings.socket_group.is_some())?;
        match &settings.ledger {
            None => Self::in_folder(data).await,
            Some(LedgerLocation::Folder(folder)) if folder == data => Self::in_folder(data).await,
            Some(LedgerLocation::Folder(folder)) => Err(miette!(
                "the ledger setting names the folder {folder}, but the data folder is {data}, and an embedded ledger lies in \
                 the data folder; remove the ledger setting, or use `--data {folder}`",
                folder = folder.display(),
                data = data.display()
            )),
            Some(LedgerLocation::Kafka(place)) => Self::in_kafka(data, place, &settings.kafka, need).await,
        }
    }

    /// Opens the ledger of the data folder for one command: that in it, which `up` waits for meanwhile, or that in Kafka.
    ///
    /// # Errors
    ///
    /// What cannot be had; within it [`FolderInUse`] if another process holds the folder.
    pub(crate) async fn for_a_moment(
        data: &Path,
        settings: &ServerSettings,
    ) -> miette::Result<Result<Self, FolderInUse>> {
        if let Some(Elsewhere { place, .. }) = segments::elsewhere(data).map_err(report)? {
            let place = place.parse().map_err(|error| miette!("{place}: {error}"))?;
            return Self::in_kafka(data, &place, &settings.kafka, Need::Answers).await.map(Ok);
        }
        let folder = match DataFolder::hold(data) {
            Err(error @ segments::SegmentsOpenError::Held { .. }) => return Ok(Err(FolderInUse(error.to_string()))),
            folder => folder.map_err(report)?,
        };
        folder.sign_for_a_moment().map_err(report)?;
        Self::of_folder(folder).await.map(Ok)
    }

    /// Opens the ledger in the data folder, which another process holds or which takes nothing, for reading alone. One whose log is
    /// damaged is as the cache knows it.
    ///
    /// # Errors
    ///
    /// What cannot be had.
    pub(crate) async fn to_read(data: &Path) -> miette::Result<Self> {
        let read = match SegmentsReader::open(data, None) {
            Ok(log) => replay::open_log(Arc::new(log), None, Arc::new(SystemClock)).await,
            Err(error) => Err(error.into()),
        };
        let error = match read {
            Ok(opened) => return Ok(Self::embedded(data.to_owned(), opened)),
            Err(error) if error.is_damage() => error.to_string(),
            Err(error) => return Err(report(error)),
        };
        let known = replay::open_absent(data, error.clone(), Arc::new(SystemClock)).await.map_err(report)?;
        let known = known.ok_or_else(|| miette!("{error}"))?;
        Ok(Self { absent: Some(error), ..Self::embedded(data.to_owned(), known) })
    }

    async fn in_folder(data: &Path) -> miette::Result<Self> {
        Self::of_folder(DataFolder::hold(data).map_err(report)?).await
    }

    async fn of_folder(folder: DataFolder) -> miette::Result<Self> {
        if let Some(Elsewhere { place, .. }) = segments::elsewhere(folder.path()).map_err(report)? {
            return Err(miette!(
                "the ledger of {} lies in {place}; name it with --ledger {place}, or move it back with `ionledger \
                 move`",
                folder.path().display()
            ));
        }
        let data = folder.path().to_owned();
        let opened =
            replay::open(folder, segments::SegmentsOptions::default(), Arc::new(SystemClock)).await.map_err(report)?;
        Ok(Self::embedded(data, opened))
    }

    fn embedded(data: PathBuf, opened: replay::Opened) -> Self {
        let reader = Arc::new(opened.reader());
        let instance = instance(&opened.ledger);
        Self { data, ledger: opened.ledger, reader, heartbeats: None, instance, absent: None, _shared: None }
    }

    async fn in_kafka(
        data: &Path,
        place: &kafka::KafkaAddress,
        options: &kafka::KafkaOptions,
        need: Need,
    ) -> miette::Result<Self> {
        let shared = SharedFolder::hold(data).map_err(report)?;
        let data = shared.path().to_owned();
        let log: Arc<dyn Log> = match Kafka::open(place.clone(), options.clone()).await {
            Ok(log) => Arc::new(log),
            Err(error @ kafka::KafkaOpenError::Unreachable { .. }) if need == Need::Answers => {
                return Self::known(data, shared, error.to_string()).await;
            }
            Err(error) => return Err(report(error)),
        };
        let own = ledger_of(&data).await?;
        check_same(&data, own, &*log, place).await?;
        let cache = (need == Need::Answers).then_some(&*data);
        let opened = replay::open_log(Arc::clone(&log), cache, Arc::new(SystemClock)).await.map_err(report)?;
        let here = Elsewhere { place: place.to_string(), ledger: opened.ledger.id() };
        shared.mark_elsewhere(&here).map_err(report)?;
        let instance = instance(&opened.ledger);
        let heartbeats = KafkaHeartbeats::open(place, options, &instance).await.map_err(report)?;
        let reader = Arc::new(opened.reader());
        let heartbeats: Option<Arc<dyn Heartbeats>> = Some(Arc::new(heartbeats));
        Ok(Self { data, ledger: opened.ledger, reader, heartbeats, instance, absent: None, _shared: Some(shared) })
    }

    /// Returns the ledger as the folder's cache knows it, whose brokers do not answer.
    async fn known(data: PathBuf, shared: SharedFolder, why: String) -> miette::Result<Self> {
        let own = ledger_of(&data).await?;
        let known = replay::open_absent(&data, why.clone(), Arc::new(SystemClock)).await.map_err(report)?;
        let opened = known.filter(|known| own == Some(known.ledger.id())).ok_or_else(|| miette!("{why}"))?;
        Ok(Self { absent: Some(why), _shared: Some(shared), ..Self::embedded(data, opened) })
    }
}

impl Opened {
    /// Refuses a ledger whose log cannot be reached: who acts on it must write to it.
    ///
    /// # Errors
    ///
    /// Why it cannot.
    pub(crate) fn refuse_absent(&self) -> miette::Result<()> {
        self.absent.as_ref().map_or(Ok(()), |why| Err(miette!("{why}")))
    }

    /// Returns once the brokers of a ledger in Kafka answer.
    pub(crate) async fn reached(settings: &ServerSettings) {
        let Some(LedgerLocation::Kafka(place)) = &settings.ledger else { return };
        while Kafka::open(place.clone(), settings.kafka.clone()).await.is_err() {
            tokio::time::sleep(REACH_EVERY).await;
        }
    }

    /// Refuses a ledger that has halted: who acts on it cannot know how it goes on.
    ///
    /// # Errors
    ///
    /// Why it has halted.
    pub(crate) fn refuse_halted(&self) -> miette::Result<()> {
        self.ledger.halted().map_or(Ok(()), |why| Err(miette!("the ledger cannot be followed: {why}")))
    }
}

/// Returns this process's name as an instance: where it runs and since when.
fn instance(ledger: &Ledger) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || "-._".contains(*c)).take(100).collect();
    format!("{host}:{}@{}", std::process::id(), ledger.clock().now())
}

/// Refuses a data folder whose nodes and routes are of another ledger.
async fn check_same(
    data: &Path,
    own: Option<LedgerId>,
    log: &dyn Log,
    place: &kafka::KafkaAddress,
) -> miette::Result<()> {
    let Some(own) = own else { return Ok(()) };
    let there = first_of(log).await?;
    if there == Some(own) {
        return Ok(());
    }
    let there = there.map_or_else(|| "no ledger".to_owned(), |id| format!("ledger {id}"));
    Err(miette!(
        "{} is of ledger {own}, and {place} holds {there}; name another folder with --data DIR, or move the ledger \
         with `ionledger move`",
        data.display()
    ))
}

/// Returns the ledger that a data folder is of, if it is of one yet.
async fn ledger_of(data: &Path) -> miette::Result<Option<LedgerId>> {
    if let Some(Elsewhere { ledger, .. }) = segments::elsewhere(data).map_err(report)? {
        return Ok(Some(ledger));
    }
    match SegmentsReader::open(data, None) {
        Ok(log) => first_of(&log).await,
        Err(segments::SegmentsOpenError::NoLog(_)) => Ok(None),
        Err(error) => Err(report(error)),
    }
}

/// Returns the ledger that a log's first record makes, if there is one.
async fn first_of(log: &dyn Log) -> miette::Result<Option<LedgerId>> {
    let Some(first) = log.read(Offset(0), 1).await.map_err(report)?.into_iter().next() else { return Ok(None) };
    let mut view = View::default();
    view.fold(first.offset, &first.bytes).map_err(report)?;
    Ok(view.state().ledger)
}
