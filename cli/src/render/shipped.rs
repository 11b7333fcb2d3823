//! Who shipped, for eyes and pipes: what served, and who put it there.

use jiff::Zoned;
use replay::answer::{At, Origin, ReleaseOrigin, Shipped, WhoShipped};

use super::table::{self, Cell, paint};
use super::words::{BUSY, GOOD, actor_proved, column, faint, line, moment_in_full, percent, plain, strong, style_of};

/// The columns of [`lines`], for help texts.
pub(crate) const COLUMNS: &str = "deployment, version, weight set, weight applied, serves since, by, proof, \
     on behalf of, offset, commit, artifact, built from, run, recorded by";

/// Returns who shipped what as a tree.
pub(crate) fn eyes(answer: &WhoShipped, now: &Zoned) -> String {
    let mut text = format!(
        "{}  {}\n",
        paint(&answer.deployment.to_string(), strong()),
        paint(&moment_of(answer.at, now), faint())
    );
    if answer.shipped.is_empty() {
        let why = match (&answer.retired_by, answer.known) {
            (Some(origin), _) => format!("nothing served: it was retired by {}", origin_words(origin, now)),
            (None, true) => "nothing served: no traffic had been set".to_owned(),
            (None, false) => "nothing served: nothing had ever been deployed".to_owned(),
        };
        text.push_str(&format!("└─ {why}\n"));
        return text;
    }
    for (n, shipped) in answer.shipped.iter().enumerate() {
        let last = n + 1 == answer.shipped.len();
        text.push_str(&shipped_tree(shipped, if last { ("└─", "   ") } else { ("├─", "│  ") }, now));
    }
    text
}

fn shipped_tree(shipped: &Shipped, (branch, below): (&str, &str), now: &Zoned) -> String {
    let version = shipped.version.as_ref().map_or_else(|| format!("stack {}", shipped.stack), ToString::to_string);
    let confirmed = match shipped.weight_applied == shipped.weight_set {
        true => paint(&format!("{GOOD} confirmed by the router"), style_of(GOOD)),
        false => paint(&format!("{BUSY} the router confirmed {}", shipped.weight_applied), style_of(BUSY)),
    };
    let mut text = format!(
        "{branch} {}  {}  {confirmed}\n",
        paint(&version, strong()),
        paint(&shipped.weight_set.to_string(), strong())
    );
    let mut facts = Vec::new();
    let mut fact = |name: &str, what: String| facts.push(vec![Cell::styled(name, faint()), Cell::new(what)]);
    if let Some(since) = &shipped.since {
        fact("shipped", origin_words(since, now));
    }
    match &shipped.weight_since {
        Some(weight) if Some(weight) != shipped.since.as_ref() => fact("this share", origin_words(weight, now)),
        _ => {}
    }
    if let Some(release) = &shipped.release {
        if let Some(recorded) = &release.recorded {
            fact("release", origin_words(recorded, now));
        }
        fact("artifact", artifact_words(release));
        if let Some(run) = &release.source.run_url {
            fact("pipeline", run.clone());
        }
    }
    for line in table::lines(&facts) {
        text.push_str(&format!("{below}{line}\n"));
    }
    text
}

fn artifact_words(release: &ReleaseOrigin) -> String {
    let hash = release.artifact.sha256.to_string();
    let built = release.source.commit.as_ref().map(|commit| format!(", built from {commit}")).unwrap_or_default();
    format!("{} sha256:{}{built}", release.artifact.name, &hash[..12])
}

/// Who, how they proved it, when and why: `person:ana (unix-peer uid=1000) at ..., offset 31; reason: hotfix`.
fn origin_words(origin: &Origin, now: &Zoned) -> String {
    let when = moment_in_full(origin.effective_at.unwrap_or(origin.time), now);
    let mut words = format!("{} at {when}, offset {}", actor_proved(&origin.actor), origin.offset);
    if let Some(behind) = &origin.on_behalf_of {
        words.push_str(&format!(
            "; for {}, who asked at {}, offset {}",
            actor_proved(&behind.actor),
            moment_in_full(behind.time, now),
            behind.offset
        ));
    }
    let reason = origin.reason.as_ref().or_else(|| origin.on_behalf_of.as_ref()?.reason.as_ref());
    if let Some(reason) = reason {
        words.push_str(&format!("; reason: {}", plain(reason)));
    }
    words
}

/// The moment that an answer speaks of: `as of 2026-11-21 14:32:05 +01:00, offset 31`.
pub(super) fn moment_of(at: At, now: &Zoned) -> String {
    match (at.time, at.offset) {
        (Some(time), Some(offset)) => format!("after offset {offset}, of {}", moment_in_full(time, now)),
        _ => "before the ledger began".to_owned(),
    }
}

/// Returns who shipped what as lines, one a version.
pub(crate) fn lines(answer: &WhoShipped) -> String {
    let of_version = |shipped: &Shipped| {
        let since = shipped.since.as_ref();
        let release = shipped.release.as_ref();
        line(&[
            answer.deployment.to_string(),
            column(shipped.version.as_ref()),
            percent(shipped.weight_set),
            percent(shipped.weight_applied),
            column(since.map(|origin| origin.time)),
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
