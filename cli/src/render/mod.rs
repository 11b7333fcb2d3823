//! How answers look: pure functions from an answer to text. Each answer has a form for eyes and one for pipes; its
//! form for programs is its own JSON.

pub(crate) mod back;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod fleet;
pub(crate) mod forecast;
pub(crate) mod history;
pub(crate) mod logs;
pub(crate) mod once;
pub(crate) mod production;
mod rollout;
pub(crate) mod shipped;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod shares;
pub(crate) mod unrecorded;
mod waiting;
pub(crate) mod verified;
pub(crate) mod words;
pub(crate) mod wrap;
pub(crate) mod written;

#[cfg(test)]
pub(crate) mod examples;

use jiff::Zoned;
use serde::Serialize;

/// How an answer looks.
pub(crate) trait Render: Serialize {
    /// Returns it for eyes, on a terminal of so many columns.
    fn eyes(&self, now: &Zoned, columns: usize) -> String;

    /// Returns it for pipes: lines of columns, separated by tabs.
    fn lines(&self) -> String;

    /// Returns what it means that there is no line, if that needs a word.
    fn nothing(&self, now: &Zoned) -> Option<String> {
        let _ = now;
        None
    }
}
