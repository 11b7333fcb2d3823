//! The binary `ionledger`: commands and how their answers look.
//!
//! Begin with `commands`, which has a file for each, and `render`, which has a file for each answer. `bootstrap` puts together what runs: `up`,
//! and each part as a process of its own. `client` is the way to the ledger that a command takes.

mod args;
mod commands;
mod complete;
mod client;
mod exit;
mod failure;
mod halted;
mod bootstrap;
mod logging;
mod known;
mod not_allowed;
mod out;
mod place;
mod progress;
mod render;
mod sentence;
mod serving;
mod session;
mod settings;
mod unattended;
mod usage;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use args::Globals;
use commands::Command;
use failure::Failure;
use session::Session;

/// Folding history is many small allocations, and this one takes a third less time for them than the C library's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An event-sourced deployment ledger with independent workers, for immutable stacks.
///
/// Releases go out little by little beside the version they replace, are judged against it, and come back in an
/// instant. Everything that happens is in the ledger, for ever.
#[derive(Debug, Parser)]
#[command(name = "ionledger", version, after_help = examples(), max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

fn examples() -> String {
    format!(
        "\
Examples:
  ionledger demo                             see all of it in a minute
  ionledger up                               start the ledger, the workers and the proxy
  ionledger roll api 1.2.3 1.2.4 24 hours    ship 1.2.4 little by little
  ionledger rollback api                     take it back now

Data goes to stdout, talk to stderr. On a terminal data is a tree, in a pipe tab-separated lines; \
--json gives JSON. What a change gives in a pipe: {}. `ionledger help exit-codes` explains the exit codes.",
        render::written::COLUMNS
    )
}

fn main() -> ExitCode {
    complete::answer_shell();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return unread(&error),
    };
    workers::rights::close_by_default();
    let session = Session::new(cli.globals);
    let ended = cli.command.run(&session);
    halted::say_first();
    match ended {
        Ok(exit) => halted::ending(exit),
        Err(failure) => fail(&failure),
    }
}

/// Ends a program whose command line is no command: help is shown, anything else is a usage error.
fn unread(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print(); // a reader who has gone away wants no help
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            exit::Exit::Usage.into()
        }
        _ => fail(&usage::failure(error)),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    let _ = anstream::stderr().lock().write_all(out::for_stderr(&failure.text()).as_bytes());
    ExitCode::from(failure.exit_code())
}
