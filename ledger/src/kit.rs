//! A kit for tests of the rules: given a history, when something is asked, then these events. Every history here is
//! made by the rules themselves, so that no state is tested that could not come about.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use schemas::command::{self, Command, PlanAsked, StackWeight};
use schemas::judgement::{Begun, Counted, Judged, NodeTally, Tally, Tick};
use schemas::outcome::{self, DeploymentOutcome, Outcome};
use schemas::policy::Policy;
use schemas::run::{Artifact, Capacity};
use schemas::service::Definition;
use schemas::{
    ActorKind, CommitId, DeploymentId, EffectId, Event, Fence, Hash, LedgerId, Probed, ServiceName, StackId, StackName,
    Stream, StreamVersion, Timestamp, Version, Weight, genesis,
};
use uuid::Uuid;

use crate::at::At;
use crate::decide;
use crate::decision::{By, Decision, Now, Rejection};
use crate::deployment::{rollback as target, step};
use crate::judgement::judge;
use crate::state::State;
use crate::{Deployment, deployment::Stack};

/// The versions of the tests: the first serves, the second is rolled out, the third has no stack.
pub(crate) const V1: &str = "1.0.0";
pub(crate) const V2: &str = "1.1.0";
pub(crate) const V3: &str = "1.2.0";

/// A ledger without a log: a state, the heads' versions, and a time that only the test moves.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) time: Timestamp,
    versions: BTreeMap<Stream, StreamVersion>,
    commits: u128,
    /// The kinds of all events so far.
    pub(crate) kinds_seen: Vec<&'static str>,
}

pub(crate) fn service() -> ServiceName {
    "api".parse().unwrap()
}

pub(crate) fn id() -> DeploymentId {
    "production/api".parse().unwrap()
}

pub(crate) fn stack_name(text: &str) -> StackName {
    text.parse().expect("a stack's name")
}

pub(crate) fn version(text: &str) -> Version {
    text.parse().unwrap()
}

pub(crate) fn percent(percent: u16) -> Weight {
    Weight::from_percent(percent)
}

/// A service of one node a stack, rolled out over 10, 50 and 100 % in 1,000 s, and judged by its errors alone: so
/// generously that a hundred good requests show that a canary is not worse.
pub(crate) fn definition() -> Definition {
    let mut policy = Policy::default();
    policy.rollout.steps = [10, 50, 100].map(percent).to_vec();
    policy.rollout.duration_ms = 1_000_000;
    policy.judgement.metrics["errors"].tolerance_ppm = 200_000;
    policy.judgement.metrics = policy.judgement.metrics.weighing(&[("errors", 100)]);
    policy.judgement.burst_cap = false;
    Definition {
        owner: "team-checkout".to_owned(),
        description: String::new(),
        listen: BTreeMap::new(),
        run: Default::default(),
        capacity: Capacity { nodes: 1, min_ready: 1 },
        policy,
    }
}

pub(crate) fn artifact(content: &str) -> Artifact {
    Artifact { sha256: Hash::of(content.as_bytes()), name: "api".to_owned(), size_bytes: content.len() as u64 }
}

pub(crate) fn apply(definition: Definition) -> Command {
    Command::Apply(command::Apply { service: service(), definition: Box::new(definition) })
}

pub(crate) fn release(text: &str) -> Command {
    release_of(text, text)
}

pub(crate) fn release_of(text: &str, content: &str) -> Command {
    Command::Release(command::Release {
        service: service(),
        version: version(text),
        artifact: artifact(content),
        args: None,
        env: BTreeMap::new(),
        source: Default::default(),
        fixes: None,
    })
}

pub(crate) fn new(text: &str) -> Command {
    Command::New(command::New { deployment: id(), version: version(text), then_roll: None, again: false })
}

pub(crate) fn new_then_roll(text: &str) -> Command {
    Command::New(command::New {
        deployment: id(),
        version: version(text),
        then_roll: Some(PlanAsked::default()),
        again: false,
    })
}

pub(crate) fn renew(then_roll: bool) -> Command {
    let then_roll = then_roll.then(PlanAsked::default);
    Command::Renew(command::Renew { deployment: id(), version: None, then_roll, again: false })
}

pub(crate) fn hold(for_ms: Option<u64>) -> Command {
    Command::Hold(command::Hold { deployment: id(), for_ms })
}

pub(crate) fn lift_hold() -> Command {
    Command::LiftHold(command::LiftHold { deployment: id(), only: None })
}

