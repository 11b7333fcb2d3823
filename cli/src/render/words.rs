//! Words: how times, weights, names and states read everywhere.

use jiff::{SignedDuration, Timestamp, Zoned};
use owo_colors::Style;
use replay::answer::OtherTime;
use schemas::{Actor, Weight};

pub(crate) use schemas::text::{count, grouped};

/// Passed, ready, done.
pub(crate) const GOOD: &str = "✔";
/// Failed, came back.
pub(crate) const BAD: &str = "✖";
/// Under way.
pub(crate) const BUSY: &str = "◌";
/// Wants attention.
pub(crate) const WARN: &str = "⚠";
/// Frozen by somebody.
pub(crate) const STILL: &str = "‖";
/// There, and doing nothing.
pub(crate) const IDLE: &str = "·";

/// Returns the style of a glyph and the word beside it.
pub(crate) fn style_of(glyph: &str) -> Style {
    match glyph {
        GOOD => Style::new().green(),
        BAD => Style::new().red(),
        BUSY => Style::new().cyan(),
        WARN | STILL => Style::new().yellow(),
        _ => Style::new().dimmed(),
    }
}

/// The style of what matters less.
pub(crate) fn faint() -> Style {
    Style::new().dimmed()
}

/// The style of a thing's name.
pub(crate) fn strong() -> Style {
    Style::new().bold()
}

/// Returns text that cannot move the cursor, break a line, colour anything or hide in another: what others wrote is shown,
/// not obeyed.
pub(crate) fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            _ if c.is_control() => shown.extend(c.escape_default()),
            _ if is_invisible(c) => shown.extend(c.escape_unicode()),
            _ => shown.push(c),
        }
    }
    shown
}

/// Says whether a character has no width or only steers others, so that two texts with and without it look alike. Source:
/// the Unicode property Default_Ignorable_Code_Point, with the separators of lines and the marks between annotations.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Returns the columns of one line for a pipe; one that is empty becomes `-`.
pub(crate) fn line(columns: &[String]) -> String {
    let columns: Vec<String> =
        columns.iter().map(|column| if column.is_empty() { "-".to_owned() } else { plain(column) }).collect();
    columns.join("\t") + "\n"
}

/// Returns a value as a column: `-` where there is none.
pub(crate) fn column<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// Returns a weight as a number of percent, `90` or `0.5`.
pub(crate) fn percent(weight: Weight) -> String {
    weight.to_string().trim_end_matches(" %").to_owned()
}

/// Returns a length of time in its largest unit: `42 s`, `9 min`, `3 h`, `2 d`.
pub(crate) fn length(length: SignedDuration) -> String {
    match length.as_secs().max(0) {
        s if s < 120 => format!("{s} s"),
        s if s < 7_200 => format!("{} min", s / 60),
        s if s < 172_800 => format!("{} h", s / 3_600),
        s => format!("{} d", s / 86_400),
    }
}

/// Returns milliseconds with three figures at least where that says something: `0.42 ms`, `8.3 ms`, `212 ms`.
pub(crate) fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 => format!("{ms:.2} ms"),
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms => format!("{} ms", grouped(ms.round() as u64)),
    }
}

/// Returns how long ago `then` was: `9 min`.
pub(crate) fn age(then: Timestamp, now: &Zoned) -> String {
    length(now.timestamp().duration_since(then))
}

/// Returns a moment in the zone of `now`: `14:32:05` today, `2026-11-21 14:32:05` on other days.
pub(crate) fn moment(then: Timestamp, now: &Zoned) -> String {
    let then = then.to_zoned(now.time_zone().clone());
    let form = if then.date() == now.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
    then.strftime(form).to_string()
}

/// Returns a moment with its day in the zone of `now`: `2026-11-21 14:32:05`.
pub(crate) fn moment_and_day(then: Timestamp, now: &Zoned) -> String {
    then.to_zoned(now.time_zone().clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Returns a moment with its day and zone, as in an audit: `2026-11-21 14:32:05 +01:00`.
pub(crate) fn moment_in_full(then: Timestamp, now: &Zoned) -> String {
    then.to_zoned(now.time_zone().clone()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string()
}

/// Returns the time that a commit has besides the one from which it counts, and what it is.
pub(crate) fn other_time(other: OtherTime, now: &Zoned) -> String {
    let full = |at| moment_in_full(at, now);
    match other {
        OtherTime::Recorded(at) => format!("without the ledger, recorded at {}", full(at)),
        OtherTime::Asked(at) => format!("without the ledger, asked for at {}", full(at)),
        OtherTime::Said(at) => format!("said to be in effect since {}", full(at)),
    }
}

/// Returns an actor and how they proved who they are: `person:ana (unix-peer uid=1000)`.
pub(crate) fn actor_proved(actor: &Actor) -> String {
    format!("{} ({})", plain(&actor.to_string()), plain(&actor.proof))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_cannot_steer_a_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\tc\u{202e}d\u{9b}"), "a\\u{1b}[2Jb\\tc\\u{202e}d\\u{9b}");
        assert_eq!(plain("käse – ✔ e\u{301}"), "käse – ✔ e\u{301}");
        for hidden in [
            '\u{ad}',
            '\u{200b}',
            '\u{200c}',
            '\u{200d}',
            '\u{200e}',
            '\u{200f}',
            '\u{2060}',
            '\u{2063}',
            '\u{feff}',
            '\u{fe0f}',
            '\u{180e}',
            '\u{115f}',
            '\u{3164}',
            '\u{ffa0}',
            '\u{e0041}',
            '\u{2028}',
            '\u{2067}',
            '\u{fff9}',
        ] {
            assert_eq!(plain(&format!("1.2{hidden}.3")), format!("1.2{}.3", hidden.escape_unicode()));
        }
        assert_eq!(line(&["a\tb".into(), String::new()]), "a\\tb\t-\n");
    }

    #[test]
    fn lengths_are_told_in_their_largest_unit() {
        let told = |seconds| length(SignedDuration::from_secs(seconds));
        assert_eq!([-5, 0, 119, 120, 7_200, 172_800].map(told), ["0 s", "0 s", "119 s", "2 min", "2 h", "2 d"]);
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
