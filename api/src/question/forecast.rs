//! What a rollout will be able to tell.

use std::collections::BTreeMap;

use async_trait::async_trait;
use ledger::decision::Rejection;
use ledger::execute::Refusal;
use ledger::{Ledger, State};
use replay::Moment;
use replay::answer::{self, At};
use schemas::policy::Policy;
use schemas::{DeploymentId, StackId, StackName, Timestamp, Weight};
use workers::measures::Asked;

use super::address::{addressed, parameters};
use super::{Answerer, Question};
use crate::forecast::{self, ForecastAnswer, MEASURED_SECONDS_MIN, MeasuredTraffic, PlannedRollout, UnderWay};
use crate::problem::Problem;

/// What a rollout of a deployment will be able to tell, by the policy that is declared and the traffic that was measured lately.
#[derive(Clone, Debug, PartialEq)]
pub struct ForecastQuestion {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The rollout that is planned.
    pub planned: PlannedRollout,
}

addressed!(ForecastQuestion, ["/v1/forecast/{environment}/{service}"], { deployment, planned });
parameters!(PlannedRollout { requests_per_minute, share, duration_ms, steps });

#[async_trait]
impl Question for ForecastQuestion {
    type Answer = ForecastAnswer;

    fn is_long(&self) -> bool {
        false
    }

    async fn answer(&self, by: &dyn Answerer) -> Result<ForecastAnswer, Problem> {
        let id = &self.deployment;
        let (known, under_way) = match by.ledger() {
            Some(ledger) => {
                let state = ledger.view().state().clone();
                (known(&state, id), under_way(ledger, id))
            }
            None => (known(&by.reader().state_at(Moment::Now).await?.state, id), None),
        };
        let (policy, serving) = known.map_err(Refusal::Rejected)?;
        let traffic = match serving {
            Some(serving) => measured(by, id, &policy, serving).await,
            None => Err("no version of it serves".to_owned()),
        };
        Ok(ForecastAnswer { under_way, ..forecast::answer(id.clone(), &policy, &self.planned, traffic)? })
    }
}

/// Returns the rollout that is under way, if one is, and when it is expected to end: as `status` says it.
fn under_way(ledger: &Ledger, id: &DeploymentId) -> Option<UnderWay> {
    let trouble = ledger.clock_trouble();
    let (mut status, now) = {
        let view = ledger.view();
        let status = answer::status_of(view.state(), At::of(&view), &id.service, Some(&id.environment));
        (status, ledger.clock().now().max(view.time()))
    };
    trouble.iter().for_each(|trouble| status.name_clock(trouble));
    let deployments = status.services.into_iter().flat_map(|service| service.deployments);
    let rollout = deployments.into_iter().find(|found| found.deployment == *id)?.rollout?;
    UnderWay::of(rollout, now)
}

/// The version with the largest share.
struct Serving {
    stack: StackId,
    name: StackName,
    share: Weight,
    since: Timestamp,
}

/// Returns the service's policy and the version that serves most.
fn known(state: &State, id: &DeploymentId) -> Result<(Policy, Option<Serving>), Rejection> {
    let definition = state.service(&id.service).and_then(|service| service.definition.as_ref());
    let definition = definition.ok_or_else(|| Rejection::unknown_service(&id.service, state.services.keys()))?;
    let serving = state.deployment(id).and_then(|deployment| {
        let set = deployment.traffic.set.as_ref()?;
        let (stack, share) = set.weights.iter().max_by_key(|(_, share)| *share)?;
        let held = deployment.traffic.holders.iter().rfind(|holder| holder.stack == stack);
        let since = held.map_or(set.at, |holder| holder.at);
        Some(Serving { stack, name: deployment.name_of(stack)?, share, since })
    });
    Ok((definition.policy.clone(), serving))
}

async fn measured(
    by: &dyn Answerer,
    deployment: &DeploymentId,
    policy: &Policy,
    of: Serving,
) -> Result<MeasuredTraffic, String> {
    let Serving { stack, name, share, since } = of;
    let asked = Asked { deployment: deployment.clone(), stacks: BTreeMap::from([(stack, name)]) };
    let measured = by.measured(&asked, &policy.judgement).await?;
    let from = measured.span.from.max(since);
    let seconds = measured.span.to.duration_since(from).as_secs_f64();
    if seconds < MEASURED_SECONDS_MIN {
        return Err(format!("it was measured for {:.0} s only", seconds.max(0.0)));
    }
    Ok(MeasuredTraffic { stack, share, measured, seconds })
}
