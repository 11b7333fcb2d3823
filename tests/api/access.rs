//! Who gets in, and what is made of what no client of ours would send.

use std::time::Duration;

use api::Code;
use api::client::{Client, Error, SendOptions};
use api::tokens::Tokens;
use schemas::{ActorKind, Timestamp};

use crate::raw;
use crate::world::{World, request};

const ROLLBACK: &str =
    r#"{"id":"00000000-0000-0000-0000-00000000ffff","command":"rollback","deployment":"production/api"}"#;

async fn with_tcp() -> World {
    World::open_with(Some("127.0.0.1:0".parse().unwrap()), |_| {}).await
}

#[tokio::test]
async fn over_tcp_nobody_gets_in_without_a_valid_token() {
    let world = with_tcp().await;
    let address = world.tcp.unwrap();
    let (ended, _) = {
        let past: Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
        let end = "2020-01-02T00:00:00Z".parse().unwrap();
        Tokens::of(world.data()).make("old", ActorKind::Person, past, Some(end)).unwrap()
    };
    let records = world.records();
    for header in [
        String::new(),
        "authorization: Bearer \r\n".into(),
        "authorization: Bearer ion_00\r\n".into(),
        format!("authorization: Bearer {ended}\r\n"),
        format!("authorization: Basic {ended}\r\n"),
        "authorization: \u{e4}\r\n".into(),
    ] {
        for request in [
            raw::post("/v1/commands", &header, ROLLBACK.as_bytes()),
            raw::get("/v1/ledger", &header),
            raw::get("/v1/events", &header),
        ] {
            let answer = raw::tcp(address, &request).await;
            assert_eq!(answer.status, 401, "{header}: {answer:?}");
            assert_eq!(answer.error(), ("unauthenticated".to_owned(), 4));
        }
    }
    assert_eq!(world.records(), records);
    assert_eq!(raw::tcp(address, &raw::get("/healthz", "")).await.status, 200);
}

