//! Running the binary.

use std::path::Path;
use std::process::{Command, Output};

use crate::process::output;

/// What a run of the binary left.
#[derive(Debug)]
pub struct Run {
    /// Its exit code.
    pub code: i32,
    /// Its data.
    pub stdout: String,
    /// Its talk.
    pub stderr: String,
}

/// Returns the binary without those variables of this process's environment that it reads.
pub fn ionledger() -> Command {
    let mut command = Command::new(crate::program());
    let is_ours = |name: &str| name.starts_with("IONLEDGER_") || ["NO_COLOR", "CLICOLOR_FORCE"].contains(&name);
    for (name, _) in std::env::vars().filter(|(name, _)| is_ours(name)) {
        command.env_remove(name);
    }
    command
}

/// Runs the binary with `words` as its arguments, on the data folder `data`.
pub fn run(data: &Path, words: &[&str]) -> Run {
    ran(output(ionledger().env("IONLEDGER_DATA", data).args(words)))
}

/// Runs the binary with a sentence of plain words as its arguments.
pub fn say(data: &Path, sentence: &str) -> Run {
    run(data, &sentence.split_whitespace().collect::<Vec<_>>())
}

/// Returns a run as its output and its exit code.
pub fn ran(output: Output) -> Run {
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Run { code: output.status.code().expect("no signal"), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Run {
    /// Asserts that it ended with `code`, one line of error, one of hint at most, and no data; returns `message; hint`.
    #[track_caller]
    pub fn mistake(&self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        let line = self.stderr.strip_suffix('\n').unwrap_or_else(|| panic!("no line: {self:?}"));
        let line = line.strip_prefix("error: ").unwrap_or_else(|| panic!("no error: {self:?}"));
        let line = line.replacen("\nhint: ", "; ", 1);
        assert!(!line.contains('\n'), "more than a line: {self:?}");
        line
    }
}
