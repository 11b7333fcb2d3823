//! Tokens: who may use the API over TCP. The file holds only their hashes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rand::TryRng as _;
use schemas::{Actor, ActorKind, Hash, Timestamp};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use workers::durable;

/// What every token begins with, so that scanners of code and logs can find one.
const PREFIX: &str = "ion_";

/// A token as it is kept: never the token itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Its id, the first 8 digits of its hash: names it in history and for revoking.
    pub id: String,
    /// Whose it is.
    pub name: String,
    /// What kind of actor that is: a person or a pipeline.
    pub kind: ActorKind,
    /// The SHA-256 of the token.
    pub sha256: Hash,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends; never if there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// Why tokens cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or written.
    #[error("cannot use {path}: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The file is damaged.
    #[error("{path} is damaged: {why}; remove it and make new tokens with `ionledger token create`")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is no such token.
    #[error("no token {0}; `ionledger token list` shows them")]
    Unknown(String),
    /// More than one token has that name.
    #[error("{count} tokens are called {name}; name one by its id: {ids}")]
    Several {
        /// The name.
        name: String,
        /// How many.
        count: usize,
        /// Their ids.
        ids: String,
    },
    /// The token that was asked for is not possible.
    #[error("{0}")]
    Invalid(String),
    /// The operating system gives no random numbers.
    #[error("cannot read random numbers: {0}")]
    Random(String),
}

/// The tokens of a data folder. The file is read again at every use, so that revoking works at once.
#[derive(Clone, Debug)]
pub struct Tokens {
    path: PathBuf,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    tokens: Vec<Token>,
}

impl Tokens {
    /// Returns the tokens of the data folder.
    pub fn of(data: &Path) -> Self {
        Self { path: data.join("tokens.json") }
    }

