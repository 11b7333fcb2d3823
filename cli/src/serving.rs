//! What processes that serve have in common: threads, and signals that end them in an orderly way.

use std::process::ExitCode;

use crate::failure::CommandResult;
use miette::IntoDiagnostic as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Serves on as many threads as there are cores.
///
/// # Errors
///
/// What the serving ends with.
pub(crate) fn block_on(serving: impl Future<Output = miette::Result<()>>) -> CommandResult<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().into_diagnostic()?;
    let ended = runtime.block_on(serving);
    // What still runs, as a question to brokers that do not answer, is left behind.
    runtime.shutdown_background();
    ended?;
    Ok(ExitCode::SUCCESS)
}

/// SIGTERM and SIGINT, caught from now on.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches them.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub(crate) fn catch() -> miette::Result<Self> {
        let terminate = signal(SignalKind::terminate()).into_diagnostic()?;
        let interrupt = signal(SignalKind::interrupt()).into_diagnostic()?;
        Ok(Self { terminate, interrupt })
    }

    /// Returns when the process is told to end.
    pub(crate) async fn ended(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
