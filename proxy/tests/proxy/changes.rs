//! Changes: which routes replace which, on the wire and on disk.

use http::StatusCode;
use proxy::measures::Measures;
use proxy::routes::{Entry, Read, Wanted};
use schemas::{DeploymentId, StreamVersion};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::control::Refused;
use crate::stage::{CANARY, Echo, Stage, get, read_until, routes, serve_raw};

#[tokio::test]
async fn an_older_generation_is_refused_and_told_the_one_held() {
    let (stage, old, new) = (Stage::new().await, Echo::new("old").await, Echo::new("new").await);
    let late = routes(6, &[old.address], &[new.address], 100);
    let held = stage.apply(&routes(7, &[old.address], &[new.address], 0)).await;
    assert_eq!(stage.control.apply(&late).await, Err(Refused::Superseded { held: StreamVersion(7) }));
    assert_eq!(stage.apply(&held.routes).await, held, "the same again is what is held");

    let other = routes(7, &[old.address], &[new.address], 50);
    assert!(matches!(stage.control.apply(&other).await, Err(Refused::Otherwise(_))));
    assert_eq!(stage.control.routes(&held.routes.deployment).await, Some(held.clone()));
    assert_eq!(get(held.listening).await.1, "old");
}

#[tokio::test]
async fn a_retired_deployment_frees_its_address_and_is_not_revived_by_a_late_call() {
    let (stage, node) = (Stage::new().await, Echo::new("old").await);
    let asked = routes(3, &[node.address], &[], 0);
    let held = stage.apply(&asked).await;
    let id = &asked.deployment;
    assert_eq!(stage.control.remove(id, StreamVersion(2)).await, Err(Refused::Superseded { held: StreamVersion(3) }));
    stage.control.remove(id, StreamVersion(4)).await.unwrap();
    stage.control.remove(id, StreamVersion(4)).await.unwrap();
    TcpListener::bind(held.listening).await.expect("the address is free");

    assert_eq!(stage.control.apply(&asked).await, Err(Refused::Superseded { held: StreamVersion(4) }));
    assert_eq!(stage.control.routes(id).await, None);
    assert_eq!(stage.control.entry(id).await, Some(Entry::Retired { generation: StreamVersion(4) }));
    assert_eq!(stage.control.measures(id).await, None);
}

#[tokio::test]
async fn several_deployments_are_read_in_one_call_in_the_order_asked_for() {
    let (stage, node) = (Stage::new().await, Echo::new("old").await);
    let held = stage.apply(&routes(3, &[node.address], &[], 0)).await;
    get(held.listening).await;
    let (api, none) = (held.routes.deployment.clone(), "production/none".parse::<DeploymentId>().unwrap());
    let wanted = [(&none, true), (&api, true), (&api, false)];
    let wanted = wanted.map(|(id, measures)| Wanted { deployment: id.clone(), measures });
    let [unknown, counted, bare] = stage.control.read(&wanted).await.try_into().expect("one for each");
    assert_eq!(unknown, Read { entry: None, measures: None });
    assert_eq!(counted.entry, stage.control.entry(&api).await);
    let stacks = |measures: Option<Measures>| measures.map(|measures| measures.stacks);
    assert_eq!(stacks(counted.measures), stacks(stage.control.measures(&api).await));
    assert_eq!(bare, Read { entry: counted.entry, measures: None });
}

