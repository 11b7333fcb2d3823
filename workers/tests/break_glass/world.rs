//! A ledger whose log can fall silent, a router that holds what it is told by the proxy's rules, and a data folder.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ledger::execute::{Executed, Refusal, SystemClock};
use ledger::log::memory::MemoryLog;
use ledger::log::{AppendError, Log, ReadError, Record, Urgency};
use ledger::{Ledger, View};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use schemas::command::{self, Command, PlanAsked, Request, StackWeight};
use schemas::outcome::{self, DeploymentOutcome, Outcome};
use schemas::run::{Artifact, Capacity};
use schemas::service::Definition;
use schemas::{
    Actor, ActorKind, CommandId, DeploymentId, EffectId, Event, Hash, Offset, Probed, Role, RolloutId, StackId,
    StreamVersion, Timestamp, Version, Weight, Weights,
};
use serde_json::Value;
use tokio::sync::watch;
use uuid::Uuid;
use workers::break_glass::{BreakGlass, Broken, Patience, Rolled};
use workers::runtime;
use workers::traffic::routes::{self, Admission};
use workers::traffic::{ApplyError, Entry, HeldRoutes, Measures, Router, RouterTrouble, Routes};

pub const V1: &str = "1.0.0";
pub const V2: &str = "1.1.0";
pub const V3: &str = "1.2.0";
pub const HOLDER: &str = "one";

/// Longer than anything takes that works.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A log in memory that can fall silent: nothing is answered then, and what was sent may land later.
#[derive(Default)]
pub struct Log_ {
    /// What it holds, for whoever still reaches it while it is silent here.
    pub inner: Arc<MemoryLog>,
    down: AtomicBool,
    stopped: AtomicBool,
    sent: Mutex<Vec<Bytes>>,
    /// How often it was asked for its end.
    pub asked: AtomicU32,
}

impl Log_ {
    /// Nothing is answered from now on.
    pub fn fall_silent(&self) {
        self.down.store(true, Ordering::SeqCst);
    }

    /// It says at once that it takes nothing more, as after a failed sync.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// It answers again. What was sent meanwhile is lost.
    pub fn come_back(&self) {
        self.stopped.store(false, Ordering::SeqCst);
        self.sent.lock().unwrap().clear();
        self.down.store(false, Ordering::SeqCst);
    }

    /// It answers again, and what was sent meanwhile lands, as a late producer's does.
    pub fn come_back_with_all_that_was_sent(&self) {
        let sent = std::mem::take(&mut *self.sent.lock().unwrap());
        self.down.store(false, Ordering::SeqCst);
        for bytes in sent {
            self.inner.push(bytes);
        }
    }

    pub fn records(&self) -> Vec<Record> {
        self.inner.records(Offset(0))
    }
}

#[async_trait]
impl Log for Log_ {
    async fn append(&self, bytes: Bytes, urgency: Urgency) -> Result<Offset, AppendError> {
        if self.stopped.load(Ordering::SeqCst) {
            return Err(AppendError::Stopped("a sync failed".to_owned()));
        }
        if self.down.load(Ordering::SeqCst) {
            self.sent.lock().unwrap().push(bytes);
            tokio::time::sleep(Duration::from_millis(300)).await; // longer than anybody waits for a verdict here
            return Err(AppendError::Ambiguous("no broker answers".to_owned()));
        }
        self.inner.append(bytes, urgency).await
    }

    async fn read(&self, from: Offset, max: usize) -> Result<Vec<Record>, ReadError> {
        self.inner.read(from, max).await
    }

    fn end(&self) -> watch::Receiver<Offset> {
        self.inner.end()
    }

    async fn latest(&self) -> Result<Offset, ReadError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) {
            return Err(ReadError::Unavailable("no broker answers".to_owned()));
        }
        self.inner.latest().await
    }
}

