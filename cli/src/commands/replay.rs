//! `ionledger replay`: all of production as it was.

use api::question::ProductionQuestion;
use clap::Args;

use crate::args::When;
use crate::exit::Exit;
use crate::failure::CommandResult;
use crate::progress::Progress;
use crate::render::status;
use crate::session::Session;

/// Show all of production as it was at a moment.
#[derive(Debug, Args)]
#[command(after_help = format!("Columns in a pipe: {}.\n\n\
Examples:
  ionledger replay --at 2026-11-01T12:00Z
  ionledger replay --offset 1840 --json
  ionledger replay --at \"1 day ago\" --from-genesis", status::COLUMNS))]
pub(crate) struct Replay {
    #[command(flatten)]
    when: When,
    /// Fold the log from its first record rather than read the cache; the answer is the same
    #[arg(long)]
    from_genesis: bool,
}

impl Replay {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        let question = ProductionQuestion { moment: self.when.moment(&session.now())? };
        session.wait_for(async {
            let ledger = session.ledger()?;
            let progress = Progress::begin(session.out, "reading the ledger");
            let answer = match self.from_genesis {
                true => ledger.ask_log(&question).await?,
                false => ledger.ask(&question).await?,
            };
            drop(progress);
            session.show(&answer)?;
            session.warn_of(&answer.unrecorded);
            Ok(Exit::Done)
        })
    }
}
