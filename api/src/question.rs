//! Questions: every read is one type with its answer, its address, and the way from a reader to the answer. Server, client and
//! command line have one way for all of them; ARCHITECTURE.md says why they lie here.

pub mod address;

mod declaration;
mod events;
mod explain;
mod forecast;
mod history;
mod logs;
mod measured;
mod production;
mod standing;
mod status;
mod verify;
mod who_shipped;

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use ledger::Ledger;
use ledger::execute::{Clock as _, ClockTrouble, SystemClock};
use replay::answer::RouterSilentStatus;
use replay::{Moment, Reader};
use schemas::break_glass::Unrecorded;
use schemas::policy::JudgementPolicy;
use schemas::{DeploymentId, EnvironmentName, ServiceName, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use workers::measures::{Asked, Measured};

use crate::problem::Problem;

pub use address::{Addressed, Parameter};
pub use declaration::DeclarationQuestion;
pub use events::EventsQuestion;
pub use explain::{ExplainNamedQuestion, ExplainQuestion};
pub use forecast::ForecastQuestion;
pub use logs::open_logs;
pub use production::ProductionQuestion;
pub use standing::StandingQuestion;
pub use status::StatusQuestion;
pub use verify::VerifyQuestion;
pub use who_shipped::WhoShippedQuestion;

/// Calls `each` with every question whose answer is sent whole.
pub fn for_each(each: &mut impl ForEach) {
    each.question::<StatusQuestion>();
    each.question::<DeclarationQuestion>();
    each.question::<WhoShippedQuestion>();
    each.question::<ExplainQuestion>();
    each.question::<ExplainNamedQuestion>();
    each.question::<ForecastQuestion>();
    each.question::<ProductionQuestion>();
    each.question::<VerifyQuestion>();
    each.question::<StandingQuestion>();
}

/// What is done with every question.
pub trait ForEach {
    /// Does it with one.
    fn question<Q: Question>(&mut self);
}

/// A read: one type with its address and its answer.
#[async_trait]
pub trait Question: Addressed + Send + Sync + 'static {
    /// What it is answered with: JSON over HTTP and for `--json`.
    type Answer: Serialize + DeserializeOwned + Send + 'static;

    /// How long a client waits until the answer begins.
    const WAIT_MAX: Duration = Duration::from_secs(60);

    /// Says whether the whole log may be folded for it; a server answers a few such questions at a time.
    fn is_long(&self) -> bool {
        true
    }

    /// Returns the answer.
    ///
    /// # Errors
    ///
    /// Why there is none.
    async fn answer(&self, by: &dyn Answerer) -> Result<Self::Answer, Problem>;
}

/// A question whose answer is lines of JSON, sent as they come and taken as they are read.
pub trait LinesQuestion: Addressed {
    /// What stands in a line.
    type Line: DeserializeOwned;
}

/// Who answers: a server, or a command that reads the data folder itself.
#[async_trait]
pub trait Answerer: Send + Sync {
    /// Returns what the ledger is read with.
    fn reader(&self) -> &Reader;

    /// Returns the data folder.
    fn data(&self) -> &Path;

    /// Returns the ledger, where it is followed.
    fn ledger(&self) -> Option<&Ledger>;

    /// Returns every rollback that was carried out here and that the ledger does not have yet.
    fn unrecorded(&self) -> Vec<Unrecorded>;

    /// Returns what is wrong with this machine's clock, where the ledger's time is `ledger`.
    fn clock_trouble(&self, ledger: Option<Timestamp>) -> Option<ClockTrouble>;

    /// Returns the router that has not answered for some seconds, if it is this one's.
    fn silent_router(&self) -> Option<RouterSilentStatus>;

    /// Returns what was measured lately of some stacks' requests.
    ///
    /// # Errors
    ///
    /// Why nothing was, in a few words.
    async fn measured(&self, asked: &Asked, policy: &JudgementPolicy) -> Result<Measured, String>;

    /// Returns what was measured in the last minute, if that is known at once.
    async fn measured_recently(&self, asked: &Asked, policy: &JudgementPolicy) -> Option<Measured>;
}

/// Returns what the ledger does not have yet of a service, in an environment, or of all. Every answer that has
/// `unrecorded` gets it here.
fn unrecorded(
    by: &dyn Answerer,
    service: Option<&ServiceName>,
    environment: Option<&EnvironmentName>,
) -> Vec<Unrecorded> {
    let mut all = by.unrecorded();
    all.retain(|one| {
        service.is_none_or(|wanted| *wanted == one.deployment.service)
            && environment.is_none_or(|wanted| *wanted == one.deployment.environment)
    });
    all
}

/// Returns what the ledger does not have yet of a deployment, or of all, and was asked for by `moment`. After a record of the log
/// it is nothing: it is after none.
fn unrecorded_at(by: &dyn Answerer, deployment: Option<&DeploymentId>, moment: Moment) -> Vec<Unrecorded> {
    let by_then = |one: &Unrecorded| match moment {
        Moment::Now => true,
        Moment::Time(time) => one.at <= time,
        Moment::Offset(_) | Moment::Event(_) => false,
    };
    let mut all = unrecorded(by, deployment.map(|id| &id.service), deployment.map(|id| &id.environment));
    all.retain(by_then);
    all
}

/// A data folder that the command reads itself, because no process answers for it.
pub struct FolderAnswerer {
    /// What its ledger is read with.
    pub reader: Reader,
    /// The folder.
    pub data: PathBuf,
    /// Why nothing is measured.
    pub unmeasured: String,
}

#[async_trait]
impl Answerer for FolderAnswerer {
    fn reader(&self) -> &Reader {
        &self.reader
    }

    fn data(&self) -> &Path {
        &self.data
    }

    fn ledger(&self) -> Option<&Ledger> {
        None
    }

    fn unrecorded(&self) -> Vec<Unrecorded> {
        workers::break_glass::left_in(&self.data)
    }

    /// Nobody runs here who could know of a jump; that time stands still can be seen all the same.
    fn clock_trouble(&self, ledger: Option<Timestamp>) -> Option<ClockTrouble> {
        let wall = SystemClock.now();
        ClockTrouble::of(wall, wall, ledger?)
    }

    /// Nobody calls it from here.
    fn silent_router(&self) -> Option<RouterSilentStatus> {
        None
    }

    async fn measured(&self, _: &Asked, _: &JudgementPolicy) -> Result<Measured, String> {
        Err(self.unmeasured.clone())
    }

    async fn measured_recently(&self, _: &Asked, _: &JudgementPolicy) -> Option<Measured> {
        None
    }
}
