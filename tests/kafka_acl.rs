//! Rights: with those that the documents list everything works, and with any one of them missing nothing is sealed.
//!
//! The brokers run Apache Kafka's own `StandardAuthorizer`.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use ledger::log::contract::step;
use ledger::log::segments::{DataFolder, Segments, SegmentsOptions, SegmentsReader};
use ledger::log::{Log as _, Urgency};
use ledger::rule::NO_HEAD;
use ledger::{View, execute};
use support::cluster::Cluster;

/// Who comes by the plain listener.
const CLIENT: &str = "User:ANONYMOUS";

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start_with_acls)
}

/// The commands of docs/kafka.md, for the client and topic of a test, as arguments of the tool.
fn documented(topic: &str) -> Vec<Vec<String>> {
    let text = include_str!("../docs/kafka.md").replace("\\\n", " ");
    let lines = text.lines().filter(|line| line.starts_with("kafka-acls.sh"));
    let commands: Vec<Vec<String>> = lines
        .map(|line| {
            let line = line.replace("User:ionledger", CLIENT).replace("ionledger.commits", topic);
            let words: Vec<String> = line.split_whitespace().skip(1).map(str::to_owned).collect();
            let at = words.iter().position(|word| word == "--add").expect("it gives rights");
            words[at..].to_vec()
        })
        .collect();
    assert_eq!(commands.len(), 3, "one for each topic");
    commands
}

fn grant(topic: &str) {
    for command in documented(topic) {
        cluster().acls(&command.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// Makes a ledger of a few records in `folder`.
async fn fill(folder: &Path) {
    let log = Segments::open(DataFolder::hold(folder).unwrap(), SegmentsOptions::default()).unwrap();
    log.append(execute::genesis(schemas::Timestamp::UNIX_EPOCH), Urgency::Ordinary).await.unwrap();
    for n in 1..20 {
        log.append(step(n, &format!("service/s{n}"), NO_HEAD), Urgency::Ordinary).await.unwrap();
    }
}

async fn is_sealed(folder: &Path) -> bool {
    let log = SegmentsReader::open(folder, None).unwrap();
    let mut view = View::default();
    execute::catch_up(&log, &mut view).await.unwrap();
    view.ruler().is_sealed()
}

/// Runs `move` and returns its exit code and what it said.
fn moved(from: &str, to: &str) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ionledger"))
        .args(["move", "--from", from, "--to", to, "--dev", "--json"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said + &String::from_utf8_lossy(&output.stdout))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn the_documented_rights_are_enough_to_move_a_ledger_there_and_back() {
    grant("enough");
    let folder = tempfile::tempdir().unwrap();
    let (source, back) = (folder.path().join("source"), folder.path().join("back"));
    fill(&source).await;
    let place = cluster().place("enough");
    let (code, said) = moved(source.to_str().unwrap(), &place);
    assert!(code == Some(0) && said.contains(r#""carried":20"#), "{said}");
    assert!(is_sealed(&source).await);
    let (code, said) = moved(&place, back.to_str().unwrap());
    assert_eq!(code, Some(0), "{said}");
    assert!(!is_sealed(&back).await, "the ledger goes on there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kafka of its own: `bash tests/run` has one"]
async fn with_any_one_right_missing_nothing_is_sealed_and_the_topic_is_named() {
    let rights = [
        ("", "Describe"),
        ("", "DescribeConfigs"),
        ("", "Read"),
        ("", "Write"),
        ("", "Create"),
        (".heartbeats", "Describe"),
        (".heartbeats", "Read"),
        (".heartbeats", "Write"),
        (".heartbeats", "Create"),
        (".copy", "Describe"),
        (".copy", "Create"),
        (".copy", "Delete"),
    ];
    let folder = tempfile::tempdir().unwrap();
    // All of them on every topic of this test, and each time one that is denied, which weighs more.
    let mut all =
        vec!["--add", "--allow-principal", CLIENT, "--resource-pattern-type", "prefixed", "--topic", "lacking-"];
    for right in ["Describe", "DescribeConfigs", "Read", "Write", "Create", "Delete"] {
        all.extend(["--operation", right]);
    }
    cluster().acls(&all);
    for (n, (beside, right)) in rights.into_iter().enumerate() {
        let topic = format!("lacking-{n}");
        let denied = format!("{topic}{beside}");
        cluster().acls(&["--add", "--deny-principal", CLIENT, "--operation", right, "--topic", &denied]);
        let source = folder.path().join(&topic);
        fill(&source).await;
        let (code, said) = moved(source.to_str().unwrap(), &cluster().place(&topic));
        assert!(!is_sealed(&source).await, "without {right} on {denied}: {said}");
        assert!(code == Some(1) && said.contains(&denied), "without {right} on {denied}: {said}");
    }
}
