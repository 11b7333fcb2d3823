//! Nodes as processes of this machine: each of its own session and folder, outliving ionledger and re-adopted by it.
//!
//! `launch` starts `ionledger node-exec`, which makes itself the node (`exec`); a node is known by its held lock
//! (`life`). A launch that was not acknowledged may be repeated until it is; from then on, and once it was stopped, its
//! effect never starts a process again. So repeating a launch is harmless at every moment, and a late one does nothing.
//!
//! Where ionledger is root, node-exec becomes the service's own user first (`users`). A node that runs already is taken over
//! as whom it runs.

mod env;
mod exec;
mod folder;
mod life;
mod log;
pub mod logs;
mod ports;
mod running;
mod stop;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use schemas::EffectId;
use schemas::run::RunSpec;
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

pub use self::exec::{ALREADY_RUNNING, node_exec};
use self::folder::{Ended, Folder, Mark, Record};
use self::life::Life;
use self::ports::Ports;
use self::running::RunningNodes;
use self::users::Users;
use super::{Exit, Fault, Instance, Launch, Nodes, Observed, Stopped};
use crate::artifacts::{self, Artifacts};
use crate::identity::{self, Identity};
use crate::rights;

/// How long node-exec may take to become the node.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// How long an ended child's exit status may be waited for.
const WITNESS_DEADLINE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(5);
/// Of how many cleaned-up nodes the logs are kept.
const KEPT_LOGS: usize = 100;

/// Nodes as child processes on this machine.
#[derive(Clone, Debug)]
pub struct ProcessNodes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    nodes: PathBuf,
    launcher: PathBuf,
    artifacts: Arc<Artifacts>,
    ports: Ports,
    /// Who nodes run as; without it as whom ionledger runs.
    users: Option<Users>,
    /// The nodes that ran at the last look.
    running: RunningNodes,
    /// The nodes that are children of this process: each tells when its end has been written down.
    children: Mutex<BTreeMap<EffectId, watch::Receiver<bool>>>,
}

/// What stands before a launch.
enum Before {
    Runs(Record),
    IsStarting,
    MayStart { artifact: PathBuf, identity: Option<Identity> },
}

impl ProcessNodes {
    /// Returns the nodes of the data folder, which run as whom ionledger runs. `launcher` is the `ionledger` binary;
    /// `/proc/self/exe` where it is this very program, which holds even after its file was replaced by a newer one.
    ///
    /// # Errors
    ///
    /// An I/O error if `DATA/nodes` cannot be made.
    pub fn open(data: &Path, launcher: PathBuf, artifacts: Arc<Artifacts>) -> io::Result<Self> {
        Self::with(data, launcher, artifacts, None)
    }

    /// Returns the nodes of the data folder, each service's run as a user of its own. Only root can run them so.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_with_users(data: &Path, launcher: PathBuf, artifacts: Arc<Artifacts>) -> io::Result<Self> {
        Self::with(data, launcher, artifacts, Some(Users::of(&std::path::absolute(data)?)))
    }

    fn with(data: &Path, launcher: PathBuf, artifacts: Arc<Artifacts>, users: Option<Users>) -> io::Result<Self> {
        let nodes = std::path::absolute(data.join("nodes"))?;
        folder::make_searchable(&nodes)?;
        let (ports, running, children) = (Ports::new(), RunningNodes::default(), Mutex::default());
        let inner = Inner { nodes, launcher, artifacts, ports, users, running, children };
        Ok(Self { inner: Arc::new(inner) })
    }
}

/// Returns what a node of this run spec would lack if it were launched by this process: sentences for people.
pub fn lacks(run: &RunSpec) -> Vec<String> {
    let user = run.user.as_deref().and_then(|user| match identity::is_root() {
        true => users::named(user).err(),
        false => users::check_own(user).err(),
    });
    user.into_iter().chain(env::lacks(&run.env)).collect()
}

