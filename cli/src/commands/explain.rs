//! `ionledger explain`: why a rollout went as it did, or what led to a commit.

use api::question::ExplainNamedQuestion;
use clap::Args;
use schemas::{EnvironmentName, ServiceName};

use crate::args::When;
use crate::exit::Exit;
use crate::failure::{CommandResult, Failure};
use crate::known::refuse_unknown;
use crate::session::Session;

/// Show in words and numbers why a service's rollout went on, held or came back; or what led to a commit.
///
/// Of a service it explains the rollout under way, or the last one: each step with the verdict it rests on, and the
/// evidence metric by metric. Of a commit it names the cause, the cause of that, up to a person or a pipeline. A commit is named by
/// its offset (the first column of `history`), its id, or the id's first digits. Of a version it explains the rollout if that is
/// the last, else what led to its stack.
#[derive(Debug, Args)]
#[command(after_help = format!("Columns in a pipe: {}.\n\n\
Examples:
  ionledger explain api
  ionledger explain api --at \"2 hours ago\"
  ionledger explain 52             # the first column of history
  ionledger explain 0193a6f00c41   # a commit, by the beginning of its id
  ionledger explain 1.2.4
  ionledger explain api 1.2.4      # if other services have such a version, too", crate::render::history::COLUMNS))]
pub(crate) struct Explain {
    /// The service, an offset, a commit, or a version
    #[arg(value_name = "SERVICE|OFFSET|COMMIT|VERSION")]
    what: String,
    /// A version of the service
    #[arg(value_name = "VERSION")]
    version: Option<String>,
    /// Environment of the service
    #[arg(long, value_name = "ENVIRONMENT", default_value_t = EnvironmentName::production())]
    env: EnvironmentName,
    #[command(flatten)]
    when: When,
}

impl Explain {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        let moment = self.when.moment(&session.now())?;
        let (service, what) = match self.version {
            Some(version) => (Some(self.what.parse::<ServiceName>().map_err(Failure::usage)?), version),
            None => (None, self.what),
        };
        let question = ExplainNamedQuestion { what, service, environment: Some(self.env), moment };
        session.wait_for(async {
            let ledger = session.ledger()?;
            let answer = session.ask(&ledger, &question).await?;
            if let (Some(deployment), None) = (&answer.deployment, &answer.rollout) {
                refuse_unknown(&ledger, Some(&deployment.service), &deployment.environment).await?;
            }
            session.show(&answer)?;
            Ok(Exit::Done)
        })
    }
}
