//! Problems: every error that comes through the API, with its code, HTTP status and exit code.

use std::fmt;

use http::StatusCode;
use ledger::decision::Rejection;
use ledger::execute::Refusal;
use ledger::log::{AppendError, ReadError};
use schemas::{CommandId, ErrorText};
use serde::{Deserialize, Serialize};

/// An error as it goes over the wire: `{"error":{"code":"not_ready","message":"...","exit":1}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// What kind it is, for programs.
    pub code: Code,
    /// The thing, the cause and the next step, for people.
    pub message: String,
    /// The next step alone, which the message ends with, if there is one. A server from before it had this key leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The exit code that a command line ends with.
    pub exit: u8,
    /// The command whose outcome nobody knows: send it again under this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandId>,
}

/// The body of an answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// The error.
    pub error: Problem,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:ident, $exit:literal;)+) => {
        /// What kind of problem it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)+
            /// A kind this program does not know: the server is newer.
            #[serde(other, rename = "other")]
            Other,
        }

        impl Code {
            /// Every code there is, with its name on the wire.
            pub const ALL: &'static [(Code, &'static str)] = &[$((Code::$variant, $name),)+];

            /// Returns the HTTP status it is answered with.
            pub fn status(self) -> StatusCode {
                match self { $(Code::$variant => StatusCode::$status,)+ Code::Other => StatusCode::INTERNAL_SERVER_ERROR }
            }

            /// Returns the exit code of a command line that ends with it: 1 error, 2 usage, 4 not allowed, 8 on hold.
            pub fn exit_code(self) -> u8 {
                match self { $(Code::$variant => $exit,)+ Code::Other => 1 }
            }

            /// Returns its name on the wire.
            pub fn name(self) -> &'static str {
                match self { $(Code::$variant => $name,)+ Code::Other => "other" }
            }
        }
    };
}

codes! {
    /// The request could not be read.
    Malformed = "malformed", BAD_REQUEST, 2;
    /// Nobody who is known asks.
    Unauthenticated = "unauthenticated", UNAUTHORIZED, 4;
    /// The one who asks may not.
    Forbidden = "forbidden", FORBIDDEN, 4;
    /// There is no such address.
    NoSuchPath = "no_such_path", NOT_FOUND, 1;
    /// The path does not support that method.
    Method = "method_not_allowed", METHOD_NOT_ALLOWED, 1;
    /// Something was never declared, recorded or seen.
    Unknown = "unknown", NOT_FOUND, 1;
    /// The release exists with other content.
    Immutable = "immutable", CONFLICT, 1;
    /// A rollback came in between.
    Fenced = "fenced", CONFLICT, 1;
    /// Something else happened first.
    Conflict = "conflict", CONFLICT, 1;
    /// The command or delivery id was used for something else.
    OtherContent = "other_content", CONFLICT, 1;
    /// A rollout is in the way.
    RolloutRunning = "rollout_running", CONFLICT, 1;
    /// The stream holds what the program does not understand.
    ReadOnly = "read_only", CONFLICT, 1;
    /// The state moved on.
    Outdated = "outdated", CONFLICT, 1;
    /// Somebody else listens on the address.
    PortInUse = "port_in_use", CONFLICT, 1;
    /// The body is too long.
    TooLarge = "too_large", PAYLOAD_TOO_LARGE, 1;
    /// Files that no release names take all the room they may.
    Quota = "quota", INSUFFICIENT_STORAGE, 1;
    /// The body is of another type than is taken.
    MediaType = "media_type", UNSUPPORTED_MEDIA_TYPE, 2;
    /// The body did not come in time.
    Slow = "slow", REQUEST_TIMEOUT, 1;
    /// The version cannot get traffic.
    NotReady = "not_ready", UNPROCESSABLE_ENTITY, 1;
    /// The weights are not all traffic.
    Weights = "weights", UNPROCESSABLE_ENTITY, 2;
    /// A version names several stacks, and it must be said which.
    Ambiguous = "ambiguous", UNPROCESSABLE_ENTITY, 1;
    /// More versions than the policy allows.
    TooManyVersions = "too_many_versions", UNPROCESSABLE_ENTITY, 1;
    /// It would go back to an older release by itself.
    Older = "older", UNPROCESSABLE_ENTITY, 1;
    /// There is no rollout to act on.
    NoRollout = "no_rollout", UNPROCESSABLE_ENTITY, 1;
    /// There is nothing to go back to.
    NoTarget = "no_target", UNPROCESSABLE_ENTITY, 1;
    /// The version was rolled back from, or left by hand for an older release.
    Rejected = "rejected", UNPROCESSABLE_ENTITY, 1;
    /// The deployment is on hold, and no person asks.
    OnHold = "on_hold", CONFLICT, 8;
    /// What was asked for is not possible in itself.
    Invalid = "invalid", UNPROCESSABLE_ENTITY, 2;
    /// The caller, or everyone together, has as many connections as the server takes.
    Busy = "busy", SERVICE_UNAVAILABLE, 1;
    /// This machine's clock cannot be right.
    ClockAhead = "clock_ahead", SERVICE_UNAVAILABLE, 1;
    /// Nobody knows whether the command was carried out.
    Indeterminate = "indeterminate", SERVICE_UNAVAILABLE, 1;
    /// The ledger gave no verdict on a rollback, and the router could not be told without it.
    Unmoved = "unmoved", SERVICE_UNAVAILABLE, 8;
    /// The log took nothing.
    LogUnavailable = "log_unavailable", SERVICE_UNAVAILABLE, 1;
    /// The ledger cannot be followed any more.
    Halted = "halted", SERVICE_UNAVAILABLE, 1;
    /// The router has not answered for some seconds.
    RouterSilent = "router_silent", SERVICE_UNAVAILABLE, 1;
    /// The server has not been told what this needs.
    NotConfigured = "not_configured", SERVICE_UNAVAILABLE, 1;
    /// There is no room on the disk.
    DiskFull = "disk_full", INSUFFICIENT_STORAGE, 1;
    /// The ledger is damaged, or a check of it failed.
    Damaged = "damaged", INTERNAL_SERVER_ERROR, 1;
    /// A bug.
    Internal = "internal", INTERNAL_SERVER_ERROR, 1;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Problem {
    /// Returns a problem of kind `code`.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let message = message.into();
        let hint = ErrorText::of(&message).hint;
        Self { code, message, hint, exit: code.exit_code(), command: None }
    }

    /// Returns the problem that a request could not be read.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(Code::Malformed, message)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let code = match &refusal {
            Refusal::Rejected(rejection) => code_of(rejection),
            Refusal::Conflict { .. } => Code::Conflict,
            Refusal::OtherContent { .. } => Code::OtherContent,
            Refusal::ReadOnly { .. } | Refusal::Sealed { .. } => Code::ReadOnly,
            Refusal::Deposed { .. } => Code::Outdated,
            Refusal::TooLarge { .. } => Code::TooLarge,
            Refusal::ClockAhead { .. } => Code::ClockAhead,
            Refusal::Indeterminate { .. } | Refusal::NotTaken(AppendError::Ambiguous(_)) => Code::Indeterminate,
            Refusal::NotTaken(AppendError::Full(_)) => Code::DiskFull,
            Refusal::NotTaken(AppendError::Refused(_)) | Refusal::Cold(_) => Code::LogUnavailable,
            Refusal::NotTaken(AppendError::Stopped(_)) | Refusal::Halted(_) => Code::Halted,
        };
        let command = match &refusal {
            Refusal::Indeterminate { id, .. } => Some(*id),
            _ => None,
        };
        Self { command, hint: refusal.hint(), ..Self::new(code, refusal.to_string()) }
    }
}

