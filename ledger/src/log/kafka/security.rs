//! How this program and the brokers prove to each other who they are.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use rdkafka::config::ClientConfig;

/// Something that nobody is shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret into keeping.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What of TLS and SASL is spoken; by default neither.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// TLS: nobody on the way reads along, and brokers are who they say.
    pub tls: Option<Tls>,
    /// SASL: this program logs in.
    pub sasl: Option<Sasl>,
}

/// TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The certificates of who may vouch for brokers, as PEM; by default those that this machine trusts.
    pub ca_file: Option<PathBuf>,
    /// The certificate that this program shows to brokers.
    pub identity: Option<Identity>,
}

/// A certificate of this program's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate and those between it and the authority, as PEM.
    pub certificate_file: PathBuf,
    /// Its private key, as PEM.
    pub key_file: PathBuf,
    /// What the key is encrypted with, if it is.
    pub key_password: Option<Secret>,
}

/// A login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sasl {
    /// How it is proved.
    pub mechanism: Mechanism,
    /// Who logs in.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// How a login is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// The password itself is sent.
    Plain,
    /// SCRAM with SHA-256, RFC 7677: the password is never sent.
    ScramSha256,
    /// SCRAM with SHA-512.
    ScramSha512,
}

impl Mechanism {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Plain, Self::ScramSha256, Self::ScramSha512];

    /// Returns its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl FromStr for Mechanism {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name).join(", ");
        let known = Self::ALL.into_iter().find(|known| known.name() == text);
        known.ok_or_else(|| format!("`{text}` is not a mechanism that ionledger logs in with; write one of {names}"))
    }
}

impl Security {
    /// Says what is asked for that this build has not.
    pub fn lacking(&self) -> Option<&'static str> {
        let has_openssl = cfg!(feature = "kafka-tls");
        match &self.sasl {
            _ if has_openssl => None,
            _ if self.tls.is_some() => Some("TLS"),
            Some(Sasl { mechanism, .. }) if *mechanism != Mechanism::Plain => Some(mechanism.name()),
            _ => None,
        }
    }

    /// Sets what the client library takes. Source: librdkafka, CONFIGURATION.md.
    pub(super) fn set(&self, config: &mut ClientConfig) {
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => return,
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(ca) = self.tls.as_ref().and_then(|tls| tls.ca_file.as_ref()) {
            config.set("ssl.ca.location", path(ca));
        }
        if let Some(identity) = self.tls.as_ref().and_then(|tls| tls.identity.as_ref()) {
            config.set("ssl.certificate.location", path(&identity.certificate_file));
            config.set("ssl.key.location", path(&identity.key_file));
            if let Some(password) = &identity.key_password {
                config.set("ssl.key.password", &password.0);
            }
        }
        if let Some(sasl) = &self.sasl {
            config.set("sasl.mechanism", sasl.mechanism.name());
            config.set("sasl.username", &sasl.username).set("sasl.password", &sasl.password.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Security {
        let identity = Identity {
            certificate_file: "/k/client.pem".into(),
            key_file: "/k/client.key".into(),
            key_password: Some(Secret::new("hush-key")),
        };
        Security {
            tls: Some(Tls { ca_file: Some("/k/ca.pem".into()), identity: Some(identity) }),
            sasl: Some(Sasl {
                mechanism: Mechanism::ScramSha512,
                username: "ionledger".to_owned(),
                password: Secret::new("hush-login"),
            }),
        }
    }

    fn set(security: &Security) -> Vec<(String, String)> {
        let mut config = ClientConfig::new();
        security.set(&mut config);
        let names = ["security.protocol", "ssl.ca.location", "ssl.certificate.location", "ssl.key.location"];
        let names = names.into_iter().chain(["ssl.key.password", "sasl.mechanism", "sasl.username", "sasl.password"]);
        names.filter_map(|name| Some((name.to_owned(), config.get(name)?.to_owned()))).collect()
    }

    #[test]
    fn what_is_asked_for_is_what_the_client_library_is_told() {
        let told = set(&whole());
        let told: Vec<(&str, &str)> = told.iter().map(|(name, value)| (&**name, &**value)).collect();
        let expected = [
            ("security.protocol", "sasl_ssl"),
            ("ssl.ca.location", "/k/ca.pem"),
            ("ssl.certificate.location", "/k/client.pem"),
            ("ssl.key.location", "/k/client.key"),
            ("ssl.key.password", "hush-key"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", "ionledger"),
            ("sasl.password", "hush-login"),
        ];
        assert_eq!(told, expected);
        let protocol = |tls, sasl| set(&Security { tls, sasl }).first().map(|(_, protocol)| protocol.clone());
        assert_eq!(protocol(None, None), None);
        assert_eq!(protocol(whole().tls, None).as_deref(), Some("ssl"));
        assert_eq!(protocol(None, whole().sasl).as_deref(), Some("sasl_plaintext"));
    }

    #[test]
    fn no_secret_is_shown() {
        let shown = format!("{:?}", whole());
        assert!(!shown.contains("hush") && shown.contains("***"), "{shown}");
    }

    #[test]
    fn a_build_without_tls_knows_what_it_lacks() {
        let lacking = |tls, sasl| Security { tls, sasl }.lacking();
        let plain = whole().sasl.map(|sasl| Sasl { mechanism: Mechanism::Plain, ..sasl });
        let built_in = cfg!(feature = "kafka-tls");
        assert_eq!(lacking(whole().tls, plain.clone()), (!built_in).then_some("TLS"));
        assert_eq!(lacking(None, whole().sasl), (!built_in).then_some("SCRAM-SHA-512"));
        assert_eq!((lacking(None, plain), lacking(None, None)), (None, None));
    }

    #[test]
    fn a_mechanism_is_read_by_its_registered_name() {
        for mechanism in Mechanism::ALL {
            assert_eq!(mechanism.name().parse(), Ok(mechanism));
        }
        let refused = "GSSAPI".parse::<Mechanism>().unwrap_err();
        assert!(refused.contains("PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"), "{refused}");
    }
}
