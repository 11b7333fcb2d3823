//! The server's HTTP API, as much of it as is used, and nothing believed of its answers.
//!
//! Source: prometheus.io/docs/prometheus/latest/querying/api, `query_range` and `query`.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::path::Path;
use std::time::Duration;

use reqwest::header::AUTHORIZATION;
use schemas::policy::Prometheus;
use schemas::run::EnvValue;
use schemas::text;
use serde::Deserialize;

use super::super::Failure;
use super::series::{Grid, Series};
use crate::text_file;

/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// How long a whole answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Asks one server.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    address: String,
    token: Option<EnvValue>,
}

/// What a query found.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct QueryResult {
    pub(super) series: Vec<Series>,
    pub(super) warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Envelope {
    status: String,
    #[serde(default)]
    data: Option<Data>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: serde_json::Value,
}

#[derive(Deserialize)]
struct Found {
    metric: BTreeMap<String, String>,
    values: Vec<(f64, String)>,
}

impl Client {
    /// Returns a client of the policy's server.
    pub(super) fn new(policy: &Prometheus) -> Result<Self, Failure> {
        let address = policy.address.trim_end_matches('/').to_owned();
        // reqwest brings no cryptography of its own. Another client may have set it before, which is as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A proxy for the way to the internet is none for the way to a server of one's own.
        let http = || {
            let http = reqwest::Client::builder().no_proxy().user_agent("ionledger");
            http.connect_timeout(CONNECT_MAX).timeout(ANSWER_MAX)
        };
        // A server without TLS is asked also where the system has no certificates.
        let is_plain = address.starts_with("http://");
        let built =
            http().build().or_else(|error| if is_plain { http().tls_certs_only([]).build() } else { Err(error) });
        match built {
            Ok(http) => Ok(Self { http, token: policy.token.clone(), address }),
            Err(error) => Err(Failure::Unasked { reason: chain(&error), at: address }),
        }
    }

    /// Returns what the server is called.
    pub(super) fn at(&self) -> &str {
        &self.address
    }

    /// Returns every series that `query` finds on the grid.
    pub(super) async fn range(&self, query: &str, grid: Grid) -> Result<QueryResult, Failure> {
        let [start, end, step] = grid.asked();
        let parameters = [("query", query), ("start", &start), ("end", &end), ("step", &step)];
        let (found, warnings) = self.ask("query_range", query, &parameters, "matrix").await?;
        let garbage = |what: String| self.garbage(query, what);
        let found: Vec<Found> = serde_json::from_value(found).map_err(|error| garbage(error.to_string()))?;
        let series = found.into_iter().map(|found| Series::read(found.metric, &found.values, grid));
        Ok(QueryResult { series: series.collect::<Result<_, String>>().map_err(garbage)?, warnings })
    }

    /// Says whether there is any series now, whosever, of the metric `name`.
    pub(super) async fn has_metric(&self, name: &str) -> Result<bool, Failure> {
        let query = format!("count({name})");
        let (found, _) = self.ask("query", &query, &[("query", &query)], "vector").await?;
        Ok(found.as_array().is_some_and(|found| !found.is_empty()))
    }

