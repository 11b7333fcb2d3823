//! What happens when something goes wrong inside, when callers go away, and when they send noise.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use api::Code;
use api::client::SendOptions;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::sync::Notify;

use crate::raw;
use crate::router::FakeRouter;
use crate::world::{DEADLINE, World, request};

#[tokio::test]
async fn a_bug_ends_one_request_and_nothing_else() {
    let world = World::open_with(None, |api| {
        api.outside.router = Some(Arc::new(FakeRouter { breaks: true, ..FakeRouter::default() }));
    })
    .await;
    let listen =
        r#"{"command":"apply","service":"api","definition":{"owner":"t","listen":{"production":"127.0.0.1:9"}}}"#;
    for _ in 0..3 {
        let problem = crate::problem(world.send(listen).await);
        assert_eq!(problem.code, Code::Internal);
        assert!(!problem.message.contains("hook"), "the inside stays inside: {problem}");
    }
    world.declare(&["1.0.0"]).await;
}

#[tokio::test]
async fn a_rollback_whose_caller_goes_away_is_applied_all_the_same() {
    let slow = Arc::new(FakeRouter { go_on: Some(Notify::new()), ..FakeRouter::default() });
    let router = Arc::clone(&slow);
    let world = World::open_with(None, |api| api.outside.router = Some(router)).await;
    world.declare(&["1.0.0", "2.0.0"]).await;
    world.ready("1.0.0").await;
    world.ready("2.0.0").await;
    let now = SendOptions { dry_run: false, wait: Some(std::time::Duration::ZERO), no_break_glass: false };
    for version in ["1.0.0", "2.0.0"] {
        let all = format!(
            r#"{{"command":"traffic","deployment":"production/api","shares":[{{"version":"{version}","weight":10000}}]}}"#
        );
        world.client.execute(&request(&all), now).await.unwrap();
    }
    let body = serde_json::to_vec(&request(r#"{"command":"rollback","deployment":"production/api"}"#)).unwrap();
    let mut caller = UnixStream::connect(world.data().join("api.sock")).await.unwrap();
    caller.write_all(&raw::post("/v1/commands?wait_ms=60000", "", &body)).await.unwrap();
    tokio::time::timeout(DEADLINE, slow.begun.notified()).await.unwrap();
    drop(caller);
    // Another request goes through the server after the first caller is gone.
    world.client.ready().await.unwrap();
    slow.go_on.iter().for_each(Notify::notify_one);
    let until = tokio::time::Instant::now() + DEADLINE;
    while slow.ended.load(Ordering::SeqCst) == 0 {
        assert!(tokio::time::Instant::now() < until, "the rollback was dropped with its caller");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Noise from a seed, the same on every run.
struct Noise(u64);

impl Noise {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

#[tokio::test]
async fn noise_is_never_a_bug_and_never_a_server_error() {
    let world = World::open().await;
    world.declare(&["1.0.0"]).await;
    let bodies = [
        r#"{"id":"00000000-0000-0000-0000-00000000aaaa","command":"apply","service":"api","definition":{"owner":"team","policy":{"rollout":{"steps":[100,10000],"duration_ms":1000}}}}"#,
        r#"{"id":"00000000-0000-0000-0000-00000000bbbb","command":"traffic","deployment":"production/api","shares":[{"version":"1.0.0","weight":10000}],"supersede":true}"#,
        r#"{"id":"00000000-0000-0000-0000-00000000cccc","command":"roll","deployment":"production/api","from":"1.0.0","to":"2.0.0","plan":{"duration_ms":5,"steps":[10000]},"fence":0,"effective_at":"2026-11-01T12:00:00Z"}"#,
    ];
    let seed = 20_261_123;
    let mut noise = Noise(seed);
    for n in 0..600 {
        let mut body = bodies[n % bodies.len()].as_bytes().to_vec();
        for _ in 0..=noise.below(4) {
            let at = noise.below(body.len());
            match noise.below(4) {
                0 => body[at] = noise.below(256) as u8,
                1 => drop(body.remove(at)),
                2 => body.insert(at, b"\"{}[]:,0-e\\\0"[noise.below(12)]),
                _ => body.truncate(at.max(1)),
            }
        }
        let answer = raw::unix(world.data(), &raw::post("/v1/commands?wait_ms=0", "", &body)).await;
        let shown = String::from_utf8_lossy(&body);
        assert!((200..500).contains(&answer.status), "seed {seed}, {n}: {shown}: {answer:?}");
    }
    world.client.ready().await.unwrap();
}
