//! Records: the outcomes on their way into the ledger, in tasks of their own.
//!
//! A deployment's outcomes are recorded together, and what a later reaction says of it waits until they are; what sends its
//! traffic back waits for none of them, and is not abandoned half way. What the ledger refuses is tried again with
//! growing waits (`retries.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use ledger::execute::{Executed, Refusal};
use ledger::{Ledger, Rejection, State, decide};
use schemas::outcome::{self, DeploymentOutcome, Outcome};
use schemas::{CommitId, DeploymentId, Role, StackId};
use tokio::task::{JoinError, JoinSet};

use super::retries::Retries;
use super::{IDLE_MIN, WorkerError};
use crate::break_glass::BreakGlass;
use crate::probing::Probing;

/// Whose outcomes are under way: a deployment's, and whether they send its traffic back.
type Subject = (Option<DeploymentId>, bool);

/// Outcomes that are under way. Dropped, they are abandoned, but for what sends traffic back.
pub(super) struct Records {
    recorder: Recorder,
    under_way: BTreeSet<Subject>,
    tasks: JoinSet<(Subject, Result<Recorded, WorkerError>)>,
    retries: Retries<Subject>,
}

/// What became of outcomes that were recorded together.
enum Recorded {
    /// All were recorded, or were already true.
    Taken,
    /// The ledger refused one of them; a later try may succeed.
    Refused(String),
    /// It refused one of them, and will until the program is upgraded or the outcome is smaller.
    Closed(String),
}

/// Who records, and where.
#[derive(Clone)]
struct Recorder {
    role: Role,
    holder: String,
    ledger: Ledger,
    break_glass: Option<Arc<BreakGlass>>,
    probing: Arc<Probing>,
}

impl Records {
    pub(super) fn new(
        role: Role,
        holder: String,
        ledger: Ledger,
        break_glass: Option<Arc<BreakGlass>>,
        probing: Arc<Probing>,
    ) -> Self {
        let recorder = Recorder { role, holder, ledger, break_glass, probing };
        Self { recorder, under_way: BTreeSet::new(), tasks: JoinSet::new(), retries: Retries::default() }
    }

    /// Begins to record outcomes, but those of a subject whose earlier ones are under way.
    pub(super) fn start(&mut self, state: &State, outcomes: Vec<Outcome>) {
        let steady = self.recorder.ledger.clock().steady();
        let mut by_subject: BTreeMap<Subject, Vec<_>> = BTreeMap::new();
        for outcome in outcomes {
            let cause = cause_of(state, &outcome);
            by_subject.entry(subject_of(&outcome)).or_default().push((outcome, cause));
        }
        for (subject, outcomes) in by_subject {
            let sends_back = subject.1;
            let waits = !sends_back && self.retries.waits(&subject, steady);
            if !waits && self.under_way.insert(subject.clone()) {
                let recorder = self.recorder.clone();
                self.tasks.spawn(async move { (subject, recorder.record(outcomes).await) });
            }
        }
    }

    /// Waits until the outcomes of one subject are recorded; for ever while there are none.
    pub(super) async fn next(&mut self) -> Result<(), WorkerError> {
        match self.tasks.join_next().await {
            Some(ended) => self.take_in(ended),
            None => std::future::pending().await,
        }
    }

    /// Returns when, on the steady clock, something that was not recorded is due again; the end of time if nothing is.
    pub(super) fn due(&self) -> Duration {
        self.retries.due(self.recorder.ledger.clock().steady())
    }

    /// Waits until everything is recorded.
    pub(super) async fn all(&mut self) -> Result<(), WorkerError> {
        while let Some(ended) = self.tasks.join_next().await {
            self.take_in(ended)?;
        }
        Ok(())
    }

    fn take_in(
        &mut self,
        ended: Result<(Subject, Result<Recorded, WorkerError>), JoinError>,
    ) -> Result<(), WorkerError> {
        let (subject, result) = ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        self.under_way.remove(&subject);
        let (why, heals) = match result? {
            Recorded::Taken => {
                self.retries.done(&subject);
                return Ok(());
            }
            Recorded::Refused(why) => (why, true),
            Recorded::Closed(why) => (why, false),
        };
        let steady = self.recorder.ledger.clock().steady();
        let (again_in, is_new) = self.retries.failed(subject.clone(), &why, heals, steady);
        let (role, (deployment, _)) = (self.recorder.role, subject);
        let deployment = deployment.map_or_else(|| "the ledger".to_owned(), |deployment| deployment.to_string());
        match is_new {
            true => tracing::warn!(%role, deployment, %why, ?again_in, "outcomes were not recorded"),
            false => tracing::debug!(%role, deployment, %why, ?again_in, "outcomes were still not recorded"),
        }
        Ok(())
    }
}

