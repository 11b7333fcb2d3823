//! What a command made happen, or would in a dry run, for eyes and pipes.

use api::wire::CommandAnswer;
use jiff::Zoned;
use serde::Serialize;

use super::Render;
use super::once;
use super::table::{self, Cell, paint};
use super::words::{BAD, BUSY, GOOD, column, faint, line, plain, style_of};

/// The columns of [`lines`], for help texts.
pub(crate) const COLUMNS: &str = "offset, commit, stream, type, summary, data; one line per event";

/// What happened, as JSON.
#[derive(Serialize)]
pub(crate) struct Written<'a> {
    /// The version of this form.
    pub(crate) schema_version: u16,
    /// What happened.
    #[serde(flatten)]
    pub(crate) answer: &'a CommandAnswer,
    /// Whether it would only happen.
    #[serde(skip)]
    pub(crate) dry_run: bool,
}

impl Render for Written<'_> {
    fn eyes(&self, _: &Zoned, _: usize) -> String {
        eyes(self.answer, self.dry_run)
    }

    fn lines(&self) -> String {
        lines(self.answer)
    }
}

/// Returns what happened, an event a line.
fn eyes(answer: &CommandAnswer, dry_run: bool) -> String {
    if answer.events.is_empty() {
        return String::new();
    }
    let glyph = if dry_run || answer.not_yet.is_some() { BUSY } else { GOOD };
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
fn lines(answer: &CommandAnswer) -> String {
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
pub(crate) fn talk(answer: &CommandAnswer, dry_run: bool) -> Vec<String> {
    let mut lines = Vec::new();
    match (answer.commit, answer.offset) {
        _ if answer.events.is_empty() && answer.not_yet.is_some() => {
            lines.push("asked for already: nothing was appended".to_owned());
        }
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

/// Returns notes that must not be overlooked, one line each.
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

    fn answer(dry_run: bool) -> CommandAnswer {
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
    fn a_rollback_that_waits_for_its_target_is_shown_as_under_way() {
        let answer =
            CommandAnswer { not_yet: Some("1.0.0~2 gets all traffic once it is ready".to_owned()), ..answer(false) };
        assert!(bare(&eyes(&answer, false)).starts_with(BUSY));
        let again = CommandAnswer { events: vec![], notes: vec![], ..answer };
        assert_eq!(talk(&again, false), ["asked for already: nothing was appended"]);
    }

    #[test]
    fn a_change_that_was_already_so_says_so() {
        let answer = CommandAnswer { events: vec![], notes: vec![], ..answer(true) };
        assert_eq!(
            (eyes(&answer, false), talk(&answer, false)),
            (String::new(), vec!["already so: nothing was appended".into()])
        );
    }
}
