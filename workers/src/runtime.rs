//! The runtime: one loop that every worker runs.
//!
//! It follows the ledger, gathers facts, lets the worker's pure `react` say what to do, starts the effects that are not
//! under way, and records the outcomes. It has no opinions of its own, and waits for none of it: while the ledger gives no
//! verdict on one thing, a canary can still be sent back.

mod poller;
mod record;
mod retries;
mod takeover;

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use ledger::deployment::{Deployment, generation, stranded};
use ledger::execute::Refusal;
use ledger::{Ledger, State};
use schemas::outcome::{self, Outcome};
use schemas::{DeploymentId, Offset, Role, StackId, StackName, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::break_glass::{BreakGlass, nobody_listens};
use crate::effect::{Done, Effect, EffectKey};
use crate::facts::Facts;
use crate::nodes::Nodes;
use crate::poll::{Poll, PollResult};
use crate::probing::Probing;
use crate::reactor::{self, Reactor};
use crate::routing;
use crate::telemetry;
use crate::traffic::{ApplyError, Entry, HeldRoutes, Router};

use poller::Poller;
use record::Records;

pub use record::cause_of;
pub use takeover::{HANDOVER_MAX, run_with_takeover};

/// The outside world's ports.
#[derive(Clone)]
pub struct Adapters {
    /// Where nodes run.
    pub nodes: Arc<dyn Nodes>,
    /// Where they are checked, and what the newest checks said.
    pub checks: Arc<Probing>,
    /// What shares requests out over them.
    pub router: Arc<dyn Router>,
    /// What sends a canary back when the ledger gives no verdict; without it that waits for the ledger.
    pub break_glass: Option<Arc<BreakGlass>>,
}

/// Why a worker ended before it was told to.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WorkerError {
    /// Another instance took over.
    #[error("{role} was taken over by {by}")]
    TakenOver {
        /// The role.
        role: Role,
        /// The instance that acts now.
        by: String,
    },
    /// The ledger cannot be followed or written any more.
    #[error("{role} cannot go on: {why}")]
    Ledger {
        /// The role.
        role: Role,
        /// Why.
        why: String,
    },
}

/// Something a worker hears of.
enum News {
    /// An effect ended.
    Done(EffectKey, Done),
    /// A poll showed something.
    Seen(PollResult),
    /// A poll broke off.
    Lost(Poll),
}

/// The longest time between two reactions.
pub const IDLE_MAX: Duration = Duration::from_secs(5);

/// The shortest time between two reactions that changed nothing.
pub const IDLE_MIN: Duration = Duration::from_millis(20);

/// For how long a worker may do nothing and still trust what it has read: after more, it was stopped or the machine slept,
/// and somebody else may act by now.
const STILL_MAX: Duration = Duration::from_secs(2);

/// How long a worker that stood still waits for what was written meanwhile.
const CATCH_UP_MAX: Duration = Duration::from_secs(2);

/// Runs the only instance of a worker until `stop`: takes the role's lease, then reacts. Effects under way at the end are
/// abandoned; whoever acts next looks first and repeats them.
///
/// # Errors
///
/// [`WorkerError`] if it must not or cannot go on.
pub async fn run(
    role: Role,
    holder: String,
    ledger: Ledger,
    adapters: Adapters,
    stop: CancellationToken,
) -> Result<(), WorkerError> {
    let mut worker = Worker::new(role, holder, ledger, adapters);
    let from = worker.ledger.view().state().lease(role).holder;
    worker.take_lease(from, "started".to_owned()).await.map_err(|error| worker.lost(&error))?;
    let never = CancellationToken::new();
    tokio::select! {
        result = worker.follow(&never) => result,
        () = stop.cancelled() => Ok(()),
    }
}

struct Worker {
    role: Role,
    holder: String,
    ledger: Ledger,
    adapters: Adapters,
    reactor: Reactor,
    facts: Facts,
    poller: Poller,
    records: Records,
    news: mpsc::UnboundedReceiver<News>,
    send: mpsc::UnboundedSender<News>,
}

impl Worker {
    fn new(role: Role, holder: String, ledger: Ledger, adapters: Adapters) -> Self {
        let (send, news) = mpsc::unbounded_channel();
        let poller = Poller::new(role, ledger.clone(), adapters.clone(), send.clone());
        let (break_glass, probing) = (adapters.break_glass.clone(), Arc::clone(&adapters.checks));
        let records = Records::new(role, holder.clone(), ledger.clone(), break_glass, probing);
        let (reactor, facts) = (Reactor::new(role), Facts { started: ledger.started(), ..Facts::default() });
        Self { role, holder, ledger, adapters, reactor, facts, poller, records, news, send }
    }

