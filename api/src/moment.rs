//! Moments as people and programs write them.

use jiff::civil::{Date, DateTime};
use jiff::{SpanRelativeTo, Timestamp, Zoned};

/// Why a text is no moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no time: write 2026-11-01T12:00Z, 2026-11-01T12:00[Europe/Berlin], 2026-11-01, or `2 hours ago`")]
pub struct NoMoment(String);

/// Reads a moment: RFC 3339, with a zone in brackets, without a zone (then that of `now`), a date alone (its first
/// moment), or a time before now (`2 hours ago`). Days are 24 hours.
///
/// # Errors
///
/// [`NoMoment`] repeats at most 60 characters of the text.
pub fn parse(text: &str, now: &Zoned) -> Result<Timestamp, NoMoment> {
    let text = text.trim();
    let zone = now.time_zone();
    let zoned = |civil: DateTime| civil.to_zoned(zone.clone()).ok().map(|zoned| zoned.timestamp());
    // A civil time is tried after those with an offset, because it would read them and ignore it.
    let found = text
        .parse::<Timestamp>()
        .ok()
        .or_else(|| text.parse::<Zoned>().ok().map(|zoned| zoned.timestamp()))
        .or_else(|| (text == "now").then(|| now.timestamp()))
        .or_else(|| before(text, now))
        .or_else(|| if has_zone(text) { None } else { text.parse::<DateTime>().ok().and_then(zoned) })
        .or_else(|| text.parse::<Date>().ok().and_then(|date| zoned(date.at(0, 0, 0, 0))));
    found.ok_or_else(|| NoMoment(text.chars().take(60).flat_map(char::escape_default).collect()))
}

fn before(text: &str, now: &Zoned) -> Option<Timestamp> {
    let span = text.strip_suffix("ago")?.trim().parse::<jiff::Span>().ok()?;
    let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    now.timestamp().checked_sub(length).ok().filter(|_| !length.is_negative())
}

fn has_zone(text: &str) -> bool {
    let time = text.split_once(['T', ' ']).map_or("", |(_, time)| time);
    time.contains(['+', '-', 'Z', 'z', '['])
}

/// Reads a length of time in milliseconds: `10 s`, `1h 30m`, `2 days`. Days are 24 hours, weeks 7 of them.
///
/// # Errors
///
/// What is wrong with it.
pub fn duration_ms(text: &str) -> Result<u64, String> {
    let shown: String = text.chars().take(40).flat_map(char::escape_default).collect();
    let wrong = |_| format!("`{shown}` is no length of time: write `10 s`, `1h 30m`, `24 hours` or `2 days`");
    let span = text.trim().parse::<jiff::Span>().map_err(wrong)?;
    if span.get_years() != 0 || span.get_months() != 0 {
        return Err(format!("`{shown}`: months and years differ in length; write days or weeks"));
    }
    let days = span.get_days().checked_add(span.get_weeks().saturating_mul(7)).unwrap_or(i32::MAX);
    let clock = span.days(0).weeks(0).to_duration(SpanRelativeTo::days_are_24_hours()).map_err(wrong)?;
    let total = i128::from(days) * 86_400_000_000_000 + clock.as_nanos();
    if total < 0 {
        return Err(format!("`{shown}` is less than nothing"));
    }
    if total % 1_000_000 != 0 {
        return Err(format!("`{shown}` is finer than a millisecond"));
    }
    u64::try_from(total / 1_000_000).map_err(|_| format!("`{shown}` is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_written_form_of_a_moment_is_read() {
        let now: Zoned = "2026-11-22T23:00:00+01:00[Europe/Berlin]".parse().unwrap();
        for (text, expected) in [
            ("2026-11-01T12:00Z", "2026-11-01T12:00:00Z"),
            ("2026-11-01T12:00:00.5+02:00", "2026-11-01T10:00:00.5Z"),
            ("2026-11-01 12:00Z", "2026-11-01T12:00:00Z"),
            ("2026-11-01T12:00[America/New_York]", "2026-11-01T17:00:00Z"),
            ("2026-11-01T12:00", "2026-11-01T11:00:00Z"),
            ("2026-11-01", "2026-10-31T23:00:00Z"),
            ("2 hours ago", "2026-11-22T20:00:00Z"),
            ("1 day ago", "2026-11-21T22:00:00Z"),
            ("now", "2026-11-22T22:00:00Z"),
        ] {
            assert_eq!(parse(text, &now).unwrap(), expected.parse::<Timestamp>().unwrap(), "{text}");
        }
        for text in ["", "yesterday", "2026-13-01", "12:00", "-2 hours ago", "2026-11-01T12:00+99:00", "5"] {
            assert!(parse(text, &now).is_err(), "{text}");
        }
    }

    #[test]
    fn lengths_of_time_are_read_in_milliseconds() {
        for (text, ms) in [
            ("10 s", 10_000),
            ("250ms", 250),
            ("1h 30m", 5_400_000),
            ("24 hours", 86_400_000),
            ("1 day", 86_400_000),
            ("2 weeks", 14 * 86_400_000),
            ("1 week 1 day", 8 * 86_400_000),
            ("PT1M", 60_000),
            ("0 s", 0),
        ] {
            assert_eq!(duration_ms(text), Ok(ms), "{text}");
        }
        for text in ["", "10", "ten seconds", "1 month", "-1 s", "10 us", "99999999999999999999 s"] {
            assert!(duration_ms(text).is_err(), "{text}");
        }
    }
}
