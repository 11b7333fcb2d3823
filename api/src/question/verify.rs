//! Whether the ledger holds.

use std::time::Duration;

use async_trait::async_trait;
use replay::answer::Verified;

use super::address::addressed;
use super::{Answerer, Question};
use crate::problem::Problem;

/// Whether the ledger holds: hashes, rule and root recomputed from the first record. What is wrong is in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyQuestion;

addressed!(VerifyQuestion, ["/v1/verify"], {});

#[async_trait]
impl Question for VerifyQuestion {
    type Answer = Verified;

    /// Enough for a hundred million records.
    const WAIT_MAX: Duration = Duration::from_secs(600);

    async fn answer(&self, by: &dyn Answerer) -> Result<Verified, Problem> {
        Ok(by.reader().verify().await?)
    }
}
