//! Who may do what on a machine with other users: nodes run as users of their own where ionledger is root, the data folder
//! is closed to others, and the socket is open to a group that was named.
//!
//! Only root can be somebody else. Without root these stories prove what is said instead.
#![allow(clippy::print_stdout)] // a skipped test says so

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use support::installation::{Installation, Said, eventually};
use support::nodes::{Fixture, PATIENT};
use support::process::output;
use workers::identity::{self, Identity};
use workers::nodes::process::ProcessNodes;
use workers::nodes::{Nodes as _, Observed, Stopped};

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
fn run_as(installation: &Installation, uid: u32, gid: u32, arguments: &[&str]) -> Said {
    let mut command = std::process::Command::new(installation.program());
    command.args(arguments).env("IONLEDGER_DATA", installation.data()).env("NO_COLOR", "1").current_dir("/");
    output(command.uid(uid).gid(gid)).into()
}

/// Declares a service with quick checks.
fn declare(installation: &Installation, name: &str, run: &str) {
    let toml = format!(
        "name = \"{name}\"\nowner = \"team\"\n[run]\nstart_deadline = \"20 s\"\n{run}\n[check]\ninterval = \"200 ms\"\n\
         healthy_after = 1\n"
    );
    installation.ok(&["apply", &installation.file(&format!("{name}.toml"), &toml)]);
}

/// Releases a program that first does what `script` says.
fn release(installation: &Installation, name: &str, script: &str) {
    let text = format!("#!/bin/sh\n{script}\nexec {} demo-service \"$@\"\n", installation.program());
    let artifact = installation.file(&format!("{name}-program"), &text);
    installation.ok(&["release", name, "1.0.0", "--artifact", &artifact, "--arg", "--port={port}"]);
}

#[test]
#[ignore = "needs root: `bash tests/run` runs it"]
fn each_services_nodes_run_as_a_user_of_their_own_that_can_do_nothing_to_ionledger() {
    if !needs_root("users of their own") {
        return;
    }
    let installation = Installation::new();
    let data = installation.data();
    let data = data.display();
    for name in ["api", "web"] {
        declare(&installation, name, "");
        // What a program would try that wants to know or to be more.
        let tries = format!(
            "for f in lock tokens.json glass/key log/* users.json proxy/control.sock api.sock nodes/*/launch.json; do\n\
             [ -r {data}/$f ] && echo \"READ $f\"; [ -w {data}/$f ] && echo \"WROTE $f\"; done\n\
             ls {data} {data}/log {data}/nodes {data}/artifacts 2>/dev/null && echo LISTED\n\
             {} rollback api --data {data} 2>/dev/null && echo ACTED\n\
             touch $HOME/mine && echo again > /dev/stdout && echo TRIED $(umask)",
            installation.program()
        );
        release(&installation, name, &tries);
        installation.ok(&["new", name, "1.0.0", "--wait"]);
    }

    let nodes = installation.node_processes();
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
    for folder in fs::read_dir(installation.data().join("nodes")).unwrap() {
        let folder = folder.unwrap().path();
        let log = fs::read_to_string(folder.join("log")).unwrap();
        assert!(log.contains("TRIED 0022") && log.contains("again"), "{log}");
        assert!(!["READ", "WROTE", "LISTED", "ACTED"].iter().any(|done| log.contains(done)), "{log}");
        assert_eq!((mode(&folder), mode(&folder.join("work"))), (0o711, 0o700));
    }
    let said = installation.ok(&["doctor"]);
    assert!(said.contains("each service's run as a user of its own"), "{said}");
}

