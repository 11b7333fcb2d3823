//! The table `[judgement]`: how a canary is judged, and by whose measurements.

use schemas::policy::{Deadline, JudgementPolicy, MetricWeights, Prometheus, Queries};
use schemas::run::EnvValue;

use super::{env_value, in_policy};
use crate::document::{Item, Section, shown};

/// Reads the table; what is left out is the default.
pub(super) fn read(mut section: Section<'_>) -> JudgementPolicy {
    let mut policy = JudgementPolicy::default();
    line(&mut section, ["errors_tolerance", "errors_ratio"], |judgement| {
        (&mut judgement.errors_tolerance_ppm, &mut judgement.errors_ratio_percent)
    })(&mut policy);
    line(&mut section, ["4xx_tolerance", "4xx_ratio"], |judgement| {
        (&mut judgement.status_4xx_tolerance_ppm, &mut judgement.status_4xx_ratio_percent)
    })(&mut policy);
    let mut percent = |name, set: fn(&mut JudgementPolicy) -> &mut u32| {
        let ppm = section.get(name).and_then(|item| {
            in_policy(&item, item.percent(parts_per_million)?, |policy, ppm| *set(&mut policy.judgement) = *ppm)
        });
        if let Some(ppm) = ppm {
            *set(&mut policy) = ppm;
        }
    };
    percent("p50_tolerance", |judgement| &mut judgement.p50_tolerance_ppm);
    percent("p99_tolerance", |judgement| &mut judgement.p99_tolerance_ppm);
    percent("alpha", |judgement| &mut judgement.alpha_ppm);
    percent("beta", |judgement| &mut judgement.beta_ppm);
    if let Some(item) = section.get("weights") {
        let weights = weights(&item);
        let valid = weights.and_then(|weights| in_policy(&item, weights, |policy, it| policy.judgement.weights = *it));
        policy.weights = valid.unwrap_or_default();
    }
    let requests_min = section
        .get("requests_min")
        .and_then(|item| in_policy(&item, item.integer()?, |policy, n| policy.judgement.requests_min = *n));
    policy.requests_min = requests_min.unwrap_or(policy.requests_min);
    // Whether it fits the rollout's duration only the whole can say.
    policy.soak_ms = section.get("soak").and_then(|item| item.duration_ms()).unwrap_or(policy.soak_ms);
    let deadline = section.get("deadline").and_then(|item| item.checked(deadline));
    policy.deadline = deadline.unwrap_or_default();
    let warm_up = section
        .get("warm_up")
        .and_then(|item| in_policy(&item, item.duration_ms()?, |policy, ms| policy.judgement.warm_up_ms = *ms));
    policy.warm_up_ms = warm_up.unwrap_or(policy.warm_up_ms);
    policy.burst_cap = section.get("burst_cap").and_then(|item| item.boolean()).unwrap_or(policy.burst_cap);
    let bad_requests_max = section
        .get("bad_requests_max")
        .and_then(|item| in_policy(&item, item.integer()?, |policy, n| policy.judgement.bad_requests_max = *n));
    policy.bad_requests_max = bad_requests_max.unwrap_or(policy.bad_requests_max);
    policy.prometheus = section.get("prometheus").and_then(|item| prometheus(&item));
    section.end();
    policy
}

