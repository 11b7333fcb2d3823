//! Messages as the source has them: the texts of what makes an error, a refusal, a warning or a finding.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What makes a message. Its text is the first literal inside, or each where it has several for different cases.
const MAKERS: [&str; 17] = [
    "#[error(",
    "Failure::error(",
    "Failure::usage(",
    "Failure::ending(",
    "Problem::new(",
    "Problem::malformed(",
    "Rejection::Invalid(",
    "Rejection::invalid(",
    "Finding::fail(",
    "Finding::warn(",
    "miette!(",
    "eprintln!(",
    "InvalidText(",
    "refused(",
    "wrong(",
    "fail(",
    "in_use(",
];

/// What makes a help text, of a key of SERVICE.toml or of a metric. Its texts are no messages.
const HELPS: [&str; 4] = ["key(", "table(", "stored: [", "json_schema!("];

/// Where nothing is an error: answers, help, metrics, and what is written for machines.
const NO_ERRORS: [&str; 10] = [
    "schemas/src/declaration/reference.rs",
    "schemas/src/error_text.rs",
    "ledger/src/judgement/evidence.rs",
    "proxy/src/forward.rs",
    "api/src/definition/schema.rs",
    "api/src/telemetry",
    "cli/src/main.rs",
    "cli/src/exit.rs",
    "cli/src/render/",
    "cli/src/commands/demo",
];

/// A message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Its text as the source has it.
    pub text: String,
    /// Whether it is the whole text of an error or a finding; else it is a part of one, or a note.
    pub is_whole: bool,
}

/// Returns a room's messages by file, each file's in the order of the text.
pub fn messages(root: &Path, room: &str) -> BTreeMap<String, Vec<Message>> {
    let mut found = BTreeMap::new();
    for path in sources(&root.join(room).join("src")) {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let text = fs::read_to_string(&path).unwrap();
        let messages = in_text(&text);
        if !messages.is_empty() && !NO_ERRORS.iter().any(|file| name.starts_with(file)) {
            found.insert(name, messages);
        }
    }
    found
}

/// Every Rust file below a folder but those of tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let all = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    let is_test =
        |path: &PathBuf| path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("tests"));
    let mut all: Vec<PathBuf> =
        all.filter(|path| path.extension().is_some_and(|extension| extension == "rs") && !is_test(path)).collect();
    all.sort();
    all
}

/// Returns the messages in a source text: literals inside a maker, and those that have a next step, wherever they are made.
fn in_text(text: &str) -> Vec<Message> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let literals = literals(code);
    let makers = made(code, &literals, &MAKERS);
    let helps = made(code, &literals, &HELPS);
    let is_help = |at: usize| !code[..at].ends_with("wrong: ") && helps.iter().any(|help| help.span.contains(&at));
    let mut messages: Vec<Message> = Vec::new();
    for literal in &literals {
        let maker = makers.iter().find(|maker| maker.span.contains(&literal.at));
        let has_next = literal.text.contains("; ");
        let is_new = messages.iter().all(|message| message.text != literal.text);
        let is_message = maker.is_some() || (has_next && !is_help(literal.at));
        if is_sentence(&literal.text) && is_message && !literal.is_attribute && is_new {
            messages.push(Message { text: literal.text.clone(), is_whole: maker.is_some_and(|maker| maker.is_whole) });
        }
    }
    messages
}

/// Says whether a text has words of its own, and is not only what stands between or behind others.
fn is_sentence(text: &str) -> bool {
    let mut depth = 0_usize;
    let own: String = text
        .chars()
        .filter(|c| {
            depth += usize::from(*c == '{');
            let is_own = depth == 0;
            depth -= usize::from(*c == '}' && depth > 0);
            is_own
        })
        .collect();
    let is_word = |word: &str| word.chars().filter(|c| c.is_alphabetic()).count() > 2;
    !text.starts_with([' ', ',', ';', ')']) && text.contains(' ') && own.split_whitespace().any(is_word)
}

/// A string literal.
struct Literal {
    at: usize,
    end: usize,
    text: String,
    /// Whether it is of an attribute that holds no message: clap's help, serde's names.
    is_attribute: bool,
}

/// What makes messages, at one place.
struct Maker {
    /// Where its brackets begin and end.
    span: Range<usize>,
    /// Whether its text is one whole; a finding has its next step as another.
    is_whole: bool,
}

