//! The hand: moves the weights by itself, through the router's port, on the last view of the ledger.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use ledger::deployment::generation;
use ledger::{Ledger, State};
use schemas::glass::Intent;
use schemas::{DeploymentId, StreamVersion, Weights};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::traffic::{ApplyError, Entry, Held, Router, Routes};
use crate::traffic_shifter;

/// How often a router that holds something younger is gone past.
const TRIES_MAX: u32 = 4;
/// How long a node may take to answer a call; one that does not is not called gone.
const ANSWERS_WITHIN: Duration = Duration::from_millis(300);

/// Returns what the router holds, if it can be read.
pub(super) async fn held(router: &dyn Router, id: &DeploymentId) -> Option<Held> {
    match router.entry(id).await.ok()?? {
        Entry::Routed(held) => Some(held),
        Entry::Retired { .. } => None,
    }
}

/// Says whether what is held is this rollback: all traffic on its target, past the ledger.
pub fn is_done(intent: &Intent, held: &Held, glass: u32) -> bool {
    generation::glass(held.routes.generation) > glass && held.routes.weights.sole() == Some(intent.to)
}

/// Returns the generation that a rollback without the ledger is carried out under: above what the ledger has heard of
/// and above what the router holds.
pub fn generation_above(intent: &Intent, glass: u32, held: Option<StreamVersion>) -> StreamVersion {
    let glass = held.map_or(glass, |held| generation::glass(held).max(glass));
    generation::of(glass.saturating_add(1), intent.head.version)
}

/// Returns the routes that an intent comes to on `state`, if a node of its target can be called.
pub fn routes_back(state: &State, intent: &Intent) -> Option<Routes> {
    let id = &intent.deployment;
    let routes = traffic_shifter::routes_by(&Weights::all_on(intent.to), state, id, state.deployment(id)?)?;
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
    let nodes: Vec<_> = routes.backends.values().flat_map(|of| &of.nodes).collect();
    let refusals = join_all(nodes.iter().map(|node| refuses(node.address))).await;
    if !refusals.into_iter().all(|refuses| refuses) {
        return Ok(());
    }
    let nodes: Vec<String> = nodes.iter().map(|node| node.address.to_string()).collect();
    Err(format!("no node of {} is there any more: nobody listens on {}", intent.version, nodes.join(", ")))
}

async fn refuses(address: SocketAddr) -> bool {
    let called = timeout(ANSWERS_WITHIN, TcpStream::connect(address)).await;
    matches!(called, Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused)
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
) -> Result<StreamVersion, String> {
    let id = &intent.deployment;
    let (routes, glass) = {
        let view = ledger.view();
        let glass = view.state().deployment(id).map_or(0, |deployment| deployment.glass);
        let routes = routes_back(view.state(), intent);
        (routes.ok_or_else(|| format!("no node of {} can be called", intent.version))?, glass)
    };
    let mut generation = intent.generation;
    let mut why = String::new();
    for _ in 0..TRIES_MAX {
        let routes = Routes { generation, ..routes.clone() };
        match router.apply(&routes).await {
            Ok(held) => return Ok(held.routes.generation),
            Err(ApplyError::Superseded { held }) => generation = generation_above(intent, glass, Some(held)),
            // It may hold the same generation with other nodes behind it.
            Err(error) => {
                why = error.to_string();
                match held(router, id).await {
                    Some(held) if is_done(intent, &held, glass) => return Ok(held.routes.generation),
                    Some(held) if held.routes.generation >= generation => {
                        generation = generation_above(intent, glass, Some(held.routes.generation));
                    }
                    _ => return Err(why),
                }
            }
        }
    }
    Err(format!("something younger came first again and again; {why}"))
}
