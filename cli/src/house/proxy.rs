//! The proxy of a data folder: kept running, and ended.

use std::path::{Path, PathBuf};
use std::time::Duration;

use miette::{IntoDiagnostic, miette};
use tokio_util::sync::CancellationToken;
use workers::proxy::TrustedProxies;
use workers::traffic::{ProxyControl, ensure_running};

use super::report;

/// How often the proxy is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many looks in a row must fail before the proxy is started again.
const LOOKS: u32 = 3;

/// Starts the proxy, or takes over the one that runs, and says so if that one believes others than `trusted`.
pub(super) async fn start(data: &Path, exe: &Path, trusted: &TrustedProxies) -> miette::Result<ProxyControl> {
    let (proxy, status) = ensure_running(data, exe, trusted).await.map_err(report)?;
    if status.trusted_proxies != trusted.to_string() {
        tracing::warn!(
            runs_with = status.trusted_proxies,
            wanted = %trusted,
            "the proxy that runs believes other trusted_proxies; `ionledger proxy --take-over` replaces it without a gap"
        );
    }
    Ok(proxy)
}

/// Starts the proxy again if it is gone.
pub(super) async fn keep(
    data: PathBuf,
    exe: PathBuf,
    trusted: TrustedProxies,
    proxy: ProxyControl,
    stop: CancellationToken,
) -> miette::Result<()> {
    let mut silent = 0;
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => return Ok(()),
        }
        silent = if proxy.status().await.is_ok() { 0 } else { silent + 1 };
        if silent < LOOKS {
            continue;
        }
        match ensure_running(&data, &exe, &trusted).await {
            Ok(_) => tracing::warn!("the proxy did not answer and runs again"),
            Err(error) => tracing::error!(%error, "the proxy cannot be started"),
        }
    }
}

/// Ends the proxy as its status names it, through a handle that no other process can come to mean.
pub(super) async fn stop(proxy: &ProxyControl) -> miette::Result<()> {
    let status = proxy.status().await.map_err(report)?;
    let pid = i32::try_from(status.pid).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or_else(|| miette!("the proxy says it is process {}", status.pid))?;
    let handle = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).into_diagnostic()?;
    let again = proxy.status().await.map_err(report)?;
    if again.epoch != status.epoch {
        return Err(miette!("the proxy was started again meanwhile; end process {} yourself", again.pid));
    }
    rustix::process::pidfd_send_signal(handle, rustix::process::Signal::TERM).into_diagnostic()
}
