//! A rollback without `up`: dead, it is done by the command itself; hung, the command rolls back without the ledger (break-glass).

use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::running::{Up, answer};
use support::binary::{Run, ran, run, say};
use support::process::output;

/// A ledger of which 1.1.0 serves, after 1.0.0, and where its users connect.
fn serving() -> (Up, SocketAddr) {
    let (up, address) = Up::shipped();
    assert!(answer(address).contains("1.1.0"), "{}", answer(address));
    (up, address)
}

/// Everything that lies below a folder.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut all = vec![folder.to_owned()];
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => all.extend(below(&entry.path())),
            false => all.push(entry.path()),
        }
    }
    all
}

/// Starts `up` again, which then knows of one rollback by a person, and ends all of it.
fn known_after(folder: TempDir) {
    let up = Up::on(folder, &[]);
    let history = up.json("history api --limit 0");
    let entries = history["entries"].as_array().unwrap().clone();
    let back = |entry: &&serde_json::Value| {
        entry["events"].as_array().unwrap().iter().any(|event| event["type"] == "traffic.rolled_back")
    };
    let backs: Vec<_> = entries.iter().filter(back).collect();
    assert_eq!(backs.len(), 1, "{backs:#?}");
    assert_eq!((&backs[0]["actor"]["kind"], &backs[0]["reason"]), (&"person".into(), &"3am".into()));
    up.until("1.0.0 serves", |deployment| {
        deployment["weights_applied"] == true && deployment["versions"][0]["weight_applied"] == 10_000
    });
}

#[test]
fn with_up_dead_the_command_takes_the_folder_and_moves_the_users() {
    let (up, address) = serving();
    let data = up.data();
    let folder = up.kill();
    let back = say(&data, "rollback api --reason 3am");
    assert_eq!(back.code, 0, "{back:?}");
    assert!(back.stderr.contains("nothing runs on") && back.stderr.contains("does it itself"), "{back:?}");
    assert!(answer(address).contains("1.0.0"), "{}", answer(address));
    // What the router confirmed to the command is recorded: nobody else was there.
    let shipped = say(&data, "who-shipped api");
    assert!(shipped.stdout.starts_with("production/api\t1.0.0\t100\t100\t"), "{shipped:?}");
    let again = say(&data, "rollback api");
    assert!(again.code == 0 && again.stderr.contains("rolled back already"), "{again:?}");
    known_after(folder);
}

