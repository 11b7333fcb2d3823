//! The lookout: carries a worker's looks out, each in a task of its own, so that a slow one delays nobody.

use std::time::Duration;

use ledger::State;
use schemas::{DeploymentId, Role};
use tokio::sync::mpsc;

use super::{Adapters, News};
use crate::facts::{Facts, Measures};
use crate::looks::{Look, Looks, Pace, Sight};
use crate::traffic::router;

/// A worker's looks and where they go.
pub(super) struct Lookout {
    looks: Looks,
    adapters: Adapters,
    send: mpsc::UnboundedSender<News>,
}

impl Lookout {
    pub(super) fn new(role: Role, adapters: Adapters, send: mpsc::UnboundedSender<News>) -> Self {
        Self { looks: Looks::new(role, Pace::default()), adapters, send }
    }

    /// Begins the looks that are due and returns when the next one is.
    pub(super) fn look(&mut self, state: &State, now: Duration) -> Duration {
        let (looks, next) = self.looks.begin(state, now);
        for look in looks {
            let (adapters, send) = (self.adapters.clone(), self.send.clone());
            tokio::spawn(async move {
                let sight = see(&adapters, look).await;
                // A worker that has ended needs no news.
                let _ = send.send(News::Seen(sight));
            });
        }
        next
    }

    /// Takes what a look showed into the facts.
    pub(super) fn take_in(&mut self, facts: &mut Facts, state: &State, sight: Sight) {
        self.looks.take_in(facts, state, sight);
    }
}

async fn see(adapters: &Adapters, look: Look) -> Sight {
    match look {
        Look::Nodes { ports } => {
            let seen = adapters.nodes.look().await;
            let ports = if ports > 0 { adapters.nodes.free_ports(ports).await.unwrap_or_default() } else { vec![] };
            Sight::Nodes(seen, ports)
        }
        Look::Probe { effect, address, check } => Sight::Probe(effect, adapters.checks.probe(address, &check).await),
        Look::Router { deployment, measures } => {
            let entry = adapters.router.entry(&deployment).await;
            let measures = if measures { measure(adapters, &deployment).await } else { None };
            Sight::Router(deployment, entry, measures)
        }
    }
}

async fn measure(adapters: &Adapters, deployment: &DeploymentId) -> Option<Measures> {
    let measures = adapters.router.measures(deployment).await.ok().flatten()?;
    let stacks = measures.stacks.iter();
    let stacks = stacks.map(|(stack, of)| (*stack, router::judged_counts(&of.counts()))).collect();
    Some(Measures { epoch: measures.epoch.to_string(), stacks, at: Duration::ZERO })
}
