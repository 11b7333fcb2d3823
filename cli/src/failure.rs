//! Failures: the edge at which every error becomes one line for people and an exit code for scripts.

use std::fmt;

use api::Problem;

use crate::exit::Exit;
use crate::render::words::plain;

/// Why a command ends early. Shown as `error: <thing>: <cause>; <next step>`.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: u8,
    message: String,
    detail: Option<String>,
}

/// What a command gives.
pub(crate) type Outcome<T = Exit> = Result<T, Failure>;

impl Failure {
    /// Returns an error: something went wrong, or was refused.
    pub(crate) fn error(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Error as u8, message: message.to_string(), detail: None }
    }

    /// Returns a usage error: the command cannot be understood.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Usage as u8, message: message.to_string(), detail: None }
    }

    /// Returns a usage error: the first wrong place in a file is the error, the others stand below it, a line each.
    pub(crate) fn file(error: &api::document::Error) -> Self {
        let text = error.to_string();
        match text.split_once('\n') {
            None => Self::usage(text),
            Some((first, others)) => Self::usage(first).showing(others),
        }
    }

    /// Returns an error with the exit code that its maker gave it.
    pub(crate) fn ending(exit: u8, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string(), detail: None }
    }

    /// Returns the end of a command whose reader has gone away, as `head` does: nothing is said.
    pub(crate) fn reader_gone() -> Self {
        Self { exit: Exit::Done as u8, message: String::new(), detail: None }
    }

    /// Adds what is shown below the line: the place in a file.
    #[must_use]
    pub(crate) fn showing(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Returns the exit code.
    pub(crate) fn exit(&self) -> u8 {
        self.exit
    }

    /// Returns what went wrong, without the word that says so.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Returns the error's line, and below it the place in a file if there is one; nothing if there is nothing to say.
    pub(crate) fn text(&self) -> String {
        if self.message.is_empty() {
            return String::new();
        }
        let mut text = format!("error: {}\n", plain(&self.message));
        if let Some(detail) = &self.detail {
            text.push_str(detail.trim_end());
            text.push('\n');
        }
        text
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self { exit: problem.exit, message: problem.message, detail: None }
    }
}

impl From<miette::Report> for Failure {
    fn from(report: miette::Report) -> Self {
        let chain: Vec<String> = report.chain().map(ToString::to_string).collect();
        Self::error(chain.join(": "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_whatever_it_quotes() {
        let failure = Failure::error("no service `a\n\u{1b}[31mb`; look at `ionledger status`");
        assert_eq!(failure.text(), "error: no service `a\\n\\u{1b}[31mb`; look at `ionledger status`\n");
    }

    #[test]
    fn a_chain_of_causes_is_one_line() {
        use miette::{Context as _, IntoDiagnostic as _};
        let cause = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let report = Err::<(), _>(cause).into_diagnostic().wrap_err("cannot listen").unwrap_err();
        assert_eq!(Failure::from(report).text(), "error: cannot listen: permission denied\n");
    }
}
