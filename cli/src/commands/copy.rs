//! `ionledger copy` and `ionledger move`: a ledger carried to another place.

use std::sync::Arc;

use clap::Args;
use jiff::Zoned;
use ledger::execute::SystemClock;
use ledger::log::Log;
use ledger::log::copy::{self, CopyError};
use ledger::log::kafka::{self, Kafka};
use ledger::log::segments::{self, DataFolder, Segments, SegmentsReader};
use ledger::{Ledger, View, execute};
use schemas::{Actor, ActorKind, Offset};
use serde::Serialize;

use crate::bootstrap::settle;
use crate::exit::Exit;
use crate::failure::{CommandResult, Failure};
use crate::not_allowed::refuse_strangers;
use crate::place::LedgerLocation;
use crate::progress::Progress;
use crate::render::words::{GOOD, column, faint, grouped, line, style_of};
use crate::render::{Render, table};
use crate::session::Session;
use crate::settings::KafkaArgs;

/// Carry every record of a ledger to another place, as a copy that is only read.
///
/// The target is taken if it is empty or holds the first records of the source already, so that a copy that was broken off
/// goes on, and an old one is brought up to date. The source may be in use. Its releases' artifacts stay in its data
/// folder. The root is the same; it is computed from what the target gives back.
#[derive(Debug, Args)]
#[command(after_help = "\
Columns in a pipe: name, value.

Examples:
  ionledger copy --from ~/.local/state/ionledger --to /mnt/backup/ledger
  ionledger copy --from kafka://127.0.0.1:9092 --to ./copy --json | jq -r .root")]
pub(crate) struct Copy {
    #[command(flatten)]
    way: Way,
}

/// Carry a ledger to another place for good: the old one is sealed and takes nothing more, the new one goes on.
///
/// Stop what writes to a data folder first; on Kafka, what others still write is void from then on. A move that was broken
/// off is finished by the same command.
#[derive(Debug, Args)]
#[command(after_help = "\
Columns in a pipe: name, value.

Examples:
  ionledger move --from ~/.local/state/ionledger --to kafka://127.0.0.1:9092
  ionledger move --from kafka://127.0.0.1:9092 --to ./ledger")]
pub(crate) struct Move {
    #[command(flatten)]
    way: Way,
}

#[derive(Clone, Debug, Args)]
struct Way {
    /// Where the ledger lies: a data folder, or `kafka://HOST:PORT[,HOST:PORT...][/TOPIC]`
    #[arg(long, value_name = "PLACE")]
    from: LedgerLocation,
    /// Where it shall lie: a data folder, or `kafka://HOST:PORT[,HOST:PORT...][/TOPIC]`
    #[arg(long, value_name = "PLACE")]
    to: LedgerLocation,
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// What was carried.
#[derive(Debug, Serialize)]
struct Carried {
    schema_version: u16,
    from: String,
    to: String,
    records: u64,
    carried: u64,
    root: String,
    sealed_at: Option<Offset>,
}

impl Copy {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        session.wait_for(async {
            let Way { from, to, kafka } = &self.way;
            let kafka = kafka.options()?;
            apart(from, to)?;
            [from, to].into_iter().try_for_each(may_use)?;
            let source = read(from, &kafka).await?;
            let until = source.latest().await.map_err(Failure::error)?;
            if until == Offset(0) {
                return Err(Failure::error(format!("there is no ledger at {from}; nothing was copied")));
            }
            let target = Target::open(to, from, &kafka).await?;
            let copied = carry(session, &*source, until, &target.log).await.map_err(Failure::error)?;
            answer(session, from, to, copied, None)
        })
    }
}

