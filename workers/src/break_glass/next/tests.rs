//! What is done next, for every state that a rollback without the ledger can be in.

use std::collections::BTreeMap;

use ledger::decision::{Rejection, Told};
use ledger::execute::Executed;
use schemas::{Hash, LedgerId, StreamVersion, Weights};
use uuid::Uuid;

use super::*;
use crate::break_glass::kit::intent;
use crate::traffic::{HeldRoutes, Routes, Timeouts};

const DONE: Progress = Progress { written: true, moved: true, appending: false, expired: false };

fn held(generation: StreamVersion) -> Entry {
    let Intent { deployment, to, .. } = intent();
    let (weights, backends, timeouts) = (Weights::all_on(to), BTreeMap::new(), Timeouts::default());
    let routes = Routes { deployment, generation, listen: None, weights, backends, timeouts, nodes_only: false };
    Entry::Routed(HeldRoutes { routes, listening: "127.0.0.1:4000".parse().unwrap() })
}

/// The ledger does not have it, the log is as `log` says, and the router holds `generation`.
fn facts(log: Result<(), &str>, generation: Option<StreamVersion>) -> Facts {
    let outside = Outside { log: log.map_err(str::to_owned), entry: generation.map(held) };
    Facts { recorded: None, overtaken: false, outside: Some(outside) }
}

#[test]
fn what_is_not_written_down_is_written_before_everything() {
    let progress = Progress { written: false, moved: false, appending: true, expired: false };
    for facts in [facts(Ok(()), None), facts(Err("silent"), None), Facts { outside: None, ..facts(Ok(()), None) }] {
        assert_eq!(next(&intent(), progress, &facts), Step::Write);
    }
}

#[test]
fn what_the_ledger_has_is_put_away_and_another_command_of_that_id_is_set_aside() {
    let of = |hash| Facts { recorded: Some(hash), outside: None, overtaken: false };
    assert_eq!(next(&intent(), DONE, &of(intent().command.hash)), Step::PutAway);
    assert!(matches!(next(&intent(), DONE, &of(Hash::ZERO)), Step::SetAside(why) if why.contains("something else")));
}

#[test]
fn while_the_append_goes_on_nothing_is_asked_for_a_second_time() {
    let progress = Progress { appending: true, ..DONE };
    for log in [Ok(()), Err("silent")] {
        assert!(matches!(next(&intent(), progress, &facts(log, None)), Step::Wait(_)));
    }
}

#[test]
fn what_is_outside_is_looked_at_before_anything_is_moved_or_recorded() {
    let unseen = Facts { recorded: None, overtaken: false, outside: None };
    for moved in [false, true] {
        assert_eq!(next(&intent(), Progress { moved, ..DONE }, &unseen), Step::Look);
    }
}

#[test]
fn once_the_log_is_back_it_is_recorded_under_what_the_router_holds_if_that_is_younger() {
    let ours = intent().generation;
    let younger = StreamVersion(ours.0 + (1 << 32));
    let older = Some(StreamVersion(3));
    for (held, generation, served) in
        [(None, ours, None), (older, ours, Some(false)), (Some(younger), younger, Some(true))]
    {
        for moved in [false, true] {
            let step = next(&intent(), Progress { moved, ..DONE }, &facts(Ok(()), held));
            assert_eq!(step, Step::Record { generation, moved: served });
        }
    }
}

#[test]
fn it_moved_users_if_that_was_noted_or_the_router_serves_it_and_not_if_the_router_never_heard_of_it() {
    let moved = |intent: &Intent, entry: Option<Entry>| {
        let outside = Outside { log: Ok(()), entry };
        match next(intent, DONE, &Facts { recorded: None, overtaken: false, outside: Some(outside) }) {
            Step::Record { moved, .. } => moved,
            other => panic!("{other:?}"),
        }
    };
    let ours = intent().generation;
    let noted = Intent { moved_at: Some(later(intent().at, EXPIRES_AFTER)), ..intent() };
    assert_eq!(moved(&intent(), Some(held(StreamVersion(3)))), Some(false));
    assert_eq!(moved(&intent(), Some(held(ours))), Some(true));
    assert_eq!(moved(&intent(), None), None, "the router cannot be asked");
    assert_eq!(moved(&intent(), Some(Entry::Retired { generation: ours })), None, "what came after it");
    let further = Intent { to: schemas::StackId(Uuid::from_u128(4)), ..intent() };
    assert_eq!(moved(&further, Some(held(StreamVersion(ours.0 + (1 << 32))))), None, "a further one moved users");
    for entry in [None, Some(held(StreamVersion(3))), Some(Entry::Retired { generation: ours })] {
        assert_eq!(moved(&noted, entry), Some(true));
    }
}

#[test]
fn while_the_log_is_silent_the_weights_move_unless_they_did_or_something_newer_stands() {
    let unmoved = Progress { moved: false, ..DONE };
    let silent = |held| facts(Err("the log does not answer"), held);
    let wait = Step::Wait("the log does not answer".to_owned());
    assert_eq!(next(&intent(), unmoved, &silent(None)), Step::Move);
    assert_eq!(next(&intent(), unmoved, &silent(Some(StreamVersion(7)))), Step::Move, "an older one is no rollback");
    assert_eq!(next(&intent(), unmoved, &silent(Some(intent().generation))), wait, "it is there already");
    assert_eq!(next(&intent(), unmoved, &Facts { overtaken: true, ..silent(None) }), wait);
    assert_eq!(next(&intent(), DONE, &silent(None)), wait);
}

#[test]
fn nothing_is_moved_where_the_deployment_was_retired_since() {
    let unmoved = Progress { moved: false, ..DONE };
    let retired = |generation| {
        let outside = Outside { log: Err("silent".to_owned()), entry: Some(Entry::Retired { generation }) };
        Facts { recorded: None, overtaken: false, outside: Some(outside) }
    };
    assert_eq!(next(&intent(), unmoved, &retired(StreamVersion(7))), Step::Move, "it was retired before");
    assert!(matches!(next(&intent(), unmoved, &retired(intent().generation)), Step::Wait(_)));
}

#[test]
fn nothing_is_moved_long_after_it_was_asked_for() {
    let expired = Progress { moved: false, expired: true, ..DONE };
    let silent = facts(Err("the log does not answer"), None);
    assert!(
        matches!(next(&intent(), expired, &silent), Step::Wait(why) if why.contains("were moved within 10 minutes"))
    );
    assert!(matches!(next(&intent(), expired, &facts(Ok(()), None)), Step::Record { .. }), "the ledger decides");
    assert!(!is_expired(&intent(), later(intent().at, EXPIRES_AFTER)));
    assert!(is_expired(&intent(), later(intent().at, EXPIRES_AFTER + Duration::from_millis(1))));
}

#[test]
fn a_verdict_of_the_ledger_ends_it_and_silence_does_not() {
    let recorded = Executed::nothing(Told::default());
    assert_eq!(after_record(&Ok(recorded)), Step::PutAway);
    let rejected = Refusal::Rejected(Rejection::Invalid("it is not so".to_owned()));
    assert!(matches!(after_record::<Executed>(&Err(rejected)), Step::SetAside(why) if why.contains("it is not so")));
    assert!(matches!(after_record::<Executed>(&Err(Refusal::Halted("damaged".to_owned()))), Step::Wait(_)));
}

#[test]
fn an_intent_of_another_ledger_is_named_so() {
    assert_eq!(foreign(&intent(), intent().ledger), None);
    assert!(foreign(&intent(), LedgerId(Uuid::from_u128(9))).is_some_and(|why| why.contains("belongs to ledger")));
}
