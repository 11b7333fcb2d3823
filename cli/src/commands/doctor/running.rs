//! What runs: the ledger behind its socket, the proxy, and the ports that users come in by.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use api::client::{self, Client};
use replay::answer::{DeploymentStatus, StackPhase, VersionStatus};
use replay::{Moment, Reader};
use schemas::text::nodes_ready;
use schemas::{DeploymentId, Weight};
use workers::traffic::{ProxyControl, Status};

use super::Finding;
use super::folder::mode;
use crate::render::back::where_stranded;
use crate::render::words::count;

/// Looks at what runs on a data folder.
pub(super) async fn findings(data: &Path, client: &Client) -> Vec<Finding> {
    let mut findings = server(client).await;
    findings.extend(clock(client).await);
    findings.extend(socket(data));
    let proxy = ProxyControl::of(data).status().await;
    let status = status(data).await;
    let declared = declared(&status);
    findings.push(match &proxy {
        Ok(status) => {
            let listeners = count(status.listeners.len() as u64, "listener", "listeners");
            Finding::ok("proxy", format!("process {}, {listeners}", status.pid))
        }
        Err(_) if declared.is_empty() => Finding::ok("proxy", "does not run, and has nothing to serve"),
        Err(error) => {
            let log = workers::proxy::Files::of(data).log;
            let next = format!("start `ionledger up`, which starts it, and look at {}", log.display());
            Finding::fail("proxy", cause(error), next)
        }
    });
    findings.extend(ports(proxy.ok().as_ref(), &declared));
    findings.extend(status.iter().flat_map(way_back));
    findings.extend(failed(&status));
    findings
}

/// A rollback that waits for its target, and users on a stack that does not pass while another that users are on does.
fn way_back(of: &DeploymentStatus) -> Vec<Finding> {
    const THING: &str = "rollback";
    let id = &of.deployment;
    let look = || format!("look at `ionledger status {}`", id.service);
    let waits = of.rolling_back_to_name().into_iter().zip(&of.rolling_back).map(|(target, waits)| {
        let what = format!("{id} waits to be rolled back to {target}: {}", waits.why);
        let next = waits.next.as_ref().map(|next| format!("; `{next}` sends all users there now")).unwrap_or_default();
        Finding::warn(THING, what, format!("mend what keeps {target} from starting{next}"))
    });
    let stranded = of.stranded.iter().map(|stranded| {
        let next = stranded.next.as_ref().map_or_else(look, |next| format!("`{next}` moves them now"));
        Finding::fail("users", format!("{id}: {}", where_stranded(stranded)), next)
    });
    waits.chain(stranded).collect()
}

/// The finding of a ledger that has halted stands before all others.
pub(super) const HALTED: &str = "ledger";

async fn server(client: &Client) -> Vec<Finding> {
    const THING: &str = "up";
    let standing = match client.standing().await {
        Ok(standing) => standing,
        Err(client::Error::NotRunning { .. }) => {
            let next = "reads work; for changes start `ionledger up`";
            return vec![Finding::warn(THING, "does not run", next)];
        }
        Err(error) => {
            let error = error.to_string();
            let (what, next) = error.split_once("; ").unwrap_or((&error, "look at what `ionledger up` says"));
            return vec![Finding::fail(THING, what, next)];
        }
    };
    let behind = standing.end.0 - standing.next.0.min(standing.end.0);
    let first = match &standing.halted {
        Some(why) => {
            let what = format!("has halted at offset {}: {}", standing.next, cause(why));
            Finding::fail(HALTED, what, why.split_once("; ").map_or("look at what it says", |(_, next)| next))
        }
        None if behind == 0 => {
            Finding::ok(THING, format!("runs, {} folded", count(standing.next.0, "record", "records")))
        }
        None => {
            let behind = count(behind, "record", "records");
            Finding::warn(THING, format!("runs, {behind} behind the log"), "look again")
        }
    };
    let ahead = standing.ahead.iter().map(|ahead| {
        let next = "look who wrote it: `ionledger history`; take the right to write away from who should not have it";
        Finding::warn("time", crate::render::status::ahead(ahead), next)
    });
    [first].into_iter().chain(standing.read_only.iter().map(read_only)).chain(ahead).collect()
}

/// A stream that holds what this program does not understand.
pub(super) fn read_only((stream, why): (&String, &String)) -> Finding {
    let what = format!("{stream} takes nothing here but a rollback: {}", cause(why));
    Finding::warn("stream", what, "upgrade ionledger, of which a newer one has written this")
}

/// What the running ledger says of this machine's clock, if that jumped while it ran.
async fn clock(client: &Client) -> Option<Finding> {
    let trouble = client.status(Moment::Now, None, None).await.ok()?.clock?;
    let (what, next) = trouble.split_once("; ").unwrap_or((&trouble, "set it right, and keep it with NTP"));
    Some(Finding::fail("clock", what, next))
}

