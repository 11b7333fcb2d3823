//! All of production.

use async_trait::async_trait;
use replay::Moment;
use replay::answer::Production;

use super::address::addressed;
use super::{Answerer, Question, unrecorded_at};
use crate::problem::Problem;

/// All of production at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductionQuestion {
    /// The moment.
    pub moment: Moment,
}

addressed!(ProductionQuestion, ["/v1/replay"], { moment });

#[async_trait]
impl Question for ProductionQuestion {
    type Answer = Production;

    async fn answer(&self, by: &dyn Answerer) -> Result<Production, Problem> {
        let mut answer = by.reader().production(self.moment).await?;
        answer.name_unrecorded(unrecorded_at(by, None, self.moment));
        Ok(answer)
    }
}