pub(crate) fn traffic(shares: &[(&str, u16)], supersede: bool) -> Command {
    let share = |(text, weight): &(&str, u16)| StackWeight { version: stack_name(text), weight: percent(*weight) };
    Command::Traffic(command::Traffic {
        deployment: id(),
        shares: shares.iter().map(share).collect(),
        supersede,
        again: false,
    })
}

pub(crate) fn roll(from: &str, to: &str) -> Command {
    let plan = PlanAsked::default();
    Command::Roll(command::Roll {
        deployment: id(),
        from: stack_name(from),
        to: stack_name(to),
        plan,
        supersede: false,
        again: false,
    })
}

pub(crate) fn roll_instead(from: &str, to: &str) -> Command {
    let plan = PlanAsked { steps: Some(vec![percent(20), Weight::FULL]), ..PlanAsked::default() };
    Command::Roll(command::Roll {
        deployment: id(),
        from: stack_name(from),
        to: stack_name(to),
        plan,
        supersede: true,
        again: false,
    })
}

/// Returns the command with `--again`.
pub(crate) fn again(mut command: Command) -> Command {
    match &mut command {
        Command::New(command::New { again, .. })
        | Command::Renew(command::Renew { again, .. })
        | Command::Traffic(command::Traffic { again, .. })
        | Command::Roll(command::Roll { again, .. }) => *again = true,
        other => panic!("{other:?} has no --again"),
    }
    command
}

pub(crate) fn rollback() -> Command {
    Command::Rollback(command::Rollback { deployment: id(), unready: false })
}

pub(crate) fn rollback_unready() -> Command {
    Command::Rollback(command::Rollback { deployment: id(), unready: true })
}

pub(crate) fn pause() -> Command {
    Command::Pause(command::Pause { deployment: id() })
}

pub(crate) fn resume() -> Command {
    Command::Resume(command::Resume { deployment: id() })
}

pub(crate) fn abort() -> Command {
    Command::Abort(command::Abort { deployment: id() })
}

pub(crate) fn promote() -> Command {
    Command::Promote(command::Promote { deployment: id() })
}

pub(crate) fn retire() -> Command {
    Command::Retire(command::Retire { deployment: id() })
}

pub(crate) fn dismiss(text: &str) -> Command {
    Command::Dismiss(command::Dismiss { deployment: id(), version: stack_name(text) })
}

/// Returns the kinds of a decision's events.
pub(crate) fn kinds(decision: &Decision) -> Vec<&'static str> {
    decision.events.iter().map(|(_, event)| event.kind()).collect()
}

impl World {
    /// A ledger that holds nothing but its own beginning.
    pub(crate) fn empty() -> Self {
        let time = "2026-11-01T12:00:00Z".parse().unwrap();
        let mut world =
            Self { state: State::default(), time, versions: BTreeMap::new(), commits: 0, kinds_seen: vec![] };
        let created = genesis::Created { ledger: LedgerId(Uuid::from_u128(0x1ed6e5)) };
        world.commit(Decision::on(Stream::Ledger, vec![created.into()]));
        world
    }

    /// A declared service with releases of all three versions.
    pub(crate) fn released() -> Self {
        let mut world = Self::empty();
        world.ask(apply(definition()));
        [V1, V2, V3].into_iter().for_each(|version| drop(world.ask(release(version))));
        world
    }

    /// The first version holds all traffic and the second stands warm beside it.
    pub(crate) fn serving_one_warm_one() -> Self {
        let mut world = Self::released();
        world.deploy(V1);
        world.serve(&[(V1, 100)]);
        world.deploy(V2);
        world
    }

    /// Returns what the next decision may use of the world.
    pub(crate) fn now(&self) -> Now {
        Now { time: self.time, commit: CommitId(Uuid::from_u128(self.commits + 1)) }
    }

    /// Lets time go on.
    pub(crate) fn pass_ms(&mut self, ms: u64) {
        self.time += Duration::from_millis(ms);
    }

    /// Decides a command as it would be now.
    pub(crate) fn decide(&self, command: &Command) -> Result<Decision, Rejection> {
        self.decide_seeing(command, &Probed::default())
    }

    /// Decides a command of another kind of actor than a person.
    pub(crate) fn decide_by(&self, kind: ActorKind, command: &Command) -> Result<Decision, Rejection> {
        decide::decide(&self.state, command, By { kind, reason: None }, None, &Probed::default(), self.now())
    }

