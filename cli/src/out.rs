//! Where words go: data to stdout, talk to stderr.

use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd;

use jiff::Zoned;
use rustix::termios::tcgetwinsize;
use serde::Serialize;

use crate::failure::{CommandResult, Failure};
use crate::halted;
use crate::render::{Render, wrap};

/// In which form data goes to stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// For eyes: trees, tables, glyphs and colour.
    Eyes,
    /// For pipes: tab-separated lines with the same columns for ever.
    Lines,
    /// For programs: the answers' documented JSON.
    Json,
}

/// Where a command's words go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    /// The form of its data.
    pub(crate) form: Form,
    quiet: bool,
}

impl Out {
    /// Returns where words go: JSON if it is asked for, else what suits stdout.
    pub(crate) fn new(json: bool, quiet: bool, no_color: bool) -> Self {
        if no_color {
            anstream::ColorChoice::Never.write_global();
        }
        let form = match json {
            true => Form::Json,
            false if io::stdout().is_terminal() => Form::Eyes,
            false => Form::Lines,
        };
        Self { form, quiet }
    }

    /// Writes data. Colours are left out where stdout cannot show them.
    pub(crate) fn data(self, text: &str) -> CommandResult<()> {
        halted::say_first();
        let mut stdout = anstream::stdout().lock();
        written(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
    }

    /// Says whether stdout shows colours.
    pub(crate) fn has_colours(self) -> bool {
        !matches!(anstream::AutoStream::choice(&io::stdout()), anstream::ColorChoice::Never)
    }

    /// Writes text for eyes, wrapped to the terminal.
    pub(crate) fn eyes(self, text: &str) -> CommandResult<()> {
        self.data(&wrap::wrapped(text, columns(io::stdout())))
    }

    /// Writes an answer in the form that is wanted.
    pub(crate) fn answer(self, answer: &impl Render, now: &Zoned) -> CommandResult<()> {
        match self.form {
            Form::Eyes => self.eyes(&answer.eyes(now, columns(io::stdout()))),
            Form::Lines => self.data(&answer.lines()),
            Form::Json => self.json(answer),
        }
    }

    /// Writes an answer as JSON: indented for eyes, a line otherwise.
    pub(crate) fn json<T: Serialize>(self, answer: &T) -> CommandResult<()> {
        let pretty = io::stdout().is_terminal();
        let text = if pretty { serde_json::to_string_pretty(answer) } else { serde_json::to_string(answer) };
        let text = text.map_err(|error| Failure::error(format!("the answer is not valid JSON: {error}")))?;
        self.data(&format!("{text}\n"))
    }

    /// Says something to the person at the terminal, unless they want quiet.
    pub(crate) fn say(self, text: &str) {
        halted::say_first();
        if !self.quiet {
            // Nobody who listens is no reason to stop.
            let _ = writeln!(anstream::stderr().lock(), "{}", for_stderr(text));
        }
    }

    /// Whether what goes on may be shown: somebody looks and has not asked for quiet.
    pub(crate) fn shows_progress(self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }
}

/// Returns text as it goes to stderr: wrapped, if that is a terminal.
pub(crate) fn for_stderr(text: &str) -> String {
    if io::stderr().is_terminal() { wrap::wrapped(text, columns(io::stderr())) } else { text.to_owned() }
}

/// Returns how wide a terminal is; what is none, or does not say, is 80 columns wide.
pub(crate) fn columns(terminal: impl AsFd) -> usize {
    size(terminal).1
}

/// Returns a terminal's rows and columns; what is none, or does not say, has 24 and 80.
pub(crate) fn size(terminal: impl AsFd) -> (usize, usize) {
    match tcgetwinsize(terminal) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row.into(), size.ws_col.into()),
        _ => (24, 80),
    }
}

/// Returns what became of writing to stdout.
pub(crate) fn written(result: io::Result<()>) -> CommandResult<()> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::reader_gone()),
        Err(error) => Err(Failure::error(format!("stdout: {error}; the command may have been carried out"))),
    }
}
