//! The client: talks to a running `ionledger up`, through the socket in its data folder or over TCP with a token.

mod call;
mod events;
mod upload;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use ledger::Backoff;
use replay::HistoryQuery;
use replay::Moment;
use replay::answer::{Declaration, Explanation, History, Production, Status, Verified, WhoShipped};
use schemas::command::Request;
use schemas::run::Artifact;
use schemas::{CommandId, CommitId, DeploymentId, EnvironmentName, Hash, Offset, ServiceName};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use workers::nodes::process::logs::{Line, Wanted};

use crate::forecast::{Answer as Forecast, Question};
use crate::problem::{Code, Problem};
use crate::wire::{Answer, Standing, Stored};

pub use call::OnHalted;
use call::{Fault, Place, Target};
pub use events::Events;

/// How long a command without a verdict is sent again.
const AGAIN_FOR: Duration = Duration::from_secs(30);

/// How long it waits before it is sent again.
const AGAIN_AFTER: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(1) };

/// How long one attempt of a command may take, beyond the wait that was asked for. The server gives up after 10 s.
const TRY_TIMEOUT: Duration = Duration::from_secs(15);

/// How long any other question may take until its answer begins.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// How long verifying may take: enough for a hundred million records.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(600);

/// Talks to a server. Every call is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    target: Target,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens on the data folder's socket.
    #[error("nothing runs on {}; start `ionledger up`", data.display())]
    NotRunning {
        /// The data folder.
        data: PathBuf,
    },
    /// This user may not use the socket.
    #[error("this user may not use {}; ask its owner, or use a token over TCP", socket.display())]
    NotAllowed {
        /// The socket.
        socket: PathBuf,
    },
    /// Nobody answers at the address.
    #[error("cannot reach {address}: {why}; is `ionledger up --listen {address}` running?")]
    Unreachable {
        /// The address.
        address: String,
        /// Why.
        why: String,
    },
    /// What listens on the data folder's socket answers nothing at all.
    #[error(
        "{} answers nothing; look at why it hangs, or end it and start it again; until then `ionledger rollback` goes on without it",
        process(*pid, data)
    )]
    Silent {
        /// The data folder.
        data: PathBuf,
        /// The process.
        pid: Option<i32>,
    },
    /// The server refuses, or says that it cannot.
    #[error(transparent)]
    Refused(#[from] Problem),
    /// Nobody knows whether a command was carried out.
    #[error(
        "nobody knows whether command {command} was carried out: {why}; look at `ionledger history`, or send it again with the same id"
    )]
    Indeterminate {
        /// The command.
        command: CommandId,
        /// What went wrong.
        why: String,
    },
    /// The server closed the connection before the whole answer, or its answer is not as expected.
    #[error("the server gave no whole answer: {0}")]
    Broken(String),
    /// A file of this machine cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
}

/// How a command is sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Only say what would be appended.
    pub dry_run: bool,
    /// How long the answer may wait for the router to confirm weights; the server's own time if there is nothing.
    pub wait: Option<Duration>,
    /// A rollback waits for the ledger's verdict, however long that takes.
    pub no_break_glass: bool,
}

impl Error {
    /// Returns the exit code that a command line ends with: 1 error, 2 usage, 4 not allowed.
    pub fn exit(&self) -> u8 {
        match self {
            Error::Refused(problem) => problem.exit,
            Error::NotAllowed { .. } => 4,
            Error::NotRunning { .. }
            | Error::Unreachable { .. }
            | Error::Silent { .. }
            | Error::Indeterminate { .. }
            | Error::Broken(_)
            | Error::File { .. } => 1,
        }
    }
}

impl Client {
    /// Returns the client of the data folder's socket. It need not be there yet.
    pub fn of_data(data: &Path) -> Self {
        Self { target: Target { place: Place::Unix { data: data.to_owned() }, on_halted: None, patient: false } }
    }

    /// Returns the client of a server at `address` (`HOST:PORT`), with a token.
    pub fn of_address(address: &str, token: &str) -> Self {
        let place = Place::Tcp { address: address.to_owned(), token: call::Token::new(token) };
        Self { target: Target { place, on_halted: None, patient: false } }
    }

