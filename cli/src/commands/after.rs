//! What comes after a change: the command that takes it back, or the one that comes next.

use api::wire::{CommandAnswer, Happened};
use ledger::deployment::hold;
use replay::answer::{DeploymentStatus, HoldStatus, StackPhase, VersionStatus};
use schemas::command::{self, Command};
use schemas::hold::Cause;
use schemas::{DeploymentId, Offset, StackId, StackName, Timestamp, Version, Weight};

use crate::not_allowed::in_quotes;
use crate::render::words::percent;

/// How things stood before a command, as far as it could be read.
#[derive(Default)]
pub(crate) struct Before {
    /// The deployment of a command that is about one.
    pub(crate) deployment: Option<DeploymentStatus>,
    /// The last record before the command, if its service was declared by then.
    pub(crate) declared_at: Option<Offset>,
    /// When it was read; none if that took too long, or went wrong.
    pub(crate) read_at: Option<Timestamp>,
}

/// What to say after a change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct After {
    /// `undo: ...` with the command that takes it back, or why none does.
    pub(crate) undo: String,
    /// `next: ...` with the command that comes next, if one does.
    pub(crate) next: Option<String>,
}

/// Returns what to say after `command`. `happened` is what it came to.
pub(crate) fn after(command: &Command, before: &Before, happened: &[Happened]) -> After {
    let undo = undo(command, before, happened).unwrap_or_else(|| UNKNOWN.to_owned());
    After { undo, next: next(command, before, happened) }
}

/// What is said where it is not known how things stood before.
const UNKNOWN: &str = "no undo is known: how it stood before could not be read";

/// The command that takes a change back, or why none does; none if that depends on what could not be read.
fn undo(command: &Command, before: &Before, happened: &[Happened]) -> Option<String> {
    let undo = |command: String| format!("undo: ionledger {command}");
    let nothing = |why: &str| format!("nothing undoes it: {why}");
    let has = |kind: &str| happened.iter().any(|event| event.kind == kind);
    let deployed = before.deployment.as_ref();
    Some(match command {
        Command::Apply(command::Apply { service, .. }) => match before.declared_at {
            Some(offset) => {
                undo(format!("show {service} --offset {offset} > before.toml && ionledger apply before.toml"))
            }
            None if before.read_at.is_some() => {
                nothing("a service that is declared stays so; another `ionledger apply` changes how")
            }
            None => return None,
        },
        Command::Release(_) => nothing("a release never changes; release another version instead"),
        Command::New(command::New { deployment, .. }) | Command::Renew(command::Renew { deployment, .. }) => {
            if !has("rollout.requested") {
                return Some(nothing("a stack that gets no traffic goes by itself, as the policy's retention says"));
            }
            before.read_at?;
            let rolling = deployed.and_then(|before| before.rollout.as_ref()).filter(|rollout| rollout.live);
            // While another rollout is under way, that is the one it ends.
            let once = rolling.and_then(|rollout| Some((rollout.baseline_name()?, rollout.canary_name()?)));
            let abort = format!("abort {}", deployment.arguments());
            match once {
                Some((from, to)) => nothing(&format!(
                    "not while the rollout from {from} to {to} is under way; after that, `ionledger {abort}` does"
                )),
                None => undo(abort),
            }
        }
        // What was rolled back before is only held now.
        Command::Rollback(command::Rollback { deployment, .. }) if !has("traffic.rolled_back") => {
            format!("undo: {}", hold::lift_one(deployment, Cause::Rollback))
        }
        // Users are where they were: its target is yet to be ready.
        Command::Rollback(_) if !has("traffic.weights_set") => {
            nothing("users stay where they are until the target is ready")
        }
        Command::Traffic(command::Traffic { deployment, .. })
        | Command::Rollback(command::Rollback { deployment, .. }) => weights(deployment, deployed?, happened),
        Command::Roll(command::Roll { deployment, .. }) => undo(format!("abort {}", deployment.arguments())),
        Command::Pause(command::Pause { deployment }) => undo(format!("resume {}", deployment.arguments())),
        Command::Resume(command::Resume { deployment }) => undo(format!("pause {}", deployment.arguments())),
        Command::Promote(command::Promote { deployment }) => {
            let baseline = deployed.and_then(|before| Some((before, before.rollout.as_ref()?)));
            let failing = baseline.and_then(|(before, rollout)| failing(before, rollout.baseline_stack));
            match baseline.and_then(|(_, rollout)| rollout.baseline_name()) {
                Some(name) if has("traffic.rejected") => rejected_now(deployment, &format!("{name} 100")),
                None if has("traffic.rejected") => return None,
                _ => failing.unwrap_or_else(|| undo(format!("rollback {}", deployment.arguments()))),
            }
        }
        Command::Hold(_) if before.read_at.is_none() => return None,
        Command::Hold(command::Hold { deployment, .. }) => format!("undo: {}", undo_hold(deployment, before)),
        Command::LiftHold(command::LiftHold { deployment, only }) => {
            let asked = deployed?.holds.iter().find(|hold| hold.cause == Cause::Asked);
            match asked.filter(|_| *only != Some(Cause::Rollback)) {
                Some(asked) => format!("undo: {}", hold_again(deployment, asked, before)),
                None => nothing(&format!(
                    "only a rollback or an abort sets such a hold; `ionledger hold {} --reason WHY` sets another",
                    deployment.arguments()
                )),
            }
        }
        Command::Abort(_) if has("rollout.request_dropped") => {
            nothing("the stack of the rollout that waited goes; `ionledger new` or `ionledger renew` asks for another")
        }
        Command::Abort(command::Abort { deployment }) => {
            let before = deployed?;
            let rollout = before.rollout.as_ref()?;
            let failing = [rollout.baseline_stack, rollout.canary_stack].map(|stack| failing(before, stack));
            if let Some(failing) = failing.into_iter().flatten().next() {
                return Some(failing);
            }
            let (from, to) = (rollout.baseline_name()?, rollout.canary_name()?);
            undo(format!("roll {} {from} {to}{}", deployment.service, deployment.env_flag()))
        }
        Command::Retire(command::Retire { deployment }) => match deployed.and_then(serving) {
            Some(StackName { version, .. }) => nothing(&format!(
                "its stacks are taken down; `ionledger new {} {version}{}` starts another",
                deployment.service,
                deployment.env_flag()
            )),
            None => nothing("its stacks are taken down"),
        },
        Command::Dismiss(_) => nothing("only `ionledger history` shows the failure from now on"),
    })
}

