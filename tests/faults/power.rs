//! The power goes: a copy of a file system's image, taken while it is written to, holds what was synced and no more.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ledger::log::segments::SegmentsReader;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::world::{Plan, Strace, Writer, acked, can_run, check, read_all, run, unmount, until};

/// How many times the power is cut.
const CUTS: usize = 60;

const IMAGE_BYTES: usize = 16 << 20;

/// A mounted image of a file system.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    fn mount(image: PathBuf, mount: PathBuf) -> Self {
        fs::create_dir_all(&mount).unwrap();
        run("mount", &["-o", "loop", image.to_str().unwrap(), mount.to_str().unwrap()]);
        Self { image, mount }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.mount);
    }
}

/// A disk with a program that writes a log to it, one that can be cut off.
struct Machine {
    writer: Killed,
    said: Arc<Mutex<Vec<String>>>,
    buffers: [Vec<u8>; 2],
    _strace: Strace,
    disk: Disk,
    folder: TempDir,
}

/// A process that ends with this, and the thread that listens to it.
struct Killed(Pid, Option<JoinHandle<()>>);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
        // Until it is gone, its disk is in use.
        let _ = self.1.take().map(JoinHandle::join);
    }
}

const AT_ONCE: u64 = 8;

impl Machine {
    /// Starts it, with a fault in the thread that appends.
    fn start(fault: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk.img");
        File::create(&image).unwrap().set_len(IMAGE_BYTES as u64).unwrap();
        run("mkfs.ext4", &["-qF", image.to_str().unwrap()]);
        let disk = Disk::mount(image, folder.path().join("mount"));
        let plan = Plan { first: 0, count: 1_000_000, at_once: AT_ONCE, segment_bytes: 40_000 };
        let mut writer = Writer::start(&disk.mount.join("data"), plan);
        let pid = Pid::from_raw(writer.about_to("open").parse().unwrap()).unwrap();
        writer.go_on();
        let strace = Strace::attach(&writer.about_to("append"), fault, Path::new("/dev/null"));
        writer.go_on();
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let listening = thread::spawn({
            let said = Arc::clone(&said);
            move || {
                while let Some(line) = writer.next() {
                    said.lock().unwrap().push(line);
                }
            }
        });
        let buffers = [vec![0; IMAGE_BYTES], vec![0; IMAGE_BYTES]];
        Self { writer: Killed(pid, Some(listening)), said, buffers, _strace: strace, disk, folder }
    }

    /// Waits until it has said as much, and returns what it acknowledged by now.
    fn acked(&self, enough: usize) -> BTreeMap<u64, u64> {
        until("it said as much", || {
            let said = self.said.lock().unwrap();
            (said.len() >= enough).then(|| acked(&said))
        })
    }

    /// Returns the disk as it would be found if the power went now, and how many commits had been tried at most.
    fn cut(&mut self) -> (Disk, u64) {
        let image = self.folder.path().join("cut.img");
        fs::write(&image, snapshot(&self.disk.image, &mut self.buffers)).unwrap();
        let tried = self.said.lock().unwrap().len() as u64 + 2 * AT_ONCE;
        (Disk::mount(image, self.folder.path().join("cut")), tried)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.writer.0, signal).unwrap();
    }
}

#[test]
#[ignore = "needs root: `bash tests/run` runs it"]
fn a_power_cut_at_any_instant_loses_nothing_acknowledged() {
    if !can_run("power cut", &["strace", "mkfs.ext4", "mount"]) {
        return;
    }
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    eprintln!("SEED={seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // A moment before each sync, so that half of the cuts come while something is written and not yet synced.
    let mut machine = Machine::start("fdatasync:delay_enter=20000");
    let (mut ends, mut enough) = (Vec::new(), 0);
    for _ in 0..CUTS {
        enough += random.random_range(1..40);
        machine.acked(enough);
        // The power goes at a moment that the real process does not choose.
        thread::sleep(Duration::from_micros(random.random_range(0..25_000)));
        // What it said before the cut; what it says during it may be kept or not.
        let acked = machine.acked(enough);
        let (copy, tried) = machine.cut();
        // It stands still while the copy is checked, so that the log does not grow faster than it is checked.
        machine.signal(Signal::STOP);
        ends.push((check(&copy.mount.join("data"), &acked, tried), acked.len() as u64));
        machine.signal(Signal::CONT);
        enough = enough.max(acked.len());
    }
    assert!(ends.is_sorted() && ends.iter().all(|(end, acked)| end >= acked));
    assert!(ends.last().unwrap().0 > 500, "{ends:?}");
    eprintln!("the log's end and what was acknowledged, at each cut: {ends:?}");
}

#[test]
#[ignore = "needs root: `bash tests/run` runs it"]
fn a_log_whose_syncs_do_nothing_is_seen_to_lose_what_it_acknowledged() {
    if !can_run("power cut without syncs", &["strace", "mkfs.ext4", "mount"]) {
        return;
    }
    let mut machine = Machine::start("fdatasync:retval=0:delay_enter=20000");
    let acked = machine.acked(100).len();
    let (copy, _) = machine.cut();
    machine.signal(Signal::STOP);
    let kept = SegmentsReader::open(&copy.mount.join("data"), None)
        .map_or(0, |reader| read_all(|from| reader.read_blocking(from, 1_000)).0.len());
    assert!(kept < acked, "{kept} of {acked} are there: the cut is none");
}

/// Returns the image as it was at one instant: two readings of it that do not differ.
fn snapshot(image: &Path, buffers: &mut [Vec<u8>; 2]) -> Vec<u8> {
    let file = File::open(image).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        for bytes in &mut *buffers {
            file.read_exact_at(bytes, 0).unwrap();
        }
        if buffers[0] == buffers[1] {
            return buffers[0].clone();
        }
    }
    panic!("{} never stood still", image.display());
}
