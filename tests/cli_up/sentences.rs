//! The talk's sentences: each does what it says, prints what changed, and how it is taken back.

use super::running::Up;

fn columns(line: &str) -> Vec<&str> {
    line.split('\t').collect()
}

#[test]
fn a_version_ships_beside_the_old_one_and_comes_back_and_history_answers() {
    let up = Up::new();
    up.serving("1.2.2", "");
    up.ready("1.2.3", &[]);

    let shared = up.done("traffic api 1.2.2 90 1.2.3 10 --reason look");
    assert!(shared.stderr.contains("undo: ionledger traffic api 1.2.2 100"), "{shared:?}");
    let line = shared.stdout.lines().find(|line| line.contains("traffic.weights_set")).unwrap();
    let changed = columns(line);
    assert_eq!((changed.len(), changed[2]), (6, "deployment/production/api"));
    assert_eq!(changed[4], "traffic was set to 1.2.2 90 %, 1.2.3 10 %");
    assert!(shared.stderr.contains(&format!("offset {}, commit {}", changed[0], changed[1])), "{shared:?}");
    up.applied();

    let status = up.done("status api").stdout;
    let rows: Vec<Vec<&str>> = status.lines().map(columns).collect();
    let shares: Vec<_> = rows.iter().map(|row| (row[1], row[2], row[3], row[4], row[5])).collect();
    assert_eq!(
        shares,
        [("1.2.2", "serving", "90", "90", "ready"), ("1.2.3", "serving", "10", "10", "ready")],
        "{status}"
    );

    assert!(up.done("traffic api 1.2.3 100").stderr.contains("undo: ionledger traffic api 1.2.2 90 1.2.3 10"));
    let back = up.done("rollback api --reason worse");
    assert!(back.stdout.contains("rolled back from 1.2.3 to 1.2.2"), "{back:?}");
    assert!(!back.stderr.contains("undo:"), "1.2.3 is rejected now: {back:?}");
    let again = up.done("rollback api");
    assert_eq!(again.stdout, "", "a second rollback changed something: {again:?}");

    let history = up.json("history api");
    let entries = history["entries"].as_array().unwrap();
    let worse = entries.iter().find(|entry| entry["reason"] == "worse").unwrap();
    assert_eq!((history["schema_version"].as_u64(), worse["actor"]["kind"].as_str()), (Some(1), Some("person")));
    assert!(worse["actor"]["proof"].as_str().unwrap().starts_with("unix-peer uid="), "{worse}");

    let then = up.done(&format!("who-shipped api --event {}", changed[1])).stdout;
    let shipped: Vec<Vec<&str>> = then.lines().map(columns).collect();
    assert_eq!(
        (shipped.len(), shipped[0][1], shipped[0][2], shipped[1][1], shipped[1][2]),
        (2, "1.2.2", "90", "1.2.3", "10")
    );
    assert_eq!(shipped[1][11], "4f2a91c", "built from: {then}");

    for sentence in ["who-shipped api --at 2020-01-01", "replay --at 2020-01-01[Europe/Berlin]", "history --since now"]
    {
        let empty = up.done(sentence);
        assert_eq!(empty.stdout, "", "{sentence}");
        let expected = match sentence {
            "history --since now" => "no commit matches",
            _ => "before the ledger began: no",
        };
        assert!(empty.stderr.contains(expected), "an empty answer did not say so: {sentence}: {empty:?}");
    }

    let of = |sentence: &str| up.done(sentence).stdout;
    let explained = of(&format!("explain {}", changed[0]));
    assert!(explained.contains("traffic was set to 1.2.2 90 %, 1.2.3 10 %"), "{explained}");
    for beginning in [changed[1], &changed[1][..23], &changed[1].replace('-', "")[..20]] {
        assert_eq!(of(&format!("explain {beginning}")), explained, "{beginning}");
    }
    assert!(of("explain 1.2.3").contains("stack of 1.2.3"), "{}", of("explain 1.2.3"));
    assert_eq!(of("explain api 1.2.3"), of("explain 1.2.3"));

    let completed = |words: &[&str]| support::completion::completed(&up.data(), words);
    assert_eq!(completed(&["rollback", ""]), ["api"]);
    assert_eq!(completed(&["traffic", "api", ""]), ["1.2.3", "1.2.2"], "the newest first");
    assert_eq!(completed(&["traffic", "api", "1.2.2", "90", "1.2.3"]), ["1.2.3"]);
    assert_eq!(completed(&["traffic", "api", "1.2.2", ""]), Vec::<String>::new(), "a percentage is no version");
    assert_eq!(completed(&["status", "--env", ""]), ["production"]);

    let replayed = up.done(&format!("replay --event {}", changed[1])).stdout;
    assert!(replayed.contains("production/api\t1.2.3\tserving\t10\t"), "{replayed}");
    assert_eq!(up.done(&format!("replay --event {} --from-genesis", changed[1])).stdout, replayed);
}

