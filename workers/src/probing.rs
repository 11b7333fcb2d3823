//! Probing: what the newest probes say of the stacks that a rollback is about, as data for its decision.
//!
//! It makes every check of a process, so that it knows the newest answers of all nodes that are checked here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt as _};
use ledger::deployment::{Deployment, Node, Stack, rollback};
use schemas::Probed;
use schemas::run::HttpCheck;
use tokio::time::{Instant, timeout};

use crate::checks::{Checks, Probe};

/// How long a rollback waits for an answer at most.
pub const WAIT_MAX: Duration = Duration::from_millis(300);

/// How old an answer may be that stands for one that does not come in time, in intervals of its check.
const OLD_MAX: u32 = 2;

/// Makes checks and remembers their newest answers.
pub struct Probing {
    checks: Arc<dyn Checks>,
    newest: Mutex<Newest>,
}

/// The newest answer of each node, and when it came.
#[derive(Default)]
struct Newest {
    answers: HashMap<SocketAddr, (Instant, Probe)>,
    /// When old answers were dropped last.
    forgot_at: Option<Instant>,
}

impl Newest {
    /// Keeps an answer. Old ones are dropped once in [`FORGOTTEN_AFTER`]: a walk over all nodes at each answer would cost the
    /// square of their number.
    fn keep(&mut self, address: SocketAddr, probe: Probe, now: Instant) {
        let is_old = |at: &Instant| now.duration_since(*at) >= FORGOTTEN_AFTER;
        if self.forgot_at.as_ref().is_none_or(is_old) {
            self.answers.retain(|_, (at, _)| !is_old(at));
            self.forgot_at = Some(now);
        }
        self.answers.insert(address, (now, probe));
    }
}

#[async_trait::async_trait]
impl Checks for Probing {
    async fn probe(&self, address: SocketAddr, check: &HttpCheck) -> Probe {
        let probe = self.checks.probe(address, check).await;
        self.lock().keep(address, probe.clone(), Instant::now());
        probe
    }
}

/// After what time nobody asks for an answer any more: twice the longest interval of a check.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);

/// What is known of a stack.
enum Said {
    Passes,
    Fails(String),
    CannotBeAsked,
}

impl Probing {
    /// Makes its checks with `checks`.
    pub fn new(checks: Arc<dyn Checks>) -> Arc<Self> {
        Arc::new(Self { checks, newest: Mutex::default() })
    }

    /// Probes every stack that a rollback of `deployment` is about, and returns what they say within [`WAIT_MAX`].
    ///
    /// A stack passes if one of its nodes does. Refused and timed out is failed; a probe that could not be made, for a fault on
    /// our side, says nothing.
    pub async fn look(self: &Arc<Self>, deployment: &Deployment) -> Probed {
        let stacks = rollback::to_probe(deployment).into_iter();
        let stacks = stacks.filter_map(|id| Some((id, deployment.stacks.get(&id)?)));
        let mut probed = Probed::default();
        for (stack, said) in join_all(stacks.map(async |(id, stack)| (id, self.look_at(stack).await))).await {
            match said {
                Said::Passes => probed.passes(stack),
                Said::Fails(why) => probed.fails(stack, why),
                Said::CannotBeAsked => {}
            }
        }
        probed
    }

    async fn look_at(self: &Arc<Self>, stack: &Stack) -> Said {
        let addresses = stack.nodes.values().filter_map(Node::address);
        let mut probes: FuturesUnordered<_> =
            addresses.map(|address| self.ask(address, stack.run.check.clone())).collect();
        let (mut why, mut unknown) = ("none of its nodes runs".to_owned(), false);
        while let Some(probe) = probes.next().await {
            match probe {
                Probe::Passed { .. } => return Said::Passes,
                Probe::Failed { reason } => why = reason,
                Probe::Unknown { .. } => unknown = true,
            }
        }
        if unknown { Said::CannotBeAsked } else { Said::Fails(why) }
    }

