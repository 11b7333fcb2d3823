//! `ionledger replay`: all of production as it was.

use clap::Args;

use crate::args::When;
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::progress::Progress;
use crate::render::{production, status};
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
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let now = session.now();
        let moment = self.when.moment(&now)?;
        session.wait_for(async {
            let door = session.door()?;
            let progress = Progress::begin(session.out, "reading the ledger");
            let answer = match self.from_genesis {
                true => door.reader().await?.without_cache().production(moment).await?,
                false => door.production(moment).await?,
            };
            drop(progress);
            session.out.answer(&answer, |answer| production::eyes(answer, &now), production::lines)?;
            session.say_empty(production::lines(&answer).is_empty(), production::nothing(&answer, &now));
            Ok(Exit::Done)
        })
    }
}