/// An error without its own next step.
fn cause(error: &impl ToString) -> String {
    let text = error.to_string();
    text.split_once("; ").map_or(text.clone(), |(cause, _)| cause.to_owned())
}

fn socket(data: &Path) -> Option<Finding> {
    let path = api::server::socket_path(data);
    let mode = mode(&path)?;
    let what = format!("{} has mode {mode:03o}", path.display());
    Some(match mode & 0o002 {
        0 => Finding::ok("socket", what),
        _ => Finding::fail(
            "socket",
            format!("{what}: anyone on this machine can act as a person"),
            format!("chmod o-rwx {}", path.display()),
        ),
    })
}

/// What the ledger says of every deployment; nothing if it cannot be read, which is said elsewhere.
async fn status(data: &Path) -> Vec<DeploymentStatus> {
    let Ok(reader) = Reader::open(data).await else { return vec![] };
    let Ok(status) = reader.status(Moment::Now, None, None).await else { return vec![] };
    status.services.into_iter().flat_map(|service| service.deployments).collect()
}

/// The addresses that the services' declarations name, by deployment.
fn declared(status: &[DeploymentStatus]) -> BTreeMap<DeploymentId, SocketAddr> {
    status
        .iter()
        .filter(|deployment| deployment.retired_at.is_none() && deployment.weights_set_at.is_some())
        .filter_map(|deployment| Some((deployment.deployment.clone(), deployment.listen?)))
        .collect()
}

/// The stacks that failed and that nobody has dealt with, and those that have users and are unhealthy.
fn failed(status: &[DeploymentStatus]) -> Vec<Finding> {
    let versions = status.iter().flat_map(|deployment| deployment.versions.iter().map(move |of| (deployment, of)));
    let finding = |(deployment, of): (&DeploymentStatus, &VersionStatus)| {
        let (id, version) = (&deployment.deployment, of.name());
        let stands = |other: &VersionStatus| other.version == of.version && other.phase != StackPhase::Failed;
        let make = if deployment.versions.iter().any(stands) { "renew" } else { "new" };
        let env = id.env_flag();
        let why = of.reason.as_ref().or(of.last_failure.as_ref()).map(|why| format!(": {why}")).unwrap_or_default();
        match of.phase {
            StackPhase::Failed => Some(Finding::warn(
                "stack",
                format!("{id} {version} failed{why}"),
                format!(
                    "mend it and ship a new version, or try it again with `ionledger {make} {service} {release}{env}`; \
                     `ionledger dismiss {service} {version}{env}` puts it out of sight",
                    service = id.service,
                    release = of.version
                ),
            )),
            StackPhase::Unhealthy if of.weight_set > Weight::ZERO => {
                let nodes = nodes_ready(of.nodes_ready, of.nodes_wanted);
                Some(Finding::fail(
                    "stack",
                    format!("{id} {version} serves with {nodes}{why}"),
                    next_of_unhealthy(deployment),
                ))
            }
            _ => None,
        }
    };
    versions.filter_map(finding).collect()
}

/// What to do about a stack that serves and is unhealthy: a rollback, if it would move users at once to one that passes.
fn next_of_unhealthy(of: &DeploymentStatus) -> String {
    let id = &of.deployment;
    let look = format!("look at `ionledger status {}`", id.service);
    let target = of.rollback_target.as_ref().filter(|target| target.warm && target.failing.is_none());
    match target.filter(|_| of.rolling_back_to.is_none()).and_then(|target| target.name()) {
        Some(version) => format!("{look}; `ionledger rollback {}` sends users back to {version}", id.arguments()),
        None => look,
    }
}

fn ports(proxy: Option<&Status>, declared: &BTreeMap<DeploymentId, SocketAddr>) -> Vec<Finding> {
    const THING: &str = "port";
    let mut findings = Vec::new();
    let listeners = proxy.map(|status| &status.listeners);
    for (deployment, listening) in listeners.into_iter().flatten() {
        let at = format!("{deployment} on {}", listening.address);
        findings.push(match &listening.error {
            None => Finding::ok(THING, at),
            Some(error) => Finding::fail(
                THING,
                format!("{at}: {error}"),
                "end what listens there, or name another in [listen] and apply it",
            ),
        });
    }
    for (deployment, address) in declared {
        if listeners.is_some_and(|listeners| listeners.contains_key(deployment)) {
            continue;
        }
        let at = format!("{deployment} on {address}");
        findings.push(match TcpListener::bind(address) {
            Ok(_) => Finding::fail(THING, format!("{at}: nobody listens"), "start `ionledger up`"),
            Err(error) => Finding::fail(
                THING,
                format!("{at}: {error}"),
                "end what listens there, or name another in [listen] and apply it",
            ),
        });
    }
    findings
}
