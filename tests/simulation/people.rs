//! People and pipelines: what they want, the API servers that they ask, and how they take an answer.

use std::collections::{BTreeMap, BTreeSet};

use ledger::State;
use ledger::decide::is_rollback;
use ledger::deployment::{Deployment, Phase, Stack};
use ledger::execute::{Asked, Refusal, What};
use schemas::command::{self, Command, PlanAsked, StackWeight};
use schemas::envelope::{About, CommandRef};
use schemas::policy::{HoldAfter, Policy};
use schemas::run::{Artifact, Capacity, HttpCheck, RunSpec};
use schemas::service::Definition;
use schemas::{
    Actor, ActorKind, CommandId, DeploymentId, Fence, Hash, Probed, ServiceName, StackId, StackName, Stream, Version,
    Weight, release,
};
use workers::effect::Effect;

use crate::break_glass::PATIENCE;
use crate::cloud::Nature;
use crate::network::{Begun, Owner, Settled, Settling};
use crate::process::{Pid, Process, What as Runs};
use crate::world::{Event, MINUTE, Ms, SECOND, World};

/// An api node: requests about the same stream take turns, but for a rollback.
#[derive(Default)]
pub struct Server {
    turns: Vec<(usize, Vec<Stream>)>,
    waiting: Vec<(usize, Vec<Stream>)>,
}

/// Something somebody asked for.
#[derive(Clone)]
pub struct Request {
    pub id: CommandId,
    pub command: Command,
    /// The fence its sender saw, if the sender says so.
    pub fence: Option<Fence>,
    pub actor: Actor,
    pub asked_at: Ms,
    sent: u32,
    /// How it ended, for the one who asked.
    pub end: Option<Reply>,
}

/// How a request ended.
pub type Reply = Result<Settled, Refusal>;

/// Everybody who asks.
#[derive(Default)]
pub struct People {
    pub requests: Vec<Request>,
    released: BTreeMap<ServiceName, u32>,
}

impl People {
    fn next_version(&mut self, service: &ServiceName) -> Version {
        let n = self.released.entry(service.clone()).or_default();
        *n += 1;
        format!("1.{n}.0").parse().expect("a version")
    }
}

/// Every deployment there is.
pub fn deployments() -> [DeploymentId; 3] {
    ["production/api", "production/web", "test/api"].map(|id| id.parse().expect("a deployment"))
}

impl World {
    /// Somebody wants something.
    pub fn want(&mut self) {
        if self.calm {
            return;
        }
        let next = self.dice.range(4 * SECOND, 30 * SECOND);
        self.after(next, Event::Want);
        let servers: Vec<Pid> = self.hosts.iter().filter(|h| h.role.is_none()).filter_map(|h| h.process).collect();
        let Some(server) = self.dice.pick(&servers) else { return };
        let view = self.log.view(self.processes[server].seen);
        let Some(command) = self.wish(view.state()) else { return };
        let fence = command.deployment().and_then(|id| view.state().deployment(id)).map(|of| of.traffic.fence);
        self.ask(command, fence.unwrap_or_default());
    }

