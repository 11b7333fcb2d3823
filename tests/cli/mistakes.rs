//! Mistakes: each is one line that names the thing, the cause and the next step, and nothing is touched.

use ledger::execute::genesis;
use ledger::log::segments::{DataFolder, Segments, SegmentsOptions};
use ledger::log::{Log as _, Urgency};
use serde_json::json;
use support::binary::{ionledger, run, say};
use support::process::output;

#[test]
fn a_sentence_that_is_none_is_a_usage_error_in_one_line() {
    let nowhere = tempfile::tempdir().unwrap();
    let long = "a".repeat(300);
    for (sentence, expected) in [
        ("traffic api 1.2.2 90 1.2.3 5", "the weights sum to 95 % instead of 100 %"),
        ("traffic api 1.2.2 90 1.2.3", "version 1.2.3 has no percentage"),
        ("traffic api 1.2.2 90 1.2.2 10", "named twice"),
        ("traffic api 1.2.2 101", "`101` is not a weight"),
        ("traffic api", "missing <VERSION PERCENT>"),
        ("roll api 1.2.3 1.2.4 24 parsecs", "`24 parsecs` is not a length of time"),
        ("roll api 1.2.3 1.2.4 2 months", "months and years differ in length"),
        ("roll api 1.2.3 1.2.4 --steps 50,10,100", "steps must rise"),
        ("roll api 1.2.3", "missing <TO>"),
        ("roll api 1.2.3 1.2.4 -1h", "unexpected `-1`: numbers and lengths of time are written without a minus"),
        (
            "hold api --reason x --for -1h",
            "--for <DURATION>: `-1h` is negative; write a length of time without the minus",
        ),
        ("new api 1.2.3 --roll -1h", "--roll <DURATION>: `-1h` is negative"),
        ("new api 1.2.3 --wait --timeout -5s", "--timeout <DURATION>: `-5s` is negative"),
        (
            "new api 1.2.3 --roll 10 min",
            "--roll: `10` is only a part of the value; write `--roll \"10 min\"` or `--roll 10min`",
        ),
        ("hold api --reason x --for 2 h", "write `--for \"2 h\"` or `--for 2h`"),
        ("logs api --since 10 m", "write `--since \"10 m\"` or `--since 10m`"),
        ("who-shipped api --at 2 hours ago", "write `--at \"2 hours ago\"`"),
        ("hold api --lift=both", "--lift"),
        ("new api 1.2/3", "`1.2/3` is not a version"),
        ("new api 1.2.3 --steps 1,100", "missing --roll <DURATION>"),
        ("renew api --again", "missing --roll [<DURATION>] and --reason <TEXT>; see `ionledger renew --help`"),
        ("rollback api/v2", "`api/v2` is not a service name"),
        (&format!("rollback {long}"), "aaa...` is not a service name; use 1 to 63"),
        ("rollback api --env Production", "`Production` is not an environment name; use"),
        ("rollback api --command-id 7", "--command-id <UUID>:"),
        ("rollback", "missing <SERVICE>; see `ionledger rollback --help`"),
        ("rolback api", "no command `rolback`, did you mean `rollback` or `roll`?"),
        ("retir api", "no command `retir`, did you mean `retire`?"),
        ("restart api", "no command `restart`; see `ionledger --help`"),
        ("node-exe", "no command `node-exe`; see `ionledger --help`"),
        ("demo-servic", "no command `demo-servic`, did you mean `demo`?"),
        ("traffic api 1 100 --dryrun", "did you mean `--dry-run`?"),
        ("completions tcsh", "<SHELL>: write `bash` or `elvish` or `fish` or `powershell` or `zsh`"),
        ("rollback api --server ftp://x:1", "write http://HOST:PORT"),
        ("rollback api --server http://127.0.0.1:1", "name its file with --token-file FILE"),
    ] {
        let run = say(nowhere.path(), sentence);
        let line = run.mistake(2);
        assert!(line.contains(expected), "{sentence}: {line}");
        assert!(line.len() < 300, "{sentence}: {line}");
    }
    assert_eq!(std::fs::read_dir(nowhere.path()).unwrap().count(), 0, "a mistake left something behind");
}

