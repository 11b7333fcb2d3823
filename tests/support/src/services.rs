//! A ledger in a real Kafka with its API, its proxy and its workers as processes of their own on one data folder.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::installation::{Installation, eventually};
use crate::process::ended;

/// A process of ionledger's, ended with this.
pub struct Service {
    child: Child,
    /// Its role, or `api` or `proxy`.
    pub kind: &'static str,
    /// Where it answers its operators; the API's own address.
    pub address: SocketAddr,
    /// What it says.
    log: std::path::PathBuf,
}

impl Service {
    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Ends it as a power switch would.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Tells it to end and waits until it has, and returns how long that took.
    pub fn end(mut self) -> Duration {
        let began = Instant::now();
        self.signal(Signal::TERM);
        let status = ended(&mut self.child);
        assert!(status.success(), "{}: {status}; {}", self.kind, self.said());
        began.elapsed()
    }

    /// Waits for it to have ended by itself.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Returns what it said on standard error.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks at the address for operators.
    pub fn ask(&self, path: &str) -> (u16, String) {
        get(self.address, path)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The data folder, its processes, and where their ledger lies.
pub struct Services {
    /// Dropped first: nothing of it may start a node after the installation is taken down.
    pub running: Vec<Service>,
    /// The data folder, without `up`.
    pub installation: Installation,
    /// The ledger, as `--ledger` names it.
    pub place: String,
    count: u32,
    /// The processes of one test at a time: what they take is measured.
    _turn: Option<MutexGuard<'static, ()>>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Services {
    /// The API, the proxy and a worker of each kind on a ledger in `topic`.
    pub fn start(cluster: &Cluster, topic: &str) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut services = Self { _turn: Some(turn), ..Self::on(&cluster.place(topic)) };
        services.run("proxy");
        services.run("api");
        for role in ["provisioner", "traffic-shifter", "collector"] {
            services.run(role);
        }
        services.wait_for_actors();
        services
    }

    /// A data folder without a process on the ledger at `place`.
    pub fn on(place: &str) -> Self {
        Self { running: vec![], installation: Installation::empty(), place: place.to_owned(), count: 0, _turn: None }
    }

    /// Starts one more process and waits until it is ready.
    pub fn run(&mut self, kind: &'static str) -> &Service {
        let service = self.launch(kind);
        eventually(&format!("the {kind} is ready"), || {
            let said = service.said();
            assert!(!said.contains("error: "), "{said}");
            fs::metadata(&service.log).is_ok()
                && try_get(service.address, "/readyz").is_some_and(|(code, _)| code == 200)
        });
        self.running.push(service);
        self.running.last().unwrap()
    }

    /// Starts one more process.
    pub fn launch(&mut self, kind: &'static str) -> Service {
        self.count += 1;
        let address = free_address();
        let log = self.installation.path().join(format!("{kind}-{}.log", self.count));
        let listen = address.to_string();
        let mut command = match kind {
            "proxy" => self.installation.command(&["proxy", "--listen", &listen]),
            "api" => self.installation.command(&["api", "--listen", &listen]),
            role => self.installation.command(&["worker", role, "--listen", &listen]),
        };
        if kind != "proxy" {
            command.args(["--ledger", &self.place]);
        }
        let said = fs::File::create(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn().unwrap();
        Service { child, kind, address, log }
    }

    /// Takes the process that runs as `kind` out; the first of several.
    pub fn take(&mut self, kind: &str) -> Service {
        let at = self.running.iter().position(|service| service.kind == kind).expect("it runs");
        self.running.remove(at)
    }

    /// Takes out the process that acts for `role`.
    pub fn take_acting(&mut self, role: &str) -> Service {
        let acting = self.acting(role).expect("somebody acts");
        let at = self.running.iter().position(|service| acting.contains(&format!(":{}@", service.pid())));
        self.running.remove(at.unwrap_or_else(|| panic!("{acting} acts, which is not of this test")))
    }

    /// Returns the process of the API.
    pub fn api(&self) -> &Service {
        self.running.iter().find(|service| service.kind == "api").expect("it runs")
    }

    /// Returns who acts for `role`, as the first worker that answers sees it.
    pub fn acting(&self, role: &str) -> Option<String> {
        let workers = self.running.iter().filter(|service| !["api", "proxy"].contains(&service.kind));
        let (_, metrics) = workers.filter_map(|service| try_get(service.address, "/metrics")).next()?;
        let label = format!("role=\"{role}\"");
        let line = metrics.lines().find(|line| line.starts_with("ionledger_acting{") && line.contains(&label))?;
        let (_, holder) = line.split_once("holder=\"")?;
        Some(holder.split_once('"')?.0.to_owned())
    }

    /// Waits until one of this test's processes acts for each role.
    pub fn wait_for_actors(&self) {
        for role in ["provisioner", "traffic-shifter", "collector"] {
            eventually(&format!("a {role} acts"), || self.acting(role).is_some());
        }
    }

    /// Returns the commits of the service's history, the newest first, void ones included.
    pub fn history(&self) -> Vec<Value> {
        self.installation.json(&["history", "api", "--voids"])["entries"].as_array().unwrap().clone()
    }

    /// Returns what every process said, for a failure's message.
    pub fn said(&self) -> String {
        self.running.iter().map(|service| format!("{}:\n{}\n", service.kind, service.said())).collect()
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Asks over HTTP and returns the status and the body.
#[track_caller]
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    try_get(address, path).unwrap_or_else(|| panic!("nobody answers on {address}{path}"))
}

fn try_get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    Some((code, body.to_owned()))
}
