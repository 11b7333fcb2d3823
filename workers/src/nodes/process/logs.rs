//! Reading nodes' logs: of those that run, and of those that have ended and are still kept. Secrets are masked.
//!
//! A node writes its log itself, so its lines bear no time. `log::tend` marks how long the log was at which time, in the
//! node's file `times`, about once a second while it grows; `since` begins at the last mark before it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use schemas::{DeploymentId, EffectId, StackName, Timestamp, Version};
use serde::{Deserialize, Serialize};

use super::folder::Folder;
use super::{env, life, log};
use crate::nodes::Launch;

/// How much of a log is read at once, in bytes.
const READ_BYTES: usize = 64 * 1024;
/// As many characters of a node's id are no number of a node.
const ID_BYTES_MIN: usize = 4;
/// The longest line that is shown, in bytes; the rest of it is left out.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// Which logs are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Whose nodes.
    pub deployment: DeploymentId,
    /// Of this version's stacks only, or of the one stack of this name.
    pub version: Option<StackName>,
    /// Of one node only: its number, which is its place in its stack counted from 1, or how its id begins.
    pub node: Option<String>,
    /// What was written since this time, and perhaps a little before.
    pub since: Option<Timestamp>,
    /// Whether more is waited for: a line that has not ended yet is not given then.
    pub follow: bool,
}

impl Wanted {
    /// Says whose log is wanted, as `node 2 of production/api 1.2.3`.
    pub fn told(&self) -> String {
        let node = self.node.as_ref().map(|node| format!(" {node}")).unwrap_or_default();
        let stack = self.version.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        format!("node{node} of {}{stack}", self.deployment)
    }
}

/// A line of a node's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The node.
    pub node: EffectId,
    /// Its release.
    pub version: Version,
    /// The name of its stack: `1.2.3`, or `1.2.3~2`.
    #[serde(default)]
    pub name: Option<StackName>,
    /// Its place in its stack, from 0.
    pub slot: u16,
    /// What it wrote, without the line's end.
    pub line: String,
}

impl Line {
    /// Returns the name of the node's stack.
    pub fn name(&self) -> StackName {
        self.name.clone().unwrap_or_else(|| self.version.clone().into())
    }
}

/// The logs that are wanted, as far as they have not been read yet.
#[derive(Debug)]
pub struct Logs {
    nodes: PathBuf,
    wanted: Wanted,
    readers: BTreeMap<EffectId, Reader>,
    /// Nodes that are not wanted, so that their folders are read once.
    others: BTreeSet<EffectId>,
}

/// Returns where the log of a node of the data folder lies.
pub fn log_path(data: &Path, node: EffectId) -> PathBuf {
    Folder::of(&data.join("nodes"), node).log()
}

impl Logs {
    /// Finds the logs that are wanted in a data folder.
    ///
    /// # Errors
    ///
    /// An I/O error if the nodes' folder cannot be listed.
    pub fn open(data: &Path, wanted: Wanted) -> io::Result<Self> {
        let mut logs = Self { nodes: data.join("nodes"), wanted, readers: BTreeMap::new(), others: BTreeSet::new() };
        logs.find()?;
        Ok(logs)
    }

    /// Says whether there are none.
    pub fn is_empty(&self) -> bool {
        self.readers.is_empty()
    }

    /// Returns the next lines, of one node; none if there are no more for now. What it holds of a log at a time is bounded.
    ///
    /// # Errors
    ///
    /// An I/O error if the nodes' folder cannot be listed.
    pub fn next_lines(&mut self) -> io::Result<Vec<Line>> {
        if self.wanted.follow {
            self.find()?;
        }
        let mut order: Vec<(Timestamp, EffectId)> =
            self.readers.iter().map(|(effect, reader)| (reader.launched_at, *effect)).collect();
        order.sort();
        for (_, effect) in order {
            let reader = self.readers.get_mut(&effect).expect("it was just listed");
            let texts = reader.next_texts(self.wanted.follow);
            if !texts.is_empty() {
                let launch = &reader.launch;
                let (version, name) = (launch.version.clone(), Some(launch.stack_name()));
                let line =
                    |line| Line { node: effect, version: version.clone(), name: name.clone(), slot: launch.slot, line };
                return Ok(texts.into_iter().map(line).collect());
            }
        }
        Ok(Vec::new())
    }

