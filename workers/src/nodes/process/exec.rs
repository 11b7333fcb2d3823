//! The launcher's second half, the hidden `ionledger node-exec`: a process of one thread that makes itself fit to be the
//! node and then becomes it by exec.
//!
//! With an identity it is that user when it becomes the node, with no capability and no way to gain one. Before that it makes
//! sure that this user can come to the artifact and to the working folder.
//!
//! It answers on its stdout: nothing and the end of the stream if it became the node, else the [`Fault`] as JSON.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, Gid, Mode, Uid, fchmod, fchown, fcntl_lock};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use schemas::Timestamp;
use tokio::signal::unix::SignalKind;

use super::folder::{Folder, Mark, Record};
use super::{env, life, log};
use crate::identity::Identity;
use crate::nodes::{Fault, Launch};
use crate::{proc_stat, rights};

/// The exit code of node-exec if the node runs already or is being started by another launcher.
pub const ALREADY_RUNNING: u8 = 9;

/// How often and how far apart exec is tried while another process still has the artifact open for writing.
const BUSY_TRIES: u32 = 100;
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// What a node's own files are made with: the usual one, whatever ionledger's own is.
const NODE_UMASK: Mode = Mode::from_raw_mode(0o022);

enum Refusal {
    AlreadyRunning,
    Fault(Fault),
}

/// Becomes the node of the folder `dir`, running the file `artifact` as `identity`; without one as who it is. Returns only if
/// that failed.
pub fn node_exec(dir: &Path, artifact: &Path, identity: Option<&Identity>) -> ExitCode {
    rustix::process::umask(NODE_UMASK);
    // A duplicate that is closed on exec, so that the launcher sees the stream's end when the node has begun.
    let answer = io::stdout().as_fd().try_clone_to_owned();
    let folder = Folder { path: dir.to_owned() };
    match become_node(&folder, artifact, identity) {
        Refusal::AlreadyRunning => ExitCode::from(ALREADY_RUNNING),
        Refusal::Fault(fault) => {
            if let (Ok(answer), Ok(json)) = (answer, serde_json::to_vec(&fault)) {
                let _ = File::from(answer).write_all(&json); // a launcher that is gone need not know
            }
            ExitCode::FAILURE
        }
    }
}

fn become_node(folder: &Folder, artifact: &Path, identity: Option<&Identity>) -> Refusal {
    match prepare(folder, artifact, identity) {
        Err(refusal) => refusal,
        Ok((mut command, lock)) => {
            let became = identity.map_or(Ok(()), Identity::become_for_good);
            let fault = match became {
                Ok(()) => exec(&mut command, artifact),
                Err(cause) => Fault::Permanent(cannot_become(&cause)),
            };
            let _ = folder.remove_record(); // it speaks of this process, which is not going to be the node
            drop(lock);
            Refusal::Fault(fault)
        }
    }
}

fn prepare(folder: &Folder, artifact: &Path, identity: Option<&Identity>) -> Result<(Command, OwnedFd), Refusal> {
    rustix::process::setsid().map_err(|cause| permanent(format!("cannot begin a session of its own: {cause}")))?;
    let lock = take_lock(folder)?;
    // Only now: whoever stops this effect sets the mark first and looks at the lock then, so one of us sees the other.
    if folder.has(Mark::Stopped).map_err(retryable)? {
        return Err(permanent("the node was stopped before it started".into()));
    }
    let launch = folder.launch().map_err(retryable)?.ok_or_else(|| permanent("launch.json is missing".into()))?;
    refuse_beside_leftovers(folder, &launch)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, launch.port));
    refuse_taken_port(address)?;
    refuse_what_is_no_program(artifact)?;
    let home = fs::canonicalize(folder.work()).map_err(retryable)?;
    let data = folder.path.ancestors().nth(2).unwrap_or(&folder.path);
    let env = env::of(&launch, &home, data).map_err(|cause| match cause.lasting {
        true => hopeless(cause.to_string()),
        false => permanent(cause.to_string()),
    })?;
    let log = log::open(folder).map_err(retryable)?;
    let also_log = log.try_clone().map_err(retryable)?;
    if let Some(identity) = identity {
        hand_over(identity, &home, &log).map_err(retryable)?;
        check_reach(identity, &home, artifact).map_err(permanent)?;
    }

    let mut command = Command::new(artifact);
    command.args(launch.args.iter().map(|arg| arg.replace("{port}", &launch.port.to_string())));
    command.env_clear().envs(env).current_dir(home);
    command.stdin(Stdio::null()).stdout(log).stderr(also_log);
    close_on_exec_all_but(&lock).map_err(retryable)?;
    folder.write_record(&describe_self(&launch, address).map_err(retryable)?).map_err(retryable)?;
    Ok((command, lock))
}

