//! The settings of Kafka: what may be written, and what it comes to.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use api::document::nearest;
use ledger::log::kafka::{Identity, KafkaOptions, Sasl, Secret, Security, Tls};
use workers::text_file;

use super::called;

/// What variables of the environment begin with.
const PREFIX: &str = "IONLEDGER_KAFKA_";

/// What variables begin with that set something of the client library: `IONLEDGER_KAFKA_CLIENT_SOCKET_KEEPALIVE_ENABLE`.
const CLIENT: &str = "CLIENT_";

/// The keys of a file's table `kafka`.
pub(super) const KEYS: [&str; 8] = [
    "protocol",
    "ca_file",
    "certificate_file",
    "key_file",
    "key_password_file",
    "sasl_mechanism",
    "username",
    "password_file",
];

/// What only the environment may hold. Each has a key for the file that it lies in.
pub(super) const SECRETS: [&str; 2] = ["password", "key_password"];

/// Whether a key names a file.
pub(super) fn is_path(key: &str) -> bool {
    key.ends_with("_file")
}

/// What is written about Kafka in one place.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Kafka {
    /// By [`KEYS`] and [`SECRETS`].
    pub(super) values: BTreeMap<&'static str, String>,
    /// Settings of the client library.
    pub(super) client: BTreeMap<String, String>,
}

impl std::fmt::Debug for Kafka {
    /// Shows no value: some are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).entries(self.client.keys()).finish()
    }
}

/// Reads the variables of Kafka. One that is empty is not set.
pub(super) fn from_environment(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Kafka, String> {
    let mut kafka = Kafka::default();
    for (variable, value) in variables {
        let Some(name) = variable.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        if value.is_empty() || is_of_kubernetes(name) {
            continue;
        }
        let value = value.into_string().map_err(|_| format!("{PREFIX}{name} is not text; write it in UTF-8"))?;
        let lower = name.to_lowercase();
        if let Some(key) = KEYS.into_iter().chain(SECRETS).find(|key| *key == lower) {
            kafka.values.insert(key, value);
        } else if let Some(setting) = name.strip_prefix(CLIENT) {
            kafka.client.insert(setting.to_lowercase().replace('_', "."), value);
        } else {
            let known: Vec<&str> = KEYS.into_iter().chain(SECRETS).collect();
            let near = nearest(&lower, &known).map(|near| format!(", did you mean {PREFIX}{}?", near.to_uppercase()));
            let meant = near.unwrap_or_default();
            return Err(format!("unknown variable {PREFIX}{name}{meant}; docs/kafka.md has every variable"));
        }
    }
    Ok(kafka)
}

/// Kubernetes tells every container of a service `ionledger-kafka` by such variables. Source: its documents, "Service".
fn is_of_kubernetes(name: &str) -> bool {
    name.starts_with("SERVICE_") || name == "PORT" || name.starts_with("PORT_")
}

impl Kafka {
    /// Returns these settings but where `other` has its own.
    pub(super) fn overridden_by(mut self, other: Self) -> Self {
        for secret in SECRETS {
            let file = KEYS.into_iter().find(|key| key.strip_suffix("_file") == Some(secret)).expect("each has one");
            if other.values.contains_key(secret) || other.values.contains_key(file) {
                self.values.remove(secret);
                self.values.remove(file);
            }
        }
        self.values.extend(other.values);
        self.client.extend(other.client);
        self
    }

    /// Returns what the log is opened with.
    pub(super) fn options(self) -> Result<KafkaOptions, String> {
        let protocol = self.get("protocol").unwrap_or("plaintext");
        let (is_tls, is_sasl) = match &*protocol.to_lowercase() {
            "plaintext" => (false, false),
            "ssl" => (true, false),
            "sasl_plaintext" => (false, true),
            "sasl_ssl" => (true, true),
            _ => {
                let called = called("protocol");
                return Err(format!("{called}: write plaintext, ssl, sasl_plaintext or sasl_ssl, not `{protocol}`"));
            }
        };
        let of_tls = ["ca_file", "certificate_file", "key_file", "key_password", "key_password_file"];
        let of_sasl = ["sasl_mechanism", "username", "password", "password_file"];
        self.only_if(is_tls, &of_tls, "ssl or sasl_ssl")?;
        self.only_if(is_sasl, &of_sasl, "sasl_ssl or sasl_plaintext")?;
        let tls = if is_tls { Some(self.tls()?) } else { None };
        let sasl = if is_sasl { Some(self.sasl()?) } else { None };
        Ok(KafkaOptions { security: Security { tls, sasl }, client: self.client, ..KafkaOptions::default() })
    }

    /// Returns the files that hold secrets.
    pub(super) fn secret_files(&self) -> Vec<PathBuf> {
        ["key_file", "key_password_file", "password_file"]
            .into_iter()
            .filter_map(|key| self.get(key))
            .map(PathBuf::from)
            .collect()
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// Refuses what would be ignored.
    fn only_if(&self, is_used: bool, keys: &[&str], protocols: &str) -> Result<(), String> {
        match keys.iter().find(|key| !is_used && self.values.contains_key(**key)) {
            None => Ok(()),
            Some(key) => {
                let (key, protocol) = (called(key), called("protocol"));
                Err(format!("{key} is not used with this protocol; set {protocol} to {protocols}, or leave it out"))
            }
        }
    }

    fn tls(&self) -> Result<Tls, String> {
        let (certificate, key) = (self.readable("certificate_file")?, self.readable("key_file")?);
        let key_password = self.secret("key_password", "key_password_file")?;
        let identity = match (certificate, key) {
            (Some(certificate_file), Some(key_file)) => Some(Identity { certificate_file, key_file, key_password }),
            (None, None) if key_password.is_none() => None,
            (None, _) => return Err(missing("certificate_file")),
            (_, None) => return Err(missing("key_file")),
        };
        Ok(Tls { ca_file: self.readable("ca_file")?, identity })
    }

    fn sasl(&self) -> Result<Sasl, String> {
        let required = |key| self.get(key).ok_or_else(|| missing(key));
        let mechanism = required("sasl_mechanism")?.parse();
        Ok(Sasl {
            mechanism: mechanism.map_err(|why| format!("{}: {why}", called("sasl_mechanism")))?,
            username: required("username")?.to_owned(),
            password: self.secret("password", "password_file")?.ok_or_else(|| missing("password_file"))?,
        })
    }

    /// Returns a file's path, if the file can be read.
    fn readable(&self, key: &str) -> Result<Option<PathBuf>, String> {
        let Some(path) = self.get(key).map(PathBuf::from) else { return Ok(None) };
        let opened = std::fs::File::open(&path);
        opened.map_err(|error| format!("{}: cannot read {}: {error}; name a file", called(key), path.display()))?;
        Ok(Some(path))
    }

    /// Returns a secret: its own value, or what its file holds but for the end of its line.
    fn secret(&self, key: &str, file: &str) -> Result<Option<Secret>, String> {
        if let Some(secret) = self.get(key) {
            return Ok(Some(Secret::new(secret)));
        }
        let Some(path) = self.get(file) else { return Ok(None) };
        let read = text_file::read_text(Path::new(path));
        let text = read.map_err(|error| format!("{}: cannot read {path}: {error}; name a file", called(file)))?;
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(format!("{}: {path} is empty; write the secret into it", called(file))),
            secret => Ok(Some(Secret::new(secret))),
        }
    }
}

fn missing(key: &str) -> String {
    format!("{} is missing; set it, or choose another {}", called(key), called("protocol"))
}
