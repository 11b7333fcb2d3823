//! Alone: a rollback where nothing serves the data folder, or what holds it does not answer. This process serves the folder to
//! itself for as long as the one command takes, on a socket of its own, and so does all that the API does for a rollback.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::ci::Secrets;
use api::client::{self, Client};
use ledger::log::segments;
use miette::IntoDiagnostic as _;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use workers::artifacts::Artifacts;
use workers::break_glass::Patience;
use workers::identity::{self, Identity};

use super::open::FolderInUse;
use super::{ApiServer, Opened, Way, adapters_with, report};
use crate::client::LedgerClient;
use crate::failure::{CommandResult, Failure};
use crate::not_allowed::not_allowed;
use crate::settings::ServerSettings;

/// How long the process that holds the folder may take to answer, before the command rolls back without the ledger (break-glass).
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// How long the folder is taken at most; `up` waits for it meanwhile.
pub(crate) const MOMENT_MAX: Duration = Duration::from_secs(10);

/// How long a ledger that is only read is asked to record the rollback, which it cannot.
const READER_MAX: Duration = Duration::from_millis(200);

/// How often the process that holds the folder is asked whether it answers by now.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// This process, as it serves a data folder to itself.
pub(crate) struct Alone {
    socket: PathBuf,
    stop: CancellationToken,
    serving: std::thread::JoinHandle<()>,
    /// Why it does.
    pub(crate) why: String,
    /// The next step, if the rollback waits for its target.
    pub(crate) next: &'static str,
}

/// What is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// The ledger, which takes the rollback.
    Ledger,
    /// What can be read of it: the rollback goes on without it.
    Reading,
}

