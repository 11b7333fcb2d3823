//! A busy production, made up from a seed: people release, roll and roll back, workers launch, shift and collect,
//! everything decided by the ledger's own rules; now and then a record is written that does not count.
//!
//! Used by the tests of `replay` and by its bench.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use ledger::View;
use ledger::decision::Now;
use ledger::deployment::stack::{NodePhase, Phase};
use ledger::deployment::step::{self, Gate, Hold};
use ledger::deployment::{Deployment, Rollout, Stack, retention, waiting};
use ledger::execute::{Asked, EmergencyDecision, Prepared, What, decide_emergency, prepare};
use ledger::judgement::judge::RULE;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use schemas::break_glass::Intent;
use schemas::command::{self, Command, PlanAsked, StackWeight};
use schemas::envelope::{About, CommandRef, Draft, Head};
use schemas::judgement::{Begun, Counted, NodeTally, Tally, Tick, Verdict};
use schemas::outcome::{self, DeploymentOutcome, Outcome};
use schemas::release::Source;
use schemas::run::{Artifact, Capacity};
use schemas::service::Definition;
use schemas::{
    Actor, ActorKind, CommandId, CommitId, DeploymentId, EffectId, Event, Hash, LedgerId, Probed, Role, ServiceName,
    StackName, Stream, StreamVersion, Version, Weight, genesis,
};
use uuid::Uuid;

/// One worker does all the work.
const HOLDER: &str = "w1";

/// A production that goes on for ever.
pub struct Busy {
    rng: ChaCha8Rng,
    services: Vec<ServiceName>,
    view: View,
    time: Timestamp,
    made: u64,
    released: u64,
    voids: bool,
    before: Option<Bytes>,
    /// Rollbacks without the ledger happen, and these wait until there are so many records.
    outages: Option<Vec<(u64, Intent)>>,
}

