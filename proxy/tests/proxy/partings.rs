//! Partings: how connections end, and what is known of the last answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;

use crate::stage::{BASELINE, Stage, read_until, reader, routes, serve_raw, talk, until_closed, within};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: api\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A node that says when it was asked, and answers when it is told to.
async fn slow(answer: &'static [u8]) -> (std::net::SocketAddr, Arc<Notify>, Arc<Notify>) {
    let (asked, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (asked.clone(), go.clone());
    let node = serve_raw(move |mut stream| {
        let (tell, wait) = (tell.clone(), wait.clone());
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            tell.notify_one();
            wait.notified().await;
            let _ = stream.write_all(answer).await; // whoever asked may have gone
        }
    })
    .await;
    (node, asked, go)
}

#[tokio::test]
async fn a_user_who_half_closes_is_answered_at_once_or_later() {
    let stage = Stage::new().await;
    let (node, asked, go) = slow(OK).await;
    let held = stage.apply(&routes(1, &[node], &[], 0)).await;
    for (count, request) in
        [GET, b"GET / HTTP/1.0\r\n\r\n", b"POST / HTTP/1.1\r\nhost: api\r\ncontent-length: 4\r\n\r\nbody"]
            .into_iter()
            .enumerate()
    {
        let mut user = TcpStream::connect(held.listening).await.unwrap();
        user.write_all(request).await.unwrap();
        user.shutdown().await.unwrap();
        asked.notified().await;
        tokio::time::sleep(Duration::from_millis(100)).await; // the proxy has seen that nothing more comes
        go.notify_one();
        let answer = until_closed(&mut user).await;
        assert!(answer.starts_with("HTTP/1.") && answer.contains(" 200 OK") && answer.ends_with("ok"), "{answer}");
        stage.seen(BASELINE, |seen| seen.counts().status_2xx == count as u64 + 1).await;
    }
    let seen = stage.measures().await;
    assert_eq!(seen.stacks[&BASELINE].counts().ended(), 3);
}

#[tokio::test]
async fn a_user_who_half_closes_and_waits_long_is_asked_whether_it_is_there() {
    let stage = Stage::new().await;
    let (node, asked, go) = slow(OK).await;
    let held = stage.apply(&routes(1, &[node], &[], 0)).await;
    let mut user = TcpStream::connect(held.listening).await.unwrap();
    user.write_all(GET).await.unwrap();
    user.shutdown().await.unwrap();
    asked.notified().await;
    assert_eq!(read_until(&mut user, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    go.notify_one();
    let answer = until_closed(&mut user).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{answer}");
    stage.seen(BASELINE, |seen| seen.counts().status_2xx == 1).await;
}

#[tokio::test]
async fn a_user_who_is_gone_when_the_answer_comes_has_abandoned_it() {
    let stage = Stage::new().await;
    let (node, asked, go) = slow(OK).await;
    let held = stage.apply(&routes(1, &[node], &[], 0)).await;
    for (count, request) in [GET, b"GET / HTTP/1.0\r\n\r\n"].into_iter().enumerate() {
        let mut user = TcpStream::connect(held.listening).await.unwrap();
        user.write_all(request).await.unwrap();
        asked.notified().await;
        drop(user);
        tokio::time::sleep(Duration::from_millis(100)).await; // the proxy has seen it
        go.notify_one();
        stage.seen(BASELINE, |seen| seen.counts().abandoned == count as u64 + 1).await;
    }
    assert_eq!(stage.measures().await.stacks[&BASELINE].counts().ended(), 2);
}

#[tokio::test]
async fn a_user_who_resets_the_connection_is_gone_at_once() {
    let stage = Stage::new().await;
    let (node, asked, _go) = slow(OK).await;
    let held = stage.apply(&routes(1, &[node], &[], 0)).await;
    let mut user = TcpSocket::new_v4().unwrap().connect(held.listening).await.unwrap();
    user.write_all(GET).await.unwrap();
    asked.notified().await;
    user.set_zero_linger().unwrap();
    drop(user);
    stage.seen(BASELINE, |seen| seen.counts().abandoned == 1).await;
}

#[tokio::test]
async fn a_request_that_half_closes_within_its_body_is_answered_with_the_reason() {
    let (stage, (node, _told)) = (Stage::new().await, reader(OK).await);
    let held = stage.apply(&routes(1, &[node], &[], 0)).await;
    for body in ["content-length: 9\r\n\r\nhalf", "transfer-encoding: chunked\r\n\r\n9\r\nhalf"] {
        let mut user = TcpStream::connect(held.listening).await.unwrap();
        user.write_all(format!("POST / HTTP/1.1\r\nhost: api\r\n{body}").as_bytes()).await.unwrap();
        user.shutdown().await.unwrap();
        let answer = until_closed(&mut user).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    stage.seen(BASELINE, |seen| seen.counts().abandoned == 2 && seen.counts().ended() == 2).await;
}

#[tokio::test]
async fn a_head_that_half_closes_before_its_end_is_a_400() {
    let (stage, (node, _told)) = (Stage::new().await, reader(OK).await);
    let held = stage.apply(&routes(1, &[node], &[], 0)).await;
    for head in ["GET", "GET / HTTP/1.1\r\nhost: api"] {
        let mut user = TcpStream::connect(held.listening).await.unwrap();
        user.write_all(head.as_bytes()).await.unwrap();
        user.shutdown().await.unwrap();
        let answer = until_closed(&mut user).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head}: {answer}");
    }
}

#[tokio::test]
async fn a_refusal_reaches_a_user_who_goes_on_sending() {
    let (stage, (node, _told)) = (Stage::new().await, reader(OK).await);
    let held = stage.apply(&routes(1, &[node], &[], 0)).await;
    let refused = b"POST / HTTP/1.1\r\nhost: api\r\nexpect: tea\r\ncontent-length: 3000000\r\n\r\n";
    let malformed = b"POST / HTTP/1.1\r\nhost : api\r\ncontent-length: 3000000\r\n\r\n";
    for (head, status) in [(&refused[..], 417), (&malformed[..], 400)] {
        let mut user = TcpStream::connect(held.listening).await.unwrap();
        user.write_all(head).await.unwrap();
        for _ in 0..100 {
            user.write_all(&[b'x'; 30_000]).await.unwrap_or_else(|error| panic!("{status}: {error}"));
        }
        let answer = until_closed(&mut user).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_shows_even_to_a_user_of_http_1_0() {
    let stage = Stage::new().await;
    let node = serve_raw(|mut stream| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await.unwrap();
    })
    .await;
    let held = stage.apply(&routes(1, &[node], &[], 0)).await;
    let mut user = TcpStream::connect(held.listening).await.unwrap();
    user.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let error = within("it is over", user.read_to_end(&mut Vec::new())).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let answer = talk(held.listening, GET).await;
    assert!(answer.ends_with("4\r\nhalf\r\n"), "without the last chunk: {answer}");
    stage.seen(BASELINE, |seen| seen.counts().failed == 2 && seen.counts().ended() == 2).await;
}

#[tokio::test]
async fn a_user_who_speaks_http_2_is_told_so() {
    let (stage, (node, _told)) = (Stage::new().await, reader(OK).await);
    let held = stage.apply(&routes(1, &[node], &[], 0)).await;
    let answer = talk(held.listening, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}
