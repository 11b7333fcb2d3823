//! What a deployment's versions did in the last minute, beside how they stand.

use std::collections::BTreeMap;

use replay::answer::{DeploymentStatus, MeasuredStatus, RolloutMeasured, RolloutStatus, StatusAnswer};
use schemas::policy::Policy;
use schemas::{DeploymentId, StackId, StackName, Timestamp};
use workers::measures::{Asked, Measured};
use workers::traffic::measures::upper_edge_ms;

use super::Answerer;

/// Writes into a status what was measured of each version that has traffic or had it a moment ago.
pub(super) async fn measure(by: &dyn Answerer, status: &mut StatusAnswer) {
    for service in &mut status.services {
        for deployment in &mut service.deployments {
            measure_deployment(by, deployment).await;
        }
    }
}

async fn measure_deployment(by: &dyn Answerer, deployment: &mut DeploymentStatus) {
    let Some(policy) = policy(by, &deployment.deployment) else { return };
    let stacks = deployment.versions.iter().map(|version| (version.stack, version.name())).collect();
    let asked = Asked { deployment: deployment.deployment.clone(), stacks };
    let Some(measured) = by.measured_recently(&asked, &policy.judgement).await else { return };
    for version in &mut deployment.versions {
        let told = told(&measured, version.stack, used_since(by, &deployment.deployment, version.stack));
        version.measured = told.filter(|told| told.requests > 0 || version.weight_applied.basis_points() > 0);
    }
}

/// Writes into a rollout what its two versions did: in the last minute, or, once it has ended, as far back as is known.
pub(super) async fn measure_rollout(by: &dyn Answerer, id: &DeploymentId, rollout: &mut RolloutStatus) {
    let Some(policy) = policy(by, id) else { return };
    let both = [(rollout.baseline_stack, rollout.baseline_name()), (rollout.canary_stack, rollout.canary_name())];
    let known = both.into_iter().map(|(stack, name)| Some((stack, name?)));
    let Some(stacks) = known.collect::<Option<BTreeMap<StackId, StackName>>>() else { return };
    let asked = Asked { deployment: id.clone(), stacks };
    let measured = match rollout.live {
        true => by.measured_recently(&asked, &policy.judgement).await,
        false => by.measured(&asked, &policy.judgement).await.ok(),
    };
    let both = measured.and_then(|measured| {
        let of = |stack| told(&measured, stack, used_since(by, id, stack));
        let (baseline, canary) = (of(rollout.baseline_stack)?, of(rollout.canary_stack)?);
        Some(RolloutMeasured { baseline, canary })
    });
    rollout.measured = both.filter(|both| both.canary.requests > 0);
}

fn policy(by: &dyn Answerer, id: &DeploymentId) -> Option<Policy> {
    let view = by.ledger()?.view();
    Some(view.state().service(&id.service)?.definition.as_ref()?.policy.clone())
}

/// Returns since when a stack has traffic, if it has some.
fn used_since(by: &dyn Answerer, id: &DeploymentId, stack: StackId) -> Option<Timestamp> {
    let view = by.ledger()?.view();
    view.state().deployment(id)?.stacks.get(&stack)?.used_since
}

/// Returns what a stack did, in figures that people read. A stack that got its traffic only at `used_since` had none before.
fn told(measured: &Measured, stack: StackId, used_since: Option<Timestamp>) -> Option<MeasuredStatus> {
    let from = used_since.map_or(measured.span.from, |since| since.max(measured.span.from));
    let seconds = measured.span.to.duration_since(from).as_secs_f64();
    let of = measured.of(stack);
    let quantile = |q: f64| of.latency.as_ref()?.at_most.quantile_bucket(q).map(upper_edge_ms);
    (seconds >= 1.0).then(|| MeasuredStatus {
        seconds,
        requests: of.requests,
        requests_per_second: of.requests as f64 / seconds,
        errors: of.hits("errors"),
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
    })
}

#[cfg(test)]
mod tests {
    use workers::measures::{NodeMeasured, Span};

    use super::*;

    #[test]
    fn a_young_canary_is_measured_from_when_it_first_had_traffic() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let stack = StackId(uuid::Uuid::from_u128(1));
        let node = NodeMeasured { requests: 100, hits: BTreeMap::from([("errors", 1)]), ..NodeMeasured::default() };
        let span = Span { from: at(0), to: at(60) };
        let measured = Measured { span, stacks: BTreeMap::from([(stack, vec![node])]) };
        let window = |since: Option<Timestamp>| {
            told(&measured, stack, since).map(|told| (told.seconds, told.requests_per_second))
        };
        assert_eq!(window(Some(at(50))), Some((10.0, 10.0)), "it had nothing in the first 50 s");
        assert_eq!(window(Some(Timestamp::UNIX_EPOCH)), Some((60.0, 100.0 / 60.0)));
        assert_eq!(window(None), Some((60.0, 100.0 / 60.0)));
        assert_eq!(window(Some(at(60))), None, "it has no traffic yet");
    }
}
