//! What CI reports: believed only when it is signed, taken once, and rolled out if the policy says so.

use api::ci::Secrets;
use api::client::SendOptions;
use api::wire::Reported;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use schemas::command::{Command, Request};
use schemas::run::Artifact;
use schemas::{Actor, ActorKind, CommandId, DeploymentId, Offset};
use sha2::Sha256;

use crate::raw::{self, Raw};
use crate::world::{World, request};

const SECRET: &str = "It's a Secret to Everybody";
const OLD_SECRET: &str = "the secret of last year";

async fn open() -> World {
    let secrets = Secrets::default().and(SECRET.as_bytes()).unwrap().and(OLD_SECRET.as_bytes()).unwrap();
    World::open_with(Some("127.0.0.1:0".parse().unwrap()), |api| api.ci = secrets).await
}

fn mac(secret: &str, signed: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(signed);
    mac.finalize().into_bytes().to_vec()
}

fn signature(secret: &str, body: &[u8]) -> String {
    format!("sha256={}", hex::encode(mac(secret, body)))
}

/// The headers of a standard webhook that is sent `age_s` seconds ago.
fn webhook(id: &str, age_s: i64, body: &[u8]) -> String {
    let timestamp = jiff::Timestamp::now().as_second() - age_s;
    let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
    let signature = STANDARD.encode(mac(SECRET, &signed));
    format!(
        "content-type: application/json\r\nwebhook-id: {id}\r\nwebhook-timestamp: {timestamp}\r\nwebhook-signature: v1,{signature}\r\n"
    )
}

async fn deliver_webhook(world: &World, headers: &str, body: &[u8]) -> Raw {
    raw::tcp(world.tcp.unwrap(), &raw::post("/v1/ci/releases", headers, body)).await
}

fn body(version: &str, artifact: &Artifact) -> Vec<u8> {
    let artifact = serde_json::to_string(artifact).unwrap();
    format!(
        r#"{{"service":"api","version":"{version}","artifact":{artifact},"source":{{"commit":"0a7d493"}},"pipeline":{{"name":"build","run_id":"77"}}}}"#
    )
    .into_bytes()
}

fn headers(secret: &str, delivery: &str, body: &[u8]) -> String {
    let signature = signature(secret, body);
    format!("content-type: application/json\r\nx-hub-signature-256: {signature}\r\nx-delivery: {delivery}\r\n")
}

async fn deliver(world: &World, secret: &str, delivery: &str, body: &[u8]) -> Raw {
    let request = raw::post("/v1/ci/releases", &headers(secret, delivery, body), body);
    raw::tcp(world.tcp.unwrap(), &request).await
}

fn reported(raw: &Raw) -> Reported {
    assert_eq!(raw.status, 200, "{raw:?}");
    serde_json::from_str(&raw.body).unwrap()
}

async fn declare(world: &World, on_release: bool) {
    let apply = format!(
        r#"{{"command":"apply","service":"api","definition":{{"owner":"team","policy":{{"rollout":{{"on_release":{on_release}}}}}}}}}"#
    );
    world.send(&apply).await.unwrap();
}

#[tokio::test]
async fn a_signed_report_is_a_release_by_the_pipeline() {
    let world = open().await;
    declare(&world, false).await;
    let artifact = world.upload(b"program").await;
    let body = body("1.0.0", &artifact);
    let first = reported(&deliver(&world, SECRET, "d-1", &body).await);
    assert_eq!(first.rollout, None);
    assert_eq!(first.release.events[0].kind, "release.recorded");
    assert_eq!(first.release.events[0].data["source"]["commit"], "0a7d493");
    let offset = first.release.offset.unwrap();
    let record = world.client.events(offset, false).await.unwrap().next().await.unwrap().unwrap();
    let about = &record.commit["about"];
    assert_eq!(about["actor"], serde_json::json!({"kind": "pipeline", "name": "build", "proof": "hmac key=ci"}));
    let hash = schemas::Hash::of(&body).to_string();
    assert_eq!(about["reason"], format!("CI delivery sha256:{}, run 77", &hash[..12]));
    let records = world.records();
    let again = reported(&deliver(&world, OLD_SECRET, "d-1", &body).await);
    assert!(again.release.repeated);
    assert_eq!(again.release.commit, first.release.commit);
    assert_eq!(world.records(), records);
}

