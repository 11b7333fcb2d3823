//! A lease: which instance acts for a role. A takeover is a commit; every commit of a worker requires the lease's
//! head, so that the log's own rule voids what a deposed worker writes.

use schemas::{Role, Timestamp, lease, text};
use serde::{Deserialize, Serialize};

use crate::at::At;
use crate::decision::Rejection;

/// A role's lease after its events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who acts, if anybody does.
    pub holder: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
}

/// Returns the lease after `event`.
pub fn evolve(_: Lease, event: &lease::Event, at: &At) -> Lease {
    match event {
        lease::Event::Taken(taken) => Lease { holder: Some(taken.holder.clone()), since: Some(at.time) },
        lease::Event::Released(_) => Lease { holder: None, since: Some(at.time) },
    }
}

/// Returns the events that give `role` to `holder`, who takes the place of `from`: none if it has it.
///
/// # Errors
///
/// [`Rejection::Invalid`] for a holder without a name that can be shown; [`Rejection::Outdated`] if `from` is not who
/// acts, so that of several who take over from one that has fallen silent the first does. Whether to take over is the
/// instance's choice.
pub fn decide_take(
    lease: &Lease,
    role: Role,
    holder: &str,
    from: Option<&str>,
    reason: &str,
) -> Result<Vec<schemas::Event>, Rejection> {
    text::check("the holder's name", holder, 200).map_err(Rejection::invalid)?;
    if holder.is_empty() {
        return Err(Rejection::Invalid("a lease needs a holder's name".to_owned()));
    }
    if lease.holder.as_deref() == Some(holder) {
        return Ok(vec![]);
    }
    if lease.holder.as_deref() != from {
        let now = lease.holder.as_deref().unwrap_or("nobody");
        return Err(Rejection::Outdated(format!("{role} is {now}'s and no longer {}'s", from.unwrap_or("nobody"))));
    }
    Ok(vec![lease::Taken { role, holder: holder.to_owned(), reason: text::tidy(reason) }.into()])
}

/// Returns the events by which `holder` gives up the lease of `role`: none if it does not have it.
pub fn decide_release_lease(lease: &Lease, role: Role, holder: &str) -> Result<Vec<schemas::Event>, Rejection> {
    if lease.holder.as_deref() != Some(holder) {
        return Ok(vec![]);
    }
    Ok(vec![lease::Released { role, holder: holder.to_owned() }.into()])
}
