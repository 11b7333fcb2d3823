//! The real `ionledger up` as a process, and services on it; shared by the benches that run it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};
use std::time::{Duration, Instant};

use api::client::{Client, SendOptions};
use api::wire::CommandAnswer;
use schemas::command::{self, Command, Request};
use schemas::run::{Artifact, Capacity, HttpCheck, RunSpec};
use schemas::service::Definition;
use schemas::{CommandId, DeploymentId, Offset, StackId, Version};
use tokio::time::{sleep, timeout};
use uuid::Uuid;
use workers::artifacts::Artifacts;

use crate::Error;

/// How long anything may take before it counts as broken.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long an answer may wait for the router.
const WAIT: Duration = Duration::from_secs(10);

/// Sends a command and returns its answer.
pub async fn send(client: &Client, command: Command) -> Result<CommandAnswer, Error> {
    let (id, reason) = (CommandId(Uuid::now_v7()), Some("the bench goes on with it".to_owned()));
    let request = Request { id, command, fence: None, reason, effective_at: None };
    Ok(client.execute(&request, SendOptions { wait: Some(WAIT), ..SendOptions::default() }).await?)
}

/// Says whether weights were set and the router confirmed them.
pub fn applied(answer: &CommandAnswer) -> Result<(), Error> {
    match (answer.commit, answer.applied) {
        (Some(_), Some(true)) => Ok(()),
        _ => Err(format!("weights were not set and applied: {answer:?}").into()),
    }
}

/// Declares the service of a deployment, with stacks of so many nodes.
pub async fn declare(client: &Client, deployment: &DeploymentId, nodes: u16) -> Result<(), Error> {
    let check = HttpCheck { interval_ms: 500, ..HttpCheck::default() };
    let definition = Box::new(Definition {
        owner: "benches".to_owned(),
        description: String::new(),
        listen: BTreeMap::new(),
        run: RunSpec { check, ..RunSpec::default() },
        capacity: Capacity { nodes, min_ready: 1 },
        policy: schemas::policy::Policy::default(),
    });
    let service = deployment.service.clone();
    send(client, Command::Apply(command::Apply { service, definition })).await.map(drop)
}

/// Records a release and asks for a stack of it. Returns the stack's id.
pub async fn start_version(
    client: &Client,
    deployment: &DeploymentId,
    version: &str,
    artifact: Artifact,
) -> Result<StackId, Error> {
    let (service, version) = (deployment.service.clone(), version.parse::<Version>()?);
    let (args, env, source) = (None, BTreeMap::new(), schemas::release::Source::default());
    let release = command::Release { service, version: version.clone(), artifact, args, env, source, fixes: None };
    send(client, Command::Release(release)).await?;
    let new = command::New { deployment: deployment.clone(), version, then_roll: None, again: false };
    Ok(send(client, Command::New(new)).await?.commit.ok_or("no stack was asked for")?.into())
}

/// Waits until so many stacks became ready since the ledger began.
pub async fn stacks_are_ready(client: &Client, count: usize) -> Result<(), Error> {
    let waiting = async {
        let mut events = client.events(Offset(0), true).await?;
        let mut missing = count;
        while missing > 0 {
            let record = events.next().await?.ok_or("the ledger ended")?;
            let of_commit = record.commit["events"].as_array().map(Vec::as_slice).unwrap_or_default();
            missing -= of_commit.iter().filter(|event| event["type"] == "stack.ready").count();
        }
        Ok(())
    };
    timeout(PATIENCE * 10, waiting).await.map_err(|_| "the stacks did not become ready")?
}

/// Returns the program, which lies beside this one.
pub fn ionledger() -> Result<PathBuf, Error> {
    let exe = std::env::current_exe()?.with_file_name("ionledger");
    if exe.is_file() {
        return Ok(exe);
    }
    Err(format!("{} is not there; build it with `cargo build --release -p ionledger`", exe.display()).into())
}

/// Stores the demo service as an artifact of the data folder.
pub fn store_service(exe: &Path, folder: &Path, data: &Path) -> Result<Artifact, Error> {
    let script = folder.join("service");
    fs::write(&script, format!("#!/bin/sh\nexec '{}' demo-service\n", exe.display()))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    DirBuilder::new().recursive(true).mode(0o700).create(data)?;
    Ok(Artifacts::open(data)?.store(&script)?)
}

/// The process, which takes its nodes and its proxy with it when it is ended.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it on `data`, with its ledger at `place` if one is named.
    pub fn start(exe: &Path, folder: &Path, data: &Path, place: Option<&str>) -> Result<Self, Error> {
        let log = folder.join("up.log");
        let file = File::create_new(&log)?;
        let mut program = Program::new(exe);
        program.args(["up", "--down"]).env("IONLEDGER_DATA", data);
        program.args(place.map(|place| format!("--ledger={place}")));
        let child = program.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
        Ok(Self { child, log })
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it takes commands.
    pub async fn answers(&mut self, client: &Client) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = client.ready().await {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("`ionledger up` ended with {status}: {}", self.said()).into());
            }
            if Instant::now() > deadline {
                return Err(format!("`ionledger up` does not answer: {error}").into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Ends it with all that it started.
    pub fn end(&mut self) -> Result<(), Error> {
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