    /// Sends a command: now, later than those after it, twice, or its id with something else.
    pub fn ask(&mut self, command: Command, fence: Fence) {
        let kind = match command {
            Command::Release(_) => ActorKind::Pipeline,
            Command::New(command::New { then_roll: Some(_), .. })
            | Command::Renew(command::Renew { then_roll: Some(_), .. })
            | Command::Roll(_)
                if self.dice.chance(500) =>
            {
                ActorKind::Pipeline
            }
            _ => ActorKind::Person,
        };
        let name = ["ana", "bo", "cy", "di"][usize::try_from(self.dice.range(0, 4)).unwrap_or(0)].to_owned();
        let actor = Actor { kind, name, proof: "unix-peer uid=1000".to_owned() };
        let fence = (self.calm || !self.dice.chance(150)).then_some(fence);
        let id = CommandId(self.dice.uuid(self.now));
        let request = self.people.requests.len();
        let (asked_at, sent, end) = (self.now, 0, None);
        self.trace.add(self.now, format_args!("{} asks #{request} {}", actor.name, shown(&command)));
        self.people.requests.push(Request { id, command, fence, actor, asked_at, sent, end });
        let late = !self.calm && self.dice.chance(80);
        let after = if late { self.dice.range(20 * SECOND, 4 * MINUTE) } else { self.dice.range(1, 100) };
        self.post(request, after);
        if !self.calm && self.dice.chance(60) {
            let again = self.dice.range(1, 2 * MINUTE);
            let host = self.some_server();
            self.after(after + again, Event::Arrive { request, host });
        }
        if !self.calm && self.dice.chance(20) {
            let mut other = self.people.requests[request].clone();
            other.command =
                Command::Rollback(command::Rollback { deployment: deployments()[0].clone(), unready: false });
            if other.command != self.people.requests[request].command {
                self.people.requests.push(other);
                self.post(request + 1, after + 10 * SECOND);
            }
        }
    }

    fn post(&mut self, request: usize, after: Ms) {
        let host = self.some_server();
        self.people.requests[request].sent += 1;
        let sent = self.people.requests[request].sent;
        self.after(after, Event::Arrive { request, host });
        self.after(after + 20 * SECOND, Event::Nag(request, sent));
    }

    fn some_server(&mut self) -> usize {
        usize::try_from(self.dice.range(0, 2)).unwrap_or(0)
    }

    /// Without an answer the same id is sent again.
    pub fn nag(&mut self, request: usize, sent: u32) {
        let asked = &self.people.requests[request];
        if asked.end.is_none() && asked.sent == sent {
            self.post(request, 1);
        }
    }

    /// A request reaches a server.
    pub fn arrive(&mut self, request: usize, host: usize) {
        let Some(pid) = self.hosts[host].process else { return };
        let command = &self.people.requests[request].command;
        let mut streams = vec![Stream::Service(command.service().clone())];
        streams.extend(command.deployment().cloned().map(Stream::Deployment));
        if is_rollback(command) {
            return self.execute(pid, request);
        }
        let Some(Process { what: Runs::Server(server), .. }) = self.processes.get_mut(&pid) else { return };
        let taken =
            server.turns.iter().chain(&server.waiting).any(|(_, held)| held.iter().any(|s| streams.contains(s)));
        if taken {
            server.waiting.push((request, streams));
        } else {
            server.turns.push((request, streams));
            self.execute(pid, request);
        }
    }

    fn execute(&mut self, pid: Pid, request: usize) {
        let Some(process) = self.processes.get(&pid) else { return };
        let Request { id, command, fence, actor, .. } = self.people.requests[request].clone();
        let view = self.log.view(process.seen);
        let here = || command.deployment().map(|of| view.state().deployment(of).map_or(Fence(0), |d| d.traffic.fence));
        let fence = fence.or_else(here);
        self.checks.asked(id, &command, fence.unwrap_or_default());
        let needs_reason = command.asks_again() || matches!(command, Command::Hold(_));
        let reason = needs_reason.then(|| "it was mended".to_owned());
        let about = About { reason, ..About::by(actor) };
        let reference = CommandRef { id, hash: command.hash() };
        let rollback = is_rollback(&command);
        let asked = Asked {
            command: Some(reference),
            what: What::Command { command, fence, probed: Probed::default() },
            about,
        };
        let settling = Settling::new(process, Owner::Request(request), asked, rollback, rollback);
        let is_back = matches!(&self.people.requests[request].command, Command::Rollback(_));
        match self.begin(settling, &view) {
            Begun::Pending if is_back => self.after(PATIENCE, Event::BreakGlass(pid, request)),
            Begun::Pending | Begun::Crashed => {}
            Begun::Ended(result) => self.executed(pid, request, result),
        }
    }

