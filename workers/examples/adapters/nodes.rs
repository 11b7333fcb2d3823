//! The port `workers::nodes::Nodes`: nodes that are child processes, each running the artifact of its launch.
//!
//! It keeps its list in memory. After a restart it knows no node, and an effect that was stopped before could be launched
//! again. `workers::nodes::process` keeps both on disk and is the one to run services with.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use schemas::run::EnvValue;
use schemas::{EffectId, StackId, Timestamp};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;
use uuid::Uuid;
use workers::artifacts::Artifacts;
use workers::nodes::{Exit, Fault, Instance, Launch, Nodes, Observed, Stopped};

struct ChildNodes {
    artifacts: Artifacts,
    nodes: Mutex<BTreeMap<EffectId, Node>>,
}

enum Node {
    Running(Box<Child>, Instance),
    Exited(Exit),
    /// Cleaned up, or stopped before it ran. It is remembered so that no late launch starts it.
    Gone,
}

impl Node {
    /// Looks whether it still runs.
    fn refresh(&mut self) -> io::Result<()> {
        if let Self::Running(child, _) = self
            && let Some(status) = child.try_wait()?
        {
            *self = Self::Exited(exit(status, false));
        }
        Ok(())
    }
}

fn exit(status: ExitStatus, stopped: bool) -> Exit {
    Exit { code: status.code(), signal: status.signal(), stopped, log_tail: String::new() }
}

fn unknown(cause: io::Error) -> Fault {
    Fault::Unknown(format!("cannot look at a child process: {cause}"))
}

fn start(artifacts: &Artifacts, launch: &Launch) -> Result<(Child, Instance), Fault> {
    let program = artifacts.verify(launch.artifact).map_err(|error| Fault::Hopeless(error.to_string()))?;
    let mut command = Command::new(&program);
    command.args(launch.args.iter().map(|arg| arg.replace("{port}", &launch.port.to_string())));
    for (name, value) in &launch.env {
        let EnvValue::Value(value) = value else {
            return Err(Fault::Hopeless(format!("{name} is a secret; this adapter only knows plain values")));
        };
        command.env(name, value);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let child = command.spawn().map_err(|cause| {
        let what = format!("cannot start {}: {cause}", program.display());
        // Nothing was started, and this passes: somebody still has the file open for writing.
        if cause.kind() == ErrorKind::ExecutableFileBusy { Fault::Retryable(what) } else { Fault::Permanent(what) }
    })?;
    let instance = Instance {
        name: format!("process {}", child.id().unwrap_or_default()),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, launch.port)),
        started_at: Timestamp::now(),
    };
    Ok((child, instance))
}

#[async_trait::async_trait]
impl Nodes for ChildNodes {
    async fn launch(&self, launch: &Launch) -> Result<Instance, Fault> {
        let mut nodes = self.nodes.lock().await;
        if let Some(node) = nodes.get_mut(&launch.effect) {
            node.refresh().map_err(unknown)?;
            return match node {
                Node::Running(_, instance) => Ok(instance.clone()),
                _ => Err(Fault::Permanent(format!("node {} has ended; launch another effect", launch.effect))),
            };
        }
        let (child, instance) = start(&self.artifacts, launch)?;
        nodes.insert(launch.effect, Node::Running(Box::new(child), instance.clone()));
        Ok(instance)
    }

    async fn look(&self) -> Result<BTreeMap<EffectId, Observed>, Fault> {
        let mut seen = BTreeMap::new();
        for (effect, node) in self.nodes.lock().await.iter_mut() {
            node.refresh().map_err(unknown)?;
            match node {
                Node::Running(_, instance) => seen.insert(*effect, Observed::Running(instance.clone())),
                Node::Exited(exit) => seen.insert(*effect, Observed::Exited(exit.clone())),
                Node::Gone => None,
            };
        }
        Ok(seen)
    }

