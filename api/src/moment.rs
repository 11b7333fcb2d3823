//! Moments as people and programs write them.
//!
//! A text that does not name exactly one moment is an error. Nothing is guessed: nobody could see that an answer is about
//! another moment.
//! The data of time zones is built in, so that a text means the same on every machine.

use std::sync::LazyLock;

use jiff::civil::{Date, DateTime};
use jiff::fmt::temporal::{
    DateTimeParser, Pieces, PiecesNumericOffset, PiecesOffset, TimeZoneAnnotation, TimeZoneAnnotationKind,
};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase};
use jiff::{SpanRelativeTo, Timestamp, Zoned};

static PARSER: DateTimeParser = DateTimeParser::new();

/// Every zone's rules, as they are built into the program.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// The smallest likeness (0 to 1) at which a zone is taken for the one that was meant.
const LIKENESS_MIN: f64 = 0.8;

/// Why a text is no moment. Every message repeats at most 60 characters of the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoMoment {
    /// It has none of the forms.
    #[error(
        "`{0}` is not a time; write 2026-11-01T12:00Z, 2026-11-01T12:00[Europe/Berlin], 2026-11-01, or `2 hours ago`"
    )]
    Unreadable(String),
    /// It counts in months or years, which differ in length.
    #[error("`{0}` is not a time: months and years differ in length; write days, or a date")]
    Calendar(String),
    /// It names a leap second, which no clock here tells from the second before or after it.
    #[error("`{0}` is not a time: a leap second has no moment of its own here; write :59 or the next minute's :00")]
    LeapSecond(String),
    /// Its zone is unknown.
    #[error("`{text}`: unknown time zone `{zone}`; {next}")]
    UnknownZone {
        /// The text.
        text: String,
        /// The zone.
        zone: String,
        /// What to write instead.
        next: String,
    },
    /// It names no zone, and this machine's own is not known.
    #[error(
        "`{0}` has no time zone, and this machine's is unknown (TZ names a zone that does not exist); add one, as Z \
         or [Europe/Berlin]"
    )]
    NoZone(String),
    /// Its offset is not that of its zone.
    #[error("`{text}`: the time in {zone} is not at {offset} then; write {expected}, or leave out the offset")]
    Contradiction {
        /// The text.
        text: String,
        /// The zone.
        zone: String,
        /// The offset that is written.
        offset: Offset,
        /// The zone's offset at that moment.
        expected: Offset,
    },
    /// Its zone's clocks were put forward over it.
    #[error("`{text}` does not exist in {zone}: its clocks skipped that time; the first moment after it is {after}")]
    Skipped {
        /// The text.
        text: String,
        /// The zone.
        zone: String,
        /// The first moment that was.
        after: String,
    },
    /// Its zone's clocks showed it twice.
    #[error("`{text}` happened twice in {zone}, as its clocks were put back; write {first} or {second}")]
    Ambiguous {
        /// The text.
        text: String,
        /// The zone.
        zone: String,
        /// The earlier moment.
        first: String,
        /// The later moment.
        second: String,
    },
}

/// Reads a moment: RFC 3339, with a zone in brackets (RFC 9557), without a zone (then that of `now`), a date alone or
/// with a zone (its first moment there), or a time before now (`2 hours ago`). Days are 24 hours.
///
/// # Errors
///
/// [`NoMoment`] says what is wrong with the text and what to write instead.
pub fn parse(text: &str, now: &Zoned) -> Result<Timestamp, NoMoment> {
    let text = text.trim();
    if text == "now" {
        return Ok(now.timestamp());
    }
    if let Some(span) = text.strip_suffix("ago") {
        return before(text, span, now);
    }
    let pieces = PARSER.parse_pieces(text).map_err(|_| NoMoment::Unreadable(shown(text)))?;
    if names_leap_second(text) {
        return Err(NoMoment::LeapSecond(shown(text)));
    }
    let zone = pieces.time_zone_annotation().map(|zone| find(text, zone)).transpose()?;
    match (pieces.time(), pieces.offset()) {
        (None, _) => first_of(text, pieces.date(), &zone_or_own(text, zone, now)?),
        (Some(time), None) => only(text, pieces.date().to_datetime(time), &zone_or_own(text, zone, now)?),
        (Some(_), Some(offset)) => at_offset(text, &pieces, offset, zone),
    }
}

