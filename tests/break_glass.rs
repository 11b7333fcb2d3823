//! Break glass, end to end: every broker stopped, or a disk that fails or hangs, a rollback is applied all the same, nobody
//! moves the weights back, and history has it once, with its true time and actor.
#![allow(clippy::print_stdout)] // a test says what it measured, or that it is skipped

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ledger::log::kafka::{Kafka, KafkaOptions};
use replay::{Moment, Reader};
use serde_json::Value;
use support::cluster::Cluster;
use support::installation::{Installation, Said, eventually};
use support::load::Load;
use support::services::Services;
use workers::traffic::ProxyControl;

/// From the command to the applied weight with all brokers stopped. Source: the issue "Kafka".
const ROLLBACK_MAX: Duration = Duration::from_secs(3);

/// 1.1.0 has all traffic and took it over from 1.0.0.
fn ship(installation: &Installation) {
    installation.serving("");
    installation.release("1.1.0", &[]);
    installation.new_stack("1.1.0");
    give_all_to(installation, "1.1.0");
}

fn give_all_to(installation: &Installation, version: &str) {
    // A version that was rolled back from before is given traffic all the same.
    installation.ok(&["traffic", "api", version, "100", "--again", "--reason", "the test goes on with it"]);
    eventually("the weights are applied", || installation.deployment()["weights_applied"] == true);
}

/// Returns the versions that the proxy gives traffic to.
fn served(installation: &Installation) -> Vec<String> {
    installation.ask_proxy(async |proxy| served_by(&proxy).await)
}

async fn served_by(proxy: &ProxyControl) -> Vec<String> {
    let held = proxy.routes(&"production/api".parse().unwrap()).await.unwrap().unwrap();
    held.routes.weights.iter().map(|(stack, _)| held.routes.backends[&stack].version.to_string()).collect()
}

/// Rolls back without the ledger, and returns what was said and when.
#[track_caller]
fn breaks_the_glass(installation: &Installation, arguments: &[&str]) -> (Said, Value, [jiff::Timestamp; 2]) {
    let (began, from) = (Instant::now(), jiff::Timestamp::now());
    let said = installation.run(&[&["rollback", "api", "--reason", "checkout fails", "--json"], arguments].concat());
    let took = began.elapsed();
    assert_eq!(served(installation), ["1.0.0"], "{said:?}");
    println!("from the command to its answer, after the weight was applied: {took:?}");
    assert!(took < ROLLBACK_MAX, "it took {took:?}: {said:?}");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("rolled back without the ledger (break-glass)"), "{said:?}");
    let answer: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    assert_eq!((&answer["commit"], &answer["applied"]), (&Value::Null, &Value::Bool(true)));
    (said, answer, [from, jiff::Timestamp::now()])
}

/// The commits that count of history with an event of this type, the newest first.
fn history(installation: &Installation, kind: &str) -> Vec<Value> {
    let entries = installation.json(&["history", "api", "--limit", "0"])["entries"].as_array().unwrap().clone();
    let has = |entry: &Value| entry["events"].as_array().unwrap().iter().any(|event| event["type"] == kind);
    entries.into_iter().filter(|entry| entry["void"].is_null() && has(entry)).collect()
}

/// Asserts that history has the rollback once, by who asked for it, at the time at which it took effect.
#[track_caller]
fn has_it_once(installation: &Installation, [from, to]: [jiff::Timestamp; 2]) {
    let found = history(installation, "traffic.rolled_back");
    assert_eq!(found.len(), 1, "{found:?}");
    let entry = &found[0];
    let time = entry["effective_at"].as_str().or(entry["time"].as_str()).unwrap();
    let time: jiff::Timestamp = time.parse().unwrap();
    assert!((from..=to).contains(&time), "{time} is not in {from}..={to}: {entry}");
    assert_eq!(entry["actor"]["kind"], "person");
    assert!(entry["actor"]["proof"].as_str().unwrap().starts_with("unix-peer uid="), "{entry}");
    assert_eq!(entry["reason"], "checkout fails");
}

/// Returns who served at `moment`.
fn who_shipped(installation: &Installation, moment: jiff::Timestamp) -> Value {
    installation.json(&["who-shipped", "api", "--at", &moment.to_string()])
}

