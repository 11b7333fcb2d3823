//! Users: requests at a steady pace, each answer counted by the version that gave it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

type Http = Client<HttpConnector, Empty<Bytes>>;

/// What users saw.
#[derive(Default)]
pub struct Seen {
    /// Answers by version and status.
    pub answers: Mutex<BTreeMap<(String, u16), u64>>,
    /// Requests without an answer of a node: refused, broken off, or answered by the proxy itself.
    pub lost: Mutex<Vec<String>>,
    sent: AtomicU64,
}

/// Users that go on until they are told to stop.
pub struct Load {
    /// What the users got so far.
    pub seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    /// Sends `per_second` requests to `address`, spread over a few connections.
    pub fn start(address: &str, per_second: u32) -> Self {
        let seen = Arc::new(Seen::default());
        let stop = Arc::new(AtomicBool::new(false));
        let uri: http::Uri = format!("http://{address}/").parse().unwrap();
        let (counted, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let http: Http = Client::builder(TokioExecutor::new()).build_http();
            let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second);
            pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
            let mut running = tokio::task::JoinSet::new();
            while !stopped.load(Ordering::Relaxed) {
                pace.tick().await;
                let (http, uri, counted) = (http.clone(), uri.clone(), Arc::clone(&counted));
                running.spawn(async move { counted.request(&http, uri).await });
                while running.try_join_next().is_some() {}
            }
            while running.join_next().await.is_some() {}
        });
        Self { seen, stop, task }
    }

    /// Stops and returns what was seen, after every request has ended.
    pub async fn stop(self) -> Arc<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        self.seen
    }

    /// Waits until `n` more answers have come.
    pub async fn answers(&self, n: u64) {
        let until = self.seen.sent.load(Ordering::Relaxed) + n;
        let waiting = async {
            while self.seen.sent.load(Ordering::Relaxed) < until {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), waiting).await.expect("users get answers");
    }
}

impl Seen {
    async fn request(&self, http: &Http, uri: http::Uri) {
        match ask(http, uri).await {
            Ok((version, status)) => *self.answers.lock().unwrap().entry((version, status)).or_default() += 1,
            Err(lost) => self.lost.lock().unwrap().push(lost),
        }
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many answers `version` gave.
    pub fn of(&self, version: &str) -> u64 {
        self.answers.lock().unwrap().iter().filter(|((of, _), _)| of == version).map(|(_, n)| n).sum()
    }

    /// Returns how many answers there were.
    pub fn total(&self) -> u64 {
        self.answers.lock().unwrap().values().sum()
    }

    /// Fails if a request was lost.
    #[track_caller]
    pub fn assert_none_lost(&self) {
        let lost = self.lost.lock().unwrap();
        assert!(lost.is_empty(), "{} requests were lost, the first: {}", lost.len(), lost[0]);
    }
}

/// Asks once and returns the version that answered and its status.
pub async fn ask(http: &Http, uri: http::Uri) -> Result<(String, u16), String> {
    let answer = http.get(uri).await.map_err(|error| format!("{error:?}"))?;
    let status = answer.status().as_u16();
    let version = answer.headers().get("x-version").and_then(|value| value.to_str().ok()).map(str::to_owned);
    answer.into_body().collect().await.map_err(|error| format!("body: {error:?}"))?;
    version.map(|version| (version, status)).ok_or_else(|| format!("the proxy itself answered {status}"))
}
