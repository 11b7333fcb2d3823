//! JSON that is not what is expected, in plain words: with the field's name, and without the reader's own types.

use serde::de::DeserializeOwned;
use serde_json::{Error, Map, Value};

/// Describes why `bytes` cannot be read as a `T`, given the error of doing so: the place, the field and the reason. It repeats
/// no more of the bytes than the value that is wrong.
pub fn describe<T: DeserializeOwned>(bytes: &[u8], error: &Error) -> String {
    let reason = reason(error);
    let fields = (bytes.len() <= BYTES_MAX).then(|| serde_json::from_slice::<Map<String, Value>>(bytes).ok()).flatten();
    let field = fields
        .and_then(|fields| wrong_field::<T>(&fields, &error.to_string()))
        .filter(|name| !reason.contains(&format!("`{name}`")));
    let field = field.map(|name| format!("field `{name}`: ")).unwrap_or_default();
    format!("line {} column {}: {field}{reason}", error.line(), error.column())
}

/// How long what is wrong may be for its field to be looked for, in bytes.
const BYTES_MAX: usize = 1024 * 1024;

/// Returns why something could not be read, without its place.
pub fn reason(error: &Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    plain(text.strip_suffix(&place).unwrap_or(&text))
}

/// Rewords a message of serde in plain English. A message that it does not know stays as it is.
pub fn plain(reason: &str) -> String {
    let parts = |kind: &str| reason.strip_prefix(kind)?.split_once(", expected ");
    match (parts("invalid value: "), parts("invalid type: ")) {
        (Some((found, _)), _) if found.starts_with("integer ") => {
            return format!("{} is out of range", found_in_words(found));
        }
        (Some((found, expected)), _) | (None, Some((found, expected))) => {
            return format!("it is {}, and must be {}", found_in_words(found), expected_in_words(expected));
        }
        (None, None) => {}
    }
    if reason.starts_with("data did not match any variant of untagged enum") {
        return "it has none of the forms that it may have".to_owned();
    }
    match reason {
        "expected value" | "expected ident" => "this is not valid JSON".to_owned(),
        other => match other.strip_prefix("EOF while parsing ") {
            Some(_) => "the JSON ends too early".to_owned(),
            None => other.to_owned(),
        },
    }
}

fn found_in_words(found: &str) -> String {
    let kinds =
        [("string ", "the text "), ("integer ", "the number "), ("floating point ", "the number "), ("boolean ", "")];
    let value = kinds.iter().find_map(|(kind, said)| Some(format!("{said}{}", found.strip_prefix(kind)?)));
    value.unwrap_or_else(|| match found {
        "sequence" => "a list".to_owned(),
        "map" => "an object".to_owned(),
        "unit value" | "unit" => "null".to_owned(),
        other => other.to_owned(),
    })
}

fn expected_in_words(expected: &str) -> &str {
    let is_object = |kind: &str| expected.starts_with(kind);
    if ["struct ", "internally tagged enum ", "variant of enum ", "struct variant "].into_iter().any(is_object) {
        return "an object";
    }
    match expected {
        "a map" | "map" => "an object",
        "a string" | "a borrowed string" | "a character" | "string or map" => "a text",
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" | "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => {
            "a whole number"
        }
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" | "sequence" | "a tuple" => "a list",
        "unit" => "null",
        other => other,
    }
}

/// How many fields are looked at for the one that is wrong.
const FIELDS_MAX: usize = 32;

/// Returns the field without which an object would be read, or only lack it. Of several it is the one whose value `said` repeats.
fn wrong_field<T: DeserializeOwned>(fields: &Map<String, Value>, said: &str) -> Option<String> {
    let lacks = |name: &&String| {
        let mut others = fields.clone();
        others.remove(*name);
        match serde_json::from_value::<T>(Value::Object(others)) {
            Ok(_) => true,
            Err(error) => error.to_string() == format!("missing field `{name}`"),
        }
    };
    let found: Vec<&String> = fields.keys().take(FIELDS_MAX).filter(lacks).collect();
    let repeated = || found.iter().copied().find(|name| is_repeated(&fields[*name], said));
    let wrong = if let [only] = found[..] { Some(only) } else { repeated() };
    wrong.cloned()
}

/// Says whether `said` repeats a value, or one in it.
fn is_repeated(value: &Value, said: &str) -> bool {
    match value {
        Value::Array(values) => said.contains("sequence") || values.iter().any(|value| is_repeated(value, said)),
        Value::Object(values) => said.contains("map") || values.values().any(|value| is_repeated(value, said)),
        Value::String(text) => !text.is_empty() && said.contains(text.as_str()),
        Value::Null => said.contains("null"),
        other => said.contains(&format!("`{other}`")),
    }
}

#[cfg(test)]
mod tests {
    use schemas::command::Request;

    use super::*;

    fn said(body: &str) -> String {
        describe::<Request>(body.as_bytes(), &serde_json::from_str::<Request>(body).unwrap_err())
    }

    const ID: &str = r#""id":"0193a6f0-0c41-7b66-b1d2-9e4a6c8f7d03""#;

    #[test]
    fn a_wrong_field_has_its_name_and_no_type_of_this_program() {
        let of = |rest: &str| said(&format!("{{{ID},{rest}}}")).split_once(": ").unwrap().1.to_owned();
        let slash = of(r#""command":"rollback","deployment":"api""#);
        assert!(slash.starts_with("field `deployment`: ") && slash.ends_with("write ENVIRONMENT/SERVICE"), "{slash}");
        let fence = of(r#""command":"rollback","deployment":"production/api","fence":"x""#);
        assert_eq!(fence, r#"field `fence`: it is the text "x", and must be a whole number"#);
        let unready = of(r#""command":"rollback","deployment":"production/api","unready":7"#);
        assert_eq!(unready, "field `unready`: it is the number `7`, and must be true or false");
        assert_eq!(of(r#""command":"rollback""#), "missing field `deployment`");
        assert!(of(r#""command":"rollback","deployment":"production/api","x":1"#).starts_with("unknown field `x`"));
    }

    #[test]
    fn what_is_no_object_or_no_json_has_its_place() {
        assert_eq!(said("[]"), "line 1 column 0: it is a list, and must be an object");
        assert_eq!(said("2.7"), "line 1 column 3: it is the number `2.7`, and must be an object");
        assert_eq!(said("{"), "line 1 column 1: the JSON ends too early");
        assert_eq!(said("<html>"), "line 1 column 1: this is not valid JSON");
    }
}
