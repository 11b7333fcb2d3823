//! Changes: what every command that writes does alike.

use std::time::Duration;

use api::client::Options;
use api::wire::Answer;
use replay::Moment;
use schemas::CommandId;
use schemas::command::{Command, Request};

use super::after::{Before, after};
use crate::args::Asking;
use crate::door::Door;
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::halted;
use crate::progress::Progress;
use crate::render::written;
use crate::session::Session;

/// How long a command waits to know how things stood before it.
const BEFORE_MAX: Duration = Duration::from_millis(500);

/// Sends a command to the running ledger and says what it made happen, and how it is taken back.
pub(crate) async fn change(session: &Session, door: &Door, asking: &Asking, command: Command) -> Outcome<Answer> {
    let (answer, next) = change_then(session, door, asking, command).await?;
    next.say(session);
    Ok(answer)
}

/// What to do after a change, to be said once it has come to its end.
#[must_use]
pub(crate) struct Next(Vec<String>);

impl Next {
    /// Says it.
    pub(crate) fn say(self, session: &Session) {
        if !self.0.is_empty() {
            session.out.say(&written::faintly(&self.0));
        }
    }
}

/// As [`change`], but what to do next is left to say for who waits for the end.
pub(crate) async fn change_then(
    session: &Session,
    door: &Door,
    asking: &Asking,
    command: Command,
) -> Outcome<(Answer, Next)> {
    // Only for the hint at the end: what cannot be read here is told by the command's own answer.
    let before = tokio::time::timeout(BEFORE_MAX, before(door, &command)).await.unwrap_or_default();
    let answer = send(session, door, asking, &command).await?;
    let shown = written::Written { schema_version: 1, answer: &answer };
    session.out.answer(&shown, |_| written::eyes(&answer, asking.dry_run), |_| written::lines(&answer))?;
    if answer.unrecorded.is_some() {
        session.out.say(&written::loudly(&answer.notes));
        halted::carried_out();
        return Ok((answer, Next(vec![])));
    }
    if matches!(command, Command::Rollback { .. }) && rolled_back(&answer) != Exit::Done {
        session.out.say(&written::loudly(&[
            "set, not applied: the router does not serve it yet; it is applied as soon as the router can be told"
                .to_owned(),
        ]));
    }
    Next(written::talk(&answer, asking.dry_run)).say(session);
    let next =
        if asking.dry_run || answer.events.is_empty() { vec![] } else { after(&command, &before, &answer.events) };
    Ok((answer, Next(next)))
}

async fn before(door: &Door, command: &Command) -> Before {
    let mut before = Before::default();
    match command {
        Command::Apply { service, .. } => {
            let declared = door.declaration(service, Moment::Now).await.ok();
            before.declared_at = declared.filter(|found| found.definition.is_some()).and_then(|found| found.at.offset);
        }
        other => {
            if let Some(deployment) = other.deployment() {
                before.deployment = door.deployment(deployment).await.ok().flatten();
            }
        }
    }
    before
}

/// Returns how a rollback ends. One whose weights the router does not serve has sent nobody back yet.
pub(crate) fn rolled_back(answer: &Answer) -> Exit {
    if answer.applied == Some(false) { Exit::StillGoing } else { Exit::Done }
}

/// Makes sure that a command would not be refused, and changes nothing.
pub(crate) async fn would(session: &Session, door: &Door, asking: &Asking, command: &Command) -> Outcome<()> {
    let asking = Asking { dry_run: true, ..asking.clone() };
    send(session, door, &asking, command).await.map(drop)
}

async fn send(session: &Session, door: &Door, asking: &Asking, command: &Command) -> Outcome<Answer> {
    let request = Request {
        id: asking.command_id.unwrap_or_else(|| CommandId(uuid::Uuid::now_v7())),
        command: command.clone(),
        fence: None,
        reason: asking.reason.clone(),
        effective_at: None,
    };
    let _progress = Progress::begin(session.out, "waiting for the ledger");
    let options = Options { dry_run: asking.dry_run, wait: None::<Duration>, no_break_glass: asking.no_break_glass };
    Ok(door.client().execute(&request, options).await?)
}
