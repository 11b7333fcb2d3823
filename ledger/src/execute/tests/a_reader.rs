//! A ledger that only reads along.

use super::*;

fn of_the_future(installation: &Installation) {
    let mut genesis =
        serde_json::from_slice::<serde_json::Value>(&installation.log.records(Offset(0))[0].bytes).unwrap();
    genesis["rule"] = 2.into();
    installation.log.push(Bytes::from(genesis.to_string()));
}

async fn halted(installation: &Installation) -> String {
    let mut folded = installation.ledger.folded();
    let waited = folded.wait_for(|_| installation.ledger.halted().is_some());
    tokio::time::timeout(WAIT_MAX, waited).await.expect("it halts").unwrap();
    installation.ledger.halted().unwrap()
}

#[tokio::test]
async fn halts_at_a_rule_it_does_not_know_and_takes_nothing_more() {
    let installation = Installation::serving().await;
    of_the_future(&installation);
    let why = halted(&installation).await;
    assert!(why.contains("follows rule 2, this program knows rule 1"), "{why}");
    let end = installation.end();
    for command in [kit::traffic(&[(V2, 100)], false), kit::rollback()] {
        assert_eq!(installation.ask(command).await, Err(Refusal::Halted(why.clone())));
    }
    assert_eq!(installation.end(), end, "nothing is appended that this reader could not judge");
}

#[tokio::test]
async fn that_halts_while_a_commit_waits_for_its_verdict_says_at_once_that_nobody_knows() {
    let installation = Installation::serving().await;
    installation.log.fail_next(Fault::Lost);
    let asked = request(kit::traffic(&[(V2, 100)], false));
    let (answer, ()) = futures::join!(installation.send(asked), async { of_the_future(&installation) });
    assert!(matches!(answer, Err(Refusal::Indeterminate { .. })), "{answer:?}");
}

#[tokio::test]
async fn opens_a_log_up_to_the_record_whose_rule_it_does_not_know_and_takes_nothing() {
    let installation = Installation::serving().await;
    let end = installation.end();
    of_the_future(&installation);
    let log: Arc<dyn Log> = Arc::<MemoryLog>::clone(&installation.log);
    let opened = Ledger::open(log, View::default(), Arc::new(Hands::default())).await.unwrap();
    let why = opened.halted().expect("it has halted");
    assert!(why.contains("follows rule 2"), "{why}");
    assert_eq!((opened.view().next(), opened.view().state()), (end, installation.ledger.view().state()));
    let asked = request(kit::rollback());
    assert_eq!(opened.execute(asked, ana(), None).await, Err(Refusal::Halted(why)));
}

#[tokio::test]
async fn does_not_open_a_log_that_begins_with_another_rule() {
    let log = Arc::new(MemoryLog::new());
    log.push(Bytes::from_static(br#"{"rule":2}"#));
    let opened = Ledger::open(log, View::default(), Arc::new(Hands::default())).await;
    assert!(matches!(opened.err(), Some(LedgerOpenError::Halt(Halt::UnknownRule { rule: 2, .. }))));
}

#[tokio::test]
async fn survives_a_record_that_claims_the_last_of_all_versions() {
    let installation = Installation::serving().await;
    let genesis = String::from_utf8(installation.log.records(Offset(0))[0].bytes.to_vec()).unwrap();
    let claims = genesis.replace(r#""version":0"#, &format!(r#""version":{}"#, u64::MAX));
    let offset = installation.log.push(Bytes::from(claims));
    installation.folded(offset.next()).await;
    assert_eq!((installation.ledger.halted(), installation.ledger.view().voids()), (None, 1));
}
