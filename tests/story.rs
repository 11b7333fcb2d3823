//! The whole way on one machine: release, stack, traffic, rollout, rollback, history, with real processes and real HTTP.

use support::installation::{Installation, eventually};
use support::load::Load;

const QUICK: &str = "[rollout]\nsteps = [\"10 %\", \"50 %\", \"100 %\"]\n[judgement]\nrequests_min = 20\n\
    weights = { errors = 100, p50 = 0, p99 = 0 }\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_good_version_ships_a_bad_one_comes_back_and_history_says_who() {
    let installation = Installation::new();
    let users = installation.serving(QUICK);
    let load = Load::start(&users, 200);

    installation.release("1.1.0", &[]);
    installation.new_stack("1.1.0");
    installation.ok(&["roll", "api", "1.0.0", "1.1.0", "2 seconds"]);
    assert_eq!(installation.rollout_ended(), "completed", "{}", installation.log());
    assert_eq!(installation.weight("1.1.0"), 10_000);
    let between = jiff::Timestamp::now().to_string();

    installation.release("1.2.0", &["--error-rate", "0.5"]);
    installation.new_stack("1.2.0");
    installation.ok(&["roll", "api", "1.1.0", "1.2.0", "2 seconds"]);
    assert_eq!(installation.rollout_ended(), "came_back", "{}", installation.log());
    assert_eq!(installation.weight("1.1.0"), 10_000);
    load.answers(50).await;
    load.stop().await.assert_none_lost();

    let shipped = installation.json(&["who-shipped", "api", "--at", &between]);
    assert_eq!(shipped["shipped"][0]["version"], "1.1.0", "{shipped}");
    assert_eq!(shipped["shipped"].as_array().unwrap().len(), 1, "{shipped}");
    let by = &shipped["shipped"][0]["since"]["on_behalf_of"]["actor"];
    assert_eq!(by["kind"], "person", "{shipped}");
    let history = installation.json(&["history", "api"]).to_string();
    for kind in ["release.recorded", "rollout.started", "rollout.completed", "judgement.judged", "rollout.came_back"] {
        assert!(history.contains(kind), "{kind} is missing in {history}");
    }
    explains_why_it_came_back(&installation);
    installation.ok(&["verify"]);
}

fn explains_why_it_came_back(installation: &Installation) {
    let explained = installation.ok(&["explain", "api"]);
    for words in ["came back", "worse: canary 1.2.0: ", "requests failed, baseline ", "100 needed"] {
        assert!(explained.contains(words), "{words} is missing in {explained}");
    }
    let answer = installation.json(&["explain", "api"]);
    let entries = answer["entries"].as_array().unwrap();
    let kinds = |entry: &serde_json::Value| entry["events"].to_string();
    assert!(kinds(&entries[0]).contains("rollout.started"), "{answer}");
    let last = entries.iter().find(|entry| kinds(entry).contains("rollout.came_back")).expect("it came back");
    assert!(
        kinds(last).contains("judgement.judged") && kinds(last).contains("judgement.counted"),
        "one commit: {last}"
    );
    let causes = installation.json(&["explain", last["commit"].as_str().unwrap()]);
    let chain = causes["entries"].as_array().unwrap();
    assert_eq!((&chain[0]["commit"], &chain[1]["commit"]), (&last["commit"], &entries[0]["commit"]), "{causes}");
    assert_eq!(chain.last().unwrap()["actor"]["kind"], "person", "{causes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_takes_all_traffic_back_at_once_and_twice_is_once() {
    let installation = Installation::new();
    let users = installation.serving("");
    installation.release("1.1.0", &[]);
    installation.new_stack("1.1.0");
    installation.ok(&["traffic", "api", "1.0.0", "0", "1.1.0", "100"]);
    eventually("1.1.0 serves", || installation.deployment()["weights_applied"] == true);

    installation.ok(&["rollback", "api"]);
    let load = Load::start(&users, 200);
    load.answers(100).await;
    let seen = load.stop().await;
    seen.assert_none_lost();
    assert_eq!((seen.of("1.0.0"), seen.of("1.1.0")), (seen.total(), 0));

    let before = installation.json(&["history", "api"])["entries"].as_array().unwrap().len();
    installation.ok(&["rollback", "api"]);
    eventually("the weights are confirmed", || installation.deployment()["weights_applied"] == true);
    let after = installation.json(&["history", "api"]);
    let rollbacks = after.to_string().matches("\"traffic.rolled_back\"").count();
    assert_eq!(rollbacks, 1, "{after}");
    assert!(after["entries"].as_array().unwrap().len() <= before + 1, "{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_without_traffic_is_never_promoted_by_time() {
    let installation = Installation::new();
    installation.serving(QUICK);
    installation.release("1.1.0", &[]);
    installation.new_stack("1.1.0");
    installation.ok(&["roll", "api", "1.0.0", "1.1.0", "1 second"]);
    eventually("the rollout is held", || installation.deployment()["rollout"]["held"].is_string());
    assert_eq!(installation.weight("1.1.0"), 1_000);
    assert_eq!(installation.deployment()["rollout"]["phase"], "running");

    installation.ok(&["promote", "api", "--reason", "no users at night"]);
    assert_eq!(installation.weight("1.1.0"), 10_000);
    assert!(installation.ok(&["history", "api"]).contains("no users at night"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_dies_is_sent_back() {
    let installation = Installation::new();
    let users = installation.serving(QUICK);
    installation.release("1.1.0", &["--fail-health"]);
    let said = installation.run(&["new", "api", "1.1.0", "--wait", "--timeout", "3 s"]);
    assert_ne!(said.code, 0, "{said:?}");
    let said = installation.run(&["roll", "api", "1.0.0", "1.1.0", "1 minute"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("not ready"), "{said:?}");

    installation.release("1.2.0", &[]);
    installation.new_stack("1.2.0");
    let load = Load::start(&users, 100);
    installation.ok(&["roll", "api", "1.0.0", "1.2.0", "10 minutes"]);
    eventually("the canary has traffic", || installation.weight("1.2.0") == 1_000);
    // Its artifact is gone from under it, so that no node can be launched again.
    let artifacts = installation.data().join("artifacts");
    let before = installation.node_processes();
    for file in std::fs::read_dir(&artifacts).unwrap().flatten() {
        let _ = std::fs::remove_file(file.path());
    }
    let versions = installation.deployment()["versions"].clone();
    let canary = versions.as_array().unwrap().iter().find(|version| version["version"] == "1.2.0").unwrap().clone();
    for node in canary["nodes"].as_array().unwrap() {
        let record = installation.data().join("nodes").join(node["effect"].as_str().unwrap()).join("node.json");
        let record: serde_json::Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
        let pid = record["pid"].as_u64().unwrap();
        assert!(before.contains(&u32::try_from(pid).unwrap()));
        std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    }
    assert_eq!(installation.rollout_ended(), "came_back", "{}", installation.log());
    assert_eq!(installation.weight("1.0.0"), 10_000);
    load.stop().await;
}
