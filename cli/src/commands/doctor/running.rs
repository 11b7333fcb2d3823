//! What runs: the ledger behind its socket, the proxy, and the ports that users come in by.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use api::client::{self, Client};
use api::question::StatusQuestion;
use api::wire::Standing;
use ledger::log::segments;
use replay::answer::{DeploymentStatus, StackPhase, VersionStatus};
use replay::{Moment, Reader};
use schemas::text::nodes_ready;
use schemas::{DeploymentId, ErrorText, Timestamp, Weight};
use workers::traffic::{ProxyControl, Status};

use super::Finding;
use super::folder::mode;
use crate::render::back::where_stranded;
use crate::render::shares::{shares, should_be_applied};
use crate::render::words::count;
use crate::unattended;

/// Looks at what runs on a data folder.
pub(super) async fn findings(data: &Path, client: &Client) -> Vec<Finding> {
    if let Ok(Some(of)) = segments::copy_of(data) {
        return vec![Finding::ok("up", format!("does not run: the folder is a read-only copy of {of}"))];
    }
    let standing = client.standing().await;
    let runs = !matches!(standing, Err(client::Error::NotRunning { .. }));
    let hangs = matches!(standing, Err(client::Error::Silent { .. }));
    let mut findings = server(standing);
    findings.extend(clock(client).await);
    findings.extend(socket(data));
    let proxy = ProxyControl::of(data).status().await;
    let proxy_answers = proxy.is_ok();
    let silent = if proxy.is_ok() { None } else { workers::traffic::proxy::process(data).map(|process| process.pid) };
    let mut status = status(data).await;
    if !runs || hangs {
        // The ledger knows the nodes as they were when a process last followed it.
        let versions = status.iter_mut().flat_map(|of| &mut of.versions);
        versions.for_each(|version| unattended::look_at_nodes(data, version));
    }
    let declared = declared(&status);
    findings.push(match (&proxy, silent) {
        (Ok(status), _) => {
            let listeners = count(status.listeners.len() as u64, "listener", "listeners");
            Finding::ok("proxy", format!("process {}, {listeners}", status.pid))
        }
        (Err(error), Some(pid)) => silent_proxy(pid, &cause(error), runs),
        (Err(_), None) if declared.is_empty() && !proxy::Files::of(data).has_routes() => {
            Finding::ok("proxy", "does not run, and has nothing to serve")
        }
        (Err(error), None) => {
            let log = proxy::Files::of(data).log;
            Finding::fail("proxy", cause(error), next_of_absent(runs, hangs, &log))
        }
    });
    findings.extend(ports(proxy.ok().as_ref(), silent, &declared));
    findings.extend(status.iter().flat_map(|of| way_back(of, runs)));
    findings.extend(failed(&status));
    if proxy_answers {
        let log = proxy::Files::of(data).log;
        findings.extend(status.iter().filter_map(|of| unapplied(of, Timestamp::now(), &log, runs)));
    }
    findings
}

/// Finds weights that a router which answers has not confirmed for a while, and users whom somebody else moved to the rollback
/// target.
fn unapplied(of: &DeploymentStatus, now: Timestamp, log: &Path, runs: bool) -> Option<Finding> {
    if of.drift.as_ref().is_some_and(|drift| drift.towards_target) {
        return Some(left_alone(of));
    }
    let waits = should_be_applied(of, now) && !of.applied_unknown && of.users_get.is_none();
    let differs = of.versions.iter().any(|version| version.weight_set != version.weight_applied);
    let in_words = |weight| shares(of, weight).unwrap_or_else(|| "nothing".to_owned());
    let [set, served] = [in_words(|version| version.weight_set), in_words(|version| version.weight_applied)];
    (waits && differs).then(|| {
        let what = format!("{}: {set} is set, and the router serves {served}", of.deployment);
        let next = match runs {
            true => format!("see {} for the cause; ionledger tries again every second", log.display()),
            false => "start `ionledger up`, which tells the router".to_owned(),
        };
        Finding::fail("traffic", what, next)
    })
}

