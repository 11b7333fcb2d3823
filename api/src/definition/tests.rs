//! What a service's file says, and what is said of a wrong one.

use super::*;
use schemas::policy::RetentionPolicy;
use schemas::policy::{Deadline, JudgementPolicy, Metrics, Prometheus, Queries, Tolerance};
use schemas::run::{Capacity, HttpCheck};

const WHOLE: &str = r#"
name = "api"
owner = "team-checkout"
description = "Takes orders."

[listen]
production = "127.0.0.1:8080"
test = "[::1]:8081"

[run]
args = ["--port={port}", "--verbose"]
start_deadline = "2 minutes"

[run.env]
LOG_LEVEL = "debug"
DB_PASSWORD = { from_env = "API_DB_PASSWORD" }
CERT = { from_file = "/etc/api/cert.pem" }

[check]
path = "/ready"
status = 204
timeout = "500 ms"
interval = "1 s"
healthy_after = 3
latency_max = "200ms"

[capacity]
nodes = 3
min_ready = 2

[rollout]
steps = ["1 %", 2, 12.5, 100]
duration = "2 weeks"
on_release = true
early = "after 30 minutes"

[judgement]
errors_tolerance = "0.25 %"
requests_min = 1_000
errors_ratio = 1.5
4xx_tolerance = 2
4xx_ratio = "2"
p50_tolerance = "5.1 %"
p99_tolerance = "150 %"
weights = { errors = 40, 4xx = "20 %", p50 = 10 }
alpha = 0.5
beta = "2 %"
soak = "10 minutes"
deadline = "hold"
warm_up = "30 s"
burst_cap = false
bad_requests_max = 50

[judgement.prometheus]
address = "https://prometheus.example/shop"
token = { from_env = "PROMETHEUS_TOKEN" }
scrape_interval = "5 s"
requests = "requests_total{app='{service}',version='{version}'}"
errors = """requests_total{app='{service}',
  version='{version}',outcome='failed'}"""
4xx = "refused_total{version='{version}'}"
latency = "request_seconds_bucket{version='{version}'}"

[retention]
serving_max = 3
warm_for = "1 day"
warm_max = 4
drain = "30 s"
"#;

#[test]
fn a_whole_file_says_everything_there_is_to_say() {
    let (name, definition) = parse("api.toml", WHOLE).unwrap();
    assert_eq!(name.as_str(), "api");
    assert_eq!((definition.owner.as_str(), definition.description.as_str()), ("team-checkout", "Takes orders."));
    let listen: Vec<String> = definition.listen.iter().map(|(name, at)| format!("{name} {at}")).collect();
    assert_eq!(listen, ["production 127.0.0.1:8080", "test [::1]:8081"]);
    let run = &definition.run;
    assert_eq!(run.args, ["--port={port}", "--verbose"]);
    assert_eq!(run.env["LOG_LEVEL"], EnvValue::Value("debug".into()));
    assert_eq!(run.env["DB_PASSWORD"], EnvValue::FromEnv("API_DB_PASSWORD".into()));
    assert_eq!(run.env["CERT"], EnvValue::FromFile("/etc/api/cert.pem".into()));
    assert_eq!(run.start_deadline_ms, 120_000);
    let check = HttpCheck {
        path: "/ready".into(),
        status: 204,
        timeout_ms: 500,
        interval_ms: 1_000,
        healthy_after: 3,
        latency_ms_max: Some(200),
    };
    assert_eq!(run.check, check);
    assert_eq!(definition.capacity, Capacity { nodes: 3, min_ready: 2 });
    let steps: Vec<u16> = definition.policy.rollout.steps.iter().map(|step| step.basis_points()).collect();
    assert_eq!(steps, [100, 200, 1_250, 10_000]);
    assert_eq!(definition.policy.rollout.duration_ms, 14 * 86_400_000);
    assert!(definition.policy.rollout.on_release);
    assert_eq!(definition.policy.rollout.early_after_ms, Some(1_800_000));
    let mut queries = Queries::default();
    for (name, text) in [
        ("requests", "requests_total{app='{service}',version='{version}'}"),
        ("errors", "requests_total{app='{service}', version='{version}',outcome='failed'}"),
        ("4xx", "refused_total{version='{version}'}"),
        ("latency", "request_seconds_bucket{version='{version}'}"),
    ] {
        queries.set(name, Some(text.to_owned()));
    }
    let prometheus = Prometheus {
        token: Some(EnvValue::FromEnv("PROMETHEUS_TOKEN".into())),
        scrape_interval_ms: 5_000,
        queries,
        ..Prometheus::at("https://prometheus.example/shop")
    };
    let mut metrics = Metrics::default();
    for (name, weight_percent, tolerance_ppm, ratio_percent) in
        [("errors", 40, 2_500, 150), ("4xx", 20, 20_000, 200), ("p50", 10, 51_000, 120), ("p99", 30, 1_500_000, 120)]
    {
        metrics[name] = Tolerance { weight_percent, tolerance_ppm, ratio_percent };
    }
    let judgement = JudgementPolicy {
        metrics,
        alpha_ppm: 5_000,
        beta_ppm: 20_000,
        requests_min: 1_000,
        soak_ms: 600_000,
        deadline: Deadline::Hold,
        warm_up_ms: 30_000,
        burst_cap: false,
        bad_requests_max: 50,
        prometheus: Some(prometheus),
    };
    assert_eq!(definition.policy.judgement, judgement);
    let retention = RetentionPolicy { serving_max: 3, warm_for_ms: 86_400_000, warm_max: 4, drain_ms: 30_000 };
    assert_eq!(definition.policy.retention, retention);
}

