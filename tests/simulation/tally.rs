//! The tally: how often what happened, over all runs.

use std::collections::BTreeMap;

/// Where a process can be killed around an effect: before
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// Its call: it is decided, and nothing was sent.
    Call,
    /// The reply: it is done outside, and nobody here knows.
    Reply,
    /// The append of the next commit: the reply is known, and nothing is in the log.
    Append,
    /// The verdict on that commit: it is in the log, and its writer does not know.
    Verdict,
}

pub const POINTS: [Point; 4] = [Point::Call, Point::Reply, Point::Append, Point::Verdict];
pub const KINDS: [&str; 5] = ["launch", "stop", "clean-up", "route", "unroute"];

/// What happened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Kills by effect and point.
    pub crashes_at: BTreeMap<(&'static str, Point), u64>,
    /// Kills of api nodes between the append of a command and its answer.
    pub servers_before_answer: u64,
    pub crashes: u64,
    pub commits: u64,
    pub voids: u64,
    pub rollouts: u64,
    pub rollbacks: u64,
    /// Steps that followed one that had been taken late.
    pub late_steps: u64,
    /// Bakes that came to their end.
    pub bakes: u64,
    /// Rollbacks without the ledger.
    pub break_glass: u64,
    /// Moments within an outage that were asked about afterwards.
    pub asked_about_past: u64,
    /// Clocks that were set wrong.
    pub clocks: u64,
    pub effects: u64,
    pub reactions: u64,
    pub hours: u64,
}

impl Tally {
    /// Adds another run's.
    pub fn add(&mut self, other: &Tally) {
        for (cell, n) in &other.crashes_at {
            *self.crashes_at.entry(*cell).or_default() += n;
        }
        self.servers_before_answer += other.servers_before_answer;
        self.crashes += other.crashes;
        self.commits += other.commits;
        self.voids += other.voids;
        self.rollouts += other.rollouts;
        self.rollbacks += other.rollbacks;
        self.late_steps += other.late_steps;
        self.bakes += other.bakes;
        self.break_glass += other.break_glass;
        self.asked_about_past += other.asked_about_past;
        self.clocks += other.clocks;
        self.effects += other.effects;
        self.reactions += other.reactions;
        self.hours += other.hours;
    }

    /// Returns what happened in one line.
    pub fn summary(&self) -> String {
        let Tally {
            hours,
            commits,
            voids,
            effects,
            reactions,
            crashes,
            rollouts,
            rollbacks,
            break_glass,
            asked_about_past,
            late_steps,
            clocks,
            bakes,
            ..
        } = self;
        format!(
            "{hours} virtual hours, {commits} commits that count and {voids} that do not, {reactions} reactions, \
             {effects} effects, {crashes} kills, {rollouts} rollouts, {late_steps} steps after late ones, {bakes} bakes, \
             {rollbacks} rollbacks, {break_glass} without the ledger, {asked_about_past} moments of outages asked about, {clocks} clocks set wrong"
        )
    }

    /// Returns the table of kills, and the cells that are empty.
    pub fn table(&self) -> (String, Vec<(&'static str, Point)>) {
        let mut text = format!("{:<15}", "killed before");
        for point in POINTS {
            text += &format!("{:>10}", format!("{point:?}"));
        }
        let mut empty = Vec::new();
        for kind in KINDS {
            text += &format!("\n{kind:<15}");
            for point in POINTS {
                let n = self.crashes_at.get(&(kind, point)).copied().unwrap_or(0);
                text += &format!("{n:>10}");
                if n == 0 {
                    empty.push((kind, point));
                }
            }
        }
        text += &format!("\n{:<15}{:>10} between an append and its answer", "api", self.servers_before_answer);
        (text, empty)
    }
}
