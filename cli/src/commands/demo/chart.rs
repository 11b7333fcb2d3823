//! A chart of a version's share over time, drawn with characters.

use std::time::Duration;

use schemas::Weight;
use tokio::time::Instant;

/// How many lines are 100 %.
const HEIGHT: usize = 4;

/// How wide it is at most.
const WIDTH_MAX: usize = 60;

/// What a line begins with: its percentage.
const MARGIN: usize = 10;

/// What fills a character to so many eighths.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// How a version's share went.
#[derive(Debug)]
pub(super) struct Chart {
    /// The version.
    pub(super) version: String,
    from: Instant,
    shares: Vec<(Duration, Weight)>,
}

impl Chart {
    /// Begins the chart of a version.
    pub(super) fn of(version: &str) -> Self {
        Self { version: version.to_owned(), from: Instant::now(), shares: vec![] }
    }

    /// Takes note of the share now.
    pub(super) fn note(&mut self, share: Weight) {
        self.shares.push((self.from.elapsed(), share));
    }

    /// Returns it for a terminal of so many columns.
    pub(super) fn drawn(&self, columns: usize) -> String {
        let width = columns.saturating_sub(MARGIN + 1).clamp(10, WIDTH_MAX);
        let eighths = self.eighths(width);
        let mut text = format!("   share of {} over time\n", self.version);
        for line in (0..HEIGHT).rev() {
            let percent = (line + 1) * 100 / HEIGHT;
            let drawn: String = eighths.iter().map(|filled| EIGHTHS[filled.saturating_sub(line * 8).min(8)]).collect();
            text.push_str(format!("   {percent:>3} % ┤{drawn}").trim_end());
            text.push('\n');
        }
        let seconds = format!("{:.0} s", self.length().as_secs_f64());
        text.push_str(&format!("     0 % └{}\n", "─".repeat(width)));
        text.push_str(&format!("{}0 s{seconds:>rest$}", " ".repeat(MARGIN - 1), rest = width - 3));
        text
    }

    fn length(&self) -> Duration {
        self.shares.last().map(|(at, _)| *at).unwrap_or_default()
    }

    /// How high it is filled at each of `width` moments, in eighths of a line.
    fn eighths(&self, width: usize) -> Vec<usize> {
        let step = self.length().as_secs_f64() / width as f64;
        let at = |column: usize| {
            let moment = Duration::from_secs_f64(step * (column + 1) as f64);
            let known = self.shares.iter().take_while(|(at, _)| *at <= moment).last();
            let points = known.or(self.shares.first()).map_or(0, |(_, share)| usize::from(share.basis_points()));
            (points * HEIGHT * 8).div_ceil(10_000)
        };
        (0..width).map(at).collect()
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    #[test]
    fn a_share_that_grew_and_came_back_is_seen() {
        let mut chart = Chart::of("1.2.0");
        let steps = [(0, 10), (2, 25), (4, 50), (6, 100), (7, 0), (8, 0)];
        chart.shares = steps.map(|(s, percent)| (Duration::from_secs(s), Weight::from_percent(percent))).into();
        assert_snapshot!(chart.drawn(43), @r"
share of 1.2.0 over time
100 % ┤                       ████
 75 % ┤                       ████
 50 % ┤               ████████████
 25 % ┤▄▄▄▄▄▄▄████████████████████
  0 % └────────────────────────────────
      0 s                          8 s
");
        let widest = |columns| chart.drawn(columns).lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest(80) < 80 && widest(40) <= 40, "{} {}", widest(80), widest(40));
    }
}
