//! `ionledger node-exec`: the hidden second half of a launch, which becomes the node.

use std::path::PathBuf;
use std::process::ExitCode;

use workers::identity::Identity;

/// Becomes the node that is described in a folder; not for people.
#[derive(Debug, clap::Args)]
pub(crate) struct NodeExec {
    /// The node's folder, `DATA/nodes/<effect id>`, with its `launch.json`.
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// The artifact's verified copy.
    #[arg(long, value_name = "FILE")]
    artifact: PathBuf,
    /// As whom it runs, `UID:GID[:GID...]`; without it as who called.
    #[arg(long, value_name = "IDENTITY")]
    identity: Option<Identity>,
}

impl NodeExec {
    pub(crate) fn run(self) -> ExitCode {
        workers::nodes::process::node_exec(&self.dir, &self.artifact, self.identity.as_ref())
    }
}
