//! Exchanges: what passes between a user and a node, and what happens when it does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use http::{Response, StatusCode};
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

use crate::stage::{BASELINE, Echo, Stage, User, get, nobody, read_until, routes, serve, serve_raw, talk, within};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: api\r\n\r\n";

#[tokio::test]
async fn bodies_stream_in_both_directions() {
    let stage = Stage::new().await;
    let node = serve_raw(|mut stream| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        // Each part of the answer waits for one of the request, and the other way round.
        for part in ["one", "two"] {
            read_until(&mut stream, &format!("{part}\r\n")).await;
            stream.write_all(format!("3\r\n{part}\r\n").as_bytes()).await.unwrap();
        }
        read_until(&mut stream, "0\r\n\r\n").await;
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    })
    .await;
    let held = stage.apply(&routes(1, &[node], &[], 0)).await;
    let mut user = TcpStream::connect(held.listening).await.unwrap();
    user.write_all(b"POST / HTTP/1.1\r\nhost: api\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    read_until(&mut user, "\r\n\r\n").await;
    for part in ["one", "two"] {
        user.write_all(format!("3\r\n{part}\r\n").as_bytes()).await.unwrap();
        read_until(&mut user, &format!("{part}\r\n")).await;
    }
    user.write_all(b"0\r\n\r\n").await.unwrap();
    read_until(&mut user, "0\r\n\r\n").await;
    stage.seen(BASELINE, |seen| seen.counts().status_2xx == 1).await;
}

#[tokio::test]
async fn a_node_without_connection_is_passed_over() {
    let (stage, node) = (Stage::new().await, Echo::new("old").await);
    let held = stage.apply(&routes(1, &[nobody().await, node.address], &[], 0)).await;
    for _ in 0..20 {
        assert_eq!(get(held.listening).await, (StatusCode::OK, "old".to_owned()));
    }
    let seen = stage.seen(BASELINE, |seen| seen.counts().status_2xx == 20).await;
    assert_eq!(seen.counts().errors(), 0);
}

#[tokio::test]
async fn a_stack_without_connection_answers_502_and_it_counts_as_its_failure() {
    let stage = Stage::new().await;
    let held = stage.apply(&routes(1, &[nobody().await], &[], 0)).await;
    assert_eq!(get(held.listening).await.0, StatusCode::BAD_GATEWAY);
    let seen = stage.seen(BASELINE, |seen| seen.counts().failed == 1).await;
    assert_eq!((seen.counts().ended(), seen.latency().count()), (1, 1));
}

#[tokio::test]
async fn what_a_node_has_read_is_never_sent_again() {
    let (stage, requests) = (Stage::new().await, Arc::new(AtomicUsize::new(0)));
    let counter = requests.clone();
    let hangs_up = move |mut stream: TcpStream| {
        let counter = counter.clone();
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            counter.fetch_add(1, SeqCst);
        }
    };
    let nodes = [serve_raw(hangs_up.clone()).await, serve_raw(hangs_up).await];
    let held = stage.apply(&routes(1, &nodes, &[], 0)).await;
    assert_eq!(get(held.listening).await.0, StatusCode::BAD_GATEWAY);
    assert_eq!(requests.load(SeqCst), 1);
    stage.seen(BASELINE, |seen| seen.counts().failed == 1).await;
}

#[tokio::test]
async fn a_kept_connection_that_the_node_has_closed_costs_no_request() {
    let (stage, (closed, mut closes)) = (Stage::new().await, mpsc::unbounded_channel());
    let node = serve_raw(move |mut stream| {
        let closed = closed.clone();
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            stream.write_all(OK).await.unwrap();
            drop(stream);
            closed.send(()).unwrap();
        }
    })
    .await;
    let held = stage.apply(&routes(1, &[node], &[], 0)).await;
    let mut user = User::connect(held.listening).await;
    for _ in 0..50 {
        assert_eq!(user.get("/").await, (StatusCode::OK, "ok".to_owned()));
        closes.recv().await.unwrap();
    }
    stage.seen(BASELINE, |seen| seen.counts().status_2xx == 50 && seen.counts().ended() == 50).await;
}

#[tokio::test]
async fn kept_connections_are_used_again() {
    let (stage, connections) = (Stage::new().await, Arc::new(AtomicUsize::new(0)));
    let counter = connections.clone();
    let node = serve_raw(move |mut stream| {
        counter.fetch_add(1, SeqCst);
        async move {
            loop {
                read_until(&mut stream, "\r\n\r\n").await;
                stream.write_all(OK).await.unwrap();
            }
        }
    })
    .await;
    let held = stage.apply(&routes(1, &[node], &[], 0)).await;
    let mut user = User::connect(held.listening).await;
    for _ in 0..100 {
        user.get("/").await;
    }
    // The node's side of an exchange may be wound up a moment after the user's.
    assert!(connections.load(SeqCst) <= 3, "{connections:?} connections for one user");
}

