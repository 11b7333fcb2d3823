//! What a shell is offered.

use std::path::Path;

use super::binary::{ionledger, ran};
use super::process::output;

/// Returns what a shell is offered for the last of `words`; options only if it begins one.
pub fn completed(data: &Path, words: &[&str]) -> Vec<String> {
    let mut command = ionledger();
    command.env("IONLEDGER_DATA", data).env("IONLEDGER_COMPLETE", "fish");
    let run = ran(output(command.args(["--", "ionledger"]).args(words)));
    assert_eq!(run.code, 0, "{run:?}");
    let option = words.last().is_some_and(|word| word.starts_with('-'));
    let offered = run.stdout.lines().filter_map(|line| line.split('\t').next());
    offered.filter(|word| option || !word.starts_with('-')).map(str::to_owned).collect()
}
