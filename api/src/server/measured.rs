//! What a deployment's versions did in the last minute, beside how they stand.

use std::collections::BTreeMap;

use replay::answer::{DeploymentStatus, MeasuredStatus, RolloutMeasured, RolloutStatus, Status};
use schemas::policy::Policy;
use schemas::{DeploymentId, StackId, StackName};
use workers::measures::{Asked, Measured};
use workers::traffic::measures::upper_edge_ms;

use super::Api;

/// Writes into a status what was measured of each version that has traffic or had it a moment ago.
pub(super) async fn measure(api: &Api, status: &mut Status) {
    for service in &mut status.services {
        for deployment in &mut service.deployments {
            measure_deployment(api, deployment).await;
        }
    }
}

async fn measure_deployment(api: &Api, deployment: &mut DeploymentStatus) {
    let Some(policy) = policy(api, &deployment.deployment) else { return };
    let stacks = deployment.versions.iter().map(|version| (version.stack, version.name())).collect();
    let asked = Asked { deployment: deployment.deployment.clone(), stacks };
    let Some(measured) = api.hooks.measured_recently(&asked, &policy.judgement).await else { return };
    for version in &mut deployment.versions {
        let told = told(&measured, version.stack);
        version.measured = told.filter(|told| told.requests > 0 || version.weight_applied.basis_points() > 0);
    }
}

/// Writes into a rollout what its two versions did: in the last minute, or, once it has ended, as far back as is known.
pub(super) async fn measure_rollout(api: &Api, id: &DeploymentId, rollout: &mut RolloutStatus) {
    let Some(policy) = policy(api, id) else { return };
    let both = [(rollout.baseline_stack, rollout.baseline_name()), (rollout.canary_stack, rollout.canary_name())];
    let known = both.into_iter().map(|(stack, name)| Some((stack, name?)));
    let Some(stacks) = known.collect::<Option<BTreeMap<StackId, StackName>>>() else { return };
    let asked = Asked { deployment: id.clone(), stacks };
    let measured = match rollout.live {
        true => api.hooks.measured_recently(&asked, &policy.judgement).await,
        false => api.hooks.measured(&asked, &policy.judgement).await.ok(),
    };
    let both = measured.and_then(|measured| {
        let (baseline, canary) = (told(&measured, rollout.baseline_stack)?, told(&measured, rollout.canary_stack)?);
        Some(RolloutMeasured { baseline, canary })
    });
    rollout.measured = both.filter(|both| both.canary.requests > 0);
}

fn policy(api: &Api, id: &DeploymentId) -> Option<Policy> {
    let view = api.ledger.view();
    Some(view.state().service(&id.service)?.definition.as_ref()?.policy.clone())
}

/// Returns what a stack did, in figures that people read.
fn told(measured: &Measured, stack: StackId) -> Option<MeasuredStatus> {
    let seconds = measured.span.to.duration_since(measured.span.from).as_secs_f64();
    let of = measured.of(stack);
    let quantile = |q: f64| of.latency.as_ref()?.at_most.quantile_bucket(q).map(upper_edge_ms);
    (seconds >= 1.0).then(|| MeasuredStatus {
        seconds,
        requests: of.requests,
        requests_per_second: of.requests as f64 / seconds,
        errors: of.errors,
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
    })
}
