//! What `verify` found, for eyes and pipes.

use jiff::Zoned;
use replay::answer::{Compared, Verified};

use super::Render;
use super::table::{self, Cell, paint};
use super::words::{BAD, GOOD, WARN, column, count, faint, grouped, line, plain, style_of};

impl Render for Verified {
    fn eyes(&self, _: &Zoned, _: usize) -> String {
        eyes(self)
    }

    fn lines(&self) -> String {
        lines(self)
    }
}

/// Returns what was found in a few lines, the verdict first.
fn eyes(verified: &Verified) -> String {
    let (glyph, verdict) = match (&verified.bad, verified.ok) {
        (Some(bad), _) => (BAD, format!("damaged at offset {}: {}", bad.offset, plain(&bad.what))),
        (None, false) => (BAD, "the cache differs from the log".to_owned()),
        (None, true) => (GOOD, "every record is intact".to_owned()),
    };
    let mut facts = vec![
        ("ledger", column(verified.ledger)),
        ("records", format!("{}, of which {} count", grouped(verified.records), grouped(verified.counted))),
    ];
    if !verified.voids.is_empty() {
        let voids: Vec<String> = verified.voids.iter().map(|(why, n)| format!("{} {why}", grouped(*n))).collect();
        facts.push(("do not count", voids.join(", ")));
    }
    facts.push(("events", format!("{} in {}", grouped(verified.events), count(verified.streams, "stream", "streams"))));
    for (stream, what) in &verified.read_only {
        facts.push(("read-only", format!("{stream}: {what}")));
    }
    facts.push(("root", verified.root.to_string()));
    facts.push(("ledger time", column(verified.time)));
    let cache = verified.projection.as_ref().map(cache);
    if let Some((glyph, what)) = &cache {
        facts.push(("cache", format!("{glyph} {what}")));
    }
    let rows: Vec<Vec<Cell>> = facts
        .into_iter()
        .filter(|(_, fact)| !fact.is_empty())
        .map(|(name, fact)| vec![Cell::styled(name, faint()), Cell::new(fact)])
        .collect();
    let mut text = format!("{}\n", paint(&format!("{glyph} {verdict}"), style_of(glyph)));
    for row in table::lines(&rows) {
        text.push_str(&format!("  {row}\n"));
    }
    text
}

fn cache(compared: &Compared) -> (&'static str, String) {
    match compared {
        Compared::Agrees { records, .. } => (GOOD, format!("agrees, {} folded", count(*records, "record", "records"))),
        Compared::Differs { records, what } => {
            (BAD, format!("differs after {}: {what}", count(*records, "record", "records")))
        }
        Compared::Damaged { what } => (WARN, format!("damaged, the next start rebuilds it: {what}")),
        Compared::InUse => (GOOD, "in use by a running `ionledger up`, not compared".to_owned()),
    }
}

/// Returns what was found as lines, a name and a value each.
fn lines(verified: &Verified) -> String {
    let mut text = String::new();
    let mut fact = |name: &str, value: String| text.push_str(&line(&[name.to_owned(), value]));
    fact("ok", verified.ok.to_string());
    fact("ledger", column(verified.ledger));
    fact("records", verified.records.to_string());
    fact("counted", verified.counted.to_string());
    for (why, n) in &verified.voids {
        fact(&format!("void.{why}"), n.to_string());
    }
    fact("events", verified.events.to_string());
    fact("streams", verified.streams.to_string());
    for (stream, what) in &verified.read_only {
        fact("read_only", format!("{stream}: {what}"));
    }
    fact("root", verified.root.to_string());
    fact("time", column(verified.time));
    if let Some(bad) = &verified.bad {
        fact("bad.offset", bad.offset.to_string());
        fact("bad.what", bad.what.clone());
    }
    if let Some((_, what)) = verified.projection.as_ref().map(cache) {
        fact("cache", what);
    }
    text
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::json;

    use super::super::examples::{bare, verified};
    use super::*;

    #[test]
    fn a_ledger_that_holds_says_so_first() {
        assert_snapshot!(bare(&eyes(&verified(|_| {}))), @r"
✔ every record is intact
  ledger        01900000-0000-7000-8000-000000000001
  records       48,212, of which 48,210 count
  do not count  1 duplicate, 1 stale
  events        51,044 in 12 streams
  root          9a1c5b3e7d2f4a6b8c0d1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a6b7c8d9e0f1a2b
  ledger time   2026-11-22T13:31:00Z
  cache         ✔ agrees, 48,212 records folded
");
    }

    #[test]
    fn a_damaged_ledger_names_the_place() {
        let verified = verified(|verified| {
            verified["ok"] = json!(false);
            verified["bad"] = json!({"offset": 48190, "what": "the line's checksum is wrong; restore it from a copy"});
            verified["projection"] = json!({"cache": "differs", "records": 48212, "what": "the log is shorter"});
        });
        assert_snapshot!(bare(&eyes(&verified)), @r"
✖ damaged at offset 48190: the line's checksum is wrong; restore it from a copy
  ledger        01900000-0000-7000-8000-000000000001
  records       48,212, of which 48,210 count
  do not count  1 duplicate, 1 stale
  events        51,044 in 12 streams
  root          9a1c5b3e7d2f4a6b8c0d1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a6b7c8d9e0f1a2b
  ledger time   2026-11-22T13:31:00Z
  cache         ✖ differs after 48,212 records: the log is shorter
");
        assert_snapshot!(lines(&verified), @r"
ok	false
ledger	01900000-0000-7000-8000-000000000001
records	48212
counted	48210
void.duplicate	1
void.stale	1
events	51044
streams	12
root	9a1c5b3e7d2f4a6b8c0d1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a6b7c8d9e0f1a2b
time	2026-11-22T13:31:00Z
bad.offset	48190
bad.what	the line's checksum is wrong; restore it from a copy
cache	differs after 48,212 records: the log is shorter
");
    }
}
