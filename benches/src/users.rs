//! Users in an open loop: a request is sent when its time has come, whether or not those before it were answered, and
//! its time counts from then. So a proxy that stands still is seen by every request that it keeps waiting.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hdrhistogram::Histogram;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::{JoinError, JoinSet, LocalSet};
use tokio::time::{Instant, sleep_until, timeout};

use crate::Error;

/// A request that has no answer after this time is lost.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// What users saw.
pub struct Seen {
    /// How many requests were sent.
    pub sent: u64,
    /// How many of them have no answer, or another one than 200.
    pub lost: u64,
    /// What became of the first of those.
    pub first_loss: Option<String>,
    /// From when each request was due to the end of its answer, in microseconds.
    pub latencies: Histogram<u64>,
    /// For how long they were sent.
    pub time: Duration,
}

/// Users on a thread of their own.
pub struct Users {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Seen, Error>>,
}

type Sender = SendRequest<Empty<Bytes>>;
/// Connections at rest to each address; the one that rested longest is used next, so that none rests long enough to be closed.
type Pool = Rc<RefCell<HashMap<SocketAddr, VecDeque<Sender>>>>;

impl Users {
    /// Sends so many requests a second, to one of `addresses` after the other.
    pub fn start(addresses: Vec<SocketAddr>, per_second: u32) -> Result<Self, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::Builder::new().name("users".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            LocalSet::new().block_on(&runtime, send(&addresses, Duration::from_secs(1) / per_second, &stopped))
        })?;
        Ok(Self { stop, thread })
    }

    /// Sends no more, waits for the last answers, and returns what was seen.
    pub fn stop(self) -> Result<Seen, Error> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the users broke off")?
    }
}

async fn send(addresses: &[SocketAddr], period: Duration, stop: &AtomicBool) -> Result<Seen, Error> {
    let (pool, mut requests) = (Pool::default(), JoinSet::new());
    let mut seen = Seen { sent: 0, lost: 0, first_loss: None, latencies: Histogram::new(3)?, time: Duration::ZERO };
    let start = Instant::now();
    let (mut due, mut addresses) = (start, addresses.iter().copied().cycle());
    while let Some(address) = addresses.next()
        && !stop.load(Ordering::Relaxed)
    {
        sleep_until(due).await;
        requests.spawn_local(request(pool.clone(), address, due));
        seen.sent += 1;
        due += period;
        while let Some(answered) = requests.try_join_next() {
            seen.add(answered)?;
        }
    }
    seen.time = start.elapsed();
    while let Some(answered) = requests.join_next().await {
        seen.add(answered)?;
    }
    Ok(seen)
}

impl Seen {
    fn add(&mut self, answered: Result<Result<Duration, Error>, JoinError>) -> Result<(), Error> {
        match answered? {
            Ok(time) => self.latencies.record(time.as_micros() as u64)?,
            Err(error) => {
                self.lost += 1;
                self.first_loss.get_or_insert_with(|| error.to_string());
            }
        }
        Ok(())
    }
}

/// Asks once, never again, and returns how long it took.
async fn request(pool: Pool, address: SocketAddr, due: Instant) -> Result<Duration, Error> {
    timeout(LOST_AFTER, async {
        let rested = pool.borrow_mut().entry(address).or_default().pop_front();
        let mut sender = match rested {
            Some(sender) => sender,
            None => connect(address).await?,
        };
        let request = Request::get("/").header("host", "api").body(Empty::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        response.into_body().collect().await?;
        let time = due.elapsed();
        // One that the proxy closed after its answer is of no more use.
        if sender.ready().await.is_ok() {
            pool.borrow_mut().entry(address).or_default().push_back(sender);
        }
        if status == StatusCode::OK { Ok(time) } else { Err(format!("the answer was {status}").into()) }
    })
    .await?
}

async fn connect(address: SocketAddr) -> Result<Sender, Error> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}
