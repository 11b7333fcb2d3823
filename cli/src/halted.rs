//! Ledgers that take no more commits. Where one has halted, every command says so first and fails, except a rollback that
//! was carried out without the ledger. Where one was moved elsewhere, a command that reads its old folder says so first.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::words::plain;

/// Why the ledger that was asked has halted, if it has.
static WHY: OnceLock<String> = OnceLock::new();

/// Whether one of the two was said.
static SAID: AtomicBool = AtomicBool::new(false);

/// Where the ledger of the folder was moved to, if it was.
static MOVED: OnceLock<String> = OnceLock::new();

/// Notes that the ledger of the folder was moved to `to`.
pub(crate) fn moved(to: &str) {
    let _ = MOVED.set(to.to_owned());
}

/// Notes that a server says its ledger has halted, because of `why`.
pub(crate) fn heard(why: &str) {
    let _ = WHY.set(why.to_owned()); // the first reason stands
}

/// Says it on stderr, even with `--quiet`, unless it was said before. Called before anything else is written.
pub(crate) fn say_first() {
    if let Some(why) = WHY.get()
        && !SAID.swap(true, Ordering::Relaxed)
    {
        let _ = write!(anstream::stderr().lock(), "{}", Failure::error(sentence(why)).text());
    }
    if let Some(to) = MOVED.get()
        && !SAID.swap(true, Ordering::Relaxed)
    {
        let said = format!(
            "the ledger was moved to {to}, and no ionledger process on this machine follows it: this is how it stood \
             then; start `ionledger up --ledger {to}`"
        );
        let _ = writeln!(anstream::stderr().lock(), "{}", plain(&said));
    }
}

/// Returns the sentence that people read.
pub(crate) fn sentence(why: &str) -> String {
    format!("the ledger has halted, nothing after this point is known or taken: {why}")
}

/// Whether what was asked for was carried out without the ledger.
static CARRIED_OUT: AtomicBool = AtomicBool::new(false);

/// Notes that the command was carried out without the ledger, so that it does not fail for the halt.
pub(crate) fn carried_out() {
    CARRIED_OUT.store(true, Ordering::Relaxed);
}

/// Returns the exit code of a command that would end with `exit`: a failure if its ledger has halted.
pub(crate) fn ending(exit: ExitCode) -> ExitCode {
    let fails = WHY.get().is_some() && !CARRIED_OUT.load(Ordering::Relaxed);
    if fails && exit == ExitCode::SUCCESS { Exit::Error.into() } else { exit }
}