    /// Takes in the nodes that are not known yet. One whose folder cannot be read is passed over.
    fn find(&mut self) -> io::Result<()> {
        let entries = match fs::read_dir(&self.nodes) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let Some(effect) = entry?.file_name().to_str().and_then(|name| name.parse::<EffectId>().ok()) else {
                continue;
            };
            if self.readers.contains_key(&effect) || self.others.contains(&effect) {
                continue;
            }
            let folder = Folder::of(&self.nodes, effect);
            let Ok(Some(launch)) = folder.launch() else { continue };
            if self.wanted.takes(&launch) {
                self.readers.insert(effect, Reader::open(folder, launch, self.wanted.since));
            } else {
                self.others.insert(effect);
            }
        }
        Ok(())
    }
}

impl Wanted {
    fn takes(&self, launch: &Launch) -> bool {
        let number = u32::from(launch.slot) + 1;
        let begins = |name: &str| name.len() >= ID_BYTES_MIN && launch.effect.to_string().starts_with(name);
        let is_named = |name: &String| number.to_string() == *name || begins(name.as_str());
        launch.deployment == self.deployment
            && self.version.as_ref().is_none_or(|name| name.means(&launch.version, launch.number))
            && self.node.as_ref().is_none_or(is_named)
    }
}

/// A file of a log: the newer one, or the one that was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Former,
    Now,
}

#[derive(Debug)]
struct Reader {
    folder: Folder,
    launch: Launch,
    launched_at: Timestamp,
    masks: Result<Vec<OsString>, String>,
    part: Part,
    offset: u64,
    /// Which file was set aside last, to notice when another is.
    former: Option<(u64, i64, i64)>,
    /// A line that has not ended yet.
    begun: Vec<u8>,
    /// Whether the rest of a line that is too long is being left out.
    leaves_out: bool,
}

impl Reader {
    fn open(folder: Folder, launch: Launch, since: Option<Timestamp>) -> Self {
        let record = folder.record().ok().flatten();
        let launched_at = record.as_ref().map_or(Timestamp::UNIX_EPOCH, |record| record.launched_at);
        let running = matches!(life::inspect(&folder), Ok(life::Life::Running(_)));
        let pid = record.filter(|_| running).map(|record| record.pid);
        let masks = env::secrets_of(&launch, pid).map_err(|unresolved| unresolved.to_string());
        let (part, offset) = start(&folder, since);
        let former = stamp(&folder);
        Self { folder, launch, launched_at, masks, part, offset, former, begun: Vec::new(), leaves_out: false }
    }

    /// Returns the next texts; none if there are none for now.
    fn next_texts(&mut self, follow: bool) -> Vec<String> {
        match &self.masks {
            Ok(_) => {}
            Err(why) if why.is_empty() => return Vec::new(),
            Err(why) => {
                let told = vec![format!("(withheld, its secrets cannot be masked: {why})")];
                self.masks = Err(String::new());
                return told;
            }
        }
        let mut texts = Vec::new();
        loop {
            let (bytes, notice) = self.read();
            texts.extend(notice);
            if bytes.is_empty() {
                break;
            }
            self.take(&bytes, &mut texts);
            if !texts.is_empty() {
                return texts;
            }
        }
        if !self.begun.is_empty() && !follow {
            let rest = std::mem::take(&mut self.begun);
            texts.push(self.shown(&rest));
        }
        texts
    }

    /// Splits what was read into lines.
    fn take(&mut self, bytes: &[u8], texts: &mut Vec<String>) {
        // A secret at the place of the cut is masked whole: the line is cut behind it.
        let longest = self.masks.iter().flatten().map(|secret| secret.len()).max().unwrap_or(0);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let ends = piece.ends_with(b"\n");
            if !self.leaves_out {
                self.begun.extend_from_slice(piece.strip_suffix(b"\n").unwrap_or(piece));
            }
            if ends {
                let line = std::mem::take(&mut self.begun);
                if !std::mem::take(&mut self.leaves_out) {
                    texts.push(self.shown(&line));
                }
            } else if self.begun.len() > LINE_BYTES_MAX + longest {
                let line = std::mem::take(&mut self.begun);
                texts.push(self.shown(&line));
                self.leaves_out = true;
            }
        }
    }

    /// Returns a line as people may see it.
    fn shown(&self, line: &[u8]) -> String {
        let masks = self.masks.as_deref().unwrap_or_default();
        let mut text = log::mask(String::from_utf8_lossy(line).into_owned(), masks);
        if text.len() > LINE_BYTES_MAX {
            let mut end = LINE_BYTES_MAX;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            text.push_str(" (the rest of the line is left out)");
        }
        text.trim_end_matches('\r').to_owned()
    }

    /// Reads on, over the place where the log was set aside. What cannot be read counts as not there.
    fn read(&mut self) -> (Vec<u8>, Option<String>) {
        let former = stamp(&self.folder);
        let mut notice = None;
        if former != self.former && self.part == Part::Now {
            // It was set aside meanwhile: what was not read yet is there, unless it was set aside twice.
            let kept = former.is_some_and(|(len, ..)| len >= self.offset);
            self.part = Part::Former;
            if !kept {
                self.offset = 0;
                notice = Some("(lines are missing: the log grew faster than it was read)".to_owned());
            }
        }
        self.former = former;
        let bytes = self.read_part().unwrap_or_default();
        if bytes.is_empty() && self.part == Part::Former {
            (self.part, self.offset) = (Part::Now, 0);
            return (self.read_part().unwrap_or_default(), notice);
        }
        (bytes, notice)
    }

    fn read_part(&mut self) -> io::Result<Vec<u8>> {
        let path = if self.part == Part::Former { self.folder.former_log() } else { self.folder.log() };
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::with_capacity(READ_BYTES);
        file.take(READ_BYTES as u64).read_to_end(&mut bytes)?;
        self.offset += bytes.len() as u64;
        Ok(bytes)
    }
}

