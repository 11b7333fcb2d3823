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
