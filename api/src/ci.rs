//! What the CI trigger believes: secrets, signatures and the ids of deliveries.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit as _, Mac as _};
use schemas::{CommandId, LedgerId};
use sha2::Sha256;
use uuid::Uuid;

/// The header that carries a signature, as GitHub, Gitea and Forgejo name it.
pub const SIGNATURE: &str = "x-hub-signature-256";

/// The headers that carry a delivery's id.
pub const DELIVERY: [&str; 2] = ["x-delivery", "x-github-delivery"];

/// How short a secret may be, in bytes.
const SECRET_BYTES_MIN: usize = 16;

/// How many secrets are believed at once: the one in use, and while it is being replaced the other.
const SECRETS_MAX: usize = 2;

/// The secrets that CI may sign with; none means that nothing from CI is believed.
#[derive(Clone, Default)]
pub struct Secrets(Vec<Vec<u8>>);

/// Why there is no such secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the CI secret in {path}: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The variable is not set.
    #[error("the variable {0}, which should hold the CI secret, is not set")]
    Variable(String),
    /// It is too short to be one.
    #[error(
        "the CI secret has {0} bytes, at least {SECRET_BYTES_MIN} are needed; `openssl rand -hex 32` makes a good one"
    )]
    Short(usize),
    /// There are too many.
    #[error("at most {SECRETS_MAX} CI secrets are believed at once: the old one and the new one")]
    Many,
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
        if self.0.len() == SECRETS_MAX {
            return Err(Error::Many);
        }
        self.0.push(secret.to_vec());
        Ok(self)
    }

    /// Adds the secret in a file.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn and_file(self, path: &Path) -> Result<Self, Error> {
        let secret = std::fs::read(path).map_err(|cause| Error::File { path: path.to_owned(), cause })?;
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
        self.0.is_empty()
    }

    /// Returns the name of the secret that `signature` (`sha256=HEX`) of `body` was made with, if it is one of these.
    /// Takes as long whichever it is.
    pub fn signed_by(&self, signature: &str, body: &[u8]) -> Option<&'static str> {
        let signature = signature.strip_prefix("sha256=").filter(|hex| hex.len() == 64)?;
        let signature = hex::decode(signature).ok()?;
        let mut found = None;
        for (secret, name) in self.0.iter().zip(["ci", "ci-2"]) {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
            mac.update(body);
            if mac.verify_slice(&signature).is_ok() {
                found = found.or(Some(name));
            }
        }
        found
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

/// Returns the command id of what a delivery sets off, so that the same delivery is the same command for ever.
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