    /// A server knows what became of a request.
    pub fn executed(&mut self, pid: Pid, request: usize, result: Reply) {
        let rollback = is_rollback(&self.people.requests[request].command);
        let seen = self.processes.get(&pid).map_or(0, |process| process.seen);
        self.checks.decided(&self.people.requests[request], seen, &result);
        if let (true, Ok(answer)) = (rollback, &result) {
            self.apply_now(pid, request, answer);
        }
        let lost = !self.calm && self.dice.chance(50);
        if !lost {
            let back = self.dice.range(1, 100);
            self.after(back, Event::Answer(request, Box::new(result)));
        }
        self.next_turn(pid, request);
    }

    fn next_turn(&mut self, pid: Pid, request: usize) {
        let Some(Process { what: Runs::Server(server), .. }) = self.processes.get_mut(&pid) else { return };
        server.turns.retain(|(of, _)| *of != request);
        let mut next = Vec::new();
        for (of, streams) in std::mem::take(&mut server.waiting) {
            let held = |held: &[(usize, Vec<Stream>)]| {
                held.iter().any(|(_, others)| others.iter().any(|stream| streams.contains(stream)))
            };
            if held(&server.turns) || held(&server.waiting) {
                server.waiting.push((of, streams));
            } else {
                server.turns.push((of, streams));
                next.push(of);
            }
        }
        for request in next {
            self.execute(pid, request);
        }
    }

    /// Whoever commits a rollback applies it too, if it is still what is set.
    fn apply_now(&mut self, pid: Pid, request: usize, answer: &Settled) {
        let Some(process) = self.processes.get(&pid) else { return };
        let (view, name) = (self.log.view(process.seen), process.name.clone());
        let Some(id) = self.people.requests[request].command.deployment() else { return };
        let Some(deployment) = view.state().deployment(id) else { return };
        if answer.commit.is_none() || deployment.traffic.set.as_ref().map(|set| set.commit) != answer.commit {
            return;
        }
        if let Some(routes) = workers::routing::routes(view.state(), id, deployment) {
            self.send_call(pid, &name, Effect::Route(Box::new(routes)));
        }
    }

    /// An answer reaches who asked.
    pub fn answered(&mut self, request: usize, answer: Reply) {
        self.trace.add(self.now, format_args!("#{request} is answered {}", shown_answer(&answer)));
        let asked = &mut self.people.requests[request];
        if matches!(answer, Err(Refusal::Indeterminate { .. } | Refusal::NotTaken(_))) {
            let after = self.dice.range(SECOND, 5 * SECOND);
            return if asked.end.is_none() {
                self.post(request, after)
            };
        }
        asked.end.get_or_insert_with(|| answer.clone());
        let asked = asked.clone();
        self.checks.answered(&asked, &answer);
    }

    /// Returns what somebody who sees `state` wants.
    fn wish(&mut self, state: &State) -> Option<Command> {
        let services: [ServiceName; 2] = ["api", "web"].map(|name| name.parse().expect("a service"));
        if let Some(service) = services.iter().find(|service| state.service(service).is_none()) {
            return Some(self.apply(service));
        }
        if self.dice.chance(40) {
            return Some(self.nonsense());
        }
        let id = self.dice.pick(&deployments())?.clone();
        let service = state.service(&id.service)?;
        let versions: Vec<Version> = service.releases.keys().cloned().collect();
        let of = state.deployment(&id);
        let newest = versions.iter().max_by_key(|version| service.releases[*version].at).cloned();
        let Some(of) = of else {
            return match newest {
                None => Some(self.release(&id.service)),
                Some(version) => Some(Command::New(command::New {
                    deployment: id,
                    version,
                    then_roll: Some(PlanAsked::default()),
                    again: false,
                })),
            };
        };
        self.wish_for(&id, of, &versions, newest?)
    }

