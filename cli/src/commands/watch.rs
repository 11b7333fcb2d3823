//! Watching: an answer shown again whenever it changes.

mod keys;
mod screen;

use std::collections::BTreeSet;
use std::time::Duration;

use replay::answer::Status;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::changes::Changes;
use crate::door::Door;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::out::Form;
use crate::render::status;
use crate::render::words::plain;
use crate::session::Session;
use keys::{Key, Keys};
use screen::Screen;

/// How long to wait before looking again where nobody runs who tells of changes.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Shows the status until the person has seen enough (Ctrl-C, or `q` on a terminal). A ledger that goes away is waited for:
/// it may be started again. `eyes` makes the frame for a terminal of so many columns.
pub(crate) async fn watch(
    session: &Session,
    door: &Door,
    look: impl AsyncFn() -> Outcome<Status>,
    eyes: impl Fn(&Status, usize) -> String,
) -> Outcome {
    // Heard from here on, so that none is lost while it is looked.
    let (mut interrupt, mut terminate) = (hear(SignalKind::interrupt())?, hear(SignalKind::terminate())?);
    let mut resize = hear(SignalKind::window_change())?;
    let mut changes = Changes::of(door.client()).await.ok();
    let mut shown = Shown::new(session, look().await?, eyes)?;
    let mut keys = Keys::of_terminal(session.out.form == Form::Eyes);
    loop {
        tokio::select! {
            () = changed(&mut changes, door) => match look().await {
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

fn hear(kind: SignalKind) -> Outcome<Signal> {
    signal(kind).map_err(|error| Failure::error(format!("signals cannot be heard: {error}; leave -w out")))
}

/// Waits for a change, for a second at most; where nobody tells of changes, tries to follow them again.
async fn changed<'c>(changes: &mut Option<Changes<'c>>, door: &'c Door) {
    match changes {
        Some(following) => {
            if !following.next_or_gone().await {
                *changes = None;
            }
        }
        None => {
            tokio::time::sleep(LOOK_AGAIN).await;
            *changes = Changes::of(door.client()).await.ok();
        }
    }
}

/// What is shown already.
struct Shown<'s, E> {
    session: &'s Session,
    eyes: E,
    /// What was seen last.
    status: Status,
    /// Why there is nothing newer, if there is not.
    missed: Option<String>,
    /// The terminal.
    screen: Screen,
    /// The last lines in a pipe.
    lines: BTreeSet<String>,
}

impl<'s, E: Fn(&Status, usize) -> String> Shown<'s, E> {
    fn new(session: &'s Session, status: Status, eyes: E) -> Outcome<Self> {
        let (screen, lines) = (Screen::default(), BTreeSet::new());
        let mut shown = Self { session, eyes, status, missed: None, screen, lines };
        shown.tell()?;
        Ok(shown)
    }

    fn show(&mut self, status: Status) -> Outcome<()> {
        (self.status, self.missed) = (status, None);
        self.tell()
    }

    /// Says that there is nothing newer: on a terminal above what was seen last, elsewhere once.
    fn miss(&mut self, failure: &Failure) -> Outcome<()> {
        let first = self.missed.is_none();
        self.missed = Some(failure.message().to_owned());
        match self.session.out.form {
            Form::Eyes => self.draw()?,
            Form::Lines | Form::Json if first => self.session.out.say(&missing(failure.message())),
            Form::Lines | Form::Json => {}
        }
        Ok(())
    }

    fn tell(&mut self) -> Outcome<()> {
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
    fn tell_json(&mut self) -> Outcome<()> {
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

    fn scroll(&mut self, scroll: keys::Scroll) -> Outcome<()> {
        self.screen.scroll(scroll);
        self.draw()
    }

    /// Draws the terminal anew, if there is one.
    fn draw(&mut self) -> Outcome<()> {
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
    fn leave(&mut self) -> Outcome<()> {
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
