//! Renewals: the same release in a new stack, told apart from the one before it wherever a stack is named.

use serde_json::Value;

use super::metrics::metrics;
use super::running::{Up, answer, free_address};
use support::completion::completed;

const FIRST: &str = "1.0.0";
const SECOND: &str = "1.0.0~2";

/// Declares three nodes where there was one.
fn widen(up: &Up) {
    let file = up.beside("api.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}[capacity]\nnodes = 3\nmin_ready = 1\n")).unwrap();
    up.done(&format!("apply {}", file.display()));
}

fn stack<'a>(deployment: &'a Value, name: &str) -> &'a Value {
    let stacks = deployment["versions"].as_array().unwrap();
    stacks.iter().find(|stack| stack["name"] == name).unwrap_or_else(|| panic!("no {name}: {deployment:#}"))
}

#[test]
fn a_new_number_of_nodes_is_brought_out_by_a_renewal_that_every_answer_tells_apart() {
    let address = free_address();
    let up = Up::with(&["--listen", &address.to_string()]);
    let token = up.done("token create prometheus").stdout;
    let users = up.serving(FIRST, "");
    widen(&up);

    let dry = up.done("renew api --dry-run");
    assert!(dry.stdout.contains("stack.requested") && dry.stdout.contains(SECOND), "{dry:?}");
    let renewed = up.done("renew api --wait --timeout 60s");
    assert!(renewed.stderr.contains("next: ionledger roll api 1.0.0 1.0.0~2\n"), "{renewed:?}");

    let split = up.done("traffic api 1.0.0 50 1.0.0~2 50");
    assert!(split.stderr.contains("undo: ionledger traffic api 1.0.0 100"), "{split:?}");
    up.applied();
    (0..20).for_each(|_| drop(answer(users)));
    let deployment = up.until("both are there", |deployment| deployment["weights_applied"] == true);
    let (first, second) = (stack(&deployment, FIRST), stack(&deployment, SECOND));
    assert_eq!([&first["nodes_wanted"], &second["nodes_wanted"]], [&Value::from(1), &Value::from(3)]);
    assert_eq!([&first["version"], &second["version"]], [FIRST, FIRST], "the version is the release's");
    let status = up.done("status api").stdout;
    for name in [FIRST, SECOND] {
        assert!(status.lines().any(|line| line.split('\t').nth(1) == Some(name)), "{status}");
        let text = metrics(address, token.trim());
        let label = format!("version=\"{name}\"");
        let counted = text.lines().filter(|line| line.starts_with("ionledger_proxy_requests_total"));
        let counted = counted.filter(|line| line.contains(&label) && line.contains("2xx"));
        let counts: Vec<&str> = counted.filter_map(|line| line.rsplit(' ').next()).collect();
        assert!(matches!(counts[..], [count] if count != "0"), "{name}: {text}");
    }
    let logs = up.done("logs api 1.0.0~2").stdout;
    assert!(logs.lines().all(|line| line.starts_with("1.0.0~2\t")), "{logs}");
    let shipped = up.done("who-shipped api").stdout;
    assert!(shipped.contains("\t1.0.0\t") && shipped.contains("\t1.0.0~2\t"), "{shipped}");
    assert!(completed(&up.data(), &["roll", "api", "1.0.0~"]).contains(&SECOND.to_owned()));
    assert_eq!(completed(&up.data(), &["new", "api", "1.0.0~"]), [""; 0], "a new stack is of a release");

    let explained = up.done("explain api 1.0.0~2").stdout;
    assert!(explained.contains("another stack of 1.0.0, 1.0.0~2, was asked for, 3 nodes"), "{explained}");
    let missing = up.say("traffic api 1.0.0~7 100");
    assert!(missing.stderr.contains("the stacks of that version are 1.0.0, 1.0.0~2"), "{missing:?}");
}