/// Takes the lock on a descriptor that stays open across exec: closing it would let the lock go.
fn take_lock(folder: &Folder) -> Result<OwnedFd, Refusal> {
    let path = folder.lock();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path).map_err(retryable)?;
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::AGAIN | Errno::ACCESS) => return Err(Refusal::AlreadyRunning),
        Err(cause) => return Err(retryable(cause.into())),
    }
    fcntl_setfd(&file, FdFlags::empty()).map_err(|cause| retryable(cause.into()))?;
    Ok(file.into())
}

/// Gives the user what is the node's: its working folder, and its log, which a program may open anew as `/dev/stdout`.
fn hand_over(identity: &Identity, home: &Path, log: &File) -> io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(identity.uid)), Some(Gid::from_raw(identity.gid)));
    fchown(log, uid, gid)?;
    fchmod(log, Mode::from_raw_mode(0o600))?;
    let home = File::open(home)?;
    fchown(&home, uid, gid)?;
    fchmod(&home, Mode::from_raw_mode(0o700))?;
    Ok(())
}

/// Makes sure, as this user, that it can come to its working folder and to the artifact.
fn check_reach(identity: &Identity, home: &Path, artifact: &Path) -> Result<(), String> {
    let tried = identity.act(|| {
        let folder = [home, artifact].into_iter().find_map(rights::unsearchable_above);
        (folder, File::open(artifact).map(drop))
    });
    match tried {
        Err(cause) => Err(cannot_become(&cause)),
        Ok((Some(folder), _)) => Err(unsearchable(&folder)),
        Ok((None, Err(cause))) => {
            Err(format!("user {} cannot read artifact {}: {cause}", identity.uid, artifact.display()))
        }
        Ok((None, Ok(()))) => Ok(()),
    }
}

/// The message of who finds a folder on the way to nodes closed to the users that they run as.
pub(super) fn unsearchable(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "nodes run as users of their own, and these cannot search the folder {folder}; `chmod o+x {folder}`, or use a data \
         folder elsewhere, as /var/lib/ionledger"
    )
}

/// The message of who cannot be another user.
pub(super) fn cannot_become(cause: &io::Error) -> String {
    format!(
        "cannot run a node as a user of its own: {cause}; root needs capabilities for it: give ionledger those that docs/machine.md lists, or run it as another user"
    )
}

/// A start that died before it was acknowledged may be repeated, but not beside what it left behind.
fn refuse_beside_leftovers(folder: &Folder, launch: &Launch) -> Result<(), Refusal> {
    if folder.record().map_err(retryable)?.is_none() {
        return Ok(());
    }
    let left: Vec<_> = life::named(launch.effect).map_err(retryable)?.iter().map(|m| m.pid.to_string()).collect();
    match left.is_empty() {
        true => Ok(()),
        false => Err(permanent(format!("an earlier start left processes behind ({}); stop the node", left.join(", ")))),
    }
}

fn refuse_taken_port(address: SocketAddr) -> Result<(), Refusal> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(cause) if cause.kind() == io::ErrorKind::AddrInUse => {
            Err(permanent(format!("port {} is in use by another program; launch on another port", address.port())))
        }
        Err(cause) => Err(permanent(format!("cannot listen on {address}: {cause}"))),
    }
}

/// The C library hands what the kernel will not run to a shell; an artifact is run as what it says it is or not at all.
fn refuse_what_is_no_program(artifact: &Path) -> Result<(), Refusal> {
    let unreadable = |cause| permanent(format!("cannot read artifact {}: {cause}", artifact.display()));
    let program = Program::of(artifact).map_err(unreadable)?;
    let ours = Program::of(Path::new("/proc/self/exe")).map_err(retryable)?;
    let why = match (program, ours) {
        (Program::Script, _) => return Ok(()),
        (Program::Elf(its), Program::Elf(our)) if its == our || OLDER_SIBLINGS.contains(&(our, its)) => return Ok(()),
        (Program::Elf(its), _) => format!("is built for another machine (ELF machine {its})"),
        (Program::Other, _) => "is not a program: it begins neither as an ELF executable nor with `#!`".to_owned(),
    };
    Err(hopeless(format!("artifact {} {why}", artifact.display())))
}

/// Machines, by their ELF numbers, that also run programs of another: x86-64 those of i386, AArch64 those of Arm.
const OLDER_SIBLINGS: [(u16, u16); 2] = [(62, 3), (183, 40)];

