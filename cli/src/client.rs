//! The way to the ledger: the running `up` of a data folder, a server over TCP, or the folder itself for reading.

use std::path::{Path, PathBuf};

use api::client::{self, Client};
use api::question::{FolderAnswerer, Question, StatusQuestion, VerifyQuestion, open_logs};
use api::{Code, Problem};
use ledger::log::segments::{self, Elsewhere, SegmentsOpenError};
use replay::answer::{DeploymentStatus, HistoryAnswer, StatusAnswer, Verified};
use replay::{HistoryQuery, Moment, Reader};
use schemas::{DeploymentId, EnvironmentName, ServiceName};
use workers::nodes::process::logs::{Line, Logs, Wanted};
use workers::text_file;

use crate::args::Globals;
use crate::failure::{CommandResult, Failure};
use crate::not_allowed::{is_closed, not_allowed, refuse_strangers};
use crate::{halted, unattended};

/// The way to the ledger.
#[derive(Debug)]
pub(crate) struct LedgerClient {
    client: Client,
    /// The data folder, unless a server was named.
    data: Option<PathBuf>,
}

impl LedgerClient {
    /// Returns the way that the arguments name.
    ///
    /// # Errors
    ///
    /// A usage error if a server is named without its token, or in a way that is not understood.
    pub(crate) fn new(globals: &Globals) -> CommandResult<Self> {
        let Some(server) = &globals.server else {
            let data = globals.data()?;
            let client = Client::of_data(&data).on_halted(halted::heard);
            // What is in Kafka cannot be read in the folder: a process that starts is waited for.
            let client =
                if segments::elsewhere(&data).is_ok_and(|at| at.is_some()) { client.patient() } else { client };
            return Ok(Self { client, data: Some(data) });
        };
        let address = address(server)?;
        let Some(file) = &globals.token_file else {
            return Err(Failure::usage("--server needs a token; name its file with --token-file FILE"));
        };
        let token = text_file::read_text(file)
            .map_err(|error| Failure::error(format!("token file {}: {error}; name another", file.display())))?;
        Ok(Self { client: Client::of_address(&address, token.trim()).on_halted(halted::heard), data: None })
    }

    /// Returns the way to whom `client` asks.
    pub(crate) fn to(client: Client) -> Self {
        Self { client: client.on_halted(halted::heard), data: None }
    }

    /// Returns the data folder, unless a server was named.
    pub(crate) fn data(&self) -> Option<&Path> {
        self.data.as_deref()
    }

    /// Returns the client of the running ledger.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Asks the ledger that runs, or else reads the answer from the data folder.
    pub(crate) async fn ask<Q: Question>(&self, question: &Q) -> CommandResult<Q::Answer> {
        match self.client.ask(question).await {
            Ok(answer) => Ok(answer),
            Err(error) => Ok(question.answer(&self.folder_after(error).await?).await?),
        }
    }

    /// Returns how a deployment stands now, if there is one.
    pub(crate) async fn deployment(&self, deployment: &DeploymentId) -> CommandResult<Option<DeploymentStatus>> {
        self.deployment_at(deployment, Moment::Now).await
    }

    /// Returns how a deployment stood at `moment`, as [`Self::deployment`].
    pub(crate) async fn deployment_at(
        &self,
        deployment: &DeploymentId,
        moment: Moment,
    ) -> CommandResult<Option<DeploymentStatus>> {
        let DeploymentId { service, environment } = deployment.clone();
        let question = StatusQuestion { service: Some(service), environment: Some(environment), moment };
        let status = self.client.ask(&question).await?;
        let mut deployments = status.services.into_iter().flat_map(|service| service.deployments);
        Ok(deployments.find(|found| found.deployment == *deployment))
    }

    /// Returns what runs and what serves now. Where nobody follows the ledger, it is looked what is really there.
    pub(crate) async fn status(
        &self,
        service: Option<&ServiceName>,
        environment: Option<&EnvironmentName>,
    ) -> CommandResult<StatusAnswer> {
        let question = StatusQuestion::now(service, environment);
        let error = match self.client.ask(&question).await {
            Ok(status) => return Ok(status),
            Err(error) => error,
        };
        let silent = silent(&error);
        let unattended = silent.is_some() || matches!(error, client::Error::NotRunning { .. });
        let folder = self.folder_after(error).await?;
        let mut status = question.answer(&folder).await?;
        status.copy_of = segments::copy_of(&folder.data).map_err(Failure::error)?;
        if unattended && status.moved_to.is_none() && status.copy_of.is_none() {
            unattended::look(&folder.data, silent, &mut status).await;
        }
        Ok(status)
    }

