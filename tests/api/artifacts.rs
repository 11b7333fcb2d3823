//! Artifacts come in whole or not at all, and a release names one that is there.

use std::time::Duration;

use api::Code;
use api::client::Error;
use schemas::Hash;
use tokio::sync::watch;

use crate::raw;
use crate::world::World;

fn kept(world: &World) -> Vec<String> {
    let folder = std::fs::read_dir(world.data().join("artifacts")).unwrap();
    folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn put(query: &str, length: usize, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "PUT /v1/artifacts?{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn a_file_is_streamed_in_and_kept_under_its_hash() {
    let world = World::open().await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let path = world.data().join("my program");
    std::fs::write(&path, &content).unwrap();
    let sent = watch::Sender::new(0);
    let seen = sent.subscribe();
    let artifact = world.client.upload(&path, sent).await.unwrap();
    assert_eq!((artifact.sha256, artifact.size_bytes), (Hash::of(&content), 3_000_000));
    assert_eq!(artifact.name, "my program");
    assert_eq!(*seen.borrow(), 3_000_000);
    assert_eq!(std::fs::read(world.data().join("artifacts").join(artifact.sha256.to_string())).unwrap(), content);
    assert!(matches!(world.client.upload(world.data(), watch::Sender::new(0)).await, Err(Error::File { .. })));
}

#[tokio::test]
async fn what_is_too_long_wrong_or_ends_early_leaves_nothing() {
    let world = World::open_with(None, |api| {
        api.limits.artifact_bytes_max = 1_000;
        api.limits.upload_idle = Duration::from_millis(50);
    })
    .await;
    let wrong = format!("name=a&sha256={}", Hash::of(b"other"));
    for (request, status, code) in [
        (put("name=a", 1_001, &[b'x'; 1_001]), 413, "too_large"),
        (put("name=a", 10, b"early"), 408, "slow"),
        (put("name=..%2Fa", 1, b"x"), 400, "malformed"),
        (put("name=", 1, b"x"), 400, "malformed"),
        (put("", 1, b"x"), 400, "malformed"),
        (put("name=a&sha256=00", 1, b"x"), 400, "malformed"),
        (put(&wrong, 1, b"x"), 422, "invalid"),
    ] {
        let answer = raw::unix(world.data(), &request).await;
        assert_eq!((answer.status, answer.error().0.as_str()), (status, code), "{answer:?}");
    }
    let whole = raw::unix(world.data(), &put("name=a", 1_000, &[b'x'; 1_000])).await;
    assert_eq!(whole.status, 200, "{whole:?}");
    let hash = Hash::of(&[b'x'; 1_000]).to_string();
    let expected = [hash, Hash::of(b"x").to_string()];
    let until = tokio::time::Instant::now() + crate::world::DEADLINE;
    while kept(&world).iter().any(|name| !expected.contains(name)) {
        assert!(tokio::time::Instant::now() < until, "{:?}", kept(&world));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_release_of_what_is_not_in_the_store_is_refused() {
    let world = World::open().await;
    world.declare(&[]).await;
    let artifact = world.upload(b"program").await;
    let records = world.records();
    let release = |sha256: Hash, size: u64| {
        format!(
            r#"{{"command":"release","service":"api","version":"1.0.0","artifact":{{"sha256":"{sha256}","name":"a","size_bytes":{size}}}}}"#
        )
    };
    let missing = crate::problem(world.send(&release(Hash::of(b"never"), 5)).await);
    assert_eq!(missing.code, Code::Unknown);
    let other_size = crate::problem(world.send(&release(artifact.sha256, 5)).await);
    assert_eq!(other_size.code, Code::Invalid);
    assert_eq!(world.records(), records);
    world.send(&release(artifact.sha256, 7)).await.unwrap();
}
