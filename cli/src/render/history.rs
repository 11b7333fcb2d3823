//! History for eyes and pipes: what happened, commit by commit, and who was behind it.

use jiff::Zoned;
use replay::answer::{Happened, HistoryAnswer, HistoryEntry};
use schemas::{Actor, ActorKind};
use serde::Serialize;

use super::Render;
use super::table::{self, Cell, paint};
use super::words::{BAD, WARN, column, faint, line, moment_and_day, other_time, plain, strong, style_of};
use super::{once, unrecorded};
use crate::failure::{CommandResult, Failure};

/// The columns of [`lines`], for help texts.
pub(crate) const COLUMNS: &str =
    "offset, time, commit, actor, proof, on behalf of, void, stream, type, summary, reason; one line per event";

/// What an empty history is.
pub(crate) const NOTHING: &str = "no commit matches";

impl Render for HistoryAnswer {
    fn eyes(&self, now: &Zoned, _: usize) -> String {
        eyes(self, now)
    }

    fn lines(&self) -> String {
        lines(self)
    }

    fn nothing(&self, _: &Zoned) -> Option<String> {
        Some(NOTHING.to_owned())
    }
}

/// Returns the history as a table, the newest commit first.
pub(crate) fn eyes(history: &HistoryAnswer, now: &Zoned) -> String {
    let unrecorded = unrecorded::eyes(&history.unrecorded, now);
    if history.entries.is_empty() {
        return format!("{unrecorded}{NOTHING}\n");
    }
    let head = ["offset".to_owned(), format!("time ({})", now.strftime("%:z")), "who".to_owned(), "what".to_owned()];
    let head: Vec<Cell> = head.iter().map(|name| Cell::styled(name, faint())).collect();
    let rows = history.entries.iter().flat_map(|entry| rows(entry, now));
    let rows: Vec<Vec<Cell>> = std::iter::once(head).chain(rows).collect();
    let mut text = unrecorded;
    text.extend(table::lines(&rows).into_iter().map(|line| line + "\n"));
    if history.more {
        text.push_str(&format!("{}\n", paint("there is more; see --limit and --since", faint())));
    }
    text
}

/// A commit's rows: its events below each other, beside the first when it was and who, and then why.
fn rows(entry: &HistoryEntry, now: &Zoned) -> Vec<Vec<Cell>> {
    let behind = entry.on_behalf_of.as_ref();
    let reason = entry.reason.as_ref().or_else(|| behind?.reason.as_ref());
    let said =
        once::told(entry.events.iter().map(|event| (event.summary.as_str(), &event.data)), reason.map(|why| &**why));
    let mut told: Vec<Cell> = match entry.void {
        Some(void) => {
            let what = entry.events.first().map(|event| format!(": {}", event.summary)).unwrap_or_default();
            vec![Cell::styled(format!("{BAD} does not count ({void}){what}"), style_of(BAD))]
        }
        None => said.iter().map(Cell::new).collect(),
    };
    if let Some(why) = &entry.missing {
        told.push(Cell::styled(format!("{WARN} what happened cannot be told now: {why}"), style_of(WARN)));
    }
    if let Some(reason) = reason.filter(|reason| entry.void.is_some() || !once::is_told(&said, reason)) {
        told.push(Cell::styled(format!("because: {reason}"), faint()));
    }
    told.extend(entry.other_time().map(|other| Cell::styled(other_time(other, now), faint())));
    let mut who = vec![Cell::styled(column(entry.actor.as_ref().map(short)), strong())];
    who.extend(behind.map(|behind| Cell::styled(format!("for {} (at {})", behind.actor, behind.offset), faint())));
    let first = [Cell::styled(entry.offset.to_string(), faint()), Cell::new(moment_and_day(entry.counts_from(), now))];
    let blank = || Cell::new("");
    let count = told.len().max(who.len());
    let firsts = std::iter::once(first).chain(std::iter::repeat_with(|| [blank(), blank()]));
    let who = who.into_iter().chain(std::iter::repeat_with(blank));
    let told = told.into_iter().chain(std::iter::repeat_with(blank));
    firsts.zip(who).zip(told).take(count).map(|(([offset, time], who), told)| vec![offset, time, who, told]).collect()
}

/// An actor without the instance that a worker's name ends with.
fn short(actor: &Actor) -> String {
    let name = match actor.kind {
        ActorKind::Worker => actor.name.split('/').next().unwrap_or(&actor.name),
        ActorKind::Person | ActorKind::Pipeline | ActorKind::System => &actor.name,
    };
    format!("{}:{name}", actor.kind)
}

/// Returns the history as lines, one an event; a record without events has one line.
pub(crate) fn lines(history: &HistoryAnswer) -> String {
    let of_entry = |entry: &HistoryEntry| match entry.events.is_empty() {
        true => event_line(entry, None),
        false => entry.events.iter().map(|event| event_line(entry, Some(event))).collect(),
    };
    history.entries.iter().map(of_entry).collect()
}

/// Returns the beginning of a history that is written page by page as JSON; [`json_entries`] and [`json_end`] follow.
pub(crate) fn json_head(first: &HistoryAnswer) -> CommandResult<String> {
    let (service, environment) = (json(&first.service)?, json(&first.environment)?);
    let version = first.schema_version;
    Ok(format!("{{\"schema_version\":{version},\"service\":{service},\"environment\":{environment},\"entries\":["))
}

