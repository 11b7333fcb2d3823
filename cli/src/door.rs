//! The way to the ledger: the running `up` of a data folder, a server over TCP, or the folder itself for reading.

use std::path::PathBuf;

use api::client::{self, Client};
use replay::answer::{DeploymentStatus, Status};
use schemas::DeploymentId;

use crate::args::Globals;
use crate::failure::{Failure, Outcome};

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
            return Ok(Self { client: Client::of_data(&data), data: Some(data) });
        };
        let address = address(server)?;
        let Some(file) = &globals.token_file else {
            return Err(Failure::usage("--server needs a token; name its file with --token-file FILE"));
        };
        let token = std::fs::read_to_string(file)
            .map_err(|error| Failure::error(format!("token file {}: {error}; name another", file.display())))?;
        Ok(Self { client: Client::of_address(&address, token.trim()), data: None })
    }

    /// Returns the client of the running ledger.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Returns how a deployment stands, if there is one.
    pub(crate) async fn deployment(&self, deployment: &DeploymentId) -> Outcome<Option<DeploymentStatus>> {
        let path = format!("/v1/status?service={}&environment={}", deployment.service, deployment.environment);
        let status: Status = self.client.get(&path).await?;
        let mut deployments = status.services.into_iter().flat_map(|service| service.deployments);
        Ok(deployments.find(|found| found.deployment == *deployment))
    }

    #[allow(dead_code)]
    /// Returns the data folder, unless a server was named.
    pub(crate) fn data(&self) -> Option<&PathBuf> {
        self.data.as_ref()
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