    async fn take_lease(&self, from: Option<String>, reason: String) -> Result<(), Refusal> {
        let (role, holder) = (self.role, self.holder.clone());
        let outcome = Outcome::TakeLease(outcome::TakeLease { role, holder, from, reason });
        self.ledger.record(outcome, role, &self.holder, None).await.map(drop)
    }

    fn lost(&self, error: &Refusal) -> WorkerError {
        WorkerError::Ledger { role: self.role, why: error.to_string() }
    }

    /// Reacts until it may act no longer; from `stop` on it starts nothing more, and ends when all that it has started
    /// has.
    async fn follow(&mut self, stop: &CancellationToken) -> Result<(), WorkerError> {
        let mut folded = self.ledger.folded();
        let mut acted = self.ledger.clock().steady();
        loop {
            folded.borrow_and_update();
            let steady = self.ledger.clock().steady();
            let still = steady.saturating_sub(std::mem::replace(&mut acted, steady));
            if still > STILL_MAX {
                self.catch_up(&mut folded).await;
                // It did not stand still while it read.
                acted = self.ledger.clock().steady();
            }
            if still > IDLE_MAX * 2 {
                self.facts.woke_at = Some(self.ledger.clock().now());
            }
            let state = self.ledger.view().state().clone();
            self.check_lease(&state)?;
            self.facts.steady = steady;
            if stop.is_cancelled() {
                return self.end().await;
            }
            self.facts.clock = self.ledger.clock_trouble();
            let next_look = self.poller.poll(&state, &self.facts);
            let now = self.ledger.clock().now().max(self.ledger.view().time());
            self.facts.wall = now;
            let reaction = self.reactor.react(&state, &mut self.facts, now);
            let woken = reaction.wake_steady_at.map_or(IDLE_MAX, |at| at.saturating_sub(steady));
            reaction.effects.into_iter().for_each(|effect| self.start(effect));
            self.records.start(&state, reaction.outcomes);
            let wake = reaction.wake_at.map_or(IDLE_MAX, |at| until(now, at));
            let again = self.records.due().saturating_sub(steady);
            let idle = wake.min(woken).min(next_look.saturating_sub(steady)).min(again).clamp(IDLE_MIN, IDLE_MAX);
            tokio::select! {
                news = self.news.recv() => if let Some(news) = news { self.take_in(news) },
                ended = self.records.next() => ended?,
                changed = folded.changed() => changed.map_err(|_| self.ledger_lost())?,
                () = stop.cancelled() => {}
                () = tokio::time::sleep(idle) => {}
            }
            while let Ok(news) = self.news.try_recv() {
                self.take_in(news);
            }
        }
    }

    /// Folds what the log holds now, if it can be asked.
    async fn catch_up(&self, folded: &mut watch::Receiver<Offset>) {
        let caught_up = async {
            let end = self.ledger.log().latest().await.ok()?;
            folded.wait_for(|next| *next >= end).await.ok().map(drop)
        };
        let _ = tokio::time::timeout(CATCH_UP_MAX, caught_up).await;
    }

    /// Lets what is under way end, and records it.
    async fn end(&mut self) -> Result<(), WorkerError> {
        while !self.facts.in_flight.is_empty()
            && let Some(news) = self.news.recv().await
        {
            self.take_in(news);
        }
        self.records.all().await?;
        let state = self.ledger.view().state().clone();
        self.check_lease(&state)?;
        let now = self.ledger.clock().now().max(self.ledger.view().time());
        let reaction = reactor::react(self.role, &state, &self.facts, now);
        self.records.start(&state, reaction.outcomes);
        self.records.all().await
    }

    fn check_lease(&self, state: &State) -> Result<(), WorkerError> {
        let holder = state.lease(self.role).holder;
        if holder.as_deref() == Some(&self.holder) {
            return Ok(());
        }
        Err(WorkerError::TakenOver { role: self.role, by: holder.unwrap_or_else(|| "nobody".to_owned()) })
    }

    fn ledger_lost(&self) -> WorkerError {
        let why = self.ledger.halted().unwrap_or_else(|| "it was closed".to_owned());
        WorkerError::Ledger { role: self.role, why }
    }