/// A router that follows the proxy's own rules of what replaces what.
#[derive(Default)]
pub struct Routers {
    pub entries: Mutex<BTreeMap<DeploymentId, Entry>>,
    pub deaf: AtomicBool,
    /// How often something was replaced.
    pub changes: AtomicU32,
}

impl Routers {
    pub fn weights(&self) -> Weights {
        self.held().routes.weights
    }

    pub fn held(&self) -> HeldRoutes {
        self.entries.lock().unwrap()[&deployment()].held().expect("it is served").clone()
    }

    fn unreachable(&self) -> Result<(), ApplyError> {
        let what = "no answer from the proxy at router: it is deaf".to_owned();
        let trouble = RouterTrouble { what, hint: String::new() };
        if self.deaf.load(Ordering::SeqCst) { Err(ApplyError::Unreachable(trouble)) } else { Ok(()) }
    }
}

#[async_trait]
impl Router for Routers {
    async fn apply(&self, routes: &Routes) -> Result<HeldRoutes, ApplyError> {
        self.unreachable()?;
        let mut entries = self.entries.lock().unwrap();
        let entry = entries.get(&routes.deployment);
        match routes::admit(entry, routes) {
            Ok(Admission::AlreadyHeld) => Ok(entry.and_then(Entry::held).expect("it is held").clone()),
            Ok(Admission::Apply) => {
                let held = HeldRoutes { routes: routes.clone(), listening: "127.0.0.1:8080".parse().unwrap() };
                entries.insert(routes.deployment.clone(), Entry::Routed(held.clone()));
                self.changes.fetch_add(1, Ordering::SeqCst);
                Ok(held)
            }
            Err(routes::Refusal::Superseded { held, .. }) => Err(ApplyError::Superseded { held }),
            Err(other) => Err(ApplyError::Refused(other.to_string())),
        }
    }

    async fn remove(&self, _: &DeploymentId, _: StreamVersion) -> Result<(), ApplyError> {
        Err(ApplyError::Refused("nothing is retired here".to_owned()))
    }

    async fn entry(&self, deployment: &DeploymentId) -> Result<Option<Entry>, ApplyError> {
        self.unreachable()?;
        Ok(self.entries.lock().unwrap().get(deployment).cloned())
    }

    async fn measures(&self, _: &DeploymentId) -> Result<Option<Measures>, ApplyError> {
        Ok(None)
    }
}

/// A disk on which the next write of an intent hangs, as it reads the key.
pub struct HungDisk {
    path: PathBuf,
    key: Vec<u8>,
}

impl HungDisk {
    /// Waits until a write hangs, and returns what lets it go on. Later writes do not hang.
    pub async fn hangs(self) -> impl FnOnce() {
        let Self { path, key } = self;
        let fifo = path.clone();
        let opened = tokio::task::spawn_blocking(move || fs::File::options().write(true).open(fifo)).await;
        let mut pipe = opened.unwrap().unwrap();
        fs::write(path.with_extension("again"), &key).unwrap();
        fs::rename(path.with_extension("again"), &path).unwrap();
        move || std::io::Write::write_all(&mut pipe, &key).unwrap()
    }
}

pub struct World {
    pub log: Arc<Log_>,
    pub ledger: Ledger,
    pub router: Arc<Routers>,
    /// The one node of each stack, as far as somebody listens there.
    pub nodes: Mutex<BTreeMap<StackId, TcpListener>>,
    pub break_glass: Arc<BreakGlass>,
    pub data: tempfile::TempDir,
}

pub fn deployment() -> DeploymentId {
    "production/api".parse().unwrap()
}

pub fn person(name: &str) -> Actor {
    Actor { kind: ActorKind::Person, name: name.to_owned(), proof: "unix-peer uid=1000".to_owned() }
}

pub fn request(command: Command) -> Request {
    let reason = Some("checkout fails".to_owned());
    Request { id: CommandId(Uuid::now_v7()), command, fence: None, reason, effective_at: None }
}

