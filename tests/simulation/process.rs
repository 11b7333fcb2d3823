//! Processes: workers and API servers, each with its own view of the log, and what happens to them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use ledger::execute::{Asked, Refusal};
use ledger::{Rejection, View};
use schemas::break_glass::Intent;
use schemas::outcome::{self, Outcome};
use schemas::{CommandId, DeploymentId, Role, Timestamp};
use workers::effect::{Done, Effect, EffectKey};
use workers::facts::Facts;
use workers::poll::{Pace, PollResult, PollSchedule};
use workers::reactor::Reactor;
use workers::runtime::{IDLE_MAX, IDLE_MIN, cause_of};

use crate::clocks::Clock;
use crate::network::{Begun, Owner, Settled, Settling};
use crate::people::Server;
use crate::tally::Point;
use crate::world::{Event, MINUTE, Ms, SECOND, World};

/// One process, from its start to its end. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pid(pub u64);

/// Where a process runs; after its end the next is started there.
pub struct Host {
    pub name: &'static str,
    /// The worker's role; an api node without.
    pub role: Option<Role>,
    /// It is there from the beginning.
    pub is_first: bool,
    pub process: Option<Pid>,
    /// What was done here without the ledger, until the ledger has it.
    pub intents: BTreeMap<CommandId, Pending>,
    /// How far its clock was set ahead, in milliseconds.
    pub set: i64,
    started: u32,
}

/// What was done without the ledger.
pub struct Pending {
    pub intent: Intent,
    /// Whether it is on disk; otherwise it is gone with the process.
    pub written: bool,
}

impl Host {
    /// Returns every host: two for each role and two servers.
    pub fn all() -> Vec<Self> {
        let host = |name, role, is_first| Self {
            name,
            role,
            is_first,
            process: None,
            intents: BTreeMap::new(),
            set: 0,
            started: 0,
        };
        vec![
            host("server-x", None, true),
            host("server-y", None, true),
            host("provisioner-a", Some(Role::Provisioner), true),
            host("provisioner-b", Some(Role::Provisioner), false),
            host("shifter-a", Some(Role::TrafficShifter), true),
            host("shifter-b", Some(Role::TrafficShifter), false),
            host("collector-a", Some(Role::Collector), true),
            host("collector-b", Some(Role::Collector), false),
        ]
    }
}

/// A process.
pub struct Process {
    pub pid: Pid,
    pub host: usize,
    pub name: String,
    /// How much of the log it has folded.
    pub seen: usize,
    /// It hears nothing of the log until then.
    pub cut_until: Ms,
    /// It does nothing at all until then: it was stopped, or its machine slept.
    pub still_until: Ms,
    /// Since when it stood still, if it did and has not acted since.
    pub stood_still: Option<Ms>,
    /// Its wall clock.
    pub clock: Clock,
    pub what: What,
}

/// What a process does.
pub enum What {
    Worker(Box<Worker>),
    Server(Server),
}

/// A worker: the runtime's loop in small, around the same `react`, facts and looks.
pub struct Worker {
    role: Role,
    born: Ms,
    facts: Facts,
    schedule: PollSchedule,
    reactor: Reactor,
    stage: Stage,
    inbox: Vec<News>,
    queued: BTreeMap<DeploymentId, VecDeque<Outcome>>,
    open: BTreeSet<DeploymentId>,
    changed: bool,
    /// When its last reaction and its polls want to be woken.
    plan: (Option<Timestamp>, Duration),
    token: u64,
    /// Effects whose replies came, and that no append followed yet.
    replied: Vec<&'static str>,
    /// How often it reacted at this moment.
    reacted: (Ms, u32),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Taking,
    Following,
    Recording,
}

/// Something a worker hears of.
pub enum News {
    Done(EffectKey, &'static str, Done),
    Seen(PollResult),
}

/// How often a worker may react at one moment before it counts as running hot.
const REACTIONS_MAX: u32 = 200;

/// For how long a worker gathers news before it reacts.
const GATHER: Ms = 60;

/// Slower than the product's, so that a virtual day is short.
fn pace() -> Pace {
    let s = Duration::from_secs;
    Pace { nodes: s(5), starting: s(2), judging: s(3), moving: s(3), quiet: s(10), unused: s(8) }
}

impl Process {
    pub fn wall(&self, now: Ms) -> Timestamp {
        self.clock.wall(now)
    }

    /// Returns when it began; a server does nothing for which that matters.
    pub fn born(&self) -> Ms {
        match &self.what {
            What::Worker(worker) => worker.born,
            What::Server(_) => 0,
        }
    }

