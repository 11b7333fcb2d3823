//! The port `workers::checks::Checks`: a node passes if something accepts connections at its address.
//!
//! For a service that does not speak HTTP. The path and the status of the check are not looked at; its time limits are.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use schemas::run::HttpCheck;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use workers::checks::{Checks, Probe};

struct TcpChecks;

#[async_trait::async_trait]
impl Checks for TcpChecks {
    async fn probe(&self, address: SocketAddr, check: &HttpCheck) -> Probe {
        let began = Instant::now();
        match timeout(Duration::from_millis(check.timeout_ms), TcpStream::connect(address)).await {
            Err(_) => Probe::Failed { reason: format!("{address} did not accept within {} ms", check.timeout_ms) },
            // Errors such as too few file descriptors are our own fault. They must not be held against the node.
            Ok(Err(cause)) if cause.raw_os_error().is_some_and(is_ours) => {
                Probe::Unknown { reason: format!("cannot make a connection: {cause}") }
            }
            Ok(Err(cause)) => Probe::Failed { reason: format!("cannot connect to {address}: {cause}") },
            Ok(Ok(_)) => passed(check, began.elapsed()),
        }
    }
}

fn passed(check: &HttpCheck, took: Duration) -> Probe {
    let latency_ms = u64::try_from(took.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX);
    match check.latency_ms_max {
        Some(max) if latency_ms > max => Probe::Failed { reason: format!("took {latency_ms} ms, more than {max} ms") },
        _ => Probe::Passed { latency_ms },
    }
}

fn is_ours(error: i32) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL]
        .iter()
        .any(|errno| errno.raw_os_error() == error)
}

/// Checks a port on which somebody listens, and the same port afterwards.
pub(crate) async fn run() -> crate::Ran {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let check = HttpCheck::default();

    let open = TcpChecks.probe(address, &check).await;
    println!("while it listens: {open:?}");
    assert!(matches!(open, Probe::Passed { .. }));

    drop(listener);
    let closed = TcpChecks.probe(address, &check).await;
    println!("afterwards: {closed:?}");
    assert!(matches!(closed, Probe::Failed { .. }));
    Ok(())
}