    /// Waits for a moment where nobody listens on the data folder's socket and the process that took the folder last is alive: it
    /// starts.
    #[must_use]
    pub fn patient(mut self) -> Self {
        self.target.patient = true;
        self
    }

    /// Asks whether the server answers at all, for as long as `within`.
    ///
    /// # Errors
    ///
    /// [`Error`]; [`Error::Broken`] if no answer came in time.
    pub async fn answers(&self, within: Duration) -> Result<(), Error> {
        let target = Target { patient: false, ..self.target.clone() };
        let asked = target.send(Method::GET, "/healthz", Bytes::new(), within);
        match tokio::time::timeout(within, asked).await {
            Err(_) => Err(Error::Broken("no answer came in time".to_owned())),
            Ok(Ok(_) | Err(Fault::Refused(_))) => Ok(()),
            Ok(Err(fault)) => Err(fault.into()),
        }
    }

    /// Calls `heard` with the reason whenever a server answers whose ledger has halted.
    #[must_use]
    pub fn on_halted(mut self, heard: OnHalted) -> Self {
        self.target.on_halted = Some(heard);
        self
    }

    /// Sends a command and returns what became of it. Without a verdict it is sent again under the same id, which
    /// carries it out at most once, for up to 30 s.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with the server's reason, [`Error::Indeterminate`] if nobody knows.
    pub async fn execute(&self, request: &Request, options: Options) -> Result<Answer, Error> {
        let mut query = vec![];
        if options.dry_run {
            query.push("dry_run=true".to_owned());
        }
        if options.no_break_glass {
            query.push("no_break_glass=true".to_owned());
        }
        query.extend(options.wait.map(|wait| format!("wait_ms={}", wait.as_millis())));
        let path = format!("/v1/commands?{}", query.join("&"));
        let body = Bytes::from(serde_json::to_vec(request).map_err(|error| Error::Broken(error.to_string()))?);
        let within = TRY_TIMEOUT + options.wait.unwrap_or_default();
        let until = tokio::time::Instant::now() + AGAIN_FOR;
        let mut sent = false;
        let mut waits = AGAIN_AFTER.waits();
        loop {
            let why = match self.target.json::<Answer>(Method::POST, &path, body.clone(), within).await {
                Ok(answer) => return Ok(answer),
                Err(Fault::Refused(problem)) if problem.code == Code::Indeterminate => problem.message,
                Err(Fault::Refused(problem)) => return Err(problem.into()),
                Err(Fault::Lost(why)) => why,
                Err(Fault::Silent(error)) => error.to_string(),
                // Once it may have been taken, a server that is being started again is waited for.
                Err(Fault::NotSent(error)) if sent => error.to_string(),
                Err(Fault::NotSent(error)) => return Err(error),
            };
            sent = true;
            match waits.next().map(|wait| tokio::time::Instant::now() + wait) {
                Some(again_at) if again_at < until => tokio::time::sleep_until(again_at).await,
                _ => return Err(Error::Indeterminate { command: request.id, why }),
            }
        }
    }

    /// Says whether the server's store has a file of this hash, undamaged; then it is kept for another day at least.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn has_artifact(&self, sha256: Hash) -> Result<bool, Error> {
        match self.get::<Stored>(&format!("/v1/artifacts/{sha256}")).await {
            Ok(_) => Ok(true),
            // An older server does not know the question.
            Err(Error::Refused(problem))
                if matches!(problem.code, Code::Unknown | Code::Damaged | Code::NoSuchPath | Code::Method) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Puts a file into the server's store and tells `sent` how many of its bytes are gone. With `sha256` it is refused, before
    /// it is sent where that is known, unless it is what it should be.
    ///
    /// # Errors
    ///
    /// [`Error::File`] if it cannot be read, else [`Error`].
    pub async fn upload(&self, path: &Path, sha256: Option<Hash>, sent: watch::Sender<u64>) -> Result<Artifact, Error> {
        upload::upload(&self.target, path, sha256, sent).await
    }

    /// Returns what runs and what serves at a moment: of every service, or of one, in every environment or in one.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn status(
        &self,
        moment: Moment,
        service: Option<&ServiceName>,
        environment: Option<&EnvironmentName>,
    ) -> Result<Status, Error> {
        let service = service.map(|name| ("service", name.to_string()));
        let environment = environment.map(|name| ("environment", name.to_string()));
        self.get(&address("/v1/status", service.into_iter().chain(environment).chain(when(moment)))).await
    }

