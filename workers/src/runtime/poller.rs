//! The poller carries out a worker's polls. Each runs in a task of its own, so that a slow one delays no other. Those of the router
//! that are due together are one call.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use ledger::{Ledger, State};
use schemas::{Offset, Role};
use tokio::sync::mpsc;

use super::{Adapters, News, said};
use crate::checks::Checks as _;
use crate::facts::Facts;
use crate::measures::registry::SUPPORTED;
use crate::poll::{Pace, Poll, PollResult, PollSchedule};
use crate::traffic::routes::Wanted;

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
        let (routers, others): (Vec<Poll>, Vec<Poll>) =
            polls.into_iter().partition(|poll| matches!(poll, Poll::Router { .. }));
        others.into_iter().for_each(|poll| self.carry_out(vec![poll]));
        if !routers.is_empty() {
            self.carry_out(routers);
        }
        next
    }

    /// Carries polls out in a task of their own.
    fn carry_out(&self, polls: Vec<Poll>) {
        let (adapters, ledger, send) = (self.adapters.clone(), self.ledger.clone(), self.send.clone());
        tokio::spawn(async move {
            // A worker that has ended needs no news.
            let seen = |result| drop(send.send(News::Seen(result)));
            if let Err(panic) = AssertUnwindSafe(see(&adapters, &ledger, polls.clone(), &seen)).catch_unwind().await {
                tracing::error!(?polls, why = said(&*panic), "a poll broke off");
                for poll in polls {
                    let _ = send.send(News::Lost(poll));
                }
            }
        });
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

/// Gives `seen` what each poll showed; the router is asked once for all of its.
async fn see(adapters: &Adapters, ledger: &Ledger, polls: Vec<Poll>, seen: &(impl Fn(PollResult) + Send + Sync)) {
    let mut wanted = Vec::new();
    for poll in polls {
        match poll {
            Poll::Nodes { ports } => {
                let nodes = adapters.nodes.look().await;
                let ports = if ports > 0 { adapters.nodes.free_ports(ports).await.unwrap_or_default() } else { vec![] };
                seen(PollResult::Nodes(nodes, ports, ledger.log().latest().await.ok()));
            }
            Poll::Probe { effect, address, check } => {
                seen(PollResult::Probe(effect, adapters.checks.probe(address, &check).await));
            }
            Poll::Source { asked, from, policy } => {
                let id = asked.deployment.clone();
                seen(PollResult::Source(id, SUPPORTED.read(&policy, &asked, from, ledger.clock().now()).await));
            }
            Poll::Router { deployment, measures } => wanted.push(Wanted { deployment, measures }),
        }
    }
    if !wanted.is_empty() {
        let each = |id, entry, measures| seen(PollResult::Router(id, entry, measures));
        adapters.router.read_all(wanted, &each).await;
    }
}
