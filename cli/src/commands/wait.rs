//! Waiting for what a command set off, and what its end means as an exit code.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use clap::Args;
use replay::answer::{DeploymentStatus, ObstacleKind, RolloutPhase, StackPhase, VersionStatus};
use schemas::judgement::Verdict;
use schemas::text::{because, nodes_ready};
use schemas::{DeploymentId, StackId, StackName, Weight};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::changes::Changes;
use crate::client::LedgerClient;
use crate::exit::Exit;
use crate::failure::{CommandResult, Failure};
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
    /// Begins the wait, if there is one. From now on Ctrl-C ends it, and not the program: so it begins only once the
    /// command has been answered.
    ///
    /// # Errors
    ///
    /// An error if signals cannot be heard.
    pub(crate) fn begin(&self) -> CommandResult<Option<Wait>> {
        if !self.wait {
            return Ok(None);
        }
        let cannot = |error| format!("it goes on, and cannot be waited for: signals cannot be heard: {error}");
        let interrupt = signal(SignalKind::interrupt()).map_err(|error| Failure::error(cannot(error)))?;
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
enum WaitState {
    /// It has ended, this way.
    Ended(Exit, String),
    /// It goes on; what to say of it, and what it means if the wait ends now.
    On(String, Exit),
}

/// Waits until the newest stack of a version is ready or has failed.
pub(crate) async fn stack_ready(
    session: &Session,
    ledger: &LedgerClient,
    deployment: &DeploymentId,
    version: &StackName,
    wait: &mut Wait,
) -> CommandResult {
    let seen = Cell::new(false);
    watch(session, ledger, deployment, wait, |status| {
        let is_there = status.versions.iter().any(|stack| stack.is_called(version));
        if seen.replace(is_there) && !is_there {
            let what = format!("{version} was taken down before it was ready; look at `ionledger history`");
            return WaitState::Ended(Exit::Error, what);
        }
        look_at_stack(status, version)
    })
    .await
}

/// Waits until the rollout to a version has ended.
pub(crate) async fn rollout_ended(
    session: &Session,
    ledger: &LedgerClient,
    deployment: &DeploymentId,
    canary: &StackName,
    wait: &mut Wait,
) -> CommandResult {
    watch(session, ledger, deployment, wait, |status| look_at_rollout(status, canary)).await
}

/// Waits until the rollout that was asked for with a version's stack has ended, or will not begin.
pub(crate) async fn requested_rollout_ended(
    session: &Session,
    ledger: &LedgerClient,
    deployment: &DeploymentId,
    version: &StackName,
    wait: &mut Wait,
) -> CommandResult {
    watch(session, ledger, deployment, wait, |status| look_at_request(status, version)).await
}

/// Waits until a rollback has moved users to `target`: that is ready, and the router has confirmed that it has all requests.
pub(crate) async fn users_moved(
    session: &Session,
    ledger: &LedgerClient,
    deployment: &DeploymentId,
    target: StackId,
    wait: &mut Wait,
) -> CommandResult {
    watch(session, ledger, deployment, wait, |status| look_at_rollback(status, target)).await
}

/// Looks how far a rollback to `target` is. Where somebody moved users elsewhere meanwhile, it has ended without them.
fn look_at_rollback(status: &DeploymentStatus, target: StackId) -> WaitState {
    let stack = status.versions.iter().find(|version| version.stack == target);
    let Some((stack, name)) = stack.map(|stack| (stack, stack.name())) else {
        let said = "other weights were set since, and the stack that the rollback went to is gone".to_owned();
        return WaitState::Ended(Exit::Error, said);
    };
    if status.rolling_back_to_name() == Some(name.clone()) {
        let so_far = status.rolling_back.as_ref().map(|waits| format!(", by now {}", waits.why)).unwrap_or_default();
        let said = format!("not yet: {name} gets all requests once it is ready{so_far}; users stay where they are");
        return WaitState::On(said, Exit::StillGoing);
    }
    if let Some(get) = status.users_get.as_ref().filter(|_| has_all(stack)) {
        return WaitState::On(format!("not yet: users get {}", get.why), Exit::StillGoing);
    }
    if has_all(stack) && status.weights_applied {
        return WaitState::Ended(Exit::Done, format!("{name} has all requests"));
    }
    if has_all(stack) {
        return WaitState::On("not yet: the router has not confirmed the weights".to_owned(), Exit::StillGoing);
    }
    match look_at_stack(status, &name) {
        WaitState::Ended(Exit::Error, said) => {
            WaitState::Ended(Exit::Error, format!("{said}; users stay where they are"))
        }
        _ => WaitState::Ended(Exit::Error, format!("other weights were set while the rollback waited for {name}")),
    }
}

fn has_all(stack: &VersionStatus) -> bool {
    stack.weight_set == Weight::FULL
}

fn means(asked: &StackName, name: Option<StackName>) -> bool {
    name.is_some_and(|name| asked.means(&name.version, name.number))
}

fn look_at_request(status: &DeploymentStatus, version: &StackName) -> WaitState {
    if let Some(waiting) = status.waiting.as_ref().filter(|waiting| means(version, waiting.name())) {
        let waits_for: Vec<&str> = waiting.waits_for.iter().map(|obstacle| obstacle.why.as_str()).collect();
        let is = |kind| waiting.waits_for.iter().any(|obstacle| obstacle.kind == Some(kind));
        return match waits_for[..] {
            [] => WaitState::On(format!("the rollout of {version} is about to begin"), Exit::StillGoing),
            // It is prepared; how long a hold lasts is up to people.
            _ if is(ObstacleKind::Hold) && !is(ObstacleKind::Stack) => {
                let next: Vec<&str> =
                    waiting.waits_for.iter().filter_map(|obstacle| obstacle.next.as_deref()).collect();
                let lift = next.first().map(|next| format!("; `{next}` ends the hold")).unwrap_or_default();
                let what = format!("{version} is prepared, and its rollout waits: {}{lift}", waits_for.join("; "));
                WaitState::Ended(Exit::StillGoing, what)
            }
            _ => WaitState::On(format!("{version} waits: {}", waits_for.join("; ")), Exit::StillGoing),
        };
    }
    let rollout = status.rollout.as_ref().filter(|rollout| means(version, rollout.canary_name()));
    let dropped = status.dropped.iter().rev().find(|dropped| means(version, Some(dropped.name())));
    let dropped = dropped.filter(|dropped| rollout.is_none_or(|rollout| rollout.started_at < dropped.at));
    let stack = status.versions.iter().rev().find(|stack| stack.is_called(version));
    match (dropped, rollout, stack) {
        (_, _, Some(stack)) if stack.phase == StackPhase::Failed => look_at_stack(status, version),
        (_, None, Some(stack)) if stack.weight_set == Weight::FULL => match stack.weight_applied {
            Weight::FULL => WaitState::Ended(Exit::Done, format!("{version} has all requests")),
            applied => WaitState::On(format!("{version} has {applied} of the requests"), Exit::StillGoing),
        },
        (Some(dropped), _, _) => {
            WaitState::Ended(Exit::RolledBack, format!("the rollout of {version} was dropped: {}", dropped.reason))
        }
        (None, Some(_), _) => look_at_rollout(status, version),
        (None, None, _) => look_at_stack(status, version).going_on(),
    }
}

impl WaitState {
    /// A stack that is ready is not what is waited for: its rollout is.
    fn going_on(self) -> Self {
        match self {
            WaitState::Ended(Exit::Done, said) => WaitState::On(said, Exit::StillGoing),
            other => other,
        }
    }
}

fn look_at_stack(status: &DeploymentStatus, version: &StackName) -> WaitState {
    let Some(stack) = status.versions.iter().rev().find(|stack| stack.is_called(version)) else {
        return WaitState::On(format!("{version} is asked for"), Exit::StillGoing);
    };
    let because = stack.reason.as_deref().map(because).unwrap_or_default();
    match stack.phase {
        StackPhase::Ready => WaitState::Ended(Exit::Done, format!("{version} is ready")),
        StackPhase::Failed => WaitState::Ended(Exit::Error, format!("{version} did not start{because}")),
        StackPhase::Collecting => WaitState::Ended(Exit::Error, format!("{version} is being taken down{because}")),
        StackPhase::Starting | StackPhase::Unhealthy => {
            let nodes = nodes_ready(stack.nodes_ready, stack.nodes_wanted);
            let trouble = trouble(stack).map(|trouble| format!("; {trouble}")).unwrap_or_default();
            WaitState::On(format!("{version}: {nodes}{trouble}"), Exit::StillGoing)
        }
    }
}

/// What keeps a stack from being ready: what the checks of its nodes say now, or why it last lost one.
fn trouble(stack: &VersionStatus) -> Option<String> {
    let failing = stack.nodes.iter().find_map(|node| Some((node.slot + 1, node.failing.as_ref()?)));
    failing.map(|(node, said)| format!("node {node}: {said}")).or_else(|| stack.last_failure.clone())
}

fn look_at_rollout(status: &DeploymentStatus, canary: &StackName) -> WaitState {
    let rollout = status.rollout.as_ref().filter(|rollout| means(canary, rollout.canary_name()));
    let Some(rollout) = rollout else {
        return WaitState::On(format!("the rollout of {canary} has not begun"), Exit::StillGoing);
    };
    let because = rollout.reason.as_deref().map(because).unwrap_or_default();
    let at = if rollout.baking { "bakes at" } else { "at" };
    let step = format!("{canary} {at} {}, step {} of {}", rollout.weight, rollout.steps_taken, rollout.steps);
    match rollout.phase {
        RolloutPhase::Completed => WaitState::Ended(Exit::Done, format!("{canary} has all requests")),
        RolloutPhase::Promoted if is_being_applied(status, canary) => WaitState::On(
            format!("{canary} was promoted{because}; the router has not confirmed it yet"),
            Exit::StillGoing,
        ),
        RolloutPhase::Promoted => WaitState::Ended(Exit::Done, format!("{canary} was promoted{because}")),
        RolloutPhase::CameBack => WaitState::Ended(Exit::RolledBack, format!("{canary} came back{because}")),
        RolloutPhase::Aborted => {
            WaitState::Ended(Exit::RolledBack, format!("the rollout of {canary} was aborted{because}"))
        }
        RolloutPhase::Superseded => {
            WaitState::Ended(Exit::Error, format!("the rollout of {canary} was superseded{because}"))
        }
        RolloutPhase::Paused => WaitState::On(format!("paused: {step}"), Exit::StillGoing),
        RolloutPhase::Running => {
            let judged = rollout.verdict.as_ref().map(|verdict| verdict.verdict);
            let unsure = rollout.held.is_some() && judged == Some(Verdict::Inconclusive);
            let held = rollout.held.as_ref().map(|held| format!(", holds: {held}")).unwrap_or_default();
            WaitState::On(format!("{step}{held}"), if unsure { Exit::Inconclusive } else { Exit::StillGoing })
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
    ledger: &LedgerClient,
    deployment: &DeploymentId,
    wait: &mut Wait,
    look: impl Fn(&DeploymentStatus) -> WaitState,
) -> CommandResult {
    let progress = Progress::begin(session.out, &format!("waiting for {deployment}"));
    let said = RefCell::new(format!("{deployment} is waited for"));
    let (deadline, interrupt) = (wait.deadline, &mut wait.interrupt);
    // Also while the ledger is asked and does not answer.
    let ended = tokio::select! {
        ended = until_ended(ledger, deployment, deadline, &look, |so_far| {
            progress.say(so_far);
            so_far.clone_into(&mut said.borrow_mut());
        }) => ended?,
        _ = interrupt.recv() => None,
    };
    drop(progress);
    let (exit, said) = ended.unwrap_or_else(|| {
        let so_far = format!("{}; {}", said.borrow(), goes_on(deployment));
        (Exit::StillGoing, so_far)
    });
    session.out.say(&said);
    Ok(exit)
}

/// Looks until what is waited for has ended or `deadline` is over, and says meanwhile how far it is.
async fn until_ended(
    ledger: &LedgerClient,
    deployment: &DeploymentId,
    deadline: Option<Instant>,
    look: impl Fn(&DeploymentStatus) -> WaitState,
    say: impl Fn(&str),
) -> CommandResult<Option<(Exit, String)>> {
    let mut changes = Changes::once_it_answers(ledger.client()).await;
    let mut silent_since = None;
    loop {
        let status = match ledger.deployment(deployment).await {
            Ok(status) => status,
            // It was asked for and goes on without us; a process that hangs, or is started again, is waited for.
            Err(failure) => {
                let since = *silent_since.get_or_insert_with(Instant::now);
                let now = Instant::now();
                if now.duration_since(since) >= SILENT_MAX || deadline.is_some_and(|deadline| now >= deadline) {
                    return Err(failure.though(&format!("the command was carried out: {}", goes_on(deployment))));
                }
                say("the process that follows the ledger does not answer; still waiting for it");
                tokio::time::sleep(AGAIN_AFTER).await;
                continue;
            }
        };
        silent_since = None;
        let (said, exit) = match status.as_ref().map(&look) {
            Some(WaitState::Ended(exit, said)) => return Ok(Some((exit, said))),
            Some(WaitState::On(said, exit)) => (said, exit),
            None => (format!("{deployment} is not there"), Exit::StillGoing),
        };
        say(&said);
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(Some((exit, format!("{said}; {}", goes_on(deployment)))));
        }
        match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, changes.next()).await.unwrap_or_default(),
            None => changes.next().await,
        }
    }
}

