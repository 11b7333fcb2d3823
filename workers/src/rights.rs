//! Who may look into a data folder.
//!
//! | what | others | the group |
//! | --- | --- | --- |
//! | the folder itself, `artifacts/`, `nodes/` and each node's folder | may pass through, by a name that they know | the same |
//! | a kept artifact | may read and run it: a node does so as its own user | the same |
//! | secrets: `tokens.json`, `glass/`, `proxy/` | nothing | nothing |
//! | all else: log, cache, locks, what is known of nodes, their logs and their working folders | nothing | nothing |
//!
//! A folder that is shared with its group (the group may write to it, or may list it where others may not) keeps what the
//! group has, but for secrets. The API's socket has rights of its own (`api::server`).

use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{CWD, Mode, OFlags, fchmod, openat};

use crate::identity;

/// The mode of a folder that others may pass through.
const SEARCHABLE: u32 = 0o711;

/// The group's bits of the user's own umask, before [`close_by_default`].
static UMASK_OF_GROUP: AtomicU32 = AtomicU32::new(0o020);

/// Something in a data folder that more people may use than should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The thing.
    pub path: PathBuf,
    /// Its mode.
    pub mode: u32,
    /// The mode that it should have.
    pub wanted: u32,
}

/// Whom a data folder is for.
#[derive(Clone, Copy)]
struct Rule {
    is_shared: bool,
    /// Whether users other than the owner must be able to pass through: nodes with users of their own, or people who may
    /// use the socket.
    others_pass: bool,
}

#[derive(Clone, Copy)]
enum Kind {
    Secret,
    Closed,
    Searchable,
    Program,
}

/// Lets whatever this process makes from now on be its user's alone.
pub fn close_by_default() {
    let before = rustix::process::umask(Mode::from_raw_mode(0o077));
    UMASK_OF_GROUP.store(before.as_raw_mode() & 0o070, Ordering::Relaxed);
}

/// Makes the data folder if there is none, closes what is open in it, and returns what could not be closed.
/// `others_pass` says whether users other than the owner must be able to pass through.
///
/// # Errors
///
/// An I/O error if the folder cannot be made or read.
pub fn settle(data: &Path, others_pass: bool) -> io::Result<Vec<Open>> {
    make(data)?;
    let rule = Rule::of(data, others_pass)?;
    if rule.is_shared {
        let group = UMASK_OF_GROUP.load(Ordering::Relaxed);
        rustix::process::umask(Mode::from_raw_mode(0o007 | group));
    }
    let mut left = Vec::new();
    for open in found(data, rule)? {
        if set_mode(&open.path, open.wanted).is_err() {
            left.push(open);
        }
    }
    Ok(left)
}

/// Returns what is open in the data folder that should not be.
///
/// # Errors
///
/// An I/O error if the folder cannot be read.
pub fn open_in(data: &Path) -> io::Result<Vec<Open>> {
    found(data, Rule::of(data, false)?)
}

/// Returns the mode of a secret file if every user of this machine can read it: it lies where all may pass.
pub fn is_open_secret(file: &Path) -> Option<u32> {
    let file = fs::canonicalize(file).ok()?;
    let mode = fs::metadata(&file).ok()?.mode() & 0o777;
    let reached =
        file.ancestors().skip(1).all(|above| fs::metadata(above).is_ok_and(|above| above.mode() & 0o001 != 0));
    (mode & 0o004 != 0 && reached).then_some(mode)
}

/// Says whether a file, as its path names it, is one of this data folder's own secrets.
pub fn is_own_secret(data: &Path, file: &Path) -> bool {
    let (Ok(data), Ok(file)) = (fs::canonicalize(data), fs::canonicalize(file)) else { return false };
    let Ok(place) = file.strip_prefix(&data) else { return false };
    fs::symlink_metadata(&file).is_ok_and(|seen| matches!(kind(place, &seen), Kind::Secret))
}

/// Returns the first folder above `path` that whoever asks may not search.
pub fn unsearchable_above(path: &Path) -> Option<PathBuf> {
    let mut below: Vec<&Path> = path.ancestors().collect();
    below.reverse();
    let denied =
        |path: &&&Path| fs::symlink_metadata(path).is_err_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied);
    below.iter().find(denied).and_then(|path| path.parent()).map(Path::to_owned)
}

