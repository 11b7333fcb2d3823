//! Series of a counter on a grid of moments, and how much each has risen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use schemas::Timestamp;

use super::super::Span;

/// More steps than this the server does not answer. Source: its limit of 11,000 points a series.
const STEPS_MAX: i64 = 10_000;

/// The moments at which a span is looked at, its beginning and its end included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    start_ms: i64,
    step_ms: i64,
    steps: i64,
}

/// One series: its labels, and its values at the moments at which it has one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Series {
    pub(super) labels: BTreeMap<String, String>,
    points: Vec<(i64, f64)>,
}

/// By how much a series has risen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Increase<'a> {
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) by: f64,
}

impl Grid {
    /// Returns a grid over `span` with steps of at most `step`, or longer ones if that were too many; none for a span
    /// without a length. It ends less than a step's share of a millisecond before the span does.
    pub(super) fn over(span: Span, step: Duration) -> Option<Self> {
        let start_ms = span.from.as_millisecond();
        let length_ms = span.to.as_millisecond().checked_sub(start_ms).filter(|length| *length > 0)?;
        let step_ms = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
        let steps = (length_ms / step_ms + i64::from(length_ms % step_ms > 0)).min(STEPS_MAX);
        Some(Self { start_ms, step_ms: length_ms / steps, steps })
    }

    /// Returns its end.
    pub(super) fn end(self) -> Timestamp {
        Timestamp::from_millisecond(self.end_ms()).unwrap_or(Timestamp::MAX)
    }

    fn end_ms(self) -> i64 {
        self.start_ms + self.step_ms * self.steps
    }

    /// Returns its end, in seconds since 1970.
    pub(super) fn end_seconds(self) -> f64 {
        self.end_ms() as f64 / 1_000.0
    }

    /// Returns start, end and step as the server is asked for them.
    pub(super) fn asked(self) -> [String; 3] {
        let seconds = |ms: i64| format!("{}.{:03}", ms.div_euclid(1_000), ms.rem_euclid(1_000));
        [seconds(self.start_ms), seconds(self.end_ms()), seconds(self.step_ms)]
    }

    fn place(self, seconds: f64) -> Option<i64> {
        let place = ((seconds * 1_000.0 - self.start_ms as f64) / self.step_ms as f64).round();
        (place >= 0.0 && place <= self.steps as f64).then_some(place as i64)
    }
}

impl Series {
    /// Reads a series as the server writes it.
    ///
    /// # Errors
    ///
    /// What is wrong with it: a moment that was not asked for, or a value that no counter has.
    pub(super) fn read(labels: BTreeMap<String, String>, values: &[(f64, String)], grid: Grid) -> Result<Self, String> {
        let point = |(seconds, value): &(f64, String)| {
            let place = grid.place(*seconds).ok_or_else(|| format!("the moment {seconds}, which was not asked for"))?;
            let count = value.parse::<f64>().ok().filter(|count| count.is_finite() && *count >= 0.0);
            count.map(|count| (place, count)).ok_or_else(|| format!("the value {value}, which no counter has"))
        };
        let points: Vec<(i64, f64)> = values.iter().map(point).collect::<Result<_, _>>()?;
        if points.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err("moments that do not rise".to_owned());
        }
        Ok(Self { labels, points })
    }

    /// Says whether it has a value at the grid's first moment: that of a sample before the span.
    pub(super) fn is_there_when_it_begins(&self) -> bool {
        self.points.first().is_some_and(|(place, _)| *place == 0)
    }

    /// Returns its highest value.
    pub(super) fn highest(&self) -> Option<f64> {
        self.points.iter().map(|(_, value)| *value).reduce(f64::max)
    }

    /// Returns by how much it has risen. `from_zero`: one that begins in the span has begun at 0; otherwise what it was at
    /// first is not counted.
    pub(super) fn increase(&self, from_zero: bool) -> Increase<'_> {
        let first = self.points.first().map_or(0.0, |(_, value)| *value);
        let before = if from_zero && !self.is_there_when_it_begins() { first } else { 0.0 };
        // What falls has begun anew, and has risen to what it is.
        let rise = |pair: &[(i64, f64)]| if pair[1].1 < pair[0].1 { pair[1].1 } else { pair[1].1 - pair[0].1 };
        Increase { labels: &self.labels, by: before + self.points.windows(2).map(rise).sum::<f64>() }
    }
}

