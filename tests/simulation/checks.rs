//! The checks: what must hold after every step, found out from the log's bytes and the cloud's truth alone.
//!
//! The numbers are those of the design's invariants.

mod landed;
mod left_out;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ledger::View;
use ledger::deployment::generation;
use ledger::execute::Refusal;
use ledger::view::Folded;
use schemas::break_glass::Intent;
use schemas::command::Command;
use schemas::judgement::Judged;
use schemas::traffic::Purpose;
use schemas::{
    Actor, ActorKind, CommandId, CommitId, DeploymentId, EffectId, Event, Fence, Hash, Offset, StackId, StreamVersion,
    Timestamp, Weight, Weights, judgement, release, rollout, stack, traffic,
};
use workers::nodes::Launch;
use workers::traffic::{Entry as Routed, Routes};

use crate::cloud::{Cloud, EndedBy};
use crate::network::Kept;
use crate::past::Outage;
use crate::people::{People, Reply, Request};
use crate::reference_model::{self, Counted, Entry, Phase, ReferenceModel};
use crate::world::{HOUR, MINUTE, Ms, time_at};

/// How long a node may run without an owner. Source: design, invariant 6.
const UNOWNED_MAX: Ms = 10 * MINUTE;

/// How long users may be sent to a stack that was taken down before the call reached the router. It is longer than the log and
/// all workers are away.
const UNKNOWING_MAX: Ms = 3 * MINUTE;

/// How long something may be overdue before it must be reported. Longer than any trouble lasts.
const SILENT_MAX: Ms = 10 * MINUTE;

/// An invariant that did not hold.
#[derive(Clone, Debug)]
pub struct Broken {
    pub invariant: u8,
    pub what: String,
}

/// Since when a router served which weights.
type Served = (Ms, BTreeMap<StackId, Weight>);

/// The checks and what they remember.
#[derive(Default)]
pub struct Checks {
    pub broken: Option<Broken>,
    pub model: ReferenceModel,
    /// What is on its way: by whom it was drafted, and whether it is a rollback.
    drafted: BTreeMap<CommitId, (Actor, bool)>,
    /// Rollbacks that were decided while no node passed of what users were on.
    left_the_dead: BTreeSet<CommitId>,
    /// The rollbacks without the ledger that were decided so.
    left_the_dead_without: BTreeSet<CommandId>,
    /// The fence each command was last decided under, and what it is.
    asked: BTreeMap<(CommandId, Hash), (Fence, Command)>,
    /// Commands that counted.
    counted: BTreeMap<CommandId, (CommitId, Offset)>,
    /// The records that somebody was told of.
    told: BTreeSet<Offset>,
    launched: BTreeMap<EffectId, Launch>,
    unowned_since: BTreeMap<EffectId, Ms>,
    ticked_at: Ms,
    /// Streams with events that this program does not know.
    alien: BTreeSet<String>,
    /// The highest generation each router entry ever held.
    held: BTreeMap<DeploymentId, StreamVersion>,
    /// What the router served of each deployment, from when on.
    pub(super) served: BTreeMap<DeploymentId, Vec<Served>>,
    /// When weights were last confirmed.
    applied_at: BTreeMap<DeploymentId, Ms>,
    /// Deployments that somebody turned by hand, until we write again.
    by_hand: BTreeMap<DeploymentId, Weights>,
    /// Rollbacks without the ledger: by whom each truly was.
    intents: BTreeMap<(CommandId, Hash), (Vec<Intent>, Actor)>,
    /// When the first server began to carry out a rollback without the ledger.
    begun: BTreeMap<CommandId, Ms>,
    /// Those that the router serves and the ledger does not have yet.
    unsettled: BTreeMap<DeploymentId, Intent>,
    /// When the router first took each generation.
    brought: BTreeMap<(DeploymentId, StreamVersion), Ms>,
    /// When somebody last decided on a deployment's weights, by the ledger's time.
    words: BTreeMap<DeploymentId, Timestamp>,
    pub commits: u64,
    pub voids: u64,
    pub rollouts: u64,
    pub rollbacks: u64,
    /// Steps that followed one that had been taken late.
    pub late_steps: u64,
    /// Bakes that came to their end.
    pub bakes: u64,
    /// Rollbacks without the ledger that were recorded later than they took effect.
    pub(super) outages: Vec<Outage>,
    /// Moments within an outage that were asked about afterwards.
    pub asked_about_past: u64,
}

