//! Calls: the way from a process to the cloud and back, on which everything can go wrong.

use schemas::{DeploymentId, EffectId, Offset};
use workers::checks::Probe;
use workers::effect::{Done, Effect};
use workers::measures::Failure;
use workers::nodes::{Fault, Observed};
use workers::poll::{Poll, PollResult};
use workers::traffic::routes::Refusal;
use workers::traffic::{ApplyError, HeldRoutes, RouterTrouble};

use crate::process::{News, Pid};
use crate::tally::Point;
use crate::world::{Event, Ms, SECOND, World};

/// A call on its way.
pub struct Call {
    pid: Pid,
    effect: Effect,
    /// Whether its caller hears of its end.
    answered: bool,
}

impl World {
    /// Sends a call to the cloud. What becomes of it, chance decides.
    pub fn send_call(&mut self, pid: Pid, name: &str, effect: Effect) {
        self.trace.add(self.now, format_args!("{name} calls {}", shown(&effect)));
        let is_route = matches!(effect, Effect::Route(_) | Effect::Unroute { .. });
        let there = self.dice.range(1, if is_route { 100 } else { 800 });
        let no_answer = if is_route { SECOND } else { self.dice.range(3 * SECOND, 15 * SECOND) };
        let call = |effect: Effect, answered| Event::Call(Box::new(Call { pid, effect, answered }));
        let timeout = Event::News(pid, Box::new(News::Done(effect.key(), effect.kind(), unanswered(&effect))));
        match if self.calm { 1_000 } else { self.dice.range(0, 1_000) } {
            0..40 => {}                                       // lost on the way there
            40..90 => self.after(there, call(effect, false)), // lost on the way back
            90..150 => {
                let late = self.dice.range(no_answer, if is_route { 30 * SECOND } else { 90 * SECOND });
                self.after(late, call(effect, false));
            }
            150..180 => {
                let again = self.dice.range(1, 60 * SECOND);
                self.after(there + again, call(effect.clone(), false));
                return self.after(there, call(effect, true));
            }
            180..220 => {
                let refused = News::Done(effect.key(), effect.kind(), refused(&effect));
                return self.after(there, Event::News(pid, Box::new(refused)));
            }
            _ => return self.after(there, call(effect, true)),
        }
        self.after(no_answer, timeout);
    }

    /// A call reaches the cloud.
    pub fn call(&mut self, call: Call) {
        let Call { pid, effect, answered } = call;
        self.cloud.flow(self.now);
        let (done, takes) = self.carry_out(&effect);
        if !answered || !self.processes.contains_key(&pid) {
            return;
        }
        if self.killed(effect.kind(), Point::Reply) {
            return self.crash(pid, "its effect was done, the reply was not heard");
        }
        let back = takes + self.dice.range(1, 100);
        self.after(back, Event::News(pid, Box::new(News::Done(effect.key(), effect.kind(), done))));
    }

    /// Does what is asked, and returns what is replied and after what time.
    fn carry_out(&mut self, effect: &Effect) -> (Done, Ms) {
        let now = self.now;
        let done = match effect {
            Effect::Launch(launch) => {
                self.checks.launching(launch, now);
                let unseen = if self.calm || self.dice.chance(800) { 0 } else { self.dice.range(0, 25 * SECOND) };
                Done::Launched(self.cloud.launch(launch, now, unseen))
            }
            Effect::Stop { node, .. } => {
                self.checks.stopping(*node, &self.cloud, now);
                let within = self.dice.range(10, 5 * SECOND);
                let _ = self.cloud.stop(*node, now, within);
                return (Done::Stopped(Ok(())), within);
            }
            Effect::CleanUp { node } => {
                let _ = self.cloud.clean_up(*node, now);
                Done::Other
            }
            Effect::Route(routes) => Done::Routed(self.route(routes)),
            Effect::Unroute { deployment, generation } => {
                if now >= self.cloud.router.deaf_until {
                    let _ = self.cloud.router.remove(&self.rules, deployment, *generation);
                    self.checks.unrouted(deployment, &self.cloud);
                }
                Done::Other
            }
        };
        (done, 0)
    }

    fn route(&mut self, routes: &workers::traffic::Routes) -> Result<HeldRoutes, ApplyError> {
        if self.now < self.cloud.router.deaf_until {
            return Err(unreachable("it is deaf"));
        }
        let applied = self.cloud.router.apply(&self.rules, routes);
        if applied.is_ok() {
            self.checks.routed(routes, &self.cloud, self.now);
            self.note_moved(routes);
        }
        applied.map_err(|refusal| match refusal {
            Refusal::Superseded { held, .. } => ApplyError::Superseded { held },
            other => ApplyError::Refused(other.to_string()),
        })
    }