impl Move {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        session.wait_for(async {
            let Way { from, to, kafka } = &self.way;
            let kafka = kafka.options()?;
            apart(from, to)?;
            [from, to].into_iter().try_for_each(may_use)?;
            let source = Source::open(from, &kafka).await?;
            let ledger = follow(Arc::clone(&source.log), from).await?;
            let target = Target::open(to, from, &kafka).await?;
            let mut carried = 0;
            if ledger.view().state().sealed.is_none() {
                // Nothing is sealed that could not go on: what may fail is tried before.
                source.may_end().await?;
                target.may_go_on(&kafka).await?;
                // Most of it while the source still takes commits.
                let end = source.log.latest().await.map_err(Failure::error)?;
                carried = carry(session, &*source.log, end, &target.log).await.map_err(Failure::error)?.carried;
            }
            let sealed = ledger.seal(&to.to_string(), whoever_runs_this()).await.map_err(Failure::error)?;
            let copied = match carry(session, &*source.log, sealed, &target.log).await {
                // It was moved before and has gone on.
                Err(CopyError::Longer { .. }) => {
                    let compared = copy::compare(&*source.log, &*target.log, sealed, &mut |_| ()).await;
                    copy::Copied { records: sealed.0, carried: 0, root: compared.map_err(Failure::error)? }
                }
                other => other.map_err(Failure::error)?,
            };
            let copied = copy::Copied { carried: copied.carried + carried, ..copied };
            target.goes_on().await?;
            answer(session, from, to, copied, Some(sealed))
        })
    }
}

async fn carry(
    session: &Session,
    source: &dyn Log,
    until: Offset,
    target: &Arc<dyn Log>,
) -> Result<copy::Copied, CopyError> {
    let progress = Progress::begin(session.out, "carrying the ledger over");
    let mut said =
        |what: &str, at: Offset| progress.say(&format!("{what} {} of {} records", grouped(at.0), grouped(until.0)));
    copy::copy(source, until, target, &mut said).await
}

fn answer(
    session: &Session,
    from: &LedgerLocation,
    to: &LedgerLocation,
    copied: copy::Copied,
    sealed_at: Option<Offset>,
) -> CommandResult {
    let carried = Carried {
        schema_version: 1,
        from: from.to_string(),
        to: to.to_string(),
        records: copied.records,
        carried: copied.carried,
        root: copied.root.to_string(),
        sealed_at,
    };
    session.show(&carried)?;
    if sealed_at.is_some() {
        session.out.say(&format!("{from} accepts nothing more; the ledger goes on at {to}"));
    }
    Ok(Exit::Done)
}

