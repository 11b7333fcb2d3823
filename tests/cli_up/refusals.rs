//! Refusals: each is one line with an exit code, and no event.

use super::running::{Up, free_address};
use support::binary::{ionledger, run, say};
use support::process::output;

#[test]
fn what_the_ledger_refuses_is_one_line_and_no_event() {
    let up = Up::new();
    up.serving("1.2.2", "");
    up.release("1.2.3", &["--fail-health"]);
    up.done("new api 1.2.3");
    let before = up.asked();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = up.beside("busy.toml");
    let listen = format!("listen = {{ production = \"{}\" }}", taken.local_addr().unwrap());
    std::fs::write(&busy, format!("name = \"busy\"\nowner = \"team\"\n{listen}\n")).unwrap();
    let wrong = up.beside("wrong.toml");
    std::fs::write(&wrong, "name = \"api\"\nowner = \"team\"\n\n[rollout]\nsteps = [50, 10, 100]\n").unwrap();
    let script = up.beside("script");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    let script = script.display().to_string();
    let (busy, wrong, binary) = (busy.display(), wrong.display(), env!("CARGO_BIN_EXE_ionledger"));
    for (sentence, code, expected) in [
        ("new web 1.2.3".to_owned(), 1, "service web is unknown; declare it with `ionledger apply web.toml`"),
        ("status web".to_owned(), 1, "service web is unknown; declare it with"),
        ("history web".to_owned(), 1, "service web is unknown; declare it with"),
        ("who-shipped web".to_owned(), 1, "service web is unknown; declare it with"),
        ("traffic api 1.2.2 90 1.9 10".to_owned(), 1, "release api 1.9 is unknown; record it with"),
        ("traffic api 1.2.2 90 1.2.33 10".to_owned(), 1, "; did you mean 1.2.3? known: 1.2.2, 1.2.3"),
        ("status apy".to_owned(), 1, "declare it with `ionledger apply apy.toml`; did you mean api? known: api"),
        ("retire apy --yes".to_owned(), 1, "; did you mean api? known: api"),
        (
            "rollback api --env test".to_owned(),
            1,
            "deployment test/api is unknown; api runs in production; name that with --env",
        ),
        (
            "explain apy".to_owned(),
            1,
            "`apy` is not a service, version, offset or commit here; did you mean api? known: 1.2.2, 1.2.3, api",
        ),
        (
            "explain api 1.2.9".to_owned(),
            1,
            "`1.2.9` of api is not a service, version, offset or commit here; did you mean 1.2.3? known",
        ),
        ("explain 99999".to_owned(), 1, "offset 99999 is not written yet"),
        ("traffic api 1.2.2 90 1.2.3 10".to_owned(), 1, "production/api 1.2.3 is not ready"),
        ("traffic api 1.2.2 90".to_owned(), 2, "the weights sum to 90 % instead of 100 %"),
        ("pause api".to_owned(), 1, "production/api has no rollout under way; start one with `ionledger roll`"),
        ("abort api".to_owned(), 1, "no rollout under way; there is nothing to abort, and no version to go back to"),
        (
            "retire api --yes --env nosuch".to_owned(),
            1,
            "nosuch/api is unknown; api runs in production; name that with --env",
        ),
        (
            "status --env nosuch".to_owned(),
            1,
            "nothing runs in environment nosuch; with --env name one in which it does: production",
        ),
        (
            "status api --env nosuch --json".to_owned(),
            1,
            "api does not run in environment nosuch; with --env name one in which it does: production",
        ),
        ("history api --env nosuch".to_owned(), 1, "api does not run in environment nosuch; with --env"),
        ("history --env nosuch".to_owned(), 1, "nothing runs in environment nosuch; with --env"),
        ("who-shipped api --env nosuch".to_owned(), 1, "api does not run in environment nosuch; with --env"),
        ("explain api --env nosuch".to_owned(), 1, "api does not run in environment nosuch; with --env"),
        ("forecast api --env nosuch".to_owned(), 1, "api does not run in environment nosuch; with --env"),
        ("logs api --env nosuch".to_owned(), 1, "api does not run in environment nosuch; with --env"),
        ("forecast apy".to_owned(), 1, "did you mean api? known: api"),
        ("logs apy".to_owned(), 1, "did you mean api? known: api"),
        ("status production/api".to_owned(), 2, "environment is named with --env, as `api --env production`"),
        (
            "forecast api --requests-per-minute many".to_owned(),
            2,
            "it must be a number; write one, for example 60 or 0.5",
        ),
        ("replay --event zzz".to_owned(), 2, "it is not an id; write a whole one"),
        ("history --limit 99999999999999999999999".to_owned(), 2, "it is too large; write a smaller number"),
        ("show api --env test".to_owned(), 2, "unexpected `--env`; see `ionledger show --help`"),
        ("status --at now".to_owned(), 2, "and `ionledger replay --at TIME` the past"),
        (format!("release api 1.2.5 --artifact {script} --env production"), 2, "a release belongs to no environment"),
        ("history api --limit many".to_owned(), 2, "it must be a whole number, 0 or more; write one, for example 50"),
        ("replay --offset last".to_owned(), 2, "`last` is not a whole number from 0"),
        ("copy --to kafka:127.0.0.1".to_owned(), 2, "looks like an address; write kafka://HOST:PORT"),
        ("status --data /etc/passwd".to_owned(), 2, "the data folder /etc/passwd is a file; name a folder"),
        ("rollback api".to_owned(), 1, "production/api has nothing to go back to"),
        (format!("release api 1.2.2 --artifact {script}"), 1, "is already recorded with another artifact"),
        (format!("release api 1.2.4 --artifact {binary} --env TOKEN=hunter2hunter2"), 2, "looks like a secret"),
        (format!("apply {busy}"), 1, "port in use"),
        (format!("apply {wrong}"), 2, "wrong.toml:5:9: rollout.steps: steps must rise"),
        ("replay --at 2999-01-01".to_owned(), 2, "is in the future"),
        ("replay --offset 99999".to_owned(), 1, "offset 99999 is not written yet"),
        ("replay --event 7a1d9a52-9f43-4b0c-a2b0-0d6f9e1c5b11".to_owned(), 1, "commit 7a1d9a52"),
    ] {
        let run = up.say(&sentence);
        let line = run.mistake(code);
        assert!(line.contains(expected), "{sentence}: {line}");
        assert!(!line.contains("hunter2"), "{sentence}: {line}");
    }
    assert_eq!(up.asked(), before, "a refusal left an event");
}

