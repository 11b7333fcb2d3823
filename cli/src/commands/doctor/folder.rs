//! The data folder: who may use it, who holds it, its log, its cache, and the disk and clock under it.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use ledger::log::Log;
use ledger::log::segments::{Elsewhere, FORMAT, SegmentsOpenError, SegmentsReader, elsewhere};
use replay::{Moment, Reader};
use schemas::{ErrorText, Offset};
use workers::nodes::process;
use workers::{identity, rights};

use super::{AS_OWNER, Finding};
use crate::not_allowed::{is_closed, not_allowed};
use crate::render::words::{count, grouped, length};

/// Below this much free space the disk wants attention, in bytes.
const FREE_WARN: u64 = 1 << 30;

/// Below this much free space nothing but rollbacks may soon be taken, in bytes.
const FREE_FAIL: u64 = 16 << 20;

/// What the log keeps allocated for rollbacks on a full disk, in bytes. Source: design, "The log", Embedded.
const RESERVE: u64 = 1 << 20;

/// How many open files the proxy should be allowed: two a request at hand.
const FILES_WARN: u64 = 4_096;

/// Looks at the data folder and the machine under it.
pub(super) async fn findings(data: &Path) -> Vec<Finding> {
    if !data.is_dir() {
        let next = "start `ionledger up`, which makes it, or name another with --data";
        return vec![Finding::fail("data folder", format!("{} is not there", data.display()), next)];
    }
    if is_closed(data) {
        return vec![stranger(data), disk(data), open_files()];
    }
    let (lock, is_held) = holder(data);
    let mut findings = vec![access(data), rights(data), nodes(data), lock];
    let log = SegmentsReader::open(data, None);
    findings.push(log_of(data, &log));
    findings.extend(torn(data));
    findings.push(reserve(data));
    findings.push(disk(data));
    findings.push(open_files());
    if let Ok(Some(elsewhere)) = elsewhere(data) {
        findings.push(elsewhere_cache(data, &elsewhere));
    } else if let Ok(log) = log {
        let end = *log.end().borrow();
        findings.extend(contents(data, end).await);
        findings.push(cache(data, end, is_held));
    }
    findings
}

/// The cache of a ledger that lies elsewhere: how far it is says nothing about the log that this folder had before.
fn elsewhere_cache(data: &Path, elsewhere: &Elsewhere) -> Finding {
    const THING: &str = "cache";
    let next = "its next start makes it again; it can be removed while nothing runs";
    if !data.join("replay").exists() {
        return Finding::ok(THING, "none; an API that starts here makes it");
    }
    match replay::Projection::open_if_free(data) {
        Err(error @ replay::projection::ProjectionOpenError::InUse(_)) => Finding::ok(THING, error.to_string()),
        Err(error) => Finding::warn(THING, error.to_string(), next),
        Ok(cache) => match cache.found_damaged() {
            Some(what) => Finding::warn(THING, format!("damaged: {what}"), next),
            None => {
                let next = *cache.next_offset().borrow();
                Finding::ok(THING, format!("{} records of {} folded", grouped(next.0), elsewhere.place))
            }
        },
    }
}

/// A folder that this user may not look into: what is in it is not guessed.
fn stranger(data: &Path) -> Finding {
    let (what, next) = ErrorText::of(not_allowed(data).whole()).hint_or(AS_OWNER);
    Finding::fail("data folder", what, next)
}

fn access(data: &Path) -> Finding {
    const THING: &str = "data folder";
    match fs::metadata(data) {
        Err(error) => Finding::fail(THING, format!("{}: {error}", data.display()), AS_OWNER),
        Ok(found) if found.mode() & 0o002 != 0 => Finding::fail(
            THING,
            format!("everybody may write to {}: anyone on this machine can act as a person", data.display()),
            format!("chmod o-w {}", data.display()),
        ),
        Ok(found) if found.mode() & 0o020 != 0 => Finding::warn(
            THING,
            format!("the group of {} may write to it: group {} can act as persons", data.display(), found.gid()),
            format!("if that is not meant: chmod g-w {}", data.display()),
        ),
        Ok(_) => Finding::ok(THING, data.display().to_string()),
    }
}

/// What others may use of the folder and should not.
fn rights(data: &Path) -> Finding {
    const THING: &str = "rights";
    match rights::open_in(data) {
        Err(error) => Finding::warn(THING, format!("the file permissions cannot be read: {error}"), AS_OWNER),
        Ok(open) => match open.first() {
            None => Finding::ok(THING, "secrets, log, cache and locks are closed to others"),
            Some(first) => {
                let (path, mode) = (first.path.display(), first.mode);
                let more = if open.len() > 1 { format!(", and {} more", open.len() - 1) } else { String::new() };
                Finding::warn(
                    THING,
                    format!("others may use more than they should: {path} has mode {mode:03o}{more}"),
                    "start `ionledger up` again as the folder's owner, which closes them",
                )
            }
        },
    }
}

