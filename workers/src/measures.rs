//! The port to whoever counts a deployment's requests: the router itself, or a Prometheus server.
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
//! that was asked for) to now less [`Source::lag`]; make a tick of what comes back ([`ticks::Ticker`] for a source that
//! counts whole versions); after anything but a measured reading ask again from the same moment, so that nothing is lost
//! and nothing counted twice. Before the first tick, [`ticks::seed`] takes the baseline's past into the judge's plan.

pub mod ticks;
pub mod proxy;
pub mod prometheus;
pub mod recent;

use std::collections::BTreeMap;
use std::time::Duration;

use schemas::policy::JudgementPolicy;
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

    /// Returns how long ago a span must end for everything in it to have arrived.
    fn lag(&self) -> Duration;
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
    #[error("{at} gave no whole answer within {after:?}; see whether it is overloaded")]
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
    /// The source cannot be asked as the policy says.
    #[error("{at} cannot be asked: {reason}")]
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
    /// Those that failed, if that is known.
    pub errors: Option<u64>,
    /// Those that were answered with a 4xx status, if that is known.
    pub status_4xx: Option<u64>,
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

/// How long a policy's source is tried at most, when it is declared or relied on.
const TRIAL_MAX: Duration = Duration::from_secs(2);

/// Tries the source that `policy` names, if it names one, within 2 s. `serving` are the stacks that serve. Returns what is amiss,
/// each as a sentence that names the source, the cause and the next step.
pub async fn trial(policy: &JudgementPolicy, serving: &[Asked], now: Timestamp) -> Vec<String> {
    let Some(prometheus) = &policy.prometheus else { return vec![] };
    let tried = async { prometheus::PrometheusSource::new(prometheus, policy)?.trial(serving, now).await };
    match tokio::time::timeout(TRIAL_MAX, tried).await {
        Ok(Ok(lacks)) => lacks,
        Ok(Err(failure)) => vec![failure.to_string()],
        Err(_) => vec![Failure::TimedOut { at: prometheus.address.clone(), after: TRIAL_MAX }.to_string()],
    }
}

/// Returns what was measured lately: by the policy's Prometheus in the last hour, else by the router since its start.
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
    let Some(prometheus) = &policy.prometheus else {
        let measures = router.measures(&asked.deployment).await.map_err(|error| error.to_string())?;
        let measures = measures.ok_or_else(|| format!("the router does not serve {}", asked.deployment))?;
        return Ok(proxy::so_far(asked, &proxy::Look { at: now, measures }));
    };
    let source = prometheus::PrometheusSource::new(prometheus, policy).map_err(|failure| failure.to_string())?;
    match source.read(asked, source.lately(now)).await.map_err(|failure| failure.to_string())? {
        Reading::Complete(measured) | Reading::Partial { measured, .. } => Ok(measured),
        Reading::Empty { reason } | Reading::Stale { reason } => Err(reason),
    }
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
        Self { errors: Some(0), status_4xx: Some(0), latency: Some(Latency::default()), ..Self::default() }
    }

    fn and(self, other: &Self) -> Self {
        let sum = |a: Option<u64>, b: Option<u64>| Some(a? + b?);
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
            errors: sum(self.errors, other.errors),
            status_4xx: sum(self.status_4xx, other.status_4xx),
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
