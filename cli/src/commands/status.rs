//! `ionledger status`: what runs and what serves.

use clap::Args;
use replay::answer;
use schemas::{EnvironmentName, ServiceName};

use super::watch::watch;
use crate::client::LedgerClient;
use crate::exit::Exit;
use crate::failure::CommandResult;
use crate::known::nothing_in;
use crate::out::Form;
use crate::progress::Progress;
use crate::render::fleet::Fleet;
use crate::render::{Render as _, status};
use crate::session::Session;

/// Show what runs and what serves.
///
/// Without a service it is a line for each deployment: first those that need attention, which are never cut off,
/// then those that are moving, then the rest.
/// With one it is all that is known of it, and what its requests did in the last minute.
///
/// Where `ionledger up` does not run, or answers nothing for 3 s, its first line says so, and what is shown of weights and nodes is what was seen at the
/// proxy and the processes themselves.
#[derive(Debug, Args)]
#[command(after_help = format!("Columns in a pipe: {}.\n\n\
Examples:
  ionledger status
  ionledger status api -w
  ionledger status api --json", status::COLUMNS))]
pub(crate) struct Status {
    /// Only this service
    #[arg(value_name = "SERVICE")]
    service: Option<ServiceName>,
    /// Only this environment [default: all]
    #[arg(long, value_name = "ENVIRONMENT")]
    env: Option<EnvironmentName>,
    /// Go on showing it as it changes: in place on a terminal, where arrows scroll and q leaves; appended in a pipe
    #[arg(short, long)]
    watch: bool,
}

impl Status {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        session.wait_for(async {
            let ledger = session.ledger()?;
            if self.watch {
                let eyes = |status: &answer::StatusAnswer, columns| self.eyes(status, session, columns);
                return watch(session, &ledger, || self.look(&ledger), eyes).await;
            }
            let progress = Progress::begin(session.out, "reading the ledger");
            let status = self.look(&ledger).await?;
            drop(progress);
            match self.service {
                Some(_) => session.show(&status)?,
                None => session.show(&Fleet(&status))?,
            }
            session.warn_of(&status.unrecorded);
            if session.out.form != Form::Eyes {
                let unattended = status.unattended.iter().map(status::told_unattended);
                let silent = status.router_silent.iter().map(|silent| status::silent_router(silent, &session.now()));
                unattended.chain(silent).chain(status::warnings(&status)).for_each(|line| session.out.say(&line));
            }
            Ok(Exit::Done)
        })
    }

    /// One service as a tree, or the fleet with one line per deployment.
    fn eyes(&self, status: &answer::StatusAnswer, session: &Session, columns: usize) -> String {
        match self.service {
            Some(_) => status.eyes(&session.now(), columns),
            None => Fleet(status).eyes(&session.now(), columns),
        }
    }

    async fn look(&self, ledger: &LedgerClient) -> CommandResult<answer::StatusAnswer> {
        let status = ledger.status(self.service.as_ref(), self.env.as_ref()).await?;
        if let (Some(service), true) = (&self.service, status.services.is_empty()) {
            return Err(ledger.unknown(service).await);
        }
        if let Some(env) = &self.env
            && status.services.iter().all(|service| service.deployments.is_empty())
        {
            let all = ledger.status(self.service.as_ref(), None).await?;
            let deployments = all.services.iter().flat_map(|service| &service.deployments);
            let known = deployments.map(|deployment| &deployment.environment).collect();
            return Err(nothing_in(self.service.as_ref(), env, &known));
        }
        Ok(status)
    }
}