/// The command that comes after a change, if one does.
fn next(command: &Command, before: &Before, happened: &[Happened]) -> Option<String> {
    let next = |command: String| Some(format!("next: ionledger {command}"));
    match command {
        Command::Release(command::Release { service, version, .. }) => next(format!("new {service} {version}")),
        Command::New(command::New { deployment, then_roll: None, .. })
        | Command::Renew(command::Renew { deployment, then_roll: None, .. }) => {
            let (made, service, env) = (made(happened)?, &deployment.service, deployment.env_flag());
            match before.deployment.as_ref().and_then(serving) {
                Some(now) => next(format!("roll {service} {now} {made}{env}")),
                None => next(format!("traffic {service} {made} 100{env}")),
            }
        }
        _ => None,
    }
}

/// The command that brings the hold back that somebody asked for before, or ends the one that is new; no other hold is touched.
fn undo_hold(deployment: &DeploymentId, before: &Before) -> String {
    let mut holds = before.deployment.iter().flat_map(|before| &before.holds);
    match holds.find(|hold| hold.cause == Cause::Asked) {
        Some(replaced) => hold_again(deployment, replaced, before),
        None => hold::lift_one(deployment, Cause::Asked),
    }
}

/// The command that sets a hold as it was, for the time that was left of it.
fn hold_again(deployment: &DeploymentId, hold: &HoldStatus, before: &Before) -> String {
    let left = hold.until.zip(before.read_at).map(|(until, now)| until.duration_since(now).as_secs().max(1));
    let left = left.map(|seconds| format!(" --for {seconds}s")).unwrap_or_default();
    format!("ionledger hold {} --reason {}{left}", deployment.arguments(), in_quotes(&hold.reason))
}

/// Returns the name of the stack that was asked for, if one was.
pub(crate) fn made(happened: &[Happened]) -> Option<StackName> {
    let requested = happened.iter().find(|event| event.kind == "stack.requested")?;
    let version: Version = requested.data.get("version")?.as_str()?.parse().ok()?;
    let number = requested.data.get("number").and_then(serde_json::Value::as_u64).unwrap_or(1);
    Some(StackName::new(version, u32::try_from(number).ok()?))
}

