//! What a verdict rests on, in plain words and numbers.

use schemas::judgement::{Tally, Verdict};
use schemas::text::grouped;

use super::evalue::ln_needed;
use super::judge::Judge;
use super::maths::exp;
use super::metric::Trial;
use super::plan::Kind;

/// What is known of one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricEvidence {
    /// The metric.
    pub name: String,
    /// All that was counted of the baseline.
    pub baseline: Tally,
    /// All that was counted of the canary.
    pub canary: Tally,
    /// The highest rate of hits that is tolerated of the canary.
    pub tolerated: f64,
    /// The log of the evidence that the canary is worse, as if all capital were on this metric.
    pub ln_worse: f64,
    /// The log of the evidence that it is not.
    pub ln_not_worse: f64,
    /// Whether the metric has been accepted.
    pub accepted: bool,
}

/// Returns what is known of each metric, in the plan's order.
pub fn of(judge: &Judge) -> Vec<MetricEvidence> {
    judge.trials().iter().map(|trial| of_trial(judge, trial)).collect()
}

fn of_trial(judge: &Judge, trial: &Trial) -> MetricEvidence {
    MetricEvidence {
        name: trial.metric.name.clone(),
        baseline: trial.seen.baseline,
        canary: trial.seen.canary,
        tolerated: trial.tolerated(),
        ln_worse: judge.ln_wealth_of(trial),
        ln_not_worse: trial.ln_not_worse(),
        accepted: trial.is_accepted(),
    }
}

/// Returns why the judge says what it says of `canary` ("canary 1.2.0"), in one line: the metric that weighs most, its
/// counts, the tolerance, and the evidence with what is needed of it.
pub fn sentence(judge: &Judge, canary: &str) -> String {
    match judge.verdict() {
        Verdict::Worse => {
            let counts = counts(heaviest(judge, |trial| judge.ln_wealth_of(trial)), canary);
            format!("{counts}; evidence {}", odds(judge.ln_wealth(), judge.plan().alpha))
        }
        Verdict::NotWorse => {
            let least = heaviest(judge, |trial| -trial.ln_not_worse());
            format!(
                "{}; evidence that it is not worse {}",
                counts(least, canary),
                odds(least.ln_not_worse(), judge.plan().beta)
            )
        }
        Verdict::Inconclusive => {
            let counts = counts(heaviest(judge, |trial| judge.ln_wealth_of(trial)), canary);
            let worse = odds(judge.ln_wealth(), judge.plan().alpha);
            let not_worse = judge.trials().iter().map(Trial::ln_not_worse).fold(f64::INFINITY, f64::min);
            format!("{counts}; evidence {worse}; that it is not worse {}", odds(not_worse, judge.plan().beta))
        }
    }
}

fn heaviest(judge: &Judge, of: impl Fn(&Trial) -> f64) -> &Trial {
    let heavier = |a: &&Trial, b: &&Trial| of(a).total_cmp(&of(b));
    judge.trials().iter().max_by(heavier).expect("a plan has a metric")
}

fn counts(trial: &Trial, canary: &str) -> String {
    let pair = |tally: Tally| format!("{} of {}", grouped(tally.hits), grouped(tally.requests));
    let (own, other) = (pair(trial.seen.canary), pair(trial.seen.baseline));
    let name = &trial.metric.name;
    match trial.metric.kind {
        Kind::Status if name == "errors" => {
            format!("{canary}: {own} requests failed, baseline {other}; tolerance {}", percent(trial.tolerated()))
        }
        Kind::Status => {
            format!("{canary}: {own} requests were {name}, baseline {other}; tolerance {}", percent(trial.tolerated()))
        }
        Kind::Latency { buckets, .. } => {
            let slower = libm::pow(1.01, f64::from(buckets)) - 1.0;
            format!(
                "{canary}: {own} requests took longer than the baseline's {name} and {} more, \
                 baseline {other} longer than its {name}; tolerance {}",
                percent(slower),
                percent(trial.tolerated()),
            )
        }
    }
}

/// Returns evidence as odds, with what is needed to be wrong with a chance of `error` at most.
fn odds(ln_wealth: f64, error: f64) -> String {
    format!("{}, {} needed", to_one(ln_wealth), grouped(libm::round(exp(ln_needed(error))) as u64))
}

/// Returns evidence as odds, from their logarithm.
pub fn to_one(ln: f64) -> String {
    let odds = match ln {
        ln if ln >= 20.72 => "over 1,000,000,000".to_owned(),
        ln if ln >= 2.302 => grouped(exp(ln) as u64),
        ln => format!("{:.1}", exp(ln)),
    };
    format!("{odds} to 1")
}

/// Returns a share in percent, with two digits that tell.
pub fn percent(share: f64) -> String {
    let share = share * 100.0;
    let decimals = match share {
        share if share >= 10.0 => 0,
        share if share >= 1.0 => 1,
        share if share >= 0.1 => 2,
        share if share >= 0.01 => 3,
        _ => 4,
    };
    let text = format!("{share:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_shares_have_two_digits() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0.15, 0.0533, 0.0015, 0.00036, 0.5, 0.0].map(percent),
            ["15 %", "5.3 %", "0.15 %", "0.036 %", "50 %", "0 %"]
        );
        assert_eq!(odds(5.389, 0.01), "218 to 1, 100 needed");
        assert_eq!(odds(900.0, 0.05), "over 1,000,000,000 to 1, 20 needed");
        assert_eq!(odds(-0.7, 0.05), "0.5 to 1, 20 needed");
    }
}
