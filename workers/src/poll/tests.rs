//! Polls whose wake-up was lost are made again.

use ledger::at::At;
use schemas::run::{Artifact, Capacity, RunSpec};
use schemas::{CommitId, Event, Hash, StackId, Stream, StreamVersion, node, stack};
use uuid::Uuid;

use super::*;

const EFFECT: EffectId = EffectId(Uuid::from_u128(9));

/// A deployment with a node that was launched, and a provisioner that has looked at all there is.
fn world() -> (State, Facts, PollSchedule) {
    let mut state = State::default();
    let stack = StackId(Uuid::from_u128(1));
    let artifact = Artifact { sha256: Hash::of(b"api"), name: "api".to_owned(), size_bytes: 1 };
    let (version, capacity, run) = ("1.0.0".parse().unwrap(), Capacity { nodes: 1, min_ready: 1 }, RunSpec::default());
    let (address, instance) = ("127.0.0.1:4000".parse().unwrap(), "one".to_owned());
    let events: [Event; 3] = [
        stack::Requested { stack, version, number: 1, artifact, run, capacity, then_roll: None }.into(),
        node::LaunchStarted { effect: EFFECT, stack, slot: 0, attempt: 0, port: 4_000 }.into(),
        node::Launched { effect: EFFECT, address, instance }.into(),
    ];
    for event in events {
        let at = At { time: Timestamp::UNIX_EPOCH, commit: CommitId(Uuid::nil()), version: StreamVersion(1) };
        state.evolve(&Stream::Deployment("production/api".parse().unwrap()), &event, &at);
    }
    (state, Facts::default(), PollSchedule::new(Role::Provisioner, Pace::default()))
}

/// Lets time pass, answers all polls but those of `unanswered`, and returns when the node was probed.
fn probed(
    (state, facts, schedule): (&State, &mut Facts, &mut PollSchedule),
    until: Duration,
    mut unanswered: impl FnMut(&mut PollSchedule, &Poll) -> bool,
) -> Vec<Duration> {
    let mut at = vec![];
    while facts.steady < until {
        let (polls, _) = schedule.begin(state, facts);
        for poll in polls {
            if matches!(poll, Poll::Probe { .. }) {
                at.push(facts.steady);
            }
            if unanswered(schedule, &poll) {
                continue;
            }
            let result = match poll {
                Poll::Nodes { .. } => PollResult::Nodes(Ok(BTreeMap::new()), vec![], None),
                Poll::Probe { effect, .. } => PollResult::Probe(effect, Probe::Failed { reason: "refused".to_owned() }),
                other => panic!("{other:?}"),
            };
            schedule.take_in(facts, state, Offset(0), result);
        }
        facts.steady += Duration::from_millis(50);
    }
    at
}

#[test]
fn a_poll_whose_wake_up_was_lost_is_made_within_a_minute_and_then_at_its_interval() {
    let (state, mut facts, mut schedule) = world();
    let before = probed((&state, &mut facts, &mut schedule), Duration::from_secs(10), |_, _| false);
    assert!(before.len() >= 39, "every 250 ms: {before:?}");
    schedule.queue.clear();
    let after = probed((&state, &mut facts, &mut schedule), Duration::from_secs(70), |_, _| false);
    assert_eq!(after.first(), Some(&ALL_EVERY), "{after:?}");
    assert!(after.len() >= 39, "{after:?}");
}

#[test]
fn a_poll_under_way_is_not_made_a_second_time_however_long_it_takes() {
    let (state, mut facts, mut schedule) = world();
    let probes = |_: &mut PollSchedule, poll: &Poll| matches!(poll, Poll::Probe { .. });
    let at = probed((&state, &mut facts, &mut schedule), Duration::from_secs(200), probes);
    assert_eq!(at, [Duration::ZERO]);
}

#[test]
fn a_poll_that_broke_off_is_made_again_at_its_interval() {
    let (state, mut facts, mut schedule) = world();
    let lose = |schedule: &mut PollSchedule, poll: &Poll| {
        schedule.lost(poll);
        true
    };
    let at = probed((&state, &mut facts, &mut schedule), Duration::from_secs(1), lose);
    assert_eq!(at, [0, 250, 500, 750].map(Duration::from_millis));
    assert!(!schedule.nodes.busy);
}
