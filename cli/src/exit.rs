//! Exit codes: how a command tells a script what became of it.

use std::process::ExitCode;

/// What became of a command. Code 4, not allowed, comes from the server with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done, or already so.
    Done = 0,
    /// It went wrong, or the ledger said no.
    Error = 1,
    /// The command cannot be understood, or what it asks for cannot be.
    Usage = 2,
    /// The release that was waited for came back, or the canary that was judged is worse.
    RolledBack = 5,
    /// The wait ended while the judge could not decide, or it cannot.
    Inconclusive = 6,
    /// The wait ended while it was still going on, a hold is in the way, a rollback waits for its target, or the router has not
    /// confirmed what was set.
    StillGoing = 8,
}

/// The table that `ionledger help exit-codes` shows.
pub(crate) const TABLE: &str = "\
0  done: carried out, or already so; with --wait also complete
1  error: it went wrong, or the ledger refused or has halted; nothing was changed unless it says so
2  usage: the command cannot be understood, or what it asks for cannot be (weights that sum to 90 %)
4  not allowed: the one who asked may not
5  rolled back: what was waited for came back, or was dropped before it began; `judge`: it is worse
6  inconclusive: the judge could not decide before the wait ended, or `judge` before the counts did
8  still going: the wait ended first, or a hold is in the way; `rollback`: users have not moved yet";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}
