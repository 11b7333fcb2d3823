//! Services: who owns them and how they are run.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::events;
use crate::id::EnvironmentName;
use crate::policy::Policy;
use crate::run::{Capacity, RunSpec};

/// What a team declares about a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Definition {
    /// The team that answers for it.
    pub owner: String,
    /// What it is, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Where its users' traffic arrives, an address an environment; an environment left out gets a free port.
    #[serde(default)]
    pub listen: BTreeMap<EnvironmentName, SocketAddr>,
    /// How its next releases are run.
    #[serde(default)]
    pub run: RunSpec,
    /// How many nodes its next stacks have.
    #[serde(default)]
    pub capacity: Capacity,
    /// Its policy.
    #[serde(default)]
    pub policy: Policy,
}

/// A service was declared, or its declaration changed as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Applied {
    /// What it is from now on.
    pub definition: Definition,
}

events! {
    /// What happens to a service.
    Applied = "service.applied",
}
