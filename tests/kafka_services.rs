//! The ledger in a real Kafka of three brokers, with the API, the proxy and the workers as processes of their own: any of
//! them may die at any moment, and a rollback is still instant.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use rustix::process::Signal;
use serde_json::Value;
use support::cluster::Cluster;
use support::installation::eventually;
use support::services::{Service, Services};

/// Within which a worker's work is finished by another. Source: the issue "Kafka".
const FINISHED_MAX: Duration = Duration::from_secs(5);

/// Within which a rollback is applied, whatever fails. Source: the issue "Kafka".
const ROLLBACK_MAX: Duration = Duration::from_secs(3);

/// Longer than any reader takes for a million records, unoptimised and beside others.
const READ_MAX: Duration = Duration::from_secs(300);

/// Returns a house with every part of its own process, in which 1.0.0 serves.
fn serving(topic: &str) -> Services {
    let services = Services::start(Cluster::shared(), topic);
    services.installation.serving("[retention]\nwarm_max = 5\ndrain = \"0 seconds\"\n");
    services
}

/// As [`serving`], and 1.1.0 has all traffic.
fn shipped(topic: &str) -> Services {
    let services = Services::start(Cluster::shared(), topic);
    services.installation.serving("");
    services.installation.release("1.1.0", &[]);
    services.installation.new_stack("1.1.0");
    give_all_to(&services, "1.1.0");
    services
}

fn give_all_to(services: &Services, version: &str) {
    // A version that was left before is given traffic all the same.
    services.installation.ok(&["traffic", "api", version, "100", "--again", "--reason", "the test goes on with it"]);
    eventually("the weights are applied", || services.installation.deployment()["weights_applied"] == true);
}

/// Returns the version that the proxy gives all traffic to.
fn served(services: &Services) -> String {
    let deployment = "production/api".parse().unwrap();
    let held = services.installation.ask_proxy(async move |proxy| proxy.routes(&deployment).await).unwrap().unwrap();
    let sole = held.routes.weights.sole().expect("one version has all");
    held.routes.backends[&sole].version.to_string()
}

/// Rolls back to `version` and asserts that it was served in time.
#[track_caller]
fn rolls_back_in_time(services: &Services, version: &str) {
    let began = Instant::now();
    let said = services.installation.run(&["rollback", "api"]);
    while served(services) != version {
        assert!(began.elapsed() < ROLLBACK_MAX, "{said:?}; {}", services.said());
        std::thread::sleep(Duration::from_millis(10));
    }
    let took = began.elapsed();
    assert!(took < ROLLBACK_MAX, "it took {took:?}: {said:?}");
    assert_eq!(said.code, 0, "{said:?}");
}

/// The events of a kind in the commits that count, with each one's actor.
fn counted(history: &[Value], kind: &str) -> Vec<(String, Value)> {
    let commits = history.iter().filter(|commit| commit["void"].is_null());
    let events = commits.flat_map(|commit| {
        let actor = commit["actor"]["name"].as_str().unwrap_or_default().to_owned();
        let events = commit["events"].as_array().cloned().unwrap_or_default();
        events.into_iter().map(move |event| (actor.clone(), event))
    });
    events.filter(|(_, event)| event["type"] == kind).map(|(actor, event)| (actor, event["data"].clone())).collect()
}

/// Whether `actor` is the worker that ran as `service`.
fn is_by(actor: &str, pid: u32) -> bool {
    actor.contains(&format!(":{pid}@"))
}

/// Records a release whose nodes run `script` before they become the service, which has `$@` as its arguments.
fn release_with(services: &Services, version: &str, script: &str) {
    let artifact = services.installation.file(&format!("artifact-{version}"), script);
    let arguments = ["--port={port}", "--version-name", version].map(|argument| ["--arg", argument]).concat();
    services.installation.ok(&[&["release", "api", version, "--artifact", &artifact][..], &arguments].concat());
}

/// Returns what a node's shell runs to have the process that `armed` aims at killed, once, before it goes on. As a user of
/// its own it could not kill it itself.
fn shot(armed: &std::path::Path) -> String {
    let path = armed.display();
    format!("if [ -p {path} ]; then echo now > {path}; while [ -p {path} ]; do sleep 0.002; done; fi")
}

