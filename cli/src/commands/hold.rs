//! `ionledger hold`: what pipelines release is prepared and waits.

use clap::Args;
use schemas::command::Command;

use super::change::change;
use crate::args::{Asking, Where};
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::sentence;
use crate::session::Session;

/// Put a deployment on hold, or lift its hold: pipelines' releases are prepared meanwhile and not rolled out.
///
/// A person's `rollback` and `abort` put it on hold, too, unless the policy says `hold_after = "never"`. People are never held:
/// `roll`, `new --roll`, `traffic`, `promote` and `rollback` go on. `roll` by a person lifts every hold, and a release with
/// `--fixes` the one that the rollback of that version set. When the last hold ends, the rollout that waits begins.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ionledger hold api --reason 'the database is being moved'
  ionledger hold api --reason 'nobody is on call' --for '12 hours'
  ionledger hold api --lift")]
pub(crate) struct Hold {
    #[command(flatten)]
    place: Where,
    /// After how long it ends by itself, as `2h` [default: once it is lifted]
    #[arg(long = "for", value_name = "DURATION", value_parser = sentence::length_ms, conflicts_with = "lift")]
    for_ms: Option<u64>,
    /// End every hold of the deployment
    #[arg(long)]
    lift: bool,
    #[command(flatten)]
    asking: Asking,
}

impl Hold {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let deployment = self.place.deployment();
        let command = match self.lift {
            true => Command::LiftHold { deployment },
            false => Command::Hold { deployment, for_ms: self.for_ms },
        };
        session.wait_for(async {
            change(session, &session.door()?, &self.asking, command).await?;
            Ok(Exit::Done)
        })
    }
}
