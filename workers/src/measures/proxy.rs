//! What our own router has counted: exact, node by node, with the ages of what is in flight.
//!
//! A router tells counts since its start. What a span holds is the difference of two readings.

use schemas::policy::metric;
use schemas::{EffectId, Timestamp};

use super::{Asked, Latency, Measured, NodeMeasured, Reading, Span};
use crate::traffic::{Measures, NodeMeasures};

/// One reading of a router's counters.
#[derive(Clone, Debug, PartialEq)]
pub struct CounterReading {
    /// When.
    pub at: Timestamp,
    /// What they were.
    pub measures: Measures,
}

/// Returns what was counted from reading `before` to reading `now`.
pub fn reading_between(asked: &Asked, before: Option<&CounterReading>, now: &CounterReading) -> Reading {
    let Some(before) = before else {
        let reason = "the router's counters were read for the first time; requests are counted from now on".to_owned();
        return Reading::Empty { reason };
    };
    let begun_anew = before.measures.epoch != now.measures.epoch;
    if !begun_anew && now.measures.at_ms <= before.measures.at_ms {
        return Reading::Stale { reason: "the router's counters are not newer than the last time".to_owned() };
    }
    let counted = |stack: &schemas::StackId| {
        let nodes = now.measures.stacks.get(stack).into_iter().flat_map(|stack| &stack.nodes);
        let earlier = before.measures.stacks.get(stack).filter(|_| !begun_anew);
        nodes.map(|(node, of)| counted(*node, earlier.and_then(|stack| stack.nodes.get(node)), of)).collect()
    };
    let stacks = asked.stacks.keys().map(|stack| (*stack, counted(stack))).collect();
    let measured = Measured { span: Span { from: before.at, to: now.at }, stacks };
    let lost = "the router restarted; what it counted after the last reading is lost";
    Reading::of(measured, if begun_anew { vec![lost.to_owned()] } else { vec![] })
}

/// Returns what was counted from the router's start to `now`. Nodes that left long ago are not in it.
pub fn so_far(asked: &Asked, now: &CounterReading) -> Measured {
    let counted_of = |stack: &schemas::StackId| {
        let nodes = now.measures.stacks.get(stack).into_iter().flat_map(|stack| &stack.nodes);
        nodes.map(|(node, of)| counted(*node, None, of)).collect()
    };
    let since_start = jiff::SignedDuration::from_millis(i64::try_from(now.measures.at_ms).unwrap_or(i64::MAX));
    let from = now.at.checked_sub(since_start).unwrap_or(Timestamp::MIN);
    let stacks = asked.stacks.keys().map(|stack| (*stack, counted_of(stack))).collect();
    Measured { span: Span { from, to: now.at }, stacks }
}

fn counted(node: EffectId, before: Option<&NodeMeasures>, now: &NodeMeasures) -> NodeMeasured {
    let counts = before.map_or(now.counts, |before| now.counts.since(&before.counts));
    let latency = before.map_or_else(|| now.latency.clone(), |before| now.latency.since(&before.latency));
    NodeMeasured {
        node: Some(node),
        requests: counts.ended(),
        hits: metric::share_metrics().filter_map(|metric| Some((metric.name, counts.hits(metric.name)?))).collect(),
        latency: Some(Latency::exact(latency)),
        in_flight: now.in_flight.clone(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::traffic::{Counts, Histogram, StackMeasures};
    use schemas::StackId;
    use uuid::Uuid;

    pub(in crate::measures) fn stack() -> StackId {
        StackId(Uuid::from_u128(1))
    }

    pub(in crate::measures) fn asked() -> Asked {
        let stacks = BTreeMap::from([(stack(), "1.2.3".parse().unwrap())]);
        Asked { deployment: "production/api".parse().unwrap(), stacks }
    }

    pub(in crate::measures) fn counters(epoch: u128, at_ms: u64, ok: u64, failed: u64) -> CounterReading {
        let mut latency = Histogram::default();
        (0..ok + failed).for_each(|_| latency.add(20.0));
        let mut in_flight = Histogram::default();
        in_flight.add(500.0);
        let node = NodeMeasures {
            address: "127.0.0.1:1".parse().unwrap(),
            counts: Counts { status_2xx: ok, failed, ..Counts::default() },
            passed_on: 0,
            latency,
            in_flight,
            oldest_in_flight_ms: Some(500),
        };
        let nodes = BTreeMap::from([(EffectId(Uuid::from_u128(7)), node)]);
        let measures = Measures {
            epoch: Uuid::from_u128(epoch),
            deployment: asked().deployment,
            generation: schemas::StreamVersion(1),
            at_ms,
            refused: 0,
            stacks: BTreeMap::from([(stack(), StackMeasures { version: "1.2.3".parse().unwrap(), nodes })]),
        };
        CounterReading { at: Timestamp::from_millisecond(at_ms as i64).unwrap(), measures }
    }

    #[test]
    fn what_a_span_holds_is_the_difference_of_two_looks() {
        let reading = reading_between(&asked(), Some(&counters(1, 1_000, 10, 1)), &counters(1, 2_000, 25, 3));
        let Reading::Complete(measured) = &reading else { panic!("{reading:?}") };
        let node = &measured.stacks[&stack()][0];
        assert_eq!((node.requests, node.hits("errors"), node.hits("4xx")), (17, Some(2), Some(0)));
        assert_eq!(node.latency.as_ref().unwrap().at_most.count(), 17);
        assert_eq!(node.in_flight.count(), 1, "what is in flight is as it is now");
    }

    #[test]
    fn the_first_look_counts_nothing_and_a_look_back_in_time_is_stale() {
        assert!(matches!(reading_between(&asked(), None, &counters(1, 1_000, 10, 1)), Reading::Empty { .. }));
        let reading = reading_between(&asked(), Some(&counters(1, 1_000, 10, 1)), &counters(1, 1_000, 10, 1));
        assert!(matches!(reading, Reading::Stale { .. }), "{reading:?}");
    }

    #[test]
    fn what_was_counted_so_far_is_since_the_routers_start() {
        let measured = so_far(&asked(), &counters(1, 60_000, 10, 1));
        assert_eq!(measured.of(stack()).requests, 11);
        assert_eq!(measured.span.to.duration_since(measured.span.from).as_secs(), 60);
    }

    #[test]
    fn a_router_that_began_anew_has_counted_from_zero_and_says_what_is_lost() {
        let reading = reading_between(&asked(), Some(&counters(1, 9_000, 100, 5)), &counters(2, 100, 4, 0));
        assert!(reading.reason().unwrap().contains("restarted"), "{reading:?}");
        assert_eq!(reading.measured().unwrap().of(stack()).requests, 4);
    }
}
