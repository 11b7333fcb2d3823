//! What is written and what it comes to.

use std::collections::BTreeMap;
use std::ffi::OsString;

use ledger::log::kafka::{Mechanism, Secret, Security};

use super::file::File;
use super::kafka::{Kafka, from_environment};
use super::*;

/// Every key, as the documents show it.
const EXAMPLE: &str = include_str!("../../../docs/ionledger.toml");

fn parse(text: &str) -> Result<File, String> {
    File::parse("ionledger.toml", text, Path::new("/etc/ionledger")).map_err(|error| error.to_string())
}

fn environment(variables: &[(&str, &str)]) -> Result<Kafka, String> {
    from_environment(variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
}

fn options(text: &str, variables: &[(&str, &str)]) -> Result<KafkaOptions, String> {
    parse(text)?.kafka.overridden_by(environment(variables)?).options()
}

fn login(security: &Security) -> (Mechanism, &str, String) {
    let sasl = security.sasl.as_ref().expect("a login");
    assert!(format!("{security:?}").contains("***"), "{security:?}");
    (sasl.mechanism, &sasl.username, format!("{:?}", sasl.password))
}

#[test]
fn the_documents_example_is_read_and_a_folder_or_file_lies_beside_the_file() {
    let file = parse(EXAMPLE).unwrap();
    assert_eq!(file.data, Some("/var/lib/ionledger".into()));
    assert_eq!(file.ledger.unwrap().to_string(), "kafka://kafka-1:9093,kafka-2:9093,kafka-3:9093");
    assert_eq!((file.dev, file.listen), (Some(false), Some("0.0.0.0:7070".parse().unwrap())));
    assert_eq!(file.ci_secret_files, [PathBuf::from("/etc/ionledger/ci.secret")]);
    assert_eq!(file.trusted_proxies.unwrap().to_string(), "127.0.0.1/32,10.0.0.0/8");
    assert_eq!(file.socket_group, group("adm").ok());
    let value = |key: &str| file.kafka.values.get(key).map(String::as_str);
    assert_eq!(value("protocol"), Some("sasl_ssl"));
    assert_eq!(value("ca_file"), Some("/etc/ionledger/kafka-ca.pem"));
    assert_eq!(value("password_file"), Some("/run/secrets/kafka-password"));
    let client = [("client.rack", "zone-a"), ("socket.keepalive.enable", "true")];
    assert_eq!(file.kafka.client, client.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
}

#[test]
fn the_environment_comes_before_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "of the file\n").unwrap();
    let text = format!(
        "[kafka]\nprotocol = \"SASL_PLAINTEXT\"\nsasl_mechanism = \"SCRAM-SHA-512\"\nusername = \"one\"\n\
         password_file = \"{}\"\nclient.client.id = \"here\"\nclient.\"client.rack\" = \"a\"\n",
        secret.display()
    );
    let alone = options(&text, &[]).unwrap();
    assert_eq!(alone.security.sasl.as_ref().unwrap().password, Secret::new("of the file"));
    let both = options(
        &text,
        &[
            ("IONLEDGER_KAFKA_SASL_MECHANISM", "PLAIN"),
            ("IONLEDGER_KAFKA_USERNAME", ""),
            ("IONLEDGER_KAFKA_PASSWORD", "hush"),
            ("IONLEDGER_KAFKA_CLIENT_CLIENT_RACK", "b"),
            ("IONLEDGER_DATA", "/elsewhere"),
        ],
    )
    .unwrap();
    assert_eq!(login(&both.security), (Mechanism::Plain, "one", "***".to_owned()));
    assert_eq!(both.security.sasl.unwrap().password, Secret::new("hush"));
    let client = [("client.id", "here"), ("client.rack", "b")];
    assert_eq!(both.client, client.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
}

#[test]
fn what_means_nothing_is_refused_with_what_was_meant() {
    for (text, expected) in [
        ("ledgr = \"a\"", "ionledger.toml:1:1: ledgr: unknown key, did you mean `ledger`? known are"),
        ("[kafka]\nuser_name = \"a\"", "ionledger.toml:2:1: kafka.user_name: unknown key, did you mean"),
        ("[kafka]\npassword = \"a\"", "kafka.password: a secret may not be in this file; write password_file, or set"),
        ("[kafka.client]\nacks = 1", "kafka.client.acks: this cannot be set: what is acknowledged must lie"),
        ("[kafka]\nclient.isolation.level = \"x\"", "kafka.client.isolation.level: this cannot be set: readers"),
        ("[kafka.client]\n\"ssl.ca.location\" = \"x\"", "this cannot be set: write `ca_file`"),
        ("ledger = \"redis://a:1\"", "ionledger.toml:1:10: ledger: `redis://a:1` does not name a ledger in Kafka"),
        ("listen = 7070", "ionledger.toml:1:10: listen: it is of type integer; write a text in quotes"),
        ("data = \"\"", "data: it is empty"),
        ("dev = 1\nlisten = \"x\"", "ionledger.toml:2:10: listen: it is not an address"),
    ] {
        let refused = parse(text).unwrap_err();
        assert!(refused.contains(expected), "{text}: {refused}");
    }
    let refused = environment(&[("IONLEDGER_KAFKA_PASWORD", "hush")]).unwrap_err();
    assert!(refused.contains("unknown variable IONLEDGER_KAFKA_PASWORD, did you mean IONLEDGER_KAFKA_PASSWORD?"));
    assert!(!refused.contains("hush"), "{refused}");
    let of_kubernetes = [("IONLEDGER_KAFKA_SERVICE_HOST", "10.0.0.1"), ("IONLEDGER_KAFKA_PORT", "tcp://10.0.0.1:9092")];
    assert_eq!(environment(&of_kubernetes), Ok(Kafka::default()));
}

#[test]
fn what_does_not_fit_together_is_refused_with_the_next_step() {
    let missing = "/nowhere/at/all.pem";
    for (values, expected) in [
        (&[("PROTOCOL", "tls")][..], "kafka.protocol (IONLEDGER_KAFKA_PROTOCOL): write plaintext, ssl,"),
        (&[("CA_FILE", missing)], "kafka.ca_file (IONLEDGER_KAFKA_CA_FILE) is not used with this protocol; set"),
        (&[("PROTOCOL", "ssl"), ("PASSWORD", "hush")], "kafka.password (IONLEDGER_KAFKA_PASSWORD) is not used"),
        (&[("PROTOCOL", "ssl"), ("CA_FILE", missing)], "cannot read /nowhere/at/all.pem"),
        (
            &[("PROTOCOL", "ssl"), ("KEY_FILE", "/dev/null")],
            "kafka.certificate_file (IONLEDGER_KAFKA_CERTIFICATE_FILE)",
        ),
        (&[("PROTOCOL", "sasl_ssl")], "kafka.sasl_mechanism (IONLEDGER_KAFKA_SASL_MECHANISM) is missing"),
        (
            &[("PROTOCOL", "sasl_ssl"), ("SASL_MECHANISM", "GSSAPI")],
            "`GSSAPI` is not a mechanism that ionledger logs in",
        ),
        (
            &[("PROTOCOL", "sasl_ssl"), ("SASL_MECHANISM", "PLAIN"), ("USERNAME", "a")],
            "kafka.password_file (IONLEDGER_KAFKA_PASSWORD_FILE) is missing",
        ),
        (
            &[("PROTOCOL", "sasl_ssl"), ("SASL_MECHANISM", "PLAIN"), ("USERNAME", "a"), ("PASSWORD_FILE", "/dev/null")],
            "/dev/null is empty",
        ),
    ] {
        let variables: BTreeMap<String, &str> =
            values.iter().map(|(name, value)| (format!("IONLEDGER_KAFKA_{name}"), *value)).collect();
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (&**name, *value)).collect();
        let refused = options("", &variables).unwrap_err();
        assert!(refused.contains(expected), "{values:?}: {refused}");
        assert!(!refused.contains("hush"), "{refused}");
    }
}

#[test]
fn nothing_written_is_a_plain_connection() {
    let nothing = options("", &[]).unwrap();
    assert_eq!((nothing.security, nothing.client, nothing.dev), (Security::default(), BTreeMap::new(), false));
}

#[test]
fn a_proxy_to_believe_that_is_no_network_is_named_with_its_line() {
    let error = parse("dev = true\ntrusted_proxies = [\"10.0.0.0/8\", \"lb.example\"]\n").unwrap_err();
    assert!(error.contains("lb.example") && error.contains("127.0.0.1"), "{error}");
}
