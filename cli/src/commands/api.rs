//! `ionledger api`: the HTTP API as a process of its own, on a ledger in Kafka.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use api::ci::Secrets;
use api::server::Listeners;
use clap::Args;
use miette::miette;
use tokio_util::sync::CancellationToken;
use workers::artifacts::Artifacts;

use super::up::ci_secrets;
use crate::bootstrap::{self, ApiServer, Need, Opened, Way};
use crate::failure::CommandResult;
use crate::logging;
use crate::not_allowed::refuse_strangers;
use crate::serving::{self, Signals};
use crate::session::Session;
use crate::settings::{ServerArgs, ServerSettings};

/// Run the HTTP API as a process of its own, on a ledger in Kafka.
///
/// It answers on the data folder's socket, for the command line on this machine, and with --listen over TCP. Of several on
/// one data folder the first has the socket. A rollback that it takes it carries out itself, through the folder's proxy.
#[derive(Debug, Args)]
#[command(after_help = "\
/healthz and /readyz take no token, /metrics takes one as any read does.

Examples:
  ionledger api --ledger kafka://127.0.0.1:9092
  ionledger api --ledger kafka://127.0.0.1:9092 --listen 127.0.0.1:7070
  ionledger api --ledger kafka://127.0.0.1:9092 --ci-secret-file ./ci.secret")]
pub(crate) struct ApiArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// A file with a secret that CI signs its releases with; give two while you change it.
    #[arg(long, value_name = "FILE")]
    ci_secret_file: Vec<PathBuf>,
}

impl ApiArgs {
    /// Answers until told to end by SIGTERM or SIGINT.
    pub(crate) fn run(self, session: &Session) -> CommandResult<ExitCode> {
        let settings = self.server.settings()?;
        settings.need_kafka("an API of its own", "the API")?;
        let data = settings.data(&session.globals)?;
        refuse_strangers(&data)?;
        let _log = logging::init("info");
        serving::block_on(self.serve(&data, &settings))
    }

    async fn serve(self, data: &Path, settings: &ServerSettings) -> miette::Result<()> {
        let mut signals = Signals::catch()?;
        let ci = ci_secrets(&self.ci_secret_file, settings)?;
        // An API that starts while the brokers are down serves what its cache knows, and starts again once they answer. Its
        // listeners stay open meanwhile: a client waits for its answer.
        let mut listeners = None;
        while answer(data, settings, ci.clone(), &mut signals, &mut listeners).await? == Ended::Reached {
            eprintln!("the brokers answer again");
        }
        Ok(())
    }
}

/// Why an API ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// A signal told it to end.
    Told,
    /// Its brokers, which were down, answer.
    Reached,
}

/// Answers until told to end, or, if the brokers are down, until they answer.
async fn answer(
    data: &Path,
    settings: &ServerSettings,
    ci: Secrets,
    signals: &mut Signals,
    listeners: &mut Option<Listeners>,
) -> miette::Result<Ended> {
    let opened = tokio::select! {
        opened = Opened::open(data, settings, Need::Answers) => opened?,
        () = signals.ended() => return Ok(Ended::Told),
    };
    let artifacts = Arc::new(Artifacts::open(&opened.data).map_err(|error| miette!("{error}"))?);
    let adapters = bootstrap::adapters(&opened, &artifacts)?;
    // Another process that had the socket may have ended since.
    let listeners = match listeners.take_if(|listeners| listeners.has_socket()) {
        Some(open) => listeners.insert(open),
        None => {
            drop(listeners.take());
            listeners.insert(open_listeners(&opened.data, settings).await?)
        }
    };
    let way = Way::Listeners(listeners);
    let mut api = ApiServer::open(&opened, &adapters, artifacts, ci, settings, way, false).await?;
    match api.has_socket() {
        true => eprintln!("the API answers on {}", opened.data.display()),
        false => eprintln!("another process answers on {}", opened.data.display()),
    }
    if let Some(address) = api.tcp() {
        eprintln!("the API answers on http://{address}");
    }
    if let Some(why) = opened.ledger.halted() {
        eprintln!(
            "error: the ledger has halted; the API answers from the records before that, and rollbacks still \
                   work: {why}"
        );
    }
    if let Some(why) = &opened.absent {
        eprintln!("error: the brokers do not answer; the API answers from its cache, and rollbacks still work: {why}");
    }
    let stop = CancellationToken::new();
    let keeping = tokio::spawn(bootstrap::keep_break_glass(&adapters, stop.clone()));
    // A ledger that cannot be followed any more is not ready, and still rolls back.
    let ended = tokio::select! {
        () = signals.ended() => Ended::Told,
        () = Opened::reached(settings), if opened.absent.is_some() => Ended::Reached,
    };
    api.close().await;
    stop.cancel();
    let _ = keeping.await;
    Ok(ended)
}

async fn open_listeners(data: &Path, settings: &ServerSettings) -> miette::Result<Listeners> {
    let opened = match settings.listen {
        Some(tcp) => Listeners::open_beside(data, settings.socket_group, tcp).await,
        None => Listeners::open(data, settings.socket_group, None).await,
    };
    opened.map_err(|error| miette!("{error}"))
}
