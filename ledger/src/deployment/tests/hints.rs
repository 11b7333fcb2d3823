//! Hints: the command that a refusal names is not itself refused in the state in which it is named.

use std::collections::BTreeSet;

use schemas::command::{self, Command, PlanAsked, StackWeight};
use schemas::{ActorKind, DeploymentId};

use super::matrix::Asked;
use super::named::{Named, given};
use crate::decision::{By, Rejection};
use crate::kit::*;

/// Returns the commands in a text's backticks, each as its words after `ionledger`. Of several that stand one after the other only
/// the first can be tried.
fn commands(text: &str) -> Vec<Vec<&str>> {
    let sentences = text.split("` and then `").next().into_iter();
    let quoted = sentences.flat_map(|sentence| sentence.split('`').skip(1).step_by(2));
    quoted.filter_map(|quoted| Some(quoted.strip_prefix("ionledger ")?.split_whitespace().collect())).collect()
}

/// Returns the command that these words are; none if they only look, name a file or leave something open.
fn parsed(words: &[&str]) -> Option<Command> {
    let is_open = |word: &&&str| word.chars().all(|c| c.is_ascii_uppercase());
    let named: Vec<&str> = words.iter().take_while(|word| !word.starts_with("--")).copied().collect();
    let has = |flag: &str| words.iter().any(|word| word.split('=').next() == Some(flag));
    let env = words.iter().position(|word| *word == "--env").map_or("production", |at| words[at + 1]);
    let (again, supersede) = (has("--again"), has("--supersede"));
    if named.iter().any(|word| is_open(&word)) {
        return None;
    }
    let deployment =
        |service: &str| DeploymentId { service: service.parse().unwrap(), environment: env.parse().unwrap() };
    let then_roll = has("--roll").then(PlanAsked::default);
    Some(match named[..] {
        ["status" | "apply" | "release", ..] | [_] => return None,
        ["rollback", of] => {
            Command::Rollback(command::Rollback { deployment: deployment(of), unready: has("--unready") })
        }
        ["abort", of] => Command::Abort(command::Abort { deployment: deployment(of) }),
        ["hold", of] if has("--lift") => {
            Command::LiftHold(command::LiftHold { deployment: deployment(of), only: None })
        }
        ["new", of, text] => {
            Command::New(command::New { deployment: deployment(of), version: version(text), then_roll, again })
        }
        ["renew", of, text] => {
            let version = Some(version(text));
            Command::Renew(command::Renew { deployment: deployment(of), version, then_roll, again })
        }
        ["roll", of, from, to] => {
            let (from, to, plan) = (stack_name(from), stack_name(to), PlanAsked::default());
            Command::Roll(command::Roll { deployment: deployment(of), from, to, plan, supersede, again })
        }
        ["traffic", of, ref shares @ ..] => {
            let share =
                |pair: &[&str]| StackWeight { version: stack_name(pair[0]), weight: percent(pair[1].parse().unwrap()) };
            let shares = shares.chunks(2).map(share).collect();
            Command::Traffic(command::Traffic { deployment: deployment(of), shares, supersede, again })
        }
        _ => panic!("teach the test this command: {words:?}"),
    })
}

/// Returns each command that a refusal names and that is itself refused, with both.
fn refused_hints(world: &World, refusal: &Rejection) -> Vec<String> {
    let text = refusal.to_string();
    let tried = commands(&text).into_iter().filter_map(|words| Some((words.join(" "), parsed(&words)?)));
    let refused = tried.filter_map(|(words, command)| {
        let by = By { reason: Some("WHY"), ..By::PERSON };
        let answer = crate::decide::decide(&world.state, &command, by, None, &schemas::Probed::default(), world.now());
        Some((words, answer.err()?))
    });
    refused.map(|(words, no)| format!("`{text}` names `{words}`: {no}")).collect()
}

#[test]
fn no_refusal_names_a_command_that_would_be_refused_in_its_state() {
    let mut wrong = BTreeSet::new();
    let mut tried = 0;
    for named in Named::ALL {
        let world = given(*named);
        for asked in Asked::ALL {
            let by_pipeline = world.decide_by(ActorKind::Pipeline, &asked.command());
            for refusal in [asked.decide(&world).err(), by_pipeline.err()].into_iter().flatten() {
                tried += commands(&refusal.to_string()).iter().filter_map(|words| parsed(words)).count();
                wrong.extend(
                    refused_hints(&world, &refusal).into_iter().map(|hint| format!("{named:?}, {asked:?}: {hint}")),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.into_iter().collect::<Vec<_>>().join("\n"));
    assert!(tried > 50, "only {tried} commands were named");
}

#[test]
fn an_abort_without_a_rollout_names_a_rollback_only_where_there_is_something_to_go_back_to() {
    let said = |named| given(named).decide(&abort()).unwrap_err().to_string();
    for named in [Named::Starting, Named::Ready, Named::Serving, Named::Warm] {
        let said = said(named);
        assert!(said.ends_with("no version to go back to; look at `ionledger status api`"), "{named:?}: {said}");
    }
    let said = said(Named::Completed);
    assert!(said.contains("`ionledger rollback api` sends all traffic back to the version before"), "{said}");
}
