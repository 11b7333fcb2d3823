//! The registry: every deployment's routes, in the order disk, then memory, so that what was confirmed survives. Where the disk does
//! not take them, or not in time, users are served by them all the same: a rollback waits for no disk. They are written once it does.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use schemas::{DeploymentId, StreamVersion};
use tokio::net::TcpListener;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::deployment::Deployment;
use super::disk;
use super::listener::{Listener, Shared, bind};
use crate::measures::Measures;
use crate::routes::{Admission, Entry, HeldRoutes, Listening, Refusal, Routes, admit, admit_removal};

/// Sockets by whose users connect to them.
pub(super) type Sockets = BTreeMap<DeploymentId, std::net::TcpListener>;

/// Where a free port is taken when no address is asked for.
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// How long a change waits for the disk: less than its caller waits for the answer.
const DISK_MAX: Duration = Duration::from_millis(300);

#[derive(Debug)]
pub(super) struct Registry {
    epoch: Uuid,
    folder: PathBuf,
    shared: Shared,
    /// Held by every change that is being made, and alone by a handover.
    stillness: Arc<RwLock<()>>,
    slots: Mutex<BTreeMap<DeploymentId, Arc<Slot>>>,
}

/// A deployment's place.
#[derive(Debug, Default)]
struct Slot {
    /// Held by the one change that is being made.
    changing: tokio::sync::Mutex<()>,
    /// The write that is under way. There is one at a time: an older one that ended after a newer one would be what a start finds.
    writing: tokio::sync::Mutex<Option<JoinHandle<io::Result<()>>>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entry: Option<Entry>,
    deployment: Option<Arc<Deployment>>,
    listener: Option<Listener>,
    error: Option<String>,
    /// Why what is served is not on disk, if so.
    unstored: Option<String>,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChangeError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(
        "cannot listen on {address} for {deployment}: {cause}; choose another address or end the process that uses it"
    )]
    Listen { address: SocketAddr, deployment: DeploymentId, cause: String },
    #[error("another proxy is taking over from this one; send it again")]
    Ending,
    #[error("cannot store the routes of {deployment}: {cause}; check the disk and send them again")]
    Disk { deployment: DeploymentId, cause: io::Error },
}

impl Registry {
    /// Serves what is in `folder`, on the `sockets` that were taken over where they are the right ones. An address that is
    /// taken is tried again by [`Registry::listen_again`].
    ///
    /// # Errors
    ///
    /// The folder cannot be read.
    pub(super) fn load(epoch: Uuid, folder: PathBuf, shared: Shared, mut sockets: Sockets) -> io::Result<Self> {
        let (entries, damaged) = disk::load(&folder)?;
        for disk::Damaged { aside, reason } in damaged {
            tracing::error!(file = %aside.display(), reason, "routes are damaged and not served; apply them again");
        }
        let slots = entries.into_iter().map(|(id, entry)| {
            let mut state = State::default();
            if let Entry::Routed(held) = &entry {
                let deployment = Arc::new(Deployment::new(&held.routes));
                let taken = sockets.remove(&id).and_then(|socket| TcpListener::from_std(socket).ok());
                let taken = taken.filter(|socket| socket.local_addr().is_ok_and(|address| address == held.listening));
                // Without it, it is listened again in a moment.
                state.listener = taken.and_then(|socket| Listener::start(socket, deployment.clone(), &shared).ok());
                state.deployment = Some(deployment);
            }
            state.entry = Some(entry);
            (id, Arc::new(Slot { state: Mutex::new(state), ..Slot::default() }))
        });
        let slots = Mutex::new(slots.collect());
        let registry = Self { epoch, folder, shared, stillness: Arc::default(), slots };
        registry.listen_again();
        Ok(registry)
    }

    /// Makes `routes` what is served from the next request on, and what is on disk.
    ///
    /// Must run to its end: see the control socket, which gives it a task of its own.
    pub(super) async fn apply(&self, routes: Routes) -> Result<HeldRoutes, ChangeError> {
        let _moving = self.may_move().await?;
        let slot = self.slot(&routes.deployment);
        let _changing = slot.changing.lock().await;
        let entry = slot.state.lock().unwrap().entry.clone();
        let admission = admit(entry.as_ref(), &routes)?;
        self.check_loops(&routes)?;
        let held = entry.as_ref().and_then(Entry::held);
        if let (Admission::AlreadyHeld, Some(held)) = (admission, held) {
            return Ok(held.clone());
        }
        let (listening, socket) = self.socket(&slot, &routes, held.map(|held| held.listening))?;
        let held = HeldRoutes { routes, listening };
        let stored = self.store(&slot, &held.routes.deployment, Entry::Routed(held.clone())).await;
        if let Some(old) = slot.serve(&held, socket, &self.shared) {
            old.stop().await;
        }
        slot.note(&held.routes.deployment, stored);
        Ok(held)
    }

