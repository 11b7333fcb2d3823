//! `ionledger apply`: a service's declaration, from the file that its team keeps.

use std::path::PathBuf;

use clap::Args;
use schemas::command::{self, Command};
use workers::text_file;

use super::change::change;
use crate::args::Asking;
use crate::exit::Exit;
use crate::failure::{CommandResult, Failure};
use crate::session::Session;

/// Declare a service: who owns it, how it is run, and its policy.
///
/// The file is TOML; everything but `name` and `owner` may be left out:
///
///   name = "api"
///   owner = "team-checkout"
///   listen = { production = "127.0.0.1:8080" }
///   run = { args = ["--port={port}"], env = { DB_PASSWORD = { from_env = "API_DB_PASSWORD" } } }
///   check = { path = "/health", latency_max = "500 ms" }
///   capacity = { nodes = 2, min_ready = 1 }
///   rollout = { steps = [1, 5, 25, 100], duration = "24 hours", on_release = false }
///   judgement = { errors_tolerance = "1 %", requests_min = 50 }
///   retention = { serving_max = 2, warm_for = "1 day", drain = "10 s" }
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  ionledger apply api.toml
  ionledger apply api.toml --dry-run"
)]
pub(crate) struct Apply {
    /// The file
    #[arg(value_name = "SERVICE.toml")]
    file: PathBuf,
    #[command(flatten)]
    asking: Asking,
}

impl Apply {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        let name = self.file.display().to_string();
        let text = text_file::read_text(&self.file)
            .map_err(|error| Failure::error(format!("cannot read {name}: {error}; name the service's file")))?;
        let (service, definition) = api::definition::parse(&name, &text).map_err(|error| Failure::file(&error))?;
        let command = Command::Apply(command::Apply { service, definition: Box::new(definition) });
        session.wait_for(async {
            change(session, &session.ledger()?, &self.asking, command).await?;
            Ok(Exit::Done)
        })
    }
}