    /// Returns a part of history, the newest commit first: at most [`crate::server::HISTORY_LIMIT_MAX`] commits.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn history(&self, query: &HistoryQuery) -> Result<History, Error> {
        let HistoryQuery { service, environment, limit, since, before, voids, counts } = query;
        let path = service.as_ref().map_or("/v1/history".to_owned(), |service| format!("/v1/history/{service}"));
        let environment = environment.as_ref().map(|name| ("environment", name.to_string()));
        let limit = limit.map(|limit| ("limit", limit.to_string()));
        let since = since.map(|since| ("since", since.to_string()));
        let before = before.map(|before| ("before", before.to_string()));
        let voids = voids.then(|| ("voids", "true".to_owned()));
        let counts = counts.then(|| ("counts", "true".to_owned()));
        self.get(&address(
            &path,
            environment.into_iter().chain(limit).chain(since).chain(before).chain(voids).chain(counts),
        ))
        .await
    }

    /// Returns why a deployment's rollout went as it did until a moment.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn explain(&self, deployment: &DeploymentId, moment: Moment) -> Result<Explanation, Error> {
        self.get(&address(&format!("/v1/explain/{deployment}"), when(moment))).await
    }

    /// Returns what led to a commit.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn explain_commit(&self, commit: CommitId) -> Result<Explanation, Error> {
        self.get(&format!("/v1/explain/{commit}")).await
    }

    /// Returns how a service was declared at a moment.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn declaration(&self, service: &ServiceName, moment: Moment) -> Result<Declaration, Error> {
        self.get(&address(&format!("/v1/services/{service}"), when(moment))).await
    }

    /// Returns an explanation of what `what` names, as [`replay::Reader::explain_named`].
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn explain_named(
        &self,
        what: &str,
        service: Option<&ServiceName>,
        environment: &EnvironmentName,
        moment: Moment,
    ) -> Result<Explanation, Error> {
        let service = service.map(|service| ("service", service.to_string()));
        let environment = [("environment", environment.to_string())];
        let query = environment.into_iter().chain(service).chain(when(moment));
        self.get(&address(&format!("/v1/explain/{}", escape(what)), query)).await
    }

    /// Returns which versions served what share of a deployment at a moment, and who put them there.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn who_shipped(&self, deployment: &DeploymentId, moment: Moment) -> Result<WhoShipped, Error> {
        self.get(&address(&format!("/v1/who-shipped/{deployment}"), when(moment))).await
    }

    /// Returns what a rollout of a deployment will be able to tell.
    ///
    /// # Errors
    ///
    /// [`Error`]; a plan that cannot be, and traffic that is neither known nor assumed, are refused.
    pub async fn forecast(&self, deployment: &DeploymentId, question: &Question) -> Result<Forecast, Error> {
        let Question { requests_per_minute, share, duration_ms, steps } = question;
        let query = [
            requests_per_minute.map(|requests| ("requests_per_minute", requests.to_string())),
            share.map(|share| ("share", share.basis_points().to_string())),
            duration_ms.map(|ms| ("duration_ms", ms.to_string())),
            steps.as_ref().map(|steps| ("steps", steps.clone())),
        ];
        self.get(&address(&format!("/v1/forecast/{deployment}"), query.into_iter().flatten())).await
    }

    /// Returns all of production at a moment.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn production(&self, moment: Moment) -> Result<Production, Error> {
        self.get(&address("/v1/replay", when(moment))).await
    }

    /// Returns what the server found when it recomputed its ledger from the first record.
    ///
    /// # Errors
    ///
    /// [`Error`]; what is wrong with the ledger is in the answer.
    pub async fn verify(&self) -> Result<Verified, Error> {
        self.get_within("/v1/verify", VERIFY_TIMEOUT).await
    }

    /// Returns what the ledger is and where it stands.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn standing(&self) -> Result<Standing, Error> {
        self.get("/v1/ledger").await
    }

    /// Returns once the server is ready to take writes.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with why it is not.
    pub async fn ready(&self) -> Result<(), Error> {
        self.get::<serde_json::Value>("/readyz").await.map(drop)
    }

    /// Follows the log from `from` on, to its end or, with `follow`, for ever.
    ///
    /// # Errors
    ///
    /// [`Error`] if it cannot begin.
    pub async fn events(&self, from: Offset, follow: bool) -> Result<Events, Error> {
        let path = format!("/v1/events?from={from}&follow={follow}");
        let response = self.target.send(Method::GET, &path, Bytes::new(), READ_TIMEOUT).await.map_err(Error::from)?;
        Ok(Events::new(response.into_body()))
    }

    /// Returns what a deployment's nodes wrote, line by line, and with `follow` what they go on to write.
    ///
    /// # Errors
    ///
    /// [`Error`] if it cannot begin.
    pub async fn logs(&self, wanted: &Wanted) -> Result<Events<Line>, Error> {
        let Wanted { deployment, version, node, since, follow } = wanted;
        let path = format!("/v1/logs/{deployment}");
        let version = version.as_ref().map(|version| ("version", version.to_string()));
        let node = node.as_ref().map(|node| ("node", node.clone()));
        let since = since.map(|since| ("since", since.to_string()));
        let follow = follow.then(|| ("follow", "true".to_owned()));
        let path = address(&path, version.into_iter().chain(node).chain(since).chain(follow));
        let response = self.target.send(Method::GET, &path, Bytes::new(), READ_TIMEOUT).await.map_err(Error::from)?;
        Ok(Events::new(response.into_body()))
    }

    /// Asks for `path` and reads the answer's JSON.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.get_within(path, READ_TIMEOUT).await
    }

    async fn get_within<T: DeserializeOwned>(&self, path: &str, within: Duration) -> Result<T, Error> {
        Ok(self.target.json(Method::GET, path, Bytes::new(), within).await?)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::NotSent(error) | Fault::Silent(error) => error,
            Fault::Lost(why) => Error::Broken(why),
            Fault::Refused(problem) => problem.into(),
        }
    }
}

