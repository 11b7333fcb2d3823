//! `ionledger explain`: why a rollout went as it did, or what led to a commit.

use clap::Args;
use schemas::{CommitId, DeploymentId, EnvironmentName, ServiceName};

use super::status::unknown;
use crate::args::When;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;
use crate::render::explain;
use crate::session::Session;

/// Show in words and numbers why a service's rollout went on, held or came back; or what led to a commit.
///
/// Of a service it explains the rollout under way, or the last one: each step with the verdict it rests on, and the
/// evidence metric by metric. Of a commit it names the cause, the cause of that, up to a person or a pipeline.
#[derive(Debug, Args)]
#[command(after_help = format!("Columns in a pipe: {}.\n\n\
Examples:
  ionledger explain api
  ionledger explain api --at \"2 hours ago\"
  ionledger explain 0193a6f0-0c41-7b66-b1d2-9e4a6c8f7d03    # a commit, as history shows it with --json", crate::render::history::COLUMNS))]
pub(crate) struct Explain {
    /// The service, or a commit's id
    #[arg(value_name = "SERVICE|COMMIT")]
    what: String,
    /// Environment of the service
    #[arg(long, value_name = "ENVIRONMENT", default_value_t = EnvironmentName::production())]
    env: EnvironmentName,
    #[command(flatten)]
    when: When,
}

impl Explain {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let now = session.now();
        let moment = self.when.moment(&now)?;
        let commit = self.what.parse::<CommitId>().ok();
        session.wait_for(async {
            let door = session.door()?;
            let progress = Progress::begin(session.out, "reading the ledger");
            let answer = match commit {
                Some(commit) => door.explain_commit(commit).await?,
                None => {
                    let service: ServiceName =
                        self.what.parse().map_err(|error| Failure::usage(format!("{error}, or a commit's id")))?;
                    let environment = self.env.clone();
                    let deployment = DeploymentId { environment, service };
                    let answer = door.explain(&deployment, moment).await?;
                    if answer.rollout.is_none()
                        && door.status(Some(&deployment.service), None).await?.services.is_empty()
                    {
                        return Err(unknown(&deployment.service));
                    }
                    answer
                }
            };
            drop(progress);
            session.out.answer(&answer, |answer| explain::eyes(answer, &now), explain::lines)?;
            Ok(Exit::Done)
        })
    }
}
