//! The port `workers::measures::Source`: counters in a file, in Prometheus' text form with a time stamp on each line.
//!
//! Whoever counts appends its counters every few seconds, as in
//! `requests_total{version="1.1.0",outcome="ok"} 980 1700000000000`. What happened in a span is the difference between the last
//! line up to its end and the last one up to its beginning. The file has no latencies, so it tells none: a metric that is
//! not known is never taken for a good one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use schemas::{StackId, StackName, Timestamp};
use uuid::Uuid;
use workers::measures::{Asked, Failure, Limits, Measured, NodeMeasured, Reading, Source, Span};
use workers::traffic::Histogram;

/// Counters older than this say that nobody counts any more.
const STALE_AFTER: Duration = Duration::from_secs(30);

struct CounterFile {
    path: PathBuf,
    /// The path as text, for messages.
    at: String,
}

/// One line of the file.
struct Sample {
    version: String,
    outcome: String,
    count: u64,
    at: Timestamp,
}

/// What a version has done up to some moment.
#[derive(Clone, Copy, Default)]
struct Total {
    requests: u64,
    errors: u64,
}

fn parse(line: &str) -> Option<Sample> {
    let rest = line.strip_prefix("requests_total{version=\"")?;
    let (version, rest) = rest.split_once("\",outcome=\"")?;
    let (outcome, rest) = rest.split_once("\"} ")?;
    let (count, at) = rest.split_once(' ')?;
    let at = Timestamp::from_millisecond(at.parse().ok()?).ok()?;
    Some(Sample { version: version.to_owned(), outcome: outcome.to_owned(), count: count.parse().ok()?, at })
}

/// Returns what `version` has done up to `until`: the last of each of its counters.
fn total(samples: &[Sample], version: &StackName, until: Timestamp) -> Total {
    let version = version.to_string();
    let counted = samples.iter().filter(|sample| sample.version == version && sample.at <= until);
    let last: BTreeMap<&str, u64> = counted.map(|sample| (sample.outcome.as_str(), sample.count)).collect();
    Total { requests: last.values().sum(), errors: last.get("error").copied().unwrap_or_default() }
}

/// Returns what was counted from `before` to `now`. A counter that fell began again at zero.
fn between(before: Total, now: Total) -> NodeMeasured {
    let begun_anew = now.requests < before.requests || now.errors < before.errors;
    let before = if begun_anew { Total::default() } else { before };
    NodeMeasured {
        node: None,
        requests: now.requests - before.requests,
        hits: BTreeMap::from([("errors", now.errors - before.errors)]),
        latency: None,
        in_flight: Histogram::default(),
    }
}

impl CounterFile {
    fn new(path: PathBuf) -> Self {
        let at = path.display().to_string();
        Self { path, at }
    }

    fn samples(&self) -> Result<Vec<Sample>, Failure> {
        let text = fs::read_to_string(&self.path)
            .map_err(|cause| Failure::Unreachable { at: self.at.clone(), cause: cause.to_string() })?;
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(|line| parse(line).ok_or_else(|| self.garbage(line))).collect()
    }

    fn garbage(&self, line: &str) -> Failure {
        let what = format!("a line that is no counter: {line}");
        Failure::Garbage { at: self.at.clone(), query: "requests_total".to_owned(), what }
    }
}

#[async_trait::async_trait]
impl Source for CounterFile {
    async fn read(&self, asked: &Asked, span: Span) -> Result<Reading, Failure> {
        let samples = self.samples()?;
        let ours = |sample: &&Sample| asked.stacks.values().any(|version| version.to_string() == sample.version);
        let Some(newest) = samples.iter().filter(ours).map(|sample| sample.at).max() else {
            return Ok(Reading::Empty { reason: format!("{} has no counters of these versions", self.at) });
        };
        if newest.checked_add(STALE_AFTER).is_ok_and(|until| until < span.to) {
            return Ok(Reading::Stale { reason: format!("the newest counters in {} are of {newest}", self.at) });
        }
        let one = |(id, version): (&StackId, &StackName)| {
            let (before, now) = (total(&samples, version, span.from), total(&samples, version, span.to));
            (*id, vec![between(before, now)])
        };
        let measured = Measured { span, stacks: asked.stacks.iter().map(one).collect() };
        Ok(Reading::Partial { measured, reason: format!("{} has no latencies", self.at) })
    }

    async fn test_source(&self, serving: &[Asked], now: Timestamp) -> Result<Vec<String>, Failure> {
        let mut lacks = Vec::new();
        for asked in serving {
            let reading = self.read(asked, self.limits().lately(now)).await?;
            if reading.measured().is_none() {
                let reason = reading.reason().unwrap_or_default();
                lacks.push(format!("{reason}; see whether its writer runs"));
            }
        }
        Ok(lacks)
    }

    fn at(&self) -> &str {
        &self.at
    }

    fn limits(&self) -> Limits {
        Limits { lag: Duration::from_secs(5), span_max: Duration::from_secs(600) }
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a time")
}

/// Returns the file's lines for both versions at some second.
fn counted(second: i64, baseline: [u64; 2], canary: [u64; 2]) -> String {
    let mut lines = String::new();
    for (version, counts) in [("1.0.0", baseline), ("1.1.0", canary)] {
        for (outcome, count) in ["ok", "error"].into_iter().zip(counts) {
            let ms = at(second).as_millisecond();
            let _ = writeln!(lines, "requests_total{{version=\"{version}\",outcome=\"{outcome}\"}} {count} {ms}");
        }
    }
    lines
}

/// Reads what a rollout's two versions did in ten seconds, then a file that nobody writes any more.
pub(crate) async fn run() -> crate::Ran {
    let folder = tempfile::tempdir()?;
    let source = CounterFile::new(folder.path().join("counters.prom"));
    let [baseline, canary] = [1, 2].map(|n| StackId(Uuid::from_u128(n)));
    let asked = Asked {
        deployment: "production/api".parse()?,
        stacks: BTreeMap::from([(baseline, "1.0.0".parse()?), (canary, "1.1.0".parse()?)]),
    };
    let span = Span { from: at(0), to: at(10) };
    assert!(matches!(source.read(&asked, span).await, Err(Failure::Unreachable { .. })), "there is no file yet");
    fs::write(&source.path, "# nobody has counted\n")?;
    assert!(matches!(source.read(&asked, span).await?, Reading::Empty { .. }));

    // The canary restarts between the two, and its counters begin again.
    let lines = [counted(0, [1_000, 10], [500, 5]), counted(10, [1_980, 12], [15, 5])];
    fs::write(&source.path, lines.concat())?;
    let reading = source.read(&asked, span).await?;
    let measured = reading.measured().ok_or("something was measured")?;
    for (stack, version) in &asked.stacks {
        let of = measured.of(*stack);
        println!("{version}: {} requests, {} errors", of.requests, of.hits("errors").unwrap_or_default());
    }
    let did = |stack| (measured.of(stack).requests, measured.of(stack).hits("errors"));
    assert_eq!(did(baseline), (982, Some(2)));
    assert_eq!(did(canary), (20, Some(5)));
    assert_eq!(measured.of(canary).latency, None, "what is not known is not told");
    assert_eq!(source.test_source(std::slice::from_ref(&asked), at(15)).await?, Vec::<String>::new());

    let stale = source.read(&asked, Span { from: at(10), to: at(60) }).await?;
    println!("a minute later: {}", stale.reason().unwrap_or_default());
    assert!(matches!(stale, Reading::Stale { .. }));
    Ok(())
}
