//! The cache can be flipped, cut, deleted, replaced by an older or another one: the answers stay those of the log.

#![allow(clippy::print_stdout)] // how many flips hit something

use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt as _;
use ledger::execute::SystemClock;
use ledger::log::memory::MemoryLog;
use ledger::{Ledger, View, execute};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use replay::{HistoryQuery, Moment, ProductionAt, Projection, Reader, answer};
use schemas::command::{self, Command, Request};
use schemas::{Actor, ActorKind, CommandId, DeploymentId, Offset};
use support::busy::Busy;

const RECORDS: usize = 400;

/// Everything that is asked of a cache, as the log alone answers it.
#[derive(PartialEq, Debug)]
struct Answers {
    states: Vec<ProductionAt>,
    shipped: Vec<answer::WhoShipped>,
    history: Vec<answer::HistoryAnswer>,
}

struct Asked {
    moments: Vec<Moment>,
    queries: Vec<HistoryQuery>,
}

impl Asked {
    /// Different moments and questions for every seed.
    fn of(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut moments: Vec<Moment> =
            (0..1).map(|_| Moment::Offset(Offset(rng.random_range(0..RECORDS as u64)))).collect();
        moments.push(Moment::Now);
        let service = seed.is_multiple_of(2).then(|| "service-001".parse().unwrap());
        let queries =
            vec![HistoryQuery { service, limit: Some(5), voids: seed.is_multiple_of(3), ..HistoryQuery::default() }];
        Self { moments, queries }
    }

    async fn ask(&self, reader: &Reader) -> Answers {
        let deployment = "production/service-000".parse().unwrap();
        let mut answers = Answers { states: vec![], shipped: vec![], history: vec![] };
        for moment in &self.moments {
            answers.states.push(reader.state_at(*moment).await.unwrap());
            answers.shipped.push(reader.who_shipped(&deployment, *moment).await.unwrap());
        }
        for query in &self.queries {
            answers.history.push(reader.history(query).await.unwrap());
        }
        answers
    }
}

/// A ledger, its fold, and a sound cache of it in a folder.
struct World {
    log: Arc<MemoryLog>,
    view: View,
    data: tempfile::TempDir,
    asked: Vec<(Asked, Answers)>,
}

impl World {
    async fn new(seed: u64) -> Self {
        let mut busy = Busy::new(seed, 3).with_outages();
        let log = Arc::new(MemoryLog::new());
        let data = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            // Written in many batches, by more than one process.
            let projection = Projection::open(data.path()).unwrap();
            for _ in 0..10 {
                for bytes in busy.records(RECORDS / 20) {
                    log.push(bytes);
                }
                projection.catch_up(&*log).await.unwrap();
            }
        }
        let fold = Reader::from_genesis(Arc::<MemoryLog>::clone(&log));
        let mut asked = Vec::new();
        for seed in 0..12 {
            let questions = Asked::of(seed);
            let answers = questions.ask(&fold).await;
            asked.push((questions, answers));
        }
        Self { log, view: busy.view().clone(), data, asked }
    }

    /// Copies the cache into an empty data folder.
    fn copy(&self) -> tempfile::TempDir {
        let data = tempfile::tempdir().unwrap();
        copy_folder(&self.data.path().join("replay"), &data.path().join("replay"));
        data
    }

    /// Starts on a data folder as `up` does, asks, and says whether the cache was sound.
    async fn check(&self, data: &Path, round: usize) -> bool {
        let projection = Arc::new(Projection::open(data).unwrap());
        let mut view = projection.resume(&*self.log).await.unwrap();
        let resumed = view.next() > Offset(0);
        if resumed {
            execute::catch_up(&*self.log, &mut view).await.unwrap();
            assert_eq!(view, self.view, "a start from the cache");
        }
        projection.catch_up(&*self.log).await.unwrap();
        let reader = Reader::over(Arc::<MemoryLog>::clone(&self.log), Some(Arc::clone(&projection)));
        let (questions, answers) = &self.asked[round % self.asked.len()];
        assert_eq!(questions.ask(&reader).await, *answers);
        resumed && projection.known_end() == Some(Offset(RECORDS as u64))
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .filter(|path| path.metadata().unwrap().len() > 0)
        .collect();
    files.sort();
    files
}

