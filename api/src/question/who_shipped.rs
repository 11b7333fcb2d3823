//! Who shipped what.

use async_trait::async_trait;
use replay::Moment;
use replay::answer::WhoShipped;
use schemas::DeploymentId;

use super::address::addressed;
use super::{Answerer, Question, unrecorded_at};
use crate::problem::Problem;

/// Which versions served what share of a deployment at a moment, and who put them there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhoShippedQuestion {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The moment.
    pub moment: Moment,
}

addressed!(WhoShippedQuestion, ["/v1/who-shipped/{environment}/{service}"], { deployment, moment });

#[async_trait]
impl Question for WhoShippedQuestion {
    type Answer = WhoShipped;

    async fn answer(&self, by: &dyn Answerer) -> Result<WhoShipped, Problem> {
        let mut answer = by.reader().who_shipped(&self.deployment, self.moment).await?;
        answer.name_unrecorded(unrecorded_at(by, Some(&self.deployment), self.moment));
        Ok(answer)
    }
}