    /// Carries a command out that a person asks for with a reason.
    pub(crate) fn ask_because(&mut self, reason: &str, command: &Command) -> Decision {
        let by = By { kind: ActorKind::Person, reason: Some(reason) };
        let decision = decide::decide(&self.state, command, by, None, &Probed::default(), self.now());
        let decision = decision.unwrap_or_else(|no| panic!("{command:?}: {no}"));
        self.commit(decision.clone());
        decision
    }

    /// Decides a command that was asked under `fence`.
    pub(crate) fn decide_under(&self, command: &Command, fence: Fence) -> Result<Decision, Rejection> {
        decide::decide(&self.state, command, By::PERSON, Some(fence), &Probed::default(), self.now())
    }

    /// Decides a command when the newest probes say so.
    pub(crate) fn decide_seeing(&self, command: &Command, probed: &Probed) -> Result<Decision, Rejection> {
        let reason = matches!(command, Command::Hold(_)).then_some("nobody is on call");
        decide::decide(&self.state, command, By { reason, ..By::PERSON }, None, probed, self.now())
    }

    /// Returns what probes say when a node of each of `passing` passes its check, and none of each of `failing`.
    pub(crate) fn probed(&self, passing: &[&str], failing: &[&str]) -> Probed {
        let mut probed = Probed::default();
        passing.iter().for_each(|text| probed.passes(self.stack(text)));
        failing.iter().for_each(|text| probed.fails(self.stack(text), "connection refused".to_owned()));
        probed
    }

    /// Returns what probes say when no node of the rollback's target passes its check, and one of each other stack does.
    pub(crate) fn dead_target(&self) -> Probed {
        let mut probed = Probed::default();
        let Some(deployment) = self.state.deployment(&id()) else { return probed };
        let target = target::target(deployment).and_then(|target| target.stack());
        deployment.stacks.keys().filter(|stack| Some(**stack) != target).for_each(|stack| probed.passes(*stack));
        target.into_iter().for_each(|stack| probed.fails(stack, "connection refused".to_owned()));
        probed
    }

    /// Carries a command out that must be possible.
    pub(crate) fn ask(&mut self, command: Command) -> Decision {
        let decision = self.decide(&command).unwrap_or_else(|no| panic!("{command:?}: {no}"));
        self.commit(decision.clone());
        decision
    }

    /// Carries a pipeline's command out that must be possible.
    pub(crate) fn ask_by_pipeline(&mut self, command: &Command) -> Decision {
        let decision = self.decide_by(ActorKind::Pipeline, command).unwrap_or_else(|no| panic!("{command:?}: {no}"));
        self.commit(decision.clone());
        decision
    }

    /// Decides what a worker concludes, as it would be now.
    pub(crate) fn decide_outcome(&self, outcome: &DeploymentOutcome) -> Result<Decision, Rejection> {
        let outcome = Outcome::Deployment(outcome::DeploymentReport { deployment: id(), outcome: outcome.clone() });
        decide::decide_outcome(&self.state, &outcome, self.now())
    }

    /// Records what a worker concludes, which must be so.
    pub(crate) fn report(&mut self, outcome: DeploymentOutcome) -> Decision {
        let decision = self.decide_outcome(&outcome).unwrap_or_else(|no| panic!("{outcome:?}: {no}"));
        self.commit(decision.clone());
        decision
    }

    /// Folds a decision's events as one commit, a millisecond later.
    pub(crate) fn commit(&mut self, decision: Decision) {
        if decision.events.is_empty() {
            return;
        }
        self.commits += 1;
        let commit = CommitId(Uuid::from_u128(self.commits));
        let streams: BTreeSet<Stream> = decision.events.iter().map(|(on, _)| on.clone()).collect();
        for stream in streams {
            let version = self.versions.entry(stream).or_default();
            *version = version.next();
        }
        for (stream, event) in &decision.events {
            let at = At { time: self.time, commit, version: self.versions[stream] };
            self.state.evolve(stream, event, &at);
            self.kinds_seen.push(event.kind());
        }
        self.pass_ms(1);
    }

    pub(crate) fn deployment(&self) -> &Deployment {
        self.state.deployment(&id()).expect("a deployment")
    }

