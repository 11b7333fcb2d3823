//! Records: the outcomes on their way into the ledger, in tasks of their own.
//!
//! A deployment's outcomes are recorded together, and what a later reaction says of it waits until they are; what sends its
//! traffic back waits for none of them, and is not abandoned half way. What the ledger refuses is tried again with
//! growing waits (`retries.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use ledger::execute::{Answer, Refusal};
use ledger::{Ledger, Rejection, State, decide};
use schemas::command::{DeploymentOutcome, Outcome};
use schemas::{CommitId, DeploymentId, Role, StackId};
use tokio::task::{JoinError, JoinSet};

use super::retries::Retries;
use super::{IDLE_MIN, WorkerError};
use crate::glass::Glass;
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
    glass: Option<Arc<Glass>>,
    probing: Arc<Probing>,
}

impl Records {
    pub(super) fn new(
        role: Role,
        holder: String,
        ledger: Ledger,
        glass: Option<Arc<Glass>>,
        probing: Arc<Probing>,
    ) -> Self {
        let recorder = Recorder { role, holder, ledger, glass, probing };
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
    async fn record_one(&self, outcome: Outcome, cause: Option<CommitId>) -> Result<Answer, Refusal> {
        let outcome = self.seeing(outcome).await;
        let (role, holder) = (self.role, self.holder.clone());
        match self.glass.clone().filter(|_| decide::outcome_is_rollback(&outcome)) {
            Some(glass) => {
                let sent = tokio::spawn(async move { glass.record(outcome, role, &holder, cause).await }).await;
                sent.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
            }
            None => self.ledger.record(outcome, role, &holder, cause).await,
        }
    }

    /// Adds what the newest probes say to an outcome that sends traffic back.
    async fn seeing(&self, mut outcome: Outcome) -> Outcome {
        if let Outcome::Deployment { deployment, outcome: DeploymentOutcome::SendBack { probed, .. } } = &mut outcome {
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
        Outcome::Deployment { deployment, .. } => Some(deployment.clone()),
        _ => None,
    };
    (deployment, decide::outcome_is_rollback(outcome))
}

/// Returns the commit that a worker's outcome goes back to: the stack's, the rollout's or the weights' own.
pub fn cause_of(state: &State, outcome: &Outcome) -> Option<CommitId> {
    use DeploymentOutcome as O;
    let Outcome::Deployment { deployment, outcome } = outcome else { return None };
    let deployment = state.deployment(deployment)?;
    let of_stack = |stack: StackId| Some(CommitId(stack.0));
    match outcome {
        O::StartLaunch { stack, .. }
        | O::StackReady { stack }
        | O::StackFailed { stack, .. }
        | O::StackUnhealthy { stack }
        | O::StackRecovered { stack }
        | O::StartRequestedRollout { stack }
        | O::DropRequest { stack }
        | O::StartCollection { stack, .. }
        | O::Collected { stack } => of_stack(*stack),
        O::Launched { effect, .. }
        | O::LaunchFailed { effect, .. }
        | O::NodeReady { effect }
        | O::NodeUnhealthy { effect, .. }
        | O::NodeFailing { effect, .. }
        | O::NodeLost { effect, .. }
        | O::NodeStopped { effect } => deployment.node(*effect).and_then(|(stack, _, _)| of_stack(stack)),
        O::BeginJudging { begun } => Some(CommitId(begun.rollout.0)),
        O::Count { counted, .. } => Some(CommitId(counted.rollout.0)),
        O::TakeStep { rollout, .. }
        | O::Hold { rollout, .. }
        | O::DriveAgain { rollout }
        | O::SendBack { rollout, .. } => Some(CommitId(rollout.0)),
        O::EndHold { cause } => deployment.holds.get(cause).map(|hold| hold.commit),
        O::WeightsApplied { .. } | O::DriftSeen { .. } => deployment.traffic.set.as_ref().map(|set| set.commit),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use ledger::View;
    use ledger::execute::SystemClock;
    use ledger::log::contract::step;
    use ledger::log::memory::MemoryLog;
    use schemas::command::{Command, Request};
    use schemas::run::{Artifact, Capacity};
    use schemas::service::Definition;
    use schemas::{Actor, ActorKind, CommandId, Hash, Stream};

    use super::*;
    use crate::checks::http::HttpChecks;

    /// A ledger in which the deployment of a stack holds what this program does not understand.
    async fn with_a_read_only_stream() -> (Ledger, DeploymentId, StackId) {
        let log = Arc::new(MemoryLog::new());
        let ledger = Ledger::open(Arc::clone(&log) as _, View::default(), Arc::new(SystemClock)).await.unwrap();
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
            Command::Apply { service: service.clone(), definition: Box::new(definition) },
            Command::Release { service, version, artifact, args, env, source, fixes: None },
            Command::New {
                deployment: deployment.clone(),
                version: "1.0.0".parse().unwrap(),
                then_roll: None,
                again: false,
            },
        ];
        let actor = || Actor { kind: ActorKind::Person, name: "ana".to_owned(), proof: "test".to_owned() };
        let mut stack = None;
        for (n, command) in commands.into_iter().enumerate() {
            let id = CommandId(uuid::Uuid::from_u128(n as u128 + 1));
            let request = Request { id, command, fence: None, reason: None, effective_at: None };
            stack = ledger.execute(request, actor(), None).await.unwrap().commit;
        }
        let role = Role::Provisioner;
        let lease = Outcome::TakeLease { role, holder: "one".to_owned(), from: None, reason: String::new() };
        ledger.record(lease, role, "one", None).await.unwrap();
        let head = ledger.view().head(&Stream::Deployment(deployment.clone()));
        let foreign = log.push(step(99, "deployment/production/api", head));
        ledger.folded().wait_for(|next| *next > foreign).await.unwrap();
        (ledger, deployment, StackId(stack.unwrap().0))
    }

    #[tokio::test]
    async fn what_a_read_only_stream_does_not_take_is_tried_a_few_times_and_not_all_the_time() {
        let (ledger, deployment, stack) = with_a_read_only_stream().await;
        let probing = Probing::new(Arc::new(HttpChecks));
        let mut records = Records::new(Role::Provisioner, "one".to_owned(), ledger.clone(), None, probing);
        let outcome = DeploymentOutcome::StackFailed { stack, reason: "it does not start".to_owned() };
        let outcome = Outcome::Deployment { deployment, outcome };
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
}
