//! `ionledger worker`: one worker as a process of its own, beside others on a ledger in Kafka.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use api::ops::Ops;
use clap::builder::PossibleValuesParser;
use clap::{Args, builder::TypedValueParser as _};
use miette::miette;
use schemas::Role;
use tokio_util::sync::CancellationToken;
use workers::artifacts::Artifacts;

use crate::bootstrap::{self, Need, Opened, work};
use crate::failure::CommandResult;
use crate::logging;
use crate::not_allowed::refuse_strangers;
use crate::serving::{self, Signals};
use crate::session::Session;
use crate::settings::{ServerArgs, ServerSettings};

/// Run one worker as a process of its own, on a ledger in Kafka.
///
/// Run several of a kind: one acts, the others wait. When it falls silent one of them takes over within three seconds; when
/// it is told to end (SIGTERM) it hands over at once. Nodes are processes of this machine, so the workers, the API and the
/// proxy share its data folder.
#[derive(Debug, Args)]
#[command(after_help = "\
With --listen it answers /healthz, /readyz and /metrics there, without a token.

Examples:
  ionledger worker provisioner --ledger kafka://127.0.0.1:9092
  ionledger worker traffic-shifter --ledger kafka://127.0.0.1:9092 --listen 127.0.0.1:7082
  ionledger worker collector --ledger kafka://127.0.0.1:9092/team.commits")]
pub(crate) struct Worker {
    /// Which worker.
    #[arg(value_name = "ROLE", value_parser = role())]
    role: Role,
    #[command(flatten)]
    server: ServerArgs,
}

fn role() -> impl clap::builder::TypedValueParser<Value = Role> {
    let named = |name: String| Role::ALL.into_iter().find(|role| role.as_str() == name).expect("one of those");
    PossibleValuesParser::new(Role::ALL.map(Role::as_str)).map(named)
}

impl Worker {
    /// Works until told to end by SIGTERM or SIGINT.
    pub(crate) fn run(self, session: &Session) -> CommandResult<ExitCode> {
        let settings = self.server.settings()?;
        settings.need_kafka("a worker of its own", "the workers")?;
        let data = settings.data(&session.globals)?;
        refuse_strangers(&data)?;
        let _log = logging::init("info");
        serving::block_on(self.serve(&data, &settings))
    }

    async fn serve(self, data: &Path, settings: &ServerSettings) -> miette::Result<()> {
        let mut signals = Signals::catch()?;
        let closing = CancellationToken::new();
        let ops = match settings.listen {
            Some(address) => Some(Ops::listen(address).await.map_err(|error| miette!("{error}"))?),
            None => None,
        };
        let opened = tokio::select! {
            opened = Opened::open(data, settings, Need::Follow) => opened?,
            () = signals.ended() => return Ok(()),
        };
        opened.refuse_halted()?;
        if let Some(ops) = ops {
            eprintln!("/healthz, /readyz and /metrics are on http://{}", ops.address());
            tokio::spawn(ops.run(Arc::new(opened.ledger.clone()), closing.clone()));
        }
        let artifacts = Arc::new(Artifacts::open(&opened.data).map_err(|error| miette!("{error}"))?);
        let adapters = bootstrap::adapters(&opened, &artifacts)?;
        eprintln!("{} {} follows the ledger", self.role, opened.instance);
        let stop = CancellationToken::new();
        if self.role == Role::TrafficShifter {
            tokio::spawn(bootstrap::keep_break_glass(&adapters, stop.clone()));
        }
        let working = work(self.role, &opened, adapters, stop.clone());
        let mut working = std::pin::pin!(working);
        let ended = tokio::select! {
            ended = &mut working => ended,
            () = signals.ended() => {
                stop.cancel();
                working.await
            }
        };
        closing.cancel();
        ended
    }
}
