//! Waiting and watching: how a rollout's end becomes an exit code, and how a change is shown as it comes.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use super::running::{Up, users};
use support::binary::ionledger;
use support::process::{ended, lines};

const QUICK: &str = "[rollout]\nsteps = [20, 100]\nduration = \"1 s\"\n[judgement]\nrequests_min = 10\n\
    weights = { errors = 100, p50 = 0, p99 = 0 }\n";

#[test]
fn a_good_rollout_ends_with_0_and_a_bad_one_with_5() {
    let up = Up::new();
    let address = up.serving("1.0.0", QUICK);
    let _users = users(address);
    up.ready("1.1.0", &[]);
    let good = up.say("roll api 1.0.0 1.1.0 --wait --timeout 60s");
    assert_eq!(good.code, 0, "{good:?}");
    assert!(good.stderr.contains("1.1.0 has all requests"), "{good:?}");
    up.release("1.2.0", &["--error-rate", "0.7"]);
    let bad = up.say("new api 1.2.0 --roll 1s --wait --timeout 60s");
    assert_eq!(bad.code, 5, "{bad:?}");
    assert!(bad.stderr.contains("1.2.0 came back"), "{bad:?}");
    let serving = up.until("back", |deployment| deployment["weights_applied"] == true);
    assert_eq!(
        serving["versions"].as_array().unwrap().iter().find(|version| version["version"] == "1.1.0").unwrap()["weight_applied"],
        10_000
    );
}

#[test]
fn a_wait_that_ends_first_says_whether_it_is_going_or_cannot_be_judged() {
    let up = Up::new();
    up.serving("1.0.0", QUICK);
    up.ready("1.1.0", &[]);
    // Nobody comes: without requests there is nothing to judge.
    let roll = format!("roll api 1.0.0 1.1.0 1 s --command-id {}", uuid::Uuid::now_v7());
    up.done(&roll);
    up.until("held", |deployment| {
        !deployment["rollout"]["held"].is_null() && deployment["rollout"]["verdict"]["verdict"] == "inconclusive"
    });
    let unsure = up.say(&format!("{roll} --wait --timeout 1s"));
    assert_eq!(unsure.code, 6, "{unsure:?}");
    assert!(unsure.stderr.contains("it goes on, look with `ionledger status api -w`"), "{unsure:?}");
    up.done("abort api");
    let going = up.say("roll api 1.0.0 1.1.0 24 hours --wait --timeout 1s");
    assert_eq!(going.code, 8, "{going:?}");
    up.done("abort api");
    up.release("1.2.0", &["--slow-start-ms", "60000"]);
    let starting = up.say("new api 1.2.0 --wait --timeout 1s");
    assert_eq!(starting.code, 8, "{starting:?}");
    assert!(starting.stderr.contains("1.2.0: 0 of 1 node ready"), "{starting:?}");
}

#[test]
fn whoever_stops_waiting_is_told_that_it_goes_on() {
    let up = Up::new();
    up.serving("1.0.0", QUICK);
    up.ready("1.1.0", &[]);
    let mut roll = ionledger();
    roll.env("IONLEDGER_DATA", up.data()).args(["roll", "api", "1.0.0", "1.1.0", "24", "hours", "--wait"]);
    let mut roll = roll.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = lines(roll.stderr.take().unwrap());
    assert!(said.any(|line| line == "undo: ionledger abort api"));
    up.until("begun", |deployment| deployment["rollout"]["steps_taken"] == 1);
    let pid = Pid::from_raw(roll.id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let ended = ended(&mut roll);
    assert_eq!(ended.code(), Some(8));
    let last = said.last().unwrap();
    assert!(last.ends_with("it goes on, look with `ionledger status api -w`"), "{last}");
    assert_eq!(up.json("status api")["services"][0]["deployments"][0]["rollout"]["live"], true);
}

#[test]
fn watching_in_a_pipe_appends_what_changes() {
    let up = Up::new();
    up.serving("1.0.0", "");
    up.ready("1.1.0", &[]);
    let mut watch = ionledger();
    watch.env("IONLEDGER_DATA", up.data()).args(["status", "api", "-w"]).stdout(Stdio::piped());
    let mut watch = watch.spawn().unwrap();
    let mut lines = lines(watch.stdout.take().unwrap());
    let shares = |line: &str| line.split('\t').skip(1).take(4).collect::<Vec<_>>().join(" ");
    let mut seen: Vec<String> = lines.by_ref().take(2).map(|line| shares(&line)).collect();
    assert_eq!(seen, ["1.0.0 serving 100 100", "1.1.0 warm 0 0"]);
    up.done("traffic api 1.0.0 50 1.1.0 50");
    while !seen.iter().any(|line| line == "1.1.0 serving 50 50") {
        seen.push(shares(&lines.next().expect("it goes on")));
    }
    kill_process(Pid::from_raw(watch.id().try_into().unwrap()).unwrap(), Signal::INT).unwrap();
    assert_eq!(ended(&mut watch).code(), Some(0), "Ctrl-C ends a watch in an orderly way");
}
