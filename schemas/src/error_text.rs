//! Errors as users read them: a message with its cause, and the next step in a field of its own.
//!
//! An error is written as one text, `thing: cause; next step`, and this module alone takes it apart. docs/messages.md lists every one.

use std::fmt;

/// An error's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorText {
    /// The thing and the cause.
    pub message: String,
    /// The next step, with the command.
    pub hint: Option<String>,
}

impl ErrorText {
    /// Takes a text apart: its hint begins behind the first `; ` that stands neither in backticks, double quotes nor brackets, which
    /// hold what others wrote.
    pub fn of(text: impl fmt::Display) -> Self {
        let text = text.to_string();
        match split(&text) {
            Some((message, hint)) if !hint.trim().is_empty() => {
                Self { message: message.to_owned(), hint: Some(hint.to_owned()) }
            }
            _ => Self { message: text, hint: None },
        }
    }

    /// Returns a text whose hint is known; without one it has none.
    pub fn with_hint(text: &str, hint: Option<&str>) -> Self {
        let message = hint.and_then(|hint| text.strip_suffix(hint)?.strip_suffix("; "));
        match (message, hint) {
            (Some(message), Some(hint)) => Self { message: message.to_owned(), hint: Some(hint.to_owned()) },
            // The text does not end with it: nothing of either is left out.
            (_, hint) => Self { message: text.to_owned(), hint: hint.map(str::to_owned) },
        }
    }

    /// Returns the next step, or `unsaid` if the error has none.
    pub fn hint_or(self, unsaid: &str) -> (String, String) {
        (self.message, self.hint.unwrap_or_else(|| unsaid.to_owned()))
    }
}

impl fmt::Display for ErrorText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hint {
            Some(hint) => write!(f, "{}; {hint}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

fn split(text: &str) -> Option<(&str, &str)> {
    let (mut ticks, mut quotes, mut depth) = (false, false, 0_usize);
    for (at, c) in text.char_indices() {
        match c {
            '`' if !quotes => ticks = !ticks,
            '"' if !ticks => quotes = !quotes,
            '(' | '[' | '{' if !ticks && !quotes => depth += 1,
            ')' | ']' | '}' if !ticks && !quotes => depth = depth.saturating_sub(1),
            ';' if !ticks && !quotes && depth == 0 && text[at..].starts_with("; ") => {
                return Some((&text[..at], &text[at + 2..]));
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_begins_behind_the_first_semicolon_that_is_not_quoted() {
        let parted = |text: &str| ErrorText::of(text).hint_or("");
        for (text, message, hint) in [
            ("service api is unknown; declare it", "service api is unknown", "declare it"),
            ("x is unknown; declare it; known: y", "x is unknown", "declare it; known: y"),
            ("cannot listen: permission denied", "cannot listen: permission denied", ""),
            ("run `a; b` (or c; d); then e", "run `a; b` (or c; d)", "then e"),
            ("it said \"no; never\"", "it said \"no; never\"", ""),
            ("`odd; look", "`odd; look", ""),
            ("a;b; c", "a;b", "c"),
        ] {
            assert_eq!(parted(text), (message.to_owned(), hint.to_owned()), "{text}");
            assert_eq!(ErrorText::of(text).to_string(), text);
        }
    }

    #[test]
    fn a_known_hint_is_taken_off_the_text_and_nothing_is_lost_if_it_is_not_its_end() {
        let known = ErrorText::with_hint("held: a; b; lift it", Some("lift it"));
        assert_eq!((known.message.as_str(), known.hint.as_deref()), ("held: a; b", Some("lift it")));
        let other = ErrorText::with_hint("held", Some("lift it"));
        assert_eq!(other.to_string(), "held; lift it");
        assert_eq!(ErrorText::with_hint("held; lift it", None).message, "held; lift it");
    }
}
