//! Starts: what a proxy serves before anybody has told it anything.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use http::StatusCode;
use proxy::routes::HeldRoutes;
use proxy::{Config, Error, Proxy, TakeOver};
use tokio::net::TcpListener;

use crate::stage::{BASELINE, Echo, Stage, User, config, get, routes, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_starts_again_serves_its_last_routes_at_the_same_address() {
    let (stage, old, new) = (Stage::new().await, Echo::new("old").await, Echo::new("new").await);
    let held = stage.apply(&routes(9, &[old.address], &[new.address], 20)).await;
    let first = stage.control.status().await;
    let Stage { proxy, data, .. } = stage;
    assert_eq!(proxy.stop().await, 0);
    let stage = Stage::on(data).await;
    let mut user = User::connect(held.listening).await;
    for _ in 0..50 {
        assert_eq!(user.get("/").await.0, StatusCode::OK);
    }
    assert_eq!((old.requests(), new.requests()), (40, 10));
    assert_eq!(stage.control.routes(&held.routes.deployment).await, Some(held));

    let second = stage.control.status().await;
    assert_ne!(first.epoch, second.epoch, "its counters began again");
    assert_eq!(stage.measures().await.epoch, second.epoch);
}

#[tokio::test]
async fn a_folder_has_one_proxy() {
    let stage = Stage::new().await;
    let second = Proxy::start(config(stage.data.path())).await;
    assert!(matches!(second, Err(Error::AlreadyRuns(_))));
    stage.control.status().await; // the first still answers
}

#[tokio::test]
async fn the_control_socket_is_for_the_proxys_user_alone() {
    let stage = Stage::new().await;
    let files = stage.proxy.files();
    for (path, mode) in [(&files.control, 0o600), (&files.folder, 0o700)] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
    }
    let ready: serde_json::Value = serde_json::from_slice(&fs::read(&files.ready).unwrap()).unwrap();
    assert_eq!(ready["pid"], std::process::id());
}

#[tokio::test]
async fn damaged_routes_are_set_aside_and_the_others_are_served() {
    let (stage, node) = (Stage::new().await, Echo::new("old").await);
    let held = stage.apply(&routes(1, &[node.address], &[], 0)).await;
    let Stage { proxy, data, .. } = stage;
    let damaged = proxy.files().routes.join("production.web.routes");
    proxy.stop().await;
    fs::write(&damaged, "half a li").unwrap();
    let stage = Stage::on(data).await;
    assert_eq!(get(held.listening).await.1, "old");
    assert!(!damaged.exists() && damaged.with_extension("damaged").exists());
    assert_eq!(stage.control.status().await.listeners.len(), 1);
}

/// Returns why what is served is not on disk, if so.
async fn unstored(stage: &Stage, held: &HeldRoutes) -> Option<String> {
    stage.control.status().await.listeners[&held.routes.deployment].unstored.clone()
}

