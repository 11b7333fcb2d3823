//! What becomes of a commit whose append gave no answer.

use super::*;

async fn settles_with(faults: &[Fault]) -> Installation {
    let installation = Installation::serving().await;
    faults.iter().for_each(|fault| installation.log.fail_next(*fault));
    let before = installation.ledger.view().head(&Stream::Deployment(kit::id())).version;
    let answer = installation.ask(kit::traffic(&[(V2, 100)], false)).await.unwrap();
    assert_eq!((kinds(&answer), answer.repeated), (vec!["traffic.weights_set"], false), "{faults:?}");
    assert!(installation.serves(V2));
    installation.log.land();
    installation.folded(installation.end()).await;
    let after = installation.ledger.view().head(&Stream::Deployment(kit::id())).version;
    assert_eq!(after, StreamVersion(before.0 + 1), "exactly one copy counts after {faults:?}");
    installation
}

#[tokio::test]
async fn settles_to_exactly_one_commit_whether_it_was_kept_lost_or_late() {
    for faults in [
        &[Fault::Kept][..],
        &[Fault::Lost],
        &[Fault::Late],
        &[Fault::Kept, Fault::Kept, Fault::Lost],
        &[Fault::Late, Fault::Lost, Fault::Kept],
        &[Fault::Lost, Fault::Refused],
    ] {
        settles_with(faults).await;
    }
}

#[tokio::test]
async fn leaves_its_copies_as_harmless_duplicates() {
    let installation = settles_with(&[Fault::Kept]).await;
    assert_eq!(installation.ledger.view().voids(), 1);
}

/// The first copy may have been kept: "nothing was written" would be a guess.
#[tokio::test]
async fn is_never_called_refused_because_a_later_try_was() {
    let installation = Installation::serving().await;
    installation.log.fail_next(Fault::Kept);
    installation.log.fail_next(Fault::Full);
    let asked = Request { id: id(1), ..request(kit::traffic(&[(V2, 100)], false)) };
    let answer = installation.send(asked.clone()).await;
    assert!(matches!(answer, Err(Refusal::Indeterminate { id: of, .. }) if of == id(1)), "{answer:?}");
    assert!(installation.send(asked).await.unwrap().repeated, "the same id again tells");
}

#[tokio::test]
async fn is_told_from_one_that_was_refused() {
    let installation = Installation::serving().await;
    for fault in [Fault::Refused, Fault::Full] {
        installation.log.fail_next(fault);
        let answer = installation.ask(kit::traffic(&[(V2, 100)], false)).await;
        assert!(matches!(answer, Err(Refusal::NotTaken(_))), "{answer:?}");
        assert!(installation.serves(V1));
    }
}

#[tokio::test]
async fn a_full_disk_still_takes_a_rollback() {
    let installation = Installation::serving().await;
    installation.ask(kit::traffic(&[(V2, 100)], false)).await.unwrap();
    installation.log.fail_next(Fault::Full);
    installation.ask(kit::rollback()).await.unwrap();
    assert!(installation.serves(V1));
}
