//! History for eyes and pipes: what happened, commit by commit, and who was behind it.

use jiff::Zoned;
use replay::answer::{Happened, History, HistoryEntry};

use super::table::{self, Cell, paint};
use super::words::{BAD, column, faint, line, moment_in_full, plain, strong, style_of};

/// The columns of [`lines`], for help texts.
pub(crate) const COLUMNS: &str =
    "offset, time, commit, actor, proof, on behalf of, void, stream, type, summary, reason; a line an event";

/// Returns the history as a table, the newest commit first.
pub(crate) fn eyes(history: &History, now: &Zoned) -> String {
    if history.entries.is_empty() {
        return "nothing happened\n".to_owned();
    }
    let rows: Vec<Vec<Cell>> = history.entries.iter().flat_map(|entry| rows(entry, now)).collect();
    let mut text: String = table::lines(&rows).into_iter().map(|line| line + "\n").collect();
    if history.more {
        text.push_str(&format!("{}\n", paint("there is more; see --limit and --since", faint())));
    }
    text
}

/// A commit's rows: its events below each other, beside the first when it was and who, and then why.
fn rows(entry: &HistoryEntry, now: &Zoned) -> Vec<Vec<Cell>> {
    let head = [
        Cell::styled(entry.offset.to_string(), faint()),
        Cell::new(moment_in_full(entry.effective_at.unwrap_or(entry.time), now)),
        Cell::styled(column(entry.actor.as_ref()), strong()),
    ];
    let mut told: Vec<Cell> = match entry.void {
        Some(void) => {
            let what = entry.events.first().map(|event| format!(": {}", event.summary)).unwrap_or_default();
            vec![Cell::styled(format!("{BAD} does not count ({void}){what}"), style_of(BAD))]
        }
        None => entry.events.iter().map(|event| Cell::new(&event.summary)).collect(),
    };
    let behind = entry.on_behalf_of.as_ref();
    if let Some(behind) = behind {
        told.push(Cell::styled(format!("for {}, who asked at offset {}", behind.actor, behind.offset), faint()));
    }
    if let Some(reason) = entry.reason.as_ref().or_else(|| behind?.reason.as_ref()) {
        told.push(Cell::styled(format!("reason: {reason}"), faint()));
    }
    if told.is_empty() {
        told.push(Cell::new(""));
    }
    let blank = || std::array::from_fn::<Cell, 3, _>(|_| Cell::new(""));
    let heads = std::iter::once(head).chain(std::iter::repeat_with(blank));
    heads.zip(told).map(|(head, told)| head.into_iter().chain([told]).collect()).collect()
}

/// Returns the history as lines, one an event; a record without events has one line.
pub(crate) fn lines(history: &History) -> String {
    let of_entry = |entry: &HistoryEntry| match entry.events.is_empty() {
        true => event_line(entry, None),
        false => entry.events.iter().map(|event| event_line(entry, Some(event))).collect(),
    };
    history.entries.iter().map(of_entry).collect()
}

fn event_line(entry: &HistoryEntry, event: Option<&Happened>) -> String {
    line(&[
        entry.offset.to_string(),
        entry.time.to_string(),
        column(entry.commit),
        column(entry.actor.as_ref()),
        column(entry.actor.as_ref().map(|actor| &actor.proof)),
        column(entry.on_behalf_of.as_ref().map(|behind| &behind.actor)),
        column(entry.void),
        column(event.map(|event| &event.stream)),
        column(event.map(|event| &event.kind)),
        column(event.map(|event| plain(&event.summary))),
        column(entry.reason.as_ref()),
    ])
}
