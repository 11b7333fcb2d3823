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
    "whsec_",
];

/// What this program's own tokens begin with; at least so many hexadecimal digits follow.
const OWN_TOKEN: &str = "ion_";
const OWN_TOKEN_DIGITS_MIN: usize = 16;

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

/// Endings of a variable's name that say its value only points at a secret (`TOKEN_FILE=/run/secrets/token`).
const POINTING_ENDINGS: &[&str] = &["_FILE", "_PATH", "_DIR", "_URL", "_URI", "_NAME", "_HEADER"];

/// Says why a variable `name` with the literal `value` looks like a secret, if it does.
pub fn looks_like_secret(name: &str, value: &str) -> Option<&'static str> {
    told_by_name(name, value).or_else(|| looks_like_secret_value(value))
}

fn told_by_name(name: &str, value: &str) -> Option<&'static str> {
    let upper = name.to_ascii_uppercase().replace('-', "_");
    let points = POINTING_ENDINGS.iter().any(|ending| upper.ends_with(ending));
    let told = !points && TELLING_WORDS.iter().any(|word| upper.contains(word));
    (told && !value.is_empty() && !is_plain(value)).then_some("its name says so")
}

/// Says why an argument looks like a secret, if it does: `--password=x`, or a credential by its form.
pub fn looks_like_secret_argument(argument: &str) -> Option<&'static str> {
    match argument.split_once('=') {
        Some((name, value)) => looks_like_secret(name, value),
        None => looks_like_secret_value(argument),
    }
}

/// Says why one of a program's arguments, and the one after it, look like a secret: also `--password x`.
pub fn looks_like_secret_arguments(argument: &str, next: Option<&str>) -> Option<&'static str> {
    let value = next.filter(|next| argument.starts_with('-') && !argument.contains('=') && !next.starts_with('-'));
    looks_like_secret_argument(argument).or_else(|| looks_like_secret(argument, value?))
}

/// Says why a word of a sentence looks like a secret, if it does. Words that look random pass: they are run ids and
/// trace ids more often.
pub fn looks_like_secret_word(word: &str) -> Option<&'static str> {
    match word.split_once('=') {
        Some((name, value)) => told_by_name(name, value).or_else(|| told_by_form(value)),
        None => told_by_form(word),
    }
}

/// Says why `value` looks like a secret whatever its name, if it does.
pub fn looks_like_secret_value(value: &str) -> Option<&'static str> {
    let random = || value.split(|c: char| !c.is_ascii_alphanumeric()).any(is_random).then_some("it looks random");
    told_by_form(value).or_else(random)
}

fn told_by_form(value: &str) -> Option<&'static str> {
    if KNOWN_PREFIXES.iter().any(|prefix| value.starts_with(prefix)) && value.len() >= 16 {
        return Some("it begins like a known kind of credential");
    }
    if has_own_token(value) {
        return Some("it holds a token of ionledger");
    }
    if value.split_once("://").and_then(|(_, rest)| rest.split('/').next()).is_some_and(has_password) {
        return Some("it is an address with a password in it");
    }
    None
}

/// Says whether a token of this program's stands anywhere in `value`, as after `Bearer ` or in an address.
fn has_own_token(value: &str) -> bool {
    value.match_indices(OWN_TOKEN).any(|(at, prefix)| {
        let begins = !value[..at].ends_with(|before: char| before.is_alphanumeric());
        let digits = value[at + prefix.len()..].bytes().take_while(u8::is_ascii_hexdigit).count();
        begins && digits >= OWN_TOKEN_DIGITS_MIN
    })
}

/// Says whether an unbroken run of letters and digits is one that nobody would make up. Hashes are not meant, nor
/// what is put together of words.
fn is_random(run: &str) -> bool {
    let any = |class: fn(&u8) -> bool| run.as_bytes().iter().any(class);
    let mixed = any(u8::is_ascii_lowercase) && any(u8::is_ascii_uppercase);
    let long = run.len() >= 32 || (run.len() >= 20 && mixed);
    long && any(u8::is_ascii_digit) && !run.bytes().all(|b| b.is_ascii_hexdigit()) && entropy_bits(run) > 3.9
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

    const OWN: &str = "ion_3b1f0c9d5e7a82463b1f0c9d5e7a82463b1f0c9d5e7a82463b1f0c9d5e7a8246";

    #[test]
    fn secrets_are_recognised() {
        for (name, value) in [
            ("DB_PASSWORD", "correct horse"),
            ("X", "AKIAIOSFODNN7EXAMPLE"),
            ("X", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"),
            ("DATABASE_URL", "postgres://app:hunter2@db/app"),
            ("X", "-----BEGIN PRIVATE KEY-----\nabc"),
            ("X", "q7RkP2vLx9Zt4WnB8sYc1MdG6hJf3AeU5oTi"),
            ("X", OWN),
            ("X", &format!("Bearer {OWN}")),
            ("X", &format!("https://ledger/v1?token={OWN}&x=1")),
            ("X", &OWN[..24]),
            ("X", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"),
            ("X", "k3v9x1q8z2m7w5t0p4s6r1y8u2b5n7c3"),
        ] {
            assert!(looks_like_secret(name, value).is_some(), "{name}={value}");
        }
        assert!(looks_like_secret_argument("--db-password=abc12345").is_some());
        assert!(looks_like_secret_argument(&format!("--ledger={OWN}")).is_some());
        assert!(looks_like_secret_arguments("--ledger", Some(OWN)).is_some());
        assert!(looks_like_secret_word(&format!("({OWN}),")).is_some());
        assert!(looks_like_secret_arguments("--db-password", Some("abc12345")).is_some());
    }

    #[test]
    fn ordinary_settings_pass() {
        for (name, value) in [
            ("LOG_LEVEL", "debug"),
            ("TOKEN_TTL_S", "300"),
            ("TOKEN_FILE", "/run/secrets/token"),
            ("OAUTH_TOKEN_URL", "https://login.example.com/token"),
            ("DATABASE_URL", "postgres://db/app"),
            ("COMMIT", "0a7d493c1d0a7d493c1d0a7d493c1d0a7d493c1d"),
            ("BRANCH", "feature/JIRA-1234-some-long-branch-name-for-checkout"),
            ("BINARY", "checkout-service-linux-x86_64-gnu-v1234567"),
            ("CA", "/usr/local/share/ca-certificates/example-root-2024"),
            ("ULID", "01ARZ3NDEKTSV4RRFFQ69G5FAV"),
            ("BUILD", "version_0a7d493c1d0a7d493c1d"),
            ("QUEUE", "ion_exchange_production"),
            ("SHORT", "ion_0a7d493"),
            ("GREETING", "hello there, this is a long sentence of ordinary words"),
        ] {
            assert_eq!(looks_like_secret(name, value), None, "{name}={value}");
        }
        assert_eq!(looks_like_secret_argument("--port={port}"), None);
        assert_eq!(looks_like_secret_word("k3v9x1q8z2m7w5t0p4s6r1y8u2b5n7c3"), None);
        assert_eq!(looks_like_secret_arguments("--token-file", Some("/run/secrets/token")), None);
        assert_eq!(looks_like_secret_arguments("--password-prompt", Some("--verbose")), None);
    }
}