#[tokio::test]
async fn a_node_that_does_not_answer_in_time_is_a_504_and_seen_before_that() {
    let (stage, go) = (Stage::new().await, Arc::new(Notify::new()));
    let gate = go.clone();
    let node = serve(move |_| {
        let gate = gate.clone();
        async move {
            gate.notified().await;
            Response::new(Full::from("late"))
        }
    })
    .await;
    let mut asked = routes(1, &[node], &[], 0);
    asked.timeouts.response_ms = 300;
    let held = stage.apply(&asked).await;
    let user = tokio::spawn(get(held.listening));
    let seen = stage.seen(BASELINE, |seen| seen.in_flight().count() == 1).await;
    assert_eq!((seen.arrived(), seen.counts().ended()), (1, 0));
    assert_eq!(user.await.unwrap().0, StatusCode::GATEWAY_TIMEOUT);
    let seen = stage.seen(BASELINE, |seen| seen.counts().failed == 1).await;
    let slowest = *seen.latency().0.keys().next_back().unwrap();
    assert!(proxy::measures::upper_edge_ms(slowest) >= 300.0);
    assert_eq!(seen.in_flight().count(), 0);
}

#[tokio::test]
async fn an_answer_that_falls_silent_is_cut_off_and_counts_as_a_failure() {
    let stage = Stage::new().await;
    let node = serve_raw(|mut stream| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
        let _ = stream.read_u8().await; // until the proxy closes
    })
    .await;
    let mut asked = routes(1, &[node], &[], 0);
    asked.timeouts.idle_ms = 100;
    let held = stage.apply(&asked).await;
    let answer = talk(held.listening, GET).await;
    assert!(answer.ends_with("half"), "{answer}");
    stage.seen(BASELINE, |seen| seen.counts().failed == 1 && seen.counts().ended() == 1).await;
}

