//! A node's meter: counts, latencies and the requests in flight, read as one consistent picture.
//!
//! One mutex per node, held for tens of nanoseconds twice a request, keeps the counts and the histogram in step, so
//! that a judge never sees more slow requests than requests.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Instant;

use crate::measures::{Counts, HIGHEST_BUCKET, Histogram, LOWEST_BUCKET, NodeMeasures, bucket_of};

const CHUNK: usize = 64;
const CHUNKS: usize = (HIGHEST_BUCKET - LOWEST_BUCKET) as usize / CHUNK + 1;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestOutcome {
    /// The node answered to the end, with this status.
    Answered(u16),
    /// The node did not answer to the end.
    Failed,
    /// The user did not wait for the end.
    Abandoned,
    /// No connection to the node; the request goes on to another.
    PassedOn,
}

/// Where a request in flight is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlightKey(u32);

#[derive(Debug, Default)]
pub(super) struct Meter {
    /// How many requests are in flight: read without the lock for every choice of a node.
    load: AtomicU32,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    counts: Counts,
    passed_on: u64,
    latency: Latency,
    in_flight: InFlight,
}

/// A histogram whose chunks appear when they are first needed: a service's latencies fill a few of them.
#[derive(Debug)]
struct Latency([Option<Box<[u64; CHUNK]>>; CHUNKS]);

/// The starts of the requests in flight; places are used again.
#[derive(Debug, Default)]
struct InFlight {
    starts: Vec<Option<Instant>>,
    free: Vec<u32>,
}

impl Meter {
    /// Returns how many requests are in flight.
    pub(super) fn load(&self) -> u32 {
        self.load.load(Relaxed)
    }

    /// Takes note of a request that came in at `start`.
    pub(super) fn begin(&self, start: Instant) -> InFlightKey {
        self.load.fetch_add(1, Relaxed);
        self.inner.lock().unwrap().in_flight.insert(start)
    }

    /// Takes note of the end of the request at `place`.
    pub(super) fn end(&self, place: InFlightKey, outcome: RequestOutcome, ended: Instant) {
        self.load.fetch_sub(1, Relaxed);
        let mut inner = self.inner.lock().unwrap();
        let Some(start) = inner.in_flight.remove(place) else { return };
        let counts = &mut inner.counts;
        let count = match outcome {
            RequestOutcome::PassedOn => {
                inner.passed_on += 1;
                return;
            }
            RequestOutcome::Failed => &mut counts.failed,
            RequestOutcome::Abandoned => &mut counts.abandoned,
            RequestOutcome::Answered(..200) => &mut counts.status_1xx,
            RequestOutcome::Answered(..300) => &mut counts.status_2xx,
            RequestOutcome::Answered(..400) => &mut counts.status_3xx,
            RequestOutcome::Answered(..500) => &mut counts.status_4xx,
            RequestOutcome::Answered(_) => &mut counts.status_5xx,
        };
        *count += 1;
        inner.latency.add(bucket_of(ms(start, ended)));
    }

    /// Returns what was seen until `now`.
    pub(super) fn read(&self, address: SocketAddr, now: Instant) -> NodeMeasures {
        let inner = self.inner.lock().unwrap();
        let mut in_flight = Histogram::default();
        inner.in_flight.starts.iter().flatten().for_each(|start| in_flight.add(ms(*start, now)));
        let oldest = inner.in_flight.starts.iter().flatten().min();
        NodeMeasures {
            address,
            counts: inner.counts,
            passed_on: inner.passed_on,
            latency: inner.latency.read(),
            in_flight,
            oldest_in_flight_ms: oldest.map(|start| now.saturating_duration_since(*start).as_millis() as u64),
        }
    }
}

fn ms(start: Instant, end: Instant) -> f64 {
    end.saturating_duration_since(start).as_secs_f64() * 1_000.0
}

impl Default for Latency {
    fn default() -> Self {
        Self([const { None }; CHUNKS])
    }
}

impl Latency {
    fn add(&mut self, bucket: i32) {
        let place = (bucket - LOWEST_BUCKET) as usize;
        self.0[place / CHUNK].get_or_insert_with(|| Box::new([0; CHUNK]))[place % CHUNK] += 1;
    }

    fn read(&self) -> Histogram {
        let chunks = self.0.iter().enumerate().filter_map(|(i, chunk)| Some((i, chunk.as_deref()?)));
        let buckets = chunks.flat_map(|(i, chunk)| {
            chunk.iter().enumerate().map(move |(j, count)| (LOWEST_BUCKET + (i * CHUNK + j) as i32, *count))
        });
        Histogram(buckets.filter(|(_, count)| *count > 0).collect())
    }
}

impl InFlight {
    fn insert(&mut self, start: Instant) -> InFlightKey {
        if let Some(free) = self.free.pop() {
            self.starts[free as usize] = Some(start);
            return InFlightKey(free);
        }
        self.starts.push(Some(start));
        InFlightKey(self.starts.len() as u32 - 1)
    }

    fn remove(&mut self, place: InFlightKey) -> Option<Instant> {
        let start = self.starts[place.0 as usize].take();
        if start.is_some() {
            self.free.push(place.0);
        }
        start
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address() -> SocketAddr {
        ([127, 0, 0, 1], 80).into()
    }

    #[test]
    fn every_ended_request_is_in_one_count_and_in_the_histogram() {
        let (meter, start) = (Meter::default(), Instant::now());
        let outcomes = [101, 200, 204, 304, 404, 503].map(RequestOutcome::Answered);
        for outcome in outcomes.into_iter().chain([RequestOutcome::Failed, RequestOutcome::Abandoned]) {
            let place = meter.begin(start);
            meter.end(place, outcome, start + Duration::from_millis(20));
        }
        let seen = meter.read(address(), start);
        let Counts { status_1xx, status_2xx, status_3xx, status_4xx, status_5xx, failed, abandoned } = seen.counts;
        assert_eq!(
            [status_1xx, status_2xx, status_3xx, status_4xx, status_5xx, failed, abandoned],
            [1, 2, 1, 1, 1, 1, 1]
        );
        assert_eq!(seen.latency, Histogram([(bucket_of(20.0), 8)].into()));
        assert_eq!(seen.oldest_in_flight_ms, None);
    }

    #[test]
    fn a_request_passed_on_is_no_outcome_of_the_node() {
        let (meter, start) = (Meter::default(), Instant::now());
        let place = meter.begin(start);
        meter.end(place, RequestOutcome::PassedOn, start);
        let seen = meter.read(address(), start);
        assert_eq!((seen.counts.ended(), seen.passed_on, seen.latency.count(), meter.load()), (0, 1, 0, 0));
    }

    #[test]
    fn the_ages_of_requests_in_flight_are_seen() {
        let (meter, start) = (Meter::default(), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        let places = [0, 100, 200].map(|ms| meter.begin(after(ms)));
        meter.end(places[1], RequestOutcome::Answered(200), after(250));
        let again = meter.begin(after(290));
        let seen = meter.read(address(), after(300));
        assert_eq!(seen.oldest_in_flight_ms, Some(300));
        assert_eq!(seen.in_flight, Histogram([300.0, 100.0, 10.0].map(|ms| (bucket_of(ms), 1)).into()));
        meter.end(places[0], RequestOutcome::Failed, after(300));
        assert_eq!(meter.read(address(), after(300)).oldest_in_flight_ms, Some(100));
        assert_eq!((meter.load(), again.0), (2, 1), "the place of an ended request is used again");
    }
}
