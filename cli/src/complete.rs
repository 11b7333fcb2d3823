//! Completion: what a shell offers for the word under the cursor, the services and versions of the ledger among it.
//!
//! A shell that has read `ionledger completions SHELL` runs this program with [`VARIABLE`] set and the words so far.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use api::question::ProductionQuestion;
use clap::{Args as _, CommandFactory as _};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, ValueCompleter};
use clap_complete::env::CompleteEnv;
use replay::Moment;
use replay::answer::{Production, VersionStatus};

use crate::args::Globals;
use crate::client::LedgerClient;

/// The variable that says that a shell asks, and which.
pub(crate) const VARIABLE: &str = "IONLEDGER_COMPLETE";

/// How long a shell may wait for services and versions; later there are none.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Answers a shell and ends the process, if one asks.
pub(crate) fn answer_shell() {
    CompleteEnv::with_factory(command).var(VARIABLE).complete();
}

/// Returns the command line without the commands that are not for people, and with what completes its names.
pub(crate) fn command() -> clap::Command {
    let whole = crate::Cli::command();
    let shown = whole.get_subcommands().filter(|command| !command.is_hide_set());
    let shown: Vec<clap::Command> = shown.cloned().map(with_names).collect();
    Globals::augment_args(clap::Command::new("ionledger")).version(env!("CARGO_PKG_VERSION")).subcommands(shown)
}

fn with_names(command: clap::Command) -> clap::Command {
    command.mut_args(|argument| {
        let names = argument.get_value_names().and_then(|names| Names::called(names.first()?.as_str()));
        match names {
            Some(names) => argument.add(ArgValueCompleter::new(names)),
            None => argument,
        }
    })
}

/// What an argument names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    Services,
    Versions,
    /// A version, its percentage, a version, and so on.
    Shares,
    Environments,
}

impl Names {
    fn called(value_name: &str) -> Option<Self> {
        match value_name {
            "SERVICE" | "SERVICE|OFFSET|COMMIT|VERSION" => Some(Names::Services),
            "VERSION" | "FROM" | "TO" => Some(Names::Versions),
            "VERSION PERCENT" => Some(Names::Shares),
            "ENVIRONMENT" => Some(Names::Environments),
            _ => None,
        }
    }

    fn of(self, production: &Production, words: &[String]) -> Vec<String> {
        let services = production.services.iter();
        match self {
            Names::Services => services.map(|service| service.status.service.to_string()).collect(),
            Names::Environments => {
                let deployments = services.flat_map(|service| &service.status.deployments);
                let mut names: Vec<String> = deployments.map(|found| found.environment.to_string()).collect();
                names.sort();
                names.dedup();
                names
            }
            Names::Versions | Names::Shares => {
                let named = services.filter(|service| words.iter().any(|word| word == service.status.service.as_str()));
                // The newest first, and after the releases the stacks that a version does not name.
                let releases = named.clone().flat_map(|service| service.recorded.iter().rev());
                let releases = releases.map(|found| found.version.to_string());
                let deployments = named.flat_map(|service| &service.status.deployments);
                let stacks = deployments.flat_map(|found| &found.versions).map(VersionStatus::name);
                let of_releases = |word: &String| ["release", "new", "renew"].contains(&word.as_str());
                let takes_stacks = !words.iter().any(of_releases);
                let stacks = stacks.filter(|name| takes_stacks && !name.is_first());
                releases.chain(stacks.map(|name| name.to_string())).collect()
            }
        }
    }
}

impl ValueCompleter for Names {
    fn complete(&self, current: &OsStr) -> Vec<CompletionCandidate> {
        let words: Vec<String> =
            std::env::args_os().skip_while(|word| word != "--").filter_map(|word| word.into_string().ok()).collect();
        let begins = |name: &String| current.to_str().is_some_and(|current| name.starts_with(current));
        let names = production(&words).map(|production| self.of(&production, &words)).unwrap_or_default();
        let at = current.to_str().and_then(|current| words.iter().rposition(|word| word == current));
        let previous = at.and_then(|at| words.get(at.checked_sub(1)?));
        if *self == Names::Shares && previous.is_some_and(|previous| names.contains(previous)) {
            return vec![]; // after a version stands its percentage
        }
        names.into_iter().filter(begins).map(CompletionCandidate::new).collect()
    }
}

/// Asks the ledger that the words name, or the user's own.
fn production(words: &[String]) -> Option<Production> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let ledger = LedgerClient::new(&globals(words)).ok()?;
    let question = ProductionQuestion { moment: Moment::Now };
    let asked = async { tokio::time::timeout(WAIT_MAX, ledger.ask(&question)).await.ok()?.ok() };
    runtime.block_on(asked)
}

/// Returns where the ledger is, as the words or the environment say.
fn globals(words: &[String]) -> Globals {
    let said = |option: &str, variable: &str| -> Option<OsString> {
        let together = words.iter().find_map(|word| word.strip_prefix(option)?.strip_prefix('='));
        let apart = || words.iter().skip_while(|word| *word != option).nth(1).map(String::as_str);
        together.or_else(apart).map(OsString::from).or_else(|| std::env::var_os(variable))
    };
    Globals {
        data: said("--data", "IONLEDGER_DATA").map(PathBuf::from),
        server: said("--server", "IONLEDGER_SERVER").and_then(|server| server.into_string().ok()),
        token_file: said("--token-file", "IONLEDGER_TOKEN_FILE").map(PathBuf::from),
        json: false,
        no_color: true,
        quiet: true,
    }
}
