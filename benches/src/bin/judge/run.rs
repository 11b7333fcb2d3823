//! One canary's day: every judge on the same stream until it has fallen or the day is over.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use ledger::judgement::judge::Judge;
use schemas::judgement::Verdict;

use crate::peers::{Flagger, Kayenta, Minute, Peer, ZTest};
use crate::stream::{DAY, Happens, Stream};

/// Ours first, then the peers.
pub(crate) const JUDGES: [&str; 4] = ["ionledger", "Flagger-like", "Kayenta-like", "z-test"];

/// A canary to be judged.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) rps: f64,
    pub(crate) share: f64,
    pub(crate) happens: Happens,
    /// When what happens begins, in seconds; it is looked at more often from then on.
    pub(crate) onset: f64,
    pub(crate) pace: Pace,
    /// Whether the canary's slow requests are the bad ones, rather than those that fail.
    pub(crate) slow_is_bad: bool,
}

/// How often is looked.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// Every tenth of a second for a minute, every second for an hour, then every ten seconds.
    Eager,
    /// Every ten seconds.
    Steady,
}

/// Where a canary fell, counted from the onset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fell {
    pub(crate) seconds: f64,
    pub(crate) requests: u64,
    pub(crate) bad: u64,
}

/// What each judge did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) fell: [Option<Fell>; 4],
    /// The canary's requests until ours accepted it.
    pub(crate) accepted_after: Option<u64>,
}

impl Case {
    fn tenths(&self, now: u64) -> u64 {
        let onset = (self.onset * 10.0) as u64;
        match self.pace {
            Pace::Steady => 100,
            Pace::Eager if now < onset => 100,
            Pace::Eager => match now - onset {
                ..600 => 1,
                600..36_000 => 10,
                _ => 100,
            },
        }
    }

    /// Runs a day of this seed.
    pub(crate) fn run(&self, seed: u64) -> Outcome {
        let mut stream = Stream::new(seed, self.rps, self.share, self.happens);
        let mut judge = Judge::new(stream.plan()).expect("a valid plan");
        let mut peers: [Box<dyn Peer>; 3] =
            [Box::<Flagger>::default(), Box::<Kayenta>::default(), Box::<ZTest>::default()];
        let (mut outcome, mut minute) = (Outcome::default(), Minute::default());
        let (mut now, mut so_far) = (0, Fell { seconds: 0.0, requests: 0, bad: 0 });
        let mut all_requests = 0;
        while now < (DAY * 10.0) as u64 && outcome.fell.iter().any(Option::is_none) {
            let tenths = self.tenths(now);
            let (seconds, share) = (tenths as f64 / 10.0, stream.now().share);
            let counted = stream.tick(seconds);
            now += tenths;
            all_requests += counted.requests.1;
            if now as f64 > self.onset * 10.0 {
                so_far.seconds = now as f64 / 10.0 - self.onset;
                so_far.requests += counted.requests.1;
                so_far.bad += if self.slow_is_bad { counted.above.1[3] } else { counted.errors.1 };
            }
            if outcome.fell[0].is_none() {
                let verdict = judge.tick(&counted.observed(seconds, share));
                if verdict == Verdict::Worse {
                    outcome.fell[0] = Some(so_far);
                }
                if verdict == Verdict::NotWorse {
                    outcome.accepted_after.get_or_insert(all_requests);
                }
            }
            minute.add(&counted);
            if now.is_multiple_of(600) {
                let minute = minute.end(&mut stream);
                for (peer, fell) in peers.iter_mut().zip(&mut outcome.fell[1..]).filter(|(_, fell)| fell.is_none()) {
                    *fell = peer.minute(&minute).then_some(so_far);
                }
            }
        }
        outcome
    }

    /// Runs a day for each of `seeds` seeds.
    pub(crate) fn runs(&self, seeds: u64) -> Vec<Outcome> {
        in_parallel(seeds as usize, |seed| self.run(seed as u64 + 1))
    }
}

/// Does `work` for every number below `count` on all processors; the results are in order.
pub(crate) fn in_parallel<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, T)>> = Mutex::new(Vec::with_capacity(count));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Relaxed);
                    if i >= count {
                        return;
                    }
                    let result = work(i);
                    done.lock().unwrap().push((i, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Returns the middle of some numbers, `None` of none.
pub(crate) fn median(numbers: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut numbers: Vec<f64> = numbers.into_iter().collect();
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied()
}
