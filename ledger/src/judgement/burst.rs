//! The burst cap: requests fail together, and a node's second of trouble is one event, not fifty.
//!
//! A node is credited at most so many hits a second as a node at the line has once in ten thousand; twice as many from
//! its third such second in a row, then four times, and so on, so that what lasts is seen. Leaving out hits of the
//! canary can only save it. Hits of the baseline are left out on few of its nodes at a time: if half of them exceed
//! the cap, it is no hiccup of a node but an outage, and all of it counts, so that the canary is not measured by a
//! baseline that looks better than it is.

use serde::{Deserialize, Serialize};

use super::exact;
use super::maths::poisson_limit;

/// The least that is credited, in hits a window.
const HITS_MIN: f64 = 2.0;

/// How long a window is at least, in seconds.
const WINDOW_SECONDS: f64 = 1.0;

/// Windows end a little early rather than a tick late, as sums of tenths of a second are not whole.
const ROUNDING: f64 = 1e-6;

/// The windows of a version's nodes, for one metric.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bursts {
    #[serde(with = "exact")]
    seconds: f64,
    nodes: Vec<Window>,
}

/// A node's present window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Window {
    node: u32,
    #[serde(with = "exact")]
    requests: f64,
    #[serde(with = "exact")]
    hits: f64,
    #[serde(with = "exact")]
    credited: f64,
    over_before: u32,
}

/// One node's requests and hits in a tick.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeHits {
    /// The node.
    pub node: u32,
    /// Its requests.
    #[serde(with = "exact")]
    pub requests: f64,
    /// Its hits; afterwards those that are credited.
    #[serde(with = "exact")]
    pub hits: f64,
}

/// What is done when many nodes exceed the cap at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Many {
    /// Each of them is capped.
    Capped,
    /// None is.
    Counted,
}

impl Bursts {
    /// Leaves of the tick's hits those that are credited. `line` is the rate of hits that is tolerated.
    pub fn cap(&mut self, seconds: f64, line: f64, many: Many, tick: &mut [NodeHits]) {
        for node in tick.iter() {
            let window = self.of(node.node);
            window.requests += node.requests;
            window.hits += node.hits;
        }
        let with_requests = self.nodes.iter().filter(|window| window.requests > 0.0).count();
        let over = self.nodes.iter().filter(|window| window.is_over(line)).count();
        let all_count = many == Many::Counted && over * 2 >= with_requests;
        for node in tick.iter_mut() {
            let window = self.of(node.node);
            let due = if all_count { window.hits } else { window.hits.min(window.limit(line)) };
            node.hits = (due - window.credited).max(0.0);
            window.credited += node.hits;
        }
        self.seconds += seconds;
        if self.seconds >= WINDOW_SECONDS - ROUNDING {
            self.seconds = 0.0;
            self.nodes.iter_mut().for_each(|window| window.end(line));
        }
    }

    fn of(&mut self, node: u32) -> &mut Window {
        let place = self.nodes.binary_search_by_key(&node, |window| window.node).unwrap_or_else(|place| {
            let window = Window { node, requests: 0.0, hits: 0.0, credited: 0.0, over_before: 0 };
            self.nodes.insert(place, window);
            place
        });
        &mut self.nodes[place]
    }
}

impl Window {
    /// Returns how many hits a node at the line has at most. Cheap where there are few: the usual second has none.
    fn usual_limit(&self, line: f64) -> f64 {
        let mean = line * self.requests;
        if self.hits <= HITS_MIN.max(mean) { f64::INFINITY } else { HITS_MIN.max(poisson_limit(mean)) }
    }

    /// Returns how many hits count.
    fn limit(&self, line: f64) -> f64 {
        let doublings = self.over_before.saturating_sub(1).min(40);
        self.usual_limit(line) * (1_u64 << doublings) as f64
    }

    fn is_over(&self, line: f64) -> bool {
        self.hits > self.usual_limit(line)
    }

    fn end(&mut self, line: f64) {
        self.over_before = if self.is_over(line) { self.over_before + 1 } else { 0 };
        (self.requests, self.hits, self.credited) = (0.0, 0.0, 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: f64 = 0.0015;

    fn capped(bursts: &mut Bursts, seconds: f64, many: Many, nodes: &[(f64, f64)]) -> Vec<f64> {
        let node =
            |(i, (requests, hits)): (usize, &(f64, f64))| NodeHits { node: i as u32, requests: *requests, hits: *hits };
        let mut tick: Vec<NodeHits> = nodes.iter().enumerate().map(node).collect();
        bursts.cap(seconds, LINE, many, &mut tick);
        tick.iter().map(|node| node.hits).collect()
    }

    #[test]
    fn a_node_that_keeps_failing_is_credited_twice_as_much_from_its_third_second_on() {
        let mut bursts = Bursts::default();
        let credited: Vec<f64> = (0..7).map(|_| capped(&mut bursts, 1.0, Many::Capped, &[(10.0, 10.0)])[0]).collect();
        assert_eq!(credited, [2.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]);
    }

    #[test]
    fn a_second_is_a_second_in_however_many_ticks_it_is_told() {
        let mut bursts = Bursts::default();
        let mut credited = 0.0;
        for tick in 0..20 {
            credited += capped(&mut bursts, 0.1, Many::Capped, &[(1.0, 1.0)])[0];
            if tick == 9 {
                assert_eq!(credited, 2.0);
            }
        }
        assert_eq!(credited, 4.0);
    }

    #[test]
    fn the_usual_second_is_credited_in_full() {
        let mut bursts = Bursts::default();
        assert_eq!(capped(&mut bursts, 1.0, Many::Capped, &[(900.0, 5.0), (900.0, 0.0)]), [5.0, 0.0]);
        assert_eq!(capped(&mut bursts, 1.0, Many::Capped, &[(900.0, 50.0), (900.0, 1.0)]), [7.0, 1.0]);
    }

    #[test]
    fn an_outage_of_the_baseline_counts_in_full_and_a_hiccup_of_one_node_does_not() {
        let mut bursts = Bursts::default();
        assert_eq!(capped(&mut bursts, 1.0, Many::Counted, &[(90.0, 45.0), (90.0, 0.0), (90.0, 0.0)]), [3.0, 0.0, 0.0]);
        assert_eq!(
            capped(&mut bursts, 1.0, Many::Counted, &[(90.0, 45.0), (90.0, 40.0), (90.0, 0.0)]),
            [45.0, 40.0, 0.0]
        );
    }
}