#[test]
fn what_is_left_out_is_the_default() {
    let (_, definition) = parse("api.toml", "name = \"api\"\nowner = \"team\"").unwrap();
    let expected = Definition {
        owner: "team".into(),
        description: String::new(),
        listen: BTreeMap::new(),
        run: RunSpec::default(),
        capacity: Capacity::default(),
        policy: Policy::default(),
    };
    assert_eq!(definition, expected);
}

/// Returns what is said of the whole file after `from` was replaced by `to`.
fn said(from: &str, to: &str) -> String {
    assert!(WHOLE.contains(from), "{from}");
    parse("api.toml", &WHOLE.replacen(from, to, 1)).expect_err(to).to_string()
}

#[test]
fn every_error_is_one_line_with_its_place_and_reason() {
    for (from, to, expected) in [
        ("name = \"api\"", "name = \"a/b\"", "api.toml:2:8: name: `a/b` is not a service name; use 1 to 63"),
        ("name = \"api\"", "", "api.toml:1:1: name: it is missing; name the service"),
        ("\"team-checkout\"", "\" \"", "api.toml:3:9: owner: it is empty"),
        ("\"team-checkout\"", "\"a\\nb\"", "api.toml:3:9: owner: it holds a line break"),
        (
            "\"Takes orders.\"",
            "\"ghp_16C7e42F292c6912E7710c838347Ae178B4a\"",
            "api.toml:4:15: description: it seems to contain a secret",
        ),
        ("\"team-checkout\"", "7", "api.toml:3:9: owner: it is of type integer; write a text in quotes"),
        ("127.0.0.1:8080", "localhost:8080", "api.toml:7:14: listen.production: `localhost:8080` is not an address"),
        ("127.0.0.1:8080", "127.0.0.1:0", "api.toml:7:14: listen.production: port 0 cannot be used"),
        ("[::1]:8081", "127.0.0.1:8080", "api.toml:8:8: listen.test: another environment listens on 127.0.0.1:8080"),
        ("test =", "Test =", "api.toml:8:1: listen.Test: `Test` is not an environment name"),
        ("\"--verbose\"", "7", "api.toml:11:26: run.args: it is of type integer"),
        ("\"--verbose\"", "\"--token=abcdef123456\"", "api.toml:11:8: run.args: argument 2 looks like a secret"),
        ("\"2 minutes\"", "\"2 days\"", "api.toml:12:18: run.start_deadline: the start deadline must be"),
        ("\"2 minutes\"", "120", "api.toml:12:18: run.start_deadline: it is of type integer; write a length of time"),
        ("\"debug\"", "7", "api.toml:15:13: run.env.LOG_LEVEL: it is of type integer"),
        (
            "{ from_env = \"API_DB_PASSWORD\" }",
            "\"hunter2hunter2\"",
            "api.toml:16:15: run.env.DB_PASSWORD: env DB_PASSWORD looks like a secret",
        ),
        ("{ from_env = \"API_DB_PASSWORD\" }", "{}", "api.toml:16:15: run.env.DB_PASSWORD: write a text, `{ from_env"),
        ("from_env", "from_enw", "api.toml:16:17: run.env.DB_PASSWORD.from_enw: unknown key"),
        ("\"/ready\"", "\"ready\"", "api.toml:20:8: check.path: check path `ready` must begin with `/`"),
        ("204", "99", "api.toml:21:10: check.status: check status 99 is not an HTTP status"),
        ("204", "70000", "api.toml:21:10: check.status: 70000 is out of range"),
        ("\"500 ms\"", "\"5 ms\"", "api.toml:22:11: check.timeout: check timeout and interval must be"),
        ("\"500 ms\"", "\"soon\"", "api.toml:22:11: check.timeout: `soon` is not a length of time"),
        (
            "min_ready = 2",
            "min_ready = 4",
            "api.toml:29:13: capacity.min_ready: min_ready is 4; it must be from 1 to nodes (3)",
        ),
        ("nodes = 3", "nodes = 0", "api.toml:28:9: capacity.nodes: nodes is 0"),
        ("[\"1 %\", 2, 12.5, 100]", "[50, 10, 100]", "api.toml:32:9: rollout.steps: steps must rise"),
        ("12.5", "12.345", "api.toml:32:20: rollout.steps: `12.345` is not a weight"),
        ("\"2 weeks\"", "\"2 months\"", "api.toml:33:12: rollout.duration: `2 months`: months and years differ"),
        (
            "on_release = true",
            "on_release = \"yes\"",
            "api.toml:34:14: rollout.on_release: it is of type string; write true or false",
        ),
        ("\"0.25 %\"", "\"101 %\"", "api.toml:38:20: judgement.errors_tolerance: it must be below 90 %"),
        ("\"0.25 %\"", "\"much\"", "api.toml:38:20: judgement.errors_tolerance: `much` is not a percentage"),
        ("1.5", "0.99", "api.toml:38:20: judgement.errors_tolerance: its ratio is 0.99; it must be from 1 to 100"),
        (
            "\"0.25 %\"\nrequests_min = 1_000\nerrors_ratio = 1.5",
            "0\nerrors_ratio = 1.0",
            "api.toml:38:20: judgement.errors_tolerance: it leaves no room between equal and worse",
        ),
        ("\"150 %\"", "\"0.5 %\"", "api.toml:44:17: judgement.p99_tolerance: it must be from 1 %"),
        ("errors = 40", "errors = 90", "api.toml:45:11: judgement.weights: they sum to 150 %"),
        ("errors = 40", "error = 40", "api.toml:45:13: judgement.weights.error: unknown key"),
        ("alpha = 0.5", "alpha = 51", "api.toml:46:9: judgement.alpha: it must be above 0 and at most 50 %"),
        ("\"10 minutes\"", "\"3 weeks\"", "api.toml:1:1: policy judgement.soak: it must be at most the rollout's"),
        ("\"hold\"", "\"pray\"", "api.toml:49:12: judgement.deadline: `pray` is unknown; write `go on` or `hold`"),
        ("\"after 30 minutes\"", "\"soon\"", "api.toml:35:9: rollout.early: `soon` names no time; write `after 30"),
        ("\"after 30 minutes\"", "\"after 1 minute\"", "api.toml:1:1: policy rollout.early: it must be at least the"),
        (
            "\"after 30 minutes\"",
            "\"never\"\ncontrol = 0",
            "api.toml:36:11: rollout.control: it must be above 0 and at most 50 %",
        ),
        ("\"after 30 minutes\"", "\"never\"\ncontrol = \"95 %\"", "api.toml:36:11: rollout.control: it must be above"),
        ("\"after 30 minutes\"", "\"never\"\nbake = 60", "api.toml:36:8: rollout.bake: it is of type integer; write a"),
        (
            "\"after 30 minutes\"",
            "\"never\"\nbake = \"53 weeks\"",
            "api.toml:36:8: rollout.bake: it must be at most 52",
        ),
        (
            "refused_total{version='{version}'}",
            "refused_total{version='{version}'} or vector(0)",
            "api.toml:61:7: judgement.prometheus.4xx: `vector(...)` is a series of its own that never rises; leave it out",
        ),
        (
            "refused_total{version='{version}'}",
            "refused_total{version='{version}'} offset 5m",
            "api.toml:61:7: judgement.prometheus.4xx: `offset` gives what was counted before the rollout; leave it out",
        ),
        (
            "refused_total{version='{version}'}",
            "refused_total{version='${VERSION}'}",
            "api.toml:61:7: judgement.prometheus.4xx: `${VERSION}` was not replaced; write its value",
        ),
        (
            "\"https://prometheus.example/shop\"",
            "\"https://me:hunter2@prometheus.example\"",
            "api.toml:54:1: judgement.prometheus: it contains a user name or a password",
        ),
        (
            "address = \"https://prometheus.example/shop\"",
            "",
            "api.toml:54:1: judgement.prometheus.address: it is missing; write where it listens",
        ),
        (
            "{ from_env = \"PROMETHEUS_TOKEN\" }",
            "\"hunter2\"",
            "api.toml:56:9: judgement.prometheus.token: write `{ from_env = \"NAME\" }`",
        ),
        (
            "refused_total{version='{version}'}",
            "refused_total",
            "api.toml:61:7: judgement.prometheus.4xx: it must tell the versions apart; write `{version}`",
        ),
        ("1_000", "0", "api.toml:39:16: judgement.requests_min: it must be at least 1: no data never promotes"),
        ("serving_max = 3", "serving_max = 1", "api.toml:65:15: retention.serving_max: it must be from 2 to 100"),
        (
            "drain =",
            "dry =",
            "api.toml:68:1: retention.dry: unknown key; known are serving_max, warm_for, warm_max, drain",
        ),
        ("[retention]", "[keeping]", "api.toml:64:2: keeping: unknown key"),
        ("[capacity]\nnodes = 3\nmin_ready = 2", "capacity = 3", "api.toml:27:1: check.capacity: unknown key"),
    ] {
        let said = said(from, to);
        let first = said.lines().next().unwrap();
        assert!(first.starts_with(expected), "{from} -> {to}\n  said: {said}\n  not:  {expected}");
    }
}