impl Alone {
    /// Serves the data folder of `ledger` if nobody else answers for it. `may_break` says whether the rollback may go on
    /// without the ledger.
    ///
    /// # Errors
    ///
    /// A user without rights gets the command that has them; what cannot be opened is named.
    pub(crate) async fn if_needed(
        ledger: &LedgerClient,
        settings: ServerSettings,
        may_break: bool,
    ) -> CommandResult<Option<Self>> {
        // Whatever served a folder has left its lock there.
        let Some(data) = ledger.data().filter(|data| data.join("lock").exists()) else { return Ok(None) };
        let until = Instant::now() + ANSWER_MAX;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match ledger.client().answers(left).await {
                Err(client::Error::NotAllowed { .. }) => return Err(not_allowed(data)),
                Err(client::Error::NotRunning { .. }) => {
                    match Self::begin(data, &settings, What::Ledger).await {
                        Ok(Ok(alone)) => return Ok(Some(alone)),
                        // Who holds it starts, or ends, or hangs before it has a socket.
                        Ok(Err(FolderInUse(_))) => {}
                        // Its disk takes nothing, or its log cannot be followed: users are sent back all the same.
                        Err(failure) if may_break => return Self::without(data, &settings, failure).await.map(Some),
                        Err(failure) => return Err(failure),
                    }
                }
                Err(client::Error::Unreachable { .. } | client::Error::Silent { .. } | client::Error::Broken(_)) => {}
                Ok(()) | Err(_) => return Ok(None),
            }
            if Instant::now() >= until {
                break;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        if !may_break {
            return Ok(None);
        }
        match Self::begin(data, &settings, What::Reading).await? {
            Ok(alone) => Ok(Some(alone)),
            Err(FolderInUse(why)) => Err(Failure::error(why)),
        }
    }

    /// Serves what can be read of a folder whose ledger cannot be used, because its disk takes no writes or its log is damaged. The
    /// folder must have a proxy that runs. A copy of a ledger is not served, nor the folder of a ledger that was moved.
    ///
    /// # Errors
    ///
    /// `failure`, why it cannot, where too little can be read.
    async fn without(data: &Path, settings: &ServerSettings, failure: Failure) -> CommandResult<Self> {
        let is_here = matches!((segments::copy_of(data), segments::elsewhere(data)), (Ok(None), Ok(None)));
        if !is_here || workers::traffic::proxy::process(data).is_none() {
            return Err(failure);
        }
        match Self::begin(data, settings, What::Reading).await {
            Ok(Ok(alone)) => {
                let why = format!("{}: this command goes on without the ledger", failure.line());
                Ok(Self { why, next: "mend the data folder, then start `ionledger up`", ..alone })
            }
            Ok(Err(FolderInUse(_))) | Err(_) => Err(failure),
        }
    }

    async fn begin(data: &Path, settings: &ServerSettings, what: What) -> CommandResult<Result<Self, FolderInUse>> {
        let owner = owner(data)?;
        let (told, opened) = oneshot::channel();
        let stop = CancellationToken::new();
        let (folder, settings, until) = (data.to_owned(), settings.clone(), stop.clone());
        let serving = std::thread::Builder::new().name("alone".to_owned()).spawn(move || {
            let serve = || block_on(folder, settings, what, told, until);
            // Whatever is made in the folder is its owner's.
            match owner {
                None => serve(),
                Some(owner) => {
                    if let Err(error) = owner.act(serve) {
                        tracing::error!(%error, "the folder could not be served with its owner's rights");
                    }
                }
            }
        });
        let serving = serving.map_err(|error| Failure::error(format!("cannot start a thread: {error}")))?;
        let lost = || Failure::error(format!("{} could not be served; check its owner and rights", data.display()));
        let socket = match opened.await.map_err(|_| lost())?? {
            Ok(socket) => socket,
            Err(held) => return Ok(Err(held)),
        };
        let data = data.display();
        let (why, next) = match what {
            What::Ledger => (
                format!("nothing runs on {data}: this command does it itself"),
                "start `ionledger up`, which continues it",
            ),
            What::Reading => (
                format!(
                    "what holds {data} gave no answer within {} s: this command goes on without it",
                    ANSWER_MAX.as_secs()
                ),
                "the process that holds the data folder continues it once it goes on; find out why it hangs",
            ),
        };
        Ok(Ok(Self { socket, stop, serving, why, next }))
    }

    /// Returns the way to it.
    pub(crate) fn ledger(&self) -> LedgerClient {
        LedgerClient::to(Client::of_data(&self.socket))
    }

    /// Gives the folder back.
    pub(crate) fn end(self) {
        self.stop.cancel();
        let _ = self.serving.join();
    }
}

type Told = oneshot::Sender<miette::Result<Result<PathBuf, FolderInUse>>>;

fn block_on(data: PathBuf, settings: ServerSettings, what: What, told: Told, stop: CancellationToken) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().into_diagnostic();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return drop(told.send(Err(error))),
    };
    runtime.block_on(async {
        match open(&data, &settings, what).await {
            // The folder is held as long as `_opened` is there.
            Ok(Ok((socket, _opened, mut api))) => {
                let folder = socket.clone();
                if told.send(Ok(Ok(socket))).is_ok() {
                    stop.cancelled().await;
                }
                api.close().await;
                let _ = std::fs::remove_dir_all(folder);
            }
            Ok(Err(held)) => drop(told.send(Ok(Err(held)))),
            Err(error) => drop(told.send(Err(error))),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
}

async fn open(
    data: &Path,
    settings: &ServerSettings,
    what: What,
) -> miette::Result<Result<(PathBuf, Opened, ApiServer), FolderInUse>> {
    let opened = match what {
        What::Ledger => match Opened::for_a_moment(data, settings).await? {
            Ok(opened) => opened,
            Err(held) => return Ok(Err(held)),
        },
        What::Reading => Opened::to_read(data).await?,
    };
    let artifacts = Arc::new(Artifacts::open(&opened.data).map_err(report)?);
    // A ledger that is only read gives no verdict.
    let verdict = if what == What::Reading { READER_MAX } else { Patience::default().verdict };
    let adapters = adapters_with(&opened, &artifacts, Patience { verdict, ..Patience::default() })?;
    let socket = std::env::temp_dir().join(format!("ionledger-{}", uuid::Uuid::now_v7()));
    std::fs::DirBuilder::new().mode(0o700).create(&socket).into_diagnostic()?;
    // A ledger in the folder is this process's own; one in Kafka has workers elsewhere, too.
    let way = Way::Aside { folder: &socket, is_only: what == What::Ledger && opened.heartbeats.is_none() };
    let api = ApiServer::open(&opened, &adapters, artifacts, Secrets::default(), settings, way, false).await?;
    Ok(Ok((socket, opened, api)))
}

/// Returns whose rights the folder takes, if this process must take them on: it is root, and the folder is another's.
///
/// # Errors
///
/// A user who is neither gets the command that has the rights.
fn owner(data: &Path) -> CommandResult<Option<Identity>> {
    let found = std::fs::metadata(data).map_err(|error| Failure::error(format!("{}: {error}", data.display())))?;
    match (found.uid() == rustix::process::geteuid().as_raw(), identity::is_root()) {
        (true, _) => Ok(None),
        (false, true) => Ok(Some(Identity::numbered(found.uid(), found.gid()))),
        (false, false) => Err(not_allowed(data)),
    }
}