fn before(text: &str, span: &str, now: &Zoned) -> Result<Timestamp, NoMoment> {
    let unreadable = || NoMoment::Unreadable(shown(text));
    let span = span.trim().parse::<jiff::Span>().map_err(|_| unreadable())?;
    if span.get_years() != 0 || span.get_months() != 0 {
        return Err(NoMoment::Calendar(shown(text)));
    }
    let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| unreadable())?;
    now.timestamp().checked_sub(length).ok().filter(|_| !length.is_negative()).ok_or_else(unreadable)
}

/// Says whether the second of a readable time is written as 60, which the parser takes for 59.
fn names_leap_second(text: &str) -> bool {
    let time = text.split_once(['T', 't', ' ']).map_or("", |(_, time)| time);
    let clock = time.split(['.', ',', '+', '-', 'Z', 'z', '[']).next().unwrap_or_default();
    let digits: String = clock.chars().filter(char::is_ascii_digit).collect();
    digits.len() == 6 && digits.ends_with("60")
}

fn find(text: &str, annotation: &TimeZoneAnnotation<'_>) -> Result<TimeZone, NoMoment> {
    let zone = match annotation.kind() {
        TimeZoneAnnotationKind::Offset(offset) => return Ok(TimeZone::fixed(*offset)),
        TimeZoneAnnotationKind::Named(name) => name.as_str(),
        _ => "",
    };
    let unknown = || NoMoment::UnknownZone { text: shown(text), zone: shown(zone), next: meant(zone) };
    ZONES.get(zone).ok().filter(|found| !found.is_unknown()).ok_or_else(unknown)
}

/// Returns the hint for an unknown time zone: the known zone with the most similar name, else the form of a zone.
fn meant(zone: &str) -> String {
    let likeness = |name: &str| strsim::jaro_winkler(&name.to_lowercase(), &zone.to_lowercase());
    let known = ZONES.available().map(|name| (likeness(name.as_str()), name.as_str().to_owned()));
    let closest = known.filter(|(likeness, _)| *likeness > LIKENESS_MIN).max_by(|a, b| a.0.total_cmp(&b.0));
    closest.map_or_else(
        || "write one of the IANA database, as Europe/Berlin, or an offset, as +01:00".to_owned(),
        |(_, name)| format!("did you mean {name}?"),
    )
}

fn zone_or_own(text: &str, zone: Option<TimeZone>, now: &Zoned) -> Result<TimeZone, NoMoment> {
    let zone = zone.unwrap_or_else(|| now.time_zone().clone());
    if zone.is_unknown() { Err(NoMoment::NoZone(shown(text))) } else { Ok(zone) }
}

/// Returns the moment that a written offset gives, which must be that of the zone if there is one, too.
fn at_offset(
    text: &str,
    pieces: &Pieces<'_>,
    written: PiecesOffset,
    zone: Option<TimeZone>,
) -> Result<Timestamp, NoMoment> {
    let time = pieces.time().unwrap_or_default();
    let offset = written.to_numeric_offset();
    let unreadable = |_| NoMoment::Unreadable(shown(text));
    let moment = offset.to_timestamp(pieces.date().to_datetime(time)).map_err(unreadable)?;
    // `Z` and `-00:00` say that the moment is in UTC and nothing of the place (RFC 9557, section 2).
    let of_place = !matches!(written, PiecesOffset::Zulu) && written != negative_zero();
    if let Some(zone) = zone.filter(|_| of_place) {
        let expected = zone.to_offset(moment);
        if !same_minute(expected, offset) {
            let zone = name_of(&zone);
            return Err(NoMoment::Contradiction { text: shown(text), zone, offset, expected });
        }
    }
    Ok(moment)
}

fn negative_zero() -> PiecesOffset {
    PiecesNumericOffset::from(Offset::UTC).with_negative_zero().into()
}