/// Flips a bit, or replaces a byte, somewhere in the cache's files; three of four times where something is written.
fn damage(folder: &Path, rng: &mut ChaCha8Rng) -> String {
    let files = files(folder);
    let path = &files[rng.random_range(0..files.len())];
    let mut bytes = fs::read(path).unwrap();
    let mut at = rng.random_range(0..bytes.len());
    for _ in 0..200 {
        if bytes[at] != 0 || rng.random_ratio(1, 4) {
            break;
        }
        at = rng.random_range(0..bytes.len());
    }
    let (old, bit) = (bytes[at], 1 << rng.random_range(0..8));
    bytes[at] = if rng.random_bool(0.5) { old ^ bit } else { old.wrapping_add(rng.random_range(1..=255)) };
    let what = format!("{} byte {at}: {old:02x} -> {:02x}", path.display(), bytes[at]);
    fs::write(path, bytes).unwrap();
    what
}

/// sled prints its panics, which are caught: a thousand of them help nobody.
fn quietly() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let here = info.location().is_some_and(|location| !location.file().contains("sled"));
        if here && !std::thread::current().name().is_some_and(|name| name.contains("sled")) {
            loud(info);
        }
    }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_any_of_a_thousand_flips_the_answers_are_those_of_the_log() {
    quietly();
    let rounds: usize = std::env::var("FLIPS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000);
    let first: u64 = std::env::var("SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let world = Arc::new(World::new(1).await);
    // Two at a time.
    let halves = [0, 1].map(|half| {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            let mut rebuilt = 0;
            for round in (half..rounds).step_by(2) {
                rebuilt += usize::from(!flip_and_check(&world, first, round).await);
            }
            rebuilt
        })
    });
    let mut rebuilt = 0;
    for half in halves {
        rebuilt += half.await.unwrap();
    }
    println!("{rounds} flips, {rebuilt} of them made it rebuild");
    assert!(rounds < 100 || rebuilt * 20 > rounds, "only {rebuilt} of {rounds} flips hit something");
}

/// Says whether the cache was sound after all.
async fn flip_and_check(world: &World, first: u64, round: usize) -> bool {
    let seed = first + round as u64;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let data = world.copy();
    let what = damage(&data.path().join("replay"), &mut rng);
    let checked = AssertUnwindSafe(world.check(data.path(), round)).catch_unwind().await;
    checked.unwrap_or_else(|panic| {
        eprintln!("SEED={seed} FLIPS=1: {what}");
        std::panic::resume_unwind(panic)
    })
}

/// What sled was seen to do after some flips: keys are missing, and nothing says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silently_missing_value_of_any_kind_is_found() {
    let world = World::new(8).await;
    for (kind, n) in b"mocsariw".iter().flat_map(|kind| (0..6).map(move |n| (*kind, n))) {
        let mut rng = ChaCha8Rng::seed_from_u64(n);
        let data = world.copy();
        with_sled(&data.path().join("replay"), |db| {
            let keys: Vec<_> = db.scan_prefix([kind]).keys().map(Result::unwrap).collect();
            db.remove(&keys[rng.random_range(0..keys.len())]).unwrap();
        });
        for round in 0..world.asked.len() {
            world.check(data.path(), round).await;
        }
    }
}

