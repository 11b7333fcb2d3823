//! The real `ionledger up` on a folder of its own, with two versions of a service ready.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};
use std::time::{Duration, Instant};

use api::client::{Client, SendOptions};
use api::wire::CommandAnswer;
use http::Request as HttpRequest;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use schemas::command::{self, Command, Request, StackWeight};
use schemas::run::{Artifact, Capacity, HttpCheck, RunSpec};
use schemas::service::Definition;
use schemas::{CommandId, DeploymentId, Offset, StackId, Version, Weight};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use uuid::Uuid;
use workers::artifacts::Artifacts;
use workers::traffic::ProxyControl;

use crate::Error;

/// The version that rollbacks go to.
pub const OLD: &str = "1.0.0";
/// The version that they come from.
pub const NEW: &str = "2.0.0";

/// How long anything may take before it counts as broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long an answer may wait for the router.
const WAIT: Duration = Duration::from_secs(10);

pub struct Up {
    process: Process,
    client: Client,
    proxy: ProxyControl,
    deployment: DeploymentId,
    stacks: BTreeMap<&'static str, StackId>,
    address: SocketAddr,
}

impl Up {
    /// Starts `ionledger up`, with its ledger at `place` if one is named, two stacks of two nodes each, and sends all
    /// traffic to the old version.
    pub async fn start(folder: &Path, place: Option<&str>) -> Result<Self, Error> {
        let (exe, data) = (ionledger()?, folder.join("data"));
        // Before it starts: afterwards the store has an owner.
        let artifact = store_service(&exe, folder, &data)?;
        let process = Process::start(&exe, folder, &data, place)?;
        let mut up = Self {
            process,
            client: Client::of_data(&data),
            proxy: ProxyControl::of(&data),
            deployment: "production/api".parse()?,
            stacks: BTreeMap::new(),
            address: ([127, 0, 0, 1], 0).into(),
        };
        up.wait_until_it_answers().await?;
        up.declare(artifact).await?;
        up.traffic(OLD).await?;
        up.address = up.proxy.routes(&up.deployment).await?.ok_or("the proxy holds no routes")?.listening;
        Ok(up)
    }

    /// Returns where users connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends all traffic to `version`, which may have been rolled back from, and waits until the router has confirmed it.
    pub async fn traffic(&self, version: &str) -> Result<(), Error> {
        let shares = vec![StackWeight { version: version.parse()?, weight: Weight::FULL }];
        let command = Command::Traffic(command::Traffic {
            deployment: self.deployment.clone(),
            shares,
            supersede: false,
            again: true,
        });
        applied(&self.send(command).await?)
    }

    /// Rolls back and waits until the router has confirmed it.
    pub async fn rollback(&self) -> Result<(), Error> {
        applied(
            &self
                .send(Command::Rollback(command::Rollback { deployment: self.deployment.clone(), unready: false }))
                .await?,
        )
    }

    /// Makes sure that `version` alone has the traffic: the router says so, and the next user gets it.
    pub async fn check(&self, version: &'static str) -> Result<(), Error> {
        let held = self.proxy.routes(&self.deployment).await?.ok_or("the proxy holds no routes")?;
        if held.routes.weights.sole() != Some(self.stacks[version]) {
            return Err(format!("{version} should have all traffic, the proxy holds {:?}", held.routes.weights).into());
        }
        let answered = timeout(PATIENCE, ask(self.address)).await??;
        if answered != version {
            return Err(format!("{version} should have all traffic, a user was answered by {answered}").into());
        }
        Ok(())
    }

    /// Ends it with all that it started.
    pub fn stop(mut self) -> Result<(), Error> {
        self.process.end()
    }

    async fn send(&self, command: Command) -> Result<CommandAnswer, Error> {
        let id = CommandId(Uuid::now_v7());
        let request = Request {
            id,
            command,
            fence: None,
            reason: Some("the bench goes on with it".to_owned()),
            effective_at: None,
        };
        Ok(self.client.execute(&request, SendOptions { wait: Some(WAIT), ..SendOptions::default() }).await?)
    }

