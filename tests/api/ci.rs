//! What CI reports: believed only when it is signed, taken once, and rolled out if the policy says so.

use api::ci::Secrets;
use api::wire::Reported;
use hmac::{Hmac, KeyInit as _, Mac as _};
use schemas::run::Artifact;
use schemas::{DeploymentId, Offset};
use sha2::Sha256;

use crate::raw::{self, Raw};
use crate::world::World;

const SECRET: &str = "It's a Secret to Everybody";
const OLD_SECRET: &str = "the secret of last year";

async fn open() -> World {
    let secrets = Secrets::default().and(SECRET.as_bytes()).unwrap().and(OLD_SECRET.as_bytes()).unwrap();
    World::open_with(Some("127.0.0.1:0".parse().unwrap()), |api| api.ci = secrets).await
}

fn signature(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
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
    assert_eq!(about["reason"], "CI delivery d-1, run 77");
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
        (good.replace("\"size_bytes\":7", "\"size_bytes\":8"), 422, "invalid"),
        (local, 403, "forbidden"),
    ] {
        let answer = deliver(&world, SECRET, "d", body.as_bytes()).await;
        assert_eq!((answer.status, answer.error().0.as_str()), (status, code), "{body}: {answer:?}");
    }
    let good = good.into_bytes();
    for (from, to, status) in [
        ("x-delivery: d", "x-other: d", 400),
        ("x-delivery: d", "x-delivery: ", 400),
        ("x-delivery: d", "x-delivery: d\r\nx-delivery: e", 400),
        ("application/json", "text/plain", 415),
    ] {
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
    assert!(answer.body.contains("no secret set"), "{answer:?}");
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
    assert!(rollout.events[0].data["then_roll"]["steps"].is_array());
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
async fn a_delivery_id_with_other_content_is_refused() {
    let world = open().await;
    declare(&world, true).await;
    let artifact = world.upload(b"program").await;
    reported(&deliver(&world, SECRET, "d-1", &body("1.0.0", &artifact)).await);
    let records = world.records();
    let other = deliver(&world, SECRET, "d-1", &body("2.0.0", &artifact)).await;
    assert_eq!((other.status, other.error().0.as_str()), (409, "other_content"));
    let elsewhere = String::from_utf8(body("1.0.0", &artifact)).unwrap();
    let elsewhere = elsewhere.replace("\"service\"", "\"environment\":\"test\",\"service\"");
    let elsewhere = deliver(&world, SECRET, "d-1", elsewhere.as_bytes()).await;
    assert_eq!((elsewhere.status, elsewhere.error().0.as_str()), (409, "other_content"));
    assert_eq!(world.records(), records);
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
    assert!(
        reported(&deliver(&world, SECRET, "d-2", &body).await).rollout.is_some(),
        "a new delivery is asked for now"
    );
}

#[tokio::test]
async fn a_local_file_may_be_named_on_the_socket() {
    let world = open().await;
    declare(&world, false).await;
    let path = world.data().join("built");
    std::fs::write(&path, b"built here").unwrap();
    let body = format!(
        r#"{{"service":"api","version":"1.0.0","artifact":{{"path":"{}"}},"pipeline":{{"name":"build"}}}}"#,
        path.display()
    );
    let request = raw::post("/v1/ci/releases", &headers(SECRET, "d-1", body.as_bytes()), body.as_bytes());
    let answer = reported(&raw::unix(world.data(), &request).await);
    let recorded = &answer.release.events[0].data["artifact"];
    assert_eq!(recorded["sha256"], schemas::Hash::of(b"built here").to_string());
    assert_eq!(recorded["name"], "built");
}