/// RFC 3339 writes offsets in minutes; zones had seconds until about 1900.
fn same_minute(zone: Offset, written: Offset) -> bool {
    zone == written || (written.seconds() % 60 == 0 && (zone.seconds() - written.seconds()).abs() <= 30)
}

/// Returns the one moment at which the zone's clocks showed `civil`.
fn only(text: &str, civil: DateTime, zone: &TimeZone) -> Result<Timestamp, NoMoment> {
    let found = zone.to_ambiguous_timestamp(civil);
    let unreadable = |_| NoMoment::Unreadable(shown(text));
    match found.offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(civil).map_err(unreadable),
        AmbiguousOffset::Gap { before, .. } => {
            let after = after_gap(before.to_timestamp(civil).map_err(unreadable)?, zone);
            Err(NoMoment::Skipped { text: shown(text), zone: name_of(zone), after: written(after, zone) })
        }
        AmbiguousOffset::Fold { before, after } => {
            let at = |offset: Offset| offset.to_timestamp(civil).map_err(unreadable).map(|at| written(at, zone));
            let (first, second) = (at(before)?, at(after)?);
            Err(NoMoment::Ambiguous { text: shown(text), zone: name_of(zone), first, second })
        }
    }
}

/// Returns the first moment of a day in a zone. A day that a zone left out has none.
fn first_of(text: &str, date: Date, zone: &TimeZone) -> Result<Timestamp, NoMoment> {
    let first = date.to_zoned(zone.clone()).and_then(|any| any.start_of_day());
    let first = first.map_err(|_| NoMoment::Unreadable(shown(text)))?;
    if first.date() == date {
        return Ok(first.timestamp());
    }
    let after = after_gap(first.timestamp(), zone);
    Err(NoMoment::Skipped { text: shown(text), zone: name_of(zone), after: written(after, zone) })
}

/// Returns when the zone's clocks were put forward, the last time until `moment`, which lies behind that.
fn after_gap(moment: Timestamp, zone: &TimeZone) -> Timestamp {
    // A transition at `moment` itself counts, too.
    let until = moment.checked_add(jiff::SignedDuration::from_nanos(1)).unwrap_or(moment);
    zone.preceding(until).next().map_or(moment, |transition| transition.timestamp())
}

/// Writes a moment as it can be asked for: `2026-10-25T02:30:00+02:00`.
fn written(moment: Timestamp, zone: &TimeZone) -> String {
    moment.display_with_offset(zone.to_offset(moment)).to_string()
}

fn name_of(zone: &TimeZone) -> String {
    match (zone.iana_name(), zone.to_fixed_offset()) {
        (Some(name), _) => name.to_owned(),
        (None, Ok(offset)) => offset.to_string(),
        (None, Err(_)) => "this machine's time zone".to_owned(),
    }
}

/// Returns at most 60 characters of what somebody wrote, without control characters.
fn shown(text: &str) -> String {
    text.chars().take(60).flat_map(char::escape_default).collect()
}

