//! A ledger that has halted: every command says so before anything else, and none ends well.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::exit::Exit;
use crate::render::words::plain;

/// Why the ledger that was asked has halted, if it has.
static WHY: OnceLock<String> = OnceLock::new();

/// Whether it was said.
static SAID: AtomicBool = AtomicBool::new(false);

/// Hears it from a server.
pub(crate) fn heard(why: &str) {
    let _ = WHY.set(why.to_owned()); // the first reason stands
}

/// Says it on stderr, also to who wants quiet, unless it was said before. Called before anything else is written.
pub(crate) fn say_first() {
    if let Some(why) = WHY.get()
        && !SAID.swap(true, Ordering::Relaxed)
    {
        let _ = writeln!(anstream::stderr().lock(), "error: {}", plain(&sentence(why)));
    }
}

/// Returns the sentence that people read.
pub(crate) fn sentence(why: &str) -> String {
    format!("the ledger has halted, nothing after this point is known or taken: {why}")
}

/// Returns how a command ends that would end with `exit`.
pub(crate) fn ending(exit: ExitCode) -> ExitCode {
    if WHY.get().is_some() && exit == ExitCode::SUCCESS { Exit::Error.into() } else { exit }
}
