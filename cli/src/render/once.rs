//! Reasons said once: a commit's events often have the same reason, and so does the commit itself.

use serde_json::Value;

/// Returns what each event of a commit says; a reason that was said before in the commit is left out. Each event is its
/// summary and its payload.
pub(crate) fn told<'a>(events: impl Iterator<Item = (&'a str, &'a Value)>, reason: Option<&str>) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for (summary, data) in events {
        let reasons = data["reason"].as_str().into_iter().chain(reason).filter(|reason| !reason.is_empty());
        let again = reasons.filter(|reason| is_told(&told, reason));
        let short = again.filter_map(|reason| summary.strip_suffix(&format!(": {reason}"))).next();
        told.push(short.unwrap_or(summary).to_owned());
    }
    told
}

/// Says whether one of these lines ends with `reason`.
pub(crate) fn is_told(told: &[String], reason: &str) -> bool {
    told.iter().any(|line| line.ends_with(&format!(": {reason}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reason_is_said_once_in_a_commit() {
        let [why, rule] =
            ["checkout fails", "left by hand for the older 1.0: checkout fails"].map(|why| json!({"reason": why}));
        let none = json!({});
        let events = [
            ("rolled back from 1.1 to 1.0: checkout fails", &why),
            ("traffic was set to 1.0 100 % (rollback)", &none),
            ("1.1 came back: checkout fails", &why),
            ("1.1 is rejected: left by hand for the older 1.0: checkout fails", &rule),
        ];
        let told = told(events.into_iter(), Some("checkout fails"));
        assert_eq!(
            told,
            [
                "rolled back from 1.1 to 1.0: checkout fails",
                "traffic was set to 1.0 100 % (rollback)",
                "1.1 came back",
                "1.1 is rejected: left by hand for the older 1.0",
            ]
        );
        assert!(is_told(&told, "checkout fails") && !is_told(&told, "fails"));
    }
}
