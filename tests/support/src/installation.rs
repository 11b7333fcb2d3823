//! A data folder with `ionledger up` on it, used through the command line as a person would; everything ends with it.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use workers::traffic::ProxyControl;

use crate::process::output;

/// Longer than anything takes that works.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A data folder, and `ionledger up` on it if it was started.
pub struct Installation {
    folder: tempfile::TempDir,
    up: Option<Child>,
}

/// What a run of the command line came to.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; -1 if a signal ended it.
    pub code: i32,
    /// Its answer.
    pub stdout: String,
    /// What it says besides.
    pub stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the command line speaks UTF-8");
        Self { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Default for Installation {
    fn default() -> Self {
        Self::new()
    }
}

impl Installation {
    /// A new data folder with `up` on it.
    pub fn new() -> Self {
        let mut installation = Self::empty();
        installation.up();
        installation
    }

    /// A new data folder with nothing on it.
    pub fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // As root, `up` runs nodes as users of their own, which must be able to pass through.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        Self { folder, up: None }
    }

    /// Returns the data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Returns the folder around the data folder, for files of the test.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Starts `up` and waits until it answers.
    pub fn up(&mut self) {
        self.up_with(&[]);
    }

    /// Starts `up` with more variables in its environment.
    pub fn up_in(&mut self, environment: Vec<(String, String)>) {
        self.start(&[], environment);
    }

    /// Starts `up` with more arguments, and waits until it answers.
    pub fn up_with(&mut self, arguments: &[&str]) {
        self.start(arguments, vec![]);
    }

    fn start(&mut self, arguments: &[&str], environment: Vec<(String, String)>) {
        let log = fs::File::options().create(true).append(true).open(self.folder.path().join("up.log")).unwrap();
        let mut command = self.command(&["up"]);
        command.args(arguments).envs(environment).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.up = Some(command.spawn().unwrap());
        // A question alone is answered from the folder where no `up` runs yet, beside the socket that one which was killed left there.
        eventually("`up` answers", || {
            let said = self.run(&["status", "--json"]);
            said.code == 0 && !said.stdout.contains("\"unattended\"") && self.data().join("api.sock").exists()
        });
    }

    /// Returns the process id of `up`.
    pub fn up_pid(&self) -> u32 {
        self.up.as_ref().expect("`up` runs").id()
    }

    /// Ends `up` as a power switch would.
    pub fn kill_up(&mut self) {
        let mut up = self.up.take().expect("`up` runs");
        up.kill().unwrap();
        up.wait().unwrap();
    }

    /// Returns a command on the data folder, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(crate::program());
        command.args(arguments).env("IONLEDGER_DATA", self.data()).env("NO_COLOR", "1").current_dir(self.folder.path());
        command
    }

    /// Runs a command on the data folder to its end.
    pub fn run(&self, arguments: &[&str]) -> Said {
        output(&mut self.command(arguments)).into()
    }

    /// Runs a command that must work, and returns what it printed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}\n{}", self.log());
        said.stdout
    }

    /// Runs a command that must work with `--json`, and returns its answer.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let printed = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {printed}"))
    }

    /// Returns what `up` said so far.
    pub fn log(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = fs::File::open(self.folder.path().join("up.log")) {
            let _ = file.read_to_string(&mut text);
        }
        text
    }

    /// Writes a file beside the data folder and returns its name.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Returns where nodes find this program: beside the data folder, because users of their own may not be able to search
    /// the folder that it was built in.
    pub fn program(&self) -> String {
        let program = self.folder.path().join("ionledger");
        if !program.exists() {
            fs::hard_link(crate::program(), &program)
                .or_else(|_| fs::copy(crate::program(), &program).map(drop))
                .unwrap();
        }
        program.to_str().unwrap().to_owned()
    }

    /// Declares the service `api` with two nodes, quick checks and a judge that needs few requests.
    pub fn declare(&self, more: &str) {
        let toml = format!(
            "name = \"api\"\nowner = \"team\"\n\
             [check]\npath = \"/health\"\ninterval = \"200 ms\"\nhealthy_after = 1\n\
             [capacity]\nnodes = 2\nmin_ready = 1\n{more}"
        );
        self.ok(&["apply", &self.file("api.toml", &toml)]);
    }

    /// Records a release of the demo service with some arguments.
    pub fn release(&self, version: &str, arguments: &[&str]) {
        let program = self.program();
        let script = self.file("demo", &format!("#!/bin/sh\nexec {program} demo-service \"$@\"\n"));
        let mut all = vec!["release", "api", version, "--artifact", &script];
        let own = ["--port={port}", "--version-name", version];
        for argument in own.iter().chain(arguments) {
            all.extend(["--arg", argument]);
        }
        self.ok(&all);
    }

    /// Makes a stack of `version` and waits until it is ready.
    pub fn new_stack(&self, version: &str) {
        self.ok(&["new", "api", version, "--wait"]);
    }

    /// Declares `api`, ships 1.0.0 with all traffic, and returns where users connect.
    pub fn serving(&self, more: &str) -> String {
        self.declare(more);
        self.release("1.0.0", &[]);
        self.new_stack("1.0.0");
        self.ok(&["traffic", "api", "1.0.0", "100"]);
        eventually("the weights are applied", || self.deployment()["weights_applied"] == true);
        self.users()
    }

    /// Returns where users connect.
    pub fn users(&self) -> String {
        let deployment = "production/api".parse().unwrap();
        let held = self.ask_proxy(async move |proxy| proxy.routes(&deployment).await);
        held.unwrap().expect("the proxy has routes").listening.to_string()
    }

    /// Asks the proxy over its control socket, from a thread of its own so that it may be called anywhere.
    pub fn ask_proxy<T: Send>(&self, ask: impl AsyncFnOnce(ProxyControl) -> T + Send) -> T {
        let proxy = ProxyControl::of(&self.data());
        std::thread::scope(|scope| {
            let asking = scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(ask(proxy))
            });
            asking.join().unwrap()
        })
    }

    /// Returns what `status` says of the deployment production/api.
    #[track_caller]
    pub fn deployment(&self) -> Value {
        self.json(&["status", "api"])["services"][0]["deployments"][0].clone()
    }

    /// Waits until the rollout has ended, and returns how.
    pub fn rollout_ended(&self) -> String {
        eventually("the rollout has ended", || self.deployment()["rollout"]["live"] == false);
        self.deployment()["rollout"]["phase"].as_str().unwrap().to_owned()
    }

    /// Returns the weight that is set for a version, in basis points.
    pub fn weight(&self, version: &str) -> u64 {
        let versions = self.deployment()["versions"].as_array().unwrap().clone();
        let found = versions.iter().filter(|found| found["version"] == version);
        found.filter_map(|found| found["weight_set"].as_u64()).max().unwrap_or(0)
    }

    /// Ends `up`, the proxy and every node.
    pub fn take_down(&mut self) {
        if let Some(mut up) = self.up.take() {
            let _ = up.kill();
            let _ = up.wait();
        }
        let proxy = self.ask_proxy(async |proxy| proxy.status().await).ok().map(|status| status.pid);
        for pid in self.node_processes().into_iter().chain(proxy) {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }

    /// Returns the process ids of all nodes that run.
    pub fn node_processes(&self) -> Vec<u32> {
        let nodes = self.data().join("nodes");
        let Ok(folders) = fs::read_dir(nodes) else { return vec![] };
        let records = folders.filter_map(|folder| fs::read(folder.ok()?.path().join("node.json")).ok());
        let pids = records.filter_map(|record| serde_json::from_slice::<Value>(&record).ok()?["pid"].as_u64());
        pids.filter_map(|pid| u32::try_from(pid).ok()).filter(|pid| lives(*pid)).collect()
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        self.take_down();
    }
}

/// Says whether a process runs and is no zombie.
pub fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
}

/// Waits for a condition, with a deadline.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
