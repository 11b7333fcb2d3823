//! Crowds: many connections, readers that stand still, long answers. A rollback and health get through all of them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use api::Code;
use api::client::{Client, Error, SendOptions};
use api::tokens::Tokens;
use replay::HistoryQuery;
use schemas::{ActorKind, Timestamp};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use crate::raw;
use crate::world::{DEADLINE, World, request};

const ROLLBACK: &str =
    r#"{"id":"00000000-0000-0000-0000-00000000ffff","command":"rollback","deployment":"production/api"}"#;
const PROMOTE: &str =
    r#"{"id":"00000000-0000-0000-0000-00000000fffe","command":"promote","deployment":"production/api"}"#;

/// Long enough that no limit but the one in question ends anything.
const LONG: Duration = Duration::from_secs(600);

/// Asks for `path` over the socket until it is answered with `status`.
async fn becomes(world: &World, path: &str, status: u16) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let answer = raw::unix(world.data(), &raw::get(path, "")).await;
        if answer.status == status {
            return;
        }
        assert!(Instant::now() < deadline, "never {status}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Declares a service so often that its history is some megabytes long.
async fn long_history(world: &World) {
    for n in 0..600 {
        let text = format!("{n} {}", "words and words ".repeat(120));
        let apply =
            format!(r#"{{"command":"apply","service":"api","definition":{{"owner":"team","description":"{text}"}}}}"#);
        world.send(&apply).await.unwrap();
    }
}

#[tokio::test]
async fn a_server_whose_places_are_taken_still_answers_health_and_rollbacks() {
    let world = World::open_with(None, |api| {
        api.limits.connections_max = 3;
        api.limits.head_timeout = LONG;
    })
    .await;
    world.declare(&["1.0.0"]).await;
    let mut crowd = vec![];
    for _ in 0..3 {
        crowd.push(UnixStream::connect(world.data().join("api.sock")).await.unwrap());
    }
    becomes(&world, "/v1/status", 503).await;
    let refused = raw::unix(world.data(), &raw::get("/v1/status", "")).await;
    assert_eq!(refused.error(), ("busy".to_owned(), 1));
    assert!(refused.body.contains("all 3 connections of this socket or port are in use; close some"), "{refused:?}");
    assert!(refused.head.contains("connection: close"), "{refused:?}");
    for path in ["/healthz", "/readyz"] {
        assert_eq!(raw::unix(world.data(), &raw::get(path, "")).await.status, 200, "{path}");
    }
    let rolled = raw::unix(world.data(), &raw::post("/v1/commands", "", ROLLBACK.as_bytes())).await;
    assert_eq!(rolled.error().0, "unknown", "it is decided, and there is nothing to go back to: {rolled:?}");
    let other = raw::unix(world.data(), &raw::post("/v1/commands", "", PROMOTE.as_bytes())).await;
    assert_eq!((other.status, other.error().0.as_str()), (503, "busy"));
    crowd.pop();
    becomes(&world, "/v1/status", 200).await;
}

#[tokio::test]
async fn of_those_who_come_too_late_the_oldest_gives_way() {
    let world = World::open_with(None, |api| {
        api.limits.connections_max = 1;
        api.limits.connections_reserved_max = 2;
        api.limits.head_timeout = LONG;
    })
    .await;
    let socket = world.data().join("api.sock");
    let mut crowd = vec![];
    for _ in 0..50 {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
        crowd.push(stream);
    }
    let rolled = raw::unix(world.data(), &raw::post("/v1/commands", "", ROLLBACK.as_bytes())).await;
    assert_eq!(rolled.error().0, "unknown", "{rolled:?}");
    // The first has the place, the last may still be answered; those between were let go.
    let mut end = vec![];
    let gone = tokio::time::timeout(DEADLINE, crowd[1].read_to_end(&mut end)).await.expect("it is let go");
    assert!(gone.is_err() || end.is_empty(), "{end:?}");
    crowd[0].write_all(b"host: x\r\nconnection: close\r\n\r\n").await.unwrap();
    tokio::time::timeout(DEADLINE, crowd[0].read_to_end(&mut end)).await.expect("an answer in time").unwrap();
    assert!(end.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&end));
}

#[tokio::test]
async fn a_reader_that_stands_still_is_let_go_and_its_place_is_free() {
    let world = World::open_with(None, |api| {
        api.limits.connections_max = 2;
        api.limits.stalled_max = Duration::from_millis(300);
    })
    .await;
    long_history(&world).await;
    let mut still = vec![];
    for _ in 0..2 {
        let mut stream = UnixStream::connect(world.data().join("api.sock")).await.unwrap();
        stream.write_all(&raw::get("/v1/history?limit=10000", "")).await.unwrap();
        still.push(stream);
    }
    for stream in &mut still {
        // Nothing is read here; what is sent fails once the other end has gone.
        let deadline = Instant::now() + DEADLINE;
        while stream.write_all(b" ").await.is_ok() {
            assert!(Instant::now() < deadline, "a reader that takes nothing is never let go");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut got = vec![];
        let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut got)).await.expect("it is let go");
        assert!(!got.ends_with(b"0\r\n\r\n"), "an answer that was cut off looks whole");
    }
    becomes(&world, "/v1/status", 200).await;
}

