//! The checked-in schemas are the types', every version of every event has an example that is kept for good, and all of
//! them agree.

mod kept;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::schema_files;
use crate::command::Request;
use crate::{Event, Hash};
use kept::{Kept, validator};

#[test]
fn the_checked_in_schemas_are_those_of_the_types() {
    Kept::checked_in().check_schemas(&schema_files()).unwrap();
}

#[test]
fn every_version_of_every_event_has_an_example_that_fits_its_schema() {
    Kept::checked_in().check_examples(Event::kinds()).unwrap();
}

#[test]
fn an_example_of_an_old_version_is_read_as_the_stored_example_of_the_next() {
    Kept::checked_in().check_upcasters(Event::kinds()).unwrap();
}

#[test]
fn an_example_of_the_newest_version_reads_back_as_it_is() {
    for (file, kind, version, text) in Kept::checked_in().examples() {
        let newest = Event::kinds().any(|known| known.name == kind && known.version() == version);
        let event = Event::decode(&kind, version, &text).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(event.kind(), kind, "{file}");
        if newest {
            let written: Value = serde_json::from_str(event.data().get()).unwrap();
            assert_eq!(written, serde_json::from_str::<Value>(&text).unwrap(), "{file}");
        }
    }
}

#[test]
fn what_is_kept_only_grows() {
    Kept::checked_in().check_hashes(Event::kinds()).unwrap();
}

fn with(file: &str, path: &str, value: Value) -> Value {
    let mut example: Value = serde_json::from_str(&Kept::checked_in().example(file)).unwrap();
    *example.pointer_mut(path).unwrap_or_else(|| panic!("{file} has no {path}")) = value;
    example
}

#[test]
fn a_schema_refuses_what_the_program_would_not_read() {
    let schemas = schema_files();
    let newest: std::collections::BTreeMap<_, _> = Event::kinds().map(|kind| (kind.name, kind.version())).collect();
    for (kind, path, value) in [
        ("stack.ready", "/stack", json!("not-a-uuid")),
        ("stack.requested", "/version", json!("1.2.3/4")),
        ("stack.requested", "/artifact/sha256", json!("ABC")),
        ("rollout.step_taken", "/weight", json!(10_001)),
        ("rollout.step_taken", "/step", json!(-1)),
        ("traffic.weights_set", "/weights", json!({})),
        ("traffic.weights_set", "/purpose", json!("for fun")),
        ("judgement.judged", "/verdict", json!("good")),
        ("service.applied", "/definition/policy/retention", json!({"serving_max": 2, "forever": true})),
        ("lease.taken", "/role", json!("cook")),
    ] {
        let version = newest[kind];
        let file = format!("{kind}.v{version}.json");
        let wrong = with(&file, path, value);
        assert!(!validator(&schemas[&file]).is_valid(&wrong), "the schema takes {file} with another {path}");
        let read = Event::decode(kind, version, &wrong.to_string());
        assert!(read.is_err(), "the program takes {file} with another {path}");
    }
}

const ID: &str = "0193a6f0-0c41-7b66-b1d2-9e4a6c8f7d03";

fn artifact() -> Value {
    json!({"sha256": Hash::of(b"api").to_string(), "name": "api", "size_bytes": 3})
}

/// One of each command, as the server gets it.
fn requests() -> Vec<Value> {
    let deployment = "production/api";
    let mut requests = vec![
        json!({"command": "apply", "service": "api", "definition": {"owner": "team-checkout"}}),
        json!({"command": "release", "service": "api", "version": "1.2.3", "artifact": artifact(),
               "args": ["--fast"], "env": {"KEY": {"from_env": "API_KEY"}}, "source": {"commit": "9f1d0c7"}, "fixes": "1.2.2"}),
        json!({"command": "new", "deployment": deployment, "version": "1.2.3", "then_roll": {"duration_ms": 1000}}),
        json!({"command": "renew", "deployment": deployment, "version": "1.2.3", "then_roll": {"duration_ms": 1000}}),
        json!({"command": "traffic", "deployment": deployment, "supersede": false,
               "shares": [{"version": "1.2.2", "weight": 9000}, {"version": "1.2.3~2", "weight": 1000}]}),
        json!({"command": "roll", "deployment": deployment, "from": "1.2.2", "to": "1.2.3",
               "plan": {"duration_ms": 86400000, "steps": [1000, 10000]}, "supersede": true}),
        json!({"command": "dismiss", "deployment": deployment, "version": "1.2.3~2"}),
        json!({"command": "hold", "deployment": deployment, "for_ms": 7_200_000}),
    ];
    for command in ["rollback", "pause", "resume", "abort", "promote", "lift_hold", "retire"] {
        requests.push(json!({"command": command, "deployment": deployment}));
    }
    for request in &mut requests {
        request["id"] = ID.into();
        request["reason"] = "the pager rang".into();
    }
    requests
}

#[test]
fn the_server_takes_every_command_as_its_schema_says() {
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
