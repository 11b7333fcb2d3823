//! What is said of a service or an environment of which nothing is known, where the answer alone would look like one.

use std::collections::BTreeSet;

use schemas::{EnvironmentName, ServiceName};

use crate::client::LedgerClient;
use crate::failure::{CommandResult, Failure};

/// Refuses a question about a service that was never declared, or about an environment in which it, or any service, never ran.
/// What cannot be looked up is not refused; nor is a service that runs nowhere yet, unless an environment is all that is named.
///
/// # Errors
///
/// What is unknown, and what is known instead.
pub(crate) async fn refuse_unknown(
    ledger: &LedgerClient,
    service: Option<&ServiceName>,
    env: &EnvironmentName,
) -> CommandResult<()> {
    let Ok(status) = ledger.status(service, None).await else { return Ok(()) };
    if let (Some(service), true) = (service, status.services.is_empty()) {
        return Err(ledger.unknown(service).await);
    }
    let deployments = status.services.iter().flat_map(|service| &service.deployments);
    let known: BTreeSet<&EnvironmentName> = deployments.map(|deployment| &deployment.environment).collect();
    match (known.contains(env), known.is_empty() && service.is_some()) {
        (true, _) | (_, true) => Ok(()),
        (false, false) => Err(nothing_in(service, env, &known)),
    }
}

/// Says that nothing runs in an environment, and where something does.
pub(crate) fn nothing_in(
    service: Option<&ServiceName>,
    env: &EnvironmentName,
    known: &BTreeSet<&EnvironmentName>,
) -> Failure {
    let what = service.map_or("nothing runs".to_owned(), |service| format!("{service} does not run"));
    let known: Vec<String> = known.iter().map(ToString::to_string).collect();
    Failure::error(match known.is_empty() {
        true => format!("{what} in any environment; `ionledger new SERVICE VERSION` makes a first stack"),
        false => format!("{what} in environment {env}; with --env name one in which it does: {}", known.join(", ")),
    })
}
