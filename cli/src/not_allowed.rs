//! What a user is told who may not use a data folder: the command that may.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use crate::failure::{CommandResult, Failure};

/// Says whether this user may not read the ledger of a data folder that is there.
pub(crate) fn is_closed(data: &Path) -> bool {
    let denied = |kind: Option<ErrorKind>| kind == Some(ErrorKind::PermissionDenied);
    denied(File::open(data.join("lock")).err().map(|error| error.kind()))
        || denied(fs::read_dir(data.join("log")).err().map(|error| error.kind()))
}

/// Refuses what this user may not do on a data folder.
///
/// # Errors
///
/// The command that may, where the folder is closed to this user.
pub(crate) fn refuse_strangers(data: &Path) -> CommandResult<()> {
    if is_closed(data) { Err(not_allowed(data)) } else { Ok(()) }
}

/// Tells a user who may not what to run instead.
pub(crate) fn not_allowed(data: &Path) -> Failure {
    let mut words: Vec<String> = std::env::args().map(|word| quoted(&word)).collect();
    let folder = quoted(&data.display().to_string());
    if !words.iter().any(|word| word == "--data" || word.starts_with("--data=") || *word == folder) {
        words.extend(["--data".to_owned(), folder]);
    }
    let data = data.display();
    Failure::ending(4, format!("this user may not work on {data}, which is another's; run `sudo {}`", words.join(" ")))
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => in_quotes(word),
    }
}

/// A word between quotes, which a shell reads as it is.
pub(crate) fn in_quotes(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_where_a_shell_would_read_it_otherwise() {
        assert_eq!(quoted("--reason"), "--reason");
        assert_eq!(quoted("checkout fails"), "'checkout fails'");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(quoted(""), "''");
    }
}
