//! Clocks: each host's wall clock may be set wrong for a while. What is the product's is the rule that is asked here: who
//! may write with such a clock, and at what time.

use ledger::execute::{Anchor, ClockTrouble, Refusal};
use ledger::view::View;
use schemas::Timestamp;
use std::time::Duration;

use crate::process::Pid;
use crate::world::{Event, MINUTE, Ms, SECOND, World, wall_at};

/// How far a writer's clock may be ahead, in seconds.
const AHEAD_MAX_S: i64 = 5;

/// A process's wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// How far it is ahead of the truth on a good day, in milliseconds.
    small: i64,
    /// How far it is ahead now.
    off: i64,
    /// When its process began, and what it showed then.
    anchor: Anchor,
}

impl Clock {
    /// Returns the clock of a process that begins at `now` on a host whose clock is set `set` milliseconds ahead.
    pub fn new(now: Ms, small: i64, set: i64) -> Self {
        let off = small + set;
        Self { small, off, anchor: Anchor { wall: wall_at(now, off), steady: Duration::from_millis(now) } }
    }

    pub fn wall(&self, now: Ms) -> Timestamp {
        wall_at(now, self.off)
    }

    fn expected(&self, now: Ms) -> Timestamp {
        self.anchor.expected(Duration::from_millis(now))
    }

    /// Returns how far it is ahead of where it should be and of the ledger, in seconds.
    fn ahead_s(&self, now: Ms, ledger: Timestamp) -> i64 {
        let wall = self.wall(now);
        wall.duration_since(self.expected(now)).min(wall.duration_since(ledger)).as_secs()
    }

    /// Returns the time at which something is decided.
    ///
    /// # Errors
    ///
    /// [`Refusal::ClockAhead`] unless it is `exempt`, as a rollback.
    pub fn decides(&self, now: Ms, view: &View, exempt: bool) -> Result<Timestamp, Refusal> {
        let ahead_s = self.ahead_s(now, view.time());
        let time = match (ahead_s > AHEAD_MAX_S, exempt) {
            (true, false) => return Err(Refusal::ClockAhead { ahead_s }),
            (true, true) => self.expected(now),
            (false, _) => self.wall(now),
        };
        Ok(time.max(view.time()))
    }

    pub fn trouble(&self, now: Ms, view: &View) -> Option<ClockTrouble> {
        ClockTrouble::of(self.wall(now), self.expected(now), view.time())
    }
}

impl World {
    /// Somebody sets a host's clock, ahead or back, for a while.
    pub fn set_a_clock(&mut self) {
        let host = usize::try_from(self.dice.range(0, self.hosts.len() as u64)).unwrap_or(0);
        let by = i64::try_from(self.dice.range(90 * SECOND, 15 * MINUTE)).expect("short");
        let by = if self.dice.chance(500) { by } else { -by };
        self.hosts[host].set = by;
        self.trace.add(self.now, format_args!("the clock of {} is set by {by} ms", self.hosts[host].name));
        self.tally.clocks += 1;
        self.show(host);
        let after = self.dice.range(30 * SECOND, 4 * MINUTE);
        self.after(after, Event::ClockRight(host));
    }

    /// Somebody sets a host's clock right, and starts what took the wrong one for right again, as it is told to.
    pub fn set_clock_right(&mut self, host: usize) {
        self.hosts[host].set = 0;
        if let Some((pid, clock)) = self.show(host)
            && clock.wall(self.now).duration_since(clock.expected(self.now)).as_secs() > AHEAD_MAX_S
        {
            self.end(pid, "its clock was set right");
        }
    }

    /// A host's process sees what the host's clock shows.
    fn show(&mut self, host: usize) -> Option<(Pid, Clock)> {
        let (pid, set) = (self.hosts[host].process?, self.hosts[host].set);
        let process = self.processes.get_mut(&pid)?;
        process.clock.off = process.clock.small + set;
        Some((pid, process.clock))
    }

    /// Returns how far a clock is set that a process begins with: one that is ahead is set right at the start, as time
    /// servers do; that nothing is lost if they do not is shown elsewhere.
    pub fn set_at_start(&mut self, host: usize) -> i64 {
        let set = &mut self.hosts[host].set;
        *set = (*set).min(0);
        *set
    }
}
