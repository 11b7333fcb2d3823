//! What becomes of what is asked: the answer, or why there is none.

use schemas::{CommandId, CommitId, Event, Offset, StackId, Stream};

use crate::decision::{Rejection, Told};
use crate::log::{AppendError, ReadError};
use crate::rule::Halt;

/// What became of a command.
#[derive(Clone, Debug, PartialEq)]
pub struct Executed {
    /// The commit that carries it out; none if it was already true.
    pub commit: Option<CommitId>,
    /// Where that stands.
    pub offset: Option<Offset>,
    /// What happened.
    pub events: Vec<(Stream, Event)>,
    /// What the one who asked should know besides.
    pub notes: Vec<String>,
    /// Whether the same command had been carried out by another commit, and this is its answer.
    pub repeated: bool,
    /// The stack with which it was true already, as [`Told::stack`].
    pub stack: Option<StackId>,
}

impl Executed {
    /// Returns the answer to what was already true.
    pub fn nothing(told: Told) -> Self {
        let Told { notes, stack } = told;
        Self { commit: None, offset: None, events: vec![], notes, repeated: false, stack }
    }
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The domain says no.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Something else happened first.
    #[error("{stream} changed while this was decided: {since}; {}", LOOK)]
    Conflict {
        /// The stream.
        stream: String,
        /// What happened since.
        since: String,
    },
    /// A command id was used again for something else.
    #[error("command {id} was already used for another command; make a new id")]
    OtherContent {
        /// The id.
        id: CommandId,
    },
    /// The stream holds what this program does not understand.
    #[error("{stream} is read-only for this program: {why}")]
    ReadOnly {
        /// The stream.
        stream: String,
        /// The first event that is not understood.
        why: String,
    },
    /// The ledger goes on elsewhere.
    #[error("the ledger was moved to {target}; send the command there")]
    Sealed {
        /// Where it goes on.
        target: String,
    },
    /// Another instance acts for the role.
    #[error("{holder} does not hold the lease of {role}; another instance acts")]
    Deposed {
        /// The role.
        role: schemas::Role,
        /// The instance that tried.
        holder: String,
    },
    /// The commit would be too long.
    #[error("the commit would be {bytes} bytes, at most {max} are allowed; ask for less at once", max = schemas::envelope::COMMIT_BYTES_MAX)]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// This machine's clock cannot be right.
    #[error(
        "this machine's clock is {ahead_s} s ahead of the ledger and of itself; set the clock; until then only \
         rollbacks are accepted"
    )]
    ClockAhead {
        /// How far, in seconds.
        ahead_s: i64,
    },
    /// Nobody knows yet.
    #[error("no verdict on command {id}: {why}; {}", SEND_AGAIN)]
    Indeterminate {
        /// The command.
        id: CommandId,
        /// What went wrong.
        why: String,
    },
    /// The log did not take it.
    #[error(transparent)]
    NotTaken(AppendError),
    /// A rollback changed nothing: its target must be started first, and the ledger, which would do that, takes no commit now.
    #[error("nothing was changed: {0}")]
    Cold(String),
    /// This reader has halted.
    #[error("the ledger cannot be followed any more: {0}")]
    Halted(String),
}

/// What to do after a conflict.
const LOOK: &str = "look at `ionledger status` and ask again";

/// What to do without a verdict.
const SEND_AGAIN: &str = "send the same command id again, it is carried out at most once";

impl Refusal {
    /// Returns the next step that its text ends with, if it has one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Rejected(rejection) => rejection.hint(),
            Self::Conflict { .. } => Some(LOOK.to_owned()),
            Self::Indeterminate { .. } => Some(SEND_AGAIN.to_owned()),
            Self::OtherContent { .. }
            | Self::ReadOnly { .. }
            | Self::Sealed { .. }
            | Self::Deposed { .. }
            | Self::TooLarge { .. }
            | Self::ClockAhead { .. }
            | Self::NotTaken(_)
            | Self::Cold(_)
            | Self::Halted(_) => schemas::ErrorText::of(self).hint,
        }
    }
}

/// Why a ledger could not be opened.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LedgerOpenError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// This program cannot go on without guessing.
    #[error(transparent)]
    Halt(#[from] Halt),
    /// The first record could not be written.
    #[error(transparent)]
    Append(#[from] AppendError),
}
