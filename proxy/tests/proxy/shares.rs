//! Shares: what users get of each version, and what is seen of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use http::StatusCode;

use crate::stage::{BASELINE, CANARY, Echo, Stage, User, routes};

#[tokio::test(flavor = "multi_thread")]
async fn one_of_ten_requests_goes_to_a_canary_with_ten_percent() {
    let (stage, old, new) = (Stage::new().await, Echo::new("old").await, Echo::new("new").await);
    let held = stage.apply(&routes(1, &[old.address], &[new.address], 10)).await;
    let mut user = User::connect(held.listening).await;
    let mut of_place = [0; 10];
    for place in (0..10).cycle().take(1_000) {
        let (status, body) = user.get("/").await;
        assert_eq!(status, StatusCode::OK);
        of_place[place] += usize::from(body == "new");
    }
    assert_eq!(of_place, [10; 10], "also for a user with a period of ten");
    assert_eq!((old.requests(), new.requests()), (900, 100));

    let seen = stage.measures().await;
    let counts = [BASELINE, CANARY].map(|stack| seen.stacks[&stack].counts().status_2xx);
    assert_eq!(counts, [900, 100]);
    assert_eq!(seen.stacks[&CANARY].latency().count(), 100);
    assert_eq!(seen.stacks[&CANARY].version.to_string(), "1.1.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_changes_of_weights_under_load_lose_no_request() {
    let (stage, old, new) = (Stage::new().await, Echo::new("old").await, Echo::new("new").await);
    let held = stage.apply(&routes(1, &[old.address], &[new.address], 10)).await;
    let (done, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let users: Vec<_> = (0..8)
        .map(|_| {
            let (done, answered) = (done.clone(), answered.clone());
            tokio::spawn(async move {
                let mut user = User::connect(held.listening).await;
                while !done.load(SeqCst) {
                    assert_eq!(user.get("/").await.0, StatusCode::OK);
                    answered.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    for generation in 2..202 {
        let before = answered.load(SeqCst);
        // Every third time the canary leaves altogether.
        let canary: &[_] = if generation % 3 == 0 { &[] } else { &[new.address] };
        let percent = if canary.is_empty() { 0 } else { generation as u16 % 101 };
        stage.apply(&routes(generation, &[old.address], canary, percent)).await;
        while answered.load(SeqCst) < before + 5 && !users.iter().all(tokio::task::JoinHandle::is_finished) {
            tokio::task::yield_now().await;
        }
    }
    done.store(true, SeqCst);
    for user in users {
        user.await.unwrap();
    }
    assert_eq!(old.requests() + new.requests(), answered.load(SeqCst));
    let seen = stage.measures().await;
    let counts: Vec<_> = seen.stacks.values().map(|stack| stack.counts()).collect();
    assert_eq!(counts.iter().map(|counts| counts.status_2xx as usize).sum::<usize>(), answered.load(SeqCst));
    assert_eq!(counts.iter().map(|counts| counts.ended() - counts.status_2xx).sum::<u64>(), 0);
}
