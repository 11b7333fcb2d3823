//! The port to where nodes run: launch, look, stop. Adapters carry out frozen launches and make no choices.

pub mod process;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use schemas::run::EnvValue;
use schemas::{DeploymentId, EffectId, Hash, StackId, StackName, Timestamp, Version};
use serde::{Deserialize, Serialize};

/// One node to launch, with every choice made. Secrets are references, resolved only where the node starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The effect, and so the node: a second launch of it never makes a second node.
    pub effect: EffectId,
    /// Whose node it is.
    pub deployment: DeploymentId,
    /// The stack it belongs to.
    pub stack: StackId,
    /// The release it runs.
    pub version: Version,
    /// Which stack of that release it belongs to, from 1.
    #[serde(default = "schemas::name::first", skip_serializing_if = "schemas::name::is_first")]
    pub number: u32,
    /// Which of the stack's places it fills, from 0.
    pub slot: u16,
    /// How often this place was filled before, from 0.
    pub attempt: u32,
    /// The port it is told to listen on.
    pub port: u16,
    /// The artifact it runs, by its SHA-256.
    pub artifact: Hash,
    /// Arguments; `{port}` stands for the port.
    pub args: Vec<String>,
    /// Declared environment variables.
    pub env: BTreeMap<String, EnvValue>,
    /// The user as whom it runs; without one a user of the adapter's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

impl Launch {
    /// Returns the name of its stack.
    pub fn stack_name(&self) -> StackName {
        StackName::new(self.version.clone(), self.number)
    }
}

/// A node that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// What it is called outside: a process with its start, a container, an EC2 instance.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// When it was launched, by the clock of its host.
    pub started_at: Timestamp,
}

/// What is seen outside of one effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// A launch is under way, of this process or of another.
    Starting,
    /// It runs.
    Running(Instance),
    /// It ran and has ended.
    Exited(Exit),
    /// It cannot be told; that is neither running nor gone.
    Unknown {
        /// What stood in the way.
        reason: String,
    },
}

/// How a node ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code, if it ended by itself and its launcher saw it.
    pub code: Option<i32>,
    /// The signal that ended it, if its launcher saw it. Without code and signal its end was not witnessed.
    pub signal: Option<i32>,
    /// Whether it was stopped on purpose.
    pub stopped: bool,
    /// The last lines of its log, secrets masked, at most 2 KiB.
    pub log_tail: String,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exited with code {code}")?,
            (_, Some(signal)) => write!(f, "was ended by signal {signal}")?,
            (None, None) => f.write_str("exited, exit status unknown")?,
        }
        match self.log_tail.as_str() {
            "" => f.write_str("; its log is empty"),
            tail => write!(f, "; the end of its log: {tail}"),
        }
    }
}

/// How a stop went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Nothing of it was running.
    NotRunning,
    /// It ended within the grace.
    Ended,
    /// It had to be killed after the grace.
    Killed,
}

/// Why a call did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Nothing happened outside; the same call may succeed later.
    #[error("{0}")]
    Retryable(String),
    /// Nothing runs, and the same call will not succeed.
    #[error("{0}")]
    Permanent(String),
    /// Nothing runs, and no launch of the same release will before somebody changes something: no program, or a variable
    /// that is not set.
    #[error("{0}")]
    Hopeless(String),
    /// It may or may not have happened; look before doing anything else.
    #[error("{0}")]
    Unknown(String),
}

/// Where nodes run.
#[async_trait::async_trait]
pub trait Nodes: Send + Sync {
    /// Launches a node, or returns the running one of the same effect. Returns once it has started, not once it
    /// is healthy.
    ///
    /// # Errors
    ///
    /// [`Fault`]; permanent if the node of this effect has ended or was stopped before: an effect starts one node once.
    async fn launch(&self, launch: &Launch) -> Result<Instance, Fault>;

    /// Returns all of this ledger's nodes that exist outside, ended ones too until they are cleaned up.
    ///
    /// # Errors
    ///
    /// [`Fault`] if the place cannot be looked at as a whole; that says nothing about any node.
    async fn look(&self) -> Result<BTreeMap<EffectId, Observed>, Fault>;

    /// Asks a node to end, and ends it after `grace`. Afterwards no launch of this effect succeeds any more, however
    /// late it arrives. Stopping again, or what never ran, changes nothing. To be called for ended nodes too: it ends what
    /// they left behind.
    ///
    /// # Errors
    ///
    /// [`Fault`]; unknown if it may still be running.
    async fn stop(&self, effect: EffectId, grace: Duration) -> Result<Stopped, Fault>;

    /// Removes what an ended node occupies; its log is kept for a while. `look` shows it no longer.
    ///
    /// # Errors
    ///
    /// [`Fault`]; permanent if it still runs.
    async fn cleanup(&self, effect: EffectId) -> Result<(), Fault>;

    /// Returns `n` different ports on which a node could listen now, or as many as there are.
    ///
    /// # Errors
    ///
    /// [`Fault`] if there is none.
    async fn free_ports(&self, n: u16) -> Result<Vec<u16>, Fault>;
}
