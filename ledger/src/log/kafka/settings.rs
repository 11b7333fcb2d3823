//! Which settings of the client library a user may choose, and which the ledger rests on.

/// Who sets what a user may not.
struct Reserved {
    /// A name, or with a `*` at its end the beginning of names.
    names: &'static [&'static str],
    why: &'static str,
}

/// What users leave alone. Source: librdkafka, CONFIGURATION.md; names with their other spellings there.
const RESERVED: [Reserved; 9] = [
    Reserved {
        names: &["bootstrap.servers", "metadata.broker.list"],
        why: "the brokers are named by the ledger's place, `kafka://HOST:PORT[,HOST:PORT...]`",
    },
    Reserved {
        names: &["security.protocol", "sasl.*"],
        why: "write `protocol`, `sasl_mechanism`, `username` and `password_file` instead",
    },
    Reserved {
        names: &["ssl.ca.*", "ssl.certificate.*", "ssl.key.*", "ssl.keystore.*", "ssl_*", "https.ca.*"],
        why: "write `ca_file`, `certificate_file` and `key_file` instead",
    },
    Reserved {
        names: &["enable.ssl.certificate.verification"],
        why: "unchecked, any server could pose as a broker and lose commits; name the authority that signs the \
              brokers' certificates in `ca_file`",
    },
    Reserved {
        names: &[
            "acks",
            "request.required.acks",
            "enable.idempotence",
            "enable.gapless.guarantee",
            "max.in.flight*",
            "message.send.max.retries",
            "retries",
            "transactional.id",
            "transaction.timeout.ms",
            "produce.offset.report",
            "partitioner",
            "msg_order_cmp",
            "queuing.strategy",
        ],
        why: "what is acknowledged must lie on the brokers, once and in its order",
    },
    Reserved {
        names: &[
            "message.timeout.ms",
            "delivery.timeout.ms",
            "request.timeout.ms",
            "linger.ms",
            "queue.buffering.max.ms",
        ],
        why: "a rollback relies on how long a commit may take",
    },
    Reserved {
        names: &["compression.*", "message.max.bytes", "message.copy.max.bytes"],
        why: "records are stored as they are, so that every reader can read them",
    },
    Reserved {
        names: &[
            "isolation.level",
            "auto.offset.reset",
            "auto.commit.*",
            "enable.auto.*",
            "offset.store.*",
            "enable.partition.eof",
            "check.crcs",
            "group.*",
            "session.timeout.ms",
            "heartbeat.interval.ms",
            "max.poll.interval.ms",
            "consume.*",
            "fetch.wait.max.ms",
            "queued.max.messages.kbytes",
            "fetch.error.backoff.ms",
            "fetch.queue.backoff.ms",
            "allow.auto.create.topics",
        ],
        why: "readers must see every record, in its order and at once, without a group",
    },
    Reserved {
        names: &["plugin.library.paths", "interceptors", "test.*", "opaque", "*_cb", "log.queue", "enabled_events"],
        why: "the client library is used by this program alone",
    },
];

/// Says why a setting of the client library is not chosen by users, if it is not.
pub fn reserved(name: &str) -> Option<&'static str> {
    let is = |pattern: &str| match (pattern.strip_suffix('*'), pattern.strip_prefix('*')) {
        (Some(beginning), _) => name.starts_with(beginning),
        (_, Some(end)) => name.ends_with(end),
        (None, None) => name == pattern,
    };
    RESERVED.iter().find(|reserved| reserved.names.iter().any(|pattern| is(pattern))).map(|reserved| reserved.why)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::log::kafka::KafkaOptions;
    use crate::log::kafka::client::Clients;

    #[test]
    fn what_the_ledger_rests_on_is_reserved_and_the_rest_is_not() {
        for name in [
            "acks",
            "enable.idempotence",
            "isolation.level",
            "auto.offset.reset",
            "group.id",
            "sasl.password",
            "ssl.key.pem",
            "error_cb",
            "max.in.flight.requests.per.connection",
        ] {
            assert!(reserved(name).is_some(), "{name}");
        }
        for name in
            ["client.id", "client.rack", "socket.keepalive.enable", "ssl.cipher.suites", "broker.address.family"]
        {
            assert_eq!(reserved(name), None, "{name}");
        }
    }

    /// Whatever this program sets for its own sake would be overruled by a user's choice, or overrule it silently.
    #[test]
    fn a_user_may_choose_nothing_that_is_set_for_the_ledger_s_sake() {
        let clients = Clients::new("kafka://a:1".parse().unwrap(), &KafkaOptions::default());
        let common = clients.config();
        let common: BTreeMap<&str, &str> = common.config_map();
        for config in [clients.reading(), clients.writing()] {
            let own = config.config_map().into_keys().filter(|name| !common.contains_key(name)).map(str::to_owned);
            for name in own.collect::<Vec<_>>() {
                assert!(reserved(&name).is_some(), "{name}");
            }
        }
        assert!(reserved("bootstrap.servers").is_some() && reserved("allow.auto.create.topics").is_some());
    }
}
