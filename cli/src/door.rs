//! The way to the ledger: the running `up` of a data folder, a server over TCP, or the folder itself for reading.

use std::path::{Path, PathBuf};

use api::client::{self, Client};
use api::forecast::{self, Answer as Forecast, Question};
use api::{Code, Problem};
use ledger::execute::{Clock as _, ClockTrouble, SystemClock};
use ledger::log::segments::{self, Elsewhere};
use replay::answer::{Declaration, DeploymentStatus, Explanation, History, Production, Status, Verified, WhoShipped};
use replay::{HistoryQuery, Moment, Reader};
use schemas::glass::Unrecorded;
use schemas::{DeploymentId, EnvironmentName, ServiceName};
use workers::nodes::process::logs::{Line, Logs, Wanted, log_path};

use crate::args::Globals;
use crate::failure::{Failure, Outcome};
use crate::not_allowed::{is_closed, not_allowed};
use crate::{halted, unattended};

/// The way to the ledger.
#[derive(Debug)]
pub(crate) struct Door {
    client: Client,
    /// The data folder, unless a server was named.
    data: Option<PathBuf>,
}

impl Door {
    /// Returns the way that the arguments name.
    ///
    /// # Errors
    ///
    /// A usage error if a server is named without its token, or in a way that is not understood.
    pub(crate) fn new(globals: &Globals) -> Outcome<Self> {
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
        let token = std::fs::read_to_string(file)
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

    /// Returns how a deployment stands now, if there is one.
    pub(crate) async fn deployment(&self, deployment: &DeploymentId) -> Outcome<Option<DeploymentStatus>> {
        let status = self.client.status(Moment::Now, Some(&deployment.service), Some(&deployment.environment)).await?;
        let mut deployments = status.services.into_iter().flat_map(|service| service.deployments);
        Ok(deployments.find(|found| found.deployment == *deployment))
    }

    /// Returns what runs and what serves now.
    pub(crate) async fn status(
        &self,
        service: Option<&ServiceName>,
        environment: Option<&EnvironmentName>,
    ) -> Outcome<Status> {
        let asked = self.client.status(Moment::Now, service, environment).await;
        let silent = silent(&asked);
        let unattended = silent.is_some() || matches!(asked, Err(client::Error::NotRunning { .. }));
        match self.or_folder(asked).await? {
            Source::Answered(status) => Ok(status),
            Source::Folder(reader) => {
                let unrecorded = self.left(service, environment);
                let mut status = Status { unrecorded, ..reader.status(Moment::Now, service, environment).await? };
                if let (Some(data), true) = (&self.data, service.is_some()) {
                    status.name_logs(|node| log_path(data, node).display().to_string());
                }
                if let (Some(data), true, None) = (&self.data, unattended, &status.moved_to) {
                    unattended::look(data, silent, &mut status).await;
                }
                // Nobody runs here who could know of a jump; that time stands still can be seen all the same.
                let (wall, ledger) = (SystemClock.now(), status.at.time);
                let trouble = ledger.and_then(|ledger| ClockTrouble::of(wall, wall, ledger));
                status.clock = trouble.map(|trouble| trouble.to_string());
                Ok(status)
            }
        }
    }

    /// Returns history page by page.
    pub(crate) fn history(&self, query: HistoryQuery) -> Pages<'_> {
        Pages { door: self, folder: None, left: query.limit, query, more: true }
    }

    /// Returns an explanation of what `what` names: a service, an offset, a commit or a version.
    pub(crate) async fn explain_named(
        &self,
        what: &str,
        service: Option<&ServiceName>,
        environment: &EnvironmentName,
        moment: Moment,
    ) -> Outcome<Explanation> {
        let asked = self.client.explain_named(what, service, environment, moment).await;
        match self.or_folder(asked).await? {
            Source::Answered(answer) => Ok(answer),
            Source::Folder(reader) => Ok(reader.explain_named(what, service, environment, moment).await?),
        }
    }

    /// Says that a service was never declared, and which were.
    pub(crate) async fn unknown(&self, service: &ServiceName) -> Failure {
        let known = self.status(None, None).await.map(|status| status.services).unwrap_or_default();
        Failure::error(ledger::Rejection::unknown_service(service, known.iter().map(|found| &found.service)))
    }

