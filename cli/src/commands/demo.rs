//! `ionledger demo`: the whole way in a minute, with real processes and real HTTP traffic.
//!
//! It runs the very commands that a person would, in a data folder of its own, and shows what users get meanwhile.

mod chart;
mod show;
mod users;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use api::client::Client;
use api::question::StatusQuestion;
use clap::Args;
use jiff::Timestamp;
use miette::{IntoDiagnostic, bail, miette};
use replay::answer::DeploymentStatus;
use tokio::time::{Instant, sleep};

use show::Show;
use users::Users;

/// Ship a good version and a bad one with live traffic, and ask history about it; takes under a minute.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ionledger demo
  ionledger demo --stay")]
pub(crate) struct Demo {
    /// Leave everything running at the end, to go on with by hand.
    #[arg(long)]
    stay: bool,
}

/// The service of the demo: quick checks, and a tolerance at which a hundred good requests show that a version is not
/// worse, so that a day's rollout takes seconds.
const SERVICE: &str = r#"name = "api"
owner = "demo team"
description = "a tiny service with settable faults"

[check]
path = "/health"
interval = "300 ms"
healthy_after = 1

[capacity]
nodes = 2
min_ready = 1

[rollout]
steps = ["10 %", "25 %", "50 %", "100 %"]
duration = "8 seconds"

[judgement]
errors_tolerance = "5 %"
weights = { errors = 100, p50 = 0, p99 = 0 }
requests_min = 15
"#;

/// Requests a second that users send.
const PACE: u32 = 400;

/// How long anything in the demo may take.
const PATIENCE: Duration = Duration::from_secs(40);

impl Demo {
    /// Runs the demo.
    pub(crate) fn run(self) -> miette::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().into_diagnostic()?;
        runtime.block_on(self.play())
    }

    async fn play(self) -> miette::Result<ExitCode> {
        let mut stage = Stage::open().await?;
        let played = tokio::select! {
            played = stage.play() => played,
            _ = tokio::signal::ctrl_c() => Err(miette!("the demo was interrupted")),
        };
        if self.stay && played.is_ok() {
            stage.stay();
        } else {
            stage.take_down().await?;
        }
        played.map(|()| ExitCode::SUCCESS)
    }
}

/// A data folder with `up` on it.
struct Stage {
    folder: PathBuf,
    program: PathBuf,
    up: Child,
    client: Client,
    show: Show,
}