impl Busy {
    /// Begins a production of `services` services.
    pub fn new(seed: u64, services: usize) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            services: (0..services).map(|n| format!("service-{n:03}").parse().unwrap()).collect(),
            view: View::default(),
            time: "2026-01-05T08:00:00Z".parse().unwrap(),
            made: 0,
            released: 0,
            voids: true,
            before: None,
            outages: None,
        }
    }

    /// Also rolls back without the ledger now and then, and records it some records later.
    pub fn with_outages(mut self) -> Self {
        self.outages = Some(vec![]);
        self
    }

    /// Writes nothing that does not count.
    pub fn without_voids(mut self) -> Self {
        self.voids = false;
        self
    }

    /// The fold of everything so far.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The next `count` records.
    pub fn records(&mut self, count: usize) -> Vec<Bytes> {
        (0..count).map(|_| self.next_record()).collect()
    }

    /// Makes the next record.
    pub fn next_record(&mut self) -> Bytes {
        let bytes = self.make();
        let next = self.view.next();
        self.view.fold(next, &bytes).expect("a record of this ledger");
        bytes
    }

    fn make(&mut self) -> Bytes {
        if self.view.next().0 == 0 {
            return self.genesis();
        }
        self.time = self.time.checked_add(SignedDuration::from_millis(self.rng.random_range(1..2_000))).unwrap();
        if self.voids && self.view.next().0 > 20 && self.rng.random_ratio(1, 60) {
            return self.void();
        }
        if self.voids && self.rng.random_ratio(1, 200) {
            self.before = self.draft();
        }
        if let Some(bytes) = self.late_record() {
            return bytes;
        }
        loop {
            if let Some(bytes) = self.draft() {
                return bytes;
            }
            self.time = self.time.checked_add(SignedDuration::from_secs(1)).unwrap();
        }
    }

    /// Begins an outage now and then; returns the record of one that is over.
    fn late_record(&mut self) -> Option<Bytes> {
        let mut waiting = self.outages.take()?;
        let next = self.view.next().0;
        if self.rng.random_ratio(1, 40)
            && let Some(intent) = self.break_glass()
            && waiting.iter().all(|(_, other)| other.deployment != intent.deployment)
        {
            waiting.push((next + self.rng.random_range(1..30), intent));
        }
        let due = waiting.iter().position(|(at, _)| *at <= next).map(|due| waiting.remove(due).1);
        self.outages = Some(waiting);
        self.record_late(&due?)
    }

    /// Rolls a deployment back without the ledger, if one can be.
    pub fn break_glass(&mut self) -> Option<Intent> {
        let deployments: Vec<DeploymentId> = self.view.state().deployments.keys().cloned().collect();
        let deployment = deployments.choose(&mut self.rng)?.clone();
        let (asked, _) = self.command(Command::Rollback(command::Rollback { deployment, unready: false }));
        let now = Now { time: self.time, commit: CommitId(self.uuid()) };
        match decide_emergency(&self.view, &asked, now) {
            Ok(EmergencyDecision::Back(intent)) => Some(*intent),
            _ => None,
        }
    }

    /// Makes the record of a rollback without the ledger, as the ledger does when it is back.
    pub fn record_late(&mut self, intent: &Intent) -> Option<Bytes> {
        self.prepare(&Asked::late(intent, intent.generation, Some(true)), true)
    }

    /// Makes the record of a command that a person sends, who says that it took effect at a time of their own.
    pub fn said_to_be_in_effect(&mut self, command: Command, effective_at: Timestamp) -> Option<Bytes> {
        let (asked, rollback) = self.command(command);
        let about = About { effective_at: Some(effective_at), ..asked.about };
        self.prepare(&Asked { about, ..asked }, rollback)
    }

    /// Folds a record that was made apart.
    pub fn fold(&mut self, bytes: &Bytes) {
        let next = self.view.next();
        self.view.fold(next, bytes).expect("a record of this ledger");
    }

    fn genesis(&mut self) -> Bytes {
        let ledger = LedgerId(self.uuid());
        let event: Event = genesis::Created { ledger }.into();
        let draft = Draft {
            id: CommitId(self.uuid()),
            command: CommandRef { id: CommandId(ledger.0), hash: Hash::of(b"genesis") },
            time: self.time,
            extends: vec![Head { stream: Stream::Ledger, version: StreamVersion(0), hash: Hash::ZERO }],
            requires: vec![],
            events: vec![(Stream::Ledger, event)],
            about: About::by(actor(ActorKind::System, "ionledger", "makes the ledger")),
        };
        draft.to_bytes().into()
    }

    /// Something that does not count: no commit, or one that was decided long ago.
    fn void(&mut self) -> Bytes {
        match self.before.take() {
            Some(stale) if self.rng.random_ratio(2, 3) => stale,
            _ => format!("{{\"rule\":1,\"what\":\"no commit {}\"}}", self.made).into(),
        }
    }

    fn draft(&mut self) -> Option<Bytes> {
        let now = Now { time: self.time, commit: CommitId(self.uuid()) };
        let (asked, rollback) = self.ask()?;
        self.prepare_at(&asked, now, rollback)
    }

    fn prepare(&mut self, asked: &Asked, rollback: bool) -> Option<Bytes> {
        let now = Now { time: self.time, commit: CommitId(self.uuid()) };
        self.prepare_at(asked, now, rollback)
    }

    fn prepare_at(&self, asked: &Asked, now: Now, rollback: bool) -> Option<Bytes> {
        match prepare(&self.view, asked, now, rollback) {
            Ok(Prepared::Commit(draft, _)) => Some(draft.to_bytes().into()),
            _ => None,
        }
    }

    /// Ids that rise with time, as UUIDv7 do, from the seed alone.
    fn uuid(&mut self) -> Uuid {
        self.made += 1;
        let millis = u64::try_from(self.time.as_millisecond()).unwrap();
        uuid::Builder::from_unix_timestamp_millis(millis, &{
            let mut random = [0; 10];
            random[..8].copy_from_slice(&self.made.to_be_bytes());
            random[8..].copy_from_slice(&self.rng.random::<[u8; 2]>());
            random
        })
        .into_uuid()
    }

    fn ask(&mut self) -> Option<(Asked, bool)> {
        for role in Role::ALL {
            if self.view.state().lease(role).holder.is_none() {
                let (holder, reason) = (HOLDER.to_owned(), "nobody acts".to_owned());
                let outcome = Outcome::TakeLease(outcome::TakeLease { role, holder, from: None, reason });
                return Some((Asked::outcome(outcome, role, HOLDER, None), false));
            }
        }
        let service = self.services.choose(&mut self.rng).unwrap().clone();
        let Some(known) = self.view.state().service(&service) else { return Some(self.command(self.apply(&service))) };
        if known.releases.is_empty() || self.rng.random_ratio(1, 200) {
            let command = self.release(&service);
            return Some(self.command(command));
        }
        let environment = if self.rng.random_ratio(1, 8) { "test" } else { "production" };
        let id = DeploymentId { environment: environment.parse().unwrap(), service };
        let deployment = self.view.state().deployments.get(&id).cloned();
        let live = deployment.as_ref().and_then(|deployment| deployment.rollout.as_ref()).filter(|r| r.is_live());
        if live.is_some() && self.rng.random_ratio(1, 12) {
            let command = self.change_of_mind(&id, deployment.as_deref()?);
            return Some(self.command(command));
        }
        if let Some(deployment) = &deployment {
            let work = self.work(&id, deployment);
            if let Some((role, outcome, cause)) = work {
                let rollback = matches!(outcome, DeploymentOutcome::SendBack(_));
                let outcome = Outcome::Deployment(outcome::DeploymentReport { deployment: id, outcome });
                return Some((Asked::outcome(outcome, role, HOLDER, cause), rollback));
            }
        }
        let command = self.wish(&id, deployment.as_deref())?;
        Some(self.command(command))
    }

    fn command(&mut self, command: Command) -> (Asked, bool) {
        let people = ["ana", "ben", "caro", "dan"];
        let actor = if matches!(command, Command::Release(_)) {
            actor(ActorKind::Pipeline, "ci", "hmac key=ci")
        } else {
            actor(ActorKind::Person, people.choose(&mut self.rng).unwrap(), "unix-peer uid=1000")
        };
        let rollback = ledger::decide::is_rollback(&command);
        let reason = self.rng.random_ratio(1, 3).then(|| "it is time".to_owned());
        let id = CommandRef { id: CommandId(self.uuid()), hash: command.hash() };
        let about = About { reason, ..About::by(actor) };
        (
            Asked { command: Some(id), what: What::Command { command, fence: None, probed: Probed::default() }, about },
            rollback,
        )
    }

    fn apply(&self, service: &ServiceName) -> Command {
        let mut definition = Definition {
            owner: format!("team {}", &service.as_str()[8..]),
            description: "made up".to_owned(),
            listen: [("production".parse().unwrap(), "127.0.0.1:8080".parse().unwrap())].into(),
            run: Default::default(),
            capacity: Capacity { nodes: 2, min_ready: 1 },
            policy: Default::default(),
        };
        definition.run.args = vec!["--port={port}".to_owned(), "--threads=4".to_owned()];
        definition.policy.rollout.duration_ms = 60_000;
        definition.policy.retention.warm_for_ms = 120_000;
        Command::Apply(command::Apply { service: service.clone(), definition: Box::new(definition) })
    }

    fn release(&mut self, service: &ServiceName) -> Command {
        self.released += 1;
        let n = self.released;
        Command::Release(command::Release {
            service: service.clone(),
            version: format!("1.{}.{}", n / 10, n % 10).parse().unwrap(),
            artifact: Artifact { sha256: Hash::of(&n.to_be_bytes()), name: service.to_string(), size_bytes: 5_000_000 },
            args: None,
            env: Default::default(),
            source: Source {
                commit: Some(Hash::of(&n.to_le_bytes()).to_string()[..40].to_owned()),
                run_url: Some(format!("https://ci.example/runs/{n}")),
            },
            fixes: None,
        })
    }

    /// What a worker would do next about a deployment.
    fn work(
        &mut self,
        id: &DeploymentId,
        deployment: &Deployment,
    ) -> Option<(Role, DeploymentOutcome, Option<CommitId>)> {
        let ledger = self.view.state().ledger.unwrap();
        let provision = |outcome| Some((Role::Provisioner, outcome, None));
        for (stack_id, stack) in &deployment.stacks {
            if stack.phase == Phase::Starting || stack.phase == Phase::Ready {
                for slot in 0..stack.capacity.nodes {
                    if !stack.nodes.contains_key(&slot) {
                        let attempt = stack.attempts.get(&slot).copied().unwrap_or(0);
                        let effect = EffectId::of_launch(ledger, *stack_id, slot, attempt);
                        let port = self.rng.random_range(20_000..60_000);
                        return provision(DeploymentOutcome::StartLaunch(outcome::StartLaunch {
                            stack: *stack_id,
                            slot,
                            attempt,
                            effect,
                            port,
                        }));
                    }
                }
                for node in stack.nodes.values() {
                    let effect = node.effect;
                    match &node.phase {
                        NodePhase::Launching if self.rng.random_ratio(1, 50) => {
                            let reason = "exec format error".to_owned();
                            return provision(DeploymentOutcome::LaunchFailed(outcome::LaunchFailed {
                                effect,
                                reason,
                            }));
                        }
                        NodePhase::Launching => {
                            let address = format!("127.0.0.1:{}", node.port).parse().unwrap();
                            let instance = format!("process {}", self.rng.random_range(100..30_000));
                            return provision(DeploymentOutcome::Launched(outcome::Launched {
                                effect,
                                address,
                                instance,
                            }));
                        }
                        NodePhase::Launched { .. } => {
                            return provision(DeploymentOutcome::NodeReady(outcome::NodeReady { effect }));
                        }
                        NodePhase::Ready { .. } if self.rng.random_ratio(1, 2_000) => {
                            let reason = "it exited with status 1".to_owned();
                            return provision(DeploymentOutcome::NodeLost(outcome::NodeLost { effect, reason }));
                        }
                        NodePhase::Ready { .. } | NodePhase::Unhealthy { .. } => {}
                    }
                }
            }
            if stack.phase == Phase::Starting {
                return provision(DeploymentOutcome::StackReady(outcome::StackReady { stack: *stack_id }));
            }
        }
        if let Some(set) = deployment.traffic.set.as_ref().filter(|_| !deployment.traffic.is_applied()) {
            let outcome = DeploymentOutcome::WeightsApplied(outcome::WeightsApplied {
                generation: set.version,
                weights: set.weights.clone(),
                listening: None,
            });
            return Some((Role::TrafficShifter, outcome, Some(set.commit)));
        }
        let stack = deployment.waiting.as_ref().map(|waiting| waiting.stack);
        if let Some(stack) = stack.filter(|_| waiting::obstacles(deployment, id).is_empty()) {
            let cause = Some(CommitId(stack.0));
            return Some((
                Role::TrafficShifter,
                DeploymentOutcome::StartRequestedRollout(outcome::StartRequestedRollout { stack }),
                cause,
            ));
        }
        if let Some(rollout) = deployment.rollout.as_ref().filter(|rollout| rollout.is_running()) {
            return Some((Role::TrafficShifter, self.roll_on(id, deployment, rollout)?, Some(CommitId(rollout.id.0))));
        }
        self.collect(id, deployment).map(|outcome| (Role::Collector, outcome, None))
    }

    fn roll_on(&mut self, id: &DeploymentId, deployment: &Deployment, rollout: &Rollout) -> Option<DeploymentOutcome> {
        let analysis = self.view.state().judgements.get(id).and_then(|judgements| judgements.of(rollout.id)).cloned();
        let Some(mut analysis) = analysis else {
            let history = vec![Some(Tally { requests: 100_000, hits: 30, beyond: 30 }); 3];
            let (plan, policy) = (rollout.plan.clone(), rollout.policy.judgement.clone());
            let (rollout, rule) = (rollout.id, RULE.to_owned());
            let begun = Begun { rollout, rule, plan, policy, half_life_s: 600, history };
            return Some(DeploymentOutcome::BeginJudging(outcome::BeginJudging { begun }));
        };
        let next = rollout.next_step()?;
        if self.time < rollout.due_at(next) {
            return None;
        }
        let (rollout_id, step) = (rollout.id, next);
        if rollout.step.is_none() {
            return Some(DeploymentOutcome::TakeStep(outcome::TakeStep {
                rollout: rollout_id,
                step,
                counted: None,
                judged: None,
            }));
        }
        let requests = self.rng.random_range(0..2_000);
        let bad = self.rng.random_ratio(1, 30);
        let node = |requests, hits| {
            let counts = vec![Tally { requests, hits, beyond: hits }; 3];
            vec![NodeTally { node: 0, age_ms: 60_000, counts }]
        };
        let share =
            schemas::Weight::from_basis_points((requests * 10_000 / (requests + 10_000)).max(1) as u16).unwrap();
        let (baseline, canary) = (node(10_000, 3), node(requests, if bad { requests / 2 } else { 0 }));
        let ticks = vec![Tick { ms: 1_000, share, edges: vec![None, Some(100), Some(200)], baseline, canary }];
        let first = analysis.judge().ticks();
        let (baseline_nodes, canary_nodes) = (vec![], vec![]);
        let counted = Counted { rollout: rollout_id, first, baseline_nodes, canary_nodes, ticks };
        analysis.take(&counted);
        let judged = step::judged_of(deployment, rollout, &analysis);
        let counted = Some(counted);
        let worse =
            judged.as_ref().filter(|judged| judged.verdict == Verdict::Worse).map(|judged| judged.reason.clone());
        if let Some(reason) = worse {
            return Some(DeploymentOutcome::SendBack(outcome::SendBack {
                rollout: rollout_id,
                reason,
                counted,
                judged,
                probed: Probed::default(),
            }));
        }
        match step::gate(&deployment.traffic, rollout, Some(&analysis), self.time) {
            Gate::Open => {
                Some(DeploymentOutcome::TakeStep(outcome::TakeStep { rollout: rollout_id, step, counted, judged }))
            }
            Gate::Held(Hold { kind, reason }) => {
                Some(DeploymentOutcome::Hold(outcome::Hold { rollout: rollout_id, kind, reason, counted, judged }))
            }
            Gate::NotBefore(_) => None,
        }
    }

    fn collect(&mut self, id: &DeploymentId, deployment: &Deployment) -> Option<DeploymentOutcome> {
        let service = self.view.state().service(&id.service)?;
        let policy = service.definition.as_ref()?.policy.retention.clone();
        for (stack_id, stack) in &deployment.stacks {
            if matches!(stack.phase, Phase::Collecting { .. }) {
                return Some(match stack.nodes.values().next() {
                    Some(node) => DeploymentOutcome::NodeStopped(outcome::NodeStopped { effect: node.effect }),
                    None => DeploymentOutcome::Collected(outcome::Collected { stack: *stack_id }),
                });
            }
            if let Some((at, why)) = retention::due(deployment, *stack_id, &policy)
                && self.time >= at
            {
                return Some(DeploymentOutcome::StartCollection(outcome::StartCollection {
                    stack: *stack_id,
                    reason: why.to_owned(),
                }));
            }
        }
        None
    }

    /// What a person would want of a rollout under way.
    fn change_of_mind(&mut self, id: &DeploymentId, now: &Deployment) -> Command {
        let deployment = id.clone();
        let ready = now.stacks.values().filter(|stack| stack.phase == Phase::Ready);
        let ready: Vec<StackName> = ready.map(Stack::name).collect();
        let n = self.rng.random_range(0..11);
        match n {
            10 if ready.len() > 1 => {
                let half =
                    |version: &StackName| StackWeight { version: version.clone(), weight: Weight::from_percent(50) };
                let shares = ready[ready.len() - 2..].iter().map(half).collect();
                Command::Traffic(command::Traffic { deployment, shares, supersede: true, again: false })
            }
            0..3 => Command::Pause(command::Pause { deployment }),
            3..7 => Command::Resume(command::Resume { deployment }),
            7 => Command::Promote(command::Promote { deployment }),
            8 => Command::Abort(command::Abort { deployment }),
            _ => Command::Rollback(command::Rollback { deployment, unready: false }),
        }
    }

    /// What a person would want next of a deployment.
    fn wish(&mut self, id: &DeploymentId, deployment: Option<&Deployment>) -> Option<Command> {
        let releases: Vec<Version> = self.view.state().service(&id.service)?.releases.keys().cloned().collect();
        let any = releases.choose(&mut self.rng)?.clone();
        let new = |then_roll| {
            Command::New(command::New { deployment: id.clone(), version: any.clone(), then_roll, again: false })
        };
        let Some(deployment) = deployment else { return Some(new(None)) };
        if deployment.rollout.as_ref().is_some_and(Rollout::is_live) && self.rng.random_ratio(19, 20) {
            return None;
        }
        let ready = deployment.stacks.values().filter(|stack| stack.phase == Phase::Ready);
        let ready: Vec<StackName> = ready.map(Stack::name).collect();
        let Some(set) = &deployment.traffic.set else {
            let Some(version) = ready.choose(&mut self.rng) else { return Some(new(None)) };
            let shares = vec![StackWeight { version: version.clone(), weight: Weight::FULL }];
            return Some(Command::Traffic(command::Traffic {
                deployment: id.clone(),
                shares,
                supersede: false,
                again: false,
            }));
        };
        let serving = set.weights.sole().and_then(|stack| deployment.name_of(stack));
        let other = ready.iter().find(|version| Some(*version) != serving.as_ref()).cloned();
        let deployment = id.clone();
        match (self.rng.random_range(0..100), serving, other) {
            (0..30, Some(from), Some(to)) => Some(Command::Roll(command::Roll {
                deployment,
                from,
                to,
                plan: PlanAsked::default(),
                supersede: false,
                again: false,
            })),
            (30..40, Some(from), Some(to)) => {
                let part = Weight::from_percent(self.rng.random_range(1..100));
                let shares = [(from, part.rest()), (to, part)].map(|(version, weight)| StackWeight { version, weight });
                Some(Command::Traffic(command::Traffic {
                    deployment,
                    shares: shares.to_vec(),
                    supersede: true,
                    again: false,
                }))
            }
            (40..45, _, Some(to)) => {
                let shares = vec![StackWeight { version: to, weight: Weight::FULL }];
                Some(Command::Traffic(command::Traffic { deployment, shares, supersede: true, again: false }))
            }
            (45..48, ..) => Some(Command::Rollback(command::Rollback { deployment, unready: false })),
            (48, ..) if self.rng.random_ratio(1, 3) => Some(Command::Retire(command::Retire { deployment })),
            (56..58, ..) => {
                let then_roll = Some(PlanAsked::default());
                Some(Command::Renew(command::Renew { deployment, version: None, then_roll, again: false }))
            }
            (58..70, ..) => Some(new(Some(PlanAsked::default()))),
            (70..80, ..) => Some(new(None)),
            _ => None,
        }
    }
}

fn actor(kind: ActorKind, name: &str, proof: &str) -> Actor {
    Actor { kind, name: name.to_owned(), proof: proof.to_owned() }
}

/// What kinds of events a state came from, for a test that the production is busy enough.
pub fn kinds(records: &[Bytes]) -> std::collections::BTreeMap<String, usize> {
    let mut kinds = std::collections::BTreeMap::new();
    for bytes in records {
        let mut decoded = ledger::view::Decoded::of(bytes);
        for (_, event) in decoded.take_events().into_iter().flatten() {
            *kinds.entry(event.kind().to_owned()).or_default() += 1;
        }
    }
    kinds
}
