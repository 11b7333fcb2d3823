//! Users of the demo: requests at a steady pace, counted by the version that answers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::{JoinHandle, JoinSet};

/// What users got so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// By version: answers, and how many of them were failures.
    pub(super) versions: BTreeMap<String, (u64, u64)>,
    /// Requests that no node answered.
    pub(super) lost: u64,
}

/// Users that go on until they are stopped.
pub(super) struct Users {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    sending: JoinHandle<()>,
}

impl Users {
    pub(super) fn start(address: String, per_second: u32) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let sending = tokio::spawn(send(address, per_second, Arc::clone(&seen), Arc::clone(&stop)));
        Self { seen, stop, sending }
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops, waits for the requests under way, and returns what users got in all.
    pub(super) async fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.sending.await;
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn send(address: String, per_second: u32, seen: Arc<Mutex<Seen>>, stop: Arc<AtomicBool>) {
    let http: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let Ok(uri) = format!("http://{address}/").parse::<http::Uri>() else { return };
    let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second);
    let mut running = JoinSet::new();
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let (http, uri, seen) = (http.clone(), uri.clone(), Arc::clone(&seen));
        running.spawn(async move {
            let answer = ask(&http, uri).await;
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            match answer {
                Some((version, failed)) => {
                    let counts = seen.versions.entry(version).or_default();
                    counts.0 += 1;
                    counts.1 += u64::from(failed);
                }
                None => seen.lost += 1,
            }
        });
        while running.try_join_next().is_some() {}
    }
    while running.join_next().await.is_some() {}
}

/// Returns the version that answered and whether it failed; nothing if no node answered.
async fn ask(http: &Client<HttpConnector, Empty<Bytes>>, uri: http::Uri) -> Option<(String, bool)> {
    let answer = http.get(uri).await.ok()?;
    let failed = answer.status().is_server_error();
    let version = answer.headers().get("x-version")?.to_str().ok()?.to_owned();
    answer.into_body().collect().await.ok()?;
    Some((version, failed))
}
