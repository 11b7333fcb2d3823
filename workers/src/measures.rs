//! The port to whoever counts a deployment's requests: the router itself, or the source that a policy names.
//!
//! A [`Source`] is asked what the requests of some stacks did over a span of time. It answers with a [`Reading`]: complete,
//! partial, empty or stale, or with the [`Failure`] that kept it from answering. Only what was measured may be told to the
//! judge, so that whatever the answer is, no data never becomes evidence:
//!
//! | answer | what the judge is told | a due step |
//! | --- | --- | --- |
//! | [`Reading::Complete`] | all of it | goes by the verdict |
//! | [`Reading::Partial`] | what is there; a metric that is not has no requests, so that it is never accepted | goes by the verdict, the reason is shown |
//! | [`Reading::Empty`], [`Reading::Stale`] | nothing | holds, with the reason |
//! | [`Failure`] | nothing | holds, with the reason |
//!
//! How to use it: ask for the span from the end of the last reading ([`Measured::span`], which may end before the span
//! that was asked for) to now less [`Limits::lag`]; make a tick of what comes back ([`ticks::Ticker`] for a source that
//! counts whole versions); after anything but a measured reading ask again from the same moment, so that nothing is lost
//! and nothing counted twice. Before the first tick, [`ticks::seed`] takes the baseline's past into the judge's plan.

pub mod ticks;
pub mod registry;
pub mod proxy;
pub mod prometheus;
pub mod recent;

use std::collections::BTreeMap;
use std::time::Duration;

use schemas::policy::{JudgementPolicy, metric};
use schemas::{DeploymentId, EffectId, StackId, StackName, Timestamp};

use crate::traffic::{Histogram, Router};

/// Counts requests. Every call ends within seconds, and none panics, whatever the answer is.
#[async_trait::async_trait]
pub trait Source: Send + Sync {
    /// Returns what the requests of `asked` did from `span.from`, itself excluded, to `span.to`.
    ///
    /// # Errors
    ///
    /// [`Failure`]: nothing is known; ask again for the same span later.
    async fn read(&self, asked: &Asked, span: Span) -> Result<Reading, Failure>;

    /// Tests it once: whether it answers, knows what it is asked for, and has something of the stacks that serve, which are
    /// `serving`. Returns what it lacks, each as a sentence with the next step.
    ///
    /// # Errors
    ///
    /// [`Failure`]: it cannot be asked.
    async fn test_source(&self, serving: &[Asked], now: Timestamp) -> Result<Vec<String>, Failure>;

    /// Returns what it is called in messages: its address.
    fn at(&self) -> &str;

    /// Returns what it can do.
    fn limits(&self) -> Limits;
}

/// What a source can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long ago a span must end for everything in it to have arrived.
    pub lag: Duration,
    /// How long a span is at most that it is asked for.
    pub span_max: Duration,
}

impl Limits {
    /// Returns the longest span that ends now, as far as everything has arrived.
    pub fn lately(&self, now: Timestamp) -> Span {
        self.last(self.span_max, now)
    }

    /// Returns the last span of this length of which everything has arrived.
    pub fn last(&self, length: Duration, now: Timestamp) -> Span {
        let to = now.checked_sub(self.lag).unwrap_or(now);
        Span { from: to.checked_sub(length).unwrap_or(to), to }
    }
}

/// Whose requests are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Its stacks with their names: a rollout's two, or one alone.
    pub stacks: BTreeMap<StackId, StackName>,
}

/// A span of time; its beginning is excluded, its end included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The end of the span before it.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
}

/// What a source says of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// All there is to say.
    Complete(Measured),
    /// Something is missing.
    Partial {
        /// What is there.
        measured: Measured,
        /// What is missing, and why.
        reason: String,
    },
    /// The source answers and has nothing about the stacks.
    Empty {
        /// Where there was nothing.
        reason: String,
    },
    /// What the source has is old: it, or whoever tells it, has stopped counting.
    Stale {
        /// How old, and what.
        reason: String,
    },
}

/// Why a source has not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No connection, or a broken one.
    #[error("{at} cannot be reached: {cause}; start it, or correct the policy's address")]
    Unreachable {
        /// The source.
        at: String,
        /// What went wrong.
        cause: String,
    },
    /// No whole answer in time.
    #[error("{at} gave no complete answer within {after:?}; see whether it is overloaded")]
    TimedOut {
        /// The source.
        at: String,
        /// How long it had.
        after: Duration,
    },
    /// An HTTP status that is no success.
    #[error("{at} answered {status}: {body}")]
    Status {
        /// The source.
        at: String,
        /// The status.
        status: u16,
        /// How its answer begins.
        body: String,
    },
    /// It understood the question and says no.
    #[error("{at} refuses the query `{query}`: {reason}")]
    Refused {
        /// The source.
        at: String,
        /// What was asked.
        query: String,
        /// What it says.
        reason: String,
    },
    /// An answer that is not what it should be.
    #[error("{at} answered the query `{query}` with {what}")]
    Garbage {
        /// The source.
        at: String,
        /// What was asked.
        query: String,
        /// What came back.
        what: String,
    },
    /// The source cannot be queried as the policy says.
    #[error("cannot query {at}: {reason}")]
    Unasked {
        /// The source.
        at: String,
        /// Why.
        reason: String,
    },
}

