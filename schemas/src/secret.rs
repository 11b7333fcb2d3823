//! Recognises what looks like a secret, so that none gets into events that are kept for ever.

/// Prefixes that issuers of credentials give them so that scanners can find them.
const KNOWN_PREFIXES: &[&str] = &[
    "AKIA",
    "ASIA",
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "xoxa-",
    "sk_live_",
    "sk-",
    "rk_live_",
    "SG.",
    "npm_",
    "pypi-",
    "AIza",
    "eyJhbGciOi",
    "-----BEGIN",
    "hvs.",
    "dop_v1_",
];

/// Words in a variable's name that say its value is a secret.
const TELLING_WORDS: &[&str] = &[
    "PASSWORD",
    "PASSWD",
    "SECRET",
    "TOKEN",
    "APIKEY",
    "API_KEY",
    "PRIVATE_KEY",
    "CREDENTIAL",
    "ACCESS_KEY",
    "PASSPHRASE",
];

/// Says why a variable `name` with the literal `value` looks like a secret, if it does.
pub fn looks_like_secret(name: &str, value: &str) -> Option<&'static str> {
    if value.is_empty() {
        return None;
    }
    let upper = name.to_ascii_uppercase().replace('-', "_");
    if TELLING_WORDS.iter().any(|word| upper.contains(word)) && !is_plain(value) {
        return Some("its name says so");
    }
    looks_like_secret_value(value)
}

/// Says why an argument looks like a secret, if it does: `--password=x`, or a credential by its form.
pub fn looks_like_secret_argument(argument: &str) -> Option<&'static str> {
    match argument.split_once('=') {
        Some((name, value)) => looks_like_secret(name, value),
        None => looks_like_secret_value(argument),
    }
}

/// Says why `value` looks like a secret whatever its name, if it does.
pub fn looks_like_secret_value(value: &str) -> Option<&'static str> {
    if KNOWN_PREFIXES.iter().any(|prefix| value.starts_with(prefix)) && value.len() >= 16 {
        return Some("it begins like a known kind of credential");
    }
    if value.split_once("://").and_then(|(_, rest)| rest.split('/').next()).is_some_and(has_password) {
        return Some("it is an address with a password in it");
    }
    let one_word = value.len() >= 32 && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=_-".contains(&b));
    if one_word && !value.bytes().all(|b| b.is_ascii_hexdigit()) && entropy_bits(value) > 4.3 {
        return Some("it looks random");
    }
    None
}

/// Numbers and switches are not secrets even under a telling name (`TOKEN_TTL_S=30`).
fn is_plain(value: &str) -> bool {
    value.parse::<f64>().is_ok_and(|n| n.abs() < 1e6) || matches!(value, "true" | "false" | "on" | "off" | "yes" | "no")
}

fn has_password(authority: &str) -> bool {
    authority
        .rsplit_once('@')
        .and_then(|(user, _)| user.split_once(':'))
        .is_some_and(|(_, password)| !password.is_empty())
}

/// Shannon's entropy of the characters, in bits each.
fn entropy_bits(text: &str) -> f64 {
    let mut counts = [0_u32; 256];
    text.bytes().for_each(|b| counts[usize::from(b)] += 1);
    let total = text.len() as f64;
    counts.iter().filter(|n| **n > 0).map(|n| f64::from(*n) / total).map(|p| -p * p.log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_recognised() {
        for (name, value) in [
            ("DB_PASSWORD", "correct horse"),
            ("X", "AKIAIOSFODNN7EXAMPLE"),
            ("X", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"),
            ("DATABASE_URL", "postgres://app:hunter2@db/app"),
            ("X", "-----BEGIN PRIVATE KEY-----\nabc"),
            ("X", "q7RkP2vLx9Zt4WnB8sYc1MdG6hJf3AeU5oTi"),
        ] {
            assert!(looks_like_secret(name, value).is_some(), "{name}={value}");
        }
        assert!(looks_like_secret_argument("--db-password=abc12345").is_some());
    }

    #[test]
    fn ordinary_settings_pass() {
        for (name, value) in [
            ("LOG_LEVEL", "debug"),
            ("TOKEN_TTL_S", "300"),
            ("DATABASE_URL", "postgres://db/app"),
            ("COMMIT", "0a7d493c1d0a7d493c1d0a7d493c1d0a7d493c1d"),
            ("GREETING", "hello there, this is a long sentence of ordinary words"),
        ] {
            assert_eq!(looks_like_secret(name, value), None, "{name}={value}");
        }
        assert_eq!(looks_like_secret_argument("--port={port}"), None);
    }
}
