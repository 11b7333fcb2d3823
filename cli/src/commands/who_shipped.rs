//! `ionledger who-shipped`: which version served then, and who put it there.

use clap::Args;

use crate::args::{When, Where};
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::progress::Progress;
use crate::render::shipped;
use crate::session::Session;

/// Show which versions served what share at a moment, who put them there, and how they proved who they are.
#[derive(Debug, Args)]
#[command(after_help = format!("Columns in a pipe: {}.\n\n\
Examples:
  ionledger who-shipped api
  ionledger who-shipped api --at 2026-11-01T12:00Z
  ionledger who-shipped api --at \"2 hours ago\" --json", shipped::COLUMNS))]
pub(crate) struct WhoShipped {
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    when: When,
}

impl WhoShipped {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let now = session.now();
        let moment = self.when.moment(&now)?;
        session.wait_for(async {
            let door = session.door()?;
            let progress = Progress::begin(session.out, "reading the ledger");
            let answer = door.who_shipped(&self.place.deployment(), moment).await?;
            if !answer.known && door.status(Some(&self.place.service), None).await?.services.is_empty() {
                return Err(door.unknown(&self.place.service).await);
            }
            drop(progress);
            session.out.answer(&answer, |answer| shipped::eyes(answer, &now), shipped::lines)?;
            session.say_empty(answer.shipped.is_empty(), shipped::nothing(&answer, &now));
            Ok(Exit::Done)
        })
    }
}
