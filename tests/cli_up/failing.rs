//! Versions that do not start: why, while it is waited for, and afterwards until somebody has seen it.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use super::running::Up;

/// Records a release that runs a script.
fn ship(up: &Up, version: &str, script: &str) {
    let path = up.beside(&format!("run-{version}"));
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    up.done(&format!("release api {version} --artifact {}", path.display()));
}

fn found<'a>(deployment: &'a Value, version: &str) -> Option<&'a Value> {
    deployment["versions"].as_array()?.iter().find(|found| found["version"] == version)
}

#[test]
fn a_version_that_crashes_says_so_at_once_and_is_remembered_until_it_is_dismissed() {
    let up = Up::new();
    up.serving("1.0.0", "");
    ship(&up, "2.1", "#!/bin/sh\nexec /no/such/program\n");
    let run = up.beside("run-2.1").display().to_string();
    up.done(&format!("release api 2.2 --artifact {run} --var KEY=from_env:NOBODY_SETS_THIS"));
    let cannot = up.say("new api 2.2 --wait --timeout 60s");
    assert_eq!(cannot.code, 1, "{cannot:?}");
    assert!(
        cannot.stderr.contains("2.2 did not start: ") && cannot.stderr.contains("environment variable KEY"),
        "{cannot:?}"
    );
    let launches = |deployment: &Value| found(deployment, "2.2").map(|found| found["nodes"].as_array().unwrap().len());
    up.until("its nodes are gone", |deployment| launches(deployment) == Some(0));
    let history = up.json("history api --limit 0");
    let told = history.to_string();
    assert_eq!(told.matches("node 1 of 2.2 is being launched").count(), 1, "it was tried once");

    let crashed = up.say("new api 2.1 --wait --timeout 90s");
    assert_eq!(crashed.code, 1, "{crashed:?}");
    assert!(
        crashed.stderr.contains("2.1 did not start: ") && crashed.stderr.contains("exited with code 127"),
        "{crashed:?}"
    );
    let collected =
        |deployment: &Value| found(deployment, "2.1").is_some_and(|found| found["collecting_since"].is_null());
    let kept = up.until("its record is kept", |deployment| {
        collected(deployment) && up.json("history api").to_string().contains("2.1 was taken down")
    });
    let kept = found(&kept, "2.1").unwrap();
    assert_eq!(kept["phase"], "failed");
    assert!(kept["reason"].as_str().unwrap().contains("exited with code 127"), "{kept}");
    let doctor = up.say("doctor");
    assert!(doctor.stdout.contains("production/api 2.1 failed: "), "{doctor:?}");

    up.done("dismiss api 2.1");
    up.until("it is shown no longer", |deployment| found(deployment, "2.1").is_none());
    assert!(!up.say("doctor").stdout.contains("api 2.1 failed"));
    let again = up.done("dismiss api 2.1");
    assert!(again.stderr.contains("no stack of production/api 2.1 is shown as failed"), "{again:?}");
    let unknown = up.say("dismiss api 9.9");
    assert_eq!(unknown.code, 1, "{unknown:?}");
}

#[test]
fn a_check_that_fails_is_shown_while_the_version_starts() {
    let up = Up::new();
    let address = up.serving("1.0.0", "");
    assert_eq!(super::running::ask(address), 200);
    up.release("1.1.0", &["--slow-start-ms", "600000"]);
    up.done("new api 1.1.0");
    let failing = up.until("its check is shown", |deployment| {
        found(deployment, "1.1.0").is_some_and(|found| !found["nodes"][0]["failing"].is_null())
    });
    let said = found(&failing, "1.1.0").unwrap()["nodes"][0]["failing"].as_str().unwrap().to_owned();
    let waited = up.say("new api 1.1.0 --wait --timeout 1s");
    assert_eq!(waited.code, 8, "{waited:?}");
    assert!(waited.stderr.contains(&format!("1.1.0: 0 of 1 node ready; node 1: {said}")), "{said}: {waited:?}");
}
