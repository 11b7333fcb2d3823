//! A user's connection: HTTP/1 on a socket whose silences are watched.
//!
//! hyper's own limit on reading a head also runs while a connection is idle, and needs a timer per request. Here a
//! few atomics say what the connection waits for, and one slow timer per connection looks at them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Version};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::activity::{Activity, Busy};
use super::body::Reply;
use super::clock::now_ms;
use super::deployment::Deployment;
use super::forward::forward;
use super::headers::Peer;
use super::limits::{BUFFER_MAX, Patience};
use super::parting::{End, part};
use super::trusted::TrustedProxies;
use super::watched::Watched;

/// The most that a request's first line and headers may have together, in bytes; more is a 431.
const HEAD_MAX: usize = 32 * 1_024;

/// How long a user who sends no more is left alone before it is asked whether it is there.
const PROBE_AFTER: Duration = Duration::from_secs(3);

/// How often it is then looked whether it said that it is not, and after how many looks it is asked again.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const PROBE_EVERY: u32 = 20;

/// How long a user without a request at hand is still waited for when the proxy is ending: one may be on its way.
const LAST_CALL: Duration = Duration::from_secs(1);

/// A user who has connected.
#[derive(Debug)]
pub(super) struct User {
    pub(super) stream: TcpStream,
    pub(super) address: SocketAddr,
}

/// Serves the requests of `user` until it closes the connection, is overdue, or `closing` is cancelled and the request
/// at hand has been answered.
pub(super) async fn serve(
    user: User,
    deployment: Arc<Deployment>,
    patience: Patience,
    trusted: &TrustedProxies,
    closing: CancellationToken,
) {
    let User { stream, address } = user;
    let Ok(here) = stream.local_addr() else { return };
    let _ = stream.set_nodelay(true); // slower without, and no more
    let (peer, activity) = (Arc::new(Peer::new(address, here, trusted)), Arc::new(Activity::new(now_ms())));
    let io = TokioIo::new(Watched::new(stream, activity.clone()));
    let service = service_fn(|request: Request<Incoming>| {
        let (has_body, is_new) = (!request.body().is_end_stream(), request.version() == Version::HTTP_11);
        let busy = Busy::new(activity.clone(), has_body, is_new);
        let (deployment, peer) = (deployment.clone(), peer.clone());
        async move { Ok::<_, Infallible>(forward(&deployment, &peer, request, busy).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(None);
    http.half_close(true).max_header_size(HEAD_MAX).max_buf_size(BUFFER_MAX);
    let mut connection = http.serve_connection(io, service);
    let end = run(&mut connection, &activity, &patience, closing).await;
    if matches!(end, End::Malformed) {
        deployment.note_refused();
    }
    let stream = connection.into_parts().io.into_inner().into_stream();
    part(stream, &activity, end, patience.stall).await;
}

/// Returns why `connection` is over.
async fn run<S>(
    connection: &mut http1::Connection<TokioIo<Watched>, S>,
    activity: &Activity,
    patience: &Patience,
    closing: CancellationToken,
) -> End
where
    S: HttpService<Incoming, ResBody = Reply, Error = Infallible>,
{
    let mut look = interval(patience.look());
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut told, mut last_call, mut probe, mut probes) = (false, None, None, 0_u32);
    loop {
        tokio::select! {
            biased;
            ended = &mut *connection => return match ended {
                Ok(()) => End::Done,
                Err(error) if error.is_parse() => End::Malformed,
                Err(_) => End::Broken,
            },
            () = activity.stirred() => {
                if activity.is_half_closed() && probe.is_none() {
                    probe = Some(Instant::now() + PROBE_AFTER);
                }
            }
            () = sleep_until(probe.unwrap_or_else(Instant::now)), if probe.is_some() => {
                if probes.is_multiple_of(PROBE_EVERY) {
                    activity.probe();
                }
                // The connection looks for a reset whenever it is polled.
                (probe, probes) = (Some(Instant::now() + LOOK_EVERY), probes + 1);
            }
            _ = look.tick() => if activity.is_overdue(now_ms(), patience) { return End::Overdue },
            () = closing.cancelled(), if last_call.is_none() => {
                activity.note_closing();
                last_call = Some(Instant::now() + LAST_CALL);
            }
            () = sleep_until(last_call.unwrap_or_else(Instant::now)), if last_call.is_some() && !told => {}
        }
        let is_time = |at: Instant| activity.is_busy() || Instant::now() >= at;
        if !told && last_call.is_some_and(is_time) {
            told = true;
            std::pin::Pin::new(&mut *connection).graceful_shutdown();
        }
    }
}
