//! `ionledger hold`: what pipelines release is prepared and waits.

use clap::{Args, ValueEnum};
use schemas::command::{self, Command};
use schemas::hold::Cause;

use super::change::change;
use crate::args::{Asking, Where};
use crate::exit::Exit;
use crate::failure::CommandResult;
use crate::sentence;
use crate::session::Session;

/// Put a deployment on hold, or lift its hold: pipelines' releases are prepared meanwhile and not rolled out.
///
/// A person's `rollback` and `abort` put it on hold, too, unless the policy says `hold_after = "never"`. People are never held:
/// `roll`, `new --roll`, `traffic`, `promote` and `rollback` go on. `roll` by a person lifts every hold, and a release with
/// `--fixes` the one that the rollback of that version set. When the last hold ends, the rollout that waits begins.
///
/// A deployment has at most two holds: the one that a person asked for, and the one that a rollback or an abort set. A second
/// `hold` takes the place of the first one alone; the answer says of each hold that was there what became of it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ionledger hold api --reason 'the database is being moved'
  ionledger hold api --reason 'nobody is on call' --for '12 hours'
  ionledger hold api --lift
  ionledger hold api --lift=asked                    # and leave the one that a rollback set")]
pub(crate) struct Hold {
    #[command(flatten)]
    place: Where,
    /// After how long it ends by itself, as `2h` [default: once it is lifted]
    #[arg(long = "for", value_name = "DURATION", value_parser = sentence::length_ms, conflicts_with = "lift")]
    #[arg(allow_hyphen_values = true)]
    for_ms: Option<u64>,
    /// End every hold of the deployment, or one alone: with `=asked` what `hold` set, with `=rollback` what a rollback or an
    /// abort set
    #[arg(long, value_name = "WHICH", num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    lift: Option<Which>,
    #[command(flatten)]
    asking: Asking,
}

/// The holds to lift.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    All,
    Asked,
    Rollback,
}

impl Which {
    fn only(self) -> Option<Cause> {
        match self {
            Which::All => None,
            Which::Asked => Some(Cause::Asked),
            Which::Rollback => Some(Cause::Rollback),
        }
    }
}

impl Hold {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        let deployment = self.place.deployment();
        let command = match self.lift {
            Some(which) => Command::LiftHold(command::LiftHold { deployment, only: which.only() }),
            None => Command::Hold(command::Hold { deployment, for_ms: self.for_ms }),
        };
        session.wait_for(async {
            change(session, &session.ledger()?, &self.asking, command).await?;
            Ok(Exit::Done)
        })
    }
}