    /// Tries again to write what is served and not on disk. Returns whether all is on disk then, but for what is being changed.
    pub(super) async fn store_again(&self) -> bool {
        let slots = self.slots.lock().unwrap().clone();
        let mut all = true;
        for (id, slot) in slots {
            // One that is being changed is written by the change.
            let Ok(_changing) = slot.changing.try_lock() else { continue };
            let entry = {
                let state = slot.state.lock().unwrap();
                state.entry.clone().filter(|_| state.unstored.is_some())
            };
            if let Some(entry) = entry {
                // A disk that hangs is waited for by nobody.
                if slot.is_writing() {
                    all = false;
                    continue;
                }
                let stored = self.store(&slot, &id, entry).await;
                all &= stored.is_ok();
                slot.note(&id, stored);
            }
        }
        all
    }

    /// Ends serving `id`, for good unless routes of a higher generation come.
    pub(super) async fn remove(&self, id: &DeploymentId, generation: StreamVersion) -> Result<(), ChangeError> {
        let _moving = self.may_move().await?;
        let slot = self.slot(id);
        let _changing = slot.changing.lock().await;
        let entry = slot.state.lock().unwrap().entry.clone();
        if admit_removal(entry.as_ref(), id, generation)? == Admission::AlreadyHeld {
            return Ok(());
        }
        let entry = Entry::Retired { generation };
        let stored = self.store(&slot, id, entry.clone()).await;
        stored.map_err(|cause| ChangeError::Disk { deployment: id.clone(), cause })?;
        let old = std::mem::replace(&mut *slot.state.lock().unwrap(), State { entry: Some(entry), ..State::default() });
        if let Some(listener) = old.listener {
            listener.stop().await;
        }
        Ok(())
    }

    /// Lets go of the sockets that users connect to.
    pub(super) fn close(&self) {
        for slot in self.slots.lock().unwrap().values() {
            slot.state.lock().unwrap().listener = None;
        }
    }

    /// Waits until no change is being made, and keeps it so as long as what it returns lives.
    pub(super) async fn still(&self) -> OwnedRwLockWriteGuard<()> {
        self.stillness.clone().write_owned().await
    }

    /// Returns the sockets that users connect to.
    pub(super) fn sockets(&self) -> Vec<(DeploymentId, SocketAddr, Arc<TcpListener>)> {
        let slots = self.slots.lock().unwrap();
        let sockets = slots.iter().filter_map(|(id, slot)| {
            let state = slot.state.lock().unwrap();
            let listener = state.listener.as_ref()?;
            Some((id.clone(), listener.address, listener.socket.clone()))
        });
        sockets.collect()
    }

    /// Waits until a change may be made. What comes after a handover would be one behind the successor's back.
    async fn may_move(&self) -> Result<OwnedRwLockReadGuard<()>, ChangeError> {
        let moving = self.stillness.clone().read_owned().await;
        if self.shared.closing.is_cancelled() { Err(ChangeError::Ending) } else { Ok(moving) }
    }

    /// Returns what is held for `id`.
    pub(super) fn entry(&self, id: &DeploymentId) -> Option<Entry> {
        self.slots.lock().unwrap().get(id)?.state.lock().unwrap().entry.clone()
    }

    /// Returns what was seen of `id`'s requests.
    pub(super) fn measures(&self, id: &DeploymentId) -> Option<Measures> {
        let slot = self.slots.lock().unwrap().get(id)?.clone();
        let deployment = slot.state.lock().unwrap().deployment.clone()?;
        Some(deployment.measures(self.epoch))
    }

    /// Returns each deployment with routes and whether its users can connect.
    pub(super) fn listening(&self) -> BTreeMap<DeploymentId, Listening> {
        let slots = self.slots.lock().unwrap();
        let listening = slots.iter().filter_map(|(id, slot)| {
            let state = slot.state.lock().unwrap();
            let address = state.entry.as_ref()?.held()?.listening;
            let (error, unstored) = (state.error.clone(), state.unstored.clone());
            Some((id.clone(), Listening { address, error, unstored }))
        });
        listening.collect()
    }

    /// Tries again to listen where it failed.
    pub(super) fn listen_again(&self) {
        let slots = self.slots.lock().unwrap().clone();
        for (id, slot) in slots {
            // One that is being changed sees to it itself.
            let (Ok(_changing), Ok(_moving)) = (slot.changing.try_lock(), self.stillness.try_read()) else { continue };
            let Some((address, deployment)) = slot.state.lock().unwrap().deaf() else { continue };
            let heard = bind(address).and_then(|socket| Listener::start(socket, deployment, &self.shared));
            // Said before the state is locked, as whoever looks for the holder locks the states of others.
            let heard = heard.map_err(|cause| self.listen_error(address, &id, &cause).to_string());
            let mut state = slot.state.lock().unwrap();
            match heard {
                Ok(listener) => (state.listener, state.error) = (Some(listener), None),
                Err(error) => {
                    if state.error.as_ref() != Some(&error) {
                        tracing::error!(error);
                    }
                    state.error = Some(error);
                }
            }
        }
    }

    /// Lets go of connections to nodes that have been idle for too long.
    pub(super) fn sweep(&self) {
        let slots = self.slots.lock().unwrap().clone();
        for slot in slots.values() {
            let deployment = slot.state.lock().unwrap().deployment.clone();
            deployment.iter().for_each(|deployment| deployment.sweep());
        }
    }

