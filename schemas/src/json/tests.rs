//! The checked-in schemas are the types', every event has an example that is kept for good, and all of them agree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::schema_files;
use crate::command::Request;
use crate::{Event, Hash};

/// Lists every example with its SHA-256; only ever added to.
const KEPT: &str = "KEPT.sha256";

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn updating() -> bool {
    std::env::var_os("UPDATE_SCHEMAS").is_some_and(|value| value == "1")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(name: &str, extension: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder(name)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(extension)).collect()
}

/// Every example: its file's name, its type and version, and its text.
fn examples() -> Vec<(String, String, u16, String)> {
    let parts = |file: &str| {
        let (kind, rest) = file.split_once(".v").unwrap_or_else(|| panic!("{file}: name it KIND.vVERSION[.WHAT].json"));
        let version = rest.split('.').next().and_then(|version| version.parse().ok());
        (kind.to_owned(), version.unwrap_or_else(|| panic!("{file}: name it KIND.vVERSION[.WHAT].json")))
    };
    let example = |file: String| {
        let (kind, version) = parts(&file);
        let text = read(&folder("examples").join(&file));
        (file, kind, version, text)
    };
    files("examples", ".json").into_iter().map(example).collect()
}

fn validator(schema: &str) -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(schema).unwrap();
    jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
}

#[test]
fn the_checked_in_schemas_are_those_of_the_types() {
    let wanted = schema_files();
    let found = files("json", ".json");
    if updating() {
        found.iter().filter(|file| !wanted.contains_key(*file)).for_each(|file| {
            std::fs::remove_file(folder("json").join(file)).unwrap();
        });
        for (file, text) in &wanted {
            std::fs::write(folder("json").join(file), text).unwrap();
        }
        return;
    }
    let again = "run `UPDATE_SCHEMAS=1 cargo test -p schemas` and read what changed: \
                 a change of a stored event needs a new version and an upcaster";
    assert_eq!(found, wanted.keys().cloned().collect(), "{again}");
    for (file, text) in &wanted {
        assert_eq!(&read(&folder("json").join(file)), text, "schemas/json/{file}: {again}");
    }
}

#[test]
fn every_kind_of_event_has_an_example_of_its_version_1() {
    let found: BTreeSet<(String, u16)> = examples().into_iter().map(|(_, kind, version, _)| (kind, version)).collect();
    for kind in Event::kinds() {
        assert!(found.contains(&(kind.name.to_owned(), 1)), "write schemas/examples/{}.v1.json", kind.name);
    }
}

#[test]
fn every_example_fits_its_schema_and_reads_back_as_it_is() {
    let schemas = schema_files();
    for (file, kind, version, text) in examples() {
        let value: Value = serde_json::from_str(&text).unwrap();
        let schema = schemas.get(&format!("{kind}.v{version}.json")).unwrap_or_else(|| panic!("{file} has no schema"));
        let problems: Vec<String> = validator(schema).iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(problems.is_empty(), "{file}: {problems:?}");
        let event = Event::decode(&kind, version, &text).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(event.kind(), kind, "{file}");
        assert_eq!(serde_json::from_str::<Value>(event.data().get()).unwrap(), value, "{file}");
    }
}

/// What was once written must be readable for ever, so its example may be neither changed nor dropped.
#[test]
fn the_examples_only_grow() {
    let path = folder("examples").join(KEPT);
    let mut kept: BTreeMap<String, String> = read(&path)
        .lines()
        .map(|line| line.split_once("  ").expect("a hash, two blanks, a file"))
        .map(|(hash, file)| (file.to_owned(), hash.to_owned()))
        .collect();
    for (file, _, _, text) in examples() {
        let hash = Hash::of(text.as_bytes()).to_string();
        let known = kept.remove(&file);
        if known.is_none() && updating() {
            use std::io::Write as _;
            let mut list = std::fs::File::options().append(true).open(&path).unwrap();
            writeln!(list, "{hash}  {file}").unwrap();
            continue;
        }
        let known = known.unwrap_or_else(|| panic!("{file} is new: run `UPDATE_SCHEMAS=1 cargo test -p schemas`"));
        assert_eq!(known, hash, "{file} was changed: put it back and write another example beside it");
    }
    assert!(kept.is_empty(), "these examples are gone, put them back: {:?}", kept.keys());
}

fn with(file: &str, path: &str, value: Value) -> Value {
    let mut example: Value = serde_json::from_str(&read(&folder("examples").join(file))).unwrap();
    *example.pointer_mut(path).unwrap_or_else(|| panic!("{file} has no {path}")) = value;
    example
}

