//! Shares of the traffic that are set and those that the router has confirmed, in words.

use jiff::SignedDuration;
use replay::answer::{DeploymentStatus, VersionStatus};
use schemas::{Timestamp, Weight};

/// How long the router may take to confirm weights before somebody must look.
const UNAPPLIED_MAX: SignedDuration = SignedDuration::from_secs(5);

/// Returns the versions that have a share, each with it; none if no version has one.
pub(crate) fn shares(deployment: &DeploymentStatus, weight: fn(&VersionStatus) -> Weight) -> Option<String> {
    let with_share = deployment.versions.iter().filter(|version| weight(version) > Weight::ZERO);
    let shares: Vec<String> = with_share.map(|version| format!("{} {}", version.name(), weight(version))).collect();
    (!shares.is_empty()).then(|| shares.join(", "))
}

/// Says whether what is set was set so long ago that the router should have confirmed it.
pub(crate) fn should_be_applied(deployment: &DeploymentStatus, now: Timestamp) -> bool {
    let set_at = deployment.weights_recorded_at.or(deployment.weights_set_at);
    set_at.is_some_and(|set_at| now.duration_since(set_at) > UNAPPLIED_MAX)
}
