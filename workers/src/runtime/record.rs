//! Records: the outcomes on their way into the ledger, in tasks of their own.
//!
//! A deployment's outcomes are recorded together, and what a later reaction says of it waits until they are; what sends its
//! traffic back waits for none of them, and is not abandoned half way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::join_all;
use ledger::execute::{Answer, Refusal};
use ledger::{Ledger, Rejection, State, decide};
use schemas::command::{DeploymentOutcome, Outcome};
use schemas::{CommitId, DeploymentId, Role, StackId};
use tokio::task::{JoinError, JoinSet};

use super::{IDLE_MIN, WorkerError};
use crate::glass::Glass;

/// Whose outcomes are under way: a deployment's, and whether they send its traffic back.
type Subject = (Option<DeploymentId>, bool);

/// Outcomes that are under way. Dropped, they are abandoned, but for what sends traffic back.
pub(super) struct Records {
    recorder: Recorder,
    under_way: BTreeSet<Subject>,
    tasks: JoinSet<(Subject, Result<(), WorkerError>)>,
}

/// Who records, and where.
#[derive(Clone)]
struct Recorder {
    role: Role,
    holder: String,
    ledger: Ledger,
    glass: Option<Arc<Glass>>,
}

impl Records {
    pub(super) fn new(role: Role, holder: String, ledger: Ledger, glass: Option<Arc<Glass>>) -> Self {
        let recorder = Recorder { role, holder, ledger, glass };
        Self { recorder, under_way: BTreeSet::new(), tasks: JoinSet::new() }
    }

    /// Begins to record outcomes, but those of a subject whose earlier ones are under way.
    pub(super) fn start(&mut self, state: &State, outcomes: Vec<Outcome>) {
        let mut by_subject: BTreeMap<Subject, Vec<_>> = BTreeMap::new();
        for outcome in outcomes {
            let cause = cause_of(state, &outcome);
            by_subject.entry(subject_of(&outcome)).or_default().push((outcome, cause));
        }
        for (subject, outcomes) in by_subject {
            if self.under_way.insert(subject.clone()) {
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

    /// Waits until everything is recorded.
    pub(super) async fn all(&mut self) -> Result<(), WorkerError> {
        while let Some(ended) = self.tasks.join_next().await {
            self.take_in(ended)?;
        }
        Ok(())
    }

    fn take_in(&mut self, ended: Result<(Subject, Result<(), WorkerError>), JoinError>) -> Result<(), WorkerError> {
        let (subject, result) = ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        self.under_way.remove(&subject);
        result
    }
}

impl Recorder {
    /// Records outcomes at once. If that changed nothing, it takes as long as a reaction to it would wait.
    async fn record(&self, outcomes: Vec<(Outcome, Option<CommitId>)>) -> Result<(), WorkerError> {
        let recording = outcomes
            .into_iter()
            .map(|(outcome, cause)| async move { (self.record_one(outcome.clone(), cause).await, outcome) });
        let lost = |why: String| WorkerError::Ledger { role: self.role, why };
        let mut changed = false;
        for (answer, outcome) in join_all(recording).await {
            match answer {
                Ok(answer) => changed |= answer.commit.is_some(),
                Err(Refusal::Rejected(Rejection::Outdated(why))) => {
                    tracing::debug!(role = %self.role, %why, "outdated");
                }
                Err(Refusal::Deposed { .. }) => changed = true,
                Err(Refusal::Halted(why)) => return Err(lost(why)),
                Err(sealed @ Refusal::Sealed { .. }) => return Err(lost(sealed.to_string())),
                Err(error) => tracing::warn!(role = %self.role, ?outcome, %error, "outcome was not recorded"),
            }
        }
        if !changed {
            tokio::time::sleep(IDLE_MIN).await;
        }
        Ok(())
    }

    /// Records an outcome. What sends traffic back is carried out without the ledger if that gives no verdict.
    async fn record_one(&self, outcome: Outcome, cause: Option<CommitId>) -> Result<Answer, Refusal> {
        let (role, holder) = (self.role, self.holder.clone());
        match self.glass.clone().filter(|_| decide::outcome_is_rollback(&outcome)) {
            Some(glass) => {
                let sent = tokio::spawn(async move { glass.record(outcome, role, &holder, cause).await }).await;
                sent.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
            }
            None => self.ledger.record(outcome, role, &holder, cause).await,
        }
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
        | O::StartCollection { stack, .. }
        | O::Collected { stack } => of_stack(*stack),
        O::Launched { effect, .. }
        | O::LaunchFailed { effect, .. }
        | O::NodeReady { effect }
        | O::NodeUnhealthy { effect, .. }
        | O::NodeLost { effect, .. }
        | O::NodeStopped { effect } => deployment.node(*effect).and_then(|(stack, _, _)| of_stack(stack)),
        O::BeginJudging { begun } => Some(CommitId(begun.rollout.0)),
        O::Count { counted, .. } => Some(CommitId(counted.rollout.0)),
        O::TakeStep { rollout, .. }
        | O::Hold { rollout, .. }
        | O::DriveAgain { rollout }
        | O::SendBack { rollout, .. } => Some(CommitId(rollout.0)),
        O::WeightsApplied { .. } | O::DriftSeen { .. } => deployment.traffic.set.as_ref().map(|set| set.commit),
    }
}