/// Asserts that the answers about `moment`, at which nobody could record it, say that 1.0.0 served, and when that was
/// recorded; those of a fold of all of the log in `place` too.
#[track_caller]
fn was_rolled_back_at(installation: &Installation, place: &str, moment: jiff::Timestamp) {
    let who = who_shipped(installation, moment);
    let shipped = who["shipped"].as_array().unwrap();
    assert_eq!(shipped.len(), 1, "{who}");
    assert_eq!((&shipped[0]["version"], &shipped[0]["weight_set"]), (&"1.0.0".into(), &10_000.into()), "{who}");
    let recorded_at = &shipped[0]["weight_since"]["recorded_at"];
    assert!(recorded_at.as_str().unwrap().parse::<jiff::Timestamp>().unwrap() >= moment, "{who}");

    let production = installation.json(&["replay", "--at", &moment.to_string()]);
    let mut services = production["services"].as_array().unwrap().iter();
    let deployment = services.find(|of| of["service"] == "api").map(|of| &of["deployments"][0]).unwrap();
    assert_eq!(deployment["weights_recorded_at"], *recorded_at, "{production}");

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folded = runtime.block_on(async {
        let log = Kafka::open(place.parse().unwrap(), KafkaOptions::default()).await.unwrap();
        let reader = Reader::from_genesis(Arc::new(log));
        reader.who_shipped(&"production/api".parse().unwrap(), Moment::Time(moment)).await.unwrap()
    });
    assert_eq!(serde_json::to_value(folded).unwrap(), who, "rows and fold differ");
}

fn files(installation: &Installation, folder: &str) -> usize {
    let Ok(entries) = fs::read_dir(installation.data().join("glass").join(folder)) else { return 0 };
    entries.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|ext| ext == "json")).count()
}

/// Watches the proxy until the work is done, and asserts that it never served anything but 1.0.0.
fn while_nobody_moves_it_back<T>(data: &Path, work: impl FnOnce() -> T) -> T {
    let (done, wrong, proxy) = (AtomicBool::new(false), std::sync::Mutex::new(None), ProxyControl::of(data));
    let watch = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        while !done.load(Ordering::SeqCst) {
            let now = runtime.block_on(served_by(&proxy));
            if now != ["1.0.0"] {
                wrong.lock().unwrap().get_or_insert(now);
            }
            std::thread::sleep(Duration::from_millis(20)); // the proxy is a real process, and is looked at all the time
        }
    };
    let result = std::thread::scope(|scope| {
        scope.spawn(watch);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::SeqCst);
        result
    });
    assert_eq!(wrong.into_inner().unwrap(), None, "it was moved back");
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
fn with_every_broker_stopped_it_is_applied_within_3_s_and_history_has_it_once_when_they_return() {
    let cluster = Cluster::start(3);
    let mut services = Services::start(&cluster, "glass");
    ship(&services.installation);
    (1..=3).for_each(|broker| cluster.kill(broker));

    let installation = &services.installation;
    let (_, answer, between) = breaks_the_glass(installation, &[]);
    let file = answer["unrecorded"]["file"].as_str().unwrap().to_owned();
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("\"signature\"") && text.contains("checkout fails"), "{text}");
    while_nobody_moves_it_back(&installation.data(), || {
        let (again, second, _) = breaks_the_glass(installation, &[]);
        assert!(again.stderr.contains("nothing was done again"), "{again:?}");
        assert_eq!(second["unrecorded"]["file"], answer["unrecorded"]["file"]);
        for question in [&["status", "api"][..], &["history", "api"], &["doctor"]] {
            let said = installation.run(question);
            let both = format!("{}{}", said.stdout, said.stderr);
            assert!(both.contains(&file), "{question:?}: {said:?}");
        }
        let status = installation.json(&["status", "api"]);
        assert_eq!(status["unrecorded"][0]["version"], "1.0.0", "{status}");
        // Real processes, for longer than any of them waits for the log.
        std::thread::sleep(Duration::from_secs(12));
        assert_eq!(files(installation, ""), 1);
    });

    while_nobody_moves_it_back(&services.installation.data(), || {
        (1..=3).for_each(|broker| cluster.launch(broker));
        cluster.wait_for(3);
        // The API is killed just when it could record it; the next one does.
        services.take("api").kill();
        // The workers record meanwhile what they see: the ledger's time goes on before it hears of the rollback.
        std::thread::sleep(Duration::from_secs(6));
        services.run("api");
        let installation = &services.installation;
        eventually("the ledger has it", || history(installation, "traffic.rolled_back").len() == 1);
        eventually("it is put away", || (files(installation, ""), files(installation, "done")) == (0, 1));
        eventually("the router's weights are confirmed", || installation.deployment()["weights_applied"] == true);
        assert_eq!(installation.weight("1.0.0"), 10_000);
    });
    let installation = &services.installation;
    has_it_once(installation, between);
    let entry = &history(installation, "traffic.rolled_back")[0];
    assert_ne!(entry["time"], entry["effective_at"], "the workers recorded something before: {entry}");
    for later in [0, 1, 8] {
        was_rolled_back_at(installation, &cluster.place("glass"), between[1] + jiff::SignedDuration::from_secs(later));
    }
    let status = installation.json(&["status", "api"]);
    assert!(status["unrecorded"].is_null(), "{status}");
    // And the normal path goes on above it.
    give_all_to(installation, "1.1.0");
    assert_eq!(served(installation), ["1.1.0"]);
    installation.ok(&["rollback", "api"]);
    assert_eq!(served(installation), ["1.0.0"]);
}

