//! The router adapter of our own proxy: calls on its control socket, starting it where none runs, and its process as others see it.

mod process;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures::future::join_all;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use proxy::routes::{NOT_AFTER, since_boot};
use proxy::{Files, TrustedProxies};
use schemas::{DeploymentId, StreamVersion};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout, timeout_at};

pub use process::{ProxyProcess, process};

use super::routes::{Entry, HeldRoutes, Problem, Read, Routes, Status, Wanted};
use super::{ApplyError, Measures, Router, RouterTrouble, Seen, read_each};
use crate::http_client::{self, Limits, RequestError, is_absent};

/// How long a call may take. Source: design, "Workers".
pub const CALL_MAX: Duration = Duration::from_secs(1);

/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How many deployments are read in one call.
const READ_MAX: usize = 500;

/// How long a proxy may take to start.
pub const START_MAX: Duration = Duration::from_secs(10);

/// Calls a proxy through its control socket.
#[derive(Clone, Debug)]
pub struct ProxyControl {
    socket: PathBuf,
}

/// Why no proxy runs.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program could not be started.
    #[error("cannot start the proxy: {path}: {cause}")]
    Spawn {
        /// The program or its log.
        path: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
    /// Its sockets cannot lie in the data folder.
    #[error(transparent)]
    Folder(#[from] proxy::Error),
    /// It was started and did not answer.
    #[error("the proxy did not answer within {START_MAX:?} ({cause}); its log {log} says why")]
    Silent {
        /// The last answer.
        cause: ApplyError,
        /// Its log.
        log: PathBuf,
    },
}

impl ProxyControl {
    /// Returns the caller of the proxy that listens on `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Returns the caller of the proxy of the data folder `data`.
    pub fn of(data: &Path) -> Self {
        Self::new(Files::of(data).control)
    }

    /// Returns the socket on which the proxy is called.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Makes `routes` what the proxy serves, and returns what it now holds, on disk and in memory.
    ///
    /// # Errors
    ///
    /// [`ApplyError`]; after `Unreachable` it may or may not have been done.
    pub async fn apply(&self, routes: &Routes) -> Result<HeldRoutes, ApplyError> {
        let (status, body) = self.call(Method::PUT, &path("routes", &routes.deployment), Some(routes)).await?;
        self.expect(status, &body)
    }

    /// Returns the routes that the proxy holds for `deployment`, if any.
    ///
    /// # Errors
    ///
    /// [`ApplyError`].
    pub async fn routes(&self, deployment: &DeploymentId) -> Result<Option<HeldRoutes>, ApplyError> {
        Ok(match self.entry(deployment).await? {
            Some(Entry::Routed(held)) => Some(held),
            Some(Entry::Retired { .. }) | None => None,
        })
    }

    /// Returns all that the proxy remembers of `deployment`, a removal included.
    ///
    /// # Errors
    ///
    /// [`ApplyError`].
    pub async fn entry(&self, deployment: &DeploymentId) -> Result<Option<Entry>, ApplyError> {
        self.look(&path("routes", deployment)).await
    }

    /// Returns what the proxy saw of `deployment`'s requests, if it serves it.
    ///
    /// # Errors
    ///
    /// [`ApplyError`].
    pub async fn measures(&self, deployment: &DeploymentId) -> Result<Option<Measures>, ApplyError> {
        self.look(&path("measures", deployment)).await
    }

    /// Returns what the proxy holds for several deployments, in the order asked for.
    async fn read(&self, wanted: &[Wanted]) -> Result<Vec<Read>, ApplyError> {
        let (status, body) = self.call(Method::POST, "/read", Some(&wanted)).await?;
        self.expect(status, &body)
    }

    /// Ends serving `deployment`; `generation` must be above that of the routes held.
    ///
    /// # Errors
    ///
    /// [`ApplyError`]; after `Unreachable` it may or may not have been done.
    pub async fn remove(&self, deployment: &DeploymentId, generation: StreamVersion) -> Result<(), ApplyError> {
        let path = format!("{}?generation={generation}", path("routes", deployment));
        let (status, body) = self.call(Method::DELETE, &path, None::<&()>).await?;
        self.expect::<serde_json::Value>(status, &body).map(drop)
    }

    /// Returns what the proxy says of itself.
    ///
    /// # Errors
    ///
    /// [`ApplyError`].
    pub async fn status(&self) -> Result<Status, ApplyError> {
        let (status, body) = self.call(Method::GET, "/status", None::<&()>).await?;
        self.expect(status, &body)
    }

    async fn look<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, ApplyError> {
        let (status, body) = self.call(Method::GET, path, None::<&()>).await?;
        if status == StatusCode::NOT_FOUND { Ok(None) } else { self.expect(status, &body).map(Some) }
    }

    fn expect<T: DeserializeOwned>(&self, status: StatusCode, body: &[u8]) -> Result<T, ApplyError> {
        if status == StatusCode::OK {
            return serde_json::from_slice(body).map_err(|error| self.unreachable(error));
        }
        let problem: Problem = serde_json::from_slice(body).map_err(|error| self.unreachable(error))?;
        match problem.superseded_by {
            Some(held) => Err(ApplyError::Superseded { held }),
            // It tried and failed, and how far it got is not known.
            None if status.is_server_error() => Err(self.unreachable(problem.error)),
            None => Err(ApplyError::Refused(problem.error)),
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<(StatusCode, Bytes), ApplyError> {
        let body = body.map_or(Ok(Vec::new()), serde_json::to_vec).map_err(|error| self.unreachable(error))?;
        // A proxy that stands still carries out nothing that nobody waits for any more.
        let not_after = (since_boot() + CALL_MAX).as_millis().to_string();
        let request = Request::builder().method(method).uri(path).header("host", "proxy").header(NOT_AFTER, not_after);
        let request = request.body(Full::new(Bytes::from(body)));
        let request = request.map_err(|error| self.unreachable(error))?;
        let exchange = async {
            let answer = http_client::exchange(UnixStream::connect(&self.socket), request, Limits::NONE).await?;
            let status = answer.status();
            Ok::<_, RequestError>((status, answer.into_body().read(ANSWER_BYTES_MAX).await?))
        };
        match timeout(CALL_MAX, exchange).await {
            Ok(answer) => answer.map_err(|error| match &error {
                RequestError::NotSent(cause) if is_absent(cause) => not_running(),
                _ => self.unreachable(error),
            }),
            Err(_) => Err(self.unreachable(format!("nothing within {CALL_MAX:?}"))),
        }
    }

    fn unreachable(&self, cause: impl std::fmt::Display) -> ApplyError {
        let what = format!("no answer from the proxy at {}: {cause}", self.socket.display());
        ApplyError::Unreachable(RouterTrouble { what, hint: "`ionledger doctor` says what helps".to_owned() })
    }
}

#[async_trait::async_trait]
impl Router for ProxyControl {
    async fn apply(&self, routes: &Routes) -> Result<HeldRoutes, ApplyError> {
        ProxyControl::apply(self, routes).await
    }

    async fn remove(&self, deployment: &DeploymentId, generation: StreamVersion) -> Result<(), ApplyError> {
        ProxyControl::remove(self, deployment, generation).await
    }

    async fn entry(&self, deployment: &DeploymentId) -> Result<Option<Entry>, ApplyError> {
        ProxyControl::entry(self, deployment).await
    }

    async fn measures(&self, deployment: &DeploymentId) -> Result<Option<Measures>, ApplyError> {
        ProxyControl::measures(self, deployment).await
    }

    async fn read_all(&self, wanted: Vec<Wanted>, seen: &Seen<'_>) {
        let read = |wanted: Vec<Wanted>| async move {
            match self.read(&wanted).await {
                Ok(read) if read.len() == wanted.len() => {
                    for (of, Read { entry, measures }) in wanted.iter().zip(read) {
                        seen(of.deployment.clone(), Ok(entry), measures);
                    }
                }
                // A proxy from before it could be asked for several is asked for each.
                Ok(_) | Err(ApplyError::Refused(_)) => read_each(self, wanted, seen).await,
                Err(error) => wanted.into_iter().for_each(|of| seen(of.deployment, Err(error.clone()), None)),
            }
        };
        // At once: if it hangs, that is known of all within the time of one call.
        join_all(wanted.chunks(READ_MAX).map(|wanted| read(wanted.to_vec()))).await;
    }
}

fn not_running() -> ApplyError {
    let what = "the proxy does not run, so nobody is served".to_owned();
    ApplyError::NotRunning(RouterTrouble {
        what,
        hint: "`ionledger up` starts it, once an `up` that hangs was ended; `ionledger doctor` names that".to_owned(),
    })
}

/// Returns the proxy of the data folder `data`, started from the program `exe` unless one runs already. It is a
/// session of its own and outlives this process. One that is started believes `trusted`.
///
/// # Errors
///
/// [`StartError`].
pub async fn ensure_running(
    data: &Path,
    exe: &Path,
    trusted: &TrustedProxies,
) -> Result<(ProxyControl, Status), StartError> {
    let (files, control) = (Files::of(data), ProxyControl::of(data));
    files.check()?;
    if let Ok(status) = control.status().await {
        return Ok((control, status));
    }
    // If one runs and is only slow, the lock ends the second one at once, and the first is waited for.
    let mut child = start(data, exe, trusted, &files)?;
    let deadline = Instant::now() + START_MAX;
    let status = loop {
        match control.status().await {
            Ok(status) => break status,
            Err(cause) if Instant::now() >= deadline => return Err(StartError::Silent { cause, log: files.log }),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    };
    if child.id() != Some(status.pid) {
        // One that is still about to find the lock held must not find it free later, when the first has been ended.
        let ended = timeout_at(deadline, child.wait()).await;
        if ended.is_err() {
            let _ = child.kill().await; // it may have ended meanwhile
        }
    }
    Ok((control, status))
}

fn start(data: &Path, exe: &Path, trusted: &TrustedProxies, files: &Files) -> Result<Child, StartError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        |cause| StartError::Spawn { path, cause }
    };
    fs::create_dir_all(&files.folder).map_err(at(&files.folder))?;
    let log = File::options().create(true).append(true).open(&files.log).map_err(at(&files.log))?;
    let errors = log.try_clone().map_err(at(&files.log))?;
    let mut command = Command::new(exe);
    command.arg("proxy").arg("--data").arg(data).arg("--own-session");
    command.arg(format!("--trusted-proxies={trusted}"));
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    // Dropped, the child runs on, and tokio reaps it should it end before this process.
    command.spawn().map_err(at(exe))
}

fn path(what: &str, deployment: &DeploymentId) -> String {
    format!("/{what}/{deployment}")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;

    /// Reads three deployments from a proxy that gives `answer` to `POST /read`, and 404 to every other call. Returns the calls
    /// that it got, and what was read.
    async fn read_three(answer: (u16, &'static str)) -> (Vec<String>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let asked = std::sync::Arc::new(Mutex::new(Vec::new()));
        let heard = std::sync::Arc::clone(&asked);
        let answers = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).await.unwrap();
                let line = String::from_utf8_lossy(&head[..length]).lines().next().unwrap().to_owned();
                let (status, body) = if line.starts_with("POST") { answer } else { (404, r#"{"error":"nothing"}"#) };
                heard.lock().unwrap().push(line.trim_end_matches(" HTTP/1.1").to_owned());
                let length = body.len();
                let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let wanted = ["a", "b", "c"]
            .map(|name| Wanted { deployment: format!("production/{name}").parse().unwrap(), measures: false });
        let seen = Mutex::new(Vec::new());
        let note = |id: DeploymentId, entry: Result<Option<Entry>, ApplyError>, _| {
            seen.lock().unwrap().push(format!("{id} {}", entry.is_ok_and(|entry| entry.is_none())));
        };
        ProxyControl::new(&socket).read_all(wanted.to_vec(), &note).await;
        answers.abort();
        let mut asked = asked.lock().unwrap().clone();
        asked.sort();
        (asked, seen.into_inner().unwrap())
    }

    #[tokio::test]
    async fn many_deployments_are_read_in_one_call() {
        let nothing =
            r#"[{"entry":null,"measures":null},{"entry":null,"measures":null},{"entry":null,"measures":null}]"#;
        let (asked, seen) = read_three((200, nothing)).await;
        assert_eq!(asked, ["POST /read"]);
        assert_eq!(seen, ["production/a true", "production/b true", "production/c true"]);
    }

    #[tokio::test]
    async fn a_proxy_from_before_that_call_is_asked_for_each() {
        let (asked, mut seen) = read_three((404, r#"{"error":"there is nothing here"}"#)).await;
        let each = ["a", "b", "c"].map(|name| format!("GET /routes/production/{name}"));
        assert_eq!(asked, [each.as_slice(), &["POST /read".to_owned()]].concat());
        seen.sort();
        assert_eq!(seen, ["production/a true", "production/b true", "production/c true"]);
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_proxy_that_hangs_a_large_fleet_is_read_within_the_time_of_one_call() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let _answers_nobody = UnixListener::bind(&socket).unwrap();
        let one = |n: usize| Wanted { deployment: format!("production/s{n}").parse().unwrap(), measures: false };
        let failed = Mutex::new(0);
        let note =
            |_, entry: Result<Option<Entry>, ApplyError>, _| *failed.lock().unwrap() += usize::from(entry.is_err());
        let began = Instant::now();
        ProxyControl::new(&socket).read_all((0..READ_MAX * 3).map(one).collect(), &note).await;
        assert!(began.elapsed() < CALL_MAX * 2, "{:?}", began.elapsed());
        assert_eq!(failed.into_inner().unwrap(), READ_MAX * 3);
    }

    #[tokio::test]
    async fn without_a_proxy_calls_say_that_none_runs_and_nobody_is_served() {
        let folder = tempfile::tempdir().unwrap();
        let control = ProxyControl::of(folder.path());
        let error = control.status().await.unwrap_err();
        assert!(matches!(error, ApplyError::NotRunning(_)), "{error}");
        let folder = Files::of(folder.path()).control;
        fs::create_dir_all(folder.parent().unwrap()).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&folder).unwrap());
        assert_eq!(control.status().await.unwrap_err(), error, "it left its socket behind");
        assert!(error.to_string().contains("nobody is served; `ionledger up` starts it"), "{error}");
    }
}
