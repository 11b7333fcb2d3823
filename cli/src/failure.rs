//! Failures: the edge at which every error becomes one line for people and an exit code for scripts.

use std::fmt;

use api::Problem;
use schemas::ErrorText;

use crate::exit::Exit;
use crate::render::words::plain;

/// Why a command ends early. Shown as `error: <thing>: <cause>`, and below it `hint: <next step>`.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: u8,
    message: String,
    /// What an error that wraps others has from them.
    cause: Option<String>,
    hint: Option<String>,
    detail: Option<String>,
}

/// What a command gives.
pub(crate) type CommandResult<T = Exit> = Result<T, Failure>;

impl Failure {
    /// Returns an error: something went wrong, or was refused.
    pub(crate) fn error(message: impl fmt::Display) -> Self {
        Self::ending(Exit::Error as u8, message)
    }

    /// Returns a usage error: the command cannot be understood.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::ending(Exit::Usage as u8, message)
    }

    /// Returns a usage error: the first wrong place in a file is the error, the others stand below it, one per line.
    pub(crate) fn file(error: &api::document::Error) -> Self {
        let text = error.to_string();
        match text.split_once('\n') {
            None => Self::usage(text),
            Some((first, others)) => Self::usage(first).showing(others),
        }
    }

    /// Returns an error with the exit code that its maker gave it. The text has its next step behind the first `; `.
    pub(crate) fn ending(exit: u8, text: impl fmt::Display) -> Self {
        Self::told(exit, ErrorText::of(text))
    }

    fn told(exit: u8, text: ErrorText) -> Self {
        Self { exit, message: text.message, cause: None, hint: text.hint, detail: None }
    }

    /// Returns the end of a command whose reader has gone away, as `head` does: nothing is said.
    pub(crate) fn reader_gone() -> Self {
        Self::ending(Exit::Done as u8, "")
    }

    /// Returns it as one line, without its hint.
    pub(crate) fn line(&self) -> String {
        self.cause.iter().fold(self.message.clone(), |message, cause| format!("{message}: {cause}"))
    }

    /// Adds what is shown below the line: the place in a file.
    #[must_use]
    pub(crate) fn showing(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds what is true all the same.
    #[must_use]
    pub(crate) fn though(mut self, what: &str) -> Self {
        self.message = format!("{}; {what}", self.message);
        self
    }

    /// Returns the exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        self.exit
    }

    /// Returns what went wrong and the next step, in one line.
    pub(crate) fn whole(&self) -> String {
        let message = self.line();
        ErrorText { message, hint: self.hint.clone() }.to_string()
    }

    /// Returns the error's line, and below it the cause if it has one of its own, the hint if there is one, and the other places in
    /// a file; nothing if there is nothing to say.
    pub(crate) fn text(&self) -> String {
        if self.message.is_empty() {
            return String::new();
        }
        let mut text = format!("error: {}\n", plain(&self.message));
        text.extend(self.cause.iter().map(|cause| format!("  {}\n", plain(cause))));
        text.extend(self.hint.iter().map(|hint| format!("hint: {}\n", plain(hint))));
        if let Some(detail) = &self.detail {
            text.push_str(detail.trim_end());
            text.push('\n');
        }
        text
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::told(problem.exit, ErrorText::with_hint(&problem.message, problem.hint.as_deref()))
    }
}

impl From<miette::Report> for Failure {
    fn from(report: miette::Report) -> Self {
        let mut chain: Vec<String> = report.chain().map(ToString::to_string).collect();
        let message = chain.remove(0);
        if chain.is_empty() {
            return Self::error(message);
        }
        let ErrorText { message: cause, hint } = ErrorText::of(chain.join(": "));
        Self { cause: Some(cause), hint, ..Self::told(Exit::Error as u8, ErrorText { message, hint: None }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_and_its_hint_another_whatever_it_quotes() {
        let failure = Failure::error("no service `a\n\u{1b}[31mb`; look at `ionledger status`");
        assert_eq!(failure.text(), "error: no service `a\\n\\u{1b}[31mb`\nhint: look at `ionledger status`\n");
    }

    #[test]
    fn a_chain_of_causes_stands_below_the_error() {
        use miette::{Context as _, IntoDiagnostic as _};
        let cause = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let report = Err::<(), _>(cause).into_diagnostic().wrap_err("cannot listen").unwrap_err();
        assert_eq!(Failure::from(report).text(), "error: cannot listen\n  permission denied\n");
    }
}
