//! A server with a ledger behind it, and workers that say what the test wants them to have done.

use std::net::{SocketAddr, TcpListener};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use api::client::{Client, Error, SendOptions};
use api::forecast;
use api::question::{ForecastQuestion, ProductionQuestion, StatusQuestion, VerifyQuestion, WhoShippedQuestion};
use api::server::{Api, Server};
use api::wire::CommandAnswer;
use jiff::SignedDuration;
use ledger::execute::{Clock, SystemClock};
use ledger::log::Record;
use ledger::log::memory::MemoryLog;
use ledger::{Ledger, View};
use replay::answer::{HistoryAnswer, Production, StatusAnswer, Verified, WhoShipped};
use replay::{HistoryQuery, Moment, Reader};
use schemas::command::{Command, Request};
use schemas::outcome::{self, DeploymentOutcome, Outcome};
use schemas::run::Artifact;
use schemas::{
    CommandId, DeploymentId, EffectId, EnvironmentName, Role, ServiceName, StackId, StreamVersion, Timestamp,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use workers::artifacts::Artifacts;

/// How long a test waits for something that must come.
pub const DEADLINE: Duration = Duration::from_secs(20);

const HOLDER: &str = "test";

/// A client, with the questions that the tests ask often as calls.
pub struct Asking(Client);

impl Deref for Asking {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.0
    }
}

impl Asking {
    pub async fn status(
        &self,
        moment: Moment,
        service: Option<&ServiceName>,
        environment: Option<&EnvironmentName>,
    ) -> Result<StatusAnswer, Error> {
        self.ask(&StatusQuestion { moment, ..StatusQuestion::now(service, environment) }).await
    }

    pub async fn history(&self, query: &HistoryQuery) -> Result<HistoryAnswer, Error> {
        self.ask(query).await
    }

    pub async fn production(&self, moment: Moment) -> Result<Production, Error> {
        self.ask(&ProductionQuestion { moment }).await
    }

    pub async fn who_shipped(&self, deployment: &DeploymentId, moment: Moment) -> Result<WhoShipped, Error> {
        self.ask(&WhoShippedQuestion { deployment: deployment.clone(), moment }).await
    }

    pub async fn verify(&self) -> Result<Verified, Error> {
        self.ask(&VerifyQuestion).await
    }

    pub async fn forecast(
        &self,
        deployment: &DeploymentId,
        planned: &forecast::PlannedRollout,
    ) -> Result<forecast::ForecastAnswer, Error> {
        self.ask(&ForecastQuestion { deployment: deployment.clone(), planned: planned.clone() }).await
    }
}

pub struct World {
    pub log: Arc<MemoryLog>,
    pub ledger: Ledger,
    pub client: Asking,
    pub tcp: Option<SocketAddr>,
    pub clock: Arc<Advanced>,
    /// Every node of every stack.
    node: TcpListener,
    data: tempfile::TempDir,
    closing: CancellationToken,
    server: JoinHandle<()>,
}

/// The machine's clocks, and as much later as the test says.
#[derive(Default)]
pub struct Advanced {
    by_ms: AtomicU64,
    wall_ahead_ms: AtomicI64,
}

impl Advanced {
    /// Lets this much time pass.
    pub fn advance(&self, by: Duration) {
        self.by_ms.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Sets the wall clock ahead of what it should say, or behind.
    pub fn set_ahead(&self, by: SignedDuration) {
        self.wall_ahead_ms.store(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    fn by(&self) -> Duration {
        Duration::from_millis(self.by_ms.load(Ordering::SeqCst))
    }
}

impl Clock for Advanced {
    fn now(&self) -> Timestamp {
        SystemClock.now() + self.by() + SignedDuration::from_millis(self.wall_ahead_ms.load(Ordering::SeqCst))
    }

    fn steady(&self) -> Duration {
        SystemClock.steady() + self.by()
    }
}

impl World {
    /// Opens a ledger in memory and a server for it on the socket.
    pub async fn open() -> Self {
        Self::open_with(None, |_| {}).await
    }

    /// Opens it, over TCP too if there is an address, after `change` was made to the API.
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
        let clock = Arc::new(Advanced::default());
        let ledger = Ledger::open(Arc::clone(&log) as _, View::default(), Arc::clone(&clock) as _).await.unwrap();
        let reader = Arc::new(Reader::live(ledger.clone(), Arc::clone(&log) as _, None));
        let artifacts = Arc::new(Artifacts::open(data.path()).unwrap());
        let mut api = Api::new(ledger.clone(), reader, data.path(), artifacts);
        change(&mut api);
        let closing = api.closing.clone();
        let server = Server::listen(Arc::new(api), tcp).await.unwrap();
        let tcp = server.tcp_address();
        let server = tokio::spawn(server.run());
        let client = Asking(Client::of_data(data.path()));
        let node = TcpListener::bind("127.0.0.1:0").unwrap();
        let world = Self { log, ledger, client, tcp, clock, node, data, closing, server };
        for role in Role::ALL {
            let (holder, reason) = (HOLDER.to_owned(), "the first".to_owned());
            let take = Outcome::TakeLease(outcome::TakeLease { role, holder, from: None, reason });
            world.ledger.record(take, role, HOLDER, None).await.unwrap();
        }
        world
    }

    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// Closes the API and waits until it is shut.
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
    pub async fn send(&self, command: &str) -> Result<CommandAnswer, Error> {
        self.client.execute(&request(command), SendOptions::default()).await
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
            DeploymentOutcome::StartLaunch(outcome::StartLaunch {
                stack,
                slot: 0,
                attempt: 0,
                effect,
                port: address.port(),
            }),
            DeploymentOutcome::Launched(outcome::Launched { effect, address, instance: "test".to_owned() }),
            DeploymentOutcome::NodeReady(outcome::NodeReady { effect }),
            DeploymentOutcome::StackReady(outcome::StackReady { stack }),
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
                    let applied = DeploymentOutcome::WeightsApplied(outcome::WeightsApplied {
                        generation,
                        weights,
                        listening: None,
                    });
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
    let outcome = Outcome::Deployment(outcome::DeploymentReport { deployment: deployment(), outcome });
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