/// What was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The span that it covers: it begins where it was asked to, and may end a little before.
    pub span: Span,
    /// The stacks, each with its nodes, or with one for all if they are not told apart. A stack without any had no
    /// requests.
    pub stacks: BTreeMap<StackId, Vec<NodeMeasured>>,
}

/// What was counted of one node, or of all nodes of a version together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeMeasured {
    /// The node; none for a whole version.
    pub node: Option<EffectId>,
    /// Requests that ended.
    pub requests: u64,
    /// Those that were hits of each metric that is a share of requests, by its name; one of which nobody knows is left out.
    pub hits: BTreeMap<&'static str, u64>,
    /// How long they took, if that is known.
    pub latency: Option<Latency>,
    /// The ages of those that had not ended at the span's end, where the source knows them.
    pub in_flight: Histogram,
}

/// How long requests took, in the judge's buckets of 1 %.
///
/// A source with wider buckets knows a request's latency only from one edge to the next. Each of the two histograms has
/// every request, at one end of what is possible. The baseline is judged by `at_most` and the canary by `at_least`, so
/// that width never makes a canary look slower than it is: it may be slower by more than its tolerance, up to the next
/// edge, before that shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Each request at the longest it may have taken.
    pub at_most: Histogram,
    /// Each request at the shortest.
    pub at_least: Histogram,
}

/// Tests the source that `policy` names, if it names one, within 2 s: [`registry::Registry::test_source`] of those that are
/// supported.
pub async fn test_source(policy: &JudgementPolicy, serving: &[Asked], now: Timestamp) -> Vec<String> {
    registry::SUPPORTED.test_source(policy, serving, now).await
}

/// Returns what was measured lately: by the source that the policy names in the longest span that it is asked for, else by
/// the router since its start.
///
/// # Errors
///
/// Why nothing was, in a sentence.
pub async fn lately(
    asked: &Asked,
    policy: &JudgementPolicy,
    router: &dyn Router,
    now: Timestamp,
) -> Result<Measured, String> {
    if let Some(measured) = registry::SUPPORTED.lately(policy, asked, now).await? {
        return Ok(measured);
    }
    let measures = router.measures(&asked.deployment).await.map_err(|error| error.to_string())?;
    let measures = measures.ok_or_else(|| format!("the router does not serve {}", asked.deployment))?;
    Ok(proxy::so_far(asked, &proxy::CounterReading { at: now, measures }))
}

impl Reading {
    /// Returns what was measured, if anything was.
    pub fn measured(&self) -> Option<&Measured> {
        match self {
            Self::Complete(measured) | Self::Partial { measured, .. } => Some(measured),
            Self::Empty { .. } | Self::Stale { .. } => None,
        }
    }

    /// Returns what is missing, if anything is.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Complete(_) => None,
            Self::Partial { reason, .. } | Self::Empty { reason } | Self::Stale { reason } => Some(reason),
        }
    }

    fn of(measured: Measured, missing: Vec<String>) -> Self {
        if missing.is_empty() {
            Self::Complete(measured)
        } else {
            Self::Partial { measured, reason: missing.join("; ") }
        }
    }
}

impl Measured {
    /// Returns what all nodes of `stack` did together.
    pub fn of(&self, stack: StackId) -> NodeMeasured {
        let nodes = self.stacks.get(&stack).map_or(&[][..], Vec::as_slice);
        let Some((first, rest)) = nodes.split_first() else { return NodeMeasured::nothing() };
        rest.iter().fold(NodeMeasured { node: None, ..first.clone() }, NodeMeasured::and)
    }
}

impl NodeMeasured {
    /// Returns what a version without requests did.
    pub fn nothing() -> Self {
        let hits = metric::share_metrics().map(|metric| (metric.name, 0)).collect();
        Self { hits, latency: Some(Latency::default()), ..Self::default() }
    }

    /// Returns how many requests were hits of the metric of this name, if that is known.
    pub fn hits(&self, metric: &str) -> Option<u64> {
        self.hits.get(metric).copied()
    }

    fn and(self, other: &Self) -> Self {
        let both = |(name, own): (&&'static str, &u64)| Some((*name, own + other.hits.get(name)?));
        let latency = self.latency.zip(other.latency.as_ref()).map(|(mut latency, other)| {
            latency.at_most.merge(&other.at_most);
            latency.at_least.merge(&other.at_least);
            latency
        });
        let mut in_flight = self.in_flight;
        in_flight.merge(&other.in_flight);
        Self {
            node: None,
            requests: self.requests + other.requests,
            hits: self.hits.iter().filter_map(both).collect(),
            latency,
            in_flight,
        }
    }
}

impl Latency {
    /// Returns latencies that are known to 1 %.
    pub fn exact(histogram: Histogram) -> Self {
        Self { at_least: histogram.clone(), at_most: histogram }
    }
}
