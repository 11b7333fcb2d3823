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
pub(crate) mod shipped;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod unrecorded;
pub(crate) mod verified;
pub(crate) mod words;
pub(crate) mod wrap;
pub(crate) mod written;

#[cfg(test)]
pub(crate) mod examples;
