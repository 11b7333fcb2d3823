//! Where a ledger lies in Kafka: `kafka://HOST:PORT[,HOST:PORT...][/TOPIC]`.

use std::fmt;
use std::str::FromStr;

/// The topic of a ledger whose place names none.
pub const TOPIC: &str = "ionledger.commits";

/// The brokers to ask first, and the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaAddress {
    servers: String,
    topic: String,
}

/// Why a text names no place in Kafka.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` does not name a ledger in Kafka: {why}; write kafka://HOST:PORT[,HOST:PORT...][/TOPIC]")]
pub struct BadKafkaAddress {
    text: String,
    why: &'static str,
}

impl KafkaAddress {
    /// Returns the brokers to ask first, as `host:port[,host:port...]`.
    pub fn servers(&self) -> &str {
        &self.servers
    }

    /// Returns the topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }
}

impl KafkaAddress {
    /// Returns the place of a topic beside this one, on the same brokers.
    pub(super) fn beside(&self, name: &str) -> Self {
        Self { servers: self.servers.clone(), topic: format!("{}.{name}", self.topic) }
    }
}

impl fmt::Display for KafkaAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kafka://{}", self.servers)?;
        if self.topic == TOPIC { Ok(()) } else { write!(f, "/{}", self.topic) }
    }
}

impl FromStr for KafkaAddress {
    type Err = BadKafkaAddress;

    fn from_str(text: &str) -> Result<Self, BadKafkaAddress> {
        let bad = |why| BadKafkaAddress { text: text.to_owned(), why };
        let rest = text.strip_prefix("kafka://").ok_or_else(|| bad("it does not begin with kafka://"))?;
        let (servers, topic) = match rest.split_once('/') {
            None | Some((_, "")) => (rest.trim_end_matches('/'), TOPIC),
            Some((servers, topic)) => (servers, topic),
        };
        if !servers.split(',').all(is_address) {
            return Err(bad("each broker is HOST:PORT"));
        }
        if !is_topic(topic) {
            return Err(bad("a topic has at most 249 of a-z, A-Z, 0-9, `.`, `_` and `-`"));
        }
        Ok(Self { servers: servers.to_owned(), topic: topic.to_owned() })
    }
}

fn is_address(server: &str) -> bool {
    let Some((host, port)) = server.rsplit_once(':') else { return false };
    let is_host = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    !host.is_empty() && host.chars().all(is_host) && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Source: Kafka's `Topic.validate`.
fn is_topic(topic: &str) -> bool {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    topic.len() <= 249 && topic != "." && topic != ".." && topic.chars().all(is_legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        for (text, servers, topic) in [
            ("kafka://a:9092", "a:9092", TOPIC),
            ("kafka://a:9092,b.c:1,[::1]:2/", "a:9092,b.c:1,[::1]:2", TOPIC),
            ("kafka://127.0.0.1:9092/team-a.commits_2", "127.0.0.1:9092", "team-a.commits_2"),
        ] {
            let place: KafkaAddress = text.parse().unwrap();
            assert_eq!((place.servers(), place.topic()), (servers, topic));
            assert_eq!(place.to_string().parse::<KafkaAddress>().unwrap(), place);
        }
    }

    #[test]
    fn what_names_no_place_is_refused_with_its_reason() {
        for text in ["", "a:9092", "kafka://", "kafka://a", "kafka://a:0", "kafka://a:b", "kafka://a:1,,b:2"] {
            assert!(text.parse::<KafkaAddress>().is_err(), "{text}");
        }
        for topic in ["a/b", "..", "ü", "a b", &"x".repeat(250)] {
            let refused = format!("kafka://a:1/{topic}").parse::<KafkaAddress>().unwrap_err();
            assert!(refused.to_string().contains("a topic has"), "{refused}");
        }
    }
}
