//! Free text that people and pipelines give: short, printable, and without secrets, as it is kept for ever.

use crate::secret;

/// Why a text is refused. The text is not repeated: it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {rule}")]
pub struct InvalidText {
    what: &'static str,
    rule: String,
}

/// Checks a text called `what` of at most `bytes_max` bytes. Empty text passes.
///
/// # Errors
///
/// [`InvalidText`] if it is too long, holds control characters, or a word of it looks like a secret.
pub fn check(what: &'static str, text: &str, bytes_max: usize) -> Result<(), InvalidText> {
    let fail = |rule: String| Err(InvalidText { what, rule });
    if text.len() > bytes_max {
        return fail(format!("is {} bytes long, at most {bytes_max} are allowed; shorten it", text.len()));
    }
    if text.chars().any(char::is_control) {
        return fail("holds a line break or another control character; write it on one line".to_owned());
    }
    match text.split_whitespace().find_map(secret::looks_like_secret_word) {
        Some(why) => fail(format!("seems to contain a secret ({why}); leave it out, the ledger keeps every text")),
        None => Ok(()),
    }
}

/// How long a worker's reason is kept, in bytes.
const REASON_BYTES_MAX: usize = 1_000;

/// Returns a reason as it may be kept for ever, whatever it was made of: on one line, cut at 1,000 bytes, with `[...]`
/// for each word that looks like a secret. For what must not be refused: a worker's report, a rollback.
pub fn tidy(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let mut tidy = String::new();
    for word in words {
        let word = if secret::looks_like_secret_word(word).is_some() { "[...]" } else { word };
        if !tidy.is_empty() {
            tidy.push(' ');
        }
        tidy.push_str(word);
        if tidy.len() > REASON_BYTES_MAX {
            tidy.truncate(tidy.floor_char_boundary(REASON_BYTES_MAX));
            tidy.push_str("...");
            break;
        }
    }
    tidy
}

/// Returns the one of `known` that was meant by `name`, if one is near.
pub fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    /// Of 1; from here on two words look alike.
    const ALIKE: f64 = 0.8;
    let scored = known.iter().map(|known| (strsim::jaro_winkler(name, known), *known));
    let best = scored.max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.filter(|(score, _)| *score >= ALIKE).map(|(_, known)| known)
}

/// How many known names a message lists.
const LISTED_MAX: usize = 8;

/// Returns what to say of a `name` that is not among `known`: which one was meant, and which there are, the first eight.
/// Empty if there are none.
pub fn known_instead(name: &str, known: &[&str]) -> String {
    let meant = nearest(name, known).map(|near| format!("did you mean {near}? ")).unwrap_or_default();
    match known.len() {
        0 => String::new(),
        count if count > LISTED_MAX => {
            format!("{meant}known are {} and {} more", known[..LISTED_MAX].join(", "), count - LISTED_MAX)
        }
        _ => format!("{meant}known: {}", known.join(", ")),
    }
}

/// Returns a number with its thousands set apart: `48,211`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (n, digit) in digits.char_indices() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a number and its noun: `1 node`, `3 nodes`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// Returns how many nodes of a stack are ready: `0 of 1 node ready`, `1 of 2 nodes ready`.
pub fn nodes_ready(ready: u16, wanted: u16) -> String {
    format!("{ready} of {} ready", count(wanted.into(), "node", "nodes"))
}

/// The reason that is recorded of what somebody asked for without one.
pub const UNSAID: &str = "asked for";

/// Returns a recorded reason if somebody gave one.
pub fn given(reason: &str) -> Option<&str> {
    Some(reason).filter(|reason| !reason.is_empty() && *reason != UNSAID)
}

/// Returns a recorded reason behind what it is the reason of, `: checkout fails`; nothing if nobody gave one.
pub fn because(reason: &str) -> String {
    given(reason).map(|reason| format!(": {reason}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_kept_on_one_line_cut_short_and_without_secrets() {
        assert_eq!(tidy("exit 1:\n  bad\tkey \u{1b}[31m"), "exit 1: bad key [31m");
        assert_eq!(tidy("cannot reach postgres://app:hunter2@db/app now"), "cannot reach [...] now");
        let long = tidy(&"\u{e9}".repeat(600));
        assert_eq!((long.len(), long.ends_with("...")), (1_003, true));
        let ordinary = "worse: 60 of 500 requests failed, baseline 5 of 4500; tolerance 1 %";
        assert_eq!(tidy(ordinary), ordinary);
    }

    #[test]
    fn one_thing_is_not_told_as_many_and_no_reason_is_not_told_as_one() {
        assert_eq!([0, 1, 2_000].map(|n| count(n, "tick", "ticks")), ["0 ticks", "1 tick", "2,000 ticks"]);
        assert_eq!([nodes_ready(0, 1), nodes_ready(1, 2)], ["0 of 1 node ready", "1 of 2 nodes ready"]);
        assert_eq!(["checkout fails", UNSAID, ""].map(because), [": checkout fails", "", ""]);
    }

    fn error(text: &str) -> String {
        check("the reason", text, 500).unwrap_err().to_string()
    }

    #[test]
    fn an_ordinary_sentence_passes() {
        assert_eq!(check("the reason", "the pager rang: 5 % of checkouts failed (INC-4711) since 10:32", 500), Ok(()));
        assert_eq!(check("the reason", "", 500), Ok(()));
    }

    #[test]
    fn long_text_control_characters_and_secrets_are_refused_without_repeating_them() {
        assert_eq!(error(&"x".repeat(501)), "the reason is 501 bytes long, at most 500 are allowed; shorten it");
        assert!(error("one\ntwo").starts_with("the reason holds a line break"));
        assert!(error("\u{1b}[31mred").starts_with("the reason holds a line break"));
        for secret in ["it said password=hunter2hunter2", "see postgres://app:hunter2@db/app", "AKIAIOSFODNN7EXAMPLE"] {
            let error = error(secret);
            assert!(error.starts_with("the reason seems to contain a secret"), "{error}");
            assert!(!error.contains("hunter2") && !error.contains("AKIA"), "{error}");
        }
    }
}
