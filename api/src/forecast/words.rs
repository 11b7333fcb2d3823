//! Rates and lengths of time as people say them.

use schemas::text::grouped;

/// Returns a length of time: `1 hour`, `90 seconds`, `2.5 days`.
pub(super) fn length(seconds: f64) -> String {
    let units = [("day", 86_400.0), ("hour", 3_600.0), ("minute", 60.0)];
    let whole = |length: f64| (length * 2.0).fract() == 0.0;
    let found = units.into_iter().find(|(_, unit)| seconds >= *unit && whole(seconds / unit));
    let (unit, length) = found.map_or(("second", seconds), |(unit, length)| (unit, seconds / length));
    // A day is better known as so many hours.
    let (unit, length) = if unit == "day" && length < 3.0 { ("hour", length * 24.0) } else { (unit, length) };
    let length = (length * 10.0).round() / 10.0;
    format!("{length} {unit}{}", if length == 1.0 { "" } else { "s" })
}

/// Returns a part of 1 in percent, with two digits that count: `15 %`, `0.36 %`.
pub fn percent(part: f64) -> String {
    let percent = part * 100.0;
    if percent <= 0.0 {
        return "0 %".to_owned();
    }
    let decimals = (1.0 - percent.log10().floor()).clamp(0.0, 8.0) as usize;
    let text = format!("{percent:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} %")
}

/// Returns how many requests there are a minute, or a second if there are many.
pub(super) fn requests_a_minute(per_minute: f64) -> String {
    let (number, unit) = if per_minute >= 600.0 { (per_minute / 60.0, "second") } else { (per_minute, "minute") };
    let number = if number >= 10.0 { count(number.round()) } else { ((number * 10.0).round() / 10.0).to_string() };
    format!("{number} request{} a {unit}", if number == "1" { "" } else { "s" })
}

/// Returns a whole number near `number` with its thousands set apart.
pub(super) fn count(number: f64) -> String {
    grouped(number.round_ties_even() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_say_them() {
        let lengths = [3_600.0, 5_400.0, 90.0, 86_400.0, 7.0 * 86_400.0, 1.0, 43_200.0 / 7.0].map(length);
        assert_eq!(lengths, ["1 hour", "1.5 hours", "1.5 minutes", "24 hours", "7 days", "1 second", "6171.4 seconds"]);
        assert_eq!(
            [0.153, 0.0036, 0.1, 1.0, 0.0, 0.002_14].map(percent),
            ["15 %", "0.36 %", "10 %", "100 %", "0 %", "0.21 %"]
        );
        let rates = [3.0, 1.0, 0.25, 599.0, 60_000.0].map(requests_a_minute);
        assert_eq!(
            rates,
            [
                "3 requests a minute",
                "1 request a minute",
                "0.3 requests a minute",
                "599 requests a minute",
                "1,000 requests a second"
            ]
        );
        assert_eq!(count(1_234_567.0), "1,234,567");
    }
}