#[tokio::test]
async fn what_is_not_signed_with_the_secret_is_not_even_parsed() {
    let world = open().await;
    declare(&world, false).await;
    let artifact = world.upload(b"program").await;
    let good = body("1.0.0", &artifact);
    let records = world.records();
    let json = "content-type: application/json\r\nx-delivery: d\r\n";
    let with = |signature: &str| format!("{json}x-hub-signature-256: {signature}\r\n");
    let right = signature(SECRET, &good);
    let mut tampered = good.clone();
    tampered[20] ^= 1;
    for (headers, body) in [
        (json.to_owned(), good.clone()),
        (with(""), good.clone()),
        (with("sha256="), good.clone()),
        (with(&right.replace("sha256=", "sha1=")), good.clone()),
        (format!("{json}x-hub-signature: {right}\r\n"), good.clone()),
        (with(&signature("another secret, not ours", &good)), good.clone()),
        (with(&right), tampered),
        (with(&right), [&good[..], b" "].concat()),
        (with(&right) + &format!("x-hub-signature-256: {right}\r\n"), good.clone()),
        (with(&right), b"{".to_vec()),
    ] {
        let answer = raw::tcp(world.tcp.unwrap(), &raw::post("/v1/ci/releases", &headers, &body)).await;
        assert_eq!((answer.status, answer.error().0.as_str()), (401, "unauthenticated"), "{headers}: {answer:?}");
    }
    let long = vec![b' '; 256 * 1024 + 1];
    let answer = deliver(&world, SECRET, "d", &long).await;
    assert_eq!(answer.status, 413, "{answer:?}");
    assert_eq!(world.records(), records);
}

#[tokio::test]
async fn what_is_signed_but_wrong_changes_nothing() {
    let world = open().await;
    declare(&world, false).await;
    let artifact = world.upload(b"program").await;
    let good = String::from_utf8(body("1.0.0", &artifact)).unwrap();
    let records = world.records();
    let path = "{\"path\":\"/etc/passwd\"}";
    let of = good.find("\"artifact\":").unwrap() + "\"artifact\":".len();
    let end = good[of..].find('}').unwrap() + of + 1;
    let local = format!("{}{path}{}", &good[..of], &good[end..]);
    for (body, status, code) in [
        ("{".to_owned(), 400, "malformed"),
        (good.replace("\"pipeline\"", "\"pipelyne\""), 400, "malformed"),
        (good.replace("\"api\"", "\"a/b\""), 400, "malformed"),
        (good.replace("\"build\"", "\"\""), 400, "malformed"),
        (good.replace("\"api\"", "\"web\""), 404, "unknown"),
        (good.replace("\"size_bytes\":17", "\"size_bytes\":18"), 422, "invalid"),
        (local, 403, "forbidden"),
    ] {
        let answer = deliver(&world, SECRET, "d", body.as_bytes()).await;
        assert_eq!((answer.status, answer.error().0.as_str()), (status, code), "{body}: {answer:?}");
    }
    let good = good.into_bytes();
    for (from, to, status) in [("application/json", "text/plain", 415), ("content-type", "x-content-type", 415)] {
        let headers = headers(SECRET, "d", &good).replace(from, to);
        let answer = raw::tcp(world.tcp.unwrap(), &raw::post("/v1/ci/releases", &headers, &good)).await;
        assert_eq!(answer.status, status, "{to}: {answer:?}");
    }
    assert_eq!(world.records(), records);
}

#[tokio::test]
async fn without_a_secret_nothing_from_ci_is_believed() {
    let world = World::open().await;
    let body = b"{}";
    let request = raw::post("/v1/ci/releases", &headers("", "d", body), body);
    let answer = raw::unix(world.data(), &request).await;
    assert_eq!((answer.status, answer.error().0.as_str()), (503, "not_configured"));
    assert!(answer.body.contains("no CI secret is set"), "{answer:?}");
}

