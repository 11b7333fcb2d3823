//! `ionledger dismiss`: a failed stack has been seen.

use clap::Args;
use schemas::StackName;
use schemas::command::{self, Command};

use super::change::change;
use crate::args::{Asking, Where};
use crate::exit::Exit;
use crate::failure::CommandResult;
use crate::session::Session;

/// Show a version's failed stack no longer; history keeps why it failed.
///
/// It also goes from `status` and `doctor` when the version gets another stack.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ionledger dismiss api 1.2.3
  ionledger dismiss api 1.2.3 --reason 'fixed in 1.2.4'")]
pub(crate) struct Dismiss {
    #[command(flatten)]
    place: Where,
    /// The version whose stacks failed, or one of them, as `1.2.3~2`
    #[arg(value_name = "VERSION")]
    version: StackName,
    #[command(flatten)]
    asking: Asking,
}

impl Dismiss {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        let command = Command::Dismiss(command::Dismiss { deployment: self.place.deployment(), version: self.version });
        session.wait_for(async {
            change(session, &session.ledger()?, &self.asking, command).await?;
            Ok(Exit::Done)
        })
    }
}