    fn wish_for(&mut self, id: &DeploymentId, of: &Deployment, all: &[Version], newest: Version) -> Option<Command> {
        let ready: Vec<StackName> = of
            .stacks
            .values()
            .filter(|stack| stack.phase == Phase::Ready || self.dice.chance(60))
            .map(Stack::name)
            .collect();
        let live = of.rollout.as_ref().filter(|rollout| rollout.is_live());
        let deployment = id.clone();
        if !of.holds.is_empty() && self.dice.chance(120) {
            return Some(Command::LiftHold(command::LiftHold { deployment, only: None }));
        }
        let dice = self.dice.range(0, 100);
        if let Some(rollout) = live {
            let paused = !rollout.is_running();
            return match dice {
                0..6 => Some(Command::Pause(command::Pause { deployment })),
                6..26 if paused => Some(Command::Resume(command::Resume { deployment })),
                26..31 => Some(Command::Abort(command::Abort { deployment })),
                31..36 => Some(Command::Promote(command::Promote { deployment })),
                36..44 => Some(Command::Rollback(command::Rollback { deployment, unready: self.dice.chance(100) })),
                44..50 => self.traffic(id, &ready),
                50..56 => self.roll(id, of, &ready),
                56..64 => Some(self.release(&id.service)),
                64..68 => Some(self.apply(&id.service)),
                68..80 => self.delivered(id, of, all, newest),
                80..84 => Some(self.hold(id)),
                84..87 => self.renew(id, all),
                _ => None,
            };
        }
        let serving = of.traffic.set.as_ref().and_then(|set| set.weights.sole());
        let has_newest = of.stacks.values().any(|stack| stack.version == newest);
        match dice {
            0..18 if !has_newest => {
                let then_roll = self.dice.chance(600).then(|| self.plan());
                Some(Command::New(command::New {
                    deployment,
                    version: newest,
                    then_roll,
                    again: self.dice.chance(300),
                }))
            }
            0..18 => Some(self.release(&id.service)),
            18..30 => Some(self.release(&id.service)),
            30..55 if serving.is_some() => self.roll(id, of, &ready),
            30..62 => self.traffic(id, &ready),
            62..72 => Some(Command::Rollback(command::Rollback { deployment, unready: self.dice.chance(100) })),
            72..75 => Some(Command::Resume(command::Resume { deployment })),
            75..78 => Some(Command::Abort(command::Abort { deployment })),
            78..82 => Some(self.apply(&id.service)),
            82..85 if id.environment.as_str() == "test" => Some(Command::Retire(command::Retire { deployment })),
            85..92 if self.dice.chance(500) => {
                let version = self.dice.pick(all)?.clone();
                Some(Command::New(command::New { deployment, version, then_roll: None, again: false }))
            }
            85..92 => self.delivered(id, of, all, newest),
            92..95 => Some(self.hold(id)),
            95..99 => self.renew(id, all),
            _ => None,
        }
    }

    fn hold(&mut self, id: &DeploymentId) -> Command {
        let for_ms = self.dice.chance(700).then(|| self.dice.range(SECOND, 5 * MINUTE));
        Command::Hold(command::Hold { deployment: id.clone(), for_ms })
    }

    /// Somebody wants what users are on in a new stack, or any release.
    fn renew(&mut self, id: &DeploymentId, all: &[Version]) -> Option<Command> {
        let version = if self.dice.chance(700) { None } else { Some(self.dice.pick(all)?.clone()) };
        let then_roll = self.dice.chance(700).then(|| self.plan());
        Some(Command::Renew(command::Renew {
            deployment: id.clone(),
            version,
            then_roll,
            again: self.dice.chance(300),
        }))
    }

    /// A pipeline asks for the rollout of what was merged last, or comes late with what was merged before.
    fn delivered(&mut self, id: &DeploymentId, of: &Deployment, all: &[Version], newest: Version) -> Option<Command> {
        let version = if self.dice.chance(600) { newest } else { self.dice.pick(all)?.clone() };
        let stands = of.stacks.values().any(|stack| stack.version == version);
        let then_roll = Some(self.plan());
        (!stands).then(|| Command::New(command::New { deployment: id.clone(), version, then_roll, again: false }))
    }

