//! `ionledger traffic`: who gets what share of users' requests.

use clap::Args;
use schemas::ServiceName;
use schemas::command::{self, Command};
use schemas::{DeploymentId, EnvironmentName};

use super::change::change;
use crate::args::Asking;
use crate::exit::Exit;
use crate::failure::{CommandResult, Failure};
use crate::sentence;
use crate::session::Session;

/// Share users' requests out over versions; a version that is not named gets none.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ionledger traffic api 1.2.2 90 1.2.3 10
  ionledger traffic api 1.2.3 100
  ionledger traffic api 1.2.2 99.5 1.2.3 0.5 --env test --dry-run")]
pub(crate) struct Traffic {
    /// The service, as `api`
    #[arg(value_name = "SERVICE")]
    service: ServiceName,
    /// Versions and their percentages, which sum to 100
    #[arg(value_name = "VERSION PERCENT", required = true, num_args = 1..)]
    shares: Vec<String>,
    /// The environment it runs in
    #[arg(long, value_name = "ENVIRONMENT", default_value = "production")]
    env: EnvironmentName,
    /// End a rollout that is under way
    #[arg(long)]
    supersede: bool,
    /// Give traffic to a version that was rolled back from, or left for an older one; with --reason
    #[arg(long, requires = "reason")]
    again: bool,
    #[command(flatten)]
    asking: Asking,
}

impl Traffic {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        let shares =
            sentence::shares(&self.shares).map_err(|why| Failure::usage(format!("traffic {}: {why}", self.service)))?;
        let deployment = DeploymentId { environment: self.env, service: self.service };
        let command =
            Command::Traffic(command::Traffic { deployment, shares, supersede: self.supersede, again: self.again });
        session.wait_for(async {
            change(session, &session.ledger()?, &self.asking, command).await?;
            Ok(Exit::Done)
        })
    }
}
