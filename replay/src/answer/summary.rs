//! Summaries: what an event says, in a line of plain words, with versions where the deployment of then knows them.

use std::sync::Arc;

use ledger::Deployment;
use ledger::service::Service;
use schemas::declaration;
use schemas::hold::Cause;
use schemas::judgement::Verdict;
use schemas::rollout::Plan;
use schemas::service::Definition;
use schemas::text::{because, count};
use schemas::traffic::Purpose;
use schemas::{
    EffectId, Event, RolloutId, StackId, StackName, Stream, Weight, Weights, genesis, hold, judgement, lease, node,
    release, retention, rollout, service, stack, traffic,
};

/// What a commit's summary needs besides it: what ids stand for, and what was declared before it.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The deployment before the commit.
    pub before: Option<Arc<Deployment>>,
    /// The deployment after it.
    pub after: Option<Arc<Deployment>>,
    /// The commit's service before it, if it is about a service.
    pub service: Option<Arc<Service>>,
    /// Stacks that the commit itself asks for, where no deployment after it is known.
    pub asked: Vec<(StackId, StackName)>,
}

impl Names {
    fn deployments(&self) -> impl Iterator<Item = &Deployment> {
        self.after.iter().chain(&self.before).map(AsRef::as_ref)
    }

    fn stack(&self, stack: StackId) -> String {
        let asked = || self.asked.iter().find(|(id, _)| *id == stack).map(|(_, name)| name.clone());
        let name = self.deployments().find_map(|deployment| deployment.remembered_name(stack)).or_else(asked);
        name.map_or_else(|| format!("stack {stack}"), |name| name.to_string())
    }

    fn node(&self, effect: EffectId) -> String {
        let node = self.deployments().find_map(|deployment| {
            let slot = |stack: &ledger::deployment::Stack| {
                stack.nodes.iter().find(|(_, node)| node.effect == effect).map(|(slot, _)| *slot)
            };
            deployment.stacks.values().find_map(|stack| slot(stack).map(|slot| (slot, stack)))
        });
        match node {
            Some((slot, stack)) => format!("node {} of {}", slot + 1, stack.name()),
            None => format!("node {effect}"),
        }
    }

    /// Says whether a stack is yet to be ready: it is starting, or is asked for only now.
    fn is_starting(&self, stack: StackId) -> bool {
        let found = self.deployments().find_map(|deployment| deployment.stacks.get(&stack));
        let asked = || self.asked.iter().any(|(id, _)| *id == stack);
        found.map_or_else(asked, |found| found.phase == ledger::deployment::Phase::Starting)
    }

    /// Returns the canary and the baseline of a rollout.
    fn rollout(&self, id: RolloutId) -> Option<(String, String)> {
        let rollouts = self.deployments().filter_map(|deployment| deployment.rollout.as_ref());
        let rollout = rollouts.into_iter().find(|rollout| rollout.id == id)?;
        Some((self.stack(rollout.canary), self.stack(rollout.baseline)))
    }

    fn canary(&self, id: RolloutId) -> String {
        self.rollout(id).map_or_else(|| format!("the canary of rollout {id}"), |(canary, _)| canary)
    }

    fn rolling(&self, id: RolloutId) -> String {
        match self.rollout(id) {
            Some((canary, baseline)) => format!("the rollout {baseline} -> {canary}"),
            None => format!("rollout {id}"),
        }
    }

    fn weights(&self, weights: &Weights) -> String {
        self.shares(weights.iter())
    }

    fn shares(&self, shares: impl Iterator<Item = (StackId, Weight)>) -> String {
        let mut shares: Vec<_> = shares.collect();
        shares.sort_by_key(|(stack, weight)| (std::cmp::Reverse(*weight), *stack));
        let shares: Vec<String> =
            shares.into_iter().map(|(stack, weight)| format!("{} {weight}", self.stack(stack))).collect();
        if shares.is_empty() { "nothing".to_owned() } else { shares.join(", ") }
    }
}

/// Returns the stacks that events ask for, by their names.
pub fn asked_for<'e>(events: impl Iterator<Item = &'e Event>) -> Vec<(StackId, StackName)> {
    let requested = |event: &Event| match event {
        Event::Stack(stack::Event::Requested(requested)) => {
            Some((requested.stack, StackName::new(requested.version.clone(), requested.number)))
        }
        _ => None,
    };
    events.filter_map(requested).collect()
}

