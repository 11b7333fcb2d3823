//! Every record of the log, as it is folded.

use schemas::Offset;

use super::LinesQuestion;
use super::address::{Addressed, Parameter, ReceivedParameters, WrittenParameters};
use crate::problem::Problem;
use crate::wire::Record;

/// The records from an offset on: to the log's end, or as they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventsQuestion {
    /// The first of them.
    pub from: Offset,
    /// Whether more is waited for.
    pub follow: bool,
}

impl Addressed for EventsQuestion {
    const PATHS: &'static [&'static str] = &["/v1/events"];
}

/// What is left out is the log's beginning, and to wait for more.
impl Parameter for EventsQuestion {
    fn write(&self, _: &'static str, to: &mut WrittenParameters) {
        to.extend([("from", self.from.to_string()), ("follow", self.follow.to_string())]);
    }

    fn read(_: &'static str, from: &mut ReceivedParameters) -> Result<Self, Problem> {
        let first = Option::read("from", from)?.unwrap_or(Offset(0));
        Ok(Self { from: first, follow: Option::read("follow", from)?.unwrap_or(true) })
    }
}

impl LinesQuestion for EventsQuestion {
    type Line = Record;
}
