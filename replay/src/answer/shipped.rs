//! Who shipped: which versions served what share, since when, and who put them there.

use std::collections::BTreeMap;

use ledger::State;
use ledger::service::Release;
use schemas::break_glass::Unrecorded;
use schemas::release::Source;
use schemas::run::Artifact;
use schemas::{CommitId, DeploymentId, StackId, StackName, Version, Weight};
use serde::{Deserialize, Serialize};

use super::history::Origin;
use super::{At, SCHEMA_VERSION};
use crate::shares::{Share, Shared, Shares};

/// Which versions served what share of a deployment's traffic at a moment, and who put them there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoShipped {
    /// The version of this form.
    pub schema_version: u16,
    /// The deployment.
    pub deployment: DeploymentId,
    /// The moment.
    pub at: At,
    /// Whether anything had ever happened to the deployment.
    pub known: bool,
    /// The versions that served, the largest share first; none before the first weights and after retiring.
    pub shipped: Vec<Shipped>,
    /// Whether the router had confirmed the weights that were set.
    pub applied: bool,
    /// Whether nobody knew then what it served: it was told without the ledger, and what it confirmed last is older.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub applied_unknown: bool,
    /// By which commit the router's confirmation was recorded last.
    pub applied_by: Option<Origin>,
    /// Who retired it, if it was.
    pub retired_by: Option<Origin>,
    /// The rollbacks that the ledger does not have yet, and that were asked for by then; where there are any, nobody knows what the
    /// router serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unrecorded: Vec<Unrecorded>,
}

impl WhoShipped {
    /// Names the rollbacks of the deployment that the ledger does not have yet: it does not know what the router serves.
    pub fn name_unrecorded(&mut self, unrecorded: Vec<Unrecorded>) {
        self.applied_unknown |= !unrecorded.is_empty();
        self.unrecorded = unrecorded;
    }
}

/// A version that served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shipped {
    /// The version; none if its stack is unknown here.
    pub version: Option<Version>,
    /// The name of its stack, as commands take it: `1.2.3`, or `1.2.3~2`.
    #[serde(default)]
    pub name: Option<StackName>,
    /// Its stack.
    pub stack: StackId,
    /// The weight that was asked for.
    pub weight_set: Weight,
    /// The weight that the router confirmed.
    pub weight_applied: Weight,
    /// Who gave it traffic, after it had none.
    pub since: Option<Origin>,
    /// Who gave it exactly this weight.
    pub weight_since: Option<Origin>,
    /// Its release.
    pub release: Option<ReleaseOrigin>,
}

/// Where a release comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseOrigin {
    /// What runs.
    pub artifact: Artifact,
    /// The commit it was built from and the pipeline's run, as far as they were given.
    pub source: Source,
    /// Who recorded it.
    pub recorded: Option<Origin>,
}

/// Returns the commits whose origins [`who_shipped`] shows.
pub fn commits_needed(state: &State, shares: &Shares, deployment: &DeploymentId) -> Vec<CommitId> {
    let shared = shares.of(deployment);
    let places = shared.into_iter().flat_map(|shared| {
        let stacks = shared.stacks.values().flat_map(|share| [share.since, share.weight_since]);
        stacks.chain(shared.applied).chain(shared.retired)
    });
    let releases = stacks(state, shared, deployment).filter_map(|stack| release(state, deployment, stack));
    places.map(|place| place.commit).chain(releases.map(|release| release.commit)).collect()
}

/// Returns who shipped what to a deployment. `origins` are those of [`commits_needed`]; one that is missing is left
/// out of the answer.
pub fn who_shipped(
    state: &State,
    shares: &Shares,
    deployment: &DeploymentId,
    at: At,
    origins: &BTreeMap<CommitId, Origin>,
) -> WhoShipped {
    let origin = |commit: CommitId| origins.get(&commit).cloned();
    let found = state.deployment(deployment);
    let shared = shares.of(deployment);
    let mut shipped: Vec<Shipped> = stacks(state, shared, deployment)
        .map(|stack| {
            let share: Option<&Share> = shared.and_then(|shared| shared.stacks.get(&stack));
            Shipped {
                version: found.and_then(|deployment| deployment.version_of(stack)).cloned(),
                name: found.and_then(|deployment| deployment.name_of(stack)),
                stack,
                weight_set: found.map_or(Weight::ZERO, |deployment| deployment.traffic.set_weight(stack)),
                weight_applied: found.map_or(Weight::ZERO, |deployment| deployment.traffic.applied_weight(stack)),
                since: share.and_then(|share| origin(share.since.commit)),
                weight_since: share.and_then(|share| origin(share.weight_since.commit)),
                release: release(state, deployment, stack).map(|release| ReleaseOrigin {
                    artifact: release.recorded.artifact.clone(),
                    source: release.recorded.source.clone(),
                    recorded: origin(release.commit),
                }),
            }
        })
        .collect();
    shipped.sort_by_key(|shipped| {
        (std::cmp::Reverse(shipped.weight_set), std::cmp::Reverse(shipped.weight_applied), shipped.stack)
    });
    WhoShipped {
        schema_version: SCHEMA_VERSION,
        deployment: deployment.clone(),
        at,
        known: found.is_some(),
        shipped,
        applied: found.is_some_and(|deployment| deployment.traffic.is_applied()),
        applied_unknown: found.is_some_and(|deployment| deployment.traffic.is_applied_unknown()),
        applied_by: shared.and_then(|shared| origin(shared.applied?.commit)),
        retired_by: shared.and_then(|shared| origin(shared.retired?.commit)),
        unrecorded: vec![],
    }
}

/// The stacks with weight set or applied, each once.
fn stacks(state: &State, shared: Option<&Shared>, deployment: &DeploymentId) -> impl Iterator<Item = StackId> {
    let set = shared.into_iter().flat_map(|shared| shared.stacks.keys().copied());
    let applied = state.deployment(deployment).and_then(|deployment| deployment.traffic.applied.as_ref());
    let applied = applied.into_iter().flat_map(|applied| applied.weights.stacks());
    let stacks: std::collections::BTreeSet<StackId> = set.chain(applied).collect();
    stacks.into_iter()
}

fn release<'a>(state: &'a State, deployment: &DeploymentId, stack: StackId) -> Option<&'a Release> {
    let version = state.deployment(deployment)?.version_of(stack)?;
    state.service(&deployment.service)?.releases.get(version)
}