/// Returns what an event says, in a line.
pub fn summary(stream: &Stream, event: &Event, names: &Names) -> String {
    match event {
        Event::Ledger(genesis::Event::Created(created)) => format!("the ledger {} was made", created.ledger),
        Event::Ledger(genesis::Event::Sealed(sealed)) => {
            format!("the ledger was sealed, it goes on at {}", sealed.target)
        }
        Event::Service(service::Event::Applied(applied)) => declared(&subject(stream), &applied.definition, names),
        Event::Release(release::Event::Recorded(recorded)) => {
            let hash = recorded.artifact.sha256.to_string();
            let source = recorded.source.commit.as_ref().map(|commit| format!(", built from {commit}"));
            let source = source.unwrap_or_default();
            format!("release {} was recorded (artifact {}{source})", recorded.version, &hash[..12])
        }
        Event::Stack(event) => of_stack(event, names),
        Event::Node(event) => of_node(event, names),
        Event::Traffic(event) => of_traffic(event, names),
        Event::Rollout(event) => of_rollout(event, names),
        Event::Judgement(event) => of_judgement(event, names),
        Event::Hold(event) => of_hold(event),
        Event::Retention(event) => of_retention(event, names),
        Event::Lease(lease::Event::Taken(taken)) => {
            format!("{} acts as {}: {}", taken.holder, taken.role, taken.reason)
        }
        Event::Lease(lease::Event::Released(released)) => {
            format!("{} no longer acts as {}", released.holder, released.role)
        }
    }
}

/// What a stream is about, as people call it.
fn subject(stream: &Stream) -> String {
    match stream {
        Stream::Ledger => "the ledger".to_owned(),
        Stream::Service(name) => name.to_string(),
        Stream::Deployment(id) | Stream::Judgement(id) => id.to_string(),
        Stream::Worker(role) => role.to_string(),
    }
}

fn declared(service: &str, definition: &Definition, names: &Names) -> String {
    match names.service.as_ref().and_then(|before| before.definition.as_ref()) {
        None => format!("{service} was declared, owned by {}", definition.owner),
        Some(before) => {
            format!("the declaration of {service} changed: {}", declaration::changes(before, definition).join(", "))
        }
    }
}

fn of_judgement(event: &judgement::Event, names: &Names) -> String {
    match event {
        judgement::Event::Begun(begun) => format!("{} is judged from here on", names.rolling(begun.rollout)),
        judgement::Event::Counted(counted) => {
            let ms: u64 = counted.ticks.iter().map(|tick| u64::from(tick.ms)).sum();
            let rolling = names.rolling(counted.rollout);
            let ticks = count(counted.ticks.len() as u64, "tick", "ticks");
            format!("{} s of {rolling} were counted, in {ticks}", ms.div_ceil(1_000))
        }
        judgement::Event::Judged(judged) => {
            let verdict = match judged.verdict {
                Verdict::NotWorse => "passed",
                Verdict::Worse => "was judged worse",
                Verdict::Inconclusive => "could not be judged",
            };
            format!("{} {verdict} at step {}: {}", names.canary(judged.rollout), judged.step + 1, judged.reason)
        }
    }
}

fn of_stack(event: &stack::Event, names: &Names) -> String {
    match event {
        stack::Event::Requested(requested) => {
            let nodes = count(requested.capacity.nodes.into(), "node", "nodes");
            let roll = requested.then_roll.as_ref().map(|plan| format!(", to be rolled out {}", planned(plan)));
            let roll = roll.unwrap_or_default();
            match StackName::new(requested.version.clone(), requested.number) {
                first if first.is_first() => format!("a stack of {first} was asked for, {nodes}{roll}"),
                name => format!("another stack of {}, {name}, was asked for, {nodes}{roll}", name.version),
            }
        }
        stack::Event::Ready(ready) => format!("{} is ready", names.stack(ready.stack)),
        stack::Event::Failed(failed) => {
            let was_ready = names.before.iter().filter_map(|before| before.stacks.get(&failed.stack)).any(was_ready);
            let what = if was_ready { "was given up" } else { "did not start" };
            format!("{} {what}: {}", names.stack(failed.stack), failed.reason)
        }
        stack::Event::Unhealthy(unhealthy) => {
            let ready = match unhealthy.ready {
                0 => "none of its nodes is ready".to_owned(),
                1 => "1 of its nodes is ready".to_owned(),
                ready => format!("{ready} of its nodes are ready"),
            };
            format!("{} became unhealthy, {ready}", names.stack(unhealthy.stack))
        }
        stack::Event::Recovered(recovered) => format!("{} is healthy again", names.stack(recovered.stack)),
        stack::Event::Dismissed(dismissed) => {
            format!("the failure of {} was dismissed", names.stack(dismissed.stack))
        }
    }
}

