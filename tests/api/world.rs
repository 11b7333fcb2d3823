//! A door with a ledger behind it, and workers that say what the test wants them to have done.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::client::{Client, Options};
use api::server::{Api, Server};
use api::wire::Answer;
use ledger::execute::SystemClock;
use ledger::log::Record;
use ledger::log::memory::MemoryLog;
use ledger::{Ledger, View};
use replay::Reader;
use schemas::command::{Command, DeploymentOutcome, Outcome, Request};
use schemas::run::Artifact;
use schemas::{CommandId, DeploymentId, EffectId, Role, StackId, StreamVersion};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use workers::artifacts::Artifacts;

/// How long a test waits for something that must come.
pub const DEADLINE: Duration = Duration::from_secs(20);

const HOLDER: &str = "test";

pub struct World {
    pub log: Arc<MemoryLog>,
    pub ledger: Ledger,
    pub client: Client,
    pub tcp: Option<SocketAddr>,
    /// Every node of every stack.
    node: TcpListener,
    data: tempfile::TempDir,
    closing: CancellationToken,
    server: JoinHandle<()>,
}

impl World {
    /// Opens a ledger in memory and a door to it on the socket.
    pub async fn open() -> Self {
        Self::open_with(None, |_| {}).await
    }

    /// Opens it, over TCP too if there is an address, after `change` was made to the door.
    pub async fn open_with(tcp: Option<SocketAddr>, change: impl FnOnce(&mut Api)) -> Self {
        Self::over(vec![], tcp, change).await
    }

    /// Opens a ledger that holds `records`, as after a restart.
    pub async fn over(records: Vec<Record>, tcp: Option<SocketAddr>, change: impl FnOnce(&mut Api)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let log = Arc::new(MemoryLog::new());
        for record in records {
            log.push(record.bytes);
        }
        let clock = Arc::new(SystemClock);
        let ledger = Ledger::open(Arc::clone(&log) as _, View::default(), clock).await.unwrap();
        let reader = Arc::new(Reader::live(ledger.clone(), Arc::clone(&log) as _, None));
        let artifacts = Arc::new(Artifacts::open(data.path()).unwrap());
        let mut api = Api::new(ledger.clone(), reader, data.path(), artifacts);
        change(&mut api);
        let closing = api.closing.clone();
        let server = Server::listen(Arc::new(api), tcp).await.unwrap();
        let tcp = server.tcp_address();
        let server = tokio::spawn(server.run());
        let client = Client::of_data(data.path());
        let node = TcpListener::bind("127.0.0.1:0").unwrap();
        let world = Self { log, ledger, client, tcp, node, data, closing, server };
        for role in Role::ALL {
            let (holder, reason) = (HOLDER.to_owned(), "the first".to_owned());
            let take = Outcome::TakeLease { role, holder, from: None, reason };
            world.ledger.record(take, role, HOLDER, None).await.unwrap();
        }
        world
    }

    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// Closes the door and waits until it is shut.
    pub async fn close(self) -> tempfile::TempDir {
        self.closing.cancel();
        tokio::time::timeout(DEADLINE, self.server).await.unwrap().unwrap();
        self.data
    }

    /// How many records the log holds.
    pub fn records(&self) -> usize {
        self.log.records(schemas::Offset(0)).len()
    }

    /// Sends a command written as JSON.
    pub async fn send(&self, command: &str) -> Result<Answer, api::client::Error> {
        self.client.execute(&request(command), Options::default()).await
    }

    /// Declares the service `api` and releases each version of it.
    pub async fn declare(&self, versions: &[&str]) {
        self.send(r#"{"command":"apply","service":"api","definition":{"owner":"team"}}"#).await.unwrap();
        for version in versions {
            let artifact = self.upload(version.as_bytes()).await;
            let artifact = serde_json::to_string(&artifact).unwrap();
            let release =
                format!(r#"{{"command":"release","service":"api","version":"{version}","artifact":{artifact}}}"#);
            self.send(&release).await.unwrap();
        }
    }

    /// Uploads an artifact with this content.
    pub async fn upload(&self, content: &[u8]) -> Artifact {
        let path = self.data().join("program");
        std::fs::write(&path, script(content)).unwrap();
        self.client.upload(&path, None, watch::Sender::new(0)).await.unwrap()
    }

    /// Makes a stack of `version` in production and lets its node become ready.
    pub async fn ready(&self, version: &str) -> StackId {
        let new = format!(r#"{{"command":"new","deployment":"production/api","version":"{version}"}}"#);
        let stack: StackId = self.send(&new).await.unwrap().commit.unwrap().into();
        let effect = EffectId::of_launch(self.ledger.id(), stack, 0, 0);
        let address = self.node.local_addr().unwrap();
        for outcome in [
            DeploymentOutcome::StartLaunch { stack, slot: 0, attempt: 0, effect, port: address.port() },
            DeploymentOutcome::Launched { effect, address, instance: "test".to_owned() },
            DeploymentOutcome::NodeReady { effect },
            DeploymentOutcome::StackReady { stack },
        ] {
            self.report(Role::Provisioner, outcome).await;
        }
        stack
    }

    /// Records what a worker says of production's `api`.
    pub async fn report(&self, role: Role, outcome: DeploymentOutcome) {
        record(&self.ledger, role, outcome).await;
    }

    /// Plays the traffic shifter: whatever is set gets applied, until the handle is aborted.
    pub fn shifter(&self) -> JoinHandle<()> {
        let ledger = self.ledger.clone();
        tokio::spawn(async move {
            let mut folded = ledger.folded();
            loop {
                folded.borrow_and_update();
                if let Some((generation, weights)) = unapplied(&ledger) {
                    let applied = DeploymentOutcome::WeightsApplied { generation, weights, listening: None };
                    record(&ledger, Role::TrafficShifter, applied).await;
                }
                folded.changed().await.unwrap();
            }
        })
    }
}

fn unapplied(ledger: &Ledger) -> Option<(StreamVersion, schemas::Weights)> {
    let view = ledger.view();
    let traffic = &view.state().deployment(&deployment())?.traffic;
    let set = traffic.set.as_ref().filter(|_| !traffic.is_applied())?;
    Some((set.version, set.weights.clone()))
}

async fn record(ledger: &Ledger, role: Role, outcome: DeploymentOutcome) {
    let outcome = Outcome::Deployment { deployment: deployment(), outcome };
    ledger.record(outcome, role, HOLDER, None).await.unwrap();
}

/// Returns a program with `content` in it.
pub fn script(content: &[u8]) -> Vec<u8> {
    [b"#!/bin/sh\n", content].concat()
}

pub fn deployment() -> DeploymentId {
    "production/api".parse().unwrap()
}

/// Returns a request with an id that no other of this process has.
pub fn request(command: &str) -> Request {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let id = CommandId(uuid::Uuid::from_u128(u128::from(NEXT.fetch_add(1, Ordering::Relaxed))));
    let command: Command = serde_json::from_str(command).unwrap();
    Request { id, command, fence: None, reason: None, effective_at: None }
}
