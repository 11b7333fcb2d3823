//! A view is had for a moment, and nobody waits for ever for one.

use std::sync::mpsc;
use std::time::Instant;

use super::*;

/// As a question does that has a view and calls what asks for one.
#[test]
fn who_has_a_view_may_ask_for_one_while_a_record_waits_to_be_folded() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let installation = runtime.block_on(Installation::empty());
    let (ledger, log) = (installation.ledger.clone(), Arc::clone(&installation.log));
    let ((begin, begun), (end, ended)) = (mpsc::channel(), mpsc::channel());
    std::thread::spawn(move || {
        let view = ledger.view();
        begin.send(()).unwrap();
        while *log.end().borrow() == view.next() {
            std::thread::yield_now();
        }
        // Now, or soon, a record waits for this view to be given back.
        let until = Instant::now() + Duration::from_millis(200);
        while Instant::now() < until {
            assert_eq!(ledger.view().next(), view.next(), "nothing is folded meanwhile");
        }
        drop(view);
        end.send(()).unwrap();
    });
    begun.recv_timeout(WAIT_MAX).unwrap();
    let asked = runtime.spawn(async move { installation.ask(kit::apply(kit::definition())).await.map(drop) });
    let ended = ended.recv_timeout(WAIT_MAX);
    let answer = ended.is_ok().then(|| runtime.block_on(asked).unwrap());
    // What waits for ever must not keep the test from its end.
    runtime.shutdown_background();
    assert_eq!(ended, Ok(()), "it waits for itself");
    answer.unwrap().unwrap();
}
