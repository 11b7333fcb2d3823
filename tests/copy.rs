//! A ledger carried from a folder to Kafka and back: the same root everywhere, one place that goes on.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use ledger::execute::{Ledger, SystemClock};
use ledger::log::contract::step;
use ledger::log::kafka::{Kafka, KafkaAddress, KafkaOpenError, KafkaOptions};
use ledger::log::segments::{self, DataFolder, Segments};
use ledger::log::{Log, Urgency};
use ledger::rule::{NO_HEAD, Void};
use ledger::{View, execute};
use schemas::{Offset, Stream};
use serde_json::Value;
use support::cluster::Cluster;
use support::process::output;

/// Runs the command line; returns its exit code, its answer and what it said.
fn say(arguments: &[&str]) -> (i32, Value, String) {
    let output = output(Command::new(env!("CARGO_BIN_EXE_ionledger")).args(arguments).arg("--json"));
    let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().unwrap_or(-1), answer, String::from_utf8(output.stderr).unwrap())
}

fn carried(arguments: &[&str]) -> Value {
    let (code, answer, said) = say(arguments);
    assert_eq!(code, 0, "{said}");
    answer
}

fn refused(arguments: &[&str]) -> String {
    let (code, _, said) = say(arguments);
    assert_eq!(code, 1, "{said}");
    said
}

fn verified(folder: &Path) -> Value {
    carried(&["verify", "--data", folder.to_str().unwrap()])
}

/// Makes a ledger in `folder` or goes on with it: `count` more commits, some of them void.
async fn fill(folder: &Path, count: u128) {
    let log = Segments::open(DataFolder::hold(folder).unwrap(), segments::SegmentsOptions::default()).unwrap();
    append_to(&log, count).await;
}

async fn append_to(log: &dyn Log, count: u128) {
    let end = log.latest().await.unwrap();
    if end == Offset(0) {
        log.append(execute::genesis(schemas::Timestamp::UNIX_EPOCH), Urgency::Ordinary).await.unwrap();
    }
    for n in 0..count {
        let n = n + u128::from(end.0) * 1_000;
        // Each other one is stale, or no commit at all.
        let bytes = if n % 7 == 3 { "no commit".into() } else { step(n, &format!("service/s{}", n / 2), NO_HEAD) };
        log.append(bytes, Urgency::Ordinary).await.unwrap();
    }
}

async fn open(place: &str) -> Result<Kafka, KafkaOpenError> {
    Kafka::open(place.parse::<KafkaAddress>().unwrap(), KafkaOptions { dev: true, ..KafkaOptions::default() }).await
}

async fn ledger(log: Arc<dyn Log>) -> Ledger {
    let mut view = View::default();
    execute::catch_up(&*log, &mut view).await.unwrap();
    Ledger::open(log, view, Arc::new(SystemClock)).await.unwrap()
}

