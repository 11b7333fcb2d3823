//! A real Prometheus on loopback, and something for it to scrape.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longer than anything takes that works.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How often it scrapes.
pub const INTERVAL: Duration = Duration::from_millis(250);

/// A server with a data folder of its own. It ends with this value, and with the test's thread, however that ends.
pub struct Server {
    folder: tempfile::TempDir,
    address: SocketAddr,
    target: SocketAddr,
    child: Option<Child>,
}

impl Server {
    /// Starts one that scrapes `target`, or says that the test is skipped where there is none.
    pub fn start(target: SocketAddr) -> Option<Self> {
        if Command::new("prometheus").arg("--version").output().is_err() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "there is no Prometheus: apt-get install prometheus");
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            // Not by `eprintln`, which the harness keeps for itself.
            let _ = writeln!(std::io::stderr(), "SKIPPED {test}: there is no Prometheus; apt-get install prometheus");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::Builder::new().prefix("prometheus-").tempdir().unwrap();
        let ms = INTERVAL.as_millis();
        let config = format!(
            "global: {{ scrape_interval: {ms}ms, scrape_timeout: {ms}ms }}\n\
             scrape_configs: [{{ job_name: api, static_configs: [{{ targets: ['{target}'] }}] }}]\n"
        );
        std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut server = Self { folder, address, target, child: None };
        server.launch();
        Some(server)
    }

    /// Starts it again on the same data.
    pub fn launch(&mut self) {
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        let log = std::fs::File::options().create(true).append(true).open(at("log")).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "prometheus"])
            .arg(format!("--config.file={}", at("prometheus.yml")))
            .arg(format!("--storage.tsdb.path={}", at("data")))
            .arg(format!("--web.listen-address={}", self.address))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let ready = format!("GET /-/ready HTTP/1.0\r\nHost: {}\r\n\r\n", self.address);
        let deadline = Instant::now() + DEADLINE;
        while !ask(self.address, &ready).is_some_and(|answer| answer.contains(" 200 ")) {
            let log = || std::fs::read_to_string(at("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "no Prometheus on {} for {}: {}", self.address, self.target, log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it as a power switch would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Returns its address as a policy names it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn ask(address: SocketAddr, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Answers every request on loopback with the same bytes, which can be changed; nothing at all if there are none, and the
/// connection stays open.
#[derive(Clone)]
pub struct Fake {
    /// Where it listens.
    pub address: SocketAddr,
    answer: Arc<Mutex<Option<Vec<u8>>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// Starts one that answers nothing yet.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fake =
            Self { address: listener.local_addr().unwrap(), answer: Arc::new(Mutex::new(None)), asked: Arc::default() };
        let own = fake.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let own = own.clone();
                std::thread::spawn(move || own.serve(stream));
            }
        });
        fake
    }

    /// Sets the body of a 200.
    pub fn say(&self, body: &str) {
        self.say_raw(&with_status("200 OK", body));
    }

    /// Sets the whole answer.
    pub fn say_raw(&self, answer: &str) {
        *self.answer.lock().unwrap() = Some(answer.as_bytes().to_vec());
    }

    /// Lets it take requests from now on and answer none.
    pub fn hang(&self) {
        *self.answer.lock().unwrap() = None;
    }

    /// Returns the heads of all requests so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Returns its address as a policy names it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn serve(&self, mut stream: TcpStream) {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        self.asked.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
        let answer = self.answer.lock().unwrap().clone();
        match answer {
            Some(answer) => drop(stream.write_all(&answer)),
            // Until the other side has had enough.
            None => drop(stream.read(&mut byte)),
        }
    }
}

/// Returns an HTTP answer.
pub fn with_status(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}