/// Names users whom somebody else moved to the rollback target, and the command that records this.
fn left_alone(of: &DeploymentStatus) -> Finding {
    let id = &of.deployment;
    let set = shares(of, |version| version.weight_set).unwrap_or_else(|| "nothing".to_owned());
    let what =
        format!("{id}: {set} is set, and somebody else moved all users to the rollback target; they are left there");
    let seen = of.drift.as_ref().and_then(|drift| drift.seen.keys().next());
    let target = of.versions.iter().find(|version| Some(&version.stack) == seen);
    let target = target.map_or_else(|| "VERSION".to_owned(), |version| version.name().to_string());
    let next = format!("record it with `ionledger traffic {} {target} 100{}`", id.service, id.env_flag());
    Finding::fail("traffic", what, next)
}

/// A proxy whose process lives and answers nothing.
fn silent_proxy(pid: u32, cause: &str, up_runs: bool) -> Finding {
    let next = match up_runs {
        true => format!("`kill -9 {pid}` ends it, and `ionledger up` starts another within seconds"),
        false => format!("`kill -9 {pid}` ends it; then start `ionledger up`, which starts another"),
    };
    Finding::fail("proxy", format!("its process {pid} lives and does not answer: {cause}"), next)
}

/// What to do about a proxy that does not run.
fn next_of_absent(up_runs: bool, up_hangs: bool, log: &Path) -> String {
    let log = log.display();
    match up_runs {
        true if up_hangs => {
            format!(
                "end the process that holds the data folder, then start `ionledger up`, which starts it; look at {log}"
            )
        }
        true => format!("`ionledger up` tries to start it every few seconds; {log} says what keeps it from that"),
        false => format!(
            "start `ionledger up`, which starts it, and look at {log}; if `up` cannot start, `ionledger proxy` serves users by \
             the routes that are on disk"
        ),
    }
}

/// A rollback that waits for its target, and users on a stack that does not pass while another that users are on does. `runs` says
/// whether somebody follows the ledger who would start the target.
fn way_back(of: &DeploymentStatus, runs: bool) -> Vec<Finding> {
    const THING: &str = "rollback";
    let id = &of.deployment;
    let look = || format!("look at `ionledger status {}`", id.service);
    let waits = of.rolling_back_to_name().into_iter().zip(&of.rolling_back).map(|(target, waits)| {
        let what = format!("{id} waits to be rolled back to {target}: {}", waits.why);
        let next = waits.next.as_ref().map(|next| format!("; `{next}` sends all users there now")).unwrap_or_default();
        match runs {
            true => Finding::warn(THING, what, format!("fix what keeps {target} from starting{next}")),
            false => Finding::warn(THING, what, format!("start `ionledger up`, which starts {target}{next}")),
        }
    });
    let stranded = of.stranded.iter().map(|stranded| {
        let next = stranded.next.as_ref().map_or_else(look, |next| format!("`{next}` moves them now"));
        Finding::fail("users", format!("{id}: {}", where_stranded(stranded)), next)
    });
    waits.chain(stranded).collect()
}

/// The finding of a ledger that has halted stands before all others.
pub(super) const HALTED: &str = "ledger";

