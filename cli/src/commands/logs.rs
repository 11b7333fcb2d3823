//! `ionledger logs`: what a service's nodes wrote.

use std::time::Duration;

use clap::Args;
use schemas::{EnvironmentName, ServiceName, StackName};
use workers::nodes::process::logs::{Line, Logs as Folder, Wanted};

use crate::client::Lines;
use crate::exit::Exit;
use crate::failure::{CommandResult, Failure};
use crate::known::refuse_unknown;
use crate::out::Form;
use crate::render::logs;
use crate::session::Session;

/// How often a folder is looked at for more.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Show what a service's nodes wrote: those that run, and those that ended and are still kept. Secrets are masked.
///
/// A node's log is set aside at 10 MiB, and one that was set aside before is then gone; of ended nodes the last 100 are kept.
/// Lines bear no time of their own: --since begins at about a second before it.
#[derive(Debug, Args)]
#[command(after_help = format!("Columns in a pipe: {}.\n\n\
Examples:
  ionledger logs api
  ionledger logs api 1.2.4 -f
  ionledger logs api --node 1 --since 10m", logs::COLUMNS))]
pub(crate) struct Logs {
    /// The service, as `api`
    #[arg(value_name = "SERVICE")]
    service: ServiceName,
    /// Only this version's nodes, or one stack's, as `1.2.3~2` [default: all]
    #[arg(value_name = "VERSION")]
    version: Option<StackName>,
    /// The environment they run in
    #[arg(long, value_name = "ENVIRONMENT", default_value = "production")]
    env: EnvironmentName,
    /// Only one node: its number, as `status` shows it, or how its id begins
    #[arg(long, value_name = "N")]
    node: Option<String>,
    /// Go on showing what they write, new nodes' too
    #[arg(short, long)]
    follow: bool,
    /// Only what was written lately, or since a time: 10m, "2 hours", 2026-11-01T12:00Z
    #[arg(long, value_name = "LENGTH|TIME")]
    since: Option<String>,
}

impl Logs {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        let since = self.since.as_deref().map(|text| match api::moment::duration_ms(text) {
            Ok(ms) => before_now(ms),
            Err(_) => session.moment(text),
        });
        let deployment = schemas::DeploymentId { environment: self.env, service: self.service };
        let wanted = Wanted {
            deployment,
            version: self.version,
            node: self.node,
            since: since.transpose()?,
            follow: self.follow,
        };
        session.wait_for(async {
            let ledger = session.ledger()?;
            let asked = ledger.logs(&wanted).await;
            if asked.is_err() {
                refuse_unknown(&ledger, Some(&wanted.deployment.service), &wanted.deployment.environment).await?;
            }
            let shown = match asked? {
                Lines::Answered(mut lines) => {
                    let mut shown = 0;
                    while let Some(line) = lines.next().await? {
                        show(session, &line)?;
                        shown += 1;
                    }
                    shown
                }
                Lines::Folder(folder) => read(session, folder, &wanted).await?,
            };
            if shown == 0 {
                session.out.say(NOTHING);
            }
            Ok(Exit::Done)
        })
    }
}

fn before_now(ms: u64) -> CommandResult<schemas::Timestamp> {
    let length = Duration::from_millis(ms);
    schemas::Timestamp::now().checked_sub(length).map_err(|_| Failure::usage("--since: that is too long ago"))
}

/// What is said where no line is shown.
const NOTHING: &str = "no line matches: its nodes wrote nothing, or their logs are no longer kept";

/// Shows the lines of a folder's logs, and returns how many there were.
async fn read(session: &Session, mut folder: Folder, wanted: &Wanted) -> CommandResult<usize> {
    let mut shown = 0;
    loop {
        let lines = folder.next_lines().map_err(|error| Failure::error(format!("the nodes' logs: {error}")))?;
        lines.iter().try_for_each(|line| show(session, line))?;
        shown += lines.len();
        match (lines.is_empty(), wanted.follow) {
            (true, false) => return Ok(shown),
            (true, true) => tokio::time::sleep(LOOK_EVERY).await,
            (false, _) => {}
        }
    }
}

fn show(session: &Session, line: &Line) -> CommandResult<()> {
    match session.out.form {
        Form::Json => {
            let json = serde_json::to_string(line).map_err(Failure::error)?;
            session.out.data(&(json + "\n"))
        }
        Form::Lines => session.out.data(&logs::line(line)),
        Form::Eyes => session.out.data(&logs::eyes(line)),
    }
}
