//! Usage errors: what clap found wrong, in one line.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::failure::Failure;

/// Returns what is wrong with a command line, in one line with the next step.
pub(crate) fn failure(error: &clap::Error) -> Failure {
    let context = |kind| error.get(kind).map(text).filter(|text| !text.is_empty());
    let name = |kind| context(kind).unwrap_or_default();
    let help = help_of(error);
    Failure::usage(match error.kind() {
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            let argument = name(ContextKind::InvalidArg);
            match (cause, context(ContextKind::ValidValue)) {
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
            let next = did_you_mean(context(ContextKind::SuggestedArg));
            format!("unexpected `{}`{next}; see `{help}`", name(ContextKind::InvalidArg))
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
    if command.is_empty() { "ionledger --help".to_owned() } else { format!("{} --help", command.join(" ")) }
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
