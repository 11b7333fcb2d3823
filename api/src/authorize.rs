//! Authorization: the one function that every write passes, whichever listener it came through.

use schemas::command::{self, Command};
use schemas::{Actor, ActorKind};

use crate::problem::{Code, Problem};

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub enum Act<'a> {
    /// Carry a command out, or learn what it would do.
    Command(&'a Command),
    /// Put an artifact into the store.
    Upload,
}

/// Says whether `actor` may do `act`.
///
/// A person may do everything: whoever can write to the data folder's socket, or holds a person's token, runs this
/// ledger. A pipeline may release and move traffic, and bring it back. It may not say what a service is (`apply`), end
/// one (`retire`), put a canary through over the judgement (`promote`), bring out another
/// capacity or new secrets (`renew`), give traffic to a rejected version (`--again`), put a deployment on hold or end that (`hold`),
/// or put a failed stack out of sight (`dismiss`): only a person may. Workers and the system do not come through the API.
///
/// # Errors
///
/// [`Code::Forbidden`] with what to do instead.
pub fn authorize(actor: &Actor, act: Act<'_>) -> Result<(), Problem> {
    let may = match actor.kind {
        ActorKind::Person => true,
        ActorKind::Pipeline => pipeline_may(act),
        ActorKind::Worker | ActorKind::System => false,
    };
    if may {
        return Ok(());
    }
    let what = act.name();
    tracing::warn!(%actor, proof = %actor.proof, what, "denied");
    Err(Problem::new(Code::Forbidden, format!("{actor} may not {what}; ask a person who runs this ledger")))
}

fn pipeline_may(act: Act<'_>) -> bool {
    match act {
        Act::Upload => true,
        Act::Command(command) if command.asks_again() => false,
        Act::Command(command) => match command {
            Command::Release(_)
            | Command::New(_)
            | Command::Traffic(_)
            | Command::Roll(_)
            | Command::Rollback(_)
            | Command::Pause(_)
            | Command::Resume(_)
            | Command::Abort(_) => true,
            Command::Apply(_)
            | Command::Renew(_)
            | Command::Promote(_)
            | Command::Hold(_)
            | Command::LiftHold(_)
            | Command::Retire(_)
            | Command::Dismiss(_) => false,
        },
    }
}

impl Act<'_> {
    /// Returns its name, as the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Act::Upload => "upload",
            Act::Command(Command::New(command::New { again: true, .. })) => "new --again",
            Act::Command(Command::Renew(command::Renew { again: true, .. })) => "renew --again",
            Act::Command(Command::Traffic(command::Traffic { again: true, .. })) => "traffic --again",
            Act::Command(Command::Roll(command::Roll { again: true, .. })) => "roll --again",
            Act::Command(command) => match command {
                Command::Apply(_) => "apply",
                Command::Release(_) => "release",
                Command::New(_) => "new",
                Command::Renew(_) => "renew",
                Command::Traffic(_) => "traffic",
                Command::Roll(_) => "roll",
                Command::Rollback(_) => "rollback",
                Command::Pause(_) => "pause",
                Command::Resume(_) => "resume",
                Command::Abort(_) => "abort",
                Command::Promote(_) => "promote",
                Command::Hold(_) => "hold",
                Command::LiftHold(_) => "hold --lift",
                Command::Retire(_) => "retire",
                Command::Dismiss(_) => "dismiss",
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands() -> Vec<(Command, bool)> {
        let json = |text: &str| serde_json::from_str::<Command>(text).unwrap();
        let about = |name: &str| json(&format!(r#"{{"command":"{name}","deployment":"production/api"}}"#));
        let hash = schemas::Hash::ZERO;
        vec![
            (json(r#"{"command":"apply","service":"api","definition":{"owner":"team"}}"#), false),
            (
                json(&format!(
                    r#"{{"command":"release","service":"api","version":"1","artifact":{{"sha256":"{hash}","name":"a","size_bytes":1}}}}"#
                )),
                true,
            ),
            (json(r#"{"command":"new","deployment":"production/api","version":"1"}"#), true),
            (about("renew"), false),
            (json(r#"{"command":"renew","deployment":"production/api","again":true}"#), false),
            (json(r#"{"command":"traffic","deployment":"production/api","shares":[]}"#), true),
            (json(r#"{"command":"roll","deployment":"production/api","from":"1","to":"2","plan":{}}"#), true),
            (json(r#"{"command":"new","deployment":"production/api","version":"1","again":true}"#), false),
            (json(r#"{"command":"traffic","deployment":"production/api","shares":[],"again":true}"#), false),
            (
                json(r#"{"command":"roll","deployment":"production/api","from":"1","to":"2","plan":{},"again":true}"#),
                false,
            ),
            (about("rollback"), true),
            (about("pause"), true),
            (about("resume"), true),
            (about("abort"), true),
            (about("promote"), false),
            (about("retire"), false),
            (json(r#"{"command":"dismiss","deployment":"production/api","version":"1"}"#), false),
        ]
    }

    #[test]
    fn every_kind_of_actor_meets_every_command_as_documented() {
        let actor = |kind| Actor { kind, name: "x".into(), proof: "test".into() };
        for (command, pipeline) in commands() {
            let act = Act::Command(&command);
            assert!(authorize(&actor(ActorKind::Person), act).is_ok(), "person {}", act.name());
            assert_eq!(authorize(&actor(ActorKind::Pipeline), act).is_ok(), pipeline, "pipeline {}", act.name());
            for kind in [ActorKind::Worker, ActorKind::System] {
                assert_eq!(authorize(&actor(kind), act).unwrap_err().code, Code::Forbidden, "{kind} {}", act.name());
            }
        }
    }
}