/// Makes the data folder; those above it get the usual mode.
fn make(data: &Path) -> io::Result<()> {
    for above in data.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
        if !above.as_os_str().is_empty() && !above.is_dir() {
            make_with(above, 0o755)?;
        }
    }
    make_with(data, SEARCHABLE)
}

fn make_with(folder: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(folder) {
        // The umask has had its say; these bits are meant.
        Ok(()) => fs::set_permissions(folder, fs::Permissions::from_mode(mode)),
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(cause) => Err(cause),
    }
}

impl Rule {
    fn of(data: &Path, others_pass: bool) -> io::Result<Self> {
        let mode = fs::metadata(data)?.mode();
        let (group, others) = (mode >> 3 & 0o7, mode & 0o7);
        let is_shared = group & 0o2 != 0 || (group & 0o4 != 0 && others & 0o4 == 0);
        Ok(Self { is_shared, others_pass: others_pass || identity::is_root() })
    }

    /// Returns the mode that something with the mode `now` should have.
    fn mode(self, kind: Kind, now: u32) -> u32 {
        let (group, others) = (now & 0o070, now & 0o007);
        let kept = if self.is_shared { group } else { 0 };
        let (group, others) = match kind {
            Kind::Secret => (0, 0),
            Kind::Closed => (kept, 0),
            Kind::Searchable if self.others_pass => (kept | 0o010, 0o001),
            Kind::Searchable => (kept | group & 0o010, others & 0o001),
            Kind::Program => (kept | group & 0o050, others & 0o005),
        };
        now & !0o077 | group | others
    }
}

fn found(data: &Path, rule: Rule) -> io::Result<Vec<Open>> {
    let data = fs::canonicalize(data)?;
    let mut open = Vec::new();
    look(&data, &data, rule, &mut open)?;
    Ok(open)
}

/// Looks at `path` and at all below it. What vanishes meanwhile is passed over, and so is what this user may not list.
fn look(data: &Path, path: &Path, rule: Rule, open: &mut Vec<Open>) -> io::Result<()> {
    let seen = match fs::symlink_metadata(path) {
        Ok(seen) if seen.is_dir() || seen.is_file() => seen,
        Ok(_) => return Ok(()),
        Err(cause) if path == data => return Err(cause),
        Err(_) => return Ok(()),
    };
    let place = path.strip_prefix(data).unwrap_or(path);
    let kind = kind(place, &seen);
    let (mode, wanted) = (seen.mode() & 0o7777, rule.mode(kind, seen.mode() & 0o7777));
    if mode != wanted {
        open.push(Open { path: path.to_owned(), mode, wanted });
    }
    if !seen.is_dir() || is_work(place) {
        return Ok(());
    }
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().try_for_each(|entry| look(data, &entry.path(), rule, open)),
        Err(cause) if path == data => Err(cause),
        Err(_) => Ok(()),
    }
}

/// Says whether a place of the data folder is a node's working folder; what lies in it is the node's own.
fn is_work(place: &Path) -> bool {
    place.starts_with("nodes") && place.components().count() == 3 && place.ends_with("work")
}

fn kind(place: &Path, seen: &Metadata) -> Kind {
    let parts: Vec<_> = place.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    let parts: Vec<&str> = parts.iter().map(|part| &**part).collect();
    match (parts.as_slice(), seen.is_dir()) {
        ([] | ["artifacts"] | ["nodes"] | ["nodes", _], true) => Kind::Searchable,
        // A copy under way is closed while it is made, and open to all before it gets its name: it must stay so.
        (["artifacts", _], false) => Kind::Program,
        (["glass" | "proxy", ..], _) => Kind::Secret,
        ([name], false) if name.starts_with("tokens.") => Kind::Secret,
        _ => Kind::Closed,
    }
}