    async fn wait_until_it_answers(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.client.ready().await {
            if let Some(status) = self.process.child.try_wait()? {
                return Err(format!("`ionledger up` ended with {status}: {}", self.process.said()).into());
            }
            if Instant::now() > deadline {
                return Err(format!("`ionledger up` does not answer: {error}").into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn declare(&mut self, artifact: Artifact) -> Result<(), Error> {
        let (service, check) =
            (self.deployment.service.clone(), HttpCheck { interval_ms: 500, ..HttpCheck::default() });
        let definition = Box::new(Definition {
            owner: "benches".to_owned(),
            description: String::new(),
            listen: BTreeMap::new(),
            run: RunSpec { check, ..RunSpec::default() },
            capacity: Capacity { nodes: 2, min_ready: 1 },
            policy: schemas::policy::Policy::default(),
        });
        self.send(Command::Apply(command::Apply { service: service.clone(), definition })).await?;
        for name in [OLD, NEW] {
            let (service, artifact, version) = (service.clone(), artifact.clone(), name.parse::<Version>()?);
            let (args, env, source) = (None, BTreeMap::new(), schemas::release::Source::default());
            self.send(Command::Release(command::Release {
                service,
                version: version.clone(),
                artifact,
                args,
                env,
                source,
                fixes: None,
            }))
            .await?;
            let deployment = self.deployment.clone();
            let answer =
                self.send(Command::New(command::New { deployment, version, then_roll: None, again: false })).await?;
            self.stacks.insert(name, answer.commit.ok_or("no stack was asked for")?.into());
        }
        timeout(PATIENCE, self.stacks_are_ready()).await.map_err(|_| "the stacks did not become ready")?
    }

    async fn stacks_are_ready(&self) -> Result<(), Error> {
        let mut events = self.client.events(Offset(0), true).await?;
        let mut missing = self.stacks.len();
        while missing > 0 {
            let record = events.next().await?.ok_or("the ledger ended")?;
            let of_commit = record.commit["events"].as_array().map(Vec::as_slice).unwrap_or_default();
            missing -= of_commit.iter().filter(|event| event["type"] == "stack.ready").count();
        }
        Ok(())
    }
}

fn applied(answer: &CommandAnswer) -> Result<(), Error> {
    match (answer.commit, answer.applied) {
        (Some(_), Some(true)) => Ok(()),
        _ => Err(format!("weights were not set and applied: {answer:?}").into()),
    }
}

/// Asks as a new user does, and returns the version that answers.
async fn ask(address: SocketAddr) -> Result<String, Error> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = HttpRequest::get("/").header("host", "api").body(Empty::<Bytes>::new())?;
    let asking = async move {
        let answer = sender.send_request(request).await?;
        let version = answer.headers().get("x-version").cloned();
        answer.into_body().collect().await?;
        Ok::<_, Error>(version)
    };
    let (version, _) = tokio::join!(asking, connection);
    Ok(version?.ok_or("an answer without a version")?.to_str()?.to_owned())
}

/// Returns the program, which lies beside this one.
fn ionledger() -> Result<PathBuf, Error> {
    let exe = std::env::current_exe()?.with_file_name("ionledger");
    if exe.is_file() {
        return Ok(exe);
    }
    Err(format!("{} is not there; build it with `cargo build --release -p ionledger`", exe.display()).into())
}

/// Stores the demo service as an artifact of the data folder.
fn store_service(exe: &Path, folder: &Path, data: &Path) -> Result<Artifact, Error> {
    let script = folder.join("service");
    fs::write(&script, format!("#!/bin/sh\nexec '{}' demo-service\n", exe.display()))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(Artifacts::open(data)?.store(&script)?)
}

/// The process, which takes its nodes and its proxy with it when it is ended.
struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(exe: &Path, folder: &Path, data: &Path, place: Option<&str>) -> Result<Self, Error> {
        let log = folder.join("up.log");
        let file = File::create_new(&log)?;
        let mut program = Program::new(exe);
        program.args(["up", "--down"]).env("IONLEDGER_DATA", data);
        program.args(place.map(|place| format!("--ledger={place}")));
        let child = program.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
        Ok(Self { child, log })
    }

    fn end(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        while Instant::now() < deadline {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("`ionledger up` ended with {status}: {}", self.said()).into()),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        Err("`ionledger up` did not end as asked".into())
    }

    /// Returns the end of what it said.
    fn said(&self) -> String {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait()
            && let Err(error) = self.end()
        {
            eprintln!("error: {error}");
        }
    }
}
