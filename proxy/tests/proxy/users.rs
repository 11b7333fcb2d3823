//! Users: how long they are waited for, and how many there may be.

use std::time::Duration;

use http::StatusCode;
use proxy::{Config, Patience};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::{Echo, Stage, User, config, get, read_until, routes, serve_raw, talk, within};

const LONG: Duration = Duration::from_secs(3_600);
const SHORT: Duration = Duration::from_millis(100);

async fn stage(change: impl FnOnce(&mut Config)) -> Stage {
    let data = tempfile::tempdir().unwrap();
    let mut config = config(data.path());
    config.patience = Patience { head: LONG, idle: LONG, stall: LONG };
    change(&mut config);
    Stage::with(data, config).await
}

#[tokio::test]
async fn a_user_who_does_not_finish_a_head_is_shown_out() {
    let (stage, node) = (stage(|config| config.patience.head = SHORT).await, Echo::new("old").await);
    let held = stage.apply(&routes(1, &[node.address], &[], 0)).await;
    let answer = talk(held.listening, b"GET / HTTP/1.1\r\nhost: a").await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("connection: close"), "{answer}");
    assert_eq!(talk(held.listening, b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET").await.matches("HTTP/1.1").count(), 2);
    assert_eq!(node.requests(), 1);
}

#[tokio::test]
async fn a_head_of_32_kb_is_taken_and_one_byte_more_is_a_431() {
    let (stage, node) = (stage(|_| {}).await, Echo::new("old").await);
    let held = stage.apply(&routes(1, &[node.address], &[], 0)).await;
    let head = |bytes: usize, target: usize| {
        let first = format!("GET /{} HTTP/1.1\r\nhost: api\r\nconnection: close\r\nx: ", "t".repeat(target));
        let filling = bytes - first.len() - 4;
        first + &"x".repeat(filling) + "\r\n\r\n"
    };
    for (bytes, target, status) in
        [(32_768, 0, 200), (32_768, 20_000, 200), (32_769, 0, 431), (32_769, 20_000, 431), (400_000, 0, 431)]
    {
        let answer = talk(held.listening, head(bytes, target).as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{bytes} with {target}: {answer}");
    }
    let endless = format!("GET /{}", "t".repeat(400_000));
    assert!(talk(held.listening, endless.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    stage.refused(4).await;
}

#[tokio::test]
async fn a_user_who_has_nothing_more_to_ask_is_shown_out_and_one_who_waits_for_an_answer_is_not() {
    let stage = stage(|config| config.patience.idle = SHORT).await;
    let slow = serve_raw(|mut stream| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        // The proxy's sockets are real, and so is the clock that its patience is counted by.
        tokio::time::sleep(SHORT * 5).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    })
    .await;
    let held = stage.apply(&routes(1, &[slow], &[], 0)).await;
    let answer = talk(held.listening, b"GET / HTTP/1.1\r\nhost: api\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
}

#[tokio::test]
async fn a_user_who_takes_nothing_of_an_answer_is_shown_out() {
    let stage = stage(|config| config.patience.stall = SHORT).await;
    let endless = serve_raw(|mut stream| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while stream.write_all(&[0; 65_536]).await.is_ok() {}
    })
    .await;
    let held = stage.apply(&routes(1, &[endless], &[], 0)).await;
    let mut user = TcpStream::connect(held.listening).await.unwrap();
    user.write_all(b"GET / HTTP/1.1\r\nhost: api\r\n\r\n").await.unwrap();
    stage.seen(crate::stage::BASELINE, |seen| seen.counts().abandoned == 1).await;
    // What lay ready in the kernel can still be read, and then it is over.
    let mut rest = vec![0; 1 << 20];
    within("it is over", async { while let Ok(1..) = user.read(&mut rest).await {} }).await;
}

#[tokio::test]
async fn a_user_beyond_the_last_place_waits_until_one_is_free() {
    let (stage, node) = (stage(|config| config.connections_max = 1).await, Echo::new("old").await);
    let held = stage.apply(&routes(1, &[node.address], &[], 0)).await;
    let mut first = User::connect(held.listening).await;
    assert_eq!(first.get("/").await.0, StatusCode::OK);
    let second = tokio::spawn(get(held.listening));
    for _ in 0..20 {
        assert_eq!(first.get("/").await.0, StatusCode::OK);
    }
    assert_eq!(node.requests(), 21, "the second has not been served");
    drop(first);
    assert_eq!(second.await.unwrap().0, StatusCode::OK);
}
