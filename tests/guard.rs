//! Who may do what on a machine with other users: nodes run as users of their own where ionledger is root, the data folder
//! is closed to others, and the socket is open to a group that was named.
//!
//! Only root can be somebody else. Without root these stories prove what is said instead.
#![allow(clippy::print_stdout)] // a skipped test says so

#[path = "support/house.rs"]
mod house;
#[path = "nodes/place.rs"]
#[allow(dead_code)] // each story uses what it needs
mod place;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use house::{House, Said, eventually};
use place::{IONLEDGER, PATIENT, Place};
use workers::identity::{self, Identity};
use workers::nodes::process::ProcessNodes;
use workers::nodes::{Nodes as _, Seen, Stopped};

/// Users and a group that nobody has.
const STRANGER: u32 = 4_243;
const ON_CALL: u32 = 4_244;
const GROUP: u32 = 4_245;

fn needs_root(what: &str) -> bool {
    if !identity::is_root() {
        println!("SKIPPED {what}: only root can be another user");
    }
    identity::is_root()
}

/// Returns a line of `/proc/PID/status`.
fn status(pid: u32, line: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    found.unwrap_or_else(|| panic!("no {line}: {status}")).trim().to_owned()
}

fn uid(pid: u32) -> u32 {
    status(pid, "Uid").split_whitespace().next().unwrap().parse().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).mode() & 0o7777
}

/// Runs the command line as another user.
fn run_as(house: &House, uid: u32, gid: u32, arguments: &[&str]) -> Said {
    let mut command = std::process::Command::new(house.program());
    command.args(arguments).env("IONLEDGER_DATA", house.data()).env("NO_COLOR", "1").current_dir("/");
    command.uid(uid).gid(gid).output().unwrap().into()
}

/// Declares a service with quick checks.
fn declare(house: &House, name: &str, run: &str) {
    let toml = format!(
        "name = \"{name}\"\nowner = \"team\"\n[run]\nstart_deadline = \"20 s\"\n{run}\n[check]\ninterval = \"200 ms\"\n\
         healthy_after = 1\n"
    );
    house.ok(&["apply", &house.file(&format!("{name}.toml"), &toml)]);
}

/// Releases a program that first does what `script` says.
fn release(house: &House, name: &str, script: &str) {
    let text = format!("#!/bin/sh\n{script}\nexec {} demo-service \"$@\"\n", house.program());
    let artifact = house.file(&format!("{name}-program"), &text);
    house.ok(&["release", name, "1.0.0", "--artifact", &artifact, "--arg", "--port={port}"]);
}

#[test]
fn each_services_nodes_run_as_a_user_of_their_own_that_can_do_nothing_to_ionledger() {
    if !needs_root("users of their own") {
        return;
    }
    let house = House::new();
    let data = house.data();
    let data = data.display();
    for name in ["api", "web"] {
        declare(&house, name, "");
        // What a program would try that wants to know or to be more.
        let tries = format!(
            "for f in lock tokens.json glass/key log/* users.json proxy/control.sock api.sock nodes/*/launch.json; do\n\
             [ -r {data}/$f ] && echo \"READ $f\"; [ -w {data}/$f ] && echo \"WROTE $f\"; done\n\
             ls {data} {data}/log {data}/nodes {data}/artifacts 2>/dev/null && echo LISTED\n\
             {} rollback api --data {data} 2>/dev/null && echo ACTED\n\
             touch $HOME/mine && echo again > /dev/stdout && echo TRIED $(umask)",
            house.program()
        );
        release(&house, name, &tries);
        house.ok(&["new", name, "1.0.0", "--wait"]);
    }

    let nodes = house.node_processes();
    assert_eq!(nodes.len(), 2);
    let users: BTreeSet<u32> = nodes.iter().map(|pid| uid(*pid)).collect();
    assert!(users.len() == 2 && !users.contains(&0), "{users:?}");
    for pid in nodes {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status(pid, set), "0000000000000000", "{set}");
        }
        assert_eq!((status(pid, "NoNewPrivs"), status(pid, "Groups")), ("1".into(), String::new()));
        assert_eq!(status(pid, "Gid").split_whitespace().collect::<BTreeSet<_>>().len(), 1);
    }
    for folder in fs::read_dir(house.data().join("nodes")).unwrap() {
        let folder = folder.unwrap().path();
        let log = fs::read_to_string(folder.join("log")).unwrap();
        assert!(log.contains("TRIED 0022") && log.contains("again"), "{log}");
        assert!(!["READ", "WROTE", "LISTED", "ACTED"].iter().any(|done| log.contains(done)), "{log}");
        assert_eq!((mode(&folder), mode(&folder.join("work"))), (0o711, 0o700));
    }
    let said = house.ok(&["doctor"]);
    assert!(said.contains("each service's run as a user of its own"), "{said}");
}

