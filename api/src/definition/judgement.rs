//! What of the table `[judgement]` is more than a value: tolerances with their ratios, and weights.

use schemas::policy::{JudgementPolicy, Metric, metric};

use super::in_policy;
use crate::document::{Item, Section, shown};

/// Reads a metric's tolerance and its ratio, which are only right or wrong together.
pub(super) fn tolerance(section: &mut Section<'_>, metric: &'static Metric, judgement: &mut JudgementPolicy) {
    let items = [section.get(&metric.tolerance_key()), metric.ratio_key().and_then(|key| section.get(&key))];
    let ppm = items[0].as_ref().map(|item| item.percent(parts_per_million));
    let percent = items[1].as_ref().map(|item| item.percent(hundredths));
    let set = |policy: &mut JudgementPolicy| {
        let own = &mut policy.metrics[metric.name];
        own.tolerance_ppm = ppm.flatten().unwrap_or(own.tolerance_ppm);
        own.ratio_percent = percent.flatten().unwrap_or(own.ratio_percent);
    };
    // Neither is said to be wrong for the other, which is.
    let understood = ppm != Some(None) && percent != Some(None);
    if let (true, Some(item)) = (understood, items.iter().flatten().next()) {
        in_policy(item, (), |policy, _| set(&mut policy.judgement));
    }
    set(judgement);
}

/// Reads a weight for each metric; one that is left out has its default.
pub(super) fn weights(item: &Item<'_>) -> Option<Vec<(&'static str, u8)>> {
    let mut section = item.table()?;
    let read: Vec<_> = metric::METRICS
        .iter()
        .map(|metric| match section.get(metric.name) {
            Some(item) => Some((metric.name, item.percent(whole_percent)?)),
            None => Some((metric.name, metric.weight_percent)),
        })
        .collect();
    let understood = section.end();
    read.into_iter().collect::<Option<Vec<_>>>().filter(|_| understood)
}

/// Reads a percentage of at most four decimals, from 0 to 100,000, as parts per million.
pub(super) fn parts_per_million(text: &str) -> Result<u32, String> {
    let wrong = || format!("`{}` is not a percentage with at most four decimals", shown(text));
    let number = text.trim().trim_end_matches('%').trim_end();
    decimal(number, 4).filter(|ppm| *ppm <= 1_000_000_000).ok_or_else(wrong)
}

/// Reads a whole percentage.
fn whole_percent(text: &str) -> Result<u8, String> {
    let number = text.trim().trim_end_matches('%').trim_end();
    let percent = number.parse::<u8>().ok().filter(|percent| *percent <= 100);
    percent.ok_or_else(|| format!("`{}` is not a whole percentage from 0 to 100", shown(text)))
}

/// Reads a number of at most two decimals as hundredths.
fn hundredths(text: &str) -> Result<u32, String> {
    decimal(text.trim(), 2).ok_or_else(|| format!("`{}` is not a number with at most two decimals", shown(text)))
}

/// Reads a decimal number of at most so many `decimals` as that much of a power of ten.
fn decimal(number: &str, decimals: usize) -> Option<u32> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || whole.len() > 6 || fraction.len() > decimals || !digits(whole) || !digits(fraction) {
        return None;
    }
    format!("{whole}{fraction:0<decimals$}").parse().ok()
}
