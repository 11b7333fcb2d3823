//! The judge outside a rollout: anyone's own counts through the command line.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};
use support::binary::{Run, ionledger, run, say};
use support::canary::{self, Canary};

/// Runs `ionledger judge -` on these lines.
fn judged(lines: &str, flags: &[&str]) -> Run {
    let mut child = ionledger()
        .args(["judge", "-"])
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = lines.as_bytes().to_vec();
    // It may have its verdict, and end, before it has read everything.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&bytes)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn answer(run: &Run) -> Value {
    serde_json::from_str(run.stdout.lines().last().unwrap_or_default()).unwrap_or_else(|_| panic!("{run:?}"))
}

/// A canary's counts as lines, with the judge that its known verdict is by.
fn lines_of(canary: &Canary) -> String {
    let counts = canary.counts();
    let name = if canary.is_latency { "p99" } else { "errors" };
    let (requests, hits) = counts.history;
    let mut metric =
        json!({"name": name, "accept_ratio": counts.accept_ratio, "history": {"requests": requests, "hits": hits}});
    if !canary.is_latency {
        // Written out for one of the two, defaulted for the other.
        let more = json!({"weight": 1.0, "r": 1.2, "d": 0.0003, "odds": [1.25, 1.6, 2.2, 4, 10, 40, 250, 100_000]});
        metric.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    }
    let mut lines = vec![json!({"plan_seconds": 86_400, "metrics": [metric]})];
    for (baseline, canary_row) in counts.rows {
        let mut line = json!({"seconds": 1.0, "nu": canary.nu()});
        line[name] = json!({"baseline": [baseline.0, baseline.1], "canary": [canary_row.0, canary_row.1]});
        lines.push(line);
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn every_known_canary_gets_its_verdict_at_its_row_with_its_evidence() {
    for canary in canary::all() {
        let run = judged(&lines_of(&canary), &[]);
        let code = match canary.verdict.as_str() {
            "ACCEPT" => 0,
            "ROLLBACK" => 5,
            _ => 6,
        };
        assert_eq!((run.code, run.stderr.as_str()), (code, ""), "{}: {run:?}", canary.name);
        let told = answer(&run);
        assert_eq!(told["verdict"], canary.verdict.as_str(), "{}", canary.name);
        assert_eq!(told["row"], json!(canary.row), "{}", canary.name);
        assert_eq!(told["canary"], json!({"requests": canary.canary.0, "hits": canary.canary.1}), "{}", canary.name);
        for ln_total in [&told["ln_total"], &told["metrics"][0]["ln_total"]] {
            let off = (ln_total.as_f64().unwrap() - canary.ln_total).abs();
            assert!(off < 1e-4, "{}: {ln_total} instead of {}", canary.name, canary.ln_total);
        }
    }
}

#[test]
fn a_file_and_a_pipe_are_judged_alike_and_a_trace_has_a_line_for_every_tick() {
    let folder = tempfile::tempdir().unwrap();
    let canary = canary::all().into_iter().find(|canary| canary.name == "F3").unwrap();
    let (lines, file) = (lines_of(&canary), folder.path().join("counts.ndjson"));
    std::fs::write(&file, lines.replace('\n', "\r\n\r\n")).unwrap();
    let of_pipe = judged(&lines, &[]);
    let of_file = run(folder.path(), &["judge", file.to_str().unwrap()]);
    assert_eq!((of_pipe.code, &of_pipe.stdout), (of_file.code, &of_file.stdout));
    let reason = answer(&of_pipe)["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("canary: 6 of 500 requests failed, baseline "), "{reason}");
    assert!(reason.ends_with("; tolerance 0.093 %; evidence 218 to 1, 100 needed"), "{reason}");

    let traced = judged(&lines, &["--trace"]);
    let rows: Vec<Value> = traced.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 6, "{traced:?}");
    let verdicts: Vec<&str> = rows.iter().map(|row| row["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["NONE", "NONE", "NONE", "NONE", "ROLLBACK", "ROLLBACK"]);
    assert_eq!((&rows[4]["ln_total"], &rows[4]["row"]), (&rows[5]["ln_total"], &json!(5)));
    assert_eq!(rows[5], answer(&of_pipe));
}

#[test]
fn what_is_left_out_is_as_a_service_without_a_policy_has_it() {
    let ticks = "{\"seconds\":1,\"nu\":0.1,\"errors\":{\"baseline\":[1000,1],\"canary\":[100,2]}}\n".repeat(40);
    let short = judged(&format!("{{\"plan_seconds\":3600,\"metrics\":[{{\"name\":\"errors\"}}]}}\n{ticks}"), &[]);
    let written = r#"{"plan_seconds":3600,"alpha":0.01,"beta":0.05,"half_life_seconds":600,"burst_cap":false,"metrics":[{"name":"errors","weight":1,"r":1.2,"d":0.0003,"odds":[1.25,1.6,2.2,4,10,40,250,100000]}]}"#;
    let long = judged(&format!("{written}\n{ticks}"), &[]);
    assert_eq!((short.code, &short.stdout), (5, &long.stdout));
    // The verdict ends the reading: what comes after is nobody's business.
    let cut = judged(&format!("{written}\n{ticks}no json\n"), &[]);
    assert_eq!(cut.stdout, long.stdout);
}

#[test]
fn two_metrics_share_the_capital_and_one_that_is_not_there_had_no_requests() {
    let header = r#"{"plan_seconds":86400,"metrics":[{"name":"errors","history":{"requests":6000,"hits":6}},{"name":"p99","history":{"requests":6000,"hits":60}}]}"#;
    let with = r#"{"seconds":1,"nu":0.1,"errors":{"baseline":[1000,1],"canary":[100,0]},"p99":{"baseline":[1000,10],"canary":[100,1]}}"#;
    let without = r#"{"seconds":1,"nu":0.1,"errors":{"baseline":[1000,1],"canary":[100,0]}}"#;
    let empty = r#"{"seconds":1,"nu":0.1,"errors":{"canary":[0,0]},"p99":{"baseline":[0,0],"canary":[0,0]}}"#;
    let told = answer(&judged(&format!("{header}\n{with}\n{without}\n{empty}\n"), &[]));
    assert_eq!((&told["verdict"], &told["row"], &told["rows"]), (&json!("NONE"), &json!(null), &json!(3)));
    assert_eq!(told["metrics"][0]["canary"], json!({"requests": 200, "hits": 0}));
    assert_eq!(told["metrics"][1]["canary"], json!({"requests": 100, "hits": 1}));
    assert_eq!(told["canary"], json!({"requests": 200, "hits": 1}));
    let weights: Vec<f64> = (0..2).map(|i| told["metrics"][i]["weight"].as_f64().unwrap()).collect();
    assert!((weights[0] - 0.625).abs() + (weights[1] - 0.375).abs() < 1e-12, "{weights:?}");
    let sum: f64 = (0..2).map(|i| weights[i] * told["metrics"][i]["ln_total"].as_f64().unwrap().exp()).sum();
    assert!((sum.ln() - told["ln_total"].as_f64().unwrap()).abs() < 1e-12);

    // Worse by one of them is worse; accepted by one of them is not accepted.
    let slow = r#"{"seconds":1,"nu":0.1,"errors":{"baseline":[1000,1],"canary":[100,0]},"p99":{"baseline":[1000,10],"canary":[100,9]}}"#;
    let told = answer(&judged(&format!("{header}\n{}", format!("{slow}\n").repeat(20)), &[]));
    assert_eq!(told["verdict"], "ROLLBACK");
    let fast = slow.replace("[100,9]", "[100,0]");
    let told = answer(&judged(&format!("{header}\n{}", format!("{fast}\n").repeat(30)), &[]));
    assert_eq!((&told["verdict"], &told["metrics"][1]["accepted"]), (&json!("NONE"), &json!(true)));
}

#[test]
fn extreme_counts_are_judged() {
    let header = r#"{"plan_seconds":60,"half_life_seconds":5,"burst_cap":true,"metrics":[{"name":"errors","accept_ratio":0,"history":{"requests":0,"hits":0}}]}"#;
    for tick in [
        r#"{"seconds":0,"nu":0,"errors":{"baseline":[0,0],"canary":[0,0]}}"#,
        r#"{"seconds":1e9,"nu":1e300,"errors":{"baseline":[1,1],"canary":[18446744073709551615,18446744073709551615]}}"#,
        r#"{"seconds":1,"nu":1,"errors":{"baseline":[18446744073709551615,18446744073709551615],"canary":[18446744073709551615,0]}}"#,
        r#"{"seconds":1,"errors":{"baseline":[0,0],"canary":[5,5]}}"#,
        r#"{"seconds":1}"#,
    ] {
        let run = judged(&format!("{header}\n{}", format!("{tick}\n").repeat(20)), &["--trace"]);
        assert!([0, 5, 6].contains(&run.code), "{tick}: {run:?}");
        assert_eq!(run.stderr, "", "{tick}");
        assert!(answer(&run)["ln_total"].is_f64(), "{tick}: {run:?}");
    }
}

#[test]
fn under_the_burst_cap_a_second_of_failures_is_a_few_failures() {
    let header = r#"{"plan_seconds":86400,"burst_cap":true,"metrics":[{"name":"errors","history":{"requests":600000,"hits":600}}]}"#;
    let burst = r#"{"seconds":1,"nu":0.1,"errors":{"baseline":[1000,1],"canary":[100,50]}}"#;
    let once = judged(&format!("{header}\n{burst}\n"), &[]);
    assert_eq!(once.code, 6, "{once:?}");
    let always = answer(&judged(&format!("{header}\n{}", format!("{burst}\n").repeat(20)), &[]));
    assert!(always["row"].as_u64().is_some_and(|row| row <= 4), "{always}");
    assert_eq!(judged(&format!("{}\n{burst}\n", header.replace("true", "false")), &[]).code, 5);
}

#[test]
fn a_line_that_cannot_be_understood_is_named_with_the_reason() {
    let header = r#"{"plan_seconds":86400,"metrics":[{"name":"errors"}]}"#;
    let tick = r#"{"seconds":1,"nu":0.1,"errors":{"baseline":[10,0],"canary":[1,0]}}"#;
    for (lines, expected) in [
        ("", "stdin:1: it is empty, the first line must be the plan"),
        ("\n \n", "the first line must be the plan"),
        ("plan\n", "stdin:1: column 1: this is not valid JSON"),
        ("{\"metrics\":[]}\n", "stdin:1: column 14: missing field `plan_seconds`"),
        ("{\"plan_seconds\":60,\"metrics\":[]}\n", "stdin:1: metrics: there must be 1 to 64"),
        ("{\"plan_seconds\":0,\"metrics\":[{\"name\":\"errors\"}]}\n", "stdin:1: plan_seconds: it must be above 0"),
        (
            "{\"plan_seconds\":60,\"alfa\":0.1,\"metrics\":[{\"name\":\"errors\"}]}\n",
            "stdin:1: column 25: unknown field `alfa`",
        ),
        ("{\"plan_seconds\":60,\"metrics\":[{\"name\":\"nu\"}]}\n", "stdin:1: no metric can be called `nu`"),
        (
            "{\"plan_seconds\":60,\"metrics\":[{\"name\":\"errors\",\"weight\":1.5}]}\n",
            "stdin:1: metric errors: weight must be above 0 and at most 1",
        ),
        (
            "{\"plan_seconds\":60,\"metrics\":[{\"name\":\"errors\",\"history\":{\"requests\":1,\"hits\":2}}]}\n",
            "stdin:1: metric errors: history must not have more hits than requests",
        ),
        (&format!("{header}\n{tick}\n{{\"seconds\":1,"), "stdin:3: column"),
        (&format!("{header}\n{tick}\n[1,2]\n"), "stdin:3: column"),
        (&format!("{header}\n\n{{\"nu\":0.1}}\n"), "stdin:3: column 10: missing field `seconds`"),
        (&format!("{header}\n{{\"seconds\":-1,\"nu\":0.1}}\n"), "stdin:2: seconds must be from 0 to 1e9"),
        (&format!("{header}\n{{\"seconds\":1,\"nu\":-0.1}}\n"), "stdin:2: nu must be a number of at least 0"),
        (
            &format!("{header}\n{}\n", tick.replace("[1,0]", "[1,2]")),
            "stdin:2: errors: canary has 2 hits of 1 requests",
        ),
        (&format!("{header}\n{}\n", tick.replace("[1,0]", "[-1,0]")), "stdin:2: column"),
        (&format!("{header}\n{}\n", tick.replace("[1,0]", "[1.5,0]")), "stdin:2: column"),
        (&format!("{header}\n{}\n", tick.replace("[1,0]", "[1]")), "stdin:2: column"),
        (
            &format!("{header}\n{}\n", tick.replace("errors", "erors")),
            "stdin:2: `erors` is not a metric of the plan, which has errors",
        ),
    ] {
        let run = judged(lines, &[]);
        let line = run.mistake(2);
        assert!(line.contains(expected), "{lines}: {line}");
        assert!(line.ends_with("; see `ionledger judge --help`"), "{line}");
    }
    let nowhere = tempfile::tempdir().unwrap();
    let missing = say(nowhere.path(), "judge missing.ndjson");
    assert!(missing.mistake(1).starts_with("cannot read missing.ndjson: "), "{missing:?}");
    std::fs::write(nowhere.path().join("bytes"), [0xff, 0xfe, b'\n']).unwrap();
    let bytes = run(nowhere.path(), &["judge", nowhere.path().join("bytes").to_str().unwrap()]);
    assert!(bytes.mistake(2).contains("bytes:1: column 1: "), "{bytes:?}");
    let long = judged(&format!("{header}\n{{\"seconds\":1,\"x\":\"{}\"}}\n", "x".repeat(1 << 20)), &[]);
    assert!(long.mistake(2).starts_with("stdin:2: the line is longer than 1 MiB"), "{long:?}");
}