fn facts(carried: &Carried) -> [(&'static str, String); 6] {
    [
        ("from", carried.from.clone()),
        ("to", carried.to.clone()),
        ("records", carried.records.to_string()),
        ("carried", carried.carried.to_string()),
        ("root", carried.root.clone()),
        ("sealed at", column(carried.sealed_at)),
    ]
}

impl Render for Carried {
    fn eyes(&self, _: &Zoned, _: usize) -> String {
        eyes(self)
    }

    fn lines(&self) -> String {
        facts(self).map(|(name, value)| line(&[name.to_owned(), value])).concat()
    }
}

fn eyes(carried: &Carried) -> String {
    let rows = facts(carried).map(|(name, value)| vec![table::Cell::styled(name, faint()), table::Cell::new(value)]);
    let mut text = table::paint(&format!("{GOOD} both have the same records"), style_of(GOOD));
    for row in table::lines(&rows) {
        text.push_str(&format!("\n  {row}"));
    }
    text + "\n"
}

/// Refuses a data folder that is closed to this user.
fn may_use(place: &LedgerLocation) -> CommandResult<()> {
    match place {
        LedgerLocation::Folder(data) => refuse_strangers(data),
        LedgerLocation::Kafka(_) => Ok(()),
    }
}

/// Refuses a ledger's own place as its target.
fn apart(from: &LedgerLocation, to: &LedgerLocation) -> CommandResult<()> {
    if from == to { Err(Failure::usage("--from and --to are the same place; name another")) } else { Ok(()) }
}

/// Opens a source that is only read.
async fn read(place: &LedgerLocation, kafka: &kafka::KafkaOptions) -> CommandResult<Arc<dyn Log>> {
    Ok(match place {
        LedgerLocation::Folder(path) => Arc::new(SegmentsReader::open(path, None).map_err(Failure::error)?),
        LedgerLocation::Kafka(place) => {
            let options = kafka::KafkaOptions { must_exist: true, copying: true, ..kafka.clone() };
            Arc::new(Kafka::open(place.clone(), options).await.map_err(Failure::error)?)
        }
    })
}

/// A source that is to be sealed.
struct Source {
    log: Arc<dyn Log>,
    kafka: Option<Arc<Kafka>>,
}

impl Source {
    async fn open(place: &LedgerLocation, kafka: &kafka::KafkaOptions) -> CommandResult<Self> {
        match place {
            LedgerLocation::Folder(path) => {
                // Holding a folder would make one.
                SegmentsReader::open(path, None).map_err(Failure::error)?;
                let folder = DataFolder::hold(path).map_err(Failure::error)?;
                let log = Segments::open(folder, segments::SegmentsOptions::default()).map_err(Failure::error)?;
                Ok(Self { log: Arc::new(log), kafka: None })
            }
            LedgerLocation::Kafka(place) => {
                let options = kafka::KafkaOptions { must_exist: true, ..kafka.clone() };
                let log = Arc::new(Kafka::open(place.clone(), options).await.map_err(Failure::error)?);
                Ok(Self { log: Arc::<Kafka>::clone(&log), kafka: Some(log) })
            }
        }
    }

    /// Makes sure that it can be sealed. A folder that is held can.
    async fn may_end(&self) -> CommandResult<()> {
        match &self.kafka {
            Some(kafka) => kafka.may_end().await.map_err(Failure::error),
            None => Ok(()),
        }
    }
}

/// Folds the source, which is a ledger already.
async fn follow(source: Arc<dyn Log>, place: &LedgerLocation) -> CommandResult<Ledger> {
    if source.latest().await.map_err(Failure::error)? == Offset(0) {
        return Err(Failure::error(format!("there is no ledger at {place}; nothing was moved")));
    }
    let mut view = View::default();
    execute::catch_up(&*source, &mut view)
        .await
        .map_err(|error| Failure::error(format!("nothing was moved: {error}")))?;
    Ledger::open(source, view, Arc::new(SystemClock)).await.map_err(Failure::error)
}

/// Where a ledger is carried to.
struct Target {
    log: Arc<dyn Log>,
    mark: Mark,
}

/// How a target is marked as a copy.
enum Mark {
    Folder(Arc<Segments>),
    Kafka(Arc<Kafka>),
}

impl Target {
    /// Opens the target; an empty one is marked as a copy of `source` first.
    async fn open(place: &LedgerLocation, source: &LedgerLocation, kafka: &kafka::KafkaOptions) -> CommandResult<Self> {
        match place {
            LedgerLocation::Folder(path) => {
                settle(path, false)?;
                let folder = DataFolder::hold(path).map_err(Failure::error)?;
                let options = segments::SegmentsOptions { copying: true, ..segments::SegmentsOptions::default() };
                let log = Arc::new(Segments::open(folder, options).map_err(Failure::error)?);
                if log.latest().await.map_err(Failure::error)? == Offset(0) {
                    log.folder().mark_copy(Some(&source.to_string())).map_err(Failure::error)?;
                }
                Ok(Self { log: Arc::<Segments>::clone(&log), mark: Mark::Folder(log) })
            }
            LedgerLocation::Kafka(place) => {
                let options = kafka::KafkaOptions { copying: true, ..kafka.clone() };
                let log = Arc::new(Kafka::open(place.clone(), options).await.map_err(Failure::error)?);
                if log.latest().await.map_err(Failure::error)? == Offset(0) {
                    log.mark_copy(true).await.map_err(Failure::error)?;
                }
                Ok(Self { log: Arc::<Kafka>::clone(&log), mark: Mark::Kafka(log) })
            }
        }
    }

    /// Makes sure that it can go on as the ledger. A folder that is held can.
    async fn may_go_on(&self, options: &kafka::KafkaOptions) -> CommandResult<()> {
        match &self.mark {
            Mark::Folder(_) => Ok(()),
            Mark::Kafka(log) => log.may_go_on(options).await.map_err(Failure::error),
        }
    }

    /// Lets it go on as the ledger.
    async fn goes_on(&self) -> CommandResult<()> {
        match &self.mark {
            Mark::Folder(log) => {
                log.folder().mark_copy(None).map_err(Failure::error)?;
                log.folder().mark_here().map_err(Failure::error)
            }
            Mark::Kafka(log) => log.mark_copy(false).await.map_err(Failure::error),
        }
    }
}

fn whoever_runs_this() -> Actor {
    let uid = rustix::process::getuid().as_raw();
    let name = std::env::var("USER").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| uid.to_string());
    Actor { kind: ActorKind::Person, name, proof: format!("runs ionledger here, uid={uid}") }
}
