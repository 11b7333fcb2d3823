//! A node's log: its end, with secrets masked, and its turn-over.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;

use super::env;
use super::folder::Folder;

/// A log that has grown longer is set aside as `log.1`, in place of the one before.
const TURN_OVER_BYTES: u64 = 10 * 1024 * 1024;
const READ_BYTES: u64 = 16 * 1024;
const TAIL_LINES: usize = 20;
const TAIL_BYTES: usize = 2 * 1024;
/// Shorter values are no secrets, and masking them would make a log unreadable.
const SECRET_BYTES_MIN: usize = 4;
const MASK: &str = "***";

/// Opens the log to append to.
pub(super) fn open(folder: &Folder) -> io::Result<File> {
    turn_over(folder)?;
    OpenOptions::new().append(true).create(true).open(folder.log())
}

/// Sets a long log aside, so that a node's logs never fill the disk. The node appends and so goes on at the new end; a line
/// that it writes in the very moment between copy and cut may be lost.
pub(super) fn turn_over(folder: &Folder) -> io::Result<()> {
    match fs::metadata(folder.log()) {
        Ok(log) if log.len() > TURN_OVER_BYTES => {
            fs::copy(folder.log(), folder.former_log())?;
            OpenOptions::new().write(true).open(folder.log())?.set_len(0)
        }
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}

/// Returns the log's last lines for people, secrets masked, at most 2 KiB. It may become part of an event, so it is
/// withheld if a secret cannot be resolved any more and thus not be masked.
pub(super) fn tail(folder: &Folder) -> String {
    let secrets = match folder.launch() {
        Ok(Some(launch)) => env::secrets(&launch),
        Ok(None) => Ok(Vec::new()),
        Err(fault) => return format!("(withheld: {fault})"),
    };
    match (secrets, read_end(folder)) {
        (Ok(secrets), Ok(text)) => shorten(&mask(text, &secrets)),
        (Err(unresolved), _) => format!("(withheld, its secrets cannot be masked: {unresolved})"),
        (_, Err(fault)) if fault.kind() == io::ErrorKind::NotFound => String::new(),
        (_, Err(fault)) => format!("(unreadable: {fault})"),
    }
}

fn read_end(folder: &Folder) -> io::Result<String> {
    let mut file = File::open(folder.log())?;
    let skipped = file.metadata()?.len().saturating_sub(READ_BYTES);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(READ_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // A line whose beginning was skipped may hold half a secret.
    let whole = if skipped > 0 { text.split_once('\n').map_or("", |(_, rest)| rest) } else { &text };
    Ok(whole.to_owned())
}

fn mask(mut text: String, secrets: &[OsString]) -> String {
    let mut values: Vec<String> = secrets.iter().map(|s| String::from_utf8_lossy(s.as_bytes()).into_owned()).collect();
    // A key of several lines may be printed in parts.
    values.extend(values.clone().iter().flat_map(|value| value.lines()).map(|line| line.trim().to_owned()));
    values.retain(|value| value.len() >= SECRET_BYTES_MIN);
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    for value in values {
        text = text.replace(&value, MASK);
    }
    text
}

fn shorten(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    let shown: String = last.join("\n").chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect();
    let mut start = shown.len().saturating_sub(TAIL_BYTES);
    while !shown.is_char_boundary(start) {
        start += 1;
    }
    shown[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_masked_whole_and_in_its_lines_and_a_short_value_is_not_one() {
        let secrets = ["hunter22", "begin-key\nline-of-key\n", "ab"].map(OsString::from);
        let text = "pw=hunter22 x\nbegin-key\nabc line-of-key".to_owned();
        assert_eq!(mask(text, &secrets), "pw=*** x\n***\nabc ***");
    }

    #[test]
    fn a_tail_is_short_and_has_no_control_characters() {
        let text: String = (0..100).map(|n| format!("line {n} \x1b[31mé{}\n", "x".repeat(150))).collect();
        let tail = shorten(&text);
        assert!(tail.len() <= TAIL_BYTES && tail.contains("line 99  [31mé"), "{tail}");
        assert!(!tail.contains('\x1b'));
        assert_eq!(shorten("\n\n"), "");
    }
}
