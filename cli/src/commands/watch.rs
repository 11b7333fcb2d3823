//! Watching: an answer shown again whenever it changes.

mod keys;
mod screen;

use std::collections::BTreeSet;

use replay::answer::StatusAnswer;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::changes::Changes;
use crate::client::LedgerClient;
use crate::exit::Exit;
use crate::failure::{CommandResult, Failure};
use crate::out::Form;
use crate::render::status;
use crate::render::words::plain;
use crate::session::Session;
use keys::{Key, Keys};
use screen::Screen;

/// Shows the status until the person has seen enough (Ctrl-C, or `q` on a terminal). A ledger that goes away is waited for:
/// it may be started again. `eyes` makes the frame for a terminal of so many columns.
pub(crate) async fn watch(
    session: &Session,
    ledger: &LedgerClient,
    look: impl AsyncFn() -> CommandResult<StatusAnswer>,
    eyes: impl Fn(&StatusAnswer, usize) -> String,
) -> CommandResult {
    // Heard from here on, so that none is lost while it is looked.
    let (mut interrupt, mut terminate) = (hear(SignalKind::interrupt())?, hear(SignalKind::terminate())?);
    let mut resize = hear(SignalKind::window_change())?;
    let mut changes = Changes::once_it_answers(ledger.client()).await;
    let mut shown = Shown::new(session, look().await?, eyes)?;
    let mut keys = Keys::of_terminal(session.out.form == Form::Eyes);
    loop {
        tokio::select! {
            () = changes.next() => match look().await {
                Ok(status) => shown.show(status)?,
                Err(failure) => shown.miss(&failure)?,
            },
            key = keys.next() => match key {
                Key::Leave => break,
                Key::Scroll(scroll) => shown.scroll(scroll)?,
            },
            _ = resize.recv() => shown.draw()?,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    drop(keys);
    shown.leave()?;
    Ok(Exit::Done)
}

fn hear(kind: SignalKind) -> CommandResult<Signal> {
    signal(kind).map_err(|error| Failure::error(format!("cannot wait for signals: {error}; leave -w out")))
}

/// What is shown already.
struct Shown<'s, E> {
    session: &'s Session,
    eyes: E,
    /// What was seen last.
    status: StatusAnswer,
    /// Why there is nothing newer, if there is not.
    missed: Option<String>,
    /// The terminal.
    screen: Screen,
    /// The last lines in a pipe.
    lines: BTreeSet<String>,
}

impl<'s, E: Fn(&StatusAnswer, usize) -> String> Shown<'s, E> {
    fn new(session: &'s Session, status: StatusAnswer, eyes: E) -> CommandResult<Self> {
        let (screen, lines) = (Screen::default(), BTreeSet::new());
        let mut shown = Self { session, eyes, status, missed: None, screen, lines };
        shown.tell()?;
        Ok(shown)
    }

    fn show(&mut self, status: StatusAnswer) -> CommandResult<()> {
        (self.status, self.missed) = (status, None);
        self.tell()
    }

    /// Says that there is nothing newer: on a terminal above what was seen last, elsewhere once.
    fn miss(&mut self, failure: &Failure) -> CommandResult<()> {
        let first = self.missed.is_none();
        self.missed = Some(failure.whole());
        match self.session.out.form {
            Form::Eyes => self.draw()?,
            Form::Lines | Form::Json if first => self.session.out.say(&missing(&failure.whole())),
            Form::Lines | Form::Json => {}
        }
        Ok(())
    }

    fn tell(&mut self) -> CommandResult<()> {
        match self.session.out.form {
            Form::Eyes => self.draw(),
            Form::Lines => {
                let lines: BTreeSet<String> = status::lines(&self.status).lines().map(str::to_owned).collect();
                let new: String = lines.difference(&self.lines).map(|line| format!("{line}\n")).collect();
                self.lines = lines;
                if new.is_empty() { Ok(()) } else { self.session.out.data(&new) }
            }
            Form::Json => self.tell_json(),
        }
    }

    /// Writes the status unless nothing has changed but what is measured, which always does.
    fn tell_json(&mut self) -> CommandResult<()> {
        let mut services = self.status.services.clone();
        let deployments = services.iter_mut().flat_map(|service| &mut service.deployments);
        deployments.flat_map(|deployment| &mut deployment.versions).for_each(|version| version.measured = None);
        let text = serde_json::to_string(&services).unwrap_or_default();
        if self.lines.contains(&text) {
            return Ok(());
        }
        self.lines = BTreeSet::from([text]);
        self.session.out.data(&format!("{}\n", serde_json::to_string(&self.status).unwrap_or_default()))
    }

    fn scroll(&mut self, scroll: keys::Scroll) -> CommandResult<()> {
        self.screen.scroll(scroll);
        self.draw()
    }

    /// Draws the terminal anew, if there is one.
    fn draw(&mut self) -> CommandResult<()> {
        if self.session.out.form != Form::Eyes {
            return Ok(());
        }
        let (rows, columns) = crate::out::size(std::io::stdout());
        let frame = self.frame(columns);
        self.screen.draw(self.session.out, &frame, rows, columns)
    }

    fn frame(&self, columns: usize) -> String {
        let first = self.missed.as_ref().map(|why| format!("{}\n", missing(why))).unwrap_or_default();
        first + &(self.eyes)(&self.status, columns)
    }

    /// Gives the terminal back and leaves the last frame on it.
    fn leave(&mut self) -> CommandResult<()> {
        if self.session.out.form != Form::Eyes {
            return Ok(());
        }
        self.screen.leave()?;
        self.session.out.eyes(&self.frame(crate::out::columns(std::io::stdout())))
    }
}

fn missing(why: &str) -> String {
    format!("nothing newer is known, it is tried again: {}", plain(why))
}
