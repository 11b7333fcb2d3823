//! A worker on an opened ledger: alone where only one process may be, else in turns with others.

use std::sync::Arc;

use schemas::Role;
use tokio_util::sync::CancellationToken;
use workers::runtime::{self, Adapters};

use super::{Opened, report};

/// Works until `stop`.
///
/// # Errors
///
/// Why the worker must not or cannot go on.
pub(crate) async fn work(
    role: Role,
    opened: &Opened,
    adapters: Adapters,
    stop: CancellationToken,
) -> miette::Result<()> {
    let (ledger, instance) = (opened.ledger.clone(), opened.instance.clone());
    let worked = match &opened.heartbeats {
        None => runtime::run(role, instance, ledger, adapters, stop).await,
        Some(heartbeats) => {
            runtime::run_with_takeover(role, instance, ledger, adapters, Arc::clone(heartbeats), stop).await
        }
    };
    worked.map_err(report)
}
