//! Sentences: the words of the command line that are more than one value, read into what commands hold.

use std::num::IntErrorKind;
use std::str::FromStr;

use schemas::command::StackWeight;
use schemas::run::EnvValue;
use schemas::weight::NotAllTraffic;
use schemas::{StackName, Weight};

/// Reads `1.2.2 90 1.2.3 10`: versions and their percentages, which make up all traffic.
///
/// # Errors
///
/// What is wrong with the words.
pub(crate) fn shares(words: &[String]) -> Result<Vec<StackWeight>, String> {
    let mut shares: Vec<StackWeight> = Vec::with_capacity(words.len() / 2);
    for pair in words.chunks(2) {
        let version: StackName = pair[0].parse().map_err(|error| format!("{error}"))?;
        let Some(percent) = pair.get(1) else {
            return Err(format!("version {version} has no percentage; write pairs, as `1.2.2 90 1.2.3 10`"));
        };
        let weight: Weight = percent.parse().map_err(|error| format!("version {version}: {error}"))?;
        if shares.iter().any(|share| share.version == version) {
            return Err(format!("version {version} is named twice; name every version once"));
        }
        shares.push(StackWeight { version, weight });
    }
    let sum: u32 = shares.iter().map(|share| u32::from(share.weight.basis_points())).sum();
    if sum == u32::from(Weight::FULL.basis_points()) { Ok(shares) } else { Err(NotAllTraffic(sum).to_string()) }
}

/// Reads the words at a sentence's end as a length of time in milliseconds: `24 hours`.
///
/// # Errors
///
/// What is wrong with the words.
pub(crate) fn duration_ms(words: &[String]) -> Result<Option<u64>, String> {
    if words.is_empty() { Ok(None) } else { api::moment::duration_ms(&words.join(" ")).map(Some) }
}

/// Reads a length of time that is one argument, in milliseconds: `90s`, `"10 minutes"`.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn length_ms(text: &str) -> Result<u64, String> {
    api::moment::duration_ms(text)
}

/// Reads a whole number of things: `50`.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    text.trim().parse().map_err(|error: std::num::ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => "it is too large; write a smaller number, for example 50".to_owned(),
        _ => "it must be a whole number, 0 or more; write one, for example 50".to_owned(),
    })
}

/// Reads a number that may have decimals: `0.5`.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn number(text: &str) -> Result<f64, String> {
    text.trim().parse().map_err(|_| "it must be a number; write one, for example 60 or 0.5".to_owned())
}

/// Reads an id: `0193a6f0-0c41-7b66-b1d2-9e4a6c8f7d03`.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn id<T: FromStr>(text: &str) -> Result<T, String> {
    let wrong = "it is not an id; write a whole one, as 0193a6f0-0c41-7b66-b1d2-9e4a6c8f7d03";
    text.trim().parse().map_err(|_| wrong.to_owned())
}

/// Reads a whole number of seconds: `30`.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| "it must be a whole number of seconds; write one, for example 30".to_owned())
}

/// The canary's weights, rising.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Steps(pub(crate) Vec<Weight>);

/// Reads the steps of a rollout: `1,5,25,100`.
///
/// # Errors
///
/// What is wrong with them.
pub(crate) fn steps(text: &str) -> Result<Steps, String> {
    let steps: Result<Vec<Weight>, _> = text.split(',').map(str::parse).collect();
    let steps = steps.map_err(|error| format!("{error}; write rising percentages, as 1,5,25,100"))?;
    schemas::policy::check_steps(&steps).map_err(|rule| format!("{rule}; write rising percentages, as 1,5,25,100"))?;
    Ok(Steps(steps))
}

/// Reads an environment variable: `NAME=value`, `NAME=from_env:OTHER`, `NAME=from_file:/path`.
///
/// # Errors
///
/// What is wrong with it; a value is not repeated.
pub(crate) fn variable(text: &str) -> Result<(String, EnvValue), String> {
    let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
        let write = "write NAME=value, NAME=from_env:OTHER or NAME=from_file:PATH";
        return Err(format!("it is not a variable; {write}; a release belongs to no environment, a stack does"));
    };
    let value = match value.split_once(':') {
        Some(("from_env", other)) => EnvValue::FromEnv(other.to_owned()),
        Some(("from_file", path)) => EnvValue::FromFile(path.to_owned()),
        _ => EnvValue::Value(value.to_owned()),
    };
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_talks_traffic_sentences_are_read() {
        let read = |text: &str| shares(&words(text)).map(|shares| shares.len());
        assert_eq!(read("1.2.2 90 1.2.3 10"), Ok(2));
        assert_eq!(read("1.2.3 100"), Ok(1));
        assert_eq!(read("1.2.2 99.99% 1.2.3 0.01%"), Ok(2));
    }

    #[test]
    fn shares_that_are_not_all_traffic_are_refused_with_their_sum() {
        let refused = |text: &str| shares(&words(text)).unwrap_err();
        let sum = "the weights sum to 95 % instead of 100 %; name every version that shall keep traffic";
        assert_eq!(refused("1.2.2 90 1.2.3 5"), sum);
        assert_eq!(refused("1.2.2 90 1.2.3"), "version 1.2.3 has no percentage; write pairs, as `1.2.2 90 1.2.3 10`");
        assert_eq!(refused("1.2.2 50 1.2.2 50"), "version 1.2.2 is named twice; name every version once");
        assert!(refused("1.2.2 101").contains("`101` is not a weight"));
        assert!(refused("../x 100").contains("is not a version"));
    }

    #[test]
    fn trailing_words_are_a_length_of_time_with_days_of_24_hours() {
        assert_eq!(duration_ms(&words("24 hours")), Ok(Some(86_400_000)));
        assert_eq!(duration_ms(&words("1 day")), Ok(Some(86_400_000)));
        assert_eq!(duration_ms(&words("1h 30m")), Ok(Some(5_400_000)));
        assert_eq!(duration_ms(&[]), Ok(None));
        assert!(duration_ms(&words("soon")).is_err());
    }

    #[test]
    fn steps_rise_to_all_traffic() {
        let percent = |steps: &[u16]| Steps(steps.iter().map(|step| Weight::from_percent(*step)).collect());
        assert_eq!(steps("1,5,25,100"), Ok(percent(&[1, 5, 25, 100])));
        for text in ["", "1,5", "5,1,100", "0,100", "1,,100"] {
            assert!(steps(text).is_err(), "{text}");
        }
    }

    #[test]
    fn variables_are_values_or_references() {
        let value = |text: &str| variable(text).unwrap().1;
        assert_eq!(value("MODE=fast"), EnvValue::Value("fast".into()));
        assert_eq!(value("URL=http://x:1/?a=b"), EnvValue::Value("http://x:1/?a=b".into()));
        assert_eq!(value("KEY=from_env:API_KEY"), EnvValue::FromEnv("API_KEY".into()));
        assert_eq!(value("KEY=from_file:/run/key"), EnvValue::FromFile("/run/key".into()));
        assert!(!variable("hunter2").unwrap_err().contains("hunter2"));
    }
}