/// Reads a tolerance and its ratio, which are only right or wrong together, and returns how to set them.
fn line(
    section: &mut Section<'_>,
    [tolerance, ratio]: [&'static str; 2],
    of: fn(&mut JudgementPolicy) -> (&mut u32, &mut u32),
) -> impl Fn(&mut JudgementPolicy) + use<> {
    let items = [section.get(tolerance), section.get(ratio)];
    let ppm = items[0].as_ref().map(|item| item.percent(parts_per_million));
    let percent = items[1].as_ref().map(|item| item.percent(hundredths));
    let set = move |policy: &mut JudgementPolicy| {
        let (own_ppm, own_percent) = of(policy);
        *own_ppm = ppm.flatten().unwrap_or(*own_ppm);
        *own_percent = percent.flatten().unwrap_or(*own_percent);
    };
    // Neither is said to be wrong for the other, which is.
    let understood = ppm != Some(None) && percent != Some(None);
    if let (true, Some(item)) = (understood, items.iter().flatten().next()) {
        in_policy(item, (), |policy, _| set(&mut policy.judgement));
    }
    set
}

fn weights(item: &Item<'_>) -> Option<MetricWeights> {
    let mut section = item.table()?;
    let default = MetricWeights::default();
    let mut weight = |name, default| match section.get(name) {
        Some(item) => item.percent(whole_percent),
        None => Some(default),
    };
    let [errors, status_4xx, p50, p99] = [
        weight("errors", default.errors),
        weight("4xx", default.status_4xx),
        weight("p50", default.p50),
        weight("p99", default.p99),
    ];
    let understood = section.end();
    Some(MetricWeights { errors: errors?, status_4xx: status_4xx?, p50: p50?, p99: p99? }).filter(|_| understood)
}

fn deadline(text: &str) -> Result<Deadline, String> {
    match text.trim() {
        "go on" => Ok(Deadline::GoOn),
        "hold" => Ok(Deadline::Hold),
        _ => Err(format!("`{}` is none; write `go on` or `hold`", shown(text))),
    }
}

fn prometheus(item: &Item<'_>) -> Option<Prometheus> {
    let mut section = item.table()?;
    let address =
        section.required("address", "write where it listens, `http://prometheus:9090`").and_then(|item| item.text());
    // What was not understood is said already; the rest is checked with what was.
    let mut prometheus = Prometheus::at(address.unwrap_or("http://localhost"));
    let checked = |item: &Item<'_>, prometheus: &Prometheus| {
        in_policy(item, prometheus.clone(), |policy, it| policy.judgement.prometheus = Some(it.clone())).is_some()
    };
    let mut fine = address.is_some();
    if let Some(token) = section.get("token") {
        match env_value(&token) {
            Some(EnvValue::Value(_)) => {
                fine = token.wrong::<()>("write `{ from_env = \"NAME\" }` or `{ from_file = \"PATH\" }`").is_some();
            }
            value => (prometheus.token, fine) = (value.clone(), fine && value.is_some()),
        }
    }
    if let Some(interval) = section.get("scrape_interval") {
        let ms = interval.duration_ms();
        let valid = ms.filter(|ms| {
            checked(&interval, &Prometheus { scrape_interval_ms: *ms, ..Prometheus::at("http://localhost") })
        });
        fine &= valid.is_some();
        prometheus.scrape_interval_ms = valid.unwrap_or(prometheus.scrape_interval_ms);
    }
    let mut query = |name, set: fn(&mut Queries) -> &mut Option<String>| {
        let Some(item) = section.get(name) else { return };
        // A query may be written on several lines; it is one all the same.
        let text = item.text().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
        let mut alone = Prometheus::at("http://localhost");
        *set(&mut alone.queries) = text.clone();
        fine &= text.is_some() && checked(&item, &alone);
        *set(&mut prometheus.queries) = text;
    };
    query("requests", |queries| &mut queries.requests);
    query("errors", |queries| &mut queries.errors);
    query("4xx", |queries| &mut queries.status_4xx);
    query("latency", |queries| &mut queries.latency);
    fine &= section.end();
    // Its address is checked last, where nothing else can be wrong with it.
    if fine && checked(item, &prometheus) { Some(prometheus) } else { None }
}

/// Reads a percentage of at most four decimals, from 0 to 100,000, as parts per million.
fn parts_per_million(text: &str) -> Result<u32, String> {
    let wrong = || format!("`{}` is no percentage with at most four decimals", shown(text));
    let number = text.trim().trim_end_matches('%').trim_end();
    decimal(number, 4).filter(|ppm| *ppm <= 1_000_000_000).ok_or_else(wrong)
}

/// Reads a whole percentage.
fn whole_percent(text: &str) -> Result<u8, String> {
    let number = text.trim().trim_end_matches('%').trim_end();
    let percent = number.parse::<u8>().ok().filter(|percent| *percent <= 100);
    percent.ok_or_else(|| format!("`{}` is no whole percentage from 0 to 100", shown(text)))
}

/// Reads a number of at most two decimals as hundredths.
fn hundredths(text: &str) -> Result<u32, String> {
    decimal(text.trim(), 2).ok_or_else(|| format!("`{}` is no number with at most two decimals", shown(text)))
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
