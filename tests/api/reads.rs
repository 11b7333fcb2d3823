//! Reads over the API: what runs, what ran, who shipped it, and whether the ledger holds.

use std::sync::Arc;
use std::time::Duration;

use api::Code;
use api::client::{Error, SendOptions};
use replay::HistoryQuery;
use replay::{Moment, Reader};
use schemas::{EnvironmentName, Offset, Weight};

use crate::raw;
use crate::world::{World, deployment, request};

/// Ships 1.0.0, then gives 2.0.0 a tenth, and returns the offset between the two.
async fn shipped(world: &World) -> Offset {
    world.declare(&["1.0.0", "2.0.0"]).await;
    let shifter = world.shifter();
    world.ready("1.0.0").await;
    let all = r#"{"command":"traffic","deployment":"production/api","shares":[{"version":"1.0.0","weight":10000}]}"#;
    assert_eq!(world.send(all).await.unwrap().applied, Some(true));
    let between = Offset(world.records() as u64 - 1);
    world.ready("2.0.0").await;
    let split = all.replace("10000}", "9000},{\"version\":\"2.0.0\",\"weight\":1000}");
    let wait = SendOptions { dry_run: false, wait: Some(Duration::from_secs(20)), no_break_glass: false };
    assert_eq!(world.client.execute(&request(&split), wait).await.unwrap().applied, Some(true));
    shifter.abort();
    between
}