#[derive(Clone, Copy)]
enum Program {
    Script,
    /// An executable for the machine with this number.
    Elf(u16),
    Other,
}

impl Program {
    fn of(path: &Path) -> io::Result<Self> {
        let mut start = Vec::new();
        File::open(path)?.take(20).read_to_end(&mut start)?;
        Ok(match start.as_slice() {
            [b'#', b'!', ..] => Program::Script,
            short if short.len() < 20 => Program::Other,
            // Bytes 16 and 17 are the type, of which 2 and 3 can be run, and 18 and 19 the machine.
            [0x7f, b'E', b'L', b'F', .., 2 | 3, 0, low, high] => Program::Elf(u16::from_le_bytes([*low, *high])),
            [0x7f, b'E', b'L', b'F', .., 0, 2 | 3, high, low] => Program::Elf(u16::from_le_bytes([*low, *high])),
            _ => Program::Other,
        })
    }
}

fn describe_self(launch: &Launch, address: SocketAddr) -> io::Result<Record> {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let stat = proc_stat::stat(pid)?.ok_or_else(|| io::Error::other("/proc does not show this process"))?;
    Ok(Record {
        effect: launch.effect,
        pid,
        start_ticks: stat.start_ticks,
        boot_id: life::boot_id()?,
        address,
        artifact: launch.artifact,
        launched_at: Timestamp::now(),
    })
}

/// Replaces this process by the node. Returns only if that failed.
fn exec(command: &mut Command, artifact: &Path) -> Fault {
    let _handlers = match unignore_signals() {
        Ok(handlers) => handlers,
        Err(cause) => return Fault::Retryable(format!("cannot reset signals: {cause}")),
    };
    let mut tries = 0;
    loop {
        let cause = command.exec(); // it also empties the signal mask and resets SIGPIPE
        tries += 1;
        // Another thread of ionledger that forks while an artifact is being copied holds it open until its own exec.
        if cause.kind() == io::ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES {
            std::thread::sleep(BUSY_PAUSE);
            continue;
        }
        let reason = format!("cannot run artifact {}: {cause}", artifact.display());
        return match Errno::from_io_error(&cause) {
            Some(Errno::NOMEM | Errno::TXTBSY) => Fault::Retryable(reason),
            // Its interpreter is missing, it may not be run, it is no program, its arguments are too long.
            Some(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::PERM | Errno::NOEXEC | Errno::TOOBIG) => {
                Fault::Hopeless(reason)
            }
            _ => Fault::Permanent(reason),
        };
    }
}

/// Lets no ignored signal through to the node, as `nohup` makes them. A handled signal becomes a default one on exec, so a
/// handler is all it takes. What is returned must live until then.
fn unignore_signals() -> io::Result<Option<tokio::runtime::Runtime>> {
    let ignored = ignored_signals()?;
    if ignored.is_empty() {
        return Ok(None);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    for signal in ignored {
        let _handler = tokio::signal::unix::signal(SignalKind::from_raw(signal))?; // stays when this is dropped
    }
    drop(entered);
    Ok(Some(runtime))
}

/// Returns the ignored signals that a process may handle. SIGPIPE (13) is left out: Rust ignores it, and exec resets it.
fn ignored_signals() -> io::Result<Vec<i32>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).map(str::trim).unwrap_or_default();
    let mask = u64::from_str_radix(mask, 16).map_err(io::Error::other)?;
    const NOT_TO_BE_HANDLED: [i32; 6] = [4, 8, 9, 11, 13, 19]; // SIGILL, SIGFPE, SIGKILL, SIGSEGV, SIGPIPE, SIGSTOP
    Ok((1..=31).filter(|n| mask & (1 << (n - 1)) != 0 && !NOT_TO_BE_HANDLED.contains(n)).collect())
}

/// Sees to it that the node inherits nothing but stdin, stdout, stderr and its lock.
#[allow(unsafe_code)]
fn close_on_exec_all_but(lock: &OwnedFd) -> io::Result<()> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if number > 2 && number != lock.as_raw_fd() {
            // SAFETY: the descriptor is only borrowed for this call, in the process's only thread, and the kernel has
            // just said that it is open.
            let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
            fcntl_setfd(fd, FdFlags::CLOEXEC)?;
        }
    }
    Ok(())
}

fn permanent(reason: String) -> Refusal {
    Refusal::Fault(Fault::Permanent(reason))
}

fn hopeless(reason: String) -> Refusal {
    Refusal::Fault(Fault::Hopeless(reason))
}

fn retryable(cause: io::Error) -> Refusal {
    Refusal::Fault(Fault::Retryable(format!("cannot prepare the node: {cause}")))
}
