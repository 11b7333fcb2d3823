//! Why a rollout went as it did, and what led to a commit.

use async_trait::async_trait;
use replay::Moment;
use replay::answer::Explanation;
use schemas::{DeploymentId, EnvironmentName, ServiceName};

use super::address::addressed;
use super::{Answerer, Question, measured, unrecorded};
use crate::problem::Problem;

/// Why a deployment's rollout, the one under way or the last, went as it did until a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainQuestion {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The moment.
    pub moment: Moment,
}

addressed!(ExplainQuestion, ["/v1/explain/{environment}/{service}"], { deployment, moment });

#[async_trait]
impl Question for ExplainQuestion {
    type Answer = Explanation;

    async fn answer(&self, by: &dyn Answerer) -> Result<Explanation, Problem> {
        let answer = by.reader().explain(&self.deployment, self.moment).await?;
        Ok(measured(by, answer, self.moment).await)
    }
}

/// The same of what people name: of an offset, a commit or the beginning of its id what led to it; a service's rollout; a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainNamedQuestion {
    /// The name.
    pub what: String,
    /// The service of which the name is a version.
    pub service: Option<ServiceName>,
    /// The environment of the rollout; production if left out.
    pub environment: Option<EnvironmentName>,
    /// The moment.
    pub moment: Moment,
}

addressed!(ExplainNamedQuestion, ["/v1/explain/{what}"], { what, service, environment, moment });

#[async_trait]
impl Question for ExplainNamedQuestion {
    type Answer = Explanation;

    async fn answer(&self, by: &dyn Answerer) -> Result<Explanation, Problem> {
        let Self { what, service, environment, moment } = self;
        let environment = environment.clone().unwrap_or_else(EnvironmentName::production);
        let answer = by.reader().explain_named(what, service.as_ref(), &environment, *moment).await?;
        Ok(measured(by, answer, *moment).await)
    }
}

/// Adds to an explanation of now what the rollout's versions were measured to do.
async fn measured(by: &dyn Answerer, mut answer: Explanation, moment: Moment) -> Explanation {
    if let (Moment::Now, Some(deployment), Some(rollout)) = (moment, &answer.deployment, &mut answer.rollout) {
        measured::measure_rollout(by, deployment, rollout).await;
        rollout.name_unrecorded(&unrecorded(by, Some(&deployment.service), Some(&deployment.environment)));
    }
    answer
}
