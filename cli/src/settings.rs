//! The settings of what serves: from the command line, else the environment, else a TOML file.

mod file;
mod kafka;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use ledger::log::kafka::KafkaOptions;
use proxy::TrustedProxies;

use crate::args::Globals;
use crate::failure::{CommandResult, Failure};
use crate::place::LedgerLocation;
use file::File;

/// How Kafka is reached: for every command that may go there itself.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct KafkaArgs {
    /// A file with settings of the server and of Kafka, as docs/ionledger.toml has them
    #[arg(long, value_name = "FILE", env = "IONLEDGER_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Take a Kafka of fewer than three brokers, which can be lost with one
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(env = "IONLEDGER_DEV", hide_env_values = true, hide_possible_values = true)]
    dev: Option<bool>,
}

/// What a process that serves is told.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ServerArgs {
    /// Where the ledger lies: a data folder, or `kafka://HOST:PORT[,HOST:PORT...][/TOPIC]` [default: the data folder]
    #[arg(long, value_name = "PLACE", env = "IONLEDGER_LEDGER", hide_env_values = true)]
    ledger: Option<LedgerLocation>,
    /// Also answer HTTP on this address
    #[arg(long, value_name = "ADDRESS:PORT", env = "IONLEDGER_LISTEN", hide_env_values = true, value_parser = address)]
    listen: Option<SocketAddr>,
    /// The group, besides the owner, whose members may use the data folder's socket, each as a person
    #[arg(long, value_name = "GROUP", env = "IONLEDGER_SOCKET_GROUP", hide_env_values = true, value_parser = group)]
    socket_group: Option<u32>,
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// The settings of a process that serves, wherever each was written.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerSettings {
    /// The data folder of the file; the command line and the environment come first.
    data: Option<PathBuf>,
    /// Where the ledger lies; in the data folder if nobody says.
    pub(crate) ledger: Option<LedgerLocation>,
    /// Where HTTP is answered.
    pub(crate) listen: Option<SocketAddr>,
    /// Files with secrets that CI signs its releases with.
    pub(crate) ci_secret_files: Vec<PathBuf>,
    /// Whether CI must sign as Standard Webhooks do.
    pub(crate) ci_only_webhooks: bool,
    /// The proxies whose word on who asked is believed.
    pub(crate) trusted_proxies: TrustedProxies,
    /// How many connections an address may have over TCP; as many as there are if there is nothing.
    pub(crate) connections_per_address_max: Option<usize>,
    /// How much the files that no release names may take, in bytes.
    pub(crate) unnamed_artifacts_bytes_max: Option<u64>,
    /// The group whose members may use the data folder's socket.
    pub(crate) socket_group: Option<u32>,
    /// Files with other secrets.
    pub(crate) secret_files: Vec<PathBuf>,
    /// How Kafka is reached.
    pub(crate) kafka: KafkaOptions,
}

impl ServerArgs {
    /// Returns the settings.
    ///
    /// # Errors
    ///
    /// A usage error with the file, line and key, or the variable, that is wrong.
    pub(crate) fn settings(&self) -> CommandResult<ServerSettings> {
        let mut settings = self.kafka.settings()?;
        settings.ledger = self.ledger.clone().or(settings.ledger);
        settings.listen = self.listen.or(settings.listen);
        settings.socket_group = self.socket_group.or(settings.socket_group);
        Ok(settings)
    }
}

impl KafkaArgs {
    /// Returns how Kafka is reached.
    ///
    /// # Errors
    ///
    /// As [`ServerArgs::settings`].
    pub(crate) fn options(&self) -> CommandResult<KafkaOptions> {
        Ok(self.settings()?.kafka)
    }

    /// Returns the settings, without what the command line says of the server.
    ///
    /// # Errors
    ///
    /// As [`ServerArgs::settings`].
    pub(crate) fn settings(&self) -> CommandResult<ServerSettings> {
        let file = self.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
        let File { data, ledger, dev, listen, ci_secret_files, ci_only_webhooks, socket_group, .. } = file;
        let File { connections_per_address_max, unnamed_artifacts_bytes_max, trusted_proxies, kafka: written, .. } =
            file;
        let trusted_proxies = trusted_from_environment()?.or(trusted_proxies).unwrap_or_default();
        let environment = kafka::from_environment(std::env::vars_os()).map_err(Failure::usage)?;
        let kafka = written.overridden_by(environment);
        let secret_files = kafka.secret_files();
        let mut kafka = kafka.options().map_err(Failure::usage)?;
        kafka.dev = self.dev.or(dev).unwrap_or(false);
        kafka.validate().map_err(Failure::usage)?;
        Ok(ServerSettings {
            data,
            ledger,
            listen,
            ci_secret_files,
            ci_only_webhooks,
            trusted_proxies,
            connections_per_address_max,
            unnamed_artifacts_bytes_max,
            socket_group,
            secret_files,
            kafka,
        })
    }
}

impl ServerSettings {
    /// Refuses what is no ledger in Kafka: of `process`, whose part `up` has too.
    ///
    /// # Errors
    ///
    /// A usage error.
    pub(crate) fn need_kafka(&self, process: &str, part: &str) -> CommandResult<()> {
        match self.ledger {
            Some(LedgerLocation::Kafka(_)) => Ok(()),
            _ => Err(Failure::usage(format!(
                "{process} needs a ledger in Kafka; name it with --ledger kafka://HOST:PORT, or run `ionledger up`, which \
                 includes {part}"
            ))),
        }
    }

    /// Returns the data folder.
    ///
    /// # Errors
    ///
    /// A usage error if nobody names one and the user has no home.
    pub(crate) fn data(&self, globals: &Globals) -> CommandResult<PathBuf> {
        match (&globals.data, &self.data) {
            (None, Some(data)) => Ok(data.clone()),
            _ => globals.data(),
        }
    }
}

/// Returns the proxies that the settings file at `path` believes.
///
/// # Errors
///
/// A usage error with the line that is wrong.
pub(crate) fn trusted_from_file(path: &Path) -> CommandResult<TrustedProxies> {
    Ok(File::read(path)?.trusted_proxies.unwrap_or_default())
}

/// The variable that names them for `up`, and for the proxy that it starts.
fn trusted_from_environment() -> CommandResult<Option<TrustedProxies>> {
    const NAME: &str = "IONLEDGER_TRUSTED_PROXIES";
    let Some(text) = std::env::var_os(NAME) else { return Ok(None) };
    let trusted = text.to_string_lossy().parse();
    trusted.map(Some).map_err(|error| Failure::usage(format!("{NAME}: {error}")))
}

/// Says where a setting of Kafka may be written.
fn called(key: &str) -> String {
    format!("kafka.{key} (IONLEDGER_KAFKA_{})", key.to_uppercase())
}

/// Reads where to listen.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "it is not an address; write `127.0.0.1:7070`".to_owned())
}

/// Reads a group, by its name or number.
pub(crate) fn group(text: &str) -> Result<u32, String> {
    workers::identity::group_number(text).ok_or_else(|| {
        format!("the group {text} is not in /etc/group; make it with `groupadd --system {text}`, or name another")
    })
}

/// Returns a path of a file's, which lies below the file's own folder unless it begins with `/`.
fn below(base: &Path, path: &str) -> Result<PathBuf, String> {
    match path {
        "" => Err("it is empty; name a file or leave it out".to_owned()),
        path => std::path::absolute(base.join(path)).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests;