#[test]
fn a_folder_that_is_held_and_one_of_a_newer_format_are_left_alone() {
    let up = Up::new();
    let second = say(&up.data(), "up");
    let held = format!("the data folder {} is held by process ", up.data().display());
    assert!(second.mistake(1).starts_with(&held), "{second:?}");
    let folder = up.end();
    let data = folder.path().join("data");
    std::fs::write(data.join("format.json"), r#"{"format":999}"#).unwrap();
    let expected = format!("data folder {} has format 999, this program knows 1; upgrade ionledger", data.display());
    for sentence in ["up", "status", "history", "verify", "replay --offset 0"] {
        assert_eq!(say(&data, sentence).mistake(1), expected, "{sentence}");
    }
    let doctor = say(&data, "doctor");
    assert_eq!(doctor.code, 1, "{doctor:?}");
    assert!(doctor.stdout.contains(&format!("fail\tlog\t{expected}\tupgrade ionledger\n")), "{doctor:?}");
}

#[test]
fn a_folder_whose_path_is_too_long_for_a_socket_is_refused_with_its_length() {
    let folder = tempfile::tempdir().unwrap();
    let line = say(&folder.path().join("d".repeat(100)), "up --down").mistake(1);
    assert!(line.contains(" bytes, and 107 is the most; use a shorter --data"), "{line}");
}

#[test]
fn a_port_that_somebody_has_is_no_place_for_the_api() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let run = say(&data, &format!("up --down --listen {address}"));
    let line = run.mistake(1);
    assert!(line.starts_with(&format!("cannot listen on {address}: ")), "{line}");
    // The folder is as good as before, and what was started on it already is taken down with the next one.
    assert_eq!(Up::on(folder, &[]).say("status").code, 0);
}

#[test]
fn a_pipelines_token_may_not_do_what_is_a_persons() {
    let address = free_address();
    let up = Up::with(&["--listen", &address.to_string()]);
    up.declare("");
    let token = up.beside("token");
    std::fs::write(&token, up.done("token create ci --pipeline").stdout).unwrap();
    let (server, token) = (format!("http://{address}"), token.display().to_string());
    let over = |words: &[&str]| {
        let words: Vec<&str> = words.iter().copied().chain(["--server", &server, "--token-file", &token]).collect();
        run(&up.beside("elsewhere"), &words)
    };
    assert_eq!(over(&["status", "api", "--json"]).code, 0);
    let denied = over(&["retire", "api", "--yes"]);
    assert!(denied.mistake(4).starts_with("pipeline:ci may not retire"), "{denied:?}");
    up.done("token revoke ci");
    assert!(!over(&["status"]).mistake(4).is_empty());
    assert!(over(&["doctor"]).mistake(2).contains("leave --server out"));
}

#[test]
fn colours_are_for_terminals_only() {
    let up = Up::new();
    up.declare("");
    let output = output(ionledger().env("IONLEDGER_DATA", up.data()).args(["history"]));
    assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b));
    let Some(on_terminal) = on_terminal(&up) else { return };
    assert!(on_terminal.contains("\u{1b}[2moffset\u{1b}[0m"), "{on_terminal:?}");
    for plain in [["NO_COLOR=1", ""], ["", "--no-color"]] {
        let plain = on_terminal_with(&up, plain).unwrap();
        assert!(plain.contains("api was declared, owned by") && !plain.contains('\u{1b}'), "{plain:?}");
        assert!(!plain.contains('\t'), "a table for eyes: {plain:?}");
    }
}

/// Returns what `history` shows on a terminal, for which `script` (util-linux) makes one.
fn on_terminal(up: &Up) -> Option<String> {
    let found = std::process::Command::new("script").arg("--version").output().is_ok();
    if !found {
        eprintln!("SKIPPED colours_are_for_terminals_only: no program `script`");
        assert!(std::env::var_os("CI").is_none(), "CI has `script`");
        return None;
    }
    on_terminal_with(up, ["", ""])
}

fn on_terminal_with(up: &Up, [environment, option]: [&str; 2]) -> Option<String> {
    let binary = env!("CARGO_BIN_EXE_ionledger");
    let script = format!("TERM=xterm {environment} {binary} history {option}");
    let mut command = std::process::Command::new("script");
    command.args(["-qec", &script, "/dev/null"]).env("IONLEDGER_DATA", up.data()).env_remove("NO_COLOR");
    let output = output(&mut command);
    Some(String::from_utf8(output.stdout).unwrap())
}