    fn traffic(&mut self, id: &DeploymentId, ready: &[StackName]) -> Option<Command> {
        let stacks: Vec<StackName> = ready.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let first = self.dice.pick(&stacks)?.clone();
        let rest: Vec<StackName> = stacks.into_iter().filter(|stack| *stack != first).collect();
        let mut shares = vec![StackWeight { version: first, weight: Weight::FULL }];
        for other in rest.into_iter().take(3) {
            if self.dice.chance(350) {
                let points = u16::try_from(self.dice.range(1, 40)).unwrap_or(1) * 50;
                let weight = Weight::from_basis_points(points).ok()?;
                let left = shares[0].weight.basis_points().checked_sub(points)?;
                shares[0].weight = Weight::from_basis_points(left).ok()?;
                shares.push(StackWeight { version: other, weight });
            }
        }
        Some(Command::Traffic(command::Traffic {
            deployment: id.clone(),
            shares,
            supersede: self.dice.chance(300),
            again: self.dice.chance(300),
        }))
    }

    fn roll(&mut self, id: &DeploymentId, of: &Deployment, ready: &[StackName]) -> Option<Command> {
        let set = of.traffic.set.as_ref()?;
        let serving: Vec<StackId> = set.weights.stacks().collect();
        let from = of.name_of(*self.dice.pick(&serving)?)?;
        let others: Vec<&StackName> = ready.iter().filter(|name| **name != from).collect();
        let to = (*self.dice.pick(&others)?).clone();
        let (supersede, again) = (self.dice.chance(300), self.dice.chance(300));
        Some(Command::Roll(command::Roll { deployment: id.clone(), from, to, plan: self.plan(), supersede, again }))
    }

    fn plan(&mut self) -> PlanAsked {
        let percents: &[&[u16]] = &[&[1, 5, 25, 100], &[10, 50, 100], &[100], &[2, 5, 10, 25, 50, 100]];
        let steps = self.dice.pick(percents).map(|steps| steps.iter().map(|p| Weight::from_percent(*p)).collect());
        // An hour has little room for a whole rollout: some are brisk, so that bakes come to their end.
        let duration_max = if self.dice.chance(300) { 30 * SECOND } else { 8 * MINUTE };
        PlanAsked { duration_ms: Some(self.dice.range(0, duration_max)), steps }
    }

    fn apply(&mut self, service: &ServiceName) -> Command {
        let mut policy = Policy::default();
        policy.rollout.steps = [1, 10, 50, 100].map(Weight::from_percent).to_vec();
        policy.rollout.duration_ms = self.dice.range(MINUTE, 6 * MINUTE);
        policy.rollout.early_after_ms = self.dice.chance(300).then(|| self.dice.range(0, MINUTE));
        if self.dice.chance(500) {
            policy.rollout.bake_ms = self.dice.range(5 * SECOND, 2 * MINUTE);
            policy.rollout.control = Weight::from_percent(u16::try_from(self.dice.range(5, 31)).unwrap_or(5));
        }
        policy.rollout.rollback_past_target = !self.dice.chance(300);
        // The same for good, so that whoever rolls back knows it.
        policy.rollout.hold_after = if service.as_str() == "web" { HoldAfter::Any } else { HoldAfter::Rollback };
        policy.judgement.requests_min = self.dice.range(5, 60);
        policy.retention.serving_max = u16::try_from(self.dice.range(2, 4)).unwrap_or(2);
        policy.retention.warm_for_ms = self.dice.range(2 * MINUTE, 20 * MINUTE);
        policy.retention.warm_max = u16::try_from(self.dice.range(0, 4)).unwrap_or(2);
        policy.retention.drain_ms = self.dice.range(0, 20 * SECOND);
        let nodes = u16::try_from(self.dice.range(1, 4)).unwrap_or(1);
        let min_ready = u16::try_from(self.dice.range(1, u64::from(nodes) + 1)).unwrap_or(1);
        let check = HttpCheck { interval_ms: 8 * SECOND, ..HttpCheck::default() };
        let definition = Definition {
            owner: "team".to_owned(),
            description: String::new(),
            listen: BTreeMap::new(),
            run: RunSpec { check, start_deadline_ms: 2 * MINUTE, ..RunSpec::default() },
            capacity: Capacity { nodes, min_ready },
            policy,
        };
        Command::Apply(command::Apply { service: service.clone(), definition: Box::new(definition) })
    }

