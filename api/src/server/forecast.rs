//! `GET /v1/forecast/ENVIRONMENT/SERVICE`: what a rollout will be able to tell.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use ledger::deployment::step;
use schemas::policy::Policy;
use schemas::{DeploymentId, EnvironmentName, ServiceName, StackId, StackName, Timestamp, Weight};
use workers::measures::Asked;

use super::peer::Caller;
use super::{Api, respond};
use crate::forecast::{Answer, MEASURED_SECONDS_MIN, Question, Traffic, UnderWay, answer};
use crate::problem::{Code, Problem};

/// Answers from the policy that is declared and the traffic that was measured lately.
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    _: Caller,
    deployment: Result<Path<(EnvironmentName, ServiceName)>, PathRejection>,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Response, Problem> {
    let (environment, service) = respond::path(deployment)?;
    let question = respond::query(question)?;
    let deployment = DeploymentId { environment, service };
    let (policy, serving) = known(&api, &deployment)?;
    let under_way = under_way(&api, &deployment);
    let traffic = match serving {
        Some(serving) => measured(&api, &deployment, &policy, serving).await,
        None => Err("no version of it serves".to_owned()),
    };
    Ok(respond::json(&Answer { under_way, ..answer(deployment, &policy, &question, traffic)? }))
}

/// Returns the rollout that is under way, if one is, and when it is expected to end.
fn under_way(api: &Api, id: &DeploymentId) -> Option<UnderWay> {
    let view = api.ledger.view();
    let deployment = view.state().deployment(id)?;
    let rollout = deployment.rollout.as_ref()?;
    let hearing = view.state().judgements.get(id).and_then(|judgements| judgements.of(rollout.id));
    let expected = step::expected(&deployment.traffic, rollout, hearing, api.ledger.clock().now())?;
    let canary = deployment.version_of(rollout.canary).cloned();
    let canary_name = deployment.name_of(rollout.canary);
    Some(UnderWay { canary, canary_name, next_at: expected.next_at, expected_end_at: expected.end_at() })
}

/// The version with the largest share.
struct Serving {
    stack: StackId,
    name: StackName,
    share: Weight,
    since: Timestamp,
}

/// Returns the service's policy and the version that serves most.
fn known(api: &Api, id: &DeploymentId) -> Result<(Policy, Option<Serving>), Problem> {
    let view = api.ledger.view();
    let definition = view.state().service(&id.service).and_then(|service| service.definition.as_ref());
    let Some(definition) = definition else {
        let why = format!("service {} is not declared; declare it with `ionledger apply`", id.service);
        return Err(Problem::new(Code::Unknown, why));
    };
    let serving = view.state().deployment(id).and_then(|deployment| {
        let set = deployment.traffic.set.as_ref()?;
        let (stack, share) = set.weights.iter().max_by_key(|(_, share)| *share)?;
        let held = deployment.traffic.holders.iter().rfind(|holder| holder.stack == stack);
        let since = held.map_or(set.at, |holder| holder.at);
        Some(Serving { stack, name: deployment.name_of(stack)?, share, since })
    });
    Ok((definition.policy.clone(), serving))
}

async fn measured(api: &Api, deployment: &DeploymentId, policy: &Policy, of: Serving) -> Result<Traffic, String> {
    let Serving { stack, name, share, since } = of;
    let asked = Asked { deployment: deployment.clone(), stacks: BTreeMap::from([(stack, name)]) };
    let measured = api.hooks.measured(&asked, &policy.judgement).await?;
    let from = measured.span.from.max(since);
    let seconds = measured.span.to.duration_since(from).as_secs_f64();
    if seconds < MEASURED_SECONDS_MIN {
        return Err(format!("it was measured for {:.0} s only", seconds.max(0.0)));
    }
    Ok(Traffic { stack, share, measured, seconds })
}
