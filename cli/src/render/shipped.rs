//! Who shipped, for eyes and pipes: what served, and who put it there.

use jiff::Zoned;
use replay::answer::{At, Origin, ReleaseOrigin, Shipped, WhoShipped};

use super::table::{self, Cell, paint};
use super::words::{
    BUSY, GOOD, actor_proved, column, faint, line, moment_in_full, other_time, percent, strong, style_of,
};
use super::{Render, unrecorded};

/// The columns of [`lines`], for help texts.
pub(crate) const COLUMNS: &str = "deployment, version, weight set, weight applied, serves since, by, proof, \
     on behalf of, offset, commit, artifact, built from, run, recorded by";

impl Render for WhoShipped {
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

/// Returns who shipped what as a tree.
fn eyes(answer: &WhoShipped, now: &Zoned) -> String {
    let mut text = format!(
        "{}{}  {}\n",
        unrecorded::eyes(&answer.unrecorded, now),
        paint(&answer.deployment.to_string(), strong()),
        paint(&moment_of(answer.at, now), faint())
    );
    if answer.shipped.is_empty() {
        text.push_str(&format!("└─ {}\n", why_nothing(answer, now)));
        return text;
    }
    for (n, shipped) in answer.shipped.iter().enumerate() {
        let last = n + 1 == answer.shipped.len();
        let lines = if last { ("└─", "   ") } else { ("├─", "│  ") };
        text.push_str(&shipped_tree(shipped, answer.applied_unknown, lines, now));
    }
    text
}

fn why_nothing(answer: &WhoShipped, now: &Zoned) -> String {
    match (&answer.retired_by, answer.known) {
        (Some(origin), _) => format!("nothing served: it was retired by {}", origin_words(origin, now)),
        (None, true) => "nothing served: no traffic had been set".to_owned(),
        (None, false) => "nothing served: nothing had ever been deployed".to_owned(),
    }
}

/// What an answer in which nothing served says: where, when and why.
fn nothing(answer: &WhoShipped, now: &Zoned) -> String {
    format!("{} {}: {}", answer.deployment, moment_of(answer.at, now), why_nothing(answer, now))
}

fn shipped_tree(shipped: &Shipped, unknown: bool, (branch, below): (&str, &str), now: &Zoned) -> String {
    let version = shipped.name().map_or_else(|| format!("stack {}", shipped.stack), |name| name.to_string());
    let confirmed = match shipped.weight_applied == shipped.weight_set {
        _ if unknown => paint(&format!("{BUSY} not known whether the router served it yet"), style_of(BUSY)),
        true => paint(&format!("{GOOD} confirmed by the router"), style_of(GOOD)),
        false => paint(&format!("{BUSY} the router confirmed {}", shipped.weight_applied), style_of(BUSY)),
    };
    let mut text = format!(
        "{branch} {}  {}  {confirmed}\n",
        paint(&version, strong()),
        paint(&shipped.weight_set.to_string(), strong())
    );
    let mut facts: Vec<(&str, String)> = Vec::new();
    if let Some(since) = &shipped.since {
        facts.push(("shipped", origin_words(since, now)));
        facts.extend(behind(since, now));
    }
    match &shipped.weight_since {
        Some(weight) if Some(weight) != shipped.since.as_ref() => {
            facts.push(("this share", origin_words(weight, now)));
            facts.extend(behind(weight, now));
        }
        _ => {}
    }
    if let Some(release) = &shipped.release {
        facts.extend(release.recorded.as_ref().map(|recorded| ("release", origin_words(recorded, now))));
        facts.push(("artifact", artifact_words(release)));
        facts.extend(release.source.run_url.clone().map(|run| ("pipeline", run)));
    }
    let rows: Vec<Vec<Cell>> =
        facts.into_iter().map(|(name, fact)| vec![Cell::styled(name, faint()), Cell::new(fact)]).collect();
    for line in table::lines(&rows) {
        text.push_str(&format!("{below}{line}\n"));
    }
    text
}

fn artifact_words(release: &ReleaseOrigin) -> String {
    let hash = release.artifact.sha256.to_string();
    let built = release.source.commit.as_ref().map(|commit| format!(", built from {commit}")).unwrap_or_default();
    format!("{} sha256:{}{built}", release.artifact.name, &hash[..12])
}

/// Who, how they proved it and when: `person:ana (unix-peer uid=1000) at ..., offset 31`.
fn origin_words(origin: &Origin, now: &Zoned) -> String {
    let when = moment_in_full(origin.counts_from(), now);
    let also = origin.other_time().map(|other| format!(" ({})", other_time(other, now)));
    format!("{} at {when}{}, offset {}", actor_proved(&origin.actor), also.unwrap_or_default(), origin.offset)
}

/// The person or pipeline behind a worker, and the reason that was given.
fn behind(origin: &Origin, now: &Zoned) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(behind) = &origin.on_behalf_of {
        let who = actor_proved(&behind.actor);
        facts.push(("  for", format!("{who} at {}, offset {}", moment_in_full(behind.time, now), behind.offset)));
    }
    let reason = origin.reason.as_ref().or_else(|| origin.on_behalf_of.as_ref()?.reason.as_ref());
    facts.extend(reason.map(|reason| ("  because", reason.clone())));
    facts
}

