//! Answers to render in tests: a rollout in the middle, and what came of it.

use jiff::Zoned;
use replay::answer::{HistoryAnswer, Production, StatusAnswer, Verified, WhoShipped};
use serde_json::{Value, json};

/// When the examples are looked at.
pub(super) fn now() -> Zoned {
    "2026-11-22T14:32:05+01:00[Europe/Berlin]".parse().unwrap()
}

/// Returns text without its colours.
pub(super) fn bare(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

const OLD: &str = "01900000-0000-7000-8000-000000000001";
const NEW: &str = "01900000-0000-7000-8000-000000000002";
const HASH: &str = "9a1c5b3e7d2f4a6b8c0d1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a6b7c8d9e0f1a2b";

fn node(slot: u16, phase: &str) -> Value {
    json!({"slot": slot, "effect": NEW, "attempt": u32::from(phase != "ready"), "phase": phase,
        "address": format!("127.0.0.1:{}", 40_000 + slot), "instance": "pid 1", "started_at": "2026-11-22T13:23:00Z"})
}

fn version(name: &str, stack: &str, phase: &str, weights: (u16, u16), nodes: &[Value]) -> Value {
    let ready = nodes.iter().filter(|node| node["phase"] == "ready").count();
    json!({"version": name, "stack": stack, "phase": phase, "reason": null, "last_failure": null,
        "nodes_ready": ready, "nodes_wanted": 2, "nodes_ready_min": 1, "weight_set": weights.0,
        "weight_applied": weights.1, "requested_at": "2026-11-22T13:20:00Z", "unused_since": null,
        "collecting_since": null, "rolls_when_ready": false, "nodes": nodes})
}

fn rollout() -> Value {
    json!({"rollout": NEW, "baseline": "1.2.3", "baseline_stack": OLD, "canary": "1.2.4", "canary_stack": NEW,
        "phase": "running", "live": true, "reason": null, "steps_taken": 3, "steps": 7, "weight": 500,
        "plan": {"steps": [100, 200, 500, 1000, 2500, 5000, 10000], "duration_ms": 86_400_000},
        "started_at": "2026-11-22T13:25:00Z", "step_taken_at": "2026-11-22T13:30:00Z", "paused_since": null,
        "paused_ms": 0, "held": null,
        "next": {"number": 4, "weight": 1000, "due_at": "2026-11-22T13:42:05Z", "then_ms": 43_200_000},
        "expected_end_at": "2026-11-23T01:42:05Z",
        "verdict": {"step": 2, "verdict": "not_worse", "reason": "0.41 % is not above 0.32 % by more than 1 %",
            "baseline": {"requests": 1204, "errors": 4}, "canary": {"requests": 61, "errors": 0}}})
}

fn service(deployments: Value) -> Value {
    json!({"service": "api", "owner": "team-checkout", "description": "", "releases": 2, "latest_release": "1.2.4",
        "deployments": deployments})
}

fn deployment() -> Value {
    json!({"deployment": "production/api", "environment": "production", "listen": "127.0.0.1:8080", "versions": [
            version("1.2.3", OLD, "ready", (9500, 9500), &[node(0, "ready"), node(1, "ready")]),
            version("1.2.4", NEW, "ready", (500, 200), &[node(2, "ready"), node(3, "launched")]),
        ],
        "weights_set_at": "2026-11-22T13:30:00Z", "weights_applied": false, "rollout": rollout(),
        "rollback_target": {"version": "1.2.3", "stack": OLD, "warm": true, "passed_over": []},
        "fence": 0, "drift": null, "retired_at": null})
}

/// A rollout at its third step, with a `change` made to its deployment.
pub(crate) fn status(change: impl FnOnce(&mut Value)) -> StatusAnswer {
    let mut deployment = deployment();
    change(&mut deployment);
    serde_json::from_value(json!({"schema_version": 1, "at": at(), "services": [service(json!([deployment]))]}))
        .unwrap()
}

/// A service that was only declared.
pub(super) fn declared() -> StatusAnswer {
    let service = service(json!([]));
    serde_json::from_value(json!({"schema_version": 1, "at": at(), "services": [service]})).unwrap()
}

fn at() -> Value {
    json!({"offset": 48211, "time": "2026-11-22T13:31:00Z"})
}

fn origin(kind: &str, name: &str, behind: Option<Value>) -> Value {
    json!({"commit": NEW, "offset": 31, "time": "2026-11-22T13:25:00Z", "effective_at": null, "command": OLD,
        "actor": {"kind": kind, "name": name, "proof": "lease"}, "on_behalf_of": behind, "reason": null})
}

fn ana() -> Value {
    json!({"actor": {"kind": "person", "name": "ana", "proof": "unix-peer uid=1000"}, "commit": OLD, "offset": 30,
        "time": "2026-11-22T13:25:00Z", "reason": "checkout\nis slow"})
}

/// Two versions that share the traffic, the canary put there by a worker for a person.
pub(super) fn who_shipped() -> WhoShipped {
    let release = json!({"artifact": {"sha256": HASH, "name": "api", "size_bytes": 7}, "recorded": origin("pipeline", "ci", None),
        "source": {"commit": "4f2a91c", "run_url": "https://ci/8812"}});
    serde_json::from_value(json!({"schema_version": 1, "deployment": "production/api", "at": at(), "known": true,
        "shipped": [
            {"version": "1.2.3", "stack": OLD, "weight_set": 9500, "weight_applied": 9500,
                "since": origin("person", "bob", None), "weight_since": origin("worker", "shifter", Some(ana())), "release": null},
            {"version": "1.2.4", "stack": NEW, "weight_set": 500, "weight_applied": 200,
                "since": origin("worker", "shifter", Some(ana())),
                "weight_since": origin("worker", "shifter", Some(ana())), "release": release},
        ],
        "applied": false, "applied_by": null, "retired_by": null}))
    .unwrap()
}

/// A commit with two events, one that does not count, and a record that is none.
pub(super) fn history() -> HistoryAnswer {
    let event = |kind: &str, summary: &str| json!({"stream": "deployment/production/api", "type": kind, "summary": summary, "data": {}});
    let entry = |offset: u64, commit: Value, actor: Value, more: Value, events: Value| {
        let mut entry = json!({"offset": offset, "time": "2026-11-22T13:30:00Z", "written_at": null, "effective_at": null,
            "commit": commit, "command": commit, "actor": actor, "on_behalf_of": null, "reason": null, "void": null,
            "events": events});
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry
    };
    let shifter = json!({"kind": "worker", "name": "traffic-shifter/41@2026-11-22T13:00:00Z", "proof": "lease"});
    let person = json!({"kind": "person", "name": "bob", "proof": "unix-peer uid=1001"});
    serde_json::from_value(
        json!({"schema_version": 1, "service": "api", "environment": null, "more": true, "entries": [
            entry(33, Value::Null, Value::Null, json!({"void": "malformed"}), json!([])),
            entry(32, json!(NEW), shifter, json!({"on_behalf_of": ana()}), json!([
                event("rollout.step_taken", "1.2.4 got 5 % (step 3)"),
                event("traffic.weights_set", "traffic was set to 1.2.3 95 %, 1.2.4 5 % (step 3)"),
            ])),
            entry(31, json!(OLD), person, json!({"void": "stale", "reason": "hotfix"}), json!([
                event("traffic.weights_set", "traffic was set to 1.2.4 100 %"),
            ])),
        ]}),
    )
    .unwrap()
}

/// Production with one service in the middle of its rollout.
pub(super) fn production() -> Production {
    let mut service = service(json!([deployment()]));
    service.as_object_mut().unwrap().extend(
        json!({"policy": null, "run": null, "capacity": null, "recorded": [
            {"version": "1.2.3", "artifact": {"sha256": HASH, "name": "api", "size_bytes": 7}, "source": {},
                "at": "2026-11-22T13:00:00Z", "commit": OLD},
        ]})
        .as_object()
        .unwrap()
        .clone(),
    );
    serde_json::from_value(json!({"schema_version": 1, "at": at(), "ledger": OLD, "services": [service],
        "leases": {"provisioner": {"holder": "41@host", "since": "2026-11-22T13:00:00Z"}, "collector": {"holder": null, "since": null}}}))
    .unwrap()
}

/// A ledger that holds, but for what `change` makes of it.
pub(super) fn verified(change: impl FnOnce(&mut Value)) -> Verified {
    let mut verified = json!({"schema_version": 1, "ok": true, "ledger": OLD, "records": 48212, "counted": 48210,
        "voids": {"stale": 1, "duplicate": 1}, "events": 51044, "streams": 12, "read_only": {}, "root": HASH,
        "time": "2026-11-22T13:31:00Z", "bad": null,
        "projection": {"cache": "agrees", "records": 48212, "root": HASH}});
    change(&mut verified);
    serde_json::from_value(verified).unwrap()
}
