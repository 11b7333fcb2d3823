//! The lookout: carries a worker's looks out, each in a task of its own, so that a slow one delays nobody.

use std::time::Duration;

use ledger::{Ledger, State};
use schemas::policy::JudgementPolicy;
use schemas::{DeploymentId, Offset, Role, Timestamp};
use tokio::sync::mpsc;

use super::{Adapters, News};
use crate::checks::Checks as _;
use crate::facts::Facts;
use crate::looks::{Look, Looks, Pace, Sight};
use crate::measures::prometheus::PrometheusSource;
use crate::measures::{Asked, Failure, Reading, Source as _, Span};
use crate::traffic::Measures;

/// A worker's looks and where they go.
pub(super) struct Lookout {
    looks: Looks,
    adapters: Adapters,
    ledger: Ledger,
    send: mpsc::UnboundedSender<News>,
}

impl Lookout {
    pub(super) fn new(role: Role, ledger: Ledger, adapters: Adapters, send: mpsc::UnboundedSender<News>) -> Self {
        Self { looks: Looks::new(role, Pace::default()), adapters, ledger, send }
    }

    /// Begins the looks that are due and returns when the next one is.
    pub(super) fn look(&mut self, state: &State, facts: &Facts) -> Duration {
        let (looks, next) = self.looks.begin(state, facts);
        for look in looks {
            let (adapters, ledger, send) = (self.adapters.clone(), self.ledger.clone(), self.send.clone());
            tokio::spawn(async move {
                let sight = see(&adapters, &ledger, look).await;
                // A worker that has ended needs no news.
                let _ = send.send(News::Seen(sight));
            });
        }
        next
    }

    /// Takes what a look showed into the facts.
    pub(super) fn take_in(&mut self, facts: &mut Facts, state: &State, folded: Offset, sight: Sight) {
        self.looks.take_in(facts, state, folded, sight);
    }
}

async fn see(adapters: &Adapters, ledger: &Ledger, look: Look) -> Sight {
    match look {
        Look::Nodes { ports } => {
            let seen = adapters.nodes.look().await;
            let ports = if ports > 0 { adapters.nodes.free_ports(ports).await.unwrap_or_default() } else { vec![] };
            Sight::Nodes(seen, ports, ledger.log().latest().await.ok())
        }
        Look::Probe { effect, address, check } => Sight::Probe(effect, adapters.checks.probe(address, &check).await),
        Look::Source { asked, from, policy } => {
            let id = asked.deployment.clone();
            Sight::Source(id, count(ledger, asked, from, &policy).await)
        }
        Look::Router { deployment, measures } => {
            let entry = adapters.router.entry(&deployment).await;
            let measures = if measures { measure(adapters, &deployment).await } else { None };
            Sight::Router(deployment, entry, measures)
        }
    }
}

/// Asks the source that a policy names.
async fn count(ledger: &Ledger, asked: Asked, from: Timestamp, policy: &JudgementPolicy) -> Result<Reading, Failure> {
    let at = format!("the source of {}", asked.deployment);
    let prometheus = policy.prometheus.as_ref();
    let prometheus = prometheus.ok_or(Failure::Unasked { at, reason: "the policy names none".to_owned() })?;
    let source = PrometheusSource::new(prometheus, policy)?;
    let to = ledger.clock().now().checked_sub(source.lag()).unwrap_or(from).max(from);
    source.read(&asked, Span { from, to }).await
}

async fn measure(adapters: &Adapters, deployment: &DeploymentId) -> Option<Measures> {
    adapters.router.measures(deployment).await.ok().flatten()
}