/// As whom nodes run, and what that means.
fn nodes(data: &Path) -> Finding {
    const THING: &str = "nodes";
    let owner = fs::metadata(data).map(|found| found.uid()).unwrap_or_default();
    if owner != 0 {
        let user = identity::user_name(owner).unwrap_or_else(|| format!("user {owner}"));
        return Finding::warn(
            THING,
            format!(
                "run as {user}, as ionledger does: a service's program can read this ledger's secrets and those of every \
                 other service, and act on the socket as a person"
            ),
            "release only programs that you trust so far, or run `ionledger up` as root, which gives each service a user \
             of its own",
        );
    }
    let obstacle = identity::is_root().then(|| process::obstacle(data)).flatten();
    match obstacle {
        None => Finding::ok(THING, "each service's run as a user of its own, without any capability"),
        Some(obstacle) => {
            let (what, next) = ErrorText::of(obstacle).hint_or("start `ionledger up` again");
            Finding::fail(THING, what, next)
        }
    }
}

/// Who holds the folder, and whether anybody does.
fn holder(data: &Path) -> (Finding, bool) {
    const THING: &str = "lock";
    let path = data.join("lock");
    let free = (Finding::ok(THING, "nobody holds the folder"), false);
    let Ok(lock) = File::open(&path) else { return free };
    match lock.try_lock_shared() {
        Ok(()) => free,
        Err(TryLockError::Error(error)) => {
            (Finding::warn(THING, format!("{}: {error}", path.display()), "use a local disk"), false)
        }
        Err(TryLockError::WouldBlock) => {
            let pid = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let finding = match pid.is_empty() || command.is_empty() {
                true => Finding::warn(
                    THING,
                    format!("held by process {pid:?}, which cannot be seen from here"),
                    "look for it in other containers of this machine",
                ),
                false => Finding::ok(THING, format!("held by process {pid}: {}", command.trim())),
            };
            (finding, true)
        }
    }
}

fn log_of(data: &Path, log: &Result<SegmentsReader, SegmentsOpenError>) -> Finding {
    const THING: &str = "log";
    if let Ok(Some(elsewhere)) = elsewhere(data) {
        let before = log.as_ref().map_or(String::new(), |log| {
            format!("; the folder's own, which goes on there, has {} records", grouped(log.end().borrow().0))
        });
        return Finding::ok(THING, format!("lies in {}{before}", elsewhere.place));
    }
    match log {
        Ok(log) => {
            let segments = segments(data).len();
            Finding::ok(
                THING,
                format!("format {FORMAT}, {} records, {segments} segments", grouped(log.end().borrow().0)),
            )
        }
        Err(error @ SegmentsOpenError::NoLog(_)) => Finding::warn(THING, error.to_string(), "start `ionledger up`"),
        Err(error @ SegmentsOpenError::Format { .. }) => Finding::fail(THING, error.to_string(), "upgrade ionledger"),
        Err(error) => Finding::fail(THING, error.to_string(), "keep the folder as it is and run `ionledger verify`"),
    }
}

/// The segments, in the log's order.
fn segments(data: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(data.join("log")) else { return Vec::new() };
    let files = entries.flatten().map(|entry| entry.path());
    let mut segments: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl")).collect();
    segments.sort();
    segments
}

/// What earlier starts cut off and kept.
fn torn(data: &Path) -> Option<Finding> {
    let entries = fs::read_dir(data.join("log")).ok()?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let torn: Vec<String> = names.filter(|name| name.starts_with("torn-")).collect();
    (!torn.is_empty()).then(|| {
        let what = format!("{} torn tails were cut off at earlier starts: {}", torn.len(), torn.join(", "));
        Finding::warn(
            "torn tails",
            what,
            "they held nothing that was acknowledged; remove them once you have looked at them",
        )
    })
}

fn reserve(data: &Path) -> Finding {
    const THING: &str = "reserve";
    let segments = segments(data);
    let Some(found) = segments.last().and_then(|path| fs::metadata(path).ok()) else {
        return Finding::ok(THING, "no segment yet");
    };
    let kept = (found.blocks() * 512).saturating_sub(found.len());
    match kept >= RESERVE {
        true => Finding::ok(THING, format!("{} KiB are kept for rollbacks on a full disk", grouped(kept / 1024))),
        false => Finding::warn(
            THING,
            format!("only {} KiB are kept for rollbacks on a full disk", grouped(kept / 1024)),
            "free space and start `ionledger up` again; some file systems cannot keep any",
        ),
    }
}