/// Returns the names of the metrics that stand before a `{` in a query, outside of texts.
pub(super) fn metrics_of(query: &str) -> BTreeSet<String> {
    let (mut names, mut name, mut quote) = (BTreeSet::new(), String::new(), None);
    for c in query.chars() {
        match (quote, c) {
            (Some(open), _) => quote = quote.filter(|_| c != open),
            (None, '"' | '\'' | '`') => (quote, name) = (Some(c), String::new()),
            (None, '{') => {
                names.extend(Some(std::mem::take(&mut name)).filter(|name| !name.is_empty()));
            }
            (None, c) if c.is_ascii_alphanumeric() || c == '_' || c == ':' => name.push(c),
            (None, c) if c.is_whitespace() => {}
            (None, _) => name.clear(),
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        Grid::over(Span { from: at(100), to: at(160) }, Duration::from_secs(10)).unwrap()
    }

    fn series(values: &[(f64, &str)]) -> Result<Series, String> {
        let values: Vec<(f64, String)> = values.iter().map(|(at, value)| (*at, (*value).to_owned())).collect();
        Series::read(BTreeMap::new(), &values, grid())
    }

    #[test]
    fn a_counter_has_risen_by_its_rises_and_a_fall_is_a_new_beginning() {
        let steady = series(&[(100.0, "5"), (110.0, "5"), (120.0, "9"), (160.0, "12")]).unwrap();
        assert_eq!(steady.increase(true).by, 7.0);
        let begun_anew = series(&[(100.0, "500"), (110.0, "510"), (120.0, "4"), (130.0, "6")]).unwrap();
        assert_eq!(begun_anew.increase(true).by, 16.0);
    }

    #[test]
    fn a_series_that_begins_in_the_span_has_begun_at_zero_if_somebody_looked_before() {
        let late = series(&[(120.0, "3"), (130.0, "4")]).unwrap();
        assert_eq!((late.increase(true).by, late.increase(false).by), (4.0, 1.0));
        assert_eq!(series(&[]).unwrap().increase(true).by, 0.0);
    }

    #[test]
    fn what_no_counter_says_is_named() {
        for (at, value, why) in [
            (110.0, "NaN", "the value NaN, which no counter has"),
            (110.0, "+Inf", "the value +Inf, which no counter has"),
            (110.0, "-1", "the value -1, which no counter has"),
            (110.0, "", "the value , which no counter has"),
            (90.0, "1", "the moment 90, which was not asked for"),
            (f64::NAN, "1", "the moment NaN, which was not asked for"),
        ] {
            assert_eq!(series(&[(at, value)]).unwrap_err(), why);
        }
        assert_eq!(series(&[(110.0, "1"), (110.0, "2")]).unwrap_err(), "moments that do not rise");
    }

    #[test]
    fn a_grid_ends_where_the_span_does_and_has_no_more_steps_than_the_server_answers() {
        assert_eq!(grid().asked(), ["100.000", "160.000", "10.000"]);
        let at = |ms| Timestamp::from_millisecond(ms).unwrap();
        let over = |ms, step_ms| Grid::over(Span { from: at(0), to: at(ms) }, Duration::from_millis(step_ms));
        assert_eq!(over(0, 10), None);
        assert_eq!(over(7, 10).unwrap().asked(), ["0.000", "0.007", "0.007"]);
        assert_eq!(over(25, 10).unwrap().asked(), ["0.000", "0.024", "0.008"]);
        let month = over(30 * 86_400_000, 500).unwrap();
        assert_eq!((month.steps, month.end_seconds()), (STEPS_MAX, 2_592_000.0));
    }

    #[test]
    fn the_metrics_that_a_query_names_are_found() {
        let names = |query: &str| metrics_of(query).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(names(r#"http_requests_total{version="1{2}",code=~"5.."}"#), "http_requests_total");
        assert_eq!(names(r#"a_total {x='1'} + on(y) b:total{x="1"}"#), "a_total b:total");
        assert_eq!(names(r#"{__name__="x"}"#), "");
    }
}
