//! Forecasts, for eyes and pipes: what a rollout will be able to tell.

use api::forecast::Answer;
use api::forecast::words::percent;
use ledger::judgement::forecast::rollout::MetricForecast;

use super::table::{self, Cell, paint};
use super::words::{BUSY, column, faint, grouped, length, line, strong, style_of};

/// The columns of [`lines`], for help texts.
pub(crate) const COLUMNS: &str = "deployment, metric, baseline rate, tolerated rate, tolerated slowdown, smallest rate, smallest \
     slowdown, requests to accept, seconds to accept, requests expected, requests a minute, measured";

/// Returns a forecast as a table with its warnings.
pub(crate) fn eyes(answer: &Answer) -> String {
    let known = if answer.requests_measured { "measured" } else { "assumed" };
    let mut text = format!(
        "{}  {}\n{}\n",
        paint(&answer.deployment.to_string(), strong()),
        paint(
            &format!(
                "{} of the newcomer's requests expected in {}, traffic {known}",
                grouped(answer.forecast.requests_canary.round() as u64),
                time(answer.forecast.seconds)
            ),
            faint()
        ),
        answer.sentence
    );
    let head = ["metric", "the old version", "tolerated", "smallest to be seen", "accepted after"];
    let mut rows = vec![head.iter().map(|name| Cell::styled(name, faint())).collect::<Vec<Cell>>()];
    rows.extend(answer.forecast.metrics.iter().map(row));
    for line in table::lines(&rows) {
        text.push_str(&format!("  {line}\n"));
    }
    if let Some(end) = answer.end_seconds.filter(|_| answer.forecast.seconds > 0.0) {
        text.push_str(&format!("a good newcomer has all traffic after about {}\n", time(end)));
    }
    if let Some(live) = &answer.under_way {
        let canary = live.canary.as_ref().map_or("a gone stack".to_owned(), ToString::to_string);
        let next = live.next_at.strftime("%Y-%m-%d %H:%M:%S");
        let end = live.expected_end_at.strftime("%Y-%m-%d %H:%M:%S");
        text.push_str(&format!("the rollout of {canary} under way: next step at {next} UTC, ends about {end} UTC\n"));
    }
    for warning in &answer.warnings {
        text.push_str(&format!("{} {warning}\n", paint(BUSY, style_of(BUSY))));
    }
    text
}

fn row(metric: &MetricForecast) -> Vec<Cell> {
    let known = if metric.measured { "" } else { " (assumed)" };
    let (baseline, tolerated, smallest) = match metric.tolerated_slowdown {
        None => (percent(metric.baseline_rate), percent(metric.tolerated_rate), metric.smallest_rate.map(percent)),
        Some(slowdown) => (format!("its {}", metric.name), slower(slowdown), metric.smallest_slowdown.map(slower)),
    };
    let accepted = match (metric.seconds_to_accept, metric.requests_to_accept) {
        (Some(seconds), _) => time(seconds),
        (None, Some(_)) => "not within the plan".to_owned(),
        (None, None) => "never".to_owned(),
    };
    vec![
        Cell::new(&metric.name),
        Cell::new(format!("{baseline}{known}")),
        Cell::new(tolerated),
        Cell::new(smallest.unwrap_or_else(|| "nothing".to_owned())),
        Cell::new(accepted),
    ]
}

/// Returns a forecast as lines, one a metric.
pub(crate) fn lines(answer: &Answer) -> String {
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
    fn a_forecast_says_when_a_good_newcomer_has_all_traffic_and_when_the_rollout_under_way_ends() {
        let answer = serde_json::from_value(json!({
            "schema_version": 1, "deployment": "production/api", "requests_per_minute": 600.0, "requests_measured": true,
            "plan": {"steps": [1000, 9500, 10_000], "duration_ms": 3_600_000, "bake_ms": 3_600_000},
            "unmeasured": null, "share": 0.1, "seconds": 3600.0, "requests_canary": 3600.0, "requests_baseline": 32400.0,
            "metrics": [], "end_seconds": 7200.0, "sentence": "it sees much", "warnings": [],
            "under_way": {"canary": "1.2.4", "next_at": "2026-11-22T13:42:05Z", "expected_end_at": "2026-11-22T14:42:05Z"}
        }));
        assert_snapshot!(bare(&eyes(&answer.unwrap())), @r"
production/api  3,600 of the newcomer's requests expected in 60 min, traffic measured
it sees much
  metric  the old version  tolerated  smallest to be seen  accepted after
a good newcomer has all traffic after about 2 h
the rollout of 1.2.4 under way: next step at 2026-11-22 13:42:05 UTC, ends about 2026-11-22 14:42:05 UTC
");
    }
}
