//! A disk that takes too long: the intent's file may appear after its rollback has ended, and is never acted on then.

use std::sync::Arc;
use std::time::Duration;

use ledger::execute::{Refusal, SystemClock};
use ledger::{Ledger, View};
use schemas::command::{self, Command};
use schemas::{Probed, Role, Weights};
use workers::break_glass::{BreakGlass, Folder, Patience, Rolled};

use crate::world::{DEADLINE, HOLDER, V2, World, deployment, patience, person, request, rollback};

/// Waits until what a slow disk wrote lies in a folder below the data folder's.
async fn appears(world: &World, folder: &str) {
    let until = tokio::time::Instant::now() + DEADLINE;
    while world.files(folder).len() != 1 {
        let seen = ["", "aside", "done"].map(|folder| world.files(folder));
        assert!(tokio::time::Instant::now() < until, "{seen:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_intent_that_is_written_after_its_rollback_was_refused_is_set_aside_and_never_recorded() {
    let world = World::serving().await;
    let rollout = world.with_unhealthy_canary().await;
    let somebody = Ledger::open(Arc::clone(&world.log.inner) as _, View::default(), Arc::new(SystemClock));
    let somebody = somebody.await.unwrap();
    let slow = Patience { write: Duration::from_secs(3), ..patience() };
    let break_glass = BreakGlass::new(world.data.path(), world.ledger.clone(), Arc::clone(&world.router) as _, slow);

    let disk = world.hang_disk();
    world.log.fall_silent();
    let (back, asking) = (World::send_back(rollout), Arc::clone(&break_glass));
    let asking = tokio::spawn(async move { asking.record(back, Role::TrafficShifter, HOLDER, None).await });
    let go_on = tokio::time::timeout(DEADLINE, disk.hangs()).await.expect("its intent is written");
    // Meanwhile somebody ends the rollout, so that the append which got no verdict does not count, and is refused then.
    let abort = Command::Abort(command::Abort { deployment: deployment() });
    somebody.execute(request(abort), person("bob"), None).await.unwrap();
    world.log.come_back();
    let answer = asking.await.unwrap();
    assert!(matches!(answer, Err(Refusal::Rejected(_))), "{answer:?}");
    let weights = world.router.weights();

    go_on();
    appears(&world, "aside").await;
    for _ in 0..3 {
        break_glass.settle_all().await;
        world.another().settle_all().await;
    }
    assert_eq!((world.files(""), world.files("done")), (vec![], vec![]));
    assert!(world.history("traffic.glass_broken").is_empty(), "it was not carried out");
    assert_eq!((world.set(), world.router.weights()), (Weights::all_on(world.stack(V2)), weights));
    let aside = Folder::of(world.data.path()).aside().unwrap();
    assert!(aside[0].why.contains(&rollout.to_string()), "{aside:?}");
}

#[tokio::test]
async fn an_intent_that_is_written_after_the_ledger_has_it_is_put_away_and_is_not_shown_as_waiting() {
    let world = World::serving().await;
    let slow = Patience { write: Duration::from_millis(50), ..patience() };
    let break_glass = BreakGlass::new(world.data.path(), world.ledger.clone(), Arc::clone(&world.router) as _, slow);
    let disk = world.hang_disk();
    world.log.fall_silent();
    let (asked, asking) = (rollback(), Arc::clone(&break_glass));
    let asking = tokio::spawn(async move { asking.execute(asked, person("ana"), None, Probed::default()).await });
    let go_on = tokio::time::timeout(DEADLINE, disk.hangs()).await.expect("its intent is written");
    assert!(matches!(asking.await.unwrap(), Rolled::Broken(broken) if broken.unrecorded.file.is_none()));
    world.log.come_back();
    let until = tokio::time::Instant::now() + DEADLINE;
    while !break_glass.unrecorded().is_empty() {
        assert!(tokio::time::Instant::now() < until, "{:?}", break_glass.unrecorded());
        break_glass.settle_all().await;
    }
    go_on();
    appears(&world, "done").await;
    assert_eq!((world.files(""), world.files("aside")), (vec![], vec![]));
    assert_eq!(world.history("traffic.rolled_back").len(), 1);
}