    pub fn worker(&mut self) -> Option<&mut Worker> {
        match &mut self.what {
            What::Worker(worker) => Some(worker),
            What::Server(_) => None,
        }
    }
}

impl World {
    /// Starts a host's process. It reads the log to its end first.
    pub fn start(&mut self, host: usize) {
        if self.hosts[host].process.is_some() {
            return;
        }
        let pid = Pid(self.number());
        self.hosts[host].process = Some(pid);
        self.hosts[host].started += 1;
        let Host { name, role, started, .. } = self.hosts[host];
        let what = match role {
            None => What::Server(Server::default()),
            Some(role) => What::Worker(Box::new(Worker {
                role,
                born: self.now,
                facts: Facts::default(),
                schedule: PollSchedule::new(role, pace()),
                reactor: Reactor::new(role),
                stage: Stage::Taking,
                inbox: vec![],
                queued: BTreeMap::new(),
                open: BTreeSet::new(),
                changed: false,
                plan: (None, Duration::ZERO),
                token: 0,
                replied: vec![],
                reacted: (0, 0),
            })),
        };
        let small = i64::try_from(self.dice.range(0, 2_000)).expect("short");
        let clock = Clock::new(self.now, small, self.set_at_start(host));
        let (name, seen) = (format!("{name}-{started}"), self.log.end());
        self.checks.reread(&self.log);
        self.trace.add(self.now, format_args!("{name} starts"));
        self.processes.insert(
            pid,
            Process { pid, host, name, seen, cut_until: 0, still_until: 0, stood_still: None, clock, what },
        );
        if role.is_some() {
            self.take_lease(pid);
        }
    }

    fn take_lease(&mut self, pid: Pid) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let (holder, view) = (process.name.clone(), self.log.view(process.seen));
        let Some(role) = process.worker().map(|worker| worker.role) else { return };
        let from = view.state().lease(role).holder;
        let outcome =
            Outcome::TakeLease(outcome::TakeLease { role, holder: holder.clone(), from, reason: "started".to_owned() });
        let asked = Asked::outcome(outcome, role, &holder, None);
        let settling = Settling::new(process, Owner::Lease, asked, true, false);
        match self.begin(settling, &view) {
            Begun::Pending | Begun::Crashed => {}
            Begun::Ended(result) => self.lease_settled(pid, result.is_ok()),
        }
    }

