//! Break glass through the API: what a caller hears when the ledger gives no verdict, and where it is told afterwards.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::client::SendOptions;
use api::{Code, server::Api};
use async_trait::async_trait;
use ledger::log::memory::Fault;
use replay::{HistoryQuery, Moment};
use schemas::{DeploymentId, StreamVersion};
use workers::break_glass::{BreakGlass, Patience};
use workers::traffic::{ApplyError, Entry, HeldRoutes, Measures, Router, Routes};

use crate::world::{DEADLINE, World, request};

const ROLLBACK: &str = r#"{"command":"rollback","deployment":"production/api"}"#;

/// A router that takes whatever it hears.
#[derive(Default)]
struct Taking {
    held: Mutex<Option<HeldRoutes>>,
    deaf: AtomicBool,
}

#[async_trait]
impl Router for Taking {
    async fn apply(&self, routes: &Routes) -> Result<HeldRoutes, ApplyError> {
        if self.deaf.load(Ordering::SeqCst) {
            return Err(ApplyError::Refused("it is deaf".to_owned()));
        }
        let held = HeldRoutes { routes: routes.clone(), listening: "127.0.0.1:8080".parse().unwrap() };
        *self.held.lock().unwrap() = Some(held.clone());
        Ok(held)
    }

    async fn remove(&self, _: &DeploymentId, _: StreamVersion) -> Result<(), ApplyError> {
        Err(ApplyError::Refused("it serves on".to_owned()))
    }

    async fn entry(&self, _: &DeploymentId) -> Result<Option<Entry>, ApplyError> {
        Ok(self.held.lock().unwrap().clone().map(Entry::Routed))
    }

    async fn measures(&self, _: &DeploymentId) -> Result<Option<Measures>, ApplyError> {
        Ok(None)
    }
}

struct Breaking {
    world: World,
    router: Arc<Taking>,
    break_glass: Arc<BreakGlass>,
}

/// 2.0.0 has all traffic, 1.0.0 stands warm, and the log answers no append any more.
async fn silent() -> Breaking {
    let router = Arc::new(Taking::default());
    let (route, mut break_glass) = (Arc::clone(&router), None);
    let world = World::open_with(None, |api: &mut Api| {
        let ms = Duration::from_millis;
        let patience = Patience { verdict: ms(300), write: ms(5_000), again: ms(50) };
        api.break_glass = Some(BreakGlass::new(&api.data, api.ledger.clone(), route as _, patience));
        break_glass = api.break_glass.clone();
    })
    .await;
    world.declare(&["1.0.0", "2.0.0"]).await;
    let now = SendOptions { wait: Some(Duration::ZERO), ..SendOptions::default() };
    for version in ["1.0.0", "2.0.0"] {
        world.ready(version).await;
        let shares = format!(r#"[{{"version":"{version}","weight":10000}}]"#);
        let all = format!(r#"{{"command":"traffic","deployment":"production/api","shares":{shares}}}"#);
        world.client.execute(&request(&all), now).await.unwrap();
    }
    // As many as are sent in longer than any test takes.
    (0..2_000).for_each(|_| world.log.fail_next(Fault::Lost));
    Breaking { world, router, break_glass: break_glass.expect("the server has it") }
}

#[tokio::test]
async fn a_rollback_without_a_verdict_is_answered_as_done_and_not_yet_in_the_ledger() {
    let Breaking { world, router, .. } = silent().await;
    let asked = request(ROLLBACK);
    let answer = world.client.execute(&asked, SendOptions::default()).await.unwrap();
    assert_eq!((answer.commit, answer.applied), (None, Some(true)));
    assert!(answer.notes[0].starts_with("rolled back without the ledger (break-glass): "), "{:?}", answer.notes);
    let unrecorded = answer.unrecorded.expect("the ledger does not have it");
    assert_eq!((unrecorded.version.as_str(), unrecorded.command), ("1.0.0", asked.id));
    assert!(std::path::Path::new(unrecorded.file.as_ref().unwrap()).exists());
    let held = router.held.lock().unwrap().clone().unwrap();
    assert_eq!(held.routes.backends.values().next().unwrap().version.to_string(), "1.0.0");

    let status = world.client.status(Moment::Now, None, None).await.unwrap();
    assert_eq!(status.unrecorded, vec![unrecorded.clone()]);
    let of = |service: &str| HistoryQuery { service: Some(service.parse().unwrap()), ..HistoryQuery::default() };
    assert_eq!(world.client.history(&of("api")).await.unwrap().unrecorded, vec![unrecorded]);
    assert_eq!(world.client.history(&of("other")).await.unwrap().unrecorded, vec![]);
}

#[tokio::test]
async fn a_rollback_that_neither_the_ledger_nor_the_router_hears_of_is_an_error_that_names_its_file() {
    let Breaking { world, router, break_glass } = silent().await;
    router.deaf.store(true, Ordering::SeqCst);
    let problem = super::problem(world.send(ROLLBACK).await);
    assert_eq!((problem.code, problem.exit), (Code::Unmoved, 8));
    let file = break_glass.unrecorded()[0].file.clone().unwrap();
    assert!(problem.message.contains("it is deaf") && problem.message.contains(&file), "{problem}");
}

#[tokio::test]
async fn who_opts_out_hears_of_no_verdict_and_nothing_moves() {
    let Breaking { world, router, .. } = silent().await;
    let options = SendOptions { no_break_glass: true, ..SendOptions::default() };
    let asked = request(ROLLBACK);
    let waits = tokio::time::timeout(Duration::from_secs(3), world.client.execute(&asked, options)).await;
    assert!(waits.is_err(), "it waits for the ledger: {waits:?}");
    assert_eq!(*router.held.lock().unwrap(), None);
    assert!(!world.data().join("glass").join(format!("{}.json", asked.id)).exists());
    // What is no rollback never goes on without the ledger.
    let abort = r#"{"command":"retire","deployment":"production/api"}"#;
    let waits = tokio::time::timeout(Duration::from_secs(3), world.send(abort)).await;
    assert!(waits.is_err() && DEADLINE > Duration::from_secs(3));
}
