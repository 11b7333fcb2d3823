//! The JSON Schema files of every event and of the commands, generated from the types.

use std::collections::BTreeMap;

use schemars::{Schema, schema_for};

use crate::Event;
use crate::command::Request;
use crate::event::CURRENT;

/// Returns every schema by its file name, as it is checked in under `schemas/json/`: `rollout.started.v1.json` for the
/// payload of an event, `command.json` for what the door takes.
pub fn schema_files() -> BTreeMap<String, String> {
    let events = Event::kinds().map(|kind| (kind.name, format!("{}.v{CURRENT}.json", kind.name), (kind.schema)()));
    let command = ("command", "command.json".to_owned(), schema_for!(Request));
    events.chain([command]).map(|(title, file, schema)| (file.clone(), text(title, &file, schema))).collect()
}

fn text(title: &str, file: &str, mut schema: Schema) -> String {
    schema.insert("$id".into(), format!("urn:ionledger:schema:{}", file.trim_end_matches(".json")).into());
    schema.insert("title".into(), title.into());
    serde_json::to_string_pretty(&schema).expect("a schema is plain JSON") + "\n"
}

#[cfg(test)]
mod tests;