pub fn rollback() -> Request {
    request(Command::Rollback(command::Rollback { deployment: deployment(), unready: false }))
}

pub fn patience() -> Patience {
    let ms = Duration::from_millis;
    Patience { verdict: ms(200), write: ms(5_000), again: ms(50) }
}

impl World {
    /// 1.1.0 holds all traffic and took it over from 1.0.0, which stands warm beside it; the router confirmed it.
    pub async fn serving() -> Self {
        let log = Arc::new(Log_::default());
        let ledger = Ledger::open(Arc::clone(&log) as _, View::default(), Arc::new(SystemClock)).await.unwrap();
        let (router, data) = (Arc::new(Routers::default()), tempfile::tempdir().unwrap());
        let break_glass = BreakGlass::new(data.path(), ledger.clone(), Arc::clone(&router) as _, patience());
        let world = Self { log, ledger, router, nodes: Mutex::default(), break_glass, data };
        for role in Role::ALL {
            let taken = Outcome::TakeLease(outcome::TakeLease {
                role,
                holder: HOLDER.to_owned(),
                from: None,
                reason: "started".to_owned(),
            });
            world.ledger.record(taken, role, HOLDER, None).await.unwrap();
        }
        let mut definition = Definition {
            owner: "team".to_owned(),
            description: String::new(),
            listen: BTreeMap::new(),
            run: Default::default(),
            capacity: Capacity { nodes: 1, min_ready: 1 },
            policy: Default::default(),
        };
        definition.policy.rollout.steps = [10, 100].map(Weight::from_percent).to_vec();
        let service = deployment().service;
        world.ask(Command::Apply(command::Apply { service: service.clone(), definition: Box::new(definition) })).await;
        for version in [V1, V2, V3] {
            let artifact = Artifact { sha256: Hash::of(version.as_bytes()), name: "api".to_owned(), size_bytes: 1 };
            let (args, env, source) = (None, BTreeMap::new(), Default::default());
            let version: Version = version.parse().unwrap();
            world
                .ask(Command::Release(command::Release {
                    service: service.clone(),
                    version,
                    artifact,
                    args,
                    env,
                    source,
                    fixes: None,
                }))
                .await;
        }
        for version in [V1, V2] {
            world.bring_up(version).await;
            world.serve(version).await;
        }
        world
    }

    pub async fn ask(&self, command: Command) -> Executed {
        self.ask_as("bob", command).await.unwrap()
    }

    pub async fn ask_as(&self, name: &str, command: Command) -> Result<Executed, Refusal> {
        tokio::time::timeout(DEADLINE, self.ledger.execute(request(command), person(name), None)).await.unwrap()
    }

    pub async fn bring_up(&self, version: &str) {
        let new = Command::New(command::New {
            deployment: deployment(),
            version: version.parse().unwrap(),
            then_roll: None,
            again: false,
        });
        let stack: StackId = self.ask(new).await.commit.unwrap().into();
        let effect = EffectId::of_launch(self.ledger.id(), stack, 0, 0);
        let node = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = node.local_addr().unwrap();
        let port = address.port();
        self.nodes.lock().unwrap().insert(stack, node);
        for outcome in [
            DeploymentOutcome::StartLaunch(outcome::StartLaunch { stack, slot: 0, attempt: 0, effect, port }),
            DeploymentOutcome::Launched(outcome::Launched { effect, address, instance: "test".to_owned() }),
            DeploymentOutcome::NodeReady(outcome::NodeReady { effect }),
            DeploymentOutcome::StackReady(outcome::StackReady { stack }),
        ] {
            self.report(Role::Provisioner, outcome).await;
        }
    }

    pub async fn report(&self, role: Role, outcome: DeploymentOutcome) {
        let outcome = Outcome::Deployment(outcome::DeploymentReport { deployment: deployment(), outcome });
        self.ledger.record(outcome, role, HOLDER, None).await.unwrap();
    }

