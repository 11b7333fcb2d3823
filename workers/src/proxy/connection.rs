//! A user's connection: HTTP/1 on a socket whose silences are watched.
//!
//! hyper's own limit on reading a head also runs while a connection is idle, and needs a timer per request. Here a
//! few atomics say what the connection waits for, and one slow timer per connection looks at them.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::clock::{ms, now_ms};
use super::deployment::Deployment;
use super::forward::forward;
use super::headers::Peer;

/// How long a user is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the rest of a request's head; default 10 s (against users who send a byte now and then).
    pub head: Duration,
    /// For the next request on a connection; default 75 s.
    pub idle: Duration,
    /// For taking any of an answer that is there; default 60 s.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { head: Duration::from_secs(10), idle: Duration::from_secs(75), stall: Duration::from_secs(60) }
    }
}

impl Patience {
    /// Returns how often to look: so that no silence lasts more than a fifth longer than it may.
    fn look(&self) -> Duration {
        (self.head.min(self.idle).min(self.stall) / 5).max(Duration::from_millis(1))
    }
}

/// What a connection waits for, each since when (0: it does not).
#[derive(Debug)]
pub(super) struct Activity {
    busy: AtomicBool,
    head_since_ms: AtomicU64,
    quiet_since_ms: AtomicU64,
    stalled_since_ms: AtomicU64,
}

/// Exists while a request is being worked on.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Activity {
    fn new(now: u64) -> Self {
        Self {
            busy: AtomicBool::new(false),
            head_since_ms: AtomicU64::new(0),
            quiet_since_ms: AtomicU64::new(now),
            stalled_since_ms: AtomicU64::new(0),
        }
    }

    fn note_read(&self, now: u64) {
        if !self.busy.load(Relaxed) && self.head_since_ms.load(Relaxed) == 0 {
            self.head_since_ms.store(now, Relaxed);
        }
    }

    fn note_write(&self, blocked: bool, now: impl FnOnce() -> u64) {
        match (blocked, self.stalled_since_ms.load(Relaxed)) {
            (true, 0) => self.stalled_since_ms.store(now(), Relaxed),
            (false, 1..) => self.stalled_since_ms.store(0, Relaxed),
            (true, 1..) | (false, 0) => {}
        }
    }

    fn begin(&self) {
        self.busy.store(true, Relaxed);
        self.head_since_ms.store(0, Relaxed);
    }

    fn end(&self, now: u64) {
        self.quiet_since_ms.store(now, Relaxed);
        self.busy.store(false, Relaxed);
    }

    /// Returns whether the user has been waited for too long.
    fn is_overdue(&self, now: u64, patience: &Patience) -> bool {
        let over = |since: u64, limit| since != 0 && now.saturating_sub(since) >= ms(limit);
        let idle = !self.busy.load(Relaxed);
        over(self.stalled_since_ms.load(Relaxed), patience.stall)
            || idle && over(self.head_since_ms.load(Relaxed), patience.head)
            || idle && over(self.quiet_since_ms.load(Relaxed), patience.idle)
    }
}

impl Busy {
    fn new(activity: Arc<Activity>) -> Self {
        activity.begin();
        Self(activity)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.end(now_ms());
    }
}

/// Serves the requests on `stream` until the user closes it, is overdue, or `closing` is cancelled and the request
/// at hand has been answered.
pub(super) async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    deployment: Arc<Deployment>,
    patience: Patience,
    closing: CancellationToken,
) {
    let Ok(here) = stream.local_addr() else { return };
    let _ = stream.set_nodelay(true); // slower without, and no more
    let (peer, activity) = (Arc::new(Peer::new(address, here)), Arc::new(Activity::new(now_ms())));
    let io = TokioIo::new(Watched { stream, activity: activity.clone() });
    let service = service_fn(|request| {
        let (deployment, peer, busy) = (deployment.clone(), peer.clone(), Busy::new(activity.clone()));
        async move { Ok::<_, std::convert::Infallible>(forward(&deployment, &peer, request, busy).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(None);
    let mut connection = pin!(http.serve_connection(io, service));
    let mut look = interval(patience.look());
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            // An error here is the user's connection breaking, which the request at hand has taken note of.
            _ = connection.as_mut() => return,
            _ = look.tick() => if activity.is_overdue(now_ms(), &patience) { return },
            () = closing.cancelled(), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// A stream that takes note of what it waits for.
#[derive(Debug)]
struct Watched {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.note_read(now_ms());
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.activity.note_write(polled.is_pending(), now_ms);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.activity.note_write(polled.is_pending(), now_ms);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000;

    fn overdue(activity: &Activity, now: u64) -> bool {
        activity.is_overdue(now, &Patience::default())
    }

    #[test]
    fn a_head_that_is_not_whole_after_ten_seconds_is_overdue() {
        let activity = Activity::new(1);
        activity.note_read(5 * SECOND);
        activity.note_read(14 * SECOND);
        assert!(!overdue(&activity, 15 * SECOND - 1));
        assert!(overdue(&activity, 15 * SECOND));
        activity.begin();
        assert!(!overdue(&activity, 60 * SECOND), "the request has come in and is being worked on");
    }

    #[test]
    fn an_idle_connection_is_overdue_after_its_last_answer_only() {
        let activity = Activity::new(1);
        activity.note_read(1);
        activity.begin();
        activity.note_read(20 * SECOND); // its body
        activity.end(100 * SECOND);
        assert!(!overdue(&activity, 175 * SECOND - 1));
        assert!(overdue(&activity, 175 * SECOND));
    }

    #[test]
    fn a_user_who_takes_nothing_of_the_answer_for_a_minute_is_overdue() {
        let activity = Activity::new(1);
        activity.begin();
        activity.note_write(true, || SECOND);
        activity.note_write(true, || 50 * SECOND);
        assert!(overdue(&activity, 61 * SECOND));
        activity.note_write(false, || 61 * SECOND);
        assert!(!overdue(&activity, 200 * SECOND));
    }
}