/// Only a look at every commit would find what is missing here, so that whoever looks at all of them is noticed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_set_a_hold_that_the_cache_has_not_read_yet_is_not_looked_for_among_all_commits() {
    let world = World::new(10).await;
    let data = world.copy();
    let ledger = Ledger::open(Arc::<MemoryLog>::clone(&world.log) as _, View::default(), Arc::new(SystemClock));
    let ledger = ledger.await.unwrap();
    let deployment = DeploymentId::clone(ledger.view().state().deployments.keys().next().unwrap());
    let of_holds: Vec<Vec<u8>> = {
        let view = ledger.view();
        let holds = view.state().deployments.values().flat_map(|deployment| deployment.holds.values());
        holds.map(|hold| [b"i", &hold.commit.0.as_bytes()[..]].concat()).collect()
    };
    with_sled(&data.path().join("replay"), |db| {
        let mut keys = db.scan_prefix(b"i").keys().map(Result::unwrap);
        db.remove(keys.find(|key| !of_holds.iter().any(|hold| key == hold)).unwrap()).unwrap();
    });
    let projection = Arc::new(Projection::open(data.path()).unwrap());
    let (id, reason) = (CommandId(uuid::Uuid::from_u128(77)), Some("a busy day".to_owned()));
    let command = Command::Hold(command::Hold { deployment, for_ms: None });
    let request = Request { id, command, fence: None, reason, effective_at: None };
    let ana = Actor { kind: ActorKind::Person, name: "ana".to_owned(), proof: "test".to_owned() };
    ledger.execute(request, ana.clone(), None).await.unwrap();

    let reader = Reader::live(ledger, Arc::<MemoryLog>::clone(&world.log) as _, Some(Arc::clone(&projection)));
    let setter = async || {
        let status = reader.status(Moment::Now, None, None).await.unwrap();
        let mut holds = status.services.into_iter().flat_map(|of| of.deployments).flat_map(|of| of.holds);
        holds.find(|hold| hold.reason == "a busy day").expect("it is on hold").actor
    };
    assert_eq!(setter().await, None, "it is not waited for");
    assert_eq!(*projection.next_offset().borrow(), Offset(RECORDS as u64), "the cache was not looked through");
    projection.catch_up(&*world.log).await.unwrap();
    assert_eq!(setter().await, Some(ana));
}

/// As if a later write had been lost while others were kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_of_an_older_time_is_found() {
    let world = World::new(9).await;
    let older = tempfile::tempdir().unwrap();
    let projection = Projection::open(older.path()).unwrap();
    let log = MemoryLog::new();
    for record in world.log.records(Offset(0)).into_iter().take(RECORDS - 60) {
        log.push(record.bytes);
    }
    projection.catch_up(&log).await.unwrap();
    drop(projection);
    let mut old = Vec::new();
    with_sled(&older.path().join("replay"), |db| old.extend(db.iter().map(Result::unwrap)));
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    for kind in *b"mosarw" {
        for _ in 0..6 {
            let data = world.copy();
            with_sled(&data.path().join("replay"), |db| {
                let stale =
                    old.iter().filter(|(key, value)| key[0] == kind && db.get(key).unwrap().as_ref() != Some(value));
                let stale: Vec<_> = stale.collect();
                if let Some((key, value)) = stale.get(rng.random_range(0..stale.len().max(1))) {
                    db.insert(key, value).unwrap();
                }
            });
            for round in 0..3 {
                world.check(data.path(), round).await;
            }
        }
    }
}