/// Says whether the node of `effect` runs in the data folder `data`: a look from outside, which changes nothing.
///
/// # Errors
///
/// An I/O error: it is not known.
pub fn runs(data: &Path, effect: EffectId) -> io::Result<bool> {
    let life = life::inspect(&Folder::of(&data.join("nodes"), effect))?;
    Ok(matches!(life, Life::Running(_) | Life::Starting))
}

/// Says why nodes with users of their own could not start in a data folder, if they could not.
pub fn obstacle(data: &Path) -> Option<String> {
    let tried = users::sample().and_then(|user| user.act(|| rights::unsearchable_above(&data.join("nodes"))));
    match tried {
        Ok(folder) => folder.map(|folder| exec::unsearchable(&folder)),
        Err(cause) => Some(exec::cannot_become(&cause)),
    }
}

#[async_trait::async_trait]
impl Nodes for ProcessNodes {
    async fn launch(&self, launch: &Launch) -> Result<Instance, Fault> {
        let folder = self.inner.folder(launch.effect);
        let record = match self.before(launch).await? {
            Before::Runs(record) => record,
            Before::IsStarting => self.settled(&folder, launch.effect).await?,
            Before::MayStart { artifact, identity } => {
                self.start(&folder, launch, &artifact, identity.as_ref()).await?
            }
        };
        blocking(move || folder.mark(Mark::Started).map_err(faulty("acknowledge the node"))).await?;
        Ok(record.into())
    }

    async fn look(&self) -> Result<BTreeMap<EffectId, Observed>, Fault> {
        let inner = self.inner.clone();
        let mut all = blocking(move || inner.look().map_err(faulty("look at the nodes' folders"))).await?;
        let ended = all.iter().filter(|(_, seen)| matches!(seen, Observed::Exited(_))).map(|(effect, _)| *effect);
        for effect in ended.collect::<Vec<_>>() {
            // Its lock is free a moment before its end is written down.
            self.witness(effect).await;
            let inner = self.inner.clone();
            match blocking(move || Ok(inner.see(effect))).await? {
                Some(seen) => drop(all.insert(effect, seen)),
                None => drop(all.remove(&effect)),
            }
        }
        Ok(all)
    }

    async fn stop(&self, effect: EffectId, grace: Duration) -> Result<Stopped, Fault> {
        stop::stop(self.inner.folder(effect), effect, grace).await
    }

    async fn cleanup(&self, effect: EffectId) -> Result<(), Fault> {
        let inner = self.inner.clone();
        blocking(move || inner.cleanup(effect)).await
    }

    async fn free_ports(&self, n: u16) -> Result<Vec<u16>, Fault> {
        let inner = self.inner.clone();
        blocking(move || inner.free_ports(n)).await
    }
}

impl ProcessNodes {
    async fn before(&self, launch: &Launch) -> Result<Before, Fault> {
        let folder = self.inner.folder(launch.effect);
        let known = blocking(move || folder.create().and_then(|()| life::inspect(&folder)).map_err(faulty("launch")));
        if let Life::Dead(record) = known.await? {
            self.witness(record.effect).await;
        }
        let (inner, launch) = (self.inner.clone(), launch.clone());
        blocking(move || inner.before(&launch)).await
    }

    /// Starts node-exec and returns the record of what it became.
    async fn start(
        &self,
        folder: &Folder,
        launch: &Launch,
        artifact: &Path,
        identity: Option<&Identity>,
    ) -> Result<Record, Fault> {
        let mut command = tokio::process::Command::new(&self.inner.launcher);
        command.arg("node-exec").arg("--dir").arg(&folder.path).arg("--artifact").arg(artifact);
        command.args(identity.map(|identity| format!("--identity={identity}")));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(faulty("start node-exec"))?;
        let (answer, pid) = (child.stdout.take(), child.id());
        let status = self.watch_child(folder.clone(), launch.effect, child);
        let mut text = Vec::new();
        if let Some(answer) = answer {
            let mut answer = answer.take(64 * 1024);
            let heard = timeout(START_DEADLINE, answer.read_to_end(&mut text)).await;
            heard.map_err(|_| too_slow(launch.effect))?.map_err(faulty("hear from node-exec"))?;
        }
        if !text.is_empty() {
            self.forget_start(folder, pid, status).await?;
            let lost = |cause| Fault::Unknown(format!("node-exec's answer is not understood: {cause}"));
            return Err(serde_json::from_slice(&text).unwrap_or_else(lost));
        }
        self.became(folder, launch.effect, status).await
    }

