//! Proxy throughput beside HAProxy: the same nodes, the same users, alternating runs on the same machine.
//!
//! `cargo run --release -p benches --bin proxy [-- ROUNDS SECONDS CONNECTIONS]`. Nodes, users and the proxies are
//! processes of their own. As all share the machine's processors, the ratio of requests per second flatters the slower
//! proxy; the processor time that each proxy spends on a request does not, and is shown beside it.

#![allow(clippy::print_stdout)] // its results

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use benches::{Error, processor_time};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http::Response;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proxy::{Config, Proxy};
use schemas::{EffectId, StackId, StreamVersion, Weight, Weights};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use uuid::Uuid;
use workers::traffic::{Node, ProxyControl, Routes, StackNodes, Timeouts};

const WARM_UP: Duration = Duration::from_secs(1);
const BODY: &str = "a small answer, as of an API: {\"id\": 4711, \"name\": \"ionledger\", \"ok\": true}\n";

#[tokio::main]
async fn main() -> Result<(), Error> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["node"] => node().await,
        ["proxy", data] => proxy(data).await,
        ["users", address, connections, seconds] => {
            users(address.parse()?, connections.parse()?, Duration::from_secs(seconds.parse()?)).await
        }
        [] => compare(5, 5, 64).await,
        [rounds, seconds, connections] => compare(rounds.parse()?, seconds.parse()?, connections.parse()?).await,
        _ => Err("usage: proxy [ROUNDS SECONDS CONNECTIONS]".into()),
    }
}

/// A trivial node: the same words to every request.
async fn node() -> Result<(), Error> {
    let socket = TcpSocket::new_v4()?;
    socket.bind("127.0.0.1:0".parse()?)?;
    let socket = socket.listen(1_024)?; // all users may come at once
    say(socket.local_addr()?)?;
    loop {
        let (stream, _) = socket.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let service = service_fn(|_| async {
                Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from_static(BODY.as_bytes()))))
            });
            // A user who leaves is nothing to report.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn proxy(data: &str) -> Result<(), Error> {
    let _proxy = Proxy::start(Config::new(data)).await?;
    say("ready")?;
    std::future::pending().await
}

/// What users saw.
#[derive(serde::Serialize, serde::Deserialize)]
struct Seen {
    requests: u64,
    seconds: f64,
    p50_us: u64,
    p99_us: u64,
}

/// Users who ask again as soon as they are answered, each on a connection of its own.
async fn users(address: SocketAddr, connections: usize, time: Duration) -> Result<(), Error> {
    let (start, mut tasks) = (Instant::now(), tokio::task::JoinSet::new());
    for _ in 0..connections {
        tasks.spawn(user(address, start + time));
    }
    let mut latencies = Histogram::<u64>::new(3)?;
    while let Some(user) = tasks.join_next().await {
        latencies.add(user??)?;
    }
    let quantile = |q| latencies.value_at_quantile(q);
    let seconds = start.elapsed().as_secs_f64();
    let seen = Seen { requests: latencies.len(), seconds, p50_us: quantile(0.5), p99_us: quantile(0.99) };
    say(serde_json::to_string(&seen)?)
}

async fn user(address: SocketAddr, end: Instant) -> Result<Histogram<u64>, Error> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut latencies = Histogram::new(3)?;
    let mut buffer = [0; 4_096];
    while Instant::now() < end {
        let start = Instant::now();
        stream
            .write_all(b"GET /some/path?of=an&api HTTP/1.1\r\nhost: api\r\naccept: */*\r\nuser-agent: bench\r\n\r\n")
            .await?;
        let mut filled = 0;
        while !buffer[..filled].ends_with(BODY.as_bytes()) {
            if filled > 12 && !buffer.starts_with(b"HTTP/1.1 200") {
                return Err(String::from_utf8_lossy(&buffer[..filled]).into());
            }
            match stream.read(&mut buffer[filled..]).await? {
                0 => return Err("the proxy closed the connection".into()),
                read => filled += read,
            }
        }
        latencies.record(start.elapsed().as_micros() as u64)?;
    }
    Ok(latencies)
}

fn say(words: impl std::fmt::Display) -> Result<(), Error> {
    println!("{words}");
    Ok(std::io::stdout().flush()?)
}

/// A process that ends with the bench.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait()); // it may have ended
    }
}

impl Helper {
    /// Returns this program in another role, and the first line it says.
    fn role(words: &[&str]) -> Result<(Self, String), Error> {
        let mut child = Command::new(std::env::current_exe()?).args(words).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let helper = Self(child);
        if line.is_empty() {
            Err(format!("{} failed", words.join(" ")).into())
        } else {
            Ok((helper, line.trim_end().to_owned()))
        }
    }
}

struct Contestant {
    name: &'static str,
    process: Helper,
    address: SocketAddr,
    runs: Vec<(f64, f64, Seen)>,
}