#[tokio::test]
async fn status_is_of_what_was_asked_for() {
    let world = World::open().await;
    world.declare(&["1.0.0"]).await;
    let stack = world.ready("1.0.0").await;
    world.send(r#"{"command":"new","deployment":"test/api","version":"1.0.0"}"#).await.unwrap();
    world.send(r#"{"command":"apply","service":"web","definition":{"owner":"team"}}"#).await.unwrap();
    let all = world.client.status(Moment::Now, None, None).await.unwrap();
    let names: Vec<_> =
        all.services.iter().map(|service| (service.service.as_str(), service.deployments.len())).collect();
    assert_eq!(names, [("api", 2), ("web", 0)]);
    let (api, production) = ("api".parse().unwrap(), EnvironmentName::production());
    for one in [
        world.client.status(Moment::Now, Some(&api), Some(&production)).await.unwrap(),
        world.client.status(Moment::Now, None, Some(&production)).await.unwrap(),
    ] {
        assert_eq!(one.services[0].deployments.len(), 1);
        assert_eq!(one.services[0].deployments[0].versions[0].stack, stack);
    }
    let other = world.client.status(Moment::Now, Some(&"other".parse().unwrap()), None).await.unwrap();
    assert_eq!(other.services.len(), 0);
    let first = world.client.status(Moment::Offset(Offset(0)), None, None).await.unwrap();
    assert_eq!(first.services.len(), 0, "nothing was there at first");
}

#[tokio::test]
async fn every_answer_is_the_readers_own() {
    let world = World::open().await;
    let between = shipped(&world).await;
    let reader = Reader::from_genesis(Arc::clone(&world.log) as _);
    let client = &world.client;
    for moment in [Moment::Now, Moment::Offset(between)] {
        assert_eq!(client.production(moment).await.unwrap(), reader.production(moment).await.unwrap());
        let who = client.who_shipped(&deployment(), moment).await.unwrap();
        assert_eq!(who, reader.who_shipped(&deployment(), moment).await.unwrap());
    }
    for query in [
        HistoryQuery::default(),
        HistoryQuery { service: Some("api".parse().unwrap()), limit: Some(3), ..HistoryQuery::default() },
        HistoryQuery { environment: Some(EnvironmentName::production()), voids: true, ..HistoryQuery::default() },
    ] {
        let history = client.history(&query).await.unwrap();
        assert_eq!(history, reader.history(&query).await.unwrap());
        assert!(!history.entries.is_empty());
    }
    let verified = client.verify().await.unwrap();
    assert_eq!(verified, reader.verify().await.unwrap());
    assert!(verified.ok);
    assert_eq!(verified.root, client.standing().await.unwrap().root);
}

#[tokio::test]
async fn who_shipped_names_the_peer_then_and_now() {
    let world = World::open().await;
    let between = shipped(&world).await;
    let shares = |answer: &replay::answer::WhoShipped| -> Vec<(String, Weight)> {
        let shipped = answer.shipped.iter();
        shipped.map(|found| (found.version.as_ref().unwrap().to_string(), found.weight_applied)).collect()
    };
    let then = world.client.who_shipped(&deployment(), Moment::Offset(between)).await.unwrap();
    assert_eq!(shares(&then), [("1.0.0".to_owned(), Weight::FULL)]);
    let now = world.client.who_shipped(&deployment(), Moment::Now).await.unwrap();
    let tenth = Weight::from_percent(10);
    assert_eq!(shares(&now), [("1.0.0".to_owned(), tenth.rest()), ("2.0.0".to_owned(), tenth)]);
    let proof = format!("unix-peer uid={} pid={}", rustix::process::getuid().as_raw(), std::process::id());
    assert_eq!(now.shipped[1].since.as_ref().unwrap().actor.proof, proof);
}

#[tokio::test]
async fn a_time_may_be_written_in_any_form_and_a_moment_that_is_none_is_an_error() {
    let world = World::open().await;
    shipped(&world).await;
    for query in ["at=1%20second%20ago", "at=2020-01-01", "at=2020-01-01T00%3A00%5BEurope%2FBerlin%5D", "offset=3", ""]
    {
        let answer = raw::unix(world.data(), &raw::get(&format!("/v1/replay?{query}"), "")).await;
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
    }
    for (path, status, code) in [
        ("/v1/replay?at=yesterday", 400, "malformed"),
        ("/v1/replay?at=2020-01-01T00%3A00%5BEurope%2FBerln%5D", 400, "malformed"),
        ("/v1/replay?at=2020-01-01T00%3A00Z%5BMars%2FPhobos%5D", 400, "malformed"),
        ("/v1/status?at=2020-01-01T00%3A00%2B03%3A00%5BEurope%2FBerlin%5D", 400, "malformed"),
        ("/v1/explain/production/api?at=2026-03-29T02%3A30%5BEurope%2FBerlin%5D", 400, "malformed"),
        ("/v1/who-shipped/production/api?at=2025-10-26T02%3A30%5BEurope%2FBerlin%5D", 400, "malformed"),
        ("/v1/history?since=2020-01-01T00%3A00%5BEurope%2FBerln%5D", 400, "malformed"),
        ("/v1/replay?at=2020-01-01+02:00", 400, "malformed"),
        ("/v1/replay?at=2020-01-01T00:00+02:00", 400, "malformed"),
        ("/v1/replay?at=2999-01-01", 422, "invalid"),
        ("/v1/replay?offset=9999", 404, "unknown"),
        ("/v1/replay?event=00000000-0000-0000-0000-000000000001", 404, "unknown"),
        ("/v1/replay?event=7", 400, "malformed"),
        ("/v1/replay?at=now&offset=1", 400, "malformed"),
        ("/v1/replay?when=now", 400, "malformed"),
        ("/v1/history/a%2Fb", 400, "malformed"),
        ("/v1/history/api?limit=-1", 400, "malformed"),
        ("/v1/who-shipped/production/API", 400, "malformed"),
        ("/v1/status?service=API", 400, "malformed"),
    ] {
        let answer = raw::unix(world.data(), &raw::get(path, "")).await;
        assert_eq!((answer.status, answer.error().0.as_str()), (status, code), "{path}: {answer:?}");
    }
    let ambiguous = "/v1/history?since=2025-10-26T02%3A30%5BEurope%2FBerlin%5D";
    let answer = raw::unix(world.data(), &raw::get(ambiguous, "")).await;
    for moment in ["2025-10-26T02:30:00+02:00", "2025-10-26T02:30:00+01:00"] {
        assert!(answer.body.contains(moment), "{answer:?}");
        let since = format!("/v1/history?since={}", moment.replace('+', "%2B"));
        assert_eq!(raw::unix(world.data(), &raw::get(&since, "")).await.status, 200, "{moment}");
    }
    match world.client.production(Moment::Offset(Offset(9_999))).await {
        Err(Error::Refused(problem)) => assert_eq!(problem.code, Code::Unknown),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn when_a_command_took_effect_is_read_whole_or_not_at_all() {
    let world = World::open().await;
    let records = world.records();
    for at in ["2026-10-26T10:00:30Z[Mars/Phobos]", "2026-10-26T10:00:30+03:00[Europe/Berlin]", "2026-10-26T10:00:30"] {
        let body = format!(
            r#"{{"id":"6f9b1e1c-8a58-4f0e-9b7e-0f8a3f1f2b11","command":"apply","service":"api","definition":{{"owner":"team"}},"effective_at":"{at}"}}"#
        );
        let answer = raw::unix(world.data(), &raw::post("/v1/commands", "", body.as_bytes())).await;
        assert_eq!((answer.status, answer.error().0.as_str()), (400, "malformed"), "{at}: {answer:?}");
    }
    assert_eq!(world.records(), records);
}
