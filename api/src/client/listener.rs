//! What listens where a client asks, as it is named when it does not answer.

use std::fmt;
use std::path::PathBuf;

use schemas::CommandId;

/// What listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listener {
    /// A process on a data folder's socket.
    Process {
        /// The data folder.
        data: PathBuf,
        /// Its id, if it is known.
        pid: Option<i32>,
    },
    /// A server elsewhere.
    Server {
        /// `HOST:PORT`.
        address: String,
    },
}

impl Listener {
    /// Returns what to do next after a question that got no answer.
    pub(super) fn next(&self) -> String {
        let restart = self.restart();
        match self {
            Self::Process { .. } => format!("{restart}; until then `ionledger rollback` works without it"),
            Self::Server { .. } => restart,
        }
    }

    /// Returns what to do next after a change that got no answer; `sent` is its id if it was sent.
    pub(super) fn next_after(&self, sent: Option<CommandId>) -> String {
        let again = sent.map(|id| format!(" with `--command-id {id}`: one id is carried out at most once"));
        let again = again.unwrap_or_default();
        format!("{}; then send the command again{again}", self.restart())
    }

    fn restart(&self) -> String {
        let who = match self {
            Self::Process { .. } => "process",
            Self::Server { .. } => "server",
        };
        format!("find out why the {who} hangs, or stop it and start it again")
    }
}

/// Says what became of a command that has no answer.
pub(super) fn became(sent: Option<CommandId>) -> &'static str {
    match sent {
        Some(_) => "the command was sent, and nobody knows whether it was carried out",
        None => "the command was not sent, and nothing was changed",
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { data, pid: Some(pid) } => write!(f, "the process {pid} that serves {}", data.display()),
            Self::Process { data, pid: None } => write!(f, "the process that serves {}", data.display()),
            Self::Server { address } => write!(f, "the server at {address}"),
        }
    }
}