/// Returns a page's entries, with commas between them.
pub(crate) fn json_entries(page: &HistoryAnswer) -> CommandResult<String> {
    let entries: CommandResult<Vec<String>> = page.entries.iter().map(json).collect();
    Ok(entries?.join(","))
}

/// Returns the end, as the last page has it.
pub(crate) fn json_end(last: &HistoryAnswer) -> CommandResult<String> {
    let unrecorded = match last.unrecorded.is_empty() {
        true => String::new(),
        false => format!(",\"unrecorded\":{}", json(&last.unrecorded)?),
    };
    Ok(format!("],\"more\":{}{unrecorded}}}\n", last.more))
}

fn json(value: &impl Serialize) -> CommandResult<String> {
    serde_json::to_string(value).map_err(|error| Failure::error(format!("the answer is not valid JSON: {error}")))
}

fn event_line(entry: &HistoryEntry, event: Option<&Happened>) -> String {
    line(&[
        entry.offset.to_string(),
        entry.counts_from().to_string(),
        column(entry.commit),
        column(entry.actor.as_ref()),
        column(entry.actor.as_ref().map(|actor| &actor.proof)),
        column(entry.on_behalf_of.as_ref().map(|behind| &behind.actor)),
        column(entry.void),
        column(event.map(|event| &event.stream)),
        column(event.map(|event| &event.kind)),
        column(event.map(|event| plain(&event.summary)).or_else(|| entry.missing.as_ref().map(|why| plain(why)))),
        column(entry.reason.as_ref()),
    ])
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::super::examples::{bare, history, now};
    use super::*;

    #[test]
    fn history_shows_what_who_for_whom_and_why_and_what_does_not_count() {
        assert_snapshot!(bare(&eyes(&history(), &now())), @r"
offset  time (+01:00)        who                     what
33      2026-11-22 14:30:00                          ✖ does not count (malformed)
32      2026-11-22 14:30:00  worker:traffic-shifter  1.2.4 got 5 % (step 3)
                             for person:ana (at 30)  traffic was set to 1.2.3 95 %, 1.2.4 5 % (step 3)
                                                     because: checkout\nis slow
31      2026-11-22 14:30:00  person:bob              ✖ does not count (stale): traffic was set to 1.2.4 100 %
                                                     because: hotfix
there is more; see --limit and --since
");
    }

    #[test]
    fn a_rollback_without_the_ledger_is_told_at_the_time_at_which_it_took_effect() {
        let mut whole = history();
        whole.entries.drain(..2);
        let entry = &mut whole.entries[0];
        entry.effective_at = Some("2026-11-22T13:20:00Z".parse().unwrap());
        entry.recorded_at = Some(entry.time);
        assert_snapshot!(bare(&eyes(&whole, &now())), @r"
offset  time (+01:00)        who         what
31      2026-11-22 14:20:00  person:bob  ✖ does not count (stale): traffic was set to 1.2.4 100 %
                                         because: hotfix
                                         without the ledger, recorded at 2026-11-22 14:30:00 +01:00
there is more; see --limit and --since
");
        let entry = &mut whole.entries[0];
        (entry.asked_at, entry.effective_at, entry.recorded_at) = (entry.effective_at, None, None);
        assert_snapshot!(bare(&eyes(&whole, &now())), @r"
offset  time (+01:00)        who         what
31      2026-11-22 14:30:00  person:bob  ✖ does not count (stale): traffic was set to 1.2.4 100 %
                                         because: hotfix
                                         without the ledger, asked for at 2026-11-22 14:20:00 +01:00
there is more; see --limit and --since
");
    }

    #[test]
    fn json_page_by_page_is_the_json_of_the_whole() {
        let whole = history();
        let entries = &whole.entries;
        let page = |from: usize, to: usize| HistoryAnswer { entries: entries[from..to].to_vec(), ..whole.clone() };
        let text = [
            json_head(&page(0, 1)).unwrap(),
            json_entries(&page(0, 1)).unwrap(),
            ",".to_owned(),
            json_entries(&page(1, entries.len())).unwrap(),
            json_end(&page(1, entries.len())).unwrap(),
        ];
        assert_eq!(text.concat(), serde_json::to_string(&whole).unwrap() + "\n");
    }

    #[test]
    fn a_pipe_gets_a_line_an_event() {
        assert_snapshot!(lines(&history()).replace('\t', "|"), @r"
33|2026-11-22T13:30:00Z|-|-|-|-|malformed|-|-|-|-
32|2026-11-22T13:30:00Z|01900000-0000-7000-8000-000000000002|worker:traffic-shifter/41@2026-11-22T13:00:00Z|lease|person:ana|-|deployment/production/api|rollout.step_taken|1.2.4 got 5 % (step 3)|-
32|2026-11-22T13:30:00Z|01900000-0000-7000-8000-000000000002|worker:traffic-shifter/41@2026-11-22T13:00:00Z|lease|person:ana|-|deployment/production/api|traffic.weights_set|traffic was set to 1.2.3 95 %, 1.2.4 5 % (step 3)|-
31|2026-11-22T13:30:00Z|01900000-0000-7000-8000-000000000001|person:bob|unix-peer uid=1001|-|stale|deployment/production/api|traffic.weights_set|traffic was set to 1.2.4 100 %|hotfix
");
    }
}
