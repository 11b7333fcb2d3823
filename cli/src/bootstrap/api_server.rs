//! The HTTP API of a running ledger: on the data folder's socket, over TCP, or both.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use api::ci::Secrets;
use api::server::{Api, Listeners, Outside, Server};
use tokio_util::sync::CancellationToken;
use workers::artifacts::Artifacts;
use workers::runtime::Adapters;
use workers::traffic::ProxyControl;

use super::{Opened, report};
use crate::settings::ServerSettings;

/// How callers come in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way<'f> {
    /// By the data folder's socket, and over TCP if there is an address.
    Socket(Option<SocketAddr>),
    /// On listeners that stay open when this server ends.
    Listeners(&'f Listeners),
    /// By the socket of another folder alone, for one command.
    Aside {
        /// The other folder.
        folder: &'f Path,
        /// Whether no other process can act on the ledger meanwhile.
        is_only: bool,
    },
}

/// An API server that answers.
pub(crate) struct ApiServer {
    closing: CancellationToken,
    server: tokio::task::JoinHandle<()>,
    tcp: Option<SocketAddr>,
    has_socket: bool,
}

impl ApiServer {
    /// Starts it. `launches` says whether this process launches nodes, too; then its metrics include the proxy's.
    ///
    /// # Errors
    ///
    /// An address that cannot be had.
    pub(crate) async fn open(
        opened: &Opened,
        adapters: &Adapters,
        artifacts: Arc<Artifacts>,
        ci: Secrets,
        settings: &ServerSettings,
        way: Way<'_>,
        launches: bool,
    ) -> miette::Result<Self> {
        let closing = CancellationToken::new();
        let mut api = Api::new(opened.ledger.clone(), Arc::clone(&opened.reader), &opened.data, artifacts);
        let outside = Outside {
            router: Some(Arc::clone(&adapters.router)),
            probing: Some(Arc::clone(&adapters.checks)),
            recent: Arc::default(),
            launches,
            only_instance: matches!(way, Way::Aside { is_only: true, .. }).then(|| opened.instance.clone()),
        };
        tokio::spawn(outside.clone().look_on(opened.ledger.clone(), closing.clone()));
        api.outside = outside;
        api.break_glass = adapters.break_glass.clone();
        api.proxy = launches.then(|| ProxyControl::of(&opened.data));
        api.ci = ci;
        api.limits.connections_per_address_max = settings.connections_per_address_max;
        api.limits.unnamed_bytes_max = settings.unnamed_artifacts_bytes_max.unwrap_or(api.limits.unnamed_bytes_max);
        api.socket_group = settings.socket_group;
        api.closing = closing.clone();
        if let Way::Aside { folder, .. } = way {
            folder.clone_into(&mut api.data);
        }
        // The first answer names what was done without the ledger.
        if let Some(break_glass) = &api.break_glass {
            break_glass.look_in_folder().await;
        }
        let api = Arc::new(api);
        let server = match way {
            Way::Socket(tcp) => Server::listen(api, tcp).await,
            Way::Aside { .. } => Server::listen(api, None).await,
            Way::Listeners(listeners) => Server::behind(api, listeners),
        };
        let server = server.map_err(report)?;
        let (tcp, has_socket) = (server.tcp_address(), server.has_socket());
        Ok(Self { closing, server: tokio::spawn(server.run()), tcp, has_socket })
    }

    /// Returns where it listens over TCP.
    pub(crate) fn tcp(&self) -> Option<SocketAddr> {
        self.tcp
    }

    /// Says whether it listens on the data folder's socket.
    pub(crate) fn has_socket(&self) -> bool {
        self.has_socket
    }

    /// Takes nothing more, and lets open requests end.
    pub(crate) async fn close(&mut self) {
        self.closing.cancel();
        let _ = (&mut self.server).await;
    }
}
