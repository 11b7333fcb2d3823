//! The JSON Schema files of every event, generated from the types.

use std::collections::BTreeMap;

use crate::Event;
use crate::event::CURRENT;

/// Returns every schema by its file name, `rollout.started.v1.json`, as it is checked in under `schemas/json/`.
pub fn schema_files() -> BTreeMap<String, String> {
    Event::kinds()
        .map(|kind| {
            let mut schema = (kind.schema)();
            schema.insert("$id".into(), format!("https://ionledger.dev/schemas/{}.v{CURRENT}.json", kind.name).into());
            schema.insert("title".into(), kind.name.into());
            let text = serde_json::to_string_pretty(&schema).expect("a schema is plain JSON");
            (format!("{}.v{CURRENT}.json", kind.name), text + "\n")
        })
        .collect()
}