/// Sets a mode of what lies there itself, never of what a link there points to.
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(CWD, path, flags, Mode::empty())?);
    fchmod(&file, Mode::from_raw_mode(mode))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    /// A data folder as it was made before: everybody may read it.
    fn old(folder_mode: u32) -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        for folder in ["log", "glass", "proxy/routes", "artifacts", "nodes/n/work/inner", "replay"] {
            fs::create_dir_all(data.join(folder)).unwrap();
        }
        for file in FILES {
            fs::write(data.join(file), "x").unwrap();
            fs::set_permissions(data.join(file), fs::Permissions::from_mode(0o664)).unwrap();
        }
        for file in ["artifacts/a1", "artifacts/.draft-1"] {
            fs::set_permissions(data.join(file), fs::Permissions::from_mode(0o555)).unwrap();
        }
        fs::set_permissions(&data, fs::Permissions::from_mode(folder_mode)).unwrap();
        (home, data)
    }

    const FILES: [&str; 10] = [
        "lock",
        "tokens.json",
        "log/1.jsonl",
        "glass/key",
        "proxy/routes/r",
        "artifacts/a1",
        "artifacts/.draft-1",
        "nodes/n/log",
        "nodes/n/work/own",
        "replay/db",
    ];

    #[test]
    fn a_folder_of_before_is_closed_but_for_the_way_to_artifacts_and_nodes() {
        let (_home, data) = old(0o755);
        assert!(settle(&data, true).unwrap().is_empty());
        for (place, wanted) in [("", 0o711), ("artifacts", 0o711), ("nodes", 0o711), ("nodes/n", 0o711)] {
            assert_eq!(mode(&data.join(place)), wanted, "{place}");
        }
        for place in ["lock", "tokens.json", "log/1.jsonl", "glass/key", "proxy/routes/r", "nodes/n/log", "replay/db"] {
            assert_eq!(mode(&data.join(place)) & 0o077, 0, "{place}");
        }
        for place in ["log", "glass", "proxy", "replay", "nodes/n/work"] {
            assert_eq!(mode(&data.join(place)) & 0o077, 0, "{place}");
        }
        assert_eq!(mode(&data.join("artifacts/a1")), 0o555);
        // What another process is just about to give its name.
        assert_eq!(mode(&data.join("artifacts/.draft-1")), 0o555);
        assert_eq!(mode(&data.join("nodes/n/work/own")), 0o664, "the node's own");
        assert!(open_in(&data).unwrap().is_empty());
    }

    #[test]
    fn a_shared_folder_stays_its_groups_but_for_secrets() {
        let (_home, data) = old(0o2775);
        let before = rustix::process::umask(Mode::from_raw_mode(0o077));
        assert!(settle(&data, true).unwrap().is_empty());
        rustix::process::umask(before);
        assert_eq!(mode(&data), 0o2771);
        assert_eq!((mode(&data.join("lock")), mode(&data.join("log/1.jsonl"))), (0o660, 0o660));
        assert_eq!((mode(&data.join("tokens.json")), mode(&data.join("glass/key"))), (0o600, 0o600));
        assert!(settle(&data, true).unwrap().is_empty(), "it is still shared at the next start");
        assert_eq!(mode(&data), 0o2771);
        rustix::process::umask(before);
    }

    #[test]
    fn a_group_that_may_list_where_others_may_not_shares_the_folder() {
        let rule = |mode: u32| {
            let folder = tempfile::tempdir().unwrap();
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            Rule::of(folder.path(), false).unwrap().is_shared
        };
        assert!(rule(0o750) && rule(0o770) && rule(0o775) && rule(0o2770));
        assert!(!rule(0o755) && !rule(0o711) && !rule(0o700) && !rule(0o710));
    }

    #[test]
    fn what_a_link_points_to_is_left_alone() {
        let (home, data) = old(0o755);
        let outside = home.path().join("outside");
        fs::write(&outside, "x").unwrap();
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink(&outside, data.join("log/link")).unwrap();
        settle(&data, true).unwrap();
        assert_eq!(mode(&outside), 0o644);
        assert!(set_mode(&data.join("log/link"), 0o600).is_err());
    }

    #[test]
    fn a_new_folder_is_made_so_that_others_may_only_pass() {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("above/data");
        assert!(settle(&data, false).unwrap().is_empty());
        assert_eq!((mode(&data), mode(&home.path().join("above"))), (0o711, 0o755));
        fs::write(home.path().join("file"), "").unwrap();
        assert!(settle(&home.path().join("file"), false).is_err());
    }

    #[test]
    fn a_secret_is_open_only_if_others_can_come_to_it() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("secret");
        fs::write(&file, "x").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(is_open_secret(&file), None, "nobody can search its folder");
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o711)).unwrap();
        assert_eq!(is_open_secret(&file), Some(0o644));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!((is_open_secret(&file), is_open_secret(&home.path().join("none"))), (None, None));
    }
}
