//! The network to the log: appends that are late, doubled, lost or left without an answer, and the verdicts on them.

use std::rc::Rc;

use bytes::Bytes;
use ledger::decision::Now;
use ledger::execute::{Asked, Prepared, Refusal};
use ledger::log::memory::MemoryLog;
use ledger::view::{Folded, View};
use schemas::envelope::{COMMIT_BYTES_MAX, CommandRef};
use schemas::{CommandId, CommitId, DeploymentId, Offset};

use crate::clocks::Clock;
use crate::process::{Pid, Process};
use crate::tally::Point;
use crate::world::{Event, Ms, SECOND, World, time_at};

/// How long a commit may stay without a verdict. As the product has it.
const VERDICT_MAX: Ms = 10 * SECOND;

/// The log, and its fold at every offset. Folding is a function of the bytes alone, which the checks prove at the end
/// of each run by folding them anew, so that readers who stand at the same offset share one view.
#[derive(Default)]
pub struct Kept {
    log: MemoryLog,
    views: Vec<Rc<View>>,
}

impl Kept {
    /// Returns the offset of the next record.
    pub fn end(&self) -> usize {
        self.views.len()
    }

    /// Returns the view of a reader that has folded `seen` records, or what is left of them.
    pub fn view(&self, seen: usize) -> Rc<View> {
        Rc::clone(&self.views[seen.min(self.views.len()) - 1])
    }

    /// Returns the view at the log's end.
    pub fn last(&self) -> Rc<View> {
        self.view(self.end())
    }

    /// Loses all but the first `records`.
    fn cut(&mut self, records: usize) {
        let kept: Vec<Bytes> = self.read().into_iter().take(records).collect();
        self.log = MemoryLog::default();
        for bytes in kept {
            self.log.push(bytes);
        }
        self.views.truncate(records);
    }

    /// Returns every record's bytes.
    pub fn read(&self) -> Vec<Bytes> {
        self.log.records(Offset(0)).into_iter().map(|record| record.bytes).collect()
    }
}

/// Somebody's append, until its verdict.
pub struct Settling {
    pub pid: Pid,
    pub owner: Owner,
    pub asked: Asked,
    /// Whether it is decided again on a conflict.
    again: bool,
    rollback: bool,
    /// Effects that this is the first append after.
    pub after: Vec<&'static str>,
    clock: Clock,
    /// When its process began.
    born: Ms,
    commit: Option<(CommitId, CommandRef)>,
    bytes: Bytes,
    offset: Option<usize>,
    sent: u32,
}

/// Whose append it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Owner {
    /// A worker that takes its lease.
    Lease,
    /// A worker that records something about a deployment.
    Outcome(DeploymentId),
    /// A server that carries a request out.
    Request(usize),
    /// A server that records what was done without the ledger.
    Reconciler(usize, CommandId),
}

/// Bytes on their way to the log.
pub struct Landing {
    bytes: Bytes,
    settling: Option<u64>,
    /// Whether the writer gets an answer.
    answered: bool,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settled {
    /// The commit; none if it was already true.
    pub commit: Option<CommitId>,
    /// Whether the same command was carried out before.
    pub repeated: bool,
}

/// How far an append got at once.
pub enum Begun {
    Pending,
    Ended(Result<Settled, Refusal>),
    Crashed,
}

impl Settling {
    pub fn new(process: &Process, owner: Owner, asked: Asked, again: bool, rollback: bool) -> Self {
        let (pid, clock, born) = (process.pid, process.clock, process.born());
        let (after, commit, bytes, offset) = (vec![], None, Bytes::new(), None);
        Self { pid, owner, asked, again, rollback, after, clock, born, commit, bytes, offset, sent: 0 }
    }
}

impl World {
    /// Makes the ledger's first record.
    pub fn make_ledger(&mut self) {
        use schemas::{Actor, ActorKind, CommandId, Event, Hash, LedgerId, Stream, StreamVersion, genesis};
        let (id, ledger) = (CommitId(self.dice.uuid(0)), LedgerId(self.dice.uuid(0)));
        let event: Event = genesis::Created { ledger }.into();
        let actor = Actor { kind: ActorKind::System, name: "ionledger".to_owned(), proof: "makes it".to_owned() };
        let about = schemas::envelope::About::by(actor.clone());
        let draft = schemas::envelope::Draft {
            id,
            command: CommandRef { id: CommandId(ledger.0), hash: Hash::of(event.data().get().as_bytes()) },
            time: time_at(0),
            extends: vec![schemas::envelope::Head {
                stream: Stream::Ledger,
                version: StreamVersion(0),
                hash: Hash::ZERO,
            }],
            requires: vec![],
            events: vec![(Stream::Ledger, event)],
            about,
        };
        self.checks.drafted(id, actor, false);
        self.keep(draft.to_bytes().into());
    }

