//! Names, ids and numbers that point at things; each is a type of its own, so that they cannot be mixed up.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not a name of the kind that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{shown}` is not {kind}; {rule}")]
pub struct InvalidName {
    kind: &'static str,
    shown: String,
    rule: &'static str,
}

impl InvalidName {
    pub(crate) fn new(kind: &'static str, text: &str, rule: &'static str) -> Self {
        let mut shown: String = text.chars().take(40).flat_map(char::escape_default).collect();
        if text.chars().count() > 40 {
            shown.push_str("...");
        }
        Self { kind, shown, rule }
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $pattern:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(extend("pattern" = $pattern))]
        pub struct $name(String);

        impl $name {
            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.to_owned())) } else { Err(InvalidName::new($kind, text, $rule)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes[0] != b'-'
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

fn is_version(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=64).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'+' | b'-'))
}

name!(
    /// The name of something a team owns and releases, as `api`.
    ServiceName, "a service name", "^[a-z0-9][a-z0-9-]{0,62}$",
    "use 1 to 63 lower-case letters, digits and `-`, and begin with a letter or digit", is_label
);
name!(
    /// Where a service runs: `production`, `test`.
    EnvironmentName, "an environment name", "^[a-z0-9][a-z0-9-]{0,62}$",
    "use 1 to 63 lower-case letters, digits and `-`, and begin with a letter or digit", is_label
);
name!(
    /// A release's version as its team writes it, `1.2.3`; two versions are only ever compared for equality.
    Version, "a version", "^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$",
    "use 1 to 64 letters, digits and `.`, `_`, `+`, `-`, and begin with a letter or digit; `~2` names a stack, no version",
    is_version
);

impl EnvironmentName {
    /// Returns the environment that is meant where none is named: `production`.
    pub fn production() -> Self {
        Self("production".to_owned())
    }
}

/// One service in one environment, `production/api`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^[a-z0-9][a-z0-9-]{0,62}/[a-z0-9][a-z0-9-]{0,62}$"))]
pub struct DeploymentId {
    /// The environment.
    pub environment: EnvironmentName,
    /// The service.
    pub service: ServiceName,
}

impl DeploymentId {
    /// Returns what a command line adds to name its environment: ` --env test`, and nothing for production.
    pub fn env_flag(&self) -> String {
        let production = self.environment == EnvironmentName::production();
        if production { String::new() } else { format!(" --env {}", self.environment) }
    }

    /// Returns how a command line names it: `api`, or `api --env test`.
    pub fn arguments(&self) -> String {
        format!("{}{}", self.service, self.env_flag())
    }
}

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.environment, self.service)
    }
}

impl FromStr for DeploymentId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (environment, service) =
            text.split_once('/').ok_or_else(|| InvalidName::new("a deployment", text, "write ENVIRONMENT/SERVICE"))?;
        Ok(Self { environment: environment.parse()?, service: service.parse()? })
    }
}

impl TryFrom<String> for DeploymentId {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<DeploymentId> for String {
    fn from(id: DeploymentId) -> String {
        id.to_string()
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }
    };
}

uuid_id!(
    /// The ledger itself; every effect id is derived from it.
    LedgerId
);
uuid_id!(
    /// One commit (UUIDv7, made by its writer).
    CommitId
);
uuid_id!(
    /// One command; the same id again with the same content gives the first answer.
    CommandId
);
uuid_id!(
    /// One effect on the outside world: a UUIDv5 of what it is for, so that repeating it is harmless.
    EffectId
);
uuid_id!(
    /// One stack: the id of the commit that asked for it, so that the same version deployed again is another stack.
    StackId
);
uuid_id!(
    /// One rollout: the id of the commit that started it.
    RolloutId
);

impl From<CommitId> for StackId {
    fn from(id: CommitId) -> Self {
        Self(id.0)
    }
}

impl From<CommitId> for RolloutId {
    fn from(id: CommitId) -> Self {
        Self(id.0)
    }
}

