//! Production: all of it as it was at a moment, for `replay --at`.

use std::collections::BTreeMap;

use ledger::State;
use schemas::break_glass::Unrecorded;
use schemas::policy::Policy;
use schemas::release::Source;
use schemas::run::{Artifact, Capacity, RunSpec};
use schemas::{CommitId, LedgerId, Role, ServiceName, Timestamp, Version};
use serde::{Deserialize, Serialize};

use super::status::{ServiceStatus, status};
use super::{At, SCHEMA_VERSION};

/// All of production at a moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Production {
    /// The version of this form.
    pub schema_version: u16,
    /// The moment.
    pub at: At,
    /// The ledger; none before its first record.
    pub ledger: Option<LedgerId>,
    /// Every service by name: its declaration and releases, and its deployments with stacks, weights and rollout.
    pub services: Vec<ServiceAt>,
    /// Who acts for each role that anybody ever took.
    pub leases: BTreeMap<Role, LeaseAt>,
    /// The rollbacks that the ledger does not have yet, and that were asked for by then; where there are any, nobody knows what the
    /// router serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unrecorded: Vec<Unrecorded>,
}

impl Production {
    /// Names the rollbacks that the ledger does not have yet: it does not know what the router serves of their deployments.
    pub fn name_unrecorded(&mut self, unrecorded: Vec<Unrecorded>) {
        for deployment in self.services.iter_mut().flat_map(|service| &mut service.status.deployments) {
            deployment.applied_unknown |= unrecorded.iter().any(|one| one.deployment == deployment.deployment);
        }
        self.unrecorded = unrecorded;
    }
}

/// A service at a moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceAt {
    /// What runs and what serves.
    #[serde(flatten)]
    pub status: ServiceStatus,
    /// Its policy then; none if it was not declared.
    pub policy: Option<Policy>,
    /// How its next releases are run.
    pub run: Option<RunSpec>,
    /// How many nodes its next stacks have.
    pub capacity: Option<Capacity>,
    /// Its releases, the oldest first.
    pub recorded: Vec<ReleaseAt>,
}

/// A release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseAt {
    /// Its version.
    pub version: Version,
    /// What runs.
    pub artifact: Artifact,
    /// Where it comes from.
    pub source: Source,
    /// When it was recorded.
    pub at: Timestamp,
    /// By which commit.
    pub commit: CommitId,
}

/// A role's lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseAt {
    /// Who acts, if anybody does.
    pub holder: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
}

/// Returns all of production.
pub fn production(state: &State, at: At) -> Production {
    let services = status(state, at).services.into_iter().map(|status| service_at(state, status)).collect();
    let leases = state.leases.iter().map(|(role, lease)| {
        let lease = LeaseAt { holder: lease.holder.clone(), since: lease.since };
        (*role, lease)
    });
    let leases = leases.collect();
    Production { schema_version: SCHEMA_VERSION, at, ledger: state.ledger, services, leases, unrecorded: vec![] }
}

fn service_at(state: &State, status: ServiceStatus) -> ServiceAt {
    let definition = state.service(&status.service).and_then(|service| service.definition.as_ref());
    ServiceAt {
        policy: definition.map(|definition| definition.policy.clone()),
        run: definition.map(|definition| definition.run.clone()),
        capacity: definition.map(|definition| definition.capacity),
        recorded: releases(state, &status.service),
        status,
    }
}

fn releases(state: &State, service: &ServiceName) -> Vec<ReleaseAt> {
    let releases = state.service(service).into_iter().flat_map(|service| service.releases.values());
    let mut releases: Vec<ReleaseAt> = releases
        .map(|release| ReleaseAt {
            version: release.recorded.version.clone(),
            artifact: release.recorded.artifact.clone(),
            source: release.recorded.source.clone(),
            at: release.at,
            commit: release.commit,
        })
        .collect();
    releases.sort_by_key(|release| (release.at, release.commit));
    releases
}