fn was_ready(stack: &ledger::deployment::Stack) -> bool {
    matches!(stack.phase, ledger::deployment::Phase::Ready | ledger::deployment::Phase::Unhealthy)
}

fn of_node(event: &node::Event, names: &Names) -> String {
    match event {
        node::Event::LaunchStarted(started) => {
            let again = match started.attempt {
                0 => String::new(),
                attempt => format!(", attempt {}", attempt + 1),
            };
            format!("node {} of {} is being launched{again}", started.slot + 1, names.stack(started.stack))
        }
        node::Event::Launched(launched) => {
            format!("{} runs at {} ({})", names.node(launched.effect), launched.address, launched.instance)
        }
        node::Event::LaunchFailed(failed) => {
            format!("{} could not be launched: {}", names.node(failed.effect), failed.reason)
        }
        node::Event::Ready(ready) => format!("{} is ready", names.node(ready.effect)),
        node::Event::Unhealthy(unhealthy) => {
            format!("{} fails its check: {}", names.node(unhealthy.effect), unhealthy.reason)
        }
        node::Event::Failing(failing) => {
            format!("{} does not pass its check yet: {}", names.node(failing.effect), failing.reason)
        }
        node::Event::Lost(lost) => format!("{} is gone: {}", names.node(lost.effect), lost.reason),
        node::Event::Stopped(stopped) => format!("{} was stopped", names.node(stopped.effect)),
    }
}

fn of_traffic(event: &traffic::Event, names: &Names) -> String {
    match event {
        traffic::Event::WeightsSet(set) => {
            let why = match &set.purpose {
                Purpose::Asked => String::new(),
                Purpose::Step { step, .. } => format!(" (step {})", step + 1),
                Purpose::Promotion { .. } => " (promoted)".to_owned(),
                Purpose::Abort { .. } => " (aborted)".to_owned(),
                Purpose::Rollback => " (rollback)".to_owned(),
            };
            format!("traffic was set to {}{why}", names.weights(&set.weights))
        }
        traffic::Event::WeightsApplied(applied) => format!("the router serves {}", names.weights(&applied.weights)),
        traffic::Event::DriftSeen(drift) => {
            let seen = names.shares(drift.seen.iter().map(|(stack, weight)| (*stack, *weight)));
            let towards = if drift.towards_target { ", all on the rollback target; it is left as it is" } else { "" };
            format!("the router serves {seen}, which nobody asked for{towards}")
        }
        traffic::Event::RolledBack(back) => {
            let from: Vec<String> = back.from.iter().map(|stack| names.stack(*stack)).collect();
            let over: Vec<String> = back.passed_over.iter().map(|stack| names.stack(*stack)).collect();
            let over = if over.is_empty() { String::new() } else { format!(", past {} (unhealthy)", over.join(", ")) };
            let from = if from.is_empty() { String::new() } else { format!(" from {}", from.join(", ")) };
            let (to, because) = (names.stack(back.to), because(&back.reason));
            match names.is_starting(back.to) {
                true => format!("rolls back{from} to {to}{over} once that is ready{because}"),
                false => format!("rolled back{from} to {to}{over}{because}"),
            }
        }
        traffic::Event::Rejected(left) => format!("{} is rejected: {}", names.stack(left.stack), left.reason),
        traffic::Event::GlassBroken(broken) => {
            let to = names.stack(broken.to);
            let overtaken = broken.overtaken.as_ref().map(|why| format!("; it changes nothing: {why}"));
            let overtaken = overtaken.unwrap_or_default();
            let silent = "while the ledger gave no verdict (break-glass)";
            let told = match (broken.moved, broken.asked_at) {
                // Older programs recorded no more.
                (Some(true), _) | (None, None) => format!("all traffic was sent back to {to} {silent}"),
                (Some(false), _) => {
                    format!("a rollback to {to} was asked for {silent}; users had not been moved when it was recorded")
                }
                (None, Some(_)) => format!(
                    "a rollback to {to} was asked for {silent}; it was not noted whether users were moved before it was recorded"
                ),
            };
            format!("{told}{overtaken}")
        }
        traffic::Event::Retired(retired) => format!("the deployment was retired{}", because(&retired.reason)),
    }
}

