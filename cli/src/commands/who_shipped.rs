//! `ionledger who-shipped`: which version served then, and who put it there.

use api::question::WhoShippedQuestion;
use clap::Args;

use crate::args::{When, Where};
use crate::exit::Exit;
use crate::failure::CommandResult;
use crate::known::refuse_unknown;
use crate::render::shipped;
use crate::session::Session;

/// Show which versions served what share at a moment, who put them there, and how they proved who they are.
#[derive(Debug, Args)]
#[command(after_help = format!("Columns in a pipe: {}.\n\n\
Examples:
  ionledger who-shipped api
  ionledger who-shipped api --at 2026-11-01T12:00Z
  ionledger who-shipped api --at \"2 hours ago\" --json", shipped::COLUMNS))]
pub(crate) struct WhoShippedArgs {
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    when: When,
}

impl WhoShippedArgs {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        let moment = self.when.moment(&session.now())?;
        let question = WhoShippedQuestion { deployment: self.place.deployment(), moment };
        session.wait_for(async {
            let ledger = session.ledger()?;
            let answer = session.ask(&ledger, &question).await?;
            if answer.shipped.is_empty() {
                refuse_unknown(&ledger, Some(&self.place.service), &self.place.env).await?;
            }
            session.show(&answer)?;
            session.warn_of(&answer.unrecorded);
            Ok(Exit::Done)
        })
    }
}