/// Changes a store behind the projection's back. sled lets go of a store that was closed a moment later.
fn with_sled(folder: &Path, change: impl FnOnce(&sled::Db)) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let db = loop {
        match sled::open(folder) {
            Ok(db) => break db,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    change(&db);
    db.flush().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_cache_is_made_again() {
    let world = World::new(2).await;
    let data = tempfile::tempdir().unwrap();
    assert!(!world.check(data.path(), 0).await, "there was none");
    assert!(world.check(data.path(), 1).await, "now there is one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_cache_is_made_again() {
    quietly();
    let world = World::new(3).await;
    for round in 0..20 {
        let mut rng = ChaCha8Rng::seed_from_u64(round as u64);
        let data = world.copy();
        for path in files(&data.path().join("replay")) {
            let len = path.metadata().unwrap().len();
            if rng.random_bool(0.5) {
                fs::File::options().write(true).open(path).unwrap().set_len(rng.random_range(0..len)).unwrap();
            }
        }
        world.check(data.path(), round).await;
    }
}

/// What is wrong with the file of commands costs the next start some time, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_do_not_go_with_the_cache_are_not_believed() {
    let (world, other) = (World::new(11).await, World::new(12).await);
    let of = |world: &World| fs::read(world.data.path().join("replay/commands")).unwrap();
    let sound = of(&world);
    assert!(sound.len() > RECORDS / 2 * 56, "most of them count");
    // One command forgotten, in a file that says of itself that it is whole.
    let mut fewer = sound[..sound.len() - 56].to_vec();
    let crc = crc32c::crc32c(&fewer[4..]);
    fewer[..4].copy_from_slice(&crc.to_be_bytes());
    let mut ahead = fewer.clone();
    ahead[20..28].copy_from_slice(&(RECORDS as u64 + 1).to_be_bytes());
    let crc = crc32c::crc32c(&ahead[4..]);
    ahead[..4].copy_from_slice(&crc.to_be_bytes());
    for wrong in [vec![], sound[..100].to_vec(), sound[..sound.len() - 56].to_vec(), of(&other), ahead] {
        let data = world.copy();
        fs::write(data.path().join("replay/commands"), wrong).unwrap();
        assert!(world.check(data.path(), 0).await, "the cache is still good");
    }
    let data = world.copy();
    fs::remove_file(data.path().join("replay/commands")).unwrap();
    assert!(world.check(data.path(), 0).await, "the cache is still good");
    assert!(data.path().join("replay/commands").exists(), "the next start is quick again");
    // It is read: otherwise this one would go unnoticed.
    fs::write(data.path().join("replay/commands"), fewer).unwrap();
    let projection = Projection::open(data.path()).unwrap();
    assert_ne!(projection.resume(&*world.log).await.unwrap(), world.view);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_written_snapshot_is_swept_away() {
    let world = World::new(4).await;
    let data = world.copy();
    fs::write(data.path().join("replay/snap.0000000000000042.generating"), b"half").unwrap();
    assert!(world.check(data.path(), 0).await, "the cache is still good");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_cache_is_folded_on() {
    let world = World::new(5).await;
    let data = tempfile::tempdir().unwrap();
    let projection = Projection::open(data.path()).unwrap();
    let older = MemoryLog::new();
    world.log.records(Offset(0)).into_iter().take(300).for_each(|record| {
        older.push(record.bytes);
    });
    projection.catch_up(&older).await.unwrap();
    drop(projection);
    let projection = Projection::open(data.path()).unwrap();
    assert_eq!(projection.known_end(), Some(Offset(300)));
    drop(projection);
    assert!(world.check(data.path(), 0).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_of_another_ledger_is_set_aside() {
    use ledger::log::Log as _;
    use ledger::log::segments::{DataFolder, Segments, SegmentsOptions};
    let (world, other) = (World::new(6).await, World::new(7).await);
    let data = other.copy();
    let folder = DataFolder::hold(data.path()).unwrap();
    let log = Segments::open(folder, SegmentsOptions::default()).unwrap();
    for record in world.log.records(Offset(0)) {
        log.append(record.bytes, ledger::log::Urgency::Ordinary).await.unwrap();
    }
    let projection = Projection::open(data.path()).unwrap();
    assert_eq!(projection.known_end(), None);
    let why = projection.found_damaged().unwrap();
    assert!(why.starts_with("it is of ledger "), "{why}");
    assert!(data.path().join("replay.aside").exists());
    drop((log, projection));
    world.check(data.path(), 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_another_one_holds_is_in_use() {
    let data = tempfile::tempdir().unwrap();
    let _held = Projection::open(data.path()).unwrap();
    let again = Projection::open(data.path());
    assert!(matches!(again, Err(replay::projection::ProjectionOpenError::InUse(_))));
}
