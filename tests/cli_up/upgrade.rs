//! A data folder that an earlier ionledger wrote is read and goes on. `tests/folders` has one for each change of what is stored.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::running::{Up, answer};
use support::binary::run;

/// The folder as it was before each type of event had a version of its own, before holds, probes and bakes: a rollout that
/// completed, one that was paused, resumed and aborted, one that was promoted and then rolled back, one that goes on, and one that
/// waits for it.
const BEFORE_HOLDS: &str = "2026-11";

/// What the program that wrote it computed of it.
const ROOT: &str = "70c2f0617dca77ba903b38b2bb32b6ff73f2dec557cd9697e172a3bb51dbfaaf";

/// A copy of a stored folder, as `Up` has it.
fn stored(name: &str) -> TempDir {
    let nowhere = tempfile::tempdir().unwrap();
    let from = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/folders").join(name);
    copy(&from, &nowhere.path().join("data"));
    nowhere
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[track_caller]
fn json_of(data: &Path, sentence: &str) -> Value {
    let words: Vec<&str> = sentence.split(' ').chain(["--json"]).collect();
    let said = run(data, &words);
    assert_eq!(said.code, 0, "{said:?}");
    serde_json::from_str(&said.stdout).unwrap()
}

#[test]
fn a_folder_of_before_is_read_as_it_was_meant() {
    let folder = stored(BEFORE_HOLDS);
    let data = folder.path().join("data");
    let verified = json_of(&data, "verify");
    assert_eq!((&verified["root"], &verified["records"]), (&json!(ROOT), &json!(89)), "{verified}");
    let status = json_of(&data, "status api");
    let deployment = &status["services"][0]["deployments"][0];
    let shares: Vec<(&str, u64)> = deployment["versions"].as_array().unwrap().iter().map(share).collect();
    let expected = [("1.0.0", 0), ("1.1.0", 9_000), ("1.2.0", 0), ("1.3.0", 0), ("1.4.0", 1_000), ("1.5.0", 0)];
    assert_eq!(shares, expected);
    assert_eq!(deployment["rollout"]["phase"], "running", "{deployment:#}");
    assert_eq!(deployment["waiting"]["version"], "1.5.0", "{deployment:#}");
    let versions = deployment["versions"].as_array().unwrap().iter();
    let rejected =
        versions.filter_map(|version| Some((share(version).0, version["rejected"]["needs_again"].as_bool()?)));
    assert_eq!(rejected.collect::<Vec<_>>(), [("1.2.0", false), ("1.3.0", true)], "one aborted, one rolled back");
    // A rollback that was recorded before there were holds sets none.
    assert!(deployment["holds"].as_array().is_none_or(Vec::is_empty), "{deployment:#}");
    let history = json_of(&data, "history --limit 0 --voids");
    let entries = history["entries"].as_array().unwrap();
    assert!(entries.iter().all(|entry| entry["void"].is_null()), "{history:#}");
    for types in ["rollout.completed", "rollout.aborted", "rollout.promoted", "traffic.rolled_back"] {
        let there = |entry: &Value| entry["events"].as_array().unwrap().iter().any(|event| event["type"] == types);
        assert_eq!(entries.iter().filter(|entry| there(entry)).count(), 1, "{types}");
    }
}

fn share(version: &Value) -> (&str, u64) {
    (version["version"].as_str().unwrap(), version["weight_set"].as_u64().unwrap())
}

#[test]
fn a_folder_of_before_goes_on() {
    let up = Up::on(stored(BEFORE_HOLDS), &[]);
    // Its nodes are long gone, and so are their artifacts. What is shipped now serves.
    let address = up.declare("");
    up.done("abort api --reason upgraded");
    up.ready("2.0.0", &[]);
    up.done("traffic api 2.0.0 100");
    up.applied();
    assert!(answer(address).contains("2.0.0"), "{}", answer(address));
    let verified = up.json("verify");
    assert!(verified["records"].as_u64().unwrap() > 89 && verified["root"] != ROOT, "{verified}");
}