/// Waits until the routes are on disk, and asserts that a proxy that starts there has `node` serve users.
async fn assert_written_and_served(stage: Stage, held: &HeldRoutes, node: &str) {
    within("they are on disk", async {
        while unstored(&stage, held).await.is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let Stage { proxy, data, .. } = stage;
    proxy.stop().await;
    let _stage = Stage::on(data).await;
    assert_eq!(get(held.listening).await.1, node);
}

/// A disk that takes no file is played by a folder in the file's place.
#[tokio::test]
async fn routes_that_the_disk_does_not_take_are_served_named_and_written_later() {
    let (stage, node) = (Stage::new().await, Echo::new("old").await);
    let place = stage.proxy.files().routes.join("production.api.routes");
    fs::create_dir(&place).unwrap();
    let held = stage.apply(&routes(1, &[node.address], &[], 0)).await;
    assert_eq!(get(held.listening).await.1, "old");
    assert!(unstored(&stage, &held).await.unwrap().contains("directory"));
    let heir = Proxy::start(Config { take_over: TakeOver::Always, ..Config::new(stage.data.path()) }).await;
    assert!(matches!(heir, Err(Error::NotHanded { .. })), "it would serve older routes");
    fs::remove_dir(&place).unwrap();
    assert_written_and_served(stage, &held, "old").await;
}

/// A disk that hangs is played by a pipe in the file's place: to open it waits until somebody opens its other end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_that_a_disk_does_not_take_in_time_are_served_and_the_newest_are_written_once_it_does() {
    let (stage, old, new) = (Stage::new().await, Echo::new("old").await, Echo::new("new").await);
    let place = stage.proxy.files().routes.join("production.api.routes");
    let made = std::process::Command::new("mkfifo").arg(&place).status().unwrap();
    assert!(made.success());
    let held = stage.apply(&routes(1, &[old.address], &[], 0)).await;
    assert_eq!(get(held.listening).await.1, "old");
    assert_eq!(unstored(&stage, &held).await.as_deref(), Some("the disk took longer than 300ms"));
    stage.apply(&routes(2, &[new.address], &[], 0)).await;
    assert_eq!(get(held.listening).await.1, "new");

    let opened = tokio::task::spawn_blocking(move || fs::File::options().write(true).open(place).map(drop));
    opened.await.unwrap().unwrap();
    assert_written_and_served(stage, &held, "new").await;
}

#[tokio::test]
async fn an_address_that_is_taken_at_the_start_is_named_and_taken_later() {
    let (stage, node) = (Stage::new().await, Echo::new("old").await);
    let held = stage.apply(&routes(1, &[node.address], &[], 0)).await;
    let Stage { proxy, data, .. } = stage;
    proxy.stop().await;
    let taken = TcpListener::bind(held.listening).await.unwrap();
    let stage = Stage::on(data).await;
    let error = || async { stage.control.status().await.listeners[&held.routes.deployment].error.clone() };
    assert!(error().await.unwrap().contains("the address is in use"));
    drop(taken);
    within("it listens", async {
        while error().await.is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(get(held.listening).await.1, "old");
    stage.seen(BASELINE, |seen| seen.counts().status_2xx == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_takes_over_from_another_and_no_user_is_refused() {
    let (stage, node) = (Stage::new().await, Echo::new("old").await);
    let held = stage.apply(&routes(3, &[node.address], &[], 0)).await;
    let before = stage.control.status().await;
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let users: Vec<_> = (0..4)
        .map(|_| {
            let (done, address) = (done.clone(), held.listening);
            tokio::spawn(async move {
                let mut asked = 0;
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    assert_eq!(get(address).await, (StatusCode::OK, "old".to_owned()));
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    let Stage { proxy, data, control } = stage;
    let ended = tokio::spawn(async move {
        proxy.taken_over().await;
        proxy.stop().await
    });
    let config = Config { take_over: TakeOver::Always, ..config(data.path()) };
    let stage = Stage { proxy: Proxy::start(config).await.unwrap(), control, data };
    assert_eq!(within("the first one ends", ended).await.unwrap(), 0);
    assert_ne!(stage.control.status().await.epoch, before.epoch);
    stage.apply(&routes(4, &[node.address], &[], 0)).await;
    done.store(true, std::sync::atomic::Ordering::SeqCst);
    for user in users {
        assert!(user.await.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_taken_over_only_on_its_terms_and_serves_on_when_the_other_falls_silent() {
    let (data, node) = (tempfile::tempdir().unwrap(), Echo::new("old").await);
    let config = Config { watched: true, ..config(data.path()) };
    let stage = Stage::with(data, config.clone()).await;
    let held = stage.apply(&routes(3, &[node.address], &[], 0)).await;
    for take_over in [TakeOver::Never, TakeOver::Unwatched] {
        let second = Proxy::start(Config { take_over, ..config.clone() }).await;
        assert!(matches!(second, Err(Error::AlreadyRuns(_))), "{take_over:?}: {second:?}");
    }
    drop(tokio::net::UnixStream::connect(&stage.proxy.files().handover).await.unwrap());
    let held = stage.apply(&routes(4, &[node.address], &[], 0)).await.listening.max(held.listening);
    assert_eq!(get(held).await.1, "old");
}
