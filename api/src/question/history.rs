//! What happened, and who did it. A server sends this answer part by part; `crate::server` has how.

use async_trait::async_trait;
use replay::HistoryQuery;
use replay::answer::HistoryAnswer;

use super::address::addressed;
use super::{Answerer, Question, unrecorded};
use crate::problem::Problem;

addressed!(HistoryQuery, ["/v1/history/{service}", "/v1/history"], {
    service, environment, limit, since, before, voids, counts
});

#[async_trait]
impl Question for HistoryQuery {
    type Answer = HistoryAnswer;

    async fn answer(&self, by: &dyn Answerer) -> Result<HistoryAnswer, Problem> {
        let unrecorded = unrecorded(by, self.service.as_ref(), self.environment.as_ref());
        Ok(HistoryAnswer { unrecorded, ..by.reader().history(self).await? })
    }
}
