//! The reference file, `docs/service.toml`: every key with its default and what it is.

use super::table::{Key, Kind, Table, smallest, tables};
use super::value;

/// What stands above the keys.
const HEAD: &str = "\
#:schema ./service.schema.json
# Every key of a service's file, with its default. `ionledger apply SERVICE.toml` declares it; only `name` and `owner`
# must be there. Lengths of time are `250 ms`, `10 s`, `1h 30m`, `24 hours`, `2 days` (of 24 hours), `1 week`.
";

/// What a table of addresses looks like.
const ADDRESSES: &str = "# production = \"127.0.0.1:8080\"\n";

/// What a table of variables looks like.
const VARIABLES: &str = "\
# LOG_LEVEL = \"info\"
# DB_PASSWORD = { from_env = \"API_DB_PASSWORD\" }   # a secret is only referred to: the ledger keeps every text for ever
# TLS_KEY = { from_file = \"/etc/api/key.pem\" }
";

/// Helps stand in this column, or behind a longer value.
const HELP_COLUMN: usize = 30;

/// Returns the reference file.
pub fn reference() -> String {
    let mut file = HEAD.to_owned();
    for Table { name, help, keys } in tables() {
        file.push('\n');
        if !name.is_empty() {
            file.push_str(&line(&format!("[{name}]"), help));
        }
        for key in &keys {
            match key.kind {
                Kind::Addresses => file.push_str(ADDRESSES),
                Kind::Variables => {
                    file.push('\n');
                    file.push_str(&line(&format!("[{name}.{}]", key.name), key.help));
                    file.push_str(VARIABLES);
                }
                Kind::Server { keys, .. } => {
                    file.push_str(&row(key));
                    for key in keys() {
                        file.push_str(&line(&format!("#   {}", key.name), key.help));
                    }
                }
                _ => file.push_str(&row(key)),
            }
        }
    }
    file
}

fn row(key: &Key) -> String {
    let mut smallest = smallest("team");
    let default = value(&key.kind, &mut smallest).filter(|_| key.required.is_none());
    let comment = if default.is_none() && key.required.is_none() { "# " } else { "" };
    let written = key.example.map(str::to_owned).or_else(|| default.map(|value| value.to_string()));
    line(&format!("{comment}{} = {}", key.name, written.unwrap_or_default()), key.help)
}

fn line(setting: &str, help: &str) -> String {
    if help.is_empty() { format!("{setting}\n") } else { format!("{:<HELP_COLUMN$}# {help}\n", format!("{setting}  ")) }
}
