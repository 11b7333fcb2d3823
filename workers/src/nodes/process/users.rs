//! As whom nodes run where ionledger is root: each service as a user of its own, so that its program can read neither
//! ionledger's secrets nor another service's files, and is nobody on the socket.
//!
//! A service that names no user in `[run]` gets a number that nobody else has. It needs no line in `/etc/passwd`. The
//! numbers are in `DATA/users.json`, and are never given to another service of the folder.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use schemas::{Hash, ServiceName};

use crate::durable;
use crate::identity::{self, Identity};

/// Numbers that no distribution gives to users, services or containers. Source: systemd, "Users, Groups, UIDs and GIDs".
const FREE: Range<u32> = 1_879_048_192..2_013_265_920;
/// In a container with few numbers of its own: those that systemd gives to services for as long as they run.
const FREE_IN_CONTAINER: Range<u32> = 61_184..65_520;

/// The users of a data folder's services.
#[derive(Debug)]
pub(super) struct Users {
    file: PathBuf,
}

impl Users {
    pub(super) fn of(data: &Path) -> Self {
        Self { file: data.join("users.json") }
    }

    /// Returns the user that was made for a service; makes it at the first time.
    pub(super) fn made_for(&self, service: &ServiceName) -> io::Result<Identity> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let lock = options.open(self.file.with_extension("lock"))?;
        lock.lock()?;
        let mut users = self.read()?;
        let uid = match users.get(service) {
            Some(uid) => *uid,
            None => {
                let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
                let taken = |uid| users.values().any(|used| *used == uid) || is_in(&passwd, uid);
                let uid = choose(&mapped()?, self.wish(service), taken)?;
                users.insert(service.clone(), uid);
                self.write(&users)?;
                uid
            }
        };
        Ok(Identity { uid, gid: uid, groups: Vec::new() })
    }

    /// Where to begin to look for a number: the same service of another folder is likely to begin elsewhere.
    fn wish(&self, service: &ServiceName) -> u32 {
        let Hash(bytes) = Hash::of(format!("{}\n{service}", self.file.display()).as_bytes());
        u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    fn read(&self) -> io::Result<BTreeMap<ServiceName, u32>> {
        match fs::read(&self.file) {
            Ok(text) => serde_json::from_slice(&text).map_err(|cause| {
                let what = format!("{} is damaged: {cause}; put it back from a backup", self.file.display());
                io::Error::new(io::ErrorKind::InvalidData, what)
            }),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(cause) => Err(cause),
        }
    }

    fn write(&self, users: &BTreeMap<ServiceName, u32>) -> io::Result<()> {
        durable::replace(&self.file, &serde_json::to_vec_pretty(users)?)
    }
}

/// Returns the user that `[run]` names.
///
/// # Errors
///
/// Why no node can run as it, with the next step.
pub(super) fn named(name: &str) -> Result<Identity, String> {
    let found = Identity::named(name).map_err(|cause| format!("cannot look for the user {name} of [run]: {cause}"))?;
    match found {
        None => Err(format!(
            "the user {name} of [run] is not in /etc/passwd; make it with `useradd --system {name}`, or leave `user` out"
        )),
        Some(Identity { uid: 0, .. }) => Err(format!(
            "the user {name} of [run] is root, and no node runs as root; name another user, or leave `user` out"
        )),
        Some(identity) => Ok(identity),
    }
}

/// Makes sure that the user that `[run]` names is the one that runs ionledger, which cannot run nodes as another.
///
/// # Errors
///
/// That it is another, with the next step.
pub(super) fn check_own(name: &str) -> Result<(), String> {
    let own = identity::user_name(rustix::process::geteuid().as_raw());
    match own.as_deref() == Some(name) {
        true => Ok(()),
        false => Err(format!(
            "[run] names the user {name}, and ionledger runs as {}; only root can run nodes as another user: start \
             ionledger as root, or leave `user` out",
            own.as_deref().unwrap_or("a user without a name")
        )),
    }
}

