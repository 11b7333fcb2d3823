//! The client: talks to a running `ionledger up`, through the socket in its data folder or over TCP with a token.

mod call;
mod events;
mod listener;
mod upload;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use schemas::command::Request;
use schemas::run::Artifact;
use schemas::{Backoff, CommandId, ErrorText, Hash, Offset};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::problem::{Code, Problem};
use crate::question::address::address;
use crate::question::{EventsQuestion, LinesQuestion, Question, StandingQuestion};
use crate::wire::{CommandAnswer, Standing, Stored};

pub use call::OnHalted;
use call::{Fault, ServerAddress, Target};
pub use events::Events;
pub use listener::Listener;
use listener::became;

/// How long a command without a verdict is sent again.
const AGAIN_FOR: Duration = Duration::from_secs(30);

/// How long it waits before it is sent again.
const AGAIN_AFTER: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(1) };

/// How long one attempt of a command may take, beyond the wait that was asked for. The server gives up after 10 s.
const TRY_TIMEOUT: Duration = Duration::from_secs(15);

/// How long any other question may take until its answer begins.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

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
    /// What listens answers nothing at all.
    #[error("{who} does not answer; {}", who.next())]
    Silent {
        /// What listens.
        who: Listener,
    },
    /// What listens answers nothing at all, and was to carry out a command.
    #[error("{who} does not answer: {}; {}", became(*sent), who.next_after(*sent))]
    Hung {
        /// What listens.
        who: Listener,
        /// The command, if it was sent.
        sent: Option<CommandId>,
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
    #[error("the server's answer is incomplete: {0}")]
    Broken(String),
    /// A file of this machine cannot be read.
    #[error("cannot read {}: {cause}; name a file that this user can read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
}

/// How a command is sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct SendOptions {
    /// Only say what would be appended.
    pub dry_run: bool,
    /// How long the answer may wait for the router to confirm weights; the server's own time if there is nothing.
    pub wait: Option<Duration>,
    /// A rollback waits for the ledger's verdict, however long that takes.
    pub no_break_glass: bool,
}

impl Error {
    /// Returns the exit code that a command line ends with: 1 error, 2 usage, 4 not allowed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Refused(problem) => problem.exit,
            Error::NotAllowed { .. } => 4,
            Error::NotRunning { .. }
            | Error::Unreachable { .. }
            | Error::Silent { .. }
            | Error::Hung { .. }
            | Error::Indeterminate { .. }
            | Error::Broken(_)
            | Error::File { .. } => 1,
        }
    }
}

impl Client {
    /// Returns the client of the data folder's socket. It need not be there yet.
    pub fn of_data(data: &Path) -> Self {
        Self {
            target: Target { place: ServerAddress::Unix { data: data.to_owned() }, on_halted: None, patient: false },
        }
    }

    /// Returns the client of a server at `address` (`HOST:PORT`), with a token.
    pub fn of_address(address: &str, token: &str) -> Self {
        let place = ServerAddress::Tcp { address: address.to_owned(), token: call::Token::new(token) };
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

    /// Calls `callback` with the reason each time a server answers whose ledger has halted.
    #[must_use]
    pub fn on_halted(mut self, callback: OnHalted) -> Self {
        self.target.on_halted = Some(callback);
        self
    }

    /// Sends a command and returns what became of it. Without a verdict it is sent again under the same id, which
    /// carries it out at most once, for up to 30 s; a process that answers nothing at all is not waited for.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with the server's reason, [`Error::Indeterminate`] if it is not known whether it was carried out,
    /// [`Error::Hung`] if the process that listens gives no answer.
    pub async fn execute(&self, request: &Request, options: SendOptions) -> Result<CommandAnswer, Error> {
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
            let why = match self.target.json::<CommandAnswer>(Method::POST, &path, body.clone(), within).await {
                Ok(answer) => return Ok(answer),
                // What to do next is said once, after all attempts.
                Err(Fault::Refused(problem)) if problem.code == Code::Indeterminate => {
                    ErrorText::with_hint(&problem.message, problem.hint.as_deref()).message
                }
                Err(Fault::Refused(problem)) => return Err(problem.into()),
                Err(Fault::Lost(why)) => why,
                // One that only asks has changed nothing.
                Err(Fault::Silent(who)) if options.dry_run => return Err(Error::Silent { who }),
                Err(Fault::Silent(who)) => return Err(Error::Hung { who, sent: Some(request.id) }),
                Err(Fault::Full(who)) => return Err(Error::Hung { who, sent: sent.then_some(request.id) }),
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

    /// Asks a question.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn ask<Q: Question>(&self, question: &Q) -> Result<Q::Answer, Error> {
        self.get_within(&address(question), Q::WAIT_MAX).await
    }

    /// Asks a question that is answered line by line.
    ///
    /// # Errors
    ///
    /// [`Error`] if the answer cannot begin.
    pub async fn lines<Q: LinesQuestion>(&self, question: &Q) -> Result<Events<Q::Line>, Error> {
        let path = address(question);
        let response = self.target.send(Method::GET, &path, Bytes::new(), READ_TIMEOUT).await.map_err(Error::from)?;
        Ok(Events::new(response.into_body()))
    }

    /// Returns what the ledger is and where it stands.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn standing(&self) -> Result<Standing, Error> {
        self.ask(&StandingQuestion).await
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
        self.lines(&EventsQuestion { from, follow }).await
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
            Fault::NotSent(error) => error,
            Fault::Silent(who) | Fault::Full(who) => Error::Silent { who },
            Fault::Lost(why) => Error::Broken(why),
            Fault::Refused(problem) => problem.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_where_nothing_runs_is_said_so() {
        let data = tempfile::tempdir().unwrap();
        let error = Client::of_data(data.path()).standing().await.unwrap_err();
        assert_eq!(error.to_string(), format!("nothing runs on {}; start `ionledger up`", data.path().display()));
        assert_eq!(error.exit_code(), 1);
    }

    #[test]
    fn a_token_is_not_printed() {
        let client = Client::of_address("localhost:1", "ion_0123456789");
        assert!(!format!("{client:?}").contains("0123456789"));
    }
}