/// The moment that an answer speaks of: `at offset 31, 2026-11-21 14:32:05 +01:00`.
pub(super) fn moment_of(at: At, now: &Zoned) -> String {
    match (at.time, at.offset) {
        (Some(time), Some(offset)) => format!("at offset {offset}, {}", moment_in_full(time, now)),
        _ => "before the ledger began".to_owned(),
    }
}

/// Returns who shipped what as lines, one a version.
fn lines(answer: &WhoShipped) -> String {
    let of_version = |shipped: &Shipped| {
        let since = shipped.since.as_ref();
        let release = shipped.release.as_ref();
        line(&[
            answer.deployment.to_string(),
            column(shipped.name()),
            percent(shipped.weight_set),
            column((!answer.applied_unknown).then(|| percent(shipped.weight_applied))),
            column(since.map(Origin::counts_from)),
            column(since.map(|origin| &origin.actor)),
            column(since.map(|origin| &origin.actor.proof)),
            column(since.and_then(|origin| origin.on_behalf_of.as_ref()).map(|behind| &behind.actor)),
            column(since.map(|origin| origin.offset)),
            column(since.map(|origin| origin.commit)),
            column(release.map(|release| release.artifact.sha256)),
            column(release.and_then(|release| release.source.commit.as_ref())),
            column(release.and_then(|release| release.source.run_url.as_ref())),
            column(release.and_then(|release| release.recorded.as_ref()).map(|origin| &origin.actor)),
        ])
    };
    answer.shipped.iter().map(of_version).collect()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::super::examples::{bare, now, who_shipped};
    use super::*;

    #[test]
    fn who_shipped_names_the_person_behind_the_worker_and_their_proof() {
        assert_snapshot!(bare(&eyes(&who_shipped(), &now())), @r"
production/api  at offset 48211, 2026-11-22 14:31:00 +01:00
├─ 1.2.3  95 %  ✔ confirmed by the router
│  shipped     person:bob (lease) at 2026-11-22 14:25:00 +01:00, offset 31
│  this share  worker:shifter (lease) at 2026-11-22 14:25:00 +01:00, offset 31
│    for       person:ana (unix-peer uid=1000) at 2026-11-22 14:25:00 +01:00, offset 30
│    because   checkout\nis slow
└─ 1.2.4  5 %  ◌ the router confirmed 2 %
   shipped    worker:shifter (lease) at 2026-11-22 14:25:00 +01:00, offset 31
     for      person:ana (unix-peer uid=1000) at 2026-11-22 14:25:00 +01:00, offset 30
     because  checkout\nis slow
   release    pipeline:ci (lease) at 2026-11-22 14:25:00 +01:00, offset 31
   artifact   api sha256:9a1c5b3e7d2f, built from 4f2a91c
   pipeline   https://ci/8812
");
    }

    #[test]
    fn what_nobody_knew_of_the_router_is_not_shown_as_nothing() {
        let mut answer = who_shipped();
        let unrecorded = serde_json::json!([{"deployment": "production/api", "version": "1.2.3",
            "command": "01900000-0000-7000-8000-000000000009", "actor": {"kind": "person", "name": "ana", "proof": "x"},
            "reason": null, "at": "2026-11-22T13:31:00Z", "file": null, "moved": true}]);
        answer.name_unrecorded(serde_json::from_value(unrecorded).unwrap());
        let told = bare(&eyes(&answer, &now()));
        assert!(
            told.starts_with("✖ rolled back without the ledger (break-glass): person:ana sent all traffic"),
            "{told}"
        );
        assert!(told.contains("1.2.4  5 %  ◌ not known whether the router served it yet"), "{told}");
        assert_eq!(lines(&answer).lines().next().and_then(|line| line.split('\t').nth(3)), Some("-"));
    }

    #[test]
    fn a_rollback_without_the_ledger_shows_both_its_times_and_what_a_client_says_is_only_shown() {
        let mut answer = who_shipped();
        let since = answer.shipped[0].since.as_mut().unwrap();
        let earlier: jiff::Timestamp = "2026-11-22T13:20:00Z".parse().unwrap();
        since.effective_at = Some(earlier);
        assert_eq!(
            origin_words(since, &now()),
            "person:bob (lease) at 2026-11-22 14:25:00 +01:00 (said to be in effect since 2026-11-22 14:20:00 +01:00), \
             offset 31"
        );
        since.recorded_at = Some(since.time);
        assert_eq!(
            origin_words(since, &now()),
            "person:bob (lease) at 2026-11-22 14:20:00 +01:00 (without the ledger, recorded at 2026-11-22 14:25:00 \
             +01:00), offset 31"
        );
        assert!(lines(&answer).contains("2026-11-22T13:20:00Z"), "{}", lines(&answer));
    }

    #[test]
    fn a_pipe_gets_a_line_a_version() {
        assert_snapshot!(lines(&who_shipped()).replace('\t', "|"), @r"
production/api|1.2.3|95|95|2026-11-22T13:25:00Z|person:bob|lease|-|31|01900000-0000-7000-8000-000000000002|-|-|-|-
production/api|1.2.4|5|2|2026-11-22T13:25:00Z|worker:shifter|lease|person:ana|31|01900000-0000-7000-8000-000000000002|9a1c5b3e7d2f4a6b8c0d1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a6b7c8d9e0f1a2b|4f2a91c|https://ci/8812|pipeline:ci
");
    }
}