fn disk(data: &Path) -> Finding {
    const THING: &str = "disk";
    let found = match rustix::fs::statvfs(data) {
        Ok(found) => found,
        Err(error) => return Finding::warn(THING, format!("free space is unknown: {error}"), "look with `df`"),
    };
    if found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        let what = format!("the file system of {} is read-only", data.display());
        return Finding::fail(THING, what, "the kernel's log says why; mount it writable again");
    }
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let what = format!("{} MiB are free", grouped(free >> 20));
    let next = format!("free space on the disk of {}", data.display());
    match free {
        free if free < FREE_FAIL => Finding::fail(THING, what, next),
        free if free < FREE_WARN => Finding::warn(THING, what, next),
        _ => Finding::ok(THING, what),
    }
}

fn open_files() -> Finding {
    const THING: &str = "open files";
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    match limit {
        Some(limit) if limit < FILES_WARN => Finding::warn(
            THING,
            format!("a process may open {} at most", grouped(limit)),
            format!(
                "raise it to {} or more (`ulimit -Hn`): the proxy needs two for each request in flight",
                grouped(FILES_WARN)
            ),
        ),
        Some(limit) => Finding::ok(THING, format!("a process may open {}", grouped(limit))),
        None => Finding::ok(THING, "a process may open any number"),
    }
}

/// Folds the log, for what it holds and for its time.
async fn contents(data: &Path, end: Offset) -> Vec<Finding> {
    const THING: &str = "ledger";
    let next = "run `ionledger verify`, which names the place";
    let status = match Reader::open(data).await {
        Ok(reader) => reader.status(Moment::Now, None, None).await,
        Err(error) => Err(error),
    };
    let status = match status {
        Ok(status) => status,
        Err(error) => return vec![Finding::fail(THING, error.to_string(), next)],
    };
    let Some(time) = status.at.time else {
        return vec![Finding::warn(THING, "it holds nothing yet", "start `ionledger up`")];
    };
    if let Some(to) = &status.moved_to {
        let next = format!("start `ionledger up --ledger {to}`, or move it back with `ionledger move`");
        return vec![Finding::warn(THING, format!("it was moved to {to} and accepts nothing more here"), next)];
    }
    let read_only = status.read_only.iter().map(super::running::read_only);
    // A clock behind the ledger's is harmless to the ledger, whose time only grows, but misleads whoever reads it.
    let ahead = time.duration_since(Timestamp::now());
    if ahead.as_secs() > 5 {
        let what = format!("this machine's clock is {} behind the ledger's last record", length(ahead));
        return vec![Finding::fail("clock", what, "set the clock, and keep it with NTP")];
    }
    let services = count(status.services.len() as u64, "service", "services");
    let holds = Finding::ok(THING, format!("{services}, folded to offset {}", end.0.saturating_sub(1)));
    [holds].into_iter().chain(read_only).collect()
}

fn cache(data: &Path, end: Offset, is_held: bool) -> Finding {
    const THING: &str = "cache";
    if is_held {
        return Finding::ok(THING, "in use by the process that holds the folder");
    }
    let folder = data.join("replay");
    if !folder.exists() {
        return Finding::ok(THING, "none; answers are folded from the log");
    }
    match replay::Projection::open(data) {
        Err(error @ replay::projection::ProjectionOpenError::InUse(_)) => Finding::ok(THING, error.to_string()),
        Err(error) => Finding::warn(
            THING,
            error.to_string(),
            format!("it can be removed while nothing runs: {}", folder.display()),
        ),
        Ok(cache) => match (cache.found_damaged(), *cache.next_offset().borrow()) {
            (Some(what), _) => Finding::warn(THING, format!("damaged: {what}"), "the next start makes it again"),
            (None, next) if next > end => Finding::fail(
                THING,
                format!("it has folded {} records, the log holds {}", grouped(next.0), grouped(end.0)),
                "the log was cut or is an older copy: put the newer one back",
            ),
            (None, next) => Finding::ok(THING, format!("{} of {} records folded", grouped(next.0), grouped(end.0))),
        },
    }
}

/// The permissions of a file in octal digits, as `ls` users know them.
pub(super) fn mode(path: &Path) -> Option<u32> {
    fs::symlink_metadata(path).ok().map(|found| found.permissions().mode() & 0o777)
}