    /// Removes the record of a node-exec that did not become the node. It may have been another user by then and unable to.
    async fn forget_start(
        &self,
        folder: &Folder,
        pid: Option<u32>,
        mut status: watch::Receiver<Option<ExitStatus>>,
    ) -> Result<(), Fault> {
        let _ = timeout(START_DEADLINE, status.wait_for(Option::is_some)).await; // then its record stays
        let folder = folder.clone();
        blocking(move || match life::inspect(&folder).map_err(faulty("look at the node"))? {
            Life::Dead(record) if u32::try_from(record.pid).ok() == pid => {
                folder.remove_record().map_err(faulty("forget the failed start"))
            }
            _ => Ok(()),
        })
        .await
    }

    /// Tells what a silent node-exec has become: the node, nothing, or second to another launcher.
    async fn became(
        &self,
        folder: &Folder,
        effect: EffectId,
        mut status: watch::Receiver<Option<ExitStatus>>,
    ) -> Result<Record, Fault> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if let Life::Running(record) = self.inspect(folder).await? {
                return Ok(record);
            }
            let ended = *status.borrow_and_update();
            match ended {
                Some(status) if status.code() == Some(ALREADY_RUNNING.into()) => {
                    return self.settled(folder, effect).await;
                }
                Some(status) => return Err(self.died_at_once(folder, status).await),
                None if Instant::now() > deadline => return Err(too_slow(effect)),
                None => sleep(POLL).await,
            }
        }
    }

    async fn died_at_once(&self, folder: &Folder, status: ExitStatus) -> Fault {
        let folder = folder.clone();
        let exit = move || {
            // It was recorded and so it may have been the node: this effect has had its start.
            if folder.record().is_ok_and(|record| record.is_some()) {
                folder.mark(Mark::Started).map_err(faulty("acknowledge the node"))?;
            }
            let log_tail = log::tail(&folder);
            Ok(Exit { code: status.code(), signal: status.signal(), stopped: false, log_tail })
        };
        match blocking(exit).await {
            Ok(exit) => Fault::Permanent(format!("the node {exit}")),
            Err(fault) => fault,
        }
    }

    /// Waits until a start by another launcher has ended one way or the other.
    async fn settled(&self, folder: &Folder, effect: EffectId) -> Result<Record, Fault> {
        let deadline = Instant::now() + START_DEADLINE;
        while Instant::now() < deadline {
            match self.inspect(folder).await? {
                Life::Running(record) => return Ok(record),
                Life::Starting => sleep(POLL).await,
                Life::Absent | Life::Dead(_) => {
                    return Err(Fault::Retryable(format!("another launch of node {effect} failed; launch it again")));
                }
            }
        }
        Err(too_slow(effect))
    }

    async fn inspect(&self, folder: &Folder) -> Result<Life, Fault> {
        let folder = folder.clone();
        blocking(move || life::inspect(&folder).map_err(faulty("look at the node"))).await
    }

    /// Lets the child go its way while its end is waited for, and written down.
    fn watch_child(
        &self,
        folder: Folder,
        effect: EffectId,
        mut child: tokio::process::Child,
    ) -> watch::Receiver<Option<ExitStatus>> {
        let (written, is_written) = watch::channel(false);
        let (status, ended) = watch::channel(None);
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        self.inner.children.lock().unwrap().insert(effect, is_written);
        let inner = self.inner.clone();
        tokio::spawn(async move {
            if let (Ok(exit), Some(pid)) = (child.wait().await, pid) {
                let ended = Ended { pid, code: exit.code(), signal: exit.signal() };
                let noted = blocking(move || match folder.record() {
                    Ok(Some(record)) if record.pid == pid => folder.write_ended(&ended).map_err(faulty("note its end")),
                    _ => Ok(()), // it never became the node
                });
                if let Err(fault) = noted.await {
                    tracing::warn!(%effect, %fault, "how the node ended is not kept");
                }
                status.send_replace(Some(exit));
            }
            written.send_replace(true);
            inner.forget(effect, &written);
        });
        ended
    }

    /// Waits until the end of a child of ours has been written down, if the node is one.
    async fn witness(&self, effect: EffectId) {
        let written = self.inner.children.lock().unwrap().get(&effect).cloned();
        if let Some(mut written) = written {
            let _ = timeout(WITNESS_DEADLINE, written.wait_for(|written| *written)).await; // then it stays unseen
        }
    }
}