    fn slot(&self, id: &DeploymentId) -> Arc<Slot> {
        self.slots.lock().unwrap().entry(id.clone()).or_default().clone()
    }

    /// A node at an address where this proxy listens would send every request round in circles.
    fn check_loops(&self, routes: &Routes) -> Result<(), Refusal> {
        let listening = self.listening();
        for node in routes.backends.values().flat_map(|backends| &backends.nodes) {
            if let Some((id, _)) = listening.iter().find(|(_, listening)| listening.address == node.address) {
                let reason =
                    format!("node {} has the address {}, where users of {id} connect", node.effect, node.address);
                return Err(Refusal::Invalid { deployment: routes.deployment.clone(), reason });
            }
        }
        Ok(())
    }

    /// Returns where to listen for `routes`, and a socket unless the slot listens there already.
    fn socket(
        &self,
        slot: &Slot,
        routes: &Routes,
        before: Option<SocketAddr>,
    ) -> Result<(SocketAddr, Option<TcpListener>), ChangeError> {
        let address = routes.listen.or(before).unwrap_or(ANY_PORT);
        let current = slot.state.lock().unwrap().listener.as_ref().map(|listener| listener.address);
        if current == Some(address) {
            return Ok((address, None));
        }
        let bound = bind(address).and_then(|socket| Ok((socket.local_addr()?, Some(socket))));
        bound.map_err(|cause| self.listen_error(address, &routes.deployment, &cause))
    }

    fn listen_error(&self, address: SocketAddr, id: &DeploymentId, cause: &io::Error) -> ChangeError {
        let holder = self.slots.lock().unwrap().iter().find_map(|(other, slot)| {
            let state = slot.state.lock().unwrap();
            let listener = state.listener.as_ref()?;
            (listener.address == address).then(|| format!("{other} listens there"))
        });
        let cause = match (holder, cause.kind()) {
            (Some(holder), _) => holder,
            (None, io::ErrorKind::AddrInUse) => "the address is in use".to_owned(),
            (None, _) => cause.to_string(),
        };
        ChangeError::Listen { address, deployment: id.clone(), cause }
    }

    /// Writes `entry`, as long as that may take. A write that takes longer goes on.
    async fn store(&self, slot: &Slot, id: &DeploymentId, entry: Entry) -> io::Result<()> {
        let (folder, deployment) = (self.folder.clone(), id.clone());
        let stored = async {
            let mut writing = slot.writing.lock().await;
            if let Some(before) = writing.as_mut() {
                let _ = before.await; // what came of it does not matter: this one is newer
            }
            let write = writing.insert(tokio::task::spawn_blocking(move || disk::store(&folder, &deployment, &entry)));
            let stored = write.await;
            *writing = None;
            stored.unwrap_or_else(|panic| Err(io::Error::other(panic)))
        };
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("the disk took longer than {DISK_MAX:?}"));
        tokio::time::timeout(DISK_MAX, stored).await.unwrap_or_else(|_| Err(late()))
    }
}

impl State {
    /// Returns where it should listen and does not.
    fn deaf(&self) -> Option<(SocketAddr, Arc<Deployment>)> {
        match (&self.entry, &self.deployment, &self.listener) {
            (Some(Entry::Routed(held)), Some(deployment), None) => Some((held.listening, deployment.clone())),
            _ => None,
        }
    }
}

impl Slot {
    /// Says whether a write is under way.
    fn is_writing(&self) -> bool {
        self.writing.try_lock().map_or(true, |writing| writing.as_ref().is_some_and(|write| !write.is_finished()))
    }

    /// Notes whether what is served is on disk, and logs when that changes.
    fn note(&self, deployment: &DeploymentId, stored: io::Result<()>) {
        let unstored = stored.err().map(|cause| cause.to_string());
        let before = std::mem::replace(&mut self.state.lock().unwrap().unstored, unstored.clone());
        match (before, unstored) {
            (None, Some(cause)) => {
                tracing::error!(%deployment, cause, "its routes are served and cannot be written: a proxy that starts would serve older ones");
            }
            (Some(_), None) => tracing::warn!(%deployment, "its routes are on disk again"),
            _ => {}
        }
    }

    /// Serves `held`, on `socket` if it is a new one, and returns the listener that it replaces.
    fn serve(&self, held: &HeldRoutes, socket: Option<TcpListener>, shared: &Shared) -> Option<Listener> {
        let mut state = self.state.lock().unwrap();
        let deployment = match &state.deployment {
            Some(deployment) => {
                deployment.apply(&held.routes);
                deployment.clone()
            }
            None => Arc::new(Deployment::new(&held.routes)),
        };
        state.entry = Some(Entry::Routed(held.clone()));
        state.deployment = Some(deployment.clone());
        state.error = None;
        let socket = socket?;
        match Listener::start(socket, deployment, shared) {
            Ok(listener) => state.listener.replace(listener),
            Err(error) => {
                state.error = Some(error.to_string());
                state.listener.take()
            }
        }
    }
}