#[tokio::test]
async fn a_token_names_the_actor_and_a_revoked_one_nobody() {
    let world = with_tcp().await;
    let tokens = Tokens::of(world.data());
    let (person, kept) = tokens.make("ana", ActorKind::Person, Timestamp::now(), None).unwrap();
    let client = Client::of_address(&world.tcp.unwrap().to_string(), &person);
    let apply = request(r#"{"command":"apply","service":"api","definition":{"owner":"team"}}"#);
    let offset = client.execute(&apply, SendOptions::default()).await.unwrap().offset.unwrap();
    let record = client.events(offset, false).await.unwrap().next().await.unwrap().unwrap();
    let actor = &record.commit["about"]["actor"];
    assert_eq!((actor["name"].as_str(), actor["kind"].as_str()), (Some("ana"), Some("person")));
    assert_eq!(actor["proof"], format!("token id={}", kept.id));
    tokens.revoke("ana").unwrap();
    match client.standing().await {
        Err(Error::Refused(problem)) => assert_eq!(problem.code, Code::Unauthenticated),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_pipelines_token_releases_but_does_not_say_what_a_service_is() {
    let world = with_tcp().await;
    world.declare(&["1.0.0"]).await;
    let (token, _) = Tokens::of(world.data()).make("ci", ActorKind::Pipeline, Timestamp::now(), None).unwrap();
    let client = Client::of_address(&world.tcp.unwrap().to_string(), &token);
    let new = request(r#"{"command":"new","deployment":"production/api","version":"1.0.0"}"#);
    assert!(client.execute(&new, SendOptions::default()).await.unwrap().commit.is_some());
    let records = world.records();
    let apply = request(r#"{"command":"apply","service":"api","definition":{"owner":"ci"}}"#);
    for options in [SendOptions::default(), SendOptions { dry_run: true, wait: None, no_break_glass: false }] {
        match client.execute(&apply, options).await {
            Err(Error::Refused(problem)) => assert_eq!((problem.code, problem.exit), (Code::Forbidden, 4)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(world.records(), records);
}

#[tokio::test]
async fn what_is_malformed_is_a_json_error_and_changes_nothing() {
    let world = World::open().await;
    let records = world.records();
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let long = vec![b' '; 256 * 1024 + 1];
    for (request, status, code) in [
        (raw::get("/v1/nothing", ""), 404, "no_such_path"),
        (raw::get("/v1/commands", ""), 405, "method_not_allowed"),
        (raw::post("/v1/commands", "", b""), 400, "malformed"),
        (raw::post("/v1/commands", "", b"{"), 400, "malformed"),
        (raw::post("/v1/commands", "", b"\xff\xfe"), 400, "malformed"),
        (raw::post("/v1/commands", "", b"[]"), 400, "malformed"),
        (raw::post("/v1/commands", "", deep.as_bytes()), 400, "malformed"),
        (raw::post("/v1/commands", "", &long), 413, "too_large"),
        (raw::post("/v1/commands?dry_run=maybe", "", ROLLBACK.as_bytes()), 400, "malformed"),
        (raw::post("/v1/commands?dryrun=true", "", ROLLBACK.as_bytes()), 400, "malformed"),
        (raw::post("/v1/commands", "ionledger-sent-at: yesterday\r\n", ROLLBACK.as_bytes()), 400, "malformed"),
        (raw::post("/v1/commands", "", ROLLBACK.replace("api\"", "a/b\"").as_bytes()), 400, "malformed"),
        (raw::post("/v1/commands", "", ROLLBACK.replace("api\"", "api\",\"x\":1").as_bytes()), 400, "malformed"),
        (raw::get("/v1/events?from=-1", ""), 400, "malformed"),
        (raw::get("/v1/events", "last-event-id: x\r\n"), 400, "malformed"),
    ] {
        let answer = raw::unix(world.data(), &request).await;
        let shown = String::from_utf8_lossy(&request[..request.len().min(200)]).into_owned();
        assert_eq!(answer.status, status, "{shown}: {answer:?}");
        assert_eq!(answer.error().0, code, "{shown}");
        assert!(answer.head.contains("content-type: application/json"), "{answer:?}");
    }
    assert_eq!(world.records(), records);
}

#[tokio::test]
async fn a_malformed_body_is_named_with_its_line_and_field() {
    let world = World::open().await;
    let body = ROLLBACK.replace(",\"deployment\"", ",\n\"deploymint\"");
    let answer = raw::unix(world.data(), &raw::post("/v1/commands", "", body.as_bytes())).await;
    assert!(answer.body.contains("unknown field `deploymint`"), "{answer:?}");
    assert!(answer.body.contains("line 2"), "{answer:?}");
}

#[tokio::test]
async fn a_chunked_body_without_an_end_is_cut_at_the_cap() {
    let world = World::open().await;
    let head = b"POST /v1/commands HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = [format!("{:x}\r\n", 64 * 1024).into_bytes(), vec![b' '; 64 * 1024], b"\r\n".to_vec()].concat();
    let answer = raw::unix(world.data(), &[&head[..], &chunk.repeat(8)].concat()).await;
    assert_eq!(answer.status, 413, "{answer:?}");
}

#[tokio::test]
async fn smuggled_requests_are_refused() {
    let world = World::open().await;
    for bytes in [
        "POST /v1/commands HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}".to_owned(),
        "POST /v1/commands HTTP/1.1\r\nhost: x\r\ncontent-length: \r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.1\r\nhost: x\r\n: y\r\n\r\n".to_owned(),
        "\0\0\0\0\r\n\r\n".to_owned(),
        format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(70_000)),
    ] {
        let answer = raw::unix(world.data(), bytes.as_bytes()).await;
        assert!((400..=431).contains(&answer.status), "{answer:?}");
    }
    assert_eq!(raw::unix(world.data(), &raw::get("/healthz", "")).await.status, 200);
}

#[tokio::test]
async fn a_client_that_does_not_say_what_it_wants_is_let_go() {
    let world = World::open_with(None, |api| {
        api.limits.head_timeout = Duration::from_millis(50);
        api.limits.body_timeout = Duration::from_millis(50);
        api.limits.connections_max = 2;
    })
    .await;
    // More of them than there are places, so that the last gets in only because the first are let go.
    for _ in 0..5 {
        let answer = raw::unix(world.data(), b"GET /healthz HTTP/1.1\r\nhost:").await;
        assert_ne!(answer.status, 200);
    }
    let slow = raw::unix(
        world.data(),
        b"POST /v1/commands HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 9\r\n\r\n{",
    )
    .await;
    assert_eq!((slow.status, slow.error().0.as_str()), (408, "slow"));
}

#[tokio::test]
async fn server_sent_events_go_on_after_the_last_id() {
    let world = World::open().await;
    world.declare(&[]).await;
    let headers = "accept: text/event-stream\r\nlast-event-id: 2\r\n";
    let answer = raw::unix(world.data(), &raw::get("/v1/events?follow=false", headers)).await;
    assert!(answer.head.contains("content-type: text/event-stream"), "{answer:?}");
    assert!(
        answer.body.contains("id: 3\nevent: record\ndata: {\"offset\":3,\"counts\":true,\"commit\":{"),
        "{answer:?}"
    );
    assert!(!answer.body.contains("id: 2\n"), "{answer:?}");
}
