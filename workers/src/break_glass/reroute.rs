//! Reroute: moves the weights by itself, through the router's port, on the last view of the ledger.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use ledger::deployment::generation;
use ledger::{Ledger, State};
use schemas::break_glass::Intent;
use schemas::{DeploymentId, StreamVersion, Weights};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::routing;
use crate::traffic::{ApplyError, Entry, Router, Routes};

/// How often a router that holds something younger is gone past.
const TRIES_MAX: u32 = 4;
/// How long a node may take to answer a call; one that does not is not called gone.
const ANSWERS_WITHIN: Duration = Duration::from_millis(300);

/// Returns what the router has of a deployment, if it can be read and has anything.
pub(super) async fn entry(router: &dyn Router, id: &DeploymentId) -> Option<Entry> {
    router.entry(id).await.ok().flatten()
}

/// Says whether what the router has is this rollback: all traffic on its target, past the ledger.
pub fn is_done(intent: &Intent, entry: &Entry, emergency_count: u32) -> bool {
    entry.held().is_some_and(|held| {
        generation::emergency_count(held.routes.generation) > emergency_count
            && held.routes.weights.sole() == Some(intent.to)
    })
}

/// Returns the generation that a rollback without the ledger is carried out under: above what the ledger has heard of
/// and above what the router holds.
pub fn generation_above(intent: &Intent, emergency_count: u32, held: Option<StreamVersion>) -> StreamVersion {
    let emergency_count = held.map_or(emergency_count, |held| generation::emergency_count(held).max(emergency_count));
    generation::of(emergency_count.saturating_add(1), intent.head.version)
}

/// Returns the routes that an intent comes to on `state`, if a node of its target can be called.
pub fn routes_back(state: &State, intent: &Intent) -> Option<Routes> {
    let id = &intent.deployment;
    let routes = routing::routes_by(&Weights::all_on(intent.to), state, id, state.deployment(id)?)?;
    Some(Routes { generation: intent.generation, ..routes })
}

/// Looks whether somebody listens at the nodes of the intent's target: the last view of a ledger that is out of reach may
/// be old, and the stack may have been collected since.
///
/// # Errors
///
/// That all of them refuse the connection. One that does not answer at all may only be out of this host's reach, and whether
/// one is known at all is for whoever moves the weights to say.
pub(super) async fn look_for_nodes(ledger: &Ledger, intent: &Intent) -> Result<(), String> {
    let Some(routes) = routes_back(ledger.view().state(), intent) else { return Ok(()) };
    match nobody_listens(&routes).await {
        Some(nobody) => Err(format!("no node of {} is there any more: {nobody}", intent.version)),
        None => Ok(()),
    }
}

/// Says at which addresses nobody listens, if every node that routes lead to refuses the connection.
pub(crate) async fn nobody_listens(routes: &Routes) -> Option<String> {
    let nodes: Vec<_> = routes.backends.values().flat_map(|of| &of.nodes).collect();
    let refusals = join_all(nodes.iter().map(|node| refuses(node.address))).await;
    let nodes: Vec<String> = nodes.iter().map(|node| node.address.to_string()).collect();
    refusals.into_iter().all(|refuses| refuses).then(|| format!("nobody listens on {}", nodes.join(", ")))
}

async fn refuses(address: SocketAddr) -> bool {
    let called = timeout(ANSWERS_WITHIN, TcpStream::connect(address)).await;
    matches!(called, Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused)
}

/// How a router is told that holds something younger: whoever asks now goes past it, a later attempt leaves it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// Somebody asks now.
    Now,
    /// Somebody asked before, and nothing came of it then.
    Late,
}

/// Moves all traffic to the intent's target, unless it is there already, and returns the generation that the router then
/// holds.
///
/// # Errors
///
/// Why it did not, in a few words.
pub(super) async fn move_weights(
    ledger: &Ledger,
    router: &dyn Router,
    intent: &Intent,
    attempt: Attempt,
) -> Result<StreamVersion, String> {
    let id = &intent.deployment;
    let (routes, emergency_count) = {
        let view = ledger.view();
        let emergency_count = view.state().deployment(id).map_or(0, |deployment| deployment.emergency_count);
        let routes = routes_back(view.state(), intent);
        (routes.ok_or_else(|| format!("no node of {} can be called", intent.version))?, emergency_count)
    };
    let mut generation = intent.generation;
    let mut why = String::new();
    for _ in 0..TRIES_MAX {
        let routes = Routes { generation, ..routes.clone() };
        match router.apply(&routes).await {
            Ok(held) => return Ok(held.routes.generation),
            Err(error @ ApplyError::Superseded { .. }) if attempt == Attempt::Late => return Err(error.to_string()),
            Err(ApplyError::Superseded { held }) => generation = generation_above(intent, emergency_count, Some(held)),
            // It may hold the same generation with other nodes behind it.
            Err(error) => {
                why = error.to_string();
                match entry(router, id).await {
                    Some(entry) if is_done(intent, &entry, emergency_count) => return Ok(entry.generation()),
                    Some(entry) if attempt == Attempt::Now && entry.generation() >= generation => {
                        generation = generation_above(intent, emergency_count, Some(entry.generation()));
                    }
                    _ => return Err(why),
                }
            }
        }
    }
    Err(format!("newer routes came first each time; {why}"))
}
