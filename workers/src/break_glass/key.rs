//! The key of a data folder: it signs what is written down while the ledger gives no verdict, so that nobody else can
//! have written it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use rand::TryRng as _;
use rand::rngs::SysRng;
use schemas::break_glass::Intent;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

/// What is signed begins with this, so that the key's signature under anything else is none under an intent.
const DOMAIN: &[u8] = b"ionledger break-glass intent 1\n";

/// The form of the file.
const FORMAT: u16 = 1;

/// The name of the key's file in its folder.
pub(super) const NAME: &str = "key";

/// An Ed25519 key that signs intents.
pub(super) struct Key(SigningKey);

/// An intent on disk: its exact JSON, and who signed that.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    format: u16,
    intent: Box<RawValue>,
    /// The public key, in hexadecimal.
    key: String,
    /// Over [`DOMAIN`] and the intent's bytes, in hexadecimal.
    signature: String,
}

impl Key {
    /// Returns the key of `folder`, made at its first use and readable by its owner alone.
    ///
    /// # Errors
    ///
    /// It can be neither read nor made.
    pub(super) fn of(folder: &Path) -> io::Result<Self> {
        let path = folder.join(NAME);
        match read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        let mut seed = [0; 32];
        SysRng.try_fill_bytes(&mut seed).map_err(io::Error::other)?;
        let draft = folder.join(format!("{NAME}.{}.tmp", Uuid::new_v4()));
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(format!("{}\n", hex::encode(seed)).as_bytes())?;
        file.sync_all()?;
        // A link never replaces: of two that make one at once, the first one's counts.
        let linked = fs::hard_link(&draft, &path);
        fs::remove_file(&draft)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => File::open(folder)?.sync_all()?,
        }
        read(&path)
    }

    /// Returns an intent as it is written down.
    pub(super) fn sign(&self, intent: &Intent) -> Vec<u8> {
        let intent = serde_json::value::to_raw_value(intent).expect("an intent is plain JSON");
        let signature = self.0.sign(&message(intent.get()));
        let (key, signature) = (hex::encode(self.0.verifying_key().as_bytes()), hex::encode(signature.to_bytes()));
        let mut text = serde_json::to_vec(&Signed { format: FORMAT, intent, key, signature }).expect("plain JSON");
        text.push(b'\n');
        text
    }

    /// Returns the intent in `text` if this key signed it.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words.
    pub(super) fn verify(&self, text: &[u8]) -> Result<Intent, String> {
        let signed: Signed = serde_json::from_slice(text).map_err(|error| format!("it is not an intent: {error}"))?;
        if signed.format != FORMAT {
            return Err(format!(
                "the file has format {}, this program knows {FORMAT}; upgrade ionledger",
                signed.format
            ));
        }
        let own: VerifyingKey = self.0.verifying_key();
        if signed.key != hex::encode(own.as_bytes()) {
            return Err("it was signed by the key of another data folder".to_owned());
        }
        let mut signature = [0; 64];
        hex::decode_to_slice(&signed.signature, &mut signature).map_err(|error| format!("its signature: {error}"))?;
        own.verify_strict(&message(signed.intent.get()), &Signature::from_bytes(&signature))
            .map_err(|_| "it was changed after it was signed".to_owned())?;
        serde_json::from_str(signed.intent.get()).map_err(|error| format!("it is not an intent: {error}"))
    }
}

fn read(path: &Path) -> io::Result<Key> {
    let text = fs::read_to_string(path)?;
    let mut seed = [0; 32];
    hex::decode_to_slice(text.trim(), &mut seed).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{} is not a key ({error})", path.display()))
    })?;
    Ok(Key(SigningKey::from_bytes(&seed)))
}

fn message(intent: &str) -> Vec<u8> {
    [DOMAIN, intent.as_bytes()].concat()
}
