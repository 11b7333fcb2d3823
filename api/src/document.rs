//! TOML files that people write: read by sections and items that know where they stand and what they are called, so that
//! every wrong place is named at once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::moment;

/// A wrong place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// The key, `rollout.steps`; empty for what is not TOML.
    pub key: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

/// What is wrong with a file: one line a place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// The file's name.
    pub file: String,
    /// The wrong places, in the file's order.
    pub places: Vec<Position>,
}

impl Error {
    /// Returns what is wrong with a file as a whole.
    pub fn of_whole(file: &str, reason: String) -> Self {
        Self { file: file.to_owned(), places: vec![Position { line: 1, column: 1, key: String::new(), reason }] }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, Position { line, column, key, reason }) in self.places.iter().enumerate() {
            let (start, colon) = (if n > 0 { "\n" } else { "" }, if key.is_empty() { "" } else { ": " });
            write!(f, "{start}{}:{line}:{column}: {key}{colon}{reason}", self.file)?;
        }
        Ok(())
    }
}

pub use schemas::text::nearest;

/// Shortens what a file holds for a message: one line of at most 60 characters.
pub fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(60).flat_map(char::escape_default).collect();
    if text.chars().count() > 60 {
        shown.push_str("...");
    }
    shown
}

/// A file that is TOML.
pub struct Document<'t> {
    file: &'t str,
    text: &'t str,
    table: Spanned<DeTable<'t>>,
    wrong: RefCell<Vec<Position>>,
}

/// A table of it. Keys that nobody asked for are refused at the end.
pub struct Section<'d> {
    document: &'d Document<'d>,
    key: String,
    items: BTreeMap<&'d str, (Range<usize>, &'d Spanned<DeValue<'d>>)>,
    known: Vec<String>,
    start: usize,
}

/// A key and its value.
pub struct Item<'d> {
    document: &'d Document<'d>,
    key: String,
    name: &'d str,
    key_start: usize,
    value: &'d Spanned<DeValue<'d>>,
}

impl<'t> Document<'t> {
    /// Reads `text`; `file` is its name for messages.
    ///
    /// # Errors
    ///
    /// [`Error`] if it is not TOML.
    pub fn parse(file: &'t str, text: &'t str) -> Result<Self, Error> {
        let (table, errors) = DeTable::parse_recoverable(text);
        let document = Self { file, text, table, wrong: RefCell::default() };
        for error in errors {
            let reason: Vec<&str> = error.message().lines().map(str::trim).collect();
            document.wrong(error.span().map_or(0, |span| span.start), "", reason.join("; "));
        }
        if document.wrong.borrow().is_empty() { Ok(document) } else { Err(document.error()) }
    }

    /// Returns the whole as a section.
    pub fn root(&self) -> Section<'_> {
        Section::of(self, String::new(), self.table.get_ref(), 0)
    }

    /// Says whether anything was wrong.
    ///
    /// # Errors
    ///
    /// [`Error`] with every wrong place.
    pub fn finish(&self) -> Result<(), Error> {
        if self.wrong.borrow().is_empty() { Ok(()) } else { Err(self.error()) }
    }

    fn error(&self) -> Error {
        let mut places = self.wrong.borrow().clone();
        places.sort();
        places.dedup();
        Error { file: self.file.to_owned(), places }
    }

    fn wrong(&self, start: usize, key: &str, reason: impl Into<String>) {
        let before = self.text.get(..start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |n| n + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before[line_start..].chars().count() + 1;
        self.wrong.borrow_mut().push(Position { line, column, key: key.to_owned(), reason: reason.into() });
    }
}

impl<'d> Section<'d> {
    fn of(document: &'d Document<'_>, key: String, table: &'d DeTable<'_>, start: usize) -> Self {
        let items = table.iter().map(|(name, value)| (name.get_ref().as_ref(), (name.span(), value))).collect();
        Self { document, key, items, known: vec![], start }
    }

    fn path(&self, name: &str) -> String {
        let name = shown(name);
        if self.key.is_empty() { name } else { format!("{}.{name}", self.key) }
    }

    fn item(&self, name: &'d str, key_start: usize, value: &'d Spanned<DeValue<'d>>) -> Item<'d> {
        Item { document: self.document, key: self.path(name), name, key_start, value }
    }

    /// Takes an item, if it is there.
    pub fn get(&mut self, name: &str) -> Option<Item<'d>> {
        self.known.push(name.to_owned());
        let (name, (span, value)) = self.items.remove_entry(name)?;
        Some(self.item(name, span.start, value))
    }

