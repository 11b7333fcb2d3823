//! `ionledger release`: a version and what runs it, for good.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use api::server::ARTIFACT_BYTES_MAX;
use clap::Args;
use schemas::command::{self, Command};
use schemas::release::Source;
use schemas::run::{Artifact, EnvValue};
use schemas::{Hash, ServiceName, Version};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use workers::artifacts::program::Program;

use super::change::{change, would};
use crate::args::Asking;
use crate::client::LedgerClient;
use crate::exit::Exit;
use crate::failure::{CommandResult, Failure};
use crate::progress::Progress;
use crate::render::words::grouped;
use crate::sentence;
use crate::session::Session;

/// Record a release: a version, the file it runs and how. It is kept for good and cannot be changed.
///
/// The file must be a program: an ELF binary, or a script whose first line names its interpreter (`#!/bin/sh`). It is sent
/// only if the server does not have it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ionledger release api 1.2.3 --artifact ./target/release/api
  ionledger release api 1.2.3 --artifact ./api --arg serve --arg --port={port}
  ionledger release api 1.2.3 --artifact ./api --var DB_PASSWORD=from_env:API_DB_PASSWORD
  ionledger release api 1.2.4 --artifact ./api --fixes 1.2.3      # lifts the hold of 1.2.3's rollback
  ionledger release api 1.2.3 --artifact ./api --commit 4f2a91c --run-url https://ci/8812")]
pub(crate) struct Release {
    /// The service, as `api`
    #[arg(value_name = "SERVICE")]
    service: ServiceName,
    /// The version, as its team writes it
    #[arg(value_name = "VERSION")]
    version: Version,
    /// The program that runs; it is copied, and the copy runs
    #[arg(long, value_name = "FILE")]
    artifact: PathBuf,
    /// An argument in place of the service's, `{port}` stands for the node's port (more than once)
    #[arg(long = "arg", value_name = "ARG", allow_hyphen_values = true)]
    args: Vec<String>,
    /// A variable beside the service's: NAME=value, NAME=from_env:OTHER or NAME=from_file:PATH (more than once)
    #[arg(long = "var", alias = "env", value_name = "NAME=VALUE", value_parser = sentence::variable)]
    variables: Vec<(String, EnvValue)>,
    /// The version whose fault it mends: its rollout is not held because that one was rolled back
    #[arg(long, value_name = "VERSION")]
    fixes: Option<Version>,
    /// The commit it was built from
    #[arg(long, value_name = "SHA")]
    commit: Option<String>,
    /// The address of the pipeline's run that built it
    #[arg(long, value_name = "URL")]
    run_url: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

impl Release {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        session.wait_for(async {
            let ledger = session.ledger()?;
            let artifact = hashed(session, &self.artifact)?;
            let (path, asking) = (self.artifact.clone(), self.asking.clone());
            let command = self.command(artifact.clone());
            if !asking.dry_run {
                // What is refused anyway need not be sent first, nor what is there already.
                would(session, &ledger, &asking, &command).await?;
                if !ledger.client().has_artifact(artifact.sha256).await? {
                    upload(session, &ledger, &path, &artifact).await?;
                }
            }
            change(session, &ledger, &asking, command).await?;
            Ok(Exit::Done)
        })
    }

    fn command(self, artifact: Artifact) -> Command {
        let env: BTreeMap<String, EnvValue> = self.variables.into_iter().collect();
        let args = (!self.args.is_empty()).then_some(self.args);
        let source = Source { commit: self.commit, run_url: self.run_url };
        Command::Release(command::Release {
            service: self.service,
            version: self.version,
            artifact,
            args,
            env,
            source,
            fixes: self.fixes,
        })
    }
}

/// Reads a file for its hash and length.
fn hashed(session: &Session, path: &Path) -> CommandResult<Artifact> {
    let shown = path.display();
    let unread = |error| Failure::error(format!("cannot read artifact {shown}: {error}; name the program"));
    // Opening a FIFO would wait for somebody to write to it.
    let found = fs::metadata(path).map_err(unread)?;
    if !found.is_file() {
        return Err(Failure::error(format!("artifact {shown} is not a regular file; name the program itself")));
    }
    if found.len() > ARTIFACT_BYTES_MAX {
        let (length, max) = (grouped(found.len()), grouped(ARTIFACT_BYTES_MAX));
        let next = "release a smaller program, and let it fetch its data";
        return Err(Failure::error(format!("artifact {shown} has {length} bytes, at most {max} are allowed; {next}")));
    }
    Program::read(path).map_err(|why| Failure::error(format!("artifact {shown} cannot be run: {why}")))?;
    let mut file = File::open(path).map_err(unread)?;
    let _progress = Progress::begin(session.out, &format!("reading {}", path.display()));
    let (mut hash, mut size_bytes, mut part) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        match file.read(&mut part).map_err(unread)? {
            0 => break,
            n => {
                hash.update(&part[..n]);
                size_bytes += n as u64;
            }
        }
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Artifact { sha256: Hash(hash.finalize().into()), name, size_bytes })
}

async fn upload(session: &Session, ledger: &LedgerClient, path: &Path, artifact: &Artifact) -> CommandResult<()> {
    let progress = Progress::begin(session.out, &format!("sending {}", artifact.name));
    let (sent, mut gone) = watch::channel(0);
    let upload = ledger.client().upload(path, Some(artifact.sha256), sent);
    let told = async {
        while gone.changed().await.is_ok() {
            let bytes = *gone.borrow_and_update();
            progress.say(&format!(
                "sending {}: {} of {} bytes",
                artifact.name,
                grouped(bytes),
                grouped(artifact.size_bytes)
            ));
        }
    };
    let (stored, ()) = tokio::join!(upload, told);
    if stored?.sha256 != artifact.sha256 {
        let name = path.display();
        return Err(Failure::error(format!(
            "artifact {name} changed while it was sent; nothing was recorded, try again"
        )));
    }
    Ok(())
}