fn stamp(folder: &Folder) -> Option<(u64, i64, i64)> {
    fs::metadata(folder.former_log()).ok().map(|found| (found.len(), found.mtime(), found.mtime_nsec()))
}

/// Returns where what was written since a time begins.
fn start(folder: &Folder, since: Option<Timestamp>) -> (Part, u64) {
    let Some(since) = since else { return (Part::Former, 0) };
    let before = |marks: Vec<log::Mark>| {
        let before = marks.into_iter().take_while(|mark| mark.at_ms <= since.as_millisecond());
        before.last().map(|mark| mark.bytes)
    };
    if let Some(offset) = before(log::marks(&folder.times())) {
        return (Part::Now, offset);
    }
    (Part::Former, before(log::marks(&folder.former_times())).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::{Duration, SystemTime};

    use schemas::StackId;
    use schemas::run::EnvValue;

    use super::*;

    struct TestFolder(tempfile::TempDir);

    impl TestFolder {
        fn new() -> Self {
            let data = tempfile::tempdir().unwrap();
            fs::create_dir(data.path().join("nodes")).unwrap();
            Self(data)
        }

        fn node(&self, n: u128, stack: &str, env: &[(&str, EnvValue)]) -> Folder {
            let StackName { version, number } = stack.parse().unwrap();
            let effect = EffectId(uuid::Uuid::from_u128(n));
            let folder = Folder::of(&self.0.path().join("nodes"), effect);
            folder.create().unwrap();
            let launch = Launch {
                effect,
                deployment: "production/api".parse().unwrap(),
                stack: StackId(uuid::Uuid::from_u128(7)),
                version,
                number,
                slot: n as u16,
                attempt: 0,
                port: 1,
                artifact: schemas::Hash::ZERO,
                args: vec![],
                env: env.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
                user: None,
            };
            folder.write_launch(&launch).unwrap();
            folder
        }

        fn logs(&self, change: impl FnOnce(&mut Wanted)) -> Logs {
            let deployment = "production/api".parse().unwrap();
            let mut wanted = Wanted { deployment, version: None, node: None, since: None, follow: false };
            change(&mut wanted);
            Logs::open(self.0.path(), wanted).unwrap()
        }
    }

    fn write(folder: &Folder, text: &str) {
        log::open(folder).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn all(logs: &mut Logs) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let lines = logs.next_lines().unwrap();
            if lines.is_empty() {
                return all;
            }
            all.extend(lines.into_iter().map(|line| line.line));
        }
    }

    #[test]
    fn the_logs_of_a_service_are_read_whole_and_those_of_others_are_not() {
        let place = TestFolder::new();
        write(&place.node(1, "1.0.0", &[]), "one\ntwo");
        write(&place.node(2, "2.0.0", &[]), "three\n");
        assert_eq!(all(&mut place.logs(|_| {})), ["one", "two", "three"]);
        assert_eq!(all(&mut place.logs(|wanted| wanted.version = Some("2.0.0".parse().unwrap()))), ["three"]);
        assert_eq!(all(&mut place.logs(|wanted| wanted.node = Some("2".into()))), ["one", "two"]);
        assert_eq!(
            all(&mut place.logs(|wanted| wanted.node = Some("00000000-0000-0000-0000-000000000002".into()))),
            ["three"]
        );
        assert!(place.logs(|wanted| wanted.node = Some("0".into())).is_empty(), "every id here begins with it");
        assert!(place.logs(|wanted| wanted.deployment = "test/api".parse().unwrap()).is_empty());
    }

    #[test]
    fn a_version_means_all_of_its_stacks_and_a_name_the_one() {
        let place = TestFolder::new();
        write(&place.node(1, "1.0.0", &[]), "one\n");
        write(&place.node(2, "1.0.0~2", &[]), "two\n");
        let of = |name: &str| all(&mut place.logs(|wanted| wanted.version = Some(name.parse().unwrap())));
        assert_eq!(of("1.0.0"), ["one", "two"]);
        assert_eq!(of("1.0.0~2"), ["two"]);
        assert!(of("1.0.0~3").is_empty());
        let named = place.logs(|_| {}).next_lines().unwrap();
        assert_eq!(named[0].name().to_string(), "1.0.0");
    }

    #[test]
    fn who_follows_gets_whole_lines_over_a_rotation_and_a_new_nodes_too() {
        let place = TestFolder::new();
        let folder = place.node(1, "1.0.0", &[]);
        write(&folder, "one\nhal");
        let mut logs = place.logs(|wanted| wanted.follow = true);
        assert_eq!(all(&mut logs), ["one"]);
        write(&folder, "f\nbefore\n");
        fs::copy(folder.log(), folder.former_log()).unwrap();
        File::options().write(true).open(folder.log()).unwrap().set_len(0).unwrap();
        write(&folder, "after\n");
        write(&place.node(2, "1.0.0", &[]), "new\n");
        assert_eq!(all(&mut logs), ["half", "before", "after", "new"]);
        assert!(all(&mut logs).is_empty());
    }

    #[test]
    fn a_secret_is_masked_also_where_a_long_line_is_cut_and_a_log_whose_secrets_are_unknown_is_withheld() {
        let place = TestFolder::new();
        let file = place.0.path().join("secret");
        fs::write(&file, "hunter22hunter22\n").unwrap();
        let secret = EnvValue::FromFile(file.to_str().unwrap().to_owned());
        let folder = place.node(1, "1.0.0", &[("KEY", secret)]);
        let long = format!("{}hunter22hunter22{}", "x".repeat(LINE_BYTES_MAX - 8), "y".repeat(5 * READ_BYTES));
        write(&folder, &format!("a hunter22hunter22 b\n{long}\nlast\n"));
        let lines = all(&mut place.logs(|_| {}));
        assert_eq!((lines[0].as_str(), lines[2].as_str(), lines.len()), ("a *** b", "last", 3));
        assert!(
            !lines[1].contains("hunter") && lines[1].ends_with("left out)"),
            "{}",
            &lines[1][lines[1].len() - 60..]
        );
        assert!(lines[1].len() < LINE_BYTES_MAX + 100);

        fs::remove_file(&file).unwrap();
        let lines = all(&mut place.logs(|_| {}));
        assert!(lines.len() == 1 && lines[0].starts_with("(withheld"), "{lines:?}");
    }

    #[test]
    fn since_begins_at_the_last_mark_before_it() {
        let place = TestFolder::new();
        let folder = place.node(1, "1.0.0", &[]);
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        for (seconds, text) in [(100, "early\n"), (200, "middle\n"), (300, "late\n")] {
            write(&folder, text);
            log::tend(&folder, at(seconds), 0).unwrap();
        }
        log::tend(&folder, at(400), 0).unwrap(); // nothing new
        let since = |seconds: i64| {
            let mut logs = place.logs(|wanted| wanted.since = Some(Timestamp::from_second(seconds).unwrap()));
            all(&mut logs)
        };
        assert_eq!(since(50), ["early", "middle", "late"]);
        assert_eq!(since(100), ["middle", "late"]);
        assert_eq!(since(299), ["late"]);
        assert!(since(300).is_empty());
    }

    #[test]
    fn marks_stay_few_however_long_a_log_is_written() {
        let place = TestFolder::new();
        let folder = place.node(1, "1.0.0", &[]);
        for second in 0..6_000_u64 {
            write(&folder, "x\n");
            log::tend(&folder, SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + second), 0).unwrap();
        }
        let marks = log::marks(&folder.times());
        assert!(marks.len() < 4_000 && marks.is_sorted_by_key(|mark| mark.at_ms), "{}", marks.len());
        assert_eq!(marks.last().unwrap().bytes, 12_000);
        assert!(fs::metadata(folder.times()).unwrap().len() < 100 * 1024);
    }
}
