//! `ionledger completions`: what a shell needs to complete command lines.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::exit::Exit;
use crate::failure::Outcome;
use crate::session::Session;

/// Print the completions for a shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ionledger completions bash > ~/.local/share/bash-completion/completions/ionledger
  ionledger completions zsh > \"${fpath[1]}/_ionledger\"
  ionledger completions fish > ~/.config/fish/completions/ionledger.fish")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut crate::Cli::command(), "ionledger", &mut script);
        session.out.data(&String::from_utf8_lossy(&script))?;
        Ok(Exit::Done)
    }
}
