//! Production at a moment, for eyes and pipes.

use std::collections::BTreeMap;

use jiff::Zoned;
use replay::answer::{Production, StatusAnswer};

use super::Render;
use super::shipped::moment_of;
use super::status;
use super::table::paint;
use super::words::{count, faint, strong};

impl Render for Production {
    fn eyes(&self, now: &Zoned, _: usize) -> String {
        eyes(self, now)
    }

    fn lines(&self) -> String {
        lines(self)
    }

    fn nothing(&self, now: &Zoned) -> Option<String> {
        Some(nothing(self, now))
    }
}

/// Returns production as trees, one a deployment, as `status` shows the present.
fn eyes(production: &Production, now: &Zoned) -> String {
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
    match production.services.is_empty() {
        true => text.push_str("no service had been declared\n"),
        false => text.push_str(&status::eyes(&status_of(production), &then)),
    }
    for (role, lease) in &production.leases {
        let holder = lease.holder.as_deref().map_or("nobody".to_owned(), super::words::plain);
        text.push_str(&paint(&format!("{role}: {holder}"), faint()));
        text.push('\n');
    }
    text
}

/// What an answer without a version says.
fn nothing(production: &Production, now: &Zoned) -> String {
    format!("production {}: no stack of any version", moment_of(production.at, now))
}

/// Returns production as lines, one a version, with the columns of `status`.
fn lines(production: &Production) -> String {
    status::lines(&status_of(production))
}

fn status_of(production: &Production) -> StatusAnswer {
    let services = production.services.iter().map(|service| service.status.clone()).collect();
    StatusAnswer {
        schema_version: production.schema_version,
        at: production.at,
        halted: None,
        unattended: None,
        moved_to: None,
        copy_of: None,
        read_only: BTreeMap::new(),
        ahead: vec![],
        services,
        unrecorded: production.unrecorded.clone(),
        clock: None,
        router_silent: None,
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::super::examples::{bare, now, production};
    use super::*;

    /// Ages are those of then: the rollout was 6 minutes old, whenever it is looked at.
    #[test]
    fn production_is_shown_as_the_present_is_with_its_moment() {
        assert_snapshot!(bare(&eyes(&production(), &now())), @r"
production  at offset 48211, 2026-11-22 14:31:00 +01:00
1 service, 1 release

production/api  ◌ rolling 1.2.3 -> 1.2.4, step 3 of 7, 5 %
  users at     http://127.0.0.1:8080
  next         10 % at 14:42:05 (in 11 min)
  ends         about 2026-11-23 02:42:05 (in 12 h)
  judge        ✔ not worse at step 2: canary 0 of 61 failed (0.00 %), baseline 4 of 1,204 failed (0.33 %)
  rollback to  1.2.3, warm
├─ 1.2.4  canary    5 % (now 2 %)  ✔ ready  1/2 nodes  11 min
│  ├─ node 3  ✔ ready  127.0.0.1:40002  8 min
│  └─ node 4  ◌ checking  127.0.0.1:40003  8 min, attempt 2
└─ 1.2.3  baseline  95 %           ✔ ready  2/2 nodes  11 min
   ├─ node 1  ✔ ready  127.0.0.1:40000  8 min
   └─ node 2  ✔ ready  127.0.0.1:40001  8 min
provisioner: 41@host
collector: nobody
");
    }
}
