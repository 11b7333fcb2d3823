//! The proxy of a data folder: kept running, and ended.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ledger::Ledger;
use miette::{IntoDiagnostic, miette};
use proxy::TrustedProxies;
use tokio_util::sync::CancellationToken;
use workers::routing;
use workers::traffic::{ProxyControl, ProxyProcess, ensure_running};

use super::report;

/// How often the proxy is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many looks in a row must fail before the proxy is started again.
const LOOKS: u32 = 3;

/// How many looks in a row must show a proxy that neither answers nor uses processor time before it is replaced. With the
/// second that each waits for an answer this takes about 10 s.
const HUNG_LOOKS: u32 = 5;

/// How long a look takes at most where this process does not stand still: a call, and as long again.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// Starts the proxy, or takes over the one that runs, and says so if that one believes others than `trusted`.
pub(super) async fn start(
    data: &Path,
    exe: &Path,
    trusted: &TrustedProxies,
    ledger: &Ledger,
) -> miette::Result<ProxyControl> {
    bring_up_to_date(data, ledger);
    let (proxy, status) = ensure_running(data, exe, trusted).await.map_err(report)?;
    if status.trusted_proxies != trusted.to_string() {
        tracing::warn!(
            runs_with = status.trusted_proxies,
            wanted = %trusted,
            "the proxy that runs has other trusted_proxies; `ionledger proxy --take-over` replaces it without a gap"
        );
    }
    Ok(proxy)
}

/// Has the next proxy serve what is set from its first request on: weights may have been set since the last one ended.
fn bring_up_to_date(data: &Path, ledger: &Ledger) {
    let wanted = routing::all_set(ledger.view().state());
    if let Err(error) = proxy::bring_up_to_date(data, wanted) {
        tracing::warn!(%error, "the proxy that is started serves its last routes until it is told newer ones");
    }
}

/// Starts the proxy again if it is gone, and replaces one that hangs.
pub(super) async fn keep(
    data: PathBuf,
    exe: PathBuf,
    trusted: TrustedProxies,
    proxy: ProxyControl,
    ledger: Ledger,
    stop: CancellationToken,
) -> miette::Result<()> {
    let mut looks = Looks::default();
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => return Ok(()),
        }
        match looks.next(look(&data, &proxy).await) {
            Next::Wait => {}
            Next::Start => {
                bring_up_to_date(&data, &ledger);
                match ensure_running(&data, &exe, &trusted).await {
                    Ok(_) => tracing::warn!("the proxy did not answer and runs again"),
                    Err(error) => tracing::error!(%error, "the proxy cannot be started"),
                }
            }
            Next::Replace(hung) => match kill(&data, hung) {
                Ok(()) => tracing::warn!(pid = hung.pid, "the proxy hung: it was ended, and another is started"),
                Err(error) => tracing::error!(pid = hung.pid, %error, "the proxy hangs and cannot be ended"),
            },
        }
    }
}

/// What a look at the proxy showed.
#[derive(Clone, Copy, Debug)]
enum Look {
    /// It answers.
    Answers,
    /// It does not, and this is its process, if it has one.
    Silent(Option<ProxyProcess>),
    /// This process itself stood still meanwhile, so that the look says nothing.
    StoodStill,
}

async fn look(data: &Path, proxy: &ProxyControl) -> Look {
    let began = Instant::now();
    match proxy.status().await {
        Ok(_) => Look::Answers,
        Err(_) if began.elapsed() > LOOK_MAX => Look::StoodStill,
        Err(_) => Look::Silent(workers::traffic::proxy::process(data)),
    }
}

/// What is done about the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Wait,
    Start,
    Replace(ProxyProcess),
}

/// What the last looks at the proxy showed.
#[derive(Debug, Default)]
struct Looks {
    /// How many in a row it did not answer.
    silent: u32,
    /// Its process at the first look that showed just this, and how many in a row did.
    still: Option<(ProxyProcess, u32)>,
}

