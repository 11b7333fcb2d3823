//! What a process that serves says of its doings, to standard error. RUST_LOG chooses what.
//!
//! A thread of its own writes the lines. Standard error may be a file on a disk that hangs, and requests must not wait for it. If
//! lines come faster than they can be written, some are lost.

use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;

/// Begins to write what is at least of `level`, unless RUST_LOG says otherwise. Dropping what this returns writes the last
/// lines, and waits at most a second for that.
pub(crate) fn init(level: &str) -> WorkerGuard {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| level.into());
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    // Another one is there only where one process plays several.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false).try_init();
    guard
}
