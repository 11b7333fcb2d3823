//! A node's log: its end, with secrets masked, its turn-over, and how long it was at which time.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::SystemTime;

use super::env;
use super::folder::Folder;

/// A log that has grown longer is set aside as `log.1`, in place of the one before.
const TURN_OVER_BYTES: u64 = 10 * 1024 * 1024;
/// How far apart marks are at least, in milliseconds.
const MARK_EVERY_MS: i64 = 1_000;
/// The longest mark: two numbers of 64 bits.
const MARK_BYTES_MAX: u64 = 42;
/// From this length on a file of marks is thinned.
const TIMES_BYTES_MAX: u64 = 64 * 1024;
const READ_BYTES: u64 = 16 * 1024;
const TAIL_LINES: usize = 20;
const TAIL_BYTES: usize = 2 * 1024;
/// Shorter values are no secrets, and masking them would make a log unreadable.
const SECRET_BYTES_MIN: usize = 4;
const MASK: &str = "***";

/// Opens the log to append to.
pub(super) fn open(folder: &Folder) -> io::Result<File> {
    if length(folder)?.is_some_and(|bytes| bytes > TURN_OVER_BYTES) {
        turn_over(folder)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(folder.log())
}

/// Sets the log aside if it is too long; otherwise marks how long it is, unless that is `marked`. Returns the length up to which
/// all of it is marked.
pub(super) fn tend(folder: &Folder, now: SystemTime, marked: u64) -> io::Result<u64> {
    let Some(bytes) = length(folder)? else { return Ok(marked) };
    if bytes > TURN_OVER_BYTES {
        if let Err(cause) = turn_over(folder) {
            tracing::warn!(folder = %folder.path.display(), %cause, "a node's long log cannot be set aside");
        }
        return Ok(0);
    }
    Ok(if bytes == marked || note(folder, now, bytes)? { bytes } else { marked })
}

/// Returns how long the log is, in bytes; none if there is none yet.
fn length(folder: &Folder) -> io::Result<Option<u64>> {
    match fs::metadata(folder.log()) {
        Ok(log) => Ok(Some(log.len())),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(cause),
    }
}

/// Sets a long log aside, so that a node's logs never fill the disk. The node appends and so goes on at the new end; a line
/// that it writes in the very moment between copy and cut may be lost.
fn turn_over(folder: &Folder) -> io::Result<()> {
    fs::copy(folder.log(), folder.former_log())?;
    match fs::rename(folder.times(), folder.former_times()) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    OpenOptions::new().write(true).open(folder.log())?.set_len(0)
}

/// How long a log was at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// In milliseconds since 1970.
    pub(super) at_ms: i64,
    pub(super) bytes: u64,
}

/// Marks that the log has so many bytes now, if it has grown since the last mark and that is at least a second old. Says whether
/// there is nothing left to mark.
fn note(folder: &Folder, now: SystemTime, bytes: u64) -> io::Result<bool> {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let at_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(folder.times())?;
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(MARK_BYTES_MAX)))?;
    let mut end = String::new();
    (&mut file).take(MARK_BYTES_MAX).read_to_string(&mut end)?;
    let last = end.lines().last().and_then(Mark::read);
    if last.is_some_and(|last| bytes <= last.bytes) || bytes == 0 {
        return Ok(true);
    }
    if last.is_some_and(|last| at_ms < last.at_ms + MARK_EVERY_MS) {
        return Ok(false);
    }
    file.write_all(format!("{at_ms} {bytes}\n").as_bytes())?;
    if length > TIMES_BYTES_MAX {
        thin(folder)?;
    }
    Ok(true)
}

/// Leaves every second mark out, the older time's first, so that marks stay few however long a log is written.
fn thin(folder: &Folder) -> io::Result<()> {
    let marks = marks(&folder.times());
    let kept = marks.iter().rev().step_by(2).rev();
    let text: String = kept.map(|mark| format!("{} {}\n", mark.at_ms, mark.bytes)).collect();
    let draft = folder.times().with_extension("new");
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?.write_all(text.as_bytes())?;
    fs::rename(draft, folder.times())
}

/// Returns the marks of a file in the order of time; none where there is no such file.
pub(super) fn marks(times: &Path) -> Vec<Mark> {
    let text = fs::read_to_string(times).unwrap_or_default();
    let mut marks: Vec<Mark> = text.lines().filter_map(Mark::read).collect();
    marks.sort_by_key(|mark| mark.at_ms);
    marks
}

impl Mark {
    fn read(line: &str) -> Option<Self> {
        let (at_ms, bytes) = line.split_once(' ')?;
        Some(Self { at_ms: at_ms.parse().ok()?, bytes: bytes.parse().ok()? })
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

/// Returns the text with every secret in it masked.
pub(super) fn mask(mut text: String, secrets: &[OsString]) -> String {
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