impl Stage {
    async fn open() -> miette::Result<Self> {
        let folder = tempfile::Builder::new().prefix("ionledger-demo-").tempdir().into_diagnostic()?.keep();
        // Nodes with users of their own must be able to pass through.
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o711)).into_diagnostic()?;
        let program = std::env::current_exe().into_diagnostic()?;
        let data = folder.join("data");
        let log = std::fs::File::create(folder.join("up.log")).into_diagnostic()?;
        let show = Show::new();
        show.title("ionledger demo: ship a good version, then a bad one, with users on the line");
        show.step("start everything on a data folder of its own");
        show.command(&["up"]);
        let mut up = Command::new(&program);
        up.args(["up", "--down"]).env("IONLEDGER_DATA", &data);
        // A session of its own: Ctrl-C is for the demo, which then ends it.
        std::os::unix::process::CommandExt::process_group(&mut up, 0);
        let up = up.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().into_diagnostic()?;
        let client = Client::of_data(&data);
        let mut stage = Self { folder, program, up, client, show };
        stage.wait_until_up().await?;
        Ok(stage)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    async fn wait_until_up(&mut self) -> miette::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.client.ready().await.is_err() {
            if let Some(status) = self.up.try_wait().into_diagnostic()? {
                let log = std::fs::read_to_string(self.folder.join("up.log")).unwrap_or_default();
                bail!("`ionledger up` ended with {status}: {log}");
            }
            if Instant::now() > deadline {
                bail!("`ionledger up` does not answer; its log is {}", self.folder.join("up.log").display());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn play(&mut self) -> miette::Result<()> {
        self.declare()?;
        self.show.step("version 1.0.0: two processes, checked before they get a single request");
        self.release("1.0.0", "0")?;
        self.run(&["new", "api", "1.0.0", "--wait"])?;
        self.run(&["traffic", "api", "1.0.0", "100"])?;
        let users = Users::start(self.address().await?, PACE);

        self.show.step("version 1.1.0 is good: it gets traffic little by little and is judged at each step");
        self.release("1.1.0", "0.002")?;
        self.run(&["new", "api", "1.1.0", "--wait"])?;
        self.run(&["roll", "api", "1.0.0", "1.1.0", "6 seconds"])?;
        self.watch(&users).await?;
        let between = Timestamp::now();

        self.show.step("version 1.2.0 is bad: it fails 30 % of its requests, and comes back by itself");
        self.release("1.2.0", "0.3")?;
        self.run(&["new", "api", "1.2.0", "--wait"])?;
        self.run(&["roll", "api", "1.1.0", "1.2.0", "6 seconds"])?;
        self.watch(&users).await?;
        self.show.users(&users.stop().await);
        self.show.step("why it came back, in words and numbers");
        self.run(&["explain", "api"])?;

        self.show.step("history answers who shipped what, and what served at a moment in between");
        self.run(&["who-shipped", "api", "--at", &between.to_string()])?;
        self.run(&["history", "api", "--limit", "6"])?;
        self.run(&["status", "api"])?;
        self.show.step("nothing was changed afterwards: every hash is computed again");
        self.run(&["verify"])?;
        self.show.charts();
        Ok(())
    }

    fn declare(&self) -> miette::Result<()> {
        let file = self.folder.join("api.toml");
        std::fs::write(&file, SERVICE).into_diagnostic()?;
        self.run_shown(&["apply", "api.toml"], &["apply", &file.to_string_lossy()])
    }

    fn release(&self, version: &str, error_rate: &str) -> miette::Result<()> {
        let program = self.program.to_string_lossy();
        let all = [
            "release",
            "api",
            version,
            "--artifact",
            &program,
            "--arg=demo-service",
            "--arg=--port={port}",
            "--arg=--version-name",
            &format!("--arg={version}"),
            "--arg=--latency-ms=5",
            &format!("--arg=--error-rate={error_rate}"),
        ];
        self.run_shown(&["release", "api", version, "--artifact", "demo-service", "..."], &all)
    }

    /// Shows a command and runs it as a person would.
    fn run(&self, arguments: &[&str]) -> miette::Result<()> {
        self.run_shown(arguments, arguments)
    }

    fn run_shown(&self, shown: &[&str], arguments: &[&str]) -> miette::Result<()> {
        self.show.command(shown);
        let mut command = Command::new(&self.program);
        command.args(arguments).env("IONLEDGER_DATA", self.data()).current_dir(&self.folder).stdin(Stdio::null());
        let status = command.status().into_diagnostic()?;
        if status.success() { Ok(()) } else { bail!("`ionledger {}` ended with {status}", arguments.join(" ")) }
    }

    /// Returns where users connect, once the weights are applied.
    async fn address(&self) -> miette::Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let deployment = self.deployment().await?;
            if let (true, Some(listen)) = (deployment.weights_applied, deployment.listen) {
                return Ok(listen.to_string());
            }
            if Instant::now() > deadline {
                bail!("the proxy did not confirm the weights within {} s", PATIENCE.as_secs());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn deployment(&self) -> miette::Result<DeploymentStatus> {
        let question = StatusQuestion::now(Some(&"api".parse().into_diagnostic()?), None);
        let status = self.client.ask(&question).await.map_err(|error| miette!("{error}"))?;
        let service = status.services.into_iter().next();
        service.and_then(|service| service.deployments.into_iter().next()).ok_or_else(|| miette!("api is not deployed"))
    }

    /// Shows the rollout until it has ended.
    async fn watch(&self, users: &Users) -> miette::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let deployment = self.deployment().await?;
            let rollout = deployment.rollout.as_ref().ok_or_else(|| miette!("the rollout is gone"))?;
            self.show.rollout(rollout, &users.seen());
            if !rollout.live {
                self.show.rollout_ended(rollout);
                // Its chart shows what it came to, too.
                sleep(Duration::from_millis(700)).await;
                self.show.note(rollout);
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the rollout did not end within {} s", PATIENCE.as_secs());
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    fn stay(self) {
        self.show.next_steps(&self.data(), Some(self.up.id()));
    }

    async fn take_down(mut self) -> miette::Result<()> {
        let pid = i32::try_from(self.up.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // Not yet waited for, so the number still means it.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let ended = tokio::task::spawn_blocking(move || self.up.wait().map(|_| (self.folder, self.show)));
        let (folder, show) = ended.await.into_diagnostic()?.into_diagnostic()?;
        remove(&folder);
        show.next_steps(Path::new("./ledger"), None);
        Ok(())
    }
}

/// Removes the demo's folder; what cannot be removed is left to the system's own cleaning of its temporary folder.
fn remove(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder) {
        eprintln!("note: {} was not removed: {error}", folder.display());
    }
}