    /// Takes an item that must be there; `next` says what to write.
    pub fn required(&mut self, name: &str, next: &str) -> Option<Item<'d>> {
        let item = self.get(name);
        if item.is_none() {
            self.document.wrong(self.start, &self.path(name), format!("it is missing; {next}"));
        }
        item
    }

    /// Takes a table; an empty one if there is none.
    pub fn section(&mut self, name: &str) -> Section<'d> {
        let key = self.path(name);
        let empty = |document| Section { document, key, items: BTreeMap::new(), known: vec![], start: 0 };
        match self.get(name) {
            Some(item) => item.table().unwrap_or_else(|| empty(self.document)),
            None => empty(self.document),
        }
    }

    /// Refuses an item, if it is there, with a reason of its own.
    pub fn refuse(&mut self, name: &str, reason: &str) {
        if let Some((span, _)) = self.items.remove(name) {
            self.document.wrong(span.start, &self.path(name), reason);
        }
    }

    /// Returns every item of a table whose keys are names.
    pub fn all(mut self) -> Vec<Item<'d>> {
        let items = std::mem::take(&mut self.items);
        items.into_iter().map(|(name, (span, value))| self.item(name, span.start, value)).collect()
    }

    /// Refuses keys that nobody asked for, and says whether there were none.
    pub fn end(self) -> bool {
        let known: Vec<&str> = self.known.iter().map(String::as_str).collect();
        for (name, (span, _)) in &self.items {
            let meant = nearest(name, &known).map(|near| format!(", did you mean `{near}`?"));
            let known = self.known.join(", ");
            let reason = format!("unknown key{} known are {known}", meant.as_deref().unwrap_or(";"));
            self.document.wrong(span.start, &self.path(name), reason);
        }
        self.items.is_empty()
    }
}

impl<'d> Item<'d> {
    /// Returns the last part of its name.
    pub fn key(&self) -> &'d str {
        self.name
    }

    /// Says that the value is wrong.
    pub fn wrong<T>(&self, reason: impl Into<String>) -> Option<T> {
        self.document.wrong(self.value.span().start, &self.key, reason);
        None
    }

    fn other_type<T>(&self, wanted: &str) -> Option<T> {
        self.wrong(format!("it is of type {}; write {wanted}", self.value.get_ref().type_str()))
    }

    /// Whether it is a table.
    pub fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }

    /// Reads a table.
    pub fn table(&self) -> Option<Section<'d>> {
        match self.value.get_ref().as_table() {
            Some(table) => Some(Section::of(self.document, self.key.clone(), table, self.value.span().start)),
            None => self.other_type("a table"),
        }
    }

    /// Reads a list.
    pub fn list(&self) -> Option<Vec<Item<'d>>> {
        let Some(array) = self.value.get_ref().as_array() else { return self.other_type("a list, `[...]`") };
        let item = |value| Item { value, key: self.key.clone(), ..*self };
        Some(array.iter().map(item).collect())
    }

    /// Reads a text.
    pub fn text(&self) -> Option<&'d str> {
        self.value.get_ref().as_str().or_else(|| self.other_type("a text in quotes"))
    }

    /// Reads true or false.
    pub fn boolean(&self) -> Option<bool> {
        self.value.get_ref().as_bool().or_else(|| self.other_type("true or false"))
    }

    /// Reads a text, a whole number or true or false, as a text.
    pub fn plain(&self) -> Option<String> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
            DeValue::Boolean(value) => Some(value.to_string()),
            _ => self.other_type("a text, a whole number, or true or false"),
        }
    }

    /// Reads a whole number that fits.
    pub fn integer<T: TryFrom<i128>>(&self) -> Option<T> {
        let Some(integer) = self.value.get_ref().as_integer() else { return self.other_type("a whole number") };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        match number.and_then(|number| T::try_from(number).ok()) {
            Some(number) => Some(number),
            None => self.wrong(format!("{integer} is out of range")),
        }
    }

    /// Reads a length of time, in milliseconds.
    pub fn duration_ms(&self) -> Option<u64> {
        let Some(text) = self.value.get_ref().as_str() else { return self.other_type("a length of time, `\"10 s\"`") };
        moment::duration_ms(text).map_or_else(|why| self.wrong(why), Some)
    }

    /// Reads a percentage, as a number or a text.
    pub fn percent<T, E: fmt::Display>(&self, read: impl Fn(&str) -> Result<T, E>) -> Option<T> {
        let found = match self.value.get_ref() {
            DeValue::String(text) => read(text),
            DeValue::Integer(number) if number.radix() == 10 => read(number.as_str()),
            DeValue::Float(number) => read(number.as_str()),
            _ => return self.other_type("a percentage, `5` or `\"0.5 %\"`"),
        };
        found.map_or_else(|why| self.wrong(why.to_string()), Some)
    }

    /// Reads a text that stands for a value.
    pub fn parsed<T: FromStr<Err: fmt::Display>>(self) -> Option<T> {
        self.checked(|text| text.parse().map_err(|error: T::Err| error.to_string()))
    }

    /// Reads the key itself.
    pub fn key_parsed<T: FromStr<Err: fmt::Display>>(&self) -> Option<T> {
        match self.name.parse() {
            Ok(key) => Some(key),
            Err(error) => {
                self.document.wrong(self.key_start, &self.key, T::Err::to_string(&error));
                None
            }
        }
    }

    /// Reads a text as `read` does.
    pub fn checked<T>(&self, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        read(self.text()?).map_or_else(|why| self.wrong(why), Some)
    }

    /// Returns `value` if it is valid.
    pub fn valid<T, E: fmt::Display>(&self, value: T, validate: impl Fn(&T) -> Result<(), E>) -> Option<T> {
        match validate(&value) {
            Ok(()) => Some(value),
            Err(error) => {
                let error = error.to_string();
                // A policy's errors begin with the name that stands before them anyway.
                let reason = error.strip_prefix("policy ").and_then(|rest| rest.split_once(": ")).map(|(_, why)| why);
                self.wrong(reason.unwrap_or(&error))
            }
        }
    }
}
