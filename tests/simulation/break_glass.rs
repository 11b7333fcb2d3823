//! Break glass: rollbacks past a log that is silent, the files that keep them, and what becomes of them when it is back.

use ledger::decision::Now;
use ledger::execute::{Asked, EmergencyDecision, Refusal, What, decide_emergency};
use schemas::break_glass::Intent;
use schemas::command::{self, Command};
use schemas::envelope::{About, CommandRef};
use schemas::{CommandId, CommitId, Probed};
use workers::break_glass::{
    Facts, Outside, Progress, Step, after_record, generation_above, is_done, is_expired, next, routes_back,
};
use workers::effect::Effect;
use workers::traffic::{Entry, Routes};

use crate::network::{Begun, Owner, Settled, Settling};
use crate::people::Request;
use crate::probes::leaves_the_dead;
use crate::process::{Pending, Pid};
use crate::world::{Event, Ms, SECOND, World};

/// How long a rollback waits for its verdict. As the product has it.
pub const PATIENCE: Ms = 2 * SECOND;

impl World {
    /// The log answers nobody for a while, and keeps nothing.
    pub fn silence_the_log(&mut self) {
        self.silent_until = self.now + self.dice.range(4 * SECOND, 40 * SECOND);
        self.trace.add(self.now, format_args!("the log is silent for a while"));
        // Somebody needs a rollback just then, more often than not.
        if self.dice.chance(700)
            && let Some(id) = self.dice.pick(&crate::people::deployments()).cloned()
        {
            self.ask(
                Command::Rollback(command::Rollback { deployment: id, unready: false }),
                schemas::Fence::default(),
            );
        }
    }

    /// A rollback has waited long enough: without a verdict it goes on without.
    pub fn break_glass(&mut self, pid: Pid, request: usize) {
        let owner = Owner::Request(request);
        if !self.settlings.values().any(|settling| settling.pid == pid && settling.owner == owner) {
            return;
        }
        let Some(process) = self.processes.get(&pid) else { return };
        let (host, name, clock, view) =
            (process.host, process.name.clone(), process.clock, self.log.view(process.seen));
        let Request { id, command, actor, .. } = self.people.requests[request].clone();
        let Some(deployment) = command.deployment().cloned() else { return };
        let waits = |intent: &Intent| intent.deployment == deployment && view.command(intent.command.id).is_none();
        let known = &self.hosts[host].intents;
        if known.values().any(|kept| waits(&kept.intent)) || known.contains_key(&id) {
            return;
        }
        let reference = CommandRef { id, hash: command.hash() };
        let what = What::Command { command, fence: None, probed: Probed::default() };
        let mut asked = Asked { command: Some(reference), what, about: About::by(actor.clone()) };
        self.probe_for(&mut asked, &view);
        let Ok(time) = clock.decides(self.now, &view, true) else { return };
        let now = Now { time, commit: CommitId(self.dice.uuid(self.now)) };
        let Ok(EmergencyDecision::Back(mut intent)) = decide_emergency(&view, &asked, now) else { return };
        if let (What::Command { probed, .. }, Some(of)) = (&asked.what, view.state().deployment(&deployment)) {
            if leaves_the_dead(of, probed) {
                self.checks.leaves_the_dead_without(id);
            }
            if !asked.is_unready() {
                self.check_target(&deployment.to_string(), of, intent.to, probed);
            }
        }
        let routes = routes_back(view.state(), &intent);
        let mut nodes = routes.iter().flat_map(|routes| routes.backends.values()).flat_map(|of| &of.nodes);
        if !asked.is_unready() && routes.is_some() && nodes.all(|node| self.cloud.is_gone(node.effect, self.now)) {
            return self.trace.add(self.now, format_args!("{name} finds no node of {} there", intent.version));
        }
        let emergency_count = view.state().deployment(&deployment).map_or(0, |of| of.emergency_count);
        let entry = self.entry(&intent);
        if entry.as_ref().is_some_and(|entry| is_done(&intent, entry, emergency_count)) {
            return;
        }
        intent.generation = generation_above(&intent, emergency_count, entry.as_ref().map(Entry::generation));
        self.trace
            .add(self.now, format_args!("{name} rolls {deployment} back without the ledger, to {}", intent.version));
        self.tally.break_glass += 1;
        self.checks.break_glass_begun(&intent, &actor, self.now);
        let written = self.calm || !self.dice.chance(100);
        self.hosts[host].intents.insert(id, Pending { intent: (*intent).clone(), written });
        // Whoever asked is told so, and does not ask again.
        if self.dice.chance(800) {
            let told = Refusal::Indeterminate { id, why: "it was carried out without the ledger".to_owned() };
            self.people.requests[request].end.get_or_insert(Err(told));
        }
        let soon = self.dice.range(SECOND, 3 * SECOND);
        self.after(soon, Event::Keep(host));
        if !self.calm && self.dice.chance(60) {
            return self.crash(pid, "its intent is written, and the weights did not move");
        }
        if let Some(routes) = routes {
            let routes = Routes { generation: intent.generation, ..routes };
            self.send_call(pid, &name, Effect::Route(Box::new(routes)));
        }
        if !self.calm && self.dice.chance(60) {
            self.crash(pid, "it rolled back without the ledger, which does not know yet");
        }
    }

