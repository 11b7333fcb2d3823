//! `ionledger exit-codes`, which is there for `ionledger help exit-codes`.

use clap::Args;

use crate::exit::{Exit, TABLE};
use crate::failure::CommandResult;
use crate::session::Session;

/// Explain the exit codes.
#[derive(Debug, Args)]
#[command(after_help = TABLE)]
pub(crate) struct ExitCodes;

impl ExitCodes {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        session.out.data(&format!("{TABLE}\n"))?;
        Ok(Exit::Done)
    }
}
