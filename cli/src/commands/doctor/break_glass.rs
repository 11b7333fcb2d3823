//! What was done without the ledger: what waits for it, what was set aside, and the key that signs.

use std::path::Path;

use workers::break_glass::Folder;

use super::folder::mode;
use super::{AS_OWNER, Finding};

const THING: &str = "break-glass";

/// Looks at what was done without the ledger.
pub(super) fn findings(data: &Path) -> Vec<Finding> {
    let folder = Folder::of(data);
    let mut findings = Vec::new();
    match folder.waiting() {
        Err(error) => findings.push(Finding::fail(
            THING,
            error.to_string(),
            format!("{AS_OWNER}, and check the disk"),
        )),
        Ok(waiting) => findings.extend(waiting.into_iter().map(|found| {
            let file = found.file.display();
            match found.intent {
                Ok(intent) => Finding::warn(
                    THING,
                    format!(
                        "a rollback of {} to {} was asked for at {} and is not in the ledger yet: {file}",
                        intent.deployment, intent.version, intent.at
                    ),
                    "it is recorded by itself once `ionledger up` runs and the log answers; `ionledger status` says what users get",
                ),
                Err(why) => Finding::fail(
                    THING,
                    format!("{file}: {why}"),
                    "`ionledger up` sets it aside; find out who wrote it",
                ),
            }
        })),
    }
    match folder.aside() {
        Err(error) => findings.push(Finding::fail(THING, error.to_string(), format!("{AS_OWNER}, and check the disk"))),
        Ok(aside) => findings.extend(aside.into_iter().map(|aside| {
            let what = format!("set aside and not recorded: {}: {}", aside.file.display(), aside.why);
            Finding::warn(THING, what, "find out who wrote it; then remove it")
        })),
    }
    let key = folder.key_file();
    if mode(&key).is_some_and(|mode| mode & 0o077 != 0) {
        let what = format!("{} can be read by others, who can then sign in this node's name", key.display());
        findings.push(Finding::fail(THING, what, format!("chmod 600 {}", key.display())));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(THING, "nothing was done without the ledger that it does not have"));
    }
    findings
}
