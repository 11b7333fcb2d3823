//! The proxy as a process: it outlives whoever started it, is found again, and ends without losing a request.

use std::cell::Cell;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use proxy::{Files, TrustedProxies};
use rustix::process::{Pid, Signal, getsid, kill_process, test_kill_process};
use schemas::{EffectId, StackId, StreamVersion, Weights};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use uuid::Uuid;
use workers::traffic::{HeldRoutes, Node, ProxyControl, Routes, StackNodes, Status, Timeouts, ensure_running};

const PATIENCE: Duration = Duration::from_secs(20);

fn exe() -> PathBuf {
    env!("CARGO_BIN_EXE_ionledger").into()
}

/// A proxy of its own folder, ended with the test.
struct Running {
    control: ProxyControl,
    status: Status,
    data: TempDir,
    /// Its id may be another process' once it has ended.
    has_ended: Cell<bool>,
}

impl Running {
    async fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let (control, status) = ensure_running(data.path(), &exe(), &TrustedProxies::default()).await.unwrap();
        Self { control, status, data, has_ended: Cell::new(false) }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.status.pid as i32).unwrap()
    }

    async fn ended(&self) {
        within("the process ends", async {
            while test_kill_process(self.pid()).is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        self.has_ended.set(true);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended.get() {
            let _ = kill_process(self.pid(), Signal::KILL); // a failed test may have ended it
        }
    }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("within {PATIENCE:?}: {what}"))
}

fn routes(generation: u64, address: SocketAddr) -> Routes {
    let stack = StackId(Uuid::from_u128(1));
    let nodes = vec![Node { effect: EffectId(Uuid::from_u128(1)), address }];
    Routes {
        deployment: "production/api".parse().unwrap(),
        generation: StreamVersion(generation),
        listen: None,
        weights: Weights::all_on(stack),
        backends: [(stack, StackNodes { version: "1.0.0".parse().unwrap(), nodes })].into(),
        timeouts: Timeouts::default(),
        nodes_only: false,
    }
}

/// Returns a node that answers as many requests as are allowed, and says when one has come.
async fn node() -> (SocketAddr, mpsc::UnboundedReceiver<()>, mpsc::UnboundedSender<()>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let ((came, comes), (allow, mut allowed)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            let mut head = [0; 4_096];
            if !matches!(stream.read(&mut head).await, Ok(1..)) {
                continue;
            }
            let _ = came.send(());
            if allowed.recv().await.is_none() {
                return;
            }
            let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer).await.unwrap();
        }
    });
    (address, comes, allow)
}

async fn get(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within("the user is answered", stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

async fn held(control: &ProxyControl) -> HeldRoutes {
    control.routes(&"production/api".parse().unwrap()).await.unwrap().unwrap()
}

fn second_proxy(data: &Path) -> std::process::Output {
    support::process::output(Command::new(exe()).arg("proxy").arg("--data").arg(data))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_runs_is_found_and_not_started_twice() {
    let proxy = Running::new().await;
    let (_, again) = ensure_running(proxy.data.path(), &exe(), &TrustedProxies::default()).await.unwrap();
    assert_eq!(again, proxy.status);
    assert_eq!(getsid(Some(proxy.pid())).unwrap(), proxy.pid(), "it is a session of its own");

    let second = second_proxy(proxy.data.path());
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(second.status.code() == Some(1) && words.contains("a proxy already runs on"), "{words}");
    assert_eq!(proxy.control.status().await.unwrap().pid, proxy.status.pid);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_starters_at_once_get_one_proxy() {
    let data = tempfile::tempdir().unwrap();
    let starters: Vec<_> = (0..10)
        .map(|_| {
            let data = data.path().to_owned();
            tokio::spawn(async move { ensure_running(&data, &exe(), &TrustedProxies::default()).await.unwrap().1.pid })
        })
        .collect();
    let mut pids = Vec::new();
    for starter in starters {
        pids.push(starter.await.unwrap());
    }
    let (control, status) = ensure_running(data.path(), &exe(), &TrustedProxies::default()).await.unwrap();
    let _running = Running { control, status: status.clone(), data, has_ended: Cell::new(false) };
    assert_eq!(pids, [status.pid; 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_proxy_serves_its_last_routes_when_it_is_started_again() {
    let proxy = Running::new().await;
    let (node, _comes, allow) = node().await;
    let before = proxy.control.apply(&routes(4, node)).await.unwrap();
    kill_process(proxy.pid(), Signal::KILL).unwrap();
    proxy.ended().await;
    proxy.control.status().await.expect_err("nobody answers");

    let (control, status) = ensure_running(proxy.data.path(), &exe(), &TrustedProxies::default()).await.unwrap();
    let second = Running { control, status, data: tempfile::tempdir().unwrap(), has_ended: Cell::new(false) };
    assert_ne!(second.status.epoch, proxy.status.epoch);
    assert_eq!(held(&second.control).await, before);
    allow.send(()).unwrap();
    assert!(get(before.listening).await.ends_with("ok"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_told_to_end_answers_the_request_at_hand_first() {
    let proxy = Running::new().await;
    let (node, mut comes, allow) = node().await;
    let held = proxy.control.apply(&routes(1, node)).await.unwrap();
    let user = tokio::spawn(get(held.listening));
    comes.recv().await.unwrap();
    kill_process(proxy.pid(), Signal::TERM).unwrap();
    within("it takes nobody more", async {
        while TcpStream::connect(held.listening).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(!Files::of(proxy.data.path()).ready.exists());
    test_kill_process(proxy.pid()).expect("it waits for the request at hand");
    allow.send(()).unwrap();
    assert!(user.await.unwrap().ends_with("ok"));
    proxy.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_closes_does_not_end_the_proxy() {
    let proxy = Running::new().await;
    for _ in 0..3 {
        kill_process(proxy.pid(), Signal::HUP).unwrap();
        assert_eq!(proxy.control.status().await.unwrap(), proxy.status);
    }
    let log = fs::read_to_string(Files::of(proxy.data.path()).log).unwrap();
    assert!(log.contains("the proxy serves"), "{log}");
}
