//! What a command made happen, or would in a dry run, for eyes and pipes.

use api::wire::Answer;
use serde::Serialize;

use super::once;
use super::table::{self, Cell, paint};
use super::words::{BAD, BUSY, GOOD, column, faint, line, plain, style_of};

/// The columns of [`lines`], for help texts.
pub(crate) const COLUMNS: &str = "offset, commit, stream, type, summary, data; a line an event";

/// What happened, as JSON.
#[derive(Serialize)]
pub(crate) struct Written<'a> {
    /// The version of this form.
    pub(crate) schema_version: u16,
    /// What happened.
    #[serde(flatten)]
    pub(crate) answer: &'a Answer,
}

/// Returns what happened, an event a line.
pub(crate) fn eyes(answer: &Answer, dry_run: bool) -> String {
    if answer.events.is_empty() {
        return String::new();
    }
    let glyph = if dry_run { BUSY } else { GOOD };
    let rows: Vec<Vec<Cell>> = answer
        .events
        .iter()
        .zip(once::told(answer.events.iter().map(|event| (event.summary.as_str(), &event.data)), None))
        .map(|(event, told)| {
            let mut row = vec![Cell::glyph(glyph, &told)];
            if dry_run {
                row.push(Cell::styled(format!("{} in {}", event.kind, event.stream), faint()));
            }
            row
        })
        .collect();
    table::lines(&rows).into_iter().map(|line| line + "\n").collect()
}

/// Returns what happened as lines, one an event.
pub(crate) fn lines(answer: &Answer) -> String {
    let of_event = |event: &api::wire::Happened| {
        line(&[
            column(answer.offset),
            column(answer.commit),
            event.stream.to_string(),
            event.kind.clone(),
            event.summary.clone(),
            event.data.to_string(),
        ])
    };
    answer.events.iter().map(of_event).collect()
}

/// Returns what is said beside it: where it stands in the ledger, and what to know besides.
pub(crate) fn talk(answer: &Answer, dry_run: bool) -> Vec<String> {
    let mut lines = Vec::new();
    match (answer.commit, answer.offset) {
        _ if answer.events.is_empty() => lines.push("already so: nothing was appended".to_owned()),
        _ if dry_run => lines.push("dry run: nothing was appended".to_owned()),
        (Some(commit), Some(offset)) => {
            let repeated = if answer.repeated { ", carried out before under this command id" } else { "" };
            lines.push(format!("offset {offset}, commit {commit}{repeated}"));
        }
        _ => {}
    }
    if answer.applied == Some(true) {
        lines.push("the router confirmed it".to_owned());
    }
    lines.extend(answer.notes.iter().map(|note| format!("note: {note}")));
    lines
}

/// Returns what nobody may miss, a line a note.
pub(crate) fn loudly(notes: &[String]) -> String {
    notes.iter().map(|note| paint(&format!("{BAD} {}", plain(note)), style_of(BAD))).collect::<Vec<_>>().join("\n")
}

/// Returns lines as they are said beside data.
pub(crate) fn faintly(lines: &[String]) -> String {
    lines.iter().map(|line| paint(&plain(line), faint())).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::json;

    use super::super::examples::bare;
    use super::*;

    fn answer(dry_run: bool) -> Answer {
        let id = "01900000-0000-7000-8000-000000000001";
        let place = |value| if dry_run { json!(null) } else { value };
        serde_json::from_value(json!({"commit": place(json!(id)), "offset": place(json!(31)), "events": [
                {"stream": "deployment/production/api", "type": "traffic.weights_set",
                    "summary": "traffic was set to 1.2.3 90 %, 1.2.4 10 %", "data": {"weights": {}}},
            ], "notes": ["the router has not confirmed the weights yet"], "repeated": false}))
        .unwrap()
    }

    #[test]
    fn a_change_says_what_happened_and_where_it_stands() {
        assert_snapshot!(bare(&eyes(&answer(false), false)), @"✔ traffic was set to 1.2.3 90 %, 1.2.4 10 %");
        assert_snapshot!(talk(&answer(false), false).join("\n"), @r"
offset 31, commit 01900000-0000-7000-8000-000000000001
note: the router has not confirmed the weights yet
");
    }

    #[test]
    fn a_dry_run_names_the_events_that_would_be_appended() {
        assert_snapshot!(bare(&eyes(&answer(true), true)), @"◌ traffic was set to 1.2.3 90 %, 1.2.4 10 %  traffic.weights_set in deployment/production/api");
        assert_snapshot!(talk(&answer(true), true)[0], @"dry run: nothing was appended");
        assert_snapshot!(lines(&answer(true)).replace('\t', "|"), @r#"-|-|deployment/production/api|traffic.weights_set|traffic was set to 1.2.3 90 %, 1.2.4 10 %|{"weights":{}}"#);
    }

    #[test]
    fn a_change_that_was_already_so_says_so() {
        let answer = Answer { events: vec![], notes: vec![], ..answer(true) };
        assert_eq!(
            (eyes(&answer, false), talk(&answer, false)),
            (String::new(), vec!["already so: nothing was appended".into()])
        );
    }
}
