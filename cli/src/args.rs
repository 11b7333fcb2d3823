//! Arguments that many commands share.

use std::path::PathBuf;

use clap::Args;
use jiff::Zoned;
use replay::Moment;
use schemas::{CommandId, CommitId, DeploymentId, EnvironmentName, Offset, ServiceName};

use crate::failure::{CommandResult, Failure};
use crate::{sentence, usage};

/// Where the ledger is and how answers look.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Globals {
    /// The data folder [default: $XDG_STATE_HOME/ionledger, else ~/.local/state/ionledger]
    #[arg(long, global = true, value_name = "DIR", env = "IONLEDGER_DATA", hide_env_values = true)]
    pub(crate) data: Option<PathBuf>,
    /// Ask the ledger at this address instead of the data folder's, as http://127.0.0.1:7070
    #[arg(long, global = true, value_name = "URL", env = "IONLEDGER_SERVER", hide_env_values = true)]
    pub(crate) server: Option<String>,
    /// The file that holds the token for --server
    #[arg(long, global = true, value_name = "FILE", env = "IONLEDGER_TOKEN_FILE", hide_env_values = true)]
    pub(crate) token_file: Option<PathBuf>,
    /// Give data as JSON, with a schema_version
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Use no colour (also with NO_COLOR set)
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
    /// Say nothing but data and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

impl Globals {
    /// Returns the data folder: the one that is named, else the user's own.
    ///
    /// # Errors
    ///
    /// A usage error if none is named and the user has no home.
    pub(crate) fn data(&self) -> CommandResult<PathBuf> {
        if let Some(data) = &self.data {
            let data =
                std::path::absolute(data).map_err(|error| Failure::usage(format!("--data: {error}; name a folder")))?;
            if data.metadata().is_ok_and(|found| !found.is_dir()) {
                let data = data.display();
                return Err(Failure::usage(format!("the data folder {data} is a file; name a folder with --data DIR")));
            }
            return Ok(data);
        }
        let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = folder("XDG_STATE_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/state")));
        state.map(|state| state.join("ionledger")).ok_or_else(|| {
            Failure::usage("no data folder: neither XDG_STATE_HOME nor HOME is set; name one with --data DIR")
        })
    }
}

/// How a change is asked for.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Asking {
    /// Why, for history
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Show the events that would be appended, and append none
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The command's id: the same command sent again under it is carried out once [default: a new one]
    #[arg(long, value_name = "UUID", value_parser = sentence::id::<CommandId>)]
    pub(crate) command_id: Option<CommandId>,
    /// Whether a rollback waits for the ledger; only `rollback` has the flag.
    #[arg(skip)]
    pub(crate) no_break_glass: bool,
}

/// A service in an environment.
#[derive(Clone, Debug, Args)]
pub(crate) struct Where {
    /// The service, as `api`
    #[arg(value_name = "SERVICE")]
    pub(crate) service: ServiceName,
    /// The environment it runs in
    #[arg(long, value_name = "ENVIRONMENT", default_value = "production")]
    pub(crate) env: EnvironmentName,
}

/// A moment of the past.
#[derive(Clone, Debug, Args)]
pub(crate) struct When {
    /// At this time: 2026-11-01T12:00Z, 2026-11-01T12:00[Europe/Berlin], 2026-11-01, "2 hours ago"
    #[arg(long, value_name = "TIME", group = "moment")]
    at: Option<String>,
    /// After the record at this offset
    #[arg(long, value_name = "N", group = "moment")]
    offset: Option<Offset>,
    /// After this commit
    #[arg(long, value_name = "ID", group = "moment", value_parser = sentence::id::<CommitId>)]
    event: Option<CommitId>,
}

impl When {
    /// Returns the moment; now if none is named.
    ///
    /// # Errors
    ///
    /// A usage error for a text that is no time.
    pub(crate) fn moment(&self, now: &Zoned) -> CommandResult<Moment> {
        match (&self.at, self.offset, self.event) {
            (Some(text), ..) => usage::moment(text, now).map(Moment::Time),
            (None, Some(offset), _) => Ok(Moment::Offset(offset)),
            (None, None, Some(commit)) => Ok(Moment::Event(commit)),
            (None, None, None) => Ok(Moment::Now),
        }
    }
}

impl Where {
    /// Returns the deployment.
    pub(crate) fn deployment(&self) -> DeploymentId {
        DeploymentId { environment: self.env.clone(), service: self.service.clone() }
    }
}