impl Checks {
    /// Remembers the first thing that is wrong.
    pub fn fail(&mut self, invariant: u8, what: String) {
        self.broken.get_or_insert(Broken { invariant, what });
    }

    pub(super) fn must(&mut self, invariant: u8, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.fail(invariant, what());
        }
    }

    /// Somebody put a commit together.
    pub fn drafted(&mut self, commit: CommitId, by: Actor, rollback: bool) {
        self.drafted.insert(commit, (by, rollback));
    }

    /// Somebody who has run for `ran` decided these events.
    pub fn collects(&mut self, events: &[(schemas::Stream, Event)], ran: Ms) {
        for (_, event) in events {
            let Event::Retention(schemas::retention::Event::CollectionStarted(started)) = event else { continue };
            let by_age = started.reason == ledger::deployment::retention::BY_AGE;
            self.must(4, !by_age || ran >= 10 * MINUTE, || {
                format!("stack {} is taken down for its age by a process that has run for {ran} ms", started.stack)
            });
        }
    }

    /// 9: what was done without the ledger is put away once the ledger has it, and no sooner.
    pub fn put_away(&mut self, id: CommandId, recorded: bool) {
        self.must(9, recorded, || {
            format!("the rollback {id} without the ledger is put away, and the log does not have it")
        });
    }

    /// A rollback without the ledger moves users from stacks of which none passes.
    pub fn leaves_the_dead_without(&mut self, command: CommandId) {
        self.left_the_dead_without.insert(command);
    }

    /// Says whether a command was carried out without the ledger and moved users from stacks of which none passed.
    pub fn left_the_dead_without(&self, command: CommandId) -> bool {
        self.left_the_dead_without.contains(&command)
    }

    /// A rollback was decided while no node passed of what users were on: it may be the second.
    pub fn left_the_dead(&mut self, commit: CommitId) {
        self.left_the_dead.insert(commit);
    }

    /// A server is about to decide a command under a fence.
    pub fn asked(&mut self, id: CommandId, command: &Command, fence: Fence) {
        self.asked.insert((id, command.hash()), (fence, command.clone()));
    }

    /// A server carries a rollback out without the ledger, for `actor`.
    pub fn break_glass_begun(&mut self, intent: &Intent, actor: &Actor, now: Ms) {
        self.begun.entry(intent.command.id).or_insert(now);
        // Sent again, the same command may be carried out so at another server too.
        let known = self.intents.entry((intent.command.id, intent.command.hash));
        known.or_insert_with(|| (vec![], actor.clone())).0.push(intent.clone());
    }

    /// 6: a launch has an intent in the log, and the same effect is always the same launch.
    pub fn launching(&mut self, launch: &Launch, _now: Ms) {
        let effect = launch.effect;
        let intent = self.model.deployments.get(&launch.deployment).and_then(|of| of.launches.get(&effect));
        let meant = intent.is_some_and(|intent| {
            (intent.stack, intent.slot, intent.attempt, intent.port)
                == (launch.stack, launch.slot, launch.attempt, launch.port)
        });
        self.must(6, meant, || format!("{effect} is launched, and no intent in the log says so"));
        let first = self.launched.entry(effect).or_insert_with(|| launch.clone());
        let same = first == launch;
        self.must(6, same, || format!("{effect} is launched twice, with different parameters"));
    }

    /// 4: nothing that has traffic is taken down.
    pub fn stopping(&mut self, effect: EffectId, cloud: &Cloud, now: Ms) {
        let Some(node) = cloud.nodes.get(&effect).filter(|node| node.runs(now)) else { return };
        let (id, stack) = (&node.launch.deployment, node.launch.stack);
        let mut why = None;
        if let Some((_, of, _, found)) = self.model.owner(effect) {
            let weight = |weights: &Option<Weights>| weights.as_ref().map_or(Weight::ZERO, |w| w.of(stack));
            if found.phase != Phase::Collecting {
                why = Some(format!("no intent says so, its stack is {:?}", found.phase));
            } else if weight(&of.set) > Weight::ZERO || weight(&of.applied) > Weight::ZERO {
                why = Some("its stack has weight set or applied".to_owned());
            }
        }
        if cloud
            .router
            .entries
            .get(id)
            .and_then(Routed::held)
            .is_some_and(|held| gives_it_traffic(&held.routes, stack, effect))
        {
            why = Some("the router gives it traffic".to_owned());
        }
        if let Some(why) = why {
            self.fail(4, format!("node {effect} of {id} {} is taken down: {why}", node.launch.version));
        }
    }

    /// 7 and 10: the router holds what the log set, and never goes back.
    pub fn routed(&mut self, routes: &Routes, cloud: &Cloud, now: Ms) {
        let id = &routes.deployment;
        let Some(held) = cloud.router.entries.get(id).and_then(Routed::held) else { return };
        self.serves(&held.routes, now);
        let generation = held.routes.generation;
        self.brought.entry((id.clone(), generation)).or_insert(now);
        let before = self.held.get(id).copied().unwrap_or_default();
        self.must(7, generation >= before, || format!("{id}: a late call brings generation {generation} back"));
        self.held.insert(id.clone(), generation.max(before));
        let all = self.intents.values().flat_map(|(intents, _)| intents);
        let by_break_glass = all.into_iter().find(|of| of.deployment == *id && of.generation == generation);
        if let Some(intent) = by_break_glass.cloned() {
            let right = held.routes.weights.sole() == Some(intent.to);
            self.must(7, right, || format!("{id}: a rollback goes to {:?}", held.routes.weights));
            self.by_hand.insert(id.clone(), held.routes.weights.clone());
            self.unsettled.insert(id.clone(), intent);
            return;
        }
        self.check_unsettled(&held.routes);
        // What somebody turned by hand may be left as it is, with other nodes behind it.
        if self.by_hand.get(id) == Some(&held.routes.weights) {
            return;
        }
        self.by_hand.remove(id);
        let set = self.model.deployments.get(id).and_then(|of| of.set_at(generation::version(generation).0)).cloned();
        self.must(10, set.as_ref() == Some(&held.routes.weights), || {
            format!("{id}: the router serves {:?} of generation {generation}, set was {set:?}", held.routes.weights)
        });
    }

    /// 15: users are cut off only when the deployment was retired.
    pub fn unrouted(&mut self, id: &DeploymentId, cloud: &Cloud) {
        let Some(Routed::Retired { generation }) = cloud.router.entries.get(id) else { return };
        let before = self.held.get(id).copied().unwrap_or_default();
        self.must(7, *generation >= before, || format!("{id}: a late call brings generation {generation} back"));
        self.held.insert(id.clone(), (*generation).max(before));
        let meant =
            self.model.deployments.get(id).is_some_and(|of| of.set_at(generation::version(*generation).0).is_none());
        self.must(15, meant, || format!("{id} is served no more, and nobody retired it"));
    }

    /// Somebody else changed the router.
    pub fn turned_by_hand(&mut self, routes: &Routes, now: Ms) {
        self.by_hand.insert(routes.deployment.clone(), routes.weights.clone());
        self.serves(routes, now);
    }

    /// From now on the router serves so.
    fn serves(&mut self, routes: &Routes, now: Ms) {
        let served = self.served.entry(routes.deployment.clone()).or_default();
        served.push((now, routes.weights.iter().collect()));
    }

    /// 12: what is recorded as drift was truly served after the weights before it were confirmed.
    fn check_drift(&mut self, offset: Offset, id: &DeploymentId, seen: &BTreeMap<StackId, Weight>) {
        let since = self.applied_at.get(id).copied().unwrap_or_default();
        let served = self.served.get(id).map(Vec::as_slice).unwrap_or_default();
        let first = served.partition_point(|(at, _)| *at <= since).saturating_sub(1);
        let true_ = seen.is_empty() || served[first..].iter().any(|(_, weights)| weights == seen);
        self.must(12, true_, || format!("#{offset}: {id} is said to have served {seen:?}, and did not"));
    }

    /// 15: users are served by nodes that run. Excepted are nodes that the cloud ended, and for a short time nodes that were being
    /// stopped already when a late call, or a rollback without the ledger, reached the router: the collector had looked before.
    pub fn users(&mut self, cloud: &mut Cloud, now: Ms) {
        for held in cloud.router.entries.values().filter_map(Routed::held) {
            let id = &held.routes.deployment;
            let brought_at = self.brought.get(&(id.clone(), held.routes.generation)).copied();
            let brought_at = brought_at.filter(|at| now - at <= UNKNOWING_MAX);
            for (stack, _) in held.routes.weights.iter() {
                let nodes = held.routes.backends.get(&stack).into_iter().flat_map(|of| &of.nodes);
                let nodes: Vec<EffectId> = nodes.map(|node| node.effect).collect();
                let runs = |effect: &EffectId| cloud.nodes.get(effect).is_some_and(|found| found.runs(now));
                if nodes.iter().any(runs) {
                    continue;
                }
                let by_us = |effect: &EffectId| {
                    let ended = cloud.nodes.get(effect).and_then(|found| found.ended);
                    let under_way =
                        brought_at.zip(cloud.fenced.get(effect)).is_some_and(|(at, stopped)| at >= *stopped);
                    ended.is_some_and(|(_, by)| by == EndedBy::Us) && !under_way
                };
                if let Some(effect) = nodes.into_iter().find(by_us) {
                    let what = format!("users of {id} are sent to {stack}, whose node {effect} we took down");
                    return self.fail(15, what);
                }
            }
        }
    }

    /// What depends on time alone.
    pub fn tick(&mut self, cloud: &Cloud, people: &People, now: Ms) {
        self.check_orphans(cloud, now);
        self.check_silence(people, now);
    }

    /// 6: no node runs long without an owner.
    fn check_orphans(&mut self, cloud: &Cloud, now: Ms) {
        let running = cloud.nodes.iter().filter(|(_, node)| node.runs(now)).map(|(effect, _)| *effect);
        let unowned: Vec<EffectId> = running.filter(|effect| self.model.owner(*effect).is_none()).collect();
        self.unowned_since.retain(|effect, _| unowned.contains(effect));
        // A router that cannot be read may send users there, so such time does not count.
        if now < cloud.router.deaf_until {
            self.unowned_since.values_mut().for_each(|since| *since += now - self.ticked_at);
        }
        self.ticked_at = now;
        for effect in unowned {
            let since = *self.unowned_since.entry(effect).or_insert(now);
            // Users come first: as long as a router sends them there, it is left alone.
            let launch = &cloud.nodes[&effect].launch;
            let held = cloud.router.entries.get(&launch.deployment).and_then(Routed::held);
            if held.is_some_and(|held| gives_it_traffic(&held.routes, launch.stack, effect)) {
                continue;
            }
            let what = || format!("node {effect} runs without an owner for more than 10 minutes");
            self.must(6, now - since <= UNOWNED_MAX, what);
        }
    }

    /// 9: everything that was asked for ends, or says why not.
    fn check_silence(&mut self, people: &People, now: Ms) {
        let mut silent = None;
        for (id, of) in &self.model.deployments {
            for (stack, found) in &of.stacks {
                let since = age(found.requested_at, now);
                // One that a rollback waits for is tried for ever; the deployment says that it is waited for.
                let waited_for = of.awaited == Some(*stack);
                if found.phase == Phase::Starting && !waited_for && since > found.deadline_ms + SILENT_MAX {
                    silent = Some(format!("stack {stack} of {id} {} is starting and starting", found.version));
                }
            }
            if let Some(rollout) =
                of.rollout.as_ref().filter(|rollout| rollout.live && !rollout.paused && !rollout.held)
                && age(rollout.heard_at, now) > rollout.interval_ms + SILENT_MAX
            {
                silent = Some(format!("rollout {} of {id} is due and says nothing", rollout.id));
            }
        }
        let waits = |request: &&Request| request.end.is_none() && now - request.asked_at > HOUR / 2;
        if let Some(request) = people.requests.iter().find(waits) {
            silent = Some(format!("{} has no answer to {:?} for half an hour", request.actor, request.command));
        }
        if let Some(silent) = silent {
            self.fail(9, silent);
        }
    }

    /// 13: a server refuses nothing that it knows to be done.
    pub fn decided(&mut self, request: &Request, seen: usize, answer: &Reply) {
        let Err(refusal) = answer else { return };
        let done = self.counted.get(&request.id).is_some_and(|(_, offset)| (offset.0 as usize) < seen);
        let clear = !done
            || matches!(
                refusal,
                Refusal::OtherContent { .. } | Refusal::Indeterminate { .. } | Refusal::ClockAhead { .. }
            );
        self.must(13, clear, || format!("{:?} is refused and was carried out: {refusal}", request.command));
    }

    /// 7 and 13: an answer is true, says why not, and a rollback is held up by nothing.
    pub fn answered(&mut self, request: &Request, answer: &Reply) {
        let counted = self.counted.get(&request.id).copied();
        let command = &request.command;
        match answer {
            Ok(settled) => {
                let told = settled.commit.is_none() || counted.is_some();
                self.must(2, told, || format!("{command:?} is said to be done and is not in the log"));
                self.told.extend(counted.map(|(_, offset)| offset));
            }
            Err(refusal) => {
                self.must(13, refusal.to_string().len() > 10, || format!("{command:?} is refused without a word"));
            }
        }
        if let (Command::Rollback(_), Err(refusal)) = (command, answer) {
            let allowed = match refusal {
                Refusal::Rejected(rejection) => {
                    use ledger::Rejection::{AllRejected, NoTarget, Unknown};
                    matches!(rejection, NoTarget { .. } | AllRejected { .. } | Unknown { .. })
                }
                other => matches!(other, Refusal::OtherContent { .. }),
            };
            self.must(7, allowed, || format!("a rollback is held up: {refusal}"));
        }
    }

    /// 1: what somebody was told of is still there.
    pub fn kept(&mut self, log: &Kept) {
        let lost = self.told.iter().find(|offset| offset.0 >= log.end() as u64).copied();
        if let Some(offset) = lost {
            self.fail(1, format!("#{offset} was acknowledged and is lost"));
        }
    }

    /// 2: what the log kept is what was sent.
    pub fn reread(&mut self, log: &Kept) {
        if self.commits.is_multiple_of(8) {
            self.check_bytes(log);
        }
    }

    fn check_bytes(&mut self, log: &Kept) {
        let records = log.read();
        self.kept(log);
        self.must(2, records.len() == self.model.leaves.len(), || "the log has lost records".to_owned());
        let changed = std::iter::zip(&records, &self.model.leaves).position(|(bytes, leaf)| {
            reference_model::leaf_hash(bytes) != *leaf && !bytes.starts_with(b"{\"malformed\"")
        });
        if let Some(offset) = changed {
            self.fail(2, format!("#{offset} was changed after it was kept"));
        }
    }

    /// 2: the log gives the same answer to a reader who begins anew.
    pub fn refold(&mut self, log: &Kept) {
        self.check_bytes(log);
        let mut anew = View::default();
        for (offset, bytes) in log.read().iter().enumerate() {
            if let Err(halt) = anew.fold(Offset(offset as u64), bytes) {
                return self.fail(2, format!("a new reader halts: {halt}"));
            }
        }
        self.must(2, anew == *log.last(), || "a new reader comes to another state".to_owned());
        let (root, same) = (anew.tree().root(), log.last().tree().root());
        self.must(2, root == same, || "a new reader comes to another root".to_owned());
    }

    /// After an hour without trouble everything has come right.
    pub fn converged(&mut self, cloud: &Cloud, people: &People, now: Ms) {
        let mut wrong: Vec<(u8, String)> = Vec::new();
        for (id, of) in &self.model.deployments {
            let held = cloud.router.entries.get(id).and_then(Routed::held);
            match &of.set {
                Some(set) if !of.drifted_home => {
                    if held.is_none_or(|held| held.routes.weights != *set) {
                        wrong.push((
                            9,
                            format!("{id} has {set:?} set, the router serves {:?}", held.map(|h| &h.routes.weights)),
                        ));
                    }
                    if of.applied.as_ref() != Some(set) {
                        wrong.push((9, format!("{id}: the weights set were never confirmed")));
                    }
                }
                None if held.is_some() => wrong.push((9, format!("{id} is retired and still served"))),
                _ => {}
            }
            for held in held.into_iter().filter(|_| of.set.is_some()) {
                for (stack, _) in held.routes.weights.iter() {
                    let nodes = held.routes.backends.get(&stack).into_iter().flat_map(|of| &of.nodes);
                    let mut running =
                        nodes.map(|node| cloud.nodes.get(&node.effect).is_some_and(|node| node.runs(now)));
                    if !running.any(|runs| runs) {
                        wrong.push((15, format!("{id}: users are sent to {stack}, of which nothing runs")));
                    }
                }
            }
            let home = held.filter(|_| of.drifted_home).map(|held| &held.routes.weights);
            wrong.extend(self.stacks_wrong(id, of, home, now));
            let live = of.rollout.as_ref().is_some_and(|rollout| rollout.live);
            let free = of.set.as_ref().is_none_or(|set| set.sole().is_some()) && !live && !of.drifted_home;
            let free = free && of.holds.is_empty();
            if let Some(stack) = of.waiting.filter(|_| free) {
                wrong.push((9, format!("the rollout of {stack} of {id} waits for nothing")));
            }
            if let Some(rollout) = of.rollout.as_ref().filter(|rollout| rollout.live)
                && !rollout.paused
                && !rollout.held
            {
                wrong.push((9, format!("rollout {} of {id} goes on and on", rollout.id)));
            }
        }
        for (effect, node) in &cloud.nodes {
            let owned = self.model.owner(*effect).is_some();
            if !owned && node.runs(now) {
                wrong.push((6, format!("node {effect} runs and belongs to nobody")));
            } else if !owned && node.removed_at.is_none() && node.ended.is_none_or(|(at, _)| now - at > UNOWNED_MAX) {
                wrong.push((6, format!("node {effect} left something behind that nobody cleaned up")));
            }
        }
        if let Some(request) = people.requests.iter().find(|request| request.end.is_none()) {
            wrong.push((9, format!("{:?} was never answered", request.command)));
        }
        if let Some((invariant, what)) = wrong.into_iter().next() {
            self.fail(invariant, format!("after an hour without trouble: {what}"));
        }
    }

    /// `home` is what the router serves where somebody sent users back without the ledger: that is left alone until a person explains it.
    fn stacks_wrong(
        &self,
        id: &DeploymentId,
        of: &reference_model::Deployment,
        home: Option<&Weights>,
        now: Ms,
    ) -> Vec<(u8, String)> {
        let wrong = |stack: &StackId, found: &reference_model::Stack| {
            let what = match found.phase {
                Phase::Starting => "is still starting".to_owned(),
                // What is collected by its age may have become old enough only now.
                Phase::Collecting if found.collecting_since.is_some_and(|since| age(since, now) < UNOWNED_MAX) => {
                    return None;
                }
                // Nothing is stopped that users are on.
                Phase::Collecting if home.is_some_and(|home| home.of(*stack) > Weight::ZERO) => return None,
                Phase::Collecting => "is still being taken down".to_owned(),
                Phase::Failed => "failed and is still there".to_owned(),
                Phase::Ready | Phase::Unhealthy if of.retired => "is still there after retiring".to_owned(),
                Phase::Ready if found.ready.len() < usize::from(found.wanted) => {
                    format!("has {} of {} nodes ready", found.ready.len(), found.wanted)
                }
                Phase::Unhealthy => "is still unhealthy".to_owned(),
                Phase::Ready => return None,
            };
            Some((9, format!("stack {stack} of {id} {} {what}", found.version)))
        };
        of.stacks.iter().filter_map(|(stack, found)| wrong(stack, found)).collect()
    }
}

fn gives_it_traffic(routes: &Routes, stack: StackId, effect: EffectId) -> bool {
    routes.weights.of(stack) > Weight::ZERO
        && routes.backends.get(&stack).is_some_and(|of| of.nodes.iter().any(|node| node.effect == effect))
}

fn age(since: schemas::Timestamp, now: Ms) -> Ms {
    Ms::try_from(time_at(now).duration_since(since).as_millis()).unwrap_or(0)
}
