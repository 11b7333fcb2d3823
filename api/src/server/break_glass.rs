//! Break glass: a rollback that is carried out while the ledger gives no verdict, and what is shown of it until it has it.

use std::sync::Arc;

use ledger::execute;
use schemas::break_glass::Unrecorded;
use schemas::command::Command;
use workers::break_glass::{BreakGlass, Broken};

use super::Api;
use crate::problem::{Code, Problem};
use crate::wire::CommandAnswer;

/// What carries a command out without the ledger, if that may be done for it here.
pub(super) fn break_glass_for<'a>(
    api: &'a Api,
    command: &Command,
    no_break_glass: bool,
) -> Option<&'a Arc<BreakGlass>> {
    api.break_glass.as_ref().filter(|_| !no_break_glass && execute::may_break_glass(command))
}

/// Returns the answer to a rollback that was carried out without the ledger.
///
/// # Errors
///
/// [`Code::Unmoved`] if the router could not be told.
pub(super) fn answer_of(broken: Broken) -> Result<CommandAnswer, Problem> {
    let Broken { unrecorded, unmoved, mut notes } = broken;
    let Unrecorded { deployment, file, .. } = &unrecorded;
    let version = unrecorded.name();
    let kept = match file {
        Some(file) => format!("its intent is kept in {file}"),
        None => "its intent is not on this machine's disk".to_owned(),
    };
    if let Some(why) = unmoved {
        let again = match file {
            Some(_) => "it is tried again by itself, look at `ionledger status`",
            None => "it is tried again only while the process lives that was asked; send it again",
        };
        let message = format!(
            "no verdict from the ledger, and the traffic of {deployment} could not be sent back to {version} without it: \
             {why}; {kept}, {again}"
        );
        return Err(Problem::new(Code::Unmoved, message));
    }
    let done = format!(
        "rolled back without the ledger (break-glass): all traffic of {deployment} goes to {version}; {kept}, and the \
         rollback is recorded when the ledger answers again"
    );
    notes.insert(0, done);
    Ok(CommandAnswer { notes, applied: Some(true), unrecorded: Some(unrecorded), ..CommandAnswer::default() })
}
