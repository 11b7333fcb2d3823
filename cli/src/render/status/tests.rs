use insta::assert_snapshot;
use ledger::execute::ClockTrouble;
use serde_json::json;

use super::super::examples::{bare, declared, now, status};
use super::*;

#[test]
fn a_rollout_under_way_shows_its_step_its_judgement_and_the_way_back() {
    assert_snapshot!(bare(&eyes(&status(|_| {}), &now())), @r"
production/api  ◌ rolling 1.2.3 -> 1.2.4, step 3 of 7, 5 %
  users at     http://127.0.0.1:8080
  next         10 % at 14:42:05 (in 10 min)
  ends         about 2026-11-23 02:42:05 (in 12 h)
  judge        ✔ not worse at step 2: canary 0 of 61 failed (0.00 %), baseline 4 of 1,204 failed (0.33 %)
  rollback to  1.2.3, warm
├─ 1.2.4  canary    5 % (now 2 %)  ✔ ready  1/2 nodes  12 min
│  ├─ node 3  ✔ ready  127.0.0.1:40002  9 min
│  └─ node 4  ◌ checking  127.0.0.1:40003  9 min, attempt 2
└─ 1.2.3  baseline  95 %           ✔ ready  2/2 nodes  12 min
   ├─ node 1  ✔ ready  127.0.0.1:40000  9 min
   └─ node 2  ✔ ready  127.0.0.1:40001  9 min
");
}

#[test]
fn a_bake_says_what_the_old_version_keeps_and_until_when() {
    let facts = |steps_taken: u16, baking: bool| {
        let status = status(|deployment| {
            let rollout = &mut deployment["rollout"];
            rollout["plan"] = json!({"steps": [1000, 5000, 9500, 10_000], "duration_ms": 60_000, "bake_ms": 3_600_000});
            (rollout["steps_taken"], rollout["steps"], rollout["baking"]) =
                (json!(steps_taken), json!(4), json!(baking));
            let weight = if baking { 9500 } else { 5000 };
            rollout["weight"] = json!(weight);
            rollout["next"]["weight"] = json!(if baking { 10_000 } else { 9500 });
        });
        let text = bare(&eyes(&status, &now()));
        text.lines().filter(|line| line.contains(" -> ") || line.contains("next ")).collect::<Vec<_>>().join("\n")
    };
    assert_snapshot!(facts(2, false), @r"
production/api  ◌ rolling 1.2.3 -> 1.2.4, step 2 of 4, 50 %
  next         95 % at 14:42:05 (in 10 min), then a bake of 60 min: 1.2.3 keeps 5 % meanwhile
");
    assert_snapshot!(facts(3, true), @r"
production/api  ◌ 1.2.3 -> 1.2.4 bakes at 95 %, step 3 of 4
  next         100 % at 14:42:05 (in 10 min), until then 1.2.3 keeps 5 % to be compared with
");
}

#[test]
fn a_stack_that_is_to_be_taken_down_says_so_and_why() {
    for phase in ["starting", "ready", "unhealthy"] {
        let status = status(|deployment| {
            deployment["rollout"] = json!(null);
            deployment["versions"][1]["phase"] = json!(phase);
            deployment["versions"][1]["leaves_because"] = json!("its rollout was dropped");
        });
        let text = bare(&eyes(&status, &now()));
        let line = text.lines().find(|line| line.starts_with("├─ 1.2.4")).unwrap();
        assert!(line.ends_with("is taken down: its rollout was dropped"), "{text}");
    }
}

#[test]
fn a_rollout_that_came_back_says_why() {
    let status = status(|deployment| {
        deployment["rollout"]["phase"] = json!("came_back");
        deployment["rollout"]["live"] = json!(false);
        deployment["rollout"]["reason"] = json!("4.1 % of requests failed\u{1b}[2J");
        deployment["rollout"]["verdict"] = json!(null);
        deployment["versions"][0]["weight_set"] = json!(10_000);
        deployment["versions"][0]["weight_applied"] = json!(10_000);
        deployment["versions"][1]["weight_set"] = json!(0);
        deployment["versions"][1]["weight_applied"] = json!(0);
        deployment["versions"][1]["phase"] = json!("unhealthy");
        deployment["versions"][1]["unused_since"] = json!("2026-11-22T13:29:05Z");
    });
    assert_snapshot!(bare(&eyes(&status, &now())), @r"
production/api  ✔ 1.2.3 serves
  users at     http://127.0.0.1:8080
  rollout      1.2.3 -> 1.2.4 ✖ came back: 4.1 % of requests failed\u{1b}[2J
  rollback to  1.2.3, warm
├─ 1.2.4  unused   0 %    ✖ unhealthy  1/2 nodes  12 min  needs 1 node
│  ├─ node 3  ✔ ready  127.0.0.1:40002  9 min
│  └─ node 4  ◌ checking  127.0.0.1:40003  9 min, attempt 2
└─ 1.2.3  serving  100 %  ✔ ready      2/2 nodes  12 min
   ├─ node 1  ✔ ready  127.0.0.1:40000  9 min
   └─ node 2  ✔ ready  127.0.0.1:40001  9 min
");
}

#[test]
fn what_is_paused_held_or_empty_says_what_it_waits_for() {
    let headline = |change: fn(&mut serde_json::Value)| {
        let text = bare(&eyes(&status(change), &now()));
        let about = |line: &&str| ["holds", "paused", "next"].iter().any(|word| line.contains(word));
        text.lines().filter(about).map(str::trim).collect::<Vec<_>>().join("\n")
    };
    assert_snapshot!(headline(|deployment| {
        deployment["rollout"]["held"] = json!("the canary got 12 requests, 50 are needed");
        deployment["rollout"]["next"]["due_at"] = json!("2026-11-22T13:30:00Z");
    }), @r"
production/api  ⚠ 1.2.3 -> 1.2.4 holds at step 3 of 7, 5 %
holds        the canary got 12 requests, 50 are needed
next         10 % at 14:30:00 (due)
");
    assert_snapshot!(headline(|deployment| {
        deployment["rollout"]["phase"] = json!("paused");
        deployment["rollout"]["paused_since"] = json!("2026-11-22T13:30:05Z");
        deployment["rollout"]["reason"] = json!("looking");
    }), @r"
production/api  ‖ 1.2.3 -> 1.2.4 is paused at step 3 of 7, 5 %
paused       for 2 min: looking
next         10 % 12 min after it is resumed
");
    assert_eq!(lines(&declared()), format!("api\t-\tno stack{}\n", "\t-".repeat(10)), "a row for what runs nowhere");
    let remains = |paused: bool| {
        let text = bare(&eyes(
            &status(|deployment| {
                let rollout = &mut deployment["rollout"];
                rollout["held"] = json!("the source does not answer");
                rollout["expected_end_at"] = serde_json::Value::Null;
                rollout["remaining_ms"] = json!(240_000);
                if paused {
                    rollout["phase"] = json!("paused");
                    rollout["paused_since"] = json!("2026-11-22T13:30:05Z");
                }
            }),
            &now(),
        ));
        text.lines().find(|line| line.contains("of steps remain")).map(|line| line.trim().to_owned())
    };
    assert_eq!(remains(false).as_deref(), Some("ends         4 min of steps remain once it goes on"));
    assert_eq!(remains(true).as_deref(), Some("ends         4 min of steps remain once it is resumed"));
    assert_snapshot!(bare(&eyes(&declared(), &now())), @"api  release 1.2.4 runs nowhere; `ionledger new api 1.2.4`");
}

#[test]
fn a_clock_that_jumped_is_named_first_and_is_why_a_rollout_is_held() {
    let hour = jiff::SignedDuration::from_hours(1);
    let mut set_back = status(|_| {});
    set_back.name_clock(&ClockTrouble { jumped: Some(-hour), behind: Some(hour) });
    let text = bare(&eyes(&set_back, &now()));
    let about = |line: &&str| ["clock", "holds"].iter().any(|word| line.contains(word));
    assert_snapshot!(text.lines().filter(about).map(str::trim).collect::<Vec<_>>().join("\n"), @r"
⚠ this machine's clock was set back by 1h: the ledger's time does not advance for 1h; set the clock right; if it is already right, start ionledger again
production/api  ⚠ 1.2.3 -> 1.2.4 holds at step 3 of 7, 5 %
holds        this machine's clock is behind the ledger's time, which does not advance; it goes on once the clock has caught up or is set right
");
}

#[test]
fn a_rollback_that_waits_for_its_target_is_not_shown_as_done() {
    let status = status(|deployment| {
        deployment["rollout"] = serde_json::Value::Null;
        deployment["rolling_back_to"] = json!("1.2.2");
        deployment["holds"] = json!([{"cause": "rollback", "reason": "1.2.3 was rolled back", "versions": ["1.2.3"],
            "since": "2026-11-22T13:30:00Z"}]);
    });
    let said = "rolls back to 1.2.2 as soon as its stack is ready";
    assert!(bare(&eyes(&status, &now())).lines().next().unwrap().contains(said));
    assert!(bare(&crate::render::fleet::eyes(&status, &now(), 120)).contains(said), "also in the fleet, over its hold");
}

#[test]
fn a_rollout_that_waits_says_for_what_and_what_helps() {
    let status = status(|deployment| {
        deployment["waiting"] = json!({"version": "1.2.5", "stack": "01900000-0000-7000-8000-000000000003",
            "asked_at": "2026-11-22T13:30:00Z", "plan": {"steps": [10_000], "duration_ms": 0}, "waits_for": [
                {"why": "1.2.3 serves and none of its nodes passes its check", "next": "ionledger traffic api 1.2.5 100"},
                {"why": "its stack is starting, 0 of 2 nodes ready"}]});
    });
    let text = bare(&eyes(&status, &now()));
    let waits: Vec<&str> = text.lines().skip_while(|line| !line.contains("waits")).take(2).map(str::trim).collect();
    assert_snapshot!(waits.join("\n"), @r"
waits        1.2.5 is to be rolled out: 1.2.3 serves and none of its nodes passes its check; `ionledger traffic api 1.2.5 100`
its stack is starting, 0 of 2 nodes ready
");
}

#[test]
fn the_reason_of_a_rollback_is_said_once_though_a_hold_and_a_mark_follow_from_it() {
    let status = status(|deployment| {
        let rollout = &mut deployment["rollout"];
        (rollout["phase"], rollout["live"], rollout["reason"]) =
            (json!("came_back"), json!(false), json!("checkout fails"));
        rollout["verdict"] = json!(null);
        deployment["holds"] = json!([{"cause": "rollback", "reason": "1.2.4 was rolled back: checkout fails",
            "since": "2026-11-22T13:30:05Z"}]);
        deployment["versions"][1]["rejected"] = json!({"why": "is rejected since a rollback at 13:30 (checkout fails)", "needs_again": true,
                "at": "2026-11-22T13:30:05Z"});
        deployment["waiting"] = json!({"version": "1.2.5", "stack": "01900000-0000-7000-8000-000000000003",
            "asked_at": "2026-11-22T13:30:00Z", "plan": {"steps": [10_000], "duration_ms": 0}, "waits_for": [
                {"kind": "hold", "next": "ionledger hold api --lift",
                 "why": "the deployment is on hold since 13:30 (1.2.4 was rolled back: checkout fails)"}]});
    });
    let text = bare(&eyes(&status, &now()));
    assert_eq!(text.matches("checkout fails").count(), 1, "{text}");
    assert_eq!(text.matches("--lift").count(), 1, "{text}");
    assert!(text.contains("waits        1.2.5 is to be rolled out: the deployment is on hold\n"), "{text}");
    let mut without = status;
    without.services[0].deployments[0].rollout = None;
    let text = bare(&eyes(&without, &now()));
    assert_eq!(text.matches("checkout fails").count(), 1, "{text}");
}

#[test]
fn what_nobody_gave_a_reason_for_has_none() {
    let text = bare(&eyes(
        &status(|deployment| {
            (deployment["rollout"]["phase"], deployment["rollout"]["live"]) = (json!("aborted"), json!(false));
            deployment["rollout"]["reason"] = json!("asked for");
        }),
        &now(),
    ));
    assert!(text.contains("✖ aborted\n") && !text.contains("asked for"), "{text}");
}

#[test]
fn a_pipe_gets_a_line_a_version_with_what_holds_and_waits() {
    assert_snapshot!(lines(&status(|_| {})).replace('\t', "|"), @r"
production/api|1.2.3|baseline|95|95|ready|2|2|2026-11-22T13:20:00Z|01900000-0000-7000-8000-000000000001|-|-|-
production/api|1.2.4|canary|5|2|ready|1|2|2026-11-22T13:20:00Z|01900000-0000-7000-8000-000000000002|-|-|-
");
    let held = lines(&status(|deployment| {
        deployment["holds"] =
            json!([{"cause": "asked", "reason": "no one is on call", "since": "2026-11-22T13:30:05Z"}]);
        deployment["rolling_back_to"] = json!("1.2.2");
        deployment["waiting"] = json!({"version": "1.2.5", "stack": "01900000-0000-7000-8000-000000000003",
            "asked_at": "2026-11-22T13:30:00Z", "plan": {"steps": [10_000], "duration_ms": 0}, "waits_for": []});
    }));
    assert!(held.lines().all(|line| line.ends_with("\tno one is on call\t1.2.5\t1.2.2")), "{held}");
}

#[test]
fn users_who_were_seen_to_be_on_a_version_without_a_node_get_failures() {
    let dead = status(|deployment| {
        deployment["rollout"] = json!(null);
        deployment["seen"] =
            json!({"weights": {deployment["versions"][0]["stack"].as_str().unwrap(): 10_000}, "trouble": null});
        let nodes = deployment["versions"][0]["nodes"].as_array_mut().unwrap();
        nodes.iter_mut().for_each(|node| node["runs"] = json!(false));
    });
    let dead = bare(&eyes(&dead, &now()));
    let name = dead.lines().next().unwrap();
    assert!(name.contains("✖ users get failures: the proxy serves ") && name.ends_with(" runs"), "{dead}");
}

#[test]
fn a_rollout_that_was_rolled_back_without_the_ledger_comes_back_and_has_no_next_step() {
    let mut stands = status(|deployment| deployment["seen"] = json!({"weights": {}, "trouble": null}));
    let old = bare(&eyes(&stands, &now()));
    assert!(old.contains("stands still") && old.contains("  next "), "{old}");
    let unrecorded = json!([{
        "deployment": "production/api", "version": "1.2.3", "command": "0193a6f0-0c41-7b66-b1d2-9e4a6c8f7d03",
        "actor": {"kind": "person", "name": "ana", "proof": "unix-peer uid=1000"}, "reason": null,
        "at": "2026-11-22T13:31:00Z", "file": null, "moved": true}]);
    let mut driven = status(|_| {});
    for status in [&mut stands, &mut driven] {
        status.name_unrecorded(serde_json::from_value(unrecorded.clone()).unwrap());
    }
    let about = |text: String| {
        let line = |line: &&str| {
            ["production/api  ", "next", "ends", "holds"].iter().any(|word| line.trim().starts_with(word))
        };
        text.lines().filter(line).map(str::to_owned).collect::<Vec<_>>().join("\n")
    };
    assert_snapshot!(about(bare(&eyes(&stands, &now()))), @"production/api  ✖ serves nobody; 1.2.3 -> 1.2.4 comes back: a rollback sent all traffic to 1.2.3, and the ledger does not have it yet");
    assert_snapshot!(about(bare(&eyes(&driven, &now()))), @"production/api  ⚠ 1.2.3 -> 1.2.4 comes back: a rollback sent all traffic to 1.2.3, and the ledger does not have it yet");
    let fleet = bare(&crate::render::fleet::eyes(&driven, &now(), 200));
    assert!(fleet.contains("comes back: a rollback sent") && !fleet.contains("10 %"), "{fleet}");
    let named = |mut status: StatusAnswer, key: &str, value: serde_json::Value| {
        let mut unrecorded = unrecorded.clone();
        unrecorded[0][key] = value;
        status.name_unrecorded(serde_json::from_value(unrecorded).unwrap());
        bare(&eyes(&status, &now()))
    };
    let later = status(|deployment| deployment["rollout"]["started_at"] = json!("2026-11-22T13:32:00Z"));
    assert!(named(later, "moved", json!(true)).contains("  next "), "a rollout that began after it goes on");
    let overtaken = named(status(|_| {}), "overtaken", json!("its rollout was let go on since"));
    assert!(overtaken.contains("  next ") && !overtaken.contains("comes back"), "{overtaken}");
    let unmoved = named(status(|_| {}), "moved", json!(false));
    assert!(unmoved.contains("is to come back: a rollback to 1.2.3 was asked for, and users are not"), "{unmoved}");
    assert!(!unmoved.contains("sent all traffic"), "{unmoved}");
}

#[test]
fn weights_that_the_router_does_not_take_are_said_first() {
    let set_at = |at: &str| {
        status(|deployment| {
            deployment["rollout"] = json!(null);
            deployment["weights_set_at"] = json!(at);
            for (n, (set, applied)) in [(10_000, 0), (0, 10_000)].into_iter().enumerate() {
                deployment["versions"][n]["weight_set"] = json!(set);
                deployment["versions"][n]["weight_applied"] = json!(applied);
            }
        })
    };
    let first = |status: &StatusAnswer| bare(&eyes(status, &now())).lines().next().unwrap().to_owned();
    assert_eq!(
        first(&set_at("2026-11-22T13:31:00Z")),
        "production/api  ✖ 1.2.3 is set, and the router serves 1.2.4 100 %"
    );
    assert!(first(&set_at("2026-11-22T13:32:04Z")).contains("◌ 1.2.3 is set"), "the weights were set a second ago");
}

#[test]
fn a_copy_says_that_it_is_one() {
    let mut copy = status(|_| {});
    copy.copy_of = Some("/data/ionledger".to_owned());
    let first = |text: String| text.lines().next().unwrap().to_owned();
    let said =
        "⚠ a read-only copy of /data/ionledger: this is how it stood when it was copied, and no process runs from it";
    assert_eq!(first(bare(&eyes(&copy, &now()))), said);
    assert_eq!(first(bare(&crate::render::fleet::eyes(&copy, &now(), 200))), said);
}

#[test]
fn a_router_that_does_not_answer_is_said_first_and_in_place_of_what_serves() {
    let told = |next: Option<&str>| {
        let mut status = status(|deployment| {
            deployment["rollout"] = json!(null);
            deployment["versions"].as_array_mut().unwrap().truncate(1);
            deployment["versions"][0]["weight_set"] = json!(10_000);
            deployment["versions"][0]["weight_applied"] = json!(10_000);
        });
        let silent = json!({"since": "2026-11-22T13:31:50Z", "why": "nothing within 1s", "next": next});
        status.name_silent_router(serde_json::from_value(silent).unwrap());
        let fleet = bare(&super::super::fleet::eyes(&status, &now(), 200));
        let first = bare(&eyes(&status, &now())).lines().take(2).collect::<Vec<_>>().join("\n");
        format!("{first}\n{}", fleet.lines().find(|line| line.contains("production/api")).unwrap())
    };
    assert_snapshot!(told(Some("kill -9 4711")), @r"
✖ the router has not answered since 14:31:50 (nothing within 1s): users may wait or get errors; `kill -9 4711` ends its process, and a running `ionledger up` starts another within seconds
production/api  ✖ the router has not answered since 14:31:50; it last served 1.2.3 100 %
✖ production/api  the router has not answered since 14:31:50; it last served 1.2.3 100 %
");
    assert!(told(None).contains("users may wait or get errors; `ionledger doctor` says what helps"));
}

#[test]
fn what_nobody_knows_of_the_router_is_not_shown_as_nothing() {
    let mut status = status(|deployment| {
        deployment["rollout"] = json!(null);
        deployment["versions"][0]["weight_set"] = json!(10_000);
        deployment["versions"][0]["weight_applied"] = json!(0);
        deployment["applied_unknown"] = json!(true);
    });
    let told = bare(&eyes(&status, &now()));
    assert!(told.contains("100 % (now unknown)") && !told.contains("now 0 %"), "{told}");
    let applied = |status: &StatusAnswer| {
        let lines = lines(status);
        lines.lines().next().and_then(|line| line.split('\t').nth(4)).map(str::to_owned)
    };
    assert_eq!(applied(&status).as_deref(), Some("-"));
    status.services[0].deployments[0].applied_unknown = false;
    assert_eq!(applied(&status).as_deref(), Some("0"));
}

#[test]
fn of_what_a_rollback_without_the_ledger_moved_the_ledger_does_not_know_what_is_served() {
    let mut status = status(|_| {});
    let unrecorded = json!([{"deployment": "production/api", "version": "1.2.3", "command": "01900000-0000-7000-8000-000000000009",
        "actor": {"kind": "person", "name": "ana", "proof": "unix-peer uid=1000"}, "reason": null,
        "at": "2026-11-22T13:31:00Z", "file": null}]);
    status.name_unrecorded(serde_json::from_value(unrecorded).unwrap());
    assert!(bare(&eyes(&status, &now())).contains("95 % (now unknown)"));
}
