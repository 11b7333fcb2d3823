//! Forecasts, for eyes and pipes: what a rollout will be able to tell.

use api::forecast::ForecastAnswer;
use api::forecast::words::percent;
use jiff::Zoned;
use ledger::judgement::forecast::rollout::MetricForecast;

use super::Render;
use super::table::{self, Cell, paint};
use super::words::{BUSY, column, count, faint, grouped, length, line, strong, style_of};

/// The columns of [`lines`], for help texts.
pub(crate) const COLUMNS: &str = "deployment, metric, baseline rate, tolerated rate, tolerated slowdown, smallest rate, smallest \
     slowdown, requests to accept, seconds to accept, requests expected, requests a minute, measured";

impl Render for ForecastAnswer {
    fn eyes(&self, _: &Zoned, columns: usize) -> String {
        eyes(self, columns)
    }

    fn lines(&self) -> String {
        lines(self)
    }
}

/// The table's columns: where they do not all fit the terminal, those that come first here are left out first.
const LEFT_OUT_FIRST: [&str; 3] = [THE_OLD_VERSION, TOLERATED, SMALLEST];
const THE_OLD_VERSION: &str = "the old version";
const TOLERATED: &str = "tolerated";
const SMALLEST: &str = "smallest regression seen";

/// Returns a forecast as a table with its warnings, the table at most so many columns wide.
fn eyes(answer: &ForecastAnswer, columns: usize) -> String {
    let known = if answer.requests_measured { "measured" } else { "assumed" };
    let mut text = format!(
        "{}  {}\n{}\n",
        paint(&answer.deployment.to_string(), strong()),
        paint(
            &format!(
                "the canary is expected to get {} in {} (traffic {known})",
                count(answer.forecast.requests_canary.round() as u64, "request", "requests"),
                time(answer.forecast.seconds)
            ),
            faint()
        ),
        answer.sentence
    );
    text.push_str(&table_of(&answer.forecast.metrics, columns));
    if let Some(end) = answer.end_seconds.filter(|_| answer.forecast.seconds > 0.0 && !answer.is_late()) {
        text.push_str(&format!("a good canary has all traffic after about {}\n", time(end)));
    }
    if let Some(live) = &answer.under_way {
        let canary = live.canary_name.as_ref().map(ToString::to_string);
        let canary = canary.or_else(|| live.canary.as_ref().map(ToString::to_string));
        let canary = canary.unwrap_or_else(|| "a gone stack".to_owned());
        let next = live.next_at.strftime("%Y-%m-%d %H:%M:%S");
        let end = live.expected_end_at.strftime("%Y-%m-%d %H:%M:%S");
        let goes = match live.remaining_ms {
            Some(ms) => format!("stands still, {} of steps remain once it goes on", time(ms as f64 / 1_000.0)),
            None => format!("next step at {next} UTC, ends about {end} UTC"),
        };
        text.push_str(&format!("the rollout of {canary} under way: {goes}\n"));
    }
    for warning in &answer.warnings {
        text.push_str(&format!("{} {warning}\n", paint(BUSY, style_of(BUSY))));
    }
    text
}

/// Returns the indented table and, below it, the columns that it has no space for.
fn table_of(metrics: &[MetricForecast], columns: usize) -> String {
    let head = ["metric", THE_OLD_VERSION, TOLERATED, SMALLEST, "accepted after"];
    let rows: Vec<Vec<Cell>> = metrics.iter().map(row).collect();
    let without = |left_out: &[&str]| {
        let is_shown = |n: &usize| !left_out.contains(&head[*n]);
        let heads = (0..head.len()).filter(is_shown).map(|n| Cell::styled(head[n], faint())).collect();
        let shown = rows.iter().map(|row| (0..head.len()).filter(is_shown).map(|n| row[n].clone()).collect());
        table::lines(&[heads].into_iter().chain(shown).collect::<Vec<Vec<Cell>>>())
    };
    let width = |line: &String| anstream::adapter::strip_str(line).to_string().chars().count();
    let fits = |lines: &Vec<String>| lines.iter().all(|line| width(line) + 2 <= columns);
    let left_out = (0..LEFT_OUT_FIRST.len()).find(|n| fits(&without(&LEFT_OUT_FIRST[..*n])));
    let left_out = &LEFT_OUT_FIRST[..left_out.unwrap_or(LEFT_OUT_FIRST.len())];
    let mut text: String = without(left_out).iter().map(|line| format!("  {line}\n")).collect();
    if !left_out.is_empty() {
        let missing = format!("no room here for: {}; --json has all of it", left_out.join(", "));
        text.push_str(&format!("  {}\n", paint(&missing, faint())));
    }
    text
}

fn row(metric: &MetricForecast) -> Vec<Cell> {
    let (tolerated, smallest) = match metric.tolerated_slowdown {
        None => (percent(metric.tolerated_rate), metric.smallest_rate.map(percent)),
        Some(slowdown) => (slower(slowdown), metric.smallest_slowdown.map(slower)),
    };
    let accepted = match (metric.seconds_to_accept, metric.requests_to_accept) {
        (Some(seconds), _) => time(seconds),
        (None, Some(_)) => "not within the plan".to_owned(),
        (None, None) => "never".to_owned(),
    };
    vec![
        Cell::new(&metric.name),
        Cell::new(baseline(metric)),
        Cell::new(tolerated),
        Cell::new(smallest.unwrap_or_else(|| "none: too few requests".to_owned())),
        Cell::new(accepted),
    ]
}