    /// Returns history page by page.
    pub(crate) fn history(&self, query: HistoryQuery) -> Pages<'_> {
        Pages { ledger: self, folder: None, left: query.limit, query, more: true }
    }

    /// Says that a service was never declared, and which were.
    pub(crate) async fn unknown(&self, service: &ServiceName) -> Failure {
        let known = self.status(None, None).await.map(|status| status.services).unwrap_or_default();
        Failure::error(ledger::Rejection::unknown_service(service, known.iter().map(|found| &found.service)))
    }

    /// Returns what a deployment's nodes wrote.
    pub(crate) async fn logs(&self, wanted: &Wanted) -> CommandResult<Lines> {
        let error = match self.client.lines(wanted).await {
            Ok(lines) => return Ok(Lines::Answered(lines)),
            Err(error) => error,
        };
        let Some(data) = self.data.as_ref().filter(|_| is_for_folder(&error)) else { return Err(error.into()) };
        refuse_strangers(data)?;
        // Nothing runs that could launch a node whose log may be waited for.
        Ok(Lines::Folder(open_logs(data, wanted.clone(), false)?))
    }

    /// Recomputes the ledger: that of the data folder here, whatever runs on it; a server does it itself, and so does
    /// what runs on a folder whose ledger lies in Kafka.
    pub(crate) async fn verify(&self) -> CommandResult<Verified> {
        let Some(data) = &self.data else { return Ok(self.client.ask(&VerifyQuestion).await?) };
        let closed = |error| if is_closed(data) { not_allowed(data) } else { Failure::error(error) };
        if segments::elsewhere(data).map_err(closed)?.is_none() {
            return Ok(VerifyQuestion.answer(&open(data, None).await?).await?);
        }
        match self.client.ask(&VerifyQuestion).await {
            Err(client::Error::NotRunning { .. }) => Ok(VerifyQuestion.answer(&open(data, None).await?).await?),
            answered => Ok(answered?),
        }
    }

    /// Answers from the data folder's log, folded from its first record.
    pub(crate) async fn ask_log<Q: Question>(&self, question: &Q) -> CommandResult<Q::Answer> {
        let Some(data) = &self.data else {
            return Err(Failure::usage("--from-genesis reads the data folder; leave --server out"));
        };
        let folder = open(data, None).await?;
        Ok(question.answer(&FolderAnswerer { reader: folder.reader.without_cache(), ..folder }).await?)
    }

    /// Returns the data folder, where that is read after `error`.
    async fn folder_after(&self, error: client::Error) -> CommandResult<FolderAnswerer> {
        let Some(data) = self.data.as_ref().filter(|_| is_for_folder(&error)) else { return Err(error.into()) };
        let silent = silent(&error);
        match open(data, silent.clone()).await {
            // What hangs is the reason, where the folder itself has no answer.
            Err(_) if silent.is_some() => Err(error.into()),
            opened => opened,
        }
    }
}

/// Returns what should have answered and answered nothing, if that is why there is no answer.
fn silent(error: &client::Error) -> Option<String> {
    matches!(error, client::Error::Silent { .. }).then(|| error.to_string())
}

/// Says whether the command reads the data folder itself after this error: no process runs on it, the process does not answer, this
/// user may read the folder but not ask the process, or the process is an older program that does not know the question.
fn is_for_folder(error: &client::Error) -> bool {
    match error {
        client::Error::NotRunning { .. } | client::Error::NotAllowed { .. } | client::Error::Silent { .. } => true,
        client::Error::Refused(problem) => problem.code == Code::NoSuchPath,
        _ => false,
    }
}

/// How many commits are asked for at a time.
const PAGE: usize = 1_000;

/// History as it is read, the newest commits first.
pub(crate) struct Pages<'d> {
    ledger: &'d LedgerClient,
    /// The folder's reader, once it turned out that nothing runs there.
    folder: Option<FolderAnswerer>,
    query: HistoryQuery,
    left: Option<usize>,
    more: bool,
}

impl Pages<'_> {
    /// Returns the next page, or nothing if there is none; of a history that is empty, too, there is a first.
    pub(crate) async fn next(&mut self) -> CommandResult<Option<HistoryAnswer>> {
        if !self.more || self.left == Some(0) {
            return Ok(None);
        }
        self.query.limit = Some(self.left.map_or(PAGE, |left| left.min(PAGE)));
        let page = self.read().await?;
        self.left = self.left.map(|left| left.saturating_sub(page.entries.len()));
        self.query.before = page.entries.last().map(|entry| entry.offset);
        self.more = page.more && self.query.before.is_some();
        Ok(Some(page))
    }

    /// Says whether another page is asked for and there.
    pub(crate) fn go_on(&self) -> bool {
        self.more && self.left != Some(0)
    }

    async fn read(&mut self) -> CommandResult<HistoryAnswer> {
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => match self.ledger.client.ask(&self.query).await {
                Ok(history) => return Ok(history),
                Err(error) => self.ledger.folder_after(error).await?,
            },
        };
        let page = self.query.answer(&folder).await?;
        self.folder = Some(folder);
        Ok(page)
    }
}

