//! Status for pipes: a line for each version, and one for what has none.

use replay::answer::{DeploymentStatus, ServiceStatus, StatusAnswer, VersionStatus};

use super::{name, phase, role};
use crate::render::words::{column, line, percent};

/// The columns of [`lines`], for help texts.
pub(crate) const COLUMNS: &str = "deployment, version, role, weight set, weight applied, phase, nodes ready, nodes wanted, requested at, stack, why the \
     deployment is on hold, version whose rollout waits, version that a rollback waits for";

/// Returns the status as lines, one a version, and one for what has none.
pub(crate) fn lines(status: &StatusAnswer) -> String {
    let of_deployment = |deployment: &DeploymentStatus| match deployment.versions[..] {
        [] if deployment.retired_at.is_some() => bare_line(&deployment.deployment.to_string(), "retired"),
        [] => bare_line(&deployment.deployment.to_string(), "no stack"),
        _ => deployment.versions.iter().map(|version| version_line(deployment, version)).collect(),
    };
    let of_service = |service: &ServiceStatus| match (&service.deployments[..], &service.latest_release) {
        ([], None) => bare_line(service.service.as_str(), "no release"),
        ([], Some(_)) => bare_line(service.service.as_str(), "no stack"),
        (deployments, _) => deployments.iter().map(of_deployment).collect(),
    };
    status.services.iter().map(of_service).collect()
}

/// The line of a service that runs nowhere, or of a deployment without a stack: its name, and what it lacks in place of a role.
fn bare_line(name: &str, lacks: &str) -> String {
    let mut columns = [const { String::new() }; 13];
    (columns[0], columns[2]) = (name.to_owned(), lacks.to_owned());
    line(&columns)
}

fn version_line(deployment: &DeploymentStatus, version: &VersionStatus) -> String {
    line(&[
        deployment.deployment.to_string(),
        version.name().to_string(),
        role(deployment, version).to_owned(),
        percent(version.weight_set),
        column((!deployment.applied_unknown).then(|| percent(version.weight_applied))),
        phase(version.phase).1.to_owned(),
        version.nodes_ready.to_string(),
        version.nodes_wanted.to_string(),
        version.requested_at.to_string(),
        version.stack.to_string(),
        deployment.holds.first().map(|hold| hold.reason.clone()).unwrap_or_default(),
        deployment.waiting.as_ref().map(|waiting| name(waiting.name())).unwrap_or_default(),
        column(deployment.rolling_back_to_name().as_ref()),
    ])
}
