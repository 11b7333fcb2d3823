//! `ionledger judge`: the judge on anyone's own counts, outside a rollout.

mod input;
mod verdict_row;

use std::io::{BufRead, BufReader};

use clap::Args;
use ledger::judgement::judge::Judge as Fold;
use schemas::judgement::Verdict;

use crate::exit::Exit;
use crate::failure::{CommandResult, Failure};
use crate::session::Session;
use input::Input;

/// Judge a canary by counts from a file or a pipe, as a rollout would.
///
/// The first line is the plan, each other line a tick with requests and hits of both versions:
///
///   {"plan_seconds": 86400, "metrics": [{"name": "errors", "history": {"requests": 6000, "hits": 6}}]}
///   {"seconds": 1, "nu": 0.111, "errors": {"baseline": [900, 1], "canary": [100, 0]}}
///
/// It reads until there is a verdict (ACCEPT or ROLLBACK) or no more lines (NONE), and gives it as JSON with the line
/// it fell at, the first tick being row 1. docs/judgement.md explains every key and number.
///
/// It ends with 0 if the canary is accepted, 5 if it would be rolled back, 6 if neither can be said.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  ionledger judge counts.ndjson
  ionledger judge counts.ndjson --trace | jq .ln_total
  ionledger judge - < counts.ndjson"
)]
pub(crate) struct Judge {
    /// The file, a line of JSON a tick; `-` reads stdin
    #[arg(value_name = "FILE")]
    file: String,
    /// Give a line for every tick before the verdict
    #[arg(long)]
    trace: bool,
}

impl Judge {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        let mut input = Input::new(self.file.clone(), self.open()?);
        let plan = input.plan()?;
        let mut fold = Fold::new(plan).map_err(|error| input.wrong(&error.to_string()))?;
        let mut seconds = 0.0;
        while fold.verdict() == Verdict::Inconclusive {
            let Some(tick) = input.tick(&fold.plan().metrics)? else { break };
            fold.tick(&tick);
            seconds += tick.seconds;
            if self.trace {
                session.out.data(&verdict_row::line(&verdict_row::Row::of(&fold, seconds))?)?;
            }
        }
        let told = verdict_row::VerdictRow::of(&fold, seconds);
        if self.trace {
            session.out.data(&verdict_row::line(&told)?)?
        } else {
            session.out.json(&told)?
        }
        Ok(match fold.verdict() {
            Verdict::NotWorse => Exit::Done,
            Verdict::Worse => Exit::RolledBack,
            Verdict::Inconclusive => Exit::Inconclusive,
        })
    }

    fn open(&self) -> CommandResult<Box<dyn BufRead>> {
        if self.file == "-" {
            return Ok(Box::new(std::io::stdin().lock()));
        }
        let file = std::fs::File::open(&self.file)
            .map_err(|error| Failure::error(format!("cannot read {}: {error}; name the file of counts", self.file)))?;
        Ok(Box::new(BufReader::new(file)))
    }
}