#[test]
fn a_node_runs_as_the_user_that_its_service_names() {
    if !needs_root("a named user") {
        return;
    }
    let house = House::new();
    declare(&house, "api", "user = \"nobody\"");
    release(&house, "api", "");
    house.ok(&["new", "api", "1.0.0", "--wait"]);
    let nobody = Identity::named("nobody").unwrap().unwrap();
    assert_eq!(house.node_processes().into_iter().map(uid).collect::<Vec<_>>(), [nobody.uid]);

    declare(&house, "web", "user = \"nobody-at-all\"");
    release(&house, "web", "");
    let said = house.run(&["new", "web", "1.0.0", "--wait", "--timeout", "40s"]);
    let told = format!("{} {}", said.stderr, house.ok(&["history", "web"]));
    assert!(said.code != 0 && told.contains("useradd --system nobody-at-all"), "{told}");
    let root = house.file("root.toml", "name = \"root\"\nowner = \"team\"\n[run]\nuser = \"root\"\n");
    let said = house.run(&["apply", &root]);
    assert!(said.code == 2 && said.stderr.contains("user is root"), "{said:?}");
}

#[test]
fn a_folder_above_that_nodes_users_cannot_search_is_named_before_a_node_is_launched() {
    if !needs_root("a closed folder above") {
        return;
    }
    let mut house = House::empty();
    fs::set_permissions(house.path(), fs::Permissions::from_mode(0o700)).unwrap();
    house.up();
    let named = format!("cannot search the folder {}; `chmod o+x", house.path().display());
    assert!(house.log().contains("no node can start") && house.log().contains(&named), "{}", house.log());
    declare(&house, "api", "");
    release(&house, "api", "echo STARTED");
    let said = house.run(&["new", "api", "1.0.0", "--wait", "--timeout", "40s"]);
    let told = format!("{} {}", said.stderr, house.ok(&["history", "api"]));
    assert!(said.code != 0 && told.contains(&named), "{told}");
    let logs = fs::read_dir(house.data().join("nodes")).unwrap().map(|node| node.unwrap().path().join("log"));
    assert!(logs.into_iter().all(|log| !fs::read_to_string(log).unwrap_or_default().contains("STARTED")));
    let said = house.run(&["doctor"]);
    assert!(said.code == 1 && said.stdout.contains("chmod o+x"), "{said:?}");

    fs::set_permissions(house.path(), fs::Permissions::from_mode(0o711)).unwrap();
    house.ok(&["new", "api", "1.0.0", "--wait"]);
}

#[tokio::test]
async fn a_node_that_runs_already_is_taken_over_as_whom_it_runs() {
    if !needs_root("a node of before") {
        return;
    }
    let place = Place::new();
    let launch = place.launch_of(place.artifact(PATIENT)).await;
    let before = place.nodes().launch(&launch).await.unwrap();
    let pid: u32 = before.name.split('/').nth(1).unwrap().parse().unwrap();
    assert_eq!(uid(pid), 0);

    let nodes = ProcessNodes::open_with_users(place.data.path(), IONLEDGER.into(), place.artifacts.clone()).unwrap();
    assert_eq!(nodes.look().await.unwrap().get(&launch.effect), Some(&Seen::Running(before.clone())));
    assert_eq!(nodes.launch(&launch).await, Ok(before));
    assert_eq!(uid(pid), 0, "it was not started again");
    let stopped = nodes.stop(launch.effect, std::time::Duration::from_secs(5)).await;
    assert_eq!(stopped, Ok(Stopped::Ended));
}