/// Opens the ledger in a data folder for reading. `silent` says what should measure and answers nothing.
async fn open(data: &Path, silent: Option<String>) -> CommandResult<FolderAnswerer> {
    refuse_strangers(data)?;
    match segments::elsewhere(data).map_err(Failure::error)? {
        None => {
            let reader = Reader::open(data).await?;
            // A log that cannot be read says so in the answer to what is asked.
            if let Ok(Some(to)) = reader.moved_to().await {
                halted::moved(&to);
            }
            let nothing_runs = || "no process runs that measures it; start `ionledger up`".to_owned();
            Ok(FolderAnswerer { reader, data: data.to_owned(), unmeasured: silent.unwrap_or_else(nothing_runs) })
        }
        Some(Elsewhere { place, .. }) => Err(Failure::error(format!(
            "the ledger of {} lies in {place}, and no ionledger process on this machine follows it; start `ionledger api \
             --ledger {place}`, or `ionledger up --ledger {place}`",
            data.display()
        ))),
    }
}

/// Who tells what nodes wrote.
pub(crate) enum Lines {
    /// The running ledger.
    Answered(client::Events<Line>),
    /// The folder itself.
    Folder(Logs),
}

impl From<replay::Error> for Failure {
    fn from(error: replay::Error) -> Self {
        Problem::from(error).into()
    }
}

/// Reads a server's address: `http://127.0.0.1:7070` or `127.0.0.1:7070`.
fn address(server: &str) -> CommandResult<String> {
    let wrong = |why: &str| Err(Failure::usage(format!("--server {server}: {why}; write http://HOST:PORT")));
    let rest = match server.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https", _)) => return wrong("TLS is not supported; put a tunnel or a proxy before it"),
        Some(_) => return wrong("it is not the address of a server"),
        None => server,
    };
    let rest = rest.trim_end_matches('/');
    match rest.parse::<http::uri::Authority>() {
        Ok(authority) if authority.port_u16().is_some() && !rest.contains('@') => Ok(rest.to_owned()),
        _ => wrong("it has no host and port"),
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        match error {
            client::Error::Refused(problem) => problem.into(),
            client::Error::NotAllowed { socket } => not_allowed(socket.parent().unwrap_or(&socket)),
            client::Error::NotRunning { data } => not_running(data),
            other => Failure::ending(other.exit_code(), other),
        }
    }
}

/// Says why nothing runs on a data folder: nobody started it, or there is no ledger that could be started.
fn not_running(data: PathBuf) -> Failure {
    match segments::check_ledger(&data) {
        Err(unfit @ (SegmentsOpenError::NoLog(_) | SegmentsOpenError::Copy { .. })) => Failure::error(unfit),
        Ok(()) | Err(_) => {
            let error = client::Error::NotRunning { data };
            Failure::ending(error.exit_code(), error)
        }
    }
}

#[cfg(test)]
mod tests {
    use ledger::log::segments::DataFolder;

    use super::*;

    #[test]
    fn where_nothing_runs_it_is_said_whether_there_is_a_ledger_that_could() {
        let (folder, none) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let said = |data: &Path| Failure::from(client::Error::NotRunning { data: data.to_owned() }).whole();
        assert!(said(none.path()).starts_with("there is no ledger in "), "{}", said(none.path()));
        let data = DataFolder::hold(folder.path()).unwrap();
        assert!(said(folder.path()).starts_with("nothing runs on "), "{}", said(folder.path()));
        data.mark_copy(Some("kafka://there/ledger")).unwrap();
        let copy = said(folder.path());
        assert!(
            copy.contains("is a read-only copy of kafka://there/ledger") && !copy.contains("ionledger up"),
            "{copy}"
        );
    }

    #[test]
    fn a_servers_address_is_a_host_and_a_port() {
        assert_eq!(address("http://127.0.0.1:7070/").unwrap(), "127.0.0.1:7070");
        assert_eq!(address("localhost:7070").unwrap(), "localhost:7070");
        for server in ["https://a:1", "ftp://a:1", "localhost", "a:99999", "user@a:1", "http://a:1/x"] {
            assert_eq!(address(server).unwrap_err().exit_code(), 2, "{server}");
        }
    }
}
