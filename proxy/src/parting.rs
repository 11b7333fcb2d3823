//! How a user's connection ends: so that the last answer arrives, and is known to have arrived where that is in doubt.
//!
//! A socket that is closed with bytes unread resets the connection, and a reset may take an answer away that is on its
//! way. So what comes after the last answer is read and thrown away for a moment. Source: RFC 9112 section 9.6.

use std::io::{self, ErrorKind};
use std::time::Duration;

use schemas::Backoff;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::activity::Activity;

/// How long, and how much, is thrown away.
const LINGER_TIME_MAX: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 4 << 20;

/// How long it waits between two looks whether an answer has arrived.
const LOOK_AGAIN_AFTER: Backoff = Backoff { first: Duration::from_millis(1), max: Duration::from_millis(100) };

/// Why a connection is over.
#[derive(Debug)]
pub(super) enum End {
    /// The last request has been answered.
    Done,
    /// What came was no request.
    Malformed,
    /// It broke, or a request or answer on it did.
    Broken,
    /// The user was waited for too long.
    Overdue,
}

/// Closes `stream`, on which `activity` went on until `end`.
pub(super) async fn part(mut stream: TcpStream, activity: &Activity, end: End, stall: Duration) {
    if activity.is_cut() {
        let _ = stream.set_zero_linger(); // dropped, it is reset
        return;
    }
    match end {
        End::Overdue if activity.is_within_head() && !activity.is_stalled() => {
            let _ = stream.try_write(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        }
        End::Overdue => {}
        End::Broken => {
            activity.settle(false);
            // A user who sends no more within a head is still told; one that is gone does not mind.
            if activity.is_within_head() && !activity.is_stalled() {
                let _ = stream.try_write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            }
        }
        End::Malformed => linger(&mut stream).await,
        End::Done if activity.owes() => {
            let _ = stream.shutdown().await; // a socket that is gone is told below
            activity.settle(is_delivered(&stream, stall).await);
        }
        End::Done if activity.is_unread() => linger(&mut stream).await,
        End::Done => drop(stream.shutdown().await),
    }
}

/// Says that no more comes, and waits until the user says so too.
async fn linger(stream: &mut TcpStream) {
    let thrown_away = async {
        stream.shutdown().await?;
        let (mut scratch, mut count) = (vec![0; 16_384], 0);
        while count < LINGER_BYTES_MAX {
            match stream.read(&mut scratch).await? {
                0 => break,
                more => count += more,
            }
        }
        Ok::<_, io::Error>(())
    };
    let _ = timeout(LINGER_TIME_MAX, thrown_away).await; // it is over in any case
}

/// Returns whether a user who sends no more has got all that was written, our own end included. TCP says so: the kernel
/// forgets the peer's address once everything is acknowledged, and has an error if the peer answered with a reset.
async fn is_delivered(stream: &TcpStream, limit: Duration) -> bool {
    let start = Instant::now();
    for wait in LOOK_AGAIN_AFTER.waits() {
        let is_over = stream.peer_addr().is_err_and(|error| error.kind() == ErrorKind::NotConnected);
        match stream.take_error() {
            Ok(None) if is_over => return true,
            Ok(None) if start.elapsed() < limit => sleep(wait).await,
            _ => break,
        }
    }
    false
}
