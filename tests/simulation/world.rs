//! The world of one run: its time, what is to happen, and who takes part. One seed decides all of it.

use std::collections::BTreeMap;

use schemas::Timestamp;

use crate::calls::Call;
use crate::checks::Checks;
use crate::cloud::Cloud;
use crate::dice::Dice;
use crate::network::{Kept, Landing, Settling};
use crate::people::People;
use crate::process::{Host, News, Pid, Process};
use crate::rules::Rules;
use crate::tally::Tally;
use crate::trace::Trace;
use workers::poll::Poll;

/// Virtual time, in milliseconds from the start of the run.
pub type Ms = u64;

pub const SECOND: Ms = 1_000;
pub const MINUTE: Ms = 60 * SECOND;
pub const HOUR: Ms = 60 * MINUTE;

/// Returns the wall clock's time at `now`.
pub fn time_at(now: Ms) -> Timestamp {
    Timestamp::from_millisecond(1_767_225_600_000 + i64::try_from(now).expect("a run is short")).expect("in range")
}

/// Returns what a clock shows at `now` that is `off` milliseconds ahead.
pub fn wall_at(now: Ms, off: i64) -> Timestamp {
    let off = jiff::SignedDuration::from_millis(off);
    time_at(now).checked_add(off).expect("in range")
}

/// Something that will happen.
pub enum Event {
    /// A host starts its process.
    Start(usize),
    /// A worker looks again, unless something made it look before.
    Wake(Pid, u64),
    /// A worker's effect reaches the cloud.
    Call(Box<Call>),
    /// A worker's poll reaches the cloud.
    Look(Pid, Box<Poll>),
    /// A worker hears something.
    News(Pid, Box<News>),
    /// Bytes reach the log.
    Land(Box<Landing>),
    /// The log's answer to an append reaches its writer: the offset, or no answer in time.
    Acknowledged(u64, Option<usize>),
    /// A writer sends the same bytes again.
    Resend(u64),
    /// A writer waits for a verdict no longer.
    GiveUp(u64, u32),
    /// A reader has folded the log up to an offset.
    Folded(Pid, usize),
    /// A request reaches a server.
    Arrive { request: usize, host: usize },
    /// An answer reaches who asked.
    Answer(usize, Box<crate::people::Reply>),
    /// Who asked has no answer yet.
    Nag(usize, u32),
    /// A rollback has waited long enough for its verdict.
    BreakGlass(Pid, usize),
    /// A host settles what was done without the ledger.
    Keep(usize),
    /// Somebody wants something.
    Want,
    /// Something goes wrong.
    Trouble,
    /// Somebody sets a host's clock right.
    ClockRight(usize),
    /// The checks that depend on time alone.
    Tick,
}

/// A run.
pub struct World {
    pub now: Ms,
    pub dice: Dice,
    pub rules: Rules,
    pub trace: Trace,
    pub tally: Tally,
    pub log: Kept,
    pub cloud: Cloud,
    pub hosts: Vec<Host>,
    pub processes: BTreeMap<Pid, Process>,
    pub settlings: BTreeMap<u64, Settling>,
    pub people: People,
    pub checks: Checks,
    /// Nothing goes wrong any more.
    pub calm: bool,
    /// Looks at nodes fail until then.
    pub blind_until: Ms,
    /// Appends take long until then.
    pub slow_until: Ms,
    /// The log answers nobody until then.
    pub silent_until: Ms,
    /// Nobody is killed around an effect of this kind until then.
    pub spared: BTreeMap<&'static str, Ms>,
    queue: BTreeMap<(Ms, u64), Event>,
    numbers: u64,
}