/// Kills the node of a version.
fn kill_node(data: &Path, version: &str) {
    let status: serde_json::Value = serde_json::from_str(&run(data, &["status", "api", "--json"]).stdout).unwrap();
    let versions = status["services"][0]["deployments"][0]["versions"].as_array().unwrap();
    let of = versions.iter().find(|of| of["version"] == version).unwrap();
    let record = data.join("nodes").join(of["nodes"][0]["effect"].as_str().unwrap()).join("node.json");
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(record["pid"].as_i64().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

#[test]
fn with_up_dead_or_hung_unready_moves_nobody_to_a_version_of_which_no_node_can_be_called() {
    for is_hung in [false, true] {
        let (up, address) = serving();
        let data = up.data();
        let rest = match is_hung {
            true => {
                up.signal(Signal::STOP);
                Err(up)
            }
            false => Ok(up.kill()),
        };
        kill_node(&data, "1.0.0");
        let back = say(&data, "rollback api --unready --reason 3am");
        let users = answer(address);
        let again = say(&data, "rollback api --reason 3am");
        let users_again = answer(address);
        let up = rest.map_or_else(
            |up| {
                up.signal(Signal::CONT);
                up
            },
            |folder| Up::on(folder, &[]),
        );
        let told = format!("{}{}", back.stdout, back.stderr);
        assert_eq!(back.code, 8, "hung: {is_hung}; {back:?}");
        assert!(told.contains("nobody listens on"), "hung: {is_hung}; {told}");
        assert!(users.contains("1.1.0") && users_again.contains("1.1.0"), "hung: {is_hung}; {users}; {users_again}");
        assert_ne!(again.code, 0, "hung: {is_hung}; {again:?}");
        up.until("users are on a node of 1.0.0 that was started again", |_| answer(address).contains("1.0.0"));
        up.end();
    }
}

#[test]
fn with_up_dead_doctor_names_users_of_a_dead_version() {
    let (up, _) = serving();
    let data = up.data();
    let _folder = up.kill();
    kill_node(&data, "1.1.0");
    let doctor = say(&data, "doctor");
    assert!(doctor.code == 1 && doctor.stdout.contains("1.1.0 serves with 0 of 1 node ready"), "{doctor:?}");
}

#[test]
fn with_up_dead_and_a_damaged_log_the_command_moves_the_users_by_what_the_cache_knows() {
    let (up, address) = serving();
    let data = up.data();
    let folder = up.kill();
    // A question brings the cache up to date: what was committed a moment before the kill may not be in it yet.
    assert_eq!(say(&data, "status api").code, 0);
    let log = below(&data.join("log"))
        .into_iter()
        .filter(|path| path.is_file())
        .max_by_key(|path| path.metadata().unwrap().len());
    let log = log.unwrap();
    let sound = std::fs::read(&log).unwrap();
    let mut damaged = sound.clone();
    let at = sound.iter().position(|byte| *byte == b'\n').unwrap() / 2;
    damaged[at] ^= 1;
    std::fs::write(&log, damaged).unwrap();
    let back = say(&data, "rollback api --reason 3am");
    assert_eq!(back.code, 0, "{back:?}");
    assert!(back.stderr.contains("is damaged") && back.stderr.contains("goes on without the ledger"), "{back:?}");
    assert!(answer(address).contains("1.0.0"), "{}", answer(address));
    std::fs::write(&log, sound).unwrap();
    let up = Up::on(folder, &[]);
    up.until("it is recorded", |deployment| deployment["holds"][0]["cause"] == "rollback");
    assert!(answer(address).contains("1.0.0"), "{}", answer(address));
    known_after(up.end());
}

#[test]
#[ignore = "needs root: `bash tests/run` runs it"]
fn with_up_dead_and_a_folder_that_takes_nothing_the_command_moves_the_users_all_the_same() {
    let (up, address) = serving();
    let data = up.data();
    let folder = up.kill();
    let mount = |arguments: &[&str]| {
        let done = output(Command::new("mount").args(arguments).arg(&data));
        assert!(done.status.success(), "{done:?}");
    };
    let path = data.to_str().unwrap();
    mount(&["--bind", path]);
    mount(&["-o", "remount,bind,ro"]);
    let back = say(&data, "rollback api --reason 3am");
    let served = answer(address);
    assert!(output(Command::new("umount").arg(&data)).status.success());
    assert_eq!(back.code, 0, "{back:?}");
    assert!(served.contains("1.0.0"), "{served}");
    let said = back.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("goes on without the ledger"), "{back:?}");
    assert!(said.contains("record it with `ionledger traffic api 1.0.0 100 --reason WHY`"), "{back:?}");
    Up::on(folder, &[]).end();
}

#[test]
fn where_nobody_is_served_neither_status_nor_a_rollback_says_anything_else() {
    let (up, _) = serving();
    let folder = up.end();
    let data = folder.path().join("data");
    let back = say(&data, "rollback api --reason 3am");
    assert_eq!(back.code, 8, "{back:?}");
    let said = back.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("set, not applied"), "{back:?}");
    assert!(said.contains("the proxy does not run, so nobody is served; `ionledger up` starts it"), "{back:?}");
    assert!(!said.contains("where they were"), "{back:?}");
    known_after(folder);
}

