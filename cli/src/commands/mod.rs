//! One file per command.

mod proxy;

use std::process::ExitCode;

use clap::Subcommand;

/// What `ionledger` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Proxy(proxy::ProxyArgs),
}

impl Command {
    /// Runs the command and returns the process's exit code.
    pub(crate) fn run(self) -> miette::Result<ExitCode> {
        match self {
            Command::Proxy(args) => args.run(),
        }
    }
}
