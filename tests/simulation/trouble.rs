//! Trouble: what goes wrong by itself, now and then.

use bytes::Bytes;
use schemas::{Actor, ActorKind, CommitId, EffectId, Hash, Weights};
use workers::traffic::Entry;

use crate::cloud::EndedBy;
use crate::process::Pid;
use crate::world::{Event, SECOND, World, time_at};

impl World {
    /// Something goes wrong.
    pub fn trouble(&mut self) {
        if self.calm {
            return;
        }
        let next = self.dice.range(5 * SECOND, 40 * SECOND);
        self.after(next, Event::Trouble);
        let seconds = |world: &mut World, from, to| world.now + world.dice.range(from * SECOND, to * SECOND);
        match self.dice.range(0, 111) {
            0..26 => self.kill_somebody(),
            26..30 => self.kill_a_target(),
            30..42 => self.cut_somebody_off(),
            42..54 => self.kill_a_node(),
            54..64 => self.make_a_node_sick(),
            64..69 => {
                self.cloud.flow(self.now);
                self.cloud.router.restart(self.now);
                self.trace.add(self.now, format_args!("the router starts anew"));
            }
            69..76 => {
                self.cloud.router.deaf_until = seconds(self, 3, 60);
                self.trace.add(self.now, format_args!("the router is deaf for a while"));
            }
            76..81 => {
                self.blind_until = seconds(self, 3, 40);
                self.trace.add(self.now, format_args!("the nodes cannot be looked at for a while"));
            }
            81..84 => self.silence_the_log(),
            84..88 => {
                self.slow_until = seconds(self, 3, 30);
                self.trace.add(self.now, format_args!("the log is slow for a while"));
            }
            88..93 => {
                let noise = format!("{{\"no\":\"commit {}\"}}", self.number());
                self.keep(Bytes::from(noise));
            }
            93..96 => self.write_from_the_future(),
            96..100 => self.turn_the_router_by_hand(),
            100..106 => self.stop_somebody(),
            _ => self.set_a_clock(),
        }
    }

    /// A newer program writes what ours does not know, to a stream that nobody else uses.
    fn write_from_the_future(&mut self) {
        let (stream, view) = ("service/alien", self.log.last());
        let head = view.ruler().head(stream);
        let (id, command) = (self.dice.uuid(self.now), self.dice.uuid(self.now));
        let (time, hash) = (time_at(self.now), Hash::of(b"x"));
        let bytes = format!(
            r#"{{"rule":1,"id":"{id}","command":{{"id":"{command}","hash":"{hash}"}},"time":"{time}","extends":[{{"stream":"{stream}","version":{},"hash":"{}"}}],"requires":[],"events":[{{"stream":"{stream}","type":"service.teleported","v":1,"data":{{}}}}],"about":{{"actor":{{"kind":"person","name":"eve","proof":"unix-peer uid=1001"}}}}}}"#,
            head.version, head.hash
        );
        let actor = Actor { kind: ActorKind::Person, name: "eve".to_owned(), proof: "unix-peer uid=1001".to_owned() };
        self.checks.drafted(CommitId(id), actor, false);
        self.keep(Bytes::from(bytes));
    }

    fn kill_somebody(&mut self) {
        let pids: Vec<Pid> = self.processes.keys().copied().collect();
        if let Some(pid) = self.dice.pick(&pids) {
            self.crash(*pid, "it is killed");
        }
    }

    /// It hears nothing of the log and goes on acting on what it knows.
    fn cut_somebody_off(&mut self) {
        let pids: Vec<Pid> = self.processes.keys().copied().collect();
        let Some(pid) = self.dice.pick(&pids).copied() else { return };
        let until = self.now + self.dice.range(2 * SECOND, 90 * SECOND);
        if let Some(process) = self.processes.get_mut(&pid) {
            process.cut_until = until;
            self.trace.add(self.now, format_args!("{} hears nothing of the log for a while", process.name));
        }
        // What it misses it folds once it hears again.
        let end = self.log.end();
        self.after(until - self.now, Event::Folded(pid, end));
    }

    /// It does nothing for a while, and then goes on as if nothing had happened.
    fn stop_somebody(&mut self) {
        let pids: Vec<Pid> = self.processes.keys().copied().collect();
        let Some(pid) = self.dice.pick(&pids).copied() else { return };
        let until = self.now + self.dice.range(SECOND, 90 * SECOND);
        if let Some(process) = self.processes.get_mut(&pid) {
            process.still_until = until;
            process.stood_still.get_or_insert(self.now);
            self.trace.add(self.now, format_args!("{} stands still for a while", process.name));
        }
    }

    fn some_node(&mut self) -> Option<EffectId> {
        let now = self.now;
        let running: Vec<EffectId> =
            self.cloud.nodes.iter().filter(|(_, node)| node.runs(now)).map(|(effect, _)| *effect).collect();
        self.dice.pick(&running).copied()
    }

    fn kill_a_node(&mut self) {
        if let Some(effect) = self.some_node() {
            self.die(effect);
        }
    }

    /// A node ends by itself, or vanishes with its host.
    pub fn die(&mut self, effect: EffectId) {
        let (now, vanishes) = (self.now, self.dice.chance(300));
        self.cloud.flow(now);
        let Some(node) = self.cloud.nodes.get_mut(&effect).filter(|node| node.runs(now)) else { return };
        node.ended = Some((now, EndedBy::Cloud));
        if vanishes {
            node.removed_at = Some(now);
        }
        let (of, version) = (&node.launch.deployment, &node.launch.version);
        self.trace.add(now, format_args!("node {effect} of {of} {version} dies"));
    }

    fn make_a_node_sick(&mut self) {
        let Some(effect) = self.some_node() else { return };
        let until = self.now + self.dice.range(5 * SECOND, 60 * SECOND);
        if let Some(node) = self.cloud.nodes.get_mut(&effect) {
            node.sick = (self.now, until);
            self.trace.add(self.now, format_args!("node {effect} is sick for a while"));
        }
    }

    /// Somebody changes what the router serves, past us: all of it to one of the stacks it knows.
    fn turn_the_router_by_hand(&mut self) {
        self.cloud.flow(self.now);
        let held = self.cloud.router.entries.values_mut().filter_map(|entry| match entry {
            Entry::Routed(held) => Some(held),
            Entry::Retired { .. } => None,
        });
        let mut split: Vec<_> = held.filter(|held| held.routes.backends.len() > 1).collect();
        let n = usize::try_from(self.dice.range(0, split.len() as u64)).unwrap_or(0);
        let Some(held) = split.get_mut(n) else { return };
        let stacks: Vec<_> = held.routes.backends.keys().copied().collect();
        if let Some(stack) = self.dice.pick(&stacks) {
            held.routes.weights = Weights::all_on(*stack);
            self.checks.turned_by_hand(&held.routes, self.now);
            self.trace.add(self.now, format_args!("somebody turns {} to {stack} by hand", held.routes.deployment));
        }
    }
}