impl World {
    pub fn new(seed: u64, rules: Rules, keep_trace: bool) -> Self {
        let mut dice = Dice::new(seed);
        let requests_per_s = dice.range(20, 200);
        let mut world = Self {
            now: 0,
            dice,
            rules,
            trace: Trace::new(keep_trace),
            tally: Tally::default(),
            log: Kept::default(),
            cloud: Cloud::new(requests_per_s),
            hosts: Host::all(),
            processes: BTreeMap::new(),
            settlings: BTreeMap::new(),
            people: People::default(),
            checks: Checks::default(),
            calm: false,
            blind_until: 0,
            slow_until: 0,
            silent_until: 0,
            spared: BTreeMap::new(),
            queue: BTreeMap::new(),
            numbers: 0,
        };
        world.make_ledger();
        for host in 0..world.hosts.len() {
            let first = world.hosts[host].is_first;
            let after = if first { world.dice.range(0, 500) } else { world.dice.range(MINUTE, 20 * MINUTE) };
            world.after(after, Event::Start(host));
        }
        world.after(1_000, Event::Want);
        world.after(20 * SECOND, Event::Trouble);
        world.after(10 * SECOND, Event::Tick);
        world
    }

    /// Lets `event` happen `ms` from now.
    pub fn after(&mut self, ms: Ms, event: Event) {
        let n = self.number();
        self.queue.insert((self.now + ms, n), event);
    }

    /// Returns a number that was never returned before.
    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Lets the next thing happen. Returns false once a check has failed.
    pub fn step(&mut self) -> bool {
        let ((at, _), event) = self.queue.pop_first().expect("somebody always waits for something");
        self.now = at;
        match self.stands_still(&event) {
            // In the order in which it would have come.
            Some(until) => self.after(until - at, event),
            None => self.happen(event),
        }
        self.checks.users(&mut self.cloud, self.now);
        self.checks.broken.is_none()
    }

    /// Until when whoever is to do something about an event stands still, if they do.
    fn stands_still(&self, event: &Event) -> Option<Ms> {
        let pid = match event {
            Event::Wake(pid, _) | Event::News(pid, _) | Event::Folded(pid, _) | Event::BreakGlass(pid, _) => *pid,
            Event::Acknowledged(id, _) | Event::Resend(id) | Event::GiveUp(id, _) => self.settlings.get(id)?.pid,
            Event::Arrive { host, .. } | Event::Keep(host) => self.hosts[*host].process?,
            _ => return None,
        };
        self.processes.get(&pid).map(|process| process.still_until).filter(|until| *until > self.now)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Start(host) => self.start(host),
            Event::Wake(pid, token) => self.wake(pid, token),
            Event::Call(call) => self.call(*call),
            Event::Look(pid, look) => self.look(pid, &look),
            Event::News(pid, news) => self.hear(pid, *news),
            Event::Land(landing) => self.land(*landing),
            Event::Acknowledged(settling, offset) => self.acknowledged(settling, offset),
            Event::Resend(settling) => self.resend(settling),
            Event::GiveUp(settling, sent) => self.give_up(settling, sent),
            Event::Folded(pid, next) => self.folded(pid, next),
            Event::Arrive { request, host } => self.arrive(request, host),
            Event::Answer(request, answer) => self.answered(request, *answer),
            Event::Nag(request, sent) => self.nag(request, sent),
            Event::BreakGlass(pid, request) => self.break_glass(pid, request),
            Event::Keep(host) => self.keep_break_glass(host),
            Event::Want => self.want(),
            Event::Trouble => self.trouble(),
            Event::ClockRight(host) => self.set_clock_right(host),
            Event::Tick => {
                self.checks.tick(&self.cloud, &self.people, self.now);
                self.after(10 * SECOND, Event::Tick);
            }
        }
    }

    /// Ends whatever is wrong, so that everything must come right.
    pub fn heal(&mut self) {
        self.calm = true;
        self.blind_until = 0;
        self.slow_until = 0;
        self.silent_until = 0;
        self.cloud.router.deaf_until = 0;
        self.cloud.doomed.clear();
        for node in self.cloud.nodes.values_mut() {
            node.sick = (0, 0);
        }
        for process in self.processes.values_mut() {
            (process.cut_until, process.still_until) = (0, 0);
        }
        (0..self.hosts.len()).for_each(|host| self.set_clock_right(host));
        let now = self.now;
        self.trace.add(now, format_args!("everything is healed"));
    }
}
