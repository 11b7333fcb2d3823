//! What the stories need: a proxy on a folder of its own, nodes that answer as told, and a user.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proxy::measures::{Measures, StackMeasures};
use proxy::routes::{HeldRoutes, Node, Routes, StackNodes, Timeouts};
use proxy::{Config, Proxy};
use schemas::{EffectId, StackId, StreamVersion, Weight, Weights};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::control::Control;

pub(crate) const BASELINE: StackId = StackId(Uuid::from_u128(1));
pub(crate) const CANARY: StackId = StackId(Uuid::from_u128(2));

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy on a folder of its own.
pub(crate) struct Stage {
    pub(crate) proxy: Proxy,
    pub(crate) control: Control,
    pub(crate) data: TempDir,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::on(tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn on(data: TempDir) -> Self {
        let config = config(data.path());
        Self::with(data, config).await
    }

    pub(crate) async fn with(data: TempDir, config: Config) -> Self {
        let proxy = Proxy::start(config).await.unwrap();
        Self { control: Control::of(proxy.files()), proxy, data }
    }

    pub(crate) async fn apply(&self, routes: &Routes) -> HeldRoutes {
        self.control.apply(routes).await.unwrap()
    }

    pub(crate) async fn measures(&self) -> Measures {
        self.control.measures(&"production/api".parse().unwrap()).await.unwrap()
    }

    /// Returns once `count` requests have been refused.
    pub(crate) async fn refused(&self, count: u64) {
        within("so many are refused", async {
            while self.measures().await.refused != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// Returns what was seen of `stack` once that is as `wanted`.
    pub(crate) async fn seen(&self, stack: StackId, wanted: impl Fn(&StackMeasures) -> bool) -> StackMeasures {
        within("the measures are as wanted", async {
            loop {
                match self.measures().await.stacks.remove(&stack) {
                    Some(seen) if wanted(&seen) => return seen,
                    _ => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        })
        .await
    }
}

pub(crate) fn config(data: &Path) -> Config {
    Config { drain: PATIENCE, ..Config::new(data) }
}

/// Returns what `future` does, or says that `what` did not come about.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("within {PATIENCE:?}: {what}"))
}

/// Returns routes of a baseline with `nodes` and, if there are any, a canary with `weight` percent.
pub(crate) fn routes(generation: u64, nodes: &[SocketAddr], canary: &[SocketAddr], percent: u16) -> Routes {
    let stacks = [(BASELINE, "1.0.0", nodes), (CANARY, "1.1.0", canary)];
    let backends = stacks.into_iter().filter(|(_, _, nodes)| !nodes.is_empty()).map(|(stack, version, nodes)| {
        let nodes = nodes.iter().map(|address| Node { effect: effect(*address), address: *address }).collect();
        (stack, StackNodes { version: version.parse().unwrap(), nodes })
    });
    Routes {
        deployment: "production/api".parse().unwrap(),
        generation: StreamVersion(generation),
        listen: None,
        weights: Weights::split(BASELINE, CANARY, Weight::from_percent(percent)),
        backends: backends.collect(),
        timeouts: Timeouts::default(),
        nodes_only: false,
    }
}

/// Returns the launch that the tests take the node at `address` to come from.
pub(crate) fn effect(address: SocketAddr) -> EffectId {
    EffectId(Uuid::from_u128(u128::from(address.port())))
}

/// A node that answers every request with its name, and counts them.
pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl Echo {
    pub(crate) async fn new(name: &'static str) -> Self {
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = requests.clone();
        let address = serve(move |_| {
            counter.fetch_add(1, SeqCst);
            async move { Response::new(Full::from(name)) }
        })
        .await;
        Self { address, requests }
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }
}

/// Serves HTTP on a free port with `answer`.
pub(crate) async fn serve<F, A>(answer: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<Full<Bytes>>> + Send,
{
    serve_raw(move |stream| {
        let answer = answer.clone();
        async move {
            let service = service_fn(|request| async { Ok::<_, std::convert::Infallible>(answer(request).await) });
            // A connection that breaks is the story's business.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await
}

/// Does `act` with every connection to a free port.
pub(crate) async fn serve_raw<F, A>(act: F) -> SocketAddr
where
    F: Fn(TcpStream) -> A + Send + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            tokio::spawn(act(stream));
        }
    });
    address
}

/// Returns an address where nothing listens.
pub(crate) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A user with a connection that is kept.
pub(crate) struct User(SendRequest<Full<Bytes>>);

impl User {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub(crate) async fn get(&mut self, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).header("host", "api").body(Full::default()).unwrap();
        within("the user is answered", async {
            self.0.ready().await.unwrap();
            let response = self.0.send_request(request).await.unwrap();
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        })
        .await
    }
}

/// Sends one request on a connection of its own.
pub(crate) async fn get(address: SocketAddr) -> (StatusCode, String) {
    User::connect(address).await.get("/").await
}

/// Reads from `stream` until what was read ends with `end`.
pub(crate) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    within(&format!("`{end}` is read"), async {
        while !read.ends_with(end.as_bytes()) {
            let byte = stream.read_u8().await;
            read.push(byte.unwrap_or_else(|error| panic!("{error} after {}", String::from_utf8_lossy(&read))));
        }
    })
    .await;
    String::from_utf8(read).unwrap()
}

/// Sends `bytes` on a connection of its own and returns all that comes until it is closed.
pub(crate) async fn talk(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    until_closed(&mut stream).await
}

/// Returns all that comes on `stream` until it is closed.
pub(crate) async fn until_closed(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    // A connection that is reset has been closed as well.
    let _ = within("the connection is closed", stream.read_to_end(&mut read)).await;
    String::from_utf8(read).unwrap()
}

/// Answers every request, which ends with an empty line or with `body`, with `answer`; returns what was read too.
pub(crate) async fn reader(answer: &'static [u8]) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (tell, told) = mpsc::unbounded_channel();
    let address = serve_raw(move |mut stream| {
        let tell = tell.clone();
        async move {
            let (mut read, mut part) = (String::new(), vec![0; 65_536]);
            while let Ok(count @ 1..) = stream.read(&mut part).await {
                read += &String::from_utf8_lossy(&part[..count]);
                let is_chunked = read.contains("transfer-encoding: chunked");
                let is_whole = if is_chunked { read.contains("\r\n0\r\n") } else { read.contains("\r\n\r\n") };
                if is_whole && (read.ends_with("\r\n\r\n") || read.ends_with("body")) {
                    let _ = tell.send(std::mem::take(&mut read)); // a test may not care
                    let _ = stream.write_all(answer).await; // the proxy may have gone
                }
            }
        }
    })
    .await;
    (address, told)
}