impl Contestant {
    /// Runs users against it once.
    fn run(&mut self, connections: usize, seconds: u64) -> Result<(), Error> {
        let ask = |seconds: u64| {
            Helper::role(&["users", &self.address.to_string(), &connections.to_string(), &seconds.to_string()])
        };
        let (_users, _) = ask(WARM_UP.as_secs())?;
        let before = processor_time(self.process.0.id())?;
        let (_users, line) = ask(seconds)?;
        let seen: Seen = serde_json::from_str(&line)?;
        let spent = processor_time(self.process.0.id())? - before;
        let (rate, cost) = (seen.requests as f64 / seen.seconds, spent.as_secs_f64() * 1e6 / seen.requests as f64);
        eprintln!("{:>9}: {rate:>7.0} requests/s, {cost:>5.1} us of processor time each", self.name);
        self.runs.push((rate, cost, seen));
        Ok(())
    }

    /// Returns the medians of rate, cost, p50 and p99.
    fn medians(&self) -> [f64; 4] {
        let median = |value: fn(&(f64, f64, Seen)) -> f64| {
            let mut values: Vec<f64> = self.runs.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        [median(|run| run.0), median(|run| run.1), median(|run| run.2.p50_us as f64), median(|run| run.2.p99_us as f64)]
    }
}

async fn compare(rounds: usize, seconds: u64, connections: usize) -> Result<(), Error> {
    let folder = tempfile::tempdir()?;
    let ((_old, old), (_new, new)) = (Helper::role(&["node"])?, Helper::role(&["node"])?);
    let nodes = [old.parse()?, new.parse()?];
    let mut contestants = vec![ours(folder.path(), nodes).await?];
    match haproxy(folder.path(), nodes).await {
        Ok(haproxy) => contestants.push(haproxy),
        Err(error) if std::env::var("CI").is_ok_and(|ci| ci == "true") => return Err(error),
        Err(error) => eprintln!("SKIPPED haproxy: {error}; install it with `apt-get install haproxy`"),
    }
    for _ in 0..rounds {
        contestants.iter_mut().try_for_each(|contestant| contestant.run(connections, seconds))?;
    }
    println!("| proxy | requests/s | processor time each, us | p50, us | p99, us |");
    println!("| --- | --- | --- | --- | --- |");
    for contestant in &contestants {
        let [rate, cost, p50, p99] = contestant.medians();
        println!("| {} | {rate:.0} | {cost:.1} | {p50:.0} | {p99:.0} |", contestant.name);
    }
    if let [ours, theirs] = &contestants[..] {
        let [ours, theirs] = [ours.medians(), theirs.medians()];
        println!("\nratio of requests/s: {:.2}; of processor time: {:.2}", ours[0] / theirs[0], theirs[1] / ours[1]);
    }
    Ok(())
}

async fn ours(folder: &Path, nodes: [SocketAddr; 2]) -> Result<Contestant, Error> {
    let (process, _) = Helper::role(&["proxy", &folder.to_string_lossy()])?;
    let stacks = [1, 2].map(|n| StackId(Uuid::from_u128(n)));
    let backends = stacks.into_iter().zip(nodes).map(|(stack, address)| {
        let nodes = vec![Node { effect: EffectId(stack.0), address }];
        Ok((stack, StackNodes { version: "1.0.0".parse()?, nodes }))
    });
    let routes = Routes {
        deployment: "production/api".parse()?,
        generation: StreamVersion(1),
        listen: None,
        weights: Weights::split(stacks[0], stacks[1], Weight::from_percent(10)),
        backends: backends.collect::<Result<_, Error>>()?,
        timeouts: Timeouts::default(),
        nodes_only: false,
    };
    let address = ProxyControl::of(folder).apply(&routes).await?.listening;
    Ok(Contestant { name: "ionledger", process, address, runs: Vec::new() })
}

async fn haproxy(folder: &Path, [old, new]: [SocketAddr; 2]) -> Result<Contestant, Error> {
    let address = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let config = folder.join("haproxy.cfg");
    std::fs::write(
        &config,
        format!(
            "global\n  maxconn 4096\ndefaults\n  mode http\n  option http-keep-alive\n  option forwardfor\n  \
             http-reuse always\n  timeout connect 1s\n  timeout client 75s\n  timeout server 30s\n  \
             timeout http-request 10s\nfrontend users\n  bind {address}\n  default_backend stacks\n\
             backend stacks\n  balance roundrobin\n  server old {old} weight 90\n  server new {new} weight 10\n"
        ),
    )?;
    let child = Command::new("haproxy").arg("-db").arg("-f").arg(&config).stdout(Stdio::null()).spawn()?;
    let process = Helper(child);
    for _ in 0..200 {
        if TcpStream::connect(address).await.is_ok() {
            return Ok(Contestant { name: "haproxy", process, address, runs: Vec::new() });
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err("it does not listen".into())
}