    /// A process learns what became of its takeover.
    pub fn lease_settled(&mut self, pid: Pid, taken: bool) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        if !taken {
            self.end(pid, "could not take its lease");
            return;
        }
        if let Some(worker) = process.worker() {
            worker.stage = Stage::Following;
        }
        self.run(pid);
    }

    /// Kills a process: what it knew is gone, what it sent goes on.
    pub fn crash(&mut self, pid: Pid, why: &str) {
        if self.end(pid, why) {
            self.tally.crashes += 1;
            self.survive();
        }
    }

    /// Ends a process; the host starts another some time later.
    pub fn end(&mut self, pid: Pid, why: &str) -> bool {
        let Some(process) = self.processes.remove(&pid) else { return false };
        self.trace.add(self.now, format_args!("{} ends: {why}", process.name));
        self.ended(process.host);
        true
    }

    fn ended(&mut self, host: usize) {
        let Some(pid) = self.hosts[host].process.take() else { return };
        let lost: Vec<CommandId> =
            self.hosts[host].intents.iter().filter(|(_, kept)| !kept.written).map(|(id, _)| *id).collect();
        for id in lost {
            self.hosts[host].intents.remove(&id);
            self.trace.add(self.now, format_args!("rollback {id} without the ledger is forgotten"));
        }
        self.settlings.retain(|_, settling| settling.pid != pid);
        let role = self.hosts[host].role;
        let other = role.is_some() && self.hosts.iter().any(|other| other.role == role && other.process.is_some());
        let after = if other { self.dice.range(MINUTE, 12 * MINUTE) } else { self.dice.range(200, 20 * SECOND) };
        self.after(after, Event::Start(host));
    }

    pub fn wake(&mut self, pid: Pid, token: u64) {
        let current = self.processes.get_mut(&pid).and_then(Process::worker).is_some_and(|w| w.token == token);
        if current {
            self.run(pid);
        }
    }

    pub fn hear(&mut self, pid: Pid, news: News) {
        let token = self.number();
        let Some(worker) = self.processes.get_mut(&pid).and_then(Process::worker) else { return };
        worker.inbox.push(news);
        // What comes at nearly the same time is taken in at once, as the runtime does that was busy meanwhile.
        if worker.inbox.len() == 1 && worker.stage == Stage::Following {
            worker.token = token;
            self.after(GATHER, Event::Wake(pid, token));
        }
    }

    /// A reader has folded the log up to `next`.
    pub fn folded(&mut self, pid: Pid, next: usize) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        if process.seen >= next {
            return;
        }
        process.seen = next;
        self.judge_settlings(pid);
        self.run(pid);
    }

    /// Lets a worker go round its loop, unless it is waiting for a commit.
    pub fn run(&mut self, pid: Pid) {
        let Some(mut process) = self.processes.remove(&pid) else { return };
        let host = process.host;
        match self.follow(&mut process) {
            Ok(()) => drop(self.processes.insert(pid, process)),
            Err(Gone::Ended(why)) => {
                self.trace.add(self.now, format_args!("{} ends: {why}", process.name));
                self.ended(host);
            }
            Err(Gone::Crashed(why)) => {
                self.trace.add(self.now, format_args!("{} is killed: {why}", process.name));
                self.tally.crashes += 1;
                self.ended(host);
            }
        }
    }

    fn follow(&mut self, process: &mut Process) -> Result<(), Gone> {
        self.go_on(process);
        loop {
            let (seen, clock, wall) = (process.seen, process.clock, process.wall(self.now));
            let (pid, name) = (process.pid, process.name.clone());
            let Some(worker) = process.worker().filter(|worker| worker.stage == Stage::Following) else {
                return Ok(());
            };
            let view = self.log.view(seen);
            let state = view.state();
            worker.facts.steady = Duration::from_millis(self.now - worker.born);
            worker.facts.wall = wall.max(view.time());
            worker.facts.clock = clock.trouble(self.now, &view);
            for news in std::mem::take(&mut worker.inbox) {
                worker.take_in(&view, news);
            }
            let role = worker.role;
            if state.lease(role).holder.as_ref() != Some(&name) {
                return Err(Gone::Ended("another instance took over"));
            }
            let Some(worker) = process.worker() else { return Ok(()) };
            let (polls, next_poll) = worker.schedule.begin(state, &worker.facts);
            let now = wall.max(view.time());
            (self.rules.notice)(&mut worker.facts.touched);
            let reaction = match (self.rules.react)(role) {
                Some(react) => react(state, &worker.facts, now),
                None => {
                    let reaction = worker.reactor.react(state, &mut worker.facts, now);
                    self.checks.left_out(&name, &worker.reactor, state, &worker.facts, now);
                    reaction
                }
            };
            self.tally.reactions += 1;
            worker.reacted =
                if worker.reacted.0 == self.now { (self.now, worker.reacted.1 + 1) } else { (self.now, 1) };
            if worker.reacted.1 > REACTIONS_MAX {
                self.checks.fail(9, format!("{name} runs hot at {now}: {:?}", reaction.outcomes));
            }
            for poll in polls {
                let after = self.dice.range(1, 200);
                self.after(after, Event::Look(pid, Box::new(poll)));
            }
            let doomed = self.dice.range(0, reaction.effects.len() as u64);
            for (n, effect) in (0..).zip(reaction.effects) {
                self.start_effect(process, effect, n == doomed)?;
            }
            let Some(worker) = process.worker() else { return Ok(()) };
            let next_poll = reaction.wake_steady_at.map_or(next_poll, |at| at.min(next_poll));
            worker.plan = (reaction.wake_at, next_poll);
            if reaction.outcomes.is_empty() {
                self.sleep(process, now);
                return Ok(());
            }
            worker.stage = Stage::Recording;
            worker.changed = false;
            for outcome in reaction.outcomes {
                let Outcome::Deployment(outcome::DeploymentReport { deployment, .. }) = &outcome else { continue };
                worker.queued.entry(deployment.clone()).or_default().push_back(outcome);
            }
            self.record(process, &view)?;
            let Some(worker) = process.worker() else { return Ok(()) };
            if worker.stage == Stage::Recording {
                return Ok(());
            }
            if !worker.changed {
                self.sleep(process, now);
                return Ok(());
            }
        }
    }

    /// Has a worker that stood still read what was written meanwhile, as the runtime does.
    fn go_on(&mut self, process: &mut Process) {
        let Some(since) = process.stood_still.take() else { return };
        if process.cut_until <= self.now && self.silent_until <= self.now {
            process.seen = self.log.end();
        }
        let (wall, still) = (process.wall(self.now), Duration::from_millis(self.now - since));
        let time = self.log.view(process.seen).time();
        if let Some(worker) = process.worker().filter(|_| still > IDLE_MAX * 2) {
            worker.facts.woke_at = Some(wall.max(time));
        }
    }

    fn sleep(&mut self, process: &mut Process, now: Timestamp) {
        let token = self.number();
        let Some(worker) = process.worker() else { return };
        worker.token = token;
        let (wake_at, next_poll) = worker.plan;
        let until = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO);
        let wake = wake_at.map_or(IDLE_MAX, until);
        let idle = wake.min(next_poll.saturating_sub(worker.facts.steady)).clamp(IDLE_MIN, IDLE_MAX);
        let ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX).max(1);
        self.after(ms, Event::Wake(process.pid, token));
    }

    /// Begins to record what waits: those of one deployment in turn, those of different ones at once.
    fn record(&mut self, process: &mut Process, view: &Rc<View>) -> Result<(), Gone> {
        loop {
            let holder = process.name.clone();
            let Some(worker) = process.worker() else { return Ok(()) };
            let ready = worker.queued.iter().find(|(id, queue)| !worker.open.contains(*id) && !queue.is_empty());
            let Some(id) = ready.map(|(id, _)| id.clone()) else {
                if worker.open.is_empty() {
                    worker.queued.clear();
                    worker.stage = Stage::Following;
                }
                return Ok(());
            };
            let Some(outcome) = worker.queued.get_mut(&id).and_then(VecDeque::pop_front) else { return Ok(()) };
            let rollback = ledger::decide::outcome_is_rollback(&outcome);
            let cause = cause_of(view.state(), &outcome);
            let asked = Asked::outcome(outcome, worker.role, &holder, cause);
            worker.open.insert(id.clone());
            let after = std::mem::take(&mut worker.replied);
            let mut settling = Settling::new(process, Owner::Outcome(id.clone()), asked, true, rollback);
            settling.after = after;
            match self.begin(settling, view) {
                Begun::Pending => {}
                Begun::Ended(result) => {
                    let Some(worker) = process.worker() else { return Ok(()) };
                    worker.settled(&id, &result);
                }
                Begun::Crashed => return Err(Gone::Crashed("before its append")),
            }
        }
    }

    /// A worker learns what became of an outcome.
    pub fn outcome_settled(&mut self, pid: Pid, id: &DeploymentId, result: &Result<Settled, Refusal>) {
        let Some(mut process) = self.processes.remove(&pid) else { return };
        let host = process.host;
        let view = self.log.view(process.seen);
        if let Some(worker) = process.worker() {
            worker.settled(id, result);
        }
        if let Err(Gone::Crashed(why) | Gone::Ended(why)) = self.record(&mut process, &view) {
            self.trace.add(self.now, format_args!("{} is killed: {why}", process.name));
            self.tally.crashes += 1;
            self.ended(host);
            return;
        }
        let (mut idle, now) = (false, process.wall(self.now).max(view.time()));
        if let Some(worker) = process.worker() {
            idle = worker.stage == Stage::Following && !worker.changed && worker.inbox.is_empty();
        }
        if idle {
            self.sleep(&mut process, now);
            self.processes.insert(pid, process);
        } else {
            self.processes.insert(pid, process);
            self.run(pid);
        }
    }

    /// Says whether the process is killed here, and counts it.
    pub fn killed(&mut self, kind: &'static str, point: Point) -> bool {
        let permille = match kind {
            "launch" => 30,
            "stop" => 50,
            "clean-up" => 60,
            "route" => 15,
            _ => 250,
        };
        let spared = self.spared.get(kind).is_some_and(|until| *until > self.now);
        let killed = !self.calm && !spared && self.dice.chance(permille);
        if killed {
            // Long enough for somebody to get something done before it happens again.
            self.spared.insert(kind, self.now + 100 * SECOND);
            *self.tally.crashes_at.entry((kind, point)).or_default() += 1;
        }
        killed
    }

    fn start_effect(&mut self, process: &mut Process, effect: Effect, doomed: bool) -> Result<(), Gone> {
        let kind = effect.kind();
        let Some(worker) = process.worker() else { return Ok(()) };
        if !worker.facts.begin(&effect) {
            return Ok(());
        }
        self.tally.effects += 1;
        if doomed && self.killed(kind, Point::Call) {
            return Err(Gone::Crashed("before its call"));
        }
        let (pid, name) = (process.pid, process.name.clone());
        self.send_call(pid, &name, effect);
        Ok(())
    }
}

/// Why a process is no more.
pub enum Gone {
    Ended(&'static str),
    Crashed(&'static str),
}

impl Worker {
    fn take_in(&mut self, view: &View, news: News) {
        match news {
            News::Done(key, kind, done) => {
                self.replied.push(kind);
                self.facts.take_in(key, done);
            }
            News::Seen(result) => self.schedule.take_in(&mut self.facts, view.state(), view.next(), result),
        }
    }

    fn settled(&mut self, id: &DeploymentId, result: &Result<Settled, Refusal>) {
        self.open.remove(id);
        match result {
            Ok(settled) => self.changed |= settled.commit.is_some(),
            Err(Refusal::Deposed { .. }) => self.changed = true,
            Err(Refusal::Rejected(Rejection::Outdated(_))) | Err(_) => {}
        }
    }
}
