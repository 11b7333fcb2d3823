//! Files that no release names: how much room they may take, and when they go.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use schemas::Hash;
use schemas::run::Artifact;
use schemas::text::grouped;
use workers::artifacts::Artifacts;

use super::Api;
use crate::problem::{Code, Problem};
use crate::telemetry;

/// How long the log may take to say where it ends.
const ASK_MAX: Duration = Duration::from_secs(2);

/// Returns what the releases that this process knows name.
pub(super) fn named(api: &Api) -> BTreeSet<Hash> {
    let view = api.ledger.view();
    let releases = view.state().services.values().flat_map(|service| service.releases.values());
    releases.map(|release| release.recorded.artifact.sha256).collect()
}

/// Lets a new file in if a release names it, or if there is room for it beside the files that none names.
pub(super) fn admit(store: &Artifacts, named: &BTreeSet<Hash>, new: &Artifact, max: u64) -> Result<(), String> {
    if named.contains(&new.sha256) {
        return Ok(());
    }
    let unnamed = store.unnamed(named).map_err(|error| error.to_string())?;
    let used: u64 = unnamed.iter().map(|kept| kept.size_bytes).sum();
    if used.saturating_add(new.size_bytes) <= max {
        return Ok(());
    }
    Err(format!(
        "files that no release names take {} bytes, {} more would be over {} (unnamed_artifacts_bytes_max); name them in \
         releases, or wait until they are removed a day after they were sent",
        grouped(used),
        grouped(new.size_bytes),
        grouped(max)
    ))
}

/// Refuses a file for which there is no room before it is sent, if its sender says what it is.
pub(super) async fn check_announced(api: &Api, announced: Option<Hash>, size_bytes: u64) -> Result<(), Problem> {
    let Some(sha256) = announced else { return Ok(()) };
    let (store, named, max) = (Arc::clone(&api.artifacts), named(api), api.limits.unnamed_bytes_max);
    let admitted = tokio::task::spawn_blocking(move || {
        let new = Artifact { sha256, name: String::new(), size_bytes };
        if store.path(sha256).exists() { Ok(()) } else { admit(&store, &named, &new, max) }
    });
    let admitted = admitted.await.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    admitted.map_err(|why| Problem::new(Code::Quota, why))
}

/// Removes what no release names, from time to time, until the server closes.
pub(super) async fn keep_removing(api: &Api) {
    let began = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(api.limits.unnamed_every) => {}
            () = api.closing.cancelled() => return,
        }
        if knows_all(api).await {
            remove(api, began.elapsed()).await;
        }
    }
}

/// Says whether every release that the log holds is known here, so that what none names is named by none.
async fn knows_all(api: &Api) -> bool {
    let end = tokio::time::timeout(ASK_MAX, api.ledger.log().latest()).await;
    let Ok(Ok(end)) = end else { return false };
    let view = api.ledger.view();
    api.ledger.halted().is_none() && view.next() >= end && view.read_only().is_empty()
}

async fn remove(api: &Api, elapsed: Duration) {
    let (store, named) = (Arc::clone(&api.artifacts), named(api));
    let removed = tokio::task::spawn_blocking(move || store.remove_unnamed(&named, SystemTime::now(), elapsed)).await;
    match removed {
        Ok(Ok(removed)) => {
            for kept in removed {
                telemetry::ARTIFACTS_REMOVED.inc();
                tracing::info!(sha256 = %kept.sha256, bytes = kept.size_bytes, "a file that no release named was removed");
            }
        }
        Ok(Err(error)) => tracing::warn!(%error, "files that no release names could not be removed"),
        Err(error) => tracing::error!(%error, "removing files that no release names met a bug"),
    }
}
