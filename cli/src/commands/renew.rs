//! `ionledger renew`: the same release in a new stack.

use clap::Args;
use schemas::Version;
use schemas::command::{self, Command, PlanAsked};

use super::change::change_then;
use super::new::Ending;
use super::wait::Patience;
use crate::args::{Asking, Where};
use crate::failure::{CommandResult, Failure};
use crate::sentence::{self, Steps};
use crate::session::Session;

/// Start another stack of a release: with the number of nodes that is declared now, secrets read again, and a fresh start.
///
/// The new stack of 1.2.3 is called 1.2.3~2, the one after it 1.2.3~3; every command that takes a version takes these names. It is
/// rolled out like any release, and rolling it back returns to the stack before it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ionledger renew api --roll                       # what users are on, over the policy's time
  ionledger renew api 1.2.3 --roll \"10 min\" --wait --reason 'a new password'
  ionledger renew api --wait                       # only start it; then roll api 1.2.3 1.2.3~2")]
pub(crate) struct Renew {
    #[command(flatten)]
    place: Where,
    /// The release's version [default: the one that users are on]
    #[arg(value_name = "VERSION")]
    version: Option<Version>,
    /// Roll it out once it is ready, over this time [default: the policy's]
    #[arg(long, value_name = "DURATION", num_args = 0..=1)]
    roll: Option<Option<String>>,
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

impl Renew {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        let deployment = self.place.deployment();
        let then_roll = match self.roll {
            Some(length) => {
                let duration_ms = length.as_deref().map(sentence::length_ms).transpose();
                let duration_ms = duration_ms.map_err(|why| Failure::usage(format!("renew --roll: {why}")))?;
                Some(PlanAsked { duration_ms, steps: self.steps.map(|steps| steps.0) })
            }
            None => None,
        };
        let rolls = then_roll.is_some();
        let (version, again) = (self.version, self.again);
        let command = Command::Renew(command::Renew { deployment: deployment.clone(), version, then_roll, again });
        session.wait_for(async {
            let ledger = session.ledger()?;
            let (answer, next) = change_then(session, &ledger, &self.asking, command).await?;
            let ending = Ending { rolls, patience: &self.patience, dry_run: self.asking.dry_run };
            ending.wait(session, &ledger, &deployment, &answer, next).await
        })
    }
}
