//! The CI trigger: its secrets, its signatures, and what identifies a delivery.
//!
//! A delivery comes in one of two forms. Standard Webhooks signs an id and a time beside the body, so the id
//! identifies a delivery, and it is accepted for five minutes. GitHub's form signs the body alone, so the body identifies a
//! delivery: anyone who has seen one request could have written its other headers.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit as _, Mac as _};
use schemas::{CommandId, Hash, LedgerId, Timestamp};
use sha2::Sha256;
use uuid::Uuid;
use workers::text_file;

/// The header that carries a signature of the body, as GitHub, Gitea and Forgejo name it.
pub const SIGNATURE: &str = "x-hub-signature-256";

/// The headers of Standard Webhooks: the id, when it was sent in seconds since 1970, and the signatures of both and the body.
/// Source: the Standard Webhooks specification 1.0.0, "Webhook headers".
pub const WEBHOOK: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];

/// How far a webhook's time may be from this server's clock, in seconds. Source: the libraries of Standard Webhooks.
pub const TOLERANCE_S: i64 = 300;

/// Base64, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What the secrets of Standard Webhooks begin with; the rest is the key in base64.
const SECRET_PREFIX: &str = "whsec_";

/// How short a secret may be, in bytes.
const SECRET_BYTES_MIN: usize = 16;

/// How many secrets are accepted at once: the one in use, and the one that replaces it.
const SECRETS_MAX: usize = 2;

/// The secrets that CI may sign with; none means that nothing from CI is believed.
#[derive(Clone, Default)]
pub struct Secrets {
    secrets: Vec<Vec<u8>>,
    only_webhooks: bool,
}

/// What identifies a delivery, for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The signed id of a standard webhook.
    Webhook(String),
    /// The hash of a body that is all that was signed.
    Body(Hash),
}

/// A standard webhook's headers as they came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Webhook<'a> {
    /// Its id.
    pub(crate) id: &'a str,
    /// When it was sent, in seconds since 1970.
    pub(crate) timestamp: &'a str,
    /// Signatures, `v1,BASE64`, with a space between two of them.
    pub(crate) signatures: &'a str,
}

/// Why a secret is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the CI secret in {path}: {cause}; name its file with --ci-secret-file")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The variable is not set.
    #[error("the variable {0}, which should hold the CI secret, is not set")]
    Variable(String),
    /// The secret is too short.
    #[error(
        "the CI secret has {0} bytes, at least {SECRET_BYTES_MIN} are needed; `openssl rand -hex 32` makes a good one"
    )]
    Short(usize),
    /// There are too many secrets.
    #[error("at most {SECRETS_MAX} CI secrets are accepted at once: the old one and the new one")]
    Many,
    /// The secret has the prefix for base64 and is not base64.
    #[error("the CI secret begins with {SECRET_PREFIX}, and what follows is not base64; copy it again")]
    NoBase64,
}

impl Secrets {
    /// Adds a secret; a line break at its end is not part of it.
    ///
    /// # Errors
    ///
    /// [`Error::Short`] or [`Error::Many`].
    pub fn and(mut self, secret: &[u8]) -> Result<Self, Error> {
        let secret = secret.trim_ascii_end();
        if secret.len() < SECRET_BYTES_MIN {
            return Err(Error::Short(secret.len()));
        }
        if let Some(encoded) = secret.strip_prefix(SECRET_PREFIX.as_bytes()) {
            let key = BASE64.decode(encoded).map_err(|_| Error::NoBase64)?;
            if key.len() < SECRET_BYTES_MIN {
                return Err(Error::Short(key.len()));
            }
        }
        if self.secrets.len() == SECRETS_MAX {
            return Err(Error::Many);
        }
        self.secrets.push(secret.to_vec());
        Ok(self)
    }

    /// If `only`, refuses signatures of a body alone, which never expire.
    #[must_use]
    pub fn only_webhooks(mut self, only: bool) -> Self {
        self.only_webhooks = only;
        self
    }

    /// Says whether a signature of a body alone is believed.
    pub fn believes_bodies(&self) -> bool {
        !self.only_webhooks
    }