    /// Starts an effect, unless one on the same thing is under way.
    fn start(&mut self, effect: Effect) {
        if !self.facts.begin(&effect) {
            return;
        }
        let key = effect.key();
        tracing::debug!(role = %self.role, effect = effect.kind(), ?key, "effect");
        let (adapters, send, role) = (self.adapters.clone(), self.send.clone(), self.role.as_str());
        tokio::spawn(async move {
            let began = std::time::Instant::now();
            // A call that breaks off ends too: what is said of its deployment must not wait for it for ever.
            let called = AssertUnwindSafe(carry_out(&adapters, &effect)).catch_unwind().await;
            let done = called.unwrap_or_else(|panic| {
                let why = format!("the call broke off: {}", said(&*panic));
                tracing::error!(role, effect = effect.kind(), %why, "effect");
                effect.unknown(why)
            });
            let (kind, outcome) = (effect.kind(), if done.failed() { "failed" } else { "done" });
            telemetry::EFFECTS.with_label_values(&[role, kind, outcome]).inc();
            telemetry::EFFECT_SECONDS.with_label_values(&[kind]).observe(began.elapsed().as_secs_f64());
            // A worker that has ended needs no news.
            let _ = send.send(News::Done(key, done));
        });
    }

    fn take_in(&mut self, news: News) {
        self.facts.steady = self.ledger.clock().steady();
        self.facts.wall = self.ledger.clock().now().max(self.ledger.view().time());
        match news {
            News::Done(key, done) => self.facts.take_in(key, done),
            News::Seen(result) => {
                let view = self.ledger.view();
                self.poller.take_in(&mut self.facts, view.state(), view.next(), result);
            }
            News::Lost(poll) => self.poller.lost(&poll),
        }
    }
}

async fn carry_out(adapters: &Adapters, effect: &Effect) -> Done {
    match effect {
        Effect::Launch(launch) => Done::Launched(adapters.nodes.launch(launch).await),
        Effect::Stop { node, grace } => Done::Stopped(adapters.nodes.stop(*node, *grace).await.map(drop)),
        Effect::CleanUp { node } => {
            if let Err(error) = adapters.nodes.cleanup(*node).await {
                tracing::warn!(%node, %error, "an ended node was not cleaned up");
            }
            Done::Other
        }
        Effect::Route(routes) => Done::Routed(adapters.router.apply(routes).await),
        Effect::Unroute { deployment, generation } => {
            if let Err(error) = adapters.router.remove(deployment, *generation).await {
                tracing::warn!(%deployment, %error, "routes were not removed");
            }
            Done::Other
        }
    }
}

/// Returns what a panic said.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("nobody knows why")
}

fn until(now: Timestamp, at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
}

