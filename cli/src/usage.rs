//! Usage errors: what clap found wrong, in one line.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::failure::{CommandResult, Failure};

/// Returns what is wrong with a command line, in one line with the next step.
pub(crate) fn failure(error: &clap::Error) -> Failure {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(why) = unquoted_in(error, &words) {
        return Failure::usage(why);
    }
    let context = |kind| error.get(kind).map(text).filter(|text| !text.is_empty());
    let name = |kind| context(kind).unwrap_or_default();
    let help = help_of(error);
    Failure::usage(match error.kind() {
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            let argument = name(ContextKind::InvalidArg);
            match (cause, context(ContextKind::ValidValue)) {
                (Some(cause), _) if argument.contains("SERVICE") && name(ContextKind::InvalidValue).contains('/') => {
                    format!(
                        "{argument}: {cause}; a service's environment is named with --env, as `api --env production`"
                    )
                }
                (Some(cause), _) => format!("{argument}: {cause}"),
                (None, Some(valid)) => format!("{argument}: write `{valid}`"),
                (None, None) => format!("{argument}: a value is missing; see `{help}`"),
            }
        }
        ErrorKind::InvalidSubcommand => {
            let asked = name(ContextKind::InvalidSubcommand);
            let meant = commands_like(&asked);
            let next = did_you_mean((!meant.is_empty()).then(|| meant.join("` or `")));
            format!("no command `{asked}`{next}; see `ionledger --help`")
        }
        ErrorKind::UnknownArgument if is_negative(&name(ContextKind::InvalidArg)) => {
            let number = name(ContextKind::InvalidArg);
            format!("unexpected `{number}`: numbers and lengths of time are written without a minus; see `{help}`")
        }
        ErrorKind::UnknownArgument => {
            let asked = name(ContextKind::InvalidArg);
            let next = did_you_mean(context(ContextKind::SuggestedArg).filter(|meant| is_near(&asked, meant)));
            let past = help == "ionledger status --help" && ["--at", "--offset", "--event"].contains(&asked.as_str());
            let past =
                if past { "; status shows how it stands now, and `ionledger replay --at TIME` the past" } else { "" };
            format!("unexpected `{asked}`{next}{past}; see `{help}`")
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = match error.get(ContextKind::InvalidArg) {
                Some(ContextValue::Strings(all)) => all.join(" and "),
                _ => name(ContextKind::InvalidArg),
            };
            format!("missing {missing}; see `{help}`")
        }
        _ => {
            let text = error.render().to_string();
            let first = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
            let line: Vec<&str> = first.split_whitespace().collect();
            format!("{}; see `{help}`", line.join(" "))
        }
    })
}

/// Says how to write a value of several words that a shell took apart, if the error comes from one: `--for 2 h`.
fn unquoted_in(error: &clap::Error, words: &[String]) -> Option<String> {
    let wrong = match error.kind() {
        ErrorKind::ValueValidation => error.get(ContextKind::InvalidValue).map(text)?,
        ErrorKind::UnknownArgument => error.get(ContextKind::InvalidArg).map(text)?,
        _ => return None,
    };
    words.iter().enumerate().filter(|(_, word)| **word == wrong).find_map(|(at, _)| unquoted(words, at))
}

/// Reads a moment that is written on the command line.
///
/// # Errors
///
/// A usage error: it is none, or only the first word of one.
pub(crate) fn moment(text: &str, now: &jiff::Zoned) -> CommandResult<jiff::Timestamp> {
    api::moment::parse(text, now).map_err(|error| {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let quoted = words.iter().position(|word| word == text).and_then(|at| unquoted(&words, at));
        quoted.map_or_else(|| Failure::usage(error), Failure::usage)
    })
}

/// Returns how to write the value of the option before the word `at`, or before those that lead to it, if the words after the
/// option make one value together: a length of time or a moment.
fn unquoted(words: &[String], at: usize) -> Option<String> {
    if words[at].starts_with("--") {
        return None;
    }
    let option = words[..=at].iter().rposition(|word| word.starts_with("--") && word.len() > 2)?;
    let values = &words[option + 1..];
    let is_value = |joined: &str| {
        api::moment::duration_ms(joined).is_ok() || api::moment::parse(joined, &jiff::Zoned::now()).is_ok()
    };
    let end = (2..=values.len().min(6)).rev().find(|end| is_value(&values[..*end].join(" ")))?;
    if option + end < at {
        return None;
    }
    let (option, joined, first) = (&words[option], values[..end].join(" "), &values[0]);
    let glued = values[..end].concat();
    let or = if api::moment::duration_ms(&glued).is_ok() { format!(" or `{option} {glued}`") } else { String::new() };
    Some(format!("{option}: `{first}` is only a part of the value; write `{option} \"{joined}\"`{or}"))
}

