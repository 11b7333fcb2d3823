//! Routes: which share of a deployment's requests goes to which nodes, and which routes may replace which.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use schemas::{DeploymentId, EffectId, StackId, StackName, StreamVersion, Weights};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::measures::Measures;

/// The header that says until when a call is to be carried out, in milliseconds since boot.
pub const NOT_AFTER: &str = "ionledger-not-after";

/// Returns how long ago this machine was started, but for the time in which it slept: the same in every process, and no clock that
/// somebody sets.
pub fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// What a router is asked to do with one deployment's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Routes {
    /// Whose requests.
    pub deployment: DeploymentId,
    /// The version of the deployment's stream that these routes were read from; a router refuses a lower one.
    pub generation: StreamVersion,
    /// Where users connect; `None` lets the router choose a free port of 127.0.0.1 once and keep it.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// The share of each stack.
    pub weights: Weights,
    /// The stacks that can be reached; every stack with a share is among them.
    pub backends: BTreeMap<StackId, StackNodes>,
    /// How long to wait for what.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Whether only the nodes change: the weights are those that the router was seen to hold, whoever turned them so, and a
    /// router that holds others by now refuses these routes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nodes_only: bool,
}

/// A stack's nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StackNodes {
    /// Its name.
    pub version: StackName,
    /// Its nodes, at least one.
    pub nodes: Vec<Node>,
}

/// One running copy that takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// The launch that made it.
    pub effect: EffectId,
    /// Where it listens.
    pub address: SocketAddr,
}

/// How long a router waits for a node, in milliseconds, each from 1 to 3,600,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// For a connection; default 2,500: the kernel asks a node whose queue was full for a moment again after 1,000.
    pub connect_ms: u32,
    /// For the head of the response, counted from the end of the request; default 30,000.
    pub response_ms: u32,
    /// For the next part of a body, in either direction; default 30,000.
    pub idle_ms: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect_ms: 2_500, response_ms: 30_000, idle_ms: 30_000 }
    }
}

/// Routes that a router has, and where it listens for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRoutes {
    /// The routes as they were asked for.
    pub routes: Routes,
    /// Where users connect.
    pub listening: SocketAddr,
}

/// What a router remembers of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// It takes requests.
    Routed(HeldRoutes),
    /// It was retired; the generation stays, so that a late call cannot revive it.
    Retired {
        /// The generation of the removal.
        generation: StreamVersion,
    },
}

/// What a router's process says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The operating system's id of the process.
    pub pid: u32,
    /// Drawn at the process' start: measures of different epochs must not be subtracted.
    pub epoch: Uuid,
    /// The version of the program.
    pub version: String,
    /// The proxies that it believes, with a comma between them.
    #[serde(default)]
    pub trusted_proxies: String,
    /// Each deployment with routes, and whether it takes requests.
    pub listeners: BTreeMap<DeploymentId, Listening>,
}

/// One of several deployments that a caller reads at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Which.
    pub deployment: DeploymentId,
    /// Whether its counters are wanted, too.
    pub measures: bool,
}

/// What is held for one of several deployments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// The routes that are held for it, or its removal; none if the proxy never heard of it.
    pub entry: Option<Entry>,
    /// Its counters, if they were wanted and it is served.
    pub measures: Option<Measures>,
}

/// Whether a deployment's users can connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// Where they connect.
    pub address: SocketAddr,
    /// Why they cannot, if so; it is tried again every second.
    pub error: Option<String>,
    /// Why the routes that they are served by are not on disk, if so; it is tried again every second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unstored: Option<String>,
}

/// What a router says instead of what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong, in words.
    pub error: String,
    /// The younger generation that is held, if that is what is wrong.
    pub superseded_by: Option<StreamVersion>,
}

/// What to do with routes, or a removal, that may be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Nothing: it is what is held.
    AlreadyHeld,
    /// Replace what is held.
    Apply,
}

/// Why routes, or a removal, may not be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What is held is younger.
    #[error(
        "the newer generation {held} of {deployment} is applied already; read the deployment again and decide again"
    )]
    Superseded {
        /// Whose routes.
        deployment: DeploymentId,
        /// The generation that is held.
        held: StreamVersion,
    },
    /// What is held has the same generation and says something else.
    #[error("generation {held} of {deployment} is applied with other content; a generation must have one content")]
    Conflicting {
        /// Whose routes.
        deployment: DeploymentId,
        /// The generation that is held.
        held: StreamVersion,
    },
    /// They change the nodes behind weights that are not held any more.
    #[error("{deployment} has other weights than these, which only change the nodes; read it again and decide again")]
    Turned {
        /// Whose routes.
        deployment: DeploymentId,
    },
    /// They contradict themselves.
    #[error("routes of {deployment}: {reason}")]
    Invalid {
        /// Whose routes.
        deployment: DeploymentId,
        /// What is wrong.
        reason: String,
    },
}