#[test]
fn a_schema_refuses_what_the_program_would_not_read() {
    let schemas = schema_files();
    for (file, path, value) in [
        ("stack.ready.v1.json", "/stack", json!("not-a-uuid")),
        ("stack.requested.v1.json", "/version", json!("1.2.3/4")),
        ("stack.requested.v1.json", "/artifact/sha256", json!("ABC")),
        ("rollout.step_taken.v1.json", "/weight", json!(10_001)),
        ("rollout.step_taken.v1.json", "/step", json!(-1)),
        ("traffic.weights_set.v1.json", "/weights", json!({})),
        ("traffic.weights_set.v1.json", "/purpose", json!("for fun")),
        ("judgement.judged.v1.json", "/verdict", json!("good")),
        ("service.applied.v1.json", "/definition/policy/retention", json!({"serving_max": 2, "forever": true})),
        ("lease.taken.v1.json", "/role", json!("cook")),
    ] {
        let kind = file.strip_suffix(".v1.json").unwrap();
        let wrong = with(file, path, value);
        assert!(!validator(&schemas[file]).is_valid(&wrong), "the schema takes {file} with another {path}");
        assert!(Event::decode(kind, 1, &wrong.to_string()).is_err(), "the program takes {file} with another {path}");
    }
}

const ID: &str = "0193a6f0-0c41-7b66-b1d2-9e4a6c8f7d03";

fn artifact() -> Value {
    json!({"sha256": Hash::of(b"api").to_string(), "name": "api", "size_bytes": 3})
}

/// One of each command, as the door gets it.
fn requests() -> Vec<Value> {
    let deployment = "production/api";
    let mut requests = vec![
        json!({"command": "apply", "service": "api", "definition": {"owner": "team-checkout"}}),
        json!({"command": "release", "service": "api", "version": "1.2.3", "artifact": artifact(),
               "args": ["--fast"], "env": {"KEY": {"from_env": "API_KEY"}}, "source": {"commit": "9f1d0c7"}}),
        json!({"command": "new", "deployment": deployment, "version": "1.2.3", "then_roll": {"duration_ms": 1000}}),
        json!({"command": "traffic", "deployment": deployment, "supersede": false,
               "shares": [{"version": "1.2.2", "weight": 9000}, {"version": "1.2.3", "weight": 1000}]}),
        json!({"command": "roll", "deployment": deployment, "from": "1.2.2", "to": "1.2.3",
               "plan": {"duration_ms": 86400000, "steps": [1000, 10000]}, "supersede": true}),
    ];
    for command in ["rollback", "pause", "resume", "abort", "promote", "retire"] {
        requests.push(json!({"command": command, "deployment": deployment}));
    }
    for request in &mut requests {
        request["id"] = ID.into();
        request["reason"] = "the pager rang".into();
    }
    requests
}

#[test]
fn every_command_comes_through_the_door_as_its_schema_says() {
    let text = &schema_files()["command.json"];
    let schema = validator(text);
    let mut seen = BTreeSet::new();
    for request in requests() {
        let problems: Vec<String> = schema.iter_errors(&request).map(|error| error.to_string()).collect();
        assert!(problems.is_empty(), "{request}: {problems:?}");
        let read: Request =
            serde_json::from_value(request.clone()).unwrap_or_else(|error| panic!("{request}: {error}"));
        let written = serde_json::to_value(&read).unwrap();
        assert!(schema.is_valid(&written), "{written}");
        assert_eq!(serde_json::from_value::<Request>(written).unwrap(), read);
        seen.insert(request["command"].to_string());
    }
    let text: Value = serde_json::from_str(text).unwrap();
    let commands = text["oneOf"].as_array().unwrap().iter();
    let commands = commands.map(|command| command["properties"]["command"]["const"].to_string()).collect();
    assert_eq!(seen, commands, "one request of each command");
}

#[test]
fn an_unknown_or_wrong_field_of_a_request_is_refused() {
    let schema = validator(&schema_files()["command.json"]);
    for mut request in requests() {
        request["resaon"] = "a slip of the pen".into();
        assert!(!schema.is_valid(&request), "the schema takes {request}");
        assert!(serde_json::from_value::<Request>(request.clone()).is_err(), "the program takes {request}");
    }
    for (field, value) in
        [("deployment", json!("api")), ("id", json!("1")), ("fence", json!(-1)), ("command", json!("undo"))]
    {
        let mut request = json!({"id": ID, "command": "rollback", "deployment": "production/api"});
        request[field] = value;
        assert!(!schema.is_valid(&request), "the schema takes {request}");
        assert!(serde_json::from_value::<Request>(request.clone()).is_err(), "the program takes {request}");
    }
}
