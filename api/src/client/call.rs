//! One question and its answer over a connection of its own.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Body;
use ledger::log::segments;
use schemas::Timestamp;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use workers::http_client::{self, AnswerBody, Limits, RequestError, is_absent};

use super::{Error, Listener};
use crate::problem::{self, Code, Problem};
use crate::{json, server, wire};

/// The longest answer that is read whole, in bytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a patient client waits for a process that is alive and does not listen yet, or not any more.
const START_MAX: Duration = Duration::from_secs(4);

/// How often it looks.
const START_EVERY: Duration = Duration::from_millis(50);

/// How long an answer may take before the process behind a socket is asked whether it answers at all.
const DOUBT_AFTER: Duration = Duration::from_secs(1);

/// How long its answer to that may take.
const HEALTH_MAX: Duration = Duration::from_secs(2);

/// How long after an answer to that it is asked again.
const DOUBT_AGAIN: Duration = Duration::from_secs(5);

/// Called with the reason when a server answers that its ledger has halted.
pub type OnHalted = fn(&str);

/// A server, and what to call when its ledger has halted.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) place: ServerAddress,
    pub(super) on_halted: Option<OnHalted>,
    /// Whether a process that starts is waited for.
    pub(super) patient: bool,
}

/// Where the server is.
#[derive(Clone, Debug)]
pub(super) enum ServerAddress {
    /// Behind a data folder's socket.
    Unix {
        /// The folder.
        data: PathBuf,
    },
    /// Somewhere else.
    Tcp {
        /// `HOST:PORT`.
        address: String,
        /// What lets us in.
        token: Token,
    },
}

/// A token, never printed.
#[derive(Clone)]
pub(super) struct Token(String);

impl Token {
    pub(super) fn new(token: &str) -> Self {
        Self(token.to_owned())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why a question has no answer.
pub(super) enum Fault {
    /// It did not get there.
    NotSent(Error),
    /// It may have got there.
    Lost(String),
    /// It got to a process that answers nothing.
    Silent(Listener),
    /// It did not get to a process that answers nothing: as many wait for it as the system lets wait.
    Full(Listener),
    /// The answer is no.
    Refused(Problem),
}

impl Target {
    /// Asks, and reads the answer's JSON.
    pub(super) async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        within: Duration,
    ) -> Result<T, Fault> {
        let response = self.send(method, path, body, within).await?;
        read_json(response, path).await
    }

    /// Asks, and returns the answer if it is a yes.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        within: Duration,
    ) -> Result<Response<AnswerBody>, Fault> {
        let request = self.request(method, path).header(CONTENT_TYPE, "application/json");
        let request = request.header(wire::SENT_AT, Timestamp::now().to_string()).body(Full::new(body));
        self.exchange(request, within).await
    }

