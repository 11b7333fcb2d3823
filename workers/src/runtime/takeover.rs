//! Takeover: of several instances of a role one acts, and another takes over when it falls silent.
//!
//! Who acts is decided in the log. Heartbeats are only the reason to try: an instance that hears nothing of the one who
//! acts, while it hears itself and has folded the log to its end, takes its place; if several do, the first commit counts.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ledger::execute::Refusal;
use ledger::heartbeats::{BEAT_EVERY, Beat, Heartbeats, SILENCE_MAX};
use ledger::{Ledger, Rejection};
use schemas::Role;
use schemas::outcome::{self, Outcome};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{Adapters, Worker, WorkerError};

/// How long an instance that is told to end waits for its effects under way, and then for its last commit.
pub const HANDOVER_MAX: Duration = Duration::from_secs(3);

/// How often an instance that waits looks whether it is its turn.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long an instance waits after it could not take its turn.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Why an instance may act.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Turn {
    /// In whose place.
    from: Option<String>,
    reason: String,
}

/// Runs an instance of a role beside others until `stop`: waits until nobody acts or who does has fallen silent, takes
/// the role's lease, acts until somebody else takes it, and waits again. At the end it lets its effects under way end and
/// gives the lease back, so that the next one need not wait for silence.
///
/// # Errors
///
/// [`WorkerError::Ledger`] if the ledger cannot be followed any more.
pub async fn run_with_takeover(
    role: Role,
    holder: String,
    ledger: Ledger,
    adapters: Adapters,
    heartbeats: Arc<dyn Heartbeats>,
    stop: CancellationToken,
) -> Result<(), WorkerError> {
    let _pulse = pulse(Beat { role, holder: holder.clone() }, Arc::clone(&heartbeats));
    let waiting = Waiting { role, holder: &holder, ledger: &ledger, heartbeats: &*heartbeats };
    loop {
        let turn = tokio::select! {
            turn = waiting.turn() => turn?,
            () = stop.cancelled() => return Ok(()),
        };
        let mut worker = Worker::new(role, holder.clone(), ledger.clone(), adapters.clone());
        if !worker.takes(turn).await? {
            tokio::time::sleep(AGAIN_AFTER).await;
            continue;
        }
        tracing::info!(%role, holder, "acts now");
        let ended = {
            let following = pin!(worker.follow(&stop));
            tokio::select! {
                ended = following => ended,
                () = after(&stop, HANDOVER_MAX) => Ok(()),
            }
        };
        match ended {
            Err(WorkerError::TakenOver { by, .. }) => tracing::warn!(%role, holder, by, "was taken over, and waits"),
            Err(error) => return Err(error),
            Ok(()) => {
                worker.give_back().await;
                return Ok(());
            }
        }
    }
}

/// Sends an instance's beats for as long as it is held. A process that stands still sends none.
fn pulse(beat: Beat, heartbeats: Arc<dyn Heartbeats>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut due = tokio::time::interval(BEAT_EVERY);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            heartbeats.send(&beat);
        }
    }))
}

/// Returns some time after `stop`.
async fn after(stop: &CancellationToken, time: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(time).await;
}

/// An instance that does not act.
struct Waiting<'a> {
    role: Role,
    holder: &'a str,
    ledger: &'a Ledger,
    heartbeats: &'a dyn Heartbeats,
}

impl Waiting<'_> {
    /// Waits for its turn.
    async fn turn(&self) -> Result<Turn, WorkerError> {
        loop {
            if let Some(why) = self.ledger.halted() {
                return Err(WorkerError::Ledger { role: self.role, why });
            }
            if let Some(turn) = self.now()
                && self.is_at_the_end().await
                && self.now().as_ref().is_some_and(|still| still.from == turn.from)
            {
                return Ok(turn);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Returns why it may act now, as far as it knows.
    fn now(&self) -> Option<Turn> {
        let Some(acting) = self.ledger.view().state().lease(self.role).holder else {
            return Some(Turn { from: None, reason: "nobody acted".to_owned() });
        };
        if acting == self.holder {
            return Some(Turn { from: Some(acting), reason: "it acted before".to_owned() });
        }
        let silence = self.heartbeats.silence(self.role, &acting);
        (silence >= SILENCE_MAX).then(|| {
            let reason = format!("{acting} was silent for {:.1} s", silence.as_secs_f64());
            Turn { from: Some(acting), reason }
        })
    }

    /// Whether it has folded all that the log holds. What cannot be asked is no.
    async fn is_at_the_end(&self) -> bool {
        match self.ledger.log().latest().await {
            Ok(end) => *self.ledger.folded().borrow() >= end,
            Err(_) => false,
        }
    }
}

impl Worker {
    /// Takes its turn; says whether it has it. Somebody else may have been quicker, or the log not to be written.
    async fn takes(&self, turn: Turn) -> Result<bool, WorkerError> {
        let Turn { from, reason } = turn;
        match self.take_lease(from, reason).await {
            Ok(()) => Ok(true),
            Err(Refusal::Rejected(Rejection::Outdated(why))) => {
                tracing::debug!(role = %self.role, why, "another instance was quicker");
                Ok(false)
            }
            Err(error @ (Refusal::Halted(_) | Refusal::Sealed { .. })) => Err(self.lost(&error)),
            Err(error) => {
                tracing::warn!(role = %self.role, %error, "the role could not be taken, it is tried again");
                Ok(false)
            }
        }
    }

    /// Gives the lease back, if the log takes that in time.
    async fn give_back(self) {
        let (role, holder) = (self.role, self.holder.clone());
        let release = Outcome::ReleaseLease(outcome::ReleaseLease { role, holder: holder.clone() });
        match tokio::time::timeout(HANDOVER_MAX, self.ledger.record(release, role, &holder, None)).await {
            Ok(Ok(_)) => tracing::info!(%role, holder, "no longer acts, and gave the lease back"),
            Ok(Err(error)) => tracing::warn!(%role, holder, %error, "no longer acts, but the lease was not given \
                                                                     back; another instance takes over after it hears \
                                                                     no heartbeat"),
            Err(_) => tracing::warn!(%role, holder, "no longer acts, but the ledger did not answer, so the lease was \
                                                     not given back"),
        }
    }
}

#[cfg(test)]
mod tests;