impl Entry {
    /// Returns the generation below which calls are refused.
    pub fn generation(&self) -> StreamVersion {
        match self {
            Entry::Routed(held) => held.routes.generation,
            Entry::Retired { generation } => *generation,
        }
    }

    /// Returns the routes, if it has any.
    pub fn held(&self) -> Option<&HeldRoutes> {
        match self {
            Entry::Routed(held) => Some(held),
            Entry::Retired { .. } => None,
        }
    }
}

/// Returns what to do with `asked` where `entry` is held.
///
/// # Errors
///
/// [`Refusal`]: it is older, of the same generation with other content, for other weights, or contradicts itself.
pub fn admit(entry: Option<&Entry>, asked: &Routes) -> Result<Admission, Refusal> {
    check(asked)?;
    let held = entry.and_then(Entry::held).map(|held| &held.routes);
    let admission = match entry {
        Some(entry) => compare(&asked.deployment, entry, asked.generation, || held == Some(asked))?,
        None => Admission::Apply,
    };
    if asked.nodes_only && held.is_none_or(|held| held.weights != asked.weights) {
        return Err(Refusal::Turned { deployment: asked.deployment.clone() });
    }
    Ok(admission)
}

/// Returns what to do with the removal of `deployment`'s routes at `generation` where `entry` is held.
///
/// # Errors
///
/// [`Refusal`]: it is older, or routes of the same generation are held.
pub fn admit_removal(
    entry: Option<&Entry>,
    deployment: &DeploymentId,
    generation: StreamVersion,
) -> Result<Admission, Refusal> {
    let Some(entry) = entry else { return Ok(Admission::Apply) };
    compare(deployment, entry, generation, || entry.held().is_none())
}

fn compare(
    deployment: &DeploymentId,
    entry: &Entry,
    generation: StreamVersion,
    same: impl FnOnce() -> bool,
) -> Result<Admission, Refusal> {
    let (deployment, held) = (deployment.clone(), entry.generation());
    match generation.cmp(&held) {
        std::cmp::Ordering::Less => Err(Refusal::Superseded { deployment, held }),
        std::cmp::Ordering::Equal if same() => Ok(Admission::AlreadyHeld),
        std::cmp::Ordering::Equal => Err(Refusal::Conflicting { deployment, held }),
        std::cmp::Ordering::Greater => Ok(Admission::Apply),
    }
}