/// Returns the stack whose rollout was asked for, if one was.
pub(crate) fn to_roll(happened: &[Happened]) -> Option<StackId> {
    stack_in(happened, "rollout.requested", "stack")
}

/// Returns the stack that a rollback sends all requests to, or that the one which is under way sends them to.
pub(crate) fn target_of(answer: &CommandAnswer) -> Option<StackId> {
    stack_in(&answer.events, "traffic.rolled_back", "to").or(answer.stack)
}

/// Returns the stack under `key` in the first event of a kind.
fn stack_in(happened: &[Happened], kind: &str, key: &str) -> Option<StackId> {
    let event = happened.iter().find(|event| event.kind == kind)?;
    serde_json::from_value(event.data.get(key)?.clone()).ok()
}

/// Why no command takes a change back that would give this stack traffic: it does not pass its check. None if it does.
fn failing(before: &DeploymentStatus, stack: StackId) -> Option<String> {
    let found = before.versions.iter().find(|version| version.stack == stack)?;
    let passes = found.phase == StackPhase::Ready && found.nodes_ready > 0;
    (!passes).then(|| format!("nothing undoes it: {} does not pass its check", found.name()))
}

/// The stack with the largest share.
fn serving(before: &DeploymentStatus) -> Option<StackName> {
    let serving = before.versions.iter().filter(|version| version.weight_set > Weight::ZERO);
    serving.max_by_key(|version| version.weight_set).map(VersionStatus::name)
}

/// The command that sets the weights as they were, or why none does: a stack that had traffic does not pass, or is rejected,
/// before the change or by it.
fn weights(deployment: &DeploymentId, before: &DeploymentStatus, happened: &[Happened]) -> String {
    let serving: Vec<&VersionStatus> =
        before.versions.iter().filter(|version| version.weight_set > Weight::ZERO).collect();
    if let Some(failing) = serving.iter().find_map(|version| failing(before, version.stack)) {
        return failing;
    }
    let (service, env) = (&deployment.service, deployment.env_flag());
    let shares = serving.iter().map(|version| format!("{} {}", version.name(), percent(version.weight_set)));
    let shares = shares.collect::<Vec<_>>().join(" ");
    if shares.is_empty() {
        let retire = format!("`ionledger retire {}` takes every stack down", deployment.arguments());
        return format!("nothing undoes it: users were on no version before; {retire}");
    }
    let rejects = |event: &Happened| event.kind == "traffic.rejected" || event.kind == "traffic.rolled_back";
    let is_rejected =
        |version: &&&VersionStatus| version.rejected.as_ref().is_some_and(|rejected| rejected.needs_again);
    match serving.iter().find(is_rejected) {
        Some(rejected) => format!("nothing undoes it: {} is rejected", rejected.name()),
        None if happened.iter().any(rejects) => rejected_now(deployment, &shares),
        None => format!("undo: ionledger traffic {service} {shares}{env}"),
    }
}

