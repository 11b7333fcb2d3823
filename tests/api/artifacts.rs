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
    let artifact = world.client.upload(&path, None, sent).await.unwrap();
    assert_eq!((artifact.sha256, artifact.size_bytes), (Hash::of(&content), 3_000_000));
    assert_eq!(artifact.name, "my program");
    assert_eq!(*seen.borrow(), 3_000_000);
    assert_eq!(std::fs::read(world.data().join("artifacts").join(artifact.sha256.to_string())).unwrap(), content);
    assert!(matches!(world.client.upload(world.data(), None, watch::Sender::new(0)).await, Err(Error::File { .. })));
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
    let expected = [hash];
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
    world.send(&release(artifact.sha256, artifact.size_bytes)).await.unwrap();
}

fn release(version: &str, artifact: &schemas::run::Artifact, args: &[&str]) -> String {
    let artifact = serde_json::to_string(artifact).unwrap();
    let args = serde_json::to_string(args).unwrap();
    format!(r#"{{"command":"release","service":"api","version":"{version}","artifact":{artifact},"args":{args}}}"#)
}

async fn sent(world: &World, content: &[u8]) -> Result<schemas::run::Artifact, Error> {
    let path = world.data().join("sent");
    std::fs::write(&path, content).unwrap();
    world.client.upload(&path, None, watch::Sender::new(0)).await
}

#[tokio::test]
async fn a_file_that_is_no_program_burns_no_version() {
    let world = World::open().await;
    world.declare(&[]).await;
    let records = world.records();
    for (content, why) in [
        (&b""[..], "it is empty"),
        (b"PK\x03\x04", "it begins neither like an ELF binary nor with `#!`"),
        (b"#!/bin/sh\r\necho\r\n", "ends in a carriage return"),
        (b"#!\n", "names no interpreter"),
    ] {
        let artifact = sent(&world, content).await.unwrap();
        let refused = crate::problem(world.send(&release("1.0.0", &artifact, &[])).await);
        assert_eq!(refused.code, Code::Invalid);
        assert!(refused.message.contains(why), "{refused}");
    }
    assert_eq!(world.records(), records);
    let lacking = sent(&world, b"#!/opt/nowhere/python9\n").await.unwrap();
    let warned = world.send(&release("1.0.0", &lacking, &["--port={prt}"])).await.unwrap();
    assert_eq!(warned.notes.len(), 2, "{warned:?}");
    assert!(warned.notes[0].starts_with("argument 1 holds `{prt}`, which is not a placeholder"), "{warned:?}");
    assert!(warned.notes[1].contains("its interpreter /opt/nowhere/python9 is not on this machine"), "{warned:?}");
    let fine = sent(&world, b"#!/bin/sh\n").await.unwrap();
    assert!(world.send(&release("1.0.1", &fine, &["--port={port}"])).await.unwrap().notes.is_empty());
}

#[tokio::test]
async fn every_placeholder_that_stands_for_nothing_is_named_whoever_declares_it() {
    let world = World::open().await;
    let apply = r#"{"command":"apply","service":"api","definition":{"owner":"team","run":{
        "args":["{prot}","{host}:{prt}","{port}"],"env":{"SELF":{"value":"http://localhost:{port}"}},
        "check":{"path":"/{port}/health","status":200,"timeout_ms":1000,"interval_ms":1000,"healthy_after":1}}}}"#;
    let notes = world.send(apply).await.unwrap().notes;
    let begin = |start: &str| notes.iter().filter(|note| note.starts_with(start)).count();
    for start in [
        "argument 1 holds `{prot}`, which is not a placeholder",
        "argument 2 holds `{host}`, which is not a placeholder",
        "argument 2 holds `{prt}`, which is not a placeholder",
        "env SELF holds `{port}`, which is filled in only in args",
        "the check's path holds `{port}`, which is filled in only in args",
    ] {
        assert_eq!(begin(start), 1, "{start}: {notes:#?}");
    }
    assert_eq!(notes.len(), 5, "{notes:#?}");
}

#[tokio::test]
async fn what_the_server_has_need_not_be_sent() {
    let world = World::open().await;
    assert!(!world.client.has_artifact(Hash::of(b"never")).await.unwrap());
    let artifact = world.upload(b"x").await;
    assert!(world.client.has_artifact(artifact.sha256).await.unwrap());
    let copy = world.data().join("artifacts").join(artifact.sha256.to_string());
    std::fs::remove_file(&copy).unwrap();
    std::fs::write(&copy, b"damaged").unwrap();
    assert!(!world.client.has_artifact(artifact.sha256).await.unwrap(), "a damaged one must be sent again");
    let answer = raw::unix(world.data(), &raw::get("/v1/artifacts/00", "")).await;
    assert_eq!(answer.status, 400, "{answer:?}");
}

#[tokio::test]
async fn files_without_a_release_have_a_quota_that_known_content_passes() {
    let world = World::open_with(None, |api| api.limits.unnamed_bytes_max = 100).await;
    world.declare(&[]).await;
    let [named, known] = [sent(&world, b"#!/bin/sh\n#1").await.unwrap(), sent(&world, &[b'x'; 80]).await.unwrap()];
    world.send(&release("1.0.0", &named, &[])).await.unwrap();
    let quota = |sent: Result<schemas::run::Artifact, Error>| match sent {
        Err(Error::Refused(problem)) => assert_eq!(problem.code, Code::Quota, "{problem}"),
        other => panic!("{other:?}"),
    };
    quota(sent(&world, &[b'y'; 21]).await);
    let announced = format!("name=a&sha256={}", Hash::of(&[b'y'; 21]));
    let early = raw::unix(world.data(), &put(&announced, 21, b"")).await;
    assert_eq!((early.status, early.error().0.as_str()), (507, "quota"), "it is refused before it is sent");
    assert!(early.body.contains("take 80 bytes, 21 more would be over 100 (unnamed_artifacts_bytes_max)"), "{early:?}");
    let liar = format!("name=a&sha256={}", known.sha256);
    let other = raw::unix(world.data(), &put(&liar, 21, &[b'y'; 21])).await;
    assert_eq!((other.status, other.error().0.as_str()), (422, "invalid"));
    assert_eq!(kept(&world).iter().filter(|name| !name.starts_with('.')).count(), 2, "{:?}", kept(&world));
    for content in [&[b'x'; 80][..], b"#!/bin/sh\n#1"] {
        sent(&world, content).await.unwrap();
    }
    std::fs::remove_file(world.data().join("artifacts").join(named.sha256.to_string())).unwrap();
    sent(&world, b"#!/bin/sh\n#1").await.expect("what a release names is always taken");
    sent(&world, &[b'y'; 20]).await.expect("there is room for it");
}

#[tokio::test]
async fn what_no_release_names_goes_by_itself() {
    let world = World::open_with(None, |api| api.limits.unnamed_every = Duration::from_millis(20)).await;
    world.declare(&[]).await;
    let named = world.upload(b"named").await;
    world.send(&release("1.0.0", &named, &[])).await.unwrap();
    let unnamed = world.upload(b"unnamed").await;
    // Whether it goes depends on two clocks, which the store's own tests set; here it is seen that it stays meanwhile.
    // The server looks by a real clock, several times in this time.
    tokio::time::sleep(Duration::from_millis(200)).await;
    for artifact in [named, unnamed] {
        assert!(world.client.has_artifact(artifact.sha256).await.unwrap());
    }
}
