//! From when on a rollback without the ledger counts: whether it moved users, and when.

use std::fs;
use std::sync::atomic::Ordering;

use schemas::{Probed, Timestamp, Weights};
use serde_json::Value;
use workers::break_glass::Rolled;

use crate::world::{V1, V2, V3, World, effective_at, patience, person, rollback, settled_by};

#[tokio::test]
async fn one_that_moved_nobody_counts_from_its_record_and_says_when_it_was_asked_for() {
    let (world, _) = World::unmoved().await;
    // Whoever finds the file does not know what its writer knew.
    let next = world.another();
    world.router.deaf.store(false, Ordering::SeqCst);
    world.log.come_back();
    let back_at = Timestamp::now();
    settled_by(&next).await;
    let (commit, broken) = world.history("traffic.glass_broken").remove(0);
    assert_eq!((&broken["moved"], &broken["asked_at"]), (&false.into(), &asked_at(&world)), "{broken}");
    assert_eq!(commit["about"]["effective_at"], Value::Null, "{commit}");
    assert!(effective_at(&commit) >= back_at, "{commit}");
    assert_eq!(world.set(), Weights::all_on(world.stack(V1)), "the traffic shifter moves them now");
}

#[tokio::test]
async fn one_that_moved_users_late_counts_from_then() {
    let (world, _) = World::unmoved().await;
    tokio::time::sleep(patience().again).await;
    let heard_at = Timestamp::now();
    world.router.deaf.store(false, Ordering::SeqCst);
    world.moved_to(V1).await;
    // It is noted in the file, for whoever records it.
    let next = world.another();
    world.log.come_back();
    settled_by(&next).await;
    let (commit, broken) = world.history("traffic.glass_broken").remove(0);
    assert_eq!(broken["moved"], true, "{broken}");
    assert!(effective_at(&commit) >= heard_at, "{commit}");
}

#[tokio::test]
async fn a_further_one_behind_one_that_moved_nobody_stands() {
    let world = World::serving().await;
    world.bring_up(V3).await;
    world.serve(V3).await;
    world.log.stop();
    world.router.deaf.store(true, Ordering::SeqCst);
    world.broken(rollback()).await;
    world.router.deaf.store(false, Ordering::SeqCst);
    world.nodes.lock().unwrap().remove(&world.stack(V2));
    let mut probed = Probed::default();
    probed.fails(world.stack(V2), "connection refused".to_owned());
    probed.passes(world.stack(V1));
    let further = world.break_glass.execute(rollback(), person("bo"), None, probed).await;
    assert!(matches!(&further, Rolled::Broken(broken) if broken.unmoved.is_none()), "{further:?}");
    let next = world.another();
    world.log.come_back();
    settled_by(&next).await;
    let recorded = world.history("traffic.glass_broken");
    let moved: Vec<_> = recorded.iter().map(|(_, broken)| (&broken["moved"], &broken["overtaken"])).collect();
    assert_eq!(moved, [(&Value::Null, &Value::Null), (&true.into(), &Value::Null)], "{recorded:?}");
    assert_eq!(world.set(), Weights::all_on(world.stack(V1)), "the first is not taken for newer work");
}

/// When the rollback was asked for that the folder `done` keeps.
fn asked_at(world: &World) -> Value {
    let path = world.data.path().join("glass/done").join(world.files("done").remove(0));
    let kept: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    kept["intent"]["at"].clone()
}