impl Recorder {
    /// Records outcomes at once. If that changed nothing, it takes as long as a reaction to it would wait.
    async fn record(&self, outcomes: Vec<(Outcome, Option<CommitId>)>) -> Result<Recorded, WorkerError> {
        let recording = outcomes
            .into_iter()
            .map(|(outcome, cause)| async move { (self.record_one(outcome.clone(), cause).await, outcome) });
        let lost = |why: String| WorkerError::Ledger { role: self.role, why };
        let (mut changed, mut recorded) = (false, Recorded::Taken);
        for (answer, outcome) in join_all(recording).await {
            match answer {
                Ok(answer) => changed |= answer.commit.is_some(),
                Err(Refusal::Rejected(Rejection::Outdated(why))) => {
                    tracing::debug!(role = %self.role, %why, "outdated");
                }
                Err(Refusal::Deposed { .. }) => changed = true,
                Err(Refusal::Halted(why)) => return Err(lost(why)),
                Err(sealed @ Refusal::Sealed { .. }) => return Err(lost(sealed.to_string())),
                Err(error) => {
                    tracing::debug!(role = %self.role, ?outcome, %error, "outcome was not recorded");
                    recorded = match error {
                        Refusal::ReadOnly { .. } | Refusal::TooLarge { .. } => Recorded::Closed(error.to_string()),
                        _ => Recorded::Refused(error.to_string()),
                    };
                }
            }
        }
        if !changed {
            tokio::time::sleep(IDLE_MIN).await;
        }
        Ok(recorded)
    }

    /// Records an outcome. What sends traffic back is carried out without the ledger if that gives no verdict.
    async fn record_one(&self, outcome: Outcome, cause: Option<CommitId>) -> Result<Executed, Refusal> {
        let outcome = self.seeing(outcome).await;
        let (role, holder) = (self.role, self.holder.clone());
        // A rollout that begins by itself would stand against a rollback that the ledger has yet to hear of, and what that
        // rollback did to the router would be recorded as drift.
        if let Outcome::Deployment(outcome::DeploymentReport {
            deployment,
            outcome: DeploymentOutcome::StartRequestedRollout(_) | DeploymentOutcome::DriftSeen(_),
        }) = &outcome
            && let Some(break_glass) = &self.break_glass
        {
            break_glass.settle_first(deployment).await;
        }
        match self.break_glass.clone().filter(|_| decide::outcome_is_rollback(&outcome)) {
            Some(break_glass) => {
                let sent = tokio::spawn(async move { break_glass.record(outcome, role, &holder, cause).await }).await;
                sent.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
            }
            None => self.ledger.record(outcome, role, &holder, cause).await,
        }
    }

    /// Adds what the newest probes say to an outcome that sends traffic back.
    async fn seeing(&self, mut outcome: Outcome) -> Outcome {
        if let Outcome::Deployment(outcome::DeploymentReport {
            deployment,
            outcome: DeploymentOutcome::SendBack(outcome::SendBack { probed, .. }),
        }) = &mut outcome
        {
            let found = self.ledger.view().state().deployment(deployment).cloned();
            if let Some(found) = found {
                *probed = self.probing.look(&found).await;
            }
        }
        outcome
    }
}

fn subject_of(outcome: &Outcome) -> Subject {
    let deployment = match outcome {
        Outcome::Deployment(outcome::DeploymentReport { deployment, .. }) => Some(deployment.clone()),
        _ => None,
    };
    (deployment, decide::outcome_is_rollback(outcome))
}

