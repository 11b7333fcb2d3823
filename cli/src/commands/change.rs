//! Changes: what every command that writes does alike.

use std::time::Duration;

use api::client::SendOptions;
use api::question::DeclarationQuestion;
use api::wire::CommandAnswer;
use futures::FutureExt as _;
use replay::Moment;
use schemas::command::{self, Command, Request};
use schemas::{CommandId, Offset, Timestamp};

use super::after::{After, Before, after};
use crate::args::Asking;
use crate::client::LedgerClient;
use crate::exit::Exit;
use crate::failure::CommandResult;
use crate::halted;
use crate::progress::Progress;
use crate::render::written;
use crate::session::Session;

/// How long a command waits to know how things stood before it.
const BEFORE_MAX: Duration = Duration::from_millis(500);

/// Sends a command to the running ledger and says what it made happen, and how it is taken back.
pub(crate) async fn change(
    session: &Session,
    ledger: &LedgerClient,
    asking: &Asking,
    command: Command,
) -> CommandResult<CommandAnswer> {
    let (answer, next) = change_then(session, ledger, asking, command).await?;
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
    ledger: &LedgerClient,
    asking: &Asking,
    command: Command,
) -> CommandResult<(CommandAnswer, Next)> {
    // Only for the hint at the end: what cannot be read here is told by the command's own answer.
    let before =
        |moment| tokio::time::timeout(BEFORE_MAX, before(ledger, &command, moment)).map(Result::unwrap_or_default);
    let mut stood = before(Moment::Now).await;
    let answer = send(session, ledger, asking, &command).await?;
    if let Some(last) = answer.offset.filter(|_| answer.repeated).and_then(|offset| offset.0.checked_sub(1)) {
        // The first answer is given again, and so is its undo.
        stood = before(Moment::Offset(Offset(last))).await;
    }
    session.show(&written::Written { schema_version: 1, answer: &answer, dry_run: asking.dry_run })?;
    if answer.unrecorded.is_some() {
        session.out.say(&written::loudly(&answer.notes));
        halted::carried_out();
        return Ok((answer, Next(vec![])));
    }
    if let Some(why) = &answer.not_yet {
        let said = if asking.dry_run { "would not move users yet" } else { "not yet" };
        session.out.say(&written::loudly(&[format!("{said}: {why}")]));
    } else if matches!(command, Command::Rollback(_)) && rolled_back(&answer) != Exit::Done {
        session.out.say(&written::loudly(&["set, not applied: the router has not confirmed it".to_owned()]));
    }
    Next(written::talk(&answer, asking.dry_run)).say(session);
    if asking.dry_run || answer.events.is_empty() {
        return Ok((answer, Next(vec![])));
    }
    let After { undo, next } = after(&command, &stood, &answer.events);
    Next(vec![undo]).say(session);
    Ok((answer, Next(next.into_iter().collect())))
}

/// Returns how things stood at `moment`.
async fn before(ledger: &LedgerClient, command: &Command, moment: Moment) -> Before {
    let mut before = Before::default();
    match command {
        Command::Apply(command::Apply { service, .. }) => {
            let question = DeclarationQuestion { service: service.clone(), moment };
            let declared = ledger.ask(&question).await.ok();
            before.read_at = declared.is_some().then(Timestamp::now);
            before.declared_at = declared.filter(|found| found.definition.is_some()).and_then(|found| found.at.offset);
        }
        other => {
            if let Some(deployment) = other.deployment() {
                let read = ledger.deployment_at(deployment, moment).await;
                before.read_at = read.is_ok().then(Timestamp::now);
                before.deployment = read.ok().flatten();
            }
        }
    }
    before
}

/// Returns how a rollback ends. One that waits for its target, or whose weights the router does not serve, has sent nobody back
/// yet.
pub(crate) fn rolled_back(answer: &CommandAnswer) -> Exit {
    if answer.applied == Some(false) || answer.not_yet.is_some() { Exit::StillGoing } else { Exit::Done }
}

/// Makes sure that a command would not be refused, and changes nothing.
pub(crate) async fn would(
    session: &Session,
    ledger: &LedgerClient,
    asking: &Asking,
    command: &Command,
) -> CommandResult<()> {
    let asking = Asking { dry_run: true, ..asking.clone() };
    send(session, ledger, &asking, command).await.map(drop)
}

async fn send(
    session: &Session,
    ledger: &LedgerClient,
    asking: &Asking,
    command: &Command,
) -> CommandResult<CommandAnswer> {
    let request = Request {
        id: asking.command_id.unwrap_or_else(|| CommandId(uuid::Uuid::now_v7())),
        command: command.clone(),
        fence: None,
        reason: asking.reason.clone(),
        effective_at: None,
    };
    let _progress = Progress::begin(session.out, "waiting for the ledger");
    let options =
        SendOptions { dry_run: asking.dry_run, wait: None::<Duration>, no_break_glass: asking.no_break_glass };
    Ok(ledger.client().execute(&request, options).await?)
}