/// Says that no command takes a change back that rejects what users were on, with `shares`, and what overrules that.
fn rejected_now(deployment: &DeploymentId, shares: &str) -> String {
    let (service, env) = (&deployment.service, deployment.env_flag());
    let again = format!("`ionledger traffic {service} {shares}{env} --again --reason WHY` overrules that");
    format!("nothing undoes it: the version that users were moved away from is rejected now; {again}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Parser as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::Cli;
    use crate::render::examples;

    /// Every command there is, as JSON has it, about a deployment or a service.
    fn every() -> Vec<Value> {
        let about = json!({"deployment": "production/api"});
        let with = |command: &str, more: Value| {
            let mut all = about.as_object().unwrap().clone();
            all.insert("command".to_owned(), json!(command));
            all.extend(more.as_object().unwrap().clone());
            Value::Object(all)
        };
        let hash = "9a1c5b3e7d2f4a6b8c0d1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a6b7c8d9e0f1a2b";
        let definition =
            json!({"owner": "team", "description": "", "listen": {}, "capacity": {"nodes": 1, "min_ready": 1}});
        vec![
            json!({"command": "apply", "service": "api", "definition": definition}),
            json!({"command": "release", "service": "api", "version": "1.2.5",
                "artifact": {"sha256": hash, "name": "api", "size_bytes": 7}}),
            with("new", json!({"version": "1.2.5"})),
            with("new", json!({"version": "1.2.5", "then_roll": {}})),
            with("renew", json!({})),
            with("renew", json!({"then_roll": {}})),
            with("traffic", json!({"shares": [{"version": "1.2.4", "weight": 10_000}]})),
            with("roll", json!({"from": "1.2.3", "to": "1.2.4", "plan": {}})),
            with("rollback", json!({})),
            with("pause", json!({})),
            with("resume", json!({})),
            with("abort", json!({})),
            with("promote", json!({})),
            with("hold", json!({})),
            with("lift_hold", json!({})),
            with("lift_hold", json!({"only": "rollback"})),
            with("retire", json!({})),
            with("dismiss", json!({"version": "1.2.3"})),
        ]
    }

    fn happened(kinds: &[&str]) -> Vec<Happened> {
        let one = |kind: &&str| json!({"stream": "deployment/production/api", "type": kind, "summary": "", "data": {"version": "1.2.5", "number": 2}});
        kinds.iter().map(|kind| serde_json::from_value(one(kind)).unwrap()).collect()
    }

    fn before(change: impl FnOnce(&mut Value)) -> Before {
        let deployment = examples::status(change).services.remove(0).deployments.remove(0);
        let read_at = Some("2026-11-22T13:32:05Z".parse().unwrap());
        Before { deployment: Some(deployment), declared_at: Some(Offset(7)), read_at }
    }

    /// How things may have stood before a command, and what may have come of it.
    fn cases() -> Vec<(Before, Vec<Happened>)> {
        let nobody = |deployment: &mut Value| {
            deployment["rollout"] = Value::Null;
            deployment["versions"] = json!([]);
        };
        let held = |deployment: &mut Value| {
            deployment["rollout"] = Value::Null;
            deployment["holds"] = json!([{"cause": "asked", "reason": "it's late", "since": "2026-11-22T13:30:05Z",
                "until": "2026-11-22T14:32:05Z"}]);
        };
        let first = Before { declared_at: None, ..before(nobody) };
        vec![
            (before(|_| {}), happened(&["stack.requested", "rollout.requested"])),
            (before(|_| {}), happened(&["traffic.rolled_back", "traffic.rejected", "rollout.request_dropped"])),
            (before(nobody), happened(&["stack.requested"])),
            (before(held), happened(&["hold.lifted"])),
            (first, happened(&["service.applied"])),
            (Before::default(), happened(&["traffic.weights_set"])),
        ]
    }

    #[test]
    fn every_change_names_a_command_that_takes_it_back_and_can_be_pasted_or_says_why_none_does() {
        let mut seen = BTreeSet::new();
        for json in every() {
            let command: Command = serde_json::from_value(json.clone()).unwrap();
            seen.insert(place(&command));
            for (before, happened) in cases() {
                let After { undo, next } = after(&command, &before, &happened);
                let line = match undo.strip_prefix("undo: ") {
                    Some(line) => line,
                    None if undo == UNKNOWN => {
                        assert!(
                            before.read_at.is_none() || before.deployment.iter().all(|at| at.rollout.is_none()),
                            "{json}"
                        );
                        continue;
                    }
                    None => {
                        let why = undo.strip_prefix("nothing undoes it: ");
                        assert!(why.is_some_and(|why| !why.is_empty()), "{json}: {undo}");
                        continue;
                    }
                };
                let next = next.as_deref().map(|next| next.strip_prefix("next: ").unwrap());
                for pasted in [Some(line), next].into_iter().flatten() {
                    for one in pasted.split(" && ") {
                        let words = shell_words(one);
                        let parsed = Cli::try_parse_from(&words);
                        assert!(parsed.is_ok(), "{json}: {one}: {}", parsed.unwrap_err());
                    }
                }
            }
        }
        assert_eq!(seen, (0..15).collect(), "a new command needs its place in the list above");
    }

    /// A number for each command: a new one needs its own, and its example above.
    fn place(command: &Command) -> usize {
        match command {
            Command::Apply(_) => 0,
            Command::Release(_) => 1,
            Command::New(_) => 2,
            Command::Renew(_) => 3,
            Command::Traffic(_) => 4,
            Command::Roll(_) => 5,
            Command::Rollback(_) => 6,
            Command::Pause(_) => 7,
            Command::Resume(_) => 8,
            Command::Abort(_) => 9,
            Command::Promote(_) => 10,
            Command::Hold(_) => 11,
            Command::LiftHold(_) => 12,
            Command::Retire(_) => 13,
            Command::Dismiss(_) => 14,
        }
    }

    /// Returns the words of a line as a shell would, without its comment and where its output goes.
    fn shell_words(line: &str) -> Vec<String> {
        let line = line.split(" # ").next().unwrap().split(" > ").next().unwrap().replace(r"'\''", "\u{1}");
        let mut words = vec![String::new()];
        let mut is_quoted = false;
        for c in line.chars() {
            match c {
                '\'' => is_quoted = !is_quoted,
                ' ' if !is_quoted => words.push(String::new()),
                '\u{1}' => words.last_mut().unwrap().push('\''),
                c => words.last_mut().unwrap().push(c),
            }
        }
        words
    }

    #[test]
    fn what_is_said_is_true_of_how_it_stood() {
        let undo = |json: Value, before: &Before, kinds: &[&str]| {
            after(&serde_json::from_value(json).unwrap(), before, &happened(kinds)).undo
        };
        let of = |command: &str| json!({"command": command, "deployment": "production/api"});
        let held = cases().remove(3).0;
        let lifted = undo(of("lift_hold"), &held, &["hold.lifted"]);
        assert_eq!(lifted, r"undo: ionledger hold api --reason 'it'\''s late' --for 3600s");
        let only = json!({"command": "lift_hold", "deployment": "production/api", "only": "rollback"});
        assert!(undo(only, &held, &["hold.lifted"]).starts_with("nothing undoes it: only a rollback or an abort"));
        let retired = undo(of("retire"), &held, &["traffic.retired"]);
        assert_eq!(retired, "nothing undoes it: its stacks are taken down; `ionledger new api 1.2.3` starts another");
        let apply = every().remove(0);
        let first = undo(apply.clone(), &cases().remove(4).0, &["service.applied"]);
        assert!(first.starts_with("nothing undoes it: a service that is declared stays so"), "{first}");
        assert_eq!(undo(apply, &Before::default(), &["service.applied"]), UNKNOWN, "it may have been declared before");
        let traffic = every().remove(6);
        let first = undo(traffic, &cases().remove(2).0, &["traffic.weights_set"]);
        assert!(first.starts_with("nothing undoes it: users were on no version before"), "{first}");
    }

    const TARGET: &str = "01900000-0000-7000-8000-000000000007";

    fn one(kind: &str, data: Value) -> Value {
        json!({"stream": "deployment/production/api", "type": kind, "summary": "", "data": data})
    }

    fn answer(events: &[Value], stack: Option<&str>) -> CommandAnswer {
        let answer = json!({"commit": null, "offset": null, "events": events, "stack": stack});
        serde_json::from_value(answer).unwrap()
    }

    fn rolled_back() -> Value {
        one("traffic.rolled_back", json!({"from": [], "to": TARGET}))
    }

    #[test]
    fn a_rollback_that_has_not_moved_users_says_so() {
        let rollback =
            Command::Rollback(command::Rollback { deployment: "production/api".parse().unwrap(), unready: false });
        let said = |events: &[Value]| {
            let ready = |deployment: &mut Value| {
                deployment["versions"][1]["nodes_ready"] = json!(1);
                deployment["versions"][1]["phase"] = json!("ready");
            };
            after(&rollback, &before(ready), &answer(events, None).events).undo
        };
        let held = one("deployment.hold_set", json!({}));
        let waits = said(&[one("stack.requested", json!({})), rolled_back(), held.clone()]);
        assert_eq!(waits, "nothing undoes it: users stay where they are until the target is ready");
        let moved = said(&[rolled_back(), one("traffic.weights_set", json!({})), held]);
        assert!(moved.starts_with("nothing undoes it: the version that users were moved away from"), "{moved}");
    }

    #[test]
    fn the_target_of_a_rollback_is_the_one_that_it_names_or_to_which_one_is_under_way() {
        let target: StackId = serde_json::from_value(json!(TARGET)).unwrap();
        assert_eq!(target_of(&answer(&[rolled_back()], None)), Some(target));
        assert_eq!(target_of(&answer(&[one("deployment.hold_set", json!({}))], Some(TARGET))), Some(target));
        assert_eq!(target_of(&answer(&[], None)), None);
    }
}
