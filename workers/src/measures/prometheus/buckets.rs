//! Classic histograms in the judge's buckets.
//!
//! A classic histogram says how many requests took at most each of its edges, `le`. Between two edges a request may have
//! taken anything, so that each is counted twice: at the upper edge for the baseline, at the lower for the canary. With
//! edges at 0.1, 0.25 and 0.5 s and a baseline whose quantile lies between 0.1 and 0.25, the baseline is measured at 0.25 s,
//! and a canary that may be 20 % slower at the next edge above 0.3 s, 0.5. A good canary is never taken for a slow one by the
//! width of a bucket; a slow one shows only when it is beyond that edge. Finer edges around the quantiles show more.

use std::collections::BTreeMap;

use super::super::Latency;
use super::series::Increase;
use crate::traffic::Histogram;
use crate::traffic::measures::{HIGHEST_BUCKET, LOWEST_BUCKET, bucket_of};

/// What tells one histogram from another: its labels without the edge.
type Own<'a> = Vec<(&'a str, &'a str)>;

/// Returns the latencies that follow from how much each series of a histogram rose. Edges are in seconds.
///
/// # Errors
///
/// What is wrong: a series without an edge, or with one that is no number.
pub(super) fn latency(increases: &[Increase<'_>]) -> Result<Latency, String> {
    // Histograms of two nodes may have other edges; each is read by its own.
    let mut histograms: BTreeMap<Own<'_>, Vec<(f64, f64)>> = BTreeMap::new();
    for increase in increases {
        let le = increase.labels.get("le").ok_or("a series has no label `le`")?;
        let edge = le.parse::<f64>().ok().filter(|edge| !edge.is_nan());
        let edge = edge.ok_or_else(|| format!("`{le}` is not an edge"))?;
        let own = increase.labels.iter().filter(|(name, _)| *name != "le");
        let own = own.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        histograms.entry(own).or_default().push((edge, increase.by));
    }
    let mut latency = Latency::default();
    for mut edges in histograms.into_values() {
        edges.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut below, mut lower) = (0.0_f64, LOWEST_BUCKET);
        for (edge, up_to) in edges {
            let upper = if edge.is_finite() { bucket_of(edge * 1_000.0) } else { HIGHEST_BUCKET };
            // A scrape is of one moment, but the rises of a new series may not be of the same.
            let count = (up_to - below).max(0.0).round() as u64;
            if count > 0 {
                add(&mut latency.at_most, upper, count);
                add(&mut latency.at_least, lower, count);
            }
            (below, lower) = (below.max(up_to), upper);
        }
    }
    Ok(latency)
}

fn add(histogram: &mut Histogram, bucket: i32, count: u64) {
    *histogram.0.entry(bucket).or_default() += count;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(series: &[(&str, &str, f64)]) -> Result<Latency, String> {
        let labels: Vec<BTreeMap<String, String>> = series
            .iter()
            .map(|(node, le, _)| BTreeMap::from([("instance".into(), (*node).into()), ("le".into(), (*le).into())]))
            .collect();
        let increases: Vec<Increase<'_>> =
            labels.iter().zip(series).map(|(labels, (.., by))| Increase { labels, by: *by }).collect();
        latency(&increases)
    }

    #[test]
    fn a_request_counts_at_both_edges_that_it_lies_between() {
        let found = of(&[("a", "+Inf", 100.0), ("a", "0.1", 60.0), ("a", "0.25", 90.0), ("a", "0.5", 99.0)]).unwrap();
        let at = |ms| bucket_of(ms);
        assert_eq!(found.at_most.0, [(at(100.0), 60), (at(250.0), 30), (at(500.0), 9), (HIGHEST_BUCKET, 1)].into());
        assert_eq!(found.at_least.0, [(LOWEST_BUCKET, 60), (at(100.0), 30), (at(250.0), 9), (at(500.0), 1)].into());
    }

    #[test]
    fn a_canary_as_fast_as_its_baseline_is_never_taken_for_slower_by_the_width_of_a_bucket() {
        let same = of(&[("a", "0.1", 50.0), ("a", "0.25", 95.0), ("a", "0.5", 100.0), ("a", "+Inf", 100.0)]).unwrap();
        for quantile in [0.5, 0.9, 0.99, 1.0] {
            let edge = same.at_most.quantile_bucket(quantile).unwrap();
            for buckets in 0..500 {
                assert!(same.at_least.count_above(edge + buckets) <= same.at_most.count_above(edge));
            }
        }
    }

    #[test]
    fn nodes_with_other_edges_add_up() {
        let found = of(&[("a", "0.1", 5.0), ("a", "+Inf", 5.0), ("b", "0.2", 3.0), ("b", "+Inf", 4.0)]).unwrap();
        assert_eq!(found.at_most.0, [(bucket_of(100.0), 5), (bucket_of(200.0), 3), (HIGHEST_BUCKET, 1)].into());
        assert_eq!(found.at_least.count(), 9);
    }

    #[test]
    fn what_is_no_histogram_is_said_so() {
        assert_eq!(of(&[("a", "much", 1.0)]).unwrap_err(), "`much` is not an edge");
        let labels = BTreeMap::new();
        assert_eq!(latency(&[Increase { labels: &labels, by: 1.0 }]).unwrap_err(), "a series has no label `le`");
        assert_eq!(latency(&[]).unwrap(), Latency::default());
    }
}