#[test]
fn a_rollout_is_paused_goes_on_and_is_aborted_or_promoted() {
    let up = Up::new();
    up.serving("1.2.3", "");
    up.ready("1.2.4", &[]);
    let rolled = up.done("roll api 1.2.3 1.2.4 24 hours --steps 1,50,100");
    assert!(rolled.stdout.contains("a rollout 1.2.3 -> 1.2.4 began, in 3 steps over 24 h"), "{rolled:?}");
    assert!(rolled.stderr.contains("undo: ionledger abort api"), "{rolled:?}");
    let paused = up.done("pause api");
    assert!(paused.stderr.contains("undo: ionledger resume api"), "{paused:?}");
    assert_eq!(up.until("paused", |deployment| deployment["rollout"]["phase"] == "paused")["rollout"]["steps"], 3);
    assert!(up.done("resume api").stderr.contains("undo: ionledger pause api"));
    let aborted = up.done("abort api");
    assert!(aborted.stderr.contains("undo: ionledger roll api 1.2.3 1.2.4"), "{aborted:?}");
    up.done("roll api 1.2.3 1.2.4 1 day");
    let promoted = up.done("promote api --reason sure");
    assert!(promoted.stderr.contains("undo: ionledger rollback api"), "{promoted:?}");
    up.until("promoted", |deployment| deployment["rollout"]["phase"] == "promoted");
    let retired = up.done("retire api --yes");
    assert!(retired.stdout.contains("the deployment was retired"), "{retired:?}");
    up.until("retired", |deployment| deployment["retired_at"].is_string());
}

#[test]
fn the_same_command_under_the_same_id_is_carried_out_once() {
    let up = Up::new();
    up.declare("");
    let id = "7a1d9a52-9f43-4b0c-a2b0-0d6f9e1c5b11";
    let file = up.beside("api.toml").display().to_string();
    std::fs::write(&file, std::fs::read_to_string(&file).unwrap().replace("\"team\"", "\"other team\"")).unwrap();
    let first = up.done(&format!("apply {file} --command-id {id}"));
    let asked = up.asked();
    let again = up.done(&format!("apply {file} --command-id {id}"));
    assert_eq!(first.stdout, again.stdout);
    assert!(again.stderr.contains("carried out before under this command id"), "{again:?}");
    let other = up.say(&format!("rollback api --command-id {id}"));
    assert!(other.mistake(1).contains("was already used for another command"), "{other:?}");
    assert_eq!(up.asked(), asked);
}

#[test]
fn a_rollback_that_is_repeated_under_its_id_says_what_it_said_first() {
    let (up, _) = Up::shipped();
    let rollback = format!("rollback api --reason 3am --command-id {}", uuid::Uuid::now_v7());
    let [first, again] = [up.done(&rollback), up.done(&rollback)];
    let undo = "`ionledger traffic api 1.1.0 100 --again --reason WHY` overrules that";
    assert!(first.stderr.contains(undo), "{first:?}");
    assert!(again.stderr.contains(undo), "{again:?}");
    assert!(!again.stderr.contains("takes the place"), "no hold was there before: {again:?}");
    up.done("traffic api 1.1.0 100 --again --reason fixed");
    let after = up.done(&rollback);
    assert!(after.stderr.contains("other weights have been set since"), "{after:?}");
    assert!(!after.stderr.contains("not applied"), "it was: {after:?}");
}

#[test]
fn a_dry_run_shows_the_events_and_appends_none() {
    let up = Up::new();
    up.serving("1.2.2", "");
    up.ready("1.2.3", &[]);
    up.release("1.2.4", &[]);
    let before = up.asked();
    let binary = env!("CARGO_BIN_EXE_ionledger");
    for (sentence, event) in [
        ("traffic api 1.2.2 90 1.2.3 10".to_owned(), "traffic.weights_set"),
        ("roll api 1.2.2 1.2.3 24 hours".to_owned(), "rollout.started"),
        ("new api 1.2.4".to_owned(), "stack.requested"),
        (format!("release api 1.2.5 --artifact {binary}"), "release.recorded"),
        ("retire api".to_owned(), "traffic.retired"),
    ] {
        let shown = up.done(&format!("{sentence} --dry-run"));
        assert!(shown.stdout.starts_with("-\t-\t") && shown.stdout.contains(event), "{sentence}: {shown:?}");
        assert!(shown.stderr.contains("dry run: nothing was appended"), "{sentence}: {shown:?}");
        assert!(!shown.stderr.contains("undo:"), "{sentence}: {shown:?}");
    }
    assert_eq!(up.asked(), before);
}

