//! Golden vectors of the envelope, and what the rule makes of them.
//!
//! `golden.jsonl` is one log: each line is a record's bytes (as text, or `hex` where they are none, with `pad` spaces
//! behind) with the verdict, the leaf, and the ledger's time and root after it. It was written by another program,
//! in another language, from the definition alone. It is frozen: a change of it is a new rule.

use proptest::prelude::*;

use super::*;
use crate::log::contract::{Commit, genesis, step};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    name: String,
    text: Option<String>,
    hex: Option<String>,
    #[serde(default)]
    pad: usize,
    verdict: String,
    leaf: Option<Hash>,
    time: Option<Timestamp>,
    root: Option<Hash>,
}

impl Golden {
    fn all() -> Vec<Self> {
        include_str!("golden.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn bytes(&self) -> Bytes {
        let mut bytes = match (&self.text, &self.hex) {
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(digits)) => hex::decode(digits).unwrap(),
            _ => panic!("{}: one of text and hex", self.name),
        };
        bytes.resize(bytes.len() + self.pad, b' ');
        bytes.into()
    }
}

fn verdict(ruling: &Result<Ruling, Halt>) -> String {
    match ruling {
        Ok(Ruling { void: None, .. }) => "counts".to_owned(),
        Ok(Ruling { void: Some(void), .. }) => void.to_string(),
        Err(Halt::UnknownRule { rule, .. }) => format!("halt {rule}"),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn every_golden_record_has_its_verdict_leaf_time_and_root() {
    let mut ruler = Ruler::default();
    for golden in Golden::all() {
        let (name, bytes) = (&golden.name, golden.bytes());
        let parsed = Parsed::of(&bytes);
        let ruling = ruler.rule_on(ruler.next(), &parsed);
        assert_eq!(verdict(&ruling), golden.verdict, "{name}");
        if let Ok(ruling) = ruling {
            assert_eq!(Some(parsed.hash), golden.leaf, "{name}");
            assert_eq!(Some(ruling.time), golden.time, "{name}");
            assert_eq!(Some(ruler.tree().root()), golden.root, "{name}");
        }
    }
    assert_eq!(ruler.next(), Offset(Golden::all().iter().filter(|golden| golden.leaf.is_some()).count() as u64));
}

#[test]
fn every_golden_record_is_the_same_on_every_carrier() {
    for golden in Golden::all() {
        let (name, bytes) = (&golden.name, golden.bytes());
        let kept = canonical(&bytes);
        assert_eq!(kept == bytes, golden.verdict != "malformed" || name.starts_with("a stub is"), "{name}");
        assert_same_everywhere(&bytes);
    }
}

/// What a carrier keeps is one line of JSON, is kept as it is by the next carrier, and gives the same leaf.
fn assert_same_everywhere(bytes: &Bytes) {
    let kept = canonical(bytes);
    assert!(!kept.iter().any(|b| *b < b' '));
    serde_json::from_slice::<serde_json::Value>(&kept).unwrap();
    assert_eq!(canonical(&kept), kept);
    let (here, there) = (Parsed::of(bytes), Parsed::of(&kept));
    assert_eq!((here.hash, here.rule, here.envelope.is_some()), (there.hash, there.rule, there.envelope.is_some()));
}

#[test]
fn a_log_that_does_not_begin_with_a_genesis_is_no_ledger() {
    let two_events = Commit::new(1).extends("ledger", NO_HEAD).event("ledger", "ledger.created").event("ledger", "x");
    let other_stream = Commit::new(1).extends("ledgers", NO_HEAD).event("ledgers", "ledger.created");
    let stale = Commit::new(1).extends("ledger", Head { version: StreamVersion(1), ..NO_HEAD });
    let firsts = [
        Bytes::new(),
        step(1, "ledger", NO_HEAD),
        two_events.bytes(),
        other_stream.bytes(),
        stale.event("ledger", "ledger.created").bytes(),
    ];
    for first in firsts {
        let mut ruler = Ruler::default();
        assert_eq!(ruler.rule_on(Offset(0), &Parsed::of(&first)), Err(Halt::NoGenesis));
        assert_eq!(ruler, Ruler::default(), "nothing is remembered");
        assert!(ruler.rule_on(Offset(0), &Parsed::of(&genesis())).is_ok());
    }
}

#[test]
fn a_record_that_is_missing_or_repeated_halts_the_reader() {
    let mut ruler = Ruler::default();
    ruler.rule_on(Offset(0), &Parsed::of(&genesis())).unwrap();
    for found in [0, 2, 9].map(Offset) {
        let halt = ruler.rule_on(found, &Parsed::of(&step(1, "s", NO_HEAD)));
        assert_eq!(halt, Err(Halt::Gap { expected: Offset(1), found }));
    }
    assert!(ruler.rule_on(Offset(1), &Parsed::of(&step(1, "s", NO_HEAD))).is_ok());
}

/// A head as a writer may name it: how far behind the head it is, or ahead of it, and whether its hash is the true one.
#[derive(Clone, Copy, Debug)]
struct Named {
    stream: usize,
    behind: u64,
    ahead: u64,
    forged: bool,
}

const STREAMS: [&str; 3] = ["service/a", "service/b", "deployment/test/a"];

fn named() -> impl Strategy<Value = Named> {
    let near = prop_oneof![8 => Just(0_u64), 1 => 1..3_u64];
    (0..STREAMS.len(), near.clone(), near, prop::bool::weighted(0.05))
        .prop_map(|(stream, behind, ahead, forged)| Named { stream, behind, ahead, forged })
}

/// The rule as the design tells it, over the whole history.
#[derive(Default)]
struct Model {
    /// Of each stream, the hashes of its commits.
    streams: [Vec<Hash>; STREAMS.len()],
    commands: Vec<u128>,
    leaves: Vec<Hash>,
}

impl Model {
    fn head(&self, named: Named) -> Head {
        let history = &self.streams[named.stream];
        let version = (history.len() as u64).saturating_sub(named.behind) + named.ahead;
        let at = version.checked_sub(1).and_then(|n| history.get(n as usize));
        let hash = if named.forged { Hash::of(b"forged") } else { at.copied().unwrap_or(Hash::ZERO) };
        Head { version: StreamVersion(version), hash }
    }

    fn rule_on(&mut self, command: u128, extends: &[Named], requires: &[Named], leaf: Hash) -> Option<Void> {
        self.leaves.push(leaf);
        let names: Vec<usize> = extends.iter().chain(requires).map(|named| named.stream).collect();
        if (1..names.len()).any(|n| names[..n].contains(&names[n])) {
            return Some(Void::Malformed);
        }
        if self.commands.contains(&command) {
            return Some(Void::Duplicate);
        }
        let mut void = None;
        for named in extends.iter().chain(requires) {
            let (head, len) = (self.head(*named), self.streams[named.stream].len() as u64);
            let true_hash = self.streams[named.stream].last().copied().unwrap_or(Hash::ZERO);
            match head.version.0.cmp(&len) {
                std::cmp::Ordering::Less => void = void.or(Some(Void::Stale)),
                std::cmp::Ordering::Equal if head.hash == true_hash => {}
                _ => void = Some(Void::Fork),
            }
        }
        if void.is_none() {
            self.commands.push(command);
            extends.iter().for_each(|named| self.streams[named.stream].push(leaf));
        }
        void
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bytes_are_the_same_on_every_carrier(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        assert_same_everywhere(&bytes.into());
    }

    #[test]
    fn a_commit_with_any_byte_changed_is_another_record_and_never_a_panic(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = step(7, "service/api", NO_HEAD).to_vec();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != to);
        let before = Parsed::of(&bytes).hash;
        bytes[at] = to;
        prop_assert_ne!(Parsed::of(&bytes).hash, before);
        assert_same_everywhere(&bytes.into());
    }

    #[test]
    fn the_rule_agrees_with_its_definition_over_the_whole_history(
        commits in prop::collection::vec(
            (0..60_u128, prop::collection::vec(named(), 1..3), prop::collection::vec(named(), 0..2)), 1..60),
        resumed_at in any::<prop::sample::Index>(),
    ) {
        let (mut model, mut ruler) = (Model::default(), Ruler::default());
        ruler.rule_on(Offset(0), &Parsed::of(&genesis())).unwrap();
        model.leaves.push(Parsed::of(&genesis()).hash);
        let resumed_at = resumed_at.index(commits.len());
        for (n, (command, extends, requires)) in commits.iter().enumerate() {
            let mut commit = Commit::new(1_000 + n as u128).command(1_000 + command);
            for named in extends {
                commit = commit.extends(STREAMS[named.stream], model.head(*named));
            }
            for named in requires {
                commit = commit.requires(STREAMS[named.stream], model.head(*named));
            }
            let bytes = commit.event(STREAMS[extends[0].stream], "test.stepped").bytes();
            let parsed = Parsed::of(&bytes);
            if n == resumed_at {
                ruler = Ruler::resume(
                    ruler.next(), ruler.time(), ruler.heads().clone(), ruler.commands.clone(), ruler.tree().clone());
            }
            let ruling = ruler.rule_on(Offset(n as u64 + 1), &parsed).unwrap();
            prop_assert_eq!(ruling.void, model.rule_on(1_000 + command, extends, requires, parsed.hash));
        }
        for (stream, history) in STREAMS.iter().zip(&model.streams) {
            let hash = history.last().copied().unwrap_or(Hash::ZERO);
            prop_assert_eq!(ruler.head(stream), Head { version: StreamVersion(history.len() as u64), hash });
        }
        let mut tree = tree::Frontier::default();
        model.leaves.iter().for_each(|leaf| tree.push(*leaf));
        prop_assert_eq!(ruler.tree().root(), tree.root());
    }
}
