//! The API: commands, answers and errors over a real socket, as the CLI and programs use it.

mod artifacts;
mod ci;
mod bugs;
mod crowd;
mod listeners;
mod access;
mod forecast;
mod break_glass;
mod questions;
mod raw;
mod reads;
mod router;
mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::Code;
use api::client::{Error, SendOptions};
use ledger::log::memory::Fault;
use replay::Moment;
use router::FakeRouter;
use schemas::Offset;
use workers::traffic::Silence;
use world::{DEADLINE, World, request};

fn problem(result: Result<api::wire::CommandAnswer, Error>) -> api::Problem {
    match result {
        Err(Error::Refused(problem)) => problem,
        other => panic!("a refusal was expected: {other:?}"),
    }
}

#[tokio::test]
async fn a_command_goes_in_and_its_events_come_back_with_the_true_actor() {
    let world = World::open().await;
    let answer = world.send(r#"{"command":"apply","service":"api","definition":{"owner":"team"}}"#).await.unwrap();
    assert_eq!(answer.events.len(), 1);
    assert_eq!(
        (answer.events[0].kind.as_str(), answer.events[0].stream.to_string()),
        ("service.applied", "service/api".into())
    );
    assert_eq!(answer.events[0].data["definition"]["owner"], "team");
    assert_eq!((answer.repeated, answer.applied), (false, None));
    let mut events = world.client.events(answer.offset.unwrap(), false).await.unwrap();
    let record = events.next().await.unwrap().unwrap();
    assert!(record.counts);
    let actor = &record.commit["about"]["actor"];
    assert_eq!(actor["kind"], "person");
    let uid = rustix::process::getuid().as_raw();
    let proof = format!("unix-peer uid={uid} pid={}", std::process::id());
    assert_eq!(actor["proof"], proof);
    assert_eq!(events.next().await.unwrap(), None);
}

#[tokio::test]
async fn the_same_command_id_gives_the_first_answer_and_other_content_is_refused() {
    let world = World::open().await;
    let first = request(r#"{"command":"apply","service":"api","definition":{"owner":"team"}}"#);
    let answer = world.client.execute(&first, SendOptions::default()).await.unwrap();
    let again = world.client.execute(&first, SendOptions::default()).await.unwrap();
    assert!(again.repeated);
    assert_eq!((again.commit, again.offset, &again.events), (answer.commit, answer.offset, &answer.events));
    let mut other = request(r#"{"command":"apply","service":"api","definition":{"owner":"another team"}}"#);
    other.id = first.id;
    let records = world.records();
    assert_eq!(problem(world.client.execute(&other, SendOptions::default()).await).code, Code::OtherContent);
    assert_eq!(world.records(), records);
}

#[tokio::test]
async fn a_dry_run_says_what_would_happen_and_appends_nothing() {
    let world = World::open().await;
    world.declare(&["1.0.0"]).await;
    let records = world.records();
    let new = request(r#"{"command":"new","deployment":"production/api","version":"1.0.0"}"#);
    let options = SendOptions { dry_run: true, wait: None, no_break_glass: false };
    let answer = world.client.execute(&new, options).await.unwrap();
    assert_eq!((answer.commit, answer.events[0].kind.as_str()), (None, "stack.requested"));
    assert_eq!(world.records(), records);
    let wrong = request(r#"{"command":"new","deployment":"production/api","version":"9"}"#);
    assert_eq!(problem(world.client.execute(&wrong, options).await).code, Code::Unknown);
}

#[tokio::test]
async fn refusals_carry_their_code_status_and_exit_and_change_nothing() {
    let world = World::open().await;
    world.declare(&["1.0.0", "2.0.0"]).await;
    world.ready("1.0.0").await;
    let records = world.records();
    for (command, code, exit) in [
        (r#"{"command":"new","deployment":"production/nothing","version":"1"}"#, Code::Unknown, 1),
        (r#"{"command":"rollback","deployment":"production/api"}"#, Code::NoTarget, 1),
        (r#"{"command":"pause","deployment":"production/api"}"#, Code::NoRollout, 1),
        (
            r#"{"command":"traffic","deployment":"production/api","shares":[{"version":"1.0.0","weight":9000}]}"#,
            Code::Weights,
            2,
        ),
        (
            r#"{"command":"traffic","deployment":"production/api","shares":[{"version":"2.0.0","weight":10000}]}"#,
            Code::NotReady,
            1,
        ),
        (r#"{"command":"roll","deployment":"production/api","from":"1.0.0","to":"1.0.0","plan":{}}"#, Code::Invalid, 2),
        (r#"{"command":"apply","service":"api","definition":{"owner":" "}}"#, Code::Invalid, 2),
    ] {
        let problem = problem(world.send(command).await);
        assert_eq!((problem.code, problem.exit), (code, exit), "{command}: {problem}");
        assert!(!problem.message.contains('\n'), "{problem}");
    }
    let fenced = {
        let mut request = request(r#"{"command":"retire","deployment":"production/api"}"#);
        request.fence = Some(schemas::Fence(7));
        world.client.execute(&request, SendOptions::default()).await
    };
    assert_eq!(problem(fenced).code, Code::Fenced);
    assert_eq!(world.records(), records);
}

#[tokio::test]
async fn an_answer_about_weights_says_whether_the_router_confirmed_them() {
    let world = World::open().await;
    world.declare(&["1.0.0"]).await;
    world.ready("1.0.0").await;
    let all = r#"{"command":"traffic","deployment":"production/api","shares":[{"version":"1.0.0","weight":10000}]}"#;
    let unconfirmed = SendOptions { dry_run: false, wait: Some(Duration::from_millis(50)), no_break_glass: false };
    let answer = world.client.execute(&request(all), unconfirmed).await.unwrap();
    assert_eq!(answer.applied, Some(false));
    assert!(answer.notes[0].contains("not confirmed"), "{:?}", answer.notes);

    let shifter = world.shifter();
    world.declare(&["2.0.0"]).await;
    world.ready("2.0.0").await;
    let split = all.replace("10000}", "9000},{\"version\":\"2.0.0\",\"weight\":1000}");
    let answer = world.send(&split).await.unwrap();
    assert_eq!((answer.applied, answer.notes.len()), (Some(true), 0));
    shifter.abort();
}

#[tokio::test]
async fn a_rollback_is_applied_by_the_server_that_commits_it_and_waits_for_no_shifter() {
    let router = Arc::new(FakeRouter::default());
    let told = Arc::clone(&router);
    let world = World::open_with(None, |api| api.outside.router = Some(told)).await;
    world.declare(&["1.0.0", "2.0.0"]).await;
    let (first, second) = (world.ready("1.0.0").await, world.ready("2.0.0").await);
    let now = SendOptions { dry_run: false, wait: Some(Duration::ZERO), no_break_glass: false };
    for version in ["1.0.0", "2.0.0"] {
        let all = format!(
            r#"{{"command":"traffic","deployment":"production/api","shares":[{{"version":"{version}","weight":10000}}]}}"#
        );
        world.client.execute(&request(&all), now).await.unwrap();
    }
    assert_eq!(router.applied.load(Ordering::Relaxed), 0, "`traffic` is the shifter's");
    let back = r#"{"command":"rollback","deployment":"production/api"}"#;
    let answer = world.send(back).await.unwrap();
    assert_eq!(answer.applied, Some(true));
    assert_eq!(router.applied.load(Ordering::Relaxed), 1);
    assert_eq!(answer.events[0].data["to"], first.to_string());
    assert_eq!(answer.events[0].data["from"][0], second.to_string());
    let again = world.send(back).await.unwrap();
    assert_eq!((again.commit, again.applied), (None, None));
}

#[tokio::test]
async fn a_command_that_lost_its_answer_is_sent_again_and_carried_out_once() {
    let world = World::open().await;
    // The log keeps it, says nothing, and keeps the second copy too.
    world.log.fail_next(Fault::Kept);
    let answer = world.send(r#"{"command":"apply","service":"api","definition":{"owner":"team"}}"#).await.unwrap();
    assert!(answer.commit.is_some());
    let view = world.ledger.view();
    let head = view.head(&"service/api".parse().unwrap());
    assert_eq!(head.version.0, 1);
}

#[tokio::test]
async fn a_full_disk_still_takes_a_rollback() {
    let world = World::open().await;
    world.declare(&["1.0.0", "2.0.0"]).await;
    world.ready("1.0.0").await;
    world.ready("2.0.0").await;
    let now = SendOptions { dry_run: false, wait: Some(Duration::ZERO), no_break_glass: false };
    for version in ["1.0.0", "2.0.0"] {
        let all = format!(
            r#"{{"command":"traffic","deployment":"production/api","shares":[{{"version":"{version}","weight":10000}}]}}"#
        );
        world.client.execute(&request(&all), now).await.unwrap();
    }
    world.log.fail_next(Fault::Full);
    let refused = world.send(r#"{"command":"retire","deployment":"production/api"}"#).await;
    assert_eq!(problem(refused).code, Code::DiskFull);
    world.log.fail_next(Fault::Full);
    let back = request(r#"{"command":"rollback","deployment":"production/api"}"#);
    assert!(world.client.execute(&back, now).await.unwrap().commit.is_some());
}

#[tokio::test]
async fn an_address_that_somebody_else_listens_on_is_refused_before_anything_is_appended() {
    let world = World::open().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let apply = |service: &str| {
        format!(
            r#"{{"command":"apply","service":"{service}","definition":{{"owner":"team","listen":{{"production":"{address}"}}}}}}"#
        )
    };
    let records = world.records();
    let refused = problem(world.send(&apply("api")).await);
    assert_eq!(refused.code, Code::PortInUse);
    assert!(refused.message.starts_with("port in use: another program listens on"), "{refused}");
    assert_eq!(world.records(), records);
    drop(taken);
    world.send(&apply("api")).await.unwrap();
    let _ours = std::net::TcpListener::bind(address).unwrap();
    let again = world.send(&apply("api").replace("team", "new team")).await;
    assert!(again.is_ok(), "its own listener is not in its way: {again:?}");
    let other = problem(world.send(&apply("web")).await);
    assert!(other.message.starts_with("port in use: production/api listens on"), "{other}");
}

#[tokio::test]
async fn a_follower_gets_every_record_once_with_its_verdict_and_then_what_comes() {
    let world = World::open().await;
    world.log.push(bytes::Bytes::from_static(b"no commit"));
    world.declare(&["1.0.0"]).await;
    let so_far = world.records();
    let mut events = world.client.events(Offset(0), true).await.unwrap();
    let mut seen = vec![];
    while seen.len() < so_far {
        seen.push(tokio::time::timeout(DEADLINE, events.next()).await.unwrap().unwrap().unwrap());
    }
    assert!(seen.iter().enumerate().all(|(n, record)| record.offset == Offset(n as u64)));
    let void: Vec<_> = seen.iter().filter(|record| !record.counts).collect();
    assert_eq!(void.len(), 1);
    assert!(void[0].commit["malformed"]["sha256"].is_string(), "{:?}", void[0]);
    world.ready("1.0.0").await;
    let next = tokio::time::timeout(DEADLINE, events.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(next.offset, Offset(so_far as u64));
    assert_eq!(next.commit["events"][0]["type"], "stack.requested");
}

#[tokio::test]
async fn closing_ends_followers_and_removes_the_socket() {
    let world = World::open().await;
    let client = world.client.clone();
    let mut events = client.events(Offset(0), true).await.unwrap();
    events.next().await.unwrap().unwrap();
    let data = world.close().await;
    while events.next().await.unwrap().is_some() {}
    assert!(!data.path().join("api.sock").exists());
    assert!(matches!(client.standing().await, Err(Error::NotRunning { .. })));
}

#[tokio::test]
async fn the_standing_is_the_ledgers() {
    let world = World::open().await;
    world.declare(&["1.0.0"]).await;
    let standing = world.client.standing().await.unwrap();
    assert_eq!(standing.ledger, world.ledger.id());
    assert_eq!(standing.next, Offset(world.records() as u64));
    assert_eq!(standing.root, world.ledger.view().tree().root());
    world.client.ready().await.unwrap();
}

#[tokio::test]
async fn a_router_that_does_not_answer_is_told_by_readyz_and_status() {
    let router = Arc::new(FakeRouter::default());
    let told = Arc::clone(&router);
    let world = World::open_with(None, |api| api.outside.router = Some(told)).await;
    world.declare(&["1.0.0"]).await;
    world.ready("1.0.0").await;
    world
        .send(r#"{"command":"traffic","deployment":"production/api","shares":[{"version":"1.0.0","weight":10000}]}"#)
        .await
        .unwrap();
    let readyz = async || raw::unix(world.data(), &raw::get("/readyz", "")).await;
    assert_eq!(readyz().await.status, 200);
    let since: schemas::Timestamp = "2026-11-22T13:30:00Z".parse().unwrap();
    *router.silence.lock().unwrap() = Some(Silence { since, why: "nothing within 1s".to_owned() });
    let refused = readyz().await;
    assert_eq!((refused.status, refused.error().0.as_str()), (503, "router_silent"));
    assert!(refused.body.contains("the router has not answered since 2026-11-22T13:30:00Z"), "{refused:?}");
    let status = world.client.status(Moment::Now, None, None).await.unwrap();
    let deployment = &status.services[0].deployments[0];
    for silent in [&status.router_silent, &deployment.router_silent] {
        assert_eq!(silent.as_ref().map(|silent| silent.since), Some(since));
    }
    *router.silence.lock().unwrap() = None;
    assert_eq!(readyz().await.status, 200);
    assert_eq!(world.client.status(Moment::Now, None, None).await.unwrap().router_silent, None);
}
