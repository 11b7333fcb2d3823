//! The HTTP check tells three things apart, and the demo service shows it each of them.
#![allow(clippy::print_stdout)] // a process of the tests answers on it

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use schemas::run::HttpCheck;
use support::process::{ended, lines};
use workers::checks::http::{BODY_BYTES_MAX, probe};
use workers::checks::{Checks as _, Probe};

/// The demo service on a free port, ended with the test.
struct Demo {
    child: Child,
    address: SocketAddr,
}

impl Demo {
    fn start(options: &[&str]) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_ionledger"))
            .args(["demo-service", "--version-name", "1.2.3", "--port", &address.port().to_string()])
            .args(options)
            .envs([("IONLEDGER_SERVICE", "api"), ("IONLEDGER_NODE", "n1")])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let line = lines(child.stderr.take().unwrap()).next();
        assert_eq!(line, Some(format!("version 1.2.3 listens on {address}")));
        Self { child, address }
    }

    /// Sends the request as it is and returns all of the answer.
    fn say(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(&self, path: &str) -> String {
        self.say(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
    }

    fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that answers every connection with the same bytes and then closes it, or holds it open.
fn server(answer: impl Into<Vec<u8>>, holds: bool) -> SocketAddr {
    let (listener, answer) = (TcpListener::bind("127.0.0.1:0").unwrap(), answer.into());
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&answer);
            if holds {
                held.push(stream);
            }
        }
    });
    address
}

fn check() -> HttpCheck {
    HttpCheck { timeout_ms: 20_000, ..HttpCheck::default() }
}

fn failed(probe: Probe) -> String {
    match probe {
        Probe::Failed { reason } => reason,
        other => panic!("not failed: {other:?}"),
    }
}

#[tokio::test]
async fn a_healthy_service_passes_and_an_unhealthy_one_fails() {
    let (healthy, unhealthy) = (Demo::start(&[]), Demo::start(&["--fail-health"]));
    let passed = workers::checks::http::HttpChecks.probe(healthy.address, &check()).await;
    assert!(matches!(passed, Probe::Passed { latency_ms } if latency_ms >= 1), "{passed:?}");
    assert_eq!(failed(probe(unhealthy.address, &check()).await), "/health answered 503 instead of 200");
}

#[tokio::test]
async fn a_service_that_does_not_listen_or_never_answers_fails() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(failed(probe(nobody, &check()).await).contains("Connection refused"));
    let demo = Demo::start(&[]);
    let hang = HttpCheck { path: "/hang".into(), timeout_ms: 100, ..check() };
    assert_eq!(failed(probe(demo.address, &hang).await), "no complete answer within 100 ms");
    let half = server("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", true);
    let half = probe(half, &HttpCheck { timeout_ms: 100, ..check() }).await;
    assert_eq!(failed(half), "no complete answer within 100 ms");
}

#[tokio::test]
async fn an_answer_that_is_cut_off_or_is_no_http_fails() {
    let cut = server("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", false);
    assert!(failed(probe(cut, &check()).await).starts_with("/health broke its answer off"));
    let noise = server("SSH-2.0-OpenSSH\r\n", false);
    assert!(failed(probe(noise, &check()).await).starts_with("/health did not answer in HTTP"));
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_only_the_exact_status_passes() {
    let healthy = Demo::start(&[]);
    let location = format!("location: http://{}/health", healthy.address);
    let redirect = server(format!("HTTP/1.1 302 Found\r\n{location}\r\ncontent-length: 0\r\n\r\n"), false);
    assert_eq!(failed(probe(redirect, &check()).await), "/health answered 302 instead of 200");
    let wanted = probe(redirect, &HttpCheck { status: 302, ..check() }).await;
    assert!(matches!(wanted, Probe::Passed { .. }), "{wanted:?}");
}

#[tokio::test]
async fn an_answer_of_more_than_64_kib_fails() {
    let answer = |bytes: usize| {
        let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + bytes, b'x');
        answer
    };
    let just = probe(server(answer(BODY_BYTES_MAX), false), &check()).await;
    assert!(matches!(just, Probe::Passed { .. }), "{just:?}");
    let more = probe(server(answer(BODY_BYTES_MAX + 1), false), &check()).await;
    assert_eq!(failed(more), "/health answered more than 65536 bytes");
}

#[tokio::test]
async fn an_answer_slower_than_allowed_fails() {
    let slow = Demo::start(&["--latency-ms", "100"]);
    let impatient = HttpCheck { path: "/".into(), latency_ms_max: Some(10), ..check() };
    let reason = failed(probe(slow.address, &impatient).await);
    assert!(reason.starts_with("/ took ") && reason.ends_with(" ms, more than 10 ms"), "{reason}");
}

#[test]
fn a_process_without_descriptors_left_does_not_know() {
    // Its own process, for the limit is the whole process's.
    let healthy = Demo::start(&[]);
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 16; exec \"$0\" --ignored --exact --nocapture probe_without_descriptors"])
        .arg(std::env::current_exe().unwrap())
        .env("ADDRESS", healthy.address.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("Unknown { reason: \"cannot connect to 127.0.0.1:"), "{said}");
}

#[tokio::test]
#[ignore = "the other process of the test above"]
async fn probe_without_descriptors() {
    let Ok(address) = std::env::var("ADDRESS") else { return };
    let mut held = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        held.push(file);
    }
    println!("{:?}", probe(address.parse().unwrap(), &check()).await);
}

#[test]
fn the_demo_service_says_who_it_is_and_echoes() {
    let demo = Demo::start(&[]);
    let greeting = demo.get("/");
    assert!(greeting.contains("x-version: 1.2.3"), "{greeting}");
    assert!(greeting.ends_with(r#"{"node":"n1","service":"api","version":"1.2.3"}"#), "{greeting}");
    let head = "POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 5\r\n\r\n";
    assert!(demo.say(&format!("{head}hello")).ends_with("\r\n\r\nhello"));
    assert!(demo.get("/nothing").starts_with("HTTP/1.1 404"));
}

#[test]
fn the_demo_service_fails_as_often_as_it_is_told_to() {
    let (never, always) = (Demo::start(&["--error-rate", "0"]), Demo::start(&["--error-rate", "1"]));
    for _ in 0..20 {
        assert!(never.get("/").starts_with("HTTP/1.1 200"));
        assert!(always.get("/").starts_with("HTTP/1.1 500"));
        assert!(always.get("/health").starts_with("HTTP/1.1 200"), "its health does not show it");
    }
}

#[test]
fn the_demo_service_ends_requests_before_it_ends() {
    let mut demo = Demo::start(&["--latency-ms", "300"]);
    let mut stream = TcpStream::connect(demo.address).unwrap();
    // The first half shows that the connection was taken before the service is asked to end.
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut start = [0; 15];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");
    let mut echo = TcpStream::connect(demo.address).unwrap();
    echo.write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhe").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"he") {
        let mut byte = [0];
        echo.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    demo.terminate();
    while TcpStream::connect(demo.address).is_ok() {
        std::thread::sleep(Duration::from_millis(5)); // until it listens no more, it has not begun to end
    }
    echo.write_all(b"llo").unwrap();
    let mut rest = String::new();
    echo.read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("llo"), "{rest}");
    assert!(ended(&mut demo.child).success());
}