#[tokio::test]
async fn a_hundred_deliveries_of_one_report_at_once_are_one_release_and_one_rollout() {
    let world = open().await;
    declare(&world, true).await;
    let artifact = world.upload(b"program").await;
    let body = body("1.0.0", &artifact);
    let records = world.records();
    let deliveries = (0..100).map(|_| deliver(&world, SECRET, "d-1", &body));
    let answers = join_all(deliveries).await;
    let answers: Vec<Reported> = answers.iter().map(reported).collect();
    assert_eq!(world.records(), records + 2, "a release and a stack");
    let first = &answers[0];
    let rollout = first.rollout.as_ref().unwrap();
    assert_eq!(rollout.events[0].kind, "stack.requested");
    assert_eq!(rollout.events[1].kind, "rollout.requested");
    assert!(rollout.events[1].data["plan"]["steps"].is_array());
    for answer in &answers {
        assert_eq!(answer.release.commit, first.release.commit);
        assert_eq!(answer.rollout.as_ref().unwrap().commit, rollout.commit);
    }
    assert_eq!(answers.iter().filter(|answer| !answer.release.repeated).count(), 1);
    let offset = rollout.offset.unwrap();
    let record = world.client.events(offset, false).await.unwrap().next().await.unwrap().unwrap();
    assert_eq!(record.commit["about"]["cause"], first.release.commit.unwrap().to_string());
    assert_eq!(record.commit["about"]["actor"]["name"], "build");
}

#[tokio::test]
async fn of_several_releases_the_one_that_was_recorded_last_waits_and_an_overtaken_one_is_told_so() {
    let world = open().await;
    declare(&world, true).await;
    let artifact = world.upload(b"program").await;
    // Their names say the opposite of their order.
    let first = reported(&deliver(&world, SECRET, "d-1", &body("3.0.0", &artifact)).await);
    let second = reported(&deliver(&world, SECRET, "d-2", &body("2.0.0", &artifact)).await);
    let kinds = |answer: &Reported| -> Vec<String> {
        answer.rollout.iter().flat_map(|rollout| &rollout.events).map(|event| event.kind.clone()).collect()
    };
    assert_eq!(kinds(&first), ["stack.requested", "rollout.requested"]);
    assert_eq!(kinds(&second), ["stack.requested", "rollout.request_dropped", "rollout.requested"]);
    let status = world.client.status(replay::Moment::Now, None, None).await.unwrap();
    let deployment = &status.services[0].deployments[0];
    assert_eq!(deployment.waiting.as_ref().unwrap().version, Some("2.0.0".parse().unwrap()));
    assert_eq!(deployment.dropped[0].version, "3.0.0".parse().unwrap());
    // The first release again, by another run of its pipeline.
    let again = String::from_utf8(body("3.0.0", &artifact)).unwrap().replace("\"77\"", "\"78\"");
    let late = reported(&deliver(&world, SECRET, "d-3", again.as_bytes()).await);
    let rollout = late.rollout.unwrap();
    assert_eq!((rollout.commit, rollout.events.len()), (None, 0));
    assert!(rollout.notes[0].contains("2.0.0 was recorded later and waits to be"), "{:?}", rollout.notes);
}