/// What the old version does: as it was seen, and what is assumed where that tells too little.
fn baseline(metric: &MetricForecast) -> String {
    let assumed = match metric.tolerated_slowdown {
        None => percent(metric.baseline_rate),
        Some(_) => format!("its {}", metric.name),
    };
    match metric.seen.and_then(|seen| Some((seen.hits?, seen.requests))) {
        Some((hits, requests)) if metric.measured => {
            format!("{} of {} ({})", grouped(hits), grouped(requests), percent(hits as f64 / requests.max(1) as f64))
        }
        Some((hits, requests)) => format!("{} of {}; {assumed} assumed", grouped(hits), grouped(requests)),
        None if metric.measured => assumed,
        None => format!("{assumed} (assumed)"),
    }
}

/// Returns a forecast as lines, one a metric.
fn lines(answer: &ForecastAnswer) -> String {
    let line_of = |metric: &MetricForecast| {
        line(&[
            answer.deployment.to_string(),
            metric.name.clone(),
            metric.baseline_rate.to_string(),
            metric.tolerated_rate.to_string(),
            column(metric.tolerated_slowdown),
            column(metric.smallest_rate),
            column(metric.smallest_slowdown),
            column(metric.requests_to_accept.map(f64::ceil)),
            column(metric.seconds_to_accept),
            answer.forecast.requests_canary.to_string(),
            answer.requests_per_minute.to_string(),
            metric.measured.to_string(),
        ])
    };
    answer.forecast.metrics.iter().map(line_of).collect()
}

fn time(seconds: f64) -> String {
    length(jiff::SignedDuration::from_secs(seconds.ceil() as i64))
}

fn slower(part: f64) -> String {
    format!("{} slower", percent(part))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::json;

    use super::super::examples::bare;
    use super::*;

    #[test]
    fn a_forecast_says_when_a_good_canary_has_all_traffic_and_when_the_rollout_under_way_ends() {
        let answer = serde_json::from_value(json!({
            "schema_version": 1, "deployment": "production/api", "requests_per_minute": 600.0, "requests_measured": true,
            "plan": {"steps": [1000, 9500, 10_000], "duration_ms": 3_600_000, "bake_ms": 3_600_000},
            "unmeasured": null, "share": 0.1, "seconds": 3600.0, "requests_canary": 3600.0, "requests_baseline": 32400.0,
            "metrics": [], "end_seconds": 7200.0, "sentence": "it sees much", "warnings": [],
            "under_way": {"canary": "1.2.4", "next_at": "2026-11-22T13:42:05Z", "expected_end_at": "2026-11-22T14:42:05Z"}
        }));
        assert_snapshot!(bare(&eyes(&answer.unwrap(), 120)), @r"
production/api  the canary is expected to get 3,600 requests in 60 min (traffic measured)
it sees much
  metric  the old version  tolerated  smallest regression seen  accepted after
a good canary has all traffic after about 2 h
the rollout of 1.2.4 under way: next step at 2026-11-22 13:42:05 UTC, ends about 2026-11-22 14:42:05 UTC
");
    }

    #[test]
    fn what_was_seen_is_shown_and_no_rate_that_nobody_measured_and_a_late_end_is_said_once() {
        let metric = |name: &str, hits: Option<u64>, requests: u64, measured: bool| {
            json!({"name": name, "measured": measured, "seen": {"requests": requests, "hits": hits},
                "requests_to_tell": 1000, "baseline_rate": 0.001, "tolerated_rate": 0.0015,
                "tolerated_slowdown": hits.is_none().then_some(0.2), "smallest_rate": null,
                "smallest_slowdown": null, "requests_to_accept": null, "seconds_to_accept": null})
        };
        let late = "a good canary has all traffic after about 2 hours, not 1 hour: late steps delay the later ones";
        let answer: ForecastAnswer = serde_json::from_value(json!({
            "schema_version": 1, "deployment": "production/api", "requests_per_minute": 0.1, "requests_measured": true,
            "plan": {"steps": [1000, 10_000], "duration_ms": 3_600_000}, "unmeasured": null, "share": 0.1,
            "seconds": 3600.0, "requests_canary": 1.0, "requests_baseline": 9.0, "end_seconds": 7200.0,
            "metrics": [metric("errors", Some(0), 1, false), metric("4xx", Some(12), 4000, true), metric("p99", None, 1, false)],
            "sentence": "it sees little", "warnings": [late]
        }))
        .unwrap();
        let narrow = bare(&eyes(&answer, 80));
        assert!(narrow.contains("  metric  tolerated    smallest regression seen  accepted after\n"), "{narrow}");
        assert!(narrow.contains("\n  no room here for: the old version; --json has all of it\n"), "{narrow}");
        let narrower = bare(&eyes(&answer, 40));
        assert!(narrower.contains("  metric  accepted after\n  errors  never\n"), "{narrower}");
        assert_snapshot!(bare(&eyes(&answer, 120)), @r"
production/api  the canary is expected to get 1 request in 60 min (traffic measured)
it sees little
  metric  the old version        tolerated    smallest regression seen  accepted after
  errors  0 of 1; 0.1 % assumed  0.15 %       none: too few requests    never
  4xx     12 of 4,000 (0.3 %)    0.15 %       none: too few requests    never
  p99     its p99 (assumed)      20 % slower  none: too few requests    never
◌ a good canary has all traffic after about 2 hours, not 1 hour: late steps delay the later ones
");
    }
}