    /// Decides what is asked on `view` and sends the commit, if there is one.
    pub fn begin(&mut self, mut settling: Settling, view: &View) -> Begun {
        let commit = CommitId(self.dice.uuid(self.now));
        let time = match settling.clock.decides(self.now, view, settling.rollback) {
            Ok(time) => time,
            Err(refusal) => return Begun::Ended(Err(refusal)),
        };
        let now = Now { time, commit };
        self.probe_for(&mut settling.asked, view);
        let draft = match (self.rules.prepare)(view, &settling.asked, now, settling.rollback) {
            Err(refusal) => return Begun::Ended(Err(refusal)),
            Ok(Prepared::Nothing(_)) => return Begun::Ended(Ok(Settled { commit: None, repeated: false })),
            Ok(Prepared::Before(_)) => return Begun::Ended(Ok(Settled { commit: None, repeated: true })),
            Ok(Prepared::Commit(draft, _)) => draft,
        };
        for kind in settling.after.clone() {
            if settling.sent == 0 && self.killed(kind, Point::Append) {
                return Begun::Crashed;
            }
        }
        self.check_going_back(&settling.asked, &draft, view);
        self.checks.drafted(draft.id, settling.asked.about.actor.clone(), settling.rollback);
        self.checks.collects(&draft.events, self.now - settling.born);
        settling.bytes = draft.to_bytes().into();
        if settling.bytes.len() > COMMIT_BYTES_MAX {
            return Begun::Ended(Err(Refusal::TooLarge { bytes: settling.bytes.len() }));
        }
        settling.commit = Some((draft.id, draft.command));
        settling.offset = None;
        settling.sent += 1;
        let (id, sent) = (self.number(), settling.sent);
        self.settlings.insert(id, settling);
        self.after(VERDICT_MAX, Event::GiveUp(id, sent));
        self.send(id);
        Begun::Pending
    }

    fn send(&mut self, id: u64) {
        let Some(bytes) = self.settlings.get(&id).map(|settling| settling.bytes.clone()) else { return };
        let slow = self.now < self.slow_until;
        let delay = if slow { self.dice.range(300, 6_000) } else { self.dice.range(1, 60) };
        let landing = |answered| Box::new(Landing { bytes: bytes.clone(), settling: Some(id), answered });
        if self.now < self.silent_until {
            // Nobody answers. What was sent may be kept once the log is back.
            if self.dice.chance(100) {
                let late = self.silent_until - self.now + delay;
                self.after(late, Event::Land(landing(false)));
            }
            let no_answer = self.dice.range(500, 2_000);
            return self.after(no_answer, Event::Acknowledged(id, None));
        }
        match if self.calm { 1_000 } else { self.dice.range(0, 1_000) } {
            0..20 => {}                                               // lost before it was kept
            20..45 => self.after(delay, Event::Land(landing(false))), // kept, without an answer
            45..60 => {
                let late = self.dice.range(2_000, 40_000);
                self.after(late, Event::Land(landing(false)));
            }
            60..80 => {
                let again = self.dice.range(1, 20_000);
                self.after(delay, Event::Land(landing(true)));
                self.after(delay + again, Event::Land(landing(false)));
                return;
            }
            _ => return self.after(delay, Event::Land(landing(true))),
        }
        let no_answer = self.dice.range(500, 2_000);
        self.after(no_answer, Event::Acknowledged(id, None));
    }

    pub fn resend(&mut self, id: u64) {
        if self.settlings.contains_key(&id) {
            self.send(id);
        }
    }

    /// Bytes reach the log, which puts them in order.
    pub fn land(&mut self, landing: Landing) {
        if self.now < self.silent_until {
            let after = self.silent_until - self.now + self.dice.range(1, 1_000);
            return self.after(after, Event::Land(Box::new(Landing { answered: false, ..landing })));
        }
        let offset = self.keep(landing.bytes);
        let Some(id) = landing.settling.filter(|_| landing.answered) else { return };
        let Some((pid, after)) = self.settlings.get(&id).map(|settling| (settling.pid, settling.after.clone())) else {
            return;
        };
        for kind in after {
            if self.killed(kind, Point::Verdict) {
                return self.crash(pid, "its append landed, its verdict was not seen");
            }
        }
        let is_server = self.hosts.iter().any(|host| host.process == Some(pid) && host.role.is_none());
        if is_server && !self.calm && self.dice.chance(25) {
            self.tally.servers_before_answer += 1;
            return self.crash(pid, "a command was appended, nobody was answered");
        }
        let back = self.dice.range(1, 40);
        self.after(back, Event::Acknowledged(id, Some(offset)));
    }

