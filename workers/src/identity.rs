//! Users of this machine: as whom a node runs, and with whose rights a caller's file is opened.
//!
//! Linux keeps a user and groups for each thread. Root can give a thread those of another user, so that the kernel itself
//! answers what that user may do.

use std::fmt;
use std::fs;
use std::io;
use std::str::FromStr;

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

/// A user with its groups, by their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub uid: u32,
    /// Its own group.
    pub gid: u32,
    /// The other groups that it is in.
    pub groups: Vec<u32>,
}

impl Identity {
    /// Returns a user of `/etc/passwd` with its groups of `/etc/group`, or nothing if there is none of that name.
    ///
    /// # Errors
    ///
    /// An I/O error if `/etc/passwd` cannot be read.
    pub fn named(name: &str) -> io::Result<Option<Self>> {
        let passwd = fs::read_to_string("/etc/passwd")?;
        let found = passwd.lines().filter_map(user).find(|user| user.0 == name);
        Ok(found.map(|(_, uid, gid)| Self { uid, gid, groups: groups_of(name, &group_file()) }))
    }

    /// Returns the user with this number, in the group `gid` and in those of `/etc/group` that name it.
    pub fn numbered(uid: u32, gid: u32) -> Self {
        let groups = user_name(uid).map(|name| groups_of(&name, &group_file())).unwrap_or_default();
        Self { uid, gid, groups }
    }

    /// Does `work` with this user's rights, on a thread of its own.
    ///
    /// # Errors
    ///
    /// An I/O error if this process may not act as other users: it is not root, or lacks `CAP_SETUID` or `CAP_SETGID`.
    pub fn act<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let acting = scope.spawn(|| self.take().map(|()| work()));
            acting.join().unwrap_or_else(|_| Err(io::Error::other("the thread broke off")))
        })
    }

    /// Makes the calling thread, the only one of its process, this user's for good: without any capability and without a
    /// way to gain one, not even by a program with the set-user-ID bit.
    ///
    /// # Errors
    ///
    /// As [`Self::act`].
    pub fn become_for_good(&self) -> io::Result<()> {
        set_no_new_privs(true)?;
        for capability in CapabilitySet::all().iter() {
            match remove_capability_from_bounding_set(capability) {
                // An unknown capability cannot be held. Without CAP_SETPCAP the set stays, and gives nothing: see above.
                Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
                Err(cause) => return Err(cause.into()),
            }
        }
        self.take()?;
        let none = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
        Ok(())
    }

    fn take(&self) -> io::Result<()> {
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        Ok(())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)?;
        self.groups.iter().try_for_each(|group| write!(f, ":{group}"))
    }
}

impl FromStr for Identity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Result<Vec<u32>, _> = text.split(':').map(str::parse).collect();
        match numbers.as_deref() {
            Ok([uid, gid, groups @ ..]) => Ok(Self { uid: *uid, gid: *gid, groups: groups.to_vec() }),
            _ => Err(format!("{text:?} is not UID:GID[:GID...]")),
        }
    }
}

/// Says whether this process is root, and so may act as other users.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns the name of a user in `/etc/passwd`.
pub fn user_name(uid: u32) -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    passwd.lines().filter_map(user).find(|user| user.1 == uid).map(|user| user.0.to_owned())
}

/// Returns the number of a group: of one named in `/etc/group`, or written as its number.
pub fn group_number(group: &str) -> Option<u32> {
    let file = group_file();
    let named = file.lines().filter_map(members).find(|found| found.0 == group).map(|found| found.1);
    named.or_else(|| group.parse().ok())
}

fn group_file() -> String {
    fs::read_to_string("/etc/group").unwrap_or_default()
}

/// Returns the name, number and own group of a line of `/etc/passwd`.
fn user(line: &str) -> Option<(&str, u32, u32)> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    Some((name, fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Returns the name, number and members of a line of `/etc/group`.
fn members(line: &str) -> Option<(&str, u32, std::str::Split<'_, char>)> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    Some((name, fields.nth(1)?.parse().ok()?, fields.next().unwrap_or_default().split(',')))
}

fn groups_of(name: &str, file: &str) -> Vec<u32> {
    let groups = file.lines().filter_map(members).filter(|(.., members)| members.clone().any(|one| one == name));
    groups.map(|(_, gid, _)| gid).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_identity_is_read_as_it_is_written() {
        for identity in [
            Identity { uid: 7, gid: 8, groups: vec![] },
            Identity { uid: 1_879_048_192, gid: 1_879_048_192, groups: vec![4, 27] },
        ] {
            assert_eq!(identity.to_string().parse(), Ok(identity));
        }
        assert!("7".parse::<Identity>().is_err() && "7:x".parse::<Identity>().is_err());
    }

    #[test]
    fn groups_are_those_that_name_the_user_and_no_other() {
        let file = "root:x:0:\nadm:x:4:anabel,ana\nssl:x:101:ana\ntail:x:5:bana\n";
        assert_eq!(groups_of("ana", file), [4, 101]);
        assert_eq!(user("ana:x:1000:1001::/home/ana:/bin/sh"), Some(("ana", 1000, 1001)));
        assert_eq!((user("odd"), user(":x:7:7::/:/bin/sh")), (None, None));
        assert_eq!(Identity::named("no-such-user").unwrap(), None);
        assert_eq!(user_name(0).as_deref(), Some("root"));
        assert_eq!((group_number("root"), group_number("4000000")), (Some(0), Some(4_000_000)));
    }

    #[test]
    fn what_is_done_as_another_user_meets_that_users_rights_and_leaves_ours() {
        if !is_root() {
            let denied = Identity { uid: 4_242, gid: 4_242, groups: vec![] }.act(|| ()).unwrap_err();
            assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied);
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, "x").unwrap();
        let stranger = Identity { uid: 4_242, gid: 4_242, groups: vec![] };
        let seen = stranger.act(|| fs::read(&file)).unwrap();
        assert_eq!(seen.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(fs::read(&file).unwrap(), b"x");
    }
}
