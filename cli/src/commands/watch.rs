//! Watching: an answer shown again whenever it changes.

use std::collections::BTreeSet;
use std::io::Write as _;

use replay::answer::Status;
use rustix::termios::tcgetwinsize;
use tokio::signal::unix::{SignalKind, signal};

use super::changes::Changes;
use crate::door::Door;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::out::Form;
use crate::render::status;
use crate::session::Session;

/// Shows the status until the person has seen enough (Ctrl-C).
pub(crate) async fn watch(session: &Session, door: &Door, look: impl AsyncFn() -> Outcome<Status>) -> Outcome {
    // Heard from here on, so that none is lost while it is looked.
    let hear =
        |kind| signal(kind).map_err(|error| Failure::error(format!("signals cannot be heard: {error}; leave -w out")));
    let (mut interrupt, mut terminate) = (hear(SignalKind::interrupt())?, hear(SignalKind::terminate())?);
    let mut changes = Changes::of(door.client()).await?;
    let mut shown = Shown::new(session);
    loop {
        let looked = look().await;
        let status = match looked {
            Ok(status) => status,
            Err(failure) => {
                shown.leave()?;
                return Err(failure);
            }
        };
        shown.show(&status)?;
        tokio::select! {
            next = changes.next(None) => if let Err(failure) = next {
                shown.leave()?;
                return Err(failure);
            },
            _ = async { tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} } } => {
                shown.leave()?;
                return Ok(Exit::Done);
            }
        }
    }
}

/// What is shown already.
struct Shown<'s> {
    session: &'s Session,
    /// The last frame on a terminal, whose other screen is in use while there is one.
    frame: Option<String>,
    /// The last lines in a pipe.
    lines: BTreeSet<String>,
}

impl<'s> Shown<'s> {
    fn new(session: &'s Session) -> Self {
        Self { session, frame: None, lines: BTreeSet::new() }
    }

    /// Shows what is new: the whole in place on a terminal, each line that changed in a pipe.
    fn show(&mut self, status: &Status) -> Outcome<()> {
        let out = self.session.out;
        match out.form {
            Form::Eyes => {
                let frame = status::eyes(status, &self.session.now());
                let enter = if self.frame.is_none() { "\u{1b}[?1049h\u{1b}[?25l" } else { "" };
                let (rows, columns) = size();
                raw(&format!("{enter}\u{1b}[H"))?;
                out.data(&fitting(&frame, rows, columns))?;
                raw("\u{1b}[J")?;
                self.frame = Some(frame);
                Ok(())
            }
            Form::Lines => {
                let lines: BTreeSet<String> = status::lines(status).lines().map(str::to_owned).collect();
                let new: String = lines.difference(&self.lines).map(|line| format!("{line}\n")).collect();
                self.lines = lines;
                if new.is_empty() { Ok(()) } else { out.data(&new) }
            }
            Form::Json => {
                let text = serde_json::to_string(&status.services).unwrap_or_default();
                if self.lines.contains(&text) {
                    return Ok(());
                }
                self.lines = BTreeSet::from([text]);
                out.data(&format!("{}\n", serde_json::to_string(status).unwrap_or_default()))
            }
        }
    }

    /// Gives the terminal back and leaves the last frame on it.
    fn leave(&mut self) -> Outcome<()> {
        match self.frame.take() {
            Some(frame) => {
                raw("\u{1b}[?25h\u{1b}[?1049l")?;
                self.session.out.data(&frame)
            }
            None => Ok(()),
        }
    }
}

/// Writes to the terminal itself, without anything being left out.
fn raw(text: &str) -> Outcome<()> {
    let mut stdout = std::io::stdout().lock();
    crate::out::written(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

/// The terminal's rows and columns.
fn size() -> (usize, usize) {
    match tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row.into(), size.ws_col.into()),
        _ => (24, 80),
    }
}

/// Returns what fits on the screen: lines are cleared to their end, and what does not fit is counted.
fn fitting(frame: &str, rows: usize, columns: usize) -> String {
    let mut used = 0;
    let mut text = String::new();
    let lines: Vec<&str> = frame.lines().collect();
    for (n, line) in lines.iter().enumerate() {
        let width = anstream::adapter::strip_str(line).to_string().chars().count();
        used += width.div_ceil(columns).max(1);
        if used + 1 >= rows && n + 1 < lines.len() {
            text.push_str(&format!("... {} more lines\u{1b}[K\n", lines.len() - n));
            break;
        }
        text.push_str(&format!("{line}\u{1b}[K\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_never_scrolls_its_head_off_the_screen() {
        let frame: String = (1..=30).map(|n| format!("line {n}\n")).collect();
        let shown = fitting(&frame, 10, 80);
        assert!(shown.starts_with("line 1\u{1b}[K\n"));
        assert!(shown.ends_with("... 22 more lines\u{1b}[K\n"), "{shown:?}");
        assert!(shown.lines().count() < 10);
        let wrapped = fitting(&format!("{}\n{}\n{}\n", "a".repeat(100), "b".repeat(100), "c"), 5, 40);
        assert!(wrapped.contains("a\u{1b}[K") && wrapped.ends_with("... 2 more lines\u{1b}[K\n"), "{wrapped:?}");
    }
}
