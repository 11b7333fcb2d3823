//! `ionledger verify`: the ledger computed again.

use clap::Args;

use crate::exit::Exit;
use crate::failure::CommandResult;
use crate::progress::Progress;
use crate::session::Session;

/// Compute every hash and the root again from the first record, and compare the cache with them.
///
/// It ends with 0 if everything is intact, else with 1. Write the root down elsewhere: a ledger with the same root has the
/// same history.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ionledger verify
  ionledger verify --json | jq -r .root")]
pub(crate) struct Verify;

impl Verify {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        session.wait_for(async {
            let ledger = session.ledger()?;
            let progress = Progress::begin(session.out, "computing every hash again");
            let answer = ledger.verify().await?;
            drop(progress);
            session.show(&answer)?;
            if !answer.ok {
                session.out.say(match answer.bad {
                    Some(_) => "the log is damaged; keep the folder as it is and restore it from a copy",
                    None => "the cache differs from the log; if a copy of the log has the same root, stop ionledger and remove the folder `replay` of the data folder",
                });
            }
            Ok(if answer.ok { Exit::Done } else { Exit::Error })
        })
    }
}
