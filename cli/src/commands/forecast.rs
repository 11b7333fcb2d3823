//! `ionledger forecast`: what a rollout will be able to tell, before it begins.

use api::forecast::PlannedRollout;
use api::question::ForecastQuestion;
use clap::Args;
use schemas::Weight;

use crate::args::Where;
use crate::exit::Exit;
use crate::failure::{CommandResult, Failure};
use crate::known::refuse_unknown;
use crate::progress::Progress;
use crate::render::forecast;
use crate::sentence::{self, Steps};
use crate::session::Session;

/// Say what a rollout will be able to tell: the smallest regression that it is likely to see, and when a good canary is
/// accepted.
///
/// From the service's policy and the traffic that was measured lately; docs/judgement.md says how it is computed.
#[derive(Debug, Args)]
#[command(after_help = format!("Columns in a pipe: {}.\n\n\
Examples:
  ionledger forecast api
  ionledger forecast api 1 hour --share 10 --requests-per-minute 3
  ionledger forecast api 24 hours --steps 1,10,50,100 --json", forecast::COLUMNS))]
pub(crate) struct Forecast {
    #[command(flatten)]
    place: Where,
    /// The time from the first step to the last, as `24 hours` or `1h 30m` [default: the policy's]
    #[arg(value_name = "DURATION")]
    duration: Vec<String>,
    /// The canary's shares in percent, rising to 100 [default: the policy's]
    #[arg(long, value_name = "PERCENT,..", value_parser = sentence::steps, conflicts_with = "share")]
    steps: Option<Steps>,
    /// One share in percent for all of the time, instead of steps
    #[arg(long, value_name = "PERCENT")]
    share: Option<Weight>,
    /// Assume so many requests a minute for both versions together [default: as measured]
    #[arg(long, value_name = "N", value_parser = sentence::number)]
    requests_per_minute: Option<f64>,
}

impl Forecast {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        let duration_ms = sentence::duration_ms(&self.duration)
            .map_err(|why| Failure::usage(format!("forecast {}: {why}", self.place.service)))?;
        let (share, requests_per_minute) = (self.share, self.requests_per_minute);
        let planned =
            PlannedRollout { requests_per_minute, share, duration_ms, steps: self.steps.as_ref().map(points) };
        let question = ForecastQuestion { deployment: self.place.deployment(), planned };
        session.wait_for(async {
            let ledger = session.ledger()?;
            let progress = Progress::begin(session.out, "reading the ledger and the traffic");
            let asked = ledger.ask(&question).await;
            if asked.is_err() {
                refuse_unknown(&ledger, Some(&self.place.service), &self.place.env).await?;
            }
            let answer = asked?;
            drop(progress);
            session.show(&answer)?;
            Ok(Exit::Done)
        })
    }
}

/// Returns steps as the ledger is asked about them.
pub(crate) fn points(steps: &Steps) -> String {
    let points: Vec<String> = steps.0.iter().map(|step| step.basis_points().to_string()).collect();
    points.join(",")
}
