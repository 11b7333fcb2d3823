//! Where a ledger lies, as it is written.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use ledger::log::kafka;

/// Where a ledger lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LedgerLocation {
    /// In a data folder of this machine.
    Folder(PathBuf),
    /// In Kafka.
    Kafka(kafka::KafkaAddress),
}

impl LedgerLocation {
    /// Reads a place; a folder that does not begin with `/` lies below `base`.
    pub(crate) fn read(text: &str, base: &Path) -> Result<Self, String> {
        if text.contains("://") {
            return text.parse().map(Self::Kafka).map_err(|error: kafka::BadKafkaAddress| error.to_string());
        }
        if text.split('/').next().is_some_and(|first| first.contains(':')) {
            return Err(format!(
                "`{text}` looks like an address; write kafka://HOST:PORT[,HOST:PORT...][/TOPIC], or `./{text}` for a folder"
            ));
        }
        if text.is_empty() {
            return Err("it is empty; name a data folder or kafka://HOST:PORT[,HOST:PORT...][/TOPIC]".to_owned());
        }
        std::path::absolute(base.join(text)).map(Self::Folder).map_err(|error| error.to_string())
    }
}

impl FromStr for LedgerLocation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::read(text, Path::new(""))
    }
}

impl std::fmt::Display for LedgerLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::Kafka(place) => write!(f, "{place}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_folder_unless_it_names_another_kind() {
        assert_eq!("/a/b".parse(), Ok(LedgerLocation::Folder("/a/b".into())));
        assert_eq!(LedgerLocation::read("b", Path::new("/a")), Ok(LedgerLocation::Folder("/a/b".into())));
        let place: LedgerLocation = "kafka://a:1".parse().unwrap();
        assert_eq!(place.to_string(), "kafka://a:1");
        assert!("redis://a:1".parse::<LedgerLocation>().is_err_and(|why| why.contains("kafka://")));
        assert!("".parse::<LedgerLocation>().is_err());
        for half in ["kafka:127.0.0.1", "kafka:127.0.0.1:9092", "127.0.0.1:9092", "localhost:9092", "kafka:/a/b"] {
            assert!(half.parse::<LedgerLocation>().is_err_and(|why| why.contains("write kafka://HOST:PORT")), "{half}");
        }
        assert_eq!(LedgerLocation::read("./a:b", Path::new("/c")), Ok(LedgerLocation::Folder("/c/./a:b".into())));
    }
}
