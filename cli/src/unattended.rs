//! What is really there where nobody runs who follows the ledger: it is looked at the proxy and the nodes themselves, and
//! nothing is changed.

use std::path::Path;

use replay::answer::{DeploymentStatus, NodePhase, SeenStatus, StackPhase, StatusAnswer, Unattended, VersionStatus};
use schemas::Weight;
use workers::nodes::process;
use workers::traffic::{ApplyError, Entry, ProxyControl, Status as RouterStatus};

/// Writes into a status that nobody follows its ledger, and what of it is true nevertheless. `silent` says what answers nothing, if
/// something should.
pub(crate) async fn look(data: &Path, silent: Option<String>, status: &mut StatusAnswer) {
    let proxy = Proxy::look(data).await;
    let (mut running, mut known) = (0, 0);
    let deployments = status.services.iter_mut().flat_map(|service| &mut service.deployments);
    for deployment in deployments {
        proxy.look_at(deployment).await;
        for version in &mut deployment.versions {
            look_at_nodes(data, version);
            known += version.nodes.len();
            running += version.nodes.iter().filter(|node| node.runs == Some(true)).count();
        }
    }
    name_moved(status);
    let [nodes_running, nodes] = [running, known].map(|count| u64::try_from(count).unwrap_or(u64::MAX));
    status.unattended = Some(Unattended { silent, proxy: proxy.trouble, nodes_running, nodes });
}

/// Says of the rollbacks that the ledger does not have whether users are where they go to, by what the proxy serves.
fn name_moved(status: &mut StatusAnswer) {
    let unrecorded = &mut status.unrecorded;
    for deployment in status.services.iter_mut().flat_map(|service| &mut service.deployments) {
        let Some(seen) = deployment.seen.as_ref().filter(|seen| seen.trouble.is_none()) else { continue };
        let of_stack = |stack| deployment.versions.iter().find(|version| version.stack == stack);
        let all_on = seen.weights.iter().find(|(_, weight)| **weight == Weight::FULL);
        let name = all_on.and_then(|(stack, _)| of_stack(*stack)).map(VersionStatus::name);
        for one in unrecorded.iter_mut().filter(|one| one.deployment == deployment.deployment) {
            one.moved = Some(name == Some(one.name()));
        }
        if let Some(rollout) = &mut deployment.rollout {
            rollout.name_unrecorded(unrecorded.iter().filter(|one| one.deployment == deployment.deployment));
        }
    }
}

/// The proxy of a data folder, as it answers now.
struct Proxy {
    control: ProxyControl,
    status: Option<RouterStatus>,
    /// Why it does not answer, if it does not.
    trouble: Option<String>,
}

impl Proxy {
    async fn look(data: &Path) -> Self {
        let control = ProxyControl::of(data);
        let (status, trouble) = match control.status().await {
            Ok(status) => (Some(status), None),
            Err(ApplyError::NotRunning(_)) => (None, Some(DOES_NOT_RUN.to_owned())),
            Err(error) => (None, Some(error.to_string())),
        };
        Self { control, status, trouble }
    }

    /// Writes into a deployment what its users get now.
    async fn look_at(&self, deployment: &mut DeploymentStatus) {
        let entry = match &self.status {
            Some(_) => self.control.entry(&deployment.deployment).await.map_err(|error| error.to_string()),
            None => Err(self.trouble.clone().unwrap_or_default()),
        };
        // Where the proxy does not run it serves nothing; where it does not answer, nobody knows what it serves.
        deployment.applied_unknown = entry.is_err() && self.trouble.as_deref() != Some(DOES_NOT_RUN);
        let (weights, mut trouble) = match entry {
            Ok(Some(Entry::Routed(held))) => (held.routes.weights.iter().collect(), None),
            Ok(Some(Entry::Retired { .. }) | None) => (Default::default(), None),
            Err(why) => (Default::default(), Some(why)),
        };
        let listening = self.status.as_ref().and_then(|status| status.listeners.get(&deployment.deployment));
        trouble = trouble.or_else(|| listening.and_then(|listening| listening.error.clone()));
        let seen = SeenStatus { weights, trouble };
        for version in &mut deployment.versions {
            version.weight_applied = seen.weights.get(&version.stack).copied().unwrap_or(Weight::ZERO);
        }
        deployment.weights_applied =
            deployment.versions.iter().all(|version| version.weight_set == version.weight_applied);
        deployment.seen = Some(seen);
        // What was known of users when somebody last followed the ledger is no longer true.
        deployment.users_get = None;
        deployment.stranded.clear();
    }
}

pub(crate) const DOES_NOT_RUN: &str = "it does not run";

/// Writes into a version which of its nodes run. What passes its check is not known, and is left as it was.
pub(crate) fn look_at_nodes(data: &Path, version: &mut VersionStatus) {
    for node in &mut version.nodes {
        node.runs = process::runs(data, node.effect).ok();
        if node.runs == Some(false) {
            node.phase = NodePhase::Unhealthy;
            node.failing = Some(DOES_NOT_RUN.to_owned());
        }
    }
    let ready = version.nodes.iter().filter(|node| node.phase == NodePhase::Ready).count();
    version.nodes_ready = u16::try_from(ready).unwrap_or(u16::MAX);
    if version.phase == StackPhase::Ready && version.nodes_ready < version.nodes_ready_min {
        version.phase = StackPhase::Unhealthy;
    }
}