/// Names a process and its data folder.
fn process(pid: Option<i32>, data: &Path) -> String {
    let pid = pid.map_or_else(String::new, |pid| format!(" {pid}"));
    format!("the process{pid} that serves {}", data.display())
}

/// Returns the query that names a moment.
fn when(moment: Moment) -> Option<(&'static str, String)> {
    match moment {
        Moment::Now => None,
        Moment::Time(time) => Some(("at", time.to_string())),
        Moment::Offset(offset) => Some(("offset", offset.to_string())),
        Moment::Event(commit) => Some(("event", commit.to_string())),
    }
}

fn address(path: &str, query: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let query: Vec<String> = query.into_iter().map(|(name, value)| format!("{name}={}", escape(&value))).collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

/// Writes text so that it can stand in a query or a path's part.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_means_something_in_an_address_is_left() {
        assert_eq!(
            escape("2026-11-01T12:00+01:00[Europe/Berlin]"),
            "2026-11-01T12%3A00%2B01%3A00%5BEurope%2FBerlin%5D"
        );
    }

    #[tokio::test]
    async fn a_folder_where_nothing_runs_is_said_so() {
        let data = tempfile::tempdir().unwrap();
        let error = Client::of_data(data.path()).standing().await.unwrap_err();
        assert_eq!(error.to_string(), format!("nothing runs on {}; start `ionledger up`", data.path().display()));
        assert_eq!(error.exit(), 1);
    }

    #[test]
    fn a_token_is_not_printed() {
        let client = Client::of_address("localhost:1", "ion_0123456789");
        assert!(!format!("{client:?}").contains("0123456789"));
    }
}