/// How long a process that does not answer is waited for.
const SILENT_MAX: Duration = Duration::from_secs(60);

/// How long to wait before it is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

fn goes_on(deployment: &DeploymentId) -> String {
    format!("it goes on, look with `ionledger status {} -w`", deployment.service)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::render::examples;

    /// The process stopped to answer between the command and the first question of its wait.
    #[tokio::test(start_paused = true)]
    async fn a_first_question_that_is_not_answered_ends_no_wait_before_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = LedgerClient::to(api::client::Client::of_data(folder.path()));
        let (deployment, begun) = ("production/api".parse().unwrap(), Instant::now());
        let deadline = Some(begun + Duration::from_secs(5));
        let look = |_: &DeploymentStatus| unreachable!("no status is ever read");
        let failure = until_ended(&ledger, &deployment, deadline, look, |_| {}).await.unwrap_err().line();
        assert!(begun.elapsed() >= Duration::from_secs(5), "{:?}: {failure}", begun.elapsed());
        assert!(failure.contains("the command was carried out: it goes on"), "{failure}");
    }

    /// The example: 1.2.3 serves, 1.2.4 is its canary, rolled out since 2026-11-22T13:20:00Z or so.
    fn look(version: &str, change: impl FnOnce(&mut Value)) -> WaitState {
        let status = examples::status(change);
        look_at_request(&status.services[0].deployments[0], &version.parse().unwrap())
    }

    #[test]
    fn a_bake_is_no_end() {
        let said = look("1.2.4", |deployment| {
            deployment["rollout"]["baking"] = json!(true);
            deployment["rollout"]["weight"] = json!(9_500);
        });
        assert_eq!(said, WaitState::On("1.2.4 bakes at 95 %, step 3 of 7".to_owned(), Exit::StillGoing));
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
            WaitState::On("1.2.5 waits: the rollout 1.2.3 -> 1.2.4 is under way".into(), Exit::StillGoing)
        );
        let about = WaitState::On("the rollout of 1.2.5 is about to begin".into(), Exit::StillGoing);
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
        assert!(matches!(waiting(json!([hold, stack])), WaitState::On(_, Exit::StillGoing)));
        let said = "1.2.5 is prepared, and its rollout waits: the deployment is on hold since T (1.2.4 was rolled back); \
                    `ionledger hold api --lift` ends the hold";
        assert_eq!(waiting(json!([hold])), WaitState::Ended(Exit::StillGoing, said.into()));
    }

    #[test]
    fn what_was_dropped_ends_with_5_and_its_reason_also_once_its_stack_is_gone() {
        let dropped = |version: &str, at: &str| {
            look(version, |deployment| {
                deployment["dropped"] =
                    json!([{"version": version, "stack": STACK, "reason": "1.2.6 serves", "at": at}]);
            })
        };
        let ended = WaitState::Ended(Exit::RolledBack, "the rollout of 1.2.5 was dropped: 1.2.6 serves".into());
        assert_eq!(dropped("1.2.5", "2026-11-22T13:30:00Z"), ended);
        let earlier = dropped("1.2.4", "2026-11-22T12:00:00Z");
        assert!(matches!(&earlier, WaitState::On(said, _) if said.starts_with("1.2.4 at 5 %")), "{earlier:?}");
    }

    /// How far a rollback to 1.2.3 is, once the router has confirmed what is set and `change` is made.
    fn look_back(change: impl FnOnce(&mut Value)) -> WaitState {
        let status = examples::status(|deployment| {
            deployment["rollout"] = Value::Null;
            deployment["weights_applied"] = json!(true);
            change(deployment);
        });
        let before = examples::status(|_| ());
        let target = &before.services[0].deployments[0].versions[0];
        assert_eq!(target.version.as_str(), "1.2.3");
        look_at_rollback(&status.services[0].deployments[0], target.stack)
    }

    fn give(deployment: &mut Value, weights: [u16; 2]) {
        for (n, weight) in weights.into_iter().enumerate() {
            deployment["versions"][n]["weight_set"] = json!(weight);
        }
    }

    #[test]
    fn a_rollback_has_ended_once_users_have_moved() {
        let on = |said: &str| WaitState::On(said.to_owned(), Exit::StillGoing);
        let waits = look_back(|deployment| {
            deployment["rolling_back_to"] = json!("1.2.3");
            deployment["rolling_back"] = json!({"why": "0 of 2 nodes ready"});
        });
        let said =
            "not yet: 1.2.3 gets all requests once it is ready, by now 0 of 2 nodes ready; users stay where they are";
        assert_eq!(waits, on(said));
        let told = look_back(|deployment| {
            give(deployment, [10_000, 0]);
            deployment["weights_applied"] = json!(false);
        });
        assert_eq!(told, on("not yet: the router has not confirmed the weights"));
        let moved = look_back(|deployment| give(deployment, [10_000, 0]));
        assert_eq!(moved, WaitState::Ended(Exit::Done, "1.2.3 has all requests".to_owned()));
    }

    #[test]
    fn a_rollback_whose_weights_somebody_replaced_has_not_succeeded_though_all_requests_are_in_one_place() {
        let overtaken = |weights| {
            let said = "other weights were set while the rollback waited for 1.2.3".to_owned();
            assert_eq!(look_back(|deployment| give(deployment, weights)), WaitState::Ended(Exit::Error, said));
        };
        overtaken([0, 10_000]);
        overtaken([5_000, 5_000]);
        let renewed = look_back(|deployment| {
            give(deployment, [0, 10_000]);
            deployment["versions"][1]["version"] = json!("1.2.3");
            deployment["versions"][1]["name"] = json!("1.2.3~2");
        });
        assert!(matches!(renewed, WaitState::Ended(Exit::Error, _)), "another stack of the version: {renewed:?}");
        let elsewhere = look_back(|deployment| {
            deployment["rolling_back_to"] = json!("1.2.2");
            give(deployment, [0, 10_000]);
        });
        assert!(matches!(elsewhere, WaitState::Ended(Exit::Error, _)), "another rollback waits: {elsewhere:?}");
        let gone = look_back(|deployment| {
            give(deployment, [0, 10_000]);
            deployment["versions"].as_array_mut().unwrap().remove(0);
        });
        assert!(matches!(gone, WaitState::Ended(Exit::Error, _)), "{gone:?}");
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
        assert_eq!(first(10_000), WaitState::Ended(Exit::Done, "1.2.3 has all requests".into()));
        assert_eq!(first(0), WaitState::On("1.2.3 has 0 % of the requests".into(), Exit::StillGoing));
    }
}
