//! The poller: carries a worker's polls out, each in a task of its own, so that a slow one delays nobody.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use ledger::{Ledger, State};
use schemas::{DeploymentId, Offset, Role};
use tokio::sync::mpsc;

use super::{Adapters, News, said};
use crate::checks::Checks as _;
use crate::facts::Facts;
use crate::measures::registry::SUPPORTED;
use crate::poll::{Pace, Poll, PollResult, PollSchedule};
use crate::traffic::Measures;

/// A worker's polls and where they go.
pub(super) struct Poller {
    schedule: PollSchedule,
    adapters: Adapters,
    ledger: Ledger,
    send: mpsc::UnboundedSender<News>,
}

impl Poller {
    pub(super) fn new(role: Role, ledger: Ledger, adapters: Adapters, send: mpsc::UnboundedSender<News>) -> Self {
        Self { schedule: PollSchedule::new(role, Pace::default()), adapters, ledger, send }
    }

    /// Begins the polls that are due and returns when the next one is.
    pub(super) fn poll(&mut self, state: &State, facts: &Facts) -> Duration {
        let (polls, next) = self.schedule.begin(state, facts);
        for poll in polls {
            let (adapters, ledger, send) = (self.adapters.clone(), self.ledger.clone(), self.send.clone());
            tokio::spawn(async move {
                let seen = AssertUnwindSafe(see(&adapters, &ledger, poll.clone())).catch_unwind().await;
                let news = seen.map_or_else(
                    |panic| {
                        tracing::error!(?poll, why = said(&*panic), "a poll broke off");
                        News::Lost(poll)
                    },
                    News::Seen,
                );
                // A worker that has ended needs no news.
                let _ = send.send(news);
            });
        }
        next
    }

    /// Notes that a poll broke off.
    pub(super) fn lost(&mut self, poll: &Poll) {
        self.schedule.lost(poll);
    }

    /// Takes what a poll showed into the facts.
    pub(super) fn take_in(&mut self, facts: &mut Facts, state: &State, folded: Offset, result: PollResult) {
        self.schedule.take_in(facts, state, folded, result);
    }
}

async fn see(adapters: &Adapters, ledger: &Ledger, poll: Poll) -> PollResult {
    match poll {
        Poll::Nodes { ports } => {
            let seen = adapters.nodes.look().await;
            let ports = if ports > 0 { adapters.nodes.free_ports(ports).await.unwrap_or_default() } else { vec![] };
            PollResult::Nodes(seen, ports, ledger.log().latest().await.ok())
        }
        Poll::Probe { effect, address, check } => {
            PollResult::Probe(effect, adapters.checks.probe(address, &check).await)
        }
        Poll::Source { asked, from, policy } => {
            let id = asked.deployment.clone();
            PollResult::Source(id, SUPPORTED.read(&policy, &asked, from, ledger.clock().now()).await)
        }
        Poll::Router { deployment, measures } => {
            let entry = adapters.router.entry(&deployment).await;
            let measures = if measures { measure(adapters, &deployment).await } else { None };
            PollResult::Router(deployment, entry, measures)
        }
    }
}

async fn measure(adapters: &Adapters, deployment: &DeploymentId) -> Option<Measures> {
    adapters.router.measures(deployment).await.ok().flatten()
}