    /// Returns the version's newest stack, or the one of this name.
    pub(crate) fn stack(&self, text: &str) -> StackId {
        let name = stack_name(text);
        let is_it = |stack: &Stack| name.means(&stack.version, stack.number);
        let of_version = self.deployment().stacks.iter().filter(|(_, stack)| is_it(stack));
        of_version.max_by_key(|(_, stack)| stack.requested_at).map(|(id, _)| *id).expect("a stack")
    }

    pub(crate) fn stack_state(&self, text: &str) -> &Stack {
        &self.deployment().stacks[&self.stack(text)]
    }

    /// Returns the weights that are set, by stack.
    pub(crate) fn weights(&self) -> BTreeMap<String, u16> {
        let deployment = self.deployment();
        let weights = deployment.traffic.set.iter().flat_map(|set| set.weights.iter());
        weights
            .map(|(stack, weight)| (deployment.name_of(stack).unwrap().to_string(), weight.basis_points() / 100))
            .collect()
    }

    /// Asks for a stack and lets the provisioner bring it up.
    pub(crate) fn deploy(&mut self, text: &str) {
        self.ask(new(text));
        self.bring_up(text);
    }

    /// Lets the provisioner bring a stack up whose one node is missing, until it is ready.
    pub(crate) fn bring_up(&mut self, text: &str) -> Decision {
        self.launch(text);
        self.report(DeploymentOutcome::StackReady(outcome::StackReady { stack: self.stack(text) }))
    }

    /// Lets the provisioner launch a stack's one node, until that is ready.
    pub(crate) fn launch(&mut self, text: &str) {
        self.start_launch(text);
        let effect = self.launched(text);
        self.report(DeploymentOutcome::NodeReady(outcome::NodeReady { effect }));
    }

    /// Lets the node run whose launch has begun.
    pub(crate) fn launched(&mut self, text: &str) -> EffectId {
        let effect = self.stack_state(text).nodes[&0].effect;
        let address = "127.0.0.1:4000".parse().unwrap();
        self.report(DeploymentOutcome::Launched(outcome::Launched {
            effect,
            address,
            instance: "process 1".to_owned(),
        }));
        effect
    }

    /// Lets the provisioner begin to launch a stack's one node.
    pub(crate) fn start_launch(&mut self, text: &str) -> EffectId {
        let stack = self.stack(text);
        let attempt = self.stack_state(text).attempts.get(&0).copied().unwrap_or(0);
        let effect = EffectId::of_launch(self.state.ledger.unwrap(), stack, 0, attempt);
        self.report(DeploymentOutcome::StartLaunch(outcome::StartLaunch {
            stack,
            slot: 0,
            attempt,
            effect,
            port: 4_000,
        }));
        effect
    }

    /// Lets the stack's node go.
    pub(crate) fn lose_node(&mut self, text: &str) {
        let effect = self.stack_state(text).nodes[&0].effect;
        self.report(DeploymentOutcome::NodeLost(outcome::NodeLost { effect, reason: "it exited".to_owned() }));
    }

    /// Lets the stack's node go, so that the stack is unhealthy.
    pub(crate) fn fall_ill(&mut self, text: &str) {
        self.lose_node(text);
        self.report(DeploymentOutcome::StackUnhealthy(outcome::StackUnhealthy { stack: self.stack(text) }));
    }

    /// Lets the router confirm what is set.
    pub(crate) fn applied(&mut self) {
        self.confirm();
    }

    /// Lets the router confirm what is set, and returns what is recorded of it.
    pub(crate) fn confirm(&mut self) -> Decision {
        let set = self.deployment().traffic.set.clone().expect("weights");
        self.report(DeploymentOutcome::WeightsApplied(outcome::WeightsApplied {
            generation: set.version,
            weights: set.weights,
            listening: None,
        }))
    }

    /// Sets weights by hand and lets the router confirm them.
    pub(crate) fn serve(&mut self, shares: &[(&str, u16)]) {
        self.ask(traffic(shares, false));
        self.applied();
    }

    /// Takes a stack down that is no longer used, with all that leads there.
    pub(crate) fn collect(&mut self, text: &str) {
        self.pass_ms(2 * 24 * 3_600_000);
        let stack = self.stack(text);
        self.report(DeploymentOutcome::StartCollection(outcome::StartCollection {
            stack,
            reason: "unused".to_owned(),
        }));
        let nodes: Vec<EffectId> = self.stack_state(text).nodes.values().map(|node| node.effect).collect();
        nodes
            .into_iter()
            .for_each(|effect| drop(self.report(DeploymentOutcome::NodeStopped(outcome::NodeStopped { effect }))));
        self.report(DeploymentOutcome::Collected(outcome::Collected { stack }));
    }

