//! The ledger's own events.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::events;
use crate::id::LedgerId;

/// The ledger was made. The first event of every ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Created {
    /// The ledger.
    pub ledger: LedgerId,
}

events! {
    /// What happens to the ledger itself.
    Created = "ledger.created",
}