#[test]
fn with_up_hung_the_command_breaks_the_glass_and_up_records_it_later() {
    let (up, address) = serving();
    up.signal(Signal::STOP);
    let begun = Instant::now();
    let back = say(&up.data(), "rollback api --reason 3am");
    let took = begun.elapsed();
    let moved = answer(address);
    let refused = say(&up.data(), "status api --server http://127.0.0.1:1 --token-file /dev/null");
    up.signal(Signal::CONT);
    assert_eq!(back.code, 0, "{back:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(back.stderr.contains("rolled back without the ledger (break-glass)"), "{back:?}");
    assert!(moved.contains("1.0.0"), "{moved}");
    assert_ne!(refused.code, 0);
    up.until("it is recorded", |deployment| deployment["holds"][0]["cause"] == "rollback");
    known_after(up.end());
}

#[test]
fn what_was_sent_to_a_hung_up_before_a_rollback_is_not_carried_out_after_it() {
    // An id of our making says when it was made; for one of one's own the client says when it was sent.
    for id in ["", " --command-id 7a1d9a52-9f43-4b0c-a2b0-0d6f9e1c5b11"] {
        let (up, address) = serving();
        up.signal(Signal::STOP);
        let before = say(&up.data(), &format!("traffic api 1.0.0 10 1.1.0 90 --again --reason queued{id}"));
        let back = say(&up.data(), "rollback api --reason 3am");
        up.signal(Signal::CONT);
        assert_eq!((before.code, back.code), (1, 0), "{before:?}\n{back:?}");
        up.until("it is recorded", |deployment| deployment["holds"][0]["cause"] == "rollback");
        let told = say(&up.data(), "history api");
        assert!(!told.stdout.contains("nothing follows from it"), "{told:?}");
        for _ in 0..40 {
            assert!(answer(address).contains("1.0.0"), "{}", say(&up.data(), "history api").stdout);
        }
        known_after(up.end());
    }
}

#[test]
fn a_rollback_that_a_hung_proxy_did_not_take_in_time_moves_nobody_when_it_goes_on() {
    let (up, address) = serving();
    let data = up.data();
    let proxy = workers::traffic::proxy::process(&data).unwrap().pid;
    let proxy = rustix::process::Pid::from_raw(i32::try_from(proxy).unwrap()).unwrap();
    up.signal(Signal::STOP);
    rustix::process::kill_process(proxy, Signal::STOP).unwrap();
    let back = say(&data, "rollback api --reason 3am");
    std::thread::sleep(Duration::from_secs(1));
    rustix::process::kill_process(proxy, Signal::CONT).unwrap();
    let users = answer(address);
    up.signal(Signal::CONT);
    assert_eq!(back.code, 8, "{back:?}");
    assert!(users.contains("1.1.0"), "the call was given up: {users}");
    up.until("users are where they were sent", |deployment| {
        deployment["weights_applied"] == true && answer(address).contains("1.0.0")
    });
    let history = up.json("history api --limit 0");
    let late = history["entries"].as_array().unwrap().iter().find(|entry| entry["asked_at"].is_string());
    assert!(late.is_some_and(|late| late["effective_at"].is_null()), "{history:#}");
    known_after(up.end());
}

#[test]
fn with_up_hung_what_is_read_comes_from_the_folder_and_names_the_process() {
    let (up, _) = serving();
    let data = up.data();
    up.signal(Signal::STOP);
    let begun = Instant::now();
    let read = ["status api", "history api", "show api", "explain api"].map(|line| say(&data, line));
    let took = begun.elapsed();
    let fleet = run(&data, &["status", "--json"]);
    let doctor = say(&data, "doctor");
    up.signal(Signal::CONT);
    read.iter().for_each(|said| assert_eq!(said.code, 0, "{said:?}"));
    assert!(took < Duration::from_secs(40), "{took:?}: each waits 3 s for it");
    let hung = format!("the process {} that serves {} does not answer", up.pid(), data.display());
    assert!(read[0].stderr.contains(&hung), "{:?}", read[0]);
    assert!(read[1].stdout.contains("1.1.0"), "{:?}", read[1]);
    let fleet: serde_json::Value = serde_json::from_str(&fleet.stdout).unwrap();
    assert!(fleet["unattended"]["silent"].as_str().is_some_and(|why| why.contains(&hung)), "{fleet}");
    assert!(doctor.code == 1 && doctor.stdout.contains(&hung), "{doctor:?}");
    // It goes on once it can, and answers itself again.
    let status = run(&data, &["status", "--json"]);
    assert!(status.code == 0 && !status.stdout.contains("unattended"), "{status:?}");
}

#[test]
fn with_up_hung_a_change_says_so_within_seconds_and_what_became_of_it() {
    let (up, _) = serving();
    let data = up.data();
    up.signal(Signal::STOP);
    let begun = Instant::now();
    let held = say(&data, "hold api --reason x");
    let took = begun.elapsed();
    let dry = say(&data, "pause api --dry-run");
    up.signal(Signal::CONT);
    assert!(took < Duration::from_secs(15), "{took:?}");
    let hung = format!("the process {} that serves {} does not answer", up.pid(), data.display());
    let said = held.mistake(1);
    assert!(said.contains(&hung) && said.contains("the command was sent, and nobody knows whether"), "{said}");
    assert!(said.contains("stop it and start it again") && said.contains("--command-id "), "{said}");
    assert!(dry.mistake(1).contains(&hung) && !dry.stderr.contains("--command-id"), "{dry:?}");
    // The same command again is carried out once.
    let id = said.split("--command-id ").nth(1).unwrap().split('`').next().unwrap();
    let again = say(&data, &format!("hold api --reason x --command-id {id}"));
    assert_eq!(again.code, 0, "{again:?}");
    assert_eq!(up.json("status api")["services"][0]["deployments"][0]["holds"].as_array().unwrap().len(), 1);
}

#[test]
fn a_wait_goes_on_while_up_hangs_and_when_it_goes_on() {
    let (up, _) = serving();
    let data = up.data();
    let wait = std::thread::spawn(move || say(&data, "renew api --wait --timeout 60s"));
    up.until("it is asked for", |deployment| deployment["versions"].as_array().is_some_and(|all| all.len() == 3));
    up.signal(Signal::STOP);
    std::thread::sleep(Duration::from_secs(6));
    up.signal(Signal::CONT);
    let waited = wait.join().unwrap();
    assert_eq!(waited.code, 0, "{waited:?}");
}

#[test]
#[ignore = "needs root: `bash tests/run` runs it"]
fn whatever_a_stranger_asks_the_command_that_may_is_given() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can act as others");
        return;
    }
    let up = Up::new();
    let data = up.data();
    let lines = [
        "hold api --reason x",
        "pause api",
        "promote api",
        "abort api",
        "resume api",
        "traffic api 1.0.0 100",
        "status",
        "rollback api",
        "retire api --yes",
        "new api 1.0.0",
        "dismiss api 1.0.0",
        "renew api",
        "logs api",
        "verify",
        "token list",
        "token create x",
        "forecast api",
        "show api",
        "up",
        "replay",
    ];
    let to = data.join("copy").display().to_string();
    let copy = format!("copy --from {} --to {to}", data.display());
    for line in lines.into_iter().chain([&*copy]) {
        let stranger = as_stranger(&data, &line.split(' ').collect::<Vec<_>>());
        assert_eq!(stranger.code, 4, "{line}: {stranger:?}");
        assert!(stranger.stderr.contains("run `sudo ") && stranger.stderr.contains(line), "{line}: {stranger:?}");
    }
    up.end();
}

