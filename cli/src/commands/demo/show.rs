//! What the demo looks like.

use std::cell::RefCell;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use anstream::{eprint, eprintln};
use owo_colors::OwoColorize as _;
use replay::answer::{RolloutPhase, RolloutStatus};
use schemas::{StackName, Weight};

use super::chart::Chart;
use super::users::Seen;
use crate::out::{columns, for_stderr};

/// How wide a bar of all traffic is at most, and at least.
const BAR: (usize, usize) = (40, 10);

/// Writes to stderr, so that stdout holds only what the commands print.
pub(super) struct Show {
    terminal: bool,
    last: RefCell<String>,
    charts: RefCell<Vec<Chart>>,
}

impl Show {
    pub(super) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), last: RefCell::default(), charts: RefCell::default() }
    }

    pub(super) fn title(&self, text: &str) {
        eprintln!("{}", text.bold());
    }

    pub(super) fn step(&self, text: &str) {
        eprintln!("\n{} {}", "==".cyan().bold(), text.bold());
    }

    pub(super) fn command(&self, arguments: &[&str]) {
        let quoted =
            arguments.iter().map(|word| if word.contains(' ') { format!("\"{word}\"") } else { (*word).to_owned() });
        eprintln!("{} {}", "$".dimmed(), format!("ionledger {}", quoted.collect::<Vec<_>>().join(" ")).green());
    }

    /// Shows a rollout's share and what users got; on a terminal in place, elsewhere a line for each change.
    pub(super) fn rollout(&self, rollout: &RolloutStatus, seen: &Seen) {
        let (baseline, canary) = (name(rollout.baseline_name()), name(rollout.canary_name()));
        let share = share(rollout);
        self.note(rollout);
        let (got, failed) = seen.versions.get(&canary).copied().unwrap_or_default();
        let users = format!("{got} answers, {failed} failed, {} lost", seen.lost);
        let (left, right) = (format!("{baseline} {}", share.rest()), format!("{canary} {share}"));
        if self.terminal {
            // One column stays free, so that no terminal goes on to the next line.
            let room = columns(std::io::stderr()).saturating_sub(left.len() + right.len() + users.len() + 9);
            eprint!("\r   {left} {} {right}  {}\x1b[K", bar(share, room.clamp(BAR.1, BAR.0)), users.dimmed());
            let _ = std::io::stderr().flush();
            return;
        }
        let line = format!("{left} {} {right}", bar(share, BAR.0));
        if *self.last.borrow() != line {
            eprintln!("   {line}  {users}");
            self.last.replace(line);
        }
    }

    /// Takes note of a canary's share, for its chart.
    pub(super) fn note(&self, rollout: &RolloutStatus) {
        let canary = name(rollout.canary_name());
        let mut charts = self.charts.borrow_mut();
        if charts.last().is_none_or(|chart| chart.version != canary) {
            charts.push(Chart::of(&canary));
        }
        if let Some(chart) = charts.last_mut() {
            chart.note(share(rollout));
        }
    }

    pub(super) fn rollout_ended(&self, rollout: &RolloutStatus) {
        if self.terminal {
            eprintln!();
        }
        let version = name(rollout.canary_name());
        let told = match (rollout.phase, &rollout.reason) {
            (RolloutPhase::Completed | RolloutPhase::Promoted, _) => {
                format!("   {} {version} has all the traffic", "✔".green())
            }
            (_, reason) => format!("   {} {version} came back: {}", "✖".red(), reason.clone().unwrap_or_default()),
        };
        eprintln!("{}", for_stderr(&told));
    }

    /// Shows how each canary's share went.
    pub(super) fn charts(&self) {
        self.step("what each canary got");
        let columns = columns(std::io::stderr());
        self.charts.borrow().iter().for_each(|chart| eprintln!("{}", chart.drawn(columns)));
    }

    pub(super) fn users(&self, seen: &Seen) {
        let all: u64 = seen.versions.values().map(|(answers, _)| answers).sum();
        let failed: u64 = seen.versions.values().map(|(_, failed)| failed).sum();
        eprintln!("   users sent {} requests: {failed} failed, {} were lost", all + seen.lost, seen.lost);
    }

    /// Says how to go on: on the demo's own folder if it stays up, else from the start.
    pub(super) fn next_steps(&self, data: &Path, up: Option<u32>) {
        self.step("try next");
        match up {
            Some(pid) => {
                eprintln!("   everything goes on; it is yours:");
                eprintln!("   export IONLEDGER_DATA={}", data.display());
                eprintln!("   ionledger status -w");
                eprintln!("   ionledger rollback api");
                eprintln!("   kill {pid}                      takes it all down");
            }
            None => {
                eprintln!("   ionledger demo --stay          the same, and leave it running to play with");
                eprintln!("   ionledger up --data ./ledger   your own");
                eprintln!("   ionledger --help               every command");
            }
        }
    }
}

/// The canary's share. Once its rollout came back it has none.
fn share(rollout: &RolloutStatus) -> Weight {
    if rollout.phase == RolloutPhase::CameBack { Weight::ZERO } else { rollout.weight }
}

fn name(name: Option<StackName>) -> String {
    name.map_or("?".to_owned(), |name| name.to_string())
}

/// A bar of all traffic: the canary's share is at its right end, in another colour and of another pattern.
fn bar(share: Weight, width: usize) -> String {
    let filled = (usize::from(share.basis_points()) * width).div_ceil(10_000);
    format!("{}{}", "░".repeat(width - filled).blue(), "█".repeat(filled).yellow())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_both_shares_without_colour() {
        let bare = |percent| anstream::adapter::strip_str(&bar(Weight::from_percent(percent), 10)).to_string();
        assert_eq!([bare(0), bare(1), bare(50), bare(100)], ["░░░░░░░░░░", "░░░░░░░░░█", "░░░░░█████", "██████████"]);
    }
}