#[test]
fn a_data_folder_of_before_is_closed_at_the_start_and_others_can_neither_read_nor_hold_it() {
    let mut house = House::empty();
    house.up();
    house.ok(&["token", "create", "ana"]);
    house.kill_up();
    house.take_down();
    let data = house.data();
    for path in [
        "",
        "log",
        "artifacts",
        "nodes",
        "lock",
        "format.json",
        "tokens.json",
        "glass",
        "log/00000000000000000000.jsonl",
    ] {
        let path = data.join(path);
        let open = if path.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(open)).unwrap();
    }
    let said = house.ok(&["doctor"]);
    assert!(said.contains("others may use more than they should"), "{said}");

    house.up();
    for (path, wanted) in [("", 0o711), ("artifacts", 0o711), ("nodes", 0o711), ("log", 0o700), ("glass", 0o700)] {
        assert_eq!(mode(&data.join(path)), wanted, "{path}");
    }
    for path in ["lock", "format.json", "tokens.json", "log/00000000000000000000.jsonl", "api.sock"] {
        assert_eq!(mode(&data.join(path)), 0o600, "{path}");
    }
    assert!(!house.ok(&["doctor"]).contains("others may use more"));
    if needs_root("a stranger") {
        let stranger = Identity { uid: STRANGER, gid: STRANGER, groups: vec![] };
        let could = stranger.act(|| {
            let read =
                ["lock", "tokens.json", "log/00000000000000000000.jsonl"].map(|file| fs::read(data.join(file)).is_ok());
            (fs::read_dir(&data).is_ok(), read, std::os::unix::net::UnixStream::connect(data.join("api.sock")).is_ok())
        });
        assert_eq!(could.unwrap(), (false, [false; 3], false));
        let said = run_as(&house, STRANGER, STRANGER, &["rollback", "api"]);
        assert!(said.code != 0, "{said:?}");
    }
}

#[test]
fn who_is_in_the_sockets_group_keeps_status_and_rollback_and_nobody_else_does() {
    if !needs_root("the socket's group") {
        return;
    }
    let mut house = House::empty();
    house.up_with(&["--socket-group", &GROUP.to_string()]);
    let socket = fs::metadata(house.data().join("api.sock")).unwrap();
    assert_eq!((socket.mode() & 0o7777, socket.gid()), (0o660, GROUP));
    house.serving("");
    house.release("1.1.0", &[]);
    house.new_stack("1.1.0");
    house.ok(&["traffic", "api", "1.1.0", "100"]);
    eventually("1.1.0 serves", || house.deployment()["weights_applied"] == true);

    let said = run_as(&house, ON_CALL, GROUP, &["status", "api"]);
    assert!(said.code == 0 && said.stdout.contains("1.1.0"), "{said:?}");
    let said = run_as(&house, ON_CALL, GROUP, &["rollback", "api"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(house.weight("1.0.0"), 10_000);
    assert!(house.ok(&["history", "api"]).contains(&format!("uid-{ON_CALL}")));
    assert_ne!(run_as(&house, STRANGER, STRANGER, &["rollback", "api"]).code, 0);
    assert!(fs::read_dir(house.data()).is_ok() && run_as(&house, ON_CALL, GROUP, &["verify"]).code != 0);

    let said = House::empty().run(&["up", "--socket-group", "no-such-group"]);
    assert!(said.code == 2 && said.stderr.contains("groupadd --system no-such-group"), "{said:?}");
}

#[test]
fn a_folder_that_is_shared_with_a_group_stays_so_and_open_secret_files_are_named() {
    let mut house = House::empty();
    let data = house.data();
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o2770)).unwrap();
    let (open, closed) =
        (house.file("open.secret", "0123456789abcdef0123"), house.file("closed.secret", "fedcba98765432100123"));
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o640)).unwrap();
    house.up_with(&["--ci-secret-file", &open, "--ci-secret-file", &closed]);
    assert_eq!(mode(&data) & 0o2770, 0o2770);
    assert_eq!(mode(&data) & 0o006, 0);
    assert_eq!(mode(&data.join("lock")) & 0o047, 0o040, "the group shares it, others do not");
    assert_eq!(mode(&data.join("api.sock")), 0o660);
    assert_eq!(mode(&data.join("glass")) & 0o777, 0o700, "secrets stay the owner's");
    let log = house.log();
    assert!(log.contains(&format!("secret file {open} has mode 644")) && !log.contains(&closed), "{log}");
}

#[test]
fn without_root_doctor_says_plainly_what_a_node_can_do() {
    let house = House::empty();
    let program = house.program();
    let data = house.path().join("own");
    fs::create_dir(&data).unwrap();
    let mut command = std::process::Command::new(program);
    command.args(["doctor", "--data"]).arg(&data).current_dir("/");
    if identity::is_root() {
        std::os::unix::fs::chown(&data, Some(STRANGER), Some(STRANGER)).unwrap();
        command.uid(STRANGER).gid(STRANGER);
    }
    let said = Said::from(command.output().unwrap());
    assert!(said.stdout.contains("can read this ledger's secrets"), "{said:?}");
    assert!(said.stdout.contains("run `ionledger up` as root"), "{said:?}");
}
