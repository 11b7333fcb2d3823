//! Streams that hold what this program does not understand.

use ledger::execute::genesis;
use ledger::log::contract::step;
use ledger::log::segments::{DataFolder, Segments, SegmentsOptions};
use ledger::log::{Log as _, Urgency};
use ledger::rule::NO_HEAD;
use serde_json::Value;

use support::binary::run;

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_read_only_here_is_named_by_status_and_by_doctor() {
    let folder = tempfile::tempdir().unwrap();
    {
        let log = Segments::open(DataFolder::hold(folder.path()).unwrap(), SegmentsOptions::default()).unwrap();
        let genesis = genesis(schemas::Timestamp::UNIX_EPOCH);
        for record in [genesis, step(1, "service/api", NO_HEAD), step(2, "deployment/production/web", NO_HEAD)] {
            log.append(record, Urgency::Ordinary).await.unwrap();
        }
    }
    let status = run(folder.path(), &["status", "--json"]);
    let answer: Value = serde_json::from_str(&status.stdout).unwrap();
    let named: Vec<&String> = answer["read_only"].as_object().unwrap().keys().collect();
    assert_eq!(named, ["deployment/production/web", "service/api"], "{status:?}");
    let status = run(folder.path(), &["status"]);
    for stream in ["service/api", "deployment/production/web"] {
        let line =
            format!("{stream} accepts nothing here but a rollback: event type `test.stepped` version 1 is unknown");
        assert!(status.stderr.contains(&line), "{status:?}");
    }
    let doctor = run(folder.path(), &["doctor", "--json"]);
    let report: Value = serde_json::from_str(&doctor.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let streams: Vec<&Value> = findings.iter().filter(|finding| finding["thing"] == "stream").collect();
    assert!(streams.len() == 2 && streams.iter().all(|finding| finding["level"] == "warn"), "{report:#}");
    assert!(streams.iter().all(|finding| finding["next"].as_str().unwrap().contains("upgrade ionledger")));
}