/// Why weights could not be applied at once; the traffic shifter goes on trying.
#[derive(Debug, thiserror::Error)]
pub enum ApplyNowError {
    /// No weights are set, or other ones by now.
    #[error("{0} has no weights that can be served now")]
    Nothing(DeploymentId),
    /// A stack that is to have users has no node that could be called.
    #[error("no node of {version} can be called ({why}): {users}, until one can{next}")]
    NoNode {
        /// Its name.
        version: StackName,
        /// Why none runs, in a few words.
        why: String,
        /// What users get meanwhile.
        users: String,
        /// What to do, after a semicolon; empty if nothing helps.
        next: String,
    },
    /// The router serves what another rollback left there, of which the ledger does not know yet.
    #[error("the router of {0} serves the weights of a rollback that is not in the ledger yet")]
    Unrecorded(DeploymentId),
    /// The router did not take it.
    #[error("{}{}", if matches!(.0, ApplyError::NotRunning(_)) { "" } else { "users are still where they were: " }, .0)]
    Router(#[from] ApplyError),
}

/// Applies a deployment's weights at once, without waiting for the traffic shifter. Whoever commits a rollback calls
/// this; the shifter reads it back and records it.
///
/// # Errors
///
/// [`ApplyNowError`]; the rollback stands all the same.
pub async fn apply_now(ledger: &Ledger, router: &dyn Router, id: &DeploymentId) -> Result<HeldRoutes, ApplyNowError> {
    apply(ledger, router, id, false).await
}

/// Applies a deployment's weights as [`apply_now`], where nobody else looks at nodes: what the ledger knows of them may be old, and
/// users stay where they are while all of them refuse the connection.
///
/// # Errors
///
/// As [`apply_now`].
pub async fn apply_now_looking(
    ledger: &Ledger,
    router: &dyn Router,
    id: &DeploymentId,
) -> Result<HeldRoutes, ApplyNowError> {
    apply(ledger, router, id, true).await
}

/// Applies a deployment's weights; `looks` says whether to look first that a node listens.
async fn apply(
    ledger: &Ledger,
    router: &dyn Router,
    id: &DeploymentId,
    looks: bool,
) -> Result<HeldRoutes, ApplyNowError> {
    let (routes, deployment) = {
        let view = ledger.view();
        let state = view.state();
        let deployment = state.deployment(id).ok_or_else(|| ApplyNowError::Nothing(id.clone()))?;
        (routing::routes(state, id, deployment), deployment.clone())
    };
    let Some(routes) = routes else {
        let stack = deployment.traffic.stacks_set().find(|stack| !deployment.can_be_called(*stack));
        return Err(no_node(router, id, &deployment, stack, None).await);
    };
    if looks && let Some(nobody) = nobody_listens(&routes).await {
        return Err(no_node(router, id, &deployment, deployment.traffic.stacks_set().next(), Some(nobody)).await);
    }
    match router.apply(&routes).await {
        // Something younger is held: the weights of this rollback, or of what came after it.
        Err(ApplyError::Superseded { held: generation }) => match router.entry(id).await? {
            Some(Entry::Routed(held)) if held.routes.weights == routes.weights => Ok(held),
            _ if generation::emergency_count(generation) > generation::emergency_count(routes.generation) => {
                Err(ApplyNowError::Unrecorded(id.clone()))
            }
            Some(Entry::Routed(held)) => Ok(held),
            _ => Err(ApplyNowError::Nothing(id.clone())),
        },
        other => Ok(other?),
    }
}

/// Records what the router confirmed to [`apply_now`], in the traffic shifter's stead: `instance` takes the role for as long as that
/// takes. Only for whoever holds a ledger that no other process can act on.
///
/// # Errors
///
/// [`Refusal`] as [`Ledger::record`]; the next traffic shifter reads it back and records it.
pub async fn record_applied(
    ledger: &Ledger,
    instance: &str,
    id: &DeploymentId,
    held: &HeldRoutes,
) -> Result<(), Refusal> {
    let (role, holder) = (Role::TrafficShifter, instance.to_owned());
    let from = ledger.view().state().lease(role).holder;
    let reason = "a rollback confirms its weights, and no other process acts".to_owned();
    let take = Outcome::TakeLease(outcome::TakeLease { role, holder: holder.clone(), from, reason });
    ledger.record(take, role, instance, None).await?;
    let applied = outcome::WeightsApplied {
        generation: held.routes.generation,
        weights: held.routes.weights.clone(),
        listening: Some(held.listening),
    };
    let applied = Outcome::Deployment(outcome::DeploymentReport { deployment: id.clone(), outcome: applied.into() });
    let cause = cause_of(ledger.view().state(), &applied);
    let recorded = ledger.record(applied, role, instance, cause).await.map(drop);
    let release = Outcome::ReleaseLease(outcome::ReleaseLease { role, holder });
    ledger.record(release, role, instance, None).await?;
    recorded
}

/// Says that `stack` keeps the weights of `deployment` from being applied, why if that was seen just now, and what its users get
/// meanwhile.
async fn no_node(
    router: &dyn Router,
    id: &DeploymentId,
    deployment: &Deployment,
    stack: Option<StackId>,
    why: Option<String>,
) -> ApplyNowError {
    let Some(stack) = stack.and_then(|stack| deployment.stacks.get(&stack)) else {
        return ApplyNowError::Nothing(id.clone());
    };
    let held = match router.entry(id).await {
        Ok(entry) => entry,
        Err(error) => return error.into(),
    };
    let held = held.as_ref().and_then(Entry::held).map(|held| &held.routes);
    let share = |(stack, weight)| {
        let name = held.and_then(|held| held.backends.get(&stack)).map(|backends| backends.version.to_string());
        format!("{} {weight}", name.as_deref().unwrap_or("a gone stack"))
    };
    let served: Vec<String> = held.iter().flat_map(|held| held.weights.iter()).map(share).collect();
    let users = match served.is_empty() {
        true => "nobody is served".to_owned(),
        false => format!("users still get {}", served.join(", ")),
    };
    // Where the ledger's knowledge was found to be old, it is not known what else passes.
    let known = held.iter().filter(|_| why.is_none());
    let passing = known.flat_map(|held| held.weights.iter()).filter(|(stack, _)| deployment.passes(*stack));
    let passing = passing.max_by_key(|(_, weight)| *weight).map(|(stack, _)| stack);
    let next = passing.and_then(|passing| stranded::way_out(deployment, id, passing));
    let next = next.map(|next| format!("; `{next}` sends all of them to a version that passes")).unwrap_or_default();
    ApplyNowError::NoNode { version: stack.name(), why: why.unwrap_or_else(|| stack.trouble()), users, next }
}

#[cfg(test)]
mod tests;
