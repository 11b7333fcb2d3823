//! `ionledger new`: a stack of a release.

use api::wire::CommandAnswer;
use clap::Args;
use replay::answer::VersionStatus;
use schemas::command::{self, Command, PlanAsked};
use schemas::{DeploymentId, StackName, Version};

use super::after::{made, to_roll};
use super::change::{Next, change_then};
use super::wait::{Patience, Wait, requested_rollout_ended, stack_ready};
use crate::args::{Asking, Where};
use crate::client::LedgerClient;
use crate::exit::Exit;
use crate::failure::{CommandResult, Failure};
use crate::sentence::{self, Steps};
use crate::session::Session;

/// Start a stack of a release: its nodes run and are checked, with no user traffic.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ionledger new api 1.2.3
  ionledger new api 1.2.3 --wait --timeout 90s
  ionledger new api 1.2.3 --roll \"24 hours\"        # begins once it is ready and no other rollout is under way
  ionledger new api 1.2.3 --roll 1h --wait           # 0 complete, 5 came back, or dropped before it began")]
pub(crate) struct New {
    #[command(flatten)]
    place: Where,
    /// The release's version
    #[arg(value_name = "VERSION")]
    version: Version,
    /// Roll it out over this time once it is ready; a stack that is there already is rolled out as it is
    #[arg(long, value_name = "DURATION", value_parser = sentence::length_ms, allow_hyphen_values = true)]
    roll: Option<u64>,
    /// The canary's shares with --roll, rising [default: the policy's]
    #[arg(long, value_name = "PERCENT,..", value_parser = sentence::steps, requires = "roll")]
    steps: Option<Steps>,
    /// With --roll, roll out a version that was rolled back from, or left for an older one; with --reason
    #[arg(long, requires_all = ["roll", "reason"])]
    again: bool,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    asking: Asking,
}

impl New {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        let deployment = self.place.deployment();
        let then_roll = self
            .roll
            .map(|duration_ms| PlanAsked { duration_ms: Some(duration_ms), steps: self.steps.map(|steps| steps.0) });
        let rolls = then_roll.is_some();
        let (version, again) = (self.version.clone(), self.again);
        let command = Command::New(command::New { deployment: deployment.clone(), version, then_roll, again });
        session.wait_for(async {
            let ledger = session.ledger()?;
            let (answer, next) = change_then(session, &ledger, &self.asking, command).await?;
            let ending = Ending { rolls, patience: &self.patience, dry_run: self.asking.dry_run };
            ending.wait(session, &ledger, &deployment, &answer, next).await
        })
    }
}

/// How a command that asks for a stack ends.
pub(super) struct Ending<'a> {
    /// Whether the stack is rolled out.
    pub(super) rolls: bool,
    /// Whether its end is waited for.
    pub(super) patience: &'a Patience,
    /// Whether nothing was asked for.
    pub(super) dry_run: bool,
}

impl Ending<'_> {
    /// Waits, if that is wanted, for the stack that was made or is there already, or for the end of its rollout.
    pub(super) async fn wait(
        &self,
        session: &Session,
        ledger: &LedgerClient,
        deployment: &DeploymentId,
        answer: &CommandAnswer,
        next: Next,
    ) -> CommandResult {
        let Some(mut wait) = self.patience.begin()?.filter(|_| !self.dry_run) else {
            next.say(session);
            return Ok(Exit::Done);
        };
        let stack = stack_of(ledger, deployment, answer).await?;
        wait_for(session, ledger, deployment, &stack, self.rolls, next, &mut wait).await
    }
}

/// Returns the name of the stack that a command made or found.
async fn stack_of(
    ledger: &LedgerClient,
    deployment: &DeploymentId,
    answer: &CommandAnswer,
) -> CommandResult<StackName> {
    if let Some(made) = made(&answer.events) {
        return Ok(made);
    }
    let status = ledger.deployment(deployment).await?;
    let stacks = status.iter().flat_map(|status| &status.versions);
    let stack = answer.stack.or_else(|| to_roll(&answer.events));
    let found = stacks.filter(|found| stack == Some(found.stack)).map(VersionStatus::name).next();
    found.ok_or_else(|| {
        let look = format!("look at `ionledger status {}`", deployment.arguments());
        Failure::error(format!("cannot wait: the stack of {deployment} that was asked for before is not found; {look}"))
    })
}

async fn wait_for(
    session: &Session,
    ledger: &LedgerClient,
    deployment: &DeploymentId,
    stack: &StackName,
    rolls: bool,
    next: Next,
    wait: &mut Wait,
) -> CommandResult {
    if rolls {
        return requested_rollout_ended(session, ledger, deployment, stack, wait).await;
    }
    match stack_ready(session, ledger, deployment, stack, wait).await? {
        Exit::Done => {
            next.say(session);
            Ok(Exit::Done)
        }
        exit => Ok(exit),
    }
}