    /// Bytes that nobody of ours wrote reach the log.
    pub fn keep(&mut self, bytes: Bytes) -> usize {
        let offset = Offset(self.log.end() as u64);
        let stored = (self.rules.keep)(offset, bytes.clone());
        self.log.log.push(stored);
        let stored = self.log.log.records(offset).remove(0).bytes;
        let mut view = self.log.views.last().map(|last| View::clone(last)).unwrap_or_default();
        let before = view.clone();
        let folded = match (self.rules.fold)(&mut view, offset, &stored) {
            Ok(folded) => folded,
            Err(halt) => {
                self.checks.fail(2, format!("a reader halts at {offset}: {halt}"));
                Folded { offset, hash: schemas::Hash::ZERO, time: before.time(), void: None, commit: None }
            }
        };
        self.checks.landed(&bytes, &folded, &before, &view, &self.cloud, self.now);
        match &folded.commit {
            Some(commit) if folded.void.is_none() => {
                let kinds: Vec<&str> = commit.events.iter().map(|read| read.kind.as_str()).collect();
                let (kinds, stream) = (kinds.join(" + "), commit.events.first().map_or("", |read| &read.stream));
                self.trace.add(self.now, format_args!("#{} {stream} {kinds} by {}", offset.0, commit.about.actor.name));
            }
            _ => self.trace.add(self.now, format_args!("#{} void: {:?}", offset.0, folded.void)),
        }
        self.log.views.push(Rc::new(view));
        self.tell_readers();
        self.log.end() - 1
    }

    /// What a kill leaves of the log.
    pub fn survive(&mut self) {
        let left = (self.rules.survive)(self.log.end());
        if left < self.log.end() {
            self.log.cut(left);
            for process in self.processes.values_mut() {
                process.seen = process.seen.min(left);
            }
        }
        self.checks.kept(&self.log);
    }

    fn tell_readers(&mut self) {
        let (end, now) = (self.log.end(), self.now);
        let readers: Vec<(Pid, Ms)> = self.processes.values().map(|reader| (reader.pid, reader.cut_until)).collect();
        for (pid, cut_until) in readers {
            let lag = self.dice.range(1, 80).max(cut_until.saturating_sub(now));
            self.after(lag, Event::Folded(pid, end));
        }
    }

    pub fn acknowledged(&mut self, id: u64, offset: Option<usize>) {
        let Some(settling) = self.settlings.get_mut(&id) else { return };
        let Some(offset) = offset else {
            return if settling.offset.is_none() {
                self.after(50, Event::Resend(id))
            };
        };
        settling.offset.get_or_insert(offset);
        let pid = settling.pid;
        self.judge_settlings(pid);
    }

    /// Gives a verdict on each append of a process that it has folded by now.
    pub fn judge_settlings(&mut self, pid: Pid) {
        loop {
            let Some(seen) = self.processes.get(&pid).map(|process| process.seen) else { return };
            let ripe = |settling: &Settling| settling.pid == pid && settling.offset.is_some_and(|at| at < seen);
            let Some(id) = self.settlings.iter().find(|(_, settling)| ripe(settling)).map(|(id, _)| *id) else {
                return;
            };
            let Some(settling) = self.settlings.remove(&id) else { return };
            let view = self.log.view(seen);
            let Some((commit, command)) = settling.commit else { return };
            let done = view.command(command.id);
            let other = done.is_some_and(|done| done.hash != command.hash);
            let owner = settling.owner.clone();
            let result = if other {
                Err(Refusal::OtherContent { id: command.id })
            } else if let Some(done) = done {
                // Another copy of it may be the one that counts.
                let this = settling.offset == usize::try_from(done.offset.0).ok();
                Ok(Settled { commit: Some(commit), repeated: !this })
            } else if settling.again {
                match self.begin(settling, &view) {
                    Begun::Pending => continue,
                    Begun::Crashed => return self.crash(pid, "before its append"),
                    Begun::Ended(result) => result,
                }
            } else {
                Err(Refusal::Conflict { stream: "a stream".to_owned(), since: "another commit".to_owned() })
            };
            self.settled(pid, owner, result);
        }
    }

    pub fn give_up(&mut self, id: u64, sent: u32) {
        if self.settlings.get(&id).is_none_or(|settling| settling.sent != sent) {
            return;
        }
        let Some(settling) = self.settlings.remove(&id) else { return };
        let Some((_, command)) = settling.commit else { return };
        let why = "none came within 10 s".to_owned();
        self.settled(settling.pid, settling.owner, Err(Refusal::Indeterminate { id: command.id, why }));
    }

    fn settled(&mut self, pid: Pid, owner: Owner, result: Result<Settled, Refusal>) {
        match owner {
            Owner::Lease => self.lease_settled(pid, result.is_ok()),
            Owner::Outcome(id) => self.outcome_settled(pid, &id, &result),
            Owner::Request(request) => self.executed(pid, request, result),
            Owner::Reconciler(host, id) => self.break_glass_recorded(host, id, &result),
        }
    }
}