    /// A host settles what was done without the ledger, as far as it can.
    pub fn keep_break_glass(&mut self, host: usize) {
        if self.hosts[host].intents.is_empty() {
            return;
        }
        let again = self.dice.range(SECOND, 3 * SECOND);
        self.after(again, Event::Keep(host));
        let Some(pid) = self.hosts[host].process else { return };
        let ids: Vec<_> = self.hosts[host].intents.keys().copied().collect();
        for id in ids {
            self.settle_break_glass(host, pid, id);
        }
    }

    /// Does the next step about one of them, as the product says.
    fn settle_break_glass(&mut self, host: usize, pid: Pid, id: CommandId) {
        let Some(Pending { intent, written }) = self.hosts[host].intents.get(&id) else { return };
        let (intent, written) = (intent.clone(), *written);
        let Some(process) = self.processes.get(&pid) else { return };
        let view = self.log.view(process.seen);
        let open = |settling: &Settling| settling.asked.command.is_some_and(|command| command.id == id);
        let appending = self.settlings.values().any(|settling| settling.pid == pid && open(settling));
        // Only who is at the log's end knows what came of the append that got no verdict.
        let away = self.now < self.silent_until || process.cut_until > self.now || process.seen < self.log.end();
        let log = if away { Err("the log does not answer".to_owned()) } else { Ok(()) };
        let facts = Facts { outside: Some(Outside { log, entry: self.entry(&intent) }), ..Facts::of(&view, &intent) };
        let expired = is_expired(&intent, process.wall(self.now));
        let mut step = next(&intent, Progress { written, moved: false, appending, expired }, &facts);
        if step == Step::Write {
            if (self.calm || !self.dice.chance(300))
                && let Some(kept) = self.hosts[host].intents.get_mut(&id)
            {
                kept.written = true;
            }
            step = next(&intent, Progress { written: true, moved: false, appending, expired }, &facts);
        }
        match step {
            Step::Record { generation, moved } => {
                let asked = Asked::late(&intent, generation, moved);
                let settling = Settling::new(process, Owner::Reconciler(host, id), asked, true, true);
                if let Begun::Ended(answer) = self.begin(settling, &view) {
                    self.break_glass_recorded(host, id, &answer);
                }
            }
            Step::Move => {
                let name = process.name.clone();
                let Some(routes) = routes_back(view.state(), &intent) else { return };
                let mut nodes = routes.backends.values().flat_map(|of| &of.nodes);
                if nodes.all(|node| self.cloud.is_gone(node.effect, self.now)) {
                    return;
                }
                self.trace.add(self.now, format_args!("{name} moves the weights of {} late", intent.deployment));
                self.send_call(pid, &name, Effect::Route(Box::new(routes)));
            }
            Step::PutAway => {
                let recorded = self.log.last().command(id).is_some();
                self.checks.put_away(id, recorded);
                self.put_away(host, id);
            }
            // Somebody sent two commands under one id.
            Step::SetAside(_) if view.command(id).is_some_and(|done| done.hash != intent.command.hash) => {
                self.hosts[host].intents.remove(&id);
            }
            Step::SetAside(why) => {
                self.checks.fail(9, format!("a rollback without the ledger was set aside: {why}"));
            }
            Step::Write | Step::Look | Step::Wait(_) => {}
        }
    }

    /// The ledger has answered to what was to be recorded.
    pub fn break_glass_recorded(&mut self, host: usize, id: CommandId, answer: &Result<Settled, Refusal>) {
        match after_record(answer) {
            Step::PutAway => {
                let recorded = self.log.last().command(id).is_some();
                self.checks.put_away(id, recorded);
                self.put_away(host, id);
            }
            // Somebody sent two commands under one id.
            Step::SetAside(_) if matches!(answer, Err(Refusal::OtherContent { .. })) => self.put_away(host, id),
            Step::SetAside(why) => {
                self.checks.fail(9, format!("a rollback without the ledger cannot be recorded: {why}"));
            }
            _ => {}
        }
    }

    /// The router took routes: whoever sent them for a rollback without the ledger notes that.
    pub fn note_moved(&mut self, routes: &Routes) {
        let kept = self.hosts.iter_mut().flat_map(|host| host.intents.values_mut());
        for kept in kept
            .filter(|kept| kept.intent.deployment == routes.deployment && kept.intent.generation == routes.generation)
        {
            kept.intent.moved_at = Some(kept.intent.at);
        }
    }

    fn put_away(&mut self, host: usize, id: CommandId) {
        self.hosts[host].intents.remove(&id);
    }

    fn entry(&self, intent: &Intent) -> Option<Entry> {
        let hears = self.now >= self.cloud.router.deaf_until;
        hears.then(|| self.cloud.router.entries.get(&intent.deployment).cloned()).flatten()
    }
}