impl EffectId {
    /// Returns the id of launching `slot`'s `attempt`-th node of `stack`. Source: design, "Workers": never random.
    pub fn of_launch(ledger: LedgerId, stack: StackId, slot: u16, attempt: u32) -> Self {
        Self(Uuid::new_v5(&ledger.0, format!("launch/{stack}/{slot}/{attempt}").as_bytes()))
    }
}

impl CommandId {
    /// Returns the command id of a worker's outcome, derived from `what`, so that two workers that conclude the
    /// same thing make the same command.
    pub fn of_outcome(ledger: LedgerId, what: &str) -> Self {
        Self(Uuid::new_v5(&ledger.0, what.as_bytes()))
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Returns the next one. The last has none after it and is returned itself: a record may claim any number.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = NotANumber;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self).map_err(|_| NotANumber(text.chars().take(40).collect()))
            }
        }
    };
}

/// Why a text is no offset, version or fence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a whole number from 0 to {}", .0.escape_default(), u64::MAX)]
pub struct NotANumber(String);

number!(
    /// A record's place in a log, from 0.
    Offset
);
number!(
    /// A commit's place in a stream, from 1; 0 is the empty stream.
    StreamVersion
);
number!(
    /// The number that every rollback of a deployment raises; what was asked for under an older one is refused.
    Fence
);

/// A SHA-256 hash, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(into = "String")]
#[schemars(with = "String", extend("pattern" = "^[0-9a-f]{64}$"))]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash that stands before a stream's first commit.
    pub const ZERO: Self = Self([0; 32]);

    /// Returns the SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The value of every lower-case hexadecimal digit, and 0xff for every other byte.
const DIGITS: [u8; 256] = {
    let mut digits = [0xff; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value] as usize] = value as u8;
        value += 1;
    }
    digits
};

impl FromStr for Hash {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let wrong = || InvalidName::new("a SHA-256 hash", text, "write 64 lower-case hexadecimal digits");
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut hash = [0; 32];
        if pairs.len() != hash.len() || !rest.is_empty() {
            return Err(wrong());
        }
        // Without a branch a digit: a commit holds several hashes, and a ledger many commits.
        let mut bad = 0;
        for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
            let (high, low) = (DIGITS[usize::from(*high)], DIGITS[usize::from(*low)]);
            bad |= high | low;
            *byte = high << 4 | low & 0xf;
        }
        if bad > 0xf {
            return Err(wrong());
        }
        Ok(Self(hash))
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        // A commit holds several hashes: they are read where they stand.
        impl serde::de::Visitor<'_> for Text {
            type Value = Hash;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a SHA-256 hash")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Hash, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl TryFrom<String> for Hash {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> String {
        hash.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_name_with_a_slash_is_refused_with_the_rule() {
        let error = "a/b".parse::<ServiceName>().unwrap_err().to_string();
        assert_eq!(
            error,
            "`a/b` is not a service name; use 1 to 63 lower-case letters, digits and `-`, and begin with a letter or digit"
        );
    }

    #[test]
    fn a_service_name_of_300_characters_is_refused_and_shown_cut_short() {
        let error = "a".repeat(300).parse::<ServiceName>().unwrap_err().to_string();
        assert!(error.starts_with(&format!("`{}...` is not", "a".repeat(40))), "{error}");
    }

    #[test]
    fn a_command_line_names_every_environment_but_production() {
        let arguments = |text: &str| text.parse::<DeploymentId>().unwrap().arguments();
        assert_eq!([arguments("production/api"), arguments("test/api")], ["api", "api --env test"]);
    }

    #[test]
    fn a_deployment_id_reads_back_as_written() {
        let id: DeploymentId = "production/api".parse().unwrap();
        assert_eq!(id.to_string(), "production/api");
        assert!("api".parse::<DeploymentId>().is_err());
    }

    #[test]
    fn a_hash_reads_back_as_written_and_upper_case_is_refused() {
        let hash = Hash::of(b"abc");
        assert_eq!(hash.to_string().parse::<Hash>(), Ok(hash));
        assert!(hash.to_string().to_uppercase().parse::<Hash>().is_err());
    }
}
