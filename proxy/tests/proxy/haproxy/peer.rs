//! Who stands beside the proxies: HAProxy itself, users with raw bytes, and nodes that record or recite.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::strict::{self, Seen};
use crate::stage::{serve_raw, within};

/// How long a node waits for the first request on a connection, and for more after its answer.
const FIRST: Duration = Duration::from_secs(10);
const MORE: Duration = Duration::from_millis(15);

/// Where users connect.
pub(super) enum Socket {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// HAProxy before one node, ended with the test.
pub(super) struct HaProxy {
    pub(super) socket: Socket,
    version: String,
    child: Child,
    _folder: TempDir,
}

impl HaProxy {
    /// Starts it before `node`.
    pub(super) fn start(node: SocketAddr) -> Result<Self, String> {
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let haproxy = || {
            let mut command = Command::new("haproxy");
            command.env("PATH", &path).stdin(Stdio::null());
            command
        };
        let version = haproxy().arg("-v").output().map_err(|error| format!("haproxy cannot be run ({error})"))?;
        let folder = tempfile::tempdir().unwrap();
        let (file, users) = (folder.path().join("haproxy.cfg"), folder.path().join("users.sock"));
        let text = format!(
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n  http-reuse never\n\
             frontend users\n  bind unix@{}\n  default_backend nodes\nbackend nodes\n  server one {node}\n",
            users.display()
        );
        fs::write(&file, text).unwrap();
        let child = haproxy().arg("-db").arg("-f").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.map_err(|error| error.to_string())?;
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        Ok(Self { socket: Socket::Unix(users), version, child, _folder: folder })
    }

    /// Returns whether it is of the version that the table was made with.
    pub(super) fn is_the_tables(&self) -> bool {
        self.version.starts_with("HAProxy version 2.6.")
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Socket {
    async fn open(&self) -> Box<dyn Stream> {
        within("the proxy takes users", async {
            loop {
                let opened: std::io::Result<Box<dyn Stream>> = match self {
                    Socket::Tcp(address) => TcpStream::connect(address).await.map(|stream| Box::new(stream) as _),
                    Socket::Unix(path) => UnixStream::connect(path).await.map(|stream| Box::new(stream) as _),
                };
                match opened {
                    Ok(stream) => return stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        })
        .await
    }
}

/// Sends `bytes`, which ask for the connection to be closed, and returns all that comes.
pub(super) async fn ask(socket: &Socket, bytes: &[u8]) -> Vec<u8> {
    let (mut stream, mut answer) = (socket.open().await, Vec::new());
    within("the connection is closed", async {
        stream.write_all(bytes).await.unwrap();
        let _ = stream.read_to_end(&mut answer).await; // one that is reset is closed too
    })
    .await;
    answer
}

/// Sends `bytes` and no more, and returns all that comes.
pub(super) async fn exchange(socket: &Socket, bytes: &[u8]) -> Vec<u8> {
    let (mut reading, mut writing) = tokio::io::split(socket.open().await);
    let mut answer = Vec::new();
    within("the connection is closed", async {
        let write = async {
            // A proxy that has refused need not take the rest.
            let _ = writing.write_all(bytes).await;
            let _ = writing.shutdown().await;
        };
        let read = reading.read_to_end(&mut answer);
        let _ = tokio::join!(write, read).1;
    })
    .await;
    answer
}

/// A node that answers `ok` and records what it got.
pub(super) struct Recorder {
    address: SocketAddr,
    record: Arc<Record>,
}

#[derive(Default)]
struct Record {
    seen: Mutex<Vec<Seen>>,
    open: AtomicUsize,
}

impl Recorder {
    pub(super) async fn start() -> Self {
        let record = Arc::new(Record::default());
        let shared = record.clone();
        let address = serve_raw(move |stream| {
            let record = shared.clone();
            record.open.fetch_add(1, SeqCst);
            async move {
                let seen = listen(stream, &record).await;
                record.seen.lock().unwrap().extend(seen);
                record.open.fetch_sub(1, SeqCst);
            }
        })
        .await;
        Self { address, record }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns what it got since it was last asked, once all connections are closed.
    pub(super) async fn seen(&self) -> Vec<Seen> {
        // Once this one has been served, all that were made before it have been taken.
        exchange(&Socket::Tcp(self.address), b"").await;
        within("connections to the node are closed", async {
            while self.record.open.load(SeqCst) > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        std::mem::take(&mut self.record.seen.lock().unwrap())
    }
}

/// Reads one message and answers it; returns what is wrong with it, or what follows it.
async fn listen(mut stream: TcpStream, record: &Record) -> Option<Seen> {
    let (mut bytes, mut part) = (Vec::new(), vec![0; 65_536]);
    let end = loop {
        match strict::request(&bytes) {
            Err(why) => return Some(Seen::Bad(why)),
            Ok(Some((message, end))) => {
                record.seen.lock().unwrap().push(Seen::Whole(message));
                break end;
            }
            Ok(None) => {}
        }
        match stream.read(&mut part).await {
            Ok(count @ 1..) => bytes.extend_from_slice(&part[..count]),
            Ok(0) | Err(_) => return None, // it broke off, and the node knows
        }
    };
    let body = if bytes.starts_with(b"HEAD ") { "" } else { "ok" };
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{body}");
    let _ = stream.write_all(answer.as_bytes()).await; // the proxy may have gone
    let _ = stream.shutdown().await;
    let mut rest = bytes[end..].to_vec();
    let _ = stream.read_to_end(&mut rest).await;
    (!rest.is_empty()).then(|| Seen::Bad(format!("more: {}", String::from_utf8_lossy(&rest))))
}

/// A node that recites bytes to the first request after it was told to, and `next` to all others.
pub(super) struct Script {
    address: SocketAddr,
    said: Arc<Mutex<Option<Vec<u8>>>>,
    open: Arc<AtomicUsize>,
}

/// What a node answers that was told nothing.
const NEXT: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext";

impl Script {
    pub(super) async fn start() -> Self {
        let (said, open) = (Arc::new(Mutex::new(None::<Vec<u8>>)), Arc::new(AtomicUsize::new(0)));
        let shared = (said.clone(), open.clone());
        let address = serve_raw(move |mut stream| {
            let (said, open) = shared.clone();
            open.fetch_add(1, SeqCst);
            async move {
                let (mut part, mut patience) = (vec![0; 65_536], FIRST);
                while let Ok(Ok(1..)) = tokio::time::timeout(patience, stream.read(&mut part)).await {
                    patience = MORE;
                    let answer = said.lock().unwrap().take().unwrap_or_else(|| NEXT.to_vec());
                    let _ = stream.write_all(&answer).await; // the proxy may have gone
                }
                drop(stream);
                open.fetch_sub(1, SeqCst);
            }
        })
        .await;
        Self { address, said, open }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has the next request answered with `bytes`, which comes on a connection of its own.
    pub(super) async fn say(&self, bytes: &[u8]) {
        within("connections to the node are closed", async {
            while self.open.load(SeqCst) > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        *self.said.lock().unwrap() = Some(bytes.to_vec());
    }
    /// Says whether a request came that was answered with it.
    pub(super) fn has_said(&self) -> bool {
        self.said.lock().unwrap().is_none()
    }
}
