//! What a process that serves says of its doings, to standard error. RUST_LOG chooses what.
//!
//! A thread of its own writes it: standard error may be a file on a disk that hangs, and nobody who serves users waits for that.
//! What comes faster than it is written is left out.

use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;

/// Begins to write what is at least of `level`, unless RUST_LOG says otherwise. What was said last is written when what this returns
/// is dropped, if that takes no longer than a second.
pub(crate) fn init(level: &str) -> WorkerGuard {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| level.into());
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    // Another one is there only where one process plays several.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false).try_init();
    guard
}