#[test]
fn what_is_no_toml_is_named_with_its_place() {
    for (text, place) in [
        ("name = \"api", "api.toml:1:"),
        ("name = \"api\"\nname = \"api\"", "api.toml:2:1: "),
        ("name = \"api\"\n[run\n", "api.toml:2:"),
        ("\u{0}", "api.toml:1:1: "),
    ] {
        let said = parse("api.toml", text).unwrap_err().to_string();
        assert!(said.starts_with(place), "{text:?}: {said}");
        assert!(!said.lines().any(|line| !line.starts_with("api.toml:")), "{said}");
    }
}

#[test]
fn every_wrong_place_is_said_at_once_in_the_files_order() {
    let text = WHOLE.replace("204", "99").replace("nodes = 3", "nodes = 0").replace("\"api\"", "\"Api\"");
    let error = parse("api.toml", &text).unwrap_err();
    let keys: Vec<&str> = error.places.iter().map(|place| place.key.as_str()).collect();
    assert_eq!(keys, ["name", "check.status", "capacity.nodes"]);
}

#[test]
fn a_column_counts_characters_and_a_long_value_is_cut() {
    let text =
        format!("name = \"api\"\nowner = \"t\u{e9}am\"\nlisten = {{ production = \"\u{e9}{}\" }}", "x".repeat(300));
    let said = parse("api.toml", &text).unwrap_err().to_string();
    assert!(said.starts_with("api.toml:3:25: listen.production: `\\u{e9}xxx"), "{said}");
    assert!(said.len() < 200, "{said}");
}

