//! Nodes are real processes: launched once however often they are asked for, found again after a restart, and ended
//! without ever touching a stranger.
#![allow(clippy::print_stdout)] // a skipped test says so

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use schemas::EffectId;
use schemas::run::EnvValue;
use support::nodes::{
    Fixture, PATIENT, all_processes, eventually, field_of_stat, files_below, kill, lives, pid, processes_of,
};
use support::program;
use workers::nodes::{Fault, Nodes as _, Observed, Stopped};

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_node_that_is_launched_again_is_the_same_process() {
    let place = Fixture::new();
    let nodes = place.nodes();
    let launch = place.launch_of(place.artifact(PATIENT)).await;
    let first = nodes.launch(&launch).await.unwrap();
    assert_eq!(first.address, format!("127.0.0.1:{}", launch.port).parse().unwrap());
    assert_eq!(nodes.launch(&launch).await, Ok(first.clone()));
    assert_eq!(nodes.look().await.unwrap().get(&launch.effect), Some(&Observed::Running(first.clone())));
    assert_eq!(processes_of(launch.effect), [pid(&first.name)]);
}

#[tokio::test]
async fn a_node_outlives_its_launcher_that_is_killed_and_is_adopted_by_the_next() {
    let place = Fixture::new();
    let launch = place.launch_of(place.artifact(PATIENT)).await;
    fs::write(place.data.path().join("launch"), serde_json::to_vec(&launch).unwrap()).unwrap();
    let mut launcher = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "a_launcher_that_waits_to_be_killed"])
        .env("PLACE", place.data.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the launcher is done", || place.data.path().join("done").exists()).await;
    launcher.kill().unwrap();
    launcher.wait().unwrap();

    let nodes = place.nodes();
    let adopted = match nodes.look().await.unwrap().remove(&launch.effect) {
        Some(Observed::Running(instance)) => instance,
        other => panic!("not adopted: {other:?}"),
    };
    assert_eq!(nodes.launch(&launch).await, Ok(adopted.clone()));
    assert_eq!(processes_of(launch.effect), [pid(&adopted.name)]);
    kill(pid(&adopted.name), Signal::KILL);
    let exit = place.exited(&nodes, launch.effect).await;
    assert_eq!((exit.code, exit.signal), (None, None), "nobody saw how it ended");
}