#[test]
#[ignore = "needs root: `bash tests/run` runs it"]
fn a_node_runs_as_the_user_that_its_service_names() {
    if !needs_root("a named user") {
        return;
    }
    let installation = Installation::new();
    declare(&installation, "api", "user = \"nobody\"");
    release(&installation, "api", "");
    installation.ok(&["new", "api", "1.0.0", "--wait"]);
    let nobody = Identity::named("nobody").unwrap().unwrap();
    assert_eq!(installation.node_processes().into_iter().map(uid).collect::<Vec<_>>(), [nobody.uid]);

    declare(&installation, "web", "user = \"nobody-at-all\"");
    release(&installation, "web", "");
    let said = installation.run(&["new", "web", "1.0.0", "--wait", "--timeout", "40s"]);
    let told = format!("{} {}", said.stderr, installation.ok(&["history", "web"]));
    assert!(said.code != 0 && told.contains("useradd --system nobody-at-all"), "{told}");
    let root = installation.file("root.toml", "name = \"root\"\nowner = \"team\"\n[run]\nuser = \"root\"\n");
    let said = installation.run(&["apply", &root]);
    assert!(said.code == 2 && said.stderr.contains("user is root"), "{said:?}");
}

#[test]
#[ignore = "needs root: `bash tests/run` runs it"]
fn a_folder_above_that_nodes_users_cannot_search_is_named_before_a_node_is_launched() {
    if !needs_root("a closed folder above") {
        return;
    }
    let mut installation = Installation::empty();
    fs::set_permissions(installation.path(), fs::Permissions::from_mode(0o700)).unwrap();
    installation.up();
    let named = format!("cannot search the folder {}; `chmod o+x", installation.path().display());
    assert!(
        installation.log().contains("no node can start") && installation.log().contains(&named),
        "{}",
        installation.log()
    );
    declare(&installation, "api", "");
    release(&installation, "api", "echo STARTED");
    let said = installation.run(&["new", "api", "1.0.0", "--wait", "--timeout", "40s"]);
    let told = format!("{} {}", said.stderr, installation.ok(&["history", "api"]));
    assert!(said.code != 0 && told.contains(&named), "{told}");
    let logs = fs::read_dir(installation.data().join("nodes")).unwrap().map(|node| node.unwrap().path().join("log"));
    assert!(logs.into_iter().all(|log| !fs::read_to_string(log).unwrap_or_default().contains("STARTED")));
    let said = installation.run(&["doctor"]);
    assert!(said.code == 1 && said.stdout.contains("chmod o+x"), "{said:?}");

    fs::set_permissions(installation.path(), fs::Permissions::from_mode(0o711)).unwrap();
    installation.ok(&["new", "api", "1.0.0", "--wait"]);
}

#[tokio::test]
#[ignore = "needs root: `bash tests/run` runs it"]
async fn a_node_that_runs_already_is_taken_over_as_whom_it_runs() {
    if !needs_root("a node of before") {
        return;
    }
    let place = Fixture::new();
    let launch = place.launch_of(place.artifact(PATIENT)).await;
    let before = place.nodes().launch(&launch).await.unwrap();
    let pid: u32 = before.name.split('/').nth(1).unwrap().parse().unwrap();
    assert_eq!(uid(pid), 0);

    let nodes =
        ProcessNodes::open_with_users(place.data.path(), support::program().into(), place.artifacts.clone()).unwrap();
    assert_eq!(nodes.look().await.unwrap().get(&launch.effect), Some(&Observed::Running(before.clone())));
    assert_eq!(nodes.launch(&launch).await, Ok(before));
    assert_eq!(uid(pid), 0, "it was not started again");
    let stopped = nodes.stop(launch.effect, std::time::Duration::from_secs(5)).await;
    assert_eq!(stopped, Ok(Stopped::Ended));
}

#[test]
fn a_data_folder_of_before_is_closed_at_the_start_and_others_can_neither_read_nor_hold_it() {
    let mut installation = Installation::empty();
    installation.up();
    installation.ok(&["token", "create", "ana"]);
    installation.kill_up();
    installation.take_down();
    let data = installation.data();
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
    let said = installation.ok(&["doctor"]);
    assert!(said.contains("others may use more than they should"), "{said}");

    installation.up();
    for (path, wanted) in [("", 0o711), ("artifacts", 0o711), ("nodes", 0o711), ("log", 0o700), ("glass", 0o700)] {
        assert_eq!(mode(&data.join(path)), wanted, "{path}");
    }
    for path in ["lock", "format.json", "tokens.json", "log/00000000000000000000.jsonl", "api.sock"] {
        assert_eq!(mode(&data.join(path)), 0o600, "{path}");
    }
    assert!(!installation.ok(&["doctor"]).contains("others may use more"));
    if needs_root("a stranger") {
        let stranger = Identity { uid: STRANGER, gid: STRANGER, groups: vec![] };
        let could = stranger.act(|| {
            let read =
                ["lock", "tokens.json", "log/00000000000000000000.jsonl"].map(|file| fs::read(data.join(file)).is_ok());
            (fs::read_dir(&data).is_ok(), read, std::os::unix::net::UnixStream::connect(data.join("api.sock")).is_ok())
        });
        assert_eq!(could.unwrap(), (false, [false; 3], false));
        let said = run_as(&installation, STRANGER, STRANGER, &["rollback", "api"]);
        assert!(said.code != 0, "{said:?}");
    }
}

