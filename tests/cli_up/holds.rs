//! Holds: after a person's rollback a pipeline's release is prepared and waits, until somebody says that it may go on.

use super::running::{Up, free_address};
use support::binary::{Run, run};

/// A running ledger, and a pipeline that sends to its server.
struct Installation {
    up: Up,
    server: Vec<String>,
}

impl Installation {
    fn new() -> Self {
        let address = free_address();
        let up = Up::with(&["--listen", &address.to_string()]);
        let made = up.done("token create ci --pipeline");
        let token = up.beside("token");
        std::fs::write(&token, made.stdout.trim()).unwrap();
        let server = ["--server", &format!("http://{address}"), "--token-file", token.to_str().unwrap()];
        Self { server: server.map(str::to_owned).to_vec(), up }
    }

    /// Runs a sentence as the pipeline does.
    fn pipeline(&self, sentence: &str) -> Run {
        let words = sentence.split_whitespace().chain(self.server.iter().map(String::as_str));
        run(&self.up.data(), &words.collect::<Vec<_>>())
    }

    fn begun(&self, canary: &str) {
        self.up.until("the rollout begins", |deployment| {
            deployment["rollout"]["canary"] == canary && deployment["rollout"]["steps_taken"] == 1
        });
    }
}

#[test]
fn after_a_persons_rollback_a_pipelines_release_is_prepared_and_waits_for_a_person_or_a_fix() {
    let installation = Installation::new();
    let up = &installation.up;
    up.serving("1.0.0", "");
    up.ready("1.1.0", &[]);
    up.done("traffic api 1.1.0 100");
    let back = run(&up.data(), &["rollback", "api", "--reason", "checkout fails"]);
    assert_eq!(back.code, 0, "{back:?}");

    up.release("1.2.0", &[]);
    let held = installation.pipeline("new api 1.2.0 --roll 1h --wait --timeout 60s");
    assert_eq!(held.code, 8, "{held:?}");
    assert!(held.stderr.contains("1.1.0 was rolled back: checkout fails"), "{held:?}");
    assert!(
        held.stderr.contains("1.2.0 is prepared") && held.stderr.contains("`ionledger hold api --lift`"),
        "{held:?}"
    );
    let roll = installation.pipeline("roll api 1.0.0 1.2.0 1h");
    assert_eq!(roll.code, 8, "{roll:?}");
    let hold = installation.pipeline("hold api --lift");
    assert_eq!(hold.code, 4, "a pipeline lifts nothing: {hold:?}");
    let status = up.json("status api");
    let deployment = &status["services"][0]["deployments"][0];
    assert_eq!(
        (&deployment["holds"][0]["cause"], &deployment["waiting"]["version"]),
        (&"rollback".into(), &"1.2.0".into())
    );
    let who = up.json("history api --limit 0");
    let set = who["entries"].as_array().unwrap().iter().find(|entry| entry.to_string().contains("hold.set")).unwrap();
    assert_eq!(deployment["holds"][0]["actor"], set["actor"], "{status:#}");
    assert_eq!(deployment["holds"][0]["commit"], set["commit"], "{status:#}");

    let lifted = up.done("hold api --lift");
    assert!(lifted.stderr.contains("1.2.0"), "it says what begins now: {lifted:?}");
    installation.begun("1.2.0");

    up.done("rollback api");
    let fix = ["release", "api", "1.3.0", "--fixes", "1.2.0", "--artifact", env!("CARGO_BIN_EXE_ionledger")];
    assert_eq!(run(&up.data(), &fix).code, 0);
    let fixed = installation.pipeline("new api 1.3.0 --roll 1h");
    assert_eq!(fixed.code, 0, "{fixed:?}");
    installation.begun("1.3.0");
}

#[test]
fn a_hold_with_an_end_needs_a_reason_and_ends_by_itself() {
    let up = Up::new();
    up.serving("1.0.0", "");
    let without = up.say("hold api");
    assert_eq!(without.code, 2, "{without:?}");
    assert!(without.stderr.contains("--reason"), "{without:?}");
    let never = up.say("hold api --reason move --for 0s");
    assert!(never.code == 2 && never.stderr.contains("`--for` takes from 1 ms to 52 weeks"), "{never:?}");
    up.done("hold api --reason move --for 2s");
    up.until("it is over", |deployment| deployment["holds"].is_null());
    let history = up.done("history api").stdout;
    assert!(history.contains("was put on hold until") && history.contains("its time was over"), "{history}");
}

#[test]
fn a_second_hold_says_which_one_it_replaces_and_its_undo_touches_no_other() {
    let (up, _) = Up::shipped();
    up.done("rollback api --reason slow");
    let first = up.done("hold api --reason move");
    let words = |run: &Run| run.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(&first).contains("note: production/api is also on hold since "), "{first:?}");
    assert!(words(&first).contains("(1.1.0 was rolled back: slow), set by person:"), "{first:?}");
    assert!(words(&first).contains("undo: ionledger hold api --lift=asked"), "{first:?}");
    let second = up.done("hold api --reason freeze --dry-run");
    assert!(
        words(&second).contains("note: the new hold takes the place of the one before: on hold since "),
        "{second:?}"
    );
    let second = up.done("hold api --reason freeze");
    assert!(words(&second).contains("(move), set by person:"), "{second:?}");
    assert!(words(&second).contains("undo: ionledger hold api --reason 'move'"), "{second:?}");

    let lifted = up.done("hold api --lift=asked");
    assert!(words(&lifted).contains("note: production/api is still on hold since "), "{lifted:?}");
    up.until("the rollback's hold stays", |deployment| {
        deployment["holds"].as_array().is_some_and(|holds| holds.len() == 1 && holds[0]["cause"] == "rollback")
    });
}