#[test]
fn a_change_where_no_ledger_is_names_the_folder_and_the_next_step() {
    let nowhere = tempfile::tempdir().unwrap();
    let data = nowhere.path().join("data");
    for sentence in [
        "new api 1.2.3",
        "traffic api 1.2.2 90 1.2.3 10",
        "traffic api 1.2.3 100",
        "roll api 1.2.3 1.2.4 24 hours",
        "rollback api",
        "pause api",
        "resume api",
        "abort api",
        "promote api",
        "retire api --yes",
        "rollback api --dry-run",
    ] {
        let run = say(&data, sentence);
        let expected =
            format!("there is no ledger in {}; name its folder, or make one with `ionledger up`", data.display());
        assert_eq!(run.mistake(1), expected, "{sentence}");
    }
    assert!(!data.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_runs_it_is_said_whether_anything_could() {
    let folder = tempfile::tempdir().unwrap();
    let log = Segments::open(DataFolder::hold(folder.path()).unwrap(), SegmentsOptions::default()).unwrap();
    log.append(genesis(schemas::Timestamp::UNIX_EPOCH), Urgency::Ordinary).await.unwrap();
    drop(log);
    let expected = format!("nothing runs on {}; start `ionledger up`", folder.path().display());
    assert_eq!(say(folder.path(), "pause api").mistake(1), expected);
    DataFolder::hold(folder.path()).unwrap().mark_copy(Some("/data/there")).unwrap();
    for sentence in ["pause api", "rollback api"] {
        let refused = say(folder.path(), sentence);
        let said = refused.mistake(1);
        assert!(said.contains("is a read-only copy of /data/there") && !said.contains("ionledger up"), "{said}");
    }
    let status = run(folder.path(), &["status"]);
    assert!(status.stderr.contains("a read-only copy of /data/there: this is how it stood"), "{status:?}");
    assert!(!status.stderr.contains("ionledger up"), "{status:?}");
    let status = run(folder.path(), &["status", "--json"]);
    assert!(
        status.stdout.contains(r#""copy_of":"/data/there""#) && !status.stdout.contains("unattended"),
        "{status:?}"
    );
}

#[test]
fn logs_of_nodes_that_wrote_nothing_say_so() {
    let data = tempfile::tempdir().unwrap();
    let effect = "0193a6f0-0c41-7b66-b1d2-9e4a6c8f7d03";
    let node = data.path().join("nodes").join(effect);
    std::fs::create_dir_all(&node).unwrap();
    let launch = json!({"effect": effect, "deployment": "production/api", "stack": effect, "version": "1.0.0", "slot": 0,
        "attempt": 0, "port": 1, "artifact": "0".repeat(64), "args": [], "env": {}});
    std::fs::write(node.join("launch.json"), launch.to_string()).unwrap();
    std::fs::write(node.join("log"), "").unwrap();
    let quiet = say(data.path(), "logs api");
    assert_eq!((quiet.code, quiet.stdout.as_str()), (0, ""), "{quiet:?}");
    assert!(quiet.stderr.contains("no line matches: its nodes wrote nothing"), "{quiet:?}");
    std::fs::write(node.join("log"), "one\n").unwrap();
    let loud = say(data.path(), "logs api");
    assert!(loud.stdout.ends_with("\tone\n") && loud.stderr.is_empty(), "{loud:?}");
}

#[test]
fn a_question_where_no_ledger_is_names_the_folder_and_the_next_step() {
    let nowhere = tempfile::tempdir().unwrap();
    let data = nowhere.path().join("data");
    for sentence in ["status", "status api", "status -w", "history", "who-shipped api", "replay", "verify"] {
        let run = say(&data, sentence);
        let expected =
            format!("there is no ledger in {}; name its folder, or make one with `ionledger up`", data.display());
        assert_eq!(run.mistake(1), expected, "{sentence}");
    }
    let doctor = say(&data, "doctor");
    assert_eq!((doctor.code, doctor.stderr.as_str()), (1, ""), "{doctor:?}");
    assert!(doctor.stdout.starts_with("fail\tdata folder\t"), "{doctor:?}");
    assert!(!data.exists());
}

#[test]
fn a_wrong_file_is_named_with_its_line_and_the_reason() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("api.toml");
    std::fs::write(&file, "name = \"api\"\nowner = \"team\"\n[retention]\nserving_max = 1\n").unwrap();
    let name = file.display().to_string();
    let run = run(data.path(), &["apply", &name]);
    let line = run.mistake(2);
    assert!(line.starts_with(&format!("{name}:4:15: retention.serving_max: ")), "{line}");
    std::fs::write(&file, "name = \"api\n").unwrap();
    let line = say(data.path(), &format!("apply {name}")).mistake(2).to_owned();
    assert!(line.starts_with(&format!("{name}:1:")), "{line}");
    let line = say(data.path(), "apply missing.toml").mistake(1).to_owned();
    assert!(line.starts_with("cannot read missing.toml: "), "{line}");
    let line = say(data.path(), "release api 1.2.3 --artifact missing").mistake(1).to_owned();
    assert!(line.starts_with("cannot read artifact missing: "), "{line}");
    let secret = say(data.path(), "release api 1.2.3 --artifact x --env hunter2");
    assert!(!secret.mistake(2).contains("hunter2"), "{secret:?}");
}

#[test]
fn the_data_folder_is_the_users_own_unless_one_is_named() {
    let home = tempfile::tempdir().unwrap();
    let told = |command: &mut std::process::Command| {
        String::from_utf8(output(command.args(["rollback", "api"])).stderr).unwrap()
    };
    let by_home = told(ionledger().env_remove("XDG_STATE_HOME").env("HOME", home.path()));
    assert!(by_home.contains(&format!("{}/.local/state/ionledger\n", home.path().display())), "{by_home}");
    let by_state = told(ionledger().env("XDG_STATE_HOME", home.path().join("state")));
    assert!(by_state.contains(&format!("{}/state/ionledger\n", home.path().display())), "{by_state}");
    let named = told(ionledger().current_dir(home.path()).args(["--data", "here"]));
    assert!(named.contains("/here\nhint: name its folder"), "{named}");
    let homeless = told(ionledger().env_remove("XDG_STATE_HOME").env_remove("HOME"));
    assert_eq!(
        homeless,
        "error: no data folder: neither XDG_STATE_HOME nor HOME is set\nhint: name one with --data DIR\n"
    );
}

#[test]
fn a_server_that_does_not_answer_is_named() {
    let nowhere = tempfile::tempdir().unwrap();
    let token = nowhere.path().join("token");
    std::fs::write(&token, "ion_x\n").unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (server, token) = (format!("http://{closed}"), token.display().to_string());
    let run = run(nowhere.path(), &["rollback", "api", "--server", &server, "--token-file", &token]);
    let line = run.mistake(1);
    assert!(line.starts_with(&format!("cannot reach {closed}: ")), "{line}");
    assert!(!line.contains("ion_x"), "{line}");
}

#[test]
fn tokens_are_made_listed_and_revoked_in_the_data_folder() {
    let data = tempfile::tempdir().unwrap();
    let made = say(data.path(), "token create ci --pipeline");
    assert_eq!(made.code, 0, "{made:?}");
    assert!(made.stdout.starts_with("ion_") && made.stdout.lines().count() == 1, "{made:?}");
    let secret = made.stdout.trim().to_owned();
    let listed = say(data.path(), "token list");
    let columns: Vec<&str> = listed.stdout.trim_end().split('\t').collect();
    assert_eq!((columns.len(), columns[1], columns[2], columns[4]), (5, "ci", "pipeline", "-"), "{listed:?}");
    assert!(made.stderr.contains(&format!("undo: ionledger token revoke {}", columns[0])), "{made:?}");
    assert!(!say(data.path(), "token list --json").stdout.contains(&secret));
    assert_eq!(say(data.path(), "token revoke ci").code, 0);
    assert_eq!(say(data.path(), "token list").stdout, "");
    assert!(say(data.path(), "token revoke ci").mistake(1).starts_with("no token ci;"));
    assert!(say(data.path(), "token create ci --expires 5").mistake(2).contains("`5` is not a length of time"));
}

#[test]
fn wrong_settings_are_named_with_their_file_and_line_or_their_variable() {
    let nowhere = tempfile::tempdir().unwrap();
    let file = nowhere.path().join("ionledger.toml");
    let copy = |text: &str, variables: &[(&str, &str)]| {
        std::fs::write(&file, text).unwrap();
        let mut command = ionledger();
        command.args(["copy", "--from", "kafka://127.0.0.1:1", "--to", "there", "--config"]).arg(&file);
        support::binary::ran(output(command.envs(variables.iter().copied()).current_dir(nowhere.path())))
    };
    let line = copy("[kafka]\nprotocl = \"ssl\"\n", &[]);
    let expected = format!("{}:2:1: kafka.protocl: unknown key, did you mean", file.display());
    assert!(line.mistake(2).starts_with(&expected), "{line:?}");
    let unused = copy("[kafka]\nca_file = \"ca.pem\"\n", &[]);
    assert!(unused.mistake(2).contains("kafka.ca_file (IONLEDGER_KAFKA_CA_FILE) is not used with this protocol"));
    let chosen = copy("[kafka.client]\n\"socket.keepalive.enabled\" = true\n", &[]);
    assert!(chosen.mistake(2).contains("socket.keepalive.enabled"), "{chosen:?}");
    let variable = copy("", &[("IONLEDGER_KAFKA_PASWORD", "hush")]);
    assert!(variable.mistake(2).contains("did you mean IONLEDGER_KAFKA_PASSWORD?"), "{variable:?}");
    if !cfg!(feature = "kafka-tls") {
        let lacking = copy("[kafka]\nprotocol = \"ssl\"\n", &[]);
        assert!(lacking.mistake(2).contains("this build has no TLS for Kafka; build it with"), "{lacking:?}");
    }
    assert!(!nowhere.path().join("there").exists());
}

#[test]
fn a_time_that_names_no_moment_is_an_error_and_no_answer_for_another_one() {
    let nowhere = tempfile::tempdir().unwrap();
    let asked = |words: &[&str], zone: &str| {
        support::binary::ran(output(ionledger().env("IONLEDGER_DATA", nowhere.path()).env("TZ", zone).args(words)))
    };
    for (at, zone, expected) in [
        ("2026-10-26T10:00:30[Europe/Berln]", "UTC", "unknown time zone `Europe/Berln`; did you mean Europe/Berlin?"),
        ("2026-10-26T10:00:30[Mars/Phobos]", "UTC", "unknown time zone `Mars/Phobos`; "),
        ("2026-10-26[Mars/Phobos]", "UTC", "unknown time zone `Mars/Phobos`; "),
        ("2026-10-26T10:00+02:00[Europe/Berlin]", "UTC", "is not at +02 then; write +01"),
        (
            "2026-03-29T02:30",
            "Europe/Berlin",
            "skipped that time; the first moment after it is 2026-03-29T03:00:00+02:00",
        ),
        ("2026-10-25T02:30", "Europe/Berlin", "write 2026-10-25T02:30:00+02:00 or 2026-10-25T02:30:00+01:00"),
        ("2026-10-25T12:00", "Europe/Berln", "this machine's is unknown (TZ names a zone that does not exist)"),
    ] {
        for words in [
            vec!["who-shipped", "api", "--at", at],
            vec!["explain", "api", "--at", at],
            vec!["replay", "--at", at],
            vec!["history", "api", "--since", at],
        ] {
            let run = asked(&words, zone);
            assert!(run.mistake(2).contains(expected), "{words:?}, {zone}: {run:?}");
        }
    }
    let read = asked(&["replay", "--at", "2026-10-26T10:00:30[Asia/Tokyo]"], "Europe/Berln");
    assert!(
        read.mistake(1).starts_with("there is no ledger in"),
        "a time that is whole needs no zone of the machine: {read:?}"
    );
}

#[test]
fn a_file_that_cannot_be_run_is_refused_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    for (name, content, expected) in [
        ("empty", &b""[..], "cannot be run: it is empty"),
        ("text", b"hello\n", "cannot be run: it begins neither like an ELF binary nor with `#!`"),
        ("windows", b"#!/bin/sh\r\necho\r\n", "`#!/bin/sh`, ends in a carriage return"),
        ("nameless", b"#!\n", "names no interpreter"),
    ] {
        std::fs::write(path(name), content).unwrap();
        let run = run(folder.path(), &["release", "api", "1.2.3", "--artifact", &path(name)]);
        let line = run.mistake(1);
        assert!(line.starts_with(&format!("artifact {} ", path(name))) && line.contains(expected), "{line}");
    }
    let large = std::fs::File::create(path("large")).unwrap();
    large.set_len(3 << 30).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(path("fifo")).status().unwrap().success());
    for (name, expected) in [
        ("large", "has 3,221,225,472 bytes, at most 2,147,483,648 are allowed"),
        ("fifo", "is not a regular file"),
        ("", "is not a regular file"),
    ] {
        let run = run(folder.path(), &["release", "api", "1.2.3", "--artifact", &path(name)]);
        assert!(run.mistake(1).contains(expected), "{run:?}");
    }
}

#[test]
fn where_nobody_can_be_asked_retire_needs_to_be_told() {
    let nowhere = tempfile::tempdir().unwrap();
    let run = support::binary::ran(output(
        ionledger().env("IONLEDGER_DATA", nowhere.path().join("data")).args(["retire", "api"]),
    ));
    assert!(
        run.mistake(2).contains("takes every stack of production/api down, and nobody can be asked here; say --yes")
    );
}
