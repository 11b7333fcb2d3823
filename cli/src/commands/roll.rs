//! `ionledger roll`: from one version to another, little by little.

use api::forecast::PlannedRollout;
use api::question::ForecastQuestion;
use clap::Args;
use schemas::command::{self, Command, PlanAsked};
use schemas::{DeploymentId, EnvironmentName, ServiceName, StackName};

use super::change::change;
use super::forecast::points;
use super::wait::{Patience, rollout_ended};
use crate::args::Asking;
use crate::client::LedgerClient;
use crate::exit::Exit;
use crate::failure::{CommandResult, Failure};
use crate::render::written::faintly;
use crate::sentence::{self, Steps};
use crate::session::Session;

/// Move users' requests from one version to another, little by little, judged at every step.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ionledger roll api 1.2.3 1.2.4 24 hours
  ionledger roll api 1.2.3 1.2.4 30 min --steps 1,10,50,100
  ionledger roll api 1.2.3 1.2.4 10 min --wait    # 0 complete, 5 came back, 6 not to be judged")]
pub(crate) struct Roll {
    /// The service, as `api`
    #[arg(value_name = "SERVICE")]
    service: ServiceName,
    /// The version that serves, or its stack, as `1.2.3~2`
    #[arg(value_name = "FROM")]
    from: StackName,
    /// The canary, or its stack
    #[arg(value_name = "TO")]
    to: StackName,
    /// The time from the first step to the last, as `24 hours` or `1h 30m`; a day is 24 hours, and the policy's bake comes on
    /// top [default: the policy's]
    #[arg(value_name = "DURATION")]
    duration: Vec<String>,
    /// The canary's shares in percent, rising to 100 [default: the policy's]
    #[arg(long, value_name = "PERCENT,..", value_parser = sentence::steps)]
    steps: Option<Steps>,
    /// The environment it runs in
    #[arg(long, value_name = "ENVIRONMENT", default_value = "production")]
    env: EnvironmentName,
    /// End a rollout that is under way
    #[arg(long)]
    supersede: bool,
    /// Roll out a version that was rolled back from, or left for an older one; with --reason
    #[arg(long, requires = "reason")]
    again: bool,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    asking: Asking,
}

impl Roll {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        let duration_ms = sentence::duration_ms(&self.duration)
            .map_err(|why| Failure::usage(format!("roll {}: {why}", self.service)))?;
        let deployment = DeploymentId { environment: self.env, service: self.service };
        let planned =
            PlannedRollout { duration_ms, steps: self.steps.as_ref().map(points), ..PlannedRollout::default() };
        let question = ForecastQuestion { deployment: deployment.clone(), planned };
        let plan = PlanAsked { duration_ms, steps: self.steps.map(|steps| steps.0) };
        let (from, to) = (self.from, self.to.clone());
        let (supersede, again) = (self.supersede, self.again);
        let command = Command::Roll(command::Roll { deployment: deployment.clone(), from, to, plan, supersede, again });
        session.wait_for(async {
            let ledger = session.ledger()?;
            let answer = change(session, &ledger, &self.asking, command).await?;
            if !answer.events.is_empty() {
                warn_if_it_sees_little(session, &ledger, &question).await;
            }
            if self.asking.dry_run {
                return Ok(Exit::Done);
            }
            match self.patience.begin()? {
                Some(mut wait) => rollout_ended(session, &ledger, &deployment, &self.to, &mut wait).await,
                None => Ok(Exit::Done),
            }
        })
    }
}

/// Says so if the rollout that begins will see little. The rollout does not depend on it: what cannot be forecast is not.
async fn warn_if_it_sees_little(session: &Session, ledger: &LedgerClient, question: &ForecastQuestion) {
    let Ok(forecast) = ledger.client().ask(question).await else { return };
    if forecast.sees_too_little() {
        let (sentence, service) = (&forecast.sentence, &question.deployment.service);
        session.out.say(&faintly(&[format!("note: {sentence}; `ionledger forecast {service}` says more")]));
    }
}