fn choose(mapped: &[Range<u32>], wish: u32, taken: impl Fn(u32) -> bool) -> io::Result<u32> {
    let holds = |range: &Range<u32>| mapped.iter().any(|map| map.start <= range.start && range.end <= map.end);
    let range = [FREE, FREE_IN_CONTAINER].into_iter().find(holds).ok_or_else(|| {
        let (first, last) = (FREE_IN_CONTAINER.start, FREE_IN_CONTAINER.end - 1);
        io::Error::other(format!("this container has no user ids {first} to {last}; map them, or name a user in [run]"))
    })?;
    let count = range.end - range.start;
    let mut numbers = (0..count).map(|n| range.start + (wish % count + n) % count);
    numbers.find(|uid| !taken(*uid)).ok_or_else(|| io::Error::other("every number for a service's user is taken"))
}

/// Returns the numbers that there are here for users and groups alike.
fn mapped() -> io::Result<Vec<Range<u32>>> {
    let read = |file: &str| fs::read_to_string(file).map(|text| text.lines().filter_map(inside).collect::<Vec<_>>());
    let (users, groups) = (read("/proc/self/uid_map")?, read("/proc/self/gid_map")?);
    let both = |map: Range<u32>| {
        groups.iter().map(move |other| map.start.max(other.start)..map.end.min(other.end)).filter(|map| !map.is_empty())
    };
    Ok(users.into_iter().flat_map(both).collect())
}

fn inside(line: &str) -> Option<Range<u32>> {
    let mut fields = line.split_whitespace();
    let first: u32 = fields.next()?.parse().ok()?;
    Some(first..first.saturating_add(fields.nth(1)?.parse().ok()?))
}

fn is_in(passwd: &str, uid: u32) -> bool {
    let uid = uid.to_string();
    passwd.lines().any(|line| line.split(':').nth(2) == Some(&uid))
}

/// Returns any user that `Users` could make, to try out what such a user may do.
pub(super) fn sample() -> io::Result<Identity> {
    let uid = choose(&mapped()?, 0, |uid| identity::user_name(uid).is_some())?;
    Ok(Identity { uid, gid: uid, groups: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_keeps_its_user_and_shares_it_with_no_other() {
        let data = tempfile::tempdir().unwrap();
        let service = |n: usize| -> ServiceName { format!("s{n}").parse().unwrap() };
        let made: Vec<u32> = (0..50).map(|n| Users::of(data.path()).made_for(&service(n)).unwrap().uid).collect();
        let again: Vec<u32> = (0..50).map(|n| Users::of(data.path()).made_for(&service(n)).unwrap().uid).collect();
        assert_eq!(made, again);
        let different: std::collections::BTreeSet<u32> = made.iter().copied().collect();
        assert_eq!(different.len(), 50);
        assert!(
            !different.contains(&0)
                && different.iter().all(|uid| FREE.contains(uid) || FREE_IN_CONTAINER.contains(uid))
        );
    }

    #[test]
    #[allow(clippy::single_range_in_vec_init)] // a list of ranges is meant, of which there may be more
    fn a_number_that_is_taken_is_passed_over_also_at_the_ranges_end() {
        let all = [0..u32::MAX];
        let last = FREE.end - FREE.start - 1;
        assert_eq!(choose(&all, last, |uid| uid == FREE.end - 1).unwrap(), FREE.start);
        assert_eq!(choose(&[0..65_536], 5, |_| false).unwrap(), FREE_IN_CONTAINER.start + 5);
        assert!(choose(&[0..1_000], 5, |_| false).unwrap_err().to_string().contains("map them"));
        assert!(choose(&all, 5, |_| true).is_err());
        assert_eq!(inside("         0     100000      65536"), Some(0..65_536));
        assert_eq!(inside("         0          0 4294967295"), Some(0..u32::MAX));
    }

    #[test]
    fn a_damaged_file_makes_no_user_and_root_is_none() {
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join("users.json"), "{").unwrap();
        let error = Users::of(data.path()).made_for(&"api".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("users.json is damaged"), "{error}");
        assert!(named("root").unwrap_err().contains("is root"));
        let own = identity::user_name(rustix::process::geteuid().as_raw()).unwrap_or_default();
        assert_eq!(check_own(&own).is_ok(), !own.is_empty());
        assert!(check_own("no-such-user").unwrap_err().contains("only root can"));
        assert!(named("no-such-user").unwrap_err().contains("useradd --system no-such-user"));
    }
}
