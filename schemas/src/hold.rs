//! Holds: while a deployment is on hold, what pipelines release is prepared and not rolled out. People are never held.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::events;
use crate::id::Version;

/// What put a deployment on hold. It may be on hold for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A person asked for it. Only a person ends it, or its time.
    Asked,
    /// A rollback, or a rollout that was aborted. A release that fixes the version ends it, too.
    Rollback,
}

/// A deployment was put on hold. One that is on hold for the same cause is from now on held by this alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HoldSet {
    /// What for.
    pub cause: Cause,
    /// Why, in words.
    pub reason: String,
    /// The versions that were rolled back from, or whose rollout was aborted: a release that fixes one of them ends the hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<Version>,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// A hold ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HoldLifted {
    /// Which.
    pub cause: Cause,
    /// Why, in words.
    pub reason: String,
}

events! {
    /// What happens to a hold.
    HoldSet = "hold.set",
    HoldLifted = "hold.lifted",
}