impl Inner {
    fn folder(&self, effect: EffectId) -> Folder {
        Folder::of(&self.nodes, effect)
    }

    /// Returns the folders of all nodes, those of cleaned-up ones too.
    fn folders(&self) -> io::Result<Vec<(EffectId, Folder)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.nodes)? {
            if let Some(effect) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
                found.push((effect, self.folder(effect)));
            }
        }
        Ok(found)
    }

    /// Looks at every node.
    fn look(&self) -> io::Result<BTreeMap<EffectId, Observed>> {
        let folders = self.folders()?.into_iter();
        Ok(folders.filter_map(|(effect, _)| Some((effect, self.see(effect)?))).collect())
    }

    /// Looks at a node; none if it is not there, or not any more.
    fn see(&self, effect: EffectId) -> Option<Observed> {
        let unknown = |cause| Some(Observed::Unknown { reason: format!("cannot look at it: {cause}") });
        self.try_see(effect).unwrap_or_else(unknown)
    }

    fn try_see(&self, effect: EffectId) -> io::Result<Option<Observed>> {
        let folder = self.folder(effect);
        let life = match self.running.still(effect)? {
            Some(record) => Life::Running(record),
            None => life::inspect(&folder)?,
        };
        Ok(match life {
            Life::Absent => None,
            Life::Starting => Some(Observed::Starting),
            Life::Running(record) => {
                self.running.tend(&folder, &record);
                Some(Observed::Running(record.into()))
            }
            Life::Dead(_) if folder.has(Mark::Cleaned)? => None,
            Life::Dead(record) => Some(Observed::Exited(exit(&folder, &record)?)),
        })
    }

    fn before(&self, launch: &Launch) -> Result<Before, Fault> {
        let folder = self.folder(launch.effect);
        let failed = faulty("launch the node");
        if folder.has(Mark::Stopped).map_err(failed)? {
            return Err(Fault::Permanent(format!(
                "node {} was stopped; it cannot be started again by the same effect",
                launch.effect
            )));
        }
        let former = folder.launch().map_err(faulty("read the launch"))?;
        if former.as_ref().is_some_and(|former| former != launch) {
            return Err(Fault::Permanent(format!("node {} was launched before with other parameters", launch.effect)));
        }
        match life::inspect(&folder).map_err(faulty("look at the node"))? {
            Life::Running(record) => return Ok(Before::Runs(record)),
            Life::Starting => return Ok(Before::IsStarting),
            Life::Dead(record) if folder.has(Mark::Started).map_err(faulty("look at the node"))? => {
                let exit = exit(&folder, &record).map_err(faulty("look at the node"))?;
                return Err(Fault::Permanent(format!("the node {exit}")));
            }
            Life::Dead(_) | Life::Absent => {}
        }
        let artifact = self.artifacts.verify(launch.artifact).map_err(|error| match &error {
            artifacts::Error::Missing(_) | artifacts::Error::Damaged { .. } => Fault::Hopeless(error.to_string()),
            _ => Fault::Retryable(error.to_string()),
        })?;
        let artifact = std::path::absolute(artifact).map_err(faulty("find the artifact"))?;
        if former.is_none() {
            folder.write_launch(launch).map_err(faulty("write the launch down"))?;
        }
        Ok(Before::MayStart { artifact, identity: self.identity(launch)? })
    }

    /// Returns as whom the node runs, if not as whom ionledger runs.
    fn identity(&self, launch: &Launch) -> Result<Option<Identity>, Fault> {
        let service = &launch.deployment.service;
        match (&self.users, launch.user.as_deref()) {
            (None, None) => Ok(None),
            (None, Some(user)) => users::check_own(user).map(|()| None).map_err(Fault::Permanent),
            (Some(_), Some(user)) => users::named(user).map(Some).map_err(Fault::Permanent),
            (Some(users), None) => users.made_for(service).map(Some).map_err(faulty("find the service's user")),
        }
    }

    fn cleanup(&self, effect: EffectId) -> Result<(), Fault> {
        let folder = self.folder(effect);
        let failed = || faulty("clean the node's folder up");
        if !folder.path.try_exists().map_err(failed())? {
            return Ok(());
        }
        folder.mark(Mark::Stopped).map_err(failed())?; // or a late launch could begin in the midst of it
        match life::inspect(&folder).map_err(failed())? {
            Life::Running(_) | Life::Starting => {
                return Err(Fault::Permanent(format!("node {effect} still runs; stop it first")));
            }
            Life::Dead(_) | Life::Absent => {}
        }
        match fs::remove_dir_all(folder.work()) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(failed()(cause)),
            _ => {}
        }
        folder.mark(Mark::Cleaned).map_err(failed())?;
        self.prune().map_err(failed())
    }

    /// Removes the oldest cleaned-up folders whole.
    fn prune(&self) -> io::Result<()> {
        let mut cleaned = Vec::new();
        for (_, folder) in self.folders()? {
            if folder.has(Mark::Cleaned)? {
                cleaned.push((folder.marked_at(Mark::Cleaned)?, folder.path));
            }
        }
        cleaned.sort();
        let surplus = cleaned.len().saturating_sub(KEPT_LOGS);
        cleaned.into_iter().take(surplus).try_for_each(|(_, path)| fs::remove_dir_all(path))
    }

    fn free_ports(&self, n: u16) -> Result<Vec<u16>, Fault> {
        let mut taken = BTreeSet::new();
        for (_, folder) in self.folders().map_err(faulty("look at the nodes' folders"))? {
            if !folder.has(Mark::Stopped).map_err(faulty("look at a node"))? {
                taken.extend(folder.launch().ok().flatten().map(|launch| launch.port));
            }
        }
        let ports = self.ports.free(n, &taken);
        if ports.is_empty() && n > 0 {
            return Err(Fault::Retryable("no port is free; stop what is not needed".to_owned()));
        }
        Ok(ports)
    }

    /// Forgets a child that has ended, unless a later start of its effect has taken its place.
    fn forget(&self, effect: EffectId, written: &watch::Sender<bool>) {
        let mut children = self.children.lock().unwrap();
        if children.get(&effect).is_some_and(|child| written.subscribe().same_channel(child)) {
            children.remove(&effect);
        }
    }
}

fn exit(folder: &Folder, record: &Record) -> io::Result<Exit> {
    let ended = folder.ended(record.pid)?;
    Ok(Exit {
        code: ended.as_ref().and_then(|ended| ended.code),
        signal: ended.as_ref().and_then(|ended| ended.signal),
        stopped: folder.has(Mark::Stopped)?,
        log_tail: log::tail(folder),
    })
}

impl From<Record> for Instance {
    fn from(record: Record) -> Self {
        let name = format!("process/{}/{}", record.pid, record.start_ticks);
        Self { name, address: record.address, started_at: record.launched_at }
    }
}

/// Runs what waits for disks off the runtime's threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    let ended = |fault| Fault::Unknown(format!("the call was cut off: {fault}"));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|fault| Err(ended(fault)))
}

fn faulty(what: &'static str) -> impl Fn(io::Error) -> Fault + Copy {
    move |cause| Fault::Retryable(format!("cannot {what}: {cause}"))
}

fn too_slow(effect: EffectId) -> Fault {
    Fault::Unknown(format!("node {effect} has neither started nor failed within {} s", START_DEADLINE.as_secs()))
}

#[cfg(test)]
mod tests;