    pub fn all_on(version: &str) -> Command {
        let shares = vec![StackWeight { version: version.parse().unwrap(), weight: Weight::FULL }];
        Command::Traffic(command::Traffic { deployment: deployment(), shares, supersede: true, again: true })
    }

    /// Gives a version all traffic, as the ledger and the router have it.
    pub async fn serve(&self, version: &str) {
        self.ask(Self::all_on(version)).await;
        self.apply().await;
        assert_eq!(self.router.weights(), Weights::all_on(self.stack(version)));
    }

    /// Has the router serve what is set and records that, as the traffic shifter does.
    pub async fn apply(&self) {
        let HeldRoutes { routes, listening } =
            runtime::apply_now(&self.ledger, &*self.router, &deployment()).await.unwrap();
        let (generation, weights) = (routes.generation, routes.weights);
        let applied = DeploymentOutcome::WeightsApplied(outcome::WeightsApplied {
            generation,
            weights,
            listening: Some(listening),
        });
        self.report(Role::TrafficShifter, applied).await;
    }

    pub fn stack(&self, version: &str) -> StackId {
        let view = self.ledger.view();
        let of = view.state().deployment(&deployment()).unwrap();
        of.stack_for(&version.parse().unwrap()).unwrap().0
    }

    pub fn set(&self) -> Weights {
        let view = self.ledger.view();
        view.state().deployment(&deployment()).unwrap().traffic.set.clone().unwrap().weights
    }

    /// The judge begins to listen to a rollout, and its first step is taken.
    pub async fn take_first_step(&self, rollout: schemas::RolloutId) {
        let begun = {
            let view = self.ledger.view();
            let live = view.state().deployment(&deployment()).unwrap().rollout.clone().unwrap();
            let (rule, policy) = (ledger::judgement::judge::RULE.to_owned(), live.policy.judgement);
            schemas::judgement::Begun { rollout, rule, plan: live.plan, policy, half_life_s: 600, history: vec![] }
        };
        self.report(Role::TrafficShifter, DeploymentOutcome::BeginJudging(outcome::BeginJudging { begun })).await;
        let step = DeploymentOutcome::TakeStep(outcome::TakeStep { rollout, step: 0, counted: None, judged: None });
        self.report(Role::TrafficShifter, step).await;
    }

    /// Another process on the same data folder, ledger and router.
    pub fn another(&self) -> Arc<BreakGlass> {
        BreakGlass::new(self.data.path(), self.ledger.clone(), Arc::clone(&self.router) as _, patience())
    }

    /// Rolls 1.2.0 out beside 1.1.0 and takes its only node away.
    pub async fn with_unhealthy_canary(&self) -> RolloutId {
        self.bring_up(V3).await;
        let steps = Some(vec![Weight::from_percent(10), Weight::FULL]);
        let plan = PlanAsked { duration_ms: Some(3_600_000), steps };
        let (from, to) = (V2.parse().unwrap(), V3.parse().unwrap());
        let roll =
            Command::Roll(command::Roll { deployment: deployment(), from, to, plan, supersede: false, again: false });
        let rollout: RolloutId = self.ask(roll).await.commit.unwrap().into();
        self.take_first_step(rollout).await;
        self.apply().await;
        let stack = self.stack(V3);
        let effect = EffectId::of_launch(self.ledger.id(), stack, 0, 0);
        let lost = outcome::NodeLost { effect, reason: "it exited".to_owned() };
        self.report(Role::Provisioner, DeploymentOutcome::NodeLost(lost)).await;
        self.report(Role::Provisioner, DeploymentOutcome::StackUnhealthy(outcome::StackUnhealthy { stack })).await;
        rollout
    }

