//! What nodes wrote: of those that run and of those that ended, with secrets masked, followed, and with `up` or without.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc;

use support::installation::{DEADLINE, Installation, eventually};

const SECRET: &str = "correct-horse-battery";

/// A service whose nodes say what they are given, and one with a secret of its own.
fn talking() -> Installation {
    let mut installation = Installation::empty();
    let secret = installation.file("secret", &format!("{SECRET}\n"));
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    installation.up();
    installation.declare(&format!("[run.env]\nKEY = {{ from_file = \"{secret}\" }}\nLEVEL = \"info\"\n"));
    let program = installation.program();
    let text = format!(
        "#!/bin/sh\necho \"begins with $KEY at $LEVEL\"\ni=0\n\
         (while :; do i=$((i+1)); echo \"beat $i\"; sleep 0.1; done) &\nexec {program} demo-service \"$@\"\n"
    );
    let artifact = installation.file("talker", &text);
    for version in ["1.0.0", "1.1.0"] {
        installation.ok(&["release", "api", version, "--artifact", &artifact, "--arg=--port={port}"]);
    }
    installation.ok(&["new", "api", "1.0.0", "--wait"]);
    eventually("both nodes are ready", || installation.deployment()["versions"][0]["nodes_ready"] == 2);
    installation
}

#[test]
fn logs_show_what_nodes_wrote_without_their_secrets_whether_or_not_up_runs() {
    let mut installation = talking();
    let said = installation.ok(&["logs", "api"]);
    assert_eq!(said.matches("begins with *** at info").count(), 2, "two nodes: {said}");
    assert!(!said.contains(SECRET) && said.contains("beat 1"), "{said}");
    let one = installation.ok(&["logs", "api", "1.0.0", "--node", "2"]);
    assert_eq!(one.matches("begins with").count(), 1, "{one}");
    assert!(one.lines().all(|line| line.starts_with("1.0.0\t2\t")), "{one}");
    let json = installation.ok(&["logs", "api", "--node", "1", "--json"]);
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!((&first["version"], &first["slot"]), (&"1.0.0".into(), &0.into()));

    // `status` shows where it lies.
    let path = installation.deployment()["versions"][0]["nodes"][0]["log"].as_str().unwrap().to_owned();
    assert!(fs::read_to_string(&path).unwrap().contains(SECRET), "{path} is the node's own");

    for (wrong, named) in [
        (vec!["logs", "web"], "service web is unknown"),
        (vec!["logs", "web", "-f"], "service web is unknown"),
        (vec!["logs", "api", "9.9.9"], "no node of production/api 9.9.9 has a log here"),
        (vec!["logs", "api", "--node", "7"], "no node 7 of production/api has a log here"),
    ] {
        let said = installation.run(&wrong);
        assert!(said.code == 1 && said.stderr.contains(named), "{wrong:?}: {said:?}");
    }
    assert_eq!(installation.run(&["logs", "api", "--since", "sometime"]).code, 2);

    installation.kill_up();
    let said = installation.ok(&["logs", "api"]);
    assert!(said.contains("begins with *** at info") && !said.contains(SECRET), "{said}");
}

#[test]
fn who_follows_gets_what_comes_also_of_a_new_version_and_since_leaves_the_old_out() {
    let installation = talking();
    // Marks are made about once a second: wait until one behind the first line is over a second old.
    eventually("the log's times are marked", || {
        let nodes = fs::read_dir(installation.data().join("nodes")).unwrap();
        let times = nodes.map(|node| fs::read_to_string(node.unwrap().path().join("times")).unwrap_or_default());
        times.into_iter().all(|times| times.lines().count() >= 4)
    });
    let lately = installation.ok(&["logs", "api", "--since", "1s"]);
    assert!(!lately.contains("begins with") && lately.contains("beat "), "{lately}");
    assert!(installation.ok(&["logs", "api", "--since", "1 hour"]).contains("begins with"));

    let mut following =
        installation.command(&["logs", "api", "-f"]).stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let (told, lines) = mpsc::channel();
    let out = following.stdout.take().unwrap();
    std::thread::spawn(move || BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| told.send(line)));
    let wait_for = |what: &str| {
        while !lines.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("{what} does not come")).contains(what) {}
    };
    wait_for("1.0.0\t1");
    installation.ok(&["new", "api", "1.1.0", "--wait"]);
    wait_for("1.1.0\t1");
    wait_for("beat");
    following.kill().unwrap();
    following.wait().unwrap();
}

#[test]
fn the_log_of_a_node_that_ended_is_kept() {
    let installation = Installation::new();
    installation.declare("[run]\nstart_deadline = \"10 s\"\n");
    let artifact = installation.file("broken", "#!/bin/sh\necho cannot reach the database\nexit 3\n");
    installation.ok(&["release", "api", "1.0.0", "--artifact", &artifact]);
    assert_ne!(installation.run(&["new", "api", "1.0.0", "--wait"]).code, 0);
    let said = installation.ok(&["logs", "api", "1.0.0"]);
    assert!(said.contains("cannot reach the database"), "{said}");
}

#[test]
fn apply_and_release_warn_of_what_up_does_not_have_and_open_secret_files_are_named() {
    let installation = Installation::new();
    let open = installation.file("open", "0123456789");
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let toml = format!(
        "name = \"api\"\nowner = \"team\"\n[run.env]\nA = {{ from_env = \"NO_SUCH_VARIABLE\" }}\nB = {{ from_env = \"PATH\" }}\n\
         C = {{ from_file = \"/no/such/file\" }}\nD = {{ from_file = \"{open}\" }}\n"
    );
    let apply = installation.file("api.toml", &toml);
    let program = installation.file("program", "#!/bin/sh\n");
    for command in [
        vec!["apply", &apply, "--dry-run"],
        vec!["apply", &apply],
        vec!["release", "api", "1.0.0", "--artifact", &program],
    ] {
        let said = installation.run(&command);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.stderr.contains("the variable NO_SUCH_VARIABLE is not set where ionledger runs"), "{said:?}");
        assert!(said.stderr.contains("the file /no/such/file, which cannot be read"), "{said:?}");
        assert!(said.stderr.contains(&format!("the secret file {open} has mode 644")), "{said:?}");
        assert!(!said.stderr.contains("env B"), "{said:?}");
    }
}
