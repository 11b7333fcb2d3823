//! The binary `ionledger`: commands and how their answers look.

mod commands;
mod house;

use std::process::ExitCode;

use clap::Parser;

use commands::Command;

/// An event-sourced deployment ledger with independent workers, for immutable stacks.
#[derive(Debug, Parser)]
#[command(name = "ionledger", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(code) => code,
        Err(report) => {
            eprintln!("{report:?}");
            ExitCode::FAILURE
        }
    }
}
