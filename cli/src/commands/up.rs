//! `ionledger up`: everything in one process, on one data folder.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use api::ci::Secrets;
use clap::Args;
use miette::miette;

use crate::bootstrap::{LocalServer, name_open_secrets};
use crate::failure::CommandResult;
use crate::logging;
use crate::not_allowed::refuse_strangers;
use crate::serving::{self, Signals};
use crate::session::Session;
use crate::settings::{ServerArgs, ServerSettings};

/// Run the ledger, its workers and the API on a data folder.
///
/// Users' traffic is served by a proxy that `up` starts as a process of its own; it and the nodes go on when `up` ends and
/// are taken over by the next one. With --ledger kafka://... the ledger lies in Kafka, and other processes
/// (`ionledger worker`, `ionledger api`) may work on it beside this one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ionledger up
  ionledger up --data ./ledger --listen 127.0.0.1:7070
  ionledger up --ci-secret-file ./ci.secret
  ionledger up --ledger kafka://127.0.0.1:9092")]
pub(crate) struct UpArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// A file with a secret that CI signs its releases with; give two while you change it.
    #[arg(long, value_name = "FILE")]
    ci_secret_file: Vec<PathBuf>,
    /// When told to end, take every node and the proxy down too.
    #[arg(long)]
    down: bool,
}

impl UpArgs {
    /// Runs until told to end by SIGTERM or SIGINT.
    pub(crate) fn run(self, session: &Session) -> CommandResult<ExitCode> {
        let settings = self.server.settings()?;
        let data = settings.data(&session.globals)?;
        refuse_strangers(&data)?;
        let _log = logging::init("warn");
        serving::block_on(self.serve(&data, &settings))
    }

    async fn serve(self, data: &Path, settings: &ServerSettings) -> miette::Result<()> {
        let mut signals = Signals::catch()?;
        let ci = ci_secrets(&self.ci_secret_file, settings)?;
        let mut server = LocalServer::open(data, settings, ci).await?;
        eprintln!("ionledger is up on {}", server.data().display());
        if let Some(address) = server.tcp() {
            eprintln!("the HTTP API also answers on http://{address}");
        }
        let failed = tokio::select! {
            report = server.failed() => Some(report),
            () = signals.ended() => None,
        };
        server.close().await;
        match (failed, self.down) {
            (Some(report), _) => return Err(report),
            (None, true) => server.take_down().await?,
            (None, false) => eprintln!("ionledger ended; nodes and the proxy go on, `ionledger up` takes them over"),
        }
        Ok(())
    }
}

/// Reads the secrets that CI signs with: those of the command line, else those of the settings.
///
/// # Errors
///
/// A file that holds none.
pub(crate) fn ci_secrets(files: &[PathBuf], settings: &ServerSettings) -> miette::Result<Secrets> {
    let files = if files.is_empty() { &settings.ci_secret_files } else { files };
    name_open_secrets(files.iter().chain(&settings.secret_files));
    let ci = Secrets::default().only_webhooks(settings.ci_only_webhooks);
    files.iter().try_fold(ci, |ci, file| ci.and_file(file)).map_err(|error| miette!("{error}"))
}