    /// Lets the judge begin to listen to the rollout, with a long past of a good baseline.
    pub(crate) fn begin(&mut self) -> Decision {
        self.report(DeploymentOutcome::BeginJudging(outcome::BeginJudging { begun: self.begun() }))
    }

    /// Returns what the judge would be told of the rollout beforehand.
    pub(crate) fn begun(&self) -> Begun {
        let rollout = self.deployment().rollout.as_ref().expect("a rollout");
        Begun {
            rollout: rollout.id,
            rule: judge::RULE.to_owned(),
            plan: rollout.plan.clone(),
            policy: rollout.policy.judgement.clone(),
            half_life_s: 600,
            history: vec![Some(Tally { requests: 100_000, hits: 100, beyond: 100 })],
        }
    }

    /// Returns what the shifter would say of the rollout's next step, when both versions had so many requests and
    /// errors since what is recorded.
    pub(crate) fn next_step(&self, baseline: (u64, u64), canary: (u64, u64)) -> DeploymentOutcome {
        let rollout = self.deployment().rollout.as_ref().expect("a rollout");
        let step = rollout.next_step().expect("a step that is left");
        let (counted, judged) = if rollout.step.is_some() { self.look(baseline, canary) } else { (None, None) };
        DeploymentOutcome::TakeStep(outcome::TakeStep { rollout: rollout.id, step, counted, judged })
    }

    /// Returns a second of so many more requests and errors, shared out as they should be, and what the judge says
    /// after it.
    pub(crate) fn look(&self, baseline: (u64, u64), canary: (u64, u64)) -> (Option<Counted>, Option<Judged>) {
        let share = (canary.0 * 10_000).checked_div(baseline.0 + canary.0).unwrap_or(1_000).clamp(1, 9_999);
        self.look_under(Weight::from_basis_points(share as u16).unwrap(), baseline, canary)
    }

    /// The same, with the canary's share of the requests as it was set.
    pub(crate) fn look_under(
        &self,
        share: Weight,
        baseline: (u64, u64),
        canary: (u64, u64),
    ) -> (Option<Counted>, Option<Judged>) {
        let rollout = self.deployment().rollout.as_ref().expect("a rollout");
        let analysis = self.state.judgements.get(&id()).and_then(|judgements| judgements.of(rollout.id));
        let Some(mut analysis) = analysis.cloned() else { return (None, None) };
        let node = |(requests, hits)| {
            let tally = Tally { requests, hits, beyond: hits };
            vec![NodeTally { node: 0, age_ms: 3_600_000, counts: vec![tally] }]
        };
        let tick = Tick { ms: 1_000, share, edges: vec![None], baseline: node(baseline), canary: node(canary) };
        let (first, known) = (analysis.judge().ticks(), !analysis.nodes().0.is_empty());
        let nodes = |n| if known { vec![] } else { vec![EffectId(Uuid::from_u128(n))] };
        let (baseline_nodes, canary_nodes) = (nodes(1), nodes(2));
        let counted = Counted { rollout: rollout.id, first, baseline_nodes, canary_nodes, ticks: vec![tick] };
        analysis.take(&counted);
        let judged = step::judged_of(self.deployment(), rollout, &analysis);
        (Some(counted), judged)
    }

    /// Waits until the next step is due and takes it after good requests to both.
    pub(crate) fn step(&mut self) -> Decision {
        self.pass_ms(500_000);
        self.report(self.next_step((900, 0), (100, 0)))
    }

    /// Sends the canary back as the judge says, after bad requests to it.
    pub(crate) fn send_back(&mut self) -> Decision {
        let rollout = self.deployment().rollout.as_ref().expect("a rollout").id;
        let (counted, judged) = self.look((900, 0), (100, 50));
        self.report(DeploymentOutcome::SendBack(outcome::SendBack {
            rollout,
            reason: "worse".to_owned(),
            counted,
            judged,
            probed: Probed::default(),
        }))
    }
}

/// Returns the events of a decision that are of `kind`.
pub(crate) fn events_of<'a>(decision: &'a Decision, kind: &str) -> Vec<&'a Event> {
    decision.events.iter().map(|(_, event)| event).filter(|event| event.kind() == kind).collect()
}
