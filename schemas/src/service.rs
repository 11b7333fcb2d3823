//! Services: who owns them and how they are run.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::events;
use crate::id::EnvironmentName;
use crate::policy::Policy;
use crate::run::{Capacity, RunSpec};
use crate::text;
use crate::upcast::unchanged;

/// What a team declares about a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

impl Definition {
    /// Checks everything that the types cannot.
    ///
    /// # Errors
    ///
    /// What is wrong, naming the field; a suspected secret is not repeated.
    pub fn validate(&self) -> Result<(), String> {
        if self.owner.trim().is_empty() {
            return Err("owner must name the team that answers for the service".to_owned());
        }
        text::check("owner", &self.owner, 200).map_err(|error| error.to_string())?;
        text::check("description", &self.description, 2_000).map_err(|error| error.to_string())?;
        self.run.validate().map_err(|error| error.to_string())?;
        self.capacity.validate().map_err(|error| error.to_string())?;
        self.policy.validate().map_err(|error| error.to_string())
    }
}

/// A service was declared, or its declaration changed as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Applied {
    /// What it is from now on.
    pub definition: Definition,
}

events! {
    /// What happens to a service.
    // Version 2: `run` may name a user. Version 3: the policy has more keys.
    Applied = "service.applied" [unchanged, unchanged],
}
