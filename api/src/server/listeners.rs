//! What an API listens on: the data folder's Unix socket and a TCP address. It stays open from one server of a process to the next;
//! who connects between the two waits for the second.

use std::net::{self, SocketAddr};
use std::os::unix;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener};

use super::socket::{self, Own};
use super::{ListenError, SocketError};

/// What an API listens on, until it is dropped. The socket is removed then.
#[derive(Debug)]
pub struct Listeners {
    unix: Option<(unix::net::UnixListener, PathBuf)>,
    own: Option<Own>,
    tcp: Option<(net::TcpListener, SocketAddr)>,
}

impl Listeners {
    /// Opens the data folder's socket for its owner and `group` and, if there is an address, listens over TCP. A socket that a
    /// killed process left is replaced.
    ///
    /// # Errors
    ///
    /// [`ListenError`]: the socket answers already, or it cannot listen on an address.
    pub async fn open(data: &Path, group: Option<u32>, tcp: Option<SocketAddr>) -> Result<Self, ListenError> {
        let mut listeners = Self { unix: None, own: None, tcp: None };
        if let Some(address) = tcp {
            listeners.tcp = Some(listen_on(address).await?);
        }
        let (listener, own) = socket::listen(data, group).await?;
        (listeners.unix, listeners.own) = (Some((kept(data, listener)?, socket::path(data))), Some(own));
        Ok(listeners)
    }

    /// Listens over TCP and, unless another server of the same data folder answers there, on the folder's socket.
    ///
    /// # Errors
    ///
    /// [`ListenError`]: it cannot listen on an address.
    pub async fn open_beside(data: &Path, group: Option<u32>, tcp: SocketAddr) -> Result<Self, ListenError> {
        match Self::open(data, group, Some(tcp)).await {
            Err(ListenError::Socket(SocketError::Answers(_))) => {
                Ok(Self { unix: None, own: None, tcp: Some(listen_on(tcp).await?) })
            }
            opened => opened,
        }
    }

    /// Says whether the data folder's socket is one of them.
    pub fn has_socket(&self) -> bool {
        self.unix.is_some()
    }

    /// Returns a handle of each for one server.
    pub(super) fn for_server(&self) -> Result<(Option<UnixListener>, Option<TcpListener>), ListenError> {
        let unix = self.unix.as_ref().map(|(listener, path)| {
            let again = listener.try_clone().and_then(UnixListener::from_std);
            again.map_err(|cause| SocketError::Io { path: path.clone(), cause })
        });
        let tcp = self.tcp.as_ref().map(|(listener, address)| {
            let again = listener.try_clone().and_then(TcpListener::from_std);
            again.map_err(|cause| ListenError::Tcp { address: *address, cause })
        });
        Ok((unix.transpose()?, tcp.transpose()?))
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        if let Some(own) = self.own.take() {
            own.remove();
        }
    }
}

fn kept(data: &Path, listener: UnixListener) -> Result<unix::net::UnixListener, SocketError> {
    listener.into_std().map_err(|cause| SocketError::Io { path: socket::path(data), cause })
}

async fn listen_on(address: SocketAddr) -> Result<(net::TcpListener, SocketAddr), ListenError> {
    let listener = TcpListener::bind(address).await.and_then(TcpListener::into_std);
    listener.map(|listener| (listener, address)).map_err(|cause| ListenError::Tcp { address, cause })
}
