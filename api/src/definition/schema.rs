//! The JSON Schema of a service's file, for editors: the rows of its table.

use schemas::declaration::table::{Key, Kind, Table, tables};
use schemas::policy::metric;
use serde_json::{Map, Value, json};

/// What a name of a service or an environment looks like.
const NAME: &str = "^[a-z0-9][a-z0-9-]{0,62}$";

/// Returns the schema of `SERVICE.toml`. Editors that know TOML check a file against it while it is written; the parser
/// is stricter and says more.
pub fn json_schema() -> Value {
    let mut properties = Map::new();
    let mut required = vec![];
    for Table { name, help, keys } in tables() {
        if name.is_empty() {
            required.extend(keys.iter().filter(|key| key.required.is_some()).map(|key| key.name.clone()));
            properties.extend(keys.iter().map(|key| (key.name.clone(), value(key))));
        } else if let [Key { kind: Kind::Addresses, .. }] = &keys[..] {
            let addresses = json!({
                "type": "object", "propertyNames": {"pattern": NAME}, "additionalProperties": {"type": "string"},
                "description": help
            });
            properties.insert(name.to_owned(), addresses);
        } else {
            let keys: Map<String, Value> = keys.iter().map(|key| (key.name.clone(), value(key))).collect();
            let mut table = object(keys.into(), &[]);
            table["description"] = help.into();
            properties.insert(name.to_owned(), table);
        }
    }
    let mut schema = object(properties.into(), &[]);
    schema["required"] = required.into();
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "ionledger: a service's file".into();
    schema
}

fn value(key: &Key) -> Value {
    let (mut schema, form) = form(&key.kind);
    let description: Vec<&str> = [key.help, form].into_iter().filter(|text| !text.is_empty()).collect();
    if !description.is_empty() {
        schema["description"] = description.join("; ").into();
    }
    schema
}

/// Returns what may be written for a row, and how in words.
fn form(kind: &Kind) -> (Value, &'static str) {
    const DURATION: &str = "a length of time: `10 s`, `1h 30m`, `2 days`";
    const PERCENT: &str = "a percentage: 5, 0.5 or \"0.5 %\"";
    let text = || json!({"type": "string"});
    let percent = || json!({"type": ["number", "string"]});
    let patterned = |pattern: &str| match pattern {
        "" => text(),
        pattern => json!({"type": "string", "pattern": pattern}),
    };
    match kind {
        Kind::Name => (patterned(NAME), ""),
        Kind::Text { pattern, .. } | Kind::TextIfAny { pattern, .. } => (patterned(pattern), ""),
        Kind::Texts(_) => (json!({"type": "array", "items": text()}), ""),
        Kind::Addresses => (json!({"type": "object"}), ""),
        Kind::Variables => {
            let variables = json!({
                "type": "object", "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
                "additionalProperties": {"oneOf": [text(), reference("from_env"), reference("from_file")]}
            });
            (variables, "")
        }
        Kind::Whole { from, to: u64::MAX, .. } => (json!({"type": "integer", "minimum": from}), ""),
        Kind::Whole { from, to, .. } => (json!({"type": "integer", "minimum": from, "maximum": to}), ""),
        Kind::Flag(_) => (json!({"type": "boolean"}), ""),
        Kind::Duration { .. } | Kind::DurationIfAny { .. } => (text(), DURATION),
        Kind::Choice { words, .. } => (json!({"enum": words}), ""),
        Kind::Shares(_) => (json!({"type": "array", "minItems": 1, "maxItems": 100, "items": percent()}), PERCENT),
        Kind::After(_) => (patterned("^(never|after .+)$"), "`never`, or `after 30 minutes`"),
        Kind::Share(_) | Kind::Percent(_) | Kind::Tolerance(_) => (percent(), PERCENT),
        Kind::Ratio(_) => (percent(), "how many times the old version's rate: 1.2"),
        Kind::Weights => {
            let weights: Map<String, Value> =
                metric::METRICS.iter().map(|metric| (metric.name.to_owned(), percent())).collect();
            (object(weights.into(), &[]), "")
        }
        Kind::Server { keys, .. } => {
            let keys = keys();
            let required: Vec<&str> =
                keys.iter().filter(|key| key.required.is_some()).map(|key| key.name.as_str()).collect();
            let values: Map<String, Value> = keys.iter().map(|key| (key.name.clone(), value(key))).collect();
            (object(values.into(), &required), "")
        }
        Kind::Url(_) => (patterned("^https?://"), ""),
        Kind::Reference(_) => (json!({"oneOf": [reference("from_env"), reference("from_file")]}), ""),
        Kind::Query(..) => (patterned("\\{version\\}"), "a selector of counters"),
    }
}

fn reference(key: &str) -> Value {
    object(json!({key: {"type": "string"}}), &[key])
}

fn object(properties: Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}
