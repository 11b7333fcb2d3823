//! `ionledger verify`: the ledger computed again.

use clap::Args;

use crate::exit::Exit;
use crate::failure::Outcome;
use crate::progress::Progress;
use crate::render::verified;
use crate::session::Session;

/// Compute every hash and the root again from the first record, and compare the cache with them.
///
/// It ends with 0 if all of it holds, else with 1. Write the root down elsewhere: a ledger with the same root has the
/// same history.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ionledger verify
  ionledger verify --json | jq -r .root")]
pub(crate) struct Verify;

impl Verify {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        session.wait_for(async {
            let door = session.door()?;
            let progress = Progress::begin(session.out, "computing every hash again");
            let answer = door.verify().await?;
            drop(progress);
            session.out.answer(&answer, verified::eyes, verified::lines)?;
            if !answer.ok {
                session.out.say("the ledger does not hold; keep the folder as it is and restore it from a copy");
            }
            Ok(if answer.ok { Exit::Done } else { Exit::Error })
        })
    }
}