fn of_rollout(event: &rollout::Event, names: &Names) -> String {
    match event {
        rollout::Event::Requested(requested) => {
            format!("a rollout of {} was asked for, {}", names.stack(requested.stack), planned(&requested.plan))
        }
        rollout::Event::RequestDropped(dropped) => {
            format!("the rollout of {} that waited was dropped: {}", names.stack(dropped.stack), dropped.reason)
        }
        rollout::Event::Started(started) => {
            let (from, to) = (names.stack(started.baseline), names.stack(started.canary));
            format!("a rollout {from} -> {to} began, {}", planned(&started.plan))
        }
        rollout::Event::StepTaken(taken) => {
            format!("{} got {} (step {})", names.canary(taken.rollout), taken.weight, taken.step + 1)
        }
        rollout::Event::Held(held) => {
            let stays = held.step.map_or("has taken no step".to_owned(), |step| format!("stays at step {}", step + 1));
            format!("{} {stays}: {}", names.rolling(held.rollout), held.reason)
        }
        rollout::Event::DrivenAgain(again) => {
            let (rolling, time) = (names.rolling(again.rollout), duration(again.undriven_ms / 1_000 * 1_000));
            format!("{rolling} is driven again; for up to {time} nobody did")
        }
        rollout::Event::Paused(paused) => {
            format!("{} was paused{}", names.rolling(paused.rollout), because(&paused.reason))
        }
        rollout::Event::Resumed(resumed) => format!("{} goes on", names.rolling(resumed.rollout)),
        rollout::Event::Completed(completed) => {
            format!(
                "{} is complete, {} has all traffic",
                names.rolling(completed.rollout),
                names.canary(completed.rollout)
            )
        }
        rollout::Event::CameBack(back) => {
            format!("{} came back{}", names.canary(back.rollout), because(&back.reason))
        }
        rollout::Event::Aborted(aborted) => {
            format!("{} was aborted{}", names.rolling(aborted.rollout), because(&aborted.reason))
        }
        rollout::Event::Promoted(promoted) => {
            // Older programs recorded it so.
            let reason = promoted.reason.strip_prefix("asked for, ").unwrap_or(&promoted.reason);
            format!("{} was promoted{}", names.canary(promoted.rollout), because(reason))
        }
        rollout::Event::Superseded(superseded) => {
            format!("{} was superseded ({})", names.rolling(superseded.rollout), superseded.rule)
        }
    }
}

fn of_hold(event: &hold::Event) -> String {
    match event {
        hold::Event::HoldSet(hold::HoldSet { reason, until, .. }) => {
            let until = until.map(|until| format!(" until {until:.0}")).unwrap_or_default();
            format!("the deployment was put on hold{until}: {reason}")
        }
        hold::Event::HoldLifted(lifted) => {
            let which = match lifted.cause {
                Cause::Asked => "the hold that was asked for",
                Cause::Rollback => "the hold of a rollback",
            };
            format!("{which} was lifted{}", because(&lifted.reason))
        }
    }
}

fn of_retention(event: &retention::Event, names: &Names) -> String {
    match event {
        retention::Event::CollectionStarted(started) => {
            format!("{} is being taken down: {}", names.stack(started.stack), started.reason)
        }
        retention::Event::Collected(collected) => format!("{} was taken down", names.stack(collected.stack)),
    }
}

/// A plan in words: `in 7 steps over 24 h`.
fn planned(plan: &Plan) -> String {
    match plan.steps.len() {
        0 | 1 => "at once".to_owned(),
        steps if plan.bake_ms > 0 => {
            let (over, bake) = (duration(plan.duration_ms), duration(plan.bake_ms));
            format!("in {steps} steps over {over}, then a bake of {bake}")
        }
        steps => format!("in {steps} steps over {}", duration(plan.duration_ms)),
    }
}

fn duration(ms: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    // A day is written in hours, as the talk does: `24 hours`.
    let unit =
        UNITS.iter().find(|(unit, name)| ms.is_multiple_of(*unit) && (ms / unit > 1 || *name != "d") && ms >= *unit);
    unit.map_or_else(|| format!("{ms} ms"), |(unit, name)| format!("{} {name}", ms / unit))
}