#[test]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
fn without_an_api_the_command_writes_to_kafka_and_without_brokers_too_it_goes_on_from_what_is_known() {
    let cluster = Cluster::start(3);
    let mut services = Services::start(&cluster, "alone");
    ship(&services.installation);
    services.take("api").kill();
    let alone = services.installation.run(&["rollback", "api", "--reason", "checkout fails"]);
    assert!(alone.code == 0 && alone.stderr.contains("does it itself"), "{alone:?}");
    assert_eq!(served(&services.installation), ["1.0.0"]);
    services.run("api");
    assert_eq!(history(&services.installation, "traffic.rolled_back").len(), 1);
    give_all_to(&services.installation, "1.1.0");

    services.take("api").kill();
    (1..=3).for_each(|broker| cluster.kill(broker));
    let broken = services.installation.run(&["rollback", "api", "--reason", "checkout fails"]);
    assert!(broken.code == 0 && broken.stderr.contains("rolled back without the ledger (break-glass)"), "{broken:?}");
    assert_eq!(served(&services.installation), ["1.0.0"]);
    // An API that comes up now answers what its cache knows, and shows what the ledger does not have.
    let api = services.launch("api");
    let installation = &services.installation;
    eventually("it answers", || installation.run(&["status", "api"]).code == 0);
    let status = installation.json(&["status", "api"]);
    assert_eq!(status["unrecorded"][0]["version"], "1.0.0", "{status}");
    assert!(status["services"][0]["deployments"][0]["versions"].to_string().contains("1.1.0"), "{status}");
    assert_eq!(files(installation, ""), 1);
    while_nobody_moves_it_back(&installation.data(), || {
        (1..=3).for_each(|broker| cluster.launch(broker));
        cluster.wait_for(3);
        eventually("the API hears that they answer", || api.said().contains("the brokers answer again"));
        eventually("the ledger has it", || {
            files(installation, "done") == 1 && installation.deployment()["weights_applied"] == true
        });
    });
    assert_eq!(installation.weight("1.0.0"), 10_000);
    api.kill();
}

