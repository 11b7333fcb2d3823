//! `ionledger history`: what happened, and who did it.

use clap::Args;
use replay::{HistoryQuery, answer};
use schemas::{EnvironmentName, ServiceName};

use crate::client::Pages;
use crate::exit::Exit;
use crate::failure::CommandResult;
use crate::known::refuse_unknown;
use crate::out::Form;
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
    /// Also what the judge was told, about one commit per minute of a rollout
    #[arg(long)]
    counts: bool,
}

impl History {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        let env = self.env.clone();
        let query = HistoryQuery {
            service: self.service.clone(),
            environment: self.env,
            limit: (self.limit > 0).then_some(self.limit),
            since: self.since.as_deref().map(|text| session.moment(text)).transpose()?,
            before: None,
            voids: self.voids,
            counts: self.counts,
        };
        session.wait_for(async {
            let ledger = session.ledger()?;
            let progress = Progress::begin(session.out, "reading the ledger");
            let mut pages = ledger.history(query);
            let first = pages.next().await?.unwrap_or_else(|| unreachable!("there is a first page"));
            if let (Some(service), true) = (&self.service, first.entries.is_empty())
                && ledger.status(Some(service), None).await?.services.is_empty()
            {
                return Err(ledger.unknown(service).await);
            }
            if let Some(env) = &env {
                refuse_unknown(&ledger, self.service.as_ref(), env).await?;
            }
            drop(progress);
            let unrecorded = first.unrecorded.clone();
            tell(session, pages, first).await?;
            session.warn_of(&unrecorded);
            Ok(Exit::Done)
        })
    }
}

/// Shows history page by page as it comes, so that a long one takes no more room than a short one.
async fn tell(session: &Session, mut pages: Pages<'_>, first: answer::HistoryAnswer) -> CommandResult<()> {
    let (out, now) = (session.out, session.now());
    if !pages.go_on() {
        return session.show(&first);
    }
    let json = out.form == Form::Json;
    if json {
        out.data(&history::json_head(&first)?)?;
    }
    let mut page = first;
    let mut before = "";
    loop {
        let last = !pages.go_on();
        match out.form {
            Form::Eyes => {
                page.more &= last;
                out.eyes(&history::eyes(&page, &now))?;
            }
            Form::Lines => out.data(&history::lines(&page))?,
            Form::Json => out.data(&format!("{before}{}", history::json_entries(&page)?))?,
        }
        before = ",";
        match pages.next().await? {
            Some(next) => page = next,
            None => break,
        }
    }
    if json { out.data(&history::json_end(&page)?) } else { Ok(()) }
}
