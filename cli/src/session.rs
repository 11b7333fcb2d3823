//! A session: one run of the binary, with its arguments, its output and its way to the ledger.

use std::future::Future;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use schemas::glass::Unrecorded;

use crate::args::Globals;
use crate::door::Door;
use crate::failure::{Failure, Outcome};
use crate::out::{Form, Out};
use crate::render;

/// How long a command that has its answer waits for what it has begun besides.
const LEAVE_MAX: Duration = Duration::from_millis(200);

/// One run of the binary.
#[derive(Debug)]
pub(crate) struct Session {
    /// What holds for every command.
    pub(crate) globals: Globals,
    /// Where words go.
    pub(crate) out: Out,
}

impl Session {
    /// Returns the session of these arguments.
    pub(crate) fn new(globals: Globals) -> Self {
        let out = Out::new(globals.json, globals.quiet, globals.no_color);
        Self { globals, out }
    }

    /// Returns the way to the ledger.
    pub(crate) fn door(&self) -> Outcome<Door> {
        Door::new(&self.globals)
    }

    /// Returns the moment, in the zone that times are shown in.
    pub(crate) fn now(&self) -> Zoned {
        Timestamp::now().to_zoned(zone())
    }

    /// Says what an answer without a line is: nothing, and not a failure. Eyes and programs see that in the answer.
    pub(crate) fn say_empty(&self, empty: bool, what: impl std::fmt::Display) {
        if empty && self.out.form == Form::Lines {
            self.out.say(&format!("{what}"));
        }
    }

    /// Says what the ledger does not have yet, where the answer's own form has no place for it.
    pub(crate) fn warn_of(&self, unrecorded: &[Unrecorded]) {
        if self.out.form != Form::Eyes && !unrecorded.is_empty() {
            self.out.say(render::unrecorded::eyes(unrecorded, &self.now()).trim_end());
        }
    }

    /// Reads a moment that is written on the command line.
    pub(crate) fn moment(&self, text: &str) -> Outcome<Timestamp> {
        api::moment::parse(text, &self.now()).map_err(Failure::usage)
    }

    /// Carries something out that waits for the network.
    pub(crate) fn wait_for<T>(&self, future: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::error(format!("cannot start the async runtime: {error}")))?;
        let ended = runtime.block_on(future);
        // What still waits for brokers that do not answer is left behind.
        runtime.shutdown_timeout(LEAVE_MAX);
        ended
    }
}

/// Returns this machine's zone. One that `TZ` names and that does not exist is no zone and not silently UTC; a machine on
/// which nothing names one is in UTC.
fn zone() -> TimeZone {
    let unnamed = || if std::env::var_os("TZ").is_none() { TimeZone::UTC } else { TimeZone::unknown() };
    TimeZone::try_system().unwrap_or_else(|_| unnamed())
}
