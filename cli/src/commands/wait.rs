//! Waiting for what a command set off, and what its end means as an exit code.

use std::cell::Cell;
use std::time::Duration;

use clap::Args;
use replay::answer::{DeploymentStatus, ObstacleKind, RolloutPhase, StackPhase, VersionStatus};
use schemas::judgement::Verdict;
use schemas::text::{because, nodes_ready};
use schemas::{DeploymentId, StackName, Weight};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::changes::Changes;
use crate::door::Door;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;
use crate::sentence;
use crate::session::Session;

/// Whether to wait, and for how long.
#[derive(Clone, Debug, Args)]
pub(crate) struct Patience {
    /// Wait for how it ends; see `ionledger help exit-codes`
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait at most; the thing itself goes on [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = sentence::length_ms, requires = "wait")]
    #[arg(allow_hyphen_values = true)]
    pub(crate) timeout: Option<u64>,
}

impl Patience {
    /// Begins the wait, if there is one. From now on Ctrl-C ends it, and not the program.
    ///
    /// # Errors
    ///
    /// An error if signals cannot be heard.
    pub(crate) fn begin(&self) -> Outcome<Option<Wait>> {
        if !self.wait {
            return Ok(None);
        }
        let interrupt = signal(SignalKind::interrupt())
            .map_err(|error| Failure::error(format!("signals cannot be heard: {error}; leave --wait out")))?;
        let deadline = self.timeout.map(|ms| Instant::now() + Duration::from_millis(ms));
        Ok(Some(Wait { deadline, interrupt }))
    }
}

/// A wait under way.
pub(crate) struct Wait {
    deadline: Option<Instant>,
    interrupt: Signal,
}

/// What a look at a deployment says.
#[derive(Debug, PartialEq)]
enum Look {
    /// It has ended, this way.
    Ended(Exit, String),
    /// It goes on; what to say of it, and what it means if the wait ends now.
    On(String, Exit),
}

/// Waits until the newest stack of a version is ready or has failed.
pub(crate) async fn stack_ready(
    session: &Session,
    door: &Door,
    deployment: &DeploymentId,
    version: &StackName,
    wait: &mut Wait,
) -> Outcome {
    let seen = Cell::new(false);
    watch(session, door, deployment, wait, |status| {
        let is_there = status.versions.iter().any(|stack| stack.is_called(version));
        if seen.replace(is_there) && !is_there {
            let what = format!("{version} was taken down before it was ready; look at `ionledger history`");
            return Look::Ended(Exit::Error, what);
        }
        look_at_stack(status, version)
    })
    .await
}

/// Waits until the rollout to a version has ended.
pub(crate) async fn rollout_ended(
    session: &Session,
    door: &Door,
    deployment: &DeploymentId,
    canary: &StackName,
    wait: &mut Wait,
) -> Outcome {
    watch(session, door, deployment, wait, |status| look_at_rollout(status, canary)).await
}

/// Waits until the rollout that was asked for with a version's stack has ended, or will not begin.
pub(crate) async fn requested_rollout_ended(
    session: &Session,
    door: &Door,
    deployment: &DeploymentId,
    version: &StackName,
    wait: &mut Wait,
) -> Outcome {
    watch(session, door, deployment, wait, |status| look_at_request(status, version)).await
}

fn means(asked: &StackName, name: Option<StackName>) -> bool {
    name.is_some_and(|name| asked.means(&name.version, name.number))
}

fn look_at_request(status: &DeploymentStatus, version: &StackName) -> Look {
    if let Some(waiting) = status.waiting.as_ref().filter(|waiting| means(version, waiting.name())) {
        let waits_for: Vec<&str> = waiting.waits_for.iter().map(|obstacle| obstacle.why.as_str()).collect();
        let is = |kind| waiting.waits_for.iter().any(|obstacle| obstacle.kind == Some(kind));
        return match waits_for[..] {
            [] => Look::On(format!("the rollout of {version} is about to begin"), Exit::StillGoing),
            // It is prepared; how long a hold lasts is up to people.
            _ if is(ObstacleKind::Hold) && !is(ObstacleKind::Stack) => {
                let next: Vec<&str> =
                    waiting.waits_for.iter().filter_map(|obstacle| obstacle.next.as_deref()).collect();
                let lift = next.first().map(|next| format!("; `{next}` ends the hold")).unwrap_or_default();
                let what = format!("{version} is prepared, and its rollout waits: {}{lift}", waits_for.join("; "));
                Look::Ended(Exit::StillGoing, what)
            }
            _ => Look::On(format!("{version} waits: {}", waits_for.join("; ")), Exit::StillGoing),
        };
    }
    let rollout = status.rollout.as_ref().filter(|rollout| means(version, rollout.canary_name()));
    let dropped = status.dropped.iter().rev().find(|dropped| means(version, Some(dropped.name())));
    let dropped = dropped.filter(|dropped| rollout.is_none_or(|rollout| rollout.started_at < dropped.at));
    let stack = status.versions.iter().rev().find(|stack| stack.is_called(version));
    match (dropped, rollout, stack) {
        (_, _, Some(stack)) if stack.phase == StackPhase::Failed => look_at_stack(status, version),
        (_, None, Some(stack)) if stack.weight_set == Weight::FULL => match stack.weight_applied {
            Weight::FULL => Look::Ended(Exit::Done, format!("{version} has all requests")),
            applied => Look::On(format!("{version} has {applied} of the requests"), Exit::StillGoing),
        },
        (Some(dropped), _, _) => {
            Look::Ended(Exit::RolledBack, format!("the rollout of {version} was dropped: {}", dropped.reason))
        }
        (None, Some(_), _) => look_at_rollout(status, version),
        (None, None, _) => look_at_stack(status, version).going_on(),
    }
}

