//! `ionledger demo-service`: a tiny service with settable faults, for the demo and the tests.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use miette::{Context as _, IntoDiagnostic as _};
use rand::RngExt as _;
use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long requests may take to end once the service was asked to end.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves `/`, `/health`, `/hang` and `/echo` on loopback; not for people.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DemoService {
    /// Port to listen on.
    #[arg(long, env = "PORT")]
    port: u16,
    /// Version to answer with.
    #[arg(long, env = "IONLEDGER_VERSION", default_value = "0.0.0")]
    version_name: String,
    /// Mean time an answer to `/` takes, in milliseconds; each takes from half to one and a half of it.
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,
    /// How long a tenth of the answers takes at least, as a multiple of the mean; half as many take 1.3 times as long.
    #[arg(long, default_value_t = 0.0)]
    tail: f64,
    /// Share of requests to `/` answered with 500, from 0 to 1.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    error_rate: f64,
    /// Only the node whose id is in this file answers with 500 at that rate.
    #[arg(long, value_name = "FILE")]
    only_node: Option<PathBuf>,
    /// While this file exists, half of the requests to `/` are answered with 500.
    #[arg(long, value_name = "FILE")]
    outage: Option<PathBuf>,
    /// Accept requests to `/` and never answer them.
    #[arg(long)]
    hang: bool,
    /// How long to wait before listening, in milliseconds.
    #[arg(long, default_value_t = 0)]
    slow_start_ms: u64,
    /// Answer `/health` with 503.
    #[arg(long)]
    fail_health: bool,
}

type Body = BoxBody<Bytes, hyper::Error>;

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("write a number from 0 to 1".to_owned()),
    }
}

/// Writes a line to stderr; a service goes on though nobody reads what it says.
fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

impl DemoService {
    pub(crate) fn run(self) -> miette::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().into_diagnostic()?;
        runtime.block_on(self.serve())?;
        Ok(ExitCode::SUCCESS)
    }

    async fn serve(self) -> miette::Result<()> {
        let mut asked_to_end = signal(SignalKind::terminate()).into_diagnostic()?;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(self.slow_start_ms)) => {}
            _ = asked_to_end.recv() => return Ok(()),
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let listener = TcpListener::bind(address).await.into_diagnostic();
        let listener = listener.wrap_err_with(|| format!("cannot listen on {address}"))?;
        say(format_args!("version {} listens on {address}", self.version_name));
        let (service, connections, ending) = (Arc::new(self), TaskTracker::new(), CancellationToken::new());
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        connections.spawn(service.clone().converse(stream, ending.clone()));
                    }
                }
                _ = asked_to_end.recv() => break,
            }
        }
        drop(listener);
        ending.cancel();
        connections.close();
        let _ = tokio::time::timeout(DRAIN, connections.wait()).await; // who hangs longer is cut off
        say(format_args!("ends as asked"));
        Ok(())
    }

    async fn converse(self: Arc<Self>, stream: TcpStream, ending: CancellationToken) {
        let _ = stream.set_nodelay(true);
        let service = service_fn(move |request| self.clone().answer(request));
        let mut http = http1::Builder::new();
        let connection = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            () = ending.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await; // a client that went away is no concern of this service
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        Ok(match (request.method(), request.uri().path()) {
            (&Method::GET, "/health") if self.fail_health => self.text(StatusCode::SERVICE_UNAVAILABLE, "unhealthy\n"),
            (&Method::GET, "/health") => self.text(StatusCode::OK, "ok\n"),
            (&Method::GET, "/hang") => std::future::pending().await,
            (&Method::POST, "/echo") => self.reply(StatusCode::OK, request.into_body().boxed()),
            (_, "/") if self.hang => std::future::pending().await,
            (_, "/") => self.greet().await,
            _ => self.text(StatusCode::NOT_FOUND, "not found\n"),
        })
    }

    async fn greet(&self) -> Response<Body> {
        let (pause, fails) = {
            let mut random = UnwrapErr(SysRng);
            let half = self.latency_ms.saturating_mul(1_000) / 2;
            let usual = random.random_range(half..=half.saturating_mul(3));
            // The share that takes longer than x falls as x to the power of -2.5.
            let long = self.latency_ms as f64 * 1_000.0 * self.tail * random.random_range(0.001_f64..1.0).powf(-0.4);
            let is_tail = self.tail > 0.0 && random.random_bool(0.1);
            (if is_tail { long as u64 } else { usual }, random.random_bool(self.error_rate_now()))
        };
        if pause > 0 {
            tokio::time::sleep(Duration::from_micros(pause)).await;
        }
        if fails {
            return self.text(StatusCode::INTERNAL_SERVER_ERROR, "this version is bad\n");
        }
        let about = |name: &str| std::env::var(name).unwrap_or_default();
        let (service, node) = (about("IONLEDGER_SERVICE"), about("IONLEDGER_NODE"));
        let body = serde_json::json!({ "service": service, "version": self.version_name, "node": node }).to_string();
        let mut response = self.text(StatusCode::OK, body);
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        response
    }

    fn error_rate_now(&self) -> f64 {
        if self.outage.as_ref().is_some_and(|file| file.exists()) {
            return 0.5;
        }
        let node = std::env::var("IONLEDGER_NODE").unwrap_or_default();
        let is_named = |file: &PathBuf| std::fs::read_to_string(file).is_ok_and(|named| named.trim() == node);
        if self.only_node.as_ref().is_none_or(is_named) { self.error_rate } else { 0.0 }
    }

    fn text(&self, status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
        self.reply(status, Full::new(text.into()).map_err(|never| match never {}).boxed())
    }

    fn reply(&self, status: StatusCode, body: Body) -> Response<Body> {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        if let Ok(version) = self.version_name.parse() {
            response.headers_mut().insert("x-version", version);
        }
        response
    }
}
