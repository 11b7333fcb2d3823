//! Users: how long they are waited for, and how many there may be.

use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use workers::proxy::{Config, Patience};

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
    assert_eq!(talk(held.listening, b"GET / HTTP/1.1\r\nhost: a").await, "");
    assert_eq!(node.requests(), 0);
}

#[tokio::test]
async fn a_user_who_has_nothing_more_to_ask_is_shown_out_and_one_who_waits_for_an_answer_is_not() {
    let stage = stage(|config| config.patience.idle = SHORT).await;
    let slow = serve_raw(|mut stream| async move {
        read_until(&mut stream, "\r\n\r\n").await;
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