    /// A poll reaches the cloud, which may be blind, or show what was.
    pub fn look(&mut self, pid: Pid, look: &Poll) {
        let lie = !self.calm && self.dice.chance(60);
        let result = match look {
            Poll::Nodes { ports } => self.look_at_nodes(pid, *ports, lie),
            Poll::Probe { effect, .. } if lie => {
                let probes =
                    [Probe::Unknown { reason: "no route".to_owned() }, Probe::Failed { reason: "timeout".to_owned() }];
                PollResult::Probe(*effect, probes[usize::from(self.dice.chance(300))].clone())
            }
            Poll::Probe { effect, .. } => PollResult::Probe(*effect, self.cloud.probe(*effect, self.now)),
            Poll::Source { asked, .. } => {
                let at = "a source".to_owned();
                let failure = Failure::Unasked { at, reason: "no policy here names one".to_owned() };
                PollResult::Source(asked.deployment.clone(), Err(failure))
            }
            Poll::Router { deployment, measures } => self.look_at_router(deployment, *measures, lie),
        };
        let back = if lie { self.dice.range(1, 3_000) } else { self.dice.range(1, 150) };
        self.after(back, Event::News(pid, Box::new(News::Seen(result))));
    }

    fn look_at_nodes(&mut self, pid: Pid, ports: u16, lie: bool) -> PollResult {
        if self.now < self.blind_until || (lie && self.dice.chance(300)) {
            return PollResult::Nodes(Err(Fault::Unknown("the cloud cannot be looked at".to_owned())), vec![], None);
        }
        let ago = if lie { self.dice.range(0, 25 * SECOND) } else { 0 };
        let mut seen = self.cloud.look(self.now.saturating_sub(ago));
        if lie && self.dice.chance(400) {
            let effects: Vec<EffectId> = seen.keys().copied().collect();
            if let Some(effect) = self.dice.pick(&effects) {
                seen.insert(*effect, Observed::Unknown { reason: "throttled".to_owned() });
            }
        }
        let ports = if ports > 0 { self.cloud.free_ports(ports) } else { vec![] };
        let cut_off = self.processes.get(&pid).is_none_or(|process| process.cut_until > self.now);
        let end = (!cut_off).then(|| Offset(self.log.end() as u64));
        PollResult::Nodes(Ok(seen), ports, end)
    }

    fn look_at_router(&mut self, id: &DeploymentId, measures: bool, lie: bool) -> PollResult {
        if self.now < self.cloud.router.deaf_until || (lie && self.dice.chance(500)) {
            return PollResult::Router(id.clone(), Err(unreachable("it cannot be read")), None);
        }
        self.cloud.flow(self.now);
        let entry = self.cloud.router.entries.get(id).cloned();
        let measured = (measures && !lie).then(|| self.cloud.router.measures(id, self.now)).flatten();
        PollResult::Router(id.clone(), Ok(entry), measured)
    }
}

fn unreachable(cause: &str) -> ApplyError {
    ApplyError::Unreachable(RouterTrouble { what: cause.to_owned(), hint: String::new() })
}

/// What a caller makes of a call without an answer.
fn unanswered(effect: &Effect) -> Done {
    let unknown = || Fault::Unknown("no answer in time".to_owned());
    match effect {
        Effect::Launch(_) => Done::Launched(Err(unknown())),
        Effect::Stop { .. } => Done::Stopped(Err(unknown())),
        Effect::Route(_) => Done::Routed(Err(unreachable("no answer in time"))),
        Effect::CleanUp { .. } | Effect::Unroute { .. } => Done::Other,
    }
}

/// What a caller makes of a call that was not taken.
fn refused(effect: &Effect) -> Done {
    let retryable = || Fault::Retryable("too many requests".to_owned());
    match effect {
        Effect::Launch(_) => Done::Launched(Err(retryable())),
        Effect::Stop { .. } => Done::Stopped(Err(retryable())),
        Effect::Route(_) => Done::Routed(Err(unreachable("connection refused"))),
        Effect::CleanUp { .. } | Effect::Unroute { .. } => Done::Other,
    }
}

fn shown(effect: &Effect) -> String {
    match effect {
        Effect::Launch(l) => {
            format!("launch {} of {} {} place {} attempt {}", l.effect, l.deployment, l.version, l.slot, l.attempt)
        }
        Effect::Stop { node, .. } => format!("stop {node}"),
        Effect::CleanUp { node } => format!("clean-up {node}"),
        Effect::Route(routes) => {
            let shares: Vec<String> = routes
                .weights
                .iter()
                .map(|(stack, weight)| format!("{} {weight}", routes.backends[&stack].version))
                .collect();
            format!("route {} generation {}: {}", routes.deployment, routes.generation, shares.join(", "))
        }
        Effect::Unroute { deployment, generation } => format!("unroute {deployment} generation {generation}"),
    }
}