    /// Returns how a service was declared at a moment.
    pub(crate) async fn declaration(&self, service: &ServiceName, moment: Moment) -> Outcome<Declaration> {
        let asked = self.client.declaration(service, moment).await;
        match self.or_folder(asked).await? {
            Source::Answered(answer) => Ok(answer),
            Source::Folder(reader) => Ok(reader.declaration(service, moment).await?),
        }
    }

    /// Returns which versions served what share of a deployment at a moment, and who put them there.
    pub(crate) async fn who_shipped(&self, deployment: &DeploymentId, moment: Moment) -> Outcome<WhoShipped> {
        let asked = self.client.who_shipped(deployment, moment).await;
        match self.or_folder(asked).await? {
            Source::Answered(answer) => Ok(answer),
            Source::Folder(reader) => Ok(reader.who_shipped(deployment, moment).await?),
        }
    }

    /// Returns what a rollout of a deployment will be able to tell. Where nothing runs, the policy comes from the folder and
    /// nothing is known of the traffic.
    pub(crate) async fn forecast(&self, deployment: &DeploymentId, question: &Question) -> Outcome<Forecast> {
        let asked = self.client.forecast(deployment, question).await;
        let why = silent(&asked).unwrap_or_else(|| "nothing runs that measures it; start `ionledger up`".to_owned());
        match self.or_folder(asked).await? {
            Source::Answered(answer) => Ok(answer),
            Source::Folder(reader) => {
                let production = reader.production(Moment::Now).await?;
                let service = production.services.into_iter().find(|at| at.status.service == deployment.service);
                let Some(policy) = service.and_then(|service| service.policy) else {
                    return Err(self.unknown(&deployment.service).await);
                };
                let nothing = Err(why);
                Ok(forecast::answer(deployment.clone(), &policy, question, nothing)?)
            }
        }
    }

    /// Returns what a deployment's nodes wrote.
    pub(crate) async fn logs(&self, wanted: &Wanted) -> Outcome<Lines> {
        let error = match self.client.logs(wanted).await {
            Ok(lines) => return Ok(Lines::Answered(lines)),
            Err(error) => error,
        };
        let Some(data) = self.data.as_ref().filter(|_| is_for_folder(&error)) else { return Err(error.into()) };
        let logs = Logs::open(data, wanted.clone()).map_err(|cause| {
            Failure::error(format!("the nodes' logs in {} cannot be read: {cause}", data.display()))
        })?;
        // Nothing runs that could launch a node whose log may be waited for.
        if logs.is_empty() {
            let next = "`ionledger status` shows what runs; of ended nodes the last 100 are kept";
            return Err(Failure::error(format!("no {} has a log here; {next}", wanted.told())));
        }
        Ok(Lines::Folder(logs))
    }

    /// Returns all of production at a moment.
    pub(crate) async fn production(&self, moment: Moment) -> Outcome<Production> {
        let asked = self.client.production(moment).await;
        match self.or_folder(asked).await? {
            Source::Answered(answer) => Ok(answer),
            Source::Folder(reader) => Ok(reader.production(moment).await?),
        }
    }

    /// Recomputes the ledger: that of the data folder here, whatever runs on it; a server does it itself, and so does
    /// what runs on a folder whose ledger lies in Kafka.
    pub(crate) async fn verify(&self) -> Outcome<Verified> {
        let Some(data) = &self.data else { return Ok(self.client.verify().await?) };
        if segments::elsewhere(data).map_err(Failure::error)?.is_none() {
            return Ok(open(data).await?.verify().await?);
        }
        match self.client.verify().await {
            Err(client::Error::NotRunning { .. }) => Ok(open(data).await?.verify().await?),
            answered => Ok(answered?),
        }
    }

    /// Returns the reader of the data folder.
    pub(crate) async fn reader(&self) -> Outcome<Reader> {
        match &self.data {
            Some(data) => open(data).await,
            None => Err(Failure::usage("--from-genesis reads the data folder; leave --server out")),
        }
    }

    /// Returns what was done without the ledger and left in the folder.
    fn left(&self, service: Option<&ServiceName>, environment: Option<&EnvironmentName>) -> Vec<Unrecorded> {
        let left = self.data.iter().flat_map(|data| workers::glass::left_in(data));
        let about = |id: &DeploymentId| {
            service.is_none_or(|wanted| *wanted == id.service)
                && environment.is_none_or(|wanted| *wanted == id.environment)
        };
        left.filter(|one| about(&one.deployment)).collect()
    }