impl Look {
    /// A stack that is ready is not what is waited for: its rollout is.
    fn going_on(self) -> Self {
        match self {
            Look::Ended(Exit::Done, said) => Look::On(said, Exit::StillGoing),
            other => other,
        }
    }
}

fn look_at_stack(status: &DeploymentStatus, version: &StackName) -> Look {
    let Some(stack) = status.versions.iter().rev().find(|stack| stack.is_called(version)) else {
        return Look::On(format!("{version} is asked for"), Exit::StillGoing);
    };
    let because = stack.reason.as_deref().map(because).unwrap_or_default();
    match stack.phase {
        StackPhase::Ready => Look::Ended(Exit::Done, format!("{version} is ready")),
        StackPhase::Failed => Look::Ended(Exit::Error, format!("{version} did not start{because}")),
        StackPhase::Collecting => Look::Ended(Exit::Error, format!("{version} is being taken down{because}")),
        StackPhase::Starting | StackPhase::Unhealthy => {
            let nodes = nodes_ready(stack.nodes_ready, stack.nodes_wanted);
            let trouble = trouble(stack).map(|trouble| format!("; {trouble}")).unwrap_or_default();
            Look::On(format!("{version}: {nodes}{trouble}"), Exit::StillGoing)
        }
    }
}

/// What keeps a stack from being ready: what the checks of its nodes say now, or why it last lost one.
fn trouble(stack: &VersionStatus) -> Option<String> {
    let failing = stack.nodes.iter().find_map(|node| Some((node.slot + 1, node.failing.as_ref()?)));
    failing.map(|(node, said)| format!("node {node}: {said}")).or_else(|| stack.last_failure.clone())
}

fn look_at_rollout(status: &DeploymentStatus, canary: &StackName) -> Look {
    let rollout = status.rollout.as_ref().filter(|rollout| means(canary, rollout.canary_name()));
    let Some(rollout) = rollout else {
        return Look::On(format!("the rollout of {canary} has not begun"), Exit::StillGoing);
    };
    let because = rollout.reason.as_deref().map(because).unwrap_or_default();
    let at = if rollout.baking { "bakes at" } else { "at" };
    let step = format!("{canary} {at} {}, step {} of {}", rollout.weight, rollout.steps_taken, rollout.steps);
    match rollout.phase {
        RolloutPhase::Completed => Look::Ended(Exit::Done, format!("{canary} has all requests")),
        RolloutPhase::Promoted if is_being_applied(status, canary) => {
            Look::On(format!("{canary} was promoted{because}; the router has yet to confirm it"), Exit::StillGoing)
        }
        RolloutPhase::Promoted => Look::Ended(Exit::Done, format!("{canary} was promoted{because}")),
        RolloutPhase::CameBack => Look::Ended(Exit::RolledBack, format!("{canary} came back{because}")),
        RolloutPhase::Aborted => Look::Ended(Exit::RolledBack, format!("the rollout of {canary} was aborted{because}")),
        RolloutPhase::Superseded => {
            Look::Ended(Exit::Error, format!("the rollout of {canary} was superseded{because}"))
        }
        RolloutPhase::Paused => Look::On(format!("paused: {step}"), Exit::StillGoing),
        RolloutPhase::Running => {
            let judged = rollout.verdict.as_ref().map(|verdict| verdict.verdict);
            let unsure = rollout.held.is_some() && judged == Some(Verdict::Inconclusive);
            let held = rollout.held.as_ref().map(|held| format!(", holds: {held}")).unwrap_or_default();
            Look::On(format!("{step}{held}"), if unsure { Exit::Inconclusive } else { Exit::StillGoing })
        }
    }
}

/// Whether all traffic is set to a version and the router has not confirmed it.
fn is_being_applied(status: &DeploymentStatus, version: &StackName) -> bool {
    let mut of_version = status.versions.iter().filter(|stack| stack.is_called(version));
    of_version.any(|stack| stack.weight_set == Weight::FULL && !status.weights_applied)
}

