//! `ionledger history`: what happened, and who did it.

use clap::Args;
use replay::HistoryQuery;
use schemas::{EnvironmentName, ServiceName};

use super::status::unknown;
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::progress::Progress;
use crate::render::history;
use crate::sentence;
use crate::session::Session;

/// Show what happened to a service, the newest first: what, when, who, on whose behalf and why.
#[derive(Debug, Args)]
#[command(after_help = format!("Columns in a pipe: {}.\n\n\
Examples:
  ionledger history api
  ionledger history api --since \"2 days ago\" --limit 100
  ionledger history --voids --json", history::COLUMNS))]
pub(crate) struct History {
    /// The service [default: everything in the ledger]
    #[arg(value_name = "SERVICE")]
    service: Option<ServiceName>,
    /// Only this environment, and what concerns the service as a whole [default: all]
    #[arg(long, value_name = "ENVIRONMENT")]
    env: Option<EnvironmentName>,
    /// How many commits at most; 0 for all
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = sentence::count)]
    limit: usize,
    /// Only commits since this time: 2026-11-01, "2 days ago"
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Also records that do not count, and why they do not
    #[arg(long)]
    voids: bool,
    /// Also what the judge was told, about a commit a minute of a rollout
    #[arg(long)]
    counts: bool,
}

impl History {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let query = HistoryQuery {
            service: self.service.clone(),
            environment: self.env,
            limit: (self.limit > 0).then_some(self.limit),
            since: self.since.as_deref().map(|text| session.moment(text)).transpose()?,
            voids: self.voids,
            counts: self.counts,
        };
        session.wait_for(async {
            let door = session.door()?;
            let progress = Progress::begin(session.out, "reading the ledger");
            let answer = door.history(&query).await?;
            if let (Some(service), true) = (&self.service, answer.entries.is_empty())
                && door.status(Some(service), None).await?.services.is_empty()
            {
                return Err(unknown(service));
            }
            drop(progress);
            let now = session.now();
            session.out.answer(&answer, |answer| history::eyes(answer, &now), history::lines)?;
            session.say_empty(answer.entries.is_empty(), history::NOTHING);
            session.warn_of(&answer.unrecorded);
            Ok(Exit::Done)
        })
    }
}