fn check(routes: &Routes) -> Result<(), Refusal> {
    let invalid = |reason: String| Refusal::Invalid { deployment: routes.deployment.clone(), reason };
    for (stack, weight) in routes.weights.iter() {
        if routes.backends.get(&stack).is_none_or(|backends| backends.nodes.is_empty()) {
            return Err(invalid(format!("stack {stack} has {weight} of the traffic and no node; name its nodes")));
        }
    }
    let mut effects = BTreeSet::new();
    for node in routes.backends.values().flat_map(|backends| &backends.nodes) {
        if !effects.insert(node.effect) {
            return Err(invalid(format!("node {} is named twice", node.effect)));
        }
        if node.address.port() == 0 || node.address.ip().is_unspecified() {
            return Err(invalid(format!(
                "node {} has the address {}, which cannot be called",
                node.effect, node.address
            )));
        }
        if routes.listen == Some(node.address) {
            return Err(invalid(format!(
                "node {} has the address {} that users connect to",
                node.effect, node.address
            )));
        }
    }
    let Timeouts { connect_ms, response_ms, idle_ms } = routes.timeouts;
    for (name, value) in [("connect_ms", connect_ms), ("response_ms", response_ms), ("idle_ms", idle_ms)] {
        if !(1..=3_600_000).contains(&value) {
            return Err(invalid(format!("timeouts.{name} is {value}; write 1 to 3,600,000")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(n: u128) -> StackId {
        StackId(Uuid::from_u128(n))
    }

    fn routes(generation: u64, port: u16) -> Routes {
        let node = Node { effect: EffectId(Uuid::from_u128(7)), address: SocketAddr::from(([127, 0, 0, 1], port)) };
        Routes {
            deployment: "production/api".parse().unwrap(),
            generation: StreamVersion(generation),
            listen: None,
            weights: Weights::all_on(stack(1)),
            backends: [(stack(1), StackNodes { version: "1.0.0".parse().unwrap(), nodes: vec![node] })].into(),
            timeouts: Timeouts::default(),
            nodes_only: false,
        }
    }

    fn routed(generation: u64, port: u16) -> Entry {
        Entry::Routed(HeldRoutes {
            routes: routes(generation, port),
            listening: SocketAddr::from(([127, 0, 0, 1], 80)),
        })
    }

    #[test]
    fn only_a_higher_generation_replaces_what_is_held() {
        let held = routed(5, 1);
        assert_eq!(admit(None, &routes(0, 1)), Ok(Admission::Apply));
        assert_eq!(admit(Some(&held), &routes(6, 2)), Ok(Admission::Apply));
        assert_eq!(admit(Some(&held), &routes(5, 1)), Ok(Admission::AlreadyHeld));
        assert!(matches!(admit(Some(&held), &routes(5, 2)), Err(Refusal::Conflicting { .. })));
        assert!(matches!(admit(Some(&held), &routes(4, 1)), Err(Refusal::Superseded { held: StreamVersion(5), .. })));
    }

    #[test]
    fn routes_that_only_change_nodes_leave_weights_that_were_turned_since() {
        let nodes_only = |generation, port| Routes { nodes_only: true, ..routes(generation, port) };
        let held = routed(5, 1);
        assert_eq!(admit(Some(&held), &nodes_only(6, 2)), Ok(Admission::Apply));
        let mut turned = routes(5, 1);
        turned.weights = Weights::all_on(stack(2));
        let turned = Entry::Routed(HeldRoutes { routes: turned, listening: SocketAddr::from(([127, 0, 0, 1], 80)) });
        assert!(matches!(admit(Some(&turned), &nodes_only(6, 2)), Err(Refusal::Turned { .. })));
        assert!(matches!(admit(None, &nodes_only(6, 2)), Err(Refusal::Turned { .. })));
        assert_eq!(admit(Some(&turned), &routes(6, 2)), Ok(Admission::Apply));
    }

    #[test]
    fn a_late_call_cannot_revive_a_retired_deployment() {
        let id = routes(0, 1).deployment;
        let removal = |entry: &Entry, generation| admit_removal(Some(entry), &id, StreamVersion(generation));
        assert_eq!(removal(&routed(5, 1), 6), Ok(Admission::Apply));
        assert!(matches!(removal(&routed(5, 1), 5), Err(Refusal::Conflicting { .. })));
        assert!(matches!(removal(&routed(5, 1), 4), Err(Refusal::Superseded { .. })));

        let retired = Entry::Retired { generation: StreamVersion(6) };
        assert_eq!(removal(&retired, 6), Ok(Admission::AlreadyHeld));
        assert!(matches!(admit(Some(&retired), &routes(5, 1)), Err(Refusal::Superseded { .. })));
        assert!(matches!(admit(Some(&retired), &routes(6, 1)), Err(Refusal::Conflicting { .. })));
        assert_eq!(admit(Some(&retired), &routes(7, 1)), Ok(Admission::Apply));
    }

    #[test]
    fn routes_that_contradict_themselves_are_refused() {
        type Change = fn(&mut Routes);
        let changes: [(Change, &str); 6] = [
            (|r| r.backends.clear(), "no node"),
            (|r| r.backends.get_mut(&stack(1)).unwrap().nodes.clear(), "no node"),
            (|r| r.backends.get_mut(&stack(1)).unwrap().nodes[0].address.set_port(0), "cannot be called"),
            (|r| r.timeouts.idle_ms = 0, "idle_ms is 0"),
            (|r| r.listen = Some(r.backends[&stack(1)].nodes[0].address), "users connect to"),
            (
                |r| {
                    let twice = r.backends[&stack(1)].nodes[0];
                    r.backends.get_mut(&stack(1)).unwrap().nodes.push(twice);
                },
                "named twice",
            ),
        ];
        for (change, reason) in changes {
            let mut asked = routes(1, 1);
            change(&mut asked);
            let error = admit(None, &asked).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn routes_read_back_as_written() {
        let json = serde_json::to_string(&routed(3, 9)).unwrap();
        assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), routed(3, 9));
    }
}
