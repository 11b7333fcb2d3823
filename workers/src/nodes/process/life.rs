//! Whether a node lives, and which processes are its own.
//!
//! A node holds a POSIX record lock on its `lock` file from before it is recorded until it dies: such a lock stays with
//! the process across exec, is let go by the kernel however the process ends (a zombie holds none), and is not handed
//! down to children. `F_GETLK` tells who holds it without ever taking it, so a look cannot make a launch fail; and what
//! it tells is the living holder's pid from the kernel itself, so a pid that has passed on to a stranger is never
//! believed. (`flock` could only be probed by taking it, and `/proc/locks` is not read at one instant.)
//!
//! A program that closes every descriptor it has inherited lets the lock go. It is still known by its pid, start and boot.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::OnceLock;

use rustix::process::{Flock, FlockType, Pid, PidfdFlags, fcntl_getlk, pidfd_open};
use schemas::EffectId;

use super::folder::{Folder, Record};
use crate::proc_stat::{Stat, stat};

/// What is known of a node's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// Nothing was ever recorded, and nobody holds the lock.
    Absent,
    /// Somebody holds the lock who has not recorded itself yet.
    Starting,
    /// The recorded process lives.
    Running(Record),
    /// The recorded process is gone.
    Dead(Record),
}

/// Who holds a node's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Nobody,
    Process(Pid),
    /// A process that cannot be seen from here, as in another container.
    Unseen,
}

/// A process of a node, held by a descriptor that can never come to mean another.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) pid: Pid,
    pub(super) start_ticks: u64,
    pub(super) pidfd: OwnedFd,
}

pub(super) fn inspect(folder: &Folder) -> io::Result<Life> {
    let holder = holder(&folder.lock())?;
    let Some(record) = folder.record()? else {
        return Ok(if holder == Holder::Nobody { Life::Absent } else { Life::Starting });
    };
    let lives = is_alive(&record)?;
    match holder {
        Holder::Process(pid) if pid.as_raw_nonzero().get() == record.pid && lives => Ok(Life::Running(record)),
        Holder::Process(_) | Holder::Unseen => Ok(Life::Starting),
        Holder::Nobody if lives => Ok(Life::Running(record)),
        Holder::Nobody => Ok(Life::Dead(record)),
    }
}

/// Returns who holds the lock. Must not be called by the holder itself: closing the file lets its lock go.
pub(super) fn holder(lock: &Path) -> io::Result<Holder> {
    let file = match fs::File::open(lock) {
        Ok(file) => file,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(Holder::Nobody),
        Err(fault) => return Err(fault),
    };
    Ok(match fcntl_getlk(&file, &Flock::from(FlockType::WriteLock))? {
        None => Holder::Nobody,
        Some(Flock { pid: Some(pid), .. }) => Holder::Process(pid),
        Some(Flock { pid: None, .. }) => Holder::Unseen,
    })
}

fn is_alive(record: &Record) -> io::Result<bool> {
    Ok(record.boot_id == boot_id()? && is_same_process(record)?)
}

/// Says whether the process of a record that was made in this boot lives.
pub(super) fn is_same_process(record: &Record) -> io::Result<bool> {
    let same = |stat: Stat| stat.start_ticks == record.start_ticks && !stat.is_dead();
    Ok(stat(record.pid)?.is_some_and(same))
}

/// Returns this boot's id, which no other boot of any machine has.
pub(super) fn boot_id() -> io::Result<String> {
    static ID: OnceLock<String> = OnceLock::new();
    if let Some(id) = ID.get() {
        return Ok(id.clone());
    }
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
    Ok(ID.get_or_init(|| id).clone())
}

/// Returns the processes that are proven to be the node's: its own, while the lock or its record proves it, with that
/// process's session; and every process whose environment names the effect, which only a node's descendants have.
pub(super) fn members(folder: &Folder, effect: EffectId) -> io::Result<Vec<Member>> {
    let leader = leader(folder)?;
    let in_session = |stat: Stat| leader == Some(stat.session);
    let mut found = scan(|pid, stat| in_session(stat) || names_effect(pid, effect))?;
    // The session was the node's as long as its leader lived; if that has died meanwhile, each must be proven by name.
    if leader.is_some() && self::leader(folder)? != leader {
        found.retain(|member| names_effect(member.pid.as_raw_nonzero().get(), effect));
    }
    Ok(found)
}

/// Returns the processes whose environment names the effect. Unlike `members` it does not touch the lock, so its holder
/// may call it.
pub(super) fn named(effect: EffectId) -> io::Result<Vec<Member>> {
    scan(|pid, _| names_effect(pid, effect))
}

fn scan(wanted: impl Fn(i32, Stat) -> bool) -> io::Result<Vec<Member>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(Some(seen)) = stat(pid) else { continue }; // of another user, or gone
        if !seen.is_dead() && wanted(pid, seen) {
            found.extend(hold(pid, seen)?);
        }
    }
    Ok(found)
}

/// Returns the pid of the node's own process, or of what is about to become it, if it lives.
fn leader(folder: &Folder) -> io::Result<Option<i32>> {
    if let Holder::Process(pid) = holder(&folder.lock())? {
        return Ok(Some(pid.as_raw_nonzero().get()));
    }
    Ok(folder.record()?.map(|record| is_alive(&record).map(|lives| lives.then_some(record.pid))).transpose()?.flatten())
}

/// Returns the process as a descriptor if it still is the one that was seen.
fn hold(pid: i32, seen: Stat) -> io::Result<Option<Member>> {
    let Some(pid) = Pid::from_raw(pid) else { return Ok(None) };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(fault) => return Err(fault.into()),
    };
    let now = stat(pid.as_raw_nonzero().get())?;
    let same = now.is_some_and(|now| now.start_ticks == seen.start_ticks && now.session == seen.session);
    Ok(same.then_some(Member { pid, start_ticks: seen.start_ticks, pidfd }))
}

/// Returns whether the process's environment was made for this effect. One that cannot be read proves nothing.
fn names_effect(pid: i32, effect: EffectId) -> bool {
    let wanted = format!("{}={effect}", super::env::NODE);
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes()))
}

impl Member {
    /// Returns whether the process has ended; a zombie has.
    pub(super) fn is_gone(&self) -> io::Result<bool> {
        let now = stat(self.pid.as_raw_nonzero().get())?;
        Ok(now.is_none_or(|now| now.start_ticks != self.start_ticks || now.is_dead()))
    }
}
