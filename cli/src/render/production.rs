//! Production at a moment, for eyes and pipes.

use jiff::Zoned;
use replay::answer::{Production, Status};

use super::shipped::moment_of;
use super::status;
use super::table::paint;
use super::words::{count, faint, strong};

/// Returns production as trees, one a deployment, as `status` shows the present.
pub(crate) fn eyes(production: &Production, now: &Zoned) -> String {
    // Ages are told as they were then.
    let then = production.at.time.map_or_else(|| now.clone(), |time| time.to_zoned(now.time_zone().clone()));
    let releases = production.services.iter().map(|service| service.recorded.len() as u64).sum();
    let mut text = format!(
        "{}  {}\n{}\n\n",
        paint("production", strong()),
        moment_of(production.at, now),
        paint(
            &format!(
                "{}, {}",
                count(production.services.len() as u64, "service", "services"),
                count(releases, "release", "releases")
            ),
            faint()
        )
    );
    text.push_str(&status::eyes(&status_of(production), &then));
    for (role, lease) in &production.leases {
        let holder = lease.holder.as_deref().map_or("nobody".to_owned(), super::words::plain);
        text.push_str(&paint(&format!("{role}: {holder}"), faint()));
        text.push('\n');
    }
    text
}

/// Returns production as lines, one a version, with the columns of `status`.
pub(crate) fn lines(production: &Production) -> String {
    status::lines(&status_of(production))
}

fn status_of(production: &Production) -> Status {
    let services = production.services.iter().map(|service| service.status.clone()).collect();
    Status { schema_version: production.schema_version, at: production.at, services }
}