/// Arms `what`, which kills the process `victim` as soon as it is used.
fn arm(services: &Services, what: &str, victim: &Service) -> std::path::PathBuf {
    let armed = services.installation.path().join(what);
    let mode = rustix::fs::Mode::from_raw_mode(0o622);
    rustix::fs::mknodat(rustix::fs::CWD, &armed, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    fs::set_permissions(&armed, std::os::unix::fs::PermissionsExt::from_mode(0o622)).unwrap();
    let (path, pid) = (armed.clone(), rustix::process::Pid::from_raw(i32::try_from(victim.pid()).unwrap()).unwrap());
    std::thread::spawn(move || {
        if fs::read(&path).is_ok_and(|said| !said.is_empty()) {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            fs::remove_file(&path).unwrap();
        }
    });
    armed
}

#[test]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
fn a_release_goes_the_whole_way_and_every_process_tells_how_it_does() {
    let services = shipped("whole-way");
    assert_eq!(served(&services), "1.1.0");
    rolls_back_in_time(&services, "1.0.0");
    assert!(services.installation.ok(&["history", "api"]).contains("rolled back"));
    assert_eq!(services.installation.json(&["verify"])["ok"], true);

    for service in &services.running {
        assert_eq!(service.ask("/healthz").0, 200, "{}", service.kind);
        assert_eq!(service.ask("/readyz").0, 200, "{}", service.kind);
    }
    assert_eq!(services.api().ask("/metrics").0, 401, "the API's address is open to more than operators");
    let told = |kind: &str, line: &str| {
        let service = services.running.iter().find(|service| service.kind == kind).unwrap();
        let (code, metrics) = service.ask("/metrics");
        assert_eq!(code, 200);
        assert!(metrics.lines().any(|found| found.starts_with(line)), "{line} of {kind}: {metrics}");
    };
    for kind in ["provisioner", "traffic-shifter", "collector"] {
        eventually("the log is folded", || {
            let service = services.running.iter().find(|service| service.kind == kind).unwrap();
            service.ask("/metrics").1.contains("ionledger_lag_records 0")
        });
        told(kind, "ionledger_log_reachable 1");
        told(kind, "ionledger_head_version{stream=\"deployment/production/api\"}");
        told(kind, &format!("ionledger_acting{{holder=\"{}\"", services.acting(kind).unwrap()));
        told(kind, "ionledger_appends_total{outcome=\"counted\"}");
    }
    told("provisioner", "ionledger_effects_total{effect=\"launch\",outcome=\"done\",role=\"provisioner\"} 4");
    told("traffic-shifter", "ionledger_effects_total{effect=\"route\",outcome=\"done\",role=\"traffic-shifter\"}");
    told("proxy", "ionledger_proxy_requests_total{");
    for service in services.running.iter().filter(|service| service.kind != "api") {
        check_metrics(service.kind, &service.ask("/metrics").1);
    }
}

/// Asserts that Prometheus' own tool has nothing to say about names, units and help.
fn check_metrics(kind: &str, metrics: &str) {
    let promtool =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut promtool = match promtool {
        Err(_) if std::env::var("CI").as_deref() != Ok("true") => {
            return eprintln!("SKIPPED promtool: it is not installed");
        }
        promtool => promtool.expect("promtool, of the package prometheus"),
    };
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{kind}: {said}");
}

#[test]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
fn a_folder_whose_ledger_lies_in_kafka_begins_none_of_its_own() {
    let mut services = Services::start(Cluster::shared(), "elsewhere");
    let held = services.installation.run(&["up"]);
    assert!(held.code == 1 && held.stderr.contains("is held by process"), "{held:?}");
    services.running.clear();
    for arguments in [&["up"][..], &["status"], &["verify"]] {
        let refused = services.installation.run(arguments);
        assert!(refused.code == 1 && refused.stderr.contains(&services.place), "{arguments:?}: {refused:?}");
    }
    let other = Services::on(&Cluster::shared().place("another"));
    let (held, another) = (services.installation.data(), &other.place);
    fs::create_dir_all(held.join("log")).unwrap();
    let own = services.installation.run(&["copy", "--from", &services.place, "--to", held.to_str().unwrap()]);
    assert_eq!(own.code, 0, "{own:?}");
    let refused = services.installation.run(&["api", "--ledger", another]);
    assert!(refused.code == 1 && refused.stderr.contains("name another folder"), "{refused:?}");
}

#[test]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
fn a_provisioner_killed_after_a_launch_and_before_its_record_is_followed_by_another_that_launches_no_node_twice() {
    let mut services = serving("provisioner-killed");
    services.run("provisioner");
    let victim = services.take_acting("provisioner");
    let armed = arm(&services, "armed", &victim);
    // Its first node kills the provisioner that launched it.
    let shot = shot(&armed);
    release_with(
        &services,
        "1.1.0",
        &format!("#!/bin/sh\n{shot}\nexec {} demo-service \"$@\"\n", services.installation.program()),
    );
    services.installation.ok(&["new", "api", "1.1.0"]);
    eventually("the node kills its provisioner", || !armed.exists());
    let killed = Instant::now();

    let launched = |history: &[Value]| counted(history, "node.launched");
    eventually("both nodes are launched", || launched(&services.history()).len() == 4);
    let took = killed.elapsed();
    assert!(took < FINISHED_MAX, "it took {took:?}: {}", services.said());
    services.installation.ok(&["new", "api", "1.1.0", "--wait"]);

    let history = services.history();
    let adopted = launched(&history).iter().filter(|(actor, _)| !is_by(actor, victim.pid())).count();
    assert!(adopted >= 1, "the other recorded what the killed one had launched: {history:#?}");
    let effects: std::collections::BTreeSet<String> =
        launched(&history).iter().map(|(_, data)| data["effect"].to_string()).collect();
    assert_eq!(effects.len(), 4, "no effect was carried out twice");
    assert_eq!(services.installation.node_processes().len(), 4, "no node runs that nobody asked for");
}

#[test]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
fn a_collector_killed_while_it_takes_a_node_down_is_followed_by_another_that_finishes_it() {
    let mut services = serving("collector-killed");
    services.run("collector");
    let victim = services.take_acting("collector");
    let armed = arm(&services, "armed", &victim);
    // A node that is told to end kills the collector that told it so, and then ends.
    let shot = shot(&armed);
    let script = format!(
        "#!/bin/sh\ntrap '{shot}; kill $child; wait $child; exit 0' TERM\n\
         {} demo-service \"$@\" & child=$!\nwhile :; do wait $child; done\n",
        services.installation.program()
    );
    release_with(&services, "1.1.0", &script);
    services.installation.new_stack("1.1.0");
    // It never had traffic: it is collected once no stack is kept warm.
    let colder = services.installation.ok(&["show", "api"]).replace("warm_max = 5", "warm_max = 0");
    services.installation.ok(&["apply", &services.installation.file("colder.toml", &colder)]);
    eventually("the node kills its collector", || !armed.exists());
    let killed = Instant::now();
    eventually("the stack is collected", || counted(&services.history(), "retention.collected").len() == 1);
    let took = killed.elapsed();
    assert!(took < FINISHED_MAX, "it took {took:?}: {}", services.said());

    let history = services.history();
    let stopped = counted(&history, "node.stopped");
    assert_eq!(stopped.len(), 2, "each node ended once: {history:#?}");
    assert!(stopped.iter().all(|(actor, _)| !is_by(actor, victim.pid())), "{history:#?}");
    assert_eq!(services.installation.node_processes().len(), 2, "only 1.0.0 runs");
}

#[test]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
fn a_traffic_shifter_killed_after_it_moved_the_weights_and_before_their_record_is_followed_by_another() {
    let mut services = shipped("shifter-killed");
    // The order must be on its way when its sender dies, and is carried out for a second at most: not every moment is the right one.
    let moments = [1_000, 1_300, 700, 1_600, 400, 1_900].map(Duration::from_millis);
    for (version, moment) in ["1.0.0", "1.1.0"].into_iter().cycle().zip(moments.into_iter().cycle()).take(12) {
        services.run("traffic-shifter");
        let victim = services.take_acting("traffic-shifter");
        let pid = victim.pid();
        // The proxy has the order and does not read it before the shifter is dead.
        let proxy = services.running.iter().position(|service| service.kind == "proxy").unwrap();
        services.running[proxy].signal(Signal::STOP);
        let killed = std::thread::scope(|scope| {
            let order = ["traffic", "api", version, "100", "--again", "--reason", "the test goes on with it"];
            let installation = &services.installation;
            scope.spawn(move || installation.ok(&order));
            std::thread::sleep(moment);
            let killed = Instant::now();
            victim.kill();
            services.running[proxy].signal(Signal::CONT);
            killed
        });
        let soon = killed + Duration::from_millis(900);
        while served(&services) != version && Instant::now() < soon {
            std::thread::sleep(Duration::from_millis(20));
        }
        let is_unknown = services.installation.deployment()["weights_applied"] == false;
        let is_carried_out = served(&services) == version && is_unknown;
        eventually("the weights are applied", || services.installation.deployment()["weights_applied"] == true);
        let took = killed.elapsed();
        assert!(took < FINISHED_MAX, "it took {took:?}: {}", services.said());
        assert_eq!(served(&services), version);
        let history = services.history();
        let (actor, _) = counted(&history, "traffic.weights_applied").into_iter().next().expect("they were recorded");
        assert!(!is_by(&actor, pid), "the other one found them: {history:#?}");
        if is_carried_out {
            return;
        }
    }
    panic!("of twelve shifters none was killed while its order was on its way");
}

#[test]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
fn a_worker_that_stood_still_for_ten_seconds_changes_nothing_when_it_goes_on() {
    let mut services = shipped("stopped");
    services.run("traffic-shifter");
    let stopped = services.take_acting("traffic-shifter");
    stopped.signal(Signal::STOP);
    let began = Instant::now();
    services.installation.ok(&["traffic", "api", "1.0.0", "100"]);
    eventually("another applies the weights", || services.installation.deployment()["weights_applied"] == true);
    let took = began.elapsed();
    assert!(took < FINISHED_MAX, "it took {took:?}: {}", services.said());
    let taken_over = services.history().first().unwrap()["offset"].as_u64().unwrap();

    // A stopped process is what is tested: it stands still for longer than a takeover and every time-out of its lease.
    std::thread::sleep(Duration::from_secs(10).saturating_sub(began.elapsed()));
    stopped.signal(Signal::CONT);
    eventually("it knows", || stopped.said().contains("was taken over"));
    give_all_to(&services, "1.1.0");
    assert_eq!(served(&services), "1.1.0");
    let later = services.history().into_iter().filter(|commit| commit["offset"].as_u64().unwrap() > taken_over);
    for commit in later.filter(|commit| commit["void"].is_null()) {
        let actor = commit["actor"]["name"].as_str().unwrap_or_default();
        assert!(!is_by(actor, stopped.pid()), "{commit:#}");
    }
    assert_eq!(stopped.ask("/readyz").0, 200, "it waits for its turn: {}", stopped.said());
}

#[test]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
fn a_worker_that_is_told_to_end_hands_over_at_once() {
    let mut services = shipped("handed-over");
    for role in ["provisioner", "traffic-shifter", "collector"] {
        services.run(role);
        let acting = services.take_acting(role);
        let pid = acting.pid();
        let took = acting.end();
        let ended = Instant::now();
        eventually("another acts", || services.acting(role).is_some_and(|holder| !is_by(&holder, pid)));
        let waited = ended.elapsed();
        assert!(took < Duration::from_secs(3) && waited < Duration::from_secs(1), "{role}: {took:?}, {waited:?}");
    }
    give_all_to(&services, "1.0.0");
}

#[test]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
fn a_rollback_waits_for_no_takeover() {
    let mut services = shipped("during-takeover");
    services.run("traffic-shifter");
    services.take_acting("traffic-shifter").kill();
    rolls_back_in_time(&services, "1.0.0");
}

#[test]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
fn a_rollback_whose_router_hangs_or_does_not_run_is_set_and_says_that_it_is_not_applied() {
    let mut services = shipped("router-hangs");
    let not_applied = |services: &Services| {
        // A second one changes nothing, and is no more applied than the first.
        for _ in 0..2 {
            let said = services.installation.run(&["rollback", "api"]);
            assert!(said.code == 8 && said.stderr.contains("set, not applied"), "{said:?}");
        }
        assert_eq!(services.installation.deployment()["weights_applied"], false);
    };
    let proxy = services.running.iter().position(|service| service.kind == "proxy").unwrap();
    services.running[proxy].signal(Signal::STOP);
    not_applied(&services);
    services.running[proxy].signal(Signal::CONT);
    eventually("it is applied once the proxy goes on", || served(&services) == "1.0.0");
    give_all_to(&services, "1.1.0");
    services.take("proxy").kill();
    not_applied(&services);
    services.run("proxy");
    eventually("it is applied once a proxy runs", || served(&services) == "1.0.0");
}

#[test]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
fn a_rollback_waits_for_no_broker_that_is_killed() {
    let (cluster, topic) = (Cluster::shared(), "broker-killed");
    let services = shipped(topic);
    let leader = cluster.leader(topic, None);
    cluster.kill(leader);
    rolls_back_in_time(&services, "1.0.0");
    // The two that are left go on, and history has it once.
    let once = || counted(&services.history(), "traffic.rolled_back").len() == 1;
    eventually("the rollback is in the ledger", once);
    cluster.launch(leader);
    cluster.in_sync(topic, 3);
    services.installation.release("1.2.0", &[]);
    assert!(once(), "{:#?}", services.history());
    assert_eq!(served(&services), "1.0.0");
}

#[test]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
fn a_rollback_waits_for_no_reader_that_catches_up_on_a_million_records() {
    let mut services = shipped("catching-up");
    for role in ["provisioner", "traffic-shifter", "collector"] {
        services.take(role).kill();
    }
    strangers_write("catching-up", 1_000_000);
    // What the API commits behind them is answered when it has read them.
    let began = Instant::now();
    let artifact = services.installation.file("artifact", "#!/bin/sh\n");
    for n in 0.. {
        let said = services.installation.run(&["release", "api", &format!("2.0.{n}"), "--artifact", &artifact]);
        if said.code == 0 {
            break;
        }
        assert!(began.elapsed() < READ_MAX, "the API has not read them: {said:?}; {}", services.said());
    }
    let late = services.launch("traffic-shifter");
    // A real process that has begun to read, and has far from ended.
    std::thread::sleep(Duration::from_millis(500));
    rolls_back_in_time(&services, "1.0.0");
    assert!(services.acting("traffic-shifter").is_none(), "it is still reading");
    drop(late);
}

#[test]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
fn a_record_for_a_later_rule_halts_the_ledger_which_everything_says_first_and_the_documented_way_leads_out() {
    let mut services = shipped("halted");
    // Anybody's ten bytes are no commit, and change nothing.
    write("halted", br#"{"rule":2}"#, None);
    give_all_to(&services, "1.0.0");
    give_all_to(&services, "1.1.0");
    let everything = services.installation.json(&["history", "--voids"]);
    let malformed = |entry: &&Value| entry["void"] == "malformed";
    assert_eq!(everything["entries"].as_array().unwrap().iter().filter(malformed).count(), 1, "{everything:#}");

    // A record that agrees with itself on a later rule.
    write("halted", br#"{"rule":2}"#, Some("ionledger.commit.v2"));
    write("halted", b"and what comes behind it", None);
    eventually("the API has halted", || services.api().ask("/readyz").0 == 503);
    says_so_first(&services);
    // An API that starts on it knows what lies before it.
    let mut api = services.take("api");
    api.signal(Signal::TERM);
    eventually("the API ends", || api.ended());
    let api = services.launch("api");
    services.running.push(api);
    eventually("the API answers", || services.installation.run(&["status"]).stderr.contains("has halted"));
    says_so_first(&services);
    let refused = services.installation.run(&["worker", "collector", "--ledger", &services.place]);
    assert!(refused.code == 1 && refused.stderr.contains("follows rule 2"), "{refused:?}");
    let back = services.installation.run(&["rollback", "api"]);
    assert!(back.code == 0 && back.stderr.starts_with("error: the ledger has halted"), "{back:?}");
    assert_eq!(served(&services), "1.0.0", "an emergency needs no ledger: {back:?}");

    // The way out. Source: docs/kafka.md, "A record for another rule".
    let backup = services.installation.path().join("backup");
    let backup = backup.to_str().unwrap();
    let copied = services.installation.run(&["copy", "--from", &services.place, "--to", backup]);
    assert!(
        copied.code == 1 && copied.stderr.contains("cannot copy the whole log: the record at offset"),
        "{copied:?}"
    );
    fs::remove_file(format!("{backup}/copy-of")).unwrap();
    let again = Cluster::shared().place("halted-again");
    services.installation.ok(&["move", "--from", backup, "--to", &again]);
    services.running.retain(|service| service.kind == "proxy");
    services.place = again;
    for kind in ["api", "provisioner", "traffic-shifter", "collector"] {
        services.run(kind);
    }
    let recorded = || services.installation.ok(&["history", "api"]).contains("break-glass");
    eventually("the rollback is in the ledger that goes on", recorded);
    give_all_to(&services, "1.1.0");
}

/// Every command says that the ledger has halted before it says anything else, answers what it knows, and fails.
fn says_so_first(services: &Services) {
    let reads: [&[&str]; 5] = [
        &["status"],
        &["status", "api", "--quiet"],
        &["history", "api"],
        &["who-shipped", "api"],
        &["replay", "--at", "now"],
    ];
    for arguments in reads {
        let said = services.installation.run(arguments);
        let first = said.stderr.lines().next().unwrap_or_default();
        assert!(first.starts_with("error: the ledger has halted"), "{arguments:?}: {said:?}");
        assert!(first.contains("follows rule 2") && said.code == 1, "{arguments:?}: {said:?}");
        assert!(said.stdout.contains("1.1.0"), "{arguments:?}: {said:?}");
    }
    for arguments in [&["traffic", "api", "1.1.0", "100"][..], &["pause", "api"]] {
        let said = services.installation.run(arguments);
        assert!(said.code == 1 && said.stderr.starts_with("error: the ledger has halted"), "{arguments:?}: {said:?}");
    }
    let status = services.installation.run(&["status", "--json"]);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    assert!(status["halted"].as_str().unwrap().contains("follows rule 2"), "{status:#}");
    let doctor = services.installation.run(&["doctor", "--json"]);
    let report: Value = serde_json::from_str(&doctor.stdout).unwrap();
    let first = &report["findings"][0];
    assert_eq!((doctor.code, &first["level"], &first["thing"]), (1, &"fail".into(), &"ledger".into()), "{doctor:?}");
    let (code, body) = services.api().ask("/readyz");
    assert!(code == 503 && body.contains("follows rule 2"), "{body}");
}

/// Writes a record as any program could, under nothing but a `ce_type`.
fn write(topic: &str, value: &[u8], kind: Option<&str>) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", Cluster::shared().servers()).set("acks", "all");
    let producer: ThreadedProducer<_> = config.create().unwrap();
    let mut record = BaseRecord::<(), [u8]>::to(topic).partition(0).payload(value);
    record.headers = kind.map(|kind| OwnedHeaders::new().insert(Header { key: "ce_type", value: Some(kind) }));
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(READ_MAX).unwrap();
}

/// Appends records that no ledger wrote: none counts, and every reader reads them.
fn strangers_write(topic: &str, count: u32) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", Cluster::shared().servers()).set("acks", "all").set("linger.ms", "20");
    config.set("queue.buffering.max.messages", "2000000");
    let producer: ThreadedProducer<_> = config.create().unwrap();
    for n in 0..count {
        let payload = format!("a stranger's record {n}");
        producer.send(BaseRecord::<(), [u8]>::to(topic).partition(0).payload(payload.as_bytes())).unwrap();
    }
    producer.flush(READ_MAX).unwrap();
}