    async fn ask(
        &self,
        call: &str,
        query: &str,
        parameters: &[(&str, &str)],
        wanted: &str,
    ) -> Result<(serde_json::Value, Vec<String>), Failure> {
        let mut request = self.http.get(format!("{}/api/v1/{call}", self.address)).query(parameters);
        if let Some(token) = self.token()? {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let mut response = request.send().await.map_err(|error| self.broken(&error))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(&error))? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_BYTES_MAX {
                return Err(self.garbage(query, format!("more than {ANSWER_BYTES_MAX} bytes")));
            }
        }
        // The server says in JSON what it refuses, under any status; whatever stands before it does not.
        let envelope: Envelope = match serde_json::from_slice(&body) {
            Ok(envelope) => envelope,
            Err(_) if !status.is_success() => {
                let (at, body) = (self.address.clone(), beginning(&String::from_utf8_lossy(&body)));
                return Err(Failure::Status { at, status: status.as_u16(), body });
            }
            Err(error) => return Err(self.garbage(query, format!("what is not an answer of its API: {error}"))),
        };
        if envelope.status != "success" || !status.is_success() {
            let reason = beginning(&envelope.error.unwrap_or_else(|| format!("status {status} without a reason")));
            return Err(Failure::Refused { at: self.address.clone(), query: query.to_owned(), reason });
        }
        let warnings = envelope.warnings.iter().map(|warning| beginning(warning)).collect();
        match envelope.data {
            Some(data) if data.result_type == wanted => Ok((data.result, warnings)),
            Some(data) => {
                let found = beginning(&data.result_type);
                Err(self.garbage(query, format!("a {found}; it must find a {wanted} of counters")))
            }
            None => Err(self.garbage(query, "no data".to_owned())),
        }
    }

    /// Returns the token as it is now: whoever renews it need not tell.
    fn token(&self) -> Result<Option<String>, Failure> {
        let unasked = |reason| Failure::Unasked { at: self.address.clone(), reason };
        let found = match &self.token {
            None => return Ok(None),
            Some(EnvValue::FromEnv(name)) => std::env::var(name).map_err(|error| format!("its token, {name}: {error}")),
            Some(EnvValue::FromFile(path)) => {
                text_file::read_text(Path::new(path)).map_err(|error| format!("its token, {path}: {error}"))
            }
            Some(EnvValue::Value(_)) => Err("its token is in the policy itself".to_owned()),
        };
        let token = found.map_err(unasked)?.trim().to_owned();
        let fits = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Some(token)) } else { Err(unasked("its token is empty or holds what no token does".to_owned())) }
    }

    fn garbage(&self, query: &str, what: String) -> Failure {
        Failure::Garbage { at: self.address.clone(), query: query.to_owned(), what: text::tidy(&what) }
    }

    fn broken(&self, error: &reqwest::Error) -> Failure {
        let at = self.address.clone();
        if error.is_timeout() {
            let after = if error.is_connect() { CONNECT_MAX } else { ANSWER_MAX };
            Failure::TimedOut { at, after }
        } else {
            Failure::Unreachable { at, cause: chain(error) }
        }
    }
}

/// Returns what lies at the bottom of an error: its top only says that there was one, and repeats the query.
fn chain(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    while let Some(below) = cause.and_then(|cause| cause.source()) {
        cause = Some(below);
    }
    text::tidy(&cause.map_or_else(|| error.to_string(), ToString::to_string))
}

/// Returns the beginning of what a stranger wrote, as it may be kept.
fn beginning(text: &str) -> String {
    text::tidy(&text.chars().take(300).collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn client(address: &str) -> Result<Client, Failure> {
        let (address, queries) = (address.to_owned(), Default::default());
        Client::new(&Prometheus { address, token: None, scrape_interval_ms: 15_000, queries })
    }

    #[test]
    fn a_server_without_tls_is_asked_also_where_the_system_has_no_certificates() {
        const NAME: &str = "a_server_without_tls_is_asked_also_where_the_system_has_no_certificates";
        let none = "/dev/null";
        if std::env::var("SSL_CERT_FILE").is_ok_and(|file| file == none) {
            assert!(client("http://localhost:9090").is_ok());
            assert!(matches!(client("https://localhost:9090"), Err(Failure::Unasked { .. })));
            return;
        }
        // Where the certificates lie is said to a process as a whole, so another one asks.
        let folder = tempfile::tempdir().unwrap();
        let mut test = Command::new(std::env::current_exe().unwrap());
        test.args(["--exact", &format!("{}::{NAME}", module_path!().split_once("::").unwrap().1)]);
        let output = test.env("SSL_CERT_FILE", none).env("SSL_CERT_DIR", folder.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }
}
