//! A process killed between any two steps: whoever comes next repeats what is left, and history has it once.

use std::fs;

use schemas::Weights;
use workers::break_glass::{Folder, Patience};

use crate::world::{V1, V2, World, rollback, settled_by};

/// How far the one that was killed had come.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Killed {
    WhileWriting,
    AfterWriting,
    AfterMoving,
    AfterAppending,
    AfterPuttingAway,
}

/// Leaves the world as a process leaves it that is killed there.
async fn killed(at: Killed) -> World {
    let world = World::serving().await;
    let before = world.router.entries.lock().unwrap().clone();
    world.log.fall_silent();
    let asked = rollback();
    world.broken(asked.clone()).await;
    let file = world.file(asked.id);
    match at {
        Killed::WhileWriting => {
            let half = fs::read(&file).unwrap();
            fs::write(file.with_extension("tmp"), &half[..half.len() / 2]).unwrap();
            fs::remove_file(&file).unwrap();
            *world.router.entries.lock().unwrap() = before;
        }
        Killed::AfterWriting => *world.router.entries.lock().unwrap() = before,
        Killed::AfterMoving => {}
        Killed::AfterAppending | Killed::AfterPuttingAway => {
            let kept = fs::read(&file).unwrap();
            world.log.come_back();
            world.settled().await;
            if at == Killed::AfterAppending {
                fs::write(&file, kept).unwrap();
                fs::remove_dir_all(world.data.path().join("glass/done")).unwrap();
            }
        }
    }
    world
}

#[tokio::test]
async fn wherever_it_is_killed_the_next_one_ends_it_once_when_the_log_is_back() {
    for at in [Killed::AfterWriting, Killed::AfterMoving, Killed::AfterAppending, Killed::AfterPuttingAway] {
        let world = killed(at).await;
        world.log.come_back();
        let next = world.another();
        settled_by(&next).await;
        settled_by(&next).await;
        assert_eq!(world.history("traffic.rolled_back").len(), 1, "{at:?}");
        assert_eq!(world.set(), Weights::all_on(world.stack(V1)), "{at:?}");
        assert_eq!((world.files("").len(), world.files("done").len()), (0, 1), "{at:?}");
        world.apply().await;
        assert_eq!(world.router.weights(), Weights::all_on(world.stack(V1)), "{at:?}");
    }
}

#[tokio::test]
async fn wherever_it_is_killed_the_next_one_moves_the_weights_while_the_log_is_silent() {
    for at in [Killed::AfterWriting, Killed::AfterMoving] {
        let world = killed(at).await;
        let next = world.another();
        for _ in 0..2 {
            next.settle_all().await;
            assert_eq!(world.router.weights(), Weights::all_on(world.stack(V1)), "{at:?}");
            assert_eq!(next.unrecorded().len(), 1, "{at:?}");
        }
    }
}

#[tokio::test]
async fn what_was_never_written_whole_was_never_said_to_be_done() {
    let world = killed(Killed::WhileWriting).await;
    world.log.come_back();
    let next = world.another();
    next.settle_all().await;
    assert!(world.history("traffic.rolled_back").is_empty());
    assert_eq!(world.router.weights(), Weights::all_on(world.stack(V2)));
}

#[tokio::test]
async fn two_that_hold_the_same_file_record_it_once() {
    let world = killed(Killed::AfterMoving).await;
    world.log.come_back();
    let (one, two) = (world.another(), world.another());
    tokio::join!(settled_by(&one), settled_by(&two));
    assert_eq!(world.history("traffic.rolled_back").len(), 1);
    assert_eq!((world.files("").len(), world.files("done").len()), (0, 1));
    assert!(Folder::of(world.data.path()).aside().unwrap().is_empty());
    assert_eq!(Patience::default().verdict.as_secs(), 2);
}
