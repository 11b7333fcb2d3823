//! Streams: the places in the ledger that have heads of their own.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{DeploymentId, InvalidName, ServiceName};

/// A line of commits with one head; `deployment/production/api`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum Stream {
    /// The ledger's own stream: its creation and the changes of its rule.
    Ledger,
    /// Ownership, releases and policy of a service.
    Service(ServiceName),
    /// Stacks, traffic and rollouts of a service in an environment: one consistency boundary.
    Deployment(DeploymentId),
    /// What the judge saw and said of a deployment's rollouts.
    Judgement(DeploymentId),
    /// Who acts for a role.
    Worker(Role),
}

/// A worker's role. Of its instances, the holder of the lease acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Makes wanted stacks running, verified ones.
    Provisioner,
    /// Makes wanted weights applied ones and drives rollouts.
    TrafficShifter,
    /// Takes unused stacks down when the policy says so.
    Collector,
}

impl Role {
    /// Every role, in the order in which a release meets them.
    pub const ALL: [Role; 3] = [Role::Provisioner, Role::TrafficShifter, Role::Collector];

    /// Returns the role's name as the command line writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Provisioner => "provisioner",
            Role::TrafficShifter => "traffic-shifter",
            Role::Collector => "collector",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stream::Ledger => f.write_str("ledger"),
            Stream::Service(service) => write!(f, "service/{service}"),
            Stream::Deployment(id) => write!(f, "deployment/{id}"),
            Stream::Judgement(id) => write!(f, "judgement/{id}"),
            Stream::Worker(role) => write!(f, "worker/{role}"),
        }
    }
}

impl FromStr for Stream {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let unknown = || {
            InvalidName::new("a stream", text, "write ledger, service/S, deployment/E/S, judgement/E/S or worker/ROLE")
        };
        if text == "ledger" {
            return Ok(Stream::Ledger);
        }
        let (category, rest) = text.split_once('/').ok_or_else(unknown)?;
        match category {
            "service" => Ok(Stream::Service(rest.parse()?)),
            "deployment" => Ok(Stream::Deployment(rest.parse()?)),
            "judgement" => Ok(Stream::Judgement(rest.parse()?)),
            "worker" => {
                Role::ALL.into_iter().find(|role| role.as_str() == rest).map(Stream::Worker).ok_or_else(unknown)
            }
            _ => Err(unknown()),
        }
    }
}

impl TryFrom<String> for Stream {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Stream> for String {
    fn from(stream: Stream) -> String {
        stream.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_category_reads_back_as_written() {
        for text in ["ledger", "service/api", "deployment/production/api", "judgement/test/api", "worker/collector"] {
            assert_eq!(text.parse::<Stream>().unwrap().to_string(), text);
        }
        assert!("service/a/b".parse::<Stream>().is_err());
        assert!("worker/cook".parse::<Stream>().is_err());
    }
}
