//! Where a ledger that is followed stands.

use async_trait::async_trait;

use super::address::addressed;
use super::{Answerer, Question};
use crate::problem::{Code, Problem};
use crate::wire::Standing;

/// What the ledger is, and where the process that follows it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandingQuestion;

addressed!(StandingQuestion, ["/v1/ledger"], {});

#[async_trait]
impl Question for StandingQuestion {
    type Answer = Standing;

    fn is_long(&self) -> bool {
        false
    }

    async fn answer(&self, by: &dyn Answerer) -> Result<Standing, Problem> {
        let nobody = || Problem::new(Code::NotConfigured, "nothing follows the ledger here; start `ionledger up`");
        let ledger = by.ledger().ok_or_else(nobody)?;
        let end = *ledger.log().end().borrow();
        let (halted, ahead, view) = (ledger.halted(), ledger.log().ahead(), ledger.view());
        let (next, root, time, voids) = (view.next(), view.tree().root(), view.time(), view.voids());
        let read_only = view.read_only().clone();
        Ok(Standing { ledger: ledger.id(), next, end, root, time, voids, halted, read_only, ahead })
    }
}