/// Reads answer the same beside a running `up` and without one, and say nothing but data with `--quiet`.
#[test]
fn reads_and_verify_work_without_up_and_say_the_same() {
    let up = Up::new();
    up.serving("1.2.2", "");
    let last = up.json("history --limit 1")["entries"][0]["offset"].as_u64().unwrap();
    let sentences = [
        format!("replay --offset {last} --json"),
        format!("who-shipped api --offset {last} --json"),
        "history api --limit 3 --since 2020-01-01".to_owned(),
        "status --quiet".to_owned(),
    ];
    let answers = || sentences.iter().map(|sentence| up.done(sentence).stdout).collect::<Vec<_>>();
    let running = answers();
    let verified = up.done("verify --json").stdout;
    let data = up.data();
    let doctor = up.done("doctor");
    // A warning is the machine's affair; that nothing fails is what exit code 0 says.
    assert!(doctor.stdout.lines().all(|line| columns(line).len() == 4 && !line.starts_with("fail")), "{doctor:?}");
    assert!(doctor.stdout.lines().any(|line| line.starts_with("ok\t")), "{doctor:?}");
    let folder = up.end();
    let say = |sentence: &String| support::binary::say(&data, sentence);
    for (sentence, running) in sentences.iter().zip(running) {
        let run = say(sentence);
        assert_eq!((run.code, &run.stderr), (0, &String::new()), "{sentence}: {run:?}");
        // The log grew by what stopping wrote; what was asked about is the past, or these lines.
        if sentence.contains("offset") {
            assert_eq!(run.stdout, running, "{sentence}");
        }
    }
    assert!(verified.contains("\"ok\":true"), "{verified}");
    let verified = say(&"verify".to_owned());
    assert!(verified.code == 0 && verified.stdout.starts_with("ok\ttrue\n"), "{verified:?}");
    let log = data.join("log/00000000000000000000.jsonl");
    let mut bytes = std::fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let damaged = say(&"verify".to_owned());
    assert_eq!(damaged.code, 1, "{damaged:?}");
    assert!(damaged.stdout.contains("bad.offset\t") && damaged.stderr.contains("restore it"), "{damaged:?}");
    drop(folder);
}

#[test]
fn a_changed_declaration_says_what_changed_and_show_gives_any_earlier_one_back() {
    let up = Up::new();
    let first = up.declare("[judgement]\nerrors_tolerance = \"1 %\"\n");
    let file = up.beside("api.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, before.replace("1 %", "2 %") + "[capacity]\nnodes = 3\n").unwrap();
    let changed = "capacity.nodes 1 -> 3, judgement.errors_tolerance 1 % -> 2 %";
    let apply = format!("apply {}", file.display());

    let dry = up.done(&format!("{apply} --dry-run"));
    assert!(dry.stdout.contains(changed), "{dry:?}");
    let applied = up.done(&apply);
    assert!(applied.stdout.contains(changed), "{applied:?}");
    assert!(up.done("history api").stdout.contains(&format!("the declaration of api changed: {changed}")));
    let (_, undo) = applied.stderr.split_once("undo: ionledger ").unwrap();
    let (show, _) = undo.split_once(" > before.toml && ionledger apply before.toml").unwrap();

    let earlier = up.done(show).stdout;
    assert!(earlier.contains("errors_tolerance = \"1 %\"") && earlier.contains("nodes = 1"), "{earlier}");
    assert!(up.done("show api").stdout.contains("errors_tolerance = \"2 %\""));
    assert_eq!(up.json("show api")["definition"]["capacity"]["nodes"], 3);
    std::fs::write(&file, &earlier).unwrap();
    let back = up.done(&apply);
    assert!(back.stdout.contains("capacity.nodes 3 -> 1, judgement.errors_tolerance 2 % -> 1 %"), "{back:?}");
    assert_eq!(up.done("show api").stdout, earlier);
    assert!(earlier.contains(&format!("production = \"{first}\"")), "{earlier}");

    let nobody = up.say("show nosuch");
    assert!(nobody.code == 1 && nobody.stderr.contains("nosuch"), "{nobody:?}");
    let too_early = up.say("show api --offset 0");
    assert!(too_early.code == 1 && too_early.stderr.contains("not declared yet"), "{too_early:?}");
    let data = up.data();
    let folder = up.end();
    assert_eq!(support::binary::say(&data, "show api").stdout, earlier);
    drop(folder);
}