#[tokio::test]
async fn on_hold_a_release_is_prepared_and_the_answer_says_why_it_waits_and_a_fix_is_recorded() {
    let world = open().await;
    declare(&world, true).await;
    let artifact = world.upload(b"program").await;
    reported(&deliver(&world, SECRET, "d-1", &body("1.0.0", &artifact)).await);
    let mut hold = request(r#"{"command":"hold","deployment":"production/api"}"#);
    hold.reason = Some("the database is being moved".to_owned());
    world.client.execute(&hold, SendOptions::default()).await.unwrap();
    let held = reported(&deliver(&world, SECRET, "d-2", &body("1.1.0", &artifact)).await).rollout.unwrap();
    assert!(held.events.iter().any(|event| event.kind == "stack.requested"), "{held:?}");
    let note = &held.notes[0];
    assert!(note.contains("on hold since") && note.contains("the database is being moved"), "{note}");
    assert!(note.contains("`ionledger hold api --lift`"), "{note}");

    let fix = String::from_utf8(body("1.2.0", &artifact)).unwrap();
    let fix = fix.replacen('{', r#"{"fixes":"1.1.0","#, 1);
    let fixed = reported(&deliver(&world, SECRET, "d-3", fix.as_bytes()).await);
    assert_eq!(fixed.release.events[0].data["fixes"], "1.1.0");
    let unknown = fix.replace("1.2.0", "1.3.0").replace("\"fixes\":\"1.1.0\"", "\"fixes\":\"0.9.0\"");
    let refused = deliver(&world, SECRET, "d-4", unknown.as_bytes()).await;
    assert!(refused.status == 404 && refused.body.contains("release api 0.9.0 is unknown"), "{refused:?}");
}

async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pinned: Vec<_> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = pinned.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let waiting = pinned.iter_mut().zip(&mut done).filter(|(_, done)| done.is_none());
        for (future, done) in waiting {
            if let std::task::Poll::Ready(output) = future.as_mut().poll(context) {
                *done = Some(output);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test]
async fn a_webhook_is_known_by_its_signed_id() {
    let world = open().await;
    declare(&world, true).await;
    let artifact = world.upload(b"program").await;
    let body_of = |version: &str| body(version, &artifact);
    let first = reported(&deliver_webhook(&world, &webhook("msg_1", 0, &body_of("1.0.0")), &body_of("1.0.0")).await);
    let records = world.records();
    let again = webhook("msg_1", 100, &body_of("1.0.0"));
    let again = reported(&deliver_webhook(&world, &again, &body_of("1.0.0")).await);
    assert!(again.release.repeated && again.rollout.as_ref().unwrap().repeated, "each attempt is signed anew");
    assert_eq!(again.release.commit, first.release.commit);
    let elsewhere = String::from_utf8(body_of("1.0.0")).unwrap();
    let elsewhere = elsewhere.replace("\"service\"", "\"environment\":\"test\",\"service\"").into_bytes();
    for other in [body_of("2.0.0"), elsewhere] {
        let answer = deliver_webhook(&world, &webhook("msg_1", 0, &other), &other).await;
        assert_eq!((answer.status, answer.error().0.as_str()), (409, "other_content"), "{answer:?}");
    }
    assert_eq!(world.records(), records);
    let offset = first.release.offset.unwrap();
    let record = world.client.events(offset, false).await.unwrap().next().await.unwrap().unwrap();
    assert_eq!(record.commit["about"]["reason"], "CI delivery msg_1, run 77");
}

#[tokio::test]
async fn a_webhook_is_believed_for_five_minutes_and_only_as_it_was_signed() {
    let world = open().await;
    declare(&world, true).await;
    let artifact = world.upload(b"program").await;
    let body = body("1.0.0", &artifact);
    let records = world.records();
    let good = webhook("msg_1", 0, &body);
    let plain = headers(SECRET, "d", &body);
    let timestamp = good.lines().find(|line| line.starts_with("webhook-timestamp")).unwrap();
    for headers in [
        webhook("msg_1", 310, &body),
        webhook("msg_1", -310, &body),
        good.replace("msg_1", "msg_2"),
        good.replace(timestamp, &format!("webhook-timestamp: {}", jiff::Timestamp::now().as_second() - 1_000)),
        good.replace(timestamp, "webhook-timestamp: soon"),
        good.replace(timestamp, "x-timestamp: 0"),
        good.replace("webhook-id", "x-id"),
        good.replace("webhook-signature", "x-signature"),
        good.replace("v1,", "v2,"),
        format!("{good}webhook-id: msg_1\r\n"),
        webhook("a.b", 0, &body),
        webhook("", 0, &body),
        // A webhook is never believed for the signature of its body.
        format!("{plain}webhook-id: msg_1\r\n"),
        format!("{plain}{}", webhook("msg_1", 310, &body).replace("content-type", "x-content-type")),
    ] {
        let answer = deliver_webhook(&world, &headers, &body).await;
        assert_eq!((answer.status, answer.error().0.as_str()), (401, "unauthenticated"), "{headers}: {answer:?}");
    }
    assert_eq!(world.records(), records);
    reported(&deliver_webhook(&world, &webhook("msg_1", 290, &body), &body).await);
}

#[tokio::test]
async fn signatures_of_a_body_alone_can_be_refused() {
    let secrets = Secrets::default().and(SECRET.as_bytes()).unwrap().only_webhooks(true);
    let world = World::open_with(Some("127.0.0.1:0".parse().unwrap()), |api| api.ci = secrets).await;
    declare(&world, true).await;
    let artifact = world.upload(b"program").await;
    let body = body("1.0.0", &artifact);
    let answer = deliver(&world, SECRET, "d", &body).await;
    assert_eq!((answer.status, answer.error().0.as_str()), (401, "unauthenticated"));
    assert!(answer.body.contains("ci_only_webhooks"), "{answer:?}");
    reported(&deliver_webhook(&world, &webhook("msg_1", 0, &body), &body).await);
}

/// What was found: captured, and sent again under another id once the stack was gone, it shipped 1.0.0 over 1.2.0.
#[tokio::test]
async fn a_captured_delivery_gives_the_first_answer_under_any_id_whatever_happened_since() {
    let world = open().await;
    declare(&world, true).await;
    let artifact = world.upload(b"program").await;
    let old = body("1.0.0", &artifact);
    let first = reported(&deliver(&world, SECRET, "d-1", &old).await);
    reported(&deliver(&world, SECRET, "d-2", &body("1.2.0", &artifact)).await);
    world.send(r#"{"command":"retire","deployment":"production/api"}"#).await.unwrap();
    let records = world.records();
    for headers in [
        headers(SECRET, "d-3", &old),
        headers(SECRET, "d-3", &old).replace("x-delivery", "x-github-delivery"),
        headers(SECRET, "d-3", &old).replace("x-delivery", "x-other"),
        headers(SECRET, "d-3", &old).replace("x-delivery: d-3", "x-delivery: d-3\r\nx-delivery: d-4"),
    ] {
        let again = raw::tcp(world.tcp.unwrap(), &raw::post("/v1/ci/releases", &headers, &old)).await;
        let again = reported(&again);
        assert!(again.release.repeated && again.rollout.as_ref().unwrap().repeated, "{headers}: {again:?}");
        assert_eq!(again.release.commit, first.release.commit);
    }
    assert_eq!(world.records(), records);
}

#[tokio::test]
async fn a_delivery_that_was_taken_while_ids_were_headers_sets_nothing_off_again() {
    let world = open().await;
    declare(&world, false).await;
    let artifact = world.upload(b"program").await;
    let command = serde_json::json!({
        "command": "release", "service": "api", "version": "1.0.0", "artifact": artifact, "source": {"commit": "0a7d493"},
    });
    let command: Command = serde_json::from_value(command).unwrap();
    let id = CommandId(uuid::Uuid::new_v5(&world.ledger.id().0, b"ci/release/d-1"));
    let reason = Some("CI delivery d-1, run 77".to_owned());
    let request = Request { id, command, fence: None, reason, effective_at: None };
    let actor = Actor { kind: ActorKind::Pipeline, name: "build".to_owned(), proof: "hmac key=ci".to_owned() };
    world.ledger.execute(request, actor, None).await.unwrap();
    declare(&world, true).await;
    let records = world.records();
    let report = body("1.0.0", &artifact);
    for delivery in ["d-1", "d-2"] {
        assert_eq!(reported(&deliver(&world, SECRET, delivery, &report).await).rollout, None);
    }
    assert_eq!(world.records(), records);
    let another = String::from_utf8(report).unwrap().replace("\"77\"", "\"78\"");
    let another = reported(&deliver(&world, SECRET, "d-3", another.as_bytes()).await);
    assert!(another.rollout.is_some(), "another run of the pipeline is another report");
}

#[tokio::test]
async fn what_pipelines_leave_empty_is_left_out() {
    let world = open().await;
    declare(&world, true).await;
    let artifact = serde_json::to_string(&world.upload(b"program").await).unwrap();
    for (version, more, run) in [
        ("1.0.0", r#""source":null,"env":null,"args":null,"environment":null,"#, "8812345678901"),
        ("1.1.0", r#""source":{"commit":"","run_url":" "},"#, "null"),
        ("1.2.0", "", r#""8812-2""#),
    ] {
        let report = format!(
            r#"{{"service":"api","version":"{version}",{more}"artifact":{artifact},"pipeline":{{"name":"build","run_id":{run}}}}}"#
        );
        let answer = reported(&deliver(&world, SECRET, "d", report.as_bytes()).await);
        assert_eq!(answer.release.events[0].data["source"], serde_json::json!({}), "{report}");
        assert!(answer.rollout.is_some(), "{answer:?}");
        let offset = answer.release.offset.unwrap();
        let record = world.client.events(offset, false).await.unwrap().next().await.unwrap().unwrap();
        let reason = record.commit["about"]["reason"].as_str().unwrap().to_owned();
        let expected = if run == "null" { String::new() } else { format!(", run {}", run.trim_matches('"')) };
        assert!(
            reason.len() == "CI delivery sha256:".len() + 12 + expected.len() && reason.ends_with(&expected),
            "{reason}"
        );
    }
    for run in ["1.5", "-1", "[]", "true"] {
        let report = format!(
            r#"{{"service":"api","version":"2.0.0","artifact":{artifact},"pipeline":{{"name":"build","run_id":{run}}}}}"#
        );
        let answer = deliver(&world, SECRET, "d", report.as_bytes()).await;
        assert_eq!(answer.status, 400, "{run}: {answer:?}");
        assert!(answer.body.contains("a whole number or a text as run_id"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_redelivery_after_a_restart_gives_the_first_answer() {
    let world = open().await;
    declare(&world, true).await;
    let artifact = world.upload(b"program").await;
    let body = body("1.0.0", &artifact);
    let first = reported(&deliver(&world, SECRET, "d-1", &body).await);
    let records = world.log.records(Offset(0));
    let secrets = Secrets::default().and(SECRET.as_bytes()).unwrap();
    let restarted = World::over(records, Some("127.0.0.1:0".parse().unwrap()), |api| api.ci = secrets).await;
    let stored = restarted.upload(b"program").await;
    assert_eq!(stored.sha256, artifact.sha256);
    let again = reported(&deliver(&restarted, SECRET, "d-1", &body).await);
    assert!(again.release.repeated && again.rollout.as_ref().unwrap().repeated);
    assert_eq!(again.release.commit, first.release.commit);
}

#[tokio::test]
async fn a_redelivery_does_what_the_policy_said_at_the_first() {
    let world = open().await;
    declare(&world, false).await;
    let artifact = world.upload(b"program").await;
    let body = body("1.0.0", &artifact);
    assert_eq!(reported(&deliver(&world, SECRET, "d-1", &body).await).rollout, None);
    declare(&world, true).await;
    assert_eq!(
        reported(&deliver(&world, SECRET, "d-1", &body).await).rollout,
        None,
        "an old release stays where it is"
    );
    let deployment: DeploymentId = "production/api".parse().unwrap();
    assert!(world.ledger.view().state().deployment(&deployment).is_none());
    let another = String::from_utf8(body).unwrap().replace("\"77\"", "\"78\"");
    assert!(
        reported(&deliver(&world, SECRET, "d-2", another.as_bytes()).await).rollout.is_some(),
        "a new delivery is asked for now"
    );
}

#[tokio::test]
async fn a_local_file_may_be_named_on_the_socket() {
    let world = open().await;
    declare(&world, false).await;
    let path = world.data().join("built");
    std::fs::write(&path, b"#!/bin/sh\nbuilt here").unwrap();
    let body = format!(
        r#"{{"service":"api","version":"1.0.0","artifact":{{"path":"{}"}},"pipeline":{{"name":"build"}}}}"#,
        path.display()
    );
    let request = raw::post("/v1/ci/releases", &headers(SECRET, "d-1", body.as_bytes()), body.as_bytes());
    let answer = reported(&raw::unix(world.data(), &request).await);
    let recorded = &answer.release.events[0].data["artifact"];
    assert_eq!(recorded["sha256"], schemas::Hash::of(b"#!/bin/sh\nbuilt here").to_string());
    assert_eq!(recorded["name"], "built");
}

#[tokio::test]
async fn a_caller_on_the_socket_may_name_only_a_file_that_the_caller_can_read() {
    let world = open().await;
    declare(&world, false).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("built");
    std::fs::write(&path, b"#!/bin/sh\n").unwrap();
    let body = format!(
        r#"{{"service":"api","version":"1.0.0","artifact":{{"path":"{}"}},"pipeline":{{"name":"build"}}}}"#,
        path.display()
    );
    let request = raw::post("/v1/ci/releases", &headers(SECRET, "d-1", body.as_bytes()), body.as_bytes());
    if !workers::identity::is_root() {
        return; // only root can be another user, and this process is the socket's own
    }
    let chmod = |path: &std::path::Path, mode: u32| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    chmod(world.data(), 0o711);
    chmod(&world.data().join("api.sock"), 0o666);
    chmod(folder.path(), 0o711);
    let stranger = workers::identity::Identity { uid: 4_243, gid: 4_243, groups: vec![] };
    let (data, records) = (world.data().to_owned(), world.records());
    let send = async || {
        let (stranger, data, request) = (stranger.clone(), data.clone(), request.clone());
        let sent = tokio::task::spawn_blocking(move || stranger.act(|| raw::unix_now(&data, &request)));
        sent.await.unwrap().unwrap()
    };
    for (file, above) in [(0o600, 0o711), (0o640, 0o711), (0o644, 0o700)] {
        chmod(&path, file);
        chmod(folder.path(), above);
        let answer = send().await;
        assert_eq!((answer.status, answer.error().0.as_str()), (422, "invalid"), "{file:o} {above:o}: {answer:?}");
        assert!(answer.body.contains("Permission denied"), "{answer:?}");
        assert_eq!(world.records(), records);
    }
    chmod(&path, 0o644);
    chmod(folder.path(), 0o711);
    assert_eq!(reported(&send().await).release.events[0].data["artifact"]["name"], "built");
}

#[tokio::test]
async fn a_pipeline_gets_only_the_secrets_that_the_services_declaration_names() {
    let world = open().await;
    world
        .send(
            r#"{"command":"apply","service":"api","definition":{"owner":"team",
               "run":{"env":{"DB":{"from_env":"API_DB"},"KEY":{"from_file":"/run/secrets/api"}}}}}"#,
        )
        .await
        .unwrap();
    let artifact = serde_json::to_string(&world.upload(b"#!/bin/sh\n").await).unwrap();
    let records = world.records();
    let report = |env: &str| {
        format!(
            r#"{{"service":"api","version":"1.0.0","artifact":{artifact},"env":{env},"pipeline":{{"name":"build"}}}}"#
        )
    };
    for env in [
        r#"{"X":{"from_file":"/etc/shadow"}}"#,
        r#"{"KEY":{"from_file":"/run/secrets/other"}}"#,
        r#"{"X":{"from_env":"OTHER_DB"}}"#,
        r#"{"X":{"from_env":"/run/secrets/api"}}"#,
    ] {
        let answer = deliver(&world, SECRET, "d-1", report(env).as_bytes()).await;
        assert!(matches!(answer.status, 403 | 422), "{env}: {answer:?}");
        assert_eq!(world.records(), records, "{env}");
    }
    let env = r#"{"OTHER":{"from_env":"API_DB"},"KEY":{"from_file":"/run/secrets/api"},"LEVEL":{"value":"info"}}"#;
    reported(&deliver(&world, SECRET, "d-2", report(env).as_bytes()).await);
}