    fn release(&mut self, service: &ServiceName) -> Command {
        let version = self.people.next_version(service);
        let nature = match self.dice.range(0, 100) {
            0..60 => Nature {
                errors_ppm: self.dice.range(0, 2_000),
                slow_ms: self.dice.range(0, 20_000),
                ..Nature::default()
            },
            60..82 => Nature { errors_ppm: self.dice.range(30_000, 600_000), slow_ms: 1_000, ..Nature::default() },
            82..88 => Nature { slow_ms: 100 * MINUTE, ..Nature::default() },
            88..94 => Nature { crashes: true, ..Nature::default() },
            _ => Nature { broken: true, ..Nature::default() },
        };
        self.cloud.natures.insert(artifact(service, &version, "a").sha256, nature);
        self.trace.add(self.now, format_args!("{service} {version} is {nature:?}"));
        let mut release = released(service, version, "a");
        if let Command::Release(command::Release { fixes, version, .. }) = &mut release
            && self.dice.chance(300)
        {
            let before = self.people.released.get(service).copied().unwrap_or(0).saturating_sub(1);
            *fixes = format!("1.{before}.0").parse().ok().filter(|fixed| fixed != version && before > 0);
        }
        release
    }

    /// Returns a command that can only be refused.
    fn nonsense(&mut self) -> Command {
        let [deployment, _, _] = deployments();
        let (service, version): (ServiceName, Version) =
            (deployment.service.clone(), "1.1.0".parse().expect("a version"));
        let share = |weight| StackWeight { version: version.clone().into(), weight: Weight::from_percent(weight) };
        match self.dice.range(0, 7) {
            // The stream of this one may hold what this program does not understand.
            6 => {
                let Command::Apply(command::Apply { definition, .. }) = self.apply(&service) else { unreachable!() };
                Command::Apply(command::Apply { service: "alien".parse().expect("a service"), definition })
            }
            0 => Command::Traffic(command::Traffic {
                deployment,
                shares: vec![share(90)],
                supersede: true,
                again: false,
            }),
            1 => Command::Traffic(command::Traffic { deployment, shares: vec![], supersede: true, again: false }),
            2 => Command::Traffic(command::Traffic {
                deployment,
                shares: vec![share(50), share(50)],
                supersede: true,
                again: false,
            }),
            3 => Command::Rollback(command::Rollback {
                deployment: "production/nobody".parse().expect("a deployment"),
                unready: false,
            }),
            4 => Command::New(command::New {
                deployment,
                version: "9.9.9".parse().expect("a version"),
                then_roll: None,
                again: false,
            }),
            // A version once released, with another artifact.
            _ => released(&service, version, "b"),
        }
    }
}

fn released(service: &ServiceName, version: Version, content: &str) -> Command {
    let artifact = artifact(service, &version, content);
    let (args, env, source) = (None, BTreeMap::new(), release::Source::default());
    Command::Release(command::Release { service: service.clone(), version, artifact, args, env, source, fixes: None })
}

fn artifact(service: &ServiceName, version: &Version, content: &str) -> Artifact {
    let sha256 = Hash::of(format!("{service} {version} {content}").as_bytes());
    Artifact { sha256, name: service.to_string(), size_bytes: 1 }
}

fn shown(command: &Command) -> String {
    serde_json::to_string(command).expect("plain JSON").chars().take(300).collect()
}

fn shown_answer(answer: &Reply) -> String {
    match answer {
        Ok(settled) => format!("{settled:?}"),
        Err(refusal) => refusal.to_string(),
    }
}
