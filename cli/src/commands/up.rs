//! `ionledger up`: everything in one process, on one data folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use api::ci::Secrets;
use clap::Args;
use miette::{IntoDiagnostic, miette};
use tokio::signal::unix::{SignalKind, signal};

use crate::house::{House, Settings};

/// Run the ledger, its workers and the API on a data folder.
///
/// Users' traffic is served by a proxy that `up` starts as a process of its own; it and the nodes go on when `up` ends and
/// are taken over by the next one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ionledger up
  ionledger up --data ./ledger --listen 127.0.0.1:7070
  ionledger up --ci-secret-file ./ci.secret")]
pub(crate) struct UpArgs {
    /// Also answer the HTTP API on this address; callers need a token (`ionledger token create`).
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// A file with a secret that CI signs its releases with; give two while you change it.
    #[arg(long, value_name = "FILE")]
    ci_secret_file: Vec<PathBuf>,
    /// When told to end, take every node and the proxy down too.
    #[arg(long)]
    down: bool,
}

impl UpArgs {
    /// Runs until told to end by SIGTERM or SIGINT.
    pub(crate) fn run(self, data: &Path) -> miette::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().into_diagnostic()?;
        runtime.block_on(self.serve(data))
    }

    async fn serve(self, data: &Path) -> miette::Result<ExitCode> {
        let mut terminate = signal(SignalKind::terminate()).into_diagnostic()?;
        let mut interrupt = signal(SignalKind::interrupt()).into_diagnostic()?;
        let mut ci = Secrets::default();
        for file in &self.ci_secret_file {
            ci = ci.and_file(file).map_err(|error| miette!("{error}"))?;
        }
        let mut house = House::open(data, Settings { listen: self.listen, ci }).await?;
        eprintln!("ionledger is up on {}", house.data().display());
        if let Some(address) = house.tcp() {
            eprintln!("the HTTP API also answers on http://{address}");
        }
        let failed = tokio::select! {
            report = house.failed() => Some(report),
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
        };
        house.close().await;
        match (failed, self.down) {
            (Some(report), _) => return Err(report),
            (None, true) => house.take_down().await?,
            (None, false) => eprintln!("ionledger ended; nodes and the proxy go on, `ionledger up` takes them over"),
        }
        Ok(ExitCode::SUCCESS)
    }
}
