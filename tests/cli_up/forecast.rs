//! Forecasts: what a rollout will be able to tell, with and without a ledger that runs.

use std::time::Instant;

use super::running::{PATIENCE, Up, users};
use support::binary::run;

const SLOW: &str = "[rollout]\nsteps = [10, 100]\nduration = \"1 hour\"\nbake = \"1 hour\"\n";

#[test]
fn a_forecast_is_of_the_measured_traffic_and_rolling_blindly_is_said_so() {
    let up = Up::new();
    let address = up.serving("1.0.0", SLOW);
    let assumed = up.done("forecast api --requests-per-minute 5");
    let errors: Vec<&str> = assumed.stdout.lines().next().unwrap().split('\t').collect();
    assert_eq!(
        (errors[0], errors[1], errors[10], errors[11]),
        ("production/api", "errors", "5", "false"),
        "{assumed:?}"
    );
    let json = up.json("forecast api 1 hour --share 10 --requests-per-minute 5");
    let sentence = json["sentence"].as_str().unwrap();
    assert_eq!(
        sentence,
        "at 5 requests a minute and 10 % share, the smallest error rate this rollout can see in 1 hour is 15 %; \
         then it is judged for 1 hour more at 95 %"
    );
    assert_eq!((&json["schema_version"], &json["requests_measured"]), (&1.into(), &false.into()));

    // What was measured counts once it was for ten seconds.
    let deadline = Instant::now() + PATIENCE;
    let blind = loop {
        let answer = up.say("forecast api --json");
        if answer.code == 0 {
            break answer;
        }
        assert!(answer.stderr.contains("was measured for") && answer.stderr.contains("assume some"), "{answer:?}");
        assert!(Instant::now() < deadline, "{answer:?}");
        std::thread::sleep(std::time::Duration::from_millis(500));
    };
    let blind: serde_json::Value = serde_json::from_str(&blind.stdout).unwrap();
    assert_eq!((&blind["requests_per_minute"], &blind["requests_measured"]), (&0.0.into(), &true.into()), "{blind:#}");
    up.ready("1.1.0", &[]);
    let roll = up.done("roll api 1.0.0 1.1.0 --dry-run");
    let note = "note: at 0 requests a minute and 10 % share, this rollout cannot see any error rate in 1 hour";
    assert!(roll.stderr.contains(note), "{roll:?}");
    let at_once = up.done("roll api 1.0.0 1.1.0 --steps 100 --dry-run");
    assert!(at_once.stderr.contains("a plan of one step gets no bake"), "{at_once:?}");

    let users = users(address);
    let deadline = Instant::now() + PATIENCE;
    while up.json("forecast api")["requests_per_minute"].as_f64().unwrap() < 1.0 {
        assert!(Instant::now() < deadline, "their requests are not counted");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    drop(users);
    let before = up.json("forecast api");
    let errors = &before["metrics"][0];
    assert_eq!((&errors["measured"], &before["under_way"]), (&false.into(), &serde_json::Value::Null));
    assert!(errors["seen"]["requests"].as_u64().unwrap() > 0 && errors["requests_to_tell"] == 1_000, "{errors}");
    assert_eq!(errors["baseline_rate"], 0.001, "too few were seen: {errors}");

    // Of a rollout under way it says when that goes on and ends.
    up.done("roll api 1.0.0 1.1.0");
    let after = up.json("forecast api");
    let live = &after["under_way"];
    assert_eq!(live["canary"], "1.1.0", "{after:#}");
    let moment = |key: &str| live[key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(moment("next_at") <= moment("expected_end_at"), "{live:#}");
    let left = moment("expected_end_at").duration_since(jiff::Timestamp::now()).as_secs();
    assert!((7_100..=7_200).contains(&left), "the plan's hour and the bake's: {live:#}");
    let status = up.json("status api");
    let plan = &status["services"][0]["deployments"][0]["rollout"]["plan"];
    assert_eq!((&plan["steps"], &plan["bake_ms"]), (&serde_json::json!([1000, 9500, 10_000]), &3_600_000.into()));

    // Where nothing runs the policy is known and the traffic is not.
    let data = up.data();
    let folder = up.end();
    let unknown = run(&data, &["forecast", "api"]);
    assert_eq!(unknown.code, 2, "{unknown:?}");
    assert!(unknown.stderr.contains("no process runs that measures it"), "{unknown:?}");
    let assumed = run(&data, &["forecast", "api", "--requests-per-minute", "5"]);
    assert_eq!((assumed.code, assumed.stdout.lines().count()), (0, 3), "{assumed:?}");
    let other = run(&data, &["forecast", "web", "--requests-per-minute", "5"]);
    assert!(other.code == 1 && other.stderr.contains("service web is unknown"), "{other:?}");
    drop(folder);
}
