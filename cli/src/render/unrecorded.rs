//! Rollbacks that the ledger does not have yet, in lines that nobody may miss.

use jiff::Zoned;
use schemas::break_glass::Unrecorded;

use super::table::paint;
use super::words::{BAD, moment_and_day, plain, style_of};

/// Returns a line for each.
pub(crate) fn eyes(unrecorded: &[Unrecorded], now: &Zoned) -> String {
    let line = |one: &Unrecorded| {
        let reason = one.reason.as_ref().map(|reason| format!(", because: {reason}")).unwrap_or_default();
        let kept = one.file.as_ref().map_or("not on this machine's disk".to_owned(), |file| format!("kept in {file}"));
        let trouble = one.trouble.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        let (id, version, who, at) = (&one.deployment, one.name(), &one.actor, moment_and_day(one.at, now));
        let what = match one.moved {
            Some(true) => format!("{who} sent all traffic of {id} back to {version} at {at}"),
            Some(false) => format!(
                "{who} asked for {version} to get all traffic of {id} at {at}, and users are not known to be moved yet"
            ),
            None => format!("{who} asked for {version} to get all traffic of {id} at {at}"),
        };
        let rolled_back = if one.moved == Some(true) { "rolled back" } else { "a rollback" };
        let overtaken = one.overtaken.as_ref().map(|why| format!("; it will change nothing there: {why}"));
        let overtaken = overtaken.unwrap_or_default();
        let text = format!(
            "{rolled_back} without the ledger (break-glass): {what}{reason}; not yet in the ledger, {kept}{trouble}{overtaken}"
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
            "at": "2026-11-22T13:30:00Z", "file": "/data/glass/0193a6f0.json", "trouble": "no broker answers", "moved": true}))
        .unwrap();
        assert_snapshot!(bare(&eyes(std::slice::from_ref(&one), &now())), @"✖ rolled back without the ledger (break-glass): person:ana sent all traffic of production/api back to 1.2.2 at 2026-11-22 14:30:00, because: checkout fails; not yet in the ledger, kept in /data/glass/0193a6f0.json (no broker answers)");
        (one.reason, one.file, one.trouble) = (None, None, None);
        assert_snapshot!(bare(&eyes(std::slice::from_ref(&one), &now())), @"✖ rolled back without the ledger (break-glass): person:ana sent all traffic of production/api back to 1.2.2 at 2026-11-22 14:30:00; not yet in the ledger, not on this machine's disk");
        (one.moved, one.overtaken) = (Some(false), Some("other weights were asked for since".to_owned()));
        assert_snapshot!(bare(&eyes(std::slice::from_ref(&one), &now())), @"✖ a rollback without the ledger (break-glass): person:ana asked for 1.2.2 to get all traffic of production/api at 2026-11-22 14:30:00, and users are not known to be moved yet; not yet in the ledger, not on this machine's disk; it will change nothing there: other weights were asked for since");
        (one.moved, one.overtaken) = (None, None);
        assert_snapshot!(bare(&eyes(&[one], &now())), @"✖ a rollback without the ledger (break-glass): person:ana asked for 1.2.2 to get all traffic of production/api at 2026-11-22 14:30:00; not yet in the ledger, not on this machine's disk");
        assert_eq!(eyes(&[], &now()), "");
    }
}