    /// Adds the secret in a file.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn and_file(self, path: &Path) -> Result<Self, Error> {
        let secret = text_file::read(path, text_file::SECRET_KIB_MAX)
            .map_err(|cause| Error::File { path: path.to_owned(), cause })?;
        self.and(&secret)
    }

    /// Adds the secret in a variable of this process's environment.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn and_variable(self, name: &str) -> Result<Self, Error> {
        let secret = std::env::var_os(name).ok_or_else(|| Error::Variable(name.to_owned()))?;
        self.and(secret.as_encoded_bytes())
    }

    /// Says whether there is no secret.
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// Returns the name of the secret that `signature` (`sha256=HEX`) of `body` was made with, if it is one of these.
    /// It takes the same time whichever secret it is.
    pub fn signed_by(&self, signature: &str, body: &[u8]) -> Option<&'static str> {
        let signature = signature.strip_prefix("sha256=").filter(|hex| hex.len() == 64)?;
        let signature = hex::decode(signature).ok()?;
        let keys = self.named().map(|(secret, name)| (secret.to_vec(), name));
        matching(keys, &[body], &[signature])
    }

    /// Returns the name of the secret that one of a webhook's signatures was made with, if it is one of these. It takes
    /// the same time whichever secret it is. The webhook's time is not checked.
    pub(crate) fn webhook_signed_by(&self, webhook: Webhook<'_>, body: &[u8]) -> Option<&'static str> {
        let signatures = webhook.signatures.split(' ').filter_map(|signature| signature.strip_prefix("v1,"));
        let signatures: Vec<Vec<u8>> = signatures.filter_map(|text| BASE64.decode(text).ok()).collect();
        let keys = self.named().flat_map(|(secret, name)| webhook_keys(secret).into_iter().map(move |key| (key, name)));
        let signed = [webhook.id.as_bytes(), b".", webhook.timestamp.as_bytes(), b".", body];
        matching(keys, &signed, &signatures)
    }

    fn named(&self) -> impl Iterator<Item = (&[u8], &'static str)> {
        self.secrets.iter().map(Vec::as_slice).zip(["ci", "ci-2"])
    }
}

/// Returns the keys that a secret may stand for: its libraries read every secret as base64, with or without a prefix, and
/// people sign with the text itself.
fn webhook_keys(secret: &[u8]) -> Vec<Vec<u8>> {
    match secret.strip_prefix(SECRET_PREFIX.as_bytes()) {
        Some(encoded) => BASE64.decode(encoded).into_iter().collect(),
        None => BASE64
            .decode(secret)
            .into_iter()
            .filter(|key| key.len() >= SECRET_BYTES_MIN)
            .chain([secret.to_vec()])
            .collect(),
    }
}

/// Returns the name of the first key that one of `signatures` of all `parts` was made with. Every key is tried with every
/// signature, so that the time it takes reveals nothing.
fn matching(
    keys: impl Iterator<Item = (Vec<u8>, &'static str)>,
    parts: &[&[u8]],
    signatures: &[Vec<u8>],
) -> Option<&'static str> {
    let mut found = None;
    for (key, name) in keys {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
        parts.iter().for_each(|part| mac.update(part));
        for signature in signatures {
            if mac.clone().verify_slice(signature).is_ok() {
                found = found.or(Some(name));
            }
        }
    }
    found
}

impl Webhook<'_> {
    /// Returns how many seconds its time is from `now`, negative if it lies ahead; nothing if it names no time.
    pub(crate) fn age_s(&self, now: Timestamp) -> Option<i64> {
        let digits =
            (1..=12).contains(&self.timestamp.len()) && self.timestamp.bytes().all(|byte| byte.is_ascii_digit());
        let sent = self.timestamp.parse::<i64>().ok().filter(|_| digits)?;
        Some(now.as_second().saturating_sub(sent))
    }

    /// Says whether its id can be one: 1 to 128 visible characters, no dot among them, since a dot ends it in what is signed.
    pub(crate) fn has_id(&self) -> bool {
        (1..=128).contains(&self.id.len()) && self.id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'.')
    }
}

impl Delivery {
    /// Returns the command id of what it sets off, so that the same delivery is the same command for ever.
    pub(crate) fn command_id(&self, ledger: LedgerId, what: &str) -> CommandId {
        match self {
            Delivery::Webhook(id) => command_id(ledger, &format!("webhook/{id}"), what),
            Delivery::Body(hash) => command_id(ledger, &format!("sha256/{hash}"), what),
        }
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Delivery::Webhook(id) => write!(f, "CI delivery {id}"),
            Delivery::Body(hash) => write!(f, "CI delivery sha256:{}", &hash.to_string()[..12]),
        }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.secrets.len())
    }
}