fn server(standing: Result<Standing, client::Error>) -> Vec<Finding> {
    const THING: &str = "up";
    let standing = match standing {
        Ok(standing) => standing,
        Err(client::Error::NotRunning { .. }) => {
            let next = "reads work; for changes start `ionledger up`";
            return vec![Finding::warn(THING, "does not run", next)];
        }
        Err(error) => {
            let (what, next) = ErrorText::of(error).hint_or("look at what `ionledger up` says");
            return vec![Finding::fail(THING, what, next)];
        }
    };
    let behind = standing.end.0 - standing.next.0.min(standing.end.0);
    let first = match &standing.halted {
        Some(why) => {
            let (why, next) = ErrorText::of(why).hint_or("look at what it says");
            Finding::fail(HALTED, format!("has halted at offset {}: {why}", standing.next), next)
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
    let what = format!("{stream} accepts nothing here but a rollback: {}", cause(why));
    Finding::warn("stream", what, "upgrade ionledger: a newer version wrote this")
}

/// What the running ledger says of this machine's clock, if that jumped while it ran.
async fn clock(client: &Client) -> Option<Finding> {
    let trouble = client.ask(&StatusQuestion::now(None, None)).await.ok()?.clock?;
    let (what, next) = ErrorText::of(trouble).hint_or("set the clock right, and keep it right with NTP");
    Some(Finding::fail("clock", what, next))
}

/// An error without its own next step.
fn cause(error: &impl std::fmt::Display) -> String {
    ErrorText::of(error).message
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
                    "fix it and ship a new version, or try it again with `ionledger {make} {service} {release}{env}`; \
                     `ionledger dismiss {service} {version}{env}` hides it",
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

/// The ports that users come in by. `silent` is the process of a proxy that runs and does not answer: what it listens on is not
/// known then, and where an address is taken, it is likely its own.
fn ports(proxy: Option<&Status>, silent: Option<u32>, declared: &BTreeMap<DeploymentId, SocketAddr>) -> Vec<Finding> {
    const THING: &str = "port";
    let mut findings = Vec::new();
    let listeners = proxy.map(|status| &status.listeners);
    for (deployment, listening) in listeners.into_iter().flatten() {
        let at = format!("{deployment} on {}", listening.address);
        findings.push(match (&listening.error, &listening.unstored) {
            (None, None) => Finding::ok(THING, at),
            (None, Some(cause)) => Finding::fail(
                THING,
                format!(
                    "{at}: its routes are not on disk ({cause}), so that a proxy that starts would serve older ones"
                ),
                "see to the disk; the proxy tries again every second",
            ),
            (Some(error), _) => Finding::fail(
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
        findings.push(match (TcpListener::bind(address), silent) {
            (Err(_), Some(pid)) => Finding::warn(
                THING,
                format!("{at}: in use, probably by the proxy (process {pid}), which does not answer"),
                "look again once the proxy answers",
            ),
            (Ok(_), _) => Finding::fail(THING, format!("{at}: nobody listens"), "start `ionledger up`"),
            (Err(error), None) => Finding::fail(
                THING,
                format!("{at}: {error}"),
                "end what listens there, or name another in [listen] and apply it",
            ),
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::render::examples;

    #[test]
    fn a_rollback_that_waits_needs_up_where_that_does_not_run() {
        let status = examples::status(|deployment| {
            deployment["rolling_back_to"] = json!("1.2.2");
            deployment["rolling_back"] = json!({"why": "0 of 2 nodes ready", "next": null});
        });
        let next = |runs: bool| way_back(&status.services[0].deployments[0], runs).remove(0).next;
        assert_eq!(next(true).as_deref(), Some("fix what keeps 1.2.2 from starting"));
        assert_eq!(next(false).as_deref(), Some("start `ionledger up`, which starts 1.2.2"));
    }

    #[test]
    fn users_whom_somebody_else_moved_to_the_target_are_said_to_be_left_there() {
        let mut status = examples::status(|_| {});
        let of = &mut status.services[0].deployments[0];
        let (seen, at) = (BTreeMap::from([(of.versions[0].stack, Weight::FULL)]), Timestamp::UNIX_EPOCH);
        let version = of.versions[0].name();
        of.drift = Some(replay::answer::DriftStatus { seen, towards_target: true, at });
        let Finding { what, next, .. } = unapplied(of, Timestamp::now(), Path::new("proxy.log"), true).unwrap();
        assert!(what.ends_with("somebody else moved all users to the rollback target; they are left there"), "{what}");
        assert_eq!(next, Some(format!("record it with `ionledger traffic api {version} 100`")));
    }

    #[test]
    fn a_proxy_that_hangs_is_named_with_its_process_and_what_ends_it() {
        let Finding { what, next, .. } = silent_proxy(4711, "nothing within 1s", true);
        assert!(what.contains("process 4711"), "{what}");
        assert_eq!(next.as_deref(), Some("`kill -9 4711` ends it, and `ionledger up` starts another within seconds"));
    }

    #[test]
    fn nobody_is_told_to_end_a_proxy_of_their_own_for_its_port() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let declared = BTreeMap::from([("production/api".parse().unwrap(), taken.local_addr().unwrap())]);
        let next = |silent| ports(None, silent, &declared)[0].next.clone().unwrap_or_default();
        assert!(!next(Some(4711)).contains("end what listens there"), "{}", next(Some(4711)));
        assert!(next(None).contains("end what listens there"));
    }

    #[test]
    fn where_up_runs_nobody_is_told_to_start_it_for_its_proxy() {
        let next = |up_runs, up_hangs| next_of_absent(up_runs, up_hangs, Path::new("proxy.log"));
        assert!(!next(true, false).contains("start `ionledger up`"));
        assert!(next(false, false).contains("start `ionledger up`"));
        assert!(next(true, true).starts_with("end the process that holds the data folder, then start `ionledger up`"));
    }
}