#[test]
#[ignore = "needs root: `bash tests/run` runs it"]
fn who_is_in_the_sockets_group_keeps_status_and_rollback_and_nobody_else_does() {
    if !needs_root("the socket's group") {
        return;
    }
    let mut installation = Installation::empty();
    installation.up_with(&["--socket-group", &GROUP.to_string()]);
    let socket = fs::metadata(installation.data().join("api.sock")).unwrap();
    assert_eq!((socket.mode() & 0o7777, socket.gid()), (0o660, GROUP));
    installation.serving("");
    installation.release("1.1.0", &[]);
    installation.new_stack("1.1.0");
    installation.ok(&["traffic", "api", "1.1.0", "100"]);
    eventually("1.1.0 serves", || installation.deployment()["weights_applied"] == true);

    let said = run_as(&installation, ON_CALL, GROUP, &["status", "api"]);
    assert!(said.code == 0 && said.stdout.contains("1.1.0"), "{said:?}");
    let said = run_as(&installation, ON_CALL, GROUP, &["rollback", "api"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(installation.weight("1.0.0"), 10_000);
    assert!(installation.ok(&["history", "api"]).contains(&format!("uid-{ON_CALL}")));
    assert_ne!(run_as(&installation, STRANGER, STRANGER, &["rollback", "api"]).code, 0);
    assert!(fs::read_dir(installation.data()).is_ok() && run_as(&installation, ON_CALL, GROUP, &["verify"]).code != 0);

    let said = Installation::empty().run(&["up", "--socket-group", "no-such-group"]);
    assert!(said.code == 2 && said.stderr.contains("groupadd --system no-such-group"), "{said:?}");
}

#[test]
fn a_folder_that_is_shared_with_a_group_stays_so_and_open_secret_files_are_named() {
    let mut installation = Installation::empty();
    let data = installation.data();
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o2770)).unwrap();
    let (open, closed) = (
        installation.file("open.secret", "0123456789abcdef0123"),
        installation.file("closed.secret", "fedcba98765432100123"),
    );
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o640)).unwrap();
    installation.up_with(&["--ci-secret-file", &open, "--ci-secret-file", &closed]);
    assert_eq!(mode(&data) & 0o2770, 0o2770);
    assert_eq!(mode(&data) & 0o006, 0);
    assert_eq!(mode(&data.join("lock")) & 0o047, 0o040, "the group shares it, others do not");
    assert_eq!(mode(&data.join("api.sock")), 0o660);
    assert_eq!(mode(&data.join("glass")) & 0o777, 0o700, "secrets stay the owner's");
    let log = installation.log();
    assert!(log.contains(&format!("secret file {open} has mode 644")) && !log.contains(&closed), "{log}");
}

#[test]
fn without_root_doctor_says_plainly_what_a_node_can_do() {
    let installation = Installation::empty();
    let program = installation.program();
    let data = installation.path().join("own");
    fs::create_dir(&data).unwrap();
    let mut command = std::process::Command::new(program);
    command.args(["doctor", "--data"]).arg(&data).current_dir("/");
    if identity::is_root() {
        std::os::unix::fs::chown(&data, Some(STRANGER), Some(STRANGER)).unwrap();
        command.uid(STRANGER).gid(STRANGER);
    }
    let said = Said::from(output(&mut command));
    assert!(said.stdout.contains("can read this ledger's secrets"), "{said:?}");
    assert!(said.stdout.contains("run `ionledger up` as root"), "{said:?}");
}
