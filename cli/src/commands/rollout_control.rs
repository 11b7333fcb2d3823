//! The short commands: `rollback`, `pause`, `resume`, `abort`, `promote` and `retire`.

use std::io::{self, BufRead as _, IsTerminal as _};

use api::wire::CommandAnswer;
use clap::Args;
use schemas::DeploymentId;
use schemas::command::{self, Command};

use super::after::target_of;
use super::change::{change, rolled_back, would};
use super::wait::{Patience, users_moved};
use crate::args::{Asking, Where};
use crate::bootstrap::{Alone, MOMENT_MAX};
use crate::exit::Exit;
use crate::failure::{CommandResult, Failure};
use crate::session::Session;
use crate::settings::KafkaArgs;

macro_rules! control {
    ($(#[$doc:meta])* $name:ident, $command:ident) => {
        #[derive(Debug, Args)]
        $(#[$doc])*
        pub(crate) struct $name {
            #[command(flatten)]
            place: Where,
            #[command(flatten)]
            asking: Asking,
        }

        impl $name {
            pub(crate) fn run(self, session: &Session) -> CommandResult {
                control(session, &self.asking, Command::$command(command::$command { deployment: self.place.deployment() }))
            }
        }
    };
}

control!(
    /// Freeze a rollout's weights.
    #[command(after_help = "\
Examples:
  ionledger pause api --reason 'looking at the slow requests'")]
    Pause,
    Pause
);
control!(
    /// Let a paused rollout go on.
    #[command(after_help = "\
Examples:
  ionledger resume api")]
    Resume,
    Resume
);
control!(
    /// End a rollout at its baseline; where none is under way, drop the one that waits.
    #[command(after_help = "\
Examples:
  ionledger abort api --reason 'not before the weekend'")]
    Abort,
    Abort
);
control!(
    /// Give a rollout's canary all requests, over the judgement; history says who did.
    #[command(after_help = "\
Examples:
  ionledger promote api --reason 'the errors are the load test'")]
    Promote,
    Promote
);

/// Send all requests back to the version before, now.
///
/// Within a rollout that is its baseline; else the latest version that held all traffic and is not rejected: judged
/// worse, rolled back from, or left by hand for an older release. No gate, approval or freeze comes before it, and a
/// second one changes nothing.
///
/// While users are on a version that passes its check, they are only moved to one that does, too, or that cannot be
/// asked: a target that does not pass is started again, and gets them once it is ready; an older version that passes is
/// taken at once, unless the policy says `rollback_past_target = false`.
///
/// If the ledger gives no verdict within 2 s, it rolls back without the ledger (break-glass): the intent is signed and kept in
/// a file, the requests move, and the rollback is recorded when the ledger answers again.
///
/// It needs no `up`: if nothing runs on the data folder, the command takes the folder for as long as it takes, at most 10 s,
/// and does it itself, with the settings of `up` (--config) if the ledger lies in Kafka. If what holds the folder gives no
/// answer within 2 s, it rolls back without the ledger (break-glass).
///
/// It ends with 8 if users have not moved yet, and says what they get meanwhile: the target must be started first, or the weights
/// are set and the router has not confirmed them, because it hangs or does not run, or no node of the target can be called. With
/// --wait it waits until they have moved.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ionledger rollback api
  ionledger rollback api --reason 'checkout fails'
  ionledger rollback api --dry-run                   # where would it go?
  ionledger rollback api --wait --timeout 90s        # 0 users have moved, 8 not yet
  ionledger rollback api --unready                   # whatever the target's check says
  ionledger rollback api --no-break-glass            # not without the ledger")]
pub(crate) struct Rollback {
    #[command(flatten)]
    place: Where,
    /// Wait for the ledger's verdict, however long that takes
    #[arg(long)]
    no_break_glass: bool,
    /// Go to the target though none of its nodes passes its check
    #[arg(long)]
    unready: bool,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    asking: Asking,
}

impl Rollback {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        let deployment = self.place.deployment();
        let asking = Asking { no_break_glass: self.no_break_glass, ..self.asking };
        let command = Command::Rollback(command::Rollback { deployment: deployment.clone(), unready: self.unready });
        let settings = self.kafka.settings()?;
        session.wait_for(async {
            let ledger = session.ledger()?;
            match Alone::if_needed(&ledger, settings, !self.no_break_glass).await? {
                None => {
                    let answer = change(session, &ledger, &asking, command).await?;
                    let has_moved = asking.dry_run || answer.applied == Some(true);
                    match self.patience.begin()?.filter(|_| !has_moved) {
                        Some(mut wait) => {
                            let target = target_of(&answer).ok_or_else(|| no_target(&deployment))?;
                            users_moved(session, &ledger, &deployment, target, &mut wait).await
                        }
                        None => Ok(exit_of(&answer, &asking)),
                    }
                }
                Some(alone) => by_itself(session, alone, &asking, command).await,
            }
        })
    }
}

fn no_target(deployment: &DeploymentId) -> Failure {
    let look = format!("look at `ionledger status {}`", deployment.arguments());
    Failure::error(format!("cannot wait: nothing says where the rollback of {deployment} goes; {look}"))
}

fn exit_of(answer: &CommandAnswer, asking: &Asking) -> Exit {
    if asking.dry_run { Exit::Done } else { rolled_back(answer) }
}

/// Rolls back with nothing but this process. It starts no node, so it does not wait for a target that must be started.
async fn by_itself(session: &Session, alone: Alone, asking: &Asking, command: Command) -> CommandResult {
    session.out.say(&alone.why);
    let next = alone.next;
    let ledger = alone.ledger();
    let answer = tokio::time::timeout(MOMENT_MAX, change(session, &ledger, asking, command)).await;
    alone.end();
    let seconds = MOMENT_MAX.as_secs();
    let late = |_| {
        let next = "look at `ionledger status`, and try again";
        Failure::error(format!("the rollback took longer than {seconds} s and was given up; {next}"))
    };
    let answer = answer.map_err(late)??;
    if let Some(lost) = answer.unrecorded.as_ref().filter(|unrecorded| unrecorded.file.is_none()) {
        let (service, version) = (lost.deployment.arguments(), lost.name());
        session.out.say(&format!(
            "nothing on this machine keeps it: once the ledger answers again, record it with `ionledger traffic {service} {version} 100 \
             --reason WHY`"
        ));
    }
    let exit = exit_of(&answer, asking);
    if exit == Exit::StillGoing {
        session.out.say(next);
    }
    Ok(exit)
}

/// Serve no requests any more and take every stack down.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ionledger retire api --env test --dry-run
  ionledger retire api --yes --reason 'replaced by api2'")]
pub(crate) struct Retire {
    #[command(flatten)]
    place: Where,
    /// Do not ask on the terminal; needed where there is none
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    asking: Asking,
}

impl Retire {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        let deployment = self.place.deployment();
        match self.yes || self.asking.dry_run {
            true => {}
            false if io::stdin().is_terminal() && io::stderr().is_terminal() => {
                // Nobody is asked about what would be refused.
                let command = Command::Retire(command::Retire { deployment: deployment.clone() });
                session.wait_for(async { would(session, &session.ledger()?, &self.asking, &command).await })?;
                confirm(session, &deployment)?;
            }
            false => {
                let why = format!("retire takes every stack of {deployment} down, and nobody can be asked here");
                return Err(Failure::usage(format!("{why}; say --yes, or look first with --dry-run")));
            }
        }
        control(session, &self.asking, Command::Retire(command::Retire { deployment }))
    }
}

/// Asks the person at the terminal to write the deployment's name.
fn confirm(session: &Session, deployment: &DeploymentId) -> CommandResult<()> {
    session.out.say(&format!(
        "{deployment} will serve no users, and its stacks are taken down; type `{deployment}` to do it:"
    ));
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    match read {
        Ok(_) if line.trim() == deployment.to_string() => Ok(()),
        _ => Err(Failure::error(format!("{deployment} was not retired: its name was not typed; nothing was changed"))),
    }
}

fn control(session: &Session, asking: &Asking, command: Command) -> CommandResult {
    session.wait_for(async {
        change(session, &session.ledger()?, asking, command).await?;
        Ok(Exit::Done)
    })
}
