//! The HTTP check: one GET on a connection of its own, no redirects followed, at most 64 KiB of answer, one deadline for
//! all of it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use rustix::io::Errno;
use schemas::run::HttpCheck;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::{Checks, Probe};
use crate::http_client::{Limits, RequestError, exchange};

/// The longest body that is read.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// Checks over HTTP.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpChecks;

#[async_trait::async_trait]
impl Checks for HttpChecks {
    async fn probe(&self, address: SocketAddr, check: &HttpCheck) -> Probe {
        probe(address, check).await
    }
}

/// Asks the node at `address` for the check's path once.
pub async fn probe(address: SocketAddr, check: &HttpCheck) -> Probe {
    let began = Instant::now();
    match timeout(Duration::from_millis(check.timeout_ms), ask(address, &check.path)).await {
        Err(_) => Probe::Failed { reason: format!("no complete answer within {} ms", check.timeout_ms) },
        Ok(Err(probe)) => probe,
        Ok(Ok(status)) => judge(check, status, began.elapsed()),
    }
}

fn judge(check: &HttpCheck, status: StatusCode, took: Duration) -> Probe {
    let latency_ms = u64::try_from(took.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX);
    if status.as_u16() != check.status {
        let (path, wanted) = (&check.path, check.status);
        return Probe::Failed { reason: format!("{path} answered {} instead of {wanted}", status.as_u16()) };
    }
    match check.latency_ms_max {
        Some(max) if latency_ms > max => {
            Probe::Failed { reason: format!("{} took {latency_ms} ms, more than {max} ms", check.path) }
        }
        _ => Probe::Passed { latency_ms },
    }
}

/// Returns the status of an answer that has come whole.
async fn ask(address: SocketAddr, path: &str) -> Result<StatusCode, Probe> {
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::USER_AGENT, "ionledger-check")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|cause| Probe::Unknown { reason: format!("`{}` is not a path: {cause}", path.escape_default()) })?;
    let answer = exchange(TcpStream::connect(address), request, Limits::NONE).await.map_err(|cause| match cause {
        RequestError::NotSent(cause) => not_connected(address, &cause),
        cause => Probe::Failed { reason: format!("{path} did not answer in HTTP: {cause}") },
    })?;
    let status = answer.status();
    let body = answer.into_body().read(BODY_BYTES_MAX).await;
    body.map(|_| status).map_err(|cause| match cause {
        RequestError::TooLong(max) => Probe::Failed { reason: format!("{path} answered more than {max} bytes") },
        cause => Probe::Failed { reason: format!("{path} broke its answer off: {cause}") },
    })
}

/// Tells a node that does not listen from our own lack of descriptors, ports or memory.
fn not_connected(address: SocketAddr, cause: &io::Error) -> Probe {
    const OURS: [Errno; 7] =
        [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL, Errno::AGAIN, Errno::PERM];
    let reason = format!("cannot connect to {address}: {cause}");
    let ours = OURS.iter().any(|errno| Some(errno.raw_os_error()) == cause.raw_os_error());
    if ours { Probe::Unknown { reason } } else { Probe::Failed { reason } }
}
