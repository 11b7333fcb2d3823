//! The ports `ledger::heartbeats::Heartbeats` and `ledger::execute::Clock`: beats as files in a folder that all instances
//! share, and a clock that stands still until it is moved.
//!
//! An instance writes the number of its beat to a file of its own. Each time it does, it looks which files of the others have
//! changed. When a takeover is due is decided by `FailureDetector`, as for every carrier of beats.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ledger::execute::Clock;
use ledger::heartbeats::{BEAT_EVERY, Beat, FailureDetector, Heartbeats, SILENCE_MAX};
use schemas::{Role, Timestamp};
use serde::{Deserialize, Serialize};

struct FolderBeats {
    folder: PathBuf,
    clock: Arc<dyn Clock>,
    heard: Mutex<Heard>,
}

struct Heard {
    detector: FailureDetector,
    /// The number of the last beat in each file.
    last: BTreeMap<PathBuf, u64>,
}

/// What a file holds.
#[derive(Serialize, Deserialize)]
struct Written {
    number: u64,
    beat: Beat,
}

impl FolderBeats {
    fn new(folder: PathBuf, clock: Arc<dyn Clock>, own: &str) -> Self {
        let heard = Heard { detector: FailureDetector::new(own), last: BTreeMap::new() };
        Self { folder, clock, heard: Mutex::new(heard) }
    }

    /// Returns what lies in the folder. A file that cannot be read is a beat that got lost.
    fn look(&self) -> Vec<(PathBuf, Written)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let files = entries.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        files.filter_map(|path| Some((path.clone(), serde_json::from_slice(&fs::read(&path).ok()?).ok()?))).collect()
    }
}

impl Heartbeats for FolderBeats {
    fn send(&self, beat: &Beat) {
        let mut heard = self.heard.lock().unwrap();
        let own = self.folder.join(format!("{:?} {}.json", beat.role, beat.holder));
        let number = heard.last.get(&own).map_or(1, |number| number + 1);
        let written = serde_json::to_vec(&Written { number, beat: beat.clone() }).expect("a beat is plain JSON");
        let draft = own.with_extension("tmp");
        let _ = fs::write(&draft, written).and_then(|()| fs::rename(&draft, &own));
        for (path, Written { number, beat }) in self.look() {
            if heard.last.insert(path, number) != Some(number) {
                heard.detector.hear(beat, self.clock.steady());
            }
        }
    }

    fn silence(&self, role: Role, holder: &str) -> Duration {
        self.heard.lock().unwrap().detector.silence(role, holder)
    }
}

/// A clock that is moved by hand.
#[derive(Default)]
struct ManualClock(Mutex<Duration>);

impl ManualClock {
    fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH.checked_add(self.steady()).unwrap_or(Timestamp::MAX)
    }

    fn steady(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}

/// Two instances beat for a second; then one stops, and the other finds it silent.
pub(crate) fn run() -> crate::Ran {
    let folder = tempfile::tempdir()?;
    let clock = Arc::new(ManualClock::default());
    let [a, b] = ["a", "b"].map(|own| FolderBeats::new(folder.path().to_owned(), clock.clone(), own));
    let role = Role::Provisioner;
    let beat = |holder: &str| Beat { role, holder: holder.to_owned() };
    for _ in 0..4 {
        a.send(&beat("a"));
        b.send(&beat("b"));
        clock.advance(BEAT_EVERY);
    }
    assert!(b.silence(role, "a") <= BEAT_EVERY, "it is heard");
    let stopped_at = clock.now();
    while b.silence(role, "a") <= SILENCE_MAX {
        b.send(&beat("b"));
        clock.advance(BEAT_EVERY);
    }
    println!("a was silent for {:?}; b takes over", b.silence(role, "a"));
    let after = clock.now().duration_since(stopped_at);
    assert!(after.unsigned_abs() <= SILENCE_MAX + BEAT_EVERY * 2, "it takes as long as the port says: {after}");

    // One that is cut off hears nobody, itself neither, and counts nothing.
    clock.advance(Duration::from_secs(60));
    assert!(a.silence(role, "b") <= BEAT_EVERY);
    Ok(())
}
