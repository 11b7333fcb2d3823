//! The JSON Schema files of every event's newest version and of the commands, generated from the types.

use std::collections::BTreeMap;

use schemars::{Schema, schema_for};

use crate::Event;
use crate::command::Request;
use crate::event::Kind;

/// Returns the schema of every event's newest version and of the commands by its file name, as it is checked in under
/// `schemas/json/`: `rollout.started.v1.json` for the payload of an event, `command.json` for what the server takes. The
/// schemas of older versions are only kept there.
pub fn schema_files() -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, String> = Event::kinds().map(schema_file).collect();
    files.insert("command.json".to_owned(), text("command", "command.json", schema_for!(Request)));
    files
}

fn schema_file(kind: Kind) -> (String, String) {
    let file = format!("{}.v{}.json", kind.name, kind.version());
    (file.clone(), text(kind.name, &file, (kind.schema)()))
}

fn text(title: &str, file: &str, mut schema: Schema) -> String {
    schema.insert("$id".into(), format!("urn:ionledger:schema:{}", file.trim_end_matches(".json")).into());
    schema.insert("title".into(), title.into());
    serde_json::to_string_pretty(&schema).expect("a schema is plain JSON") + "\n"
}

#[cfg(test)]
mod tests;