    /// Asks a node; an answer that does not come in time is the one before it, unless that is old, and then a failure.
    async fn ask(self: &Arc<Self>, address: SocketAddr, check: HttpCheck) -> Probe {
        let interval = Duration::from_millis(check.interval_ms);
        let before = self.lock().answers.get(&address).cloned();
        let asking = Arc::clone(self);
        // It goes on when it is not waited for any more, and is the newest then.
        let asked = tokio::spawn(async move { asking.probe(address, &check).await });
        let silent = || Probe::Failed { reason: format!("{address} gave no answer within {WAIT_MAX:?}") };
        match timeout(WAIT_MAX, asked).await {
            Ok(Ok(probe)) => probe,
            Ok(Err(panic)) => Probe::Unknown { reason: panic.to_string() },
            Err(_) => {
                before.filter(|(at, _)| at.elapsed() <= OLD_MAX * interval).map_or_else(silent, |(_, probe)| probe)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Newest> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers at some ports, refuses at others, and is silent at the rest.
    struct Ports;

    #[async_trait::async_trait]
    impl Checks for Ports {
        async fn probe(&self, address: SocketAddr, _: &HttpCheck) -> Probe {
            match address.port() {
                1 => Probe::Passed { latency_ms: 1 },
                2 => Probe::Failed { reason: "connection refused".to_owned() },
                3 => Probe::Unknown { reason: "too many open files".to_owned() },
                4 => {
                    tokio::time::sleep(Duration::from_millis(400)).await;
                    Probe::Passed { latency_ms: 400 }
                }
                _ => std::future::pending().await,
            }
        }
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    async fn ask(probing: &Arc<Probing>, port: u16) -> Probe {
        probing.ask(address(port), HttpCheck::default()).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_does_not_answer_in_time_has_failed_and_is_waited_for_no_longer() {
        let (probing, began) = (Probing::new(Arc::new(Ports)), Instant::now());
        let Probe::Failed { reason } = ask(&probing, 9).await else { panic!("it passes") };
        assert_eq!(reason, "127.0.0.1:9 gave no answer within 300ms");
        assert_eq!(began.elapsed(), WAIT_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_is_the_one_before_it_for_two_intervals() {
        let probing = Probing::new(Arc::new(Ports));
        assert!(matches!(ask(&probing, 4).await, Probe::Failed { .. }), "nothing is known of it yet");
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(matches!(ask(&probing, 4).await, Probe::Passed { .. }), "it answered a moment ago");
        // What was asked meanwhile is known 400 ms after it was asked.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert!(matches!(ask(&probing, 4).await, Probe::Failed { .. }), "that is more than two intervals ago");
    }

    #[test]
    fn old_answers_are_dropped_together_and_not_looked_for_at_each_answer() {
        let (mut newest, began) = (Newest::default(), Instant::now());
        let mut keep = |port: u16, after_s: u64| {
            newest.keep(address(port), Probe::Passed { latency_ms: 1 }, began + Duration::from_secs(after_s));
            let mut kept: Vec<u16> = newest.answers.keys().map(SocketAddr::port).collect();
            kept.sort_unstable();
            kept
        };
        keep(1, 0);
        keep(2, 1);
        assert_eq!(keep(3, 120), [2, 3]);
        assert_eq!(keep(4, 121), [2, 3, 4], "nothing is looked for so soon again");
        assert_eq!(keep(5, 240), [4, 5]);
    }

    #[tokio::test]
    async fn a_fault_of_ours_says_nothing_of_the_node() {
        let probing = Probing::new(Arc::new(Ports));
        assert!(matches!(ask(&probing, 3).await, Probe::Unknown { .. }));
        assert!(matches!(ask(&probing, 1).await, Probe::Passed { .. }));
        assert!(matches!(ask(&probing, 2).await, Probe::Failed { .. }));
    }
}
