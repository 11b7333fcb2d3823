//! Break glass: a rollback that is carried out while the ledger gives no verdict, and what is shown of it until it has it.

use std::sync::Arc;

use ledger::execute;
use schemas::command::Command;
use schemas::glass::Unrecorded;
use schemas::{DeploymentId, EnvironmentName, ServiceName};
use workers::glass::{Broken, Glass};

use super::Api;
use crate::problem::{Code, Problem};
use crate::wire::Answer;

/// What carries a command out without the ledger, if that may be done for it here.
pub(super) fn glass_for<'a>(api: &'a Api, command: &Command, no_break_glass: bool) -> Option<&'a Arc<Glass>> {
    api.glass.as_ref().filter(|_| !no_break_glass && execute::breaks_glass(command))
}

/// Returns the answer to a rollback that was carried out without the ledger.
///
/// # Errors
///
/// [`Code::Unmoved`] if the router could not be told.
pub(super) fn answer_of(broken: Broken) -> Result<Answer, Problem> {
    let Broken { unrecorded, unmoved, mut notes } = broken;
    let Unrecorded { deployment, file, .. } = &unrecorded;
    let version = unrecorded.name();
    let kept = match file {
        Some(file) => format!("its intent is kept in {file}"),
        None => "its intent is not on this machine's disk".to_owned(),
    };
    if let Some(why) = unmoved {
        let message = format!(
            "no verdict from the ledger, and the traffic of {deployment} could not be sent back to {version} without it: \
             {why}; {kept}, it is tried again by itself, look at `ionledger status`"
        );
        return Err(Problem::new(Code::Unmoved, message));
    }
    let done = format!(
        "GLASS BROKEN: all traffic of {deployment} goes to {version}, and the ledger does not know it yet; {kept}, \
         it is recorded by itself when the ledger answers again"
    );
    notes.insert(0, done);
    Ok(Answer {
        commit: None,
        offset: None,
        events: vec![],
        notes,
        repeated: false,
        applied: Some(true),
        unrecorded: Some(unrecorded),
    })
}

/// Returns what the ledger does not have yet of a service, in an environment, or of all.
pub(super) fn unrecorded(
    api: &Api,
    service: Option<&ServiceName>,
    environment: Option<&EnvironmentName>,
) -> Vec<Unrecorded> {
    let all = api.glass.iter().flat_map(|glass| glass.unrecorded());
    all.filter(|one| is_about(&one.deployment, service, environment)).collect()
}

fn is_about(id: &DeploymentId, service: Option<&ServiceName>, environment: Option<&EnvironmentName>) -> bool {
    service.is_none_or(|wanted| *wanted == id.service) && environment.is_none_or(|wanted| *wanted == id.environment)
}