/// From the first bad answer of a canary until it has no traffic: they convict it in a second or two, and the ledger is
/// waited for for two. Whoever first waited for the verdict on what else is to be recorded took ten.
const SENT_BACK_MAX: Duration = Duration::from_secs(7);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn a_canary_that_fails_while_every_broker_is_stopped_is_sent_back_by_the_judge_though_a_step_waits_for_them() {
    let cluster = Cluster::start(3);
    let services = Services::start(&cluster, "judged");
    let installation = &services.installation;
    let rollout = "[rollout]\nsteps = [50, 60, 100]\nduration = \"16 s\"\n";
    installation.serving(&format!("{rollout}[judgement]\nweights = {{ errors = 100, p50 = 0, p99 = 0 }}\n"));
    let outage = installation.path().join("outage");
    installation.release("1.1.0", &["--outage", outage.to_str().unwrap()]);
    installation.new_stack("1.1.0");
    let load = Load::start(&installation.users(), 200);
    installation.ok(&["roll", "api", "1.0.0", "1.1.0"]);
    eventually("it is judged", || installation.deployment()["rollout"]["evidence"].is_object());
    (1..=3).for_each(|broker| cluster.kill(broker));

    // A step is due and what was counted is to be recorded: the worker waits for a verdict, and now for the second time.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(served(installation), ["1.0.0", "1.1.0"], "{}", services.said());
    let (began, from) = (Instant::now(), jiff::Timestamp::now());
    fs::write(&outage, "").unwrap();
    while served(installation) != ["1.0.0"] {
        assert!(began.elapsed() < SENT_BACK_MAX, "{}", services.said());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("from its first bad answer until it had no traffic: {:?}", began.elapsed());
    let to = jiff::Timestamp::now();
    load.stop().await.assert_none_lost();

    while_nobody_moves_it_back(&installation.data(), || {
        (1..=3).for_each(|broker| cluster.launch(broker));
        cluster.wait_for(3);
        eventually("the ledger has it", || {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{:#?} {}",
                installation.json(&["history", "api", "--voids"]),
                services.said()
            );
            history(installation, "traffic.rolled_back").len() == 1
        });
        eventually("it is put away", || (files(installation, ""), files(installation, "done")) == (0, 1));
        eventually("the router's weights are confirmed", || installation.deployment()["weights_applied"] == true);
    });
    let found = history(installation, "traffic.rolled_back");
    assert_eq!((found.len(), installation.weight("1.0.0")), (1, 10_000), "{found:?}");
    let time = found[0]["effective_at"].as_str().or(found[0]["time"].as_str()).unwrap();
    let time: jiff::Timestamp = time.parse().unwrap();
    assert!((from..=to).contains(&time), "{time} is not in {from}..={to}: {}", found[0]);
    assert_eq!(found[0]["actor"]["kind"], "worker", "{}", found[0]);
    assert_eq!(installation.deployment()["rollout"]["phase"], "came_back");
}

#[test]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
fn who_does_not_want_it_waits_for_the_ledger() {
    let cluster = Cluster::start(3);
    let services = Services::start(&cluster, "no-glass");
    let installation = &services.installation;
    ship(installation);
    (1..=3).for_each(|broker| cluster.kill(broker));
    let said = installation.run(&["rollback", "api", "--no-break-glass"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!((served(installation), files(installation, "")), (vec!["1.1.0".to_owned()], 0));
}

/// A fault in the system calls of a process.
struct Fault(Child);

impl Fault {
    /// Makes `inject` go wrong in the thread of `pid` that writes the log; none if that cannot be done here.
    fn in_process(pid: u32, inject: &str) -> Option<Self> {
        let writer = log_writer(pid);
        let seen = tempfile::NamedTempFile::new().unwrap();
        let mut strace = Command::new("strace");
        strace.arg("-f").arg("-o").arg(seen.path()).args(["-p", &pid.to_string()]);
        // A thread waits in one of the others, and is followed from when it is seen there.
        strace.args(["-e", "trace=fdatasync,futex,restart_syscall", "-e", &format!("inject={inject}")]);
        // Not into a pipe: what it says of new threads would end it once nobody reads.
        let mut fault = Self(strace.stderr(Stdio::null()).spawn().ok()?);
        let begins = |line: &str| line.split_whitespace().next() == Some(&writer);
        let is_seen = || String::from_utf8_lossy(&fs::read(seen.path()).unwrap()).lines().any(begins);
        let deadline = Instant::now() + support::installation::DEADLINE;
        while !is_seen() {
            if fault.0.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(Instant::now() < deadline, "the log's writer is not followed");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(fault)
    }
}

/// Returns the id of the thread of `pid` that writes the log.
fn log_writer(pid: u32) -> String {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
    let is_writer =
        |task: &std::path::PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "log-writer");
    let task = tasks.into_iter().find(is_writer).expect("an embedded ledger has one");
    task.file_name().unwrap().to_str().unwrap().to_owned()
}

impl Drop for Fault {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ships in a house with its ledger in the folder, whose syncs then go wrong as `inject` says while it is rolled back, and
/// starts `up` again on a healed disk.
fn on_a_bad_disk(test: &str, inject: &str) {
    let mut installation = Installation::new();
    ship(&installation);
    let Some(fault) = Fault::in_process(installation.up_pid(), inject) else {
        println!("SKIPPED {test}: strace cannot attach here");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no test is skipped in CI");
        return;
    };
    let (_, _, between) = breaks_the_glass(&installation, &[]);
    assert_eq!(files(&installation, ""), 1);
    installation.kill_up();
    drop(fault);
    // What was left in the folder is told even while nothing runs.
    assert!(installation.run(&["status", "api"]).stderr.contains("rolled back without the ledger (break-glass)"));
    installation.up();
    while_nobody_moves_it_back(&installation.data(), || {
        eventually("the ledger has it", || history(&installation, "traffic.rolled_back").len() == 1);
        eventually("it is put away", || (files(&installation, ""), files(&installation, "done")) == (0, 1));
        eventually("the router's weights are confirmed", || installation.deployment()["weights_applied"] == true);
    });
    has_it_once(&installation, between);
    let who = who_shipped(&installation, between[1]);
    assert_eq!((&who["shipped"][0]["version"], &who["shipped"][0]["weight_set"]), (&"1.0.0".into(), &10_000.into()));
    assert_eq!(installation.json(&["verify"])["ok"], true);
}

#[test]
fn a_log_that_a_failed_sync_stopped_breaks_the_glass() {
    on_a_bad_disk("a_log_that_a_failed_sync_stopped", "fdatasync:error=EIO");
}

#[test]
fn a_disk_that_hangs_under_the_log_breaks_the_glass() {
    on_a_bad_disk("a_disk_that_hangs_under_the_log", "fdatasync:delay_enter=20000000");
}