/// One story: each part needs what the one before it left, and starting a Kafka takes longer than all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn a_ledger_is_copied_and_moved_with_the_same_root_and_only_one_place_goes_on() {
    let cluster = Cluster::start(1);
    let nowhere = tempfile::tempdir().unwrap();
    let folder = |name: &str| nowhere.path().join(name);
    let path = |name: &str| folder(name).to_str().unwrap().to_owned();
    let (source, copied) = (path("source"), cluster.place("copied"));

    // A copy, and the rest of it later.
    fill(&folder("source"), 60).await;
    let first = carried(&["copy", "--from", &source, "--to", &copied, "--dev"]);
    assert_eq!((&first["records"], &first["carried"]), (&Value::from(61), &Value::from(61)));
    assert_eq!(first["root"], verified(&folder("source"))["root"]);
    fill(&folder("source"), 40).await;
    let again = carried(&["copy", "--from", &source, "--to", &copied, "--dev"]);
    assert_eq!((&again["records"], &again["carried"]), (&Value::from(101), &Value::from(40)));
    let root = verified(&folder("source"))["root"].clone();
    assert_eq!(again["root"], root);
    assert!(matches!(open(&copied).await, Err(KafkaOpenError::Copy(_))), "nobody writes to a copy");

    // From Kafka back to a folder, which nobody writes to either.
    let back = carried(&["copy", "--from", &copied, "--to", &path("back"), "--dev"]);
    assert_eq!((&back["root"], &verified(&folder("back"))["root"]), (&root, &root));
    assert!(refused(&["up", "--data", &path("back")]).contains("read-only copy of kafka://"));
    assert!(refused(&["move", "--from", &path("back"), "--to", &cluster.place("no")]).contains("read-only copy"));

    // What is another ledger, or has gone on, is refused and stays as it is.
    fill(&folder("other"), 3).await;
    assert!(refused(&["copy", "--from", &path("other"), "--to", &copied, "--dev"]).contains("101 records"));
    fill(&folder("other"), 200).await;
    assert!(
        refused(&["copy", "--from", &path("other"), "--to", &copied, "--dev"]).contains("another record at offset 0")
    );
    assert!(refused(&["copy", "--from", &path("none"), "--to", &copied]).contains("there is no ledger in"));
    assert!(!folder("none").exists());
    let same = say(&["copy", "--from", &source, "--to", &source]);
    assert_eq!(same.0, 2, "{}", same.2);

    // Moved into the copy: the old place takes nothing more, the new one goes on.
    let moved = carried(&["move", "--from", &source, "--to", &copied, "--dev"]);
    assert_eq!((&moved["root"], &moved["sealed_at"], &moved["carried"]), (&root, &Value::from(101), &Value::from(0)));
    assert!(refused(&["up", "--data", &source]).contains("was moved to kafka://"));
    assert_eq!(verified(&folder("source"))["ok"], Value::from(true));
    let log = open(&copied).await.unwrap();
    append_to(&log, 5).await;
    let going_on = ledger(Arc::new(log)).await;
    assert_eq!((going_on.view().next(), going_on.view().ruler().is_sealed()), (Offset(106), false));

    says_that_it_was_moved(&source, &copied);

    // The same again changes nothing; elsewhere it is too late.
    let again = carried(&["move", "--from", &source, "--to", &copied, "--dev"]);
    assert_eq!((&again["root"], &again["carried"]), (&root, &Value::from(0)));
    assert!(refused(&["move", "--from", &source, "--to", &path("elsewhere")]).contains("was moved to kafka://"));

    // Moved away from Kafka under those who work with it: what they write is void.
    let home = carried(&["move", "--from", &copied, "--to", &path("home"), "--dev"]);
    assert_eq!(home["sealed_at"], Value::from(106));
    going_on.folded().wait_for(|next| *next > Offset(106)).await.unwrap();
    let late = step(1 << 90, "service/late", NO_HEAD);
    let offset = going_on.log().append(late, Urgency::Ordinary).await.unwrap();
    let record = going_on.log().read(offset, 1).await.unwrap().remove(0);
    let mut view = View::default();
    let reader = open(&copied).await.unwrap();
    execute::catch_up(&reader, &mut view).await.unwrap();
    assert_eq!(view.head(&Stream::Service("late".parse().unwrap())), NO_HEAD);
    let again = view.fold(view.next(), &record.bytes).unwrap();
    assert_eq!(again.void, Some(Void::Sealed));
    fill(&folder("home"), 3).await;
    assert_eq!(verified(&folder("home"))["records"], Value::from(109));
}

/// A folder whose ledger was moved tells how it stood then, and says so; what runs on it and follows the other place has a
/// cache that is compared with that place alone.
fn says_that_it_was_moved(folder: &str, to: &str) {
    let (code, status, said) = say(&["status", "--data", folder]);
    assert_eq!((code, status["moved_to"].as_str()), (0, Some(to)), "{said}");
    assert!(said.starts_with(&format!("the ledger was moved to {to}")), "{said}");
    let (_, _, said) = say(&["history", "--data", folder]);
    assert!(said.starts_with(&format!("the ledger was moved to {to}")), "{said}");
    let found = |thing: &str| {
        let (_, report, said) = say(&["doctor", "--data", folder]);
        let findings = report["findings"].as_array().unwrap_or_else(|| panic!("{said}")).clone();
        let of = findings.into_iter().find(|finding| finding["thing"] == thing);
        of.map(|of| (of["level"].clone(), of["what"].as_str().unwrap().to_owned()))
    };
    let (level, what) = found("ledger").unwrap();
    assert!(level == "warn" && what.contains("was moved to kafka://"), "{what}");

    let mut api = Command::new(env!("CARGO_BIN_EXE_ionledger"))
        .args(["api", "--ledger", to, "--data", folder, "--dev"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + support::cluster::DEADLINE;
    while say(&["status", "--data", folder]).1["at"]["offset"] != 105 {
        assert!(std::time::Instant::now() < deadline, "the API does not answer");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(say(&["status", "--data", folder]).1["moved_to"], Value::Null, "the ledger goes on");
    api.kill().unwrap();
    api.wait().unwrap();
    let (level, what) = found("cache").unwrap();
    assert!(level == "ok" && what.contains(&format!("of {to} folded")), "{what}");
    assert!(found("log").unwrap().1.contains("lies in kafka://"));
}

/// What an earlier ionledger wrote is read from a topic as from a folder. Source: tests/cli_up/upgrade.rs.
#[test]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
fn a_topic_with_what_an_earlier_program_wrote_is_read_as_it_was_meant() {
    let cluster = Cluster::start(1);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/folders/2026-11");
    let place = cluster.place("before");
    let copied = carried(&["copy", "--from", folder, "--to", &place, "--dev"]);
    assert_eq!(copied["root"], "70c2f0617dca77ba903b38b2bb32b6ff73f2dec557cd9697e172a3bb51dbfaaf", "{copied}");
}
