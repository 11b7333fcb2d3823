//! Users' traffic under weights that change: shares are exact, and no request is lost.

use std::path::PathBuf;

use api::client::{Client, SendOptions};
use rustix::process::Signal;
use schemas::command::{self, Command, Request, StackWeight};
use schemas::{CommandId, Fence, Weight};
use support::installation::{Installation, eventually, lives};
use support::load::Load;
use support::nodes::kill;

/// 1.0.0 serves and 1.1.0 is ready.
fn two_versions() -> (Installation, String) {
    let installation = Installation::new();
    let users = installation.serving("");
    installation.release("1.1.0", &[]);
    installation.new_stack("1.1.0");
    (installation, users)
}

#[tokio::test(flavor = "multi_thread")]
async fn ninety_to_ten_gives_ten_percent_of_the_next_ten_thousand_requests() {
    let (installation, users) = two_versions();
    installation.ok(&["traffic", "api", "1.0.0", "90", "1.1.0", "10"]);
    eventually("the weights are applied", || installation.deployment()["weights_applied"] == true);

    let load = Load::start(&users, 1_000);
    load.answers(10_000).await;
    let seen = load.stop().await;
    seen.assert_none_lost();
    let share = seen.of("1.1.0") as f64 / seen.total() as f64;
    assert!((share - 0.1).abs() <= 0.001, "{} of {} requests", seen.of("1.1.0"), seen.total());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_weight_changes_and_a_rollback_lose_no_request() {
    let (installation, users) = two_versions();
    let load = Load::start(&users, 1_000);
    for n in 1..=200_u32 {
        let canary = n % 99 + 1;
        installation.ok(&["traffic", "api", "1.0.0", &(100 - canary).to_string(), "1.1.0", &canary.to_string()]);
    }
    installation.ok(&["rollback", "api"]);
    load.answers(200).await;
    let seen = load.stop().await;
    seen.assert_none_lost();
    assert!(seen.of("1.1.0") > 0);
    assert_eq!(installation.weight("1.0.0"), 10_000);
}

#[test]
fn a_proxy_that_hangs_is_replaced_and_users_are_served_again() {
    let installation = Installation::new();
    installation.serving("");
    let proxy = || installation.ask_proxy(async |proxy| proxy.status().await).map(|status| status.pid);
    let hung = proxy().unwrap();
    kill(i32::try_from(hung).unwrap(), Signal::STOP);
    eventually("another proxy runs", || proxy().is_ok_and(|pid| pid != hung));
    assert!(!lives(hung));
    let serves = |status: &str| status.contains("production/api") && !status.contains("has not answered");
    eventually("it is said to serve", || serves(&installation.ok(&["status", "api"])));
    assert!(installation.ok(&["doctor"]).contains("listener"), "{}", installation.ok(&["doctor"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_a_rollout_it_goes_on_and_no_node_is_started_twice() {
    let mut installation = Installation::new();
    let quick = "[rollout]\nsteps = [\"10 %\", \"50 %\", \"100 %\"]\n[judgement]\nrequests_min = 20\n\
                 weights = { errors = 100, p50 = 0, p99 = 0 }\n";
    let users = installation.serving(quick);
    installation.release("1.1.0", &[]);
    installation.new_stack("1.1.0");
    let before = installation.node_processes();
    assert_eq!(before.len(), 4);

    let load = Load::start(&users, 1_000);
    installation.ok(&["roll", "api", "1.0.0", "1.1.0", "4 seconds"]);
    eventually("the rollout is in its middle", || installation.weight("1.1.0") >= 1_000);
    installation.kill_up();
    load.answers(500).await;
    installation.up();
    assert_eq!(installation.rollout_ended(), "completed", "{}", installation.log());
    load.stop().await.assert_none_lost();

    let mut after = installation.node_processes();
    let mut before = before;
    after.sort_unstable();
    before.sort_unstable();
    assert_eq!(after, before, "every node is the process it was");
    let launches = installation.json(&["history", "api"]).to_string().matches("node.launch_started").count();
    assert_eq!(launches, 4);
}

/// `traffic` to the older version is a rollback by hand, and a rollback after it never moves users forward again.
#[test]
fn a_rollback_after_a_rollback_by_hand_does_not_go_forward_again() {
    let (installation, _) = two_versions();
    installation.ok(&["traffic", "api", "1.1.0", "100"]);
    let left = installation.run(&["traffic", "api", "1.0.0", "100"]);
    assert_eq!((left.code, left.stderr.contains("undo:")), (0, false), "1.1.0 is rejected now: {left:?}");
    assert!(left.stdout.contains("1.1.0 is rejected: left by hand for the older 1.0.0"), "{left:?}");
    assert_eq!(installation.deployment()["rollback_target"], serde_json::Value::Null);

    let back = installation.run(&["rollback", "api"]);
    assert_eq!(back.code, 1, "{back:?}");
    let overrules = "`ionledger traffic api 1.1.0 100 --again --reason WHY` overrules that";
    assert!(back.stderr.contains(overrules), "{back:?}");
    assert_eq!(installation.weight("1.0.0"), 10_000);

    for sentence in [&["traffic", "api", "1.1.0", "100"][..], &["roll", "api", "1.0.0", "1.1.0", "1 min"]] {
        let refused = installation.run(sentence);
        assert!(refused.code == 1 && refused.stderr.contains("--again --reason WHY"), "{sentence:?}: {refused:?}");
        let unsaid = installation.run(&[sentence, &["--again"]].concat());
        assert!(unsaid.code == 2 && unsaid.stderr.contains("--reason"), "{sentence:?}: {unsaid:?}");
    }
    installation.ok(&["traffic", "api", "1.1.0", "100", "--again", "--reason", "the cache was at fault"]);
    assert_eq!(installation.deployment()["rollback_target"]["version"], "1.0.0");
}

/// Releases 1.0.0 as a program that exits at start while the file that is returned is there.
fn mortal(installation: &Installation) -> PathBuf {
    let dead = installation.path().join("dead");
    let (marker, program) = (dead.display(), installation.program());
    let script = format!("#!/bin/sh\n[ -e {marker} ] && exit 3\nexec {program} demo-service \"$@\"\n");
    let script = installation.file("mortal", &script);
    let arguments = ["--arg", "--port={port}", "--arg", "--version-name", "--arg", "1.0.0"];
    installation.ok(&[&["release", "api", "1.0.0", "--artifact", &script], &arguments[..]].concat());
    dead
}

/// The nodes of the only target exit at start, and the version that serves is healthy.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_moves_no_user_from_a_healthy_version_to_a_dead_one() {
    let installation = Installation::new();
    installation.declare("");
    let dead = mortal(&installation);
    installation.release("1.1.0", &[]);
    let mut targets = Vec::new();
    for version in ["1.0.0", "1.1.0"] {
        installation.new_stack(version);
        // What runs before there is a second stack.
        if targets.is_empty() {
            targets = installation.node_processes();
        }
        installation.ok(&["traffic", "api", version, "100"]);
        eventually("the weights are applied", || installation.deployment()["weights_applied"] == true);
    }
    let users = installation.users();
    let load = Load::start(&users, 200);

    std::fs::write(&dead, "").unwrap();
    assert_eq!(targets.len(), 2);
    for pid in &targets {
        std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    }
    eventually("the target's nodes are dead", || !targets.iter().any(|pid| lives(*pid)));
    let back = installation.run(&["rollback", "api"]);
    assert_eq!(back.code, 8, "users have not moved: {back:?}");
    assert!(
        back.stderr.contains("not yet: 1.0.0~2 gets all traffic once it is ready, by now 0 of 2 nodes ready"),
        "{back:?}"
    );
    assert!(back.stderr.contains("; users stay on 1.1.0"), "{back:?}");
    assert!(back.stdout.contains("rolls back from 1.1.0 to 1.0.0~2 once that is ready"), "{back:?}");
    assert!(back.stderr.contains("users stay where they are: no node of the rollback target 1.0.0"), "{back:?}");
    assert_eq!((installation.weight("1.1.0"), installation.weight("1.0.0")), (10_000, 0));
    load.answers(200).await;
    let second = installation.run(&["rollback", "api"]);
    assert_eq!((second.stdout.as_str(), second.code), ("", 8), "a second one changes nothing: {second:?}");
    let third = installation.run(&["rollback", "api", "--json"]);
    assert!(third.code == 8 && third.stdout.contains("users stay on 1.1.0"), "{third:?}");
    let waited = installation.run(&["rollback", "api", "--wait", "--timeout", "1s"]);
    assert!(waited.code == 8 && waited.stderr.contains("not yet: 1.0.0~2 gets all requests once"), "{waited:?}");

    std::fs::remove_file(&dead).unwrap();
    eventually("it is started again", || {
        // It may have failed while it could not start: then it is asked for once more.
        let waited = installation.run(&["rollback", "api", "--wait", "--timeout", "60s"]);
        assert_eq!(waited.code == 0, installation.weight("1.0.0") == 10_000, "{waited:?}");
        installation.weight("1.0.0") == 10_000
    });
    eventually("the weights are applied", || installation.deployment()["weights_applied"] == true);
    load.answers(100).await;
    let seen = load.stop().await;
    seen.assert_none_lost();
    assert!(seen.of("1.0.0") > 0 && seen.of("1.1.0") > 0);
}

/// Half of the users are on a version whose nodes exit at start, and a rollback goes to that version.
#[tokio::test(flavor = "multi_thread")]
async fn users_on_a_dead_version_are_named_everywhere_with_the_command_that_moves_them() {
    let installation = Installation::new();
    installation.declare("");
    let dead = mortal(&installation);
    installation.new_stack("1.0.0");
    let mortal = installation.node_processes();
    installation.ok(&["traffic", "api", "1.0.0", "100"]);
    installation.release("1.1.0", &[]);
    installation.new_stack("1.1.0");
    installation.ok(&["traffic", "api", "1.0.0", "50", "1.1.0", "50"]);
    eventually("the weights are applied", || installation.deployment()["weights_applied"] == true);
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(&installation.ok(&["doctor"])).contains("ok"), "nothing is wrong yet");

    std::fs::write(&dead, "").unwrap();
    for pid in &mortal {
        std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    }
    let half = "50 % of users are on 1.0.0, which does not pass (";
    eventually("its users are known to be stranded", || {
        let deployment = installation.deployment();
        let of = |version: &serde_json::Value| version["nodes_ready"] == 0 && version["phase"] == "ready";
        assert!(!deployment["versions"].as_array().unwrap().iter().any(of), "no node is ready: {deployment:#}");
        deployment["stranded"][0]["weight"] == 5_000 && deployment["rollback_target"]["failing"].is_string()
    });
    let found = installation.deployment();
    assert_eq!(found["stranded"][0]["next"], "ionledger traffic api 1.1.0 100");
    assert_eq!(found["rollback_target"]["warm"], false, "{found:#}");
    let doctor = words(&installation.run(&["doctor"]).stdout);
    assert!(doctor.contains(half) && doctor.contains("`ionledger traffic api 1.1.0 100` moves them now"), "{doctor}");

    let back = installation.run(&["rollback", "api", "--reason", "3am"]);
    let said = words(&back.stderr);
    let out = "`ionledger traffic api 1.1.0 100 --again --reason WHY` moves them now";
    assert!(back.code == 8 && said.contains(half) && said.contains(out), "{back:?}");
    eventually("a second one names the cause", || {
        let second = installation.run(&["rollback", "api"]);
        let said = words(&second.stderr);
        assert!(second.code == 8 && said.contains(out), "{second:?}");
        said.contains("0 of 2 nodes ready (") && said.contains("exited with code 3)")
    });
    let doctor = words(&installation.run(&["doctor"]).stdout);
    assert!(doctor.contains("production/api waits to be rolled back to 1.0.0~2: 0 of 2 nodes ready ("), "{doctor}");
    let status = installation.deployment();
    assert!(status["rolling_back"]["why"].as_str().unwrap().contains("exited with code 3"), "{status:#}");

    installation.ok(&["traffic", "api", "1.1.0", "100", "--again", "--reason", "half of the users got errors"]);
    eventually("the weights are applied", || installation.deployment()["weights_applied"] == true);
    let moved = installation.deployment();
    assert!(moved["stranded"].is_null() && moved["rolling_back_to"].is_null(), "{moved:#}");
    let load = Load::start(&installation.users(), 200);
    load.answers(100).await;
    load.stop().await.assert_none_lost();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_traffic_command_does_not_win_after_a_rollback() {
    let (installation, _) = two_versions();
    installation.ok(&["traffic", "api", "1.0.0", "50", "1.1.0", "50"]);
    let fence = installation.deployment()["fence"].as_u64().unwrap();
    installation.ok(&["rollback", "api"]);

    let late = Request {
        id: CommandId(uuid::Uuid::now_v7()),
        command: Command::Traffic(command::Traffic {
            deployment: "production/api".parse().unwrap(),
            shares: vec![StackWeight { version: "1.1.0".parse().unwrap(), weight: Weight::FULL }],
            supersede: false,
            again: false,
        }),
        fence: Some(Fence(fence)),
        reason: None,
        effective_at: None,
    };
    let refused = Client::of_data(&installation.data()).execute(&late, SendOptions::default()).await.unwrap_err();
    assert!(refused.to_string().contains("was rolled back since this was asked for"), "{refused}");
    assert_eq!(installation.weight("1.0.0"), 10_000);
}