    /// Returns a request to be given a body.
    pub(super) fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let request = Request::builder().method(method).uri(path);
        match &self.place {
            ServerAddress::Unix { .. } => request.header(HOST, "ionledger"),
            ServerAddress::Tcp { address, token } => {
                let bearer = http::HeaderValue::from_str(&format!("Bearer {}", token.0)).map(|mut value| {
                    value.set_sensitive(true);
                    value
                });
                let request = request.header(HOST, address);
                match bearer {
                    Ok(bearer) => request.header(AUTHORIZATION, bearer),
                    Err(_) => request, // refused by the server as no token
                }
            }
        }
    }

    /// Connects, sends `request`, and returns the answer if it is a yes.
    pub(super) async fn exchange<B>(
        &self,
        request: http::Result<Request<B>>,
        within: Duration,
    ) -> Result<Response<AnswerBody>, Fault>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let request = request.map_err(|error| Fault::NotSent(Error::Broken(error.to_string())))?;
        let limits = Limits { connect: CONNECT_TIMEOUT, answer: within };
        let exchange = async {
            match &self.place {
                ServerAddress::Unix { data } => http_client::exchange(self.reach(data), request, limits).await,
                ServerAddress::Tcp { address, .. } => http_client::exchange(reach(address), request, limits).await,
            }
        };
        let answer = tokio::select! {
            answer = exchange => answer,
            silent = self.silent() => return Err(Fault::Silent(silent)),
        };
        let response = answer.map_err(|cause| match cause {
            RequestError::NotSent(cause) => self.not_reached(&cause),
            cause => lost(cause),
        })?;
        if let (Some(callback), Some(why)) = (self.on_halted, response.headers().get(wire::HALTED)) {
            callback(&String::from_utf8_lossy(why.as_bytes()));
        }
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }

    /// Connects to a data folder's socket.
    async fn reach(&self, data: &Path) -> io::Result<UnixStream> {
        let until = tokio::time::Instant::now() + START_MAX;
        loop {
            let reached = server::reach_socket(data).await;
            let absent = reached.as_ref().is_err_and(is_absent);
            if !absent || !self.patient || tokio::time::Instant::now() >= until || folder_user(data).is_none() {
                return reached;
            }
            tokio::time::sleep(START_EVERY).await;
        }
    }

    /// Returns once the process that listens turned out to answer nothing. It is asked something short beside the question that
    /// waits: a process that answers that is busy with a long question, and does not hang.
    async fn silent(&self) -> Listener {
        tokio::time::sleep(DOUBT_AFTER).await;
        loop {
            // A process that ends takes no new questions, and answers the open ones.
            let asked = match &self.place {
                ServerAddress::Unix { data } => match server::reach_socket(data).await {
                    Ok(socket) => {
                        let pid = socket.peer_cred().ok().and_then(|peer| peer.pid());
                        Some((answers(socket).await, Listener::Process { data: data.clone(), pid }))
                    }
                    Err(_) => None,
                },
                ServerAddress::Tcp { address, .. } => match tokio::time::timeout(HEALTH_MAX, reach(address)).await {
                    Ok(Ok(stream)) => Some((answers(stream).await, Listener::Server { address: address.clone() })),
                    Ok(Err(_)) | Err(_) => None,
                },
            };
            match asked {
                None => return std::future::pending().await,
                Some((false, who)) => return who,
                Some((true, _)) => tokio::time::sleep(DOUBT_AGAIN).await,
            }
        }
    }

    fn not_reached(&self, cause: &io::Error) -> Fault {
        Fault::NotSent(match &self.place {
            ServerAddress::Unix { data } => match cause.kind() {
                _ if is_absent(cause) => Error::NotRunning { data: data.clone() },
                io::ErrorKind::PermissionDenied => Error::NotAllowed { socket: server::socket_path(data) },
                io::ErrorKind::WouldBlock => {
                    let pid = folder_user(data).and_then(|pid| i32::try_from(pid).ok());
                    return Fault::Full(Listener::Process { data: data.clone(), pid });
                }
                _ => Error::Broken(format!("{}: {cause}", server::socket_path(data).display())),
            },
            ServerAddress::Tcp { address, .. } => {
                Error::Unreachable { address: address.clone(), why: cause.to_string() }
            }
        })
    }
}

/// Returns the process that took the data folder last, if it is alive.
fn folder_user(data: &Path) -> Option<u32> {
    segments::taken_by(data).filter(|pid| Path::new(&format!("/proc/{pid}")).exists())
}

/// Says whether a server answers within [`HEALTH_MAX`], whatever it says.
async fn answers(socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> bool {
    let request = Request::get("/healthz").header(HOST, "ionledger").body(Full::<Bytes>::default());
    let Ok(request) = request else { return true };
    let limits = Limits { connect: HEALTH_MAX, answer: HEALTH_MAX };
    let answer = http_client::exchange(async { Ok(socket) }, request, limits).await;
    !matches!(answer, Err(RequestError::TimedOut(_)))
}

async fn reach(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    let _ = stream.set_nodelay(true); // only a matter of speed
    Ok(stream)
}

fn lost(cause: RequestError) -> Fault {
    Fault::Lost(cause.to_string())
}

/// Reads the JSON of the answer to `path`.
pub(super) async fn read_json<T: DeserializeOwned>(response: Response<AnswerBody>, path: &str) -> Result<T, Fault> {
    let bytes = response.into_body().read(ANSWER_BYTES_MAX).await.map_err(lost)?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let why = json::describe::<T>(&bytes, &error);
        Fault::Lost(format!("unexpected response to {path} ({why}); look whether ionledger listens there"))
    })
}

async fn refusal(response: Response<AnswerBody>) -> Fault {
    let status = response.status();
    match response.into_body().read(ANSWER_BYTES_MAX).await {
        Ok(bytes) => match serde_json::from_slice::<problem::Body>(&bytes) {
            Ok(body) => Fault::Refused(body.error),
            Err(_) => Fault::Refused(Problem::new(Code::Other, format!("the server answered {status}"))),
        },
        Err(cause) => lost(cause),
    }
}