#[tokio::test]
async fn a_port_in_use_is_named_and_nothing_changes() {
    let (stage, node) = (Stage::new().await, Echo::new("old").await);
    let held = stage.apply(&routes(1, &[node.address], &[], 0)).await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap().into_std().unwrap();
    let mut moved = routes(2, &[node.address], &[], 0);
    moved.listen = Some(taken.local_addr().unwrap());
    let Err(Refused::Otherwise(words)) = stage.control.apply(&moved).await else { panic!("it is refused") };
    let expected = format!("cannot listen on {} for production/api: the address is in use", moved.listen.unwrap());
    assert!(words.starts_with(&expected), "{words}");
    assert_eq!(stage.control.routes(&moved.deployment).await, Some(held.clone()));
    assert_eq!(get(held.listening).await.1, "old");

    let mut second = routes(1, &[node.address], &[], 0);
    (second.deployment, second.listen) = ("test/api".parse().unwrap(), Some(held.listening));
    let Err(Refused::Otherwise(words)) = stage.control.apply(&second).await else { panic!("it is refused") };
    assert!(words.contains("production/api listens there"), "{words}");
    assert_eq!(stage.control.routes(&second.deployment).await, None);

    drop(taken);
    let moved = stage.apply(&moved).await;
    assert_eq!(get(moved.listening).await.1, "old");
    TcpListener::bind(held.listening).await.expect("the address before is free");
}

#[tokio::test]
async fn a_node_where_the_proxy_itself_listens_is_refused() {
    let (stage, node) = (Stage::new().await, Echo::new("old").await);
    let held = stage.apply(&routes(1, &[node.address], &[], 0)).await;
    let circle = routes(2, &[held.listening], &[], 0);
    assert!(matches!(stage.control.apply(&circle).await, Err(Refused::Otherwise(words)) if words.contains("users of")));
}

#[tokio::test]
async fn what_is_no_set_of_routes_is_refused_with_the_reason() {
    let (stage, node) = (Stage::new().await, Echo::new("old").await);
    let mut asked = routes(1, &[node.address], &[], 0);
    asked.backends.clear();
    assert!(matches!(stage.control.apply(&asked).await, Err(Refused::Otherwise(words)) if words.contains("no node")));

    let mut stream = tokio::net::UnixStream::connect(&stage.proxy.files().control).await.unwrap();
    let bytes = b"PUT /routes/production/api HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
    stream.write_all(bytes).await.unwrap();
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 422") && answer.contains("missing field"), "{answer}");
    assert_eq!(stage.control.routes(&asked.deployment).await, None);
}

#[tokio::test]
async fn a_request_at_hand_ends_though_its_stack_has_left() {
    let (stage, old) = (Stage::new().await, Echo::new("old").await);
    let (asked, wait) = (tokio::sync::Notify::new(), tokio::sync::Notify::new());
    let (asked, wait) = (std::sync::Arc::new(asked), std::sync::Arc::new(wait));
    let (tell, go) = (asked.clone(), wait.clone());
    let canary = serve_raw(move |mut stream| {
        let (tell, go) = (tell.clone(), go.clone());
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            tell.notify_one();
            go.notified().await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nnew").await.unwrap();
        }
    })
    .await;
    let held = stage.apply(&routes(1, &[old.address], &[canary], 100)).await;
    let user = tokio::spawn(get(held.listening));
    asked.notified().await;
    stage.apply(&routes(2, &[old.address], &[], 0)).await;
    assert_eq!(get(held.listening).await.1, "old");
    wait.notify_one();
    assert_eq!(user.await.unwrap(), (StatusCode::OK, "new".to_owned()));
    stage.seen(CANARY, |seen| seen.counts().status_2xx == 1).await;
}

#[tokio::test]
async fn a_caller_who_hangs_up_does_not_stop_a_change_halfway() {
    let (stage, old) = (Stage::new().await, Echo::new("old").await);
    for generation in 1..50 {
        let body = serde_json::to_string(&routes(generation, &[old.address], &[], 0)).unwrap();
        let head = format!("PUT /routes/production/api HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
        let mut stream = tokio::net::UnixStream::connect(&stage.proxy.files().control).await.unwrap();
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    }
    // Whatever came through is whole: memory, disk and listener agree.
    let held = stage.apply(&routes(50, &[old.address], &[], 0)).await;
    drop(TcpStream::connect(held.listening).await.unwrap());
    let Stage { proxy, data, .. } = stage;
    proxy.stop().await;
    let stage = Stage::on(data).await;
    assert_eq!(stage.control.routes(&held.routes.deployment).await, Some(held));
}
