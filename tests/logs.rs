//! What nodes wrote: of those that run and of those that ended, with secrets masked, followed, and with `up` or without.

#[path = "support/house.rs"]
mod house;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc;

use house::{DEADLINE, House, eventually};

const SECRET: &str = "correct-horse-battery";

/// A service whose nodes say what they are given, and one with a secret of its own.
fn talking() -> House {
    let mut house = House::empty();
    let secret = house.file("secret", &format!("{SECRET}\n"));
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    house.up();
    house.declare(&format!("[run.env]\nKEY = {{ from_file = \"{secret}\" }}\nLEVEL = \"info\"\n"));
    let program = house.program();
    let text = format!(
        "#!/bin/sh\necho \"begins with $KEY at $LEVEL\"\ni=0\n\
         (while :; do i=$((i+1)); echo \"beat $i\"; sleep 0.1; done) &\nexec {program} demo-service \"$@\"\n"
    );
    let artifact = house.file("talker", &text);
    for version in ["1.0.0", "1.1.0"] {
        house.ok(&["release", "api", version, "--artifact", &artifact, "--arg=--port={port}"]);
    }
    house.ok(&["new", "api", "1.0.0", "--wait"]);
    eventually("both nodes are ready", || house.deployment()["versions"][0]["nodes_ready"] == 2);
    house
}

#[test]
fn logs_show_what_nodes_wrote_without_their_secrets_whether_or_not_up_runs() {
    let mut house = talking();
    let said = house.ok(&["logs", "api"]);
    assert_eq!(said.matches("begins with *** at info").count(), 2, "two nodes: {said}");
    assert!(!said.contains(SECRET) && said.contains("beat 1"), "{said}");
    let one = house.ok(&["logs", "api", "1.0.0", "--node", "2"]);
    assert_eq!(one.matches("begins with").count(), 1, "{one}");
    assert!(one.lines().all(|line| line.starts_with("1.0.0\t2\t")), "{one}");
    let json = house.ok(&["logs", "api", "--node", "1", "--json"]);
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!((&first["version"], &first["slot"]), (&"1.0.0".into(), &0.into()));

    // `status` shows where it lies.
    let path = house.deployment()["versions"][0]["nodes"][0]["log"].as_str().unwrap().to_owned();
    assert!(fs::read_to_string(&path).unwrap().contains(SECRET), "{path} is the node's own");

    for (wrong, named) in [
        (vec!["logs", "web"], "no node of production/web"),
        (vec!["logs", "web", "-f"], "no node of production/web"),
        (vec!["logs", "api", "9.9.9"], "no node of production/api 9.9.9"),
        (vec!["logs", "api", "--node", "7"], "no node 7 of production/api"),
    ] {
        let said = house.run(&wrong);
        let line = format!("{named} has a log here");
        assert!(said.code == 1 && said.stderr.contains(&line), "{wrong:?}: {said:?}");
    }
    assert_eq!(house.run(&["logs", "api", "--since", "sometime"]).code, 2);

    house.kill_up();
    let said = house.ok(&["logs", "api"]);
    assert!(said.contains("begins with *** at info") && !said.contains(SECRET), "{said}");
}

#[test]
fn who_follows_gets_what_comes_also_of_a_new_version_and_since_leaves_the_old_out() {
    let house = talking();
    // Marks are made about once a second: wait until one behind the first line is over a second old.
    eventually("the log's times are marked", || {
        let nodes = fs::read_dir(house.data().join("nodes")).unwrap();
        let times = nodes.map(|node| fs::read_to_string(node.unwrap().path().join("times")).unwrap_or_default());
        times.into_iter().all(|times| times.lines().count() >= 4)
    });
    let lately = house.ok(&["logs", "api", "--since", "1s"]);
    assert!(!lately.contains("begins with") && lately.contains("beat "), "{lately}");
    assert!(house.ok(&["logs", "api", "--since", "1 hour"]).contains("begins with"));

    let mut following =
        house.command(&["logs", "api", "-f"]).stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let (told, lines) = mpsc::channel();
    let out = following.stdout.take().unwrap();
    std::thread::spawn(move || BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| told.send(line)));
    let wait_for = |what: &str| {
        while !lines.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("{what} does not come")).contains(what) {}
    };
    wait_for("1.0.0\t1");
    house.ok(&["new", "api", "1.1.0", "--wait"]);
    wait_for("1.1.0\t1");
    wait_for("beat");
    following.kill().unwrap();
    following.wait().unwrap();
}

#[test]
fn the_log_of_a_node_that_ended_is_kept() {
    let house = House::new();
    house.declare("[run]\nstart_deadline = \"10 s\"\n");
    let artifact = house.file("broken", "#!/bin/sh\necho cannot reach the database\nexit 3\n");
    house.ok(&["release", "api", "1.0.0", "--artifact", &artifact]);
    assert_ne!(house.run(&["new", "api", "1.0.0", "--wait"]).code, 0);
    let said = house.ok(&["logs", "api", "1.0.0"]);
    assert!(said.contains("cannot reach the database"), "{said}");
}

#[test]
fn apply_and_release_warn_of_what_up_does_not_have_and_open_secret_files_are_named() {
    let house = House::new();
    let open = house.file("open", "0123456789");
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let toml = format!(
        "name = \"api\"\nowner = \"team\"\n[run.env]\nA = {{ from_env = \"NO_SUCH_VARIABLE\" }}\nB = {{ from_env = \"PATH\" }}\n\
         C = {{ from_file = \"/no/such/file\" }}\nD = {{ from_file = \"{open}\" }}\n"
    );
    let apply = house.file("api.toml", &toml);
    let program = house.file("program", "#!/bin/sh\n");
    for command in [
        vec!["apply", &apply, "--dry-run"],
        vec!["apply", &apply],
        vec!["release", "api", "1.0.0", "--artifact", &program],
    ] {
        let said = house.run(&command);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.stderr.contains("the variable NO_SUCH_VARIABLE is not set where ionledger runs"), "{said:?}");
        assert!(said.stderr.contains("the file /no/such/file, which cannot be read"), "{said:?}");
        assert!(said.stderr.contains(&format!("the secret file {open} has mode 644")), "{said:?}");
        assert!(!said.stderr.contains("env B"), "{said:?}");
    }
}