#[test]
#[ignore = "needs root: `bash tests/run` runs it"]
fn a_stranger_is_told_what_may_look_and_nothing_untrue() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can act as others");
        return;
    }
    let (up, _) = serving();
    let data = up.data();
    let folder = up.kill();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    for (line, code) in [("status", 4), ("history api", 4), ("explain api", 4), ("doctor", 1)] {
        let stranger = as_stranger(&data, &line.split(' ').collect::<Vec<_>>());
        let said = format!("{}{}", stranger.stdout, stranger.stderr);
        assert_eq!(stranger.code, code, "{stranger:?}");
        assert!(said.contains("run `sudo ") && said.contains(&format!("{line} --data {}`", data.display())), "{said}");
        for untrue in ["nobody holds", "no segment yet", "has nothing to serve", "that this user may use it"] {
            assert!(!said.contains(untrue), "{said}");
        }
    }
    Up::on(folder, &[]).end();
}

/// Runs the command line as a user who is neither root nor the folder's owner.
fn as_stranger(data: &Path, args: &[&str]) -> Run {
    let mut stranger = Command::new("setpriv");
    stranger
        .args(["--reuid=65533", "--regid=65533", "--clear-groups"])
        .arg(env!("CARGO_BIN_EXE_ionledger"))
        .args(args)
        .env("IONLEDGER_DATA", data);
    ran(output(&mut stranger))
}

#[test]
#[ignore = "needs root: `bash tests/run` runs it"]
fn new_files_get_the_folders_owner_and_a_stranger_gets_the_command_that_may() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can act as others");
        return;
    }
    let (up, address) = serving();
    let data = up.data();
    let folder = up.kill();
    let nobody = 65_534;
    let files = || below(&data).into_iter().filter(|path| !path.starts_with(data.join("nodes")));
    files().for_each(|path| std::os::unix::fs::lchown(&path, Some(nobody), Some(nobody)).unwrap());
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let stranger = as_stranger(&data, &["rollback", "api", "--reason", "it is 3am"]);
    assert_eq!(stranger.code, 4, "{stranger:?}");
    let sudo = format!("rollback api --reason 'it is 3am' --data {}`", data.display());
    assert!(stranger.stderr.contains("run `sudo ") && stranger.stderr.contains(&sudo), "{stranger:?}");

    let back = run(&data, &["rollback", "api", "--reason", "3am"]);
    assert_eq!(back.code, 0, "{back:?}");
    assert!(answer(address).contains("1.0.0"), "{}", answer(address));
    let strange: Vec<_> = files().filter(|path| path.symlink_metadata().unwrap().uid() != nobody).collect();
    assert_eq!(strange, Vec::<PathBuf>::new(), "the owner's next `up` could not use them");
    below(&data).iter().for_each(|path| drop(std::os::unix::fs::lchown(path, Some(0), Some(0))));
    known_after(folder);
}

#[test]
fn a_folder_of_no_ledger_is_not_made_one() {
    let nowhere = tempfile::tempdir().unwrap();
    let data = nowhere.path().join("data");
    let back = say(&data, "rollback api");
    assert!(back.mistake(1).contains("there is no ledger in"), "{back:?}");
    assert!(!data.exists());
}
