//! An analysis: what is recorded gives the same verdict again, byte for byte, however it is read back.

use schemas::judgement::{Begun, Counted, NodeTally, Tally, Tick, Verdict};
use schemas::policy::JudgementPolicy;
use schemas::rollout::Plan;
use schemas::{CommitId, EffectId, RolloutId, StreamVersion, Timestamp, Weight, judgement};
use uuid::Uuid;

use super::kit::Dice;
use crate::at::At;
use crate::judgement::analysis::{Analysis, NODES_MAX};
use crate::judgement::judge::RULE;
use crate::judgement::{Judgements, evolve};

fn at() -> At {
    At { time: Timestamp::UNIX_EPOCH, commit: CommitId(Uuid::from_u128(1)), version: StreamVersion::default() }
}

fn rollout() -> RolloutId {
    RolloutId(Uuid::from_u128(7))
}

fn begun() -> Begun {
    Begun {
        rollout: rollout(),
        rule: RULE.to_owned(),
        plan: Plan { steps: [10, 100].map(Weight::from_percent).to_vec(), duration_ms: 86_400_000, bake_ms: 0 },
        policy: JudgementPolicy::default(),
        half_life_s: 600,
        history: [[60_000, 60, 60], [60_000, 30_000, 25_000], [60_000, 600, 400]]
            .map(|past| Some(past.into()))
            .to_vec(),
    }
}

/// A tenth of a second of four nodes a version at 1,000 requests a second; the canary fails at `rate`.
fn tick(dice: &mut Dice, rate: f64) -> Tick {
    let mut nodes = |each: u64, rate: f64| -> Vec<NodeTally> {
        let mut node = |node| {
            let tally = |requests, hits| Tally { requests, hits, beyond: 0 };
            let counts = [rate, 0.5, 0.01].map(|rate| tally(each, dice.hits(each, rate))).to_vec();
            NodeTally { node, age_ms: 60_000, counts }
        };
        (0..4).map(&mut node).collect()
    };
    let (baseline, canary) = (nodes(22, 0.001), nodes(3, rate));
    Tick { ms: 100, share: Weight::from_percent(10), edges: vec![None, Some(300), Some(420)], baseline, canary }
}

fn counted(first: u64, ticks: Vec<Tick>) -> Counted {
    let nodes =
        |from: u128| if first == 0 { (from..from + 4).map(|n| EffectId(Uuid::from_u128(n))).collect() } else { vec![] };
    Counted { rollout: rollout(), first, baseline_nodes: nodes(10), canary_nodes: nodes(20), ticks }
}

/// The events of a rollout whose canary goes bad in its third minute, a commit every five seconds.
fn history() -> Vec<judgement::Event> {
    let mut dice = Dice::new(11);
    let mut events: Vec<judgement::Event> = vec![judgement::Event::Begun(begun())];
    for commit in 0..36_u64 {
        let rate = if commit < 24 { 0.001 } else { 0.02 };
        let ticks = (0..50).map(|_| tick(&mut dice, rate)).collect();
        events.push(judgement::Event::Counted(counted(commit * 50, ticks)));
    }
    events
}

#[test]
fn the_same_recorded_history_judged_again_gives_the_same_verdict_at_the_same_block() {
    let wire: Vec<(String, String)> = history()
        .iter()
        .map(|event| {
            let event = schemas::Event::from(event.clone());
            (event.kind().to_owned(), event.data().get().to_owned())
        })
        .collect();
    let judge = |resume: bool| {
        let (mut judgements, mut said) = (Judgements::default(), Vec::new());
        for (kind, data) in &wire {
            let Ok(schemas::Event::Judgement(event)) = schemas::Event::decode(kind, 1, data) else { panic!("{data}") };
            judgements = evolve(judgements, &event, &at());
            if resume {
                // As a reader does that was ended and goes on from its rows.
                let row = serde_json::to_string(&judgements).unwrap();
                judgements = serde_json::from_str(&row).unwrap();
            }
            let analysis = judgements.analysis.as_ref().unwrap();
            said.push(serde_json::to_string(&analysis.judged(0, "1.2.0")).unwrap());
        }
        (said, serde_json::to_string(&judgements).unwrap())
    };
    let (once, again) = (judge(false), judge(true));
    assert_eq!(once, again);
    let worse = once.0.iter().position(|said| said.contains(r#""verdict":"worse""#)).expect("a verdict");
    assert!((25..30).contains(&worse), "block {worse}: {}", once.0[worse]);
    assert!(once.0[worse].contains("100 needed"), "{}", once.0[worse]);
}

#[test]
fn what_does_not_follow_is_no_evidence() {
    let mut analysis = Analysis::begin(begun()).unwrap();
    let ticks = |n| (0..n).map(|_| tick(&mut Dice::new(1), 1.0)).collect::<Vec<_>>();
    let before = analysis.clone();
    analysis.take(&counted(1, ticks(3)));
    analysis.take(&Counted { rollout: RolloutId(Uuid::from_u128(8)), ..counted(0, ticks(3)) });
    assert_eq!(analysis, before);
    analysis.take(&counted(0, ticks(30)));
    assert_eq!((analysis.judge().ticks(), analysis.judge().verdict()), (30, Verdict::Worse));
    assert!(analysis.evidence().worse_milli >= analysis.evidence().worse_needed_milli);
}

#[test]
fn a_rule_that_is_unknown_here_is_not_guessed_at() {
    let unknown = Begun { rule: "betting/99".to_owned(), ..begun() };
    assert!(Analysis::begin(unknown.clone()).unwrap_err().to_string().contains("upgrade ionledger"));
    let judgements = evolve(Judgements::default(), &judgement::Event::Begun(unknown), &at());
    assert_eq!(evolve(judgements, &history()[1], &at()).analysis, None);
}

#[test]
fn very_many_nodes_share_numbers_and_are_named_together() {
    let mut analysis = Analysis::begin(begun()).unwrap();
    let node = |n: usize| EffectId(Uuid::from_u128(n as u128));
    let numbers: Vec<u32> = (0..NODES_MAX + 2).map(|n| analysis.number_in_canary(node(n))).collect();
    assert_eq!((numbers[NODES_MAX - 1], numbers[NODES_MAX], numbers[NODES_MAX + 1]), (31, 0, 1));
    assert_eq!(analysis.number_in_canary(node(3)), 3, "a node keeps its number");
    assert_eq!(analysis.number_in_baseline(node(3)), 0, "each version counts its own");
}

/// Source: "The log": a day of a rollout is a few thousand commits, and each writes the row anew.
#[test]
fn a_row_stays_a_few_kilobytes_however_long_it_goes_on() {
    let judgements = history().iter().fold(Judgements::default(), |judgements, event| evolve(judgements, event, &at()));
    let bytes = serde_json::to_vec(&judgements).unwrap().len();
    assert!(bytes < 16_000, "{bytes} bytes");
}