/// Returns where each of `makers` makes a text.
fn made(code: &str, literals: &[Literal], makers: &[&str]) -> Vec<Maker> {
    let inside = |at: usize| literals.iter().find(|literal| (literal.at..literal.end).contains(&at));
    let mut spans = Vec::new();
    for maker in makers {
        for (at, _) in code.match_indices(*maker) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            let is_word = before.is_alphanumeric() || before == '_';
            if inside(at).is_some() || is_word || code[..at].ends_with("fn ") {
                continue;
            }
            let open = at + maker.len();
            let span = open..closing(code, open, &inside);
            spans.push(Maker { span, is_whole: !maker.starts_with("Finding") });
        }
    }
    spans
}

/// Returns where the bracket closes that was opened before `open`.
fn closing<'l>(code: &str, open: usize, inside: &impl Fn(usize) -> Option<&'l Literal>) -> usize {
    let (mut depth, mut at) = (1, open);
    while at < code.len() {
        if let Some(literal) = inside(at) {
            at = literal.end;
            continue;
        }
        match code.as_bytes()[at] {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
        at += 1;
    }
    at
}

/// Returns the string literals of Rust source, comments and characters left out.
fn literals(code: &str) -> Vec<Literal> {
    let bytes = code.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let rest = &code[at..];
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("r#\"") || rest.starts_with("r\"") {
            let hashes = if rest.starts_with("r#\"") { "#" } else { "" };
            let (from, close) = (at + 2 + hashes.len(), format!("\"{hashes}"));
            let end = from + code[from..].find(&close).unwrap_or(0);
            found.push(literal(code, at, end + close.len(), code[from..end].to_owned()));
            at = end + close.len();
        } else if bytes[at] == b'"' {
            let mut end = at + 1;
            while end < bytes.len() && bytes[end] != b'"' {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            found.push(literal(code, at, end + 1, unescaped(&code[at + 1..end.min(code.len())])));
            at = end + 1;
        } else if bytes[at] == b'\'' {
            at += character(rest);
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    found
}

fn literal(code: &str, at: usize, end: usize, text: String) -> Literal {
    let line = code[..at].rfind("#[").filter(|open| !code[*open..at].contains(")]\n"));
    let is_attribute =
        line.is_some_and(|open| !code[open..].starts_with("#[error(") && !code[open..at].contains("fn "));
    Literal { at, end, text, is_attribute }
}

/// How long a character literal is, or the one quote of a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => rest[2..].find('\'').map_or(1, |end| end + 3),
        Some((_, c)) if rest[1 + c.len_utf8()..].starts_with('\'') => 2 + c.len_utf8(),
        _ => 1,
    }
}

/// What a literal says: escapes are resolved, and a line that goes on is joined.
fn unescaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('\n') => while chars.next_if(|c| c.is_whitespace()).is_some() {},
                Some('n') => shown.push_str(" / "),
                Some('t') => shown.push(' '),
                Some(other) => shown.push(other),
                None => {}
            },
            '\n' => shown.push(' '),
            c => shown.push(c),
        }
    }
    shown
}

#[test]
fn what_makes_a_message_is_found_and_nothing_else_is() {
    let code = r####"
/// A doc comment with "a text; that is none".
#[arg(value_name = "THE NAME; OF IT")]
#[error("{what} is unknown; {next}")]
fn f<'a>(c: char) {
    let x = ';'; let y = "no message";
    Failure::usage(format!("bad `{x}`: \
         \"{y}\"; write z"));
    let why = "made before; and given then"; // "a comment; too"
    miette!("cannot open {}: {cause}", path.display());
    let tail = "; a part of another text; as it is";
    key("drain", Kind::Choice { wrong: "is unknown; write go on" }, "a help; and no message");
    is_wrong("not a maker")
}
#[cfg(test)]
mod tests { fn g() { Failure::error("of a test") } }
"####;
    let expected = [
        "{what} is unknown; {next}",
        "bad `{x}`: \"{y}\"; write z",
        "made before; and given then",
        "cannot open {}: {cause}",
        "is unknown; write go on",
    ];
    let found = in_text(code);
    assert_eq!(found.iter().map(|message| message.text.as_str()).collect::<Vec<_>>(), expected);
    assert_eq!(found.iter().map(|message| message.is_whole).collect::<Vec<_>>(), [true, true, false, true, false]);
}