    async fn stop(&self, effect: EffectId, grace: Duration) -> Result<Stopped, Fault> {
        let mut nodes = self.nodes.lock().await;
        let node = nodes.entry(effect).or_insert(Node::Gone);
        node.refresh().map_err(unknown)?;
        let Node::Running(child, _) = node else { return Ok(Stopped::NotRunning) };
        if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            kill_process(pid, Signal::TERM).map_err(|errno| unknown(errno.into()))?;
        }
        let (status, stopped) = match timeout(grace, child.wait()).await {
            Ok(status) => (status, Stopped::Ended),
            Err(_) => {
                child.start_kill().map_err(unknown)?;
                (child.wait().await, Stopped::Killed)
            }
        };
        *node = Node::Exited(exit(status.map_err(unknown)?, true));
        Ok(stopped)
    }

    async fn cleanup(&self, effect: EffectId) -> Result<(), Fault> {
        let mut nodes = self.nodes.lock().await;
        let Some(node) = nodes.get_mut(&effect) else { return Ok(()) };
        node.refresh().map_err(unknown)?;
        if let Node::Running(_, instance) = node {
            return Err(Fault::Permanent(format!("{} still runs; stop it first", instance.name)));
        }
        *node = Node::Gone;
        Ok(())
    }

    async fn free_ports(&self, n: u16) -> Result<Vec<u16>, Fault> {
        // All are held until the last is found, so that they differ.
        let bound = (0..n).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let held: Vec<TcpListener> = bound.collect::<Result<_, _>>().map_err(|cause| {
            Fault::Retryable(format!("cannot find {n} free ports on {}: {cause}", Ipv4Addr::LOCALHOST))
        })?;
        held.iter()
            .map(|listener| listener.local_addr().map(|address| address.port()))
            .collect::<Result<_, _>>()
            .map_err(unknown)
    }
}

/// Releases a shell script, launches it, looks at it and takes it down.
pub(crate) async fn run() -> crate::Ran {
    let data = tempfile::tempdir()?;
    let script = data.path().join("sleeper");
    std::fs::write(&script, "#!/bin/sh\nexec sleep \"$1\"\n")?;
    let artifacts = Artifacts::open(data.path())?;
    let artifact = artifacts.store(&script)?.sha256;
    let nodes = ChildNodes { artifacts, nodes: Mutex::default() };

    let effect = EffectId(Uuid::from_u128(1));
    let launch = Launch {
        effect,
        deployment: "production/api".parse()?,
        stack: StackId(Uuid::from_u128(2)),
        version: "1.0.0".parse()?,
        number: 1,
        slot: 0,
        attempt: 0,
        port: nodes.free_ports(1).await?[0],
        artifact,
        args: vec!["600".to_owned()],
        env: BTreeMap::new(),
        user: None,
    };
    let instance = nodes.launch(&launch).await?;
    println!("launched {} for port {}", instance.name, launch.port);
    assert_eq!(nodes.launch(&launch).await?, instance, "a second launch of an effect makes no second node");
    assert_eq!(nodes.look().await?, BTreeMap::from([(effect, Observed::Running(instance))]));
    assert!(matches!(nodes.cleanup(effect).await, Err(Fault::Permanent(_))), "it still runs");

    assert_eq!(nodes.stop(effect, Duration::from_secs(10)).await?, Stopped::Ended);
    let seen = nodes.look().await?;
    let Some(Observed::Exited(exit)) = seen.get(&effect) else { return Err(format!("it ended, not {seen:?}").into()) };
    assert!(exit.stopped);
    println!("it {exit}");
    let late = nodes.launch(&launch).await.expect_err("an effect starts one node once");
    println!("a late launch is refused: {late}");

    nodes.cleanup(effect).await?;
    assert_eq!(nodes.look().await?, BTreeMap::new());
    assert_eq!(nodes.stop(effect, Duration::ZERO).await?, Stopped::NotRunning);
    Ok(())
}
