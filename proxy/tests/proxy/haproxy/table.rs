//! The table: read from its file, compared with what came, written anew when it is asked for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A file of rows.
pub(super) struct Table {
    path: PathBuf,
    pub(super) rows: Vec<Row>,
}

/// A message and what came of it.
pub(super) struct Row {
    pub(super) text: String,
    pub(super) ours: Cell,
    pub(super) theirs: Cell,
    reason: Option<char>,
}

/// What is written, and what came.
#[derive(Default)]
pub(super) struct Cell {
    written: String,
    came: Option<String>,
}

impl Cell {
    pub(super) fn now(&mut self, came: String) {
        self.came = Some(came);
    }

    fn value(&self) -> &str {
        self.came.as_deref().unwrap_or(&self.written)
    }
}

impl Table {
    pub(super) fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/proxy/haproxy").join(name);
        let text = fs::read_to_string(&path).unwrap();
        Self { rows: text.lines().map(Row::read).collect(), path }
    }

    /// Writes what came, if that is asked for.
    pub(super) fn save_if_asked(&self) {
        if std::env::var_os("UPDATE_TABLE").is_some() {
            fs::write(&self.path, self.rows.iter().fold(String::new(), |text, row| text + &row.line())).unwrap();
        }
    }

    /// Compares what came with what is written; what HAProxy did only if it `is_the_tables`.
    pub(super) fn check(&self, is_the_tables: bool) {
        let text = fs::read_to_string(self.path.with_file_name("reasons.tsv")).unwrap();
        let of_this = |line: &str| {
            let (table, rest) = line.split_once('\t')?;
            let (letter, words) = rest.split_once('\t')?;
            (self.path.ends_with(table)).then(|| (letter.chars().next().unwrap(), words.to_owned()))
        };
        let reasons: BTreeMap<char, String> = text.lines().filter_map(of_this).collect();
        let mut wrong = String::new();
        for row in &self.rows {
            let (ours, theirs) = (row.ours.value(), row.theirs.value());
            let mut say = |what: &str| {
                writeln!(wrong, "{}\n    {what}\n    ours: {ours}\n    HAProxy: {theirs}", row.text).unwrap()
            };
            match row.reason {
                _ if ours != row.ours.written => say(&format!("it was {}", row.ours.written)),
                _ if is_the_tables && theirs != row.theirs.written => {
                    say(&format!("HAProxy's was {}", row.theirs.written))
                }
                None if row.ours.written != row.theirs.written => say("they differ, and nobody says why"),
                Some(_) if row.ours.written == row.theirs.written => say("they do not differ, and there is a reason"),
                Some(letter) if !reasons.contains_key(&letter) => say("its reason is not known"),
                None | Some(_) => {}
            }
        }
        assert!(wrong.is_empty(), "{wrong}");
        let unused = reasons.keys().find(|letter| !self.rows.iter().any(|row| row.reason == Some(**letter)));
        assert_eq!(unused, None, "a reason that no row has");
    }
}

impl Row {
    fn read(line: &str) -> Self {
        let mut parts = line.split('\t');
        let text = parts.next().unwrap().to_owned();
        let written = |part: Option<&str>| Cell { written: part.unwrap_or_default().to_owned(), came: None };
        let (ours, mut theirs) = (written(parts.next()), written(parts.next()));
        if theirs.written == "=" {
            theirs.written.clone_from(&ours.written);
        }
        Self { text, ours, theirs, reason: parts.next().and_then(|reason| reason.chars().next()) }
    }

    fn line(&self) -> String {
        let (ours, theirs) = (self.ours.value(), self.theirs.value());
        let theirs = if ours == theirs { "=" } else { theirs };
        let reason = self.reason.filter(|_| theirs != "=").map(|letter| format!("\t{letter}")).unwrap_or_default();
        format!("{}\t{ours}\t{theirs}{reason}\n", self.text)
    }

    /// Returns the method that an answer is to: `HEAD:` before it, else GET.
    pub(super) fn method(&self) -> &'static str {
        if self.text.starts_with("HEAD:") { "HEAD" } else { "GET" }
    }

    /// Returns the bytes of the message.
    pub(super) fn raw(&self) -> Vec<u8> {
        let text = self.text.strip_prefix("HEAD:").unwrap_or(&self.text);
        unescape(&repeat(text))
    }
}

/// Writes out `{a*3}` and `{X: 1^3}`.
fn repeat(text: &str) -> String {
    let Some((before, rest)) = text.split_once('{') else { return text.to_owned() };
    let (inner, after) = match rest.split_once('}') {
        Some(parts) => parts,
        None => return text.to_owned(),
    };
    let times = |count: &str| count.parse::<usize>().ok();
    let repeated = match (inner.rsplit_once('*'), inner.rsplit_once('^')) {
        (Some((what, count)), _) if times(count).is_some() => what.repeat(times(count).unwrap()),
        (_, Some((what, count))) if times(count).is_some() => format!("{what}\\r\\n").repeat(times(count).unwrap()),
        _ => format!("{{{inner}}}"),
    };
    format!("{before}{repeated}{}", repeat(after))
}

fn unescape(text: &str) -> Vec<u8> {
    let (mut bytes, mut chars) = (Vec::new(), text.bytes());
    while let Some(byte) = chars.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match chars.next().expect("an escape") {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'x' => {
                let digits = [chars.next().unwrap(), chars.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            other => other,
        });
    }
    bytes
}
