//! One file per command.

mod demo_service;
mod node_exec;
mod proxy;
mod up;

use std::process::ExitCode;

use clap::Subcommand;

/// What `ionledger` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Proxy(proxy::ProxyArgs),
    Up(up::UpArgs),
    #[command(hide = true)]
    NodeExec(node_exec::NodeExec),
    #[command(hide = true)]
    DemoService(demo_service::DemoService),
}

impl Command {
    /// Runs the command and returns the process's exit code.
    pub(crate) fn run(self) -> miette::Result<ExitCode> {
        match self {
            Command::Proxy(args) => args.run(),
            Command::Up(args) => args.run(std::path::Path::new(&std::env::var("IONLEDGER_DATA").unwrap())),
            // It becomes the node in this thread, so no other may have been started yet.
            Command::NodeExec(command) => Ok(command.run()),
            Command::DemoService(command) => command.run(),
        }
    }
}
