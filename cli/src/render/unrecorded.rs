//! Rollbacks that the ledger does not have yet, in lines that nobody may miss.

use jiff::Zoned;
use schemas::glass::Unrecorded;

use super::table::paint;
use super::words::{BAD, moment_and_day, plain, style_of};

/// Returns a line for each.
pub(crate) fn eyes(unrecorded: &[Unrecorded], now: &Zoned) -> String {
    let line = |one: &Unrecorded| {
        let reason = one.reason.as_ref().map(|reason| format!(", because: {reason}")).unwrap_or_default();
        let kept = one.file.as_ref().map_or("not on this machine's disk".to_owned(), |file| format!("kept in {file}"));
        let trouble = one.trouble.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        let (id, version, who, at) = (&one.deployment, one.name(), &one.actor, moment_and_day(one.at, now));
        let text = format!(
            "GLASS BROKEN: {who} sent all traffic of {id} back to {version} at {at}{reason}; not yet in the ledger, {kept}{trouble}"
        );
        paint(&format!("{BAD} {}", plain(&text)), style_of(BAD)) + "\n"
    };
    unrecorded.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::json;

    use super::super::examples::{bare, now};
    use super::*;

    #[test]
    fn what_the_ledger_does_not_have_yet_is_said_with_who_when_where_and_why_not() {
        let mut one: Unrecorded = serde_json::from_value(json!({
            "deployment": "production/api", "version": "1.2.2", "command": "0193a6f0-0c41-7b66-b1d2-9e4a6c8f7d03",
            "actor": {"kind": "person", "name": "ana", "proof": "unix-peer uid=1000"}, "reason": "checkout fails",
            "at": "2026-11-22T13:30:00Z", "file": "/data/glass/0193a6f0.json", "trouble": "no broker answers"}))
        .unwrap();
        assert_snapshot!(bare(&eyes(std::slice::from_ref(&one), &now())), @"✖ GLASS BROKEN: person:ana sent all traffic of production/api back to 1.2.2 at 2026-11-22 14:30:00, because: checkout fails; not yet in the ledger, kept in /data/glass/0193a6f0.json (no broker answers)");
        (one.reason, one.file, one.trouble) = (None, None, None);
        assert_snapshot!(bare(&eyes(&[one], &now())), @"✖ GLASS BROKEN: person:ana sent all traffic of production/api back to 1.2.2 at 2026-11-22 14:30:00; not yet in the ledger, not on this machine's disk");
        assert_eq!(eyes(&[], &now()), "");
    }
}
