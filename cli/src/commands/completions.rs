//! `ionledger completions`: what a shell needs to complete command lines.

use clap::{Args, ValueEnum as _};
use clap_complete::Shell;
use clap_complete::env::Shells;

use crate::complete::VARIABLE;
use crate::exit::Exit;
use crate::failure::{CommandResult, Failure};
use crate::session::Session;

/// Print what a shell runs to complete command lines, with the ledger's services and versions.
///
/// The shell then asks this program, so the script must be of the same version: print it again after an upgrade, or have the
/// shell read it at each start, as `source <(ionledger completions bash)` does in ~/.bashrc.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ionledger completions bash > ~/.ionledger.bash    # and `source ~/.ionledger.bash` in ~/.bashrc
  ionledger completions zsh > ~/.ionledger.zsh      # and `source ~/.ionledger.zsh` in ~/.zshrc
  ionledger completions fish > ~/.ionledger.fish    # and `source ~/.ionledger.fish` in config.fish")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        let mut script = Vec::new();
        let shell = self.shell.to_possible_value();
        let shells = Shells::builtins();
        let completer = shell.as_ref().and_then(|shell| shells.completer(shell.get_name()));
        let written = completer.map(|completer| {
            completer.write_registration(VARIABLE, "ionledger", "ionledger", "ionledger", &mut script)
        });
        written
            .unwrap_or_else(|| Err(std::io::Error::other("no script for this shell is known")))
            .map_err(|error| Failure::error(format!("completions {}: {error}", self.shell)))?;
        session.out.data(&String::from_utf8_lossy(&script))?;
        Ok(Exit::Done)
    }
}