    /// Turns to the data folder where that is read.
    async fn or_folder<T>(&self, asked: Result<T, client::Error>) -> Outcome<Source<T>> {
        let error = match asked {
            Ok(answer) => return Ok(Source::Answered(answer)),
            Err(error) => error,
        };
        let Some(data) = &self.data else { return Err(error.into()) };
        if !is_for_folder(&error) {
            return Err(error.into());
        }
        // What hangs is the reason, where the folder itself has no answer.
        let reason = matches!(error, client::Error::Silent { .. }).then_some(error);
        match (open(data).await, reason) {
            (Ok(reader), _) => Ok(Source::Folder(Box::new(reader))),
            (Err(_), Some(error)) => Err(error.into()),
            (Err(failure), None) => Err(failure),
        }
    }
}

/// Returns what should have answered and answered nothing, if that is why there is no answer.
fn silent<T>(asked: &Result<T, client::Error>) -> Option<String> {
    let error = asked.as_ref().err()?;
    matches!(error, client::Error::Silent { .. }).then(|| error.to_string())
}

/// Says whether the data folder itself is read after this error: nothing runs on it, what runs answers nothing, this user may read
/// it but not ask, or an older program runs that does not know the question.
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
    door: &'d Door,
    /// The folder's reader, once it turned out that nothing runs there.
    folder: Option<Box<Reader>>,
    query: HistoryQuery,
    left: Option<usize>,
    more: bool,
}

impl Pages<'_> {
    /// Returns the next page, or nothing if there is none; of a history that is empty, too, there is a first.
    pub(crate) async fn next(&mut self) -> Outcome<Option<History>> {
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

    async fn read(&mut self) -> Outcome<History> {
        let reader = match self.folder.take() {
            Some(reader) => reader,
            None => match self.door.or_folder(self.door.client.history(&self.query).await).await? {
                Source::Answered(history) => return Ok(history),
                Source::Folder(reader) => reader,
            },
        };
        let unrecorded = self.door.left(self.query.service.as_ref(), self.query.environment.as_ref());
        let page = reader.history(&self.query).await?;
        self.folder = Some(reader);
        Ok(History { unrecorded, ..page })
    }
}

/// Opens the ledger in a data folder for reading.
async fn open(data: &Path) -> Outcome<Reader> {
    if is_closed(data) {
        return Err(not_allowed(data));
    }
    match segments::elsewhere(data).map_err(Failure::error)? {
        None => {
            let reader = Reader::open(data).await?;
            // A log that cannot be read says so in the answer to what is asked.
            if let Ok(Some(to)) = reader.moved_to().await {
                halted::moved(&to);
            }
            Ok(reader)
        }
        Some(Elsewhere { place, .. }) => Err(Failure::error(format!(
            "the ledger of {} lies in {place}, and nothing that follows it runs here; start `ionledger api --ledger \
             {place}`, or `ionledger up --ledger {place}`",
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

/// Who answers.
enum Source<T> {
    Answered(T),
    Folder(Box<Reader>),
}

impl From<replay::Error> for Failure {
    fn from(error: replay::Error) -> Self {
        Problem::from(error).into()
    }
}

/// Reads a server's address: `http://127.0.0.1:7070` or `127.0.0.1:7070`.
fn address(server: &str) -> Outcome<String> {
    let wrong = |why: &str| Err(Failure::usage(format!("--server {server}: {why}; write http://HOST:PORT")));
    let rest = match server.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https", _)) => return wrong("TLS is not spoken; put a tunnel or a proxy before it"),
        Some(_) => return wrong("it is no address of a server"),
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
            other => Failure::ending(other.exit(), other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_address_is_a_host_and_a_port() {
        assert_eq!(address("http://127.0.0.1:7070/").unwrap(), "127.0.0.1:7070");
        assert_eq!(address("localhost:7070").unwrap(), "localhost:7070");
        for server in ["https://a:1", "ftp://a:1", "localhost", "a:99999", "user@a:1", "http://a:1/x"] {
            assert_eq!(address(server).unwrap_err().exit(), 2, "{server}");
        }
    }
}
