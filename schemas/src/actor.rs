//! Who did something, and how they proved it.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What kind of actor it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// A person at a terminal or behind the HTTP API.
    Person,
    /// A CI pipeline.
    Pipeline,
    /// One of ionledger's workers.
    Worker,
    /// ionledger itself, when it makes a ledger.
    System,
}

impl fmt::Display for ActorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ActorKind::Person => "person",
            ActorKind::Pipeline => "pipeline",
            ActorKind::Worker => "worker",
            ActorKind::System => "system",
        })
    }
}

/// The true originator of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Actor {
    /// What kind of actor it is.
    pub kind: ActorKind,
    /// Its name: a user's, a pipeline's, or a worker's role and instance.
    pub name: String,
    /// How it proved who it is: `unix-peer uid=1000`, `hmac key=ci`, `token id=ab12`, `lease`.
    pub proof: String,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.name)
    }
}
