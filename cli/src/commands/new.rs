//! `ionledger new`: a stack of a release.

use clap::Args;
use schemas::command::{Command, PlanAsked};
use schemas::{DeploymentId, StackName, Version};

use super::after::made;
use super::change::{Next, change_then};
use super::wait::{Patience, Wait, requested_rollout_ended, stack_ready};
use crate::args::{Asking, Where};
use crate::door::Door;
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::sentence::{self, Steps};
use crate::session::Session;

/// Start a stack of a release: its nodes run and are checked, with no user traffic.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ionledger new api 1.2.3
  ionledger new api 1.2.3 --wait --timeout 90s
  ionledger new api 1.2.3 --roll \"24 hours\"        # begins once it is ready and no other rollout is under way
  ionledger new api 1.2.3 --roll 1h --wait           # 0 complete, 5 came back, or dropped for a newer one")]
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
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let deployment = self.place.deployment();
        let then_roll = self
            .roll
            .map(|duration_ms| PlanAsked { duration_ms: Some(duration_ms), steps: self.steps.map(|steps| steps.0) });
        let rolls = then_roll.is_some();
        let (version, again) = (self.version.clone(), self.again);
        let command = Command::New { deployment: deployment.clone(), version, then_roll, again };
        session.wait_for(async {
            let door = session.door()?;
            let wait = self.patience.begin()?;
            let (answer, next) = change_then(session, &door, &self.asking, command).await?;
            let Some(mut wait) = wait.filter(|_| !self.asking.dry_run) else {
                next.say(session);
                return Ok(Exit::Done);
            };
            let stack = made(&answer.events).unwrap_or_else(|| self.version.into());
            wait_for(session, &door, &deployment, &stack, rolls, next, &mut wait).await
        })
    }
}

/// Waits for a new stack, or for the end of its rollout.
pub(super) async fn wait_for(
    session: &Session,
    door: &Door,
    deployment: &DeploymentId,
    stack: &StackName,
    rolls: bool,
    next: Next,
    wait: &mut Wait,
) -> Outcome {
    if rolls {
        return requested_rollout_ended(session, door, deployment, stack, wait).await;
    }
    match stack_ready(session, door, deployment, stack, wait).await? {
        Exit::Done => {
            next.say(session);
            Ok(Exit::Done)
        }
        exit => Ok(exit),
    }
}
