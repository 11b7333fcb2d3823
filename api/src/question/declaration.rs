//! How a service was declared.

use async_trait::async_trait;
use replay::Moment;
use replay::answer::Declaration;
use schemas::ServiceName;

use super::address::addressed;
use super::{Answerer, Question};
use crate::problem::Problem;

/// How a service was declared at a moment, also as the file that `apply` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclarationQuestion {
    /// The service.
    pub service: ServiceName,
    /// The moment.
    pub moment: Moment,
}

addressed!(DeclarationQuestion, ["/v1/services/{service}"], { service, moment });

#[async_trait]
impl Question for DeclarationQuestion {
    type Answer = Declaration;

    async fn answer(&self, by: &dyn Answerer) -> Result<Declaration, Problem> {
        Ok(by.reader().declaration(&self.service, self.moment).await?)
    }
}