    /// What the judge records to send that canary back.
    pub fn send_back(rollout: RolloutId) -> Outcome {
        let reason = "the canary is unhealthy".to_owned();
        let back = outcome::SendBack { rollout, reason, counted: None, judged: None, probed: Probed::default() };
        let outcome = DeploymentOutcome::SendBack(back);
        Outcome::Deployment(outcome::DeploymentReport { deployment: deployment(), outcome })
    }

    /// Makes the disk hang for whoever writes an intent down next.
    pub fn hang_disk(&self) -> HungDisk {
        let path = self.data.path().join("glass/key");
        let key = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        HungDisk { path, key }
    }

    /// Asks for a rollback as ana and expects it to be carried out without the ledger.
    pub async fn broken(&self, request: Request) -> Broken {
        match self.break_glass.execute(request, person("ana"), None, Probed::default()).await {
            Rolled::Broken(broken) => *broken,
            Rolled::Settled(answer) => panic!("the ledger gave a verdict: {answer:?}"),
        }
    }

    /// Asks for a rollback of which neither the log nor the router hears.
    pub async fn unmoved() -> (Self, Broken) {
        let world = Self::serving().await;
        world.log.fall_silent();
        world.router.deaf.store(true, Ordering::SeqCst);
        let broken = world.broken(rollback()).await;
        assert!(broken.unmoved.as_ref().is_some_and(|why| why.contains("it is deaf")), "{:?}", broken.unmoved);
        (world, broken)
    }

    /// Tries to settle until the router gives all traffic to a version.
    pub async fn moved_to(&self, version: &str) {
        let until = tokio::time::Instant::now() + DEADLINE;
        while self.router.weights() != Weights::all_on(self.stack(version)) {
            assert!(tokio::time::Instant::now() < until, "{:?}", self.break_glass.unrecorded());
            self.break_glass.settle_all().await;
            tokio::time::sleep(patience().again).await;
        }
    }

    /// Tries to settle until nothing waits.
    pub async fn settled(&self) {
        let until = tokio::time::Instant::now() + DEADLINE;
        loop {
            self.break_glass.settle_all().await;
            if self.break_glass.unrecorded().is_empty() && self.files("").is_empty() {
                return;
            }
            assert!(tokio::time::Instant::now() < until, "{:?}", self.break_glass.unrecorded());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Every commit that counts with an event of this type, and the event's data.
    pub fn history(&self, kind: &str) -> Vec<(Value, Value)> {
        let mut view = View::default();
        let mut found = Vec::new();
        for record in self.log.records() {
            let folded = view.fold(record.offset, &record.bytes).unwrap();
            let commit: Value = serde_json::from_slice(&record.bytes).unwrap();
            if folded.void.is_some() {
                continue;
            }
            let events = commit["events"].as_array().unwrap().iter().filter(|event| event["type"] == kind);
            found.extend(events.map(|event| (commit.clone(), event["data"].clone())));
        }
        found
    }

    /// The names of the files in a folder below the data folder's.
    pub fn files(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.data.path().join("glass").join(folder)) else { return vec![] };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".json")).collect()
    }

    pub fn file(&self, id: CommandId) -> PathBuf {
        Path::new(self.data.path()).join("glass").join(format!("{id}.json"))
    }
}

/// Says whether an answer holds an event of this type.
pub fn has(answer: &Executed, kind: &str) -> bool {
    answer.events.iter().any(|(_, event): &(_, Event)| event.kind() == kind)
}

/// The moment that a commit says it took effect.
pub fn effective_at(commit: &Value) -> Timestamp {
    let said = commit["about"]["effective_at"].as_str().or(commit["time"].as_str());
    said.expect("a time").parse().unwrap()
}

/// Lets another process settle what waits.
pub async fn settled_by(break_glass: &Arc<BreakGlass>) {
    for _ in 0..200 {
        break_glass.settle_all().await;
        if break_glass.unrecorded().is_empty() {
            return;
        }
        tokio::time::sleep(patience().again).await;
    }
    panic!("{:?}", break_glass.unrecorded());
}