/// Returns the command id of what a delivery sets off. Until deliveries were known by what is signed, `delivery` was the
/// header `X-Delivery` of GitHub's form.
pub(crate) fn command_id(ledger: LedgerId, delivery: &str, what: &str) -> CommandId {
    CommandId(Uuid::new_v5(&ledger.0, format!("ci/{what}/{delivery}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: GitHub's documentation, "Validating webhook deliveries", "Testing the webhook payload validation".
    const SIGNED: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    fn secrets() -> Secrets {
        Secrets::default().and(b"It's a Secret to Everybody").unwrap()
    }

    #[test]
    fn the_published_vector_is_believed_and_nothing_near_it() {
        assert_eq!(secrets().signed_by(SIGNED, b"Hello, World!"), Some("ci"));
        assert_eq!(secrets().signed_by(SIGNED, b"Hello, World?"), None);
        assert_eq!(Secrets::default().signed_by(SIGNED, b"Hello, World!"), None);
        for n in 0..SIGNED.len() {
            let mut changed = SIGNED.as_bytes().to_vec();
            changed[n] = if changed[n] == b'0' { b'1' } else { b'0' };
            assert_eq!(secrets().signed_by(std::str::from_utf8(&changed).unwrap(), b"Hello, World!"), None, "{n}");
        }
        let (head, _) = SIGNED.split_at(SIGNED.len() - 2);
        for odd in ["", "sha256=", "sha1=757107ea0eb2509fc211221cce984b8a37570b6d", head, &format!("{SIGNED}00")] {
            assert_eq!(secrets().signed_by(odd, b"Hello, World!"), None, "{odd}");
        }
    }

    /// Source: the Standard Webhooks specification's libraries, `libraries/rust/src/lib.rs`, "test_sign".
    const WEBHOOK_SECRET: &[u8] = b"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    const SENT: Webhook<'static> = Webhook {
        id: "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
        timestamp: "1649367553",
        signatures: "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
    };

    const SENT_BODY: &[u8] = br#"{"email":"test@example.com","username":"test_user"}"#;

    #[test]
    fn the_published_webhook_is_believed_and_nothing_near_it() {
        let secrets = Secrets::default().and(WEBHOOK_SECRET).unwrap();
        let by = |webhook, body: &[u8]| secrets.webhook_signed_by(webhook, body);
        assert_eq!(by(SENT, SENT_BODY), Some("ci"));
        let other = "v1,aaaa v2,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw= v1a,bbbb";
        let several = format!("{other} {}", SENT.signatures);
        assert_eq!(by(Webhook { signatures: &several, ..SENT }, SENT_BODY), Some("ci"));
        assert_eq!(by(Webhook { signatures: other, ..SENT }, SENT_BODY), None);
        assert_eq!(by(Webhook { id: "msg_27UH4WbU6Z5A5EzD8u03UvzRbpl", ..SENT }, SENT_BODY), None);
        assert_eq!(by(Webhook { timestamp: "1649367554", ..SENT }, SENT_BODY), None);
        assert_eq!(by(SENT, b"{}"), None);
        for signatures in ["", "v1,", "v1", "tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="] {
            assert_eq!(by(Webhook { signatures, ..SENT }, SENT_BODY), None, "{signatures}");
        }
        let bare = Secrets::default().and(&WEBHOOK_SECRET[SECRET_PREFIX.len()..]).unwrap();
        assert_eq!(
            bare.webhook_signed_by(SENT, SENT_BODY),
            Some("ci"),
            "libraries read it as base64 without the prefix"
        );
        assert!(matches!(Secrets::default().and(b"whsec_no base64 at all!"), Err(Error::NoBase64)));
        assert!(matches!(Secrets::default().and(b"whsec_c2hvcnRlciB0aGFu"), Err(Error::Short(12))));
    }

    #[test]
    fn a_webhooks_time_and_id_are_read_strictly() {
        let now = Timestamp::from_second(1_649_367_600).unwrap();
        let age = |timestamp| Webhook { timestamp, ..SENT }.age_s(now);
        assert_eq!([age("1649367553"), age("1649367601")], [Some(47), Some(-1)]);
        assert_eq!([age(""), age("+1649367553"), age("1649367553.0"), age("99999999999999999999")], [None; 4]);
        let long = "x".repeat(129);
        for id in ["", "a b", "a.1649367553", "é", &long] {
            assert!(!Webhook { id, ..SENT }.has_id(), "{id}");
        }
        assert!(SENT.has_id());
    }

    #[test]
    fn while_a_secret_is_replaced_both_are_believed_and_named() {
        let both =
            Secrets::default().and(b"the secret that comes\n").unwrap().and(b"It's a Secret to Everybody").unwrap();
        assert_eq!(both.signed_by(SIGNED, b"Hello, World!"), Some("ci-2"));
        assert!(matches!(both.clone().and(b"a third one, too many"), Err(Error::Many)));
        assert!(matches!(Secrets::default().and(b"short\n"), Err(Error::Short(5))));
        assert_eq!(format!("{both:?}"), "2 secrets");
    }
}