#[tokio::test]
async fn a_reader_that_takes_all_gets_all_in_pages_or_at_once() {
    let world = World::open().await;
    long_history(&world).await;
    let whole = world.client.history(&HistoryQuery::default()).await.unwrap();
    assert_eq!((whole.entries.len(), whole.more), (world.records(), false));
    let mut query = HistoryQuery { limit: Some(250), ..HistoryQuery::default() };
    let mut entries = vec![];
    loop {
        let page = world.client.history(&query).await.unwrap();
        assert_eq!(page.more, entries.len() + page.entries.len() < whole.entries.len());
        entries.extend(page.entries);
        query.before = entries.last().map(|entry| entry.offset);
        if !page.more {
            break;
        }
    }
    assert_eq!(entries, whole.entries);
    for limit in ["0", "10001", "1000000", "99999999999999999999"] {
        let answer = raw::unix(world.data(), &raw::get(&format!("/v1/history?limit={limit}"), "")).await;
        assert_eq!((answer.status, answer.error().0.as_str()), (400, "malformed"), "{limit}: {answer:?}");
    }
}

async fn with_tcp(change: impl FnOnce(&mut api::server::Limits)) -> (World, SocketAddr) {
    let world = World::open_with(Some("127.0.0.1:0".parse().unwrap()), |api| {
        api.limits.head_timeout = LONG;
        change(&mut api.limits);
    })
    .await;
    let address = world.tcp.unwrap();
    (world, address)
}

#[tokio::test]
async fn a_token_has_so_many_connections_and_its_rollback_needs_none_of_them() {
    let (world, address) = with_tcp(|limits| limits.connections_per_token_max = 2).await;
    let tokens = Tokens::of(world.data());
    let [ana, bob] = ["ana", "bob"].map(|name| {
        let (token, _) = tokens.make(name, ActorKind::Person, Timestamp::now(), None).unwrap();
        Client::of_address(&address.to_string(), &token)
    });
    let mut held = vec![];
    for _ in 0..2 {
        held.push(ana.events(schemas::Offset(0), true).await.unwrap());
    }
    match ana.standing().await {
        Err(Error::Refused(problem)) => {
            assert_eq!(problem.code, Code::Busy);
            assert!(problem.message.starts_with("2 connections with this token are open"), "{problem}");
        }
        other => panic!("{other:?}"),
    }
    let rollback = request(r#"{"command":"rollback","deployment":"production/api"}"#);
    match ana.execute(&rollback, SendOptions::default()).await {
        Err(Error::Refused(problem)) => assert_eq!(problem.code, Code::Unknown, "it was decided: {problem}"),
        other => panic!("{other:?}"),
    }
    let apply = request(r#"{"command":"apply","service":"api","definition":{"owner":"team"}}"#);
    assert!(
        matches!(ana.execute(&apply, SendOptions::default()).await, Err(Error::Refused(problem)) if problem.code == Code::Busy)
    );
    bob.standing().await.unwrap();
    held.pop();
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = ana.standing().await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Asks from `from` and returns the status.
async fn asked_from(from: &str, address: SocketAddr, bytes: &[u8]) -> u16 {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = vec![];
    tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("an answer in time").unwrap();
    let text = String::from_utf8_lossy(&answer);
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn an_address_has_so_many_connections_if_a_setting_says_so() {
    let (world, address) = with_tcp(|limits| limits.connections_per_address_max = Some(2)).await;
    let (token, _) = Tokens::of(world.data()).make("ana", ActorKind::Person, Timestamp::now(), None).unwrap();
    let token = format!("authorization: Bearer {token}\r\n");
    let mut held = vec![TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
    let status = raw::get("/v1/status", &token);
    let deadline = Instant::now() + DEADLINE;
    while asked_from("127.0.0.1", address, &status).await != 503 {
        assert!(Instant::now() < deadline, "the two connections were never counted");
    }
    assert_eq!(asked_from("127.0.0.2", address, &status).await, 200);
    assert_eq!(asked_from("127.0.0.1", address, &raw::get("/healthz", "")).await, 200);
    let rollback = raw::post("/v1/commands", &token, ROLLBACK.as_bytes());
    assert_eq!(asked_from("127.0.0.1", address, &rollback).await, 404, "it was decided: there is no such deployment");
    held.pop();
    while asked_from("127.0.0.1", address, &status).await != 200 {
        assert!(Instant::now() < deadline, "the place was never free again");
    }
}