async fn watch(
    session: &Session,
    door: &Door,
    deployment: &DeploymentId,
    wait: &mut Wait,
    look: impl Fn(&DeploymentStatus) -> Look,
) -> Outcome {
    let progress = Progress::begin(session.out, &format!("waiting for {deployment}"));
    let mut changes = Changes::of(door.client()).await?;
    loop {
        let status = door.deployment(deployment).await?;
        let (said, exit) = match status.as_ref().map(&look) {
            Some(Look::Ended(exit, said)) => {
                drop(progress);
                session.out.say(&said);
                return Ok(exit);
            }
            Some(Look::On(said, exit)) => (said, exit),
            None => (format!("{deployment} is not there"), Exit::StillGoing),
        };
        progress.say(&said);
        if wait.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            drop(progress);
            session.out.say(&format!("{said}; {}", goes_on(deployment)));
            return Ok(exit);
        }
        tokio::select! {
            next = changes.next(wait.deadline) => next?,
            _ = wait.interrupt.recv() => {
                drop(progress);
                session.out.say(&format!("{said}; {}", goes_on(deployment)));
                return Ok(Exit::StillGoing);
            }
        }
    }
}

fn goes_on(deployment: &DeploymentId) -> String {
    format!("it goes on, look with `ionledger status {} -w`", deployment.service)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::render::examples;

    /// The example: 1.2.3 serves, 1.2.4 is its canary, rolled out since 2026-11-22T13:20:00Z or so.
    fn look(version: &str, change: impl FnOnce(&mut Value)) -> Look {
        let status = examples::status(change);
        look_at_request(&status.services[0].deployments[0], &version.parse().unwrap())
    }

    #[test]
    fn a_bake_is_no_end() {
        let said = look("1.2.4", |deployment| {
            deployment["rollout"]["baking"] = json!(true);
            deployment["rollout"]["weight"] = json!(9_500);
        });
        assert_eq!(said, Look::On("1.2.4 bakes at 95 %, step 3 of 7".to_owned(), Exit::StillGoing));
    }

    const STACK: &str = "01900000-0000-7000-8000-000000000003";

    #[test]
    fn what_waits_goes_on_and_says_what_for() {
        let waiting = |waits_for: Value| {
            look("1.2.5", |deployment| {
                deployment["waiting"] = json!({"version": "1.2.5", "stack": STACK, "asked_at": "2026-11-22T13:30:00Z",
                    "plan": {"steps": [10_000], "duration_ms": 0}, "waits_for": waits_for});
            })
        };
        assert_eq!(
            waiting(json!([{"why": "the rollout 1.2.3 -> 1.2.4 is under way"}])),
            Look::On("1.2.5 waits: the rollout 1.2.3 -> 1.2.4 is under way".into(), Exit::StillGoing)
        );
        let about = Look::On("the rollout of 1.2.5 is about to begin".into(), Exit::StillGoing);
        assert_eq!(waiting(json!([])), about);
    }

    #[test]
    fn what_waits_for_a_hold_alone_ends_with_8_once_its_stack_is_prepared() {
        let waiting = |obstacles: Value| {
            look("1.2.5", |deployment| {
                deployment["waiting"] = json!({"version": "1.2.5", "stack": STACK, "asked_at": "2026-11-22T13:30:00Z",
                    "plan": {"steps": [10_000], "duration_ms": 0}, "waits_for": obstacles});
            })
        };
        let hold = json!({"kind": "hold", "why": "the deployment is on hold since T (1.2.4 was rolled back)",
            "next": "ionledger hold api --lift"});
        let stack = json!({"kind": "stack", "why": "its stack is starting, 0 of 1 node ready"});
        assert!(matches!(waiting(json!([hold, stack])), Look::On(_, Exit::StillGoing)));
        let said = "1.2.5 is prepared, and its rollout waits: the deployment is on hold since T (1.2.4 was rolled back); \
                    `ionledger hold api --lift` ends the hold";
        assert_eq!(waiting(json!([hold])), Look::Ended(Exit::StillGoing, said.into()));
    }

    #[test]
    fn what_was_dropped_ends_with_5_and_its_reason_also_once_its_stack_is_gone() {
        let dropped = |version: &str, at: &str| {
            look(version, |deployment| {
                deployment["dropped"] =
                    json!([{"version": version, "stack": STACK, "reason": "1.2.6 serves", "at": at}]);
            })
        };
        let ended = Look::Ended(Exit::RolledBack, "the rollout of 1.2.5 was dropped: 1.2.6 serves".into());
        assert_eq!(dropped("1.2.5", "2026-11-22T13:30:00Z"), ended);
        let earlier = dropped("1.2.4", "2026-11-22T12:00:00Z");
        assert!(matches!(&earlier, Look::On(said, _) if said.starts_with("1.2.4 at 5 %")), "{earlier:?}");
    }

    #[test]
    fn the_first_version_has_no_rollout_and_is_done_once_the_router_serves_it() {
        let first = |applied: u16| {
            look("1.2.3", |deployment| {
                deployment["rollout"] = Value::Null;
                deployment["versions"][0]["weight_set"] = json!(10_000);
                deployment["versions"][0]["weight_applied"] = json!(applied);
            })
        };
        assert_eq!(first(10_000), Look::Ended(Exit::Done, "1.2.3 has all requests".into()));
        assert_eq!(first(0), Look::On("1.2.3 has 0 % of the requests".into(), Exit::StillGoing));
    }
}
