//! What the demo looks like.

use std::cell::RefCell;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use anstream::{eprint, eprintln};
use owo_colors::OwoColorize as _;
use replay::answer::RolloutStatus;

use super::users::Seen;

/// How wide a bar of all traffic is.
const BAR: usize = 40;

/// Writes to stderr, so that what the commands print stays theirs.
pub(super) struct Show {
    terminal: bool,
    last: RefCell<String>,
}

impl Show {
    pub(super) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), last: RefCell::default() }
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
        let name = |version: &Option<schemas::Version>| version.as_ref().map_or("?".to_owned(), ToString::to_string);
        let (baseline, canary) = (name(&rollout.baseline), name(&rollout.canary));
        let filled = (usize::from(rollout.weight.basis_points()) * BAR).div_ceil(10_000);
        let bar = format!("{}{}", "█".repeat(BAR - filled).blue(), "█".repeat(filled).yellow());
        let counts = |version: &str| seen.versions.get(version).copied().unwrap_or_default();
        let (got, failed) = counts(&canary);
        let line = format!("{baseline} {bar} {canary} {}", rollout.weight);
        let users = format!("{canary} answered {got}, failed {failed}; lost {}", seen.lost);
        if self.terminal {
            eprint!("\r   {line}   {}\x1b[K", users.dimmed());
            let _ = std::io::stderr().flush();
        } else if *self.last.borrow() != line {
            eprintln!("   {line}   {users}");
            self.last.replace(line);
        }
    }

    pub(super) fn rollout_ended(&self, rollout: &RolloutStatus) {
        if self.terminal {
            eprintln!();
        }
        let version = rollout.canary.as_ref().map_or("the canary".to_owned(), ToString::to_string);
        match &rollout.reason {
            Some(reason) => eprintln!("   {} {version} came back: {reason}", "✖".red()),
            None => eprintln!("   {} {version} has all the traffic", "✔".green()),
        }
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