#[tokio::test]
#[ignore = "the other process of the test above"]
async fn a_launcher_that_waits_to_be_killed() {
    let Some(data) = std::env::var_os("PLACE") else { return };
    let data = Path::new(&data);
    let artifacts = workers::artifacts::Artifacts::open(data).unwrap().into();
    let nodes = workers::nodes::process::ProcessNodes::open(data, program().into(), artifacts).unwrap();
    nodes.launch(&serde_json::from_slice(&fs::read(data.join("launch")).unwrap()).unwrap()).await.unwrap();
    fs::write(data.join("done"), "").unwrap();
    std::future::pending().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn launchers_that_race_make_one_node() {
    let place = Fixture::new();
    let artifact = place.artifact(PATIENT);
    for _ in 0..20 {
        let launch = place.launch_of(artifact).await;
        let racers = (0..3).map(|_| (place.nodes(), launch.clone()));
        let racers = racers.map(|(nodes, launch)| tokio::spawn(async move { nodes.launch(&launch).await }));
        let mut results = Vec::new();
        for racer in racers.collect::<Vec<_>>() {
            results.push(racer.await.unwrap().unwrap());
        }
        assert!(results.iter().all(|result| *result == results[0]), "{results:?}");
        assert_eq!(processes_of(launch.effect), [pid(&results[0].name)]);
    }
}

#[tokio::test]
async fn looking_all_the_time_never_makes_a_launch_fail() {
    let place = Fixture::new();
    let artifact = place.artifact(PATIENT);
    let looker = place.nodes();
    let looking = tokio::spawn(async move {
        loop {
            looker.look().await.unwrap();
        }
    });
    for _ in 0..20 {
        let launch = place.launch_of(artifact).await;
        place.nodes().launch(&launch).await.unwrap();
        assert_eq!(place.nodes().stop(launch.effect, LONG).await, Ok(Stopped::Ended));
    }
    looking.abort();
}

#[tokio::test]
async fn a_killed_node_is_seen_as_exited_and_its_effect_starts_no_second_one() {
    let place = Fixture::new();
    let nodes = place.nodes();
    let launch = place.launch_of(place.artifact("#!/bin/sh\necho last words\nexec sleep 1000\n")).await;
    let instance = nodes.launch(&launch).await.unwrap();
    place.logged(launch.effect, "last words").await;
    kill(pid(&instance.name), Signal::KILL);
    let exit = place.exited(&nodes, launch.effect).await;
    assert_eq!((exit.signal, exit.stopped, exit.log_tail.as_str()), (Some(9), false, "last words"));
    let again = nodes.launch(&launch).await.unwrap_err();
    let wanted = "the node was ended by signal 9; the end of its log: last words";
    assert_eq!(again, Fault::Permanent(wanted.to_owned()));
}

#[tokio::test]
async fn a_node_that_dies_at_once_gives_its_last_words_as_the_reason() {
    let place = Fixture::new();
    let nodes = place.nodes();
    let launch = place.launch_of(place.artifact("#!/bin/sh\necho no database >&2\nexit 3\n")).await;
    let said = match nodes.launch(&launch).await {
        Err(Fault::Permanent(reason)) => reason,
        Ok(_) => format!("the node {}", place.exited(&nodes, launch.effect).await), // seen a moment later
        other => panic!("{other:?}"),
    };
    assert_eq!(said, "the node exited with code 3; the end of its log: no database");
    assert!(matches!(nodes.launch(&launch).await, Err(Fault::Permanent(_))));
}

#[tokio::test]
async fn what_cannot_be_run_is_a_permanent_fault_that_says_why() {
    let place = Fixture::new();
    let cases = [
        ("just text\n", "is not a program: it begins neither as an ELF executable nor with `#!`"),
        ("#!/no/such/interpreter\n", "cannot run artifact"),
        ("\x7fELFbut not really", "is not a program"),
    ];
    for (content, why) in cases {
        let launch = place.launch_of(place.artifact(content)).await;
        match place.nodes().launch(&launch).await {
            Err(Fault::Hopeless(reason)) => assert!(reason.contains(why), "{reason}"),
            other => panic!("{content:?}: {other:?}"),
        }
        assert_eq!(place.nodes().look().await.unwrap().get(&launch.effect), None, "nothing exists outside");
    }
    let missing = place.launch_of(schemas::Hash::of(b"never stored")).await;
    let fault = place.nodes().launch(&missing).await.unwrap_err();
    assert!(matches!(&fault, Fault::Hopeless(reason) if reason.starts_with("no artifact")), "{fault}");
}

#[tokio::test]
async fn a_port_that_a_stranger_holds_is_named() {
    let place = Fixture::new();
    let mut launch = place.launch_of(place.artifact(PATIENT)).await;
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    launch.port = stranger.local_addr().unwrap().port();
    let wanted = format!("port {} is in use by another program; launch on another port", launch.port);
    assert_eq!(place.nodes().launch(&launch).await, Err(Fault::Permanent(wanted)));
    drop(stranger);
    place.nodes().launch(&launch).await.unwrap();
}

#[tokio::test]
async fn an_effect_that_comes_back_with_other_parameters_is_refused() {
    let place = Fixture::new();
    let mut launch = place.launch_of(place.artifact(PATIENT)).await;
    place.nodes().launch(&launch).await.unwrap();
    launch.args.push("more".into());
    let fault = place.nodes().launch(&launch).await.unwrap_err();
    assert!(fault.to_string().ends_with("was launched before with other parameters"), "{fault}");
}

#[tokio::test]
async fn a_stopped_node_ends_with_its_children_and_a_late_launch_does_nothing() {
    let place = Fixture::new();
    let nodes = place.nodes();
    let family = "#!/bin/sh\nsleep 1000 &\nsetsid sleep 1000 &\nenv -i sleep 1000 &\necho ready\nwait\n";
    let launch = place.launch_of(place.artifact(family)).await;
    let instance = nodes.launch(&launch).await.unwrap();
    place.logged(launch.effect, "ready").await;
    let session = pid(&instance.name);
    let mut family: Vec<i32> = all_processes().filter(|pid| field_of_stat(*pid, 3) == Some(session)).collect();
    family.extend(processes_of(launch.effect));
    assert_eq!(nodes.stop(launch.effect, LONG).await, Ok(Stopped::Ended));
    assert!(family.len() >= 4 && !family.iter().any(|pid| lives(*pid)), "{family:?}");
    assert!(place.exited(&nodes, launch.effect).await.stopped);
    assert_eq!(nodes.stop(launch.effect, LONG).await, Ok(Stopped::NotRunning));
    let late = nodes.launch(&launch).await.unwrap_err();
    assert!(matches!(&late, Fault::Permanent(reason) if reason.contains("was stopped")), "{late}");
}

#[tokio::test]
async fn a_node_that_will_not_end_is_killed_after_the_grace() {
    let place = Fixture::new();
    let stubborn = "#!/bin/sh\ntrap 'echo not yet' TERM\necho ready\nwhile :; do sleep 0.01; done\n";
    let launch = place.launch_of(place.artifact(stubborn)).await;
    place.nodes().launch(&launch).await.unwrap();
    place.logged(launch.effect, "ready").await;
    assert_eq!(place.nodes().stop(launch.effect, Duration::from_millis(300)).await, Ok(Stopped::Killed));
    assert_eq!(processes_of(launch.effect), [0; 0]);
    assert!(place.log(launch.effect).contains("not yet"), "it was asked first");
}

#[tokio::test]
async fn stopping_what_never_ran_keeps_it_from_ever_starting() {
    let place = Fixture::new();
    let launch = place.launch_of(place.artifact(PATIENT)).await;
    assert_eq!(place.nodes().stop(launch.effect, LONG).await, Ok(Stopped::NotRunning));
    assert!(matches!(place.nodes().launch(&launch).await, Err(Fault::Permanent(_))));
    assert_eq!(place.nodes().look().await.unwrap().get(&launch.effect), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_races_a_launch_leaves_nothing_running() {
    let place = Fixture::new();
    let artifact = place.artifact(PATIENT);
    let mut launched = 0;
    for delay_ms in 0..20 {
        let launch = place.launch_of(artifact).await;
        let (nodes, same) = (place.nodes(), launch.clone());
        let launching = tokio::spawn(async move { nodes.launch(&same).await });
        // A real process is started meanwhile, and each round stops it at another moment of its start.
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        place.nodes().stop(launch.effect, LONG).await.unwrap();
        launched += usize::from(launching.await.unwrap().is_ok());
        assert_eq!(processes_of(launch.effect), [0; 0], "the stop came {delay_ms} ms after the launch");
        assert!(place.nodes().launch(&launch).await.is_err());
    }
    println!("{launched} of 20 launches were done before the stop");
}

#[tokio::test]
async fn what_a_dead_node_has_left_behind_is_ended_by_stopping_it() {
    let place = Fixture::new();
    let nodes = place.nodes();
    let launch = place.launch_of(place.artifact("#!/bin/sh\nsetsid sleep 1000 &\nexec sleep 1000\n")).await;
    let instance = nodes.launch(&launch).await.unwrap();
    eventually("two processes", || processes_of(launch.effect).len() == 2).await;
    kill(pid(&instance.name), Signal::KILL);
    place.exited(&nodes, launch.effect).await;
    assert_eq!(processes_of(launch.effect).len(), 1);
    assert_eq!(nodes.stop(launch.effect, LONG).await, Ok(Stopped::Ended));
    assert_eq!(processes_of(launch.effect), [0; 0]);
}

/// Writes a stranger's pid into a dead node's record, as if that pid had passed on.
async fn dead_node_with_the_pid_of_a_stranger(
    place: &Fixture,
    same_start: bool,
    other_boot: bool,
) -> (EffectId, Child) {
    let nodes = place.nodes();
    let launch = place.launch_of(place.artifact(PATIENT)).await;
    kill(pid(&nodes.launch(&launch).await.unwrap().name), Signal::KILL);
    place.exited(&nodes, launch.effect).await;
    let stranger = Command::new("sleep").arg("1000").spawn().unwrap();
    let path = place.folder(launch.effect).join("node.json");
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    record["pid"] = stranger.id().into();
    let stat = fs::read_to_string(format!("/proc/{}/stat", stranger.id())).unwrap();
    let start: u64 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().parse().unwrap();
    record["start_ticks"] = (if same_start { start } else { start - 1 }).into();
    if other_boot {
        record["boot_id"] = "00000000-0000-0000-0000-000000000000".into();
    }
    fs::write(&path, record.to_string()).unwrap();
    (launch.effect, stranger)
}

#[tokio::test]
async fn a_stranger_that_got_a_dead_nodes_pid_is_never_touched() {
    let place = Fixture::new();
    // Another start on this boot; and the very same pid and start, but on another boot.
    for (same_start, other_boot) in [(false, false), (true, true)] {
        let (effect, mut stranger) = dead_node_with_the_pid_of_a_stranger(&place, same_start, other_boot).await;
        let seen = place.nodes().look().await.unwrap().remove(&effect);
        assert!(matches!(seen, Some(Observed::Exited(_))), "{seen:?}");
        assert_eq!(place.nodes().stop(effect, Duration::ZERO).await, Ok(Stopped::NotRunning));
        assert_eq!(stranger.try_wait().unwrap(), None, "the stranger was ended");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}

#[tokio::test]
async fn a_zombie_whose_parent_does_not_care_is_seen_as_exited() {
    let place = Fixture::new();
    let program = program();
    let careless = format!("#!/bin/sh\n{program} \"$@\" &\nexec sleep 1000 >/dev/null\n");
    let nodes = place.nodes_through(place.script("careless", &careless));
    let launch = place.launch_of(place.artifact(PATIENT)).await;
    let node = pid(&nodes.launch(&launch).await.unwrap().name);
    let parent = field_of_stat(node, 1).unwrap();
    kill(node, Signal::KILL);
    place.exited(&place.nodes(), launch.effect).await;
    let stat = fs::read_to_string(format!("/proc/{node}/stat")).unwrap();
    assert!(stat.contains(") Z "), "the parent has reaped it: {stat}");
    kill(parent, Signal::KILL);
}

#[tokio::test]
async fn a_node_that_has_closed_its_lock_is_still_known() {
    let place = Fixture::new();
    let closer = "#!/bin/sh\nfor fd in 3 4 5 6 7 8 9; do eval \"exec $fd>&-\"; done\necho closed\nexec sleep 1000\n";
    let launch = place.launch_of(place.artifact(closer)).await;
    let instance = place.nodes().launch(&launch).await.unwrap();
    place.logged(launch.effect, "closed").await;
    let open = fs::read_dir(format!("/proc/{}/fd", pid(&instance.name))).unwrap();
    let targets: Vec<_> = open.map(|fd| fs::read_link(fd.unwrap().path()).unwrap_or_default()).collect();
    assert!(!targets.iter().any(|target| target.ends_with("lock")), "{targets:?}");
    assert_eq!(place.nodes().launch(&launch).await, Ok(instance.clone()));
    assert_eq!(place.nodes().stop(launch.effect, LONG).await, Ok(Stopped::Ended));
}

#[tokio::test]
async fn a_node_gets_a_clean_environment_its_port_and_nothing_else_that_is_open() {
    let place = Fixture::new();
    let leak = fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let curious = "#!/bin/sh\necho args $*\nenv | sort\nls -l /proc/self/fd\necho end\nexec sleep 1000\n";
    let mut launch = place.launch_of(place.artifact(curious)).await;
    launch.args = vec!["--port={port}".into(), "{port}".into(), "*".into()];
    launch.env.insert("COLOUR".into(), EnvValue::Value("blue".into()));
    launch.env.insert("PORT".into(), EnvValue::Value("1".into()));
    launch.env.insert("COPIED".into(), EnvValue::FromEnv("PATH".into()));
    place.nodes().launch(&launch).await.unwrap();
    place.logged(launch.effect, "\nend\n").await;
    let log = place.log(launch.effect);
    let port = launch.port;
    assert!(log.starts_with(&format!("args --port={port} {port} ")), "{log}");
    let mut names: Vec<&str> = log.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_", "LANG", "LC_ALL", "TZ"].contains(name) && !name.contains(' '));
    let wanted = ["COLOUR", "COPIED", "HOME", "IONLEDGER_ENVIRONMENT", "IONLEDGER_NODE", "IONLEDGER_SERVICE"];
    assert_eq!(
        names,
        [&wanted[..], &["IONLEDGER_STACK", "IONLEDGER_STACK_NAME", "IONLEDGER_VERSION", "PATH", "PORT"]].concat()
    );
    for line in [
        format!("PORT={port}"),
        format!("IONLEDGER_NODE={}", launch.effect),
        format!("COPIED={}", std::env::var("PATH").unwrap()),
        "IONLEDGER_VERSION=1.2.3".into(),
        "IONLEDGER_STACK_NAME=1.2.3".into(),
    ] {
        assert!(log.lines().any(|l| l == line), "{line} is not in {log}");
    }
    let open: Vec<&str> = log.lines().filter_map(|line| Some(line.split_once(" -> ")?.1)).collect();
    let known = |target: &&str| ["/log", "/lock", "/fd"].iter().any(|end| target.ends_with(end));
    let (known, other): (Vec<&str>, Vec<&str>) = open.into_iter().partition(known);
    assert_eq!((known.len(), other), (4, vec!["/dev/null"]), "stdin alone is /dev/null: {log}");
}

#[tokio::test]
async fn a_node_ignores_no_signal_though_its_launcher_does() {
    let place = Fixture::new();
    let program = program();
    let deaf = place.script("deaf", &format!("#!/bin/sh\ntrap '' TERM HUP USR1\nexec {program} \"$@\"\n"));
    let launch = place.launch_of(place.artifact(PATIENT)).await;
    let nodes = place.nodes_through(deaf);
    let node = pid(&nodes.launch(&launch).await.unwrap().name);
    let status = fs::read_to_string(format!("/proc/{node}/status")).unwrap();
    for mask in ["SigIgn:", "SigBlk:"] {
        let mask = status.lines().find_map(|line| line.strip_prefix(mask)).unwrap().trim();
        let first_31 = u64::from_str_radix(mask, 16).unwrap() & 0x7fff_ffff; // the C library has others for itself
        assert_eq!(first_31, 0, "{status}");
    }
    assert_eq!(nodes.stop(launch.effect, LONG).await, Ok(Stopped::Ended));
}

#[tokio::test]
async fn a_secret_appears_in_no_file_of_ours_no_fault_and_no_tail() {
    const CANARY: &str = "canary-5f1d0c";
    let place = Fixture::new();
    let nodes = place.nodes();
    let secret = place.data.path().join("secret");
    fs::write(&secret, format!("{CANARY}\n")).unwrap();
    let mut launch = place.launch_of(place.artifact("#!/bin/sh\necho \"key is $KEY.\"\nexit 1\n")).await;
    launch.env.insert("KEY".into(), EnvValue::FromFile(secret.to_str().unwrap().into()));
    let mut texts = vec![format!("{:?}", nodes.launch(&launch).await)];
    let exit = place.exited(&nodes, launch.effect).await;
    assert_eq!(exit.log_tail, "key is ***.");
    texts.push(format!("{exit:?} {:?}", nodes.launch(&launch).await));
    assert_eq!(place.log(launch.effect), format!("key is {CANARY}.\n"), "the node itself got the value");
    for file in files_below(&place.folder(launch.effect)) {
        if !file.ends_with("log") {
            texts.push(String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned());
        }
    }
    assert!(texts.len() >= 5 && !texts.iter().any(|text| text.contains(CANARY)), "{texts:?}");

    fs::remove_file(&secret).unwrap();
    let exit = place.exited(&nodes, launch.effect).await;
    assert!(exit.log_tail.starts_with("(withheld, its secrets cannot be masked: "), "{}", exit.log_tail);
}

#[tokio::test]
async fn a_reference_that_leads_nowhere_is_named() {
    let place = Fixture::new();
    let mut launch = place.launch_of(place.artifact(PATIENT)).await;
    launch.env.insert("KEY".into(), EnvValue::FromEnv("NOT_SET_ANYWHERE".into()));
    let fault = place.nodes().launch(&launch).await.unwrap_err();
    let wanted = "cannot resolve environment variable KEY: the variable NOT_SET_ANYWHERE is not set where ionledger \
                  runs; set it and start again";
    assert_eq!(fault, Fault::Hopeless(wanted.to_owned()));
}

#[tokio::test]
async fn a_cleaned_up_node_leaves_its_log_and_is_seen_no_more() {
    let place = Fixture::new();
    let nodes = place.nodes();
    let launch = place.launch_of(place.artifact("#!/bin/sh\necho hello\ntouch bulk\nexec sleep 1000\n")).await;
    nodes.launch(&launch).await.unwrap();
    place.logged(launch.effect, "hello").await;
    assert!(matches!(nodes.cleanup(launch.effect).await, Err(Fault::Permanent(_))), "it still runs");
    nodes.stop(launch.effect, LONG).await.unwrap();
    assert!(nodes.look().await.unwrap().contains_key(&launch.effect));
    for _ in 0..2 {
        assert_eq!(nodes.cleanup(launch.effect).await, Ok(()));
    }
    assert!(!nodes.look().await.unwrap().contains_key(&launch.effect));
    assert_eq!(place.log(launch.effect), "hello\n");
    assert!(!place.folder(launch.effect).join("work").exists());
}

#[tokio::test]
async fn the_logs_of_the_newest_hundred_cleaned_up_nodes_are_kept() {
    let place = Fixture::new();
    let nodes = place.nodes();
    let effects: Vec<EffectId> = (0..103).map(|n| EffectId(uuid::Uuid::from_u128(n))).collect();
    for effect in &effects {
        nodes.stop(*effect, Duration::ZERO).await.unwrap();
        nodes.cleanup(*effect).await.unwrap();
    }
    let kept: Vec<bool> = effects.iter().map(|effect| place.folder(*effect).exists()).collect();
    assert_eq!((&kept[..3], kept[3..].iter().all(|kept| *kept)), (&[false; 3][..], true));
}

#[tokio::test]
async fn a_long_log_is_set_aside_while_the_node_goes_on_writing() {
    let place = Fixture::new();
    let nodes = place.nodes();
    let chatty = "#!/bin/sh\nhead -c 11000000 /dev/zero\necho done\nwhile [ ! -e ask ]; do sleep 0.01; done\necho more\nexec sleep 1000\n";
    let launch = place.launch_of(place.artifact(chatty)).await;
    nodes.launch(&launch).await.unwrap();
    let log = place.folder(launch.effect).join("log");
    eventually("a long log", || fs::metadata(&log).is_ok_and(|log| log.len() == 11_000_005)).await;
    nodes.look().await.unwrap();
    assert_eq!(fs::metadata(place.folder(launch.effect).join("log.1")).unwrap().len(), 11_000_005);
    fs::write(place.folder(launch.effect).join("work/ask"), "").unwrap();
    place.logged(launch.effect, "more").await;
    assert_eq!(place.log(launch.effect), "more\n");
}

#[tokio::test]
async fn a_damaged_record_is_unknown_and_not_gone() {
    let place = Fixture::new();
    let launch = place.launch_of(place.artifact(PATIENT)).await;
    let instance = place.nodes().launch(&launch).await.unwrap();
    let path = place.folder(launch.effect).join("node.json");
    let record = fs::read(&path).unwrap();
    fs::write(&path, "{").unwrap();
    let seen = place.nodes().look().await.unwrap().remove(&launch.effect);
    assert!(matches!(&seen, Some(Observed::Unknown { reason }) if reason.contains("node.json is damaged")), "{seen:?}");
    assert!(matches!(place.nodes().launch(&launch).await, Err(Fault::Retryable(_))));
    fs::write(&path, record).unwrap();
    assert_eq!(place.nodes().launch(&launch).await, Ok(instance));
}

/// The system calls of one start from its session's begin to the exec of the artifact: each one's name and how many of
/// that name came before it, with itself, for strace counts each name apart.
fn calls_of_a_start(trace: &Path) -> Vec<(String, usize)> {
    let trace = fs::read_to_string(trace).unwrap();
    let mut seen = BTreeMap::<&str, usize>::new();
    let mut calls = Vec::new();
    for name in trace.lines().filter_map(|line| Some(line.split_once('(')?.0)) {
        let nth = seen.entry(name).or_default();
        *nth += 1;
        calls.push((name.to_owned(), *nth));
    }
    let place = |name: &str, nth| calls.iter().position(|call| *call == (name.to_owned(), nth)).unwrap();
    calls[place("setsid", 1)..=place("execve", 2)].to_vec()
}

fn strace(place: &Fixture, effect: EffectId, artifact: &Path, options: &[&str]) {
    let mut command = Command::new("strace");
    command.args(options).arg(program()).arg("node-exec").arg("--dir").arg(place.folder(effect));
    command.arg("--artifact").arg(artifact).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap();
}

#[tokio::test]
async fn node_exec_killed_at_any_of_its_system_calls_leads_to_one_node_when_launched_again() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        println!("SKIPPED node_exec_killed_at_any_of_its_system_calls: strace is not installed");
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "CI must not skip it");
        return;
    }
    let place = Fixture::new();
    let hash = place.artifact("#!/bin/sh\necho born\nwhile [ ! -e leave ]; do sleep 0.01; done\n");
    let artifact = place.artifacts.verify(hash).unwrap();
    let dies = place.nodes_through("/bin/false".into()); // writes the launch down and goes no further
    let trace = place.data.path().join("trace");

    let launch = place.launch_of(hash).await;
    dies.launch(&launch).await.unwrap_err();
    fs::write(place.folder(launch.effect).join("work/leave"), "").unwrap();
    strace(&place, launch.effect, &artifact, &["-o", trace.to_str().unwrap()]);
    let calls = calls_of_a_start(&trace);
    assert!(calls.len() > 30, "a start has many system calls: {calls:?}");

    let mut killed = 0;
    for (name, nth) in &calls {
        let launch = place.launch_of(hash).await;
        dies.launch(&launch).await.unwrap_err();
        let work = place.folder(launch.effect).join("work");
        fs::write(work.join("leave"), "").unwrap(); // if it slips through because this start had a call less
        let kill = format!("inject={name}:signal=KILL:when={nth}");
        strace(&place, launch.effect, &artifact, &["-o", "/dev/null", "-e", &kill]);
        let slipped_through = !place.log(launch.effect).is_empty();
        fs::remove_file(work.join("leave")).unwrap();
        let instance = place.nodes().launch(&launch).await.unwrap();
        if !slipped_through {
            killed += 1;
            place.logged(launch.effect, "born").await;
            assert_eq!(place.log(launch.effect), "born\n", "more than one start, killed at {name} {nth}");
        }
        assert!(processes_of(launch.effect).contains(&pid(&instance.name)));
        assert_eq!(place.nodes().stop(launch.effect, LONG).await, Ok(Stopped::Ended));
        assert_eq!(processes_of(launch.effect), [0; 0], "killed at {name} {nth}");
    }
    println!("killed at {killed} of {} system calls of a start", calls.len());
    assert!(killed * 10 > calls.len() * 9, "only {killed} of {} kills took place", calls.len());
}
