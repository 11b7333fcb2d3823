//! The settings file, `ionledger.toml`. Every key is in docs/ionledger.toml.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use api::document::{Document, Error, Item, Section};
use ledger::log::kafka::reserved;
use proxy::TrustedProxies;
use workers::text_file;

use super::kafka::{KEYS, Kafka, SECRETS, is_path};
use super::{address, below, group};
use crate::failure::{CommandResult, Failure};
use crate::place::LedgerLocation;

/// What a settings file says.
#[derive(Clone, Debug, Default)]
pub(super) struct File {
    pub(super) data: Option<PathBuf>,
    pub(super) ledger: Option<LedgerLocation>,
    pub(super) dev: Option<bool>,
    pub(super) listen: Option<SocketAddr>,
    pub(super) ci_secret_files: Vec<PathBuf>,
    pub(super) ci_only_webhooks: bool,
    pub(super) trusted_proxies: Option<TrustedProxies>,
    pub(super) connections_per_address_max: Option<usize>,
    pub(super) unnamed_artifacts_bytes_max: Option<u64>,
    pub(super) socket_group: Option<u32>,
    pub(super) kafka: Kafka,
}

impl File {
    /// Reads a settings file. What it names is named from its own folder.
    pub(super) fn read(path: &Path) -> CommandResult<Self> {
        let name = path.display().to_string();
        let text = text_file::read_text(path)
            .map_err(|error| Failure::usage(format!("cannot read {name}: {error}; name the settings file")))?;
        let path = std::path::absolute(path).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
        Self::parse(&name, &text, path.parent().unwrap_or(&path)).map_err(|error| Failure::file(&error))
    }

    /// Reads what is written in a settings file called `name` in the folder `base`.
    pub(super) fn parse(name: &str, text: &str, base: &Path) -> Result<Self, Error> {
        let document = Document::parse(name, text)?;
        let mut root = document.root();
        let path = |item: &Item<'_>| item.checked(|text| below(base, text));
        let file = Self {
            data: root.get("data").as_ref().and_then(path),
            ledger: root.get("ledger").and_then(|item| item.checked(|text| LedgerLocation::read(text, base))),
            dev: root.get("dev").and_then(|item| item.boolean()),
            listen: root.get("listen").and_then(|item| item.checked(address)),
            ci_secret_files: (root.get("ci_secret_files").and_then(|item| item.list()))
                .map(|items| items.iter().filter_map(path).collect())
                .unwrap_or_default(),
            ci_only_webhooks: root.get("ci_only_webhooks").and_then(|item| item.boolean()).unwrap_or(false),
            trusted_proxies: (root.get("trusted_proxies").and_then(|item| item.list()))
                .map(|items| items.iter().filter_map(|item| item.checked(str::parse::<TrustedProxies>)).collect()),
            connections_per_address_max: (root.get("connections_per_address_max"))
                .and_then(|item| item.valid(item.integer::<usize>()?, at_least_one)),
            unnamed_artifacts_bytes_max: root.get("unnamed_artifacts_bytes_max").and_then(|item| item.integer()),
            socket_group: root.get("socket_group").and_then(|item| item.checked(group)),
            kafka: kafka(root.section("kafka"), base),
        };
        root.end();
        document.finish().map(|()| file)
    }
}

fn at_least_one(number: &usize) -> Result<(), String> {
    if *number > 0 {
        Ok(())
    } else {
        Err("with 0 no connection would be accepted; write at least 1, or leave it out".to_owned())
    }
}

fn kafka(mut section: Section<'_>, base: &Path) -> Kafka {
    let mut kafka = Kafka::default();
    for key in KEYS {
        let value = section.get(key).and_then(|item| {
            let path = |text: &str| Ok(below(base, text)?.to_string_lossy().into_owned());
            item.checked(|text| if is_path(key) { path(text) } else { Ok(text.to_owned()) })
        });
        kafka.values.extend(value.map(|value| (key, value)));
    }
    if let Some(client) = section.get("client").and_then(|item| item.table()) {
        choices(client, "", &mut kafka);
    }
    for secret in SECRETS {
        let variable = secret.to_uppercase();
        let next = format!("a secret may not be in this file; write {secret}_file, or set IONLEDGER_KAFKA_{variable}");
        section.refuse(secret, &next);
    }
    section.end();
    kafka
}

/// Takes settings of the client library, whose names have dots: `socket.keepalive.enable` is three tables in TOML.
fn choices(section: Section<'_>, before: &str, kafka: &mut Kafka) {
    for item in section.all() {
        let name = format!("{before}{}", item.key());
        if item.is_table() {
            if let Some(inner) = item.table() {
                choices(inner, &format!("{name}."), kafka);
            }
        } else if let Some(why) = reserved(&name) {
            let _ = item.wrong::<()>(format!("this cannot be set: {why}"));
        } else {
            kafka.client.extend(item.plain().map(|value| (name, value)));
        }
    }
}
