//! What `doctor` found, for eyes and pipes.

use super::table::{self, Cell, paint};
use super::words::{BAD, GOOD, WARN, faint, line, style_of};
use crate::commands::doctor::{Finding, Level};

/// Returns a line for each finding, and below it the next step where there is one.
pub(crate) fn eyes(findings: &[Finding]) -> String {
    let rows: Vec<Vec<Cell>> = findings
        .iter()
        .flat_map(|finding| {
            let (glyph, word) = word(finding.level);
            let row = vec![Cell::glyph(glyph, word), Cell::new(finding.thing), Cell::new(&finding.what)];
            let next = finding
                .next
                .as_ref()
                .map(|next| vec![Cell::new(""), Cell::new(""), Cell::styled(format!("next: {next}"), style_of(glyph))]);
            [Some(row), next].into_iter().flatten()
        })
        .collect();
    let mut text: String = table::lines(&rows).into_iter().map(|line| line + "\n").collect();
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (warnings, failures) = (count(Level::Warn), count(Level::Fail));
    if warnings + failures == 0 {
        text.push_str(&paint("all is well\n", style_of(GOOD)));
    } else {
        text.push_str(&paint(&format!("{failures} fail, {warnings} want attention\n"), faint()));
    }
    text
}

/// Returns a line for each finding.
pub(crate) fn lines(findings: &[Finding]) -> String {
    let of_finding = |finding: &Finding| {
        line(&[
            word(finding.level).1.to_owned(),
            finding.thing.to_owned(),
            finding.what.clone(),
            finding.next.clone().unwrap_or_default(),
        ])
    };
    findings.iter().map(of_finding).collect()
}

fn word(level: Level) -> (&'static str, &'static str) {
    match level {
        Level::Ok => (GOOD, "ok"),
        Level::Warn => (WARN, "warn"),
        Level::Fail => (BAD, "fail"),
    }
}
