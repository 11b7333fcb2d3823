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

/// The ledger was moved: it takes no more commits, and goes on elsewhere. The second and last commit of its stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sealed {
    /// Where it goes on: a data folder, or `kafka://HOST:PORT[,HOST:PORT...][/TOPIC]`.
    pub target: String,
}

events! {
    /// What happens to the ledger itself.
    Created = "ledger.created",
    Sealed = "ledger.sealed",
}
