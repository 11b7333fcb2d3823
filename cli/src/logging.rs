//! What a process that serves says of its doings, to standard error. RUST_LOG chooses what.

use tracing_subscriber::EnvFilter;

/// Begins to write what is at least of `level`, unless RUST_LOG says otherwise.
pub(crate) fn init(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| level.into());
    // Another one is there only where one process plays several.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).try_init();
}