#[tokio::test]
async fn a_request_whose_rest_does_not_come_is_the_users_fault() {
    let stage = Stage::new().await;
    let node = serve_raw(|mut stream| async move {
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    let mut asked = routes(1, &[node], &[], 0);
    asked.timeouts.idle_ms = 100;
    let held = stage.apply(&asked).await;
    let answer = talk(held.listening, b"POST / HTTP/1.1\r\nhost: api\r\ncontent-length: 9\r\n\r\nhalf").await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    stage.seen(BASELINE, |seen| seen.counts().abandoned == 1 && seen.counts().errors() == 0).await;
}

#[tokio::test]
async fn a_user_who_leaves_has_abandoned_the_request_and_the_node_is_told() {
    let (stage, (left, mut leaves)) = (Stage::new().await, mpsc::unbounded_channel());
    let node = serve_raw(move |mut stream| {
        let left = left.clone();
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            let closed = stream.read_u8().await.is_err();
            left.send(closed).unwrap();
        }
    })
    .await;
    let held = stage.apply(&routes(1, &[node], &[], 0)).await;
    let mut user = TcpStream::connect(held.listening).await.unwrap();
    user.write_all(GET).await.unwrap();
    stage.seen(BASELINE, |seen| seen.in_flight().count() == 1).await;
    drop(user);
    assert!(within("the node sees it", leaves.recv()).await.unwrap());
    let seen = stage.seen(BASELINE, |seen| seen.counts().abandoned == 1).await;
    assert_eq!(seen.in_flight().count(), 0);
}

#[tokio::test]
async fn status_classes_are_counted_apart() {
    let stage = Stage::new().await;
    let node = serve(|request| async move {
        let status: u16 = request.uri().path()[1..].parse().unwrap();
        Response::builder().status(status).body(Full::default()).unwrap()
    })
    .await;
    let held = stage.apply(&routes(1, &[node], &[], 0)).await;
    let mut user = User::connect(held.listening).await;
    for status in [200, 204, 302, 404, 404, 404, 500, 503] {
        assert_eq!(user.get(&format!("/{status}")).await.0.as_u16(), status);
    }
    let counts = stage.seen(BASELINE, |seen| seen.counts().ended() == 8).await.counts();
    let classes = (counts.status_2xx, counts.status_3xx, counts.status_4xx, counts.status_5xx);
    assert_eq!((classes, counts.errors()), ((2, 1, 3, 2), 2));
}

/// Answers every request with 200 and hands on what it read.
async fn listener() -> (std::net::SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (tell, told) = mpsc::unbounded_channel();
    let address = serve_raw(move |mut stream| {
        let tell = tell.clone();
        async move {
            let mut read = vec![0; 4_096];
            while let Ok(1..) = stream.peek(&mut read).await {
                let length = stream.read(&mut read).await.unwrap();
                tell.send(String::from_utf8_lossy(&read[..length]).into_owned()).unwrap();
                if read[..length].ends_with(b"\r\n\r\n") || read[..length].ends_with(b"body") {
                    stream.write_all(OK).await.unwrap();
                }
            }
        }
    })
    .await;
    (address, told)
}

#[tokio::test]
async fn a_message_with_two_framings_reaches_the_node_with_one_and_ends_the_connection() {
    let (stage, (node, mut told)) = (Stage::new().await, listener().await);
    let held = stage.apply(&routes(1, &[node], &[], 0)).await;
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: api\r\n\r\n";
    for framing in
        ["content-length: 44\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 44"]
    {
        let bytes = format!("POST / HTTP/1.1\r\nhost: api\r\n{framing}\r\n\r\n{smuggled}");
        let answer = talk(held.listening, bytes.as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        let mut read = told.recv().await.unwrap();
        while !read.ends_with("0\r\n\r\n") {
            read += &told.recv().await.unwrap();
        }
        let read = read.to_lowercase();
        assert!(read.contains("transfer-encoding: chunked") && !read.contains("content-length"), "{read}");
        assert!(!read.contains("smuggled"), "{read}");
    }
}

#[tokio::test]
async fn malformed_messages_are_refused_and_reach_no_node() {
    let (stage, (node, mut told)) = (Stage::new().await, listener().await);
    let held = stage.apply(&routes(1, &[node], &[], 0)).await;
    for (head, status) in [
        ("GET / HTTP/1.1\r\nhost: api\r\ncontent-length: 3\r\ncontent-length: 4", 400),
        ("GET / HTTP/1.1\r\nhost: api\r\ncontent-length: +3", 400),
        ("GET / HTTP/1.1\r\nhost: api\r\ncontent-length: 3, 4", 400),
        ("POST / HTTP/1.1\r\nhost: api\r\ntransfer-encoding: chunked, gzip", 400),
        ("POST / HTTP/1.1\r\nhost: api\r\ntransfer-encoding: gzip, chunked\r\nconnection: close", 501),
        ("GET / HTTP/1.1\r\nhost : api", 400),
        ("GET / HTTP/1.1\r\nhost: api\r\n folded: 1", 400),
        ("GET / HTTP/1.1\r\nconnection: close", 400),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close", 400),
        ("GET / HTTP/1.1\r\nhost: api\r\nx: a\0b", 400),
        ("GET /a b HTTP/1.1\r\nhost: api", 400),
        ("CONNECT api:80 HTTP/1.1\r\nhost: api\r\nconnection: close", 501),
        ("GET / HTTP/1.1\r\nhost: api\r\nupgrade: websocket\r\nconnection: upgrade, close", 501),
        (&format!("GET / HTTP/1.1\r\nhost: api\r\n{}x: 1", "a: b\r\n".repeat(200)), 431),
    ] {
        let answer = talk(held.listening, format!("{head}\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head:?}: {answer}");
    }
    assert!(told.try_recv().is_err(), "no node saw any of it");
    assert_eq!(get(held.listening).await.0, StatusCode::OK, "and the proxy is well");
}

#[tokio::test]
async fn what_is_for_one_hop_stays_on_it_in_both_directions() {
    let stage = Stage::new().await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let node = serve_raw(move |mut stream| {
        let tell = tell.clone();
        async move {
            tell.send(read_until(&mut stream, "\r\n\r\n").await).unwrap();
            let head = "HTTP/1.1 200 OK\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nx-mine: 1\r\n";
            stream.write_all(format!("{head}content-length: 0\r\n\r\n").as_bytes()).await.unwrap();
        }
    })
    .await;
    let held = stage.apply(&routes(1, &[node], &[], 0)).await;
    let head = "GET /a?b HTTP/1.1\r\nhost: api\r\nconnection: close, x-hop\r\nx-hop: 1\r\nte: trailers\r\nx-mine: 1";
    let answer = talk(held.listening, format!("{head}\r\n\r\n").as_bytes()).await;
    assert!(answer.contains("x-mine: 1") && answer.contains("via: 1.1 ionledger"), "{answer}");
    assert!(!answer.contains("x-hop") && !answer.contains("keep-alive"), "{answer}");

    let read = told.recv().await.unwrap();
    assert!(read.starts_with("GET /a?b HTTP/1.1\r\n") && read.contains("x-forwarded-for: 127.0.0.1"), "{read}");
    assert!(read.contains("host: api") && read.contains("x-mine: 1") && read.contains("via: 1.1 ionledger"), "{read}");
    assert!(!read.contains("x-hop") && !read.contains("te:") && !read.contains("close"), "{read}");
}

#[tokio::test]
async fn users_of_http_1_0_and_askers_for_100_continue_are_served() {
    let (stage, (node, mut told)) = (Stage::new().await, listener().await);
    let held = stage.apply(&routes(1, &[node], &[], 0)).await;
    let answer = talk(held.listening, b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with("ok"), "{answer}");
    assert!(told.recv().await.unwrap().contains(" HTTP/1.1\r\n"));

    let mut user = TcpStream::connect(held.listening).await.unwrap();
    let head = "POST / HTTP/1.1\r\nhost: api\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
    user.write_all(head.as_bytes()).await.unwrap();
    let interim = read_until(&mut user, "\r\n\r\n").await;
    assert!(interim.starts_with("HTTP/1.1 100"), "{interim}");
    user.write_all(b"body").await.unwrap();
    let answer = read_until(&mut user, "ok").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
