//! The real `ionledger up` on a folder of its own, with two versions of a service ready.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use api::client::Client;
use http::Request as HttpRequest;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use schemas::command::{self, Command, StackWeight};
use schemas::run::Artifact;
use schemas::{DeploymentId, StackId, Weight};
use tokio::net::TcpStream;
use tokio::time::timeout;
use workers::traffic::ProxyControl;

use benches::Error;
use benches::up_process::{
    PATIENCE, Process, applied, declare, ionledger, send, stacks_are_ready, start_version, store_service,
};

/// The version that rollbacks go to.
pub const OLD: &str = "1.0.0";
/// The version that they come from.
pub const NEW: &str = "2.0.0";

pub struct Up {
    process: Process,
    client: Client,
    proxy: ProxyControl,
    deployment: DeploymentId,
    stacks: BTreeMap<&'static str, StackId>,
    address: SocketAddr,
}

impl Up {
    /// Starts `ionledger up`, with its ledger at `place` if one is named, two stacks of two nodes each, and sends all
    /// traffic to the old version.
    pub async fn start(folder: &Path, place: Option<&str>) -> Result<Self, Error> {
        let (exe, data) = (ionledger()?, folder.join("data"));
        // Before it starts: afterwards the store has an owner.
        let artifact = store_service(&exe, folder, &data)?;
        let process = Process::start(&exe, folder, &data, place)?;
        let mut up = Self {
            process,
            client: Client::of_data(&data),
            proxy: ProxyControl::of(&data),
            deployment: "production/api".parse()?,
            stacks: BTreeMap::new(),
            address: ([127, 0, 0, 1], 0).into(),
        };
        up.process.answers(&up.client).await?;
        up.declare(artifact).await?;
        up.traffic(OLD).await?;
        up.address = up.proxy.routes(&up.deployment).await?.ok_or("the proxy holds no routes")?.listening;
        Ok(up)
    }

    /// Returns where users connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends all traffic to `version`, which may have been rolled back from, and waits until the router has confirmed it.
    pub async fn traffic(&self, version: &str) -> Result<(), Error> {
        let shares = vec![StackWeight { version: version.parse()?, weight: Weight::FULL }];
        let command = Command::Traffic(command::Traffic {
            deployment: self.deployment.clone(),
            shares,
            supersede: false,
            again: true,
        });
        applied(&send(&self.client, command).await?)
    }

    /// Rolls back and waits until the router has confirmed it.
    pub async fn rollback(&self) -> Result<(), Error> {
        let rollback = command::Rollback { deployment: self.deployment.clone(), unready: false };
        applied(&send(&self.client, Command::Rollback(rollback)).await?)
    }

    /// Makes sure that `version` alone has the traffic: the router says so, and the next user gets it.
    pub async fn check(&self, version: &'static str) -> Result<(), Error> {
        let held = self.proxy.routes(&self.deployment).await?.ok_or("the proxy holds no routes")?;
        if held.routes.weights.sole() != Some(self.stacks[version]) {
            return Err(format!("{version} should have all traffic, the proxy holds {:?}", held.routes.weights).into());
        }
        let answered = timeout(PATIENCE, ask(self.address)).await??;
        if answered != version {
            return Err(format!("{version} should have all traffic, a user was answered by {answered}").into());
        }
        Ok(())
    }

    /// Ends it with all that it started.
    pub fn stop(mut self) -> Result<(), Error> {
        self.process.end()
    }

    async fn declare(&mut self, artifact: Artifact) -> Result<(), Error> {
        declare(&self.client, &self.deployment, 2).await?;
        for name in [OLD, NEW] {
            let stack = start_version(&self.client, &self.deployment, name, artifact.clone()).await?;
            self.stacks.insert(name, stack);
        }
        stacks_are_ready(&self.client, self.stacks.len()).await
    }
}

/// Asks as a new user does, and returns the version that answers.
async fn ask(address: SocketAddr) -> Result<String, Error> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = HttpRequest::get("/").header("host", "api").body(Empty::<Bytes>::new())?;
    let asking = async move {
        let answer = sender.send_request(request).await?;
        let version = answer.headers().get("x-version").cloned();
        answer.into_body().collect().await?;
        Ok::<_, Error>(version)
    };
    let (version, _) = tokio::join!(asking, connection);
    Ok(version?.ok_or("an answer without a version")?.to_str()?.to_owned())
}
