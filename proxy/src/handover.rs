//! A handover: a proxy that starts takes the listening sockets of the one that runs, so that no user is refused between.
//!
//! The one that runs serves on, and changes wait, until the other serves the same routes on the same sockets and says so.
//! Only then does the first one end. If either falls silent before that, nothing has changed.
//!
//! On the socket `handover.sock` each side says a line of JSON in turn: `Greeting`, `"next"`, `Batch` with its sockets
//! (`SCM_RIGHTS`), `"next"`, ..., `"mine"`.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use schemas::DeploymentId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::registry::{Registry, Sockets};

/// How long either side waits for the other.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// How many sockets go at a time; the kernel takes 253.
const BATCH: usize = 64;

/// The longest line, in bytes.
const LINE_MAX: usize = 64 * 1_024;

/// What the proxy that runs says first.
#[derive(Debug, Serialize, Deserialize)]
struct Greeting {
    /// How many sockets there are.
    sockets: usize,
    /// Whether it answers its operators: see [`super::Config::watched`].
    watched: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Batch {
    sockets: Vec<(DeploymentId, SocketAddr)>,
}

/// What the proxy that starts says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Say {
    /// It is ready for the next batch.
    Next,
    /// It serves.
    Mine,
}

/// Which proxy may be taken over from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TakeOver {
    /// None: while one runs, another does not start.
    #[default]
    Never,
    /// One that does not answer its operators, as the one that `up` starts.
    Unwatched,
    /// Any.
    Always,
}

/// What has been taken; dropped, nothing has changed.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) stream: Successor,
    pub(super) sockets: Sockets,
}

/// The way back to the other proxy.
#[derive(Debug)]
pub(super) struct Successor(UnixStream);

impl Successor {
    /// Says that the sockets are served here now, so that the other proxy ends.
    pub(super) fn say_mine(&mut self) -> io::Result<()> {
        say(&mut self.0, &Say::Mine, &[])
    }
}

/// Takes the sockets of the proxy that listens at `path`, or nothing if `terms` do not let it.
pub(super) fn take(path: &Path, terms: TakeOver) -> io::Result<Option<Taken>> {
    let mut stream = patient(UnixStream::connect(path)?)?;
    let (Greeting { sockets: count, watched }, _) = hear(&mut stream)?;
    if terms == TakeOver::Never || terms == TakeOver::Unwatched && watched {
        return Ok(None);
    }
    let mut sockets = Sockets::new();
    while sockets.len() < count {
        say(&mut stream, &Say::Next, &[])?;
        let (batch, descriptors): (Batch, _) = hear(&mut stream)?;
        if batch.sockets.is_empty() || batch.sockets.len() != descriptors.len() {
            return Err(io::Error::other("it did not hand over as many sockets as it said"));
        }
        for ((id, address), descriptor) in batch.sockets.into_iter().zip(descriptors) {
            let socket = TcpListener::from(descriptor);
            if socket.local_addr()? != address {
                return Err(io::Error::other(format!("the socket of {id} does not listen on {address}")));
            }
            sockets.insert(id, socket);
        }
    }
    for socket in sockets.values() {
        socket.set_nonblocking(true)?;
    }
    Ok(Some(Taken { stream: Successor(stream), sockets }))
}

/// Hands the sockets of `registry` to whoever asks on `socket`, and cancels `gone` once they are served elsewhere.
pub(super) async fn serve(socket: UnixListener, registry: Arc<Registry>, watched: bool, gone: CancellationToken) {
    loop {
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a handover");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let still = registry.still().await;
        // The other proxy serves what is on disk.
        if !registry.store_again().await {
            tracing::warn!("another proxy asked for the sockets and gets none: what is served here is not all on disk");
            continue;
        }
        let sockets = registry.sockets();
        let handed = tokio::task::spawn_blocking(move || give(stream.into_std()?, &sockets, watched)).await;
        match handed.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok(()) => {
                gone.cancel();
                // What comes now is the other's to change.
                std::future::pending::<()>().await;
            }
            Err(error) => tracing::warn!(%error, "another proxy asked for the sockets and did not take over"),
        }
        drop(still);
    }
}

/// Hands `sockets` over, and returns once the other side serves them.
fn give(
    stream: UnixStream,
    sockets: &[(DeploymentId, SocketAddr, Arc<tokio::net::TcpListener>)],
    watched: bool,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let mut stream = patient(stream)?;
    say(&mut stream, &Greeting { sockets: sockets.len(), watched }, &[])?;
    for part in sockets.chunks(BATCH) {
        expect(&mut stream, Say::Next)?;
        let batch = Batch { sockets: part.iter().map(|(id, address, _)| (id.clone(), *address)).collect() };
        let descriptors: Vec<BorrowedFd<'_>> = part.iter().map(|(_, _, socket)| socket.as_fd()).collect();
        say(&mut stream, &batch, &descriptors)?;
    }
    expect(&mut stream, Say::Mine)
}

fn expect(stream: &mut UnixStream, wanted: Say) -> io::Result<()> {
    match hear::<Say>(stream)? {
        (said, _) if said == wanted => Ok(()),
        (said, _) => Err(io::Error::other(format!("it said {said:?} instead of {wanted:?}"))),
    }
}

fn patient(stream: UnixStream) -> io::Result<UnixStream> {
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    Ok(stream)
}

/// Writes a line, with `descriptors` beside its first byte.
fn say(stream: &mut UnixStream, line: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(BATCH))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many sockets at a time"));
    }
    let written = sendmsg(stream.as_fd(), &[IoSlice::new(&bytes)], &mut beside, SendFlags::NOSIGNAL)?;
    stream.write_all(&bytes[written..])
}

/// Reads a line and the descriptors beside it.
fn hear<T: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<(T, Vec<OwnedFd>)> {
    let (mut line, mut descriptors, mut part) = (Vec::new(), Vec::new(), [0; 4_096]);
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(BATCH))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let first = recvmsg(stream.as_fd(), &mut [IoSliceMut::new(&mut part)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    let mut count = first.bytes;
    loop {
        line.extend_from_slice(&part[..count]);
        if count == 0 || line.ends_with(b"\n") || line.len() > LINE_MAX {
            break;
        }
        count = stream.read(&mut part)?;
    }
    if !line.ends_with(b"\n") {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up"));
    }
    Ok((serde_json::from_slice(&line)?, descriptors))
}
