//! `ionledger proxy`: the weighted reverse proxy, a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use api::ops::Ops;

use clap::Args;
use miette::{IntoDiagnostic, miette};
use proxy::{Config, Proxy, TakeOver, TrustedProxies};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use workers::traffic::ProxyControl;

use crate::bootstrap::settle;
use crate::failure::CommandResult;
use crate::not_allowed::refuse_strangers;
use crate::{logging, sentence, settings};

/// Run the proxy that shares users' requests out over stacks (`up` starts one by itself).
#[derive(Debug, Args)]
pub(crate) struct ProxyArgs {
    /// The data folder; the proxy keeps its routes, lock and control socket in `proxy/` below it.
    #[arg(long, value_name = "DIR", env = "IONLEDGER_DATA")]
    data: PathBuf,
    /// Answer /healthz, /readyz and /metrics on this address, without a token.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = settings::address)]
    listen: Option<SocketAddr>,
    /// Believe the `X-Forwarded-*` of these proxies before this one: addresses and networks, `127.0.0.1,10.0.0.0/8`
    /// [default: `trusted_proxies` of the settings file, else nobody's]
    #[arg(long, value_name = "NETWORKS", env = "IONLEDGER_TRUSTED_PROXIES", hide_env_values = true)]
    trusted_proxies: Option<TrustedProxies>,
    /// A file with settings, as docs/ionledger.toml has them; of them the proxy takes `trusted_proxies`
    #[arg(long, value_name = "FILE", env = "IONLEDGER_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Take over from the proxy that runs on the data folder, without a moment in which users are refused: this one serves
    /// its sockets, then that one ends. One without `--listen`, as `up` starts it, is taken over by one with `--listen`
    /// in any case
    #[arg(long)]
    take_over: bool,
    /// How many seconds requests at hand may take once the proxy has been told to end.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = sentence::seconds)]
    drain: u64,
    /// Leave the session of the process that started this one, so as to outlive its terminal.
    #[arg(long, hide = true)]
    own_session: bool,
}

impl ProxyArgs {
    /// Serves until told to end by SIGTERM or SIGINT.
    ///
    /// # Errors
    ///
    /// A usage error for settings that are wrong; else why the proxy cannot serve, or whom it cut off in the end.
    pub(crate) fn run(self) -> CommandResult<ExitCode> {
        if self.own_session {
            rustix::process::setsid().into_diagnostic()?;
        }
        refuse_strangers(&self.data)?;
        let _log = logging::init("info");
        let trusted = self.trusted()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().into_diagnostic()?;
        Ok(runtime.block_on(self.serve(trusted))?)
    }

    fn trusted(&self) -> CommandResult<TrustedProxies> {
        match (&self.trusted_proxies, &self.config) {
            (Some(trusted), _) => Ok(trusted.clone()),
            (None, Some(path)) => settings::trusted_from_file(path),
            (None, None) => Ok(TrustedProxies::default()),
        }
    }

    async fn serve(self, trusted_proxies: TrustedProxies) -> miette::Result<ExitCode> {
        // Before the proxy is known to run: whoever finds it may send a signal.
        let mut signals = Signals::new().into_diagnostic()?;
        let data = std::path::absolute(&self.data).into_diagnostic()?;
        settle(&data, false)?;
        let control = ProxyControl::of(&data);
        let drain = Duration::from_secs(self.drain);
        let take_over = match (self.take_over, self.listen) {
            (true, _) => TakeOver::Always,
            (false, Some(_)) => TakeOver::Unwatched,
            (false, None) => TakeOver::Never,
        };
        let config = Config { drain, trusted_proxies, watched: self.listen.is_some(), take_over, ..Config::new(data) };
        let ops = match self.listen {
            Some(address) => Some(Ops::listen(address).await.map_err(|error| miette!("{error}"))?),
            None => None,
        };
        let proxy = Proxy::start(config).await.map_err(|error| miette!("{error}"))?;
        let closing = CancellationToken::new();
        if let Some(ops) = ops {
            tracing::info!(address = %ops.address(), "/healthz, /readyz and /metrics are here");
            tokio::spawn(ops.run(Arc::new(control), closing.clone()));
        }
        tokio::select! {
            () = signals.ended() => {}
            () = proxy.taken_over() => tracing::info!("another proxy has taken over"),
        }
        closing.cancel();
        tracing::info!("the proxy ends when the requests at hand have been answered");
        match proxy.stop().await {
            0 => Ok(ExitCode::SUCCESS),
            cut => Err(miette!("{cut} connections were still open after {} s and were cut", self.drain)),
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Returns when the proxy is told to end; a terminal that closes (SIGHUP) does not tell it that.
    async fn ended(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {}
            }
        }
    }
}