/// Returns the commit that a worker's outcome goes back to: the stack's, the rollout's or the weights' own.
pub fn cause_of(state: &State, outcome: &Outcome) -> Option<CommitId> {
    use DeploymentOutcome as O;
    let Outcome::Deployment(outcome::DeploymentReport { deployment, outcome }) = outcome else { return None };
    let deployment = state.deployment(deployment)?;
    let of_stack = |stack: StackId| Some(CommitId(stack.0));
    // What a retirement takes down goes because of that, and not because of whoever asked for the stack.
    let of_end = |stack: StackId| {
        let retired = deployment.stacks.get(&stack).is_some_and(|stack| stack.retired);
        deployment.traffic.retired_by.filter(|_| retired).or_else(|| of_stack(stack))
    };
    match outcome {
        O::StartLaunch(outcome::StartLaunch { stack, .. })
        | O::StackReady(outcome::StackReady { stack })
        | O::StackFailed(outcome::StackFailed { stack, .. })
        | O::StackUnhealthy(outcome::StackUnhealthy { stack })
        | O::StackRecovered(outcome::StackRecovered { stack }) => of_stack(*stack),
        // Whoever asked for the rollout may be another than who asked for the stack.
        O::StartRequestedRollout(outcome::StartRequestedRollout { stack })
        | O::DropRequest(outcome::DropRequest { stack }) => {
            let waiting = deployment.waiting.as_ref().filter(|waiting| waiting.stack == *stack);
            waiting.and_then(|waiting| waiting.commit).or_else(|| of_stack(*stack))
        }
        O::StartCollection(outcome::StartCollection { stack, .. }) | O::Collected(outcome::Collected { stack }) => {
            of_end(*stack)
        }
        O::Launched(outcome::Launched { effect, .. })
        | O::LaunchFailed(outcome::LaunchFailed { effect, .. })
        | O::NodeReady(outcome::NodeReady { effect })
        | O::NodeUnhealthy(outcome::NodeUnhealthy { effect, .. })
        | O::NodeFailing(outcome::NodeFailing { effect, .. })
        | O::NodeLost(outcome::NodeLost { effect, .. }) => {
            deployment.node(*effect).and_then(|(stack, _, _)| of_stack(stack))
        }
        O::NodeStopped(outcome::NodeStopped { effect }) => {
            deployment.node(*effect).and_then(|(stack, _, _)| of_end(stack))
        }
        O::BeginJudging(outcome::BeginJudging { begun }) => Some(CommitId(begun.rollout.0)),
        O::Count(outcome::Count { counted, .. }) => Some(CommitId(counted.rollout.0)),
        O::TakeStep(outcome::TakeStep { rollout, .. })
        | O::Hold(outcome::Hold { rollout, .. })
        | O::DriveAgain(outcome::DriveAgain { rollout })
        | O::SendBack(outcome::SendBack { rollout, .. }) => Some(CommitId(rollout.0)),
        O::EndHold(outcome::EndHold { cause }) => deployment.holds.get(cause).map(|hold| hold.commit),
        O::WeightsApplied(_) | O::DriftSeen(_) => deployment.traffic.set.as_ref().map(|set| set.commit),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use ledger::View;
    use ledger::execute::{Clock, SystemClock};
    use ledger::log::contract::step;
    use ledger::log::memory::MemoryLog;
    use schemas::command::{self, Command, Request};
    use schemas::run::{Artifact, Capacity};
    use schemas::service::Definition;
    use schemas::{Actor, ActorKind, CommandId, Hash, Stream};
    use tokio::time::Instant;

    use super::super::tests::Paused;
    use super::*;
    use crate::checks::http::HttpChecks;

    /// A ledger with a stack.
    pub(in crate::runtime) async fn with_a_stack(
        log: &Arc<MemoryLog>,
        clock: impl Clock,
    ) -> (Ledger, DeploymentId, StackId) {
        let ledger = Ledger::open(Arc::clone(log) as _, View::default(), Arc::new(clock)).await.unwrap();
        let deployment: DeploymentId = "production/api".parse().unwrap();
        let (service, version) = (deployment.service.clone(), "1.0.0".parse().unwrap());
        let definition = Definition {
            owner: "team".to_owned(),
            description: String::new(),
            listen: BTreeMap::new(),
            run: Default::default(),
            capacity: Capacity { nodes: 1, min_ready: 1 },
            policy: Default::default(),
        };
        let artifact = Artifact { sha256: Hash::of(b"1"), name: "api".to_owned(), size_bytes: 1 };
        let (args, env, source) = (None, BTreeMap::new(), Default::default());
        let commands = [
            Command::Apply(command::Apply { service: service.clone(), definition: Box::new(definition) }),
            Command::Release(command::Release { service, version, artifact, args, env, source, fixes: None }),
            Command::New(command::New {
                deployment: deployment.clone(),
                version: "1.0.0".parse().unwrap(),
                then_roll: None,
                again: false,
            }),
        ];
        let actor = || Actor { kind: ActorKind::Person, name: "ana".to_owned(), proof: "test".to_owned() };
        let mut stack = None;
        for (n, command) in commands.into_iter().enumerate() {
            let id = CommandId(uuid::Uuid::from_u128(n as u128 + 1));
            let request = Request { id, command, fence: None, reason: None, effective_at: None };
            stack = ledger.execute(request, actor(), None).await.unwrap().commit;
        }
        (ledger, deployment, StackId(stack.unwrap().0))
    }

    /// A ledger in which the deployment of a stack holds what this program does not understand.
    async fn with_a_read_only_stream() -> (Ledger, DeploymentId, StackId) {
        let log = Arc::new(MemoryLog::new());
        let (ledger, deployment, stack) = with_a_stack(&log, Paused(Instant::now())).await;
        let role = Role::Provisioner;
        let lease = Outcome::TakeLease(outcome::TakeLease {
            role,
            holder: "one".to_owned(),
            from: None,
            reason: String::new(),
        });
        ledger.record(lease, role, "one", None).await.unwrap();
        let head = ledger.view().head(&Stream::Deployment(deployment.clone()));
        let foreign = log.push(step(99, "deployment/production/api", head));
        ledger.folded().wait_for(|next| *next > foreign).await.unwrap();
        (ledger, deployment, stack)
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_read_only_stream_does_not_take_is_tried_a_few_times_and_not_all_the_time() {
        let (ledger, deployment, stack) = with_a_read_only_stream().await;
        let probing = Probing::new(Arc::new(HttpChecks));
        let mut records = Records::new(Role::Provisioner, "one".to_owned(), ledger.clone(), None, probing);
        let outcome =
            DeploymentOutcome::StackFailed(outcome::StackFailed { stack, reason: "it does not start".to_owned() });
        let outcome = Outcome::Deployment(outcome::DeploymentReport { deployment, outcome });
        let (began, mut tries) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_millis(500) {
            let state = ledger.view().state().clone();
            records.start(&state, vec![outcome.clone()]);
            if records.under_way.is_empty() {
                assert!(records.due() > ledger.clock().steady(), "the worker knows when it is due again");
                tokio::time::sleep(Duration::from_millis(5)).await;
            } else {
                tries += 1;
                records.next().await.unwrap();
            }
        }
        assert!((1..=5).contains(&tries), "{tries}");
        let answer = ledger.record(outcome, Role::Provisioner, "one", None).await;
        assert!(matches!(answer, Err(Refusal::ReadOnly { .. })), "{answer:?}");
    }

    #[tokio::test]
    async fn a_rollout_of_a_stack_that_is_there_begins_because_of_whoever_asked_for_the_rollout() {
        let (ledger, deployment, stack) = with_a_stack(&Arc::new(MemoryLog::new()), SystemClock).await;
        let then_roll = Some(command::PlanAsked { duration_ms: Some(1_000), steps: None });
        let version = "1.0.0".parse().unwrap();
        let command = Command::New(command::New { deployment: deployment.clone(), version, then_roll, again: false });
        let id = CommandId(uuid::Uuid::from_u128(100));
        let request = Request { id, command, fence: None, reason: None, effective_at: None };
        let actor = Actor { kind: ActorKind::Pipeline, name: "ci".to_owned(), proof: "test".to_owned() };
        let asked = ledger.execute(request, actor, None).await.unwrap();
        assert_eq!(asked.stack, Some(stack), "whoever waits knows for what");
        let outcome = DeploymentOutcome::StartRequestedRollout(outcome::StartRequestedRollout { stack });
        let outcome = Outcome::Deployment(outcome::DeploymentReport { deployment, outcome });
        assert_eq!(cause_of(ledger.view().state(), &outcome), asked.commit);
    }

    #[tokio::test]
    async fn what_a_retirement_takes_down_goes_because_of_that() {
        let (ledger, deployment, stack) = with_a_stack(&Arc::new(MemoryLog::new()), SystemClock).await;
        let cause = |ledger: &Ledger| {
            let outcome = DeploymentOutcome::Collected(outcome::Collected { stack });
            cause_of(
                ledger.view().state(),
                &Outcome::Deployment(outcome::DeploymentReport { deployment: deployment.clone(), outcome }),
            )
        };
        assert_eq!(cause(&ledger), Some(CommitId(stack.0)));
        let command = Command::Retire(command::Retire { deployment: deployment.clone() });
        let id = CommandId(uuid::Uuid::from_u128(100));
        let request = Request { id, command, fence: None, reason: None, effective_at: None };
        let actor = Actor { kind: ActorKind::Person, name: "ana".to_owned(), proof: "test".to_owned() };
        let retired = ledger.execute(request, actor, None).await.unwrap().commit;
        assert_eq!(cause(&ledger), retired);
    }
}