#[test]
fn a_suspected_secret_is_not_repeated() {
    let said = said("{ from_env = \"API_DB_PASSWORD\" }", "\"hunter2hunter2\"");
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn odd_files_are_errors_and_never_panics() {
    for start in 0..WHOLE.len() {
        let _ = parse("api.toml", &WHOLE[start..]);
        let _ = parse("api.toml", &WHOLE[..start]);
        let mut changed = WHOLE.as_bytes().to_vec();
        changed[start] = b"\"[{=.\n0x"[start % 8];
        let _ = parse("api.toml", &String::from_utf8_lossy(&changed));
    }
}

#[test]
fn the_schema_knows_every_key_that_the_parser_knows() {
    let schema = json_schema();
    let keys = |at: &str| -> Vec<String> {
        schema.pointer(at).and_then(|found| found.as_object()).expect(at).keys().cloned().collect()
    };
    for section in ["", "run", "check", "capacity", "rollout", "judgement", "retention"] {
        let (table, at) = match section {
            "" => ("", "/properties".to_owned()),
            name => (name, format!("/properties/{name}/properties")),
        };
        // What the parser knows, it says when it meets a key that it does not.
        let text = if table.is_empty() { "zzz = 1".to_owned() } else { format!("[{table}]\nzzz = 1") };
        let said = parse("x", &text).unwrap_err().to_string();
        let known = said.lines().find_map(|line| line.split_once("known are ")).expect(&said).1;
        let mut known: Vec<&str> = known.split(", ").collect();
        known.sort_unstable();
        assert_eq!(keys(&at), known, "[{section}]");
    }
}

#[test]
fn the_documented_file_holds_every_key_with_its_default() {
    let documented = include_str!("../../../docs/service.toml");
    let (_, definition) = parse("service.toml", documented).unwrap();
    let (_, expected) = parse("x", "name = \"api\"\nowner = \"team-checkout\"").unwrap();
    assert_eq!(definition, expected);
    // What is written there as a comment only has no default; with them the file holds every key.
    let whole: String = documented.lines().map(|line| uncommented(line) + "\n").collect();
    let (_, definition) = parse("service.toml", &whole).unwrap();
    assert_eq!((definition.listen.len(), definition.run.env.len()), (1, 3));
    assert_eq!(definition.run.check.latency_ms_max, Some(200));
    let schema = json_schema();
    let table: toml::Table = whole.parse().unwrap();
    for (name, value) in schema["properties"].as_object().unwrap() {
        let keys = value["properties"].as_object().into_iter().flat_map(|keys| keys.keys());
        assert!(table.contains_key(name), "{name}");
        assert!(keys.into_iter().all(|key| table[name].get(key).is_some()), "{name}");
    }
}

#[test]
fn the_reference_file_is_the_tables_rows() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/service.toml");
    let now = schemas::declaration::reference();
    if std::env::var_os("UPDATE_SCHEMAS").is_some_and(|value| value == "1") {
        std::fs::write(path, &now).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(kept, now, "run `UPDATE_SCHEMAS=1 cargo test --workspace --lib -q -- definition::`");
}

/// What the server's table may hold is written by the reader, the schema and `show`: each knows every key of the others.
#[test]
fn the_servers_keys_are_the_same_for_the_reader_the_schema_and_show() {
    let schema = json_schema();
    let mut schema: Vec<&String> = schema["properties"]["judgement"]["properties"]["prometheus"]["properties"]
        .as_object()
        .unwrap()
        .keys()
        .collect();
    let said = said("scrape_interval =", "zzz =");
    let known = said.split_once("known are ").expect(&said).1.lines().next().unwrap();
    let mut known: Vec<&str> = known.split(", ").collect();
    known.sort_unstable();
    schema.sort_unstable();
    assert_eq!(schema, known);
    let (name, definition) = parse("api.toml", WHOLE).unwrap();
    let shown: toml::Table = schemas::declaration::file(&name, &definition).parse().unwrap();
    let mut shown: Vec<&String> = shown["judgement"]["prometheus"].as_table().unwrap().keys().collect();
    shown.sort_unstable();
    assert_eq!(shown, known);
}

/// Returns a line with the setting that it holds as a comment.
fn uncommented(line: &str) -> String {
    match line.strip_prefix("# ") {
        Some(setting) if setting.split(' ').nth(1) == Some("=") => setting.to_owned(),
        _ => line.to_owned(),
    }
}

#[test]
fn the_schema_that_is_checked_in_is_this_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/service.schema.json");
    let now = serde_json::to_string_pretty(&json_schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE_SCHEMAS").is_some_and(|value| value == "1") {
        std::fs::write(path, &now).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(kept, now, "run `UPDATE_SCHEMAS=1 cargo test --workspace --lib -q -- definition::`");
}

#[test]
fn the_schema_takes_what_the_parser_takes_and_refuses_unknown_keys() {
    let schema = jsonschema::validator_for(&json_schema()).unwrap();
    let json = |text: &str| serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap();
    for text in [WHOLE, include_str!("../../../docs/service.toml")] {
        let errors: Vec<String> = schema.iter_errors(&json(text)).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}");
    }
    for (from, to) in [("drain =", "dry ="), ("[retention]", "[keeping]"), ("from_env", "from_enw"), ("204", "99")] {
        assert!(!schema.is_valid(&json(&WHOLE.replacen(from, to, 1))), "{from} -> {to}");
    }
}

/// `show` prints what `apply` takes: whatever can be declared comes back as it was.
#[test]
fn a_declaration_written_as_a_file_is_read_back_as_it_was() {
    let smallest = "name = \"api\"\nowner = \"the \\\"A\\\" team\"\n";
    for text in [WHOLE, smallest, include_str!("../../../docs/service.toml")] {
        let (name, definition) = parse("api.toml", text).unwrap();
        let file = schemas::declaration::file(&name, &definition);
        let read = parse("api.toml", &file).unwrap_or_else(|error| panic!("{error}\n{file}"));
        assert_eq!(read, (name, definition), "{file}");
    }
}
