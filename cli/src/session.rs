//! A session: one run of the binary, with its arguments, its output and its way to the ledger.

use std::future::Future;
use std::time::Duration;

use api::question::Question;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use schemas::break_glass::Unrecorded;

use crate::args::Globals;
use crate::client::LedgerClient;
use crate::failure::{CommandResult, Failure};
use crate::out::{Form, Out};
use crate::progress::Progress;
use crate::render::{self, Render};
use crate::usage;

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
    pub(crate) fn ledger(&self) -> CommandResult<LedgerClient> {
        LedgerClient::new(&self.globals)
    }

    /// Returns the moment, in the zone that times are shown in.
    pub(crate) fn now(&self) -> Zoned {
        Timestamp::now().to_zoned(zone())
    }

    /// Asks a question, and shows that it takes long.
    pub(crate) async fn ask<Q: Question>(&self, ledger: &LedgerClient, question: &Q) -> CommandResult<Q::Answer> {
        let _progress = Progress::begin(self.out, "reading the ledger");
        ledger.ask(question).await
    }

    /// Shows an answer in the form that is wanted. In a pipe, one without a line says what that means.
    pub(crate) fn show(&self, answer: &impl Render) -> CommandResult<()> {
        let now = self.now();
        self.out.answer(answer, &now)?;
        if self.out.form == Form::Lines && answer.lines().is_empty() {
            answer.nothing(&now).iter().for_each(|nothing| self.out.say(nothing));
        }
        Ok(())
    }

    /// Says what the ledger does not have yet, where the answer's own form has no place for it.
    pub(crate) fn warn_of(&self, unrecorded: &[Unrecorded]) {
        if self.out.form != Form::Eyes && !unrecorded.is_empty() {
            self.out.say(render::unrecorded::eyes(unrecorded, &self.now()).trim_end());
        }
    }

    /// Reads a moment that is written on the command line.
    pub(crate) fn moment(&self, text: &str) -> CommandResult<Timestamp> {
        usage::moment(text, &self.now())
    }

    /// Carries something out that waits for the network.
    pub(crate) fn wait_for<T>(&self, future: impl Future<Output = CommandResult<T>>) -> CommandResult<T> {
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