#[test]
fn a_renewal_that_is_rolled_back_returns_to_the_stack_before_it_and_is_rejected_alone() {
    let up = Up::new();
    up.serving(FIRST, "[retention]\ndrain = \"1 s\"\n");
    widen(&up);
    let renewed = up.done("renew api --roll 1s --steps 100 --wait --timeout 60s --reason capacity");
    assert!(renewed.stderr.contains("1.0.0~2 has all requests"), "{renewed:?}");
    let deployment = up.until("it serves", |deployment| deployment["rollout"]["phase"] == "completed");
    let rollout = &deployment["rollout"];
    assert_eq!([&rollout["baseline_name"], &rollout["canary_name"]], [FIRST, SECOND]);
    assert_eq!(deployment["rollback_target"]["name"], FIRST);

    let back = up.done("rollback api");
    assert!(back.stdout.contains("rolled back from 1.0.0~2 to 1.0.0\t"), "{back:?}");
    up.applied();
    let deployment = up.until("users are back", |deployment| deployment["weights_applied"] == true);
    let (first, second) = (stack(&deployment, FIRST), stack(&deployment, SECOND));
    assert_eq!((&first["weight_applied"], &first["rejected"]), (&Value::from(10_000), &Value::Null));
    assert_eq!(second["rejected"]["needs_again"], true);
    assert_eq!(deployment["rollback_target"], Value::Null, "nothing goes forward again");
    let refused = up.say("roll api 1.0.0 1.0.0~2 1h");
    assert!(refused.stderr.contains("1.0.0~2 is rejected since a rollback"), "{refused:?}");
    assert!(up.done("history api").stdout.contains("a rollout 1.0.0 -> 1.0.0~2 began"));
    let explained = up.done("explain api").stdout;
    assert!(explained.contains("is complete, 1.0.0~2 has all traffic"), "{explained}");
    let (_, after) = explained.split_once("is complete").unwrap();
    assert!(after.contains("rolled back from 1.0.0~2 to 1.0.0\t"), "and what came after: {explained}");

    // The release is in good standing: the next renewal of it needs no word.
    let again = up.done("renew api --roll 1s --steps 100 --wait --timeout 60s");
    assert!(again.stderr.contains("1.0.0~3 has all requests"), "{again:?}");
    let retired = up.done("retire api --yes --reason replaced");
    assert!(retired.stderr.contains("`ionledger new api 1.0.0` starts another"), "{retired:?}");

    up.until("its stacks are gone", |deployment| deployment["versions"].as_array().is_some_and(Vec::is_empty));
    let gone = up.json("status api")["services"][0]["deployments"][0]["rollout"].clone();
    assert_eq!([&gone["baseline_name"], &gone["canary_name"]], [FIRST, "1.0.0~3"], "{gone:#}");
    assert!(up.done("status api").stdout.starts_with("production/api\t-\tretired\t"), "a row all the same");
    let explained = up.done("explain api 1.0.0~2").stdout;
    assert!(explained.contains("another stack of 1.0.0, 1.0.0~2, was asked for, 3 nodes"), "{explained}");
    let history = up.json("history api --limit 0");
    let taken_down = history["entries"].as_array().unwrap().iter();
    let taken_down: Vec<&Value> =
        taken_down.filter(|entry| entry.to_string().contains("its deployment was retired")).collect();
    assert_eq!(taken_down.len(), 3, "{history:#}");
    for entry in taken_down {
        assert_eq!(entry["on_behalf_of"]["reason"], "replaced", "not what the stack was asked for: {entry:#}");
    }
}

#[test]
fn a_renewal_that_is_asked_for_again_is_waited_for_as_the_first_one() {
    let up = Up::new();
    up.serving(FIRST, "");
    up.release("1.1.0", &["--slow-start-ms", "600000"]);
    up.done("new api 1.1.0");
    up.done("renew api 1.1.0");
    let again = up.say("renew api 1.1.0 --wait --timeout 1s");
    assert!(again.stderr.contains("1.1.0~2 is starting already"), "{again:?}");
    assert!(again.code == 8 && again.stderr.contains("1.1.0~2: 0 of 1 node ready"), "{again:?}");
    up.done("renew api 1.1.0 --roll 1h");
    let rolled = up.say("renew api 1.1.0 --roll 1h --wait --timeout 1s");
    assert!(rolled.stderr.contains("1.1.0~3 is starting already"), "{rolled:?}");
    assert!(rolled.code == 8 && rolled.stderr.contains("1.1.0~3 waits: its stack is starting"), "{rolled:?}");
}
