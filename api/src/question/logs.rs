//! What a deployment's nodes wrote.

use std::path::Path;

use workers::nodes::process::logs::{Line, Logs, Wanted};

use super::LinesQuestion;
use super::address::addressed;
use crate::problem::{Code, Problem};

addressed!(Wanted, ["/v1/logs/{environment}/{service}"], { deployment, version, node, since, follow });

impl LinesQuestion for Wanted {
    type Line = Line;
}

/// Opens the logs that are wanted in the data folder `data`. `may_come` says whether nodes may yet come whose logs are waited for.
///
/// # Errors
///
/// There is none, or they cannot be read.
pub fn open_logs(data: &Path, wanted: Wanted, may_come: bool) -> Result<Logs, Problem> {
    let told = wanted.told();
    let logs = Logs::open(data, wanted).map_err(|cause| {
        Problem::new(Code::Internal, format!("the nodes' logs in {} cannot be read: {cause}", data.display()))
    })?;
    if logs.is_empty() && !may_come {
        let next = "`ionledger status` shows what runs; of ended nodes the last 100 are kept";
        return Err(Problem::new(Code::Unknown, format!("no {told} has a log here; {next}")));
    }
    Ok(logs)
}
