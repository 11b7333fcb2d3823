//! Releases: service, version and how to run it. Immutable.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::events;
use crate::id::Version;
use crate::run::{Artifact, RunSpec};
use crate::text::{self, InvalidText};
use crate::upcast::unchanged;

/// Where a release comes from, for the audit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Source {
    /// The commit it was built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The address of the pipeline's run that built it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_url: Option<String>,
}

impl Source {
    /// Returns the source without texts that are empty: a pipeline without a commit writes an empty one.
    #[must_use]
    pub fn without_blanks(self) -> Self {
        let filled = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
        Self { commit: filled(self.commit), run_url: filled(self.run_url) }
    }

    /// Checks the texts.
    ///
    /// # Errors
    ///
    /// [`InvalidText`] if one is too long, not printable, or looks like a secret.
    pub fn validate(&self) -> Result<(), InvalidText> {
        text::check("the source's commit", self.commit.as_deref().unwrap_or_default(), 200)?;
        text::check("the source's run_url", self.run_url.as_deref().unwrap_or_default(), 2_000)
    }
}

/// A release was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Recorded {
    /// Its version.
    pub version: Version,
    /// What runs.
    pub artifact: Artifact,
    /// How it is run.
    pub run: RunSpec,
    /// Where it comes from.
    #[serde(default)]
    pub source: Source,
    /// The version whose fault it mends, if it was made for that: it ends the hold that the rollback of that version set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixes: Option<Version>,
}

events! {
    /// What happens to a release.
    // Version 2: `run` may name a user. Version 3: it may name the version that it fixes.
    Recorded = "release.recorded" [unchanged, unchanged],
}
