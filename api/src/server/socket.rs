//! The socket in the data folder: where it is, how it is made, and when an old one is replaced.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixSocket, UnixStream};

/// What the kernel takes as a socket's path, in bytes; 108 with the zero at its end.
const PATH_BYTES_MAX: usize = 107;

const BACKLOG: u32 = 256;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers on it.
    #[error("something answers on {0} already; stop that `ionledger up`, or use another data folder")]
    Answers(PathBuf),
    /// There is something else of that name.
    #[error("{0} is not a socket; move it away")]
    NoSocket(PathBuf),
    /// The operating system refuses.
    #[error("cannot listen on {path}: {cause}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The path is longer than the kernel takes, and there is no way around.
    #[error(
        "the path {path} is too long for a socket ({bytes} bytes, at most {PATH_BYTES_MAX}) and /proc is not there to shorten it; use a data folder with a shorter path"
    )]
    TooLong {
        /// The socket.
        path: PathBuf,
        /// Its path's length.
        bytes: usize,
    },
}

/// The socket as this process made it.
#[derive(Debug)]
pub(super) struct Own {
    path: PathBuf,
    inode: (u64, u64),
}

impl Own {
    /// Removes the socket, unless another process has put its own there since.
    pub(super) fn remove(self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Returns where the data folder's socket is.
pub fn path(data: &Path) -> PathBuf {
    data.join("api.sock")
}

/// A path that the kernel takes for the socket `name` in a folder. Where the whole path is too long it goes through
/// the folder's descriptor, which it keeps open.
struct Short {
    path: PathBuf,
    _folder: Option<File>,
}

impl Short {
    fn of(data: &Path, name: &str) -> Result<Self, SocketError> {
        let path = data.join(name);
        let bytes = path.as_os_str().len();
        if bytes <= PATH_BYTES_MAX {
            return Ok(Self { path, _folder: None });
        }
        let folder = File::open(data).map_err(|cause| SocketError::Io { path: data.to_owned(), cause })?;
        let through = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        if !through.exists() {
            return Err(SocketError::TooLong { path, bytes });
        }
        Ok(Self { path: through.join(name), _folder: Some(folder) })
    }
}

/// Connects to the data folder's socket.
///
/// # Errors
///
/// As `connect(2)`: not found if nothing ever listened, refused if nothing does now.
pub async fn reach(data: &Path) -> io::Result<UnixStream> {
    let short = Short::of(data, "api.sock").map_err(|error| match error {
        SocketError::Io { cause, .. } => cause,
        other => io::Error::other(other.to_string()),
    })?;
    UnixStream::connect(&short.path).await
}

/// Listens on the data folder's socket. Its owner may connect, and the members of `group`; without one, those of the
/// folder's group if the folder is theirs to write; never others.
pub(super) async fn listen(data: &Path, group: Option<u32>) -> Result<(UnixListener, Own), SocketError> {
    let path = path(data);
    let at = |cause| SocketError::Io { path: path.clone(), cause };
    make_way(data, &path).await?;
    let draft = format!(".api-{}.sock", std::process::id());
    let short = Short::of(data, &draft)?;
    let _ = fs::remove_file(&short.path); // of a process that died and had our id
    let socket = UnixSocket::new_stream().map_err(at)?;
    socket.bind(&short.path).map_err(at)?;
    // Until `listen` nobody can connect, and until the rename nobody looks here.
    let made = permit(data, &short.path, group).and_then(|()| socket.listen(BACKLOG));
    let made = made.and_then(|listener| fs::rename(&short.path, &path).map(|()| listener));
    let listener = made.map_err(|cause| {
        let _ = fs::remove_file(&short.path);
        at(cause)
    })?;
    let found = fs::symlink_metadata(&path).map_err(at)?;
    Ok((listener, Own { inode: (found.dev(), found.ino()), path }))
}

/// Makes sure that what lies at `path`, if anything, is a socket on which nobody answers.
async fn make_way(data: &Path, path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(SocketError::Io { path: path.to_owned(), cause }),
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NoSocket(path.to_owned())),
        Ok(_) => {}
    }
    match reach(data).await {
        Err(cause) if matches!(cause.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(()),
        // A full backlog is an answer, too: somebody listens.
        Err(cause) if cause.kind() != io::ErrorKind::WouldBlock => {
            Err(SocketError::Io { path: path.to_owned(), cause })
        }
        _ => Err(SocketError::Answers(path.to_owned())),
    }
}

fn permit(data: &Path, socket: &Path, group: Option<u32>) -> io::Result<()> {
    let folder = fs::metadata(data)?;
    let group = group.or_else(|| (folder.mode() & 0o020 != 0).then(|| folder.gid()));
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    if let Some(group) = group
        && fs::symlink_metadata(socket)?.gid() != group
    {
        std::os::unix::fs::chown(socket, None, Some(group)).map_err(|cause| {
            let why =
                format!("cannot give the socket to group {group}: {cause}; run it as root or as one of the group");
            io::Error::new(cause.kind(), why)
        })?;
    }
    fs::set_permissions(socket, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_nobody_answers_on_is_replaced_and_one_that_answers_is_not() {
        let data = tempfile::tempdir().unwrap();
        let (listener, own) = listen(data.path(), None).await.unwrap();
        assert!(matches!(listen(data.path(), None).await, Err(SocketError::Answers(_))));
        drop(listener); // as after a kill -9: the file stays
        assert_eq!(reach(data.path()).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let (_listener, new) = listen(data.path(), None).await.unwrap();
        own.remove();
        assert!(reach(data.path()).await.is_ok(), "the old one's end must not remove the new one's socket");
        new.remove();
        assert_eq!(reach(data.path()).await.unwrap_err().kind(), io::ErrorKind::NotFound);
        let left: Vec<_> = fs::read_dir(data.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[tokio::test]
    async fn a_file_of_that_name_is_left_alone() {
        let data = tempfile::tempdir().unwrap();
        fs::write(path(data.path()), "mine").unwrap();
        assert!(matches!(listen(data.path(), None).await, Err(SocketError::NoSocket(_))));
        assert_eq!(fs::read_to_string(path(data.path())).unwrap(), "mine");
    }

    #[tokio::test]
    async fn a_folder_with_a_long_path_is_reached_through_its_descriptor() {
        let data = tempfile::tempdir().unwrap();
        let long = data.path().join("d".repeat(150));
        fs::create_dir(&long).unwrap();
        let (_listener, own) = listen(&long, None).await.unwrap();
        assert!(reach(&long).await.is_ok());
        own.remove();
    }

    #[tokio::test]
    async fn the_group_may_connect_only_where_the_folder_is_its_own_to_write() {
        for (folder, socket) in [(0o700, 0o600), (0o755, 0o600), (0o770, 0o660), (0o777, 0o660)] {
            let data = tempfile::tempdir().unwrap();
            fs::set_permissions(data.path(), fs::Permissions::from_mode(folder)).unwrap();
            let (_listener, _own) = listen(data.path(), None).await.unwrap();
            let mode = fs::symlink_metadata(path(data.path())).unwrap().mode() & 0o7777;
            assert_eq!(mode, socket, "folder {folder:o}");
        }
    }

    #[tokio::test]
    async fn the_socket_is_for_the_configured_group_whatever_the_folder_is() {
        let data = tempfile::tempdir().unwrap();
        // Root may give it to any group, others only to their own.
        let ours = fs::metadata(data.path()).unwrap().gid();
        let group = if rustix::process::geteuid().is_root() { 4_242 } else { ours };
        let (_listener, _own) = listen(data.path(), Some(group)).await.unwrap();
        let found = fs::symlink_metadata(path(data.path())).unwrap();
        assert_eq!((found.mode() & 0o7777, found.gid()), (0o660, group));
    }
}
