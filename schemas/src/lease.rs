//! Leases: which instance acts for a role.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::events;
use crate::stream::Role;

/// An instance acts from now on; what its predecessor still writes is void.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Taken {
    /// The role.
    pub role: Role,
    /// The instance.
    pub holder: String,
    /// Why it took over.
    pub reason: String,
}

/// The holder gave the lease up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Released {
    /// The role.
    pub role: Role,
    /// The instance.
    pub holder: String,
}

events! {
    /// What happens to a lease.
    Taken = "lease.taken",
    Released = "lease.released",
}
