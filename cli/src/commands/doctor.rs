//! `ionledger doctor`: what is wrong with this machine and this data folder, if something is.

mod folder;
mod break_glass;
mod running;
mod source;

use clap::Args;
use jiff::Zoned;
use serde::Serialize;

use crate::exit::Exit;
use crate::failure::{CommandResult, Failure};
use crate::not_allowed::is_closed;
use crate::progress::Progress;
use crate::render::{Render, doctor};
use crate::session::Session;

/// Look at the data folder, the disk, the clock, what runs and its ports, and say what to do about each. Each Prometheus that a
/// policy names is asked from here, as this user.
///
/// It changes nothing of the ledger (a damaged cache is set aside), and ends with 1 if something fails.
#[derive(Debug, Args)]
#[command(after_help = "\
Columns in a pipe: level (ok, warn, fail), thing, what was found, next step.

Examples:
  ionledger doctor
  ionledger doctor --json")]
pub(crate) struct Doctor;

/// What helps where this user may not look.
const AS_OWNER: &str = "run `ionledger doctor` as the owner of the data folder";

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// It works, and may not for long.
    Warn,
    /// It does not work.
    Fail,
}

/// What was found of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// How bad it is.
    pub(crate) level: Level,
    /// The thing.
    pub(crate) thing: &'static str,
    /// What was found.
    pub(crate) what: String,
    /// What to do about it; none where all is well.
    pub(crate) next: Option<String>,
}

impl Finding {
    /// Returns that a thing is as it should be.
    fn ok(thing: &'static str, what: impl Into<String>) -> Self {
        Self { level: Level::Ok, thing, what: what.into(), next: None }
    }

    /// Returns that a thing works, but may not for long.
    fn warn(thing: &'static str, what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { level: Level::Warn, thing, what: what.into(), next: Some(next.into()) }
    }

    /// Returns that a thing does not work.
    fn fail(thing: &'static str, what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { level: Level::Fail, thing, what: what.into(), next: Some(next.into()) }
    }
}

impl Doctor {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        if session.globals.server.is_some() {
            return Err(Failure::usage("doctor looks at this machine's data folder; leave --server out"));
        }
        let data = session.globals.data()?;
        session.wait_for(async {
            let progress = Progress::begin(session.out, "looking");
            let mut findings = folder::findings(&data).await;
            // What a user may not look at is not guessed.
            if data.is_dir() && !is_closed(&data) {
                findings.extend(break_glass::findings(&data));
                let ledger = session.ledger()?;
                findings.extend(running::findings(&data, ledger.client()).await);
                findings.extend(source::findings(&ledger).await);
            }
            // The process that runs and the folder may say the same of a stream.
            let mut said = Vec::new();
            findings.retain(|finding| {
                let is_new = !said.contains(finding);
                said.extend(is_new.then(|| finding.clone()));
                is_new
            });
            // What keeps the ledger from going on comes first; the others keep their order.
            findings.sort_by_key(|finding| (finding.level, finding.thing) != (Level::Fail, running::HALTED));
            drop(progress);
            let report = Report { schema_version: 1, data: data.display().to_string(), findings };
            session.show(&report)?;
            let failed = report.findings.iter().any(|finding| finding.level == Level::Fail);
            Ok(if failed { Exit::Error } else { Exit::Done })
        })
    }
}

/// All that was found.
#[derive(Debug, Serialize)]
struct Report {
    schema_version: u16,
    data: String,
    findings: Vec<Finding>,
}

impl Render for Report {
    fn eyes(&self, _: &Zoned, _: usize) -> String {
        doctor::eyes(&self.findings)
    }

    fn lines(&self) -> String {
        doctor::lines(&self.findings)
    }
}