    /// Returns every token, the oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::File`] or [`Error::Damaged`].
    pub fn list(&self) -> Result<Vec<Token>, Error> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            Err(cause) => return Err(self.at(cause)),
        };
        let contents: Contents = serde_json::from_slice(&text)
            .map_err(|error| Error::Damaged { path: self.path.clone(), why: error.to_string() })?;
        Ok(contents.tokens)
    }

    /// Makes a token for `name` and returns it, the only time that it is shown, with what is kept of it.
    ///
    /// # Errors
    ///
    /// [`Error`]: a name that is not allowed, a kind of actor that has no tokens, or the file.
    pub fn make(
        &self,
        name: &str,
        kind: ActorKind,
        now: Timestamp,
        expires: Option<Timestamp>,
    ) -> Result<(String, Token), Error> {
        check_name(name)?;
        if !matches!(kind, ActorKind::Person | ActorKind::Pipeline) {
            return Err(Error::Invalid(format!("a token is a person's or a pipeline's, not a {kind}'s")));
        }
        if expires.is_some_and(|expires| expires <= now) {
            return Err(Error::Invalid("the token would have ended before it began".to_owned()));
        }
        let mut secret = [0; 32];
        rand::rngs::SysRng.try_fill_bytes(&mut secret).map_err(|error| Error::Random(error.to_string()))?;
        let secret = format!("{PREFIX}{}", hex::encode(secret));
        let sha256 = Hash::of(secret.as_bytes());
        let id = sha256.to_string()[..8].to_owned();
        let token = Token { id, name: name.to_owned(), kind, sha256, created: now, expires };
        self.change(|tokens| {
            tokens.push(token.clone());
            Ok(())
        })?;
        Ok((secret, token))
    }

    /// Ends the token with this id or, if it is the only one, this name, and returns what was kept of it.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`], [`Error::Several`], or the file.
    pub fn revoke(&self, id_or_name: &str) -> Result<Token, Error> {
        self.change(|tokens| {
            let place = |test: &dyn Fn(&Token) -> bool| -> Vec<usize> {
                (0..tokens.len()).filter(|n| test(&tokens[*n])).collect()
            };
            let by_id = place(&|token| token.id == id_or_name);
            let found = if by_id.is_empty() { place(&|token| token.name == id_or_name) } else { by_id };
            match found[..] {
                [] => Err(Error::Unknown(id_or_name.chars().take(60).flat_map(char::escape_default).collect())),
                [one] => Ok(tokens.remove(one)),
                _ => Err(Error::Several {
                    name: id_or_name.to_owned(),
                    count: found.len(),
                    ids: found.iter().map(|n| tokens[*n].id.clone()).collect::<Vec<_>>().join(", "),
                }),
            }
        })
    }

    /// Returns whose `presented` is, if it is a token that has not ended. It takes the same time whichever token it is.
    ///
    /// # Errors
    ///
    /// The file's.
    pub fn actor(&self, presented: &str, now: Timestamp) -> Result<Option<Actor>, Error> {
        let hash = Hash::of(presented.as_bytes());
        let mut found = None;
        for token in self.list()? {
            let same = bool::from(token.sha256.0.ct_eq(&hash.0));
            if same && token.expires.is_none_or(|expires| now < expires) {
                found = Some(token);
            }
        }
        Ok(found.map(|token| Actor { kind: token.kind, name: token.name, proof: format!("token id={}", token.id) }))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Token>) -> Result<T, Error>) -> Result<T, Error> {
        let _turn = self.turn().map_err(|cause| self.at(cause))?;
        let mut tokens = self.list()?;
        let result = change(&mut tokens)?;
        self.write(&Contents { tokens }).map_err(|cause| self.at(cause))?;
        Ok(result)
    }

    /// Waits for the lock on the file; dropping the returned file releases it.
    fn turn(&self) -> io::Result<File> {
        let path = self.path.with_extension("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        lock.lock()?;
        Ok(lock)
    }

    fn write(&self, contents: &Contents) -> io::Result<()> {
        durable::replace(&self.path, &serde_json::to_vec_pretty(contents)?)
    }

    fn at(&self, cause: io::Error) -> Error {
        Error::File { path: self.path.clone(), cause }
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    if (1..=100).contains(&name.chars().count()) && !name.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(Error::Invalid("a token's name has 1 to 100 characters, none of them a control character".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use jiff::ToSpan as _;

    use super::*;

    fn tokens() -> (tempfile::TempDir, Tokens, Timestamp) {
        let data = tempfile::tempdir().unwrap();
        let tokens = Tokens::of(data.path());
        (data, tokens, "2026-11-22T12:00:00Z".parse().unwrap())
    }

    #[test]
    fn a_token_names_its_actor_until_it_is_revoked_and_only_its_hash_is_kept() {
        let (data, tokens, now) = tokens();
        let (secret, kept) = tokens.make("ci", ActorKind::Pipeline, now, None).unwrap();
        assert_eq!(secret.len(), PREFIX.len() + 64);
        let actor = tokens.actor(&secret, now).unwrap().unwrap();
        assert_eq!((actor.kind, actor.name.as_str()), (ActorKind::Pipeline, "ci"));
        assert_eq!(actor.proof, format!("token id={}", kept.id));
        let file = data.path().join("tokens.json");
        assert!(!fs::read_to_string(&file).unwrap().contains(&secret[PREFIX.len()..]));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
        tokens.revoke("ci").unwrap();
        assert_eq!(tokens.actor(&secret, now).unwrap(), None);
        assert!(matches!(tokens.revoke("ci"), Err(Error::Unknown(_))));
    }

    #[test]
    fn an_ended_token_and_one_with_a_changed_digit_are_nobody() {
        let (_data, tokens, now) = tokens();
        let (secret, _) = tokens.make("ana", ActorKind::Person, now, Some(now + 1.hour())).unwrap();
        assert!(tokens.actor(&secret, now + 59.minutes()).unwrap().is_some());
        assert_eq!(tokens.actor(&secret, now + 1.hour()).unwrap(), None);
        let last = if secret.ends_with('0') { '1' } else { '0' };
        let changed = format!("{}{last}", &secret[..secret.len() - 1]);
        assert_eq!(tokens.actor(&changed, now).unwrap(), None);
        assert_eq!(tokens.actor("", now).unwrap(), None);
    }

    #[test]
    fn two_tokens_of_one_name_are_revoked_by_id() {
        let (_data, tokens, now) = tokens();
        let (first, kept) = tokens.make("ci", ActorKind::Pipeline, now, None).unwrap();
        let (second, _) = tokens.make("ci", ActorKind::Pipeline, now, None).unwrap();
        assert!(matches!(tokens.revoke("ci"), Err(Error::Several { count: 2, .. })));
        tokens.revoke(&kept.id).unwrap();
        assert_eq!(tokens.actor(&first, now).unwrap(), None);
        assert!(tokens.actor(&second, now).unwrap().is_some());
    }

    #[test]
    fn a_worker_gets_no_token_and_a_damaged_file_lets_nobody_in() {
        let (data, tokens, now) = tokens();
        assert!(matches!(tokens.make("x", ActorKind::Worker, now, None), Err(Error::Invalid(_))));
        assert!(matches!(tokens.make("", ActorKind::Person, now, None), Err(Error::Invalid(_))));
        fs::write(data.path().join("tokens.json"), "{").unwrap();
        assert!(matches!(tokens.actor("ion_x", now), Err(Error::Damaged { .. })));
    }
}