impl Looks {
    /// Returns what is done after one more look. A proxy that has a process is not started beside it; it is replaced once it
    /// has used no processor time during some looks: one that is only slow uses some. One that a debugger holds is left alone.
    fn next(&mut self, look: Look) -> Next {
        let process = match look {
            Look::Answers | Look::StoodStill => {
                *self = Self::default();
                return Next::Wait;
            }
            Look::Silent(process) => process,
        };
        self.silent = self.silent.saturating_add(1);
        let Some(process) = process.filter(|process| !process.traced) else {
            self.still = None;
            let is_gone = process.is_none() && self.silent >= LOOKS;
            return if is_gone { Next::Start } else { Next::Wait };
        };
        let before = self.still.filter(|(before, _)| *before == process).map_or(0, |(_, looks)| looks);
        self.still = Some((process, before + 1));
        if before + 1 < HUNG_LOOKS {
            return Next::Wait;
        }
        self.still = None;
        Next::Replace(process)
    }
}

/// Ends a proxy that hangs, through a handle that no other process can come to mean, if it still has used no processor time.
fn kill(data: &Path, hung: ProxyProcess) -> miette::Result<()> {
    let handle = handle_of(hung.pid)?;
    if workers::traffic::proxy::process(data) != Some(hung) {
        return Err(miette!("it has used processor time again"));
    }
    rustix::process::pidfd_send_signal(handle, rustix::process::Signal::KILL).into_diagnostic()
}

/// Ends the proxy as its status names it, through a handle that no other process can come to mean.
pub(super) async fn stop(proxy: &ProxyControl) -> miette::Result<()> {
    let status = proxy.status().await.map_err(report)?;
    let handle = handle_of(status.pid)?;
    let again = proxy.status().await.map_err(report)?;
    if again.epoch != status.epoch {
        return Err(miette!("the proxy was started again meanwhile; end process {} yourself", again.pid));
    }
    rustix::process::pidfd_send_signal(handle, rustix::process::Signal::TERM).into_diagnostic()
}

fn handle_of(pid: u32) -> miette::Result<OwnedFd> {
    let valid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let valid = valid.ok_or_else(|| miette!("the proxy says it is process {pid}"))?;
    rustix::process::pidfd_open(valid, rustix::process::PidfdFlags::empty()).into_diagnostic()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOPPED: ProxyProcess = ProxyProcess { pid: 7, ticks: 40, traced: false };

    fn all(looks: &mut Looks, seen: impl IntoIterator<Item = Look>) -> Vec<Next> {
        seen.into_iter().map(|look| looks.next(look)).filter(|next| *next != Next::Wait).collect()
    }

    #[test]
    fn a_proxy_that_hangs_is_replaced_and_then_started_at_the_next_look() {
        let mut looks = Looks::default();
        assert_eq!(all(&mut looks, [Look::Silent(Some(STOPPED)); 4]), []);
        assert_eq!(looks.next(Look::Silent(Some(STOPPED))), Next::Replace(STOPPED));
        assert_eq!(looks.next(Look::Silent(None)), Next::Start);
    }

    #[test]
    fn a_proxy_that_is_slow_or_held_by_a_debugger_is_left_alone() {
        let slow = (0..20).map(|n| Look::Silent(Some(ProxyProcess { ticks: 40 + n / 4, ..STOPPED })));
        assert_eq!(all(&mut Looks::default(), slow), []);
        let held = Look::Silent(Some(ProxyProcess { traced: true, ..STOPPED }));
        assert_eq!(all(&mut Looks::default(), [held; 20]), []);
    }

    #[test]
    fn a_process_that_stood_still_itself_counts_anew() {
        let mut looks = Looks::default();
        all(&mut looks, [Look::Silent(Some(STOPPED)); 4]);
        assert_eq!(looks.next(Look::StoodStill), Next::Wait);
        assert_eq!(all(&mut looks, [Look::Silent(Some(STOPPED)); 4]), []);
        assert_eq!(looks.next(Look::Answers), Next::Wait);
        assert_eq!(all(&mut looks, [Look::Silent(Some(STOPPED)); 4]), []);
    }

    #[test]
    fn a_proxy_that_is_gone_is_started_after_some_looks() {
        assert_eq!(all(&mut Looks::default(), [Look::Silent(None); 3]), [Next::Start]);
    }
}