impl From<replay::Error> for Problem {
    fn from(error: replay::Error) -> Self {
        let code = match &error {
            replay::Error::Future { .. } => Code::Invalid,
            replay::Error::NoOffset { .. }
            | replay::Error::Empty
            | replay::Error::NoCommit(_)
            | replay::Error::NoCommitAt(_)
            | replay::Error::Nothing { .. } => Code::Unknown,
            replay::Error::Several { .. } => Code::Invalid,
            replay::Error::Read(ReadError::Damaged { .. }) => Code::Damaged,
            replay::Error::Read(ReadError::Unavailable(_)) | replay::Error::Open(_) => Code::LogUnavailable,
            replay::Error::Halt(_) => Code::Halted,
        };
        Problem::new(code, error.to_string())
    }
}

fn code_of(rejection: &Rejection) -> Code {
    match rejection {
        Rejection::Unknown { .. } => Code::Unknown,
        Rejection::Immutable { .. } => Code::Immutable,
        Rejection::NotReady { .. } => Code::NotReady,
        Rejection::Weights(_) => Code::Weights,
        Rejection::TooManyVersions { .. } => Code::TooManyVersions,
        Rejection::Ambiguous { .. } => Code::Ambiguous,
        Rejection::RolloutRunning { .. } => Code::RolloutRunning,
        Rejection::Older { .. } => Code::Older,
        Rejection::NoRollout { .. } => Code::NoRollout,
        Rejection::NoTarget { .. } | Rejection::AllRejected { .. } => Code::NoTarget,
        Rejection::Rejected { .. } => Code::Rejected,
        Rejection::OnHold { .. } => Code::OnHold,
        Rejection::Fenced { .. } => Code::Fenced,
        Rejection::BaselineFails { .. } | Rejection::Invalid(_) => Code::Invalid,
        Rejection::Outdated(_) => Code::Outdated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_back_and_a_code_of_a_newer_server_is_other() {
        let problem = Problem::new(Code::NotReady, "production/api 1.2.3 is not ready");
        let text = serde_json::to_string(&Body { error: problem.clone() }).unwrap();
        let expected = r#"{"error":{"code":"not_ready","message":"production/api 1.2.3 is not ready","exit":1}}"#;
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Body>(&text).unwrap().error, problem);
        assert_eq!(problem.hint, None);
        let hinted = Problem::new(Code::Busy, "all connections are in use; close some");
        let text_of_hinted = serde_json::to_string(&hinted).unwrap();
        assert_eq!(
            text_of_hinted,
            r#"{"code":"busy","message":"all connections are in use; close some","hint":"close some","exit":1}"#
        );
        let newer = text.replace("not_ready", "not_in_the_mood");
        assert_eq!(serde_json::from_str::<Body>(&newer).unwrap().error.code, Code::Other);
    }

    #[test]
    fn every_code_has_a_name_of_its_own() {
        for (n, (code, name)) in Code::ALL.iter().enumerate() {
            assert_eq!(code.name(), *name);
            assert!(Code::ALL[..n].iter().all(|(_, other)| other != name), "{name}");
            assert_eq!(serde_json::to_string(code).unwrap(), format!("\"{name}\""));
        }
    }
}
