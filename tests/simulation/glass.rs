//! Broken glass: rollbacks past a log that is silent, the files that keep them, and what becomes of them when it is back.

use ledger::decide::Now;
use ledger::execute::{Asked, Intended, Refusal, What, intend};
use schemas::command::Command;
use schemas::envelope::{About, CommandRef};
use schemas::glass::Intent;
use schemas::{CommitId, Probed};
use workers::effect::Effect;
use workers::glass::{generation_above, is_done, routes_back};
use workers::traffic::{Entry, Held, Routes};

use crate::network::{Begun, Owner, Settling};
use crate::people::Request;
use crate::process::Pid;
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
            self.ask(Command::Rollback { deployment: id, unready: false }, schemas::Fence::default());
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
        if known.values().any(waits) || known.contains_key(&id) {
            return;
        }
        let about = about(actor.clone(), None);
        let reference = CommandRef { id, hash: command.hash() };
        let what = What::Command { command, fence: None, probed: Probed::default() };
        let mut asked = Asked { command: Some(reference), what, about };
        self.probe_for(&mut asked, &view);
        let Ok(time) = clock.decides(self.now, &view, true) else { return };
        let now = Now { time, commit: CommitId(self.dice.uuid(self.now)) };
        let Ok(Intended::Back(mut intent)) = intend(&view, &asked, now) else { return };
        if let (What::Command { probed, .. }, false) = (&asked.what, asked.is_unready())
            && let Some(of) = view.state().deployment(&deployment)
        {
            self.check_target(&deployment.to_string(), of, intent.to, probed);
        }
        let routes = routes_back(view.state(), &intent);
        let mut nodes = routes.iter().flat_map(|routes| routes.backends.values()).flat_map(|of| &of.nodes);
        if !asked.is_unready() && routes.is_some() && nodes.all(|node| self.cloud.is_gone(node.effect, self.now)) {
            return self.trace.add(self.now, format_args!("{name} finds no node of {} there", intent.version));
        }
        let glass = view.state().deployment(&deployment).map_or(0, |of| of.glass);
        let held = self.held(&intent);
        if held.as_ref().is_some_and(|held| is_done(&intent, held, glass)) {
            return;
        }
        intent.generation = generation_above(&intent, glass, held.map(|held| held.routes.generation));
        self.trace.add(self.now, format_args!("{name} breaks the glass of {deployment}, to {}", intent.version));
        self.tally.glass += 1;
        self.checks.glass_broken(&intent, &actor);
        self.hosts[host].intents.insert(id, (*intent).clone());
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
            self.crash(pid, "it broke the glass, and the ledger does not know");
        }
    }

    /// A host settles what was done without the ledger, as far as it can.
    pub fn keep_glass(&mut self, host: usize) {
        if self.hosts[host].intents.is_empty() {
            return;
        }
        let again = self.dice.range(SECOND, 3 * SECOND);
        self.after(again, Event::Keep(host));
        let Some(pid) = self.hosts[host].process else { return };
        let Some(process) = self.processes.get(&pid) else { return };
        // Only who is at the log's end knows what came of the append that got no verdict.
        if self.now < self.silent_until || process.cut_until > self.now || process.seen < self.log.end() {
            return;
        }
        let view = self.log.view(process.seen);
        self.hosts[host].intents.retain(|id, _| view.command(*id).is_none());
        let ids: Vec<_> = self.hosts[host].intents.keys().copied().collect();
        for id in ids {
            let Some(intent) = self.hosts[host].intents.get(&id).cloned() else { continue };
            let open = |settling: &Settling| settling.asked.command.is_some_and(|command| command.id == id);
            if self.settlings.values().any(|settling| settling.pid == pid && open(settling)) {
                continue;
            }
            let Some(process) = self.processes.get(&pid) else { return };
            let held = self.held(&intent).map(|held| held.routes.generation);
            let generation = held.map_or(intent.generation, |held| held.max(intent.generation));
            let about = about(intent.actor.clone(), Some(intent.at));
            let what = What::Glass { intent: Box::new(intent.clone()), generation };
            let asked = Asked { command: Some(intent.command), what, about };
            let settling = Settling::new(process, Owner::Keeper, asked, true, true);
            if let Begun::Ended(Err(refusal)) = self.begin(settling, &view) {
                self.checks.fail(9, format!("a rollback without the ledger cannot be recorded: {refusal}"));
            }
        }
    }

    fn held(&self, intent: &Intent) -> Option<Held> {
        let hears = self.now >= self.cloud.router.deaf_until;
        hears.then(|| self.cloud.router.entries.get(&intent.deployment).and_then(Entry::held).cloned()).flatten()
    }
}

fn about(actor: schemas::Actor, effective_at: Option<schemas::Timestamp>) -> About {
    About { actor, cause: None, correlation: None, reason: None, traceparent: None, effective_at }
}
