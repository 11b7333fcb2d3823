//! A stack's name as people read and write it: rendered and parsed here alone.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{InvalidName, Version};

/// What stands between a version and the number of its stack. No version holds it.
const MARK: char = '~';

/// A stack's name: `1.2.3` is the first stack of that version in its deployment, `1.2.3~2` the second.
///
/// Where a command names a stack, `1.2.3` also means the only other one while the first is failed or gone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}(~([2-9]|[1-9][0-9]{1,8}))?$"))]
pub struct StackName {
    /// The version that the stack runs.
    pub version: Version,
    /// Which stack of that version it is in its deployment, from 1.
    pub number: u32,
}

impl StackName {
    /// Returns the name of the stack of `version` with this number.
    pub fn new(version: Version, number: u32) -> Self {
        Self { version, number }
    }

    /// Says whether it is the first of its version, whose name is the version.
    pub fn is_first(&self) -> bool {
        self.number <= 1
    }

    /// Says whether it means the stack of `version` with this number: it is its name, or the version of whichever stack.
    pub fn means(&self, version: &Version, number: u32) -> bool {
        self.version == *version && (self.is_first() || self.number == number)
    }
}

/// The number of a stack that was recorded before stacks were counted.
pub fn first() -> u32 {
    1
}

/// Says whether a number is that of the first stack of a version, which is left out where it is kept.
pub fn is_first(number: &u32) -> bool {
    *number == 1
}

impl From<Version> for StackName {
    fn from(version: Version) -> Self {
        Self { version, number: 1 }
    }
}

impl fmt::Display for StackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_first() {
            true => self.version.fmt(f),
            false => write!(f, "{}{MARK}{}", self.version, self.number),
        }
    }
}

impl FromStr for StackName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let Some((version, number)) = text.split_once(MARK) else { return text.parse::<Version>().map(Self::from) };
        let wrong = || {
            let rule = "write the version for its first stack, and from the second on VERSION~2, VERSION~3, ..";
            InvalidName::new("a stack's name", text, rule)
        };
        let plain = number.len() <= 9 && number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
        let number = number.parse().ok().filter(|number| plain && *number >= 2).ok_or_else(wrong)?;
        Ok(Self { version: version.parse()?, number })
    }
}

impl TryFrom<String> for StackName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<StackName> for String {
    fn from(name: StackName) -> String {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stacks_name_reads_back_as_written_and_has_one_spelling() {
        for text in ["1.2.3", "1.2.3~2", "1.2.3~10", "main-4f2~123456789"] {
            assert_eq!(text.parse::<StackName>().unwrap().to_string(), text);
        }
        assert_eq!("1.2.3~2".parse(), Ok(StackName::new("1.2.3".parse().unwrap(), 2)));
        for text in ["~2", "1.2.3~", "1.2.3~0", "1.2.3~1", "1.2.3~02", "1.2.3~+2", "1.2.3~2~3", "1.2.3~1234567890"] {
            assert!(text.parse::<StackName>().is_err(), "{text}");
        }
    }

    #[test]
    fn no_version_can_be_mistaken_for_another_stacks_name() {
        let error = "1.2.3~2".parse::<Version>().unwrap_err().to_string();
        assert!(error.contains("`~2` names a stack"), "{error}");
    }
}