/// Reads a length of time in milliseconds: `10 s`, `1h 30m`, `2 days`. Days are 24 hours, weeks 7 of them.
///
/// # Errors
///
/// What is wrong with it.
pub fn duration_ms(text: &str) -> Result<u64, String> {
    let shown: String = text.chars().take(40).flat_map(char::escape_default).collect();
    let wrong = |_| format!("`{shown}` is not a length of time; write `10 s`, `1h 30m`, `24 hours` or `2 days`");
    let span = text.trim().parse::<jiff::Span>().map_err(wrong)?;
    if span.get_years() != 0 || span.get_months() != 0 {
        return Err(format!("`{shown}`: months and years differ in length; write days or weeks"));
    }
    let days = span.get_days().checked_add(span.get_weeks().saturating_mul(7)).unwrap_or(i32::MAX);
    let clock = span.days(0).weeks(0).to_duration(SpanRelativeTo::days_are_24_hours()).map_err(wrong)?;
    let total = i128::from(days) * 86_400_000_000_000 + clock.as_nanos();
    if total < 0 {
        return Err(format!("`{shown}` is negative; write a length of time without the minus, as `1h`"));
    }
    if total % 1_000_000 != 0 {
        return Err(format!("`{shown}` is finer than a millisecond"));
    }
    u64::try_from(total / 1_000_000).map_err(|_| format!("`{shown}` is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> Zoned {
        let zone = ZONES.get("Europe/Berlin").unwrap();
        "2026-11-22T22:00:00Z".parse::<Timestamp>().unwrap().to_zoned(zone)
    }

    fn refused(text: &str) -> String {
        parse(text, &berlin()).expect_err(text).to_string()
    }

    #[test]
    fn every_written_form_of_a_moment_is_read() {
        for (text, expected) in [
            ("2026-11-01T12:00Z", "2026-11-01T12:00:00Z"),
            ("2026-11-01T12:00:00.5+02:00", "2026-11-01T10:00:00.5Z"),
            ("2026-11-01 12:00Z", "2026-11-01T12:00:00Z"),
            ("2026-11-01T12:00[America/New_York]", "2026-11-01T17:00:00Z"),
            ("2026-11-01T12:00[america/new_york]", "2026-11-01T17:00:00Z"),
            ("2026-11-01T12:00+01:00[Europe/Berlin]", "2026-11-01T11:00:00Z"),
            ("2026-11-01T12:00Z[Europe/Berlin]", "2026-11-01T12:00:00Z"),
            ("2026-11-01T12:00-00:00[Europe/Berlin]", "2026-11-01T12:00:00Z"),
            ("2026-11-01T12:00+02:00[+02:00]", "2026-11-01T10:00:00Z"),
            ("2026-11-01T12:00", "2026-11-01T11:00:00Z"),
            ("2026-11-01", "2026-10-31T23:00:00Z"),
            ("2026-11-01[America/New_York]", "2026-11-01T04:00:00Z"),
            ("2026-10-25T02:30+02:00[Europe/Berlin]", "2026-10-25T00:30:00Z"),
            ("2026-10-25T02:30+01:00[Europe/Berlin]", "2026-10-25T01:30:00Z"),
            ("1890-01-01T12:00+00:53[Europe/Berlin]", "1890-01-01T11:07:00Z"),
            ("2 hours ago", "2026-11-22T20:00:00Z"),
            ("1 day ago", "2026-11-21T22:00:00Z"),
            ("now", "2026-11-22T22:00:00Z"),
        ] {
            assert_eq!(parse(text, &berlin()), Ok(expected.parse::<Timestamp>().unwrap()), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2026-13-01",
            "2026-02-30",
            "12:00",
            "-2 hours ago",
            "2 hours ago ago",
            "5",
            "ago",
            "2026-11-01T12:00+99:00",
            "2026-11-01T25:00",
            "2026-11-01Z",
            "2026-11-01+02:00",
            "2026-11-01T12:00 +02:00",
            "2026-11-01T12:00[Europe/Berlin",
            "2026-11-01T12:00[Europe/Berlin][Europe/Paris]",
            "2026-11-01T12:00[!u-ca=hebrew]",
            "[Europe/Berlin]",
        ] {
            assert!(parse(text, &berlin()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_zone_that_nobody_knows_is_named_with_the_one_that_was_meant() {
        for text in [
            "2026-10-26T10:00:30[Europe/Berln]",
            "2026-10-26T10:00:30Z[Europe/Berln]",
            "2026-10-26T10:00:30+01:00[Europe/Berln]",
            "2026-10-26[Europe/Berln]",
        ] {
            assert_eq!(
                refused(text),
                format!("`{text}`: unknown time zone `Europe/Berln`; did you mean Europe/Berlin?")
            );
        }
        for zone in ["Mars/Phobos", "Etc/Unknown", "XYZ"] {
            let refused = refused(&format!("2026-10-26T10:00[{zone}]"));
            assert!(refused.contains(&format!("unknown time zone `{zone}`; ")), "{refused}");
        }
    }

    #[test]
    fn an_offset_that_is_not_its_zones_is_refused() {
        for (text, zone, offset, expected) in [
            ("2026-11-01T12:00+02:00[Europe/Berlin]", "Europe/Berlin", "+02", "+01"),
            ("2026-07-01T12:00+01:00[Europe/Berlin]", "Europe/Berlin", "+01", "+02"),
            ("2026-11-01T12:00+00:00[Europe/Berlin]", "Europe/Berlin", "+00", "+01"),
            ("2026-11-01T12:00+02:00[+03:00]", "+03", "+02", "+03"),
        ] {
            let why = format!("the time in {zone} is not at {offset} then; write {expected}, or leave out the offset");
            assert_eq!(refused(text), format!("`{text}`: {why}"));
        }
        assert!(refused("2026-03-29T02:30+01:00[Europe/Berlin]").contains("is not at +01 then; write +02"));
    }

    #[test]
    fn a_time_that_the_clocks_skipped_never_was() {
        for (text, zone, after) in [
            ("2026-03-29T02:30", "Europe/Berlin", "2026-03-29T03:00:00+02:00"),
            ("2026-03-29T02:00[Europe/Berlin]", "Europe/Berlin", "2026-03-29T03:00:00+02:00"),
            ("2018-11-04T00:30[America/Sao_Paulo]", "America/Sao_Paulo", "2018-11-04T01:00:00-02:00"),
            ("2011-12-30[Pacific/Apia]", "Pacific/Apia", "2011-12-31T00:00:00+14:00"),
            ("2011-12-30T12:00[Pacific/Apia]", "Pacific/Apia", "2011-12-31T00:00:00+14:00"),
        ] {
            let why = "its clocks skipped that time; the first moment after it is";
            assert_eq!(refused(text), format!("`{text}` does not exist in {zone}: {why} {after}"));
        }
        let first = parse("2018-11-04[America/Sao_Paulo]", &berlin()).unwrap();
        assert_eq!(first.to_string(), "2018-11-04T03:00:00Z", "a day whose midnight was skipped begins later");
    }

    #[test]
    fn a_time_that_was_twice_is_refused_with_both_moments_and_each_of_them_is_read() {
        for (text, zone, first, second) in [
            ("2026-10-25T02:30", "Europe/Berlin", "2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"),
            (
                "2026-11-01T01:30:30[America/New_York]",
                "America/New_York",
                "2026-11-01T01:30:30-04:00",
                "2026-11-01T01:30:30-05:00",
            ),
        ] {
            let why = format!("as its clocks were put back; write {first} or {second}");
            assert_eq!(refused(text), format!("`{text}` happened twice in {zone}, {why}"));
            let [first, second] = [first, second].map(|text| parse(text, &berlin()).unwrap());
            assert_eq!(second.duration_since(first), jiff::SignedDuration::from_hours(1));
        }
        let first = parse("2026-11-01[America/Havana]", &berlin()).unwrap();
        assert_eq!(first.to_string(), "2026-11-01T04:00:00Z", "a day whose midnight is twice begins at the first");
    }

    #[test]
    fn a_time_without_a_zone_needs_that_of_the_machine() {
        let now = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::unknown());
        for text in ["2026-11-01T12:00", "2026-11-01"] {
            assert_eq!(parse(text, &now), Err(NoMoment::NoZone(text.to_owned())));
        }
        for text in ["2026-11-01T12:00Z", "2026-11-01[Europe/Berlin]", "2 hours ago"] {
            assert!(parse(text, &now).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_has_no_moment_of_its_own_is_refused() {
        for text in ["2016-12-31T23:59:60Z", "2016-12-31T235960Z", "2016-12-31 23:59:60.5+00:00"] {
            assert_eq!(parse(text, &berlin()), Err(NoMoment::LeapSecond(text.to_owned())));
        }
        for text in ["2026-11-01T12:59:06Z", "2026-11-01T12:00:59.60Z", "2026-11-01T12:60Z"] {
            assert!(!matches!(parse(text, &berlin()), Err(NoMoment::LeapSecond(_))), "{text}");
        }
        assert_eq!(parse("1 month ago", &berlin()), Err(NoMoment::Calendar("1 month ago".to_owned())));
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