/// Says whether a flag may have been meant by another: the shorter it is, the fewer letters may differ.
fn is_near(asked: &str, meant: &str) -> bool {
    let letters = asked.trim_start_matches('-');
    strsim::damerau_levenshtein(letters, meant.trim_start_matches('-')) <= (letters.len() / 3).max(1)
}

/// Says whether an argument that nobody knows is a negative number: `-1h` is read as a flag `-1`.
fn is_negative(argument: &str) -> bool {
    argument.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Returns the commands for people that were meant, the likeliest first: two at most. `retire`, which takes everything down, is
/// named only for a slip of one letter.
fn commands_like(asked: &str) -> Vec<String> {
    let command = crate::complete::command();
    let near = |name: &str| name != "retire" || strsim::damerau_levenshtein(asked, name) <= 1;
    let mut alike: Vec<(f64, &str)> = command
        .get_subcommands()
        .map(|command| (strsim::jaro_winkler(asked, command.get_name()), command.get_name()))
        .filter(|(likeness, name)| *likeness >= 0.8 && near(name))
        .collect();
    alike.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    alike.into_iter().take(2).map(|(_, name)| name.to_owned()).collect()
}

fn did_you_mean(suggestion: Option<String>) -> String {
    suggestion.map(|suggestion| format!(", did you mean `{suggestion}`?")).unwrap_or_default()
}

/// The help of the command that was meant, read from the usage line: `ionledger traffic --help`.
fn help_of(error: &clap::Error) -> String {
    let usage = error.get(ContextKind::Usage).map(text).unwrap_or_default();
    let words = usage.split_whitespace().skip_while(|word| *word != "ionledger");
    let command: Vec<&str> = words.take_while(|word| !word.starts_with(['[', '<', '-'])).collect();
    match (command.is_empty(), named()) {
        (false, _) => format!("{} --help", command.join(" ")),
        (true, Some(name)) => format!("ionledger {name} --help"),
        (true, None) => "ionledger --help".to_owned(),
    }
}

/// The command on this program's command line.
fn named() -> Option<String> {
    let command = crate::complete::command();
    let is_command = |word: &String| command.get_subcommands().any(|known| known.get_name() == word);
    std::env::args().skip(1).find(is_command)
}

fn text(value: &ContextValue) -> String {
    match value {
        ContextValue::String(text) => text.clone(),
        ContextValue::Strings(texts) => texts.join("` or `"),
        ContextValue::StyledStr(text) => text.to_string(),
        ContextValue::StyledStrs(texts) => texts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        ContextValue::Bool(value) => value.to_string(),
        ContextValue::Number(value) => value.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str, wrong: &str) -> Option<String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let at = words.iter().position(|word| word == wrong)?;
        unquoted(&words, at)
    }

    #[test]
    fn a_value_of_several_words_is_to_be_quoted() {
        let part =
            |option: &str, first: &str| format!("{option}: `{first}` is only a part of the value; write `{option}");
        for (line, wrong, expected) in [
            ("new api 1.2 --roll 10 min", "10", part("--roll", "10") + " \"10 min\"` or `--roll 10min`"),
            ("new api 1.2 --roll 10 min --wait", "min", part("--roll", "10") + " \"10 min\"` or `--roll 10min`"),
            ("hold api --for 1 h 30 m --reason x", "1", part("--for", "1") + " \"1 h 30 m\"` or `--for 1h30m`"),
            ("logs --since 10 m api", "m", part("--since", "10") + " \"10 m\"` or `--since 10m`"),
            ("status --at 2 hours ago", "hours", part("--at", "2") + " \"2 hours ago\"`"),
        ] {
            assert_eq!(told(line, wrong), Some(expected), "{line}");
        }
        for (line, wrong) in [
            ("new api 1.2 --roll 10", "10"),
            ("new api 1.2 --roll 10min foo", "foo"),
            ("roll api 1.0 1.1 10 min", "10"),
            ("hold api --for soon enough", "soon"),
        ] {
            assert_eq!(told(line, wrong), None, "{line}");
        }
    }
}
